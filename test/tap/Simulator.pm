# Simulator.pm: runpod-sim for the tests of itself: started on a port of its own and spoken to over HTTP,
# as its clients do and by the interface for tests. It needs no server. Skips all where there is no simulator.
package Simulator;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename qw(dirname);
use File::Spec;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use Test::More;

our @EXPORT = qw($program $key $capacity $dir $address start_sim stop_sim call control fault no_fault advance ledger
  wish create get remove listed raw bytes wait_until file_lines near entry_of line_of);

our $program = $ENV{RUNPOD_SIM} // File::Spec->rel2abs(dirname(__FILE__) . '/../../sim/runpod-sim');
our $key = 'rpa_test';
our $capacity = 'There are no longer any instances available with the requested specifications. '
  . 'Please refresh and try again.';
our $dir = tempdir(CLEANUP => 1);
my %sims;
our $address;

END
{
	local $?;
	kill 'TERM', keys %sims;
	waitpid $_, 0 for keys %sims;
}

# Start a simulator and speak to it from now on; returns its process id.
sub start_sim
{
	my @options = @_;

	my $pid = open(my $out, '-|', $program, '--listen', '127.0.0.1:0', '--api-key', $key, @options)
	  // die "fork: $!";
	my $line = <$out> // '';
	($address) = $line =~ /^listening on (127\.0\.0\.1:\d+)$/ or die "it said: $line";
	$sims{$pid} = $out;
	return $pid;
}

# End a simulator; returns its status.
sub stop_sim
{
	my $pid = shift;

	kill 'TERM', $pid;
	my $out = delete $sims{$pid};
	close $out;
	return $?;
}

# One request: (status, JSON or undef, HTTP::Tiny's answer). A dropped answer has status 599.
sub call
{
	my ($method, $path, $body, %headers) = @_;
	my $content = !defined $body ? undef : ref $body ? encode_json($body) : $body;

	my $answer = HTTP::Tiny->new(timeout => 60, keep_alive => 0)->request(
		$method,
		"http://$address$path",
		{
			headers => { Authorization => "Bearer $key", %headers },
			defined $content ? (content => $content) : () });
	$answer->{content} //= '';
	my $json = eval { decode_json($answer->{content}) };
	return ($answer->{status}, $json, $answer);
}

# A request to the simulator's own interface, which must succeed.
sub control
{
	my ($status, $json) = call(@_);

	die "@_: $status" if $status != 200;
	return $json;
}

sub fault    { return control(POST => '/_sim/faults', { add => [@_] }); }
sub no_fault { return control(POST => '/_sim/faults', { clear => JSON::PP::true }); }
sub advance  { return control(POST => '/_sim/clock', { advance => $_[0] }); }
sub ledger   { return control(GET => '/_sim/ledger'); }

# A body for a create, with what is given put over it; undef takes a key away.
sub wish
{
	my %over = @_;
	my %wish = (
		name => 'pod',
		image => 'image:1',
		gpu => { id => 'NVIDIA GeForce RTX 4090', count => 1 },
		%over);

	delete $wish{$_} for grep { !defined $wish{$_} } keys %wish;
	return \%wish;
}

# Create a pod that must come to be; returns it.
sub create
{
	my ($status, $pod) = call(POST => '/v2/pods', wish(@_));

	is($status, 201, 'a pod is made') or diag(encode_json($pod));
	return $pod;
}

sub get    { return (call(GET => "/v2/pods/$_[0]"))[1]; }
sub remove { return (call(DELETE => "/v2/pods/$_[0]"))[0]; }
sub listed { return map { $_->{id} } @{ (call(GET => '/v2/pods' . ($_[0] // '')))[1]{pods} }; }

# Send bytes as they are and return all that comes until the connection ends; with several
# arguments, each but the first is sent when an answer to the one before has come.
sub raw
{
	my @requests = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $address, Timeout => 30) or die "connect: $!";
	my @answers;

	for my $request (@requests)
	{
		my $answer = '';

		print $socket $request;
		while (sysread($socket, my $part, 65536))
		{
			$answer .= $part;
			last if $answer =~ /\r\nContent-Length: (\d+)\r\n(?:.*?\r\n)?\r\n(.*)/s && length($2) >= $1;
		}
		push @answers, $answer;
	}
	return wantarray ? @answers : $answers[0];
}

# The bytes of a request, and of a create.
sub bytes
{
	my ($line, $body, @headers) = @_;

	return join("\r\n",
		"$line HTTP/1.1", "Host: sim", "Authorization: Bearer $key",
		@headers, 'Content-Length: ' . length($body), '', $body);
}

# Wait until the sub is true; false after a long time.
sub wait_until
{
	my $true = shift;

	for (1 .. 3000)
	{
		return 1 if $true->();
		select undef, undef, undef, 0.02;
	}
	return 0;
}

# The lines of a file, in scalar context their number; none where there is no file.
sub file_lines
{
	my @lines;

	if (open my $file, '<', $_[0])
	{
		@lines = <$file>;
		chomp @lines;
	}
	return @lines;
}

# Equal but for rounding.
sub near
{
	my ($got, $expected, $name) = @_;

	ok(abs($got - $expected) <= 1e-6 + 1e-6 * abs($expected), $name) or diag("got $got, expected $expected");
	return;
}

# The ledger's line of a pod, and its last entry for a name.
sub line_of { my ($id) = @_; return (grep { $_->{id} eq $id } @{ ledger()->{pods} })[0]; }
sub entry_of { my ($name) = @_; return (grep { ($_->{name} // '') eq $name } @{ ledger()->{entries} })[-1]; }

plan skip_all => "$program is not built" unless -x $program;

1;
