# From the version before: a library serves the schema of that version whole, ALTER EXTENSION UPDATE beside a leader and
# workers that are at work loses nothing, and what comes of it equals a fresh installation. A schema that the library
# does not know is refused by every session.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use Provider;
use PostgreSQL::Test::Utils;
use Test::More;

my $before = '0.1.0';

# What an installation is made of, one line for each thing, in an order of their own.
my $catalog = <<'SQL';
WITH member AS (
	SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gpu_orch'
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
relation AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid)
SELECT line FROM (
	SELECT format('object %s', pg_describe_object(classid, objid, 0)) AS line FROM member
	UNION ALL SELECT format('relation %s %s %s %s %s %s', relname, relkind, reloptions, relreplident,
			ARRAY(SELECT unnest(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))::text ORDER BY 1), obj_description(oid, 'pg_class')) FROM relation
	UNION ALL SELECT format('column %s %s %s %s null:%s %s %s %s %s', r.relname,
			row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
			NOT a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
		FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
	UNION ALL SELECT format('constraint %s %s %s', c.conname, pg_get_constraintdef(c.oid), coalesce(r.relname, t.typname))
		FROM pg_constraint c LEFT JOIN relation r ON r.oid = c.conrelid
		LEFT JOIN (SELECT t.oid, t.typname FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid) t
			ON t.oid = c.contypid WHERE r.oid IS NOT NULL OR t.oid IS NOT NULL
	UNION ALL SELECT format('index %s ready:%s identity:%s', pg_get_indexdef(i.indexrelid), i.indisready AND i.indisvalid, i.indisreplident)
		FROM pg_index i JOIN relation r ON r.oid = i.indrelid
	UNION ALL SELECT format('function %s %s %s', pg_get_functiondef(p.oid), ARRAY(SELECT unnest(coalesce(p.proacl, acldefault('f', p.proowner)))::text ORDER BY 1),
			obj_description(p.oid, 'pg_proc'))
		FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	UNION ALL SELECT format('view %s %s', relname, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
	UNION ALL SELECT format('type %s %s %s', t.typname, ARRAY(SELECT unnest(coalesce(t.typacl, acldefault('T', t.typowner)))::text ORDER BY 1), obj_description(t.oid, 'pg_type'))
		FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
	UNION ALL SELECT format('dumped %s %s', c.oid::regclass, c.condition)
		FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS c(oid, condition) WHERE e.extname = 'gpu_orch'
	UNION ALL SELECT format('schema %s', ARRAY(SELECT unnest(coalesce(nspacl, acldefault('n', nspowner)))::text ORDER BY 1)) FROM pg_namespace WHERE nspname = 'gpu_orch'
	UNION ALL SELECT format('version %s', extversion) FROM pg_extension WHERE extname = 'gpu_orch'
	UNION ALL SELECT format('alert %s', a::text) FROM gpu_orch.alert_rule a
	UNION ALL SELECT format('move %s', w::text) FROM gpu_orch.worker_transition w) x
ORDER BY line COLLATE "C"
SQL

chomp(my $share = `$ENV{PG_CONFIG} --sharedir`);
system('cp', "$FindBin::Bin/../upgrade/gpu_orch--$before.sql", "$share/extension/") == 0 or die 'cp';

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'upgrade', 'gpu_orch.heartbeat_timeout' => '10min');
$node->sql(q{DROP EXTENSION gpu_orch});
$node->sql(qq{DROP SCHEMA IF EXISTS gpu_orch; CREATE EXTENSION gpu_orch VERSION '$before'});
$node->wait_for_leader;

