# Round.pm: one round of chaos: a fresh server and a fresh provider, tasks, what the plan wants to go wrong, rest, and
# what Checker.pm says of it. It counts what was done. Must not know of other rounds.
package Round;

use strict;
use warnings FATAL => 'all';
use Checker;
use IO::Handle;
use JSON::PP;
use Points;
use Server;
use Sim;
use Spoil;
use Time::HiRes qw(sleep time);
use Wire;

# The longest that rest may take, in seconds.
my $rest = 90;

# new(TREE, DIRECTORY, LIBRARY): what the rounds of one process share; LIBRARY is the folder of the library with points, or
# undef.
sub new
{
	my ($class, $tree, $directory, $library) = @_;
	my $key = join '', map { sprintf '%x', rand 16 } 1 .. 32;
	my $self = bless {directory => $directory, key => $key, submitters => []}, $class;

	$self->{container} = _write_container($tree, $directory);
	$self->{server} = Server->new($directory, $key, $library);
	return $self;
}

# end(): leave no process.
sub end
{
	my ($self) = @_;

	$self->_kill_submitters;
	undef $self->{sim};
	$self->{server}->kill_all if $self->{server};
	return;
}

sub _count { my ($self, $what, $n) = @_; $self->{count}{$what} += $n // 1; return; }

# The container of a pod: a worker whose tasks take a moment, and fail at first where they are told to.
sub _write_container
{
	my ($tree, $directory) = @_;
	my $worker = $ENV{GPU_ORCH_WORKER} // "$tree/worker/gpu-orch-worker";

	open my $file, '>', "$directory/handler" or die "handler: $!";
	print $file <<'SCRIPT';
#!/bin/sh
read -r task
case $task in *flaky*) [ "$GPU_ORCH_ATTEMPT" -gt 1 ] || exit 75 ;; esac
sleep 0.02
echo '{}'
SCRIPT
	close $file;
	chmod 0755, "$directory/handler";
	return "exec $worker --kind chaos --poll 0.2 --no-listen --handler $directory/handler 2>>$directory/workers.log";
}

# A process that submits tasks, each again until it is answered, under one key; what was taken in is told
# through a pipe.
sub _start_submitter
{
	my ($self, $name, $tasks) = @_;

	pipe my $read, my $write or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		my $wire;

		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
		for my $n (1 .. $tasks)
		{
			my $flaky = $n % 7 == 0 ? '{"flaky": true}' : '{}';

			for (;;)
			{
				my $answer = eval {
					$wire ||= Wire->new($self->{server}, 'chaos', 'pod');
					$wire->send_query("SELECT gpu_orch.submit_task('chaos', '$flaky', idempotency_key => '$name-$n', max_attempts => 1000)");
					$wire->answer;
				};
				last if $answer && !defined $answer->{state};
				undef $wire;
				sleep 0.05;
			}
			syswrite $write, "$name-$n\n";
			sleep 0.03;
		}
		require POSIX;
		POSIX::_exit(0);
	}
	close $write;
	push @{ $self->{submitters} }, {pid => $pid, read => $read};
	return;
}

# Wait for the submitters; the keys of what was taken in.
sub _end_submitters
{
	my ($self) = @_;
	my @keys;

	for my $submitter (@{ $self->{submitters} })
	{
		my $read = $submitter->{read};

		push @keys, map { chomp; $_ } <$read>;
		waitpid $submitter->{pid}, 0;
	}
	$self->{submitters} = [];
	return @keys;
}

sub _kill_submitters
{
	my ($self) = @_;

	kill 'KILL', map { $_->{pid} } @{ $self->{submitters} };
	$self->_end_submitters;
	return;
}

# Move both clocks: ours first, so that what is in between is counted for longer, not for less. A kill that was met
# meanwhile is noted before theirs is moved.
sub _step
{
	my ($self, $seconds) = @_;
	my $from = $self->{sim}->now;
	my $at = $self->{server}->step($seconds);

	$self->_look_at_point;
	push @{ $self->{steps} }, {seconds => $seconds, at => $at, from => $from, to => $self->{sim}->step($seconds)};
	$self->_count('steps');
	return;
}

