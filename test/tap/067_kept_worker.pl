# A transaction that a session leaves open keeps the rows of the worker that it called as, or about. Nobody waits for it
# for long: neither the leader, nor an operator who ends the worker or the fleet; and no pod bills for as long as a session likes.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'kept', 'max_prepared_transactions' => 5, 'gpu_orch.row_lock_timeout' => 0,
	'gpu_orch.heartbeat_timeout' => '1min');

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour",
	             "idle_timeout": "1 hour"}')});

# A connection of a worker, which is no superuser.
sub session { return $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'pod' ]); }

# A session that has called within a transaction and says nothing more.
sub stuck
{
	my ($call) = @_;
	my $session = session();

	$session->query_safe('BEGIN');
	$session->query_safe("SELECT FROM gpu_orch.$call");
	return $session;
}

# An external worker that takes tasks of one kind; its token. Its calls about tasks do not tell its row that it is busy, so
# they keep no more than the task.
sub register
{
	my ($worker) = @_;
	my $token = $node->sql(qq{SELECT token FROM gpu_orch.register_worker('$worker', capabilities => '{"services": ["$worker"]}')});

	$node->sql("UPDATE gpu_orch.worker SET busy_at = '2100-01-01' WHERE id = '$worker'");
	return $token;
}

# The worker of a new pod, at work; its name and its token.
sub pod
{
	my $worker = $node->spawn('p');

	$node->sql("UPDATE gpu_orch.worker_profile SET registration_digest = sha256('token')
		WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$worker')");
	return ($worker, $node->sql("SELECT r.token FROM gpu_orch.workers w,
		gpu_orch.register_worker(w.worker_id, 'token', pod_id => w.pod_id) r WHERE w.worker_id = '$worker'"));
}

# Long enough that a silent worker is lost, in steps that the leader does not take for an outage of its own.
sub time_passes { $node->advance('40 seconds') && $node->cycle for 1 .. 2; return; }

sub state_of { return $node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$_[0]'"); }
sub said { return $node->sql("SELECT detail FROM gpu_orch.alerts WHERE alert = 'row_kept' AND cleared_at IS NULL"); }
sub ended_sessions { return $node->sql("SELECT count(*) FROM gpu_orch.events WHERE kind = 'holder_ended'"); }

subtest 'an attempt whose end is not committed keeps nobody from ending its worker' => sub {
	my $token = register('a');
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('a', max_attempts => 2)});
	my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('a', '$token')");
	my $session = stuck("complete_task('a', '$token', $task, '$lease')");

	$node->sql(q{SET lock_timeout = '20s'; SELECT gpu_orch.terminate_worker('a', true)});
	is(state_of('a'), 'terminated', 'the worker is ended');
	$node->cycle;
	is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task"), 'running', 'the task may still succeed');
	$session->query_safe('ROLLBACK');
	$session->quit;
	$node->until('when it does not, it goes back', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $task");
	is($node->sql("SELECT outcome FROM gpu_orch.attempts WHERE task_id = $task"), 'lost', 'as one that its worker lost');
};

subtest 'nor does a lost worker hold the leader up' => sub {
	my $token = register('b');
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('b')});
	my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('b', '$token')");
	my $session = stuck("complete_task('b', '$token', $task, '$lease')");

	time_passes();
	$node->worker_is('b', 'terminated', 'it is ended');
	$session->query_safe('COMMIT');
	$session->quit;
	is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task"), 'succeeded', 'and its task succeeded');
};

subtest 'the fleet is killed whatever a session keeps' => sub {
	my ($kept, $token) = pod();
	my ($free) = pod();
	my $session = stuck("heartbeat('$kept', '$token')");
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	my ($rc, $owed, $warning) = $node->psql('app', q{SET lock_timeout = '20s'; SELECT gpu_orch.kill_fleet()});
	is($owed, 1, 'a delete is owed for the other pod');
	like($warning, qr/WARNING:  1 worker is not ended yet.*DETAIL:  The worker \Q$kept\E: session $pid of role "pod"/s,
		'and a warning tells of the one that is kept');
	$node->worker_is($free, 'terminated', 'the other one ends');
	$node->alerts(1, 'row_kept', 'an alert tells of the one that is kept');
	like(said(), qr/^session $pid of role "pod" \(application "[^"]*", address local\) has been in a transaction since /,
		'and of who keeps it');
	$node->cycle(3);
	is(state_of($kept), 'active', 'where no session may be ended, it stays');
	is(ended_sessions(), 0, 'and so does the session');

	$node->set('gpu_orch.row_lock_timeout' => '2s');
	$node->worker_is($kept, 'terminated', 'where sessions are ended, it ends');
	$node->alerts(0, 'row_kept', 'the alert is cleared');
	is($node->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), 0, 'the session is gone');
	cmp_ok(ended_sessions(), '>', 0, 'an event tells so');
	$session->{run}->finish;
	$node->set('gpu_orch.row_lock_timeout' => 0);
	$node->sql('SELECT gpu_orch.resume()');
	is(scalar($provider->pods(1)), 0, 'no pod lives');
};

