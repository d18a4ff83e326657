# An image whose pods never come up: what it costs in a day, who is blamed for it, and how it comes back. And
# requests that are refused: for lack of capacity, or because they are wrong.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
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
my $node = $provider->new_node('broken_image', "gpu_orch.reconcile_interval = '1s'");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }

# All that was asked of the provider is done, and the leader has seen it.
sub settle
{
	for (1 .. 100)
	{
		$node->psql('postgres', $_, stdout => \my $ignored)
			for 'SELECT gpu_orch.run_cycle()', 'SELECT gpu_orch.reconcile_now()', 'SELECT gpu_orch.run_cycle()';
		return if sql(q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_ops WHERE state IN ('sent', 'unknown')
				OR state = 'planned' AND coalesce(due_at <= gpu_orch.clock(), true))
			AND NOT EXISTS (SELECT 1 FROM gpu_orch.workers WHERE state = 'terminating')}) eq 't';
	}
	die 'it does not settle';
}

sub pass
{
	my $seconds = shift() + 0;

	$provider->control(POST => 'clock', {advance => $seconds});
	sql("SELECT gpu_orch.advance_clock(make_interval(secs => $seconds))");
	settle();
	return $seconds;
}

# A day: 30 tasks wait, for a pool that may have ten workers; another pool has the same image and a minimum of one.
subtest 'run-away init errors burning money' => sub {
	sql(q{SELECT gpu_orch.create_pool('queue', 'broken:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 10);
		SELECT gpu_orch.create_pool('least', 'broken:1', ARRAY['NVIDIA L4'], min_workers => 1, max_workers => 2);
		SELECT gpu_orch.submit_tasks(jsonb_agg(jsonb_build_object('kind', 'any'))) FROM generate_series(1, 30)});
	ok(until_true(q{SELECT count(*) >= 11 FROM gpu_orch.workers WHERE state = 'initializing'}), 'pods boot');
	settle();
	my ($passed, $most) = (0, 0);
	while ($passed < 86400)
	{
		# To the next thing that happens: a spawn timeout, or the time of a canary.
		my $next = sql(q{SELECT ceil(extract(epoch FROM least(
				(SELECT min(state_since) + interval '601 seconds' FROM gpu_orch.workers WHERE state = 'initializing'),
				(SELECT min(retry_at) + interval '1 second' FROM gpu_orch.image_breakers
				 WHERE state = 'open' AND retry_at > gpu_orch.clock())) - gpu_orch.clock()))});

		$next = 60 if $next eq '' || $next < 1;
		$passed += pass($next < 1800 ? $next : 1800);
		my $live = sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state <> 'terminated'});
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
is(sql(q{SELECT count(*) FROM gpu_orch.offers WHERE refusals > 0 OR passed_over OR failed > 3}), 0, 'no offer is blamed');
is(sql(q{SELECT string_agg(format('%s %s', level, cleared_at IS NULL), ',') FROM gpu_orch.alerts WHERE alert = 'image_broken' AND subject = 'broken:1'}),
	'critical t', 'one alert tells of it, all day');
like(sql(q{SELECT state || ' ' || failures || ' ' || last_cause || ' ' || array_to_string(pools, ',') FROM gpu_orch.image_breakers WHERE image = 'broken:1'}),
	qr/^(open|half_open) \d+ spawn_timeout queue,least$/, 'the view shows its breaker');
pass(sql(q{SELECT 60 * CASE WHEN state = 'half_open' THEN 11 ELSE 0 END + 1 FROM gpu_orch.image_breakers}));
is(sql(q{SELECT term || ' ' || value FROM gpu_orch.explain_scaling('queue') WHERE bound}), 'image_breaker 0', 'explain_scaling says so');
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT gpu_orch.spawn_worker('queue')});
like($err, qr/pods of its image failed in a row/, 'nor can an operator spawn');

