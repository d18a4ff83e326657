# GpuOrch.pm: what tests of the leader share: a node with the extension, waiting for its leader, and
# questions to its log. Must name no path of an installation: the server finds the extension itself.
package GpuOrch;

use strict;
use warnings;
use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_node set_and_reload wait_for_leader leader_pid wait_until lines_of_leader count_lines
	is_ended holds_invariants sqlstate_of);

# new_node(NAME, SETTING => VALUE, ...): a running node that preloads gpu_orch for database "app",
# where the extension is. The database is there before the leader starts for the first time.
sub new_node
{
	my ($name, %settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => delete $settings{allows_streaming});
	$node->start;
	$node->safe_psql('postgres', 'CREATE DATABASE app');
	$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'gpu_orch'
gpu_orch.database = 'app'
gpu_orch.cycle_interval = '200ms'
CONF
	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'") for sort keys %settings;
	$node->restart;
	$node->safe_psql('app', 'CREATE EXTENSION gpu_orch');
	return $node;
}

# set_and_reload(NODE, SETTING => VALUE, ...): change settings of a running node.
sub set_and_reload
{
	my ($node, %settings) = @_;

	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'") for sort keys %settings;
	$node->reload;
	return;
}

# leader_pid(NODE): the leader's process id, or an empty string.
sub leader_pid
{
	my ($node) = @_;

	return $node->safe_psql('app', 'SELECT pid FROM gpu_orch.leader_status()');
}

# wait_for_leader(NODE, NOT_PID): wait until a leader acts and has ticked; with NOT_PID, another one
# than that. Returns its process id. Fails the test when none comes.
sub wait_for_leader
{
	my ($node, $not_pid) = @_;

	$not_pid ||= 0;
	ok( $node->poll_query_until('app',
			"SELECT pid <> $not_pid AND doing = 'acting' AND last_tick >= started_at FROM gpu_orch.leader_status()"),
		$not_pid ? 'another leader acts' : 'a leader acts')
	  or BAIL_OUT('no leader: ' . $node->safe_psql('app', 'SELECT gpu_orch.status()'));
	return leader_pid($node);
}

# wait_until(WHAT, SUB): poll until the sub is true; dies after the usual limit.
sub wait_until
{
	my ($what, $true) = @_;

	for (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $value = $true->();

		return $value if $value;
		select undef, undef, undef, 0.05;
	}
	die "gave up waiting until $what";
}

# is_ended(PID): whether a process has ended, though its parent may not have taken note yet.
sub is_ended
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	return (<$stat> // ') Z') =~ /\) [ZX]/;
}

# lines_of_leader(NODE, LEVELS, OFFSET): lines of the log, from an offset in bytes, at one of these
# levels ("ERROR|FATAL") and by a process that serves no client: those have the shorter prefix.
sub lines_of_leader
{
	my ($node, $levels, $offset) = @_;

	return grep { /^\S+ \S+ \S+ \[\d+\] (?:$levels):/ }
	  split /\n/, slurp_file($node->logfile, $offset // 0);
}

# count_lines(NODE, PATTERN, OFFSET): how many lines of the log match, from an offset in bytes.
sub count_lines
{
	my ($node, $pattern, $offset) = @_;

	return scalar grep { /$pattern/ } split /\n/, slurp_file($node->logfile, $offset // 0);
}

# holds_invariants(NODE, TEST_NAME): each row of check_invariants() holds.
sub holds_invariants
{
	my ($node, $name) = @_;

	is($node->safe_psql('app', q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}),
		'', $name // 'every invariant holds');
	return;
}

# sqlstate_of(NODE, SQL, DATABASE): the SQLSTATE that a statement fails with, and what was printed; an empty
# state when it succeeds.
sub sqlstate_of
{
	my ($node, $sql, $database) = @_;
	my ($rc, $stdout, $stderr) =
	  $node->psql($database // 'app', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return ($rc == 0 ? '' : ($stderr =~ /ERROR:\s+(\w{5}):/)[0] // 'none', $stderr);
}

1;
