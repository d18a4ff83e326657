# Which calls wait for what: requests to be left alone, refusals that concern the account, a window that
# creates must not fill, a pause that is just being committed, a clock that is set back, a key that changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use List::Util qw(min);
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'calls',
	'gpu_orch.api_concurrency' => 4, 'gpu_orch.http_timeout' => '20s', max_prepared_transactions => 1);

sub requests { return $provider->requests; }
sub creates { return grep { $_->{call} eq 'create' } requests(); }
sub is_alerted
{
	my ($alert, $subject, $name) = @_;
	return $node->until($name, qq{SELECT count(*) = 1 FROM gpu_orch.alerts
		WHERE alert = '$alert' AND subject = '$subject' AND cleared_at IS NULL});
}
sub is_calm { return $node->until($_[0], q{SELECT count(*) = 0 FROM gpu_orch.alerts WHERE cleared_at IS NULL}); }

# A pool that does nothing by itself: pods are asked for with spawn_worker().
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 10,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0, "spawning_grace": 86400},
	             "capabilities": {"services": ["nothing"]}, "spawn_timeout": "1 day"}')});
$node->until('the offer has a price', q{SELECT count(*) = 1 FROM gpu_orch.offers WHERE price_per_hour > 0});

subtest 'after a 429 nothing is asked until its time, whatever succeeds meanwhile' => sub {
	$provider->fault({call => 'list', action => 'delay', seconds => 1},
		{call => 'create', action => 'status', status => 429, retry_after => 5, count => 1});
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->worker_is($id, 'terminated', 'the create is refused');
	my ($refused) = grep { $_->{status} == 429 } creates();
	my $again = $node->spawn('p', 'later a pod comes');
	my @early = grep { $_->{at} > $refused->{ended_at} + 2 && $_->{at} < $refused->{ended_at} + 4.9 } requests();
	is(scalar @early, 0, 'nothing was asked meanwhile');
	ok(scalar(grep { $_->{call} eq 'list' && $_->{at} < $refused->{ended_at} && $_->{status} == 200 } requests()),
		'a list was read before');
	$provider->no_faults;
	$node->ends($again, 'and it ends');
};

subtest 'without money no pod is asked for, and pods are deleted' => sub {
	my $id = $node->spawn('p');
	my $before = creates();
	$provider->fault({call => 'create', action => 'no_balance'});
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 2, "spawning_grace": 86400}}')});
	is_alerted('no_money', 'account', 'there is an alert');
	$node->until('and the status tells',
		q{SELECT NOT api_ok AND api_error ~ '402' FROM gpu_orch.leader_status()});
	$node->until('it is tried again', sub { creates() >= $before + 2 });
	my @tries = (creates())[$before .. $before + 1];
	cmp_ok($tries[1]{at} - $tries[0]{at}, '>=', 2.4, 'after a while');
	cmp_ok(scalar(grep { $_->{call} eq 'list' && $_->{at} > $tries[0]{at} && $_->{at} < $tries[1]{at} } requests()),
		'>=', 1, 'lists go on');
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 0, "spawning_grace": 86400}}')});
	$node->ends($id, 'deletes go on');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts WHERE alert = 'no_money' AND cleared_at IS NULL}), 1,
		'while the alert stands');
	$provider->no_faults;
	$node->advance('6 minutes');
	$node->ends($node->spawn('p'), 'with money there are pods again');
	is_calm('and the alert is cleared');
};

subtest 'deletes that fail leave creates alone' => sub {
	my $id = $node->spawn('p');
	$provider->fault({call => 'delete', action => 'status', status => 500});
	$node->sql("SELECT gpu_orch.terminate_worker('$id', true)");
	$node->until('a delete fails again and again',
		q{SELECT tries > 3 FROM gpu_orch.cloud_ops WHERE kind = 'delete' ORDER BY op_id DESC LIMIT 1});
	my $other = $node->spawn('p');
	$provider->no_faults;
	$node->worker_is($id, 'terminated', 'it works in the end');
	$node->ends($other, 'and the other one');
};

