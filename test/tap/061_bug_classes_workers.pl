# The bug classes that recur in systems of this kind, each with the test that kills it, named after its class: those
# in which workers do work, and those between two deployments.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;
use Wire;

my $worker = $ENV{GPU_ORCH_WORKER} // "$FindBin::Bin/../../worker/gpu-orch-worker";
my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
my $provider = Provider->start('--boot-seconds', '0', '--launch',
	"while [ \$GPU_ORCH_POOL = fresh ] && ! [ -e $dir/booted ]; do sleep 0.05; done; "
	  . "exec $worker --kind wait --poll 0.2 --handler 'cat > /dev/null; while ! [ -e $dir/go ]; do sleep 0.05; done; echo {}'");
my $node = GpuOrch->calling($provider, 'working', max_connections => 100, 'gpu_orch.heartbeat_timeout' => '1d');

sub creates { return $provider->ledger->{totals}{creates}; }

sub end_pool
{
	my ($name) = @_;

	$node->sql("SELECT gpu_orch.drop_pool('$name')");
	$node->until('all ends', sub {
		$node->advance('10 seconds');
		return $node->sql(q{SELECT coalesce(bool_and(state = 'terminated'), true) FROM gpu_orch.workers
			WHERE origin = 'cloud'}) eq 't';
	});
	is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
	$node->holds_invariants;
	return;
}

subtest 'draining counted as capacity' => sub {
	$node->sql(q{SELECT gpu_orch.create_pool('drain', 'image:1', ARRAY['NVIDIA L4'], max_workers => 2,
		options => '{"policy": "one_to_one"}');
		SELECT gpu_orch.submit_task('wait')});
	$node->until('a worker is busy', q{SELECT count(*) = 1 FROM gpu_orch.tasks WHERE state = 'running'});
	my $first = $node->sql(q{SELECT worker_id FROM gpu_orch.workers WHERE state = 'active'});
	my $before = creates();
	$node->sql("SELECT gpu_orch.drain_worker('$first')");
	$node->sql(q{SELECT gpu_orch.submit_task('wait')});
	$node->until('the next task runs while it drains',
		q{SELECT count(*) = 2 FROM gpu_orch.tasks WHERE state = 'running'});
	is(creates() - $before, 1, 'in one new pod');
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$first'"), 'draining', 'the first still drains');
	append_to_file("$dir/go", '');
	$node->until('both tasks are done', q{SELECT bool_and(state = 'succeeded') FROM gpu_orch.tasks});
	unlink "$dir/go";
	end_pool('drain');
};

subtest 'fresh worker killed as idle before its first task' => sub {
	$node->sql(q{SELECT gpu_orch.create_pool('fresh', 'image:1', ARRAY['NVIDIA L4'], max_workers => 1,
		options => '{"policy": "one_to_one", "idle_timeout": 0, "policy_options": {"scale_down_grace": 0, "drain_settle": 0}}')});
	my $id = $node->spawn('fresh', 'a pod boots');
	$node->advance('2 minutes');
	append_to_file("$dir/booted", '');
	$node->until('for two minutes',
		"SELECT state <> 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'");
	$node->cycle(5);
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$id'"), 'active',
		'it is given as long for a first task, whatever the idle timeout');
	$node->sql(q{SELECT gpu_orch.advance_clock('4 minutes'); SELECT gpu_orch.run_cycle()});
	$node->until('and no longer',
		"SELECT state NOT IN ('initializing', 'active') FROM gpu_orch.workers WHERE worker_id = '$id'");
	end_pool('fresh');
};

subtest 'minimum vs idle timeout recreate loop' => sub {
	$node->sql(q{SELECT gpu_orch.create_pool('minimum', 'image:1', ARRAY['NVIDIA L4'], min_workers => 1, max_workers => 3,
		options => '{"idle_timeout": "1 minute", "heartbeat_timeout": "2 days", "policy_options": {"scale_down_grace": 0}}')});
	$node->fleet(1, 'the minimum is there', pool => 'minimum', state => 'active');
	my $one = $node->sql(q{SELECT worker_id FROM gpu_orch.workers WHERE pool = 'minimum'});
	my $before = creates();
	for (1 .. 48)
	{
		$node->advance('30 minutes');
		$node->cycle;
	}
	is($node->sql(q{SELECT string_agg(worker_id || ' ' || state, ',') FROM gpu_orch.workers WHERE pool = 'minimum'}),
		"$one active",
		'after a day of idleness it is the same worker');
	is(creates(), $before, 'and nothing was created');
	end_pool('minimum');
};

