# Lists that do not tell the truth, for however long: what they do not show is not gone, and what many of them
# show too much of is not deleted.
use strict;
use warnings;
use FindBin;
use JSON::PP;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;
use Time::HiRes;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'lists',
	'gpu_orch.orphan_grace' => '0', 'gpu_orch.spawn_rate_limit' => 1000);


$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 20,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 day"}')});
my $installation = $node->sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');

# Have so many pods, old enough to be in every list. Both clocks move: by ours alone a pod's uptime would fall back, as
# that of one that restarts does.
sub keep
{
	my $n = shift;

	$node->sql(qq[SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": $n}}')]);
	$node->fleet($n, "$n pods live");
	$provider->control(POST => 'clock', {advance => 120});
	$node->advance('2 minutes');
	return;
}

subtest 'two pods are missing from every list' => sub {
	keep(2);
	$node->sql('SELECT gpu_orch.pause()');
	$provider->fault({call => 'list', action => 'empty_list'});
	$node->reconcile(2);
	$node->advance('31 seconds');
	$node->reconcile(4);
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 2, 'and live when they are asked for');
	my ($pod) = $provider->pods(1);
	$provider->control(POST => 'pods', {vanish => $pod->{id}});
	$node->until('the one that is gone is found out',
		qq{SELECT ended_because = 'pod_gone' FROM gpu_orch.workers WHERE pod_id = '$pod->{id}'});
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 1, 'and the other stays');
	is($node->sql(qq{SELECT s.ended_at < e.at FROM gpu_orch.spend s JOIN gpu_orch.event e ON e.worker = s.worker
		WHERE s.pod_id = '$pod->{id}' AND e.to_state = 'terminated'}), 't', 'which cost money until it was first not there');
	$provider->no_faults;
};

subtest 'most pods are missing' => sub {
	$node->sql('SELECT gpu_orch.resume()');
	keep(8);
	$provider->fault({call => 'list', action => 'partial_list', pods => 2});
	$node->alerts(1, 'list_not_believed', 'the list is not believed');
	$node->reconcile(3);
	$node->advance('31 seconds');
	$node->reconcile(3);
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 8, 'nobody is ended');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'list_not_believed'}), 1, 'it is written once');
	$provider->no_faults;
	$node->alerts(0, 'list_not_believed', 'until it is whole again');
};

subtest 'many pods that no row wants' => sub {
	$provider->control(POST => 'pods', {foreign => sprintf('gpo-%s-1-abcdefghjkmnpqrstvwxyz01%02d', $installation, $_)})
		for 10 .. 14;
	my $orphans = sub { scalar grep { $_->{name} =~ /abcdefghjkmnpqrstvwxyz01/ } $provider->pods(1) };
	$node->alerts(1, 'list_not_believed', 'the list is not believed');
	$node->reconcile(4);
	is($orphans->(), 5, 'none of them is deleted');
	$node->append_conf('postgresql.conf', 'gpu_orch.kill_cap_percent = 100');
	$node->reload;
	$node->until('unless somebody says that it is true', sub { $orphans->() == 0 });
	$node->alerts(0, 'list_not_believed', 'then it is believed');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 8, 'those with rows live on');
};

subtest 'a pod of somebody else without a name' => sub {
	$provider->control(POST => 'pods', {foreign => 'somebody-elses'});
	my ($foreign) = grep { $_->{name} eq 'somebody-elses' } @{$provider->ledger->{pods}};

	$provider->fault({call => 'list', action => 'alter', remove => ['name'], id => $foreign->{id}});
	like($node->sql('SELECT gpu_orch.reconcile_now()'), qr/"foreign": 1/, 'spoils no list');
	$provider->no_faults;
};

subtest 'a pod that does not say when it was made' => sub {
	$node->append_conf('postgresql.conf', "gpu_orch.kill_cap_percent = 20\ngpu_orch.orphan_grace = '10min'");
	$node->reload;
	$provider->fault({call => 'list', action => 'alter', remove => ['createdAt']});
	$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0200"});
	my $lives = sub { scalar grep { $_->{name} =~ /xyz0200/ } $provider->pods(1) };
	$node->reconcile(2);
	$node->advance('31 seconds');
	$node->reconcile(2);
	is($lives->(), 1, 'is as old as our first sight of it');
	$node->advance('11 minutes');
	$node->until('and is deleted when that is long ago', sub { !$lives->() });
	$provider->no_faults;
};

