# A fleet of 10,000 pods against 10,000 workers: a look at the provider's list finds each in its place, and neither
# that nor a cycle writes anything about those that are as they were. bench/run reconcile measures how long it takes.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $pods = 10000;
my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'large',
	'gpu_orch.reconcile_interval' => '1h', 'gpu_orch.http_timeout' => '60s',
	'gpu_orch.heartbeat_timeout' => '1d');

# Money for more than a day: else there is an alert as soon as the account is read, each minute.
$provider->control(POST => 'balance', {balance => 1000000});
$node->sql(q{SELECT gpu_orch.pause(); SELECT gpu_orch.reconcile_now();
	SELECT gpu_orch.create_pool('large', 'image:1', ARRAY['NVIDIA L4'], max_workers => 10000, min_workers => 10000)});

# The pods, made by the provider's own hand under names of ours; then the rows that they would have.
my ($id, $epoch) = split /\|/, $node->sql('SELECT id, epoch FROM gpu_orch.installation');
my @names = map { sprintf 'gpo-%s-%d-%026d', substr($id, 0, 8), $epoch, $_ } 1 .. $pods;
my @ids;
while (@ids < $pods)
{
	my @next = @names[ @ids .. @ids + 999 ];

	push @ids, @{ $provider->control(POST => 'pods',
			{foreign => \@next, gpu => 'NVIDIA L4', env => {GPU_ORCH_INSTALLATION => $id}})->{pods} };
}
my $file = PostgreSQL::Test::Utils::tempdir() . '/pods';
append_to_file($file, join '', map { qq{$ids[$_]\t$names[$_]\n} } 0 .. $#names);
$node->sql("CREATE TEMPORARY TABLE pod (id text, name text); COPY pod FROM '$file';"
	  . slurp_file("$FindBin::Bin/../../bench/large_fleet.sql"));
$node->sql('SELECT gpu_orch.resume()');

# Where each row of the fleet stands, and which transaction wrote it.
my $rows = join ' UNION ALL ', map {
	"SELECT '$_', count(*), sum(hashtextextended(concat(ctid, xmin), 0)::numeric) FROM gpu_orch.$_"
} qw(worker worker_profile cloud_op spend event decision alert offer pool);
$rows .= q{ ORDER BY 1};
my $look = q{SELECT concat_ws('|', r -> 'pods', r -> 'foreign', r -> 'adopted', r -> 'orphans', r -> 'missing')
	FROM gpu_orch.reconcile_now() r};

# The first looks may have something to note; from then on there is nothing.
is($node->sql($look), "$pods|0|0|0|0", 'each pod is a worker\'s') for 1 .. 2;
my $before = $node->sql($rows);
is($node->sql($look), "$pods|0|0|0|0", 'and stays so') for 1 .. 3;
is($node->sql($rows), $before, 'three looks wrote no row');

# Nor does a cycle that finds nothing to do, whatever the number of pools, and it makes do with one plan for all.
$node->sql(q{SELECT gpu_orch.create_pool('empty' || i, 'image:1', ARRAY['NVIDIA L4']) FROM generate_series(1, 20) i;
	SELECT gpu_orch.run_cycle()});
$before = $node->sql($rows);
$node->cycle(2);
is($node->sql($rows), $before, 'two cycles wrote no row');
cmp_ok($node->sql('SELECT memory_bytes FROM gpu_orch.leader_status()'), '<', 64 * 1024 * 1024, 'the leader holds little memory');

# A look that finds something does write: the comparison above can fail.
$provider->control(POST => 'pods', {vanish => $ids[0]});
is($node->sql($look), ($pods - 1) . '|0|0|0|1', 'one pod is gone');
$node->until('so is its worker', qq{SELECT state = 'terminated' FROM gpu_orch.worker WHERE id = '$names[0]'});
isnt($node->sql($rows), $before, 'and that is written');

$node->stop;
done_testing();
