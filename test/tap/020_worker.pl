# gpu-orch-worker against the extension: what becomes of a task for each way that
# its handler, its worker or the server may end. All workers here are external.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $program = $ENV{GPU_ORCH_WORKER}
  // File::Spec->rel2abs(dirname(__FILE__) . '/../../worker/gpu-orch-worker');
my $hash_chain =
  File::Spec->rel2abs(dirname(__FILE__) . '/../../worker/handlers/hash-chain');
plan skip_all => "$program is not built" unless -x $program;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = GpuOrch->running('worker',
	'gpu_orch.heartbeat_interval' => '300ms', 'gpu_orch.heartbeat_timeout' => '1h',
	'gpu_orch.test_clock' => 'on', 'gpu_orch.retry_delay' => '50ms',
	log_statement => 'all', log_parameter_max_length => 0);
my %running;

# The handler does what the payload's key "do" says. It leaves its process id and
# its environment in files named after the task, for the test to look at.
my $handler = "$dir/handler";
append_to_file($handler, <<"EOT");
#!/bin/sh
task=\$(cat)
echo \$\$ > $dir/pid.\$GPU_ORCH_TASK_ID
env > $dir/env.\$GPU_ORCH_TASK_ID
wait_for() { while ! [ -e "\$1" ]; do sleep 0.02; done; }
case \$task in
*'"do": "echo"'*) printf '%s' "\$task" ;;
*'"do": "nothing"'*) ;;
*'"do": "fail"'*) echo 'something \\303\\244 broke' >&2; exit 3 ;;
*'"do": "reject"'*) echo 'never that' >&2; exit 65 ;;
*'"do": "again"'*) [ \$GPU_ORCH_ATTEMPT -ge 2 ] || exit 75; echo '"second"' ;;
*'"do": "text"'*) echo 'this is no JSON' ;;
*'"do": "flood"'*) while :; do echo '1234567890123456789012345678901234567890'; done ;;
*'"do": "progress"'*)
	echo 'no JSON either' >&3
	echo '{"fraction": 0.25, "stage": "loading"}' >&3
	wait_for $dir/go.\$GPU_ORCH_TASK_ID; echo 1 ;;
*'"do": "wait"'*) wait_for $dir/go.\$GPU_ORCH_TASK_ID; echo '"waited"' ;;
*'"do": "stubborn"'*) trap '' TERM; while :; do sleep 0.1; done ;;
esac
EOT
chmod 0755, $handler;

