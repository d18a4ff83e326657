# Every function and relation of the extension, as the catalog has them, is tried by every role on every
# way on which code of that role can come to run: in its own session, by SET ROLE, in a SECURITY DEFINER
# function that somebody else calls, in a view that a superuser reads, in an index expression that a
# superuser or autovacuum analyzes. Who may what stands in expected/roles.out; what is not there fails.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

# What is allowed: {function|relation}{name} is a list of letters of roles, one list for each function of that name.
my %allowed;
my $kind = '';
for (split /\n/, slurp_file("$FindBin::Bin/../../expected/roles.out"))
{
	$kind = $1 if /^\s+(function|relation)\s+\|\s+who\s*$/;
	$kind = '' if /^\(\d+ rows\)/;
	push @{ $allowed{$kind}{$1} }, $2 if $kind && /^ (\w+)\s+\| ([-swmoa]{5})$/;
}
$allowed{relation}{$_} = ['--moa'] for qw(alert_rule worker_transition);

# Letter => groups: nobody has a right to connect and nothing else; the database's owner is no more to us.
my %member_of = (
	n => [],
	d => [],
	s => ['gpu_orch_submitter'],
	w => ['gpu_orch_worker'],
	m => ['gpu_orch_monitor'],
	o => ['gpu_orch_operator'],
	a => ['gpu_orch_admin']);
my @roles = sort keys %member_of;

my $node = GpuOrch->running(
	'attack',
	'gpu_orch.enabled' => 'off',
	autovacuum_naptime => '1s',
	log_autovacuum_min_duration => '0');
$node->sql('CREATE SCHEMA attack; GRANT USAGE ON SCHEMA attack TO PUBLIC;');

# What to call: functions with some value for each argument, since with a null one that is STRICT is not called
# at all; relations by reading them.
$node->sql(q{
	CREATE TABLE attack.calls AS
	SELECT 'function' AS kind, p.proname::text AS name,
	       format('SELECT count(*) FROM gpu_orch.%I(%s)', p.proname,
	              (SELECT coalesce(string_agg(format('%L::%s',
	                      CASE WHEN t::regtype::text ~ 'json|\[\]$' THEN '{}' WHEN t::regtype::text ~ '^(text|name|boolean)$' THEN 'f'
	                           WHEN t = 'uuid'::regtype THEN '00000000-0000-0000-0000-000000000000'
	                           WHEN t IN ('timestamptz'::regtype, 'date'::regtype) THEN 'epoch' ELSE '0' END, format_type(t, NULL)), ', ' ORDER BY n), '')
	               FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n))) AS call
	FROM pg_proc p WHERE p.pronamespace = 'gpu_orch'::regnamespace
	UNION ALL
	SELECT 'relation', c.relname, format('SELECT count(*) FROM (SELECT FROM gpu_orch.%I LIMIT 0) x', c.relname)
	FROM pg_class c WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f');
	GRANT SELECT ON attack.calls TO PUBLIC});
my %calls;
for (split /\n/, $node->sql('SELECT kind, name, call FROM attack.calls ORDER BY 1, 2, 3'))
{
	my ($of, $name, $call) = split /\|/, $_, 3;
	$calls{$call} = { kind => $of, name => $name };
}
cmp_ok(scalar keys %calls, '>', 100, 'functions and relations were found');

# Whether a role may do a call.
sub may
{
	my ($role, $call) = @_;
	my $lists = $allowed{ $calls{$call}{kind} }{ $calls{$call}{name} } // ['-----'];

	return scalar grep { /$role/ } @$lists;
}
for my $call (sort keys %calls)
{
	next if $calls{$call}{kind} eq 'relation';
	ok($allowed{function}{ $calls{$call}{name} }, "expected/roles.out says who may call $calls{$call}{name}()");
}

# attempt() says what becomes of a call, and undoes what it did.
my $body = q{LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	BEGIN
		EXECUTE call;
		RAISE EXCEPTION 'done' USING ERRCODE = 'ATK00';
	EXCEPTION WHEN insufficient_privilege THEN
		IF SQLERRM LIKE 'permission denied for %' THEN
			RETURN 'denied ' || call;
		END IF;
	WHEN OTHERS THEN
	END;
	RETURN 'reached ' || call;
END
$$};
for my $role (@roles)
{
	$node->sql(join ";\n",
		"CREATE ROLE attack_$role LOGIN",
		(map { "GRANT $_ TO attack_$role" } @{ $member_of{$role} }),
		"CREATE SCHEMA attack_$role AUTHORIZATION attack_$role",
		"GRANT USAGE ON SCHEMA attack_$role TO PUBLIC",
		$role eq 'd' ? "ALTER DATABASE app OWNER TO attack_d" : ());
	$node->sql(join ";\n",
		"SET ROLE attack_$role",
		"CREATE FUNCTION attack_$role.attempt(call text) RETURNS text $body",
		"CREATE FUNCTION attack_$role.attempt_as_owner(call text) RETURNS text SECURITY DEFINER $body",
		"CREATE VIEW attack_$role.bait AS SELECT attack_$role.attempt_as_owner(call) FROM attack.calls",
		"GRANT SELECT ON attack_$role.bait TO PUBLIC",
		"CREATE TABLE attack_$role.target AS SELECT call FROM attack.calls",
		"CREATE INDEX baited ON attack_$role.target (attack_$role.attempt(call))",
		"ALTER INDEX attack_$role.baited ALTER COLUMN 1 SET STATISTICS 1000");
}

