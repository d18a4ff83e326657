# A thief has a copy of a pod's environment, which names its worker and holds its token. What he cannot copy is what the
# provider says of the pod: its id. Until the provider has said it the first one to register is believed, after
# that only who names this id; whoever registered under another one is put out, and the pod works.
use strict;
use warnings FATAL => 'all';
use FindBin;
use HTTP::Tiny;
use JSON::PP;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'stolen', 'gpu_orch.http_timeout' => '60s', 'gpu_orch.spawn_rate_limit' => 1000);

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour",
	             "idle_timeout": "1 hour"}')});

# The pod that was made for a worker, with its environment, as it was once: it may be gone since.
sub pod_of
{
	my ($worker) = @_;
	my $name = $node->sql("SELECT pod_name FROM gpu_orch.cloud_ops WHERE worker = '$worker' AND kind = 'create'");
	my ($line) = wait_until('the pod is made', sub { grep { $_->{name} eq $name } $provider->pods(1) });
	my ($made) = grep { $_->{name} eq $name } $provider->pods(1);
	my $answer = HTTP::Tiny->new->get("http://$provider->{address}/v2/pods/$made->{id}",
		{headers => {Authorization => "Bearer $provider->{key}"}});

	die "no pod of $worker" unless $answer->{success};
	return decode_json($answer->{content});
}

# A pod is asked for whose answer comes late, and no list shows it: its worker, and the pod.
sub ask
{
	my (@rules) = @_;

	$provider->fault({call => 'list', action => 'hide_new', seconds => 600}, @rules);
	my $worker = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	return ($worker, pod_of($worker));
}

# What registering with the pod's token, under a pod id, returns.
sub registering
{
	my ($worker, $pod, $id) = @_;

	return "SELECT token FROM gpu_orch.register_worker('$worker', '$pod->{env}{GPU_ORCH_TOKEN}',
		'{\"services\": [\"secret\"]}', pod_id => '$id')";
}

sub is_refused
{
	my ($statement, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->sqlstate($statement), '42501', $name);
}

sub worker { return $node->sql("SELECT state, pod_id FROM gpu_orch.workers WHERE worker_id = '$_[0]'"); }
sub events { return $node->sql("SELECT count(*) FROM gpu_orch.events WHERE kind = '$_[0]'"); }

subtest 'who registers under another id than the provider named is refused' => sub {
	my $worker = $node->spawn('p');
	my $pod = pod_of($worker);

	is_refused(registering($worker, $pod, 'invented'), 'a thief that comes first');
	my $session = $node->sql(registering($worker, $pod, $pod->{id}));
	is(worker($worker), "active|$pod->{id}", 'the pod works');
	is_refused(registering($worker, $pod, 'invented'), 'a thief that comes later');
	is($node->sql("SELECT directive FROM gpu_orch.heartbeat('$worker', '$session')"), 'continue', 'and the pod goes on');
	$node->ends_all($provider);
};

