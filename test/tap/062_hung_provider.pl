# A provider that is there and says nothing: one that takes the request and never answers, one that never takes the
# connection (a black hole), and one that answers a byte at a time (a slowloris). With a time limit longer than that
# of this test, whatever waited for the provider would wait that long: tasks, the DROP DATABASE of another database,
# the end of the leader, and shutdown.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = GpuOrch->running('hung', 'gpu_orch.http_timeout' => '600s', 'gpu_orch.http_connect_timeout' => '600s');
my $key_file = PostgreSQL::Test::Utils::tempdir() . '/key';
umask 077;
append_to_file($key_file, 'a-key-for-tests');

# What keeps connections open while the test looks elsewhere.
my @kept;

sub listener
{
	return IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => $_[0]) || die "listen: $!";
}

# Wait for a connection and a request on it.
sub request_on
{
	my ($socket) = @_;

	wait_until('the leader calls the provider', sub { IO::Select->new($socket)->can_read(0.05) });
	push @kept, scalar $socket->accept;
	ok(sysread($kept[-1], my $request, 1), 'a request is under way');
	return $kept[-1];
}

# A socket to whose address nobody can connect any more: its queue is full, and nothing is taken from it.
sub black_hole
{
	my $socket = listener(1);

	push @kept, map {
		IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $socket->sockport, Blocking => 0)
	} 1 .. 8;
	return $socket;
}

sub has_connecting_socket
{
	my ($pid, $port) = @_;
	my $remote = sprintf '0100007F:%04X', $port;

	# State 02 is SYN_SENT; the inode is among the leader's descriptors.
	my %inodes = map { $_ => 1 } map { (readlink($_) // '') =~ /socket:\[(\d+)\]/ } glob "/proc/$pid/fd/*";
	return grep { my @field = split; ($field[2] // '') eq $remote && $field[3] eq '02' && $inodes{ $field[9] } }
		split /\n/, slurp_file('/proc/net/tcp');
}

my %providers = (
	'accepts and never answers' => [ listener(20), sub { request_on($_[0]) } ],
	'a black hole' => [ black_hole(), sub {
		my ($socket, $pid) = @_;
		wait_until('the leader tries to connect', sub { has_connecting_socket($pid, $socket->sockport) });
		pass('a connection is under way');
	} ],
	'a slowloris' => [ listener(20), sub {
		my $client = request_on($_[0]);
		my $child = fork() // die "fork: $!";

		if ($child == 0)
		{
			$client->autoflush(1);
			local $SIG{PIPE} = 'DEFAULT';
			print $client "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
			for (1 .. 600)
			{
				select undef, undef, undef, 0.2;
				print $client ' ';
			}
			require POSIX;
			POSIX::_exit(0);
		}
		push @kept, $child;
	} ]);

sub serve
{
	return $node->sql(q{
		SELECT token FROM gpu_orch.register_worker('server', capabilities => '{"services": ["k"]}') \gset
		SELECT gpu_orch.submit_task('k') AS task \gset
		SELECT task_id, lease FROM gpu_orch.claim_tasks('server', :'token') \gset
		SELECT gpu_orch.complete_task('server', :'token', :task_id, :'lease') AND :task_id = :task});
}

# The installation is made by a call, and before it there is nothing to ask the provider for.
$node->sql('SELECT gpu_orch.resume()');
$node->set('gpu_orch.runpod_api_key_file' => $key_file);
for my $name (sort keys %providers)
{
	my ($socket, $hang) = @{ $providers{$name} };

	subtest $name => sub {
		local $ENV{PGCTLTIMEOUT} = 60;

		$node->set('gpu_orch.runpod_api_url' => 'http://127.0.0.1:' . $socket->sockport . '/v2');
		my $pid = $node->wait_for_leader;
		$hang->($socket, $pid);
		is(serve(), 't', 'tasks are served');
		my $ticks = $node->sql('SELECT ticks FROM gpu_orch.leader_status()');
		$node->until('the leader goes on', "SELECT ticks > $ticks + 2 FROM gpu_orch.leader_status()");
		is($node->leader, $pid, 'the same one');
		$node->sql('CREATE DATABASE other');
		is($node->psql('postgres', 'DROP DATABASE other', extra_params => [ '-v', 'ON_ERROR_STOP=1' ], timeout => 60),
			0, 'another database is dropped');
		is($node->sql(q{SELECT gpu_orch.status()->'leader'->>'doing'}), 'acting', 'the leader still acts');
		ok($node->stop('fast'), 'the server shuts down');
		ok(is_ended($pid), 'and the leader is gone');
		$node->start;
	};
}
$node->holds_invariants;
$node->stop;
for my $child (grep { !ref } @kept)
{
	kill 'KILL', $child;
	waitpid $child, 0;
}
done_testing();