# The version before, served whole by this library.
my ($token) = $node->sql(q{SELECT token FROM gpu_orch.register_worker('w', capabilities => '{"services": ["k"]}')});
# round(): a task is submitted, claimed and completed. Returns its id.
sub round
{
	my ($id, $lease) = split /\|/, $node->sql(qq{
		SELECT count(*) FROM (SELECT gpu_orch.submit_task('k', '{"n": 1}') OFFSET 0) s;
		SELECT task_id, lease FROM gpu_orch.claim_tasks('w', '$token')}) =~ s/^1\n//r;

	is($node->sql("SELECT gpu_orch.complete_task('w', '$token', $id, '$lease', '{}')"), 't', 'a task is served');
	return $id;
}
my $ended = round();
my $keyed = $node->sql(q{SELECT gpu_orch.submit_task('other', '{"n": 2}', idempotency_key => 'once', traceparent => 'trace')});
my $child = $node->sql("SELECT gpu_orch.submit_task('other', depends_on => ARRAY[$keyed])");
my $tomorrow = $node->sql(q{SELECT gpu_orch.submit_task('other', run_at => gpu_orch.clock() + '1 day')});
my $soon = $node->sql(q{SELECT gpu_orch.submit_task('other', run_at => gpu_orch.clock() + '200 ms')});
$node->until('a task comes due', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $soon");
is($node->sql("SELECT gpu_orch.cancel_task($soon)"), 't', 'one is cancelled');
is($node->sql("SELECT gpu_orch.retry_task($soon)"), 't', 'and retried');
is($node->sql("SELECT gpu_orch.cancel_task($soon)"), 't', 'and cancelled again');
my ($parent, $lease) = split /\|/, $node->sql(qq{
	SELECT count(*) FROM (SELECT gpu_orch.submit_task('k') OFFSET 0) s;
	SELECT task_id, lease FROM gpu_orch.claim_tasks('w', '$token')}) =~ s/^1\n//r;
my $released = $node->sql("SELECT gpu_orch.submit_task('other', depends_on => ARRAY[$parent])");
is($node->sql("SELECT gpu_orch.fail_task('w', '$token', $parent, '$lease', 'no', 'task')"), 't', 'one fails');
$node->until('and is tried again', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $parent");
($lease) = $node->sql("SELECT lease FROM gpu_orch.claim_tasks('w', '$token')");
is($node->sql("SELECT gpu_orch.complete_task('w', '$token', $parent, '$lease')"), 't', 'and completed');
$node->until('what depended on it is released', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $released");
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'], options => '{"budget_per_day": 100}');
	SELECT gpu_orch.create_tenant('small', max_running => 1); SELECT gpu_orch.set_budget('p', 'hour', 50)});
my $limited = $node->sql(q{SELECT string_agg(gpu_orch.submit_task('k2', tenant => 'small')::text, ',') FROM generate_series(1, 3)});
$node->until('a limited tenant has one ready', q{SELECT count(*) FILTER (WHERE state = 'ready') = 1
	AND count(*) FILTER (WHERE state = 'held') = 2 FROM gpu_orch.tasks WHERE tenant = 'small'});
my $pod = $node->spawn('p');
$node->ends($node->spawn('p'));
$node->reconcile;
is($node->sql(q{SELECT extversion FROM pg_extension WHERE extname = 'gpu_orch'}), $before, 'all of it in the version before');
$node->holds_invariants;

# The update, while a worker completes and claims, task after task, and an application submits.
my $stop = PostgreSQL::Test::Utils::tempdir() . '/stop';
my @clients = map {
	my $sql = $_;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		my $calls = 0;
		my ($rc, $out, $err) = (0, '', '');

		until (-e $stop)
		{
			($rc, $out, $err) = $node->psql('app', $sql);
			last if $rc != 0;
			$calls++;
		}
		print "# $calls calls, $err\n";
		POSIX::_exit($rc == 0 && $calls > 0 ? 0 : 1);
	}
	$pid
} (q{SELECT gpu_orch.submit_task('k', '{"n": 3}')}, <<"SQL");
DO \$\$
DECLARE claimed gpu_orch.claimed_task;
BEGIN
	FOR claimed IN SELECT * FROM gpu_orch.claim_tasks('w', '$token') LOOP
		IF NOT gpu_orch.complete_task('w', '$token', claimed.task_id, claimed.lease) THEN RAISE 'fenced'; END IF;
	END LOOP;
END \$\$
SQL
use POSIX ();
$node->until('both are at work', q{SELECT count(*) > 5 FROM gpu_orch.tasks WHERE kind = 'k' AND state = 'succeeded'});
my $offset = -s $node->logfile;
$node->sql('ALTER EXTENSION gpu_orch UPDATE');
my $done = $node->sql(q{SELECT count(*) FROM gpu_orch.tasks WHERE kind = 'k' AND state = 'succeeded'});
$node->until('they go on after it', "SELECT count(*) > $done + 5 FROM gpu_orch.tasks WHERE kind = 'k' AND state = 'succeeded'");
append_to_file($stop, '');
for my $pid (@clients)
{
	waitpid $pid, 0;
	is($?, 0, 'a client that worked through the update met no error');
}
$node->until('the leader acts', q{SELECT doing = 'acting' FROM gpu_orch.leader_status()});
$node->cycle;
is(scalar(grep { !/canceling|terminating/ } $node->lines_of_leader('ERROR|FATAL', $offset)), 0, 'the leader met no error');

