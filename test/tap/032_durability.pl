# What was answered is there after a crash. Sites turn synchronous_commit off for speed, and a queue
# that goes along forgets tasks that it took in, or does work twice. So every call that takes in a task,
# ends an attempt or promises something to the provider must flush its commit, and after kill -9 of the
# whole server everything that was answered must be there, with the leases under the same ids.
# And a worker that is gone without a word costs its tasks one attempt, nothing else.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $sessions = 4;

# The writer of the log sleeps as long as it may, so that a commit which is not flushed stays so.
my $node = GpuOrch->running('durability',
	'fsync' => 'on',
	'wal_writer_delay' => '10s',
	'gpu_orch.test_clock' => 'on',
	'gpu_orch.heartbeat_timeout' => '1h',
	'autovacuum' => 'off');
$node->safe_psql('postgres', 'ALTER DATABASE app SET synchronous_commit = off');
$node->wait_for_leader;
$node->set('gpu_orch.cycle_interval' => '1h');

# Whether the commit of a call was flushed before its answer: the log must have been written to disk
# beyond where it stood inside the transaction. Others may flush as well, so a single "no" says more
# than a single "yes".
sub is_flushed
{
	my ($before, $call) = @_;

	my $answer = $node->sql(qq{
		$before
		BEGIN;
		SELECT count(*) AS n FROM (SELECT $call) x \\gset
		SELECT pg_current_wal_insert_lsn() AS inside \\gset
		COMMIT;
		SELECT 'flushed ' || (pg_current_wal_flush_lsn() > :'inside')});

	$answer =~ /flushed (\w+)/ or die $answer;
	return $1 eq 'true';
}

$node->sql('CREATE TABLE plain (n int)');
wait_until('a plain commit is seen unflushed', sub {
	return !is_flushed('', '1 FROM pg_sleep(0)) y; INSERT INTO plain VALUES (1); SELECT count(*) FROM (SELECT 1');
});
pass('a commit of somebody else is not flushed before its answer');

# A worker with a claimed task, in psql's variables.
my $claimed = q{
	SELECT count(gpu_orch.terminate_worker(worker_id, true)) AS ended FROM gpu_orch.workers WHERE worker_id = 'f' AND state <> 'terminated' \gset
	SELECT token FROM gpu_orch.register_worker('f') \gset
	SELECT gpu_orch.submit_task('f'), gpu_orch.submit_task('f');
	SELECT task_id, lease FROM gpu_orch.claim_tasks('f', :'token') \gset};
my $token = q{SELECT count(gpu_orch.terminate_worker(worker_id, true)) AS ended FROM gpu_orch.workers WHERE worker_id = 'f' AND state <> 'terminated' \gset
	SELECT token FROM gpu_orch.register_worker('f') \gset};
