# What the leader counts for views: the queue, what workers did, and days of spend, each once, across days and
# while transactions are open.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = GpuOrch->running('main', 'gpu_orch.test_clock' => 'on', 'gpu_orch.heartbeat_timeout' => '100d',
	max_prepared_transactions => 2);

$node->wait_for_leader;
# At noon: no day ends before this test lets it.
$node->sql(q{SELECT gpu_orch.advance_clock(date_trunc('day', gpu_orch.clock(), 'UTC') + interval '36 hours' - gpu_orch.clock())});

# The view is the exact count, a moment later, whatever happens to the tasks.
my $same = q{SELECT NOT EXISTS (
	(SELECT kind, state, tenant, reason, tasks, oldest FROM gpu_orch.queue_depth
	 EXCEPT SELECT kind, state, tenant, reason, tasks, oldest FROM gpu_orch.queue_depth_exact())
	UNION ALL
	(SELECT kind, state, tenant, reason, tasks, oldest FROM gpu_orch.queue_depth_exact()
	 EXCEPT SELECT kind, state, tenant, reason, tasks, oldest FROM gpu_orch.queue_depth))};

$node->sql(q{SELECT gpu_orch.create_tenant('limited', 1);
	SELECT count(gpu_orch.submit_task('a')) FROM generate_series(1, 7);
	SELECT count(gpu_orch.submit_task('b', tenant => 'limited')) FROM generate_series(1, 3);
	SELECT gpu_orch.submit_task('b', run_at => gpu_orch.clock() + interval '300 days');
	SELECT gpu_orch.submit_task('a', depends_on => ARRAY[1::bigint])});
$node->until('the queue is counted', "$same AND count(*) >= 5 FROM gpu_orch.queue_depth");
is($node->sql(q{SELECT sum(tasks) FROM gpu_orch.queue_depth}), '12', 'each task once');
is($node->sql(q{SELECT bool_and(as_of <= gpu_orch.clock() AND as_of > gpu_orch.clock() - interval '1 hour') FROM gpu_orch.queue_depth}),
	't', 'as of a moment ago');
is($node->sql(q{SELECT string_agg(kind || ' ' || state || ' ' || tasks, ', ' ORDER BY kind, state) FROM gpu_orch.task_queue_analysis}),
	$node->sql(q{SELECT string_agg(kind || ' ' || state || ' ' || tasks, ', ' ORDER BY kind, state) FROM
		(SELECT kind, state, sum(tasks) AS tasks FROM gpu_orch.queue_depth_exact() GROUP BY 1, 2) x}), 'and so is what sums it up');
my $token = (split /\n/, $node->sql(q{SELECT token FROM gpu_orch.register_worker('w')}))[-1];
my %lease = map { split /\|/ } split /\n/, $node->sql("SELECT task_id, lease FROM gpu_orch.claim_tasks('w', '$token', 4)");
is(scalar keys %lease, 4, 'four tasks run');
$node->until('claims are counted', "$same AND (SELECT sum(tasks) FROM gpu_orch.queue_depth WHERE state = 'running') = 4");

# A pod of the worker's, that has been paid for since the day before yesterday at another price than today.
$node->sql(q{UPDATE gpu_orch.worker SET origin = 'cloud' WHERE id = 'w';
	INSERT INTO gpu_orch.spend (worker, price_micros, started_at, ended_at)
	SELECT no, 3600000, date_trunc('day', gpu_orch.clock(), 'UTC') - interval '2 days 3 hours', gpu_orch.clock() - interval '1 hour'
	FROM gpu_orch.worker WHERE id = 'w';
	INSERT INTO gpu_orch.spend (worker, price_micros, started_at)
	SELECT no, 7200000, gpu_orch.clock() - interval '1 hour' FROM gpu_orch.worker WHERE id = 'w'});

# What ended is counted once; an end in a transaction that is open for long as well.
my ($first, $second, $third, $fourth) = sort { $a <=> $b } keys %lease;

