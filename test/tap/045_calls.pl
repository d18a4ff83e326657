# Which calls wait for what: requests to be left alone, refusals that concern the account, a window that
# creates must not fill, a pause that is just being committed, a clock that is set back, a key that changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use List::Util qw(min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = $provider->new_node('calls', <<'CONF');
gpu_orch.api_concurrency = 4
gpu_orch.http_timeout = '20s'
max_prepared_transactions = 1
CONF

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }
sub requests { return $provider->requests; }
sub creates { return grep { $_->{call} eq 'create' } requests(); }
sub is_alerted
{
	my ($alert, $subject) = @_;
	return until_true(qq{SELECT count(*) = 1 FROM gpu_orch.alerts
		WHERE alert = '$alert' AND subject = '$subject' AND cleared_at IS NULL});
}
sub is_calm { return until_true(q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE cleared_at IS NULL}); }

# A pool that does nothing by itself: pods are asked for with spawn_worker().
sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 10,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0, "spawning_grace": 86400},
	             "capabilities": {"services": ["nothing"]}, "spawn_timeout": "1 day"}')});
ok(until_true(q{SELECT count(*) = 1 FROM gpu_orch.offers WHERE price_per_hour > 0}), 'the offer has a price');

# One pod more; returns its worker, once it is initializing.
sub pod
{
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});
	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'a pod comes');
	return $id;
}

# A pod is ended, and proved gone, although something else does not work.
sub ends
{
	my ($id, $name) = @_;
	sql("SELECT gpu_orch.terminate_worker('$id', true)");
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), $name);
}

subtest 'after a 429 nothing is asked until its time, whatever succeeds meanwhile' => sub {
	$provider->fault({call => 'list', action => 'delay', seconds => 1},
		{call => 'create', action => 'status', status => 429, retry_after => 5, count => 1});
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'the create is refused');
	my ($refused) = grep { $_->{status} == 429 } creates();
	my $again = sql(q{SELECT gpu_orch.spawn_worker('p')});
	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$again'"), 'later a pod comes');
	my @early = grep { $_->{at} > $refused->{ended_at} + 2 && $_->{at} < $refused->{ended_at} + 4.9 } requests();
	is(scalar @early, 0, 'nothing was asked meanwhile');
	ok(scalar(grep { $_->{call} eq 'list' && $_->{at} < $refused->{ended_at} && $_->{status} == 200 } requests()),
		'a list was read before');
	$provider->no_faults;
	ends($again, 'and it ends');
};

subtest 'without money no pod is asked for, and pods are deleted' => sub {
	my $id = pod();
	my $before = creates();
	$provider->fault({call => 'create', action => 'no_balance'});
	sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 2, "spawning_grace": 86400}}')});
	ok(is_alerted('no_money', 'account'), 'there is an alert');
	ok(until_true(q{SELECT NOT api_ok AND api_error ~ '402' FROM gpu_orch.leader_status()}), 'and the status tells');
	ok($provider->wait_until(sub { creates() >= $before + 2 }, 'it is tried again'), 'it is tried again');
	my @tries = (creates())[$before .. $before + 1];
	cmp_ok($tries[1]{at} - $tries[0]{at}, '>=', 2.4, 'after a while');
	cmp_ok(scalar(grep { $_->{call} eq 'list' && $_->{at} > $tries[0]{at} && $_->{at} < $tries[1]{at} } requests()),
		'>=', 1, 'lists go on');
	sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
	ends($id, 'deletes go on');
	is(sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'no_money' AND cleared_at IS NULL}), 1,
		'while the alert stands');
	$provider->no_faults;
	sql(q{SELECT gpu_orch.advance_clock('6 minutes')});
	ends(pod(), 'with money there are pods again');
	ok(is_calm(), 'and the alert is cleared');
};

subtest 'deletes that fail leave creates alone' => sub {
	my $id = pod();
	$provider->fault({call => 'delete', action => 'status', status => 500});
	sql("SELECT gpu_orch.terminate_worker('$id', true)");
	ok(until_true(q{SELECT tries > 3 FROM gpu_orch.cloud_ops WHERE kind = 'delete' ORDER BY op_id DESC LIMIT 1}),
		'a delete fails again and again');
	my $other = pod();
	$provider->no_faults;
	ok(until_true("SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'it works in the end');
	ends($other, 'and the other one');
};

# Three of four places are for creates; what was planned and not sent is called off when nothing needs it.
subtest 'a delete does not wait for creates, and creates that nobody needs are not sent' => sub {
	my $id = pod();
	my $before = creates();
	$provider->fault({call => 'create', action => 'delay_before', seconds => 8});
	sql(q{SELECT gpu_orch.create_pool('tasks', 'image:1', ARRAY['NVIDIA L4'], max_workers => 6,
		options => '{"policy": "one_to_one", "spawn_timeout": "1 day"}');
		SELECT gpu_orch.submit_task('t') FROM generate_series(1, 6)});
	ok(until_true(q{SELECT count(*) FILTER (WHERE state = 'sent') = 3 AND count(*) FILTER (WHERE state = 'planned') = 3
		FROM gpu_orch.cloud_ops WHERE kind = 'create' AND pool = 'tasks'}), 'three creates are under way, three wait');
	ends($id, 'a pod is deleted');
	my ($deleted) = (grep { $_->{call} eq 'delete' } requests())[-1];
	my @slow = (creates())[$before .. $before + 2];
	cmp_ok($deleted->{at}, '<', min(map { $_->{ended_at} // 1e12 } @slow), 'before the creates were answered');
	sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks; SELECT gpu_orch.advance_clock('6 seconds')});
	ok(until_true(q{SELECT count(*) = 3 FROM gpu_orch.events WHERE kind = 'not_sent'}), 'what waited is called off');
	ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.workers WHERE pool = 'tasks' AND state = 'spawning'}), 'nothing is in doubt');
	is(scalar(creates()), $before + 3, 'three pods were asked for');
	$provider->no_faults;
	sql(q{SELECT gpu_orch.drop_pool('tasks')});
	ok(until_true(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers}), 'all end');
};