for (
	[ submit_task => '', q{gpu_orch.submit_task('f')} ],
	[ submit_tasks => '', q{gpu_orch.submit_tasks('[{"kind": "f"}, {"kind": "f"}]')} ],
	[ 'submit_task, scheduled' => '', q{gpu_orch.submit_task('f', run_at => gpu_orch.clock() + '1 day')} ],
	[ register_worker => '', q{gpu_orch.register_worker('f')} ],
	[ claim_tasks => $token, q{gpu_orch.claim_tasks('f', :'token')} ],
	[ complete_task => $claimed, q{gpu_orch.complete_task('f', :'token', :task_id, :'lease')} ],
	[ complete_and_claim => $claimed, q{gpu_orch.complete_and_claim('f', :'token', :task_id, :'lease')} ],
	[ fail_task => $claimed, q{gpu_orch.fail_task('f', :'token', :task_id, :'lease', 'e')} ],
	[ 'fail_task, for good' => $claimed, q{gpu_orch.fail_task('f', :'token', :task_id, :'lease', 'e', 'rejected')} ],
	[ release_task => $claimed, q{gpu_orch.release_task('f', :'token', :task_id, :'lease')} ],
	[ cancel_task => q{SELECT gpu_orch.submit_task('f') AS task_id \gset}, q{gpu_orch.cancel_task(:task_id)} ],
	[ 'cancel_task, running' => $claimed, q{gpu_orch.cancel_task(:task_id)} ],
	[ retry_task => q{SELECT gpu_orch.submit_task('f') AS task_id \gset
			SELECT gpu_orch.cancel_task(:task_id);}, q{gpu_orch.retry_task(:task_id)} ],
	[ pause => '', 'gpu_orch.pause()' ],
	[ resume => 'SELECT gpu_orch.pause();', 'gpu_orch.resume()' ],
	[ create_pool => '', q{gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'])} ],
	[ alter_pool => '', q{gpu_orch.alter_pool('p', '{"max_workers": 5}')} ],
	[ spawn_worker => '', q{gpu_orch.spawn_worker('p')} ],
	[ terminate_worker => q{SELECT gpu_orch.spawn_worker('p') AS id \gset}, q{gpu_orch.terminate_worker(:'id')} ],
	[ drop_pool => '', q{gpu_orch.drop_pool('p')} ])
{
	my ($name, $before, $call) = @$_;

	ok(is_flushed($before, $call), "$name is flushed before its answer");
}

# Many sessions submit, claim and complete, and print each answer as it comes; two of three claims are
# completed. Then everything is killed in the midst of it.

$node->sql(q{SELECT count(gpu_orch.submit_task('crash', payload => '{"stock": true}')) FROM generate_series(1, 50)});
my (@clients, @answers);
for my $n (1 .. $sessions)
{
	my $script = qq{
		SELECT token FROM gpu_orch.register_worker('c$n', capabilities => '{"services": ["crash"]}') \\gset
		\\echo registered c$n :token
	};

	for my $round (1 .. 5000)
	{
		$script .= qq{
			SELECT 'submitted ' || gpu_orch.submit_task('crash');
			SELECT task_id, lease FROM gpu_orch.claim_tasks('c$n', :'token') \\gset
			\\echo claimed :task_id :lease c$n
		};
		$script .= qq{
			SELECT 'completed ' || :task_id WHERE gpu_orch.complete_task('c$n', :'token', :task_id, :'lease', '{"by": $n}');
		} if $round % 3;
	}
	push @answers, '';
	push @clients,
	  IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('app') ],
		'<', \$script, '>', \$answers[-1], '2>', \my $errors);
}
wait_until('enough was answered', sub {
	$_->pump_nb for @clients;
	return !grep { (() = /^completed/mg) < 100 } @answers;
});

