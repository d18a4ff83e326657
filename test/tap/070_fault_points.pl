# Each named point of the library (INJECT("...") in src/), and what comes of an error, a kill -9, a SIGTERM and a
# pause at it, while a pod is made, does a task and is ended, and a worker by hand makes every other call. After
# each the provider's ledger and our rows agree. A point that is never reached fails the test.
#
#   FAULT_POINTS=REGEX       only the points that match
#   FAULT_PROCESSES=N        so many servers at a time, instead of six
use strict;
use warnings FATAL => 'all';
use Cwd qw(abs_path);
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use POSIX ();
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;
use Time::HiRes qw(sleep time);
use Wire;

my $processes = $ENV{FAULT_PROCESSES} || 6;
my @actions = qw(error kill term pause);
my $top = abs_path("$FindBin::Bin/../..");
my $worker = $ENV{GPU_ORCH_WORKER} // "$top/worker/gpu-orch-worker";
my $limit = $PostgreSQL::Test::Utils::timeout_default;
local $SIG{PIPE} = 'IGNORE';

# So long a paused process stands still: longer than the provider's answers are waited for.
my $pause = 0.8;

# What the provider does wrong, for the points that only that leads to.
my $lost = [{call => 'create', action => 'drop_after', count => 1}];
my %faults = (
	'create.refused' => [{call => 'create', action => 'status', status => 422, title => 'Unprocessable Entity', count => 1}],
	'create.unknown' => $lost,
	'delete.failed' => [{call => 'delete', action => 'status', status => 503, count => 1}],
	# Before its worker speaks.
	'reconcile.adopt' => [@$lost, {call => 'create', action => 'slow_boot', seconds => 1, count => 1}],
	'reconcile.failed' => [{call => 'create', action => 'fail', seconds => 0, count => 1}],
	'reconcile.nothing' => [{call => 'create', action => 'drop', count => 1}],
	'reconcile.price' => [{call => 'list', action => 'alter', set => {cost => 2.5}}],
	'reconcile.settled' => [{call => 'create', action => 'later', seconds => 2, count => 1},
		{call => 'create', action => 'drop', count => 1}]);

# What else is called, before the pod is asked for and after it was called back, for the points on that way.
my %before = (
	'account.apply' => \&restart_leader,
	'budget.set' => sub { ask(q{SELECT gpu_orch.set_budget('p', 'day', 1000000)}); },
	'catalog.apply' => \&restart_leader,
	'leader.reign' => \&restart_leader,
	'leader.start' => \&restart_leader,
	'pause' => sub { ask('SELECT gpu_orch.pause()'); ask('SELECT gpu_orch.resume()'); },
	'spawn.locked' => sub { ask(q{SELECT gpu_orch.spawn_worker('p')}, qr/no room/); });
my %after = (
	'forget' => sub { ask(q{SELECT gpu_orch.forget_task(task_id) FROM gpu_orch.tasks WHERE state = 'succeeded' ORDER BY task_id LIMIT 1}); },
	'kill_fleet' => sub { ask('SELECT gpu_orch.kill_fleet()'); },
	'leader.kill' => sub { ask('SELECT gpu_orch.kill_fleet()'); },
	# About once a second, by itself.
	'leader.count' => sub { },
	'reconcile.orphan' => sub { make_stray(); },
	'retention.removed' => sub { ask(q{INSERT INTO gpu_orch.decision (pool, at, policy, desired, created, ended, bound_by, terms)
		SELECT 0, gpu_orch.clock() - interval '31 days', 'fixed', 0, 0, 0, 'demand', '[]'}); ask('SELECT gpu_orch.prune(false)'); },
	'reconcile.restore' => sub { end_stray("p-stray-$_[0]",
		make_stray(GPU_ORCH_POOL => 'p', GPU_ORCH_WORKER_ID => "p-stray-$_[0]")); });

our $releasing;
my ($provider, $node, $wire);
my $tasks = 0;