subtest 'a pod that speaks before the answer to its create' => sub {
	my ($worker, $pod) = ask({call => 'create', action => 'delay', seconds => 4, count => 1});
	my $session = $node->sql(registering($worker, $pod, $pod->{id}));

	is($node->sql("SELECT state, reason, (SELECT verified FROM gpu_orch.cloud_op WHERE id = op_id)
		FROM gpu_orch.cloud_ops WHERE worker = '$worker'"), 'done|registered|f', 'is believed');
	$node->until('the answer says the same',
		"SELECT verified FROM gpu_orch.cloud_op WHERE kind = 'create' ORDER BY id DESC LIMIT 1");
	is(worker($worker), "active|$pod->{id}", 'the pod works');
	is($node->sql("SELECT directive FROM gpu_orch.heartbeat('$worker', '$session')"), 'continue', 'in the same session');
	ok($node->sql(registering($worker, $pod, $pod->{id})), 'and may start again');
	is(events('pod_rebound'), 0, 'nobody was put out');
	$node->ends_all($provider);
};

subtest 'a thief that registers before the answer to the create' => sub {
	my $task = $node->sql(q{SELECT gpu_orch.submit_task('secret')});
	my ($worker, $pod) = ask({call => 'create', action => 'delay', seconds => 6, count => 1});
	my $session = $node->sql(registering($worker, $pod, 'invented'));

	is($node->sql("SELECT count(*) FROM gpu_orch.claim_tasks('$worker', '$session')"), 1, 'is believed until then');
	is_refused(registering($worker, $pod, $pod->{id}), 'and the pod is not');
	$node->worker_is($worker, 'initializing', 'then the pod has to speak');
	is(worker($worker), "initializing|$pod->{id}", 'which is the one that the provider named');
	is_refused("SELECT gpu_orch.heartbeat('$worker', '$session')", 'the session of the thief is over');
	is($node->sql("SELECT losses FROM gpu_orch.ready_queue WHERE task_id = $task"), 0, 'his task went back at no cost');
	is_refused(registering($worker, $pod, 'invented'), 'he does not come back');
	is($node->sql("SELECT detail ->> 'why' FROM gpu_orch.events WHERE kind = 'pod_rebound' AND subject = '$worker'"),
		qq{pod "invented" had registered, the provider shows "$pod->{id}"}, 'an event tells');
	$node->alerts(1, 'pod_rebound', 'and an alert');

	$session = $node->sql(registering($worker, $pod, $pod->{id}));
	is(worker($worker), "active|$pod->{id}", 'the pod works');
	is($node->sql("SELECT count(*) FROM gpu_orch.claim_tasks('$worker', '$session')"), 1, 'at the task');
	$provider->no_faults;
	$node->reconcile(3);
	is(join(' ', map { $_->{id} } $provider->pods(1)), $pod->{id}, 'it was not taken for a double');
	is(events('double_pod'), 0, 'nor was anything else');
	$node->sql("SELECT gpu_orch.cancel_task($task)");
	$node->ends_all($provider);
	$node->advance('61 minutes');
	$node->alerts(0, 'pod_rebound', 'the alert is cleared after an hour');
};

# Another pod of ours is in every list: that the thief names it is no sign that he is in it.
for my $invented ('invented', 'another')
{
	subtest "a thief that registers under $invented id when the answer was lost" => sub {
		my $other = $node->spawn('p');
		my $named = $invented eq 'another' ? pod_of($other)->{id} : 'invented';
		my ($worker, $pod) = ask({call => 'create', action => 'drop_after', count => 1});
		my $session = $node->sql(registering($worker, $pod, $named));

		$provider->no_faults;
		$node->until('a list names the pod', "SELECT state = 'initializing' AND pod_id = '$pod->{id}'
			FROM gpu_orch.workers WHERE worker_id = '$worker'");
		is_refused("SELECT gpu_orch.heartbeat('$worker', '$session')", 'the session of the thief is over');
		is_refused(registering($worker, $pod, $named), 'he does not come back');
		ok($node->sql(registering($worker, $pod, $pod->{id})), 'the pod registers');
		is(scalar($provider->pods(1)), 2, 'and lives');
		$node->ends_all($provider);
	};
}

subtest 'a worker that is not wanted any more when the pod is named' => sub {
	my ($drained, $pod) = ask({call => 'create', action => 'delay', seconds => 5, count => 1});
	$node->sql(registering($drained, $pod, 'invented'));
	$node->sql("SELECT gpu_orch.drain_worker('$drained')");
	$node->until('a draining one ends', "SELECT state IN ('terminating', 'terminated') FROM gpu_orch.workers
		WHERE worker_id = '$drained'");
	$provider->no_faults;

	my ($ended, $second) = ask({call => 'create', action => 'delay', seconds => 4, count => 1});
	$node->sql(registering($ended, $second, 'invented'));
	$node->sql("SELECT gpu_orch.terminate_worker('$ended', true)");
	$node->until('a pod that is named too late is deleted', sub {
		$provider->no_faults;
		!$provider->pods(1);
	});
	$node->ends_all($provider);
};

# The delete that is owed then is of no pod of somebody else, and keeps nobody from deleting that one.
for my $made (1, 0)
{
	subtest 'a thief that named the pod of another worker, and is ended at once; ' . ($made ? 'a pod was made' : 'none was') => sub {
		my $other = $node->spawn('p');
		my $named = pod_of($other)->{id};

		$provider->fault({call => 'list', action => 'hide_new', seconds => 600},
			{call => 'create', action => $made ? 'drop_after' : 'drop', count => 1});
		my $worker = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
		$node->until('the outcome is unknown', "SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$worker'");
		$node->sql("UPDATE gpu_orch.worker_profile SET registration_digest = sha256('stolen')
			WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$worker')");
		$node->sql("SELECT gpu_orch.register_worker('$worker', 'stolen', pod_id => '$named')");
		$node->sql("SELECT gpu_orch.terminate_worker('$worker', true)");
		$node->until('nothing is deleted under that id', "SELECT reason = 'not_ours' FROM gpu_orch.cloud_ops
			WHERE kind = 'delete' AND worker = '$worker'");
		$provider->no_faults;
		$node->until('the worker ends', sub {
			$node->advance('10 seconds');
			$node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$worker'") eq 'terminated';
		});
		# A pod that is listed only after its worker has ended is deleted on the second look.
		$node->until('and no pod lives but that of the other', sub {
			$node->advance('10 seconds');
			join(' ', map { $_->{id} } $provider->pods(1)) eq $named;
		});
		$node->ends_all($provider);
	};
}

# Nobody but the thief ever speaks of a pod.
subtest 'a worker whose pod the provider never showed does not live by its heartbeats' => sub {
	$provider->fault({call => 'create', action => 'drop', count => 1}, {call => 'list', action => 'empty_list'});
	my $worker = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->until('the outcome is unknown', "SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$worker'");
	$node->sql("UPDATE gpu_orch.worker_profile SET registration_digest = sha256('stolen')
		WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$worker')");
	my $session = $node->sql("SELECT token FROM gpu_orch.register_worker('$worker', 'stolen', pod_id => 'invented')");
	$provider->no_faults;
	$node->until('it ends while it beats', sub {
		$node->advance('10 seconds');
		$node->sqlstate("SELECT gpu_orch.heartbeat('$worker', '$session')") eq '42501';
	});
	is($node->sql("SELECT state, ended_because FROM gpu_orch.workers WHERE worker_id = '$worker'"),
		'terminated|pod_gone', 'as one whose pod is gone');
	$node->ends_all($provider);
};

$node->stop;
done_testing();
