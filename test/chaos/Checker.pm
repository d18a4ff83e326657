# Checker.pm: the verdict on a round at rest: the provider's ledger against the rows of the database, and the tasks
# that were taken in against those that ended. It reads tables by SELECT and trusts nothing that the extension
# computes; what the extension says of itself, its invariants, is asked last. It must change nothing.
package Checker;

use strict;
use warnings FATAL => 'all';
use JSON::PP;

# What the rules allow, in seconds: of a create that was answered, or after the provider was heard to deny a pod whose
# delete was answered; of one that is in doubt, until it is settled by asking again and by lists; of a pod that others
# ended, after the first list that could show it. What the clocks are moved by until an op is settled, or while an answer
# is on its way, is left out.
our $answered = 1;
our $settled = 30;
our $others = 1;

# Seconds for which an answer may lie unread, as the machine is busy.
my $on_its_way = 0.2;

# Seconds by which two clocks may differ, and dollars that rounding may take.
my $slack = 0.05;
my $rounding = 0.00001;

# The most that was counted too much, in seconds, by what excuses it.
my %worst;

my $rows = q{
	SELECT json_build_object(
		'ops', (SELECT coalesce(json_agg(o), '[]') FROM (
			SELECT id, kind, state, worker, pod_name, pod_id, tries, http_status, reason,
				extract(epoch FROM planned_at) AS planned, extract(epoch FROM sent_at) AS sent,
				extract(epoch FROM answered_at) AS answered, extract(epoch FROM denied_at) AS denied,
				extract(epoch FROM settled_at) AS settled
			FROM gpu_orch.cloud_op ORDER BY id) o),
		'workers', (SELECT coalesce(json_agg(w), '[]') FROM (
			SELECT w.no, w.id, w.state, f.pod_id FROM gpu_orch.worker w LEFT JOIN gpu_orch.worker_profile f ON f.worker = w.no
			WHERE w.origin = 'cloud') w),
		'spend', (SELECT coalesce(json_agg(s), '[]') FROM (
			SELECT worker, pod_id, price_micros, price_from, ended_at IS NULL AS open,
				extract(epoch FROM started_at) AS started, extract(epoch FROM coalesce(ended_at, started_at)) AS ended
			FROM gpu_orch.spend ORDER BY started_at, id) s),
		'tasks', (SELECT coalesce(json_agg(t), '[]') FROM (
			SELECT t.id, t.idempotency_key AS key,
				(SELECT count(*) FROM gpu_orch.attempt a WHERE a.task_id = t.id AND a.outcome = 'succeeded') AS succeeded,
				(SELECT count(*) FROM gpu_orch.attempt a WHERE a.task_id = t.id AND a.final_state IS NOT NULL) AS ended,
				(SELECT count(*) FROM gpu_orch.lease x WHERE x.task_id = t.id)
				+ (SELECT count(*) FROM gpu_orch.ready_queue x WHERE x.task_id = t.id)
				+ (SELECT count(*) FROM gpu_orch.waiting x WHERE x.task_id = t.id) AS places
			FROM gpu_orch.task t) t))};

