# The checker of test/chaos finds what it is there to find: a ledger and rows that agree, and then one thing wrong
# at a time; and real rounds at whose end one thing was made wrong.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../chaos";
use Checker;
use JSON::PP;
use Test::More;

# A pod that the provider was asked for alone, at some time; where no other status is named it had none.
sub question
{
	my ($at, $status) = @_;

	return {call => 'get', path => '/v2/pods/p1', at => $at, ended_at => $at, status => $status // 404, outcome => 'answered', fault => undef};
}

# When the leader heard whose the account is.
sub account { my ($at) = @_; return {call => 'graphql', path => '/graphql', at => $at, ended_at => $at, status => 200, outcome => 'answered', fault => undef}; }

# A round that is right: one pod of a hundred seconds, created and deleted with answers, and one task.
sub right
{
	my $second = 0.36 / 3600;

	return (
		{pods => [ {id => 'p1', name => 'gpo-1', foreign => JSON::PP::false, cost_per_hour => 0.36, created_at => 1000,
			deleted_at => 1100, ended_by => 'delete', create_outcome => 'answered', seconds => 100, billed => 100 * $second} ],
			requests => [ {call => 'delete', path => '/v2/pods/p1', at => 1100, ended_at => 1100, status => 204, outcome => 'answered', fault => undef},
				question(1100.1), account(998) ],
			entries => [ {op => 'delete', pod => 'p1', at => 1100, executed => JSON::PP::true, status => 204} ]},
		{
			ops => [
				{id => 1, kind => 'create', state => 'done', worker => 1, pod_name => 'gpo-1', pod_id => 'p1', tries => 1,
					http_status => 201, planned => 999, sent => 999.9, answered => 1000.1, settled => 1000.1},
				{id => 2, kind => 'delete', state => 'done', worker => 1, pod_name => 'gpo-1', pod_id => 'p1', tries => 1,
					http_status => 204, planned => 1099, sent => 1099.9, answered => 1101, denied => 1100.1, settled => 1101} ],
			workers => [ {no => 1, id => 'w1', state => 'terminated', pod_id => 'p1'} ],
			spend => [ {worker => 1, pod_id => 'p1', price_micros => 360000, price_from => 'provider', open => JSON::PP::false,
				started => 999.9, ended => 1100.1} ],
			tasks => [ {id => 1, key => 'k', succeeded => 1, ended => 1, places => 0} ]});
}

# What the checker says after a change to what was right, with these kills and steps of the clocks.
sub said
{
	my ($change, @what) = @_;
	my ($ledger, $data) = right();
	my @steps = grep { ref } @what;
	my @kills = grep { !ref } @what;

	$change->($ledger->{pods}, $data, $ledger->{requests}, $ledger->{entries});
	return join "\n", Checker::pods($ledger, $data), Checker::tasks($data, ['k']), Checker::money($ledger, $data, \@steps, \@kills);
}

is(said(sub { }), '', 'a round that is right is called right');
for my $case (
	[ 'a leaked pod', sub { $_[0][0]{deleted_at} = undef }, qr/pod p1 lives, and no row owns it: leaked/ ],
	[ 'a pod that its worker still has', sub { $_[0][0]{deleted_at} = undef; $_[1]{workers}[0]{state} = 'active' }, qr/its worker does/ ],
	[ 'a pod that nobody asked for', sub { push @{ $_[0] }, {%{ $_[0][0] }, id => 'p2', name => 'gpo-2'} }, qr/p2 was asked for by no op/ ],
	[ 'two pods of one intent', sub { push @{ $_[0] }, {%{ $_[0][0] }, id => 'p2'} }, qr/created twice for one intent: gpo-1, pods p1 p2/ ],
	[ 'an op that is not settled', sub { $_[1]{ops}[0]{state} = 'unknown' }, qr/op 1 \(create\) is unknown/ ],
	[ 'a task that was taken in and is gone', sub { $_[1]{tasks} = [] }, qr/task k was taken in and is not there: lost/ ],
	[ 'a task that did not end', sub { @{ $_[1]{tasks}[0] }{qw(succeeded ended places)} = (0, 0, 1) }, qr/task 1 has not succeeded: lost/ ],
	[ 'a task that finished twice', sub { $_[1]{tasks}[0]{succeeded} = 2 }, qr/task 1 finished 2 times/ ],
	[ 'an attempt that ended twice', sub { $_[1]{tasks}[0]{ended} = 2 }, qr/task 1 finished 1 times, and ended 2 times/ ],
	[ 'a pod of others that was ended', sub { $_[0][0]{foreign} = JSON::PP::true }, qr/p1 is of somebody else, and was ended/ ],
	[ 'a spend that begins late', sub { $_[1]{spend}[0]{started} = 1000.2 }, qr/begins 0\.200 s after it/ ],
	[ 'a spend that ends early', sub { $_[1]{spend}[0]{ended} = 1097 }, qr/ends 3\.000 s before it/ ],
	[ 'a spend that ends early, and began as much too early', sub { @{ $_[1]{spend}[0] }{qw(started ended)} = (997, 1097) },
		qr/begins 3\.000 s before it .*allowed are 1\.000\n.*ends 3\.000 s before it/ ],
	[ 'a spend two seconds too long', sub { $_[1]{spend}[0]{ended} = 1102 }, qr/ends 2\.000 s after it \(answered delete\), allowed are 1\.100/ ],
	[ 'a hole in a spend', sub { push @{ $_[1]{spend} }, {%{ $_[1]{spend}[0] }, started => 1050}; $_[1]{spend}[0]{ended} = 1049 }, qr/lacks 1\.000 s in between/ ],
	[ 'a second that is counted twice', sub { push @{ $_[1]{spend} }, {%{ $_[1]{spend}[0] }, started => 1050}; $_[1]{spend}[0]{ended} = 1051 }, qr/has 1\.000 s twice/ ],
	[ 'a price that is too low', sub { $_[1]{spend}[0]{price_micros} = 350000 }, qr/dollars below the ledger/ ],
	[ 'a price that is too high', sub { $_[1]{spend}[0]{price_micros} = 370000 }, qr/dollars for 100\.200 s that cost/ ],
	[ 'a pod that others ended, counted beyond the list that missed it', sub { $_[0][0]{ended_by} = 'vanish'; $_[1]{ops} = [ $_[1]{ops}[0] ];
			$_[1]{spend}[0]{ended} = 1103; push @{ $_[2] }, {call => 'list', at => 1100.5, ended_at => 1100.5, status => 200, outcome => 'answered', fault => undef} },
		qr/ends 3\.000 s after it \(ended by others\), allowed are 1\.5/ ],
	[ 'a spend without end', sub { $_[1]{spend}[0]{open} = JSON::PP::true }, qr/spend of worker 1 is still counted/ ],
	[ 'a pod that costs nothing', sub { $_[1]{spend} = [] }, qr/pod p1 of 100\.000 s was not counted/ ])
{
	my ($name, $change, $pattern) = @$case;

	like(said($change), $pattern, "$name is found");
}
is(said(sub { $_[1]{ops}[1]{http_status} = 404; $_[1]{spend}[0]{ended} = 1120 }), '', 'a delete whose answer was lost may be counted until it is settled');
is(said(sub { $_[3][0]{executed_at} = 1103; $_[1]{spend}[0]{ended} = 1104 }), '', 'and so may one that took effect after its answer');
is(said(sub { $_[3][0]{executed} = JSON::PP::false; $_[1]{spend}[0]{ended} = 1120 }), '', 'or had none');

# An answered delete whose pod was asked for late: what the provider said is noted when it is heard.
my $late = sub { $_[2][1] = question(1103); @{ $_[1]{ops}[1] }{qw(answered denied settled)} = (1104, 1103.1, 1104); $_[1]{spend}[0]{ended} = 1103.1 };
is(said($late), '', 'a pod is counted until the provider says that it is not there');
is(said($late, 1103.5), '', 'also if who noted that was killed soon after');
is(said(sub { $late->(@_); unshift @{ $_[2] }, question(1101.9) }, 1101.95), '', 'and if who heard it before was killed');
is(said(sub { $late->(@_); unshift @{ $_[2] }, question(1100.9) }, step(0.1, 1100.91, 1100.91), 1102.95), '', 'at whatever time, where the clocks were moved between');
is(said(sub { $late->(@_); unshift @{ $_[2] }, question(1101) }, 1100.5), '', 'or did not know the account yet');
is(said(sub { $late->(@_); delete $_[1]{ops}[1]{denied} }, 1103.05), '', 'or nobody lived to note it');
is(said(sub { $late->(@_); delete $_[1]{ops}[1]{denied}; $_[2][1] = question(1100.5, 502) }), '', 'or the provider did not answer');
for my $case ([ 'that was said and not noted', '2.000', sub { unshift @{ $_[2] }, question(1101) } ],
	[ 'that was said after a kill and not noted', '2.000', sub { unshift @{ $_[2] }, question(1101), account(1100.6) }, 1100.5 ],
	[ 'that was said long before a kill and not noted', '2.000', sub { unshift @{ $_[2] }, question(1101) }, 1103.05 ],
	[ 'that was never noted', '2.000', sub { $_[2][1] = question(1101); delete $_[1]{ops}[1]{denied} } ],
	[ 'that was never asked for', '1.000', sub { splice @{ $_[2] }, 1, 1; delete $_[1]{ops}[1]{denied} } ])
{
	my ($what, $allowed, $change, @kills) = @$case;

	like(said(sub { $late->(@_); $change->(@_) }, @kills), qr/ends 3\.100 s after it \(answered delete\), allowed are \Q$allowed\E/, "a denial $what is found");
}
# A pod that others ended, and a delete that found none: the first list after its answer shows that.
my $gone = sub { $_[0][0]{ended_by} = 'vanish'; @{ $_[1]{ops}[1] }{qw(http_status answered settled)} = (404, 1110, 1110); $_[1]{spend}[0]{ended} = 1105;
	@{ $_[2] }[0, 1] = ({%{ $_[2][0] }, status => 404}, map { +{%{ $_[2][0] }, call => 'list', path => '/v2/pods', at => $_, ended_at => $_, status => 200} } 1101) };
like(said($gone), qr/ends 5\.000 s after it \(ended by others\), allowed are 2\.000/, 'a list that is not heeded is found');
is(said(sub { $gone->(@_); $_[1]{spend}[0]{ended} = 1101 }), '', 'one that is heeded is right');

# The clocks are moved, ours first: {at} is ours, {from} and {to} are the provider's, before they were moved.
sub step { my ($seconds, $at, $to) = @_; return {seconds => $seconds, at => $at, from => $at, to => $to}; }
my $heard = sub { my ($at) = @_; return sub { $_[1]{spend}[0]{ended} = $_[1]{ops}[1]{denied} = $at; @{ $_[1]{ops}[1] }{qw(answered settled)} = (1132, 1132) } };
is(said($heard->(1130.2), step(30, 1100.15, 1100.16)), '', 'a step while an answer is on its way is not ours');
is(said($heard->(1130.2), step(30, 1100.05, 1100.25)), '', 'nor one that has come to our clock, and not yet to theirs');
is(said($heard->(1131.25), step(30, 1100.15, 1100.16), step(1, 1130.2, 1130.21)), '', 'nor are two in a row');
like(said(sub { $heard->(1130.2)->(@_); $_[1]{spend}[0]{price_micros} = 270000 }, step(30, 1100.05, 1100.25)), qr/dollars below the ledger/,
	'which excuses no price');
like(said($heard->(1131), step(30, 1100.5, 1100.51)), qr/ends 31\.000 s after it \(answered delete\)/, 'but one after it is');
# The clocks were compared by a list that came while they were moved.
my $compared = sub { $_[1]{spend} = []; push @{ $_[2] }, {call => 'list', at => 898.4, ended_at => 999.7, status => 200, outcome => 'answered', fault => undef} };
is(said($compared, step(101, 898.4, 898.5)), '', 'a pod that was there for less than a step need not be known');
like(said($compared, step(99, 898.4, 898.5)), qr/was not counted/, 'unlike one that was there for longer');
is(said(sub { $_[1]{spend} = []; $_[1]{ops}[0]{state} = 'refused'; $_[0][0]{ended_by} = 'vanish' }), '',
	'a pod that the provider denied and that was gone before a list could show it is nobody\'s fault');

# One thing made wrong in a round that was right: the run says so, and fails.
for my $spoilt ([ 'pod', qr/lives, and no row owns it: leaked/ ], [ 'spend', qr/ends \d+\.\d+ s before it/ ],
	[ 'task', qr/was taken in and is not there: lost/ ], [ 'attempt', qr/finished 2 times/ ])
{
	my ($what, $pattern) = @$spoilt;
	my $report = `SPOIL=$what ROUNDS=@{[$what eq "spend" ? 2 : 1]} SEED=1 POINTS=no "$FindBin::Bin/../chaos/run" 2>&1`;

	isnt($?, 0, "a round with a spoilt $what fails");
	like($report, $pattern, 'and says why') or diag($report);
}
done_testing();
