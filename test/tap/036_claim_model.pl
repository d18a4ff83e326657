# Claims against a slow reference model: random histories of submits, claims, answers, cancels, expiries and
# limits, in up to three sessions with open transactions, savepoints and prepared transactions. The model
# (ClaimModel.pm) judges each claim: nothing that may not be claimed, nothing that goes first passed over, and
# never nothing while there is something. After each step every task must stand where the model has it.
#
# The leader acts in the first histories, one of thirty. In them it is waited for after each step, and there is one
# session, as it may act before a second one goes on. In the others admit() is a step like any other, and nothing
# happens between steps. So a seed decides everything. Two
# processes share the histories, each with a server of its own, since a history waits for one answer after the
# other.
#
# No step waits for another session: claims never do, and where another call would, it is left alone. One that
# waits all the same fails.
#
#   MODEL_SEED=N         the seed that an earlier run printed, to repeat it
#   MODEL_HISTORIES=N    how many histories, instead of 10000
#   MODEL_HISTORY=N      that one alone of so many; N-M: from one to another. A history meets what the ones before
#                        have left of tags, bounds and rings, and nothing else
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use ClaimModel qw(@capsets @shapes MINUTE);
use GpuOrch;
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use Test::More;
use Wire;

my $seed = $ENV{MODEL_SEED} // int(rand(2**31));
my $histories = $ENV{MODEL_HISTORIES} // 10_000;
my ($from, $to) = split /-/, $ENV{MODEL_HISTORY} // "1-$histories";
my $processes = 2;
my $heartbeat_interval = 5 * MINUTE;

# Of the process's own: its server, four sessions, four workers, and the history in hand.
my ($node, $model, @sessions, @workers, $has_leader, $first, $began, @log, %tally);

# Sessions --------------------------------------------------------------------------------------

# The SQL of a time in microseconds.
sub micros { my ($time) = @_; return "(extract(epoch FROM $time) * 1000000)::bigint"; }

# Sessions 1 to 3 play the histories, session 0 works for the test itself. Each has prepared what the engine's
# rows say of a history's tasks, in the columns that the model compares.
sub connect_sessions
{
	for my $me (0 .. 3)
	{
		$sessions[$me] = { wire => Wire->new($node, 'app'), prepared => 0, looks => 0 };
		ask($me, q{SET lock_timeout = '20s'});
		my $has_tags = ask($me, q{SELECT FROM pg_attribute
			WHERE attrelid = 'gpu_orch.ready_queue'::regclass AND attname = 'tag'});
		my $tag = $has_tags ? 'r.tag' : 'CASE WHEN r.task_id IS NOT NULL THEN 0 END';
		my ($due, $claimed_at, $deadline) = map { micros($_) } qw(w.due_at l.claimed_at l.deadline);

		ask($me, qq{PREPARE found AS
			SELECT t.id, (w.task_id IS NOT NULL)::int + (r.task_id IS NOT NULL)::int + (l.task_id IS NOT NULL)::int,
				CASE WHEN w.task_id IS NOT NULL THEN 'waiting' WHEN r.task_id IS NOT NULL THEN 'ready'
					WHEN l.task_id IS NOT NULL THEN 'running' ELSE a.final_state END,
				coalesce(w.attempt, r.attempt, l.attempt, a.attempt), coalesce(w.faults, r.faults, l.faults),
				coalesce(w.losses, r.losses, l.losses), $due, $tag, l.worker, l.id, l.claimed_after, $claimed_at,
				$deadline, CASE WHEN l.task_id IS NOT NULL
					THEN EXISTS (SELECT FROM gpu_orch.cancel_request c WHERE c.task_id = t.id) END
			FROM gpu_orch.task t
			LEFT JOIN gpu_orch.waiting w ON w.task_id = t.id
			LEFT JOIN gpu_orch.ready_queue r ON r.task_id = t.id
			LEFT JOIN gpu_orch.lease l ON l.task_id = t.id
			LEFT JOIN LATERAL (SELECT a.attempt, a.final_state FROM gpu_orch.attempt a WHERE a.task_id = t.id
				ORDER BY a.attempt DESC LIMIT 1) a ON true
			WHERE t.id BETWEEN \$1 AND \$1 + 200});
		ask($me, q{PREPARE attempts AS
			SELECT task_id, attempt, worker, lease, outcome, failure, final_state FROM gpu_orch.attempt
			WHERE task_id BETWEEN $1 AND $1 + 200});
	}
	return;
}

