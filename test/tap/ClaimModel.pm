# ClaimModel.pm: a slow reference model of a task's way, from submit to its end, and a judge of claims.
#
# It states the rules a second time: every task of a history in memory, searched by brute force, and a list
# by hand of which worker may do what. It must not touch a database, nor ask the engine for a verdict. It
# takes over from the engine only what the engine draws (leases, delays, tags), within bounds, and at which
# moment a task that may become ready does so.
#
# Sessions are numbers; 0 is what is committed. What a session does in an open transaction stands in layers
# of its own, one for the transaction and one for each savepoint, until they end: tasks as it left them, requests to
# cancel running ones, attempts that it ended, leases that it made, and rows that it locked. Times are in
# microseconds. Whatever is not as it should be is a die.
package ClaimModel;

use strict;
use warnings;
use Exporter qw(import);

our @EXPORT_OK = qw(@capsets @shapes MINUTE);

use constant MINUTE => 60_000_000;

# What workers have.
our @capsets = (
	'{"services": ["comfyui", "wan"], "hardware": {"gpu_memory_gb": 80, "gpu_model": "H100"},
	  "models": {"comfyui": ["sdxl", "sd15"], "wan": ["wan21"]}, "labels": ["fast"]}',
	'{"services": ["comfyui"], "hardware": {"gpu_memory_gb": 24, "gpu_model": "RTX 4090"},
	  "models": ["sdxl"], "labels": ["fast", "spot"]}',
	'{"services": "wan", "hardware": {"gpu_memory_gb": 40}, "labels": "spot"}',
	'{"hardware": {"gpu_memory_gb": 16.0}}',
	'{"services": []}');

# What tasks ask for, as the server shows it, and which of these workers may take them.
our @shapes = map { { kind => $_->[0], requirements => $_->[1], met_by => { map { $_ => 1 } @{ $_->[2] } } } } (
	[ 'comfyui', '{}', [ 0, 1, 3 ] ],
	[ 'comfyui', '{"hardware": {"gpu_memory_gb": 24}}', [ 0, 1 ] ],
	[ 'comfyui', '{"models": ["sdxl", "sd15"]}', [0] ],
	[ 'comfyui', '{"labels": {"$not": ["spot"]}}', [ 0, 3 ] ],
	[ 'comfyui', '{"labels": ["spot", "fast"], "models": "sdxl"}', [1] ],
	[ 'comfyui', '{"hardware": {"gpu_model": {"$in": ["A100", "H100"]}}}', [0] ],
	[ 'wan', '{}', [ 0, 2, 3 ] ],
	[ 'wan', '{"hardware": {"gpu_memory_gb": {"$lt": 48, "$gte": 16}}}', [ 2, 3 ] ],
	[ 'wan', '{"labels": ["spot"]}', [2] ],
	[ 'upscale', '{"hardware": {"gpu_memory_gb": 16}}', [3] ]);

# new(SETTING => VALUE, ...): a model of an engine with these settings: retry_delay, max_losses.
sub new
{
	my ($class, %settings) = @_;

	return bless {
		%settings,
		now => 0,
		base => _layer(),
		layers => {},
		limits => {},    # by tenant; undef: none
		last_tag => {},    # by tenant: the last tag of earlier histories
		tally => {},    # what rarely happens, and how often it did
	}, $class;
}

sub _layer { return { tasks => {}, asked => {}, attempts => [], leases => {}, locks => {} }; }

# begin_history(NOW): forget the tasks of the last one.
sub begin_history
{
	my ($self, $now) = @_;

	for my $t (grep { $_->{attempt} == 1 && defined $_->{tag} } $self->seen(0))
	{
		my $last = \$self->{last_tag}{ $t->{tenant} };

		$$last = $t->{tag} if !defined $$last || $t->{tag} > $$last;
	}
	$self->{base} = _layer();
	$self->{layers} = {};
	$self->{now} = $now;
	return;
}

# Layers ----------------------------------------------------------------------------------------

