# DDL against the leader: DROP and CREATE EXTENSION while it ticks (deadlocks, errors about tables that
# vanished), DROP DATABASE of another database and of its own (barriers that it must absorb, restarts
# each second for ever), and dump and restore, with and without preloading. A restored copy must serve
# its tasks and must not touch the original's pods before somebody says so.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local qw(timegm);

my $node = GpuOrch->running('ddl', 'gpu_orch.cycle_interval' => '100ms');
my $pid = $node->wait_for_leader;

# The seconds of the day at which the leader logged that its database is gone.
sub fatal_times
{
	return map { /^(\d+)-(\d+)-(\d+) (\d+):(\d+):([\d.]+)/; timegm(0, $5, $4, $3, $2 - 1, $1) + $6 }
	  grep { /database "app" does not exist/ } $node->lines_of_leader('FATAL', $_[0]);
}

# Create and drop a database that is none of the leader's, within a minute.
sub drop_another
{
	my ($name) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE other');
	is($node->sqlstate("SET statement_timeout = '60s'; DROP DATABASE other", 'postgres'), '', $name);
	return;
}

# A row for each table that dumps carry, and of each state that a task may have.
sub populate
{
	$node->sql(q{
		SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], min_workers => 1,
			options => '{"env": {"A": "\"quoted\" \\\\ text"}}');
		SELECT gpu_orch.create_tenant('limited', 1);
		CREATE ROLE app_role;
		SELECT gpu_orch.grant_tenant('limited', 'app_role');
		SELECT token FROM gpu_orch.register_worker('w', capabilities => '{"services": ["k"]}') \gset
		SELECT gpu_orch.submit_tasks(jsonb_agg(jsonb_build_object('kind', 'k', 'payload', jsonb_build_object('n', n))))
			FROM generate_series(1, 6) n;
		SELECT task_id, lease FROM gpu_orch.claim_tasks('w', :'token') \gset
		SELECT gpu_orch.complete_task('w', :'token', :task_id, :'lease', '{"text": "a\tb\\n\u00e9"}');
		SELECT task_id, lease FROM gpu_orch.claim_tasks('w', :'token') \gset
		SELECT gpu_orch.fail_task('w', :'token', :task_id, :'lease', E'two\nlines', retry => false);
		SELECT task_id, lease FROM gpu_orch.claim_tasks('w', :'token') \gset
		SELECT gpu_orch.fail_task('w', :'token', :task_id, :'lease', 'again');
		SELECT count(*) FROM gpu_orch.claim_tasks('w', :'token');
		SELECT gpu_orch.cancel_task(gpu_orch.submit_task('k'));
		SELECT gpu_orch.submit_task('k', depends_on => ARRAY[gpu_orch.submit_task('other')], idempotency_key => 'same');
		SELECT gpu_orch.submit_task('k', tenant => 'limited', priority => 2) FROM generate_series(1, 2);
		SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + '1 day', timeout => '1 hour');
		SELECT gpu_orch.run_cycle()});
	is( $node->sql(q{SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM gpu_orch.tasks}),
		'blocked cancelled failed held ready running scheduled succeeded',
		'there is a task in each state');
	return;
}

# What a dump must carry: each row of each registered table as text, and each sequence.
sub contents
{
	my ($of) = @_;

	return $of->sql(q{
		SET timezone = 'UTC';
		SELECT format('SELECT %L, count(*), string_agg(t::text, E''\n'' ORDER BY t::text) FROM %s t',
			c.oid::regclass, c.oid::regclass)
		FROM pg_extension e, unnest(e.extconfig) x, pg_class c
		WHERE e.extname = 'gpu_orch' AND c.oid = x AND c.relkind = 'r' ORDER BY c.relname \gexec
		SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'gpu_orch' ORDER BY 1});
}

# Make database "app" of a node from the dump, as its administrator would.
sub restore
{
	my ($to, $file, @options) = @_;

	$to->command_ok([ 'pg_restore', '--exit-on-error', @options, '-d', $to->connstr('app'), $file ],
		'the dump is restored in ' . $to->name . (@options ? " (@options)" : ''));
	return;
}

# DROP and CREATE EXTENSION while the leader ticks. It never waits for the lock that they take, and
# knows the extension by its row in pg_extension, so none of this is an error to it.

for my $round (1 .. 20)
{
	$node->sql(q{
		SELECT gpu_orch.submit_tasks(jsonb_agg(jsonb_build_object('kind', 'k', 'run_at', gpu_orch.clock() + '10ms')))
			FROM generate_series(1, 50);
		DROP EXTENSION gpu_orch;
		CREATE EXTENSION gpu_orch;});
	# Half of the rounds meet a leader that works in the new extension, half one that has not seen it.
	$node->cycle if $round % 2;
}
pass('20 times dropped and created again');
my $task = $node->sql(q{SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + '10ms')});
$node->until('the leader works in the last one', "SELECT state = 'ready' FROM gpu_orch.task($task)");
is($node->leader, $pid, 'and it is the same leader');