# One of the server's processes, by its kind.
sub _process
{
	my ($self, $kind) = @_;
	my $type = $kind eq 'leader' ? "= 'gpu_orch leader'" : "= 'client backend' AND usename = 'pod'";
	my $rows = $self->{server}->try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type $type ORDER BY random() LIMIT 1");

	return $rows && @$rows ? $rows->[0][0] : 0;
}

# The leader forgot what it saw: nothing that was seen before counts any more.
sub _note_kill { my ($self) = @_; push @{ $self->{kills} }, $self->{sim}->now; return; }

# A part of the round has ended: how long it took.
sub _lap
{
	my ($self, $part) = @_;
	my $now = time;

	$self->_count("time: $part", $now - $self->{lap});
	$self->{lap} = $now;
	return;
}

# ---- labelled steps ----

# Let a process meet an action at a point, from now on.
sub _arm
{
	my ($self, $point, $action) = @_;
	my $server = $self->{server};

	$self->_disarm;
	$self->{armed} = {point => $point, action => $action, postmaster => $server->postmaster};
	$self->_count("armed $point");
	Points::arm($server->data, $point, $action);
	return;
}

# See whether the point was reached, and get the server back if it was.
sub _look_at_point
{
	my ($self) = @_;
	my $armed = $self->{armed};

	return unless $armed && Points::is_reached($self->{server}->data);
	delete $self->{armed};
	$self->_count("reached $armed->{point}");
	$self->_count("at a point: $armed->{action}");
	$self->_note_kill;
	$self->{server}->recover($armed->{postmaster}) if $armed->{action} eq 'kill';
	$self->_note_kill;
	return;
}

sub _disarm
{
	my ($self) = @_;

	$self->_look_at_point;
	delete $self->{armed} if $self->{armed} && Points::disarm($self->{server}->data);
	$self->_look_at_point;
	return;
}

# ---- events ----

sub _live_pods { return grep { $_->{live} && !$_->{foreign} } @{ $_[0]{sim}->control(GET => 'pods')->{pods} }; }

sub _one_worker
{
	my ($self, $call) = @_;

	return $self->{server}->try_sql(qq{SELECT $call FROM (SELECT id FROM gpu_orch.worker
		WHERE state IN ('spawning', 'initializing', 'active') ORDER BY random() LIMIT 1) w});
}

# The events of a plan. Those of an operator may fail: the server may be away, or the state another.
my %do = (
	kill => sub {
		my ($self, $kind) = @_;
		my $server = $self->{server};
		my $postmaster = $server->postmaster;
		my $pid = $kind eq 'postmaster' ? $postmaster : $self->_process($kind) or return;

		$self->_count("killed $kind");
		$self->_note_kill;
		if ($kind eq 'postmaster')
		{
			$server->kill_all;
			$server->start;
		}
		else
		{
			$server->recover($postmaster) if kill 'KILL', $pid;
		}
		$self->_note_kill;
	},
	'kill worker' => sub {
		my ($self, $draw) = @_;
		my @alive = grep { $_->{pid} } $self->_live_pods or return;

		$self->_count('killed worker', kill 'KILL', $alive[ $draw * @alive ]{pid});
	},
	'end leader' => sub { my ($self) = @_; my $pid = $self->_process('leader'); kill 'TERM', $pid if $pid; $self->_note_kill; },
	'kill at' => \&_arm,
	step => \&_step,
	scale => sub { $_[0]{server}->try_sql(qq{SELECT gpu_orch.alter_pool('$_[1]', '{"max_workers": $_[2]}')}); },
	spawn => sub { $_[0]{server}->try_sql("SELECT gpu_orch.spawn_worker('$_[1]')"); },
	terminate => sub { $_[0]->_one_worker('gpu_orch.terminate_worker(id, true)'); },
	drain => sub { $_[0]->_one_worker('gpu_orch.drain_worker(id)'); },
	cycle => sub { $_[0]{server}->try_sql('SELECT gpu_orch.run_cycle()'); },
	pod => sub {
		my ($self, $how, $draw) = @_;
		my @alive = $self->_live_pods or return;

		# It may end meanwhile.
		$self->_count("pods: $how") if eval { $self->{sim}->control(POST => 'pods', {$how => $alive[ $draw * @alive ]{id}}) };
	},
	'foreign pod' => sub { $_[0]{sim}->control(POST => 'pods', {foreign => 'not-ours'}); $_[0]->_count('pods: foreign'); },
	balance => sub {
		my ($self, $dollars) = @_;

		$self->{sim}->control(POST => 'balance', {balance => $dollars});
		$self->_count('balance: empty') if $dollars == 0;
	},
	refuse => sub { my ($self, $seconds) = @_; $self->{sim}->control(POST => 'refuse', {seconds => $seconds}); sleep $seconds + 0.05; $self->_count('port: closed'); });

