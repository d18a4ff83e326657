# kill_fleet(): every pod of ours ends, known or found later, and none is made until resume().
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'kill');

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 5,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 2}, "spawn_timeout": "1 hour"}')});
$node->fleet(2, 'two pods');
my $installation = $node->sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');
sub ours { return grep { $_->{name} =~ /^gpo-\Q$installation\E-/ } $provider->pods(1); }

# A create whose answer is lost and whose pod is not listed yet, an orphan, and pods of others.
$provider->fault({call => 'create', action => 'drop_after', count => 1},
	{call => 'list', action => 'hide_new', seconds => 6});
my $unknown = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
$node->until('one in doubt', "SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$unknown'");
$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123"});
$provider->control(POST => 'pods', {foreign => $_}) for ('somebody-elses', 'gpo-00000000-1-abcdefghjkmnpqrstvwxyz0123');
is(scalar(ours()), 4, 'four pods of ours live');
my $creates = grep { $_->{op} eq 'create' } @{$provider->ledger->{entries}};

is($node->sql('SELECT gpu_orch.kill_fleet()'), 2, 'two deletes are owed at once');
is($node->sql('SELECT gpu_orch.kill_fleet() <= 2'), 't', 'again: those that are not proved');
is($node->sql(q{SELECT gpu_orch.status()->'installation'->>'paused'}), 'true', 'it is a pause, too');
like($node->refusal(q{SELECT gpu_orch.spawn_worker('p')}), qr/paused/, 'no pod is made by hand');
$node->until('every pod of ours is gone', sub { !ours() });
$node->all_end('and every row knows');

# What shows up later ends, too.
$provider->no_faults;
$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-bbcdefghjkmnpqrstvwxyz0123"});
$node->until('a pod that shows up later ends', sub { !ours() });
$node->cycle(3);
is(scalar(grep { $_->{op} eq 'create' } @{$provider->ledger->{entries}}), $creates, 'none was made meanwhile');
is(scalar(grep { $_->{name} =~ /^(somebody|gpo-00000000)/ } grep { !defined $_->{deleted_at} } @{$provider->ledger->{pods}}),
	2, 'the pods of others live on');
$node->until('no op is open',
	q{SELECT count(*) = 0 FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent', 'unknown')});

$node->sql('SELECT gpu_orch.resume()');
is($node->sql('SELECT killing_since IS NULL AND NOT paused FROM gpu_orch.installation'), 't', 'resume() ends it');
$node->fleet(2, 'and there are pods again');

# A create that is on its way while the fleet is killed.
# No list comes between, which would show them before their answers.
$provider->fault({call => 'create', action => 'delay', seconds => 5}, {call => 'list', action => 'drop'});
$node->sql(q{SELECT gpu_orch.spawn_worker('p', 2)});
$node->until('two are on their way',
	q{SELECT count(sent_at) = 2 FROM (SELECT sent_at FROM gpu_orch.cloud_ops WHERE kind = 'create' ORDER BY planned_at DESC LIMIT 2) o});
is($node->sql('SELECT gpu_orch.kill_fleet()'), 2, 'the known ones are owed a delete');
$provider->no_faults;
$node->all_end('all rows end');
$node->until('and no pod lives', sub { !ours() });

# A copy that is on hold has no say.
$node->sql(q{UPDATE gpu_orch.installation SET hold = true});
like($node->refusal('SELECT gpu_orch.kill_fleet()'), qr/on hold/, 'a copy on hold ends nothing');
$node->sql(q{UPDATE gpu_orch.installation SET hold = false});

$node->holds_invariants;
$node->stop;
done_testing();
