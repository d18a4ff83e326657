# The bug classes that recur in systems of this kind, each with the test that kills it, named after its class: those
# that need no worker in the pods. 061_bug_classes_workers.pl has the others.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;
use Wire;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'classes', max_connections => 100, 'gpu_orch.settle_time' => '90s');

sub creates { return $provider->ledger->{totals}{creates}; }

# pool(NAME, MAX, OPTIONS): a pool that creates nothing by itself, unless the options say so.
sub pool
{
	my ($name, $max, $options, @types) = @_;
	my $types = join ', ', map { "'$_'" } @types ? @types : 'NVIDIA GeForce RTX 4090';

	$node->sql(qq{SELECT gpu_orch.create_pool('$name', 'image:1', ARRAY[$types], max_workers => $max,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "2 days"}'::jsonb
			|| '$options'::jsonb)});
	$node->until('the offers have prices', q{SELECT bool_and(price_per_hour IS NOT NULL) FROM gpu_orch.offers});
	return;
}

# End what there is of a pool, and look whether all agree. The clock goes ahead, as deletes may wait to be repeated.
sub end_pool
{
	my ($name) = @_;

	$provider->no_faults;
	$node->sql("SELECT gpu_orch.drop_pool('$name')");
	$node->until('all ends', sub {
		$node->advance('10 seconds');
		return $node->sql(q{SELECT NOT EXISTS (SELECT FROM gpu_orch.workers WHERE origin = 'cloud' AND state <> 'terminated')
			AND NOT EXISTS (SELECT FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent', 'unknown'))}) eq 't';
	});
	is(scalar(my @alive = $provider->pods(1)), 0, 'no pod is left');
	my @names = map { $_->{name} } $provider->pods;
	my %names = map { $_ => 1 } @names;
	is(scalar @names, scalar keys %names, 'no intent has two pods');
	$node->holds_invariants;
	return;
}

sub pods_made_by
{
	my ($id) = @_;
	my $name = $node->sql("SELECT pod_name FROM gpu_orch.cloud_ops WHERE kind = 'create' AND worker = '$id'");

	return scalar grep { $_->{name} eq $name } $provider->pods;
}

subtest 'leader dies between create and record' => sub {
	pool('died', 10, '{}');
	for my $case (
		[ 'the pod is made before the kill', {call => 'create', action => 'delay', seconds => 1.5, count => 1} ],
		[ 'the pod is made after the kill', {call => 'create', action => 'later', seconds => 1.5, count => 1},
			{call => 'create', action => 'delay', seconds => 1.5, count => 1} ],
		[ 'the answer is lost and then the leader', {call => 'create', action => 'drop_after', count => 1} ])
	{
		my ($name, @rules) = @$case;

		$provider->fault(@rules);
		my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('died')});
		$node->until("$name: it is on its way",
			"SELECT state NOT IN ('planned') FROM gpu_orch.cloud_ops WHERE worker = '$id'");
		$node->kill_leader;
		$node->worker_is($id, 'initializing', 'its pod is adopted');
		is(pods_made_by($id), 1, 'one pod was made for the intent');
	}
	end_pool('died');
};

subtest 'lost reply (request executed, response never arrives)' => sub {
	pool('lost', 12, '{}');
	my $before = creates();
	$provider->fault({call => 'create', action => 'drop_after', probability => 0.3, seed => 11},
		{call => 'delete', action => 'drop_after', probability => 0.3, seed => 12});
	$node->sql(q{SELECT gpu_orch.spawn_worker('lost', 12)});
	$node->fleet(12, 'the fleet converges', pool => 'lost');
	is(creates() - $before, 12, 'the ledger is exact');
	is(scalar(my @alive = $provider->pods(1)), 12, 'every pod lives once');
	$node->sql(q{SELECT gpu_orch.terminate_worker(worker_id, true) FROM gpu_orch.workers WHERE pool = 'lost'});
	$node->until('it ends, though every third answer to a delete is lost', sub {
		$node->advance('2 seconds');
		return $node->sql(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE pool = 'lost'}) eq 't';
	});
	end_pool('lost');
};

