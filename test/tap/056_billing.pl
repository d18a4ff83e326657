# The bill: read each hour, compared with what we counted, and the last witness of a pod that nothing else shows.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0', '--billing-lag', '0');
my $node = $provider->new_node('billing', '');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }

# Both clocks move, the provider's first: by ours its bill is due, for the hours that it has seen.
sub pass
{
	my ($seconds) = @_;

	$provider->control(POST => 'clock', {advance => $seconds});
	sql("SELECT gpu_orch.advance_clock('$seconds seconds')");
	return;
}

sub spawn
{
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});
	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'a pod is made');
	return ($id, sql("SELECT pod_id FROM gpu_orch.workers WHERE worker_id = '$id'"));
}

sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20, options => '{"policy": "fixed",
	"policy_options": {"fixed_workers": 0, "spawning_grace": 86400, "scale_down_grace": 0}, "spawn_timeout": "60 days"}')});
ok(until_true(q{SELECT account = 'user_sim' FROM gpu_orch.installation}), 'the account is known');

subtest 'the bill is read and stands beside what was counted' => sub {
	my ($id, $pod_id) = spawn();

	$provider->control(POST => 'pods', {foreign => 'somebody-elses'});
	pass(2 * 3600);
	ok(until_true(qq{SELECT count(*) >= 2 AND sum(billed) > 0 FROM gpu_orch.billing WHERE pod_id = '$pod_id' AND pool = 'p'}), 'by the hour');
	is(sql(qq{SELECT count(*) FROM gpu_orch.billing WHERE pod_id <> '$pod_id'}), 0, 'of our pods alone');
	cmp_ok(sql(q{SELECT max(abs(difference)) FROM gpu_orch.billing WHERE hour + interval '1 hour' < gpu_orch.clock()}), '<', 0.01,
		'and it is what we counted');
	$node->append_conf('postgresql.conf', "gpu_orch.reconcile_interval = '600ms'");
	$node->restart;
	ok(until_true(q{SELECT (gpu_orch.status()->'provider'->>'ok')::boolean}), 'another leader reads it again');
	is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'billing_mismatch'}), 0, 'no alert');
};

subtest 'a pod that is billed after it was held for gone' => sub {
	my ($id, $pod_id) = spawn();

	# 204, and nothing shows it any more: but it lives.
	$provider->fault({call => 'delete', action => 'keep_pod', count => 1}, {call => 'list', action => 'empty_list'},
		{call => 'get', action => 'not_found', name => 'denied'});
	sql("SELECT gpu_orch.terminate_worker('$id', true)");
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'it is held for gone');
	is(scalar(grep { $_->{id} eq $pod_id } $provider->pods(1)), 1, 'and lives');
	$provider->control(POST => 'faults', {clear => ['denied']});
	pass(2 * 3600);
	ok($provider->wait_until(sub { !grep { $_->{id} eq $pod_id } $provider->pods(1) }, 'it is deleted'), 'its bill gives it away');
	is(sql("SELECT count(*) FROM gpu_orch.events WHERE kind = 'billed_pod'"), 1, 'which is said');
	ok(until_true("SELECT bool_and(ended_at IS NOT NULL) FROM gpu_orch.spend WHERE pod_id = '$pod_id'"), 'it is proved gone');
	my ($pod) = grep { $_->{id} eq $pod_id } $provider->pods;
	cmp_ok(sql("SELECT sum(extract(epoch FROM ended_at - started_at)) FROM gpu_orch.spend WHERE pod_id = '$pod_id'"), '>=', $pod->{seconds},
		'and was paid for all the time');
	$provider->no_faults;
};

subtest 'a day whose bill is not what was counted' => sub {
	sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 2}}')});
	ok(until_true(q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE state = 'initializing'}), 'two pods are to stay');
	sql(q{UPDATE gpu_orch.spend SET price_micros = price_micros / 2 WHERE ended_at IS NULL});
	$provider->fault({call => 'list', action => 'alter', remove => ['cost']});
	pass(4 * 86400);
	ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'billing_mismatch' AND cleared_at IS NULL
		AND detail ~ 'dollars are billed, and .* were counted'}), 'raises an alert');
	sql(q{UPDATE gpu_orch.spend SET price_micros = price_micros * 2 WHERE ended_at IS NULL});
	sql(q{INSERT INTO gpu_orch.bill (pod_id, hour, amount_micros, read_at) VALUES ('old', gpu_orch.clock() - interval '91 days', 1, gpu_orch.clock())});
	pass(2 * 3600);
	ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE alert = 'billing_mismatch' AND cleared_at IS NULL}), 'which is cleared when they agree');
	ok(until_true(q{SELECT min(hour) > gpu_orch.clock() - interval '91 days' FROM gpu_orch.billing}), 'old bills are forgotten');
	$provider->no_faults;
};

subtest 'a key that may not read the bill' => sub {
	$provider->fault({call => 'billing', action => 'forbidden'});
	pass(2 * 3600);
	ok($provider->wait_until(sub { (grep { $_->{call} eq 'billing' } $provider->requests)[-1]{status} == 403 },
		'it is refused'), 'is refused');
	spawn();
	is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'key_refused' AND cleared_at IS NULL}), 0, 'and creates pods all the same');
	$provider->no_faults;
};

sql(q{SELECT gpu_orch.drop_pool('p')});
ok(until_true(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers}), 'all ends');
is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', 'every invariant holds');
$node->stop;
done_testing();
