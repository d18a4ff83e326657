# GpuOrch.pm: a server with the extension, as tests use it: it is made and asked by methods. Everything is in database
# "app". Provider.pm is the provider that its leader calls. Must name no path of an installation: the server finds the
# extension itself.
#
#   my $provider = Provider->start('--boot-seconds', '0');
#   my $node = GpuOrch->calling($provider, 'money', 'gpu_orch.spawn_rate_limit' => 1000);
#   my $id = $node->spawn('p');
#   is($node->sql('SELECT count(*) FROM gpu_orch.workers'), 1, 'there is one worker');
#   $node->until('it has a price', "SELECT price_per_hour > 0 FROM gpu_orch.workers WHERE worker_id = '$id'");
#   $node->holds_invariants;
package GpuOrch;

use strict;
use warnings FATAL => 'all';
use parent 'PostgreSQL::Test::Cluster';
use Exporter qw(import);
use File::Spec;
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Test::More import => [qw(BAIL_OUT is ok)];

our @EXPORT = qw(wait_until is_ended);

# The database that the methods ask, unless in_database() names another.
our $database = 'app';

#
# Making a server. new(NAME), of the base class, makes one without files, for a standby or a copy.
#

# running(NAME, SETTING => VALUE, ...): a running server that preloads gpu_orch for database "app", where the extension
# is. The database is there before the leader starts for the first time. allows_streaming => 1 is for init().
sub running
{
	my ($class, $name, %settings) = @_;
	my $self = $class->new($name);

	$self->init(allows_streaming => delete $settings{allows_streaming});
	$self->start;
	$self->safe_psql('postgres', 'CREATE DATABASE app');
	$self->_append(
		shared_preload_libraries => 'gpu_orch',
		'gpu_orch.database' => 'app',
		'gpu_orch.cycle_interval' => '200ms',
		%settings);
	$self->restart;
	$self->sql('CREATE EXTENSION gpu_orch');
	return $self;
}

# calling(PROVIDER, NAME, SETTING => VALUE, ...): the same, and the leader calls this provider. Pods are told to connect
# as role "pod".
sub calling
{
	my ($class, $provider, $name, %settings) = @_;
	my $key_file = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir() . '/api_key');

	umask 077;
	append_to_file($key_file, $provider->{key});
	my $self = $class->running(
		$name,
		'gpu_orch.test_clock' => 'on',
		'gpu_orch.runpod_api_url' => "http://$provider->{address}/v2",
		'gpu_orch.runpod_api_key_file' => $key_file,
		'gpu_orch.reconcile_interval' => '500ms',
		'gpu_orch.heartbeat_interval' => '1s',
		'gpu_orch.settle_time' => '2s',
		'gpu_orch.http_timeout' => '2s',
		'restart_after_crash' => 'on',
		%settings);
	$self->sql('CREATE ROLE pod LOGIN IN ROLE gpu_orch_worker');
	$self->set('gpu_orch.worker_dsn' =>
		  sprintf('host=%s port=%d dbname=app user=pod', $self->host, $self->port));
	return $self;
}

# give_to_ordinary_owner(ROLE): the extension anew, made by this new role, who has lost SUPERUSER since.
sub give_to_ordinary_owner
{
	my ($self, $role) = @_;

	$self->sql(qq{
		DROP EXTENSION gpu_orch;
		DROP SCHEMA gpu_orch;
		CREATE ROLE $role SUPERUSER LOGIN;
		SET SESSION AUTHORIZATION $role;
		CREATE EXTENSION gpu_orch;
		RESET SESSION AUTHORIZATION;
		ALTER ROLE $role NOSUPERUSER});
	return;
}

sub _append
{
	my ($self, %settings) = @_;

	$self->append_conf('postgresql.conf', "$_ = '$settings{$_}'") for sort keys %settings;
	return;
}

# set(SETTING => VALUE, ...): change settings of a running server. A process has them some time later.
sub set
{
	my ($self, %settings) = @_;

	$self->_append(%settings);
	$self->reload;
	return;
}

#
# Asking.
#