# Attempts of a role, from a session of a user, by a query.
my ($tried, $breaches) = (0, 0);

sub judge
{
	my ($way, $role, $answers) = @_;
	my @lines = split /\n/, $answers;
	my @wrong;

	is(scalar @lines, scalar keys %calls, "role $role $way: each call has an outcome");
	for (@lines)
	{
		my ($outcome, $call) = split / /, $_, 2;

		push @wrong, "$outcome: $call" if ($outcome eq 'reached') != (may($role, $call) ? 1 : 0);
	}
	$tried += @lines;
	$breaches += @wrong;
	is(join("\n", @wrong), '', "role $role $way: what was tried is what is allowed");
	return;
}

sub as_user
{
	my ($user, $query) = @_;

	return $node->safe_psql('app', $query, extra_params => [ '-U', $user ]);
}

# What ANALYZE keeps of an index expression is what it returned: all values differ, so they are bounds.
sub analyzed
{
	my ($role) = @_;

	return "SELECT unnest(histogram_bounds::text::text[]) FROM pg_stats WHERE schemaname = 'attack_$role' AND tablename = 'baited'";
}

for my $role (@roles)
{
	judge('in its own session', $role, as_user("attack_$role", "SELECT attack_$role.attempt(call) FROM attack.calls"));
	judge('by SET ROLE', $role, $node->sql("SET ROLE attack_$role; SELECT attack_$role.attempt(call) FROM attack.calls"));
	judge('in a wrapper that nobody calls', $role,
		as_user('attack_n', "SELECT attack_$role.attempt_as_owner(call) FROM attack.calls"));
	judge('in a wrapper that an administrator calls', $role,
		as_user('attack_a', "SELECT attack_$role.attempt_as_owner(call) FROM attack.calls"));
	judge('in a view that a superuser reads', $role, $node->sql("SELECT * FROM attack_$role.bait"));
	$node->sql("ANALYZE attack_$role.target");
	judge('in an index that a superuser analyzes', $role, $node->sql(analyzed($role)));
}

# Autovacuum is a superuser, too.
for my $role (@roles)
{
	$node->sql("ALTER TABLE attack_$role.target SET (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0);
		TRUNCATE attack_$role.target; ANALYZE attack_$role.target;
		INSERT INTO attack_$role.target SELECT call FROM attack.calls");
}
for my $role (@roles)
{
	$node->until("autovacuum analyzes the table of role $role",
		"SELECT last_autoanalyze IS NOT NULL FROM pg_stat_all_tables WHERE schemaname = 'attack_$role' AND relname = 'target'");
	judge('in an index that autovacuum analyzes', $role, $node->sql(analyzed($role)));
}

# Nothing but reading is granted on a relation, and on no type, to anybody.
is( $node->sql(q{
		SELECT c.relname, a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace = 'gpu_orch'::regnamespace AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
		UNION ALL SELECT c.relname, 0, 'column ' || t.attname FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
		WHERE c.relnamespace = 'gpu_orch'::regnamespace AND t.attacl IS NOT NULL
		UNION ALL SELECT t.typname, a.grantee, a.privilege_type
		FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
		WHERE t.typnamespace = 'gpu_orch'::regnamespace AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c'
		  AND a.grantee <> t.typowner
		UNION ALL SELECT n.nspname, a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
		WHERE n.nspname = 'gpu_orch' AND a.grantee <> n.nspowner AND (a.privilege_type <> 'USAGE' OR a.grantee = 0)}),
	'', 'nothing else is granted');

note(sprintf '%d functions and relations x %d roles x 7 ways: %d attempts, %d breaches', scalar keys %calls, scalar @roles, $tried, $breaches);
is($breaches, 0, 'no breach');
# Only operators go above the highest priority that is set.
$node->set('gpu_orch.max_priority' => 10);
$node->until('the setting is read', q{SELECT current_setting('gpu_orch.max_priority') = '10'});
like(as_user('attack_s', q{SELECT gpu_orch.submit_task('k', priority => 10)}), qr/^\d+$/, 'a submitter uses the highest priority');
for my $call (q{gpu_orch.submit_task('k', priority => 11)}, q{gpu_orch.submit_tasks('[{"kind": "k", "priority": 11}]')})
{
	my ($rc, $said, $error) = $node->psql('app', "SELECT $call", extra_params => [ '-U', 'attack_s' ]);

	like($error, qr/above gpu_orch\.max_priority/, "and no higher one by $call");
}
like(as_user('attack_o', q{SELECT gpu_orch.submit_task('k', priority => 11)}), qr/^\d+$/, 'an operator may');

# A role has no more external workers at a time than is set.
$node->set('gpu_orch.max_workers' => 2);
$node->until('the setting is read', q{SELECT current_setting('gpu_orch.max_workers') = '2'});
as_user('attack_o', qq{SELECT FROM gpu_orch.register_worker('of_o_$_')}) for 1, 2;
my (undef, undef, $too_many) = $node->psql('app', q{SELECT FROM gpu_orch.register_worker('of_o_3')}, extra_params => [ '-U', 'attack_o' ]);
like($too_many, qr/one too many for role "attack_o"/, 'a third worker is refused');
is(as_user('attack_o', q{SELECT count(*) FROM gpu_orch.register_worker('of_o_2')}), 1, 'one that is known may register again');
as_user('attack_o', q{SELECT gpu_orch.terminate_worker('of_o_1')});
is(as_user('attack_o', q{SELECT count(*) FROM gpu_orch.register_worker('of_o_3')}), 1, 'and another one once one has ended');
$node->stop;
done_testing();
