# What is proof: of a pod's absence, of its being ours, of the account being ours. Nothing is created twice,
# deleted or declared gone on less, and what is there is paid for.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'proof',
	'gpu_orch.orphan_grace' => '0', 'gpu_orch.spawn_rate_limit' => 1000);

sub alert_open { return $node->sql("SELECT count(*) FROM gpu_orch.alerts WHERE alert = '$_[0]' AND cleared_at IS NULL"); }

# A row as a failover to a standby leaves it: the create was sent, the commit that said so is lost.
sub forget_sending
{
	$node->sql(qq{UPDATE gpu_orch.cloud_op SET state = 'planned', epoch = NULL, sent_at = NULL, answered_at = NULL,
		settled_at = NULL,
			pod_id = NULL, verified = false, http_status = NULL, tries = 0
			WHERE kind = 'create' AND worker = (SELECT no FROM gpu_orch.worker WHERE id = '$_[0]');
		UPDATE gpu_orch.worker SET state = 'spawning' WHERE id = '$_[0]';
		UPDATE gpu_orch.worker_profile SET pod_id = NULL WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$_[0]');
		DELETE FROM gpu_orch.event WHERE kind = 'pod_created' AND subject = '$_[0]';
		DELETE FROM gpu_orch.spend WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$_[0]')});
	return;
}

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour"}')});
$node->until('the account is pinned at its first sight',
	q{SELECT account = 'user_sim' FROM gpu_orch.installation});

subtest 'a planned create whose pod is listed is adopted' => sub {
	my $id = $node->spawn('p');

	$node->sql('SELECT gpu_orch.pause()');
	my $creates = $provider->ledger->{totals}{creates};
	forget_sending($id);
	$node->sql('SELECT gpu_orch.resume()');
	$node->worker_is($id, 'initializing', 'the pod is adopted');
	is($provider->ledger->{totals}{creates}, $creates, 'and no other is made');
	is($node->sql("SELECT reason FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'"), 'adopted', 'by looking');
	$node->ends_all($provider);
};

subtest 'a pod that is seen between two looks is not gone' => sub {
	my $id = $node->spawn('p');
	my ($pod) = $provider->pods(1);

	# 204, and the pod lives; the lists agree but for one.
	$provider->fault({call => 'delete', action => 'keep_pod'}, {call => 'list', action => 'empty_list', count => 1});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('the delete is answered',
		q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' AND state = 'sent' AND http_status = 204});
	$node->reconcile(4);
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$id'"), 'terminating',
		'one list without it proves nothing');
	is($node->sql(q{SELECT max(absent_looks) FROM gpu_orch.cloud_op WHERE kind = 'delete' AND state = 'sent'}), 0,
		'and what it said is forgotten');
	$node->advance('1 minute');
	$node->ends_all($provider);
};

# What was counted for a worker's pod, in seconds, and what the provider's meter says.
sub counted
{
	my ($id) = @_;
	my $pod_id = $node->sql("SELECT pod_id FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'");
	my ($pod) = grep { $_->{id} eq $pod_id } $provider->pods;

	return ($node->sql(qq{SELECT sum(extract(epoch FROM ended_at - started_at)) FROM gpu_orch.spend
		WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$id')}), $pod);
}

for my $lists ('true', 'empty')
{
	subtest "a delete that takes effect after its answer, with $lists lists" => sub {
		my $id = $node->spawn('p');

		$provider->fault({call => 'delete', action => 'later', seconds => 4, count => 1},
			$lists eq 'empty' ? {call => 'list', action => 'empty_list'} : ());
		$node->ends($id, 'is proved in the end');
		my ($ours, $pod) = counted($id);
		ok(defined $pod->{deleted_at}, 'after it took effect');
		cmp_ok($ours, '>=', $pod->{seconds}, 'and the pod is paid for until then');
		cmp_ok($node->sql(qq{SELECT extract(epoch FROM denied_at) FROM gpu_orch.cloud_op WHERE kind = 'delete'
			AND worker = (SELECT no FROM gpu_orch.worker WHERE id = '$id')}), '>=', $pod->{deleted_at},
				'when it was first denied');
		$node->ends_all($provider);
	};
}

subtest 'a question about a deleted pod that gets no answer' => sub {
	my $id = $node->spawn('p');

	$node->reconcile;
	$node->set('gpu_orch.cycle_interval' => '1h', 'gpu_orch.reconcile_interval' => '1h');
	$provider->fault({call => 'get', action => 'status', status => 500, count => 1});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('is asked again, without waiting for the next cycle',
		"SELECT denied_at IS NOT NULL FROM gpu_orch.cloud_op WHERE kind = 'delete' AND worker =
		(SELECT no FROM gpu_orch.worker WHERE id = '$id')");
	$node->set('gpu_orch.cycle_interval' => '200ms', 'gpu_orch.reconcile_interval' => '500ms');
	$node->ends_all($provider);
};

subtest 'a list that still shows a deleted pod' => sub {
	my $id = $node->spawn('p');

	$provider->fault({call => 'list', action => 'show_deleted', seconds => 5});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('is asked about',
		"SELECT denied_at IS NOT NULL FROM gpu_orch.cloud_op WHERE kind = 'delete' AND worker =
		(SELECT no FROM gpu_orch.worker WHERE id = '$id')");
	$node->reconcile(2);
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$id'"), 'terminating', 'proves nothing while it does');
	$node->worker_is($id, 'terminated', 'and when it does not the pod is gone');
	is($node->sql(qq{SELECT s.ended_at <= o.denied_at FROM gpu_orch.cloud_op o JOIN gpu_orch.spend s USING (worker)
		WHERE o.kind = 'delete' AND o.worker = (SELECT no FROM gpu_orch.worker WHERE id = '$id')}), 't',
			'from when it was denied');

	# Once it is proved, one more such list is no sight of a pod: nothing is deleted, and nothing paid for.
	my $known = "SELECT (SELECT count(*) FROM gpu_orch.cloud_ops) || ' ops, ' || 
		(SELECT sum(extract(epoch FROM ended_at - started_at)) FROM gpu_orch.spend) || ' seconds, ' ||
		(SELECT count(*) FROM gpu_orch.events) || ' events'";
	$provider->no_faults;
	my $before = $node->sql($known);
	my $shown = sub { scalar grep { ($_->{fault} // '') eq 'show_deleted' } $provider->requests };
	my $lists = $shown->();
	$provider->fault({call => 'list', action => 'show_deleted', seconds => 3600, count => 1});
	$node->reconcile(3);
	is($shown->(), $lists + 1, 'one old list');
	is($node->sql($known), $before, 'changes nothing');
	$node->ends_all($provider);
};

subtest 'a worker cannot make us delete the pod of somebody else' => sub {
	$provider->control(POST => 'pods', {foreign => 'somebody-elses'});
	my ($foreign) = grep { $_->{name} eq 'somebody-elses' } @{$provider->ledger->{pods}};

	$provider->fault({call => 'create', action => 'drop_after', count => 1},
		{call => 'list', action => 'hide_new', seconds => 600});
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->until('the outcome is unknown',
		"SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$id'");
	$node->sql(qq{UPDATE gpu_orch.worker_profile SET registration_digest = sha256('stolen') WHERE worker =
		(SELECT no FROM gpu_orch.worker WHERE id = '$id')});
	like($node->refusal("SELECT gpu_orch.register_worker('$id', 'stolen', pod_id => 'a/b')"), qr/pod_id/,
		'an id that the provider cannot have given is refused');
	$node->sql("SELECT gpu_orch.register_worker('$id', 'stolen', pod_id => '$foreign->{id}')");
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('the pod is asked for first',
		"SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'delete'
			AND reason IN ('not_ours', 'proved')");
	$provider->no_faults;
	$node->until('our own pod is deleted', sub { !$provider->pods(1) });
	is((grep { $_->{name} eq 'somebody-elses' } @{$provider->ledger->{pods}})[0]{deleted_at}, undef, 'the other lives on');
	is(scalar(grep { $_->{op} eq 'delete' && $_->{pod} eq $foreign->{id} } @{$provider->ledger->{entries}}), 0,
		'no delete was ever sent for it');
	$node->ends_all($provider);
};

subtest 'of two pods of one create the one that the provider named stays' => sub {
	$provider->fault({call => 'list', action => 'hide_new', seconds => 600});
	my $id = $node->spawn('p');
	my ($first) = $provider->pods(1);
	$provider->control(POST => 'pods', {foreign => $first->{name}});
	my ($second) = grep { $_->{id} ne $first->{id} } $provider->pods(1);

	$node->sql(qq{UPDATE gpu_orch.worker_profile SET registration_digest = sha256('token') WHERE worker =
		(SELECT no FROM gpu_orch.worker WHERE id = '$id')});
	is($node->sqlstate("SELECT gpu_orch.register_worker('$id', 'token', pod_id => '$second->{id}')"), '42501',
		'the other one may not register');
	$node->sql("SELECT gpu_orch.register_worker('$id', 'token', pod_id => '$first->{id}')");
	$provider->no_faults;
	$node->until('one is left', sub { 1 == $provider->pods(1) });
	is(($provider->pods(1))[0]{id}, $first->{id}, 'which is that one');
	is($node->sql("SELECT state, pod_id FROM gpu_orch.workers WHERE worker_id = '$id'"), "active|$first->{id}", 'and works on');
	$node->ends_all($provider);
};

subtest 'a key of another account' => sub {
	my $id = $node->spawn('p');
	my $other = 'b' x 32;
	my $key_file = $node->sql('SHOW gpu_orch.runpod_api_key_file');
	my $creates = $provider->ledger->{totals}{creates};

	# What another account shows: no pod of ours, and none to delete.
	$provider->fault({call => 'list', action => 'empty_list'}, {call => 'get', action => 'not_found'},
		{call => 'delete', action => 'not_found'},
		{call => 'graphql', action => 'malformed', body => {data => {myself =>
			{id => 'user_other', clientBalance => 5, currentSpendPerHr => 0}}}});
	$provider->control(POST => 'key', {key => $other});
	my $old = $provider->{key};
	open my $file, '>', $key_file or die $!;
	print $file $other;
	close $file;
	$node->alerts(1, 'wrong_account', 'is said');
	my $second = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('a delete finds nothing',
		"SELECT http_status = 404 FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'delete'");
	$node->advance('2 minutes');
	$node->reconcile(4);
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE worker_id = '$id'"), 'terminating', 'and proves nothing');
	is($provider->ledger->{totals}{creates}, $creates, 'nothing is created');
	$provider->no_faults;
	$provider->control(POST => 'key', {key => $old});
	open $file, '>', $key_file or die $!;
	print $file $old;
	close $file;
	$node->alerts(0, 'wrong_account', 'until the key is one of the account again');
	$node->worker_is($id, 'terminated', 'then the debt is paid');
	$node->worker_is($second, 'initializing', 'and what waited is created');
	$node->ends_all($provider);
};

subtest 'an account that could not be read' => sub {
	my $from = () = $provider->requests;
	my $since = sub { my @all = $provider->requests; return @all[ $from .. $#all ]; };
	my $read = sub { return grep { $_->{call} eq 'graphql' && $_->{status} == 200 } @_; };

	$provider->fault({call => 'graphql', action => 'status', status => 500, count => 1});
	$node->set('gpu_orch.enabled' => 'off');
	$node->until('the leader leaves', 'SELECT pid IS NULL FROM gpu_orch.leader_status()');
	$node->set('gpu_orch.enabled' => 'on');
	wait_until('the account is read', sub { $read->($since->()) });
	my @requests = $since->();
	is((grep { $_->{call} eq 'graphql' } @requests)[0]{status}, 500, 'the next one could not read it');
	my ($again) = grep { $read->($requests[$_]) } 0 .. $#requests;
	cmp_ok(scalar(grep { $_->{call} eq 'list' } @requests[ 0 .. $again ]), '<', 40,
		'and asks again, long before the minute of an account that could');
	$node->ends_all($provider);
};

subtest 'the balance' => sub {
	$node->spawn('p');
	$provider->control(POST => 'balance', {balance => 5});
	$node->sql(q{SELECT gpu_orch.advance_clock('2 minutes'); SELECT gpu_orch.run_cycle()});
	$node->alerts(1, 'balance_low', 'that will not last a day is low');
	$provider->control(POST => 'balance', {balance => 5000});
	$node->sql(q{SELECT gpu_orch.advance_clock('2 minutes'); SELECT gpu_orch.run_cycle()});
	$node->alerts(0, 'balance_low', 'until there is more');
	$node->ends_all($provider);
};

$node->stop;
done_testing();
