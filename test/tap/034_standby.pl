# A streaming standby: no leader there, what writes is refused as the server refuses it (25006, not an
# internal error), what reads works. Promoted it has a leader at once, which must not take workers for
# lost because they were silent while there was nobody to talk to, and must go on under a new epoch with
# the leases that it finds.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

# A site of its own for each: the standby's lists the primary's, so that it may take over.
sub site_file
{
	my ($name, @tokens) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir() . "/site_$name";

	append_to_file($path, join '', map { "$_\n" } @tokens);
	chmod 0600, $path;
	return $path;
}
my @tokens = ('token-of-the-primary', 'token-of-the-standby');

my $primary = GpuOrch->running('primary', 'gpu_orch.site_token_file' => site_file('primary', @tokens),
	allows_streaming => 1, 'gpu_orch.heartbeat_interval' => '10min',
	'gpu_orch.heartbeat_timeout' => '200ms');
my $old_leader = $primary->wait_for_leader;
$primary->backup('base');
my $standby = GpuOrch->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf',
	"gpu_orch.site_token_file = '" . site_file('standby', reverse @tokens) . "'");
$standby->start;

# A worker that runs one task, more work for it, and a worker that there is no work for.
my ($token, $task, $lease) = split /\|/, (split /\n/, $primary->sql(q{
	SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], min_workers => 1);
	SELECT count(gpu_orch.submit_task('k')) FROM generate_series(1, 5);
	SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + '1 day');
	SELECT token FROM gpu_orch.register_worker('w') \gset
	SELECT :'token', task_id, lease FROM gpu_orch.claim_tasks('w', :'token')}))[-1];
my $idle_token = $primary->sql(q{SELECT token FROM gpu_orch.register_worker('idle',
	capabilities => '{"services": ["nothing"]}')});
$primary->cycle;
$primary->wait_for_catchup($standby);

# No leader, and status() says so.

is($standby->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'gpu_orch leader'}),
	0, 'a standby has no leader');
is($standby->sql(q{SELECT gpu_orch.status()->'leader'->>'runs'}), 'false', 'and status() says so');

# What reads works, and shows what the primary shows.

my @views = split /\n/, $standby->sql(q{SELECT viewname FROM pg_views WHERE schemaname = 'gpu_orch' ORDER BY 1});
cmp_ok(scalar @views, '>', 10, 'there are views');
my @failed = grep { $standby->sqlstate("SELECT * FROM gpu_orch.$_") ne '' } @views;
is_deeply(\@failed, [], 'each view can be read');
is( $standby->sql('SELECT task_id, state FROM gpu_orch.tasks ORDER BY 1'),
	$primary->sql('SELECT task_id, state FROM gpu_orch.tasks ORDER BY 1'),
	'the tasks are those of the primary');
for my $call ("task($task)", "explain_match($task)", 'status()', 'check_invariants()', q{explain_scaling('p')},
	'run_cycle(true)')
{
	my ($state, $message) = $standby->sqlstate("SELECT * FROM gpu_orch.$call");

	is($state, '', "$call answers") or diag($message);
}
$standby->holds_invariants;

# What writes is refused by one code; what asks for a leader says that there is none.

my $held = "$task, '$lease'";
for my $call (
	q{submit_task('k')}, q{submit_tasks('[{"kind": "k"}]')}, "cancel_task($task)", 'cancel_task(2)',
	"retry_task($task)", 'admit()', q{register_worker('w')}, q{register_worker('v')}, "heartbeat('w', '$token')",
	"claim_tasks('w', '$token')", "complete_task('w', '$token', $held)", "fail_task('w', '$token', $held, 'e')",
	"release_task('w', '$token', $held)", "progress_task('w', '$token', $held, 0.5)",
	"complete_and_claim('w', '$token', $held)",
	"claim_tasks('idle', '$idle_token')",
	q{create_pool('q', 'image:1', ARRAY['NVIDIA L4'])}, q{alter_pool('p', '{"max_workers": 1}')},
	q{drop_pool('p')}, q{spawn_worker('p')}, q{drain_worker('w')}, q{terminate_worker('w', true)},
	q{create_tenant('t')}, 'pause()', 'resume()', 'adopt_installation()')
{
	my ($state, $message) = $standby->sqlstate("SELECT gpu_orch.$call");

	is($state, '25006', ($call =~ /^(\w+)/)[0] . ' is refused') or diag($message);
}
for my $call ('run_cycle()', 'reconcile_now()')
{
	is($standby->sqlstate("SELECT gpu_orch.$call"), 'GO005', "$call has nobody to ask");
}

# Promoted: a leader comes, under a new epoch, and leaves the silent worker its task.

my $epoch = $primary->sql('SELECT leader_epoch FROM gpu_orch.installation');
$primary->stop('immediate');
$standby->promote;
my $new_leader = $standby->wait_for_leader;
is( $standby->sql('SELECT leader_epoch, hold, epoch FROM gpu_orch.installation'),
	($epoch + 1) . '|f|2', 'it acts under new epochs, and without hold');
my $ticks = $standby->sql('SELECT ticks FROM gpu_orch.leader_status()');
$standby->until('it ticks on', "SELECT ticks > $ticks + 5 FROM gpu_orch.leader_status()");
is( $standby->sql(q{SELECT state, running, last_heartbeat < gpu_orch.clock() - interval '200ms'
		FROM gpu_orch.workers WHERE worker_id = 'w'}),
	'active|1|t', 'a worker that was silent for longer than its timeout is not lost');
is($standby->sql("SELECT directive FROM gpu_orch.heartbeat('w', '$token', holding => ARRAY['$lease'::uuid])"),
	'continue', 'its session goes on');
is($standby->sql("SELECT gpu_orch.complete_task('w', '$token', $held)"),
	't', 'and it completes its task under the old lease');
my $next = $standby->sql(q{SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + '10ms')});
$standby->until('tasks are admitted', "SELECT state = 'ready' FROM gpu_orch.task($next)");

# The grace ends: two heartbeat intervals after the start, silence counts again.

$standby->set('gpu_orch.heartbeat_interval' => '100ms');
$standby->until('a worker that stays silent is lost in the end',
	q{SELECT state = 'terminated' FROM gpu_orch.workers WHERE worker_id = 'w'});
$standby->holds_invariants;
is_deeply([ grep { /\[$new_leader\]/ } $standby->lines_of_leader('ERROR|FATAL|PANIC|WARNING') ],
	[], 'the new leader logged no error');

$standby->stop;
done_testing();