# Three of four places are for creates; what was planned and not sent is called off when nothing needs it.
subtest 'a delete does not wait for creates, and creates that nobody needs are not sent' => sub {
	my $id = $node->spawn('p');
	my $before = creates();
	$provider->fault({call => 'create', action => 'delay_before', seconds => 8});
	$node->sql(q{SELECT gpu_orch.create_pool('tasks', 'image:1', ARRAY['NVIDIA L4'], max_workers => 6,
		options => '{"policy": "one_to_one", "spawn_timeout": "1 day"}');
		SELECT gpu_orch.submit_task('t') FROM generate_series(1, 6)});
	$node->until('three creates are under way, three wait',
		q{SELECT count(*) FILTER (WHERE state = 'sent') = 3 AND count(*) FILTER (WHERE state = 'planned') = 3
		FROM gpu_orch.cloud_ops WHERE kind = 'create' AND pool = 'tasks'});
	$node->ends($id, 'a pod is deleted');
	my ($deleted) = (grep { $_->{call} eq 'delete' } requests())[-1];
	my @slow = (creates())[$before .. $before + 2];
	cmp_ok($deleted->{at}, '<', min(map { $_->{ended_at} // 1e12 } @slow), 'before the creates were answered');
	$node->sql(q{SELECT gpu_orch.cancel_task(task_id) FROM gpu_orch.tasks; SELECT gpu_orch.advance_clock('6 seconds')});
	$node->until('what waited is called off',
		q{SELECT count(*) = 3 FROM gpu_orch.events WHERE kind = 'not_sent'});
	$node->fleet(0, 'nothing is in doubt', pool => 'tasks', state => 'spawning');
	is(scalar(creates()), $before + 3, 'three pods were asked for');
	$provider->no_faults;
	$node->sql(q{SELECT gpu_orch.drop_pool('tasks')});
	$node->all_end('all end');
};

subtest 'no create is sent after a pause' => sub {
	$provider->fault({call => 'list', action => 'delay', seconds => 2});
	$node->sql('SELECT gpu_orch.pause(); SELECT gpu_orch.resume()');
	my $before = creates();
	my $id = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->sql(q{BEGIN; UPDATE gpu_orch.installation SET paused = true; PREPARE TRANSACTION 'pause'});
	$node->reconcile;
	$node->cycle(2);
	is($node->sql("SELECT state FROM gpu_orch.cloud_ops WHERE worker = '$id'"), 'planned',
		'while somebody pauses, nothing is sent');
	$node->sql(q{COMMIT PREPARED 'pause'});
	$node->cycle(3);
	is(scalar(creates()), $before, 'nor afterwards');
	$provider->no_faults;
	$node->sql('SELECT gpu_orch.resume()');
	$node->worker_is($id, 'initializing', 'but when it is over');
	$node->ends($id, 'and it ends');
};

subtest 'a clock that is set back puts nothing off' => sub {
	$provider->fault({call => 'list', action => 'status', status => 429, retry_after => 3, count => 1});
	$node->until('calls wait', q{SELECT api_retry_at > gpu_orch.clock() FROM gpu_orch.leader_status()});
	$node->advance('-1 hour');
	$node->until('and come, by the new time', q{SELECT api_ok FROM gpu_orch.leader_status()});
};

# Write a key to the file in the way that `mv` does, with the time of the file before.
my ($file) = $node->sql('SHOW gpu_orch.runpod_api_key_file');
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
	my $id = $node->spawn('p');
	my $old = $provider->{key};
	my $bad = 'f' x length $old;
	put_key($bad);
	is_alerted('key_refused', 'new key', 'a wrong key of the same size and time is noticed');
	$node->ends($id, 'pods are deleted with the old one');
	$node->ends($node->spawn('p'), 'and made');
	unlink $file;
	$node->ends($node->spawn('p'), 'even without a file');
	my $new = scalar reverse $old;
	append_to_file($file, $new);
	$provider->control(POST => 'key', {key => $new});
	is_calm('the right one is taken');
	$node->ends($node->spawn('p'), 'and works');
	unlike(slurp_file($node->logfile), qr/\Q$old\E|\Q$bad\E|\Q$new\E/, 'no key is in the log');
};

is(scalar($provider->pods(1)), 0, 'no pod lives');
$node->holds_invariants;
$node->stop;

# A success may say that it was the last one for now: the limit is not run into.
subtest 'a rate that is used up is respected' => sub {
	my $strict = Provider->start('--quota', '8');
	my $other = GpuOrch->calling($strict, 'strict');
	$other->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'])});
	$other->until('calls wait', q{SELECT NOT api_ok AND api_retry_at > gpu_orch.clock()
		FROM gpu_orch.leader_status()});
	$other->cycle(3);
	like($other->refusal('SELECT gpu_orch.reconcile_now()'), qr/left alone/, 'and who asks for one is told why');
	is(scalar(grep { $_->{status} == 429 } $strict->requests), 0,
		'the provider refused nothing');
	$other->stop;
};

done_testing();
