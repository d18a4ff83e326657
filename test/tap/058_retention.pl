# What is over is removed by the leader itself, little by little, and what is still needed stays: children, keys, debts
# and the events of who lives. What is erased is erased everywhere that we keep it.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'retention', 'gpu_orch.key_retention' => '40d');

$node->wait_for_leader;
# All days are taken for summed up: what the test makes old would be summed up day by day.
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 5,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1000 days", "capabilities": {"services": "none"}}');
	INSERT INTO gpu_orch.counted VALUES ('spend', date_trunc('day', gpu_orch.clock(), 'UTC'))});

# The fleet: one pod that was ended, one that lives, one whose delete is owed. All of that is 402 days ago.
my $ended = $node->spawn('p', 'a pod that is to end');
my $alive = $node->spawn('p', 'a pod that lives');
my $owed = $node->spawn('p', 'a pod that is not let go');
$node->ends($ended, 'the first has ended');
$provider->fault({call => 'delete', action => 'status', status => 503, title => 'Service Unavailable'});
$node->sql("SELECT gpu_orch.terminate_worker('$owed', true)");
$node->until('its delete was sent', q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' AND tries > 0 AND settled_at IS NULL});
my $name = $node->sql("SELECT pod_name FROM gpu_orch.cloud_ops WHERE worker = '$ended' AND kind = 'create'");

# Whether the events tell the state of each worker that is not terminated, and of no other.
my $rebuilt = q{SELECT NOT EXISTS (
	SELECT FROM (SELECT DISTINCT ON (e.worker) e.worker, e.to_state FROM gpu_orch.event e WHERE e.worker IS NOT NULL ORDER BY e.worker, e.id DESC) e
	FULL JOIN gpu_orch.worker w ON w.no = e.worker WHERE w.state IS DISTINCT FROM e.to_state)};
is($node->sql($rebuilt), 't', 'the events tell the fleet');

sub make_old
{
	$node->sql(q{
		UPDATE gpu_orch.worker SET created_at = created_at - interval '402 days', state_since = state_since - interval '402 days';
		UPDATE gpu_orch.cloud_op SET planned_at = planned_at - interval '402 days', sent_at = sent_at - interval '402 days',
			answered_at = answered_at - interval '402 days', settled_at = settled_at - interval '402 days';
		UPDATE gpu_orch.spend SET started_at = started_at - interval '402 days', ended_at = ended_at - interval '402 days';
		UPDATE gpu_orch.event SET at = at - interval '402 days'});
}
make_old();

# Time for the leader to look again at what is over.
sub look { return $node->advance('61 seconds'); }

look();
$node->until('the worker that ended goes', qq{SELECT NOT EXISTS (SELECT FROM gpu_orch.workers WHERE worker_id = '$ended')});
is($node->sql(q{SELECT count(*) FROM gpu_orch.workers}), '2', 'no other does');
is($node->sql("SELECT count(*) FROM gpu_orch.cloud_ops WHERE pod_name = '$name'"), '0', 'its calls go with it');
is($node->sql("SELECT count(*) FROM gpu_orch.events WHERE subject IN ('$ended', '$name')"), '0', 'and so do its events');
is($node->sql($rebuilt), 't', 'the events tell what is left of the fleet');
is($node->sql(q{SELECT count(*) > 0 FROM gpu_orch.events WHERE kind = 'checkpoint' AND subject = 'worker' AND detail ->> 'rows' = '1'}),
	't', 'a checkpoint tells of the cut');
$node->holds_invariants('the invariants hold');
$node->reconcile(2);
is($node->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind IN ('orphan_pod', 'late_pod', 'double_pod', 'returned_pod')}),
	'0', 'each pod is known');

