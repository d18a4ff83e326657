# Wire.pm: a connection to a server that costs as little as possible, for tests that make a hundred thousand
# calls. It speaks the simple query protocol over the server's socket, and several queries may be sent before
# the first answer is read. It must not be used where a psql would do.
package Wire;

use strict;
use warnings;
use IO::Socket::UNIX;

# The usual limit, in seconds.
my $limit = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# new(NODE, DATABASE, USER): connect to a node, an object with the methods host and port, that trusts who
# connects: as that user, or as our own. Dies where it cannot.
sub new
{
	my ($class, $node, $database, $user) = @_;
	my $path = $node->host . '/.s.PGSQL.' . $node->port;
	my $socket = IO::Socket::UNIX->new(Peer => $path) or die "no connection to $path: $!";
	my $self = bless { socket => $socket, buffer => '' }, $class;
	my $startup = pack('N', 3 << 16) . join("\0", user => $user // scalar getpwuid($>), database => $database) . "\0\0";

	$self->_write(pack('N', 4 + length $startup) . $startup);
	my $answer = $self->answer;
	die "$answer->{message}\n" if defined $answer->{state};
	return $self;
}

sub _write
{
	my ($self, $bytes) = @_;

	while (length $bytes)
	{
		my $n = syswrite $self->{socket}, $bytes;

		die "the server has gone: $!" if !defined $n;
		substr $bytes, 0, $n, '';
	}
	return;
}

# pid(): the process that serves this connection.
sub pid { my ($self) = @_; return $self->{pid}; }

# send_query(SQL): send a query; its answer follows those of the earlier ones.
sub send_query
{
	my ($self, $sql) = @_;

	return $self->_write('Q' . pack('N', 5 + length $sql) . "$sql\0");
}

# is_answered(SECONDS): whether something of the next answer is there within that time.
sub is_answered
{
	my ($self, $seconds) = @_;

	return length $self->{buffer} || $self->_wait($seconds);
}

sub _wait
{
	my ($self, $seconds) = @_;
	my $set = '';

	vec($set, fileno $self->{socket}, 1) = 1;
	return select $set, undef, undef, $seconds;
}

# answer(): the next answer: rows, each an array of texts; and where it is an error, its state and message.
# Dies when there is none within the usual limit.
sub answer
{
	my ($self) = @_;
	my %answer = (rows => []);

	for (;;)
	{
		my ($type, $length) = unpack 'aN', $self->{buffer};

		if (length $self->{buffer} < 5 || length $self->{buffer} < 1 + $length)
		{
			$self->_wait($limit) or die "no answer\n";
			sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer} or die "the server has gone\n";
			next;
		}
		my $body = substr substr($self->{buffer}, 0, 1 + $length, ''), 5;
		if ($type eq 'D')
		{
			my ($n, $at) = (unpack('n', $body), 2);
			my @row;

			for (1 .. $n)
			{
				my $size = unpack 'l>', substr $body, $at, 4;

				push @row, $size < 0 ? undef : substr $body, $at + 4, $size;
				$at += 4 + ($size < 0 ? 0 : $size);
			}
			push @{ $answer{rows} }, \@row;
		}
		elsif ($type eq 'E')
		{
			@answer{qw(state message)} = map { $body =~ /(?:^|\0)$_([^\0]*)/ } 'C', 'M';
		}
		elsif ($type eq 'K')
		{
			$self->{pid} = unpack 'N', $body;
		}
		return \%answer if $type eq 'Z';
	}
}

1;
