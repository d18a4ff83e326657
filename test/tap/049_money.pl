# Money: budgets that hold whoever asks at once, prices that are true in the end, and every pod counted, for
# as long as it was there.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'money',
	'gpu_orch.orphan_grace' => '0', 'gpu_orch.http_timeout' => '20s', 'gpu_orch.spawn_rate_limit' => 1000,
	max_connections => 100);
my $gpu = 'NVIDIA GeForce RTX 4090';
my $options = '"policy": "fixed", "policy_options": {"fixed_workers": 0, "spawning_grace": 86400, "scale_down_grace": 0},'
  . ' "spawn_timeout": "60 days", "capabilities": {"services": ["none"]}';


# make_pool(NAME, MAX, MORE): a pool without a policy of its own, and its offers priced.
sub make_pool
{
	my ($name, $max, $more) = @_;

	$node->sql(qq{SELECT gpu_orch.create_pool('$name', 'image:1', ARRAY['$gpu'], max_workers => $max,
		options => '{$options}')});
	$node->sql(qq{SELECT gpu_orch.alter_pool('$name', '$more')}) if $more;
	$node->until("pool $name has prices",
		qq{SELECT bool_and(price_per_hour IS NOT NULL) FROM gpu_orch.offers WHERE pool = '$name'});
}

# end_pool(NAME): drop a pool and wait until its last pod is proved gone.
sub end_pool
{
	my ($name) = @_;

	$node->terminates("pool = '$name' AND state <> 'spawning'");
	$node->until("the pods of pool $name are gone",
		qq{SELECT coalesce(bool_and(state = 'terminated'), true) FROM gpu_orch.workers WHERE pool = '$name'});
	$node->sql(qq{SELECT gpu_orch.drop_pool('$name')});
}

# at_once(STATEMENT...): each in a session of its own, all at the same time; returns how many succeeded.
sub at_once
{
	my @statements = @_;
	my $dsn = $node->connstr('app');
	my @children;

	for my $statement (@statements)
	{
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			open STDIN, '<', '/dev/null';
			open STDOUT, '>', '/dev/null';
			open STDERR, '>', '/dev/null';
			exec 'psql', '-qXAt', '-v', 'ON_ERROR_STOP=1', '-d', $dsn, '-c', $statement
				or POSIX::_exit(127);
		}
		push @children, $pid;
	}
	my $succeeded = 0;
	for my $pid (@children)
	{
		waitpid $pid, 0;
		$succeeded++ if $? == 0;
	}
	return $succeeded;
}

# creates(QUOTED NAMES): how many creates were announced for these pools.
sub creates { return $node->sql(qq{SELECT count(*) FROM gpu_orch.cloud_ops WHERE kind = 'create' AND pool IN ($_[0])}); }

sub invariants
{
	$node->holds_invariants("$_[0]: every invariant holds");
}

# A create that takes three seconds before it makes the pod is counted from the pod's beginning, at most a second
# more: the provider's dates tell, before anybody moved our clock.
make_pool('slow', 2);
$provider->fault({call => 'create', action => 'delay_before', seconds => 3, count => 1});
$node->sql(q{SELECT gpu_orch.spawn_worker('slow')});
$node->fleet(1, 'a slow create succeeds', pool => 'slow');
my ($slow) = $provider->pods(1);
my $counted = $node->sql(q{SELECT extract(epoch FROM started_at) FROM gpu_orch.cost_estimate WHERE pool = 'slow'});
cmp_ok($counted, '<=', $slow->{created_at} + 0.001, 'it is counted from its beginning');
cmp_ok($counted, '>', $slow->{created_at} - 2, 'and not from the sending');
$provider->no_faults;
end_pool('slow');

