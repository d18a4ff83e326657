# Rows that transactions keep, where there are many of them, where a table is locked too, and where the owner of the
# extension may neither see nor end what others do.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run;
use Test::More;

my $node = GpuOrch->running('many', 'gpu_orch.test_clock' => 'on', 'gpu_orch.heartbeat_interval' => '1s',
	'gpu_orch.heartbeat_timeout' => '1min', 'gpu_orch.row_lock_timeout' => '2s');
$node->give_to_ordinary_owner('dba');
$node->sql('CREATE ROLE pod LOGIN IN ROLE gpu_orch_worker');
$node->wait_for_leader;

sub session_of_pod { return $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'pod' ]); }

# Long enough that a silent worker is lost, in steps that the leader does not take for an outage of its own.
sub time_passes { $node->advance('40 seconds') && $node->cycle for 1 .. 2; return; }

sub session_lives { return $node->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $_[0]"); }

subtest 'rows that a superuser keeps are in nobody\'s way' => sub {
	$node->sql(q{SELECT gpu_orch.register_worker('kept' || i) FROM generate_series(1, 130) i;
		SELECT gpu_orch.register_worker('free' || i) FROM generate_series(1, 20) i});
	my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('pod')});
	my $superuser = $node->session;
	my $pod = session_of_pod();

	$superuser->query_safe('BEGIN');
	$superuser->query_safe(q{SELECT count(*) FROM (SELECT FROM gpu_orch.worker WHERE id LIKE 'kept%' FOR UPDATE) x});
	$pod->query_safe('BEGIN');
	$pod->query_safe("SELECT FROM gpu_orch.heartbeat('pod', '$token')");
	time_passes();
	$node->until('those that are free end',
		q{SELECT count(*) = 0 FROM gpu_orch.workers WHERE worker_id LIKE 'free%' AND state <> 'terminated'});
	$node->worker_is('pod', 'terminated', 'so does one that an ordinary session keeps');
	$pod->{run}->finish;
	$node->alerts(100, 'row_kept', 'alerts tell of a hundred of the others');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE worker_id LIKE 'kept%' AND state = 'active'}), 130, 'which stay');
	$superuser->query_safe('COMMIT');
	$superuser->quit;
	$node->until('until they are free', q{SELECT count(*) = 0 FROM gpu_orch.workers WHERE state <> 'terminated'});
	$node->alerts(0, 'row_kept', 'and the alerts are cleared');
};

subtest 'a worker that was wanted once is not wanted for ever' => sub {
	my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('healthy')});
	my $pod = session_of_pod();
	my $pid = $pod->query_safe('SELECT pg_backend_pid()');

	$node->set('gpu_orch.row_lock_timeout' => '1h');
	$pod->query_safe('BEGIN');
	$pod->query_safe("SELECT FROM gpu_orch.heartbeat('healthy', '$token')");
	time_passes();
	$node->alerts(1, 'row_kept', 'its row is wanted');
	$pod->query_safe("SELECT FROM gpu_orch.heartbeat('healthy', '$token'); COMMIT AND CHAIN; SELECT FROM gpu_orch.heartbeat('healthy', '$token')");
	$node->set('gpu_orch.row_lock_timeout' => '1ms');
	$node->until('the setting is there', q{SELECT current_setting('gpu_orch.row_lock_timeout') = '1ms'});
	$node->cycle(3);
	is(session_lives($pid), 1, 'its session goes on after it was heard of');
	$pod->query_safe('COMMIT');
	$pod->quit;
	$node->sql(q{SELECT gpu_orch.terminate_worker('healthy')});
};

subtest 'a table that somebody waits to lock holds up no operator for long' => sub {
	my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('behind')});
	my $pod = session_of_pod();

	$node->set('gpu_orch.row_lock_timeout' => 0);
	$pod->query_safe('BEGIN');
	$pod->query_safe("SELECT FROM gpu_orch.heartbeat('behind', '$token')");
	my $reindex = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('app'), '-c', 'REINDEX TABLE gpu_orch.worker' ]);
	$node->until('REINDEX waits', q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND locktype = 'relation'});
	my ($state, $error) = $node->sqlstate(q{SELECT gpu_orch.terminate_worker('behind', true)});
	is($state, '55P03', 'terminate_worker() comes back');
	like($error, qr/the table gpu_orch.worker is locked.*DETAIL:  session \d+ of role /s, 'and names who is in the way');
	is($node->sqlstate('SELECT gpu_orch.kill_fleet()'), '', 'kill_fleet() comes back');
	$pod->query_safe('COMMIT');
	$pod->quit;
	$reindex->finish;
	$node->sql(q{SELECT gpu_orch.resume(); SELECT gpu_orch.terminate_worker('behind', true)});
};