my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my @children = grep {
	my $lives = open my $stat, '<', "/proc/$_/stat";
	$lives && (<$stat> // '') =~ /\) \S $postmaster /;
} map { m{(\d+)} } glob '/proc/[0-9]*';
cmp_ok(scalar @children, '>', $sessions, 'the server runs with its children');
$node->kill9;
kill 'KILL', @children;
wait_until('every process of the server is gone', sub { !grep { !is_ended($_) } @children, $postmaster });
for (@clients)
{
	eval { $_->finish };
}
# The postmaster may be dead and not reaped yet, and would then be taken for a living one.
unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
$node->start;
$node->wait_for_leader;

my $answers = join '', @answers;
my %tokens = map { @$_ } map { [/^registered (\w+) (\w+)$/] } grep { /^registered/ } split /\n/, $answers;
my @submitted = $answers =~ /^submitted (\d+)$/mg;
my @completed = $answers =~ /^completed (\d+)$/mg;
my @claimed = map { [/^claimed (\d+) (\S+) (\w+)$/] } grep { /^claimed \d+ \S+ \w+$/ } split /\n/, $answers;
note(sprintf '%d submitted, %d claimed, %d completed', scalar @submitted, scalar @claimed, scalar @completed);

# How many of these ids a query, with the ids as x(id), does not find.
sub missing
{
	my ($query, @values) = @_;

	return $node->sql('SELECT count(*) FROM (VALUES ' . join(',', @values) . ") x $query");
}

is(missing('(id) WHERE id NOT IN (SELECT id FROM gpu_orch.task)', map { "($_)" } @submitted),
	0, 'every task that was taken in is there');
is( missing('(id) WHERE NOT EXISTS (SELECT 1 FROM gpu_orch.attempt a WHERE a.task_id = x.id AND outcome = $$succeeded$$)',
		map { "($_)" } @completed),
	0, 'every completion is there');
is( missing('(id, lease) WHERE NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.task_id = x.id AND l.id = x.lease::uuid)
			AND NOT EXISTS (SELECT 1 FROM gpu_orch.attempt a WHERE a.task_id = x.id AND a.lease = x.lease::uuid)',
		map { "($_->[0], '$_->[1]')" } @claimed),
	0, 'every claim is there, under its id');
is( $node->sql(q{SELECT count(*) FROM gpu_orch.tasks WHERE kind = 'crash' AND
		state NOT IN ('ready', 'running', 'succeeded')}),
	0, 'and no task is in a state that nothing brought it to');
$node->holds_invariants;

# The sessions and the leases outlive the server: whoever held a task may end it.

is(scalar keys %tokens, $sessions, 'every session had begun');
my %done = map { $_ => 1 } @completed;
my @held = grep { !$done{ $_->[0] } } @claimed;
cmp_ok(scalar @held, '>', 100, scalar(@held) . ' tasks were held without an answer to their completion');
my $ends = join ";\n",
  map { "SELECT gpu_orch.complete_task('$_->[2]', '$tokens{$_->[2]}', $_->[0], '$_->[1]')" } @held;
is( join('', grep { $_ ne 't' } split /\n/, $node->sql($ends)),
	'', 'their holders end them after the crash');
is(missing("(id) WHERE (SELECT state FROM gpu_orch.tasks t WHERE t.task_id = x.id) <> 'succeeded'",
		map { "($_->[0])" } @claimed), 0, 'and each claimed task has succeeded');

# Workers that are gone without a word: their tasks go back, are claimable and are done by others;
# none is lost, none is done twice, and none has used up an attempt of its own.

$node->set('gpu_orch.cycle_interval' => '200ms');
my $ids = $node->sql(q{
	SELECT count(gpu_orch.submit_task('lost', max_attempts => 1)) FROM generate_series(1, 30);
	SELECT token FROM gpu_orch.register_worker('gone', capabilities => '{"services": ["lost"]}') \gset
	SELECT count(*) FROM gpu_orch.claim_tasks('gone', :'token', 10);
	SELECT token FROM gpu_orch.register_worker('gone too', capabilities => '{"services": ["lost"]}') \gset
	SELECT count(*) FROM gpu_orch.claim_tasks('gone too', :'token', 10);
	SELECT task_id || ' ' || lease || ' ' || :'token' FROM gpu_orch.claim_tasks('gone too', :'token', 1)});
my ($late_task, $late_lease, $late_token) = (split /\n/, $ids)[-1] =~ /^(\d+) (\S+) (\w+)$/;
$node->advance('2 hours');
$node->until('workers that fall silent are taken for lost',
	q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE worker_id LIKE 'gone%' AND state = 'terminated'});
is( $node->sql(q{SELECT state, count(*) FROM gpu_orch.tasks WHERE kind = 'lost' GROUP BY 1}),
	'ready|30', 'their tasks are ready again');
is( $node->sql(q{SELECT outcome, count(*) FROM gpu_orch.attempts a JOIN gpu_orch.tasks USING (task_id)
		WHERE kind = 'lost' GROUP BY 1}),
	'lost|21', 'each attempt is recorded as lost');
is( $node->sqlstate("SELECT gpu_orch.complete_task('gone too', '$late_token', $late_task, '$late_lease')"),
	'42501', 'the session of a lost worker is revoked');
is( $node->sql(q{
		SELECT token FROM gpu_orch.register_worker('heir', capabilities => '{"services": ["lost"]}') \gset
		SELECT count(*) FILTER (WHERE gpu_orch.complete_task('heir', :'token', task_id, lease))
		FROM gpu_orch.claim_tasks('heir', :'token', 100)}),
	30, 'another worker does them all');
is( $node->sql(q{SELECT state, count(*) FROM gpu_orch.tasks WHERE kind = 'lost' GROUP BY 1}),
	'succeeded|30', 'and none is lost');
$node->holds_invariants;

$node->stop;
done_testing();
