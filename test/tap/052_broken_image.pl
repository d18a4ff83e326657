# An image whose pods never come up: what it costs in a day, who is blamed for it, and how it comes back. And
# requests that are refused: for lack of capacity, or because they are wrong.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $worker = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());

# Containers hang until the image is mended.
append_to_file("$dir/boot", <<"EOT");
#!/bin/sh
while ! [ -e $dir/mended ]; do sleep 0.5; done
exec $worker --kind any --poll 0.2 --handler 'cat > /dev/null; echo {}'
EOT
chmod 0755, "$dir/boot";
my $provider = Provider->start('--boot-seconds', '0', '--launch', "$dir/boot");
my $node = GpuOrch->calling($provider, 'broken_image', 'gpu_orch.reconcile_interval' => '1s');

# All that was asked of the provider is done, and the leader has seen it.
sub settle
{
	for (1 .. 100)
	{
		$node->psql('app', $_, stdout => \my $ignored)
			for 'SELECT gpu_orch.run_cycle()', 'SELECT gpu_orch.reconcile_now()', 'SELECT gpu_orch.run_cycle()';
		return if $node->sql(q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_ops WHERE state IN ('sent', 'unknown')
				OR state = 'planned' AND coalesce(due_at <= gpu_orch.clock(), true))
			AND NOT EXISTS (SELECT 1 FROM gpu_orch.workers WHERE state = 'terminating')}) eq 't';
	}
	die 'it does not settle';
}

sub time_passes
{
	my $seconds = shift() + 0;

	$provider->control(POST => 'clock', {advance => $seconds});
	$node->sql("SELECT gpu_orch.advance_clock(make_interval(secs => $seconds))");
	settle();
	return $seconds;
}

# A day: 30 tasks wait, for a pool that may have ten workers; another pool has the same image and a minimum of one.
subtest 'run-away init errors burning money' => sub {
	$node->sql(q{SELECT gpu_orch.create_pool('queue', 'broken:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 10);
		SELECT gpu_orch.create_pool('least', 'broken:1', ARRAY['NVIDIA L4'], min_workers => 1, max_workers => 2);
		SELECT gpu_orch.submit_tasks(jsonb_agg(jsonb_build_object('kind', 'any'))) FROM generate_series(1, 30)});
	$node->until('pods boot', q{SELECT count(*) >= 11 FROM gpu_orch.workers WHERE state = 'initializing'});
	settle();
	my ($passed, $most) = (0, 0);
	while ($passed < 86400)
	{
		# To the next thing that happens: a spawn timeout, or the time of a canary.
		my $next = $node->sql(q{SELECT ceil(extract(epoch FROM least(
				(SELECT min(state_since) + interval '601 seconds' FROM gpu_orch.workers WHERE state = 'initializing'),
				(SELECT min(retry_at) + interval '1 second' FROM gpu_orch.image_breakers
				 WHERE state = 'open' AND retry_at > gpu_orch.clock())) - gpu_orch.clock()))});

		$next = 60 if $next eq '' || $next < 1;
		$passed += time_passes($next < 1800 ? $next : 1800);
		my $live = $node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state <> 'terminated'});
		$most = $live if $passed > 3600 && $live > $most;
	}
	my @pods = $provider->pods;
	my $hours = 0;
	$hours += $_->{seconds} / 3600 for @pods;
	note(sprintf '%d pods, %.2f GPU-hours, in %.1f hours', scalar @pods, $hours, $passed / 3600);
	cmp_ok(scalar @pods, '<', 60, 'a broken image costs fewer than 60 pods a day');
	cmp_ok($hours, '<', 5, 'and fewer than 5 GPU-hours');
	cmp_ok(scalar @pods, '>', 15, 'it is tried again and again');
	is($most, 1, 'one pod at a time');
};
is($node->sql(q{SELECT count(*) FROM gpu_orch.offers WHERE refusals > 0 OR passed_over OR failed > 3}), 0, 'no offer is blamed');
is($node->sql(q{SELECT string_agg(format('%s %s', level, cleared_at IS NULL), ',') FROM gpu_orch.alerts
	WHERE alert = 'image_broken' AND subject = 'broken:1'}),
	'critical t', 'one alert tells of it, all day');
like($node->sql(q{SELECT state || ' ' || failures || ' ' || last_cause || ' ' || array_to_string(pools, ',')
	FROM gpu_orch.image_breakers WHERE image = 'broken:1'}),
	qr/^(open|half_open) \d+ spawn_timeout queue,least$/, 'the view shows its breaker');
time_passes($node->sql(q{SELECT 60 * CASE WHEN state = 'half_open' THEN 11 ELSE 0 END + 1 FROM gpu_orch.image_breakers}));
is($node->sql(q{SELECT term || ' ' || value FROM gpu_orch.explain_scaling('queue') WHERE bound}), 'image_breaker 0',
	'explain_scaling says so');
