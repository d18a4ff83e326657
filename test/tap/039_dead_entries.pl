# What an old snapshot keeps in the index of the queue: claims pass it once, a limited number of entries at a time, and
# never again, wherever tasks come.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use Test::More;

my $dead = 80000;
my $node = GpuOrch->running('dead', 'autovacuum' => 'off', 'gpu_orch.heartbeat_timeout' => '1d', 'gpu_orch.enabled' => 'off');

$node->sql(q{CREATE FUNCTION looked_at() RETURNS bigint LANGUAGE sql AS $$
	SELECT (pg_stat_get_xact_tuples_returned('gpu_orch.ready_queue'::regclass)
		+ sum(pg_stat_get_xact_tuples_returned(indexrelid)))::bigint
	FROM pg_index WHERE indrelid = 'gpu_orch.ready_queue'::regclass $$});
my $token = $node->sql(q{SELECT token FROM gpu_orch.register_worker('w')});
my $claimed = '';

sub submit
{
	my ($name, $priority) = @_;

	return $node->sql("SELECT gpu_orch.submit_task('k', to_jsonb('$name'::text), priority => $priority)");
}

# How many entries of the queue's indexes, and rows by sequential scans, a claim looked at.
sub looked_at
{
	my @lines = split /\n/, $node->sql("BEGIN; SELECT looked_at() AS before \\gset
		SELECT coalesce((SELECT payload #>> '{}' FROM gpu_orch.claim_tasks('w', '$token')), 'nothing');
		SELECT looked_at() - :before; COMMIT");

	$claimed .= "$lines[0] ";
	return $lines[1];
}

$node->sql("SELECT gpu_orch.submit_task('k') IS NULL FROM generate_series(1, $dead)");
my $old = $node->session;
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM gpu_orch.ready_queue');
$node->sql('SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.ready_queue');
submit('first', 9);
cmp_ok(looked_at(), '<=', $dead / 4, 'a claim that has found a task does not pass all that is dead behind it');
cmp_ok(looked_at(), '>=', $dead / 2, 'one that finds nothing does');
for my $round (1 .. 3)
{
	submit("high$round", 5);
	submit("low$round", 0);
	cmp_ok(looked_at(), '<=', 50, "round $round: a task in front of the dead is found by a look at few entries");
	cmp_ok(looked_at(), '<=', 50, 'so is one behind them');
	cmp_ok(looked_at(), '<=', 50, 'and that there is no other');
}
is($claimed, 'first nothing high1 low1 nothing high2 low2 nothing high3 low3 nothing ', 'and all of them are claimed');
is($old->query_safe('SELECT count(*) FROM gpu_orch.ready_queue'), $dead, 'while the snapshot sees what it saw');
$old->quit;

$node->stop;
done_testing();