subtest 'an operator is told, and ends the session by force' => sub {
	my ($worker, $token) = pod();
	my $session = stuck("heartbeat('$worker', '$token')");

	my ($state, $error) = $node->sqlstate("SELECT gpu_orch.drain_worker('$worker')");
	is($state, '55P03', 'a worker that is kept is not drained');
	like($error, qr/worker "\Q$worker\E" cannot be changed now.*DETAIL:  session \d+ of role "pod"/s, 'and the error tells why');
	$node->set('gpu_orch.row_lock_timeout' => '1s');
	$node->until('the setting is there', q{SELECT current_setting('gpu_orch.row_lock_timeout') = '1s'});
	$node->until('the transaction is old enough', q{SELECT bool_and(xact_start < now() - interval '1 second')
		FROM pg_stat_activity WHERE state = 'idle in transaction'});
	is($node->sqlstate("SELECT gpu_orch.terminate_worker('$worker')"), '55P03', 'nor ended');
	$node->sql("SELECT gpu_orch.terminate_worker('$worker', true)");
	$node->worker_is($worker, 'terminated', 'but by force');
	$session->{run}->finish;
	$node->set('gpu_orch.row_lock_timeout' => 0);
	is(scalar($provider->pods(1)), 0, 'no pod lives');
};

# Two sessions of a worker: the second one passes over the row that the first one has.
subtest 'a session that tells of a worker without having it keeps nothing' => sub {
	my ($worker, $token) = pod();
	my $first = stuck("heartbeat('$worker', '$token')");
	my $second = stuck(qq{heartbeat('$worker', '$token', '{"gpu": 1}')});

	$first->query_safe('COMMIT');
	is($node->sql(q{SET lock_timeout = '20s'; SELECT gpu_orch.kill_fleet()}), 1, 'the fleet is killed');
	is(state_of($worker), 'terminating', 'with this worker');
	$node->worker_is($worker, 'terminated', 'which ends');
	$_->quit for $first, $second;
	$node->sql('SELECT gpu_orch.resume()');
};

# No transaction of these is old, and there is always one.
subtest 'sessions that take turns keep no worker' => sub {
	my ($worker, $token) = pod();
	my $turns = PostgreSQL::Test::Utils::tempdir() . '/turns.sql';

	append_to_file($turns, "BEGIN; SELECT FROM gpu_orch.heartbeat('$worker', '$token'); SELECT pg_sleep(0.63); COMMIT;\n" x 200);
	my @sessions = map { IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('app') . ' user=pod', '-f', $turns ], '>&', '/dev/null') } 1 .. 3;
	$node->until('they take turns', q{SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'pod' AND state = 'active'});
	is($node->sqlstate("SELECT gpu_orch.terminate_worker('$worker', true)"), '', 'an operator ends it');
	# What the leader does to it then is not kept for ever either, though each transaction is young.
	$node->set('gpu_orch.row_lock_timeout' => '2s');
	$node->worker_is($worker, 'terminated', 'and the leader its pod');
	$_->kill_kill for @sessions;
	$node->set('gpu_orch.row_lock_timeout' => 0);
};

