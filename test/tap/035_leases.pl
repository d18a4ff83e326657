# Leases that nobody gives back: the leader ends them. A task's own timeout is a fault of the task; a
# claim that raced its worker's end, a claim whose answer was lost and a silent worker are not.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('leases',
	'gpu_orch.heartbeat_interval' => '200ms',
	'gpu_orch.heartbeat_timeout' => '1s',
	'gpu_orch.retry_delay' => '0',
	'gpu_orch.test_clock' => 'on');
wait_for_leader($node);

sub sql { return $node->safe_psql('app', $_[0]); }
sub until_true { return $node->poll_query_until('app', $_[0]); }
sub register { return sql("SELECT token FROM gpu_orch.register_worker('$_[0]')"); }

# The task's own timeout.
my $token = register('slow');
my $beat = sub { sql("SELECT directive FROM gpu_orch.heartbeat('slow', '$token')") };
my $task = sql(q{SELECT gpu_orch.submit_task('k', timeout => '1 second', max_attempts => 2)});
my $lease = sql("SELECT lease FROM gpu_orch.claim_tasks('slow', '$token')");
ok($lease, 'the task is claimed');
wait_until('the attempt is ended', sub {
	$beat->();
	sql("SELECT count(*) FROM gpu_orch.attempts WHERE task_id = $task") == 1 });
is(sql("SELECT outcome, failure, error FROM gpu_orch.attempts WHERE task_id = $task"),
	q{timeout|task|the task's timeout passed}, 'the attempt ended by the timeout');
is(sql("SELECT gpu_orch.complete_task('slow', '$token', $task, '$lease')"), 'f', 'a late completion is fenced');
wait_until('the task is ready again', sub {
	$beat->();
	sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task") eq 'ready' });
ok(sql("SELECT lease FROM gpu_orch.claim_tasks('slow', '$token')"), 'and claimed again');
wait_until('the task has failed', sub {
	$beat->();
	sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task") eq 'failed' });
is(sql("SELECT count(*) FROM gpu_orch.attempts WHERE task_id = $task"), 2, 'after its two attempts');

# A claim that is still open when its worker is ended.
my $race = sql(q{SELECT gpu_orch.submit_task('k')});
my $raced = register('raced');
my $claimer = $node->background_psql('app', on_error_stop => 1);
$claimer->query_safe('BEGIN');
like($claimer->query_safe("SELECT task_id FROM gpu_orch.claim_tasks('raced', '$raced')"), qr/\b$race\b/,
	'a claim is made and not yet committed');
sql(q{SELECT gpu_orch.terminate_worker('raced', true)});
$claimer->query_safe('COMMIT');
$claimer->quit;
ok(until_true("SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $race"),
	'the task of a worker that was ended meanwhile is ready again');
is(sql("SELECT outcome FROM gpu_orch.attempts WHERE task_id = $race"), 'lost', 'at the cost of a lost attempt');

# The answer to a claim was lost: the worker lives and does not name the lease.
my $deaf = register('deaf');
ok(sql("SELECT lease FROM gpu_orch.claim_tasks('deaf', '$deaf')"), 'the task is claimed');
wait_until('the lease is given back', sub {
	sql("SELECT directive FROM gpu_orch.heartbeat('deaf', '$deaf', holding => '{}')");
	sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $race") eq 'ready' });
pass('a lease that its worker does not name is given back');

# A silent worker.
ok(sql("SELECT lease FROM gpu_orch.claim_tasks('deaf', '$deaf')"), 'the task is claimed');
ok(until_true("SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $race"), 'a silent worker loses its task');
is((sqlstate_of($node, "SELECT gpu_orch.heartbeat('deaf', '$deaf')"))[0], '42501', 'and its session');

holds_invariants($node);
$node->stop;
done_testing();
