# A pod whose worker reaches no database any more ends itself, by the key that the provider gave it: while
# heartbeats arrive nothing is deleted, a provider that refuses is asked again by the next container, and a
# worker that the leader put on no pod deletes none.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $worker = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
plan skip_all => "$worker is not built" unless -x $worker;

# What runs in a pod learns the simulator's address from a file, as it has none before it is started.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $provider = Provider->start('--boot-seconds', '0.2', '--launch',
	"exec $worker --kind none --poll 0.2 --dead-man 4 --api-url http://\$(cat $dir/address)/v2/ --handler true");
append_to_file("$dir/address", $provider->{address});
my $node = GpuOrch->calling($provider, 'dead_man');

# What the containers printed, which is the simulator's own output.
sub said { return scalar(() = slurp_file($provider->{log}) =~ /$_[0]/g); }

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'],
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
$node->until('a worker lives for longer than its switch takes',
	q{SELECT state = 'active' AND last_heartbeat > registered_at + interval '8 s'
	FROM gpu_orch.workers});
is(said('no heartbeat has reached'), 0, 'which its heartbeats hold');
my ($pod) = $provider->pods;

$provider->fault({call => 'delete', action => 'status', status => 403, count => 1});
$node->stop('immediate');
$node->until('without a database it asks for its end; refused, it says so and exits',
	sub { said('does not stop the bill') });
is(scalar($provider->pods(1)), 1, 'the pod lives on');
$node->until('the next container has the pod deleted', sub { !$provider->pods(1) });
is(said('the provider ends pod "' . $pod->{id} . '" \(HTTP 204\)'), 1, 'and says so');
unlike(slurp_file($provider->{log}), qr/\Q$provider->{key}\E|rpa_[0-9a-f]/, 'no key is in its log');

$node->start;
$node->until('a leader that comes back finds it gone, and makes another',
	q{SELECT count(*) FILTER (WHERE state = 'terminated') = 1
	AND count(*) FILTER (WHERE state = 'active') = 1 FROM gpu_orch.workers});
$node->holds_invariants;

# run_alone(VARIABLE => VALUE, ...): a worker that finds no database, until its switch ends it; its exit code.
sub run_alone
{
	my %environment = @_;
	local %ENV = (%ENV, GPU_ORCH_DSN => 'host=/nonexistent connect_timeout=1', RUNPOD_API_KEY => $provider->{key},
		%environment);
	my $run = IPC::Run::start([ $worker, '--handler', 'true', '--dead-man', '1', '--api-url', "http://$provider->{address}/v2" ],
		'<' => \undef, '>&' => "$dir/alone.log", IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	IPC::Run::finish($run);
	return ($run->full_results)[0] >> 8;
}

# Somebody's own pod, which this worker runs on: it has even a key that would do.
my ($living) = $provider->pods(1);
is(run_alone(RUNPOD_POD_ID => $living->{id}), 69, 'a worker on a pod that no leader made ends itself');
is(scalar($provider->pods(1)), 1, 'and no pod');
unlike(slurp_file("$dir/alone.log"), qr/the provider/, 'it did not even ask');
is(run_alone(GPU_ORCH_INSTALLATION => 'x', RUNPOD_POD_ID => '../pods'), 69, 'nor does one whose pod has no proper id');
is(run_alone(GPU_ORCH_INSTALLATION => 'x', RUNPOD_POD_ID => 'gone'), 69, 'a pod that is gone is no trouble');
like(slurp_file("$dir/alone.log"), qr/ends pod "gone" \(HTTP 404\)/, 'which it says');
my ($out, $err) = run_command([ $worker, '--handler', 'true', '--dead-man', '1', '--api-url', 'http://example.com/v2' ]);
like($err, qr/plain http is for/, 'the key goes to no server in the clear');

$node->stop;
done_testing();
