# Plan.pm: what goes wrong in a round, and when, drawn from its seed alone: rules for the provider's faults,
# and events in order of time. Must do nothing by itself.
package Plan;

use strict;
use warnings FATAL => 'all';
use Digest::MD5 qw(md5);

my %draw = (
	between => sub { my ($from, $to) = @_; return $from + rand($to - $from); },
	one_of => sub { return $_[rand @_]; });

# What a rule may be for a call: its probability in percent, and the rule.
my %faults = (
	create => [
		[ 15, {action => 'drop'} ],
		[ 15, {action => 'drop_after'} ],
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
		[ 5, {action => 'no_capacity_after'} ] ],
	delete => [
		[ 15, {action => 'drop'} ],
		[ 15, {action => 'drop_after'} ],
		[ 6, {action => 'status', status => 500} ],
		[ 6, {action => 'status_after', status => 503} ],
		[ 5, {action => 'rate_limit', retry_after => 1} ],
		[ 4, {action => 'keep_pod', count => 2} ],
		[ 4, {action => 'delay', seconds => 3} ],
		[ 4, {action => 'later', seconds => 3} ] ],
	list => [
		[ 15, {action => 'drop'} ],
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
		[ 4, {action => 'empty_list'} ] ]);

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

			next if $drawn < 0.4;
			push @rules, {%rule, call => $call, probability => $percent / 100, seed => $seed,
				$rule{html} ? (html => \1) : ()};
		}
	}
	# A time in which one GPU type is not to be had.
	push @rules, {call => 'create', action => 'no_capacity', gpu => 'NVIDIA L4', skip => int(rand 3), count => 2};
	push @rules, {call => '*', action => 'slow_boot', seconds => 3, probability => 0.2, seed => int rand 1e9};
	return \@rules;
}

# make(SEED): the plan of a round: seconds it lasts, tasks, whether the server comes back by itself, rules, and events, each
# [second, what, argument...]. Where the server comes back by itself its clock falls back to nothing: then it is
# not moved before the last kill.
sub make
{
	my ($seed) = @_;

	# Neighbouring seeds would begin alike.
	srand unpack 'N', md5($seed);
	my $seconds = $draw{between}->(1.5, 2.5);
	my $alone = rand() < 0.4;
	my @events;

	push @events, [ rand $seconds, 'kill', $draw{one_of}->(qw(leader leader backend backend backend postmaster)) ]
		for 1 .. 1 + rand 2.5;
	push @events, [ rand $seconds, 'kill worker', rand ] for 1 .. rand 4;
	push @events, [ rand $seconds, 'end leader' ] if rand() < 0.3;
	push @events, [ rand $seconds, 'step', $draw{one_of}->(0.5, 1, 2, 2, 5, 9, 40, 90) ] for 1 .. ($alone ? 0 : 1 + rand 8);
	push @events, [ rand $seconds, 'scale', $draw{one_of}->('a', 'b'), int rand 4 ] for 1 .. rand 5;
	push @events, [ rand $seconds, 'spawn', 'b' ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'terminate', rand ] for 1 .. rand 3;
	push @events, [ rand $seconds, 'drain', rand ] for 1 .. rand 2;
	push @events, [ rand $seconds, 'refuse', $draw{between}->(0.1, 0.5) ] if rand() < 0.3;
	push @events, [ rand $seconds, 'cycle' ] for 1 .. rand 3;
	return {
		seed => $seed,
		seconds => $seconds,
		tasks => 12 + int rand 25,
		alone => $alone,
		rules => rules(),
		events => [ sort { $a->[0] <=> $b->[0] } @events ]};
}

1;
