# gpu-orch-worker as it lives in the world: started with nonsense, under hostile defaults of its role, behind a pooler,
# twice under one id, with a handler that is not there, floods its log, or leaves processes behind; and how it leaves.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $program = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
plan skip_all => "$program is not built" unless -x $program;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $limit = 4 * $PostgreSQL::Test::Utils::timeout_default;
my %running;

# Nonsense is refused before anything is done.
for my $case (
	[ 64, qr/--handler is empty/, '--handler', '' ],
	[ 64, qr/--handler is empty/, '--handler', '  ' ],
	[ 64, qr/--handler is missing/ ],
	[ 64, qr/--kind is empty/, '--handler', 'true', '--kind', '' ],
	[ 64, qr/--kind is too long/, '--handler', 'true', '--kind', 'k' x 201 ],
	[ 64, qr/--kind holds a control/, '--handler', 'true', '--kind', "a\tb" ],
	[ 64, qr/--pool is empty/, '--handler', 'true', '--pool', '' ],
	[ 64, qr/--capabilities is empty/, '--handler', 'true', '--capabilities', '' ],
	[ 64, qr/--api-url is empty/, '--handler', 'true', '--api-url', ' ' ],
	[ 64, qr/--concurrency must be a whole/, '--handler', 'true', '--concurrency', '1.5' ],
	[ 64, qr/--concurrency must be a number/, '--handler', 'true', '--concurrency', '0x2' ],
	[ 64, qr/--concurrency must be a number/, '--handler', 'true', '--concurrency', '' ],
	[ 64, qr/--poll must be a number/, '--handler', 'true', '--poll', 'nan' ],
	[ 78, qr/"no-such-command" is no command/, '--handler', 'no-such-command --all' ],
	[ 78, qr/No such file/, '--handler', "$dir/nothing" ],
	[ 78, qr/Permission denied/, '--handler', '/etc/passwd' ],
	[ 78, qr/names the interpreter "\/no\/python"/, '--handler', script('no_interpreter', '#!/no/python') ],
	[ 78, qr/the shell cannot read it/, '--handler', 'echo "' ])
{
	my ($status, $says, @arguments) = @$case;
	my $run = IPC::Run::run([ $program, @arguments ], '<' => \undef, '>' => \my $out, '2>' => \my $err);

	is($? >> 8, $status, "status $status: @arguments");
	like($err, $says, 'and it says why');
}

# script(NAME, LINE...): an executable file with these lines; its path.
sub script
{
	my ($name, @lines) = @_;

	unlink "$dir/$name";
	append_to_file("$dir/$name", join("\n", @lines) . "\n");
	chmod 0755, "$dir/$name";
	return "$dir/$name";
}

my $node = GpuOrch->running('worker_life', 'gpu_orch.heartbeat_interval' => '1s', 'gpu_orch.retry_delay' => '50ms');
$node->sql('CREATE ROLE box LOGIN IN ROLE gpu_orch_operator');

sub log_of { my ($name) = @_; return slurp_file("$dir/$name.log"); }

# start_worker(NAME, ENVIRONMENT, ARGUMENT...): a worker that logs into a file of that name.
sub start_worker
{
	my ($name, $environment, @arguments) = @_;
	local %ENV = (%ENV, GPU_ORCH_DSN => $node->connstr('app') . ' user=box', GPU_ORCH_WORKER_ID => $name, %$environment);

	delete $ENV{$_} for grep { !defined $ENV{$_} } keys %ENV;
	$running{$name} = IPC::Run::start([ $program, '--poll', '0.2', @arguments ],
		'<' => \undef, '>' => "$dir/$name.out", '2>' => "$dir/$name.log", IPC::Run::timeout($limit));
	return;
}

# end_worker(NAME, SIGNAL): send it a signal, if there is one, and wait for its end; its exit status.
sub end_worker
{
	my ($name, $signal) = @_;
	my $worker = delete $running{$name};

	$worker->signal($signal) if $signal;
	IPC::Run::finish($worker);
	return ($worker->full_results)[0] & 127 || ($worker->full_results)[0] >> 8;
}

# submit(KIND, COUNT): tasks of a kind; the id of the last.
sub submit
{
	my ($kind, $count) = @_;

	return $node->sql("SELECT max(gpu_orch.submit_task('$kind', to_jsonb(i))) FROM generate_series(1, @{[$count // 1]}) i");
}

sub ends
{
	my ($id, $state, $name) = @_;

	$node->until($name, "SELECT state = '$state' FROM gpu_orch.task($id)")
	  or diag($node->sql("SELECT row_to_json(t) FROM gpu_orch.task($id) t"), map { slurp_file($_) } glob("$dir/*.log"));
	return;
}

# Whoever has a worker's password may set defaults for its sessions; they do not reach it.
my @hostile = (
	q{default_transaction_isolation = 'serializable'}, 'default_transaction_read_only = on', q{statement_timeout = '1ms'},
	q{lock_timeout = '1ms'}, q{idle_in_transaction_session_timeout = '1ms'}, q{idle_session_timeout = '1ms'},
	q{search_path = 'evil'}, q{local_preload_libraries = 'no_such_library'});