subtest 'preemption/fairness oscillation' => sub {
	srand 5;
	$node->sql(q{SELECT gpu_orch.create_tenant('light', weight => 1), gpu_orch.create_tenant('heavy', weight => 3)});
	my @tokens = map { $node->sql(qq{SELECT token FROM gpu_orch.register_worker('fair$_',
		capabilities => '{"services": ["fair"]}')}) } 0 .. 3;
	my (%held, %done, $moved);
	$node->sql(q{SELECT count(gpu_orch.submit_task('fair', tenant => t))
		FROM unnest(ARRAY['light', 'heavy']) t, generate_series(1, 150)});
	for my $turn (1 .. 160)
	{
		my $n = int rand 4;

		if (my $lease = delete $held{$n})
		{
			$node->sql("SELECT gpu_orch.complete_task('fair$n', '$tokens[$n]', $lease->[0], '$lease->[1]')") eq 't' or $moved++;
			$done{ $lease->[2] }++;
		}
		my @row = split /\|/, $node->sql("SELECT task_id, lease, tenant FROM gpu_orch.claim_tasks('fair$n', '$tokens[$n]')");
		$held{$n} = \@row if @row;
		$node->cycle if $turn % 40 == 0;
	}
	is($moved // 0, 0, 'what runs is never taken away for the sake of a share');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.attempts a JOIN gpu_orch.tasks t USING (task_id)
		WHERE t.kind = 'fair' AND a.outcome <> 'succeeded'}), 0,
		'no attempt ends before its time');
	cmp_ok($done{heavy}, '>=', 2 * $done{light}, "the shares are as the weights: $done{heavy} to $done{light}");
	cmp_ok($done{light}, '>', 0, 'and nobody starves');
	$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE state = 'ready'});
	for my $n (keys %held)
	{
		$node->sql("SELECT gpu_orch.complete_task('fair$n', '$tokens[$n]', $held{$n}[0], '$held{$n}[1]')");
	}
	$node->sql(q{SELECT gpu_orch.terminate_worker(worker_id) FROM gpu_orch.workers WHERE worker_id LIKE 'fair%'});
	$node->holds_invariants;
};

subtest 'busy worker killed at scale-in' => sub {
	my @sessions = map { Wire->new($node, 'app') } 0, 1;
	my $lost = 0;
	my $ask = sub { my ($n, $query) = @_; $sessions[$n]->send_query($query); return $sessions[$n]->answer; };

	for my $turn (1 .. 20)
	{
		my $id = "race$turn";
		my $token = $node->sql(qq{SELECT token FROM gpu_orch.register_worker('$id', capabilities => '{"services": ["race"]}')});
		my $task = $node->sql(q{SELECT gpu_orch.submit_task('race')});
		my @calls = ("SELECT lease FROM gpu_orch.claim_tasks('$id', '$token')", "SELECT gpu_orch.drain_worker('$id')");
		my ($first, $second) = $turn % 2 ? (0, 1) : (1, 0);

		# The first stays uncommitted while the second runs.
		$ask->($first, 'BEGIN');
		my $answer = $ask->($first, $calls[$first]);
		$sessions[$second]->send_query($calls[$second]);
		$sessions[$second]->is_answered(0.05);
		$ask->($first, 'COMMIT');
		my @answers = ($answer, $sessions[$second]->answer);
		my $lease = $answers[ $first == 0 ? 0 : 1 ]{rows}[0][0];
		$node->cycle;
		if ($lease)
		{
			$lost++ if ($node->sql("SELECT gpu_orch.complete_task('$id', '$token', $task, '$lease')") // '') ne 't';
		}
		else
		{
			$node->sql("SELECT gpu_orch.cancel_task($task)");
		}
	}
	is($lost, 0, 'whoever came to hold a task may finish it');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.attempts a JOIN gpu_orch.tasks t USING (task_id)
		WHERE t.kind = 'race' AND a.outcome NOT IN ('succeeded', 'cancelled')}), 0,
		'no attempt is lost');
	$node->until('and then they end', sub {
		$node->advance('10 seconds');
		return $node->sql(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE worker_id LIKE 'race%'}) eq 't';
	});
	$node->holds_invariants;
};

# What a pod was asked for, as the provider shows it.
sub shown
{
	my ($pod) = @_;
	my $answer = HTTP::Tiny->new->get("http://$provider->{address}/v2/pods/$pod",
		{headers => {Authorization => "Bearer $provider->{key}"}});

	return decode_json($answer->{content});
}

