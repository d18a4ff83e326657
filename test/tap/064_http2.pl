# How calls go over TLS to a provider that speaks HTTP/2: what may be repeated by HTTP/2 over shared
# connections, creates by HTTP/1.1, each on a connection of its own. nghttpx stands before the simulator,
# with a certificate of an authority that this test makes. And what the leader does where a shared
# connection's other end falls silent, or the certificate is nobody's that it trusts.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

plan skip_all => 'nghttpx and openssl are needed' if system('command -v nghttpx openssl > /dev/null') != 0;

my $dir = PostgreSQL::Test::Utils::tempdir();
my %proxies;
my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'http2');

# An authority, and a certificate for this machine that it signs.
sub make_certificates
{
	my ($ca) = @_;
	my $new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

	system_or_bail('sh', '-c', "cd $dir && umask 077
		$new -x509 -keyout $ca.key -out $ca.pem -subj /CN=$ca -days 2 2> $ca.log
		$new -keyout host.key -out host.csr -subj /CN=localhost 2>> $ca.log
		echo 'subjectAltName = DNS:localhost, IP:127.0.0.1' > ext
		openssl x509 -req -in host.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -extfile ext -days 2 \\
			-out host.pem 2>> $ca.log");
	return "$dir/$ca.pem";
}

# start_proxy(PORT): nghttpx before the simulator; its process id.
sub start_proxy
{
	my ($port) = @_;
	my $backend = $provider->{address} =~ s/:/,/r;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$dir/proxy.log";
		open STDERR, '>&', \*STDOUT;
		exec 'nghttpx', "--frontend=127.0.0.1,$port", "--backend=$backend", '--workers=1', '--single-process',
			'--conf=/dev/null', "--accesslog-file=$dir/access.log", '--accesslog-format=$remote_port $request',
			"$dir/host.key", "$dir/host.pem"
			or exit 127;
	}
	$proxies{$pid} = 1;
	return $pid;
}

# What arrived since the last time that this was asked for: the client's port, method, path and protocol.
my $seen = 0;
sub arrived
{
	my @lines = -e "$dir/access.log" ? split /\n/, slurp_file("$dir/access.log") : ();
	my @new = map { my ($port, $method, $path, $protocol) = split / /; {port => $port, method => $method,
		path => $path, protocol => $protocol} }
		@lines[$seen .. $#lines];

	$seen = @lines;
	return @new;
}

my $ca = make_certificates('ca');
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $proxy = start_proxy($port);
$node->append_conf('postgresql.conf', qq{
gpu_orch.runpod_api_url = 'https://localhost:$port/v2'
gpu_orch.http_timeout = '3s'
});
$node->reload;
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'],
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 day"}')});
$node->until('a certificate of an unknown authority is refused',
	q{SELECT NOT api_ok AND api_error ~* 'certificate|SSL' FROM gpu_orch.leader_status()});
is(scalar(arrived()), 0, 'and nothing was sent');
$node->append_conf('postgresql.conf', "gpu_orch.http_ca_file = '$ca'\n");
$node->restart;
$node->until('with gpu_orch.http_ca_file it is accepted',
	q{SELECT api_ok AND last_reconcile IS NOT NULL FROM gpu_orch.leader_status()});

# Three pods at once, and their end.
$node->sql(q{SELECT gpu_orch.spawn_worker('p', 3)});
$node->fleet(3, 'pods are made');
$node->sql(q{SELECT gpu_orch.drop_pool('p')});
$node->all_end('and ended');
is(scalar($provider->pods(1)), 0, 'none is left');

my @calls = arrived();
my @creates = grep { $_->{method} eq 'POST' && $_->{path} eq '/v2/pods' } @calls;
my @others = grep { $_->{method} ne 'POST' } @calls;
is(scalar(@creates), 3, 'three creates arrived');
is_deeply([ map { $_->{protocol} } @creates ], [ ('HTTP/1.1') x 3 ], 'by HTTP/1.1');
my %uses;
$uses{$_->{port}}++ for @calls;
is_deeply([ map { $uses{$_->{port}} } @creates ], [ 1, 1, 1 ], 'each on a connection that nothing else used');
is_deeply([ grep { $_->{protocol} ne 'HTTP/2' } @others ], [], 'all but POSTs came by HTTP/2');
cmp_ok(scalar(grep { $_->{method} eq 'DELETE' } @others), '>=', 3, 'deletes among them');
my %ports = map { $_->{port} => 1 } @others;
cmp_ok(scalar(keys %ports), '<', scalar(@others), 'they share connections');

# The proxy stops answering and keeps its connections: a call on one fails, the next ones take new ones.
subtest 'a connection whose other end is silent is used no more' => sub {
	kill 'STOP', $proxy;
	$node->until('calls fail', q{SELECT NOT api_ok FROM gpu_orch.leader_status()});
	kill 'CONT', $proxy;
	$node->until('and work again', q{SELECT api_ok FROM gpu_orch.leader_status()});
	arrived();
	$node->reconcile(3);
	my @new = arrived();
	is_deeply([ grep { exists $ports{$_->{port}} } @new ], [], 'by none of the connections of before');
	is_deeply([ grep { $_->{method} ne 'POST' && $_->{protocol} ne 'HTTP/2' } @new ], [], 'by HTTP/2');
};

subtest 'a proxy that goes away is no trouble' => sub {
	kill 'KILL', $proxy;
	waitpid $proxy, 0;
	delete $proxies{$proxy};
	$node->until('calls fail', q{SELECT NOT api_ok FROM gpu_orch.leader_status()});
	$proxy = start_proxy($port);
	$node->until('and work again', q{SELECT api_ok FROM gpu_orch.leader_status()});
};

$node->holds_invariants;
unlike(slurp_file($node->logfile), qr/\Q$provider->{key}\E|PANIC|TRAP|was terminated by signal/,
	'the log is quiet, and has no key');
$node->stop;
done_testing();

END
{
	my $status = $?;

	kill 'KILL', keys %proxies;
	$? = $status;
}
