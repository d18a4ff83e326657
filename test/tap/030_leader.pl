# The leader's lifetime: it is there, is seen, comes back, leaves when told, and costs nothing while
# there is nothing to do. Each part is a way in which background workers of other extensions have
# failed: gone for good after SIGTERM, restarted each second, a snapshot held open while waiting, no
# statistics and so no autovacuum, memory that grows with each cycle, a log full of one line, a
# shutdown or another database's DROP that waits for a provider's answer.
#
# GPU_ORCH_CYCLES is the number of cycles over which memory must stay level.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

my $cycles = $ENV{GPU_ORCH_CYCLES} || 10000;
# Without autovacuum, since new statistics mean new plans, and those need not have the size of the old.
my $node = GpuOrch->running('leader', 'gpu_orch.test_clock' => 'on', 'autovacuum' => 'off');

sub value
{
	my ($sql) = @_;

	return $node->sql($sql);
}

# Serve one task of a kind from submission to completion, by SQL alone.
sub serve
{
	my ($kind) = @_;

	return value(qq{
		SELECT token FROM gpu_orch.register_worker('server', capabilities => '{"services": ["$kind"]}') \\gset
		SELECT gpu_orch.submit_task('$kind') AS task \\gset
		SELECT task_id, lease FROM gpu_orch.claim_tasks('server', :'token') \\gset
		SELECT gpu_orch.complete_task('server', :'token', :task_id, :'lease') AND :task_id = :task});
}

# It is there and can be seen, in our status and in the server's own.

my $pid = $node->wait_for_leader;
is( value(q{SELECT s->>'runs', s->>'pid', s->>'doing', s->>'failed_starts', s->>'last_error'
		FROM (SELECT gpu_orch.status()->'leader' AS s) x}),
	"true|$pid|acting|0|",
	'status() shows the leader');
is( value(q{SELECT pid, datname, application_name FROM pg_stat_activity WHERE backend_type = 'gpu_orch leader'}),
	"$pid|app|gpu_orch leader",
	'pg_stat_activity shows it, once');

# Rows that it wrote are counted while it lives, or autovacuum would never come by. The installation is
# made by a call; the leader then enters there where it acts, and its own epoch.

value('SELECT gpu_orch.resume()');
$node->until('the row that the leader updated is counted',
	q{SELECT n_tup_upd >= 1 FROM pg_stat_user_tables WHERE schemaname = 'gpu_orch' AND relname = 'installation'});
my $scheduled = value(q{SELECT gpu_orch.submit_task('counted', run_at => gpu_orch.clock() + '1 minute')});
value(q{SELECT gpu_orch.advance_clock('2 minutes')});
$node->until('a task whose time came is admitted', "SELECT state = 'ready' FROM gpu_orch.task($scheduled)");
$node->until('and the row that admitted it is counted',
	q{SELECT n_tup_ins = 1 FROM pg_stat_user_tables WHERE schemaname = 'gpu_orch' AND relname = 'ready_queue'});
is($node->leader, $pid, 'by a leader that still lives');

# Between ticks it holds no snapshot and no transaction. The three columns are not read at one moment,
# so one sample in a while may be torn.

my ($good, $bad) = split /\|/, value(q{
	CREATE TEMP TABLE seen (state text, holds boolean);
	DO $$
	BEGIN
		FOR i IN 1..200 LOOP
			PERFORM pg_stat_clear_snapshot();
			INSERT INTO seen SELECT state, backend_xmin IS NOT NULL OR xact_start IS NOT NULL
				FROM pg_stat_activity WHERE backend_type = 'gpu_orch leader';
			PERFORM pg_sleep(0.005);
		END LOOP;
	END $$;
	SELECT count(*) FILTER (WHERE NOT holds), count(*) FILTER (WHERE holds) FROM seen WHERE state = 'idle'});
cmp_ok($good, '>', 0, "the leader is seen idle ($good times)");
cmp_ok($bad * 20, '<=', $good, "and then holds nothing ($bad torn samples)");

# Idle means idle: with rows to look at but nothing due, it ticks once for each cycle_interval and
# sleeps in between.

my $later = value(q{
	SELECT gpu_orch.submit_task('later', run_at => gpu_orch.clock() + '1 day');
	SELECT count(*) FROM gpu_orch.register_worker('idler');
	SELECT gpu_orch.submit_task('nobody serves this')});

sub switches
{
	my ($voluntary) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;

	return $voluntary;
}