# The debt is paid in the end, and goes then.
$provider->no_faults;
$node->until('the owed delete is proved',
	sub { $node->advance('1 minute'); $node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$owed'") eq 'terminated' });
look();
is($node->sql("SELECT count(*) FROM gpu_orch.cloud_ops WHERE worker = '$owed'"), '2', 'what is settled now stays');
$node->holds_invariants('the invariants hold');
$node->until('the last pod ends, which nobody needs',
	sub { $node->advance('1 minute'); $node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$alive'") eq 'terminated' });

# Tasks.
# end_all(CALL): claim what is ready and end each by the call; a worker of a new session each time, as time passes.
sub end_all
{
	my ($call) = @_;
	my $session = (split /\n/, $node->sql(q{SELECT token FROM gpu_orch.register_worker('w', capabilities => '{"services": "k"}')}))[-1];

	$call =~ s/TOKEN/$session/g;
	return $node->sql("SELECT count($call) FROM gpu_orch.claim_tasks('w', '$session', 100) c");
}

sub age
{
	my ($days, $where) = @_;

	$node->sql("UPDATE gpu_orch.attempt a SET claimed_at = claimed_at - interval '$days days', ended_at = ended_at - interval '$days days'
		FROM gpu_orch.task t WHERE t.id = a.task_id AND $where;
		UPDATE gpu_orch.task t SET submitted_at = submitted_at - interval '$days days' WHERE $where");
	return;
}

$node->sql(q{SELECT gpu_orch.submit_task('k', '"old"') FROM generate_series(1, 3);
	SELECT gpu_orch.submit_task('k', '"key"', idempotency_key => 'key');
	SELECT gpu_orch.submit_task('k', '"parent"');
	SELECT gpu_orch.submit_task('k', '"young"');
	SELECT gpu_orch.submit_task('other', '"child"', run_at => gpu_orch.clock() + interval '300 days',
		depends_on => ARRAY[(SELECT id FROM gpu_orch.task WHERE payload = '"parent"')])});
is(end_all(q{gpu_orch.complete_task('w', 'TOKEN', c.task_id, c.lease, '{"made": 1}')}), '6', 'six tasks are done');
$node->sql(q{SELECT gpu_orch.submit_task('k', '"failing"')});
end_all(q{gpu_orch.fail_task('w', 'TOKEN', c.task_id, c.lease, 'a secret', retry => false)});
$node->until('they are counted', q{SELECT gpu_orch.count_usage() = 0 AND (SELECT sum(attempts) = 7 FROM gpu_orch.usage_day)});
age(31, q{t.payload IN ('"old"', '"key"', '"parent"')});

my $left = q{SELECT string_agg(payload #>> '{}', ' ' ORDER BY task_id) FROM gpu_orch.tasks};
look();
$node->until('old tasks go', q{SELECT NOT EXISTS (SELECT FROM gpu_orch.tasks WHERE payload = '"old"')});
is($node->sql($left), 'key parent young child failing', 'a key, a parent, and what is young or open stay');
is($node->sql(q{SELECT count(*) FROM gpu_orch.attempts}), '4', 'attempts go with their tasks');
$node->holds_invariants('the invariants hold');

# Removing in an open transaction, with a task's row locked by somebody: no claim waits for it, nor does it wait itself.
age(40, q{t.payload = '"young"'});
$node->sql(q{SELECT gpu_orch.submit_task('k', '"locked"'); SELECT gpu_orch.submit_task('k', '"next"')});
is(end_all(q{gpu_orch.complete_task('w', 'TOKEN', c.task_id, c.lease)}), '2', 'two more are done');
age(40, q{t.payload = '"locked"'});
my ($holder, $pruner) = ($node->session, $node->session);
$holder->query_safe(q{BEGIN; SELECT id FROM gpu_orch.task WHERE payload = '"locked"' FOR KEY SHARE});
$pruner->query_safe(q{SET lock_timeout = '5s'; BEGIN});
is($pruner->query_safe(q{SELECT rows FROM gpu_orch.prune(false) WHERE relation = 'task'}), '1', 'what is locked is left out');
$node->sql(q{SELECT gpu_orch.submit_task('k', '"claimed"')});
is(end_all(q{gpu_orch.complete_task('w', 'TOKEN', c.task_id, c.lease)}), '1', 'a task is claimed and done meanwhile');
$pruner->query_safe('COMMIT');
$holder->query_safe('COMMIT');
$_->quit for $holder, $pruner;

# What was kept for a reason is looked at again a day later; a setting takes effect at once.
$node->set('gpu_orch.key_retention' => '1d');
$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE payload = '"child"'});
age(40, q{t.payload IN ('"child"', '"parent"')});
$node->until('the key, the child and its parent go', sub { $node->advance('1 day'); $node->sql($left) eq 'failing next claimed' });

# Payloads and results have a time of their own.
is($node->sql(q{SELECT count(*) FROM gpu_orch.tasks WHERE payload IS NOT NULL AND error = 'a secret'}), '1', 'nothing is erased unasked');
$node->sql(q{SELECT gpu_orch.submit_task('k', '"open"')});
$node->set('gpu_orch.retention_payloads' => '1h', 'gpu_orch.retention_results' => '2h');
look();
$node->until('old payloads and results are erased', q{SELECT count(*) = 3 AND count(result) = 0 AND count(*) FILTER (WHERE error <> 'erased') = 0
	FROM gpu_orch.tasks WHERE payload = '{"gpu_orch": "erased"}'});
is($node->sql(q{SELECT payload FROM gpu_orch.tasks WHERE state = 'ready'}), '"open"', 'that of an open task is not');
is($node->sqlstate(q{SELECT gpu_orch.retry_task(task_id) FROM gpu_orch.tasks WHERE state = 'failed'}), 'GO004', 'what was erased is not tried again');
is($node->sql(q{SELECT count(*) FROM gpu_orch.task t JOIN gpu_orch.attempt a ON a.task_id = t.id WHERE (t.*, a.*)::text LIKE '%secret%'}),
	'0', 'nothing of it is left');
$node->holds_invariants('the invariants hold');

# What was written under a clock that was ahead does not keep what came after it.
$node->sql(q{INSERT INTO gpu_orch.decision (pool, at, policy, desired, created, ended, bound_by, terms)
	SELECT -1, gpu_orch.clock() + i * interval '1 day', 'fixed', 0, 0, 0, 'demand', '[]'
	FROM unnest(array_fill(300, ARRAY[1500]) || array_fill(-40, ARRAY[5])) i});
$node->until('old rows behind young ones go',
	sub { $node->advance('1 day'); $node->sql('SELECT count(*) FROM gpu_orch.decision WHERE pool = -1') eq '1500' });
$node->sql('DELETE FROM gpu_orch.decision WHERE pool = -1');

# A leader that is killed in the middle: the next one goes on.
$node->sql(q{INSERT INTO gpu_orch.task (shape, tenant, priority, max_attempts, submitted_at, kind, submitted_by, requirements, payload)
	SELECT 0, 0, 0, 1, gpu_orch.clock() - interval '50 days', 'many', 'me', '{}', '{}' FROM generate_series(1, 15000);
	INSERT INTO gpu_orch.attempt (task_id, attempt, worker, lease, claimed_at, ended_at, outcome, final_state)
	SELECT id, 1, 1, gen_random_uuid(), submitted_at, submitted_at + id * interval '1 second', 'succeeded', 'succeeded' FROM gpu_orch.task WHERE kind = 'many'});
my $many = q{FROM gpu_orch.task WHERE kind = 'many'};
$node->advance('1 day');
$node->until('a part of many is removed', "SELECT count(*) BETWEEN 1 AND 14000 $many");
$node->kill_leader;
$node->wait_for_leader;
$node->until('the rest goes too', "SELECT count(*) = 0 $many");
is($node->sql(q{SELECT count(*) FROM gpu_orch.attempt a WHERE NOT EXISTS (SELECT FROM gpu_orch.task t WHERE t.id = a.task_id)}),
	'0', 'no attempt is left without its task');
$node->holds_invariants('the invariants hold');
is($node->sql($rebuilt), 't', 'the events tell the fleet');
is($node->sql(q{SELECT last_error FROM gpu_orch.leader_status()}), '', 'the leader saw no error');
done_testing();
