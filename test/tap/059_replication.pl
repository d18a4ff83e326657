# Logical replication of a whole installation: a publisher at work, a subscriber with the extension that
# copies its tables and follows. The subscriber writes nothing while it is fed. When the publisher is gone
# it takes over: it holds what the publisher held and no finished task, and claims and ends what is left.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my %settings = (
	wal_level => 'logical',
	'gpu_orch.heartbeat_timeout' => '1d',
	'gpu_orch.priority_ageing' => '1ms');
my $publisher = GpuOrch->running('publisher', allows_streaming => 'logical', %settings);
my $subscriber = GpuOrch->running('subscriber', allows_streaming => 'logical', %settings);
$publisher->wait_for_leader;

# What the publisher has before there is a subscription: each table that is filled by hand has rows to copy.

my $token = (split /\n/, $publisher->sql(q{
	SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 0);
	SELECT gpu_orch.set_budget('p', 'day', 100);
	SELECT gpu_orch.set_budget(NULL, 'month', 1000);
	SELECT gpu_orch.create_tenant('t', 5);
	SELECT count(gpu_orch.submit_task('k', jsonb_build_object('n', n), priority => n % 3)) FROM generate_series(1, 40) n;
	SELECT gpu_orch.submit_task('k', tenant => 't', depends_on => ARRAY[1::bigint]);
	SELECT token FROM gpu_orch.register_worker('w')}))[-1];

# finish(NODE, N): claim and complete N tasks by a worker's calls; returns their ids.
sub finish
{
	my ($node, $n) = @_;

	return split /\n/, $node->sql(qq{
		SELECT c.task_id FROM gpu_orch.claim_tasks('w', '$token', $n) c,
			LATERAL (SELECT gpu_orch.complete_task('w', '$token', c.task_id, c.lease) AS done) d WHERE d.done});
}
my @finished = finish($publisher, 10);
is(scalar @finished, 10, 'ten tasks are finished before');

# All tables are published, all are copied.

my $all = $publisher->connstr('app') =~ s/'/''/gr;
$publisher->sql('CREATE PUBLICATION everything FOR ALL TABLES');
$subscriber->sql("CREATE SUBSCRIPTION s CONNECTION '$all' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 's', 'app');
pass('every table was copied');

# The publisher works on: whatever deletes or updates a row finds that it may.

push @finished, finish($publisher, 10);
is(scalar @finished, 20, 'claims and completions go on under a publication');
is($publisher->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE state = 'ready' ORDER BY task_id LIMIT 1}),
	't', 'a ready task is cancelled');
my ($held, $lease) = split /\|/,
  $publisher->sql("SELECT task_id, lease FROM gpu_orch.claim_tasks('w', '$token')");
$publisher->sql($_) for (
	q{SELECT gpu_orch.set_budget('p', 'day', 200)},
	q{SELECT gpu_orch.set_budget(NULL, 'month', NULL)},
	q{SELECT gpu_orch.alter_pool('p', '{"idle_buffer": 1}')},
	q{SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + interval '1 hour')},
	q{SELECT gpu_orch.run_cycle()});
$publisher->until('what has waited for long is moved up', q{SELECT count(DISTINCT rank) = 1 FROM gpu_orch.ready_queue});
is_deeply([ $publisher->lines_of_leader('ERROR|WARNING') ], [], 'the leader had no error');

# The subscriber has the same rows, in every table, and its leader has written none of its own.

$subscriber->until('the leader of the subscriber waits', q{SELECT doing LIKE 'waiting: a subscription%' FROM gpu_orch.leader_status()});
my @tables = split /\n/, $publisher->sql(q{
	SELECT relname FROM pg_class WHERE relnamespace = 'gpu_orch'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1});
cmp_ok(scalar @tables, '>', 20, 'there are tables');
$publisher->set('gpu_orch.enabled' => 'off');
$publisher->until('the publisher comes to rest', 'SELECT pid IS NULL FROM gpu_orch.leader_status()');
$publisher->wait_for_catchup('s');
for my $table (@tables)
{
	my $rows = "SELECT md5(coalesce(string_agg(x::text, ' ' ORDER BY x::text), '')), count(*) FROM gpu_orch.$table x";

	is($subscriber->sql($rows), $publisher->sql($rows), "$table is the same");
}
is($subscriber->sqlstate('SELECT gpu_orch.adopt_installation()') . '',
	'55000', 'while it is fed the subscriber cannot be made to act');
is($subscriber->sqlstate(q{SELECT gpu_orch.register_worker('v')}) . '', '55000', 'nor takes workers');

# The publisher is gone, the subscriber takes over.

$publisher->stop('immediate');
$subscriber->sql($_) for (
	'ALTER SUBSCRIPTION s DISABLE',
	'ALTER SUBSCRIPTION s SET (slot_name = NONE)',
	'DROP SUBSCRIPTION s',
	'SELECT gpu_orch.adopt_installation()');
my $leader = $subscriber->wait_for_leader;
is($subscriber->sql('SELECT hold, system_identifier = (SELECT system_identifier::text FROM pg_control_system()) FROM gpu_orch.installation'),
	'f|t', 'it acts, without hold');
is($subscriber->sql(qq{SELECT count(*) FROM gpu_orch.ready_queue WHERE task_id IN (@{[join ', ', @finished]})}),
	'0', 'no finished task is ready again');
is($subscriber->sql("SELECT gpu_orch.complete_task('w', '$token', $held, '$lease')"),
	't', 'the worker ends under the old token and lease what it held');
my $new = $subscriber->sql(q{SELECT gpu_orch.submit_task('k')});
is($subscriber->sql("SELECT count(*) FROM gpu_orch.task WHERE id = $new"), '1', 'a new task has a number of its own');
my @then;

while (my @more = finish($subscriber, 7))
{
	push @then, @more;
}
# Of 41, 20 were finished before, one was held and one cancelled; the new one comes to them.
is(scalar @then, 20, 'what was left is claimed, once each');
is_deeply([ grep { my $id = $_; grep { $_ == $id } @finished } @then ], [], 'and nothing twice');
is($subscriber->sql('SELECT count(*) FROM (SELECT FROM gpu_orch.attempt GROUP BY task_id HAVING count(*) > 1) x'),
	'0', 'no task has two attempts');
is($subscriber->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'adopted'}), '1', 'the adoption is told');
$subscriber->holds_invariants;
is_deeply([ grep { /\[$leader\]/ } $subscriber->lines_of_leader('ERROR|FATAL') ], [], 'the leader of the subscriber logged no error');

$subscriber->stop;
done_testing();
