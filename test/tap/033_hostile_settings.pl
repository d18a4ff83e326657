# What a site sets for its sessions must not stop the leader: read-only by default refuses its writes,
# serializable makes its steps fail, time limits of a millisecond cancel them, and other ways to write
# dates, numbers and arrays are read wrongly by code that trusts them. They come from the file, from
# the database and from the role, at the start and by a reload. And no call to the provider is made before
# the synchronous standbys have what it was announced by, though the site would not wait for them.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

# What clients of this test need to get their work done in spite of it.
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } (
	'default_transaction_read_only=off', 'default_transaction_isolation=read\\ committed',
	'statement_timeout=0', 'lock_timeout=0', 'idle_in_transaction_session_timeout=0',
	'idle_session_timeout=0', 'search_path=pg_catalog');

my %hostile = (
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	idle_session_timeout => '1ms',
	search_path => 'hostile, public',
	datestyle => 'SQL, DMY',
	intervalstyle => 'sql_standard',
	timezone => 'Australia/Lord_Howe',
	bytea_output => 'escape',
	array_nulls => 'off',
	transform_null_equals => 'on',
	standard_conforming_strings => 'off',
	backslash_quote => 'on',
	extra_float_digits => '-15',
	row_security => 'off',
	session_replication_role => 'replica',
	enable_indexscan => 'off',
	enable_bitmapscan => 'off',
	enable_seqscan => 'off',
	plan_cache_mode => 'force_generic_plan',
	work_mem => '64kB',
	synchronous_commit => 'off');
my $node = GpuOrch->running('hostile', allows_streaming => 1, 'gpu_orch.test_clock' => 'on',
	'gpu_orch.heartbeat_interval' => '200ms', 'gpu_orch.heartbeat_timeout' => '3h');
my $pid = $node->wait_for_leader;

# Functions of the same names as those that the leader's statements call, where a search_path could find
# them first.
$node->sql(q{
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.count(anyelement) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
	CREATE FUNCTION hostile.least(a timestamptz, b timestamptz) RETURNS timestamptz LANGUAGE plpgsql
		AS $$ BEGIN RAISE 'hostile'; END $$;
	CREATE FUNCTION hostile.gen_random_uuid() RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
	CREATE FUNCTION hostile.equals(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
	CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equals)});

# The leader does everything that it does without a provider: it admits what became due, ends what is
# overdue, decides for a pool, and ends a worker that fell silent.
sub works
{
	my ($name) = @_;
	my $offset = -s $node->logfile;
	my $answer = $node->sql(qq{
		SELECT gpu_orch.run_cycle();
		SELECT gpu_orch.submit_task('due $name', run_at => gpu_orch.clock() + '1 hour') AS due,
			gpu_orch.submit_task('overdue $name', timeout => '1 hour', max_attempts => 1) AS overdue \\gset
		SELECT token FROM gpu_orch.register_worker('w $name', capabilities => '{"services": ["overdue $name"]}') \\gset
		SELECT count(*) FROM gpu_orch.claim_tasks('w $name', :'token');
		SELECT gpu_orch.create_pool('$name', 'image:1', ARRAY['NVIDIA L4'], min_workers => 1);
		SELECT gpu_orch.advance_clock('2 hours');
		SELECT 'tasks ' || :due || ' ' || :overdue});
	my ($due, $overdue) = $answer =~ /tasks (\d+) (\d+)/;

	$node->until("$name: a scheduled task is admitted", "SELECT state = 'ready' FROM gpu_orch.task($due)");
	$node->until("$name: an overdue attempt is ended",
		"SELECT state || ' ' || error = 'failed the task''s timeout passed' FROM gpu_orch.task($overdue)");
	$node->advance('2 hours');
	$node->until("$name: a silent worker is ended",
		"SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = 'w $name'");
	$node->until("$name: a decision is made",
		"SELECT count(*) > 0 FROM gpu_orch.decisions WHERE pool = '$name'");
	is($node->leader, $pid, "$name: by the same leader");
	is($node->sql('SELECT last_error FROM gpu_orch.leader_status()'), '', "$name: it met no error");
	is_deeply([ $node->lines_of_leader('ERROR|FATAL|PANIC|WARNING', $offset) ], [], "$name: and logged none");
	return;
}