# Hard cap: 50 sessions spawning at once against a cap with room for three: three pods.
make_pool('places', 3);
is(at_once((q{SELECT gpu_orch.spawn_worker('places')}) x 50), 3, 'of 50 sessions at max_workers 3, three succeed');
is(creates(q{'places'}), 3, 'three creates');
$node->fleet(3, 'three pods', pool => 'places');
is(scalar($provider->pods(1)), 3, 'and no more at the provider');
invariants('max_workers');
my $price = $node->sql(q{SELECT price_per_hour FROM gpu_orch.offers WHERE pool = 'places'});
end_pool('places');

# The same for a budget of the installation, across two pools; each transaction stays open for a while.
make_pool('a', 100);
make_pool('b', 100);
$node->sql(qq{SELECT gpu_orch.set_budget(NULL, 'hour', 3 * $price)});
is(at_once((map { "SELECT gpu_orch.spawn_worker('$_'); SELECT pg_sleep(0.3)" } 'a', 'b') x 25), 3,
	'of 50 sessions in two pools at a budget for three pods, three succeed');
is(creates(q{'a', 'b'}), 3, 'three creates');
like($node->refusal(q{SELECT gpu_orch.spawn_worker('a')}), qr/hour budget of the installation/, 'a refusal names the budget');
is($node->sql(q{SELECT pool IS NULL, per, hard, amount = committed, "left" FROM gpu_orch.budgets}),
	't|hour|t|t|0.000000', 'the view shows it used up');
# The leader is bound by it as well, says so, and gives the alarm while it is.
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'budget_hard'}), 0, 'nobody wants more yet');
$node->sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 50}}')});
$node->until('an alert when it binds',
	q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'budget_hard' AND cleared_at IS NULL
	AND detail ~ 'pool a gets no more pods by the hour budget of the installation'});
is($node->sql(q{SELECT bound, note FROM gpu_orch.explain_scaling('a') WHERE term = 'budget_room'}),
	't|creates allowed by the hour budget of the installation', 'explain_scaling says which budget');
is(creates(q{'a', 'b'}), 3, 'still three creates');
$node->sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
$node->alerts(0, 'budget_hard', 'and it is cleared');
invariants('budget of the installation');
$node->sql(q{SELECT gpu_orch.set_budget(NULL, 'hour', NULL)});
end_pool('a');
end_pool('b');

# The rate limit holds across pools too.
make_pool('a', 100);
make_pool('b', 100);
$node->sql(q{SELECT gpu_orch.advance_clock('2 minutes'); ALTER SYSTEM SET gpu_orch.spawn_rate_limit = 3;
	SELECT pg_reload_conf()});
$node->until('a rate limit of three', q{SELECT current_setting('gpu_orch.spawn_rate_limit') = '3'});
is(at_once((map { "SELECT gpu_orch.spawn_worker('$_'); SELECT pg_sleep(0.3)" } 'a', 'b') x 25), 3,
	'of 50 sessions in two pools three succeed');
# Nor does a pool that no offer serves now use up what the others could have.
$node->sql(q{UPDATE gpu_orch.offer SET backoff_until = gpu_orch.clock() + interval '1 hour' WHERE pool IN
	(SELECT id FROM gpu_orch.pool WHERE name = 'a');
	SELECT gpu_orch.advance_clock('2 minutes'); SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 50}}')});
$node->until('a pool waits for its offer',
	q{SELECT bound_by ~ 'backs off' FROM gpu_orch.decisions WHERE pool = 'a' ORDER BY decision DESC LIMIT 1});
my $live = $node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE pool = 'b' AND state <> 'terminated'});
$node->sql(qq[SELECT gpu_orch.alter_pool('b', '{"policy_options": {"fixed_workers": @{[$live + 1]}, "spawning_grace": 86400}}')]);
$node->until('and another gets its pod',
	qq{SELECT count(*) > $live FROM gpu_orch.workers WHERE pool = 'b' AND state <> 'terminated'});
