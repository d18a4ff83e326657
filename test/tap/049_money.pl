# Money: budgets that hold whoever asks at once, prices that are true in the end, and every pod counted, for
# as long as it was there.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = $provider->new_node('money', <<'CONF');
gpu_orch.orphan_grace = '0'
gpu_orch.http_timeout = '20s'
gpu_orch.spawn_rate_limit = 1000
max_connections = 100
CONF
my $gpu = 'NVIDIA GeForce RTX 4090';
my $options = '"policy": "fixed", "policy_options": {"fixed_workers": 0, "spawning_grace": 86400, "scale_down_grace": 0},'
  . ' "spawn_timeout": "60 days", "capabilities": {"services": ["none"]}';

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }
sub refusal { my ($rc, $out, $err) = $node->psql('postgres', $_[0]); return $err; }

# make_pool(NAME, MAX, MORE): a pool without a policy of its own, and its offers priced.
sub make_pool
{
	my ($name, $max, $more) = @_;

	sql(qq{SELECT gpu_orch.create_pool('$name', 'image:1', ARRAY['$gpu'], max_workers => $max,
		options => '{$options}')});
	sql(qq{SELECT gpu_orch.alter_pool('$name', '$more')}) if $more;
	ok(until_true(qq{SELECT bool_and(price_per_hour IS NOT NULL) FROM gpu_orch.offers WHERE pool = '$name'}), "pool $name has prices");
}

# end_pool(NAME): drop a pool and wait until its last pod is proved gone.
sub end_pool
{
	my ($name) = @_;

	sql(qq{SELECT gpu_orch.terminate_worker(worker_id, true) FROM gpu_orch.workers WHERE pool = '$name'
		AND state NOT IN ('spawning', 'terminating', 'terminated')});
	ok(until_true(qq{SELECT coalesce(bool_and(state = 'terminated'), true) FROM gpu_orch.workers WHERE pool = '$name'}),
		"the pods of pool $name are gone");
	sql(qq{SELECT gpu_orch.drop_pool('$name')});
}

# at_once(STATEMENT...): each in a session of its own, all at the same time; returns how many succeeded.
sub at_once
{
	my @statements = @_;
	my $dsn = $node->connstr('postgres');
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
sub creates { return sql(qq{SELECT count(*) FROM gpu_orch.cloud_ops WHERE kind = 'create' AND pool IN ($_[0])}); }

sub invariants
{
	is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', "$_[0]: every invariant holds");
}

# A create that takes three seconds before it makes the pod is counted from the pod's beginning, at most a second
# more: the provider's dates tell, before anybody moved our clock.
make_pool('slow', 2);
$provider->fault({call => 'create', action => 'delay_before', seconds => 3, count => 1});
sql(q{SELECT gpu_orch.spawn_worker('slow')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'slow' AND state = 'initializing'}), 'a slow create succeeds');
my ($slow) = $provider->pods(1);
my $counted = sql(q{SELECT extract(epoch FROM started_at) FROM gpu_orch.cost_estimate WHERE pool = 'slow'});
cmp_ok($counted, '<=', $slow->{created_at} + 0.001, 'it is counted from its beginning');
cmp_ok($counted, '>', $slow->{created_at} - 2, 'and not from the sending');
$provider->no_faults;
end_pool('slow');

# Hard cap: 50 sessions spawning at once against a cap with room for three: three pods.
make_pool('places', 3);
is(at_once((q{SELECT gpu_orch.spawn_worker('places')}) x 50), 3, 'of 50 sessions at max_workers 3, three succeed');
is(creates(q{'places'}), 3, 'three creates');
ok(until_true(q{SELECT count(*) = 3 FROM gpu_orch.workers WHERE pool = 'places' AND state = 'initializing'}), 'three pods');
is(scalar($provider->pods(1)), 3, 'and no more at the provider');
invariants('max_workers');
my $price = sql(q{SELECT price_per_hour FROM gpu_orch.offers WHERE pool = 'places'});
end_pool('places');

