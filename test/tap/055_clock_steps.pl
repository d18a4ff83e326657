# Somebody sets the server's clock: nobody is lost, nothing is overdue or proved for time that did not pass, and
# nothing waits for time that passes twice.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = $provider->new_node('steps', <<'CONF');
gpu_orch.cycle_interval = '10s'
gpu_orch.heartbeat_interval = '10s'
gpu_orch.heartbeat_timeout = '30s'
gpu_orch.settle_time = '20s'
gpu_orch.retry_delay = '1h'
CONF

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }
sub cycles { sql('SELECT gpu_orch.run_cycle()') for 1 .. ($_[0] // 1); return; }
sub step { sql("SELECT gpu_orch.advance_clock('$_[0]', passed => false)"); return; }
sub pass { sql("SELECT gpu_orch.advance_clock('$_[0]')"); return; }
sub active { return sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'active'}); }

my @tokens = map { sql("SELECT token FROM gpu_orch.register_worker('w$_', capabilities => '{\"services\": [\"work\"]}')") } 0 .. 5;
sub beat { sql("SELECT gpu_orch.heartbeat('w$_', '$tokens[$_]')") for 0 .. 5; return; }

subtest 'a step of 35 seconds ends no worker and no attempt' => sub {
	sql(q{SELECT gpu_orch.submit_task('work', timeout => '20 seconds', max_attempts => 5)});
	is(sql("SELECT count(*) FROM gpu_orch.claim_tasks('w0', '$tokens[0]')"), 1, 'a task is at work, for 20 seconds at most');
	cycles();
	step('35 seconds');
	cycles(3);
	is(sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'clock_step'}), 1, 'the step is noted');
	is(active(), 6, 'every worker is active, though none was heard of for longer than the timeout');
	is(sql('SELECT count(*) FROM gpu_orch.lease'), 1, 'and the attempt goes on');
	beat();
	pass('21 seconds');
	ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.lease}), 'until its time has passed');
};

subtest 'silence beyond the grace ends workers, a few at a time' => sub {
	beat();
	step('35 seconds');
	cycles();
	pass('15 seconds');
	cycles();
	is(active(), 6, 'within two heartbeats of a step none is lost');
	pass('21 seconds');
	ok($provider->wait_until(sub { cycles(); active() == 0 }, 'all are lost'), 'after that those that do not speak are');
	is(sql(q{SELECT max(n) FROM (SELECT count(*) AS n FROM gpu_orch.event WHERE to_state = 'terminated' GROUP BY xmin::text) t}), 1,
		'and not all at once');
};

sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 5,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "10 days"}')});

subtest 'a step back delays no delete' => sub {
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});

	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'a pod is made');
	$provider->fault({call => 'delete', action => 'status', status => 500});
	sql("SELECT gpu_orch.terminate_worker('$id', true)");
	ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.cloud_op WHERE kind = 'delete' AND state = 'planned' AND due_at > gpu_orch.clock()}),
		'a delete fails, and waits');
	step('-1 hour');
	cycles();
	is(sql(q{SELECT count(*) FROM gpu_orch.cloud_op WHERE kind = 'delete' AND state <> 'done' AND due_at > gpu_orch.clock() + interval '2 minutes'}), 0,
		'no longer than before');
	$provider->no_faults;
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'and is done and proved');

	# One that was answered before the step, and is shown by lists until after it.
	$id = sql(q{SELECT gpu_orch.spawn_worker('p')});
	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'another pod');
	$provider->fault({call => 'list', action => 'show_deleted', seconds => 100000});
	sql("SELECT gpu_orch.terminate_worker('$id', true)");
	ok(until_true("SELECT http_status = 204 FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'delete'"), 'its delete is answered');
	step('-1 hour');
	cycles();
	$provider->no_faults;
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'it is proved gone');
};

subtest 'a step forward proves no create absent' => sub {
	$provider->fault({call => 'create', action => 'drop_after'}, {call => 'list', action => 'hide_new', seconds => 100000});
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});

	ok(until_true("SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$id'"), 'a create of unknown outcome');
	sql('SELECT gpu_orch.reconcile_now()') for 1 .. 2;
	step('10 minutes');
	cycles();
	sql('SELECT gpu_orch.reconcile_now()') for 1 .. 3;
	is(sql("SELECT state FROM gpu_orch.cloud_ops WHERE worker = '$id'"), 'unknown', 'is not settled by a clock');
	$provider->no_faults;
	ok(until_true("SELECT reason = 'adopted' FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'"), 'but by its pod, which is adopted');
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'and not wanted any more');
};

is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', 'every invariant holds');
$node->stop;
done_testing();