subtest 'record deleted before the cloud confirms' => sub {
	pool('kept', 1, '{}');
	my $id = $node->spawn('kept', 'a pod is there');
	$provider->fault({call => 'delete', action => 'keep_pod', count => 3});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	my $early = 0;
	$node->until('the worker ends', sub {
		my $alive = () = $provider->pods(1);
		my $ended = $node->sql(qq{SELECT gpu_orch.advance_clock('10 seconds'); SELECT state = 'terminated'
			FROM gpu_orch.workers WHERE worker_id = '$id'}) =~ /t$/m;

		# The pod was seen alive before the row was read: it may have ended in between.
		$early++ if $ended && $alive && $provider->pods(1);
		return $ended;
	});
	is($early, 0, 'not while its pod lives');
	is(scalar(my @answers = grep { $_->{op} eq 'delete' && $_->{status} == 204 && $_->{name} eq
		$node->sql("SELECT pod_name FROM gpu_orch.cloud_ops WHERE kind = 'create'
			AND worker = '$id'") } @{$provider->ledger->{entries}}), 4,
		'it took four deletes that were answered');
	end_pool('kept');
};

subtest 'eventual consistency: just-created pod not listed' => sub {
	my $before = creates();
	pool('hidden', 2, '{"policy_options": {"fixed_workers": 1}}');
	$node->fleet(1, 'a pod is there', pool => 'hidden');
	$provider->fault({call => 'list', action => 'hide_new', seconds => 60});
	for (1 .. 5)
	{
		$node->advance('8 seconds');
		$node->reconcile;
		$node->cycle;
	}
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE pool = 'hidden' AND state = 'initializing'}), 1,
		'nothing is said to have vanished');
	$provider->fault({call => 'create', action => 'drop_after', count => 1});
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('hidden')});
	$node->until('one whose answer is lost is in doubt',
		"SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'");
	$node->sql('SELECT gpu_orch.reconcile_now(); SELECT gpu_orch.run_cycle()') for 1 .. 5;
	is(creates() - $before, 2, 'nothing is created twice');
	$provider->control(POST => 'clock', {advance => 60});
	$node->worker_is($id, 'initializing', 'it is adopted when it is shown');
	is(creates() - $before, 2, 'and there are two pods');
	end_pool('hidden');
};

subtest 'pending capacity miscounted' => sub {
	my $submitted = 0;
	my $over = 0;

	srand 7;
	$node->sql(q{SELECT gpu_orch.create_pool('pending', 'image:1', ARRAY['NVIDIA L4'], min_workers => 2, max_workers => 50,
		options => '{"policy": "one_to_one", "idle_buffer": 1, "spawn_timeout": "2 days"}')});
	my $before = creates();
	$provider->fault({call => 'create', action => 'drop_after', probability => 0.2, seed => 3},
		{call => 'create', action => 'delay', seconds => 0.3, probability => 0.5, seed => 4});
	for (1 .. 15)
	{
		if (rand() < 0.5)
		{
			$node->sql(q{SELECT gpu_orch.submit_task('pending')});
			$submitted++;
		}
		$node->cycle;
		$over++ if creates() - $before > $submitted + 2 + 1;
	}
	$node->until('each task gets its pod',
		qq{SELECT count(*) >= $submitted FROM gpu_orch.workers WHERE pool = 'pending' AND state = 'initializing'});
	$node->cycle(5);
	$over++ if creates() - $before > $submitted + 2 + 1;
	is($over, 0, 'never more pods than tasks, the minimum and the buffer');
	$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks WHERE kind = 'pending'});
	end_pool('pending');
};

subtest 'permanent DOWN after transient stockout' => sub {
	$provider->fault({call => 'create', action => 'no_capacity', for => 600});
	pool('stock', 1, '{"policy_options": {"fixed_workers": 1}}', 'NVIDIA L4', 'NVIDIA A40');
	$node->until('nothing is to be had',
		q{SELECT bool_and(passed_over) FROM gpu_orch.offers WHERE pool = 'stock'});
	$provider->control(POST => 'clock', {advance => 600});
	$node->until('ten minutes later there is, and a pod comes without an operator', sub {
		$node->advance('1 minute');
		return $node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE pool = 'stock' AND state = 'initializing'}) == 1;
	});
	end_pool('stock');
};

