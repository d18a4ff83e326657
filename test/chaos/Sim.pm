# Sim.pm: the simulated provider of one round: started, asked by its interface for tests, ended.
package Sim;

use strict;
use warnings FATAL => 'all';
use HTTP::Tiny;
use JSON::PP;
use Time::HiRes qw(sleep);

# start(LOG, KEY, OPTION...): runpod-sim on a port of its own.
sub start
{
	my ($class, $log, $key, @options) = @_;
	my $self = bless {log => $log}, $class;
	my $offset = (-s $log) // 0;

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		exec $ENV{RUNPOD_SIM} // 'runpod-sim', '--listen', '127.0.0.1:0', '--api-key', $key, @options or exit 127;
	}
	for (1 .. 1000)
	{
		sleep 0.01;
		open my $file, '<', $log or next;
		seek $file, $offset, 0;
		($self->{address}) = join('', <$file>) =~ /^listening on (127\.0\.0\.1:\d+)$/m and return $self;
	}
	die "runpod-sim did not start, see $log\n";
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;

	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);

	$self->stop;
	return;
}

# control(METHOD, PATH, BODY): a request to the interface for tests; dies on an error.
sub control
{
	my ($self, $method, $path, $body) = @_;
	my $answer = HTTP::Tiny->new(timeout => 30)->request($method, "http://$self->{address}/_sim/$path",
		$body ? {content => encode_json($body)} : {});

	die "$method $path: $answer->{status} $answer->{content}\n" unless $answer->{success};
	return length $answer->{content} ? decode_json($answer->{content}) : undef;
}

# The number of times that faults were applied; clears them.
sub clear_faults
{
	my ($self) = @_;
	my $hits = 0;

	$hits += $_->{hits} for @{ $self->control(GET => 'faults')->{faults} };
	$self->control(POST => 'faults', {clear => JSON::PP::true});
	return $hits;
}

sub ledger { return $_[0]->control(GET => 'ledger'); }
sub now { return $_[0]->control(GET => 'clock')->{now}; }

# step(SECONDS): move its clock; returns where it stood when it was moved.
sub step { my ($self, $seconds) = @_; return $self->control(POST => 'clock', {advance => $seconds})->{now} - $seconds; }

1;
