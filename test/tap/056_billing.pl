# The bill: read each hour, compared with what we counted, and the last witness of a pod that nothing else shows.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0', '--billing-lag', '0');
my $node = GpuOrch->calling($provider, 'billing');

# Both clocks move, the provider's first: by ours its bill is due, for the hours that it has seen.
sub time_passes
{
	my ($seconds) = @_;

	$provider->control(POST => 'clock', {advance => $seconds});
	$node->sql("SELECT gpu_orch.advance_clock('$seconds seconds')");
	return;
}

sub spawn
{
	my $id = $node->spawn('p');
	return ($id, $node->sql("SELECT pod_id FROM gpu_orch.workers WHERE worker_id = '$id'"));
}

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20, options => '{"policy": "fixed",
	"policy_options": {"fixed_workers": 0, "spawning_grace": 86400, "scale_down_grace": 0}, "spawn_timeout": "60 days"}')});
$node->until('the account is known', q{SELECT account = 'user_sim' FROM gpu_orch.installation});

subtest 'the bill is read and stands beside what was counted' => sub {
	my ($id, $pod_id) = spawn();

	$provider->control(POST => 'pods', {foreign => 'somebody-elses'});
	time_passes(2 * 3600);
	$node->until('by the hour',
		qq{SELECT count(*) >= 2 AND sum(billed) > 0 FROM gpu_orch.billing WHERE pod_id = '$pod_id' AND pool = 'p'});
	is($node->sql(qq{SELECT count(*) FROM gpu_orch.billing WHERE pod_id <> '$pod_id'}), 0, 'of our pods alone');
	cmp_ok($node->sql(q{SELECT max(abs(difference)) FROM gpu_orch.billing
		WHERE hour + interval '1 hour' < gpu_orch.clock()}), '<', 0.01,
		'and it is what we counted');
	$node->append_conf('postgresql.conf', "gpu_orch.reconcile_interval = '600ms'");
	$node->restart;
	$node->until('another leader reads it again', q{SELECT (gpu_orch.status()->'provider'->>'ok')::boolean});
	is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'billing_mismatch'}), 0, 'no alert');
};

subtest 'a pod that is billed after it was held for gone' => sub {
	my ($id, $pod_id) = spawn();

	# 204, and nothing shows it any more: but it lives.
	$provider->fault({call => 'delete', action => 'keep_pod', count => 1}, {call => 'list', action => 'empty_list'},
		{call => 'get', action => 'not_found', name => 'denied'});
	$node->ends($id, 'it is held for gone');
	is(scalar(grep { $_->{id} eq $pod_id } $provider->pods(1)), 1, 'and lives');
	$provider->control(POST => 'faults', {clear => ['denied']});
	time_passes(2 * 3600);
	$node->until('its bill gives it away', sub { !grep { $_->{id} eq $pod_id } $provider->pods(1) });
	is($node->sql("SELECT count(*) FROM gpu_orch.events WHERE kind = 'billed_pod'"), 1, 'which is said');
	$node->until('it is proved gone',
		"SELECT bool_and(ended_at IS NOT NULL) FROM gpu_orch.spend WHERE pod_id = '$pod_id'");
	my ($pod) = grep { $_->{id} eq $pod_id } $provider->pods;
	cmp_ok($node->sql("SELECT sum(extract(epoch FROM ended_at - started_at)) FROM gpu_orch.spend
		WHERE pod_id = '$pod_id'"), '>=', $pod->{seconds},
		'and was paid for all the time');
	$provider->no_faults;
};

subtest 'a day whose bill is not what was counted' => sub {
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 2}}')});
	$node->fleet(2, 'two pods are to stay');
	$node->sql(q{UPDATE gpu_orch.spend SET price_micros = price_micros / 2 WHERE ended_at IS NULL});
	$provider->fault({call => 'list', action => 'alter', remove => ['cost']});
	time_passes(4 * 86400);
	$node->until('raises an alert',
		q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'billing_mismatch' AND cleared_at IS NULL
		AND detail ~ 'dollars are billed, and .* were counted'});
	$node->sql(q{UPDATE gpu_orch.spend SET price_micros = price_micros * 2 WHERE ended_at IS NULL});
	$node->sql(q{INSERT INTO gpu_orch.bill (pod_id, hour, amount_micros, read_at) VALUES ('old',
		gpu_orch.clock() - interval '91 days', 1, gpu_orch.clock())});
	time_passes(2 * 3600);
	$node->alerts(0, 'billing_mismatch', 'which is cleared when they agree');
	$node->until('old bills are forgotten',
		q{SELECT min(hour) > gpu_orch.clock() - interval '91 days' FROM gpu_orch.billing});
	$provider->no_faults;
};

subtest 'a key that may not read the bill' => sub {
	$provider->fault({call => 'billing', action => 'forbidden'});
	time_passes(2 * 3600);
	$node->until('is refused',
		sub { (grep { $_->{call} eq 'billing' } $provider->requests)[-1]{status} == 403 });
	spawn();
	is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'key_refused' AND cleared_at IS NULL}), 0,
		'and creates pods all the same');
	$provider->no_faults;
};

$node->sql(q{SELECT gpu_orch.drop_pool('p')});
$node->all_end('all ends');
is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
$node->holds_invariants;
$node->stop;
done_testing();