# Mended: alter_pool has it tried at once, the canary comes up, and all the others follow.
append_to_file("$dir/mended", '');
sql(q{SELECT gpu_orch.alter_pool('queue', '{}')});
ok(until_true(q{SELECT count(*) = 30 FROM gpu_orch.tasks WHERE state = 'succeeded'}), 'mended, the tasks are done');
ok(until_true(q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.image_breakers)}), 'its breaker is closed');
ok(until_true(q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'image_broken'}), 'and the alert is cleared');
ok(until_true(q{SELECT bool_or(ready > 0 AND boot_p95 IS NOT NULL) FROM gpu_orch.offers}), 'what pods take to boot is learned');
sql(q{SELECT gpu_orch.drop_pool('queue'); SELECT gpu_orch.drop_pool('least')});

# An image that the provider does not find: three creates, then one at a time; offers are not passed over.
$provider->fault({call => 'create', image => 'nowhere:*', action => 'bad_image'});
my $before = sql('SELECT count(*) FROM gpu_orch.cloud_ops');
sql(q{SELECT gpu_orch.create_pool('nowhere', 'nowhere:1', ARRAY['NVIDIA L4'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
ok(until_true(q{SELECT state = 'open' AND last_cause = 'image' FROM gpu_orch.image_breakers WHERE image = 'nowhere:1'}), 'an image that is nowhere opens its breaker');
is(sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'nowhere'}), 3, 'after three creates');
is(sql(q{SELECT refusals FROM gpu_orch.offers WHERE pool = 'nowhere'}), 0, 'and the offer is not blamed');
sql(q{SELECT gpu_orch.alter_pool('nowhere', '{"image": "elsewhere:1"}')});
ok(until_true(q{SELECT NOT EXISTS (SELECT 1 FROM gpu_orch.image_breakers)}), 'another image is another breaker');
sql(q{SELECT gpu_orch.drop_pool('nowhere')});

# The same refusal from every offer, and no word of capacity: the request is wrong, and is not repeated.
$provider->fault({call => 'create', match => {pool => 'wrong'}, action => 'status', status => 400, title => 'Bad Request',
	detail => 'The volume cannot be mounted there.'});
sql(q{SELECT gpu_orch.create_pool('wrong', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
for (1 .. 10)
{
	last if sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'request_refused' AND subject = 'wrong' AND cleared_at IS NULL}) > 0;
	pass(120);
}
like(sql(q{SELECT detail FROM gpu_orch.alerts WHERE alert = 'request_refused' AND cleared_at IS NULL}), qr/^2 offers: .*cannot be mounted/,
	'a request that every offer calls wrong raises its alert');
is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'no_capacity' OR alert = 'image_broken' AND subject = 'image:1'}), 0, 'and no other');
is(sql(q{SELECT term FROM gpu_orch.explain_scaling('wrong') WHERE bound}), 'request_refused', 'explain_scaling says so');
$before = sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'wrong'});
cmp_ok($before, '<=', 4, 'after a few creates');
pass(3600) for 1 .. 3;
is(sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'wrong'}), $before, 'the pool stops');
$provider->no_faults;
sql(q{SELECT gpu_orch.alter_pool('wrong', '{"container_disk_gb": 20}')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'wrong' AND state IN ('initializing', 'active')}), 'until it is altered');
is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'request_refused' AND cleared_at IS NULL}), 0, 'and its alert is cleared');
sql(q{SELECT gpu_orch.drop_pool('wrong')});

# No capacity anywhere: another alert, and the pool goes on asking.
$provider->fault({call => 'create', match => {pool => 'starved'}, action => 'no_capacity'});
sql(q{SELECT gpu_orch.create_pool('starved', 'image:1', ARRAY['NVIDIA L4', 'NVIDIA A40'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}}')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'no_capacity' AND subject = 'starved' AND cleared_at IS NULL}),
	'a lack of capacity raises its own alert');
pass(600) for 1 .. 3;
cmp_ok(sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'starved'}), '>', 4, 'and is no reason to stop');
is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'request_refused' AND subject = 'starved'}), 0, 'as the request is right');
is(sql(q{SELECT bool_and(no_capacity > 1 AND refused_for = 'capacity') FROM gpu_orch.offers WHERE pool = 'starved'}), 't', 'the offers show it');
$provider->no_faults;
pass(900);
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'starved' AND state IN ('initializing', 'active')}), 'the pod comes');
ok(until_true(q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'no_capacity'}), 'and the alert is cleared');

is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', 'every invariant holds');

$node->stop;
done_testing();