works('plain');

$node->set(%hostile);
$node->until('the settings arrive', q{SELECT current_setting('bytea_output') = 'escape'});
works('reloaded');

$node->restart;
$pid = $node->wait_for_leader;
works('in_the_file');

# A database's and a role's settings are stronger than the file's.

$node->adjust_conf('postgresql.conf', $_, undef) for sort keys %hostile;
$node->sql(join ";\n", map {
	my $value = $_ eq 'search_path' ? $hostile{$_} : "'$hostile{$_}'";
	("ALTER DATABASE app SET $_ = $value", "ALTER ROLE CURRENT_USER SET $_ = $value")
} sort keys %hostile);
$node->restart;
$pid = $node->wait_for_leader;
works('of_the_database');
$node->holds_invariants;

# A synchronous standby that never comes: the leader waits for it, though the database and the role have
# synchronous_commit off, and neither a cancelled wait nor the leader's end is leave to call.

my $provider = Provider->start('--boot-seconds', '0');
my $key_file = PostgreSQL::Test::Utils::tempdir() . '/api_key';
append_to_file($key_file, $provider->{key});
chmod 0600, $key_file;
$node->sql(q{SELECT gpu_orch.drop_pool(pool) FROM gpu_orch.pools;
	SELECT gpu_orch.create_pool('sync', 'image:1', ARRAY['NVIDIA L4'], options => '{"policy": "fixed",
		"policy_options": {"fixed_workers": 0}}')});
$node->until('nothing is announced', q{SELECT count(*) = 0 FROM gpu_orch.cloud_ops WHERE state = 'planned'});
my $worker = $node->sql(q{SELECT gpu_orch.spawn_worker('sync')});

# Whether the leader waits for a standby, and which process it is.
sub waiting_leader
{
	return $node->sql(q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'gpu_orch leader' AND wait_event = 'SyncRep'});
}

$node->set(synchronous_standby_names => 'nobody');
$pid = wait_until('the leader waits for the standby', sub {
	$node->sql(q{SELECT gpu_orch.submit_task('t', run_at => gpu_orch.clock() + '1 ms')});
	return waiting_leader();
});
pass('the leader waits for the standby');
$node->set('gpu_orch.runpod_api_url' => "http://$provider->{address}/v2",
	'gpu_orch.runpod_api_key_file' => $key_file, 'gpu_orch.worker_dsn' => 'host=nowhere',
	'gpu_orch.reconcile_interval' => '500ms');
my $offset = -s $node->logfile;
for (1 .. 30)
{
	$node->sql("SELECT pg_cancel_backend($pid)");
}
is(waiting_leader(), $pid, 'who cancels that changes nothing');
is($node->count_lines('canceling wait for synchronous replication', $offset), 0, 'the wait is not given up');
is($node->sql("SELECT state FROM gpu_orch.cloud_ops WHERE worker = '$worker'"), 'planned', 'no create is sent');
$node->sql("SELECT pg_terminate_backend($pid)");
wait_until('another leader waits', sub { my $other = waiting_leader(); return $other ne '' && $other ne $pid; });
is(scalar($provider->pods), 0, 'nor by a leader that ends in its wait, or the next one');
$node->set(synchronous_standby_names => '');
$node->until('once the standby is not needed it is',
	"SELECT state = 'done' FROM gpu_orch.cloud_ops WHERE worker = '$worker' AND kind = 'create'");
is(scalar($provider->pods), 1, 'and there is one pod');
$node->holds_invariants;

$node->stop;
done_testing();
