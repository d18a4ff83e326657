# Checker.pm: the verdict on a round at rest: the provider's ledger against the rows of the database, and the tasks
# that were taken in against those that ended. It reads tables by SELECT and trusts nothing that the extension
# computes; what the extension says of itself, its invariants, is asked last. It must change nothing.
package Checker;

use strict;
use warnings FATAL => 'all';
use JSON::PP;

# What the rules allow, in seconds. A delete whose answer was lost is asked for again, at most a minute
# later, and its pod must be missing from two lists. So must one whose delete was answered before it took effect.
our $answered = 1;
our $settled = 75;
our $others = 1.5;

# Dollars that rounding may take.
my $rounding = 0.00001;

my $rows = q{
	SELECT json_build_object(
		'ops', (SELECT coalesce(json_agg(o), '[]') FROM (
			SELECT id, kind, state, worker, pod_name, pod_id, tries, http_status, reason,
				extract(epoch FROM planned_at) AS planned, extract(epoch FROM sent_at) AS sent,
				extract(epoch FROM answered_at) AS answered, extract(epoch FROM settled_at) AS settled
			FROM gpu_orch.cloud_op ORDER BY id) o),
		'workers', (SELECT coalesce(json_agg(w), '[]') FROM (
			SELECT w.no, w.id, w.state, f.pod_id FROM gpu_orch.worker w LEFT JOIN gpu_orch.worker_profile f ON f.worker = w.no
			WHERE w.origin = 'cloud') w),
		'spend', (SELECT coalesce(json_agg(s), '[]') FROM (
			SELECT worker, pod_id, price_micros, ended_at IS NULL AS open,
				extract(epoch FROM coalesce(ended_at, started_at) - started_at) AS seconds
			FROM gpu_orch.spend) s),
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
		push @wrong, "task $task->{id} finished $task->{succeeded} times" if $task->{succeeded} > 1 || $task->{ended} > 1;
		push @wrong, "task $task->{id} stands in $task->{places} places" if $task->{places} > 0;
	}
	return @wrong;
}

# Seconds that the clock was moved by while something lasted by our clock.
sub moved
{
	my ($steps, $from, $to) = @_;
	my $sum = 0;

	return 0 unless defined $from && defined $to;
	$sum += $_->{seconds} for grep { $_->{at} >= $from - 0.2 && $_->{at} <= $to } @$steps;
	return $sum;
}

# Seconds by which our count of a pod may be above the ledger's.
sub allowance
{
	my ($pod, $create, $deletes, $steps) = @_;
	my $known = ($create->{http_status} // 0) == 201 && ($pod->{create_outcome} // '') eq 'answered';
	my $seconds = ($known ? $answered : $settled) + moved($steps, $create->{sent}, $create->{answered});

	return $seconds + $others if ($pod->{ended_by} // '') ne 'delete';
	my ($last) = reverse @$deletes;
	return $seconds + $settled unless $last;
	$known = !$pod->{late} && @$deletes == 1 && $last->{tries} == 1 && ($last->{http_status} // 0) == 204;
	return $seconds + ($known ? $answered : $settled) + moved($steps, $deletes->[0]{planned}, $last->{settled});
}

# Note of the pods whose delete was answered as if it had worked, and had not yet or did nothing, that it was late.
sub note_late
{
	my ($ledger) = @_;
	my %late = map { $_->{pod} => 1 } grep { $_->{op} eq 'delete' && $_->{status} == 204
		&& (!$_->{executed} || ($_->{executed_at} // $_->{at}) > $_->{at}) } @{ $ledger->{entries} };

	$_->{late} = $late{ $_->{id} } for @{ $ledger->{pods} };
	return;
}

# What we counted for each pod against what was billed for it.
sub money
{
	my ($ledger, $data, $steps) = @_;
	my %create = map { $_->{pod_name} => $_ } grep { $_->{kind} eq 'create' } @{ $data->{ops} };
	my @wrong;

	note_late($ledger);
	push @wrong, "spend of worker $_->{worker} is still counted" for grep { $_->{open} } @{ $data->{spend} };
	for my $pod (grep { !$_->{foreign} && $create{ $_->{name} } } @{ $ledger->{pods} })
	{
		my $create = $create{ $pod->{name} };
		my @deletes = grep { $_->{kind} eq 'delete' && ($_->{pod_id} // '') eq $pod->{id} } @{ $data->{ops} };
		my $ours = 0;

		$ours += $_->{price_micros} / 1e6 * $_->{seconds} / 3600
			for grep { $_->{worker} == $create->{worker} && ($_->{pod_id} // $pod->{id}) eq $pod->{id} } @{ $data->{spend} };
		my $second = $pod->{cost_per_hour} / 3600;
		my $torn = 0;

		# Begun or ended between the steps of the two clocks.
		for my $step (@$steps)
		{
			$torn += $step->{seconds} if grep { defined && $_ >= $step->{from} && $_ <= $step->{to} } @$pod{qw(created_at deleted_at)};
		}
		my $over = ($ours - $pod->{billed}) / $second;
		my $allowed = allowance($pod, $create, \@deletes, $steps) + $torn;
		push @wrong, sprintf('spend of pod %s is %.3f s below the ledger', $pod->{id}, -$over)
			if $ours < $pod->{billed} - $torn * $second - $rounding;
		push @wrong, sprintf('spend of pod %s is %.3f s above the ledger, allowed are %.1f', $pod->{id}, $over, $allowed)
			if $ours > $pod->{billed} + $allowed * $second + $rounding;
	}
	return @wrong;
}

# check(SERVER, LEDGER, KEYS, STEPS): all that is wrong, as sentences. KEYS are the idempotency keys of the tasks that were
# taken in; STEPS say when the clocks were moved: seconds, `at` by our clock, `from` and `to` by the provider's.
sub check
{
	my ($server, $ledger, $accepted, $steps) = @_;
	my ($json) = $server->sql($rows);
	my $data = decode_json($json);
	my ($broken) = $server->sql(q{SELECT string_agg(name || ': ' || coalesce(detail, ''), '; ') FROM gpu_orch.check_invariants() WHERE NOT holds});

	return (pods($ledger, $data), tasks($data, $accepted), money($ledger, $data, $steps), defined $broken ? "invariants: $broken" : ());
}

1;