$node->sql('CREATE SCHEMA evil; CREATE DOMAIN evil.text AS bigint; GRANT USAGE ON SCHEMA evil TO box;'
	  . join('', map { "ALTER ROLE box SET $_;" } @hostile));
my $id = submit('plain');
start_worker('plain', {}, '--kind', 'plain', '--handler', 'echo 1');
ends($id, 'succeeded', 'defaults of the role stop nothing');
is(end_worker('plain', 'TERM'), 0, 'the worker drains');
like(log_of('plain'), qr/task $id attempt 1 \(plain\) starts in slot 0\n.*task $id attempt 1 \(plain\) succeeded after \d+\.\d+ s\n/s,
	'its log has the start and the end of the task');

SKIP:
{
	skip 'there is no pgbouncer', 2 unless grep { -x "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin";
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	append_to_file("$dir/pgbouncer.ini", "[databases]\napp = host=" . $node->host . ' port=' . $node->port . " user=box\n"
		  . "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = $port\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
		  . "logfile = $dir/pgbouncer.log\npidfile = $dir/pgbouncer.pid\n");
	# A pooler's sessions cannot be kept from ending while they idle.
	$node->sql('ALTER ROLE box RESET local_preload_libraries; ALTER ROLE box RESET idle_session_timeout');
	system('pgbouncer', '-q', '-d', "$dir/pgbouncer.ini") == 0 or die 'pgbouncer did not start';
	$id = submit('pooled');
	start_worker('pooled', { GPU_ORCH_DSN => "host=127.0.0.1 port=$port dbname=app user=box" },
		'--no-listen', '--kind', 'pooled', '--handler', 'echo 1');
	ends($id, 'succeeded', 'nor do they behind a pooler');
	is(end_worker('pooled', 'TERM'), 0, 'from which a worker takes leave too');
	kill 'INT', slurp_file("$dir/pgbouncer.pid") =~ /(\d+)/;
}
$node->sql('ALTER ROLE box RESET ALL');

# Two processes that are given no id have two.
start_worker("anonymous$_", { GPU_ORCH_WORKER_ID => undef }, '--kind', 'none', '--handler', 'true') for 1, 2;
$node->until('ids that nobody chose are not the same', q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE state = 'active' AND worker_id ~ '-[0-9a-f]{16}$'});
is(end_worker("anonymous$_", 'TERM'), 0, 'it drains') for 1, 2;
is($node->sql(q{SELECT string_agg(DISTINCT state || ' ' || ended_because, ', ') FROM gpu_orch.workers WHERE worker_id ~ '-[0-9a-f]{16}$'}),
	'terminated goodbye', 'and its leave is known at once, by its name');

# A result that the server refuses is not computed again.
$id = submit('deep');
start_worker('deep', {}, '--once', '--concurrency', '7', '--kind', 'deep', '--handler',
	script('deep', '#!/bin/sh', "echo run >> $dir/deep.runs", q{printf '[%.0s' $(seq 80); printf ']%.0s' $(seq 80)}));
is($node->sql(q{SELECT slots FROM gpu_orch.workers WHERE worker_id = 'deep' AND state <> 'terminated'}) || 7, 7, 'slots are told');
is(end_worker('deep'), 0, '--once ends with 0');
is($node->sql("SELECT state, attempts, error FROM gpu_orch.task($id)"),
	qq{failed|1|the server refused the result: 54000: argument "result" is nested too deeply; At most 64 levels are accepted.; hint: Flatten it.},
	'a result that is refused rejects the task, in the words of the server');
is($node->sql("SELECT failure FROM gpu_orch.attempts WHERE task_id = $id"), 'rejected', 'which says so');
is(slurp_file("$dir/deep.runs"), "run\n", 'and was computed once');
is($node->sql(q{SELECT state || ' ' || ended_because || ' ' || slots FROM gpu_orch.workers WHERE worker_id = 'deep'}), 'terminated goodbye 7',
	'the worker of one task has left');

# A flood of standard error fills no log.
$id = submit('loud');
start_worker('loud', {}, '--once', '--kind', 'loud', '--handler', q{head -c 10000000 /dev/zero | tr '\0' x >&2; echo the end >&2; exit 3});
is(end_worker('loud'), 0, 'ten megabytes of standard error are read');
cmp_ok(-s "$dir/loud.log", '<', 100_000, 'and not logged');
like(log_of('loud'), qr/task $id attempt 1: the rest of its standard error is not logged/, 'which is said');
like($node->sql("SELECT error FROM gpu_orch.attempts WHERE task_id = $id"), qr/x{1000}the end$/, 'the error has the end of it');

# Nothing outlives a handler, wherever it went.
my $leaver = script('leaver', '#!/bin/bash', "echo \$\$ > $dir/leaver.pid", 'setsid sleep 1000 & echo $! > ' . "$dir/escaped.pid",
	'(setsid bash -c "sleep 1000 & sleep 1000" &)', "touch $dir/escaped",
	"while [ -e $dir/stay ]; do sleep 0.1; done", 'exit 0');
