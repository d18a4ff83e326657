# Plan.pm: what goes wrong in a round, and when, drawn from its seed alone: rules for the provider's faults,
# and events in order of time. Must do nothing by itself.
package Plan;

use strict;
use warnings FATAL => 'all';
use Digest::MD5 qw(md5);
use Points;

my %draw = (
	between => sub { my ($from, $to) = @_; return $from + rand($to - $from); },
	one_of => sub { return $_[rand @_]; });

# What a rule may be for a call: its probability in percent, and the rule. Of each round's calls a part of these is
# drawn; those with `always` are in every round. Of a kind the first that applies does, so the drops are 30 in 100.
my %faults = (
	create => [
		[ 16, {action => 'drop', always => 1} ],
		[ 17, {action => 'drop_after', always => 1} ],
		[ 5, {action => 'reset_after'} ],
		[ 6, {action => 'status', status => 503} ],
		[ 6, {action => 'status_after', status => 502} ],
		[ 4, {action => 'status_after', status => 500, html => 1} ],
		[ 5, {action => 'rate_limit', retry_after => 1} ],
		[ 4, {action => 'truncate'} ],
		[ 4, {action => 'malformed'} ],
		[ 3, {action => 'huge'} ],
		[ 3, {action => 'deep'} ],
		[ 5, {action => 'delay', seconds => 0.5} ],
		[ 4, {action => 'delay', seconds => 3} ],
		[ 4, {action => 'delay_before', seconds => 0.4} ],
		[ 5, {action => 'later', seconds => 4} ],
		[ 5, {action => 'no_capacity_after'} ],
		# Its answer does not say what the pod costs.
		[ 15, {action => 'alter', remove => ['cost']} ],
		# Pods that are gone, halted or lost with their host by themselves, and that never have a runtime.
		[ 5, {action => 'vanish', seconds => 1} ],
		[ 4, {action => 'exit', seconds => 1} ],
		[ 4, {action => 'fail', seconds => 1} ],
		[ 4, {action => 'stuck', status => 'RUNNING'} ],
		[ 3, {action => 'stuck', status => 'PROVISIONING'} ],
		[ 4, {action => 'crash_loop', seconds => 1} ] ],
	delete => [
		[ 16, {action => 'drop', always => 1} ],
		[ 17, {action => 'drop_after', always => 1} ],
		[ 6, {action => 'status', status => 500} ],
		[ 6, {action => 'status_after', status => 503} ],
		[ 5, {action => 'rate_limit', retry_after => 1} ],
		[ 4, {action => 'keep_pod', count => 2} ],
		[ 4, {action => 'delay', seconds => 3} ],
		[ 4, {action => 'later', seconds => 3} ] ],
	list => [
		[ 30, {action => 'drop', always => 1} ],
		[ 5, {action => 'status', status => 502} ],
		[ 4, {action => 'rate_limit', retry_after => 1} ],
		[ 6, {action => 'malformed'} ],
		[ 3, {action => 'huge'} ],
		[ 3, {action => 'deep'} ],
		[ 3, {action => 'truncate'} ],
		[ 3, {action => 'delay', seconds => 2} ],
		[ 10, {action => 'late_list', seconds => 2} ],
		[ 8, {action => 'hide_new', seconds => 3} ],
		[ 8, {action => 'show_deleted', seconds => 3} ],
		[ 6, {action => 'patchy_list', missing => 0.5} ],
		[ 4, {action => 'partial_list', pods => 1} ],
		[ 4, {action => 'empty_list'} ] ],
	get => [
		[ 30, {action => 'drop'} ],
		[ 5, {action => 'status', status => 502} ] ]);

# The rules of a round: for each call a few of its faults, with their probabilities and seeds.
sub rules
{
	my @rules;

	for my $call (sort keys %faults)
	{
		for my $fault (@{ $faults{$call} })
		{
			my ($percent, $rule) = @$fault;
			my %rule = %$rule;
			my $drawn = rand;
			my $seed = int rand 1e9;

			next if !delete $rule{always} && $drawn < 0.4;
			push @rules, {%rule, call => $call, probability => $percent / 100, seed => $seed,
				$rule{html} ? (html => \1) : ()};
		}
	}
	# A time in which one GPU type is not to be had.
	push @rules, {call => 'create', action => 'no_capacity', gpu => 'NVIDIA L4', skip => int(rand 3), count => 2};
	# A catalog whose price is another one than the pods'.
	push @rules, {call => 'catalog', action => 'alter', id => 'NVIDIA L4',
		set => {price => {secure => $draw{between}->(0.3, 0.8), community => 0.3, serverless => 0}}} if rand() < 0.3;
	push @rules, {call => '*', action => 'slow_boot', seconds => 3, probability => 0.2, seed => int rand 1e9};
	return \@rules;
}

# make(SEED, POINT...): the plan of a round: seconds it lasts, tasks, whether the server comes back by itself, rules,
# events, each [second, what, argument...], and a point that is armed once more when the fleet is ended. Where the
# server comes back by itself its clock falls back to nothing: then it is not moved before the last kill.
sub make
{
	my ($seed, @points) = @_;

	# Neighbouring seeds would begin alike.
	srand unpack 'N', md5($seed);
	my $seconds = $draw{between}->(1.2, 2);
	my $alone = rand() < 0.4;
	my @events;

	push @events, [ rand $seconds, 'kill', $draw{one_of}->(qw(leader leader backend backend backend postmaster)) ]
		for 1 .. 1 + rand 2.5;
	push @events, [ rand $seconds, 'kill worker', rand ] for 1 .. rand 4;
	push @events, [ rand $seconds, 'end leader' ] if rand() < 0.15;
	push @events, [ rand $seconds, 'step', $draw{one_of}->(0.5, 1, 2, 2, 5, 9, 40, 90) ] for 1 .. ($alone ? 0 : 1 + rand 8);
	push @events, [ rand $seconds, 'scale', $draw{one_of}->('a', 'b'), int rand 4 ] for 1 .. rand 5;
	push @events, [ rand $seconds, 'spawn', 'b' ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'terminate', rand ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'drain', rand ] for 1 .. rand 2;
	push @events, [ rand $seconds, 'refuse', $draw{between}->(0.1, 0.5) ] if rand() < 0.3;
	push @events, [ rand $seconds, 'cycle' ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'pod', $draw{one_of}->(qw(vanish vanish exit fail)), rand ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'foreign pod' ] if rand() < 0.3;
	if (rand() < 0.2)
	{
		my $broke = rand 0.7 * $seconds;

		push @events, [ $broke, 'balance', 0 ], [ $broke + $draw{between}->(0.1, 0.6), 'balance', 10000 ];
	}
	my $plan = {
		seed => $seed,
		seconds => $seconds,
		tasks => 12 + int rand 25,
		alone => $alone,
		rules => rules(),
		events => \@events};
	if (@points)
	{
		push @events, [ rand $seconds, 'kill at', $draw{one_of}->(@points), $draw{one_of}->(@Points::actions) ] for 1 .. 1 + rand 3;
		$plan->{at_rest} = [ $draw{one_of}->(@points), 'kill' ] if !$alone && rand() < 0.5;
	}
	@events = sort { $a->[0] <=> $b->[0] } @events;
	return $plan;
}

1;
