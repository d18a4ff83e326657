# What the provider refuses, and what it says of itself; and lists that do not tell the truth.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'refusals', 'gpu_orch.orphan_grace' => '0');

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090', 'NVIDIA L4'], max_workers => 1,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 1}, "spawn_timeout": "1 hour"}');
	SELECT gpu_orch.pause()});

# The prices come from the catalog.
$node->until('the offers have prices', q{SELECT count(*) = 2 FROM gpu_orch.offers WHERE price_per_hour > 0});

# No capacity for the first offer: the second one is asked at once, and the first is passed over.
$provider->fault({call => 'create', action => 'no_capacity', gpu => 'NVIDIA GeForce RTX 4090'});
$node->sql('SELECT gpu_orch.resume()');
$node->until('the next offer gives the pod',
	q{SELECT gpu_type = 'NVIDIA L4' FROM gpu_orch.workers WHERE state = 'initializing'});
is($node->sql(q{SELECT passed_over FROM gpu_orch.offers WHERE gpu_type = 'NVIDIA GeForce RTX 4090'}), 't',
	'the first offer is passed over for a while');
is($node->sql(q{SELECT reason FROM gpu_orch.cloud_ops WHERE kind = 'create' AND state = 'refused' LIMIT 1}), 'capacity',
	'and the journal says why');
is($node->sql(q{SELECT coalesce(sum(seconds), 0) = 0 FROM gpu_orch.cost_estimate c JOIN gpu_orch.workers w USING (worker_id)
	WHERE w.pod_id IS NULL}), 't', 'a refused create costs nothing');
$provider->no_faults;

# Lists that do not tell the truth change nothing.
$node->advance('2 minutes');
$provider->fault({call => 'list', action => 'empty_list', count => 1});
$provider->control(POST => 'pods', {foreign => "somebody-elses\n\e[31m" . 'x' x 5000});
$provider->control(POST => 'pods', {foreign => 'gpo-00000000-1-abcdefghjkmnpqrstvwxyz0123'});
$node->reconcile;
is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 1, 'an empty list ends nobody');
$provider->fault({call => 'list', action => 'status', status => 500, count => 1});
like($node->refusal('SELECT gpu_orch.reconcile_now()'), qr/could not be read/, 'a list that fails is an error to who asked');
is($node->sql(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}), 1, 'and ends nobody');
like($node->sql('SELECT gpu_orch.reconcile_now()'), qr/"foreign": 2/, 'pods of others are seen');
is($node->sql('SELECT string_agg(name, chr(10) ORDER BY name) FROM gpu_orch.foreign_pods WHERE price_per_hour > 0'),
	"gpo-00000000-1-abcdefghjkmnpqrstvwxyz0123\nsomebody-elses  [31m" . 'x' x 480, 'and shown, in one short line that moves no terminal');

# The pod vanishes: two lists that agree, some time apart, and it is believed.
my ($pod) = $provider->pods(1);
$provider->control(POST => 'pods', {vanish => (grep { $_->{gpu} =~ /L4/ } $provider->pods(1))[0]{id}});
$node->until('a pod that is gone is noticed',
	q{SELECT count(*) >= 1 FROM gpu_orch.workers WHERE state = 'terminated' AND ended_because = 'pod_gone'});
$node->fleet(1, 'and replaced');

# A pod of ours that no row wants: restored rows, say. It is deleted; those of others are not.
my $installation = $node->sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');
$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123"});
$node->until('an orphan is deleted', sub {
	!grep { $_->{name} =~ /^gpo-\Q$installation\E-1-abcdefghjkmnpqrstvwxyz0123$/ } $provider->pods(1) });
is(scalar(grep { $_->{name} =~ /^(somebody|gpo-00000000)/ && !defined $_->{deleted_at} } @{$provider->ledger->{pods}}), 2,
	'the pods of others live on');

# 429: the provider says when to come again, and is asked nothing before.
$provider->fault({call => 'create', action => 'status', status => 429, retry_after => 1, count => 2});
$node->sql(q{SELECT gpu_orch.terminate_worker(worker_id, true) FROM gpu_orch.workers WHERE state = 'initializing'});
$node->fleet(1, 'after 429s the pod comes');
$provider->no_faults;

# A delete that is answered but did nothing is found out, and repeated until it works.
$provider->fault({call => 'delete', action => 'status', status => 500});
$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 0}, "min_workers": 0}');
	SELECT gpu_orch.terminate_worker(worker_id, true) FROM gpu_orch.workers WHERE state = 'initializing'});
$node->until('a delete that fails is repeated',
	q{SELECT tries > 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' ORDER BY op_id DESC LIMIT 1});
is($node->sql(q{SELECT count(*) FROM gpu_orch.alerts}), 0, 'nobody is told yet');
$node->sql(q{SELECT gpu_orch.advance_clock('11 minutes'); SELECT gpu_orch.run_cycle()});
is($node->sql(q{SELECT alert, level, subject, detail ~ '^1 pods' FROM gpu_orch.alerts WHERE cleared_at IS NULL}),
	'delete_owed|warning|fleet|t', 'after ten minutes there is an alert');
$provider->no_faults;
$node->all_end('it is repeated until it works');
$node->until('and the alert is cleared',
	q{SELECT count(*) = 1 AND bool_and(cleared_at IS NOT NULL) FROM gpu_orch.alerts});

# A wrong key: said, shown, and tasks are served as before.
$provider->control(POST => 'key', {revoke => \1});
$node->until('a revoked key shows in the status',
	q{SELECT NOT api_ok AND api_error ~ '401|key|nauthor' FROM gpu_orch.leader_status()});
$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"policy_options": {"fixed_workers": 1}}')});
$node->cycle(3);
my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('external')});
$node->sql(q{SELECT gpu_orch.submit_task('any')});
is($node->sql("SELECT count(*) FROM gpu_orch.claim_tasks('external', '$token')"), 1, 'tasks are served without the provider');

$node->holds_invariants;
my $ours = $node->sql(q{SELECT sum(price_per_hour * seconds / 3600) FROM gpu_orch.cost_estimate});
my $billed = 0;
$billed += $_->{billed} 
  for grep { $_->{name} =~ /^gpo-\Q$installation\E/ && $_->{name} !~ /abcdefghjkmnpqrstvwxyz0123$/ } $provider->pods;
cmp_ok($ours, '>=', $billed, 'spend is never below the ledger');
unlike(slurp_file($node->logfile), qr/\Q$provider->{key}\E/, 'the key is not in the log');

$node->stop;
done_testing();