subtest 'failover silently not happening' => sub {
	$provider->fault({call => 'create', action => 'no_capacity', data_center => 'EU-RO-1'});
	pool('failover', 1, '{"policy_options": {"fixed_workers": 1}, "data_centers": ["EU-RO-1", "US-TX-3"]}');
	$node->fleet(1, 'a pod comes', pool => 'failover');
	is($node->sql(q{SELECT string_agg(DISTINCT o.data_center || ' ' || o.state, ', ' ORDER BY o.data_center || ' ' || o.state)
		FROM gpu_orch.cloud_ops o JOIN gpu_orch.decisions d USING (decision) WHERE o.pool = 'failover'}),
		'EU-RO-1 refused, US-TX-3 done', 'from the second region, and the decisions tell');
	end_pool('failover');
};

subtest 'budget missing' => sub {
	pool('budget', 100, '{}');
	my $price = $node->sql(q{SELECT price_per_hour FROM gpu_orch.offers WHERE pool = 'budget'});
	$node->sql(sprintf q{SELECT gpu_orch.alter_pool('budget', '{"budget_per_hour": %f}')}, 3.5 * $price);
	my $before = creates();
	my @sessions = map { Wire->new($node, 'app') } 1 .. 50;
	$_->send_query(q{SELECT gpu_orch.spawn_worker('budget')}) for @sessions;
	my @answers = map { $_->answer } @sessions;
	is(scalar(grep { !defined $_->{state} } @answers), 3, 'of fifty sessions at once three get a pod');
	is(scalar(grep { ($_->{state} // '') eq 'GO006' } @answers), 47, 'and the others are told of the limit');
	$node->fleet(3, 'three come up', pool => 'budget');
	is(creates() - $before, 3, 'and no more, as the provider says');
	end_pool('budget');
};

# Raised for this subject and not cleared.
sub alert_holds
{
	my ($alert, $subject) = @_;

	return "SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = '$alert' AND subject = '$subject' AND cleared_at IS NULL";
}

subtest 'one poisoned row stops the loop' => sub {
	my $constraint = $node->sql(q{SELECT conname FROM pg_constraint WHERE conrelid = 'gpu_orch.pool'::regclass
		AND pg_get_constraintdef(oid) ~ 'policy'});

	pool('poisoned', 14, '{}');
	like($node->refusal(q{UPDATE gpu_orch.pool SET policy = 'nonsense' WHERE name = 'poisoned'}),
		qr/violates check constraint "$constraint"/, 'a policy of another version is refused');
	$node->sql("ALTER TABLE gpu_orch.pool DROP CONSTRAINT $constraint");

	# Poisoned together with the announcement of more creates than calls may be under way at once.
	my ($kept, $ended) = split /\n/, $node->sql(q{SELECT gpu_orch.spawn_worker('poisoned', 2)});
	$node->fleet(2, 'a pool has two pods', pool => 'poisoned');
	my $before = creates();
	$node->sql(q{BEGIN;
		SELECT gpu_orch.spawn_worker('poisoned', 12);
		UPDATE gpu_orch.pool SET policy = 'nonsense', policy_options = '{"fixed_workers": 0, "spawning_grace": 0,
			"scale_down_grace": 0}'
			WHERE name = 'poisoned';
		COMMIT});
	pool('sound', 1, '{"policy_options": {"fixed_workers": 1}}');
	$node->fleet(1, 'the others go on', pool => 'sound');
	$node->until('an alert names the pool', alert_holds('poisoned_row', 'poisoned'));
	like($node->sql(q{SELECT detail FROM gpu_orch.alerts WHERE alert = 'poisoned_row'}), qr/policy "nonsense"/,
		'and what is wrong');
	is($node->sql(q{SELECT term FROM gpu_orch.explain_scaling('poisoned') WHERE bound}), 'unreadable', 'as does explain_scaling');
	like($node->refusal(q{SELECT gpu_orch.spawn_worker('poisoned')}), qr/its row makes no sense/, 'nobody can spawn for it');
	$node->ends($ended, 'one that an operator ends is deleted');
	$node->until('and paid for until then',
		"SELECT ended_at IS NOT NULL FROM gpu_orch.cost_estimate WHERE worker_id = '$ended'");
	$node->cycle(3);
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$kept'"), 'initializing',
		'the other is not ended for want of demand');
	is(creates() - $before, 1, 'nothing is created for the pool');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE pool = 'poisoned' AND state = 'planned'}), 12,
		'and what was announced is not called off');
	$node->sql(q{UPDATE gpu_orch.pool SET policy = 'fixed', policy_options = '{"fixed_workers": 13}' WHERE name = 'poisoned'});
	$node->until('mended, the alert is cleared',
		q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'poisoned_row'});
	$node->fleet(13, 'and what was announced is sent', pool => 'poisoned');
	$node->sql(q{UPDATE gpu_orch.pool SET policy_options = '{"no_such": 1}' WHERE name = 'poisoned'});
	$node->until('a policy option of another version is another reason',
		alert_holds('poisoned_row', 'poisoned'));
	$node->sql(q{SELECT gpu_orch.drop_pool('poisoned')});
	$node->until('a dropped pool needs none',
		q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'poisoned_row'});
	$node->sql("ALTER TABLE gpu_orch.pool ADD CONSTRAINT $constraint CHECK (policy IN ('queue_ratio', 'one_to_one', 'fixed'))");

	# A worker in no state.
	$node->sql(q{ALTER DOMAIN gpu_orch.worker_state DROP CONSTRAINT worker_state_check});
	my $limbo = $node->sql(q{SELECT worker_id FROM gpu_orch.workers WHERE pool = 'sound'});
	my $pod = $node->sql("SELECT pod_id FROM gpu_orch.workers WHERE worker_id = '$limbo'");
	$node->sql("UPDATE gpu_orch.worker SET state = 'limbo' WHERE id = '$limbo'");
	$node->until('an alert names the worker', alert_holds('poisoned_row', "worker $limbo"));
	$node->sql(q{SELECT gpu_orch.alter_pool('sound', '{"max_workers": 2}')});
	$node->fleet(1, 'its pool goes on, and counts its place', pool => 'sound');
	$node->sql(q{SELECT gpu_orch.advance_clock('1 second'); SELECT gpu_orch.reconcile_now();
		SELECT gpu_orch.run_cycle()}) for 1 .. 4;
	is(scalar(grep { $_->{id} eq $pod } $provider->pods(1)), 1, 'its pod is left alone');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.spend WHERE ended_at IS NULL AND worker IN
		(SELECT no FROM gpu_orch.worker WHERE state = 'limbo')}), 1, 'and paid for');
	$node->sql("UPDATE gpu_orch.worker SET state = 'initializing' WHERE id = '$limbo'");
	$node->until('mended, the alert is cleared',
		q{SELECT bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts WHERE alert = 'poisoned_row'});
	$node->sql(q{ALTER DOMAIN gpu_orch.worker_state ADD CONSTRAINT worker_state_check
		CHECK (VALUE IN ('spawning', 'initializing', 'active', 'draining', 'terminating', 'terminated'))});
	end_pool('sound');
};

subtest 'stockout vs crash loop confused' => sub {
	$provider->fault({call => 'create', action => 'no_capacity', gpu => 'NVIDIA A40'});
	pool('stockout', 1, '{"policy_options": {"fixed_workers": 1}}', 'NVIDIA A40');
	$node->until('a stockout has its alert', alert_holds('no_capacity', 'stockout'));
	is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert IN ('image_broken', 'request_refused')
		AND cleared_at IS NULL}), 0, 'and no other');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.image_breakers}), 0, 'its image is not blamed');
	end_pool('stockout');
	pool('crash', 1, '{"image": "image:broken", "policy_options": {"fixed_workers": 1}, "spawn_timeout": "1 minute"}',
		'NVIDIA L4');
	$node->until('a crash loop has its own', sub {
		$node->advance('30 seconds');
		return $node->sql(alert_holds('image_broken', 'image:broken')) eq 't';
	});
	is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert IN ('no_capacity', 'request_refused')
		AND cleared_at IS NULL}), 0, 'and no other');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.offers WHERE pool = 'crash' AND (refusals > 0 OR passed_over)}), 0,
		'its offer is not blamed');
	end_pool('crash');
};

$node->stop;
done_testing();