# Where a point is armed, and where a process says that it waits at it.
sub armed_file { return $node->data_dir . '/gpu_orch.inject'; }
sub paused_file { return $node->data_dir . '/gpu_orch.paused'; }

# query(CONNECTION, SQL): the first row of its answer; dies on an error or where the server goes away. A process
# that pauses meanwhile goes on.
sub query
{
	my ($connection, $sql) = @_;
	my $until = time + $limit;

	$connection->send_query($sql);
	until ($connection->is_answered(0.02))
	{
		die "no answer: $sql\n" if time > $until;
		release();
	}
	my $answer = $connection->answer;
	die "$answer->{message}\n" if defined $answer->{state};
	return wantarray ? @{ $answer->{rows}[0] // [] } : $answer->{rows}[0][0];
}

# ask(SQL, FINE): the same on our own connection, until it succeeds: the server may be restarting. An error that
# matches FINE is an answer too.
sub ask
{
	my ($sql, $fine) = @_;
	my $until = time + $limit;

	while (time < $until)
	{
		my @row = eval { $wire ||= Wire->new($node, 'app'); query($wire, $sql); };

		return wantarray ? @row : $row[0] unless $@;
		return '' if $fine && $@ =~ $fine;
		undef $wire;
		sleep 0.05;
	}
	die "gave up: $sql: $@";
}

# until_true(SQL, WHAT): wait for it; dies when it does not come.
sub until_true
{
	my ($sql, $what) = @_;
	my $until = time + $limit;

	while (ask($sql) ne 't')
	{
		die "gave up waiting until $what\n" if time > $until;
		release();
		sleep 0.03;
	}
	return;
}

# A process pauses: tasks are served meanwhile, then it goes on.
sub release
{
	return if $releasing || !-e paused_file();
	local $releasing = 1;
	my $until = time + $pause;
	my $other = Wire->new($node, 'app');

	my $worker = "other $tasks";
	my ($token) = query($other, qq{SELECT token FROM gpu_orch.register_worker('$worker',
		capabilities => '{"services": ["other"]}')});
	query($other, q{SELECT gpu_orch.submit_task('other')});
	my ($task, $lease) = query($other, "SELECT task_id, lease FROM gpu_orch.claim_tasks('$worker', '$token')");
	die "nobody is served while a process pauses\n" unless defined $lease;
	query($other, "SELECT gpu_orch.complete_task('$worker', '$token', $task, '$lease')");
	query($other, "SELECT gpu_orch.goodbye('$worker', '$token')");
	$tasks++;
	sleep 0.01 while time < $until;
	unlink paused_file();
	return;
}

sub set_fleet
{
	return ask(qq{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": $_[0], "scale_down_grace": 0,
		"drain_settle": 0}}')});
}

# End the leader; the next one comes by itself.
sub restart_leader { return ask('SELECT pg_terminate_backend(pid) FROM gpu_orch.leader_status()'); }

# A pod of ours that no row knows, with more in its environment; its name.
sub make_stray
{
	my %env = @_;
	my $id = ask('SELECT id FROM gpu_orch.installation');
	my $nonce = join '', map { substr '0123456789abcdefghjkmnpqrstvwxyz', rand 32, 1 } 1 .. 26;

	my $name = 'gpo-' . substr($id, 0, 8) . "-1-$nonce";

	$provider->control(POST => 'pods', { foreign => $name,
		env => { GPU_ORCH_INSTALLATION => $id, GPU_ORCH_OP => $nonce, %env } });
	return $name;
}

# Nothing runs in such a pod: end its worker if it gets one again, unless the pod is ended for an orphan before.
sub end_stray
{
	my ($worker, $name) = @_;

	while (grep { $_->{name} eq $name } $provider->pods(1))
	{
		last if ask("SELECT count(gpu_orch.terminate_worker(id, true)) FROM gpu_orch.worker
			WHERE id = '$worker' AND state = 'initializing'") > 0;
		release();
		sleep 0.03;
	}
	return;
}

# A worker by hand makes each call that a program makes, on tasks whose keys hold this number; one of them is cancelled
# by somebody who commits only after its attempt has ended, and one depends on another. What breaks off is begun anew:
# by its keys no task is there twice.
sub work_by_hand
{
	my ($number) = @_;
	my $left = "SELECT count(*) = 0 FROM gpu_orch.tasks WHERE idempotency_key LIKE 'hand-$number-%'"
	  . " AND state NOT IN ('succeeded', 'failed', 'cancelled')";

	for (my $until = time + $limit; ;)
	{
		my $done = eval {
			my $own = Wire->new($node, 'app');
			my @task = map { qq({"kind": "hand", "idempotency_key": "hand-$number-$_"}) } 1 .. 4, 6;
			my ($unwanted) = query($own, "SELECT gpu_orch.submit_task('nobody', idempotency_key => 'hand-$number-5')");

			query($own, "SELECT count(*) FROM gpu_orch.submit_tasks('[" . join(', ', @task) . "]')");
			query($own, "SELECT gpu_orch.submit_task('hand', idempotency_key => 'hand-$number-7', depends_on => ARRAY[task_id])
				FROM gpu_orch.tasks WHERE idempotency_key = 'hand-$number-6'");
			query($own, "SELECT gpu_orch.cancel_task($unwanted)");
			query($own, "SELECT gpu_orch.retry_task($unwanted)");
			query($own, "SELECT gpu_orch.cancel_task($unwanted)");
			my ($token) = query($own, q{SELECT token FROM gpu_orch.register_worker('by-hand',
				capabilities => '{"services": ["hand"]}')});
			my $me = "'by-hand', '$token'";
			my $claim = sub { query($own, "SELECT task_id || ', ''' || lease || '''', task_id, lease
				FROM gpu_orch.claim_tasks($me)") };
			my $held;

			query($own, "SELECT gpu_orch.heartbeat($me)");
			($held) = $claim->();
			query($own, "SELECT gpu_orch.progress_task($me, $held, 0.5)") if $held;
			query($own, "SELECT gpu_orch.fail_task($me, $held, 'no', retry => false)") if $held;
			($held) = $claim->();
			query($own, "SELECT gpu_orch.release_task($me, $held)") if $held;
			($held) = $claim->();
			(undef, my ($task, $lease)) = $held ? query($own,
				"SELECT '', task_id, lease FROM gpu_orch.complete_and_claim($me, $held, NULL, 1)") : ();
			query($own, "SELECT gpu_orch.complete_tasks($me, ARRAY[$task], ARRAY['$lease'::uuid], NULL)") if $lease;
			($held, my $late) = $claim->();
			if ($held)
			{
				my $application = Wire->new($node, 'app');

				query($application, 'BEGIN');
				query($application, "SELECT gpu_orch.cancel_task($late)");
				query($own, "SELECT gpu_orch.fail_task($me, $held, 'no')");
				query($application, 'COMMIT');
			}
			while (query($own, $left) ne 't')
			{
				die "tasks are left\n" if time > $until;
				release();
				($held) = $claim->();
				query($own, "SELECT gpu_orch.complete_task($me, $held)") if $held;
				sleep 0.02 unless $held;
			}
			query($own, "SELECT gpu_orch.goodbye($me)");
			1;
		};
		last if $done;
		die "gave up working by hand: $@\n" if time > $until;
		sleep 0.05;
	}
	$tasks += 7;
	return;
}

# One pod comes, does a task, and goes; what belongs to the point happens on the way.
sub life_of_a_pod
{
	my ($point, $number) = @_;
	my $until = time + $limit;

	$provider->fault(map { {%$_} } @{ $faults{$point} }) if $faults{$point};
	$before{$point}->() if $before{$point};
	set_fleet(1);
	ask("SELECT gpu_orch.submit_task('echo', idempotency_key => 'echo-$number')");
	$tasks++;
	work_by_hand($number);
	until_true("SELECT state = 'succeeded' FROM gpu_orch.tasks WHERE idempotency_key = 'echo-$number'", 'the task is done');
	set_fleet(0);
	$after{$point}->($number) if $after{$point};
	while (-e armed_file() || -e paused_file())
	{
		last if time > $until || !($faults{$point} || $before{$point} || $after{$point});
		release();
		sleep 0.03;
	}
	until_true(q{SELECT NOT EXISTS (SELECT FROM gpu_orch.workers WHERE origin = 'cloud' AND state <> 'terminated')
		AND NOT EXISTS (SELECT FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent', 'unknown'))}, 'the fleet rests');
	until ($provider->ledger->{totals}{live} == 0 && !$provider->pods(1))
	{
		die 'left: ' . join(', ', map { $_->{name} } $provider->pods(1)) . "\n" if time > $until + $limit;
		sleep 0.1;
	}
	$provider->no_faults if $faults{$point};
	ask('SELECT gpu_orch.resume()') if $point =~ /kill/;
	return;
}

# What is wrong at rest; nothing if nothing is.
sub wrong
{
	my ($point) = @_;
	my $ledger = $provider->ledger;
	my @wrong;
	my (%made, %ours);

	$made{ $_->{name} }++ for $provider->pods;
	push @wrong, map { "made twice: $_" } grep { $made{$_} > 1 } sort keys %made;
	push @wrong, ask(q{SELECT string_agg(name || ': ' || detail, '; ') FROM gpu_orch.check_invariants() WHERE NOT holds}) // ();
	my ($known, $open, $twice) = ask(q{SELECT count(*), count(*) FILTER (WHERE state NOT IN ('succeeded', 'failed', 'cancelled')),
		(SELECT count(*) FROM (SELECT FROM gpu_orch.attempts WHERE outcome = 'succeeded' GROUP BY task_id HAVING count(*) > 1) x)
		FROM gpu_orch.tasks});
	push @wrong, "$known tasks, not $tasks" if $known != $tasks;
	push @wrong, "$open tasks are not done" if $open;
	push @wrong, "$twice tasks succeeded twice" if $twice;
	push @wrong, 'a call bears the epoch of a leader to come'
	  if ask('SELECT (SELECT max(epoch) FROM gpu_orch.cloud_op) > leader_epoch FROM gpu_orch.installation') eq 't';
	%ours = map { split /=/ } split /;/, ask(q{SELECT coalesce(string_agg(pod_id || '=' || dollars, ';'), '') FROM
		(SELECT pod_id, sum(price_per_hour * seconds / 3600) AS dollars FROM gpu_orch.cost_estimate
			WHERE pod_id IS NOT NULL GROUP BY 1) x});
	for my $pod (grep { !$_->{foreign} } @{ $ledger->{pods} })
	{
		push @wrong, "pod $pod->{id} was billed $pod->{billed}, we count " . ($ours{ $pod->{id} } // 'nothing')
		  if ($ours{ $pod->{id} } // 0) < $pod->{billed} - 1e-9;
	}
	return join '; ', @wrong;
}

# cell(POINT, ACTION, NUMBER): "reached", "not reached", or what went wrong.
sub cell
{
	my ($point, $action, $number) = @_;
	my $armed = armed_file();

	open my $file, '>', "$armed.tmp" or die "$armed: $!";
	print $file "$point $action\n";
	close $file;
	rename "$armed.tmp", $armed or die "$armed: $!";
	eval { life_of_a_pod($point, $number); 1 } or return "broke off: $@";
	my $reached = !-e $armed;

	unlink $armed;
	return wrong($point) || ($reached ? 'reached' : 'not reached');
}

# A provider and a server of one's own, with the library that has the points.
sub set_up
{
	my ($build, $name) = @_;

	($wire, $tasks) = (undef, 0);
	$provider = Provider->start('--boot-seconds', '0.1', '--launch',
		"exec $worker --kind echo --poll 0.1 --handler 'cat >/dev/null; echo {}'");
	$node = GpuOrch->calling($provider, $name,
		'gpu_orch.cycle_interval' => '200ms', 'gpu_orch.reconcile_interval' => '200ms',
		'gpu_orch.heartbeat_interval' => '300ms', 'gpu_orch.settle_time' => '500ms',
		'gpu_orch.http_timeout' => '700ms', 'gpu_orch.orphan_grace' => '2s', 'gpu_orch.max_losses' => 1000,
		'gpu_orch.spawn_rate_limit' => 100000);
	$node->append_conf('postgresql.conf', "dynamic_library_path = '$build'\n");
	$node->sql("UPDATE pg_proc SET probin = '$build/gpu_orch' WHERE probin = '\$libdir/gpu_orch'");
	$node->restart;
	ask(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA GeForce RTX 4090', 'NVIDIA A40', 'NVIDIA L40S'],
		max_workers => 1, options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "idle_timeout": "0s"}')});
	return;
}

# play(BUILD, NUMBER, CELLS, OUT): play cells, [POINT, ACTION], and write a line for each. After one that failed,
# go on with another server.
sub play
{
	my ($build, $number, $cells, $out) = @_;
	my $servers = 0;

	for my $i (0 .. $#$cells)
	{
		my ($point, $action) = @{ $cells->[$i] };

		set_up($build, "points${number}_" . $servers++) unless $node;
		my $began = time;
		my $is = cell($point, $action, $i) =~ s/\n/ /gr;
		printf $out "%s %s %.1f %s\n", $point, $action, time - $began, $is;
		next if $is =~ /^(?:not )?reached$/ && $i < $#$cells;
		unlink armed_file(), paused_file();
		$node->stop('immediate');
		print $out "log $_\n" for slurp_file($node->logfile) =~ /^(.*(?:PANIC|TRAP|\Q$provider->{key}\E).*)$/mg;
		undef $node;
		undef $provider;
	}
	return;
}

# A library with the points in it.
my $build = PostgreSQL::Test::Utils::tempdir() . '/inject';
mkdir $build;
system("cd '$top' && cp -r Makefile gpu_orch.control gpu_orch.map src sql '$build' && find '$build'/src -name '*.o' -delete"
	  . " && make -s -j2 -C '$build' INJECT=1 with_llvm=no all > '$build/log' 2>&1") == 0
  or BAIL_OUT('the library with points could not be built: ' . slurp_file("$build/log"));

my %count;
for my $file (glob "$top/src/*/*.c $top/src/*/*/*.c")
{
	$count{$_}++ for slurp_file($file) =~ /\bINJECT\("([a-z_.]+)"\)/g;
}
is(join(' ', grep { $count{$_} > 1 } sort keys %count), '', 'each point has a name of its own');
my @points = grep { !$ENV{FAULT_POINTS} || /$ENV{FAULT_POINTS}/ } sort keys %count;
my @cells = map { my $point = $_; map { [ $point, $_ ] } @actions } @points;
cmp_ok(scalar @points, '>', 0, 'there are points: ' . @points);

my @children;
for my $number (0 .. $processes - 1)
{
	my $results = PostgreSQL::Test::Utils::tempdir() . "/cells.$number";
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open my $out, '>', $results or die "$results: $!";
		$out->autoflush;
		eval { play($build, $number, [ @cells[ grep { $_ % $processes == $number } 0 .. $#cells ] ], $out); 1 }
		  or print $out "log it broke off: $@\n";
		$node->stop('immediate') if $node;
		undef $provider;
		POSIX::_exit(0);
	}
	push @children, [ $pid, $results ];
}

my (%reached, %played);
for my $child (@children)
{
	waitpid $child->[0], 0;
	for my $line (split /\n/, slurp_file($child->[1]))
	{
		if ($line =~ /^log (.*)/)
		{
			fail("a log is clean: $1");
			next;
		}
		my ($point, $action, $seconds, $is) = split / /, $line, 4;

		$played{"$point $action"}++;
		$reached{$point}++ if $is eq 'reached';
		is($is, 'reached', "$action at $point, $seconds s");
	}
}
is(scalar keys %played, scalar @cells, 'every cell was played');
is(join(' ', grep { !$reached{$_} } @points), '', 'points never reached: none');
done_testing();
