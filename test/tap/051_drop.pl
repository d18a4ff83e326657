# Dropping the extension, by whichever way, while pods live is refused: nobody would know of them any
# more. A superuser may insist; what the extension's own scripts do, and a server that does not preload,
# are not hindered.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'drop');
my @ways = (
	'DROP EXTENSION gpu_orch',
	'DROP EXTENSION gpu_orch CASCADE',
	'DROP SCHEMA gpu_orch CASCADE',
	'DROP OWNED BY keeper CASCADE',
	'ALTER EXTENSION gpu_orch DROP TABLE gpu_orch.cloud_op; DROP TABLE gpu_orch.cloud_op CASCADE',
	'ALTER EXTENSION gpu_orch DROP TABLE gpu_orch.installation; DROP TABLE gpu_orch.installation CASCADE',
	'BEGIN ISOLATION LEVEL REPEATABLE READ; DROP EXTENSION gpu_orch');

# Each way in a transaction that is rolled back; returns those that do not end with this state. The leader works
# meanwhile: a way that the server ends because both wait for each other is gone again.
sub refused_otherwise
{
	my ($wanted, $before) = @_;
	my @other;

	for my $way (@ways)
	{
		my $state = '40P01';

		($state) = $node->sqlstate("$before; BEGIN; $way; ROLLBACK") while $state eq '40P01';
		push @other, "$way: $state" if $state ne $wanted;
	}
	return \@other;
}

# The extension belongs to a role of its own, so that DROP OWNED finds it.
$node->sql(q{CREATE ROLE keeper SUPERUSER; DROP EXTENSION gpu_orch; DROP SCHEMA gpu_orch CASCADE});
$node->sql(q{SET ROLE keeper; CREATE EXTENSION gpu_orch});
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 2,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour"}')});
is_deeply(refused_otherwise('', 'SELECT 1'), [], 'without pods each way is open');

# An external worker is not ours to end.
$node->sql(q{SELECT gpu_orch.register_worker('external')});
is_deeply(refused_otherwise('', 'SELECT 1'), [], 'nor does an external worker close any');

# A create that is only announced, and a pod.
$node->sql(q{SELECT gpu_orch.spawn_worker('p')});
$node->fleet(1, 'a pod is made');
is_deeply(refused_otherwise('2BP01', 'SELECT 1'), [], 'with a pod each way is refused');
my (undef, $message) = $node->sqlstate('DROP EXTENSION gpu_orch');
like($message, qr/DETAIL:\s+1 cloud workers are not terminated, and 0 calls/, 'with the numbers');
like($message, qr/HINT:.*kill_fleet\(\).*gpu-orch-sweep/, 'and what to do');
is($node->sql('SELECT count(*) FROM gpu_orch.workers'), 2, 'and all is there');
is($node->sqlstate('DROP TABLE gpu_orch.worker CASCADE'), '2BP01', 'a table alone is not dropped either');

# Whoever may drop need not be a superuser; who is none may not insist.
$node->sql(q{CREATE ROLE plain});
is($node->sqlstate('SET ROLE plain; SET gpu_orch.allow_drop = on'), '42501',
	'who is no superuser may not insist');
is_deeply(refused_otherwise('', 'SET gpu_orch.allow_drop = on'), [], 'a superuser may');

# While the delete is owed, and until it is proved.
$provider->fault({call => 'delete', action => 'status', status => 500});
$node->sql(q{SELECT gpu_orch.terminate_worker(worker_id, true) FROM gpu_orch.workers WHERE origin = 'cloud'});
$node->until('a delete is owed',
	q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE kind = 'delete' AND tries > 0});
is_deeply(refused_otherwise('2BP01', 'SELECT 1'), [], 'as long as it is, each way is refused');
$provider->no_faults;
$node->until('the pod is proved gone',
	q{SELECT bool_and(state = 'terminated') FROM gpu_orch.workers WHERE origin = 'cloud'});
is_deeply(refused_otherwise('', 'SELECT 1'), [], 'then each way is open again');

# A pod that no row of a worker knows: the delete of an orphan.
$provider->fault({call => 'delete', action => 'status', status => 500});
my $name = $node->sql(q{SELECT 'gpo-' || substr(id, 1, 8) || '-1-0123456789abcdefghjkmnpqrs' FROM gpu_orch.installation});
$node->append_conf('postgresql.conf', 'gpu_orch.orphan_grace = 0');
$node->reload;
$provider->control(POST => 'pods', {foreign => $name});
$node->until('an orphan is to be deleted',
	q{SELECT count(*) = 1 FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent')});
is_deeply(refused_otherwise('2BP01', 'SELECT 1'), [], 'that holds it up, too');

# Not preloaded nothing is hindered, and the rows can be dropped.
$node->append_conf('postgresql.conf', q{shared_preload_libraries = ''});
$node->restart;
$node->sql('DROP EXTENSION gpu_orch');
pass('a server that does not preload drops it');

$node->stop;
done_testing();