# Wait until so many seconds of the round have passed.
sub _wait_until
{
	my ($self, $second) = @_;

	for (;;)
	{
		my $wait = $self->{started} + $second - time;

		$self->_look_at_point;
		return if $wait <= 0;
		sleep($wait < 0.02 ? $wait : 0.02);
	}
}

sub _let_things_go_wrong
{
	my ($self, $plan) = @_;

	$self->{started} = time;
	for my $event (@{ $plan->{events} })
	{
		my ($at, $what, @arguments) = @$event;

		$self->_wait_until($at);
		$do{$what}->($self, @arguments);
	}
	$self->_wait_until($plan->{seconds});
	$self->_disarm;
	return;
}

# ---- rest ----

# Wait for a query to say true, moving the clocks meanwhile, the slower the longer it takes; false after the longest that
# rest may take.
sub _comes_true
{
	my ($self, $query, $stride, $also) = @_;
	my $until = time + $rest;
	my $pause = 0.04;

	while (time < $until)
	{
		$self->_look_at_point;
		my ($true) = $self->{server}->sql($query);

		return 1 if $true eq 't' && (!$also || $also->());
		sleep $pause;
		$pause *= 1.02;
		$self->_step($stride->());
	}
	return 0;
}

# Everything ends: the tasks first, then the pools; returns what does not.
sub _come_to_rest
{
	my ($self, $plan) = @_;
	my $server = $self->{server};
	# What works or boots needs time of the machine's, and would be given up if the clock ran ahead of it.
	my $busy = q{SELECT CASE WHEN bool_or(state = 'active') THEN 1 WHEN bool_or(state = 'initializing') THEN 2 ELSE 0 END FROM gpu_orch.worker};
	my $quiet = q{SELECT NOT EXISTS (SELECT FROM gpu_orch.worker WHERE origin = 'cloud' AND state <> 'terminated')
		AND NOT EXISTS (SELECT FROM gpu_orch.cloud_op WHERE state IN ('planned', 'sent', 'unknown'))
		AND NOT EXISTS (SELECT FROM gpu_orch.spend WHERE ended_at IS NULL)};
	my ($still, $looks) = (0, 0);

	$server->sql(q{SELECT gpu_orch.alter_pool('a', '{"max_workers": 3}')});
	$self->_comes_true(q{SELECT NOT EXISTS (SELECT FROM gpu_orch.task t WHERE NOT EXISTS
			(SELECT FROM gpu_orch.attempt a WHERE a.task_id = t.id AND a.final_state IS NOT NULL))},
		sub { $looks++; ($server->sql($busy))[0] || ($looks < 20 ? 10 : 60) })
		or return 'the tasks do not end';
	$self->_lap('to end the tasks');
	$self->_arm(@{ $plan->{at_rest} }) if $plan->{at_rest};
	for my $pool ('a', 'b')
	{
		# A crash may come between the commit and its answer.
		$server->sql(qq{SELECT gpu_orch.drop_pool(name) FROM gpu_orch.pool WHERE name = '$pool' AND dropped_at IS NULL});
	}
	# Quiet for several looks, apart by more than what the provider may still be late with.
	$self->_comes_true($quiet, sub { 6 }, sub { $still = $self->{sim}->ledger->{totals}{live} ? 0 : $still + 1; $still >= 4 })
		or return 'the fleet does not come to rest';
	$self->_disarm;
	return;
}

# ---- the round ----