subtest 'nor does one of the others, that is locked' => sub {
	my $ddl = $node->session;
	my $kills = q{SELECT count(*) FROM gpu_orch.event WHERE kind = 'fleet_killed'};
	my $before = $node->sql($kills);

	$node->sql(q{SELECT FROM gpu_orch.register_worker('served')});
	for my $lock ('worker IN ACCESS EXCLUSIVE', 'event IN SHARE', 'lease IN ACCESS EXCLUSIVE', 'cloud_op IN ACCESS EXCLUSIVE')
	{
		my ($table) = split / /, $lock;

		$ddl->query_safe('BEGIN');
		$ddl->query_safe("LOCK TABLE gpu_orch.$lock MODE");
		is($node->sqlstate(q{SET lock_timeout = '100ms'; SELECT gpu_orch.kill_fleet()}), '', "kill_fleet() ends, $lock MODE");
		if ($table ne 'cloud_op')
		{
			my ($state, $error) = $node->sqlstate(q{SET lock_timeout = '100ms'; SELECT gpu_orch.terminate_worker('served', true)});
			is($state, '55P03', 'terminate_worker() comes back');
			like($error, qr/the table gpu_orch.$table is locked.*DETAIL:  session \d+ of role /s, 'and names who is in the way');
		}
		$ddl->query_safe('ROLLBACK');
	}
	is($node->sql($kills), $before + 3, 'events tell of those calls, but where no event could be written');
	$ddl->query_safe('BEGIN');
	$ddl->query_safe('LOCK TABLE gpu_orch.installation IN ACCESS EXCLUSIVE MODE');
	my ($state, $error) = $node->sqlstate(q{SET lock_timeout = '100ms'; SELECT gpu_orch.kill_fleet()});
	is($state, '55P03', 'kill_fleet() comes back where the installation is locked');
	like($error, qr/the table gpu_orch.installation is locked.*DETAIL:  session \d+ of role /s, 'and names who is in the way');
	$ddl->query_safe('ROLLBACK');
	$ddl->quit;
	$node->sql(q{SELECT gpu_orch.resume(); SELECT gpu_orch.terminate_worker('served', true)});
};

subtest 'a leader that finds itself elsewhere does not undo an adoption that it waited for' => sub {
	$node->set('gpu_orch.enabled' => 'off');
	$node->until('no leader acts', q{SELECT current_setting('gpu_orch.enabled') = 'off'});
	$node->sql(q{UPDATE gpu_orch.installation SET system_identifier = '7000000000000000001', hold = false});
	my $adopting = $node->session;

	$adopting->query_safe('SET client_min_messages = error');
	$adopting->query_safe('BEGIN');
	$adopting->query_safe('SELECT gpu_orch.adopt_installation()');
	$node->set('gpu_orch.enabled' => 'on');
	$node->until('the leader meets it', q{SELECT last_error LIKE '%keeps the row of the installation%' FROM gpu_orch.leader_status()});
	$adopting->query_safe('COMMIT');
	$adopting->quit;
	$node->cycle(2);
	is($node->sql('SELECT hold FROM gpu_orch.installation'), 'f', 'this copy acts');
};

subtest 'a session that tells nothing of itself keeps no lease from ending' => sub {
	my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('mute')});
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('mute')});

	is($node->sql("SELECT task_id FROM gpu_orch.claim_tasks('mute', '$token')"), $task, 'a task runs');
	$node->sql('ALTER ROLE dba SET track_activities = off');
	my $reader = $node->background_psql('app', on_error_stop => 1, extra_params => [ '-U', 'dba' ]);
	my $pid = $reader->query_safe('SELECT pg_backend_pid()');
	$reader->query_safe('SELECT pg_sleep(2)');
	$reader->query_safe('BEGIN');
	$reader->query_safe('SELECT FROM gpu_orch.worker FOR UPDATE');
	$node->set('gpu_orch.row_lock_timeout' => '2s');
	is($node->sqlstate(q{SET lock_timeout = '100ms'; SELECT gpu_orch.terminate_worker('mute', true)}), '55P03',
		'a call takes the transaction for young, however old the session is');
	is(session_lives($pid), 1, 'which goes on');
	$reader->query_safe('ROLLBACK');
	$reader->query_safe('BEGIN');
	$reader->query_safe('SELECT FROM gpu_orch.lease FOR KEY SHARE');
	time_passes();
	$node->until('the lease ends', 'SELECT count(*) = 0 FROM gpu_orch.lease');
	is(session_lives($pid), 0, 'the session is ended');
	is($node->sql(qq{SELECT count(*) FROM gpu_orch.event WHERE kind = 'holder_ended' AND subject = 'task $task'
		AND detail->>'why' LIKE 'session $pid of role "dba"%a time that the server does not tell'}), 1, 'and an event names it');
	$reader->{run}->finish;
	$node->sql("SELECT gpu_orch.cancel_task($task)");
};

subtest 'a call that waits for one who waits for its caller comes back' => sub {
	my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('crossed')});
	my $operator = $node->background_psql('app', on_error_stop => 0);

	$node->set('gpu_orch.row_lock_timeout' => 0);
	$operator->query_safe('BEGIN');
	$operator->query_safe('SELECT pg_advisory_xact_lock(1)');
	my $pod = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('app'), '-c',
		"SET deadlock_timeout = '1h'; BEGIN; SELECT FROM gpu_orch.heartbeat('crossed', '$token'); SELECT pg_advisory_xact_lock(1)" ]);
	$node->until('it waits', q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'});
	$operator->query(q{SELECT gpu_orch.terminate_worker('crossed', true)});
	like($operator->{stderr}, qr/a transaction keeps its row.*DETAIL:  session \d+ of role /s, 'with who is in the way');
	$operator->query('ROLLBACK');
	$operator->quit;
	$pod->finish;
	is($pod->result(0), 0, 'the other goes on');
	$node->sql(q{SELECT gpu_orch.terminate_worker('crossed', true)});
};

$node->holds_invariants;
$node->stop;
done_testing();