# The number of ticks, the time of the last one in milliseconds, and how often the process slept,
# just after a tick later than the one given.
sub tick_after
{
	my ($ticks) = @_;

	$node->poll_query_until('app', "SELECT ticks > $ticks FROM gpu_orch.leader_status()")
	  or die 'the leader does not tick';
	return (split(/\|/, value(q{SELECT ticks, (extract(epoch FROM last_tick) * 1000)::bigint
		FROM gpu_orch.leader_status()})), switches());
}

$node->set('gpu_orch.cycle_interval' => '500ms');
$node->poll_query_until('app', q{SELECT current_setting('gpu_orch.cycle_interval') = '500ms'});
my @before = tick_after(value('SELECT ticks + 1 FROM gpu_orch.leader_status()'));
my @after = tick_after($before[0] + 7);
my $ticks = $after[0] - $before[0];
my $expected = ($after[1] - $before[1]) / 500;
cmp_ok($ticks, '<=', $expected + 2, sprintf('%d ticks in %.1f cycles', $ticks, $expected));
cmp_ok(($after[2] - $before[2]) / $ticks, '<', 50,
	sprintf('the leader slept %.1f times for each tick', ($after[2] - $before[2]) / $ticks));
$node->set('gpu_orch.cycle_interval' => '200ms');

# A cancel ends at most what it is at, and never the leader.

for (1 .. 10)
{
	value("SELECT pg_cancel_backend($pid)");
	value('SELECT gpu_orch.run_cycle()');
}
is($node->wait_for_leader, $pid, 'the leader outlives cancels');

# Terminated it comes back by itself, and what was committed while it was away is dealt with.

my $epoch = value('SELECT leader_epoch FROM gpu_orch.installation');
value("SELECT pg_terminate_backend($pid)");
$node->until('a terminated leader is gone', "SELECT pid IS NULL OR pid <> $pid FROM gpu_orch.leader_status()");
my $orphan = value(q{SELECT gpu_orch.submit_task('orphan', run_at => gpu_orch.clock() + '1 minute')});
value(q{SELECT gpu_orch.advance_clock('2 minutes')});
$pid = $node->wait_for_leader($pid);
is(value('SELECT leader_epoch FROM gpu_orch.installation'), $epoch + 1, 'it acts under a new epoch');
$node->until('what became due without a leader is admitted',
	"SELECT state = 'ready' FROM gpu_orch.task($orphan)");
is(value('SELECT failed_starts FROM gpu_orch.leader_status()'), 0, 'being terminated is not a failed start');

my $tasks = value(q{SELECT string_agg(format('%s %s', task_id, state), ', ' ORDER BY task_id) FROM gpu_orch.tasks});
$node->restart;
$pid = $node->wait_for_leader;
is( value(q{SELECT string_agg(format('%s %s', task_id, state), ', ' ORDER BY task_id) FROM gpu_orch.tasks}),
	$tasks, 'a restart loses nothing');

# Turned off it leaves, so that its database can be copied and dropped; turned on it returns.

$node->set('gpu_orch.enabled' => 'off');
$node->until('status() says that no leader runs', q{SELECT NOT (gpu_orch.status()->'leader'->>'runs')::boolean});
is($node->sqlstate('SELECT gpu_orch.run_cycle()'), 'GO005', 'run_cycle() says that nobody answers');
is(serve('unled'), 't', 'tasks are served without it');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
is( $node->safe_psql('copy', 'SELECT count(*) FROM gpu_orch.task'),
	value('SELECT count(*) FROM gpu_orch.task'),
	'the database can be copied');
$node->safe_psql('postgres', 'ALTER DATABASE app RENAME TO moved');
$node->safe_psql('postgres', 'ALTER DATABASE moved RENAME TO app');
$node->safe_psql('postgres', 'DROP DATABASE copy');
pass('and renamed, and the copy dropped');
$node->set('gpu_orch.enabled' => 'on');
$pid = $node->wait_for_leader($pid);

# No provider: said once however often the leader looks, shown in the status, and no task waits for it.

sub provider_is_failing
{
	my ($pattern, $name) = @_;
	my $offset = -s $node->logfile;

	return sub {
		$node->until("$name: status() says so",
			"SELECT s->>'ok' = 'false' AND s->>'error' ~ '$pattern' FROM (SELECT gpu_orch.status()->'provider' s) x")
				or diag(value(q{SELECT gpu_orch.status()->'provider'}));
		value(q{DO $$ BEGIN FOR i IN 1..20 LOOP PERFORM gpu_orch.run_cycle(); END LOOP; END $$});
		value(q{DO $$ BEGIN FOR i IN 1..20 LOOP
			BEGIN PERFORM gpu_orch.reconcile_now(); EXCEPTION WHEN connection_failure THEN NULL; END;
			END LOOP; END $$});
		is($node->count_lines('the provider cannot be used', $offset), 1, "$name: it is logged once")
		  or diag(slurp_file($node->logfile, $offset));
		is($node->sqlstate('SELECT gpu_orch.reconcile_now()'), '08006', "$name: reconcile_now() fails");
		is(serve('unprovided'), 't', "$name: tasks are served");
	};
}

