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
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');

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

my $original = GpuOrch->calling($provider, 'original', allows_streaming => 1, 'gpu_orch.orphan_grace' => '1h');
$original->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour",
		"idle_timeout": "1 hour"}')});
my $doomed = $original->spawn('p');
$original->until('where it acts is recorded',
	'SELECT timeline = 1 AND host IS NOT NULL FROM gpu_orch.installation');
$original->backup('base');

# A copy of the files beside the original, with the same key. Nothing that it does reaches the provider.

my $clone = GpuOrch->new('clone');
$clone->init_from_backup($original, 'base');
$clone->append_conf('postgresql.conf', 'gpu_orch.orphan_grace = 0');
$clone->start;
my $second = $original->spawn('p');
my $third = $original->spawn('p');
$clone->until('a copy of the files is on hold', 'SELECT hold FROM gpu_orch.installation');
is($clone->sql(q{SELECT alert, level FROM gpu_orch.alerts WHERE cleared_at IS NULL AND detail =
	(SELECT hold_reason FROM gpu_orch.installation) AND detail ~ 'another machine or in another directory'}),
	'hold|critical', 'and says where the original is');
$clone->reconcile(3);
$clone->sql("SELECT gpu_orch.terminate_worker('$doomed', true); SELECT gpu_orch.run_cycle()");
$clone->reconcile(3);
is($clone->sqlstate(q{SELECT gpu_orch.spawn_worker('p')}), 'GO004', 'it makes no pod');
is(live(), 3, 'it ends none, neither those that it does not know nor one that it wants ended');
is($clone->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE sent_at IS NOT NULL AND kind = 'delete'}), 0, 'nor tries to');
is($original->sql(q{SELECT hold, (SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing')
	FROM gpu_orch.installation}),
	'f|3', 'the original goes on');

# Adopted, it takes back the pods that were made since the copy: their rows, their price, their tokens.

$original->sql('SELECT gpu_orch.pause()');
# Without a grace, a pod must be older than the adoption by the provider's clock, which tells whole seconds.
sleep 3;
$clone->sql('SELECT gpu_orch.adopt_installation()');
$clone->until('adopted, it takes back the pods that it did not know',
	"SELECT count(*) = 2 FROM gpu_orch.workers WHERE worker_id IN ('$second', '$third') AND state = 'initializing'");
is($clone->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'restored_pod'}), 2, 'which are events');
is($clone->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'orphan_pod'}), 0, 'no orphan');
$clone->worker_is($doomed, 'terminated', 'and it ends the one that it wanted ended');
is($clone->sql("SELECT bool_and(c.price_per_hour > 0 AND c.seconds > 0) FROM gpu_orch.cost_estimate c
	WHERE c.worker_id IN ('$second', '$third')"), 't', 'with what they cost')
  or diag($clone->sql('SELECT * FROM gpu_orch.cost_estimate'));
my $pod = pod_of($second);
is($clone->sqlstate("SELECT gpu_orch.register_worker('$second', '" . 'f' x 64 . "', pod_id => '$pod->{id}')"),
	'42501', 'a wrong token is refused');
is($clone->sql("SELECT worker_id FROM gpu_orch.register_worker('$second', '$pod->{env}{GPU_ORCH_TOKEN}',
	pod_id => '$pod->{id}')"),
	$second, 'the token that the pod was given is good');
is($clone->sqlstate("SELECT gpu_orch.register_worker('$third', '$pod->{env}{GPU_ORCH_TOKEN}', pod_id => '$pod->{id}')"),
	'42501', 'for itself alone');
$clone->holds_invariants('every invariant holds in the adopted copy');

# Now there are two owners. The first pod under the new epoch tells the original.

my $other = $clone->spawn('p');
$original->until('the original sees that it was taken over, and stops',
	'SELECT hold FROM gpu_orch.installation');
is($original->sql(q{SELECT alert, level FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 'second_owner|critical',
	'with an alert');
$original->reconcile(3);
is($original->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE kind = 'delete'}), 0, 'it ends nothing');
is($clone->sql('SELECT hold FROM gpu_orch.installation'), 'f', 'the copy goes on');
$clone->stop;

# Adopted again, the original is the owner under a later epoch, also of what the other one made.

$original->sql('SELECT gpu_orch.resume(); SELECT gpu_orch.adopt_installation()');
$original->worker_is($other, 'initializing', 'adopted, the original has the pod of the copy, too')
	or diag($original->sql('SELECT gpu_orch.status()'));
is($original->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 0, 'the alert is cleared');
$original->holds_invariants('every invariant holds in the original');

# Sites with tokens. Naming the site of a server at work is no difference.

$original->set('gpu_orch.site_token_file' => site_file('a', token('a'), token('b')));
$original->until('the site is recorded', 'SELECT site IS NOT NULL FROM gpu_orch.installation');
is($original->sql('SELECT hold FROM gpu_orch.installation'), 'f', 'without a hold');
unlike($original->sql('SELECT i::text FROM gpu_orch.installation i'), qr/token-of-the-site/, 'as a digest');
$original->backup('sites');
my %standby;
for my $name ('b', 'c')
{
	my $node = $standby{$name} = GpuOrch->new("site_$name");

	$node->init_from_backup($original, 'sites', has_streaming => 1);
	$node->append_conf('postgresql.conf', "gpu_orch.site_token_file = '"
		. site_file($name, $name eq 'b' ? (token('b'), token('a')) : (token('c'))) . "'");
	$node->start;
	$original->wait_for_catchup($node);
}

$standby{c}->promote;
$standby{c}->until('a standby promoted at a site that lists nobody is on hold',
	q{SELECT hold AND hold_reason ~ 'another site, which is not listed.*timeline 1, and this is timeline 2'
	FROM gpu_orch.installation});
$standby{c}->stop;

# A copy at a listed site that nobody promoted: a base backup that was started as if it were a server.

my $stray = GpuOrch->new('stray');
$stray->init_from_backup($original, 'sites');
$stray->append_conf('postgresql.conf', "gpu_orch.site_token_file = '" . site_file('stray', token('d'), token('a')) . "'");
$stray->start;
$stray->until('a copy that was not promoted is on hold at a listed site, too',
	q{SELECT hold AND hold_reason ~ 'listed, but has not been promoted' FROM gpu_orch.installation});
$stray->stop;

# The listed one did not get the last commits: a pod of which it has no row.

$standby{b}->stop;
my $lost = $original->spawn('p');
my $pods = live();
$original->stop('immediate');
$standby{b}->start;
$standby{b}->promote;
$standby{b}->until('a standby promoted at a listed site takes over by itself',
	q{SELECT count(*) = 1 FROM gpu_orch.events WHERE kind = 'taken_over'});
is($standby{b}->sql('SELECT hold, timeline, epoch FROM gpu_orch.installation'), 'f|2|4', 'under a new epoch');
$standby{b}->until('and takes back the pod of the commits that were lost',
	"SELECT count(*) = 1 FROM gpu_orch.workers WHERE worker_id = '$lost' AND state = 'initializing'");
my $new = $standby{b}->spawn('p');
is(live(), $pods + 1, 'it makes pods, and none was ended');
is($standby{b}->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 0, 'nobody needs to look');
$standby{b}->holds_invariants('every invariant holds after the failover');

# The old primary comes back, unaware.

$original->start;
$original->until('an old primary that comes back stops', 'SELECT hold FROM gpu_orch.installation');
is($original->sql(q{SELECT alert FROM gpu_orch.alerts WHERE cleared_at IS NULL}), 'second_owner',
	'since it sees the other one at work');
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
	$node->until("recovered, to timeline $timeline", 'SELECT NOT pg_is_in_recovery()');
}

recover(3);
$node->until('a server that was recovered in place is on hold',
	q{SELECT hold AND hold_reason = 'active on timeline 2, and this is timeline 3' FROM gpu_orch.installation});
$node->sql('SELECT gpu_orch.adopt_installation()');
is($node->sql('SELECT hold, timeline, epoch FROM gpu_orch.installation'), 'f|3|5', 'until it is adopted');
site_file('b', token('b'), token('a'), token('b'));
recover(4);
$node->until('or lists its own site', q{SELECT timeline = 4 AND NOT hold FROM gpu_orch.installation});
is(live(), $pods + 1, 'no pod was ended');

# A file that cannot be used: a leader that begins does nothing, one at work goes on.

chmod 0644, my $file = $node->sql('SHOW gpu_orch.site_token_file');
$node->cycle;
is($node->sql('SELECT hold FROM gpu_orch.installation'), 'f', 'a leader at work goes on without its file');
my ($state, $message) = $node->sqlstate('SELECT gpu_orch.adopt_installation()');
is($state, 'F0000', 'but is not adopted');
like($message, qr/others than its owner may use it/, 'for that reason');
$node->restart;
$node->until('a leader that begins says so',
	q{SELECT last_error ~ 'site token file .* others than its owner' FROM gpu_orch.leader_status()});
my $waiting = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
is($node->sqlstate('SELECT gpu_orch.run_cycle()') ne '', 1, 'and does nothing');
chmod 0600, $file;
$node->worker_is($waiting, 'initializing', 'until the file is repaired');

# A token is replaced by listing the old one; without that it is another site.

site_file('b', token('new'));
$node->until('another token is another site',
	q{SELECT hold AND hold_reason ~ 'another site, which is not listed' FROM gpu_orch.installation});
$node->sql('SELECT gpu_orch.adopt_installation()');
is($node->sql('SELECT hold FROM gpu_orch.installation'), 'f', 'which may be adopted');

for my $log ($original, $clone, $standby{b}, $standby{c})
{
	# What the test itself sent is in the log, as this server logs statements.
	unlike(join("\n", grep { !/statement: /i } split /\n/, slurp_file($log->logfile)),
		qr/\Q$provider->{key}\E|token-of-the-site|$pod->{env}{GPU_ORCH_TOKEN}/,
		'no secret is in the log of ' . $log->name);
}
$node->stop;
done_testing();