$node->sql('DROP EXTENSION gpu_orch');
my $dropped = $node->sql('SELECT clock_timestamp()');
$node->until('without the extension the leader looks on',
	"SELECT pid = $pid AND query_start > '$dropped' AND state = 'idle' FROM pg_stat_activity
		WHERE backend_type = 'gpu_orch leader'");
$node->sql('CREATE EXTENSION gpu_orch');
is($node->wait_for_leader, $pid, 'and goes on when it is there');

my $session = $node->background_psql('app');
$session->query_safe('BEGIN');
$session->query_safe('DROP EXTENSION gpu_orch');
$node->until('while the extension is being changed the leader waits',
	q{SELECT doing ~ 'is being changed' FROM gpu_orch.leader_status()});
$session->query_safe('ROLLBACK');
$session->quit;
is($node->wait_for_leader, $pid, 'and goes on afterwards');

is_deeply([ $node->lines_of_leader('ERROR|FATAL|PANIC|WARNING') ], [], 'the leader logged no error');
is($node->count_lines('deadlock detected|TRAP:|PANIC'), 0, 'and nobody met a deadlock');

# Another database is created and dropped while the leader ticks and sleeps.

drop_another('DROP DATABASE of another database completes');

# Its own database: not while it is connected.

populate();
$node->holds_invariants;
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->sql('SELECT gpu_orch.pause()');
$node->set('gpu_orch.enabled' => 'off');
$node->until('the leader leaves', 'SELECT pid IS NULL FROM gpu_orch.leader_status()');
my $original = contents($node);
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('app') ], 'the database is dumped');
my $next = $node->sql(q{SELECT max(id) + 1 FROM gpu_orch.task});
$node->set('gpu_orch.enabled' => 'on');
$pid = $node->wait_for_leader($pid);

my ($state, $message) = $node->sqlstate('DROP DATABASE app', 'postgres');
is($state, '55006', 'DROP DATABASE of its own fails');
like($message, qr/being accessed by other users/, 'and says why');
is($node->leader, $pid, 'which stays');

# By force it works, and the leader's restarts are slept off: the first two tries to connect are
# further apart than the 5 s after which the server starts it again. We look at the log later.

my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'DROP DATABASE app WITH (FORCE)');
ok(is_ended($pid), 'by force it works');

# A server that does not preload: CREATE EXTENSION, what reads, dump and restore work; what writes says
# what is missing.

my $plain = GpuOrch->new('plain');
$plain->init;
$plain->start;
$plain->safe_psql('postgres', 'CREATE DATABASE app');
$plain->safe_psql('postgres', 'CREATE ROLE app_role');
restore($plain, $dump);
is(contents($plain), $original, 'without preloading the restored rows and sequences are the same');
is($plain->sql(q{SELECT gpu_orch.status()->'leader'->>'runs'}), 'false', 'status() says that there is no leader');
$plain->holds_invariants('every invariant holds in the restored database');

my $token = q{'0000000000000000000000000000000000000000000000000000000000000000'};
my $lease = q{'00000000-0000-0000-0000-000000000000'};
my @writers = (
	q{submit_task('k')}, q{submit_tasks('[{"kind": "k"}]')}, 'cancel_task(1)', 'retry_task(1)', 'admit()',
	q{register_worker('v')}, "heartbeat('w', $token)", "claim_tasks('w', $token)",
	"complete_task('w', $token, 1, $lease)", "fail_task('w', $token, 1, $lease, 'e')",
	"release_task('w', $token, 1, $lease)", "progress_task('w', $token, 1, $lease, 0.5)",
	"complete_and_claim('w', $token, 1, $lease)",
	q{create_pool('q', 'image:1', ARRAY['NVIDIA L4'])}, q{alter_pool('p', '{"max_workers": 1}')},
	q{drop_pool('p')}, q{spawn_worker('p')}, q{drain_worker('w')}, q{terminate_worker('w')},
	q{create_tenant('t')}, q{alter_tenant('limited', 2)}, q{grant_tenant('limited', 'app_role')},
	q{revoke_tenant('limited', 'app_role')}, 'pause()', 'resume()', 'adopt_installation()', 'run_cycle()',
	'reconcile_now()', q{advance_clock('1 minute')});
my @wrong;
for my $call (@writers)
{
	($state, $message) = $plain->sqlstate("SELECT gpu_orch.$call");
	push @wrong, "$call: $state"
	  unless $state eq '55000' && $message =~ /HINT:.*shared_preload_libraries/;
}
is_deeply(\@wrong, [], scalar(@writers) . ' functions that write raise 55000 with a hint');
is(contents($plain), $original, 'and changed nothing');

# The dump of that restored database is as good as the first.

my $second_dump = "$dump.2";
$plain->command_ok([ 'pg_dump', '-Fc', '-f', $second_dump, $plain->connstr('app') ], 'it is dumped again');
$plain->stop;

# Into a server that preloads, whose leader has not been let in yet: on hold, since it is another
# server. Tasks are served; the worker of the original is told nothing; adopting ends the hold.

