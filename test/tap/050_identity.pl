# Who acts: of a server and its copies one, however the copy was made. A copy observes; a standby that is
# promoted at a listed site takes over by itself; of two that act, the older one notices and stops; and
# whoever takes over takes the pods of lost rows back instead of ending them.
use strict;
use warnings;
use File::Spec;
use FindBin;
use HTTP::Tiny;
use JSON::PP;
use lib $FindBin::Bin;
use GpuOrch qw(set_and_reload sqlstate_of);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $replicating = "wal_level = replica\nmax_wal_senders = 10\nhot_standby = on\ngpu_orch.orphan_grace = '1h'";

sub sql { return $_[0]->safe_psql('postgres', $_[1]); }
sub until_true { return $_[0]->poll_query_until('postgres', $_[1]); }

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());

# Write a site token file; returns its path.
sub site_file
{
	my ($name, @lines) = @_;
	my $path = "$dir/site_$name";

	unlink $path;
	append_to_file($path, join '', map { "$_\n" } @lines);
	chmod 0600, $path;
	return $path;
}

# A token for a site, long enough and always the same.
sub token { return "token-of-the-site-$_[0]"; }

# Make a pod by hand and wait until it is there; returns the worker's id.
sub spawn
{
	my ($node) = @_;
	my $id = sql($node, q{SELECT gpu_orch.spawn_worker('p')});

	until_true($node, "SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'")
	  or die "no pod for $id: " . sql($node, 'SELECT gpu_orch.status()');
	return $id;
}

# A pod of the provider by its worker, with what it was told.
sub pod_of
{
	my ($worker) = @_;

	for my $line ($provider->pods)
	{
		my $answer = HTTP::Tiny->new->get("http://$provider->{address}/v2/pods/$line->{id}",
			{headers => {Authorization => "Bearer $provider->{key}"}});
		my $pod = $answer->{success} ? decode_json($answer->{content}) : next;
		return $pod if $pod->{env}{GPU_ORCH_WORKER_ID} eq $worker;
	}
	die "no pod of $worker";
}

sub live { return scalar(my @pods = $provider->pods(1)); }

# Read the list some times; a copy on hold does nothing about it.
sub look
{
	my ($node) = @_;
	sql($node, 'SELECT gpu_orch.reconcile_now()') for 1 .. 3;
}