my $key_file = PostgreSQL::Test::Utils::tempdir() . '/key';
my $check = provider_is_failing('key file .* cannot be used', 'no key file');
$node->set('gpu_orch.runpod_api_key_file' => $key_file);
$check->();

my $nobody = PostgreSQL::Test::Cluster::get_free_port();
$check = provider_is_failing("127.0.0.1:$nobody", 'unreachable provider');
umask 077;
append_to_file($key_file, 'a-key-for-tests');
$node->set('gpu_orch.runpod_api_url' => "http://127.0.0.1:$nobody/v2");
$check->();

# Memory stays level: idle; with a pool, workers and tasks; and over calls that fail.

# Memory of the leader's contexts after further cycles, each asked for and waited for.
sub memory_after
{
	my ($n) = @_;

	value("DO \$\$ BEGIN FOR i IN 1..$n LOOP PERFORM gpu_orch.run_cycle(); END LOOP; END \$\$");
	return value('SELECT memory_bytes FROM gpu_orch.leader_status()');
}

# The server plans a statement anew five times and keeps the plan for good at the sixth. What the leader does once a
# second, as counting, or once a minute has come by so often when this returns, each time with a new time.
sub keep_plans
{
	for (1 .. 7)
	{
		$node->advance('61 seconds');
		$node->cycle;
	}
	return;
}

sub stays_level
{
	my ($what) = @_;

	keep_plans();
	my $first = memory_after(100);
	my $last = memory_after($cycles - 100);

	cmp_ok(abs($last - $first), '<=', 8192, "$what: $first bytes after 100 cycles, $last after $cycles");
	return;
}

$node->set('gpu_orch.heartbeat_timeout' => '1h', 'gpu_orch.cycle_interval' => '1h');
stays_level('idle');
value(q{
	SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], min_workers => 2);
	SELECT gpu_orch.create_tenant('limited', 1);
	SELECT count(gpu_orch.register_worker('level' || i, capabilities => format('{"services": ["k%s"]}', i)::jsonb))
		FROM generate_series(1, 5) i;
	SELECT count(gpu_orch.submit_task('k' || i % 9, tenant => CASE WHEN i % 2 = 0 THEN 'default' ELSE 'limited' END,
			run_at => CASE WHEN i % 3 = 0 THEN gpu_orch.clock() + '1 day' END)) FROM generate_series(1, 60) i;
	SELECT token FROM gpu_orch.register_worker('level0') \gset
	SELECT count(*) FROM gpu_orch.claim_tasks('level0', :'token', 10)});
stays_level('a pool, workers and tasks');

my @memory = map {
	value("DO \$\$ BEGIN FOR i IN 1..$_ LOOP
		BEGIN PERFORM gpu_orch.reconcile_now(); EXCEPTION WHEN connection_failure THEN NULL; END;
		END LOOP; END \$\$; SELECT gpu_orch.run_cycle()");
	value('SELECT memory_bytes FROM gpu_orch.leader_status()')
} (100, 900);
cmp_ok(abs($memory[1] - $memory[0]), '<=', 8192,
	"failing calls: $memory[0] bytes after 100, $memory[1] after 1000");
$node->set('gpu_orch.cycle_interval' => '200ms');

# A provider that takes the request and never answers, with a time limit longer than that of this
# test: whatever waits for the leader's answer to a signal or a barrier would wait that long.

my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20) or die "listen: $!";
my @taken;

# Turn the leader to the silent provider and wait until its request has arrived.
sub wait_for_request
{
	wait_until('the leader calls the provider', sub {
		my $ready = '';

		vec($ready, fileno($silent), 1) = 1;
		return select($ready, undef, undef, 0.05);
	});
	push @taken, scalar $silent->accept;
	ok(sysread($taken[-1], my $request, 1), 'a request is under way');
	return;
}

$node->set('gpu_orch.http_timeout' => '600s',
	'gpu_orch.runpod_api_url' => 'http://127.0.0.1:' . $silent->sockport . '/v2');
wait_for_request();
is(serve('meanwhile'), 't', 'tasks are served meanwhile');
$node->safe_psql('postgres', 'CREATE DATABASE other');
is( $node->psql('postgres', 'DROP DATABASE other', extra_params => [ '-v', 'ON_ERROR_STOP=1' ],
		timeout => 60),
	0, 'another database is dropped meanwhile');