subtest 'nor do they keep a task past its timeout, or a leader from beginning' => sub {
	my $token = register('slow');
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('slow', timeout => '1 minute', max_attempts => 1)});
	my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('slow', '$token')");
	my $turns = PostgreSQL::Test::Utils::tempdir() . '/turns.sql';

	append_to_file($turns, "BEGIN; SELECT FROM gpu_orch.progress_task('slow', '$token', $task, '$lease', 0.5); SELECT pg_sleep(0.63); COMMIT;\n" x 200);
	my @sessions = map { IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('app') . ' user=pod', '-f', $turns ], '>&', '/dev/null') } 1 .. 4;
	$node->until('they take turns', q{SELECT count(*) = 4 FROM pg_stat_activity WHERE usename = 'pod' AND state = 'active'});
	$node->set('gpu_orch.row_lock_timeout' => '1s');
	$node->sql("SELECT gpu_orch.heartbeat('slow', '$token', holding => ARRAY['$lease'::uuid])") && $node->advance('35 seconds') for 1 .. 2;
	$node->until('the task ends', "SELECT state = 'failed' FROM gpu_orch.tasks WHERE task_id = $task");
	$_->kill_kill for @sessions;

	$node->sql('CREATE ROLE automation LOGIN IN ROLE gpu_orch_operator');
	append_to_file("$turns.2", "BEGIN; SELECT gpu_orch.set_budget(NULL, 'day', 1000 + random()::int); SELECT pg_sleep(0.63); COMMIT;\n" x 200);
	@sessions = map { IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('app') . ' user=automation', '-f', "$turns.2" ], '>&', '/dev/null') } 1 .. 4;
	$node->until('these, too', q{SELECT count(*) = 4 FROM pg_stat_activity WHERE usename = 'automation' AND state = 'active'});
	my $epoch = $node->sql('SELECT leader_epoch FROM gpu_orch.installation');
	$node->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'gpu_orch leader'});
	$node->until('the next leader begins', "SELECT leader_epoch > $epoch FROM gpu_orch.installation");
	$_->kill_kill for @sessions;
	$node->set('gpu_orch.row_lock_timeout' => 0);
	$node->sql(q{SELECT gpu_orch.terminate_worker('slow', true)});
};

subtest 'an operator who leaves a transaction open keeps the fleet alive for a while only' => sub {
	my ($worker) = pod();
	$node->sql('CREATE ROLE colleague LOGIN IN ROLE gpu_orch_operator');
	my $session = $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'colleague' ]);
	$session->query_safe('BEGIN');
	$session->query_safe('SELECT gpu_orch.pause()');

	my ($state, $error) = $node->sqlstate('SELECT gpu_orch.kill_fleet()');
	is($state, '55P03', 'the fleet is not killed');
	like($error, qr/the fleet cannot be changed now.*DETAIL:  session \d+ of role "colleague"/s, 'and the error tells why');
	$node->set('gpu_orch.row_lock_timeout' => '1s');
	$node->until('the setting is there', q{SELECT current_setting('gpu_orch.row_lock_timeout') = '1s'});
	is($node->sql('SELECT gpu_orch.kill_fleet()'), 1, 'later the session is ended');
	$node->worker_is($worker, 'terminated', 'and the fleet');
	$session->{run}->finish;
	$node->set('gpu_orch.row_lock_timeout' => 0);
	$node->sql('SELECT gpu_orch.resume()');

	($worker) = pod();
	$session = $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'colleague' ]);
	$session->query_safe('BEGIN');
	$session->query_safe(q{SELECT gpu_orch.alter_pool('p', '{"idle_timeout": "2 hours"}')});
	time_passes();
	$node->alerts(1, 'row_kept', 'a pool that is kept, and in which a worker is lost, is told of');
	like(said(), qr/of role "colleague"/, 'with who keeps it');
	$session->query_safe('COMMIT');
	$session->quit;
	$node->worker_is($worker, 'terminated', 'until it is free, and the worker ends');
	$node->alerts(0, 'row_kept', 'and the alert is cleared');
};

