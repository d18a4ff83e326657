# The settings of the claim engine: more shapes and more capability sets than there are places for,
# priorities that age, and preferred models.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = GpuOrch->running('limits',
	'autovacuum' => 'off',
	'gpu_orch.heartbeat_timeout' => '1d',
	'gpu_orch.max_capability_sets' => 1,
	'gpu_orch.max_shapes' => 16,
	'gpu_orch.test_clock' => 'on',
	'restart_after_crash' => 'on',
	'statement_timeout' => '20s');
$node->wait_for_leader;
my %token;

sub register
{
	my ($worker, $capabilities) = @_;

	$token{$worker} = $node->sql("SELECT token FROM gpu_orch.register_worker('$worker', capabilities => '" .
		($capabilities // '{}') . "', slots => 1000)");
	return;
}

# Submit tasks, each with its name for a payload, and for a kind unless one is given.
sub submit
{
	my ($names, $kind, $arguments) = @_;

	return $node->sql('SELECT count(gpu_orch.submit_task(' . ($kind // 'n')
		. ', to_jsonb(n)' . ($arguments ? ", $arguments" : '') .
		")) FROM unnest('{" . join(',', split / /, $names) . "}'::text[]) n");
}

sub claim
{
	my ($n, $worker) = @_;

	$worker //= 'w';
	return $node->sql("SELECT coalesce(string_agg(payload #>> '{}', ' ' ORDER BY ordinality), 'nothing') " .
		"FROM gpu_orch.claim_tasks('$worker', '$token{$worker}', $n) WITH ORDINALITY");
}

# Claim one after another.
sub claims
{
	my ($worker, $n) = @_;

	return join ' ', map { claim(1, $worker) } 1 .. $n;
}

sub states { return $node->sql(q{SELECT state, count(*) FROM gpu_orch.tasks WHERE state IN ('ready', 'held') GROUP BY 1
	ORDER BY 1}) }

# More shapes than there are places: the others are held. A database may have three quarters of the 16, and its
# tenant three quarters of those.
register('w');
submit(join ' ', map { "s$_" } 1 .. 13);
is(states(), "held|4\nready|9", 'as many shapes as a tenant may have places are ready, the others are held');
submit('again', q{'s1'});
is($node->sql(q{SELECT state FROM gpu_orch.tasks WHERE payload = '"again"'}), 'ready',
	'a further task of a shape that has one needs none');
$node->cycle;
is(states(), "held|4\nready|10", 'a cycle does not change that');
my $reasons = $node->sql(q{SELECT string_agg(w.reason, ' '), string_agg(w.detail, ' ') FROM gpu_orch.tasks t, gpu_orch.why_waiting(t.task_id) w WHERE t.payload = '"s13"'});
like($reasons, qr/^shape_limit\b/, 'why_waiting() gives the reason');
unlike($reasons, qr/Nothing stands against it/, 'and does not say that nothing stands against it');
is(claim(30), join(' ', (map { "s$_" } 1 .. 9), 'again'), 'what is ready is claimed in order');
my $got = '';
wait_until('the others are ready and claimed', sub {
	my $more = claim(1);

	$got .= " $more" if $more ne 'nothing';
	return $got eq ' s10 s11 s12 s13' || length $got > 16 });
is($got, ' s10 s11 s12 s13', 'the others become ready in order when there are places');
is(states(), '', 'and none is left');

# Held tasks without a place keep no other task waiting, and nobody writes them again and again. A claim that finds
# nothing has found that nothing is left of any shape.
is(claim(1), 'nothing', 'nothing is left to claim');
submit(join ' ', map { "p$_" } 1 .. 9);
$node->sql(q{SELECT count(gpu_orch.submit_task('noroom')) FROM generate_series(1, 1200)});
my $due = $node->sql(q{SELECT gpu_orch.submit_task('p1', run_at => gpu_orch.clock() + interval '1 minute')});
is(states(), "held|1200\nready|9", 'all places are taken and many tasks are held');
$node->advance('1 minute');
$node->until('a task whose shape has a place becomes ready when it is due', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $due");
is( $node->sql(q{BEGIN; SELECT gpu_orch.admit(); SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_all_tables
		WHERE schemaname = 'gpu_orch'; COMMIT}),
	"0\n0", 'and looking at the held ones writes no row');
$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE state IN ('held', 'ready')});
is(states(), '', 'none is left');

# Places of shapes whose tasks went away without a claim.
claim(1);
submit(join ' ', map { "x$_" } 1 .. 10);
is($node->sql(q{SELECT count(*) FROM gpu_orch.tasks WHERE state = 'ready'}), 9, 'all places are taken');
$node->sql(q{SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE state = 'ready'});
$node->advance('61 seconds');
$node->until('a place is free again when the tasks of its shape were cancelled',
	q{SELECT state = 'ready' FROM gpu_orch.tasks WHERE payload = '"x10"'});
claim(30);
is(claim(1), 'nothing', 'nothing is left to claim');

# The same places after a restart, with more shapes in the table than places.
submit(join ' ', map { "r$_" } 1 .. 9);
$node->sql(q{SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE state = 'ready'});
$node->restart;
$node->wait_for_leader;
submit('r30');
$node->restart;
$node->wait_for_leader;
is(claim(30), 'r30', 'what is ready is found after a restart, among shapes whose tasks are gone');
is(claim(1), 'nothing', 'nothing is left to claim');

# One that floods the queue with different requirements starves nobody: another tenant's, and those of another
# database, find places.
$node->sql(q{SELECT gpu_orch.create_tenant('greedy')});
submit(join(' ', map { "g$_" } 1 .. 40), 'n', q{tenant => 'greedy'});
is(states(), "held|31\nready|9", 'a tenant that floods has its share of the places');
submit(join ' ', map { "d$_" } 1 .. 4);
is($node->sql(q{SELECT string_agg(payload #>> '{}', ' ' ORDER BY task_id) FROM gpu_orch.tasks WHERE state = 'ready' AND tenant = 'default'}),
	'd1 d2 d3', 'another one has three quarters of what that one leaves');
$node->safe_psql('postgres', 'CREATE DATABASE other');
is($node->safe_psql('other', q{CREATE EXTENSION gpu_orch;
	SELECT count(gpu_orch.submit_task('o' || n)) FROM generate_series(1, 5) n;
	SELECT state, count(*) FROM gpu_orch.tasks GROUP BY 1 ORDER BY 1}), "5\nheld|2\nready|3", 'and another database of what these leave');
$node->safe_psql('postgres', 'DROP DATABASE other');
$node->advance('10 minutes');
$node->until('an alert tells who waits for places for long', q{SELECT string_agg(subject, ' ' ORDER BY subject) =
	'tenant default tenant greedy' FROM gpu_orch.alerts WHERE alert = 'shape_limit' AND cleared_at IS NULL});
$node->sql(q{SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE state IN ('ready', 'held')});
$node->advance('2 minutes');
$node->alerts(0, 'shape_limit', 'and ends');

# Submitters that meet at the last place: each task is ready or held, and none fails.
my $meet = $node->basedir . '/meet.sql';
append_to_file($meet, "\\set n random(1, 200)\nBEGIN;\nSELECT gpu_orch.submit_task('meet' || :n) AS id \\gset\n" .
	"COMMIT;\nSELECT gpu_orch.cancel_task(:id);\n");
IPC::Run::run([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '200', '-f', $meet, '-h', $node->host, '-p', $node->port, 'app' ],
	'>', \my $met, '2>', \my $failed);
is($failed =~ /aborted|error/ ? $failed : '', '', 'submitters that meet at the last place do not fail');
is(states(), '', 'and none of their tasks is left behind');

# The leader counts what is ready by a look at each entry, however many shapes there are; and matches each different
# set of capabilities once.
sub used { return "SELECT (pg_stat_get_xact_tuples_returned('gpu_orch.ready_queue'::regclass)
	+ (SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index WHERE indrelid = 'gpu_orch.ready_queue'::regclass))::bigint AS read,
	(SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relid = 'gpu_orch.worker_profile'::regclass) AS scans" }
$node->set('gpu_orch.max_shapes' => 4096);
$node->restart;
$node->wait_for_leader;
$node->sql(q{SELECT gpu_orch.create_pool('p', image => 'i', gpu_types => '{A}', max_workers => 1)});
$node->sql(q{SELECT count(r) FROM generate_series(1, 20) n, gpu_orch.register_worker('idle' || n, capabilities => '{"services": ["nothing"]}') r});
$node->sql(q{ANALYZE gpu_orch.ready_queue; SELECT count(gpu_orch.submit_task('m', requirements =>
	jsonb_build_object('hardware', jsonb_build_object('gpu_memory_gb', n)))) FROM generate_series(1, 1000) n});
my ($read, $scans) = split /\|/, (split /\n/, $node->sql('BEGIN; ' . used() . ' \\gset b_
	SELECT gpu_orch.run_cycle(true) \\g /dev/null
	' . used() . " \\gset\nSELECT :read - :b_read, :scans - :b_scans; COMMIT"))[-1];
cmp_ok($read, '<=', 4000, 'a plan reads a few entries for each of 1000 shapes');
cmp_ok($scans, '<=', 100, 'and the capabilities of 20 workers that offer the same once');
$node->sql(q{SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE state IN ('ready', 'held')});

# More capability sets than there are rings: they take turns.
register('a', '{"services": ["a", "both"]}');
register('b', '{"services": ["b", "both"]}');
submit('a1 a2 a3', q{'a'});
submit('b1 b2 b3', q{'b'});
submit('ab1 ab2', q{'both'});
is(claim(1, 'a') . ' ' . claim(1, 'b') . ' ' . claim(1, 'a') . ' ' . claim(2, 'b') . ' ' . claim(1, 'a') . ' ' . claim(1, 'b'),
	'a1 b1 a2 b2 b3 a3 ab1', 'two capability sets share one ring and take what is theirs, in order');
is(claim(2, 'b'), 'ab2', 'what both can do is taken once');
is(claim(1, 'a') . ' ' . claim(1, 'b'), 'nothing nothing', 'and then there is nothing');
submit('a4', q{'a'});
is(claim(1, 'b') . ' ' . claim(1, 'a'), 'nothing a4', 'that one of them finds nothing says nothing about the other');

# At the same time.
$node->sql(q{SELECT count(gpu_orch.submit_task((ARRAY['a', 'b', 'both'])[1 + n % 3])) FROM generate_series(1, 2900) n});
my $offset = -s $node->logfile;
my $script = $node->basedir . '/claims.sql';
append_to_file($script, "SELECT count(*) FROM gpu_orch.claim_tasks('a', '$token{a}');\n" .
	"SELECT count(*) FROM gpu_orch.claim_tasks('b', '$token{b}');\n");
is($node->psql('app', q{SELECT 1}), 0, 'the server runs');
IPC::Run::run([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '500', '-f', $script, '-h', $node->host, '-p', $node->port, 'app' ],
	'>', \my $out, '2>', \my $err);
is($err =~ /aborted|error/ ? $err : '', '', 'claimers of two capability sets at one ring do not fail');
is($node->count_lines('PANIC|terminated by signal', $offset), 0, 'nor does the server');
is($node->sql('SELECT count(*) FROM gpu_orch.ready_queue'), 0, 'every task is claimed');
is($node->sql('SELECT count(*) - count(DISTINCT task_id) FROM gpu_orch.lease'), 0, 'and each of them once');

# Priorities that age.
submit('low', q{'p'});
$node->advance('11 minutes');
submit('high', q{'p'}, 'priority => 5');
submit('young', q{'p'}, 'priority => 1');
submit('elsewhere', q{'q'}, 'priority => -3');
$node->cycle;
is($node->sql(q{SELECT string_agg((t.payload #>> '{}') || ' ' || ~r.rank, ', ' ORDER BY r.rank, r.tag)
	FROM gpu_orch.ready_queue r JOIN gpu_orch.tasks t USING (task_id)}),
	'high 5, young 1, low 0, elsewhere -3', 'priorities do not age unless that is asked for');
$node->set('gpu_orch.priority_ageing' => '10min');
wait_until('the old task is moved up', sub {
	$node->sql(q{SELECT ~r.rank FROM gpu_orch.ready_queue r JOIN gpu_orch.tasks t USING (task_id)
		WHERE t.payload = '"low"'}) eq '5' });
is(claim(10), 'low high young elsewhere',
	'a task that waited for long goes among those of the highest priority of its shape, a young one does not');
$node->set('gpu_orch.priority_ageing' => '0');

# Preferred models.
register('m', '{"services": ["m"], "models": ["a", "b", "c"]}');
register('v', '{"services": ["m"], "models": ["a", "b", "c"]}');
sub submit_models
{
	my ($names, $arguments) = @_;

	return submit($names, q{'m'}, q{requirements => jsonb_build_object('models', jsonb_build_array(left(n, 1)))} .
		($arguments ? ", $arguments" : ''));
}
submit_models('a1 b1 a2 b2');
is(claims('m', 4), 'a1 b1 a2 b2', 'without a window the order is strict');
$node->set('gpu_orch.locality_window' => 4);
wait_until('the window is there', sub { $node->sql('SHOW gpu_orch.locality_window') eq '4' });
submit_models('b1 a1 b2 a2 c1 b3');
is(claims('m', 6), 'b1 b2 b3 a1 a2 c1', 'a worker goes on with its last model, as far as the window reaches');
submit_models('c1');
is(claim(1, 'm'), 'c1', 'a worker has a model');
submit_models('a1', 'priority => 1');
submit_models('b1 c2');
is(claims('m', 3), 'a1 b1 c2', 'but a task of another model and a higher priority goes first');
submit_models('a1');
is(claim(1, 'm'), 'a1', 'another one');
submit_models('b1 ' . join ' ', map { "a$_" } 2 .. 9);
is(claims('m', 9), 'a2 a3 a4 a5 b1 a6 a7 a8 a9', 'no task is passed more often than the window is long');

# The same when the queue changes meanwhile, and for those that are not the first.
submit_models('a1');
is(claim(1, 'm'), 'a1', 'another one');
submit_models('b1');
$got = join ' ', map { submit_models("a$_"); claim(1, 'm') } 2 .. 9;
like($got, qr/^(a\d ){0,4}b1\b/, 'nor when the queue changes between the claims');
claims('m', 1);
submit_models('a1 a2');
is(claim(1, 'm') . claim(1, 'v'), 'a1a2', 'two workers have a model');
submit_models('c1 b1 ' . join ' ', map { "a$_" } 3 .. 20);
$got = claims('m', 5) . ' ' . claims('v', 6);
like($got, qr/^(a\d+ |c1 ){0,5}b1\b/, 'nor the one behind the one that was passed');

$node->stop;
done_testing();
