# Provider.pm: runpod-sim for tests: started on a port of its own, its faults and its ledger. GpuOrch.pm makes the
# server whose leader calls it.
package Provider;

use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;

# start(OPTION...): start runpod-sim with these options; the object stops it when it goes.
sub start
{
	my ($class, @options) = @_;
	my $key = join '', map { sprintf '%x', rand 16 } 1 .. 32;
	my $program = $ENV{RUNPOD_SIM} // "$FindBin::Bin/../../sim/runpod-sim";
	my $log = PostgreSQL::Test::Utils::tempdir() . "/simulator.log";
	my $self = bless {key => $key, log => $log}, $class;

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec $program, '--listen', '127.0.0.1:0', '--api-key', $key, @options
			or exit 127;
	}
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if -s $log && slurp_file($log) =~ /(127\.0\.0\.1:\d+)/ && ($self->{address} = $1);
		select undef, undef, undef, 0.01;
	}
	die "runpod-sim did not start: " . slurp_file($log) unless $self->{address};
	return $self;
}

sub DESTROY
{
	my $self = shift;
	local ($?, $!);

	return unless $self->{pid};
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
}

# control(METHOD, PATH, BODY): a request to the simulator's own interface; dies on an error.
sub control
{
	my ($self, $method, $path, $body) = @_;
	my %options = defined $body ? (content => encode_json($body)) : ();
	my $answer = HTTP::Tiny->new(timeout => 30)
		->request($method, "http://$self->{address}/_sim/$path", \%options);

	die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return length $answer->{content} ? decode_json($answer->{content}) : undef;
}

# fault({call =>, gpu =>, action =>, count =>, and the action's parameters}, ...): add rules.
sub fault
{
	my ($self, @rules) = @_;

	return $self->control(POST => 'faults', {add => \@rules});
}

sub no_faults { return $_[0]->control(POST => 'faults', {clear => JSON::PP::true}); }
sub ledger { return $_[0]->control(GET => 'ledger'); }
sub requests { return @{ $_[0]->control(GET => 'ledger?requests=true')->{requests} }; }

# The pods that were ever made and are of one installation; live ones only with a true argument.
sub pods
{
	my ($self, $live) = @_;
	my @pods = grep { $_->{name} =~ /^gpo-/ } @{$self->ledger->{pods}};

	return $live ? grep { !defined $_->{deleted_at} } @pods : @pods;
}

1;
