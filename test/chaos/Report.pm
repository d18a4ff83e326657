# Report.pm: the sum of what rounds did, and its print. Must not know how a round is made.
package Report;

use strict;
use warnings FATAL => 'all';

# new(POINT...): nothing done yet; of these labelled steps it tells which were reached.
sub new { my ($class, @points) = @_; return bless {points => \@points, count => {}, over => {}, failed => []}, $class; }

# add(RESULT): a round: seed, seconds, wrong, count, over.
sub add
{
	my ($self, $round) = @_;

	$self->{count}{$_} += $round->{count}{$_} for keys %{ $round->{count} };
	for my $excuse (keys %{ $round->{over} })
	{
		$self->{over}{$excuse} = $round->{over}{$excuse} if $round->{over}{$excuse} > ($self->{over}{$excuse} // 0);
	}
	$self->{rounds}++;
	$self->{seconds} += $round->{seconds};
	push @{ $self->{failed} }, $round->{seed} if @{ $round->{wrong} };
	return;
}

sub has_failed { return @{ $_[0]{failed} } > 0; }
sub count { return $_[0]{count}{ $_[1] } // 0; }

# All counts whose names begin so, as "4: 1 this, 3 that".
sub _all
{
	my ($self, $begin) = @_;
	my ($sum, @parts) = (0);

	for my $name (sort grep { /^$begin/ && $self->{count}{$_} } keys %{ $self->{count} })
	{
		$sum += $self->count($name);
		push @parts, $self->count($name) . ' ' . substr $name, length $begin;
	}
	return @parts ? "$sum: " . join(', ', @parts) : $sum;
}

sub _points
{
	my ($self) = @_;
	my @points = @{ $self->{points} };
	my @armed = grep { $self->count("armed $_") } @points;
	my @missed = grep { !$self->count("reached $_") } @points;

	return "points: none in this library\n" unless @points;
	return sprintf("points: %d, of which %d were armed and %d reached\n", scalar @points, scalar @armed, @points - @missed)
		. 'kills at points, errors and terminations too: ' . $self->_all('at a point: ') . "\n"
		. 'points never reached: ' . (@missed ? join ' ', @missed : 'none') . "\n";
}

# text(SEED, SECONDS): the whole report.
sub text
{
	my ($self, $seed, $seconds) = @_;
	my $passed = $self->{rounds} - @{ $self->{failed} };

	return sprintf("%d rounds in %.0f s, %.1f s each, from seed %d: %d tasks, %d pods\n", $self->{rounds}, $seconds,
			$self->{seconds} / $self->{rounds}, $seed, $self->count('tasks'), $self->count('pods'))
		. 'a round: ' . join(', ', map { sprintf '%.1f s %s', $self->{count}{$_} / $self->{rounds}, substr $_, 6 } sort grep { /^time: / } keys %{ $self->{count} }) . "\n"
		. sprintf("kills: %d leader, %d backend, %d postmaster, %d worker\n", map { $self->count("killed $_") } qw(leader backend postmaster worker))
		. $self->_points
		. 'pods ended or halted by others: ' . $self->_all('pods: ') . "\n"
		. sprintf("balance run out: %d; port closed: %d; steps of the clocks: %d\n", map { $self->count($_) } 'balance: empty', 'port: closed', 'steps')
		. 'faults of the provider: ' . $self->_all('fault ') . "\n"
		. 'spend above the ledger, the worst: '
		. join(', ', map { sprintf '%s %.2f s', $_, $self->{over}{$_} } sort keys %{ $self->{over} }) . "\n"
		. ($self->has_failed ? "failed: seeds @{ $self->{failed} }\n" : '')
		. sprintf("%d passed, %d failed\n", $passed, scalar @{ $self->{failed} });
}

1;
