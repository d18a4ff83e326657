# kill_fleet(): every pod of ours ends, known or found later, and none is made until resume().
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = $provider->new_node('kill', '');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub until_true { return $node->poll_query_until('postgres', $_[0]); }

sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], max_workers => 5,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 2}, "spawn_timeout": "1 hour"}')});
ok(until_true(q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE state = 'initializing'}), 'two pods');
my $installation = sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');
sub ours { return grep { $_->{name} =~ /^gpo-\Q$installation\E-/ } $provider->pods(1); }

# A create whose answer is lost and whose pod is not listed yet, an orphan, and pods of others.
$provider->fault({call => 'create', action => 'drop_after', count => 1},
	{call => 'list', action => 'hide_new', seconds => 6});
my $unknown = sql(q{SELECT gpu_orch.spawn_worker('p')});
ok(until_true("SELECT state = 'unknown' FROM gpu_orch.cloud_ops WHERE worker = '$unknown'"), 'one in doubt');
$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123"});
$provider->control(POST => 'pods', {foreign => $_}) for ('somebody-elses', 'gpo-00000000-1-abcdefghjkmnpqrstvwxyz0123');
is(scalar(ours()), 4, 'four pods of ours live');
my $creates = grep { $_->{op} eq 'create' } @{$provider->ledger->{entries}};

is(sql('SELECT gpu_orch.kill_fleet()'), 2, 'two deletes are owed at once');
is(sql('SELECT gpu_orch.kill_fleet() <= 2'), 't', 'again: those that are not proved');
is(sql(q{SELECT gpu_orch.status()->'installation'->>'paused'}), 'true', 'it is a pause, too');
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT gpu_orch.spawn_worker('p')});
like($err, qr/paused/, 'no pod is made by hand');
ok($provider->wait_until(sub { !ours() }, 'every pod of ours is gone'), 'every pod of ours is gone');
ok(until_true(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers}), 'and every row knows');

# What shows up later ends, too.
$provider->no_faults;
$provider->control(POST => 'pods', {foreign => "gpo-$installation-1-bbcdefghjkmnpqrstvwxyz0123"});
ok($provider->wait_until(sub { !ours() }, 'a late one ends'), 'a pod that shows up later ends');
sql('SELECT gpu_orch.run_cycle()') for 1 .. 3;
is(scalar(grep { $_->{op} eq 'create' } @{$provider->ledger->{entries}}), $creates, 'none was made meanwhile');
is(scalar(grep { $_->{name} =~ /^(somebody|gpo-00000000)/ } grep { !defined $_->{deleted_at} } @{$provider->ledger->{pods}}),
	2, 'the pods of others live on');
ok(until_true(q{SELECT count(*) = 0 FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent', 'unknown')}),
	'no op is open');

sql('SELECT gpu_orch.resume()');
is(sql('SELECT killing_since IS NULL AND NOT paused FROM gpu_orch.installation'), 't', 'resume() ends it');
ok(until_true(q{SELECT count(*) = 2 FROM gpu_orch.workers WHERE state = 'initializing'}), 'and there are pods again');

# A create that is on its way while the fleet is killed.
$provider->fault({call => 'create', action => 'delay', seconds => 1});
sql(q{SELECT gpu_orch.spawn_worker('p', 2)});
ok(until_true(q{SELECT count(*) = 2 FROM gpu_orch.cloud_ops WHERE kind = 'create' AND state = 'sent'}), 'two are on their way');
is(sql('SELECT gpu_orch.kill_fleet()'), 2, 'the known ones are owed a delete');
ok(until_true(q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers}), 'all rows end');
ok($provider->wait_until(sub { !ours() }, 'no pod lives'), 'and no pod lives');

# A copy that is on hold has no say.
sql(q{UPDATE gpu_orch.installation SET hold = true});
($rc, $out, $err) = $node->psql('postgres', 'SELECT gpu_orch.kill_fleet()');
like($err, qr/on hold/, 'a copy on hold ends nothing');
sql(q{UPDATE gpu_orch.installation SET hold = false});

is(sql(q{SELECT name || ': ' || detail FROM gpu_orch.check_invariants() WHERE NOT holds}), '', 'every invariant holds');
$node->stop;
done_testing();