$node->sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}');
	SELECT gpu_orch.alter_pool('b', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
$node->sql(q{ALTER SYSTEM RESET gpu_orch.spawn_rate_limit; SELECT pg_reload_conf()});
end_pool('a');
end_pool('b');

# A day budget over midnight: what runs is committed until midnight, and after it for the next day.
$node->sql(q{SELECT gpu_orch.advance_clock(
	date_trunc('day', gpu_orch.clock() + interval '1 day', 'UTC') - interval '1 hour' - gpu_orch.clock())});
make_pool('day', 100);
$node->sql(qq{SELECT gpu_orch.alter_pool('day', '{"budget_per_day": @{[$price * 1.5]}}')});
$node->sql(q{SELECT gpu_orch.spawn_worker('day')});
like($node->refusal(q{SELECT gpu_orch.spawn_worker('day')}), qr/day budget of the pool/,
	'an hour before midnight there is money for one');
$node->fleet(1, 'which comes', pool => 'day');
$node->advance('59 minutes');
cmp_ok($node->sql(qq{SELECT abs(spent / ($price * 59 / 60) - 1) FROM gpu_orch.budgets WHERE pool = 'day'}), '<', 0.05,
	'it is spent as it runs');
$node->sql(q{SELECT gpu_orch.spawn_worker('day', 20)});
pass('just before midnight there is money for many');
$node->fleet(21, 'which come', pool => 'day');
$node->advance('2 minutes');
is($node->sql(qq{SELECT spent < $price, "left" < 0, price_per_hour = 21 * $price FROM gpu_orch.budgets
	WHERE pool = 'day'}), 't|t|t',
	'after midnight the day begins with what they cost until the next');
like($node->refusal(q{SELECT gpu_orch.spawn_worker('day')}), qr/day budget of the pool/, 'and there is no money for another');
invariants('day budget');
end_pool('day');

# A soft budget: said, and no idle buffers; nothing else.
make_pool('soft', 5, '{"policy": "queue_ratio", "policy_options": {}, "idle_buffer": 2}');
$node->fleet(2, 'a buffer of two', pool => 'soft');
$node->sql(qq{SELECT gpu_orch.set_budget('soft', 'hour', 2 * $price, false)});
$node->until('an alert when a soft budget is used up',
	q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'budget_soft' AND cleared_at IS NULL
	AND detail = 'pool soft: the hour budget of the pool'});
is($node->sql(q{SELECT value FROM gpu_orch.explain_scaling('soft') WHERE term = 'busy_plus_buffer'}), 0, 'and no idle buffer');
like($node->sql(q{SELECT gpu_orch.spawn_worker('soft')}), qr/^soft-/, 'it stops no create');
$node->sql(q{SELECT gpu_orch.set_budget('soft', 'hour', NULL, false)});
$node->alerts(0, 'budget_soft', 'it is cleared');
$node->fleet(3, 'three pods', pool => 'soft');
$node->sql(q{SELECT gpu_orch.alter_pool('soft', '{"idle_buffer": 0, "max_workers": 0}')});
end_pool('soft');

# A price that nobody knows is the most that it may be, and when the provider names one, that one from the start.
$provider->fault({call => 'catalog', action => 'status', status => 500}, {call => 'create', action => 'drop_after'},
	{call => 'list', action => 'hide_new', seconds => 100000});
$node->sql(qq{SELECT gpu_orch.create_pool('price', 'image:1', ARRAY['$gpu'], max_workers => 2, options => '{$options}');
	UPDATE gpu_orch.offer SET price_micros = NULL; SELECT gpu_orch.spawn_worker('price')});
$node->until('a create of unknown outcome and price',
	q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE pool = 'price' AND state = 'unknown'});
is($node->sql(q{SELECT price_from, price_per_hour FROM gpu_orch.cost_estimate WHERE pool = 'price'}),
	'assumed|10.000000', 'it counts as a dear one');
is($node->sql(q{SELECT price_per_hour IS NULL FROM gpu_orch.workers WHERE pool = 'price'}), 't', 'and shows no price');
$node->until('with an alert',
	q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'price_unknown' AND cleared_at IS NULL AND detail ~ 'price$'});
