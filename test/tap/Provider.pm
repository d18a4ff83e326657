# Provider.pm: runpod-sim for tests: started on a port of its own, faults, ledger, and a node whose
# leader calls it.
package Provider;

use strict;
use warnings;
use File::Spec;
use FindBin;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

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

# wait_until(SUB, WHAT): poll until the sub is true, within the usual limit.
sub wait_until
{
	my ($self, $true, $what) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $true->();
		select undef, undef, undef, 0.1;
	}
	diag("gave up waiting until $what");
	return 0;
}

# new_node(NAME, SETTINGS): a running node with the extension, whose leader calls this provider.
sub new_node
{
	my ($self, $name, $settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $key_file = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir() . '/api_key');

	umask 077;
	append_to_file($key_file, $self->{key});
	$node->init;
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'gpu_orch'
gpu_orch.database = 'postgres'
gpu_orch.test_clock = on
gpu_orch.runpod_api_url = 'http://$self->{address}/v2'
gpu_orch.runpod_api_key_file = '$key_file'
gpu_orch.cycle_interval = '200ms'
gpu_orch.reconcile_interval = '500ms'
gpu_orch.heartbeat_interval = '1s'
gpu_orch.settle_time = '2s'
gpu_orch.http_timeout = '2s'
restart_after_crash = on
$settings
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION gpu_orch');
	$node->safe_psql('postgres', 'CREATE ROLE pod LOGIN IN ROLE gpu_orch_worker');
	$node->append_conf('postgresql.conf',
		sprintf "gpu_orch.worker_dsn = 'host=%s port=%d dbname=postgres user=pod'\n",
		$node->host, $node->port);
	$node->reload;
	return $node;
}

1;
