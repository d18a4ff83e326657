# Pods that are of no use, each for a reason of its own: nothing ever comes up in it, it has no GPU, its container
# starts again and again, its worker registers and never claims.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());

# Containers of pool "crash" end at once; the others wait, and tell the test what they were given, so that it can
# play their worker.
append_to_file("$dir/boot", <<"EOT");
#!/bin/sh
case \$GPU_ORCH_POOL in crash) exit 1 ;; esac
echo "\$GPU_ORCH_WORKER_ID \$GPU_ORCH_TOKEN \$RUNPOD_POD_ID" > $dir/given.tmp.\$\$
mv $dir/given.tmp.\$\$ $dir/given.\$GPU_ORCH_POOL
exec sleep 1000
EOT
chmod 0755, "$dir/boot";
my $provider = Provider->start('--boot-seconds', '0', '--launch', "$dir/boot");
my $node = GpuOrch->calling($provider, 'useless_pods', 'gpu_orch.reconcile_interval' => '1s');

# A pool that wants one worker.
sub pool
{
	my ($name, $options) = @_;

	$node->sql(qq{SELECT gpu_orch.create_pool('$name', '$name:1', ARRAY['NVIDIA L4'], max_workers => 1,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1},
			"heartbeat_timeout": "1 day"}'::jsonb || '$options')});
	$node->fleet(1, "a pod of $name boots", pool => $name);
	return;
}

# The worker, token and pod id that the pod of a pool was given.
sub given
{
	my ($name) = @_;

	wait_until('the pod tells', sub { -s "$dir/given.$name" });
	return split ' ', slurp_file("$dir/given.$name");
}

# Register the worker of a pod, as if it came from there; returns its session's token.
sub register
{
	my ($worker, $token, $pod) = @_;

	return $node->sql("SELECT token FROM gpu_orch.register_worker('$worker', '$token', '{\"services\": \"cook\"}',
		pod_id => '$pod')");
}

sub time_passes { return $node->sql("SELECT gpu_orch.advance_clock('$_[0]'); SELECT gpu_orch.run_cycle();
	SELECT gpu_orch.reconcile_now(); SELECT gpu_orch.run_cycle()"); }

sub ends_as
{
	my ($name, $cause, $rule) = @_;

	is($node->sql(qq{SELECT coalesce((SELECT ended_because FROM gpu_orch.workers WHERE pool = '$name'
		ORDER BY created_at LIMIT 1), 'lives')}), $cause, "it is ended as $cause");
	is($node->sql(qq{SELECT count(*) FROM gpu_orch.events WHERE kind = '$cause' AND rule = $rule}) > 0, 1,
		'by a rule of its own');
	$node->sql("SELECT gpu_orch.drop_pool('$name')");
	$node->until('and its pod is deleted',
		qq{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE worker_id LIKE '$name-%'});
	return;
}

# Running, and nothing in it.
$provider->fault({call => 'create', action => 'stuck', status => 'RUNNING', match => {pool => 'hollow'}});
pool('hollow', '{"spawn_timeout": "5 minutes"}');
time_passes('4 minutes');
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'hollow'}), 'initializing', 'it may take its time');
time_passes('2 minutes');
ends_as('hollow', 'no_runtime', 280);

# A boot that does not end, in which something runs: that has the old name.
pool('mute', '{"spawn_timeout": "5 minutes"}');
time_passes('6 minutes');
ends_as('mute', 'spawn_timeout', 220);

# No GPU, twice in a row: one list may be wrong.
pool('blind', '{"spawn_timeout": "1 hour"}');
$provider->fault({call => 'list', action => 'alter', set => {gpu => {id => 'NVIDIA L4', count => 0}}, count => 1});
time_passes('1 second');
time_passes('1 second');
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'blind'}), 'initializing',
	'one list without its GPU is not believed');
$provider->fault({call => 'list', action => 'alter', set => {gpu => {id => 'NVIDIA L4', count => 0}}});
time_passes('1 second') for 1 .. 2;
$provider->no_faults;
ends_as('blind', 'no_gpu', 285);

# The container ends and is started again, for ever: its uptime falls back in each list.
pool('crash', '{"spawn_timeout": "1 hour"}');
time_passes('30 seconds') for 1 .. 3;
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'crash'}), 'initializing', 'a few starts are no loop');
time_passes('30 seconds') for 1 .. 5;
ends_as('crash', 'restart_loop', 290);

# The same of a worker that speaks before it ends: registrations pile up.
pool('stutter', '{"spawn_timeout": "1 hour"}');
my @given = given('stutter');
register(@given) for 1 .. 5;
$node->cycle;
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'stutter'}), 'active', 'five registrations may be');
register(@given);
$node->cycle;
ends_as('stutter', 'restart_loop', 315);

# It registers, and never claims, while a task waits that it could claim.
pool('lazy', '{"spawn_timeout": "1 hour"}');
@given = given('lazy');
register(@given);
time_passes('20 minutes');
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'lazy'}), 'active', 'without a task for it a worker may be idle');
$node->sql(q{SELECT gpu_orch.submit_task('sing')});
time_passes('20 minutes') for 1 .. 2;
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'lazy'}), 'active', 'nor is a task of another kind its affair');
my $task = $node->sql(q{SELECT gpu_orch.submit_task('cook')});
time_passes('9 minutes') for 1 .. 2;
time_passes('2 minutes');
ends_as('lazy', 'never_claimed', 305);

# One that has claimed is never ended for that.
pool('tired', '{"spawn_timeout": "1 hour"}');
@given = given('tired');
my $token = register(@given);
my $lease = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('$given[0]', '$token')");
$node->cycle;
$node->sql("SELECT gpu_orch.complete_task('$given[0]', '$token', $task, '$lease')");
$node->sql(q{SELECT gpu_orch.submit_task('cook')});
time_passes('20 minutes') for 1 .. 3;
is($node->sql(q{SELECT state FROM gpu_orch.workers WHERE pool = 'tired'}), 'active',
	'a worker that has claimed is not taken for one that never does');

# Whom it speaks against: the image, but for the missing GPU.
is($node->sql(q{SELECT string_agg(pool || ' ' || round(failed), ', ' ORDER BY pool) FROM (
	SELECT p.name AS pool, s.failed FROM gpu_orch.offer_stats s JOIN gpu_orch.pool p ON p.id = s.pool) x
		WHERE pool IN ('blind', 'tired')}),
	'blind 1, tired 0', 'failures are learned of the offer');
is($node->sql(q{SELECT count(*) FROM gpu_orch.offer o WHERE o.refusals > 0}), 0, 'no offer is passed over for any of it');
$node->holds_invariants;

$node->stop;
done_testing();