value("SELECT pg_terminate_backend($pid)");
$pid = $node->wait_for_leader($pid);
wait_for_request();

# Fast shutdown ends the leader, in a call and idle. pg_ctl gives up after this many seconds.

{
	local $ENV{PGCTLTIMEOUT} = 60;

	ok($node->stop('fast'), 'fast shutdown while a call is under way');
	ok(is_ended($pid), 'and the leader is gone');
	$node->append_conf('postgresql.conf', qq{gpu_orch.runpod_api_key_file = ''\n});
	$node->append_conf('postgresql.conf', qq{gpu_orch.cycle_interval = '10s'\n});
	$node->start;
	$pid = $node->wait_for_leader;
	$node->holds_invariants;
	ok($node->stop('fast'), 'fast shutdown with an idle leader');
	ok(is_ended($pid), 'and the leader is gone');
}

is_deeply([ grep { !/canceling statement due to user request/ } $node->lines_of_leader('ERROR|PANIC|WARNING') ],
	[], 'the leader logged no error');
is_deeply([ grep { !/terminating background worker "gpu_orch leader" due to administrator command/ }
		$node->lines_of_leader('FATAL') ],
	[], 'and ended only when told to');

# A reload that comes while the leader is being started, before it can hear of it, is not lost: it would stay
# away until the next one.

my $new = GpuOrch->running('new', 'gpu_orch.enabled' => 'off', 'gpu_orch.cycle_interval' => '500ms',
	'gpu_orch.runpod_api_key_file' => $key_file, 'gpu_orch.runpod_api_url' => "http://127.0.0.1:$nobody/v2");
$new->append_conf('postgresql.conf', qq{post_auth_delay = '2s'\n});
$new->restart;
$new->set('gpu_orch.enabled' => 'on', 'post_auth_delay' => '0');
$pid = $new->wait_for_leader;

# With a key, and before anybody has used the extension, it sleeps as well.

# The processor time of the leader, in hundredths of a second, and its ticks.
sub worked
{
	my ($stat) = slurp_file("/proc/$pid/stat") =~ /\) (.*)/;
	my @fields = split ' ', $stat;

	return ($fields[11] + $fields[12], $new->sql('SELECT ticks FROM gpu_orch.leader_status()'));
}

is($new->sql('SELECT count(*) FROM gpu_orch.installation'), 0, 'there is no installation yet');
my @idle = worked();
$new->poll_query_until('app', "SELECT ticks >= $idle[1] + 10 FROM gpu_orch.leader_status()") or die 'the leader does not tick';
my @later = worked();
my $share = ($later[0] - $idle[0]) / ($later[1] - $idle[1]);
cmp_ok($share, '<', 20, sprintf('of the 50 hundredths of a second of a cycle it works %.1f', $share));

# A wait within a step, as for a lock, uses up the latch, and with it the call of who asks meanwhile. It is not lost.
# The lock is held until the leader gives it up: the timer of a wait that ends earlier would set the latch later on.
# The wait must be that of the cycle which the first one asked for, as counting waits for the lock too.

# Run a statement beside the test; returns where its output will be.
sub beside
{
	open my $output, '-|', 'psql', '-XAtq', '-d', $new->connstr('app'), '-c', $_[0] or die "psql: $!";
	return $output;
}

$new->set('gpu_orch.cycle_interval' => '1h');
my $holder = beside('LOCK TABLE gpu_orch.waiting; SELECT pg_sleep(3600)');
$new->poll_query_until('app', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'}) or die 'no lock';
my $first = beside('DO $$ BEGIN PERFORM gpu_orch.run_cycle(); EXCEPTION WHEN OTHERS THEN NULL; END $$');
$new->poll_query_until('app', qq{SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity leader ON leader.pid = l.pid,
	pg_stat_activity asks WHERE l.pid = $pid AND NOT l.granted AND leader.query = 'admitting tasks'
	AND asks.query ~ '^DO .*run_cycle' AND l.waitstart > asks.query_start})
	or die 'the leader does not wait';
my $second = beside('SELECT gpu_orch.run_cycle()');
$new->poll_query_until('app', q{SELECT count(*) = 2 FROM pg_stat_activity
	WHERE query ~ 'run_cycle' AND wait_event_type = 'Extension'})
	or die 'nobody asks';
is(join('', <$first>), '', 'a cycle fails for want of a lock');
$new->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
like(join('', <$second>), qr/"actions"/, 'and who asked meanwhile has the next one');
$new->stop;

done_testing();