# sql(STATEMENTS): what they return; dies on an error.
sub sql
{
	my ($self, $statements) = @_;

	return $self->safe_psql($database, $statements);
}

# in_database(NAME, SUB): the sub's methods ask another database.
sub in_database
{
	my ($self, $name, $sub) = @_;
	local $database = $name;

	return $sub->();
}

# session(): a connection that stays open, as background_psql() of the base class describes; an error ends it.
sub session
{
	my ($self) = @_;

	return $self->background_psql($database, on_error_stop => 1);
}

# refusal(STATEMENT): the error that it fails with, as psql shows it; empty when it succeeds.
sub refusal
{
	my ($self, $statement) = @_;

	return ($self->psql($database, $statement))[2];
}

# sqlstate(STATEMENT, DATABASE): the SQLSTATE that it fails with, empty when it succeeds; in a list also what was printed.
sub sqlstate
{
	my ($self, $statement, $in) = @_;
	my ($rc, $stdout, $stderr) =
	  $self->psql($in // $database, $statement, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	my $state = $rc == 0 ? '' : ($stderr =~ /ERROR:\s+(\w{5}):/)[0] // 'none';

	return wantarray ? ($state, $stderr) : $state;
}

#
# Waiting, each a test with a name: it fails when what is waited for does not come within the usual limit.
#

# until(NAME, CONDITION): wait for a query that returns true, or for a sub that does.
sub until
{
	my ($self, $name, $condition) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + _depth();

	return ok(ref $condition ? _comes_true($condition) : $self->poll_query_until($database, $condition), $name);
}

# worker_is(WORKER, STATE, NAME): wait until the worker is in this state.
sub worker_is
{
	my ($self, $worker, $state, $name) = @_;

	return $self->until($name, "SELECT state = '$state' FROM gpu_orch.workers WHERE worker_id = '$worker'");
}

# fleet(N, NAME, COLUMN => VALUE, ...): wait until N workers are initializing, or are what the columns of the view
# gpu_orch.workers say.
sub fleet
{
	my ($self, $n, $name, %what) = (@_[ 0 .. 2 ], state => 'initializing', @_[ 3 .. $#_ ]);

	return $self->until($name, "SELECT count(*) = $n FROM gpu_orch.workers WHERE "
		  . join(' AND ', map { "$_ = '$what{$_}'" } sort keys %what));
}

# all_end(NAME): wait until each worker is terminated. There must have been one.
sub all_end
{
	my ($self, $name) = @_;

	return $self->until($name, q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers});
}

# alerts(N, ALERT, NAME): wait until N alerts of a kind are open.
sub alerts
{
	my ($self, $n, $alert, $name) = @_;

	return $self->until($name,
		"SELECT count(*) = $n FROM gpu_orch.alerts WHERE alert = '$alert' AND cleared_at IS NULL");
}

# spawn(POOL, NAME): one pod more for a pool; its worker, once the pod is there.
sub spawn
{
	my ($self, $pool, $name) = @_;
	my $worker = $self->sql("SELECT gpu_orch.spawn_worker('$pool')");

	$self->worker_is($worker, 'initializing', $name // 'a pod is made');
	return $worker;
}

# ends(WORKER, NAME): terminate a worker by force, and wait until that is proved.
sub ends
{
	my ($self, $worker, $name) = @_;

	$self->sql("SELECT gpu_orch.terminate_worker('$worker', true)");
	return $self->worker_is($worker, 'terminated', $name);
}

# terminates(CONDITION): terminate by force the workers that have not begun to end and that a condition on the view
# gpu_orch.workers selects. The leader may come first.
sub terminates
{
	my ($self, $condition) = @_;

	return $self->sql(qq{DO \$\$ DECLARE worker text; BEGIN
		FOR worker IN SELECT worker_id FROM gpu_orch.workers
			WHERE state IN ('spawning', 'initializing', 'active', 'draining') AND ($condition)
		LOOP
			BEGIN PERFORM gpu_orch.terminate_worker(worker, true); EXCEPTION WHEN SQLSTATE 'GO004' THEN END;
		END LOOP; END \$\$});
}

# ends_all(PROVIDER): the provider does nothing wrong any more; terminate all workers by force, and wait until no pod is left.
sub ends_all
{
	my ($self, $provider) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + _depth();

	$provider->no_faults;
	$self->terminates('true');
	$self->all_end('all rows end');
	is(scalar($provider->pods(1)), 0, 'no pod lives');
	$self->holds_invariants;
	return;
}

# How many calls within this file led here: a failure is reported at the line of the test that made the first one.
sub _depth
{
	my $n = 0;

	$n++ while (caller $n)[0] eq __PACKAGE__;
	return $n;
}

# wait_until(WHAT, SUB): wait until the sub returns true, and return that; dies when it never does. No test by itself.
sub wait_until
{
	my ($what, $true) = @_;

	return _comes_true($true) || die "gave up waiting until $what";
}

sub _comes_true
{
	my ($true) = @_;

	for (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $value = $true->();

		return $value if $value;
		select undef, undef, undef, 0.05;
	}
	return;
}

#
# The clock and the leader.
#

# advance(INTERVAL): time passes.
sub advance
{
	my ($self, $interval) = @_;

	return $self->sql("SELECT gpu_orch.advance_clock('$interval')");
}

# cycle(N): the leader does N cycles, one if not said, beside those that it does by itself.
sub cycle
{
	my ($self, $n) = @_;

	$self->sql('SELECT gpu_orch.run_cycle()') for 1 .. $n // 1;
	return;
}

# reconcile(N): the leader reads the provider's list N times, once if not said.
sub reconcile
{
	my ($self, $n) = @_;

	$self->sql('SELECT gpu_orch.reconcile_now()') for 1 .. $n // 1;
	return;
}

# leader(): the leader's process id, or an empty string.
sub leader
{
	my ($self) = @_;

	return $self->sql('SELECT pid FROM gpu_orch.leader_status()');
}

# wait_for_leader(NOT_PID): wait until a leader acts and has ticked; with NOT_PID, another one than that. Returns its
# process id. Ends all tests when none comes.
sub wait_for_leader
{
	my ($self, $not_pid) = @_;

	$self->until(
		$not_pid ? 'another leader acts' : 'a leader acts',
		'SELECT pid <> ' . ($not_pid || 0) . q{ AND doing = 'acting' AND last_tick >= started_at FROM gpu_orch.leader_status()})
	  or BAIL_OUT('no leader: ' . $self->sql('SELECT gpu_orch.status()'));
	return $self->leader;
}

# kill_leader(): kill -9, and wait for the next one, which comes when the server has recovered.
sub kill_leader
{
	my ($self) = @_;
	my $leader = $self->leader;

	kill 'KILL', $leader;
	return $self->until('a new leader comes', sub {
		my ($rc, $out) = $self->psql($database, 'SELECT pid FROM gpu_orch.leader_status()');

		return ($rc // 1) == 0 && ($out // '') =~ /^\d+$/ && $out != $leader;
	});
}

# is_ended(PID): whether a process has ended, though its parent may not have taken note yet.
sub is_ended
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	return (<$stat> // ') Z') =~ /\) [ZX]/;
}

#
# Looking.
#

# holds_invariants(NAME): each row of check_invariants() holds.
sub holds_invariants
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + _depth();

	return is($self->sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}),
		'', $name // 'every invariant holds');
}

# lines_of_leader(LEVELS, OFFSET): lines of the log, from an offset in bytes, at one of these levels ("ERROR|FATAL") and
# by a process that serves no client: those have the shorter prefix.
sub lines_of_leader
{
	my ($self, $levels, $offset) = @_;

	return grep { /^\S+ \S+ \S+ \[\d+\] (?:$levels):/ } split /\n/, slurp_file($self->logfile, $offset // 0);
}

# count_lines(PATTERN, OFFSET): how many lines of the log match, from an offset in bytes.
sub count_lines
{
	my ($self, $pattern, $offset) = @_;

	return scalar grep { /$pattern/ } split /\n/, slurp_file($self->logfile, $offset // 0);
}

1;