$provider->no_faults;
$node->fleet(1, 'the pod is found', pool => 'price');
is($node->sql(q{SELECT count(*), min(price_from), bool_and(c.started_at = o.sent_at) FROM gpu_orch.cost_estimate c
	JOIN gpu_orch.cloud_ops o ON o.worker = c.worker_id AND o.kind = 'create' WHERE c.pool = 'price'}), '1|provider|t',
		'its price holds from the start');
$node->alerts(0, 'price_unknown', 'and the alert is cleared');
# A later change counts from then on.
$provider->fault({call => 'list', action => 'alter', set => {cost => 1.25}});
$node->until('another price splits the interval',
	q{SELECT count(*) = 2 AND max(price_per_hour) = 1.25 FROM gpu_orch.cost_estimate WHERE pool = 'price'});
is($node->sql(q{SELECT count(DISTINCT at) FROM (SELECT started_at AS at FROM gpu_orch.cost_estimate
	WHERE pool = 'price' AND ended_at IS NULL
	UNION ALL SELECT ended_at FROM gpu_orch.cost_estimate WHERE pool = 'price' AND ended_at IS NOT NULL) x}), 1, 'without a gap');
$provider->no_faults;

# A double and an orphan are paid for, so they are counted, from when they came to be until they are proved gone.
my $name = $node->sql(q{SELECT pod_name FROM gpu_orch.cloud_ops WHERE pool = 'price' AND kind = 'create'});
my $installation = $node->sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');
for my $foreign ($name, "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123")
{
	my $id = $provider->control(POST => 'pods', {foreign => $foreign})->{id};
	$id //= (grep { $_->{name} eq $foreign && $_->{foreign} } @{$provider->ledger->{pods}})[-1]{id};
	$node->until('a pod that no worker has is deleted',
		qq{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' AND pod_id = '$id' AND state = 'done'});
	my ($pod) = grep { $_->{id} eq $id } @{$provider->ledger->{pods}};
	cmp_ok($node->sql(qq{SELECT coalesce(sum(cost), -1) FROM gpu_orch.cost_estimate
		WHERE pod_id = '$id' AND worker_id IS NULL AND ended_at IS NOT NULL}),
		'>=', sprintf('%.6f', $pod->{billed} - 0.000001), 'and was counted in full');
}

# Somebody sets the clock: nothing costs more or less for it.
for my $step ('-1 hour', '1 hour')
{
	my $before = $node->sql(q{SELECT sum(seconds) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL});
	$node->sql(qq{SELECT gpu_orch.advance_clock('$step', passed => false)});
	$node->until("a step of $step is seen",
		q{SELECT count(*) > 0 FROM gpu_orch.events WHERE kind = 'clock_step' AND detail->>'seconds' ~ '^-?3[56]'});
	my $after = $node->sql(q{SELECT sum(seconds) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL});
	cmp_ok(abs($after - $before), '<', 60, 'and costs nothing');
	$node->sql(q{DELETE FROM gpu_orch.event WHERE kind = 'clock_step'});
}
# A pod that vanishes is paid for until the first list that does not show it, not until it is believed.
$node->advance('2 minutes');
$provider->control(POST => 'pods', {vanish => $node->sql(q{SELECT pod_id FROM gpu_orch.workers
	WHERE pool = 'price' AND state = 'initializing'})});
$node->until('a pod vanishes',
	q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE pool = 'price'});
is($node->sql(q{SELECT max(c.ended_at) < max(e.at) FROM gpu_orch.cost_estimate c JOIN gpu_orch.events e ON e.subject = c.worker_id
	AND e.to_state = 'terminated' WHERE c.pool = 'price'}), 't', 'and is counted until it was missed first');
invariants('prices');
end_pool('price');

# In the end nothing lives, and no pod of ours was billed more than was counted.
is($provider->ledger->{totals}{live}, 0, 'no pod is left');
is($node->sql(q{SELECT count(*) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL}), 0, 'and none is counted');
invariants('the end');

$node->stop;
done_testing();
