# Tasks in, pods up, work done, pods down: the whole way with real workers, and the money adds up.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $worker = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
my $provider = Provider->start('--boot-seconds', '0.2', '--launch',
	"$worker --kind echo --poll 0.2 --handler 'cat >/dev/null; echo {}'");
my $node = GpuOrch->calling($provider, 'fleet');

$node->sql(q{
	SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 3,
		options => '{"policy": "one_to_one", "idle_timeout": "1s", "env": {"FROM_POOL": "yes"},
		             "policy_options": {"scale_down_grace": 0, "drain_settle": 0}}');
	SELECT gpu_orch.submit_tasks(jsonb_agg(jsonb_build_object('kind', 'echo'))) FROM generate_series(1, 12);
});

$node->until('all tasks succeed', q{SELECT count(*) = 12 FROM gpu_orch.tasks WHERE state = 'succeeded'});
$node->until('all workers end', q{SELECT count(*) > 0 AND bool_and(state = 'terminated') FROM gpu_orch.workers});

my $ledger = $provider->ledger;
my @pods = $provider->pods;
ok(@pods >= 1 && @pods <= 3, 'between one and three pods were made: ' . @pods);
is($ledger->{totals}{live}, 0, 'none is left');
is($node->sql(q{SELECT count(*) FROM gpu_orch.workers}), scalar @pods,
	'each pod has one row');
is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE state NOT IN ('done')}), 0,
	'each op is settled');

my $ours = $node->sql(q{SELECT sum(price_per_hour * seconds / 3600) FROM gpu_orch.cost_estimate});
my $bound = 0;
$bound += $_->{cost_per_hour} / 3600 for @pods;
cmp_ok($ours, '>=', $ledger->{totals}{billed}, 'spend is never below the ledger');
cmp_ok($ours, '<=', $ledger->{totals}{billed} + $bound, 'nor a second per pod above it');

$node->holds_invariants;
is($node->sql(q{SELECT count(*) FROM gpu_orch.decisions WHERE created > 0
	AND jsonb_path_exists(terms, '$[*] ? (@.bound == true)')}) > 0, 1, 'the decisions explain themselves');
is($node->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'registered' AND rule IS NULL}), 0,
	'each move names its rule');

# Pause: no create, however much waits; resume: they come.
my $before = $provider->ledger->{totals}{creates};
$node->sql(q{SELECT gpu_orch.pause(); SELECT gpu_orch.submit_task('echo')});
$node->cycle(3);
is($provider->ledger->{totals}{creates}, $before, 'paused, nothing is created');
$node->sql('SELECT gpu_orch.resume()');
$node->until('resumed, the task is done', q{SELECT count(*) = 13 FROM gpu_orch.tasks WHERE state = 'succeeded'});

# A dropped pool ends its pods.
$node->sql(q{SELECT gpu_orch.drop_pool('p')});
$node->all_end('a dropped pool ends its pods');
is($provider->ledger->{totals}{live}, 0, 'and the provider agrees');

# What pods were told, and what no log ever shows.
my $log = slurp_file($node->logfile);
unlike($log, qr/\Q$provider->{key}\E/, 'the key is not in the log');
unlike($log, qr/WARNING|PANIC|TRAP|server process .* was terminated/, 'the log is quiet');

# spawn_worker and terminate_worker, within the limits.
$node->sql(q{
	SELECT gpu_orch.create_pool('manual', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 2,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "idle_timeout": "1 hour"}')});
is($node->sql(q{SELECT count(*) FROM gpu_orch.spawn_worker('manual', 2)}), 2, 'two are announced');
like($node->refusal(q{SELECT gpu_orch.spawn_worker('manual')}), qr/no room/, 'a third does not fit');
$node->fleet(2, 'both speak', pool => 'manual', state => 'active');
$node->sql(q{SELECT gpu_orch.terminate_worker(worker_id) FROM gpu_orch.workers WHERE state = 'active'});
$node->all_end('both end');
is($provider->ledger->{totals}{live}, 0, 'and their pods');
$node->holds_invariants;

$node->stop;
done_testing();