# The same for a budget of the installation, across two pools; each transaction stays open for a while.
make_pool('a', 100);
make_pool('b', 100);
sql(qq{SELECT gpu_orch.set_budget(NULL, 'hour', 3 * $price)});
is(at_once((map { "SELECT gpu_orch.spawn_worker('$_'); SELECT pg_sleep(0.3)" } 'a', 'b') x 25), 3,
	'of 50 sessions in two pools at a budget for three pods, three succeed');
is(creates(q{'a', 'b'}), 3, 'three creates');
like(refusal(q{SELECT gpu_orch.spawn_worker('a')}), qr/hour budget of the installation/, 'a refusal names the budget');
is(sql(q{SELECT pool IS NULL, per, hard, amount = committed, "left" FROM gpu_orch.budgets}), 't|hour|t|t|0.000000', 'the view shows it used up');
# The leader is bound by it as well, says so, and gives the alarm while it is.
is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'budget_hard'}), 0, 'nobody wants more yet');
sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 50}}')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'budget_hard' AND cleared_at IS NULL
	AND detail ~ 'pool a gets no more pods by the hour budget of the installation'}), 'an alert when it binds');
is(sql(q{SELECT bound, note FROM gpu_orch.explain_scaling('a') WHERE term = 'budget_room'}),
	't|creates allowed by the hour budget of the installation', 'explain_scaling says which budget');
is(creates(q{'a', 'b'}), 3, 'still three creates');
sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE alert = 'budget_hard' AND cleared_at IS NULL}), 'and it is cleared');
invariants('budget of the installation');
sql(q{SELECT gpu_orch.set_budget(NULL, 'hour', NULL)});
end_pool('a');
end_pool('b');

# The rate limit holds across pools too.
make_pool('a', 100);
make_pool('b', 100);
sql(q{SELECT gpu_orch.advance_clock('2 minutes'); ALTER SYSTEM SET gpu_orch.spawn_rate_limit = 3; SELECT pg_reload_conf()});
ok(until_true(q{SELECT current_setting('gpu_orch.spawn_rate_limit') = '3'}), 'a rate limit of three');
is(at_once((map { "SELECT gpu_orch.spawn_worker('$_'); SELECT pg_sleep(0.3)" } 'a', 'b') x 25), 3,
	'of 50 sessions in two pools three succeed');
# Nor does a pool that no offer serves now use up what the others could have.
sql(q{UPDATE gpu_orch.offer SET backoff_until = gpu_orch.clock() + interval '1 hour' WHERE pool IN (SELECT id FROM gpu_orch.pool WHERE name = 'a');
	SELECT gpu_orch.advance_clock('2 minutes'); SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 50}}')});
ok(until_true(q{SELECT bound_by ~ 'backs off' FROM gpu_orch.decisions WHERE pool = 'a' ORDER BY decision DESC LIMIT 1}), 'a pool waits for its offer');
my $live = sql(q{SELECT count(*) FROM gpu_orch.workers WHERE pool = 'b' AND state <> 'terminated'});
sql(qq[SELECT gpu_orch.alter_pool('b', '{"policy_options": {"fixed_workers": @{[$live + 1]}, "spawning_grace": 86400}}')]);
ok(until_true(qq{SELECT count(*) > $live FROM gpu_orch.workers WHERE pool = 'b' AND state <> 'terminated'}), 'and another gets its pod');
sql(q{SELECT gpu_orch.alter_pool('a', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}');
	SELECT gpu_orch.alter_pool('b', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
sql(q{ALTER SYSTEM RESET gpu_orch.spawn_rate_limit; SELECT pg_reload_conf()});
end_pool('a');
end_pool('b');

# A day budget over midnight: what runs is committed until midnight, and after it for the next day.
sql(q{SELECT gpu_orch.advance_clock(date_trunc('day', gpu_orch.clock() + interval '1 day', 'UTC') - interval '1 hour' - gpu_orch.clock())});
make_pool('day', 100);
sql(qq{SELECT gpu_orch.alter_pool('day', '{"budget_per_day": @{[$price * 1.5]}}')});
sql(q{SELECT gpu_orch.spawn_worker('day')});
like(refusal(q{SELECT gpu_orch.spawn_worker('day')}), qr/day budget of the pool/, 'an hour before midnight there is money for one');
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'day' AND state = 'initializing'}), 'which comes');
sql(q{SELECT gpu_orch.advance_clock('59 minutes')});
cmp_ok(sql(qq{SELECT abs(spent / ($price * 59 / 60) - 1) FROM gpu_orch.budgets WHERE pool = 'day'}), '<', 0.05, 'it is spent as it runs');
sql(q{SELECT gpu_orch.spawn_worker('day', 20)});
pass('just before midnight there is money for many');
ok(until_true(q{SELECT count(*) = 21 FROM gpu_orch.workers WHERE pool = 'day' AND state = 'initializing'}), 'which come');
sql(q{SELECT gpu_orch.advance_clock('2 minutes')});
is(sql(qq{SELECT spent < $price, "left" < 0, price_per_hour = 21 * $price FROM gpu_orch.budgets WHERE pool = 'day'}), 't|t|t',
	'after midnight the day begins with what they cost until the next');