subtest 'a task past its timeout is kept by nobody' => sub {
	my $token = register('f');
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('f', timeout => '1 second', max_attempts => 1)});
	my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('f', '$token')");
	my $session = stuck("progress_task('f', '$token', $task, '$lease', 0.5)");

	$node->advance('2 seconds');
	$node->alerts(1, 'row_kept', 'an alert tells of it');
	is($node->sql(q{SELECT subject FROM gpu_orch.alerts WHERE alert = 'row_kept' AND cleared_at IS NULL}), "task $task", 'which names the task');
	is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $task"), 'running', 'it runs');
	$node->set('gpu_orch.row_lock_timeout' => '1s');
	$node->until('until the session is ended', "SELECT state = 'failed' FROM gpu_orch.tasks WHERE task_id = $task");
	$session->{run}->finish;
	$node->set('gpu_orch.row_lock_timeout' => 0);
	$node->alerts(0, 'row_kept', 'the alert is cleared');

	# The same of a worker that has ended: nobody waits who cancels the task.
	$task = $node->sql(q{SELECT gpu_orch.submit_task('f')});
	$lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('f', '$token')");
	$session = stuck("complete_task('f', '$token', $task, '$lease')");
	$node->sql(q{SELECT gpu_orch.terminate_worker('f', true)});
	is($node->sql("SET lock_timeout = '20s'; SELECT gpu_orch.cancel_task($task)"), 't', 'it is cancelled');
	$node->alerts(1, 'row_kept', 'an alert tells of it');
	$session->query_safe('ROLLBACK');
	$session->quit;
	$node->until('and ends so', "SELECT state = 'cancelled' FROM gpu_orch.tasks WHERE task_id = $task");
};

subtest 'the session that is ended is the one that keeps the worker, at its age' => sub {
	my ($worker, $token) = pod();
	$node->sql('CREATE ROLE gone LOGIN IN ROLE gpu_orch_worker');
	my $session = $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'gone' ]);
	$session->query_safe('BEGIN');
	$session->query_safe('SELECT 1');
	$node->set('gpu_orch.row_lock_timeout' => '1min');
	$node->until('the setting is there', q{SELECT current_setting('gpu_orch.row_lock_timeout') = '1min'});

	# What the operator has read of the session before is of its last transaction.
	my $operator = $node->session;
	$operator->query_safe('BEGIN');
	$operator->query_safe('SELECT count(*) FROM pg_stat_activity');
	$node->set('gpu_orch.row_lock_timeout' => '5s');
	$operator->query_safe('SELECT pg_sleep(5)');
	$session->query_safe('COMMIT');
	$session->query_safe('BEGIN');
	$session->query_safe("SELECT FROM gpu_orch.heartbeat('$worker', '$token')");
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$operator->query_safe("DO \$\$ BEGIN PERFORM gpu_orch.terminate_worker('$worker', true); EXCEPTION WHEN lock_not_available THEN END \$\$");
	is($node->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), 1, 'it is not ended for that');
	$operator->query_safe('ROLLBACK');
	$operator->quit;

	# A role that is dropped leaves its sessions behind.
	$node->sql('DROP ROLE gone');
	$node->sql("SELECT gpu_orch.terminate_worker('$worker', true)");
	$node->worker_is($worker, 'terminated', 'a session without a role is ended, too');
	$session->{run}->finish;
	$node->set('gpu_orch.row_lock_timeout' => 0);
};

# plpgsql runs each block that catches in a transaction of its own within the caller's.
subtest 'an operator who catches the error of a wait has lost nothing' => sub {
	my ($worker, $token) = pod();
	my $session = stuck("heartbeat('$worker', '$token')");
	my $operator = $node->session;

	for my $caught (qw(query_canceled lock_not_available))
	{
		$operator->query_safe("SET " . ($caught eq 'query_canceled' ? 'statement_timeout' : 'lock_timeout') . " = '300ms'");
		$operator->query_safe("DO \$\$ BEGIN PERFORM gpu_orch.terminate_worker('$worker'); EXCEPTION WHEN $caught THEN END \$\$");
		$operator->query_safe('RESET ALL');
		$operator->query_safe("CREATE TABLE public.after_$caught ()");
		is($node->sql("SELECT to_regclass('public.after_$caught') IS NOT NULL"), 't', "what follows on $caught is there for all");
	}
	is($operator->query_safe('SHOW lock_timeout'), '0', 'the timeout is what it was');
	$operator->quit;
	$session->query_safe('COMMIT');
	$session->quit;
	$node->ends($worker, 'the worker ends');
};