sub done { my ($id) = @_; return "SELECT gpu_orch.complete_task('w', '$token', $id, '$lease{$id}')"; }
my $attempts = q{SELECT coalesce(sum(attempts), 0) FROM gpu_orch.usage_day};
my $open = $node->session;
$open->query_safe('BEGIN');
$open->query_safe(done($first));
$node->sql(done($second));
$node->until('time passes', q{SELECT gpu_orch.clock() > max(ended_at) + interval '3 seconds' FROM gpu_orch.attempt});
is($node->sql('SELECT gpu_orch.count_usage()'), '0', 'nothing is counted beyond an end that may still come');
$open->query_safe('COMMIT');
$open->quit;
$node->until('two ends are counted', "SELECT ($attempts) = 2");
# One that crosses two midnights: the end is on its day, the time on each day.
$node->advance('2 days');
$node->sql(done($third));
$node->advance('10 seconds');
$node->until('and a long one', "SELECT ($attempts) = 3");
is($node->sql(q{SELECT count(DISTINCT day), sum(tasks), max(seconds) > 86400 FROM gpu_orch.share_day}), '3|3|f', 'its time is on three days');
is($node->sql(q{SELECT sum(took) = (SELECT sum(extract(epoch FROM ended_at - claimed_at)) FROM gpu_orch.attempt)
		AND sum(took) = (SELECT sum(seconds) FROM gpu_orch.share_day) FROM gpu_orch.usage_day}), 't', 'all of it, once');
is($node->sql(q{SELECT round(sum(dollars) / sum(seconds) * 3600, 3) FROM gpu_orch.share_day}), '7.200', 'at the price that held');
is($node->sql(q{SELECT attempts, succeeded FROM gpu_orch.worker_performance}), '3|3', 'the worker has what it did');
is($node->sql('SELECT gpu_orch.count_usage()'), '0', 'there is nothing to add');

# Days of spend: computed while they are young, written once when they have been over for a day, the same either way. The
# fourth task runs on. Attempts at the same time take more than there is, and share it.
$node->sql(q{UPDATE gpu_orch.spend SET ended_at = gpu_orch.clock() WHERE ended_at IS NULL});
my $spent = q{SELECT round(sum(cost), 3) FROM gpu_orch.spend_by_day};
my $estimate = $node->sql(q{SELECT round(sum(cost), 3) FROM gpu_orch.cost_estimate});
is($node->sql($spent), $estimate, 'all that was spent is on some day');
$node->advance('2 days');
$node->until('days that have been over for a day are written',
	q{SELECT (SELECT at FROM gpu_orch.counted WHERE what = 'spend') = date_trunc('day', gpu_orch.clock(), 'UTC') - interval '1 day'});
cmp_ok($node->sql(q{SELECT count(DISTINCT day) FROM gpu_orch.spend_day}), '>=', 3, 'the past days are');
is($node->sql(q{SELECT max(day) <= (gpu_orch.clock() AT TIME ZONE 'UTC')::date - 2 FROM gpu_orch.spend_day}), 't', 'and no others');
is($node->sql($spent), $estimate, 'the sum is the same');
is($node->sql(q{SELECT min(cost) >= 0 FROM gpu_orch.spend_by_day}), 't', 'nothing is negative');
cmp_ok($node->sql(q{SELECT sum(cost) FROM gpu_orch.spend_by_day WHERE tenant IS NOT NULL}), '>', 0, 'tenants have their part');
is($node->sql(q{SELECT string_agg(coalesce(tenant, '-') || round(cost, 2), ' ' ORDER BY tenant) FROM gpu_orch.spend_by_tenant}),
	$node->sql(q{SELECT string_agg(coalesce(tenant, '-') || round(cost, 2), ' ' ORDER BY tenant) FROM
		(SELECT tenant, sum(cost) AS cost FROM gpu_orch.spend_by_day GROUP BY tenant) x}), 'as the view by tenant says');
$node->sql(q{UPDATE gpu_orch.worker SET state = 'terminated'; DELETE FROM gpu_orch.spend; DELETE FROM gpu_orch.share_day});
is($node->sql($spent), $estimate, 'what is written stays when what it was made from goes');
is_deeply([ $node->lines_of_leader('ERROR|FATAL') ], [], 'the leader logged no error');

$node->stop;
done_testing();