like(refusal(q{SELECT gpu_orch.spawn_worker('day')}), qr/day budget of the pool/, 'and there is no money for another');
invariants('day budget');
end_pool('day');

# A soft budget: said, and no idle buffers; nothing else.
make_pool('soft', 5, '{"policy": "queue_ratio", "policy_options": {}, "idle_buffer": 2}');
ok(until_true(q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE pool = 'soft' AND state = 'initializing'}), 'a buffer of two');
sql(qq{SELECT gpu_orch.set_budget('soft', 'hour', 2 * $price, false)});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'budget_soft' AND cleared_at IS NULL
	AND detail = 'pool soft: the hour budget of the pool'}), 'an alert when a soft budget is used up');
is(sql(q{SELECT value FROM gpu_orch.explain_scaling('soft') WHERE term = 'busy_plus_buffer'}), 0, 'and no idle buffer');
like(sql(q{SELECT gpu_orch.spawn_worker('soft')}), qr/^soft-/, 'it stops no create');
sql(q{SELECT gpu_orch.set_budget('soft', 'hour', NULL, false)});
ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE alert = 'budget_soft' AND cleared_at IS NULL}), 'it is cleared');
ok(until_true(q{SELECT count(*) = 3 FROM gpu_orch.workers WHERE pool = 'soft' AND state = 'initializing'}), 'three pods');
sql(q{SELECT gpu_orch.alter_pool('soft', '{"idle_buffer": 0, "max_workers": 0}')});
end_pool('soft');

# A price that nobody knows is the most that it may be, and when the provider names one, that one from the start.
$provider->fault({call => 'catalog', action => 'status', status => 500}, {call => 'create', action => 'drop_after'},
	{call => 'list', action => 'hide_new', seconds => 100000});
sql(qq{SELECT gpu_orch.create_pool('price', 'image:1', ARRAY['$gpu'], max_workers => 2, options => '{$options}');
	UPDATE gpu_orch.offer SET price_micros = NULL; SELECT gpu_orch.spawn_worker('price')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE pool = 'price' AND state = 'unknown'}), 'a create of unknown outcome and price');