subtest 'a row that cannot be written' => sub {
	my ($bad, $good) = split /\n/, $node->sql(q{SELECT pod_id FROM gpu_orch.workers WHERE state = 'initializing'
		ORDER BY 1 LIMIT 2});

	$node->sql(qq{ALTER TABLE gpu_orch.worker_profile ADD CONSTRAINT poison CHECK (pod_id <> '$bad' OR ended_because IS NULL)});
	$provider->control(POST => 'pods', {fail => $bad});
	$provider->control(POST => 'pods', {fail => $good});
	$node->until('spoils no other',
		"SELECT state IN ('terminating', 'terminated') FROM gpu_orch.workers WHERE pod_id = '$good'");
	is($node->sql("SELECT state FROM gpu_orch.workers WHERE pod_id = '$bad'"), 'initializing', 'and stays as it was');
	$node->sql('ALTER TABLE gpu_orch.worker_profile DROP CONSTRAINT poison');
	$node->until('until it can be',
		"SELECT state IN ('terminating', 'terminated') FROM gpu_orch.workers WHERE pod_id = '$bad'");
};

subtest 'no list for long' => sub {
	$node->until('what was lost is replaced',
		q{SELECT count(*) = (SELECT (policy_options ->> 'fixed_workers')::int FROM gpu_orch.pools WHERE pool = 'p')
		FROM gpu_orch.workers WHERE state = 'initializing'});
	my $creates = $provider->ledger->{totals}{creates};

	$provider->fault({call => 'list', action => 'malformed', body => 'no json'});
	$node->advance('5 minutes');
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 12}}')});
	$node->cycle(5);
	is($provider->ledger->{totals}{creates}, $creates, 'nothing is created');
	$provider->no_faults;
	$node->advance('2 minutes');
	$node->until('until there is one',
		"SELECT count(*) = 12 FROM gpu_orch.workers WHERE state = 'initializing'");
};

$node->holds_invariants;

subtest 'ten thousand pods, ten thousand rows' => sub {
	my $n = 10000;

	$node->sql(q{SELECT gpu_orch.pause()});
	$node->sql(qq[SELECT gpu_orch.create_pool('big', 'image:1', ARRAY['NVIDIA L4'], max_workers => $n,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": $n}, "spawn_timeout": "1 day"}');
		CREATE TEMP TABLE big AS SELECT i, gpu_orch_nonce AS nonce,
			'gpo-$installation-1-' || gpu_orch_nonce AS name, 'big' || i AS pod
			FROM generate_series(1, $n) i, lpad(i::text, 26, '0') gpu_orch_nonce;
		WITH w AS (INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)
			SELECT pod, 'cloud', (SELECT id FROM gpu_orch.pool WHERE name = 'big'), 'initializing', now(), now() FROM big
			RETURNING no, id, pool),
		p AS (INSERT INTO gpu_orch.worker_profile (worker, pod_id, price_micros) SELECT no, id, 490000 FROM w),
		s AS (INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, started_at) SELECT no, pool, id, 490000,
			now() FROM w)
		INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pool, pod_name, pod_id, planned_at, sent_at,
			answered_at, settled_at)
			SELECT 'create', 'done', nonce, w.no, w.pool, name, pod, now(), now(), now(), now() FROM big
				JOIN w ON w.id = big.pod]);
	my $names = $node->sql(q{SELECT string_agg(pod_id || ' ' || pod_name, ',') FROM gpu_orch.cloud_op WHERE pod_id LIKE 'big%'});
	my @pods = map { my ($id, $name) = split / /; {id => $id, name => $name, status => 'RUNNING',
		cost => 0.49} } split /,/, $names;

	my $rules = PostgreSQL::Test::Utils::tempdir() . '/rules';
	append_to_file($rules, encode_json([{call => 'list', action => 'malformed', body => {pods => \@pods}}]));
	my $big = Provider->start('--faults', $rules);
	open my $key, '>', $node->sql('SHOW gpu_orch.runpod_api_key_file') or die $!;
	print $key $big->{key};
	close $key;
	$node->append_conf('postgresql.conf', "gpu_orch.runpod_api_url = 'http://$big->{address}/v2'");
	$node->reload;
	$node->until('the list is read', "SELECT (gpu_orch.reconcile_now()->>'pods')::int = $n");
	like($node->sql('SELECT gpu_orch.reconcile_now()'), qr/"pods": 10000\b/, 'all are compared');
	is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_op WHERE pod_id LIKE 'big%' AND NOT verified}), 0,
		'and known as ours from now on');
	my $rows = join ' UNION ALL ', map { "SELECT xmin::text, ctid::text FROM gpu_orch.$_ LIKE 'big%'" }
		'worker WHERE id', 'worker_profile WHERE pod_id', 'cloud_op WHERE pod_id', 'spend WHERE pod_id';
	my $before = $node->sql("SELECT md5(string_agg(x::text, ',' ORDER BY x)) FROM ($rows) x");

	my $start = Time::HiRes::time();
	$node->reconcile(3);
	note(sprintf '%.3f s for each reading and comparing', (Time::HiRes::time() - $start) / 3);
	is($node->sql("SELECT md5(string_agg(x::text, ',' ORDER BY x)) FROM ($rows) x"), $before,
		'no row is written that does not change');
};

$node->stop;
done_testing();