# Start a worker under this id; it stands in %running until it is ended.
sub start_worker
{
	my ($id, @arguments) = @_;
	local %ENV = (
		%ENV,
		GPU_ORCH_DSN => $node->connstr('app'),
		GPU_ORCH_WORKER_ID => $id,
		PGPASSWORD => 'not-for-handlers');

	$running{$id} = IPC::Run::start(
		[ $program, '--handler', $handler, '--poll', '0.2', @arguments ],
		'<' => \undef,
		'>' => "$dir/$id.out",
		'2>' => "$dir/$id.log",
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	return;
}

# Wait for a worker to end, and return its exit code (or its signal).
sub wait_worker
{
	my $worker = delete $running{ $_[0] };

	IPC::Run::finish($worker);
	return ($worker->full_results)[0] & 127 || ($worker->full_results)[0] >> 8;
}

sub signal_worker
{
	my ($id, $signal) = @_;

	$running{$id}->signal($signal);
	return;
}

# Submit a task whose handler does what is named; further arguments as SQL.
sub submit
{
	my ($do, $more) = @_;

	my $arguments = qq(kind => 'test', payload => '{"do": "$do"}');

	$arguments .= ", $more" if $more;
	return $node->sql("SELECT gpu_orch.submit_task($arguments)");
}

sub task
{
	my ($id, $columns) = @_;

	return $node->sql("SELECT $columns FROM gpu_orch.task($id)");
}

# Wait until a task is in a state; fails the test when it never is.
sub reaches
{
	my ($id, $state, $name) = @_;

	$node->until($name, "SELECT state = '$state' FROM gpu_orch.task($id)")
	  or diag(task($id, 'row_to_json(task)'), map { slurp_file($_) } glob("$dir/*.log"));
	return;
}

# Wait until a handler has started (its process id is there).
sub handler_pid
{
	my $id = shift;

	wait_until("the handler of task $id has started", sub { -s "$dir/pid.$id" });
	chomp(my $pid = slurp_file("$dir/pid.$id"));
	return $pid;
}

sub is_gone
{
	my ($pid, $name) = @_;

	return $node->until($name, sub { is_ended($pid) });
}

# Exit codes and results.

start_worker('one', '--kind', 'test', '--concurrency', '2', '--max-output', '100000');

my $id = submit('echo',
	q(requirements => '{"custom_capabilities": {}}', priority => 7, timeout => '1 hour'));
reaches($id, 'succeeded', 'status 0 is success');
is( task(
		$id,
		q((SELECT string_agg(key, ' ' ORDER BY key) FROM jsonb_object_keys(result) key))),
	'attempt deadline kind lease payload priority requirements task_id tenant traceparent',
	'the handler gets the task with the keys of claimed_task');
is( task($id, q(concat_ws(' ', result->>'task_id', result->>'kind', result->>'priority', result->'payload'))),
	qq($id test 7 {"do": "echo"}),
	'and its values');

my $environment = slurp_file("$dir/env.$id");
like($environment, qr/^GPU_ORCH_ATTEMPT=1$/m, 'the handler knows its attempt');
unlike($environment, qr/GPU_ORCH_TOKEN|GPU_ORCH_DSN|^PG/m,
	'the handler has neither token nor connection settings');

$id = submit('nothing');
reaches($id, 'succeeded', 'no output is success');
is(task($id, 'result IS NULL'), 't', 'without a result');

$id = submit('fail', 'max_attempts => 1');
reaches($id, 'failed', 'another status is a failure');
is( task($id, 'error'),
	"handler exited with status 3\nsomething \303\244 broke",
	'the error has the status and the end of standard error');

$id = submit('fail', 'max_attempts => 2');
reaches($id, 'failed', 'a failed task fails for good in the end');
is(task($id, 'attempts'), '2', 'when its attempts are used up');

$id = submit('reject');
reaches($id, 'failed', 'status 65 is a failure');
is(task($id, 'attempts'), '1', 'that is not tried again');

$id = submit('again', 'max_attempts => 1');
reaches($id, 'succeeded', 'status 75 does not count against the attempts');
is(task($id, 'result'), '"second"', 'and the next attempt succeeded');

$id = submit('text', 'max_attempts => 1');
reaches($id, 'failed', 'output that is not JSON is a failure');
like(task($id, 'error'), qr/not valid JSON/, 'and the error says so');

$id = submit('flood', 'max_attempts => 1');
reaches($id, 'failed', 'endless output is a failure');
like(task($id, 'error'), qr/longer than 100000 bytes/, 'and the error says so');
is_gone(handler_pid($id), 'the flooding handler is killed');

# Progress.

$id = submit('progress');
$node->until('progress is seen while the task runs',
	"SELECT progress = 0.25::real AND stage = 'loading' FROM gpu_orch.lease WHERE task_id = $id");
append_to_file("$dir/go.$id", '');
reaches($id, 'succeeded', 'a bad progress line harms nothing');

# Cancelling and deadlines.

for my $do ('wait', 'stubborn')
{
	$id = submit($do);
	my $pid = handler_pid($id);
	is($node->sql("SELECT gpu_orch.cancel_task($id)"),
		't', "a running task can be cancelled ($do)");
	reaches($id, 'cancelled', "it becomes cancelled ($do)");
	is_gone($pid, "its handler is killed ($do)");
}

$id = submit('wait', q(timeout => '500ms', max_attempts => 1));
my $pid = handler_pid($id);
reaches($id, 'failed', 'a task past its deadline failed');
is_gone($pid, 'its handler is killed');

# Real work that SQL can check.

start_worker('hash', '--kind', 'hash', '--handler', $hash_chain);
$id = $node->sql(
	q(SELECT gpu_orch.submit_task('hash', jsonb_build_object('text', E'G\u00fcte\n', 'rounds', 60))));
reaches($id, 'succeeded', 'the demo handler does its work');
is( task($id, q(result->>'digest')),
	$node->sql(q(
WITH RECURSIVE chain(round, digest) AS (
  SELECT 1, encode(sha256(convert_to(E'G\u00fcte\n', 'UTF8')), 'hex')
  UNION ALL
  SELECT round + 1, encode(sha256(digest::bytea), 'hex') FROM chain WHERE round < 60)
SELECT digest FROM chain WHERE round = 60)),
	'and does it right');
$id = $node->sql(q(SELECT gpu_orch.submit_task('hash', '{"text": "x", "rounds": 0}')));
reaches($id, 'failed', 'the demo handler rejects bad input');
is(task($id, 'attempts'), '1', 'for good');
signal_worker('hash', 'TERM');
is(wait_worker('hash'), 0, 'an idle worker drains at once');

# Drain: the running task is finished, a new one is not claimed.

my $held = submit('wait');
handler_pid($held);
signal_worker('one', 'TERM');
wait_until('the worker drains', sub { slurp_file("$dir/one.log") =~ /draining/ });
my $left = submit('echo');
append_to_file("$dir/go.$held", '');
is(wait_worker('one'), 0, 'a drained worker exits with status 0');
is(task($held, 'state'), 'succeeded', 'after it finished what it held');
is(task($left, 'state'), 'ready', 'and claimed nothing more');

# --once.

start_worker('once', '--once');
is(wait_worker('once'), 0, '--once exits with status 0');
is(task($left, 'state'), 'succeeded', 'after one task');

# A second signal gives the task back.

start_worker('hasty');
$id = submit('stubborn');
$pid = handler_pid($id);
signal_worker('hasty', 'INT');
wait_until('the worker drains', sub { slurp_file("$dir/hasty.log") =~ /draining/ });
signal_worker('hasty', 'INT');
is(wait_worker('hasty'), 0, 'a second signal ends the worker');
is_gone($pid, 'its handler is killed');
is(task($id, 'state'), 'ready', 'its task is ready again');
is($node->sql("SELECT gpu_orch.cancel_task($id)"),
	't', 'a ready task can be cancelled');

# The server restarts while a task runs, and while its completion is due.

start_worker('patient');
$id = submit('wait');
handler_pid($id);
$node->restart;
append_to_file("$dir/go.$id", '');
reaches($id, 'succeeded', 'a task survives a restart of the server');
is(task($id, 'attempts'), '1', 'in the same attempt');

$id = submit('wait');
$pid = handler_pid($id);
$node->stop('immediate');
append_to_file("$dir/go.$id", '');
is_gone($pid, 'the handler ends while the server is away');
$node->start;
reaches($id, 'succeeded', 'the completion is repeated until it is answered');
is(task($id, 'attempts'), '1', 'and counts once');
is(task($id, 'result'), '"waited"', 'with its result');

# A revoked session: the worker lets go of its task and registers again.

$id = submit('wait');
$pid = handler_pid($id);
unlink "$dir/pid.$id";
$node->sql(q(SELECT gpu_orch.register_worker('patient')));
is_gone($pid, 'a revoked session ends the handler');
isnt(handler_pid($id), $pid, 'the worker registers again and goes on');
append_to_file("$dir/go.$id", '');
reaches($id, 'succeeded', 'the task is done in another attempt');
signal_worker('patient', 'TERM');
is(wait_worker('patient'), 0, 'the worker drains');

# A refused registration.

$ENV{GPU_ORCH_TOKEN} = 'wrong-token';
start_worker('stranger');
delete $ENV{GPU_ORCH_TOKEN};
is(wait_worker('stranger'), 77, 'a worker whose token is refused exits with status 77');
like(slurp_file("$dir/stranger.log"), qr/registration of worker "stranger" was refused/,
	'and says why');

# A worker that dies loses no task.

start_worker('victim');
$id = submit('wait');
$pid = handler_pid($id);
unlink "$dir/pid.$id";
signal_worker('victim', 'KILL');
is(wait_worker('victim'), 9, 'the worker is killed');
is_gone($pid, 'its handler does not outlive it');
$node->advance('2 hours');
start_worker('heir');
handler_pid($id);
append_to_file("$dir/go.$id", '');
reaches($id, 'succeeded', 'another worker does its task');
is(task($id, 'attempts'), '2', 'in another attempt');
signal_worker('heir', 'TERM');
is(wait_worker('heir'), 0, 'the heir drains');

# What no log may hold.

my $log = slurp_file($node->logfile);
like($log, qr/gpu_orch\.heartbeat\(worker_id => \$1::text, token => \$2::text/,
	'the server logs the calls');
unlike($log, qr/\b[0-9a-f]{64}\b|wrong-token/, 'but never a token');
unlike(join('', map { slurp_file($_) } glob("$dir/*.log")),
	qr/\b[0-9a-f]{64}\b|wrong-token/, 'nor does a worker');

$node->stop;
done_testing();

END
{
	my $status = $?;

	$_->kill_kill for values %running;
	$? = $status;
}