subtest 'config ignored' => sub {
	$node->sql(q{SELECT gpu_orch.create_pool('knobs', 'image:1', ARRAY['NVIDIA L4'], max_workers => 4,
		options => '{"policy": "fixed", "spawn_timeout": "2 days"}')});
	my $pod = sub {
		my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('knobs')});
		$node->until('a pod comes',
			"SELECT state = 'done' FROM gpu_orch.cloud_ops WHERE kind = 'create' AND worker = '$id'")
			or diag($node->sql("SELECT state, reason, message FROM gpu_orch.cloud_ops WHERE worker = '$id'"));
		my $shown = shown($node->sql("SELECT pod_id FROM gpu_orch.workers WHERE worker_id = '$id'"));
		$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
		return $shown;
	};
	$node->sql(q{SELECT gpu_orch.alter_pool('knobs', '{"image": "image:2", "gpu_types": ["NVIDIA GeForce RTX 4090"],
		"gpu_count": 2,
		"data_centers": ["US-TX-3"], "container_disk_gb": 33, "env": {"KNOB": "turned"}, "ports": ["8188/http"],
			"args": "--knob"}')});
	$node->until('the offers have prices',
		q{SELECT bool_and(price_per_hour IS NOT NULL) FROM gpu_orch.offers WHERE pool = 'knobs'});
	my $shown = $pod->();
	is($shown->{image}, 'image:2', 'image');
	is($shown->{gpu}{id}, 'NVIDIA GeForce RTX 4090', 'gpu_types');
	is($shown->{gpu}{count}, 2, 'gpu_count');
	is($shown->{dataCenterId}, 'US-TX-3', 'data_centers');
	is($shown->{disk}, 33, 'container_disk_gb');
	is($shown->{env}{KNOB}, 'turned', 'env');
	like(encode_json($shown->{ports} // []), qr/8188/, 'ports');
	is($shown->{args}, '--knob', 'args');

	# What changes the decision: the option, the term of explain_scaling(), and what it must be.
	for my $knob (
		[ 'min_workers', '{"min_workers": 1}', 'min_workers', 1 ],
		[ 'max_workers', '{"max_workers": 3}', 'max_workers', 3 ],
		[ 'fixed_workers', '{"policy_options": {"fixed_workers": 2}, "max_workers": 1}', 'fixed', 2 ],
		[ 'idle_buffer', '{"policy": "one_to_one", "idle_buffer": 3}', 'busy_plus_buffer', 3 ],
		[ 'max_create_per_cycle', '{"policy_options": {"max_create_per_cycle": 1}, "max_workers": 4}',
			'max_create_per_cycle', 1 ],
		[ 'scale_down_grace', '{"policy_options": {"scale_down_grace": 17}}', 'scale_down_grace', 17 ],
		[ 'spawning_grace', '{"policy_options": {"spawning_grace": 18}}', 'spawning_grace', 18 ],
		[ 'tasks_per_worker', '{"policy": "queue_ratio", "policy_options": {"tasks_per_worker": 9}}', 'tasks_per_worker', 9 ],
		[ 'max_workers, the emergency stop', '{"min_workers": 0, "max_workers": 0}', 'desired', 0 ])
	{
		my ($name, $options, $term, $value) = @$knob;

		$node->sql("SELECT gpu_orch.pause(); SELECT gpu_orch.alter_pool('knobs', '$options')");
		is($node->sql("SELECT value::int FROM gpu_orch.explain_scaling('knobs') WHERE term = '$term'"), $value, $name);
	}
	for my $limit ([ 'max_price_per_hour', '{"max_workers": 4, "max_price_per_hour": 0.0001}' ],
		[ 'budget_per_hour', '{"max_price_per_hour": null, "budget_per_hour": 0}' ])
	{
		$node->sql("SELECT gpu_orch.resume(); SELECT gpu_orch.alter_pool('knobs', '{\"max_workers\": 0}')");
		$node->sql("SELECT gpu_orch.alter_pool('knobs', '{\"policy\": \"fixed\", \"policy_options\": {}}')");
		$node->sql("SELECT gpu_orch.alter_pool('knobs', '$limit->[1]')");
		isnt($node->sqlstate(q{SELECT gpu_orch.spawn_worker('knobs')}), '', $limit->[0]);
	}
	end_pool('knobs');
};

subtest 'unknown pods on a shared account' => sub {
	my $other = GpuOrch->calling($provider, 'other', 'gpu_orch.orphan_grace' => '0');

	$node->append_conf('postgresql.conf', "gpu_orch.orphan_grace = '0'");
	$node->reload;
	for my $one ($node, $other)
	{
		$one->sql(q{SELECT gpu_orch.create_pool('shared', 'image:1', ARRAY['NVIDIA L4'], max_workers => 2,
			options => '{"policy": "fixed", "policy_options": {"fixed_workers": 2}, "spawn_timeout": "2 days"}')});
	}
	$provider->control(POST => 'pods', {foreign => 'by-hand'});
	for my $one ($node, $other)
	{
		$one->until('each has its pods',
			q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE pool = 'shared' AND pod_id IS NOT NULL});
	}
	my $before = join ' ', sort map { $_->{id} } $provider->pods(1);
	is(scalar(split / /, $before), 4, 'four in all');
	for (1 .. 4)
	{
		for my $one ($node, $other)
		{
			$one->advance('6 seconds');
			like($one->sql('SELECT gpu_orch.reconcile_now()'), qr/"foreign": 3/, 'the other three are seen');
		}
	}
	is(join(' ', sort map { $_->{id} } $provider->pods(1)), $before, 'and nobody touches them');
	$other->sql(q{SELECT gpu_orch.drop_pool('shared')});
	$other->all_end('one of them ends its own');
	is(scalar(my @others = $provider->pods(1)), 2, 'and those of the other live');
	end_pool('shared');
	is(scalar(grep { $_->{foreign} && !defined $_->{deleted_at} } @{$provider->ledger->{pods}}), 1,
		'nor the pod that somebody made by hand');
	$other->stop;
};

$node->stop;
done_testing();
