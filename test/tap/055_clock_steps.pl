# Somebody sets the server's clock: nobody is lost, nothing is overdue or proved for time that did not pass, and
# nothing waits for time that passes twice.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'steps',
	'gpu_orch.cycle_interval' => '10s', 'gpu_orch.heartbeat_interval' => '10s',
	'gpu_orch.heartbeat_timeout' => '30s', 'gpu_orch.settle_time' => '20s', 'gpu_orch.retry_delay' => '1h');

sub step { $node->sql("SELECT gpu_orch.advance_clock('$_[0]', passed => false)"); return; }
sub active { return $node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'active'}); }

my @tokens = map { $node->sql("SELECT token FROM gpu_orch.register_worker('w$_',
	capabilities => '{\"services\": [\"work\"]}')") } 0 .. 5;
sub beat { $node->sql("SELECT gpu_orch.heartbeat('w$_', '$tokens[$_]')") for 0 .. 5; return; }

subtest 'a step of 35 seconds ends no worker and no attempt' => sub {
	$node->sql(q{SELECT gpu_orch.submit_task('work', timeout => '20 seconds', max_attempts => 5)});
	is($node->sql("SELECT count(*) FROM gpu_orch.claim_tasks('w0', '$tokens[0]')"), 1,
		'a task is at work, for 20 seconds at most');
	$node->cycle;
	step('35 seconds');
	$node->cycle(3);
	is($node->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'clock_step'}), 1, 'the step is noted');
	is(active(), 6, 'every worker is active, though none was heard of for longer than the timeout');
	is($node->sql('SELECT count(*) FROM gpu_orch.lease'), 1, 'and the attempt goes on');
	beat();
	$node->advance('21 seconds');
	$node->until('until its time has passed', q{SELECT count(*) = 0 FROM gpu_orch.lease});
};

subtest 'silence beyond the grace ends workers, a few at a time' => sub {
	beat();
	step('35 seconds');
	$node->cycle;
	$node->advance('15 seconds');
	$node->cycle;
	is(active(), 6, 'within two heartbeats of a step none is lost');
	$node->advance('21 seconds');
	$node->until('after that those that do not speak are', sub { $node->cycle; active() == 0 });
	is($node->sql(q{SELECT max(n) FROM (SELECT count(*) AS n FROM gpu_orch.event WHERE to_state = 'terminated'
		GROUP BY xmin::text) t}), 1,
		'and not all at once');
};

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 5,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "10 days"}')});

subtest 'a step back delays no delete' => sub {
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});

	$node->worker_is($id, 'initializing', 'a pod is made');
	$provider->fault({call => 'delete', action => 'status', status => 500});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('a delete fails, and waits',
		q{SELECT count(*) = 1 FROM gpu_orch.cloud_op WHERE kind = 'delete' AND state = 'planned' AND due_at > gpu_orch.clock()});
	step('-1 hour');
	$node->cycle;
	is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_op WHERE kind = 'delete' AND state <> 'done'
		AND due_at > gpu_orch.clock() + interval '2 minutes'}), 0,
		'no longer than before');
	$provider->no_faults;
	$node->worker_is($id, 'terminated', 'and is done and proved');

	# One that was answered before the step, and is shown by lists until after it.
	$id = $node->spawn('p', 'another pod');
	$provider->fault({call => 'list', action => 'show_deleted', seconds => 100000});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('its delete is answered',
		"SELECT http_status = 204 FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'delete'");
	step('-1 hour');
	$node->cycle;
	$provider->no_faults;
	$node->worker_is($id, 'terminated', 'it is proved gone');
};

subtest 'a step forward proves no create absent' => sub {
	$provider->fault({call => 'create', action => 'drop_after'}, {call => 'list', action => 'hide_new', seconds => 100000});
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});

	$node->until('a create of unknown outcome',
		"SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$id'");
	$node->reconcile(2);
	step('10 minutes');
	$node->cycle;
	$node->reconcile(3);
	is($node->sql("SELECT state FROM gpu_orch.cloud_ops WHERE worker = '$id'"), 'unknown', 'is not settled by a clock');
	$provider->no_faults;
	$node->until('but by its pod, which is adopted',
		"SELECT reason = 'adopted' FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'");
	$node->worker_is($id, 'terminated', 'and not wanted any more');
};

is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
$node->holds_invariants;
$node->stop;
done_testing();