sub holds_invariants
{
	my ($node, $name) = @_;
	is(sql($node, q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', $name);
}

my $original = $provider->new_node('original', $replicating);
sql($original, q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour", "idle_timeout": "1 hour"}')});
my $doomed = spawn($original);
ok(until_true($original, 'SELECT timeline = 1 AND host IS NOT NULL FROM gpu_orch.installation'), 'where it acts is recorded');
$original->backup('base');

# A copy of the files beside the original, with the same key. Nothing that it does reaches the provider.

my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($original, 'base');
$clone->append_conf('postgresql.conf', 'gpu_orch.orphan_grace = 0');
$clone->start;
my $second = spawn($original);
my $third = spawn($original);
ok(until_true($clone, 'SELECT hold FROM gpu_orch.installation'), 'a copy of the files is on hold');
is(sql($clone, q{SELECT alert, level FROM gpu_orch.alerts WHERE cleared_at IS NULL AND detail =
	(SELECT hold_reason FROM gpu_orch.installation) AND detail ~ 'another machine or in another directory'}),
	'hold|critical', 'and says where the original is');
look($clone);
sql($clone, "SELECT gpu_orch.terminate_worker('$doomed', true); SELECT gpu_orch.run_cycle()");
look($clone);
is((sqlstate_of($clone, q{SELECT gpu_orch.spawn_worker('p')}, 'postgres'))[0], 'GO004', 'it makes no pod');
is(live(), 3, 'it ends none, neither those that it does not know nor one that it wants ended');
is(sql($clone, q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE sent_at IS NOT NULL AND kind = 'delete'}), 0, 'nor tries to');
is(sql($original, q{SELECT hold, (SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing') FROM gpu_orch.installation}),
	'f|3', 'the original goes on');

# Adopted, it takes back the pods that were made since the copy: their rows, their price, their tokens.

sql($original, 'SELECT gpu_orch.pause()');
sql($clone, 'SELECT gpu_orch.adopt_installation()');
ok(until_true($clone, "SELECT count(*) = 2 FROM gpu_orch.workers WHERE worker_id IN ('$second', '$third') AND state = 'initializing'"),
	'adopted, it takes back the pods that it did not know');
is(sql($clone, q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'restored_pod'}), 2, 'which are events');
is(sql($clone, q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'orphan_pod'}), 0, 'no orphan');
ok(until_true($clone, "SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$doomed'"),
	'and it ends the one that it wanted ended');
is(sql($clone, "SELECT bool_and(c.price_per_hour > 0 AND c.seconds > 0) FROM gpu_orch.cost_estimate c WHERE c.worker_id IN ('$second', '$third')"), 't', 'with what they cost')
  or diag(sql($clone, 'SELECT * FROM gpu_orch.cost_estimate'));
my $pod = pod_of($second);
is((sqlstate_of($clone, "SELECT gpu_orch.register_worker('$second', '" . 'f' x 64 . "', pod_id => '$pod->{id}')", 'postgres'))[0],
	'42501', 'a wrong token is refused');
is(sql($clone, "SELECT worker_id FROM gpu_orch.register_worker('$second', '$pod->{env}{GPU_ORCH_TOKEN}', pod_id => '$pod->{id}')"),
	$second, 'the token that the pod was given is good');
is((sqlstate_of($clone, "SELECT gpu_orch.register_worker('$third', '$pod->{env}{GPU_ORCH_TOKEN}', pod_id => '$pod->{id}')", 'postgres'))[0],
	'42501', 'for itself alone');
holds_invariants($clone, 'every invariant holds in the adopted copy');

# Now there are two owners. The first pod under the new epoch tells the original.

my $other = spawn($clone);
ok(until_true($original, 'SELECT hold FROM gpu_orch.installation'), 'the original sees that it was taken over, and stops');
is(sql($original, q{SELECT alert, level FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 'second_owner|critical', 'with an alert');
look($original);
is(sql($original, q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE kind = 'delete'}), 0, 'it ends nothing');
is(sql($clone, 'SELECT hold FROM gpu_orch.installation'), 'f', 'the copy goes on');
$clone->stop;

# Adopted again, the original is the owner under a later epoch, also of what the other one made.

sql($original, 'SELECT gpu_orch.resume(); SELECT gpu_orch.adopt_installation()');
ok(until_true($original, "SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$other'"),
	'adopted, the original has the pod of the copy, too') or diag(sql($original, 'SELECT gpu_orch.status()'));
is(sql($original, q{SELECT count(*) FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 0, 'the alert is cleared');
holds_invariants($original, 'every invariant holds in the original');

# Sites with tokens. Naming the site of a server at work is no difference.

set_and_reload($original, 'gpu_orch.site_token_file' => site_file('a', token('a'), token('b')));
ok(until_true($original, 'SELECT site IS NOT NULL FROM gpu_orch.installation'), 'the site is recorded');
is(sql($original, 'SELECT hold FROM gpu_orch.installation'), 'f', 'without a hold');
unlike(sql($original, 'SELECT i::text FROM gpu_orch.installation i'), qr/token-of-the-site/, 'as a digest');
$original->backup('sites');
my %standby;
for my $name ('b', 'c')
{
	my $node = $standby{$name} = PostgreSQL::Test::Cluster->new("site_$name");

	$node->init_from_backup($original, 'sites', has_streaming => 1);
	$node->append_conf('postgresql.conf', "gpu_orch.site_token_file = '"
		. site_file($name, $name eq 'b' ? (token('b'), token('a')) : (token('c'))) . "'");
	$node->start;
	$original->wait_for_catchup($node);
}

$standby{c}->promote;
ok(until_true($standby{c}, q{SELECT hold AND hold_reason ~ 'another site, which is not listed.*timeline 1, and this is timeline 2'
	FROM gpu_orch.installation}), 'a standby promoted at a site that lists nobody is on hold');
$standby{c}->stop;

# A copy at a listed site that nobody promoted: a base backup that was started as if it were a server.

my $stray = PostgreSQL::Test::Cluster->new('stray');
$stray->init_from_backup($original, 'sites');
$stray->append_conf('postgresql.conf', "gpu_orch.site_token_file = '" . site_file('stray', token('d'), token('a')) . "'");
$stray->start;
ok(until_true($stray, q{SELECT hold AND hold_reason ~ 'listed, but has not been promoted' FROM gpu_orch.installation}),
	'a copy that was not promoted is on hold at a listed site, too');
$stray->stop;

# The listed one did not get the last commits: a pod of which it has no row.

$standby{b}->stop;
my $lost = spawn($original);
my $pods = live();
$original->stop('immediate');
$standby{b}->start;
$standby{b}->promote;
ok(until_true($standby{b}, q{SELECT count(*) = 1 FROM gpu_orch.events WHERE kind = 'taken_over'}),
	'a standby promoted at a listed site takes over by itself');
is(sql($standby{b}, 'SELECT hold, timeline, epoch FROM gpu_orch.installation'), 'f|2|4', 'under a new epoch');
ok(until_true($standby{b}, "SELECT count(*) = 1 FROM gpu_orch.workers WHERE worker_id = '$lost' AND state = 'initializing'"),
	'and takes back the pod of the commits that were lost');
my $new = spawn($standby{b});
is(live(), $pods + 1, 'it makes pods, and none was ended');
is(sql($standby{b}, q{SELECT count(*) FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 0, 'nobody needs to look');
holds_invariants($standby{b}, 'every invariant holds after the failover');

# The old primary comes back, unaware.

$original->start;
ok(until_true($original, 'SELECT hold FROM gpu_orch.installation'), 'an old primary that comes back stops');
is(sql($original, q{SELECT alert FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 'second_owner', 'since it sees the other one at work');
is(live(), $pods + 1, 'and has ended nothing');
$original->stop;

# Recovery in place: the same site on a newer timeline. It may be that the lost part had made pods or
# ended them, so it is a hold, unless the file lists the site itself.

my $node = $standby{b};

sub recover
{
	my ($timeline) = @_;

	$node->stop;
	$node->append_conf('postgresql.conf', q{restore_command = 'false'});
	append_to_file($node->data_dir . '/recovery.signal', '');
	$node->start;
	ok(until_true($node, 'SELECT NOT pg_is_in_recovery()'), "recovered, to timeline $timeline");
}

recover(3);
ok(until_true($node, q{SELECT hold AND hold_reason = 'active on timeline 2, and this is timeline 3' FROM gpu_orch.installation}),
	'a server that was recovered in place is on hold');
sql($node, 'SELECT gpu_orch.adopt_installation()');
is(sql($node, 'SELECT hold, timeline, epoch FROM gpu_orch.installation'), 'f|3|5', 'until it is adopted');
site_file('b', token('b'), token('a'), token('b'));
recover(4);
ok(until_true($node, q{SELECT timeline = 4 AND NOT hold FROM gpu_orch.installation}), 'or lists its own site');
is(live(), $pods + 1, 'no pod was ended');

# A file that cannot be used: a leader that begins does nothing, one at work goes on.

chmod 0644, my $file = sql($node, 'SHOW gpu_orch.site_token_file');
sql($node, 'SELECT gpu_orch.run_cycle()');
is(sql($node, 'SELECT hold FROM gpu_orch.installation'), 'f', 'a leader at work goes on without its file');
my ($state, $message) = sqlstate_of($node, 'SELECT gpu_orch.adopt_installation()', 'postgres');
is($state, 'F0000', 'but is not adopted');
like($message, qr/others than its owner may use it/, 'for that reason');
$node->restart;
ok(until_true($node, q{SELECT last_error ~ 'site token file .* others than its owner' FROM gpu_orch.leader_status()}),
	'a leader that begins says so');
my $waiting = sql($node, q{SELECT gpu_orch.spawn_worker('p')});
is((sqlstate_of($node, 'SELECT gpu_orch.run_cycle()', 'postgres'))[0] ne '', 1, 'and does nothing');
chmod 0600, $file;
ok(until_true($node, "SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$waiting'"), 'until the file is repaired');

# A token is replaced by listing the old one; without that it is another site.

site_file('b', token('new'));
ok(until_true($node, q{SELECT hold AND hold_reason ~ 'another site, which is not listed' FROM gpu_orch.installation}),
	'another token is another site');
sql($node, 'SELECT gpu_orch.adopt_installation()');
is(sql($node, 'SELECT hold FROM gpu_orch.installation'), 'f', 'which may be adopted');

for my $log ($original, $clone, $standby{b}, $standby{c})
{
	# What the test itself sent is in the log, as this server logs statements.
	unlike(join("\n", grep { !/statement: /i } split /\n/, slurp_file($log->logfile)), qr/\Q$provider->{key}\E|token-of-the-site|$pod->{env}{GPU_ORCH_TOKEN}/,
		'no secret is in the log of ' . $log->name);
}
$node->stop;
done_testing();