my $copy = GpuOrch->new('copy');
$copy->init;
$copy->start;
$copy->safe_psql('postgres', 'CREATE DATABASE app');
$copy->safe_psql('postgres', 'CREATE ROLE app_role');
$copy->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'gpu_orch'
gpu_orch.database = 'app'
gpu_orch.cycle_interval = '100ms'
gpu_orch.enabled = off
CONF
$copy->restart;
restore($copy, $second_dump);
is(contents($copy), $original, 'preloaded, the restored rows and sequences are the same');
$copy->set('gpu_orch.enabled' => 'on');
$copy->wait_for_leader;
my $origin = $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
is( $copy->sql('SELECT hold, hold_reason, epoch FROM gpu_orch.installation'),
	"t|made on another server: $origin|1", 'the copy is on hold');
is($copy->sql(q{SELECT gpu_orch.status()->'installation'->>'hold'}), 'true', 'and status() says so');
is($copy->sql(q{SELECT gpu_orch.submit_task('k')}), $next, 'the next task has the next id');
is( $copy->sql(q{
		SELECT token FROM gpu_orch.register_worker('v', capabilities => '{"services": ["k"]}') \gset
		SELECT task_id, lease FROM gpu_orch.claim_tasks('v', :'token') \gset
		SELECT gpu_orch.complete_task('v', :'token', :task_id, :'lease')}),
	't', 'and served');
$copy->sql('SELECT gpu_orch.resume(); SELECT gpu_orch.run_cycle()');
is( $copy->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE origin = 'cloud'}),
	0, 'no pod is announced, though the pool wants one');
is( $copy->sql(q{SELECT term FROM gpu_orch.explain_scaling('p') WHERE bound}),
	'hold', 'because of the hold');
like(($copy->sqlstate(q{SELECT gpu_orch.spawn_worker('p')}))[1], qr{on hold}, 'nor may an operator announce one');
is(scalar($copy->lines_of_leader('WARNING')), 1, 'the hold is logged once');
is($copy->sql(q{SELECT alert, level, subject, detail FROM gpu_orch.alerts WHERE cleared_at IS NULL}),
	"hold|critical|installation|made on another server: $origin", 'and is an alert');
$copy->sql('SELECT gpu_orch.adopt_installation(); SELECT gpu_orch.run_cycle()');
is($copy->sql('SELECT hold, hold_reason IS NULL, epoch FROM gpu_orch.installation'),
	'f|t|2', 'adopting ends the hold, under a new epoch');
is($copy->sql('SELECT count(*) FROM gpu_orch.alerts WHERE cleared_at IS NULL'), 0, 'the alert is cleared');
isnt( $copy->sql(q{SELECT term FROM gpu_orch.explain_scaling('p') WHERE bound}),
	'hold', 'and nothing is held any more');
$copy->holds_invariants;

# The same dump while the leader ticks: in one transaction, so that it sees all or nothing.

$copy->sql('DROP EXTENSION gpu_orch; DROP SCHEMA gpu_orch');
restore($copy, $second_dump, '--single-transaction');
$copy->until('restored in front of the leader, it is on hold, too', 'SELECT hold FROM gpu_orch.installation');
is( $copy->sql('SELECT id FROM gpu_orch.installation'),
	$original =~ /gpu_orch\.installation\|1\|\(t,(\w+),/ ? $1 : 'none', 'and has the id of the original');
$copy->holds_invariants;
is_deeply([ grep { !/on hold/ } $copy->lines_of_leader('ERROR|FATAL|PANIC|WARNING') ], [],
	'the leader of the copy logged no error');

# Copied within its server the database is another one, and on hold as well.

$copy->sql('SELECT gpu_orch.adopt_installation(); SELECT gpu_orch.run_cycle()');
$copy->set('gpu_orch.enabled' => 'off');
$copy->until('the leader leaves', 'SELECT pid IS NULL FROM gpu_orch.leader_status()');
$copy->safe_psql('postgres', q{
	CREATE DATABASE twin TEMPLATE app;
	ALTER DATABASE app RENAME TO former;
	ALTER DATABASE twin RENAME TO app});
$copy->set('gpu_orch.enabled' => 'on');
$copy->until('a copy within the server is on hold',
	q{SELECT hold AND hold_reason ~ 'another database' FROM gpu_orch.installation});
$copy->stop;

# Back to the database that was dropped by force.

wait_until('the leader has failed twice to connect', sub { fatal_times($offset) >= 2 });
my @times = fatal_times($offset);
cmp_ok($times[1] - $times[0], '>', 7, 'the second failed start waited before it connected')
  or diag("@times");
drop_another('while a start is slept off, other databases are dropped');
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->sql('CREATE EXTENSION gpu_orch');
$node->wait_for_leader;
is($node->sql('SELECT failed_starts FROM gpu_orch.leader_status()'),
	0, 'when the database is there again the leader returns');
$node->stop;

done_testing();