# ask(ME, SQL): the rows that a statement returns, each its columns joined by |. What the session then finds of
# the history's tasks is asked for in the same breath, unless nothing can have changed.
sub ask
{
	my ($me, $sql) = @_;

	send_to($me, $sql);
	return rows($me, $sql);
}

# ask_one(ME, SQL): the first row.
sub ask_one { return (ask(@_))[0] // ''; }

sub send_to
{
	my ($me, $sql) = @_;
	my $session = $sessions[$me];

	look_away($me);
	$session->{looks} = $me > 0 && defined $first && $sql !~ /^(?:BEGIN|SAVEPOINT|RELEASE|PREPARE)\b/;
	$session->{wire}->send_query($sql);
	$session->{wire}->send_query("EXECUTE found($first)") if $session->{looks};
	return;
}

sub rows
{
	my ($me, $sql) = @_;
	my $answer = $sessions[$me]{wire}->answer;

	die "$answer->{state} $answer->{message}\nfrom $sql\n" if defined $answer->{state};
	return map { join '|', map { $_ // '' } @$_ } @{ $answer->{rows} };
}

# found(ME): what the session finds of the history's tasks, as of the last statement of this step.
sub found
{
	my ($me) = @_;

	return ask($me, "EXECUTE found($first)") if !$sessions[$me]{looks};
	$sessions[$me]{looks} = 0;
	return rows($me, 'found');
}

# look_away(ME): what the session found is of no use any more.
sub look_away
{
	my ($me) = @_;

	$sessions[$me]{wire}->answer if $sessions[$me]{looks};
	$sessions[$me]{looks} = 0;
	return;
}

# note_step(LINE): for the report of a failure, and counted by what it says after the session and the worker.
sub note_step
{
	my ($line) = @_;

	push @log, $line;
	$tally{$1}++ if $line =~ /^(?:s\d )?(?:w\d )?([a-z]+(?: [a-z]+)*)/;
	return;
}

sub pick { return $_[ rand @_ ]; }

# The SQL of a value: a string or null.
sub quote { my ($value) = @_; return defined $value ? "'" . $value =~ s/'/''/gr . "'" : 'NULL'; }

# The SQL of a worker's call.
sub worker_call
{
	my ($worker, $name, @more) = @_;

	return "gpu_orch.$name(" . join(', ', map { quote($_) } $worker->{id}, $worker->{token}, @more) . ')';
}

# Transactions ----------------------------------------------------------------------------------

# finish(ME, COMMITS): end the open transaction.
sub finish
{
	my ($me, $commits) = @_;
	my $sql = $commits ? 'COMMIT' : 'ROLLBACK';

	$sql .= " PREPARED 'model$me'" if $sessions[$me]{prepared};
	note_step("s$me " . lc $sql);
	ask($me, $sql);
	$sessions[$me]{prepared} = 0;
	if ($commits)
	{
		$model->sink($me) while $model->depth($me);
	}
	else
	{
		$tally{'claims undone'} += $model->count_claims($me, 1);
		$model->forget($me, 1);
	}
	return;
}

# transact(ME, OP): begin, end and nest transactions.
sub transact
{
	my ($me, $op) = @_;
	my $depth = $model->depth($me);

	if ($op eq 'commit' || $op eq 'rollback')
	{
		finish($me, $op eq 'commit');
		return 1;
	}
	note_step("s$me $op");
	ask($me,
		  $op eq 'begin' ? 'BEGIN'
		: $op eq 'savepoint' ? "SAVEPOINT d$depth"
		: $op eq 'rollback to' ? 'ROLLBACK TO d' . ($depth - 1)
		: $op eq 'release savepoint' ? 'RELEASE d' . ($depth - 1)
		: "PREPARE TRANSACTION 'model$me'");
	$model->push_layer($me) if $op =~ /^(?:begin|savepoint)$/;
	$model->sink($me) if $op eq 'release savepoint';
	$sessions[$me]{prepared} = 1 if $op eq 'prepare';
	if ($op eq 'rollback to')
	{
		$tally{'claims undone'} += $model->count_claims($me, $depth);
		$model->forget($me, $depth);
		$model->push_layer($me);
	}
	return 1;
}

# Steps -----------------------------------------------------------------------------------------

# Each is done by a session and returns false, having done nothing, where it makes no sense. What another
# session has touched or locked in an open transaction is left alone where the call would wait for that one.
my %steps = (
	submit => \&submit,
	claim => \&claim,
	fuse => \&fuse,
	answer => \&answer,
	'answer again' => \&answer_again,
	cancel => \&cancel,
	retry => \&retry,
	heartbeat => \&heartbeat,
	register => \&register,
	limit => \&limit,
	admit => sub { my ($me) = @_; note_step("s$me admit"); ask($me, 'SELECT gpu_orch.admit()'); return 1; },
	advance => \&advance,
	map { my $op = $_; $op => sub { transact($_[0], $op) } }
	  ('begin', 'savepoint', 'rollback to', 'release savepoint', 'commit', 'rollback', 'prepare'));

sub submit
{
	my ($me) = @_;
	my (@tasks, @bodies);

	for (1 .. pick(1, 1, 2, 3))
	{
		my %task = (
			shape => int rand @shapes,
			tenant => pick('default', 'default', 'free', ('few', 'some') x ($model->{limits}{few} ? 2 : 1)),
			priority => pick(0, 0, 0, 0, 5, 10, -3),
			max_attempts => pick(1, 2, 3),
			timeout => pick(undef, 20 * MINUTE, 60 * MINUTE),
			parents => [ grep { rand() < 0.05 } map { $_->{id} } $model->seen($me) ]);
		my $delay = pick(undef, undef, undef, undef, 30, -60);
		my $run_at;

		if (defined $delay)
		{
			my $seconds = int($model->{now} / 1_000_000) + 60 * $delay;

			$task{run_at} = $task{due} = $seconds * 1_000_000;
			$run_at = strftime('"%Y-%m-%d %H:%M:%S+00"', gmtime $seconds);
		}
		push @tasks, \%task;
		push @bodies,
		  sprintf '{"kind": "%s", "requirements": %s, "payload": {"shape": %d}, "tenant": "%s", "priority": %d, '
		  . '"max_attempts": %d, "timeout": %s, "run_at": %s, "depends_on": [%s]}',
		  @{ $shapes[ $task{shape} ] }{qw(kind requirements)},
		  @task{qw(shape tenant priority max_attempts)},
		  defined $task{timeout} ? $task{timeout} / 1_000_000 : 'null',
		  $run_at // 'null',
		  join ',', @{ $task{parents} };
	}
	my @ids = ask($me, 'SELECT * FROM gpu_orch.submit_tasks(' . quote('[' . join(', ', @bodies) . ']') . ')');
	for my $t (@tasks)
	{
		$t->{id} = shift @ids;
		note_step("s$me submit $t->{id}: shape $t->{shape}, tenant $t->{tenant}, priority $t->{priority}"
			  . ($t->{due} ? ', scheduled' : '') . (@{ $t->{parents} } ? ", depends on @{ $t->{parents} }" : ''));
		$model->submit($me, $t);
	}
	return 1;
}

# A worker makes all its calls in one session: two would wait for each other's touch of its row.
sub a_worker { my ($me) = @_; return pick(grep { $_->{session} == $me } @workers); }

# The running attempts that are not a session's own.
sub others_attempts
{
	my ($me) = @_;
	my %mine = map { $_->{no} => 1 } grep { $_->{session} == $me } @workers;

	return map { { task => $_->{id}, worker => $_->{worker}, lease => $_->{lease} } }
	  grep { $_->{place} eq 'running' && !$mine{ $_->{worker} } && !$model->is_touched($me, $_) } $model->seen($me);
}

# One of the tasks that a session's workers run, rather one that somebody is about to cancel.
sub a_running_task
{
	my ($me) = @_;
	my %mine = map { $_->{no} => $_ } grep { $_->{session} == $me } @workers;
	my @running = grep { $_->{place} eq 'running' && $mine{ $_->{worker} } && !$model->is_touched($me, $_) } $model->seen($me);
	my @asked = grep { $model->is_asked_elsewhere($me, $_) } @running;
	my $t = pick(@asked && rand() < 0.7 ? @asked : @running);

	return $t ? ($t, $mine{ $t->{worker} }) : ();
}

sub claim
{
	my ($me) = @_;
	my @able = grep { $_->{session} == $me && $model->claimable($me, $_->{capset}) } @workers;

	# Mostly one that should get something.
	return claim_after($me, pick(@able)) if @able;
	return rand() < 0.8 ? 0 : claim_after($me, a_worker($me));
}

sub fuse
{
	my ($me) = @_;
	my ($t, $worker) = a_running_task($me) or return 0;

	return claim_after($me, $worker, $t);
}

# Claim, in the call that completes a task if there is one.
sub claim_after
{
	my ($me, $worker, $completed) = @_;
	my $n = pick(1, 1, 1, 2, 3, 5);
	my @queue = $model->claimable($me, $worker->{capset});
	my $call = worker_call($worker, 'claim_tasks', $n);
	my (@tasks, $after);

	if ($completed)
	{
		$after = $completed->{lease};
		$call = worker_call($worker, 'complete_and_claim', $completed->{id}, $after, undef, $n);
		$model->end_attempt($me, $completed, 'succeeded');
	}
	note_step("s$me $worker->{id} "
		  . ($completed ? "fuse $completed->{id}, " : '')
		  . "claim $n of @{[ map { $_->{id} } @queue ]}");
	for (ask($me, qq{SELECT task_id, lease, attempt, priority, tenant, payload ->> 'shape', kind, requirements FROM $call}))
	{
		my %task;

		@task{qw(id lease attempt priority tenant shape kind requirements)} = split /\|/;
		push @tasks, \%task;
	}
	note_step("    got @{[ map { $_->{id} } @tasks ]}");
	$tally{ @tasks ? 'tasks claimed' : 'empty claims' } += @tasks || 1;
	$model->judge_claim($me, $worker, $n, \@queue, \@tasks, $after);
	return 1;
}

# End an attempt.
sub answer
{
	my ($me) = @_;
	my ($t, $worker) = a_running_task($me) or return 0;
	my $op = pick($model->is_asked_elsewhere($me, $t) ? () : ('complete', 'complete'), 'fail', 'fail', 'release');
	my @args = ($t->{id}, $t->{lease});
	my ($failure, $retry);

	if ($op eq 'fail')
	{
		$failure = pick('task', 'task', 'platform', 'platform', 'rejected');
		$retry = rand() < 0.8;
		push @args, 'error', $failure, $retry ? 't' : 'f';
	}
	note_step("s$me $worker->{id} $op @args[0, 3 .. $#args]");
	die "the answer for task $t->{id} was fenced\n"
	  if ask_one($me, 'SELECT ' . worker_call($worker, "${op}_task", @args)) ne 't';
	$model->end_attempt($me, $t, { complete => 'succeeded', fail => 'failed', release => 'released' }->{$op},
		$failure, $op eq 'fail' && !$retry);
	return 1;
}

# Answer for an attempt that has ended, or that another worker runs: true again for the same answer of the same
# worker, otherwise fenced.
sub answer_again
{
	my ($me) = @_;
	my $attempt = pick((grep { defined $_->{lease} } $model->attempts($me)), others_attempts($me)) or return 0;
	my ($holder) = grep { $_->{no} == $attempt->{worker} && $_->{session} == $me } @workers;
	my $worker = $holder && defined $attempt->{outcome} && rand() < 0.6 ? $holder : a_worker($me);
	my %outcome = (complete => 'succeeded', fuse => 'succeeded', fail => 'failed', release => 'released');
	my @same = grep { $outcome{$_} eq ($attempt->{outcome} // '') } keys %outcome;
	my $op = @same && rand() < 0.6 ? pick(sort @same) : pick(sort keys %outcome);
	my $is_same = $worker->{no} == $attempt->{worker} && $outcome{$op} eq ($attempt->{outcome} // '');
	my @args = ($attempt->{task}, $attempt->{lease}, $op eq 'fail' ? ('error', $attempt->{failure} // 'task') : ());

	# The error of a fenced complete_and_claim() would end the transaction.
	return 0 if $op eq 'fuse' && $model->depth($me);
	note_step("s$me $worker->{id} $op again $attempt->{task}");
	if ($op eq 'fuse')
	{
		send_to($me, 'SELECT lease FROM ' . worker_call($worker, 'complete_and_claim', @args));
		my $answer = $sessions[$me]{wire}->answer;
		my $state = $answer->{state} // '';
		my @leases = sort map { $_->[0] } @{ $answer->{rows} };
		my @expected = sort map { $_->{lease} } grep { ($_->{after} // '') eq $attempt->{lease} } $model->seen($me);

		die "a repeated complete_and_claim() gave @leases$state\n"
		  if $state ne ($is_same ? '' : 'GO001') || $is_same && "@leases" ne "@expected";
	}
	else
	{
		my $got = ask_one($me, 'SELECT ' . worker_call($worker, "${op}_task", @args));

		die "the repeated answer is $got\n" if $got ne ($is_same ? 't' : 'f');
	}
	return 1;
}

sub a_free_task
{
	my ($me, @tasks) = @_;

	return pick(grep { !$model->is_touched($me, $_) && !$model->is_locked($me, $_->{id}) } @tasks);
}

sub cancel
{
	my ($me) = @_;
	my @tasks = $model->seen($me);
	my @running = grep { $_->{place} eq 'running' } @tasks;
	my $t = a_free_task($me, @running && rand() < 0.5 ? @running : @tasks) or return 0;
	my $stands = ClaimModel::stands($t);

	note_step("s$me cancel $t->{id}");
	die "the cancel of task $t->{id}, which is $t->{place}\n"
	  if ask_one($me, "SELECT gpu_orch.cancel_task($t->{id})") ne ($stands ? 't' : 'f');
	$model->lock($me, $t->{id});
	$model->end_attempt($me, $t, 'cancelled') if $t->{place} =~ /^(?:waiting|ready)$/;
	$model->ask_to_cancel($me, $t) if $t->{place} eq 'running';
	return 1;
}

sub retry
{
	my ($me) = @_;
	my @tasks = $model->seen($me);
	my @over = grep { $_->{place} =~ /^(?:failed|cancelled)$/ } @tasks;
	my $t = a_free_task($me, @over && rand() < 0.8 ? @over : @tasks) or return 0;
	my $is_over = $t->{place} =~ /^(?:failed|cancelled)$/;

	# Refused with an error, which would end the transaction.
	return 0 if $is_over && $model->obstacle($me, $t) eq 'failed parent';
	note_step("s$me retry $t->{id}");
	die "the retry of task $t->{id}, which is $t->{place}\n"
	  if ask_one($me, "SELECT gpu_orch.retry_task($t->{id})") ne ($is_over ? 't' : 'f');
	$model->lock($me, $t->{id});
	$model->retry($me, $t) if $is_over;
	return 1;
}

# A worker of the session, mostly a busy one, and what it runs; nothing where another session has touched that.
sub a_worker_with_tasks
{
	my ($me) = @_;
	my (undef, $worker) = a_running_task($me);

	$worker = a_worker($me) if !$worker || rand() < 0.3;
	my @running = grep { ($_->{worker} // 0) == $worker->{no} } $model->seen($me);
	return (grep { $model->is_touched($me, $_) } @running) ? () : ($worker, @running);
}

# A heartbeat that names some of the leases: the others are lost once they are older than an interval.
sub heartbeat
{
	my ($me) = @_;
	my ($worker, @running) = a_worker_with_tasks($me) or return 0;
	my (@named, @lost, @asked);

	for my $t (@running)
	{
		if (rand() < 0.5)
		{
			push @named, $t;
		}
		elsif ($t->{claimed_at} + $heartbeat_interval < $model->{now})
		{
			push @lost, $t;
			next;
		}
		push @asked, $t->{id} if $model->is_asked($me, $t);
	}
	note_step("s$me $worker->{id} heartbeat, holding " . join ' ', map { $_->{id} } @named);
	my $got = ask_one($me, 'SELECT cancelled FROM '
		  . worker_call($worker, 'heartbeat', undef, '{' . join(',', map { $_->{lease} } @named) . '}'));
	die "$got are to be cancelled, instead of @asked\n" if $got ne '{' . join(',', @asked) . '}';
	$model->end_attempt($me, $_, 'lost') for @lost;
	return 1;
}

# A worker registers, perhaps with other capabilities, perhaps as a new one: what it ran is lost.
sub register
{
	my ($me) = @_;
	my ($worker, @running) = a_worker_with_tasks($me) or return 0;

	if (rand() < 0.3)
	{
		note_step("s$me $worker->{id} terminated");
		ask($me, "SELECT gpu_orch.terminate_worker('$worker->{id}', true)");
		delete $worker->{token};
	}
	$model->end_attempt($me, $_, 'lost') for @running;
	register_as($me, $worker, int rand @capsets);
	return 1;
}

sub register_as
{
	my ($me, $worker, $capset) = @_;

	note_step("s$me $worker->{id} register: capset $capset");
	my $own = $worker->{token} ? "token => '$worker->{token}', " : '';

	$worker->{capset} = $capset;
	$worker->{token} = ask_one($me,
		"SELECT token FROM gpu_orch.register_worker('$worker->{id}', ${own}capabilities => '$capsets[$capset]')");
	$worker->{no} = ask_one($me, "SELECT no FROM gpu_orch.worker WHERE id = '$worker->{id}' AND state = 'active'");
	return;
}

sub limit { my ($me) = @_; return limit_to($me, pick('few', 'some'), pick(undef, 0, 1, 2, 3)); }

sub limit_to
{
	my ($me, $tenant, $n) = @_;

	note_step("s$me limit of $tenant: " . ($n // 'none'));
	ask($me, "SELECT gpu_orch.alter_tenant('$tenant', " . quote($n) . ')');
	$model->{limits}{$tenant} = $n;
	return 1;
}

# Move the clock, but never to less than a minute before a time that matters: the steps that follow take a while.
# Nor so far in one history that the leader takes silent workers for lost.
sub advance
{
	my $minutes = pick(6, 15, 40, 120);

	return 0 if $model->{now} > $began + 20 * 60 * MINUTE;

	do
	{
		note_step("advance: $minutes minutes");
		$model->{now} = ask_one(0, "SELECT " . micros("gpu_orch.advance_clock('$minutes min')"));
		$minutes = 1;
	} while (grep { $_ > $model->{now} && $_ < $model->{now} + MINUTE } $model->times($heartbeat_interval));
	return 1;
}

# Histories -------------------------------------------------------------------------------------

# judge(ME, OP): after a step, and after the leader if there is one, everything stands where it should.
sub judge
{
	my ($me, $op) = @_;
	my $is_claim = $op eq 'claim' || $op eq 'fuse';

	if ($has_leader)
	{
		ask(0, 'SELECT gpu_orch.run_cycle()');
		for my $t ($model->overdue)
		{
			note_step("overdue $t->{id}");
			$model->end_attempt(0, $t, 'timeout', 'task');
		}
		look_away($me);
		$model->compare(0, [ found(0) ], $is_claim);
		$model->judge_waiting(0);
	}
	$model->compare($me, [ found($me) ], $is_claim)
	  if !$sessions[$me]{prepared} && ($model->depth($me) || !$has_leader);
	$model->judge_waiting($me) if $op eq 'admit';
	return;
}

# Steps, each with its session, that go on with what seldom comes about by chance: a cancel in an open transaction of
# a task that another session runs, whose attempt ends before the commit; its settlement after that; and a claim where
# a task may not fit for the open claims of another session.
sub rare_steps
{
	my ($sessions) = @_;
	my @steps;

	for my $me (grep { !$sessions[$_]{prepared} } 1 .. $sessions)
	{
		my %mine = map { $_->{no} => 1 } grep { $_->{session} == $me } @workers;
		my @tasks = grep { !$model->is_touched($me, $_) } $model->seen($me);
		my @running = grep { $_->{place} eq 'running' } @tasks;
		my @idle = grep { $_->{place} =~ /^(?:waiting|ready)$/ } @tasks;
		my $depth = $model->depth($me);

		push @steps, [ $me, 'cancel' ] if $depth && grep { !$mine{ $_->{worker} } && !$model->is_asked($me, $_) } @running;
		push @steps, [ $me, 'answer' ] if grep { $mine{ $_->{worker} } && $model->is_asked_elsewhere($me, $_) } @running;
		push @steps, [ $me, $depth ? 'commit' : 'admit' ] if grep { $model->is_asked($me, $_) } @idle;
		push @steps, [ $me, 'claim' ]
		  if grep { $_->{place} eq 'ready' && $model->room_to_claim($me, $_->{tenant}) < $model->room($me, $_->{tenant}) } @idle;
	}
	return @steps;
}

# The steps that make sense in a session, each as often as its weight.
sub choices
{
	my ($me) = @_;
	my $depth = $model->depth($me);

	return ('commit', 'rollback') if $sessions[$me]{prepared};
	return (
		('submit') x 4, ('claim') x 6, ('fuse') x 3, ('answer') x 5, 'answer again', 'cancel', 'retry', 'heartbeat',
		('admit') x 3, ('advance') x ($has_leader ? 3 : 1),
		$depth == 0 ? ('register', 'limit', ('begin') x 3) : ('commit', 'rollback', 'prepare'),
		$depth > 0 && $depth < 3 ? ('savepoint') x 2 : (), $depth > 1 ? ('rollback to', 'release savepoint') : ());
}

# End every task, having compared what the engine wrote down of the attempts.
sub clean_up
{
	for my $me (grep { $model->depth($_) } 1 .. 3)
	{
		finish($me, rand() < 0.7);
		judge(0, 'end');
	}
	my @columns = qw(task number worker lease outcome failure final);
	# What an admission cancels while a transaction is open, the model notes for both.
	my %expected = map { join('|', map { $_ // '' } @$_{@columns}) => 1 } $model->attempts(0);
	my $expected = join "\n", sort keys %expected;
	my $found = join "\n", sort(ask(0, "EXECUTE attempts($first)"));

	die "the attempts are not as they should be\n    expected $expected\n    found    $found\n" if $expected ne $found;
	my %by_no = map { $_->{no} => $_ } @workers;
	my @standing = grep { ClaimModel::stands($_) } $model->seen(0);
	my $ids = join ',', map { $_->{id} } @standing;

	ask(0, "SELECT gpu_orch.cancel_task(x) FROM unnest('{$ids}'::bigint[]) x");
	ask(0, 'SELECT ' . worker_call($by_no{ $_->{worker} }, 'fail_task', @$_{qw(id lease)}, 'over'))
	  for grep { $_->{place} eq 'running' } @standing;
	register_as(0, $workers[$_], $_) for grep { $workers[$_]{capset} != $_ } 0 .. $#workers;
	my ($left) = grep { !/^\d+\|0\|\w/ } found(0);
	die "a task has not ended: $left\n" if $left;
	return;
}

# history(NUMBER): run one; its number and the seed decide it, the ids of its tasks too.
sub history
{
	my ($number) = @_;
	my $sessions = do { srand($seed * 1_000_003 + $number); $has_leader ? 1 : pick(1, 2, 3) };

	@log = ();
	ask(0, 'SELECT ' . join ', ', map { worker_call($_, 'heartbeat') } @workers);
	$first = 1000 * $number + 1;
	$began = ask_one(0, 'SELECT ' . micros('gpu_orch.clock()')
		. " FROM setval(pg_get_serial_sequence('gpu_orch.task', 'id'), $first, false)");
	$model->begin_history($began);
	$workers[$_]{session} = 1 + $_ % $sessions for 0 .. $#workers;
	limit_to(1, $_, undef) for grep { defined $model->{limits}{$_} } qw(few some);
	if (rand() < 0.6)
	{
		limit_to(1, 'few', pick(0, 1, 1, 2));
		limit_to(1, 'some', pick(1, 2, 3));
	}
	for my $step (1 .. 10 + rand 5)
	{
		my ($me, $op);

		look_away($_) for 1 .. 3;
		do
		{
			my @rare = $step > 2 && rand() < 0.4 ? rare_steps($sessions) : ();

			$me = 1 + int rand $sessions;
			$op = $step <= 2 ? 'submit' : pick(choices($me));
			($me, $op) = @{ pick(@rare) } if @rare;
		} while (!$steps{$op}->($me));
		judge($me, $op);
	}
	clean_up();
	return;
}

# play(NUMBER): the histories of one of the processes, on its server. Returns what went wrong.
sub play
{
	my ($number) = @_;

	connect_sessions();
	$model = ClaimModel->new(retry_delay => 10 * MINUTE, max_losses => 2);
	ask(0, "SELECT gpu_orch.create_tenant('$_')") for qw(free few some);
	@workers = map { { id => "w$_" } } 1 .. 4;
	register_as(0, $workers[$_], $_) for 0 .. $#workers;
	for my $history (grep { $_ % $processes == $number } $from .. $to // $from)
	{
		my $had_leader = $has_leader // 1;

		$has_leader = $history <= $histories / 30;
		if ($had_leader && !$has_leader)
		{
			$node->set('gpu_orch.enabled' => 'off');
			wait_until('the leader has left', sub { ask_one(0, 'SELECT pid FROM gpu_orch.leader_status()') eq '' });
		}
		next if eval { history($history); 1 };
		return join "\n", "history $history:", @log, $@;
	}
	return join "\n", ask(0, q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds});
}

note("MODEL_SEED=$seed MODEL_HISTORIES=$histories");
my @parts = map {
	{
		node => GpuOrch->running("model$_",
			'gpu_orch.test_clock' => 'on',
			'gpu_orch.cycle_interval' => '1h',
			'gpu_orch.retry_delay' => '10min',
			'gpu_orch.heartbeat_interval' => '5min',
			'gpu_orch.heartbeat_timeout' => '1d',
			'gpu_orch.max_losses' => '2',
			'max_prepared_transactions' => '10',
			'log_statement' => 'none')
	}
} 1 .. $processes;

for my $number (0 .. $#parts)
{
	pipe $parts[$number]{report}, my $report or die "no pipe: $!";
	$parts[$number]{pid} = fork // die "no process: $!";
	next if $parts[$number]{pid};
	$node = $parts[$number]{node};
	my $wrong = eval { play($number) } // $@;
	%tally = (%tally, %{ $model->{tally} }) if $model;
	print $report (map { "$_=$tally{$_}\n" } keys %tally), $wrong;
	close $report;
	POSIX::_exit(0);
}
for my $part (@parts)
{
	my $report = do { local $/; readline $part->{report} };

	waitpid $part->{pid}, 0;
	$tally{$1} += $2 while $report =~ s/\A([^\n=]+)=(\d+)\n//;
	is($report, '', 'everything is as the model has it, and every invariant holds')
		or diag("MODEL_SEED=$seed MODEL_HISTORIES=$histories");
	$part->{node}->stop;
}
note(join ', ', map { "$_ $tally{$_}" } sort keys %tally);
my @kinds = (
	'submit', 'cancel', 'retry', 'admit', 'limit of few', 'limit of some', 'advance', 'overdue',
	'claim', 'tasks claimed', 'empty claims', 'claims undone', 'passed over for open claims', 'cancelled by a late request',
	'fuse', 'complete', 'fail', 'release', 'fuse again', 'complete again', 'fail again', 'release again',
	'heartbeat', 'register', 'terminated', 'begin', 'commit', 'rollback', 'commit prepared', 'rollback prepared',
	'savepoint', 'rollback to', 'release savepoint');
is_deeply([ grep { !$tally{$_} } @kinds ], [], 'all kinds of steps were taken') if !defined $ENV{MODEL_HISTORY} && $histories >= 10_000;
done_testing();