# The pods of an installation, and what is wrong between them and the rows.
sub pods
{
	my ($ledger, $data) = @_;
	my %owner = map { ($_->{pod_id} // '') => $_ } grep { $_->{state} ne 'terminated' } @{ $data->{workers} };
	my %create = map { $_->{pod_name} => $_ } grep { $_->{kind} eq 'create' } @{ $data->{ops} };
	my (@wrong, %named);

	push @wrong, "pod $_->{id} is of somebody else, and was ended" for grep { $_->{foreign} && ($_->{ended_by} // '') eq 'delete' } @{ $ledger->{pods} };
	for my $pod (grep { !$_->{foreign} } @{ $ledger->{pods} })
	{
		push @{ $named{ $pod->{name} } }, $pod;
		push @wrong, "pod $pod->{id} was asked for by no op" unless $create{ $pod->{name} };
		next if defined $pod->{deleted_at};
		push @wrong, "pod $pod->{id} lives, and " . ($owner{ $pod->{id} } ? 'its worker does' : 'no row owns it: leaked');
	}
	for my $name (grep { @{ $named{$_} } > 1 } sort keys %named)
	{
		push @wrong, "created twice for one intent: $name, pods " . join(' ', map { $_->{id} } @{ $named{$name} });
	}
	push @wrong, "op $_->{id} ($_->{kind}) is $_->{state}" for grep { $_->{state} =~ /^(planned|sent|unknown)$/ } @{ $data->{ops} };
	push @wrong, "worker $_->{id} is $_->{state}" for values %owner;
	return @wrong;
}

# The tasks that were taken in: each is there, has ended once and well, and stands nowhere any more.
sub tasks
{
	my ($data, $accepted) = @_;
	my %task = map { ($_->{key} // '') => $_ } @{ $data->{tasks} };
	my @wrong;

	push @wrong, "task $_ was taken in and is not there: lost" for grep { !$task{$_} } @$accepted;
	for my $task (@{ $data->{tasks} })
	{
		push @wrong, "task $task->{id} has not succeeded: lost" if $task->{succeeded} == 0;
		push @wrong, "task $task->{id} finished $task->{succeeded} times, and ended $task->{ended} times" if $task->{succeeded} > 1 || $task->{ended} > 1;
		push @wrong, "task $task->{id} stands in $task->{places} places" if $task->{places} > 0;
	}
	return @wrong;
}

# A time of ours by the provider's clock. They are the same but while ours was moved, which comes first, and theirs was not.
sub theirs
{
	my ($steps, $time) = @_;
	my ($step) = grep { defined $time && $time - $_->{seconds} >= $_->{at} && $time - $_->{seconds} < $_->{to} } @$steps;

	return $step ? $time - $step->{seconds} : $time;
}

# Rows with these times of theirs by the provider's clock; each has what it was as {raw}.
sub by_theirs
{
	my ($steps, $rows, @names) = @_;

	return [ map { my $row = $_; +{%$row, raw => $row, map { $_ => theirs($steps, $row->{$_}) } @names} } @$rows ];
}

# Seconds that the clocks were moved by in some time. What was due within a step took effect after it.
sub moved
{
	my ($steps, $from, $to) = @_;
	my $sum = 0;

	return 0 unless defined $from && defined $to;
	for my $step (grep { $_->{to} <= $to && $_->{to} + $_->{seconds} > $from } @$steps)
	{
		$sum += $step->{seconds} - ($from > $step->{to} ? $from - $step->{to} : 0);
	}
	return $sum;
}

# Whether a request was for a list that came as it was.
sub is_whole
{
	my ($request) = @_;

	return $request->{call} eq 'list' && is_answered($request, 200) && !defined $request->{fault};
}

# Seconds by which the two clocks were misread when a pod's beginning was brought from the provider's to ours: they are
# compared when a list comes, and a step may have fallen between its question and its answer.
sub misread
{
	my ($ledger, $pod, $create, $steps) = @_;
	my $answered = $create->{answered} // 0;
	my @lists = grep { $_->{call} eq 'list' && is_answered($_, 200)
		&& ($_->{ended_at} <= $pod->{created_at} + 2 || $_->{ended_at} <= $answered) } @{ $ledger->{requests} };
	my $before = grep { $_->{ended_at} <= $pod->{created_at} } @lists;
	my $most = 0;

	splice @lists, 0, $before - 1 if $before > 1;
	for my $list (@lists)
	{
		my $sum = 0;

		$sum += $_->{seconds} for grep { $list->{at} <= $_->{to} + 0.1 && $list->{ended_at} >= $_->{from} - 0.1 } @$steps;
		$most = $sum if $sum > $most;
	}
	return $most;
}

# Seconds by which our count may begin before a pod, and what excuses it.
sub early
{
	my ($pod, $create, $steps) = @_;
	my $known = ($create->{http_status} // 0) == 201 && ($pod->{create_outcome} // '') eq 'answered';

	return (($known ? $answered : $settled) + moved($steps, $create->{sent}, $create->{answered}),
		$known ? 'answered create' : 'unknown create');
}

# When whose the account is was first answered, at some time or later, by the provider's clock. Before it knows that a
# leader believes nothing that it hears.
sub first_account
{
	my ($ledger, $from) = @_;
	my ($account) = sort { $a <=> $b } map { $_->{ended_at} } grep { $_->{call} eq 'graphql' && $_->{at} >= $from && is_answered($_, 200) }
		@{ $ledger->{requests} };

	return $account;
}

# When the first list ended that could show that a pod was gone, by the provider's clock: it was asked for and came
# whole, after the answer of a delete that found no pod, and after the last list that lied; nobody who saw it was killed
# before that was settled. Undef if there was none.
sub first_look
{
	my ($ledger, $pod, $kills, $until, $lie) = @_;
	my ($not_found) = map { $_->{ended_at} + $on_its_way } reverse grep { is_delete($_, $pod) && is_answered($_, 404) } @{ $ledger->{requests} };
	my ($killed) = reverse grep { $_ <= $until } @$kills;
	my ($base) = reverse sort { $a <=> $b } grep { defined } $pod->{deleted_at}, $not_found, $lie, $killed,
		defined $killed ? first_account($ledger, $killed) : ();
	my ($look) = sort { $a <=> $b } map { $_->{ended_at} } grep { $_->{at} >= $base && is_whole($_) } @{ $ledger->{requests} };

	return $look;
}

# The answers that a pod is not there, to questions for it alone, at some time or later.
sub denials
{
	my ($ledger, $pod, $from) = @_;

	return sort { $a->{ended_at} <=> $b->{ended_at} } grep { $_->{at} >= $from && is_question($_, $pod) && is_answered($_, 404) } @{ $ledger->{requests} };
}

# When the provider first had no such pod, and nobody who heard it was killed before that was settled. Undef if it never was asked.
sub first_denial
{
	my ($ledger, $pod, $from, $kills, $until) = @_;
	my ($killed) = reverse grep { $_ <= $until } @$kills;
	my ($denial) = denials($ledger, $pod, defined $killed && $from < $killed ? $killed : $from);

	return $denial ? $denial->{ended_at} : undef;
}

# Whether who heard an answer lived to note it, and could believe it. A kill is known a little later than it came, on a
# clock that may have been moved between.
sub is_heard
{
	my ($ledger, $at, $kills, $until, $steps) = @_;
	my ($before) = reverse grep { $_ < $at } @$kills;
	my $account = first_account($ledger, $before // 0);

	return 0 if grep { $_ >= $at - $on_its_way && $_ <= $at + 2 + moved($steps, $at, $_) && $_ <= $until } @$kills;
	return defined $account && $account <= $at;
}

# When the provider was first heard to have no such pod, asked after its answer to the delete was read. Where our row
# names the time of that, it was the last one until then at the latest. Undef where there is none.
sub heard_denial
{
	my ($ledger, $pod, $noted, $kills, $until, $steps) = @_;
	my ($answer) = grep { is_delete($_, $pod) && is_answered($_, 204) } @{ $ledger->{requests} };
	my $answered_at = $answer ? $answer->{ended_at} : $pod->{deleted_at};
	my @denials = grep { !defined $noted || $_->{at} <= $noted + $slack } denials($ledger, $pod, $answered_at);
	my ($heard) = grep { $_->{at} > $answered_at + $on_its_way && is_heard($ledger, $_->{ended_at}, $kills, $noted // $until, $steps) } @denials;

	$heard //= $denials[-1] if defined $noted;
	return $heard ? $heard->{ended_at} : undef;
}

sub is_question { my ($request, $pod) = @_; return $request->{call} eq 'get' && $request->{path} =~ m{/\Q$pod->{id}\E$}; }
sub is_delete { my ($request, $pod) = @_; return $request->{call} eq 'delete' && $request->{path} =~ m{/\Q$pod->{id}\E$}; }
sub is_answered { my ($request, $status) = @_; return $request->{status} == $status && ($request->{outcome} // '') eq 'answered'; }

# Whether the provider was asked for a pod alone, in some time or shortly before it, and did not answer: then the next
# such question, for whatever pod, waits.
sub asked_in_vain
{
	my ($ledger, $from, $to) = @_;

	return scalar grep { $_->{call} eq 'get' && $_->{at} >= $from - 5 && $_->{at} < $to && ($_->{status} !~ /^(?:200|404)$/
		|| ($_->{outcome} // '') ne 'answered') } @{ $ledger->{requests} };
}

# Whether a delete of a pod was answered as if it had worked, and had not yet, or did nothing.
sub took_effect_late
{
	my ($ledger, $pod) = @_;

	return scalar grep { $_->{op} eq 'delete' && $_->{pod} eq $pod->{id} && $_->{status} == 204
		&& (!$_->{executed} || ($_->{executed_at} // $_->{at}) > $_->{at}) } @{ $ledger->{entries} };
}

# Seconds that the clocks were moved by from when the provider said that a pod is gone, until it was heard to say so.
sub unread
{
	my ($steps, $said, $again) = @_;
	my $last = defined $again && $again > $said ? $again : $said;
	my $until = $last + $on_its_way;

	for my $step (@$steps)
	{
		$until += $step->{seconds} if $step->{to} > $last && $step->{to} <= $until;
	}
	return moved($steps, $said, $until);
}

# Seconds by which our count may end after a pod, and what excuses it.
sub late
{
	my ($ledger, $pod, $deletes, $steps, $kills, $ended) = @_;
	my ($last) = reverse @$deletes;
	my $until = 1 + ($last && defined $last->{settled} && $last->{settled} > $ended ? $last->{settled} : $ended);

	if (($pod->{ended_by} // '') ne 'delete')
	{
		# A list that still shows it makes that all to be seen anew.
		my ($lie) = reverse map { $_->{ended_at} } grep { $_->{call} eq 'list' && ($_->{fault} // '') =~ /^(?:show_deleted|late_list)$/
			&& $_->{at} >= $pod->{deleted_at} && $_->{at} <= $ended } @{ $ledger->{requests} };
		my $look = first_look($ledger, $pod, $kills, $until, $lie) // $ended;
		my $denial = first_denial($ledger, $pod, $look, $kills, $until);

		$look = $denial if defined $denial && asked_in_vain($ledger, $pod->{deleted_at}, $denial);
		# What a list leaves out is asked for.
		return ($look - $pod->{deleted_at} + $others + unread($steps, $look, $denial), 'ended by others');
	}
	if (!took_effect_late($ledger, $pod) && @$deletes == 1 && $last->{tries} == 1 && ($last->{http_status} // 0) == 204)
	{
		my $look = heard_denial($ledger, $pod, $last->{denied}, $kills, $until, $steps);
		my $unheard = !defined $last->{denied} && (asked_in_vain($ledger, $pod->{deleted_at}, $ended)
			|| grep { $_ >= $pod->{deleted_at} - $on_its_way && $_ <= $until } @$kills);

		# Where nobody could hear or note it, lists prove it, as if the delete had not been answered.
		$look //= $pod->{deleted_at} unless $unheard;
		return ($answered + $look - $pod->{deleted_at} + unread($steps, $look), 'answered delete') if defined $look;
	}
	return ($settled + ($last ? moved($steps, $deletes->[0]{planned}, $last->{settled}) : 0), 'unknown delete');
}

sub note_worst
{
	my ($excuse, $seconds) = @_;

	$worst{$excuse} = $seconds if $seconds > ($worst{$excuse} // 0);
	return;
}

# What is wrong with the ends of our count of a pod: never within its life, and not too far outside.
sub ends
{
	my ($ledger, $pod, $spend, $create, $deletes, $steps, $kills, $misread) = @_;
	my $begun = $pod->{created_at} - $spend->[0]{started};
	my $ended = $spend->[-1]{ended} - $pod->{deleted_at};
	my ($early, $early_excuse) = early($pod, $create, $steps);
	my ($late, $late_excuse) = late($ledger, $pod, $deletes, $steps, $kills, $spend->[-1]{ended});
	my @wrong;

	push @wrong, sprintf('spend of pod %s begins %.3f s after it', $pod->{id}, -$begun) if $begun < -$slack - $misread;
	push @wrong, sprintf('spend of pod %s begins %.3f s before it (%s), allowed are %.3f', $pod->{id}, $begun, $early_excuse, $early)
		if $begun > $early + $slack + $misread;
	push @wrong, sprintf('spend of pod %s ends %.3f s before it', $pod->{id}, -$ended) if $ended < -$slack;
	push @wrong, sprintf('spend of pod %s ends %.3f s after it (%s), allowed are %.3f', $pod->{id}, $ended, $late_excuse, $late)
		if $ended > $late + $slack;
	note_worst($early_excuse, $begun - moved($steps, $spend->[0]{started}, $pod->{created_at}));
	note_worst($late_excuse, $ended - moved($steps, $pod->{deleted_at}, $spend->[-1]{ended}));
	return @wrong;
}

# What is wrong with what we counted between them: each second once, in dollars not less than was billed, nor more than
# the seconds cost. A pod that was halted was billed less than its price, and one whose price the provider never said is
# not measured by it. A step that its beginning came in the middle of is counted by theirs, and not by ours.
sub between
{
	my ($pod, $spend, $misread) = @_;
	my ($seconds, $dollars) = (0, 0);
	my @intervals = map { $_->{raw} } @$spend;
	my $whole = $intervals[-1]{ended} - $intervals[0]{started};
	my $lacking = $spend->[-1]{ended} - $spend->[0]{started} - $whole;
	my $over = $misread + ($lacking > 0 ? $lacking : 0);
	my $second = $pod->{cost_per_hour} / 3600;
	my $said = !grep { $_->{price_from} ne 'provider' } @intervals;
	my @wrong;

	for my $interval (@intervals)
	{
		$seconds += $interval->{ended} - $interval->{started};
		$dollars += $interval->{price_micros} / 1e6 * ($interval->{ended} - $interval->{started}) / 3600;
	}
	push @wrong, sprintf('spend of pod %s has %.3f s twice', $pod->{id}, $seconds - $whole) if $seconds > $whole + 0.001;
	push @wrong, sprintf('spend of pod %s lacks %.3f s in between', $pod->{id}, $whole - $seconds) if $seconds < $whole - 0.001;
	return @wrong unless $said;
	push @wrong, sprintf('spend of pod %s is %.6f dollars below the ledger', $pod->{id}, $pod->{billed} - $dollars)
		if $dollars < $pod->{billed} - $over * $second - $rounding;
	push @wrong, sprintf('spend of pod %s is %.6f dollars for %.3f s that cost %.6f', $pod->{id}, $dollars, $seconds, $seconds * $second)
		if $dollars > $seconds * $second + $rounding;
	return @wrong;
}

# Whether a pod was never heard of: the provider said that it made none, or nothing, and it was gone before a list
# showed it to somebody who was not killed at once.
sub is_denied
{
	my ($ledger, $pod, $create, $kills) = @_;

	return 0 unless $create->{state} =~ /^(refused|absent)$/ && $pod->{ended_by} ne 'delete';
	for my $list (grep { is_whole($_) && $_->{at} <= $pod->{deleted_at} && $_->{at} >= $pod->{created_at} } @{ $ledger->{requests} })
	{
		return 0 unless grep { $_ >= $list->{ended_at} - 0.1 && $_ <= $list->{ended_at} + 0.1 } @$kills;
	}
	return 1;
}

# What we counted for each pod against what was billed for it.
sub money
{
	my ($ledger, $data, $steps, $kills) = @_;
	my $ops = by_theirs($steps, $data->{ops}, qw(planned sent answered denied settled));
	my $spends = by_theirs($steps, $data->{spend}, qw(started ended));
	my %create = map { $_->{pod_name} => $_ } grep { $_->{kind} eq 'create' } @$ops;
	my @wrong;

	push @wrong, 'spend of ' . (defined $_->{worker} ? "worker $_->{worker}" : "pod $_->{pod_id}") . ' is still counted' for grep { $_->{open} } @{ $data->{spend} };
	for my $pod (grep { !$_->{foreign} && defined $_->{deleted_at} && $create{ $_->{name} } } @{ $ledger->{pods} })
	{
		my $create = $create{ $pod->{name} };
		my @deletes = grep { $_->{kind} eq 'delete' && ($_->{pod_id} // '') eq $pod->{id} } @$ops;
		my @spend = grep { $_->{raw}{ended} > $_->{raw}{started}
			&& (defined $_->{worker} ? $_->{worker} == $create->{worker} && ($_->{pod_id} // $pod->{id}) eq $pod->{id}
				: $_->{pod_id} eq $pod->{id}) } @$spends;
		my $misread = misread($ledger, $pod, $create, $steps);

		if (!@spend)
		{
			push @wrong, sprintf('pod %s of %.3f s was not counted', $pod->{id}, $pod->{seconds})
				if $pod->{billed} > $rounding && $pod->{seconds} > $misread && !is_denied($ledger, $pod, $create, $kills);
			next;
		}
		push @wrong, ends($ledger, $pod, \@spend, $create, \@deletes, $steps, $kills, $misread);
		push @wrong, between($pod, \@spend, $misread);
	}
	return @wrong;
}

# worst(): the most that was counted too much in this process, in seconds, by what excuses it.
sub worst { return %worst; }

# rows(SERVER): what the database says of ops, workers, spend and tasks.
sub rows
{
	my ($server) = @_;
	my ($json) = $server->sql($rows);

	return decode_json($json);
}

# check(SERVER, LEDGER, KEYS, STEPS, KILLS): all that is wrong, as sentences. KEYS are the idempotency keys of the tasks that
# were taken in; STEPS say when the clocks were moved: seconds, `at` by our clock, `from` and `to` by the provider's;
# KILLS when something was killed, by the provider's.
sub check
{
	my ($server, $ledger, $accepted, $steps, $kills) = @_;
	my $data = rows($server);
	my ($broken) = $server->sql(q{SELECT string_agg(name || ': ' || coalesce(detail, ''), '; ') FROM gpu_orch.check_invariants() WHERE NOT holds});

	return (pods($ledger, $data), tasks($data, $accepted), money($ledger, $data, $steps, $kills), defined $broken ? "invariants: $broken" : ());
}

1;
