# How pods end when nobody asks them to: a boot that never ends, a worker that falls silent, a worker
# that is killed and started again by the provider, and a drain that finishes what it holds.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $worker = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());

# Each pod notes the process of its worker; tasks of kind "wait" run until a file appears.
append_to_file("$dir/boot", <<"EOT");
#!/bin/sh
case \$GPU_ORCH_POOL in dead*) exec sleep 1000 ;; esac
echo \$\$ > $dir/pid.\$RUNPOD_POD_ID
exec $worker --kind wait --poll 0.2 --handler 'cat > /dev/null; while ! [ -e $dir/go ]; do sleep 0.05; done; echo {}'
EOT
chmod 0755, "$dir/boot";
my $provider = Provider->start('--boot-seconds', '0', '--launch', "$dir/boot");
my $node = GpuOrch->calling($provider, 'lifetimes', 'gpu_orch.heartbeat_timeout' => '1h');

sub worker_pid
{
	my $pod = $node->sql(q{SELECT pod_id FROM gpu_orch.workers WHERE pool = 'p' AND state = 'active'});
	return slurp_file("$dir/pid.$pod") + 0;
}

# A boot that never ends.
$node->sql(q{SELECT gpu_orch.create_pool('dead', 'image:1', ARRAY['NVIDIA L4'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}, "spawn_timeout": "1 second"}')});
$node->until('a pod that never speaks is given up',
	q{SELECT count(*) > 0 FROM gpu_orch.events WHERE kind = 'spawn_timeout'});
$node->sql(q{SELECT gpu_orch.drop_pool('dead')});
$node->all_end('and deleted');
is(scalar($provider->pods(1)), 0, 'as the provider says, too');

# A worker that is killed: the provider starts it again, it registers again, and its task is not lost.
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 1,
	options => '{"policy": "one_to_one", "idle_timeout": "1 second", "policy_options": {"scale_down_grace": 0,
		"drain_settle": 0}}');
	SELECT gpu_orch.submit_task('wait')});
$node->until('a task runs', q{SELECT state = 'running' FROM gpu_orch.tasks});
my $epoch = $node->sql(q{SELECT epoch FROM gpu_orch.workers WHERE state = 'active'});
kill 'KILL', worker_pid();
$node->until('a killed worker registers again',
	qq{SELECT epoch > $epoch FROM gpu_orch.workers WHERE state = 'active'});
$node->until('its attempt is lost', q{SELECT count(*) = 1 FROM gpu_orch.attempts WHERE outcome = 'lost'});
$node->until('its task is not', q{SELECT state = 'running' FROM gpu_orch.tasks});
is(scalar($provider->pods(1)), 1, 'in the same pod');

# A worker that falls silent: its pod is deleted, another one does the task.
my $silent = $node->sql(q{SELECT worker_id FROM gpu_orch.workers WHERE state = 'active'});
my $stopped = worker_pid();
kill 'STOP', $stopped;
$node->advance('2 hours');
$node->until('a silent worker is lost',
	"SELECT state = 'terminated' AND ended_because = 'heartbeat_lost' FROM gpu_orch.workers WHERE worker_id = '$silent'");
$node->until('another worker has its task',
	"SELECT state = 'running' AND worker <> '$silent' FROM gpu_orch.tasks");
is(scalar($provider->pods(1)), 1, 'and the silent one has no pod any more');

# A drain finishes what is held, and gets nothing new.
my $drained = $node->sql(q{SELECT worker_id FROM gpu_orch.workers WHERE state = 'active'});
$node->sql("SELECT gpu_orch.drain_worker('$drained')");
$node->until('a draining worker keeps its task',
	"SELECT state = 'draining' AND running = 1 FROM gpu_orch.workers WHERE worker_id = '$drained'");
append_to_file("$dir/go", '');
$node->until('and finishes it', q{SELECT state = 'succeeded' FROM gpu_orch.tasks});
$node->worker_is($drained, 'terminated', 'before its pod goes');
$node->all_end('nothing is left');
is(scalar($provider->pods(1)), 0, 'at the provider neither');
is($node->sql(q{SELECT string_agg(outcome, ',' ORDER BY attempt) FROM gpu_orch.attempts}), 'lost,lost,succeeded',
	'three attempts tell the story');
$node->holds_invariants;

$node->stop;
done_testing();
