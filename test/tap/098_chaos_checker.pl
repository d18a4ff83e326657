# The checker of test/chaos finds what it is there to find: a ledger and rows that agree, and then one thing wrong
# at a time. It needs no server.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../chaos";
use Checker;
use JSON::PP;
use Test::More;

# A round that is right: one pod of a hundred seconds, created and deleted with answers, and one task.
sub right
{
	my $second = 0.36 / 3600;

	return (
		{pods => [ {id => 'p1', name => 'gpo-1', foreign => JSON::PP::false, cost_per_hour => 0.36, created_at => 1000,
			deleted_at => 1100, ended_by => 'delete', create_outcome => 'answered', billed => 100 * $second} ],
			entries => [ {op => 'delete', pod => 'p1', at => 1100, executed => JSON::PP::true, status => 204} ]},
		{
			ops => [
				{id => 1, kind => 'create', state => 'done', worker => 1, pod_name => 'gpo-1', pod_id => 'p1', tries => 1,
					http_status => 201, planned => 999, sent => 999.9, answered => 1000.1, settled => 1000.1},
				{id => 2, kind => 'delete', state => 'done', worker => 1, pod_name => 'gpo-1', pod_id => 'p1', tries => 1,
					http_status => 204, planned => 1099, sent => 1099.9, answered => 1100.1, settled => 1101} ],
			workers => [ {no => 1, id => 'w1', state => 'terminated', pod_id => 'p1'} ],
			spend => [ {worker => 1, pod_id => 'p1', price_micros => 360000, open => JSON::PP::false, seconds => 100.2} ],
			tasks => [ {id => 1, key => 'k', succeeded => 1, ended => 1, places => 0} ]});
}

# What the checker says after a change to what was right.
sub said
{
	my ($change, @steps) = @_;
	my ($ledger, $data) = right();

	$change->($ledger->{pods}, $data, $ledger->{entries});
	return join "\n", Checker::pods($ledger, $data), Checker::tasks($data, ['k']), Checker::money($ledger, $data, \@steps);
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
	[ 'a spend below the ledger', sub { $_[1]{spend}[0]{seconds} = 99.8 }, qr/0\.200 s below the ledger/ ],
	[ 'a spend two seconds above it', sub { $_[1]{spend}[0]{seconds} = 102.5 }, qr/2\.500 s above the ledger, allowed are 2\.0/ ],
	[ 'a spend without end', sub { $_[1]{spend}[0]{open} = JSON::PP::true }, qr/spend of worker 1 is still counted/ ],
	[ 'a pod that costs nothing', sub { $_[1]{spend} = [] }, qr/100\.000 s below the ledger/ ])
{
	my ($name, $change, $pattern) = @$case;

	like(said($change), $pattern, "$name is found");
}
is(said(sub { $_[1]{ops}[1]{http_status} = 404; $_[1]{spend}[0]{seconds} = 160 }), '', 'a delete whose answer was lost may be counted until it is settled');
is(said(sub { $_[2][0]{executed_at} = 1103; $_[1]{spend}[0]{seconds} = 104 }), '', 'and so may one that took effect after its answer');
is(said(sub { $_[2][0]{executed} = JSON::PP::false; $_[1]{spend}[0]{seconds} = 140 }), '', 'or had none');
is(said(sub { $_[1]{spend}[0]{seconds} = 130.2 }, {seconds => 30, at => 1000, from => 900, to => 900}), '', 'and a step of the clock within a call is not ours');
done_testing();
