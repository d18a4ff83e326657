# Leases that nobody gives back: the leader ends them. A task's own timeout is a fault of the task; a
# claim that raced its worker's end, a claim whose answer was lost and a silent worker are not.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = GpuOrch->running('leases',
	'gpu_orch.heartbeat_interval' => '200ms',
	'gpu_orch.heartbeat_timeout' => '1h',
	'gpu_orch.retry_delay' => '0',
	'gpu_orch.test_clock' => 'on');
$node->wait_for_leader;

sub register { return $node->sql("SELECT token FROM gpu_orch.register_worker('$_[0]')"); }

# The task's own timeout.
my $token = register('slow');
my $beat = sub { $node->sql("SELECT directive FROM gpu_orch.heartbeat('slow', '$token')") };
my $task = $node->sql(q{SELECT gpu_orch.submit_task('k', timeout => '1 second', max_attempts => 2)});
my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('slow', '$token')");
ok($lease, 'the task is claimed');
wait_until('the attempt is ended', sub {
	$beat->();
	$node->sql("SELECT count(*) FROM gpu_orch.attempts WHERE task_id = $task") == 1 });
is($node->sql("SELECT outcome, failure, error FROM gpu_orch.attempts WHERE task_id = $task"),
	q{timeout|task|the task's timeout passed}, 'the attempt ended by the timeout');
is($node->sql("SELECT gpu_orch.complete_task('slow', '$token', $task, '$lease')"), 'f', 'a late completion is fenced');
wait_until('the task is ready again', sub {
	$beat->();
	$node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task") eq 'ready' });
ok($node->sql("SELECT lease FROM gpu_orch.claim_tasks('slow', '$token')"), 'and claimed again');
wait_until('the task has failed', sub {
	$beat->();
	$node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task") eq 'failed' });
is($node->sql("SELECT count(*) FROM gpu_orch.attempts WHERE task_id = $task"), 2, 'after its two attempts');

# A claim that is still open when its worker is ended.
my $race = $node->sql(q{SELECT gpu_orch.submit_task('k')});
my $raced = register('raced');
my $claimer = $node->session;
$claimer->query_safe('BEGIN');
like($claimer->query_safe("SELECT task_id FROM gpu_orch.claim_tasks('raced', '$raced')"), qr/\b$race\b/,
	'a claim is made and not yet committed');
$node->sql(q{SELECT gpu_orch.terminate_worker('raced', true)});
$claimer->query_safe('COMMIT');
$claimer->quit;
$node->until('the task of a worker that was ended meanwhile is ready again',
	"SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $race");
is($node->sql("SELECT outcome FROM gpu_orch.attempts WHERE task_id = $race"), 'lost', 'at the cost of a lost attempt');

# The same where no leader acted for longer than an hour after that end.
my $late = $node->sql(q{SELECT gpu_orch.submit_task('k', priority => 5)});
my $slept = register('slept');
my $sleeper = $node->session;
$sleeper->query_safe('BEGIN');
like($sleeper->query_safe("SELECT task_id FROM gpu_orch.claim_tasks('slept', '$slept')"), qr/\b$late\b/,
	'a claim is made and not yet committed');
$node->sql(q{SELECT gpu_orch.terminate_worker('slept', true)});
$node->set('gpu_orch.enabled' => 'off');
wait_until('no leader acts', sub { $node->leader eq '' });
$sleeper->query_safe('COMMIT');
$sleeper->quit;
$node->advance('2 hours');
is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $late"), 'running', 'nobody ends the lease meanwhile');
$node->set('gpu_orch.enabled' => 'on');
$node->until('the task of a worker that ended hours ago is ready again',
	"SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $late");
$node->sql("SELECT gpu_orch.cancel_task($late)");

# The answer to a claim was lost: the worker lives and does not name the lease.
my $deaf = register('deaf');
ok($node->sql("SELECT lease FROM gpu_orch.claim_tasks('deaf', '$deaf')"), 'the task is claimed');
wait_until('the lease is given back', sub {
	$node->sql("SELECT directive FROM gpu_orch.heartbeat('deaf', '$deaf', holding => '{}')");
	$node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $race") eq 'ready' });
pass('a lease that its worker does not name is given back');

# A silent worker.
ok($node->sql("SELECT lease FROM gpu_orch.claim_tasks('deaf', '$deaf')"), 'the task is claimed');
$node->advance('2 hours');
$node->until('a silent worker loses its task',
	"SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $race");
is($node->sqlstate("SELECT gpu_orch.heartbeat('deaf', '$deaf')"), '42501', 'and its session');

# A worker whose row somebody has locked is heard of all the same.
my $loud = register('loud');
my $work = $node->sql(q{SELECT gpu_orch.submit_task('k', priority => 5)});
$lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('loud', '$loud')");
my $operator = $node->session;
$operator->query_safe('BEGIN');
$operator->query_safe("SELECT gpu_orch.drain_worker('loud')");
for (1 .. 4)
{
	$node->advance('40 minutes');
	is( $node->sql("SET statement_timeout = '60s'; SELECT directive FROM gpu_orch.heartbeat('loud', '$loud', '{}', '{$lease}')"),
		'continue', 'a heartbeat waits for nobody');
	$node->cycle;
}
is($node->sql("SELECT state, worker FROM gpu_orch.tasks WHERE task_id = $work"), 'running|loud',
	'the worker is not given up while its row is locked');
$operator->query_safe('ROLLBACK');
$operator->quit;
$node->cycle;
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE worker_id = 'loud'}), 'active', 'nor once it is free');

# A worker that ended and whose lease nobody has looked for: a cancelled task ends at once.
my $gone = $node->sql(q{SELECT gpu_orch.submit_task('k', priority => 6)});
my $left = register('left');
my $leaver = $node->session;
$leaver->query_safe('BEGIN');
like($leaver->query_safe("SELECT task_id FROM gpu_orch.claim_tasks('left', '$left')"), qr/\b$gone\b/, 'a claim is made');
$node->sql(q{SELECT gpu_orch.terminate_worker('left', true)});
$node->set('gpu_orch.enabled' => 'off');
wait_until('no leader acts', sub { $node->leader eq '' });
$leaver->query_safe('COMMIT');
$leaver->quit;
is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $gone"), 'running', 'nobody has ended it');
is($node->sql("SELECT gpu_orch.cancel_task($gone)"), 't', 'it is cancelled');
is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $gone"), 'cancelled', 'there and then');
$node->set('gpu_orch.enabled' => 'on');
$node->wait_for_leader;
$node->until('and nothing is left of the request', 'SELECT count(*) = 0 FROM gpu_orch.cancel_request');

$node->holds_invariants;
$node->stop;
done_testing();