subtest 'nobody who keeps an alert, or the breaker of an image, stops the leader' => sub {
	my $token = register('broken');
	$node->sql("SELECT gpu_orch.goodbye('broken', '$token', 'a')");
	$token = register('broken');
	my $session = stuck("goodbye('broken', '$token', 'b')");

	$node->advance('61 minutes');
	$node->cycle;
	$node->alerts(1, 'worker_broken', 'the alert stands until it is free');
	$session->query_safe('ROLLBACK');
	$session->quit;
	$node->alerts(0, 'worker_broken', 'and is cleared then');

	my $pod = $node->spawn('p');
	$node->sql(q{INSERT INTO gpu_orch.image_breaker (image, state, failures, must_work, canaries, last_cause, opened_at, retry_at)
		VALUES ('image:1', 'open', 3, false, 0, 'spawn_timeout', gpu_orch.clock(), gpu_orch.clock() + interval '1 hour')
		ON CONFLICT (image) DO UPDATE SET state = 'open', failures = 3, retry_at = excluded.retry_at, opened_at = excluded.opened_at});
	$session = $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'colleague' ]);
	$session->query_safe('BEGIN');
	$session->query_safe(q{SELECT gpu_orch.alter_pool('p', '{"idle_timeout": "3 hours"}')});
	$node->sql("UPDATE gpu_orch.worker_profile SET registration_digest = sha256('token')
		WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$pod')");
	$node->sql("SELECT gpu_orch.register_worker(worker_id, 'token', pod_id => pod_id) FROM gpu_orch.workers WHERE worker_id = '$pod'");
	$node->cycle(2);
	is($node->sql('SELECT count(*) FROM gpu_orch.image_breaker'), 1, 'what a pod taught waits');
	$session->query_safe('COMMIT');
	$session->quit;
	$node->until('until the pool is free', 'SELECT count(*) = 0 FROM gpu_orch.image_breaker');
	$node->ends($pod, 'the pod ends');
};

subtest 'a worker whose row is kept, and that is heard of, counts as alive when it is free' => sub {
	my $token = register('busy');
	my $refusal = '';

	for (1 .. 4)
	{
		my $keeper = $node->session;

		$keeper->query_safe('BEGIN');
		$keeper->query_safe(q{SELECT FROM gpu_orch.worker WHERE id = 'busy' FOR UPDATE});
		$node->advance('15 seconds');
		$node->sql("SELECT gpu_orch.heartbeat('busy', '$token')");
		$keeper->query_safe('ROLLBACK');
		$keeper->quit;
		eval { $token = register('busy'); 1 } or $refusal = $@;
	}
	like($refusal, qr/another process works as worker "busy"/, 'another process does not take its place for ever');
	$node->sql(q{SELECT gpu_orch.terminate_worker('busy', true)});
};

subtest 'a superuser and a prepared transaction are told of, and left alone' => sub {
	$node->set('gpu_orch.row_lock_timeout' => '1ms');
	my $token = register('c');
	my $prepared = session();
	$prepared->query_safe('BEGIN');
	$prepared->query_safe("SELECT FROM gpu_orch.heartbeat('c', '$token')");
	$prepared->query_safe(q{PREPARE TRANSACTION 'forgotten'});
	$prepared->quit;
	register('d');
	my $superuser = $node->session;
	$superuser->query_safe('BEGIN');
	$superuser->query_safe(q{SELECT FROM gpu_orch.worker WHERE id = 'd' FOR SHARE});

	time_passes();
	$node->alerts(2, 'row_kept', 'two workers that are lost cannot be ended');
	like(said(), qr/^the prepared transaction "forgotten" of role "pod" has waited since /m, 'one for a prepared transaction');
	like(said(), qr/^session \d+ of role "(?!pod")/m, 'one for a superuser');
	$node->cycle(3);
	$superuser->query_safe('COMMIT');
	$superuser->quit;
	$node->worker_is('d', 'terminated', 'one ends when the superuser lets it');
	$node->sql(q{ROLLBACK PREPARED 'forgotten'});
	$node->worker_is('c', 'terminated', 'the other one when its transaction ends');
	$node->alerts(0, 'row_kept', 'and the alerts are cleared');
};

my @met = grep { !/beginning: a transaction keeps the row of the installation/ } $node->lines_of_leader('ERROR|WARNING');
is(scalar @met, 0, 'the leader met no other error') or diag(join("\n", @met));
$node->ends_all($provider);
$node->stop;
done_testing();
