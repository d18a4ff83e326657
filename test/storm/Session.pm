# Session.pm: a connection that is cancelled, terminated and killed as it comes, and opened again. Each statement ends
# as done, refused (an SQLSTATE), or unknown: nobody was left to say. What was refused is counted by what was called.
package Session;

use strict;
use warnings FATAL => 'all';
use Time::HiRes qw(sleep time);
use Wire;

# new(SERVER, USER, NAME, PREPARE): NAME is its application_name; PREPARE returns what is sent first on each connection.
sub new
{
	my ($class, $server, $user, $name, $prepare) = @_;

	return bless {server => $server, user => $user, name => $name, prepare => $prepare, count => {}, odd => {}}, $class;
}

# Connect, if need be; the server may be recovering from a crash. Dies after the usual limit.
sub connection
{
	my ($self) = @_;
	my $until = time + ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180);

	while (!$self->{wire})
	{
		$self->{wire} = eval {
			my $wire = Wire->new($self->{server}, 'storm', $self->{user});

			for my $statement ("SET application_name = '$self->{name}'", $self->{prepare}->())
			{
				$wire->send_query($statement);
				die "$statement\n" if defined $wire->answer->{state};
			}
			$wire;
		};
		next if $self->{wire};
		die "$self->{name}: no connection: $@" if time > $until;
		sleep 0.02;
	}
	return $self->{wire};
}

# call(WHAT, STATEMENT, EXPECTED): its rows where it was done, undef where not; then {state} is the SQLSTATE, or
# undefined where the outcome is unknown. States that EXPECTED does not match are odd.
sub call
{
	my ($self, $what, $statement, $expected) = @_;
	my $wire = $self->connection;
	my $answer = eval {
		$wire->send_query($statement);
		$wire->answer;
	};

	$self->{state} = undef;
	if (!$answer)
	{
		die "$self->{name}: $statement: $@" if $@ eq "no answer\n";
		delete $self->{wire};
		$self->{count}{$what}{gone}++;
		return;
	}
	$self->{count}{$what}{ $answer->{state} // 'done' }++;
	return $answer->{rows} unless defined $answer->{state};
	$self->{state} = $answer->{state};
	# Cancelled, or out of time.
	if ($self->{state} !~ /^57014$/ && !(defined $expected && $self->{state} =~ /^(?:$expected)$/))
	{
		$self->{odd}{"$what: $self->{state} $answer->{message}"} //= $statement;
	}
	return;
}

sub is_connected { return defined $_[0]{wire}; }

1;