subtest 'no create is sent after a pause' => sub {
	$provider->fault({call => 'list', action => 'delay', seconds => 2});
	sql('SELECT gpu_orch.pause(); SELECT gpu_orch.resume()');
	my $before = creates();
	my $id = sql(q{SELECT gpu_orch.spawn_worker('p')});
	sql(q{BEGIN; UPDATE gpu_orch.installation SET paused = true; PREPARE TRANSACTION 'pause'});
	sql('SELECT gpu_orch.reconcile_now()');
	sql('SELECT gpu_orch.run_cycle()') for 1 .. 2;
	is(sql("SELECT state FROM gpu_orch.cloud_ops WHERE worker = '$id'"), 'planned', 'while somebody pauses, nothing is sent');
	sql(q{COMMIT PREPARED 'pause'});
	sql('SELECT gpu_orch.run_cycle()') for 1 .. 3;
	is(scalar(creates()), $before, 'nor afterwards');
	$provider->no_faults;
	sql('SELECT gpu_orch.resume()');
	ok(until_true("SELECT state = 'initializing' FROM gpu_orch.workers WHERE worker_id = '$id'"), 'but when it is over');
	ends($id, 'and it ends');
};

subtest 'a clock that is set back puts nothing off' => sub {
	$provider->fault({call => 'list', action => 'status', status => 429, retry_after => 3, count => 1});
	ok(until_true(q{SELECT api_retry_at > gpu_orch.clock() FROM gpu_orch.leader_status()}), 'calls wait');
	sql(q{SELECT gpu_orch.advance_clock('-1 hour')});
	ok(until_true(q{SELECT api_ok FROM gpu_orch.leader_status()}), 'and come, by the new time');
};

# Write a key to the file in the way that `mv` does, with the time of the file before.
my ($file) = sql('SHOW gpu_orch.runpod_api_key_file');
sub put_key
{
	my $key = shift;
	my @old = stat $file;
	umask 077;
	append_to_file("$file.new", $key);
	utime $old[8], $old[9], "$file.new";
	rename "$file.new", $file or die "rename: $!";
}

subtest 'a key is replaced once the new one has worked' => sub {
	my $id = pod();
	my $old = $provider->{key};
	my $bad = 'f' x length $old;
	put_key($bad);
	ok(is_alerted('key_refused', 'new key'), 'a wrong key of the same size and time is noticed');
	ends($id, 'pods are deleted with the old one');
	ends(pod(), 'and made');
	unlink $file;
	ends(pod(), 'even without a file');
	my $new = scalar reverse $old;
	append_to_file($file, $new);
	$provider->control(POST => 'key', {key => $new});
	ok(is_calm(), 'the right one is taken');
	ends(pod(), 'and works');
	unlike(slurp_file($node->logfile), qr/\Q$old\E|\Q$bad\E|\Q$new\E/, 'no key is in the log');
};

is(scalar($provider->pods(1)), 0, 'no pod lives');
is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', 'every invariant holds');
$node->stop;

# A success may say that it was the last one for now: the limit is not run into.
subtest 'a rate that is used up is respected' => sub {
	my $strict = Provider->start('--quota', '8');
	my $other = $strict->new_node('strict', '');
	$other->safe_psql('postgres', q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'])});
	ok($other->poll_query_until('postgres', q{SELECT NOT api_ok AND api_retry_at > gpu_orch.clock()
		FROM gpu_orch.leader_status()}), 'calls wait');
	$other->safe_psql('postgres', 'SELECT gpu_orch.run_cycle()') for 1 .. 3;
	my ($rc, $out, $err) = $other->psql('postgres', 'SELECT gpu_orch.reconcile_now()');
	like($err, qr/left alone/, 'and who asks for one is told why');
	is(scalar(grep { $_->{status} == 429 } $strict->requests), 0,
		'the provider refused nothing');
	$other->stop;
};

done_testing();