is(sql(q{SELECT price_from, price_per_hour FROM gpu_orch.cost_estimate WHERE pool = 'price'}), 'assumed|10.000000', 'it counts as a dear one');
is(sql(q{SELECT price_per_hour IS NULL FROM gpu_orch.workers WHERE pool = 'price'}), 't', 'and shows no price');
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.alerts WHERE alert = 'price_unknown' AND cleared_at IS NULL AND detail ~ 'price$'}), 'with an alert');
$provider->no_faults;
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.workers WHERE pool = 'price' AND state = 'initializing'}), 'the pod is found');
is(sql(q{SELECT count(*), min(price_from), bool_and(c.started_at = o.sent_at) FROM gpu_orch.cost_estimate c
	JOIN gpu_orch.cloud_ops o ON o.worker = c.worker_id AND o.kind = 'create' WHERE c.pool = 'price'}), '1|provider|t', 'its price holds from the start');
ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE alert = 'price_unknown' AND cleared_at IS NULL}), 'and the alert is cleared');
# A later change counts from then on.
$provider->fault({call => 'list', action => 'alter', set => {cost => 1.25}});
ok(until_true(q{SELECT count(*) = 2 AND max(price_per_hour) = 1.25 FROM gpu_orch.cost_estimate WHERE pool = 'price'}), 'another price splits the interval');
is(sql(q{SELECT count(DISTINCT at) FROM (SELECT started_at AS at FROM gpu_orch.cost_estimate WHERE pool = 'price' AND ended_at IS NULL
	UNION ALL SELECT ended_at FROM gpu_orch.cost_estimate WHERE pool = 'price' AND ended_at IS NOT NULL) x}), 1, 'without a gap');
$provider->no_faults;

# A double and an orphan are paid for, so they are counted, from when they came to be until they are proved gone.
my $name = sql(q{SELECT pod_name FROM gpu_orch.cloud_ops WHERE pool = 'price' AND kind = 'create'});
my $installation = sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');
for my $foreign ($name, "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123")
{
	my $id = $provider->control(POST => 'pods', {foreign => $foreign})->{id};
	$id //= (grep { $_->{name} eq $foreign && $_->{foreign} } @{$provider->ledger->{pods}})[-1]{id};
	ok(until_true(qq{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' AND pod_id = '$id' AND state = 'done'}),
		'a pod that no worker has is deleted');
	my ($pod) = grep { $_->{id} eq $id } @{$provider->ledger->{pods}};
	cmp_ok(sql(qq{SELECT coalesce(sum(cost), -1) FROM gpu_orch.cost_estimate WHERE pod_id = '$id' AND worker_id IS NULL AND ended_at IS NOT NULL}),
		'>=', sprintf('%.6f', $pod->{billed} - 0.000001), 'and was counted in full');
}

# Somebody sets the clock: nothing costs more or less for it.
for my $step ('-1 hour', '1 hour')
{
	my $before = sql(q{SELECT sum(seconds) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL});
	sql(qq{SELECT gpu_orch.advance_clock('$step', passed => false)});
	ok(until_true(q{SELECT count(*) > 0 FROM gpu_orch.events WHERE kind = 'clock_step' AND detail->>'seconds' ~ '^-?3[56]'}), "a step of $step is seen");
	my $after = sql(q{SELECT sum(seconds) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL});
	cmp_ok(abs($after - $before), '<', 60, 'and costs nothing');
	sql(q{DELETE FROM gpu_orch.event WHERE kind = 'clock_step'});
}
# A pod that vanishes is paid for until the first list that does not show it, not until it is believed.
sql(q{SELECT gpu_orch.advance_clock('2 minutes')});
$provider->control(POST => 'pods', {vanish => sql(q{SELECT pod_id FROM gpu_orch.workers WHERE pool = 'price' AND state = 'initializing'})});
ok(until_true(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE pool = 'price'}), 'a pod vanishes');
is(sql(q{SELECT max(c.ended_at) < max(e.at) FROM gpu_orch.cost_estimate c JOIN gpu_orch.events e ON e.subject = c.worker_id
	AND e.to_state = 'terminated' WHERE c.pool = 'price'}), 't', 'and is counted until it was missed first');
invariants('prices');
end_pool('price');

# In the end nothing lives, and no pod of ours was billed more than was counted.
is($provider->ledger->{totals}{live}, 0, 'no pod is left');
is(sql(q{SELECT count(*) FROM gpu_orch.cost_estimate WHERE ended_at IS NULL}), 0, 'and none is counted');
invariants('the end');

$node->stop;
done_testing();