# Nothing is lost, and all of it goes on.
is($node->sql("SELECT string_agg(state, ' ' ORDER BY task_id) FROM gpu_orch.tasks WHERE task_id IN ($keyed, $child, $tomorrow, $soon)"),
	'ready blocked scheduled cancelled', 'tasks stand where they stood');
is($node->sql("SELECT gpu_orch.submit_task('other', '{\"n\": 2}', idempotency_key => 'once', traceparent => 'trace')"), $keyed,
	'an idempotency key is known still');
round();
$node->sql("UPDATE gpu_orch.pool SET image = image");
$node->ends($pod);
is($node->sql(q{SELECT count(*) FROM gpu_orch.events WHERE kind = 'pool_created'}), 1, 'the record from before is there');
$node->sql(q{SELECT gpu_orch.pause(); SELECT gpu_orch.resume()});
is($node->sql(q{SELECT session_role = SESSION_USER AND leader IS NULL FROM gpu_orch.event ORDER BY id DESC LIMIT 1}), 't',
	'and says from now on who it was');
$node->holds_invariants;

# Equal to a fresh one.
$node->psql('postgres', 'CREATE DATABASE fresh');
my ($updated, $fresh) = map { my $name = $_; $node->in_database($name, sub { $node->sql($catalog) }) } 'app',
	do { $node->in_database('fresh', sub { $node->sql('CREATE EXTENSION gpu_orch') }); 'fresh' };
my %in_updated = map { $_ => 1 } split /\n/, $updated;
my %in_fresh = map { $_ => 1 } split /\n/, $fresh;
is(join("\n", grep { !$in_fresh{$_} } sort keys %in_updated), '', 'nothing is there that a fresh installation lacks');
is(join("\n", grep { !$in_updated{$_} } sort keys %in_fresh), '', 'nothing is missing that a fresh installation has');

# A schema of another version: refused by every session, those included that worked with it before.
my $session = $node->background_psql('app', on_error_stop => 0);
$session->query_safe(q{SELECT gpu_orch.submit_task('k')});
my ($now) = $node->sql(q{SELECT extversion FROM pg_extension WHERE extname = 'gpu_orch'});
for my $version ('0.0.9', '99.0')
{
	$node->sql(qq{BEGIN; UPDATE pg_extension SET extversion = '$version' WHERE extname = 'gpu_orch';
		ALTER TABLE gpu_orch.installation SET (fillfactor = 100); ALTER TABLE gpu_orch.installation RESET (fillfactor); COMMIT});
	$session->query(q{SELECT gpu_orch.submit_task('k')});
	like($session->{stderr}, qr/does not serve version \Q$version\E/, "$version: refused by a session that was there");
	$session->{stderr} = '';
	for my $call (q{submit_task('k')}, qq{claim_tasks('w', '$token')}, qq{heartbeat('w', '$token')}, q{register_worker('v')},
		q{cancel_task(1)}, q{drain_worker('w')}, q{pause()}, q{create_pool('q', 'i', '{NVIDIA L4}')}, q{spawn_worker('p')}, q{kill_fleet()})
	{
		is(scalar $node->sqlstate("SELECT * FROM gpu_orch.$call"), '55000', "$version: $call is refused");
	}
	$node->until("$version: the leader rests", q{SELECT doing LIKE '%does not serve this version%' FROM gpu_orch.leader_status()});
}
$node->sql(qq{BEGIN; UPDATE pg_extension SET extversion = '$now' WHERE extname = 'gpu_orch';
	ALTER TABLE gpu_orch.installation SET (fillfactor = 100); ALTER TABLE gpu_orch.installation RESET (fillfactor); COMMIT});
$session->quit;
$node->until('with its own version the leader acts again', q{SELECT doing = 'acting' FROM gpu_orch.leader_status()});
round();
done_testing();
