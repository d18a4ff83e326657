# What the claim engine keeps in shared memory, against everything that changes the queue without telling
# it in time, or takes back what it was told: rollbacks, savepoints, prepared transactions, crashes,
# promotions, new files and rows that come from elsewhere. Each part ends with an empty queue.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my %settings = (
	'autovacuum' => 'off',
	'gpu_orch.heartbeat_timeout' => '1d',
	'gpu_orch.retry_delay' => '0',
	'gpu_orch.test_clock' => 'on',
	'max_prepared_transactions' => 10,
	'restart_after_crash' => 'on',
	'statement_timeout' => '10s');
my $node = GpuOrch->running('memory', allows_streaming => 1, %settings);
our %token;
$node->wait_for_leader;

sub register
{
	my ($worker, $capabilities) = @_;

	return $token{$worker} = $node->sql("SELECT token FROM gpu_orch.register_worker('$worker', capabilities => '" .
		($capabilities // '{}') . "', slots => 1000)");
}

# The statement that submits tasks, each with its name for a payload.
sub submit_sql
{
	my ($names, $arguments) = @_;

	return "SELECT count(gpu_orch.submit_task('k', to_jsonb(n)" . ($arguments ? ", $arguments" : '') .
		")) FROM unnest('{" . join(',', split / /, $names) . "}'::text[]) WITH ORDINALITY u(n, o)";
}
sub submit { return $node->sql(submit_sql(@_)); }

# The statement that claims up to n tasks, and shows their names in order.
sub claim_sql
{
	my ($n, $worker) = @_;

	$worker //= 'w';
	$n //= 1;
	return "SELECT coalesce(string_agg(payload #>> '{}', ' ' ORDER BY ordinality), 'nothing') " .
		"FROM gpu_orch.claim_tasks('$worker', '$token{$worker}', $n) WITH ORDINALITY";
}
sub claim { return $node->sql(claim_sql(@_)); }

# Complete whatever is running.
sub finish
{
	$node->sql("SELECT count(gpu_orch.complete_task(w.id, t.token, l.task_id, l.id)) FROM gpu_orch.lease l
		JOIN gpu_orch.worker w ON w.no = l.worker JOIN (VALUES " .
		join(', ', map { "('$_', '$token{$_}')" } sort keys %token) . ') t (name, token) ON t.name = w.id');
	is($node->sql('SELECT (SELECT count(*) FROM gpu_orch.lease) + (SELECT count(*) FROM gpu_orch.ready_queue)'), 0,
		'nothing runs and nothing is ready');
	return;
}

# How many entries of the queue's indexes, and rows by sequential scans, a claim looked at.
sub looked_at
{
	my ($claim) = @_;

	return (split /\n/, $node->sql("BEGIN; SELECT looked_at() AS before \\gset\n$claim;
		SELECT looked_at() - :before; COMMIT"))[-1];
}

$node->sql(q{CREATE FUNCTION looked_at() RETURNS bigint LANGUAGE sql AS $$
	SELECT (pg_stat_get_xact_tuples_returned('gpu_orch.ready_queue'::regclass)
		+ sum(pg_stat_get_xact_tuples_returned(indexrelid)))::bigint
	FROM pg_index WHERE indrelid = 'gpu_orch.ready_queue'::regclass $$});
register('w');
is(claim(), 'nothing', 'the queue begins empty');

# Rollbacks.
submit('a b c');
is($node->sql('BEGIN; ' . claim_sql(2) . '; ROLLBACK'), 'a b', 'a claim is rolled back');
is(claim(3), 'a b c', 'and what it took is there again, in order');
finish();

submit('a b c');
is($node->sql('BEGIN; ' . claim_sql() . '; SAVEPOINT s; ' . claim_sql() . '; ROLLBACK TO s; COMMIT'), "a\nb",
	'a claim is rolled back to a savepoint');
is(claim(3), 'b c', 'and only what it took since is there again');
finish();

my $first = $node->session;
submit('a b c d');
$first->query_safe('BEGIN; SAVEPOINT s');
is($first->query_safe(claim_sql(2)), 'a b', 'a claim waits behind a savepoint');
is(claim(2), 'c d', 'while another one goes on behind it');
is(claim(), 'nothing', 'until nothing is left');
$first->query_safe('ROLLBACK TO s');
is(claim(), 'a', 'the first of them is there again after the rollback to the savepoint');
is($first->query_safe(claim_sql()), 'b', 'and the second one also for the session that gave it back');
$first->query_safe('COMMIT');
finish();

$node->sql('BEGIN; ' . submit_sql('never') . '; ROLLBACK');
is(claim(), 'nothing', 'a submit that was rolled back leaves nothing');
is($node->sql('BEGIN; ' . submit_sql('a') . '; SAVEPOINT s; ' . submit_sql('never') . '; ROLLBACK TO s; ' . claim_sql(2)
	. '; ROLLBACK'),
	"1\n1\na", 'a transaction claims what it submitted, but for what it took back');
is(claim(), 'nothing', 'and nothing is left of either');

# A submit that is still open.
$first->query_safe('BEGIN');
$first->query_safe(submit_sql('a'));
is(claim(), 'nothing', 'a task is not there before the commit that submits it');
is(claim(), 'nothing', 'nor when asked again');
$first->query_safe('COMMIT');
is(claim(), 'a', 'and is right after it');
finish();

submit('later');
is(claim(0), 'nothing', 'a claim of nothing takes nothing');
$first->query_safe('BEGIN');
$first->query_safe(submit_sql('urgent', 'priority => 5'));
submit('latest');
is(claim(), 'later', 'an urgent task does not hold up others before its commit');
$first->query_safe('COMMIT');
is(claim(2), 'urgent latest', 'and goes first after it');
finish();

# Prepared transactions.
$node->sql('BEGIN; ' . submit_sql('a') . q{; PREPARE TRANSACTION 'p'});
is(claim(), 'nothing', 'a prepared submit is not there yet');
$node->sql(q{COMMIT PREPARED 'p'});
is(claim(), 'a', 'and is after COMMIT PREPARED in another session');
$node->sql('BEGIN; ' . submit_sql('never') . q{; PREPARE TRANSACTION 'p'});
is(claim(), 'nothing', 'another one is not there yet');
$node->sql(q{ROLLBACK PREPARED 'p'});
is(claim(), 'nothing', 'nor ever after ROLLBACK PREPARED');
finish();

submit('a b');
$node->sql('BEGIN; ' . claim_sql() . q{; PREPARE TRANSACTION 'p'});
is(claim(2), 'b', 'a prepared claim is passed');
is(claim(), 'nothing', 'until nothing else is left');
$node->sql(q{ROLLBACK PREPARED 'p'});
is(claim(), 'a', 'its task is claimable again after ROLLBACK PREPARED');
finish();
submit('a b');
$node->sql('BEGIN; ' . claim_sql() . q{; PREPARE TRANSACTION 'p'});
$node->sql(q{COMMIT PREPARED 'p'});
is(claim(2), 'b', 'and gone after COMMIT PREPARED');
is(claim(), 'nothing', 'for good');
is($node->sql(q{SELECT string_agg(payload #>> '{}', ' ' ORDER BY task_id) FROM gpu_orch.tasks WHERE state = 'running'}), 'a b',
	'and runs');
finish();

# What is claimed by a prepared transaction counts against the leases that a worker may hold.
submit(join ' ', map { "t$_" } 1 .. 201);
$token{few} = $node->sql(q{SELECT token FROM gpu_orch.register_worker('few', capabilities => '{}')});
$node->sql('BEGIN; ' . claim_sql(200, 'few') . q{; PREPARE TRANSACTION 'p'});
like($node->refusal(claim_sql(1, 'few')), qr/worker "few" holds as many leases as it may/, 'a prepared claim counts');
$node->sql(q{ROLLBACK PREPARED 'p'});
is(claim(201, 'few') =~ tr/t//, 200, 'and does no more after ROLLBACK PREPARED');
claim();
finish();

# A prepared claim at the head must not make others look at what is claimed behind it.
sub behind_a_prepared_claim
{
	submit(join ' ', map { "t$_" } 0 .. 1000);
	$node->sql('BEGIN; ' . claim_sql() . q{; PREPARE TRANSACTION 'head'});
	claim(900);
	cmp_ok(looked_at(claim_sql()), '<=', 600, 'a claim fills the ring');
	cmp_ok(looked_at(claim_sql()), '<=', 50, 'a claim looks at few entries with 900 claimed behind a prepared claim');
	is(claim(1000) =~ tr/t//, 98, 'the rest is claimed');
	claim();
	cmp_ok(looked_at(claim_sql()), '<=', 50, 'and so does one that finds nothing');
	return;
}
behind_a_prepared_claim();
submit('new');
my $looks = looked_at(claim_sql());
cmp_ok($looks, '<=', 50, 'and one that finds what came since');
$node->sql(q{ROLLBACK PREPARED 'head'});
is(claim(), 't0', 'the prepared claim was rolled back, so its task is claimable');
finish();

# Entries of rows that a snapshot may still see cannot be removed, and need not be looked at.
my $old = $node->session;
submit(join ' ', map { "t$_" } 1 .. 1805);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM gpu_orch.ready_queue');
claim(1000), claim(800);
claim();
cmp_ok(looked_at(claim_sql()), '<=', 50, 'a claim looks at few entries with 1800 claimed under an old snapshot');
claim(3);
claim();
cmp_ok(looked_at(claim_sql()), '<=', 50, 'and so does one that finds nothing');
is($old->query_safe('SELECT count(*) FROM gpu_orch.ready_queue'), 1805, 'which sees them all');
submit('new');
cmp_ok(looked_at(claim_sql()), '<=', 50, 'and so does one that finds what came since');
$old->query_safe('COMMIT');
$old->quit;
finish();

# Rows that somebody updates: within their page, with vacuum between, and to another place in the queue.
submit('a b c');
$node->sql('UPDATE gpu_orch.ready_queue SET losses = losses');
is(claim(), 'a', 'a row that was updated is found');
$node->sql('VACUUM gpu_orch.ready_queue; UPDATE gpu_orch.ready_queue SET losses = losses');
is(claim(), 'b', 'as it is after vacuum');
claim(0);
$node->sql('BEGIN; UPDATE gpu_orch.ready_queue SET losses = losses; ' . claim_sql() . '; ROLLBACK');
$first->query_safe('BEGIN; UPDATE gpu_orch.ready_queue SET losses = losses');
is(claim(), 'nothing', 'a row that is being updated is passed');
$first->query_safe('ROLLBACK');
is(claim(), 'c', 'and is there again after the rollback');
submit('d e', 'priority => -1');
is(claim(), 'd', 'a task is claimed');
$node->sql(q{UPDATE gpu_orch.ready_queue SET rank = ~7});
$node->advance('61 seconds');
$node->cycle;
wait_until('a row that was moved to the front is found', sub { claim() eq 'e' });
finish();

# New files.
submit('a b c');
is(claim(), 'a', 'a task is claimed');
$node->sql('VACUUM FULL gpu_orch.ready_queue');
is(claim(), 'b', 'the next one is found in a rewritten table');
submit('d');
is(claim(3), 'c d', 'and what came before and after that');
finish();
# A lock that SQL can take does not keep anybody from reading a new queue.
$first->query_safe(q{SELECT pg_advisory_lock('gpu_orch.ready_queue'::regclass::oid::int, 0)});
submit('a');
$node->sql('VACUUM FULL gpu_orch.ready_queue');
is(claim(), 'a', 'a rewritten queue is read while somebody holds an advisory lock on its number');
submit('b');
is(claim(), 'b', 'and submitted to');
$first->query_safe(q{SELECT pg_advisory_unlock_all()});
finish();
submit('a b');
$node->sql('BEGIN; TRUNCATE gpu_orch.ready_queue; ' . claim_sql() . '; ROLLBACK');
is(claim(), 'a', 'a TRUNCATE that was rolled back changes nothing');
$node->sql(q{CREATE TABLE kept AS TABLE gpu_orch.ready_queue; TRUNCATE gpu_orch.ready_queue});
is(claim(), 'nothing', 'a truncated queue is empty');
$node->sql('INSERT INTO gpu_orch.ready_queue TABLE kept; DROP TABLE kept');
submit('c');
$node->advance('61 seconds');
$node->cycle;
wait_until('what was put back is found', sub { claim() eq 'b' });
is(claim(), 'c', 'then what came later');
finish();

# Rows that come from elsewhere, as a restore of a dump writes them.
submit('a b c');
$node->sql(q{BEGIN; CREATE TABLE dump AS TABLE gpu_orch.ready_queue; DELETE FROM gpu_orch.ready_queue; COMMIT});
is(claim(), 'nothing', 'a queue from which everything was deleted is empty');
$node->sql(q{SELECT gpu_orch.run_cycle(true)});
$node->sql(q{\copy dump TO 'dump.copy'});
$node->sql(q{\copy gpu_orch.ready_queue FROM 'dump.copy'});
$node->advance('61 seconds');
$node->cycle;
wait_until('what was copied in is found', sub { claim() eq 'a' });
is(claim(3), 'b c', 'in order');
$node->sql('DROP TABLE dump');
unlink 'dump.copy';
finish();

# A lock on a row makes a claim pass it, not wait for it.
submit('a b');
$first->query_safe('BEGIN; SELECT FROM gpu_orch.ready_queue ORDER BY tag LIMIT 1 FOR UPDATE');
is($node->sqlstate(claim_sql(2)), '', 'a claim passes a row that is locked');
is($node->sqlstate(claim_sql()), '', 'and finds nothing where all are');
$first->query_safe('COMMIT');
is(claim(2), 'a', 'a row is claimable once its lock is gone');
finish();
$first->quit;

# Two databases with equal numbers of everything.
my $other_token;
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->in_database('other', sub {
	local %token = ();

	$node->sql('CREATE EXTENSION gpu_orch');
	$other_token = register('w');
	is(claim(), 'nothing', 'the queue of another database begins empty');
	submit('o1 o2 o3');
});
submit('a b c d');
is(claim(), 'a', 'a claim takes a task of its own database');
$node->in_database('other', sub {
	local %token = (w => $other_token);

	is(claim(), 'o1', 'as does one in the other database');
	$node->sql('TRUNCATE gpu_orch.ready_queue');
	is(claim(), 'nothing', 'whose queue is truncated');
	submit('o4');
});
is(claim(3), 'b c d', 'which changes nothing here');
is(claim(), 'nothing', 'nor does a task that was submitted there');
$node->in_database('other', sub {
	local %token = (w => $other_token);

	is(claim(4), 'o4', 'and can be claimed there');
});
$node->safe_psql('postgres', 'DROP DATABASE other');
finish();

# A crash while a claim and a submit are open, with tenants in the middle of their shares.
sub crash
{
	my ($pid) = @_;
	my $offset = -s $node->logfile;

	kill 9, $pid;
	wait_until('the server has started again', sub {
		slurp_file($node->logfile, $offset) =~ /database system is ready to accept connections/ });
	$node->until('the server accepts connections after a crash', 'SELECT true');
	return;
}

$node->sql(q{SELECT gpu_orch.create_tenant(n) FROM unnest('{old,new}'::text[]) n});
submit(join(' ', map { "o$_" } 1 .. 13), q{tenant => 'old'});
is(claim(8), 'o1 o2 o3 o4 o5 o6 o7 o8', 'a tenant has used some of its share');
my $crashed = $node->session;
my ($pid) = $crashed->query_safe('SELECT pg_backend_pid()') =~ /(\d+)/;
$crashed->query_safe('BEGIN');
is($crashed->query_safe(claim_sql(2)), 'o9 o10', 'a claim is open');
$crashed->query_safe(submit_sql('never'));
crash($pid);
eval { $crashed->quit };
submit('n1 n2', q{tenant => 'new'});
submit('o14', q{tenant => 'old'});
submit('n3', q{tenant => 'new'});
is(claim(20), 'o9 o10 n1 o11 n2 o12 n3 o13 o14',
	'after the crash everything is claimable in order: a new tenant begins where the old one is, '
		. 'and the old one goes on behind its own tasks');
is(claim(), 'nothing', 'and nothing else');
is($node->sql('SELECT count(*), count(DISTINCT task_id) FROM gpu_orch.lease'), '17|17', 'each task is leased once');
finish();

# The same when the first to come claims.
$node->sql(q{SELECT gpu_orch.create_tenant(n) FROM unnest('{older,newer}'::text[]) n});
submit(join(' ', map { "o$_" } 1 .. 4), q{tenant => 'older'});
is(claim(), 'o1', 'a task is claimed');
($pid) = $node->leader;
crash($pid);
is(claim(), 'o2', 'the first claim after a crash finds the next one');
submit('n1', q{tenant => 'newer'});
is(claim(4), 'o3 n1 o4', 'and a new tenant begins there');
finish();

# A claim that need not wait for the disk may be lost with the server, as a whole; one in a block may not.
$node->set('gpu_orch.async_claims' => 'on', 'wal_writer_delay' => '10s');
wait_until('the setting is there', sub { $node->sql('SHOW gpu_orch.async_claims') eq 'on' });
submit('a b c d');
is($node->sql('SET synchronous_commit = on; BEGIN; ' . claim_sql() . "; SELECT pg_current_wal_insert_lsn() AS at \\gset\nCOMMIT;
	SELECT pg_current_wal_flush_lsn() > :'at'"), "a\nt",
	'a claim of a caller who waits for the disk is on disk when it answers');
is($node->sql('SET synchronous_commit = off; ' . claim_sql()), 'b', 'that of another caller need not be');
is($node->sql('SET synchronous_commit = on; BEGIN; ' . claim_sql() . q{; SELECT current_setting('synchronous_commit'); ROLLBACK}), "c\non",
	'a claim changes no setting of its caller');
my $leases = $node->sql('SELECT task_id, id FROM gpu_orch.lease ORDER BY task_id');
$node->stop('immediate');
$node->start;
my @lease = map { [ split /\|/ ] } split /\n/, $leases;
is(scalar @lease, 2, 'there were two leases');
is($node->sql("SELECT state FROM gpu_orch.tasks WHERE task_id = $lease[0][0]"), 'running', 'the claim that was on disk survives');
like(claim(4), qr/^(b )?c d$/, 'the other one survives or its task is ready again');
is($node->sql("SELECT gpu_orch.complete_task('w', '$token{w}', $lease[1][0], '$lease[1][1]') =
	NOT EXISTS (SELECT FROM gpu_orch.lease WHERE task_id = $lease[1][0] AND id <> '$lease[1][1]')"), 't',
	'and a lease that was lost is fenced');
finish();
$node->set('gpu_orch.async_claims' => 'off', 'wal_writer_delay' => '200ms');

# A standby that was read before it is promoted.
submit('a b c');
is(claim(), 'a', 'a task is claimed');
$node->backup('base');
my $standby = GpuOrch->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->sqlstate(claim_sql()), '25006', 'a standby claims nothing');
is($standby->sql(q{SELECT reason FROM gpu_orch.tasks t, gpu_orch.why_waiting(t.task_id) WHERE t.state = 'ready'
	ORDER BY t.task_id LIMIT 1}),
	'busy', 'and tells why a task waits');
is(claim(), 'b', 'the primary goes on');
submit('d');
$node->wait_for_catchup($standby);
$node->stop;
$standby->promote;
$node = $standby;
$node->wait_for_leader;
is(claim(), 'c', 'after its promotion it claims the next task');
submit('e');
is(claim(3), 'd e', 'and everything behind it');
is(claim(), 'nothing', 'and nothing else');
finish();

$node->holds_invariants;
$node->stop;
done_testing();