like($node->refusal(q{SELECT gpu_orch.spawn_worker('queue')}), qr/pods of its image failed in a row/,
	'nor can an operator spawn');

# Mended: alter_pool has it tried at once, the canary comes up, and all the others follow.
append_to_file("$dir/mended", '');
$node->sql(q{SELECT gpu_orch.alter_pool('queue', '{}')});
$node->until('mended, the tasks are done',
	q{SELECT count(*) = 30 FROM gpu_orch.tasks WHERE state = 'succeeded'});
$node->until('its breaker is closed', q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.image_breakers)});
$node->until('and the alert is cleared',
	q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'image_broken'});
$node->until('what pods take to boot is learned',
	q{SELECT bool_or(ready > 0 AND boot_p95 IS NOT NULL) FROM gpu_orch.offers});
$node->sql(q{SELECT gpu_orch.drop_pool('queue'); SELECT gpu_orch.drop_pool('least')});

# An image that the provider does not find: three creates, then one at a time; offers are not passed over.
$provider->fault({call => 'create', image => 'nowhere:*', action => 'bad_image'});
my $before = $node->sql('SELECT count(*) FROM gpu_orch.cloud_ops');
$node->sql(q{SELECT gpu_orch.create_pool('nowhere', 'nowhere:1', ARRAY['NVIDIA L4'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
$node->until('an image that is nowhere opens its breaker',
	q{SELECT state = 'open' AND last_cause = 'image' FROM gpu_orch.image_breakers WHERE image = 'nowhere:1'});
is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'nowhere'}), 3, 'after three creates');
is($node->sql(q{SELECT refusals FROM gpu_orch.offers WHERE pool = 'nowhere'}), 0, 'and the offer is not blamed');
$node->sql(q{SELECT gpu_orch.alter_pool('nowhere', '{"image": "elsewhere:1"}')});
$node->until('another image is another breaker', q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.image_breakers)});
$node->sql(q{SELECT gpu_orch.drop_pool('nowhere')});

# The same refusal from every offer, and no word of capacity: the request is wrong, and is not repeated.
$provider->fault({call => 'create', match => {pool => 'wrong'}, action => 'status', status => 400, title => 'Bad Request',
	detail => 'The volume cannot be mounted there.'});
$node->sql(q{SELECT gpu_orch.create_pool('wrong', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
for (1 .. 10)
{
	last if $node->sql(q{SELECT count(*) FROM gpu_orch.alerts
		WHERE alert = 'request_refused' AND subject = 'wrong' AND cleared_at IS NULL}) > 0;
	time_passes(120);
}
like($node->sql(q{SELECT detail FROM gpu_orch.alerts WHERE alert = 'request_refused' AND cleared_at IS NULL}),
	qr/^2 offers: .*cannot be mounted/,
	'a request that every offer calls wrong raises its alert');
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'no_capacity' OR alert = 'image_broken'
	AND subject = 'image:1'}), 0, 'and no other');
is($node->sql(q{SELECT term FROM gpu_orch.explain_scaling('wrong') WHERE bound}), 'request_refused', 'explain_scaling says so');
$before = $node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'wrong'});
cmp_ok($before, '<=', 4, 'after a few creates');
time_passes(3600) for 1 .. 3;
is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'wrong'}), $before, 'the pool stops');
$provider->no_faults;
$node->sql(q{SELECT gpu_orch.alter_pool('wrong', '{"container_disk_gb": 20}')});
$node->until('until it is altered',
	q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'wrong' AND state IN ('initializing', 'active')});
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'request_refused' AND cleared_at IS NULL}), 0,
	'and its alert is cleared');
$node->sql(q{SELECT gpu_orch.drop_pool('wrong')});

# No capacity anywhere: another alert, and the pool goes on asking.
$provider->fault({call => 'create', match => {pool => 'starved'}, action => 'no_capacity'});
$node->sql(q{SELECT gpu_orch.create_pool('starved', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
$node->until('a lack of capacity raises its own alert',
	q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'no_capacity' AND subject = 'starved' AND cleared_at IS NULL});
time_passes(600) for 1 .. 3;
cmp_ok($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'starved'}), '>', 4, 'and is no reason to stop');
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'request_refused' AND subject = 'starved'}), 0,
	'as the request is right');
is($node->sql(q{SELECT bool_and(no_capacity > 1 AND refused_for = 'capacity') FROM gpu_orch.offers
	WHERE pool = 'starved'}), 't', 'the offers show it');
$provider->no_faults;
time_passes(900);
$node->until('the pod comes',
	q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'starved' AND state IN ('initializing', 'active')});
$node->until('and the alert is cleared',
	q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'no_capacity'});

$node->holds_invariants;

$node->stop;
done_testing();