sub _begin
{
	my ($self, $plan) = @_;
	my $server = $self->{server};
	my %settings = (
		restart_after_crash => $plan->{alone} ? 'on' : 'off',
		'gpu_orch.cycle_interval' => '100ms',
		'gpu_orch.event_debounce' => '10ms',
		'gpu_orch.reconcile_interval' => '200ms',
		'gpu_orch.heartbeat_interval' => '300ms',
		'gpu_orch.heartbeat_timeout' => '6s',
		'gpu_orch.settle_time' => '1s',
		'gpu_orch.http_timeout' => '1s',
		'gpu_orch.orphan_grace' => '1s',
		'gpu_orch.retry_delay' => '20ms',
		'gpu_orch.max_losses' => 1000,
		'gpu_orch.spawn_rate_limit' => 100000);

	# Those of a round that broke off.
	$self->_kill_submitters;
	@$self{qw(steps kills count armed)} = ([], [], {}, undef);
	undef $self->{sim};
	$self->{sim} = Sim->start("$self->{directory}/sim.log", $self->{key}, '--seed', $plan->{seed}, '--boot-seconds', 0.1,
		'--launch', $self->{container});
	$self->{sim}->control(POST => 'faults', {add => [ grep { $_->{call} eq 'catalog' } @{ $plan->{rules} } ]});
	$server->fresh(%settings, 'gpu_orch.runpod_api_url' => "http://$self->{sim}{address}/v2");
	# At once: the catalog is read when the first pool is there.
	$server->sql('SELECT ' . join ', ', map { qq{gpu_orch.create_pool('$_->[0]', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA GeForce RTX 4090'],
		max_workers => 3, options => '{"policy": "one_to_one", "idle_timeout": "$_->[1]", "spawn_timeout": "60s", "drain_timeout": "20s",
		"policy_options": {"scale_down_grace": 0, "drain_settle": 0.2, "spawning_grace": 1}}')} } [ 'a', '1s' ], [ 'b', '0s' ]);
	for (1 .. 500)
	{
		last if ($server->sql('SELECT count(*) = 0 FROM gpu_orch.offer WHERE price_micros IS NULL'))[0] eq 't';
		sleep 0.01;
	}
	$self->{sim}->control(POST => 'faults', {add => [ grep { $_->{call} ne 'catalog' } @{ $plan->{rules} } ]});
	return;
}

# The counts that only a whole round has.
sub _sum_up
{
	my ($self, $ledger, $tasks) = @_;

	$self->_count(rounds => 1);
	$self->_count(tasks => $tasks);
	$self->_count(pods => $ledger->{totals}{pods});
	$self->{sum}{over} = {Checker::worst()};
	return;
}

# run(PLAN): what was wrong, as sentences, with what was done in {count} and the worst that was seen in {sum}.
sub run
{
	my ($self, $plan) = @_;
	my $server = $self->{server};

	$self->{lap} = time;
	$self->_begin($plan);
	$self->_lap('to begin');
	$self->_start_submitter("s$_", int $plan->{tasks} / 3) for 1 .. 3;
	$self->_let_things_go_wrong($plan);
	$self->_lap('of faults');

	my %hits = $self->{sim}->clear_faults;
	$self->_count("fault $_", $hits{$_}) for keys %hits;
	$self->{sim}->control(POST => 'balance', {balance => 10000});
	my @keys = $self->_end_submitters;
	my $restless = $self->_come_to_rest($plan);
	Spoil::it($ENV{SPOIL}, $server, $self->{sim}) if $ENV{SPOIL};
	my $ledger = $self->{sim}->ledger;
	my @wrong = ($restless // (), Checker::check($server, $ledger, \@keys, $self->{steps}, $self->{kills}));

	$self->_lap('to come to rest and check');
	$self->_sum_up($ledger, scalar @keys);
	if ($ENV{KEEP} && @wrong)
	{
		open my $file, '>', "$self->{directory}/ledger.json" or die "ledger: $!";
		print $file JSON::PP->new->pretty->canonical->encode({%$ledger, steps => $self->{steps}, kills => $self->{kills}, plan => $plan,
			rows => Checker::rows($server)});
	}
	return @wrong;
}

# logged_badly(): what the server's log says that it must not.
sub logged_badly
{
	my ($self) = @_;

	open my $file, '<', $self->{server}->log_file or return;
	my $text = join '', <$file>;

	truncate $self->{server}->log_file, 0 unless $ENV{KEEP};
	return (($text =~ /\Q$self->{key}\E/ ? 'the key stands in the server\'s log' : ()),
		map { "the server's log: $_" } $text =~ /^.*(?:PANIC|TRAP).*$/mg);
}

1;
