# Sim.pm: the simulated provider of one round: started, asked by its interface for tests, ended.
package Sim;

use strict;
use warnings FATAL => 'all';
use HTTP::Tiny;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep);

# start(LOG, KEY, OPTION...): runpod-sim on a port of its own.
sub start
{
	my ($class, $log, $key, @options) = @_;
	my $self = bless {log => $log, key => $key}, $class;
	my $offset = (-s $log) // 0;

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		exec $ENV{RUNPOD_SIM} // 'runpod-sim', '--listen', '127.0.0.1:0', '--api-key', $key, @options or POSIX::_exit(127);
	}
	for (1 .. 2000)
	{
		sleep 0.005;
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

# control(METHOD, PATH, BODY): a request to the interface for tests; dies on an error. Its port may be closed for a moment.
sub control
{
	my ($self, $method, $path, $body) = @_;
	my $answer;

	for (1 .. 500)
	{
		$answer = HTTP::Tiny->new(timeout => 30)->request($method, "http://$self->{address}/_sim/$path",
			$body ? {content => encode_json($body)} : {});
		last unless $answer->{status} == 599 && $answer->{content} =~ /Connection refused/;
		sleep 0.01;
	}

	die "$method $path: $answer->{status} $answer->{content}\n" unless $answer->{success};
	return length $answer->{content} ? decode_json($answer->{content}) : undef;
}

# Clears the faults: how often each was applied, by its call and action.
sub clear_faults
{
	my ($self) = @_;
	my %hits;

	$hits{"$_->{match}{call} $_->{action}"} += $_->{hits} for @{ $self->control(GET => 'faults')->{faults} };
	$self->control(POST => 'faults', {clear => JSON::PP::true});
	return %hits;
}

# create(NAME): a pod of the account with that name.
sub create
{
	my ($self, $name) = @_;
	my $answer = HTTP::Tiny->new(timeout => 30)->request(POST => "http://$self->{address}/v2/pods", {
		headers => {authorization => "Bearer $self->{key}", 'content-type' => 'application/json'},
		content => encode_json({name => $name, image => 'image:1', gpu => {id => 'NVIDIA L4', count => 1}})});

	die "create: $answer->{status} $answer->{content}\n" unless $answer->{success};
	return;
}

sub ledger { return $_[0]->control(GET => 'ledger?requests=true'); }
sub now { return $_[0]->control(GET => 'clock')->{now}; }

# step(SECONDS): move its clock; returns where it stood when it was moved.
sub step { my ($self, $seconds) = @_; return $self->control(POST => 'clock', {advance => 0 + $seconds})->{now} - $seconds; }

1;