# depth(ME): 0 without an open transaction, 1 in one, more within savepoints.
sub depth { my ($self, $me) = @_; return scalar @{ $self->{layers}{$me} // [] }; }

sub push_layer { my ($self, $me) = @_; push @{ $self->{layers}{$me} }, _layer(); return; }

# forget(ME, DEPTH): what was done at this depth and above is undone; the layers below stay.
sub forget { my ($self, $me, $depth) = @_; splice @{ $self->{layers}{$me} }, $depth - 1; return; }

# count_claims(ME, DEPTH): how many tasks have been claimed at this depth and above and still run.
sub count_claims
{
	my ($self, $me, $depth) = @_;
	my @layers = @{ $self->{layers}{$me} }[ $depth - 1 .. $self->depth($me) - 1 ];

	return scalar grep { $_->{place} eq 'running' } map { values %{ $_->{tasks} } } @layers;
}

# sink(ME): what was done in the topmost layer is part of the one below.
sub sink
{
	my ($self, $me) = @_;
	my $from = pop @{ $self->{layers}{$me} };
	my $to = $self->_top($me);

	for my $what (qw(tasks asked), $to == $self->{base} ? () : qw(leases locks))
	{
		%{ $to->{$what} } = (%{ $to->{$what} }, %{ $from->{$what} });
	}
	push @{ $to->{attempts} }, @{ $from->{attempts} };
	return;
}

sub _top { my ($self, $me) = @_; return ($self->{layers}{$me} // [])->[-1] // $self->{base}; }

sub _layers_seen { my ($self, $me) = @_; return ($self->{base}, @{ $self->{layers}{$me} // [] }); }

sub _layers_of_others
{
	my ($self, $me) = @_;

	return map { @{ $self->{layers}{$_} } } grep { $_ != $me } keys %{ $self->{layers} };
}

# seen(ME): every task as a session sees it, in the order of their ids.
sub seen
{
	my ($self, $me) = @_;
	my %tasks = map { %{ $_->{tasks} } } $self->_layers_seen($me);

	return map { $tasks{$_} } sort { $a <=> $b } keys %tasks;
}

sub task
{
	my ($self, $me, $id) = @_;
	my ($found) = grep { defined } map { $_->{tasks}{$id} } reverse $self->_layers_seen($me);

	return $found;
}

# attempts(ME): the ended attempts that a session sees, each as it was written last.
sub attempts
{
	my ($self, $me) = @_;
	my %last = map { ("$_->{task} $_->{number}" => $_) } map { @{ $_->{attempts} } } $self->_layers_seen($me);

	return values %last;
}

# put(ME, TASK, CHANGE => VALUE, ...): a session changes a task; undef values are none. Returns what it is now.
sub put
{
	my ($self, $me, $task, %changes) = @_;

	return $self->_top($me)->{tasks}{ $task->{id} } = { %$task, %changes, row => undef };
}

# is_touched(ME, TASK): whether another session has changed it in an open transaction.
sub is_touched
{
	my ($self, $me, $task) = @_;

	return scalar grep { $_->{tasks}{ $task->{id} } } $self->_layers_of_others($me);
}

# ask_to_cancel(ME, TASK): a session asks the holder of a running task to stop. The request is about the task, touches
# neither it nor its attempt, and outlives that one.
sub ask_to_cancel { my ($self, $me, $task) = @_; $self->_top($me)->{asked}{ $task->{id} } = 1; return; }

# is_asked(ME, TASK): whether a session sees a request to cancel it.
sub is_asked
{
	my ($self, $me, $task) = @_;
	my ($asked) = grep { defined } map { $_->{asked}{ $task->{id} } } reverse $self->_layers_seen($me);

	return $asked;
}

# is_asked_elsewhere(ME, TASK): whether another session asks in an open transaction.
sub is_asked_elsewhere
{
	my ($self, $me, $task) = @_;

	return scalar grep { $_->{asked}{ $task->{id} } } $self->_layers_of_others($me);
}

# lock(ME, WHAT) and is_locked(ME, WHAT): rows that an open transaction may have locked without a change.
sub lock { my ($self, $me, $what) = @_; $self->_top($me)->{locks}{$what} = 1 if $self->depth($me); return; }

sub is_locked { my ($self, $me, $what) = @_; return scalar grep { $_->{locks}{$what} } $self->_layers_of_others($me); }

# Rules -----------------------------------------------------------------------------------------

sub stands { my ($t) = @_; return $t->{place} =~ /^(?:waiting|ready|running)$/; }

# room(ME, TENANT): how many more of its tasks may run, as a session sees it: so many may become ready.
sub room
{
	my ($self, $me, $tenant) = @_;
	my $limit = $self->{limits}{$tenant} // return 1_000_000;

	return $limit - grep { $_->{tenant} eq $tenant && $_->{place} eq 'running' } $self->seen($me);
}

# room_to_claim(ME, TENANT): the same for a claim. What others claim in open transactions counts until these end,
# though the attempt may be over by then: the end alone may yet be undone.
sub room_to_claim
{
	my ($self, $me, $tenant) = @_;

	return $self->room($me, $tenant) - grep { $_ eq $tenant } map { values %{ $_->{leases} } } $self->_layers_of_others($me);
}

# obstacle(ME, TASK): what keeps it from being ready, apart from its tenant's limit, or an empty string.
sub obstacle
{
	my ($self, $me, $t) = @_;
	my @parents = map { $self->task($me, $_)->{place} } @{ $t->{parents} };

	return 'time' if ref $t->{due} || ($t->{due} // 0) > $self->{now};
	return 'failed parent' if grep { /^(?:failed|cancelled)$/ } @parents;
	return (grep { $_ ne 'succeeded' } @parents) ? 'parent' : '';
}

# settle(ME, TASK, CHANGE => VALUE, ...): put a task that stands nowhere where it belongs. A tag is kept by a
# task that goes straight back to its place.
sub settle
{
	my ($self, $me, $task, %changes) = @_;
	my $t = { %$task, %changes };

	$t->{due} = undef if defined $t->{due} && !ref $t->{due} && $t->{due} <= $self->{now};
	return $self->put($me, $t, place => 'waiting', tag => undef)
	  if $self->obstacle($me, $t) || defined $self->{limits}{ $t->{tenant} };
	return $self->put($me, $t, place => 'ready', due => undef);
}

# submit(ME, TASK): take in a new task.
sub submit
{
	my ($self, $me, $task) = @_;

	my $t = { attempt => 1, faults => 0, losses => 0, %$task };

	return $self->settle($me, { %$t, late => $self->obstacle($me, $t) ? 1 : 0 });
}

# claimed(ME, TASK, WORKER, ...): a worker has it now.
sub claimed
{
	my ($self, $me, $t, %lease) = @_;

	$self->_top($me)->{leases}{ $lease{lease} } = $t->{tenant};
	return $self->put($me, $t, %lease, place => 'running', due => undef, claimed_at => undef);
}

# end_attempt(ME, TASK, OUTCOME, FAILURE, FOR_GOOD): what becomes of a task when its attempt ends, or when it
# is cancelled without one.
sub end_attempt
{
	my ($self, $me, $t, $outcome, $failure, $for_good) = @_;
	my $by_platform = $outcome eq 'lost' || ($failure // '') eq 'platform';
	my $by_task = $outcome eq 'timeout' || ($failure // '') =~ /^(?:task|rejected)$/;
	my $losses = $t->{losses} + ($by_platform ? 1 : 0);
	my $faults = $t->{faults} + ($by_task ? 1 : 0);
	my $final =
		$outcome =~ /^(?:succeeded|cancelled)$/ ? $outcome
	  : $self->is_asked($me, $t) ? 'cancelled'
	  : $for_good || ($failure // '') eq 'rejected' ? 'failed'
	  : $by_platform && $losses >= $self->{max_losses} ? 'failed'
	  : $by_task && $faults >= $t->{max_attempts} ? 'failed'
	  : undef;
	my %free = (
		losses => $losses,
		faults => $faults,
		map { $_ => undef } qw(due worker lease after claimed_at deadline));

	push @{ $self->_top($me)->{attempts} },
	  {
		task => $t->{id},
		number => $t->{attempt},
		worker => $t->{worker},
		lease => $t->{lease},
		outcome => $outcome,
		failure => $failure,
		final => $final
	  };
	if (!defined $final)
	{
		if ($outcome =~ /^(?:failed|timeout)$/)
		{
			my $delay = $self->{retry_delay} * 2**($faults + $losses - 1);

			$delay = 60 * MINUTE if $delay > 60 * MINUTE;
			$free{due} = [ $self->{now} + $delay / 2, $self->{now} + $delay + MINUTE ];
		}
		$self->settle($me, $t, %free, attempt => $t->{attempt} + 1);
		return;
	}
	$self->put($me, $t, %free, place => $final);
	return;
}

# retry(ME, TASK): admit it again, with a new budget, not before its time; its last attempt did not end it after all.
sub retry
{
	my ($self, $me, $t) = @_;
	my ($last) = grep { $_->{task} == $t->{id} && $_->{number} == $t->{attempt} } $self->attempts($me);

	push @{ $self->_top($me)->{attempts} }, { %$last, final => undef };
	$self->_top($me)->{asked}{ $t->{id} } = 0;

	return $self->settle($me, $t, attempt => $t->{attempt} + 1, faults => 0, losses => 0, tag => undef, due => $t->{run_at});
}

# Claims ----------------------------------------------------------------------------------------

# The order of claims: higher priority first, then the tag, then first in, first out.
sub _order
{
	my ($x, $y) = @_;

	return $y->{priority} <=> $x->{priority} || $x->{tag} <=> $y->{tag} || $x->{id} <=> $y->{id};
}

sub _may_claim
{
	my ($self, $me, $t, $capset) = @_;

	return $t->{place} eq 'ready' && $shapes[ $t->{shape} ]{met_by}{$capset} && !$self->is_touched($me, $t);
}

# claimable(ME, CAPSET): the tasks that such a worker may claim now, in order, were it not for limits.
sub claimable
{
	my ($self, $me, $capset) = @_;
	my @queue = sort { _order($a, $b) } grep { $self->_may_claim($me, $_, $capset) } $self->seen($me);

	return @queue;
}

# judge_claim(ME, WORKER, N, QUEUE, TASKS, AFTER): a call for N tasks returned TASKS, with QUEUE claimable when it
# began. Each must be one that the worker may have, and none of the queue may be passed over for it, unless its
# tenant is at its limit.
sub judge_claim
{
	my ($self, $me, $worker, $n, $queue, $tasks, $after) = @_;
	my $head = sub {
		my @left = grep { $_->{place} eq 'ready' } map { $self->task($me, $_->{id}) } @$queue;

		return (grep { $self->room_to_claim($me, $_->{tenant}) > 0 } @left)[0];
	};

	die scalar(@$tasks) . " tasks were claimed instead of $n\n" if @$tasks > $n;
	for my $c (@$tasks)
	{
		my $t = $self->task($me, $c->{id}) or die "claimed task $c->{id} is not known\n";
		my $first = $head->();

		die "claimed task $t->{id} is $t->{place}\n" if $t->{place} ne 'ready';
		die "claimed task $t->{id} is another session's\n" if $self->is_touched($me, $t);
		die "claimed task $t->{id} does not match\n" if !$self->_may_claim($me, $t, $worker->{capset});
		die "claimed task $t->{id} is of tenant $t->{tenant}, which is at its limit\n"
		  if $self->room_to_claim($me, $t->{tenant}) <= 0;
		die "claimed task $t->{id} before task $first->{id}\n" if $first && _order($first, $t) < 0;
		$self->{tally}{'passed over for open claims'} += grep {
			_order($_, $t) < 0 && $_->{place} eq 'ready' && $self->room($me, $_->{tenant}) > 0
		} map { $self->task($me, $_->{id}) } @$queue;
		for (qw(attempt priority tenant shape kind requirements))
		{
			my $expected = $t->{$_} // $shapes[ $t->{shape} ]{$_};

			die "claimed task $t->{id} has $_ $c->{$_} instead of $expected\n" if $c->{$_} ne $expected;
		}
		$self->claimed($me, $t, worker => $worker->{no}, lease => $c->{lease}, after => $after);
	}
	my $left = $head->();

	die "task $left->{id} was not claimed by a call for $n that returned " . @$tasks . "\n" if $left && @$tasks < $n;
	return;
}

# What the engine's rows say --------------------------------------------------------------------

# The columns of a found task, and what they should be.
my @columns = qw(id places place attempt faults losses due tag worker lease after claimed_at deadline asked);

sub _expected
{
	my ($self, $me, $t) = @_;
	my $asked = $t->{place} ne 'running' ? '' : $self->is_asked($me, $t) ? 't' : 'f';

	return "$t->{row}|$asked" if defined $t->{row};
	my %row = (%$t, places => stands($t) ? 1 : 0);

	delete @row{qw(faults losses)} if !stands($t);
	delete $row{tag} if $t->{place} ne 'ready';
	$row{deadline} = $t->{claimed_at} + $t->{timeout} if defined $t->{claimed_at} && defined $t->{timeout};
	$t->{row} = join '|', map { $_ // '' } @row{ grep { $_ ne 'asked' } @columns };
	return "$t->{row}|$asked";
}

# compare(ME, LINES, IS_CLAIM): what a session finds of the history's tasks, a line for each with the columns
# above, must be what the model has. What is the engine's choice is taken over.
sub compare
{
	my ($self, $me, $lines, $is_claim) = @_;
	my %found = map { (/^(\d+)/)[0] => $_ } @$lines;
	my @admitted;

	die "a task stands twice in one place:\n" . join("\n", @$lines) . "\n" if keys %found < @$lines;

	for my $t ($self->seen($me))
	{
		my $line = delete $found{ $t->{id} } // die "task $t->{id}, which is $t->{place}, is gone\n";
		my %row;

		next if $line eq $self->_expected($me, $t);
		@row{@columns} = map { $_ eq '' ? undef : $_ } split /\|/, $line, -1;
		if ($t->{place} eq 'waiting' && $row{place} eq 'ready' && !$self->obstacle($me, $t))
		{
			$t = $self->put($me, $t, place => 'ready', due => undef);
			push @admitted, $t;
		}
		elsif ($row{place} eq 'cancelled'
			&& ($t->{place} eq 'waiting' && $self->obstacle($me, $t) eq 'failed parent'
				|| $t->{place} =~ /^(?:waiting|ready)$/ && $self->is_asked($me, $t)))
		{
			$self->{tally}{'cancelled by a late request'} += $self->is_asked($me, $t) ? 1 : 0;
			$self->end_attempt($me, $t, 'cancelled');
			$t = $self->task($me, $t->{id});
		}
		elsif ($t->{place} eq 'ready' && $row{place} eq 'waiting' && $is_claim && $self->room_to_claim($me, $t->{tenant}) <= 0)
		{
			$t = $self->put($me, $t, place => 'waiting', tag => undef);
		}

		if ($t->{place} eq 'waiting' && ref $t->{due} && $t->{due}[0] <= ($row{due} // 0) && $row{due} <= $t->{due}[1])
		{
			$t = $self->put($me, $t, due => $row{due});
		}
		elsif ($t->{place} eq 'waiting' && !defined $row{due} && !ref $t->{due} && ($t->{due} // 0) <= $self->{now})
		{
			$t = $self->put($me, $t, due => undef);
		}
		elsif ($t->{place} eq 'ready' && !defined $t->{tag} && defined $row{tag})
		{
			$self->_judge_tag($me, $t, $row{tag});
			$t = $self->put($me, $t, tag => $row{tag});
		}
		elsif ($t->{place} eq 'running'
			&& !defined $t->{claimed_at}
			&& abs(($row{claimed_at} // 0) - $self->{now} - MINUTE / 2) <= MINUTE / 2)
		{
			$t = $self->put($me, $t, claimed_at => $row{claimed_at});
		}
		my $expected = $self->_expected($me, $t);
		die "task $t->{id} is not as it should be\n    expected $expected\n    found    $line\n" if $line ne $expected;
	}
	die "there is a task that should not be: $_\n" for values %found;
	$self->_judge_admitted($me, $_) for @admitted;
	return;
}

# A tenant's tasks that wait for nothing but its limit get their tags when they are submitted, and these never
# go back. One that waited for its time or for others (it is late) gets its tag after that.
sub _judge_tag
{
	my ($self, $me, $t, $tag) = @_;
	my @earlier = grep { $_->{tenant} eq $t->{tenant} && $_->{attempt} == 1 && defined $_->{tag} && !$_->{late}
		&& $_->{id} < $t->{id} }
	  $self->seen($me);

	return if $t->{attempt} > 1;
	for ($self->{last_tag}{ $t->{tenant} } // (), $t->{late} ? () : map { $_->{tag} } @earlier)
	{
		die "task $t->{id} has tag $tag, after tag $_ of its tenant\n" if $tag < $_;
	}
	return;
}

# Of a limited tenant no more may become ready than there is room for, of each shape, and the first of them.
sub _judge_admitted
{
	my ($self, $me, $t) = @_;
	my @same = grep { $_->{tenant} eq $t->{tenant} && $_->{shape} == $t->{shape} } $self->seen($me);

	return if !defined $self->{limits}{ $t->{tenant} };
	die "task $t->{id} became ready without room for it\n"
	  if $self->room($me, $t->{tenant}) < grep { $_->{place} eq 'ready' } @same;
	for (@same)
	{
		die "task $t->{id} became ready before task $_->{id}\n"
		  if $_->{place} eq 'waiting'
		  && ($t->{priority} <=> $_->{priority} || $_->{id} <=> $t->{id}) < 0
		  && !$self->obstacle($me, $_)
		  && !$self->is_touched($me, $_);
	}
	return;
}

# judge_waiting(ME): after an admission nothing waits that need not, and nothing that was to be cancelled stands
# unless it runs. Requests about tasks that have ended are gone, and locked until the end of the transaction.
sub judge_waiting
{
	my ($self, $me) = @_;

	for my $t (grep { $_->{place} ne 'running' && !$self->is_touched($me, $_) && $self->is_asked($me, $_) } $self->seen($me))
	{
		die "task $t->{id} is $t->{place}, though it is to be cancelled\n" if stands($t);
		$self->_top($me)->{asked}{ $t->{id} } = 0;
		$self->lock($me, $t->{id});
	}
	for my $t (grep { $_->{place} eq 'waiting' && !$self->is_touched($me, $_) } $self->seen($me))
	{
		my $obstacle = $self->obstacle($me, $t);

		die "task $t->{id} waits, though its parent failed\n" if $obstacle eq 'failed parent';
		die "task $t->{id} waits for nothing\n"
		  if !$obstacle
		  && $self->room($me, $t->{tenant}) > grep {
			$_->{place} eq 'ready' && $_->{shape} == $t->{shape} && $_->{tenant} eq $t->{tenant}
		  } $self->seen($me);
	}
	return;
}

# overdue(): the running tasks that the leader ends, since their time is up.
sub overdue
{
	my ($self) = @_;

	return grep {
		defined $_->{claimed_at} && defined $_->{timeout}
		  && $_->{claimed_at} + $_->{timeout} < $self->{now} && !$self->is_touched(0, $_)
	} $self->seen(0);
}

# times(): all times that some task is waiting for, in any session.
sub times
{
	my ($self, $heartbeat_interval) = @_;
	my @tasks = map { values %{ $_->{tasks} } } $self->{base}, map { @$_ } values %{ $self->{layers} };

	return grep { defined && !ref } map {
		my $claimed_at = $_->{claimed_at};
		my @spans = defined $claimed_at ? ($_->{timeout} // 0, $heartbeat_interval) : ();

		($_->{due}, map { $claimed_at + $_ } @spans)
	} @tasks;
}

1;