sub pid_in { my ($file) = @_; my ($pid) = slurp_file("$dir/$file") =~ /(\d+)/; return $pid; }
sub is_gone
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	return (<$stat> // ') Z') =~ /\) [ZX]/;
}
$id = submit('leaver');
start_worker('leaver', {}, '--kind', 'leaver', '--handler', $leaver);
ends($id, 'succeeded', 'a handler leaves processes in sessions of their own');
ok(is_gone(pid_in('escaped.pid')), 'they are gone when its task is answered');
append_to_file("$dir/stay", '');
unlink "$dir/escaped";
submit('leaver');
$node->until('it leaves some again', sub { -e "$dir/escaped" });
is(end_worker('leaver', 'KILL'), 9, 'its worker is killed');
$node->until('they are gone', sub { is_gone(pid_in('escaped.pid')) && is_gone(pid_in('leaver.pid')) });
unlink "$dir/stay";
$node->sql(q{SELECT gpu_orch.terminate_worker('leaver', true)});
$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE kind = 'leaver' AND state = 'ready'});

# A handler that is gone breaks the worker, and no task.
script('fleeting', '#!/bin/sh', 'exec true');
start_worker('fleeting', {}, '--kind', 'fleeting', '--concurrency', '3', '--handler', "$dir/fleeting");
ends(submit('fleeting'), 'succeeded', 'a handler works');
unlink "$dir/fleeting";
submit('fleeting', 20);
is(end_worker('fleeting'), 71, 'and is gone: the worker ends');
is($node->sql(q{SELECT count(*) FILTER (WHERE state = 'ready'), max(error) FROM gpu_orch.tasks WHERE kind = 'fleeting' AND state <> 'succeeded'}),
	'20|', 'no task is harmed');
is($node->sql(q{SELECT max(r.faults), max(r.losses) FROM gpu_orch.ready_queue r JOIN gpu_orch.task t ON t.id = r.task_id WHERE t.kind = 'fleeting'}),
	'0|0', 'and none has an attempt less');
is($node->sql(q{SELECT state, ended_because FROM gpu_orch.workers WHERE worker_id = 'fleeting'}),
	qq{terminated|the handler cannot be run: "$dir/fleeting": No such file or directory}, 'it said why');
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'worker_broken' AND subject = 'fleeting' AND cleared_at IS NULL}), 1,
	'and there is an alert');
is(scalar(() = log_of('fleeting') =~ /this worker cannot work here/g), 1, 'its log says so once');
$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE kind = 'fleeting' AND state = 'ready'});

# One that finds no command for two tasks is broken as well; one that fails everything is given less to do.
submit('absent', 9);
start_worker('absent', {}, '--kind', 'absent', '--handler', 'x=1; no-such-command');
is(end_worker('absent'), 71, 'two tasks without a command end a worker');
is($node->sql(q{SELECT count(DISTINCT task_id), string_agg(DISTINCT failure, ' ') FROM gpu_orch.attempts JOIN gpu_orch.tasks USING (task_id)
	WHERE kind = 'absent' AND outcome = 'failed'}), '2|platform', 'at the cost of the platform');
submit('useless', 30);
start_worker('useless', {}, '--kind', 'useless', '--concurrency', '2', '--handler', 'exit 75');
$node->until('a handler that sends every task away is doubted', sub { log_of('useless') =~ /failed 3 tasks in a row.*waiting longer/ });
is(end_worker('useless', 'TERM'), 0, 'its worker drains');
is($node->sql(q{SELECT count(*) FROM gpu_orch.tasks WHERE kind = 'useless' AND state = 'failed'}), 0, 'and has not emptied the queue');
$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE kind IN ('absent', 'useless')});

# Two processes under one id: one of them works, the other waits, and no task is lost for it.
start_worker("shared$_", { GPU_ORCH_WORKER_ID => 'shared' }, '--kind', 'shared', '--handler', 'sleep 0.2; echo 1') for 1, 2;
submit('shared', 40);
$node->until('two processes under one id are an alert', q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'worker_id_shared' AND subject = 'shared' AND cleared_at IS NULL})
  or diag(map { "$_: " . log_of($_) } 'shared1', 'shared2');
$node->until('their tasks are done', q{SELECT bool_and(state = 'succeeded') FROM gpu_orch.tasks WHERE kind = 'shared'});
my ($loser) = grep { log_of($_) =~ /GO007: another process works as worker "shared"/ } 'shared1', 'shared2';
ok(defined $loser, 'one of them was refused');
my $winner = $loser eq 'shared1' ? 'shared2' : 'shared1';
is(end_worker($winner, 'TERM'), 0, 'the other one leaves');
$id = submit('shared');
ends($id, 'succeeded', 'and the first takes its place');
is(end_worker($loser, 'TERM'), 0, 'it drains');

$node->holds_invariants('every invariant holds');
$node->stop;
done_testing();

END
{
	my $status = $?;

	$_->kill_kill for values %running;
	$? = $status;
}
