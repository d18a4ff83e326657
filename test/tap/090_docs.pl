# The documents against the extension: their examples run, and the references leave nothing out.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(basename dirname);
use File::Spec;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = File::Spec->rel2abs(dirname(__FILE__) . '/../..');
my @documents = ("$top/README.md", sort glob("$top/docs/*.md"));

# The leader has no key, so it creates nothing; all else is as on any server.
my $node = PostgreSQL::Test::Cluster->new('docs');
$node->init;
$node->append_conf(
	'postgresql.conf', qq(
shared_preload_libraries = 'gpu_orch'
gpu_orch.database = 'postgres'
gpu_orch.test_clock = on
));
$node->start;

# The examples.
my $user = $node->safe_psql('postgres', 'SELECT current_user');
for my $document (@documents)
{
	my $name = basename($document);
	local %ENV = (
		%ENV,
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGUSER => $user,
		PGDATABASE => 'postgres');

	next unless slurp_file($document) =~ /^ *```sql test$/m;
	my $said = '';
	my $ran = IPC::Run::run([ "$top/test/docs_examples", $document ], '>&', \$said);
	ok($ran, "the examples of $name run") or diag($said);
}

$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS gpu_orch');

# Those lines of a query's result that a document does not hold in this form.
sub missing
{
	my ($document, $form, $query) = @_;
	my $text = slurp_file("$top/docs/$document");

	return join(', ',
		grep { index($text, sprintf($form, split(/\|/, $_))) < 0 }
		  split(/\n/, $node->safe_psql('postgres', $query)));
}

my $granted = q(EXISTS (SELECT 1 FROM aclexplode(x.acl) a JOIN pg_roles r ON r.oid = a.grantee
	WHERE r.rolname LIKE 'gpu\_orch\_%'));

is( missing(
		'sql.md', '`%s(', qq(
SELECT DISTINCT x.name FROM (SELECT p.proname AS name, p.proacl AS acl FROM pg_proc p
	WHERE p.pronamespace = 'gpu_orch'::regnamespace) x WHERE $granted)),
	'',
	'sql.md has every function that a role may call');

is( missing(
		'sql.md', '### `%s`', qq(
SELECT x.name FROM (SELECT c.relname AS name, c.relacl AS acl FROM pg_class c
	WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind IN ('r', 'v')) x WHERE $granted)),
	'',
	'sql.md has every view that a role may read');

is( missing(
		'configuration.md', '| `%s` | %s |', q(
SELECT name, CASE current_setting(name) WHEN '' THEN 'empty' ELSE '`' || current_setting(name) || '`' END
FROM pg_settings WHERE name LIKE 'gpu\_orch.%' AND name NOT IN ('gpu_orch.database', 'gpu_orch.test_clock')
UNION ALL VALUES ('gpu_orch.database', 'empty'), ('gpu_orch.test_clock', '`off`'))),
	'',
	'configuration.md has every setting with its default');

is( missing(
		'configuration.md', '| `%s` |', q(
SELECT attname FROM pg_attribute WHERE attrelid = 'gpu_orch.pool'::regclass AND attnum > 0
AND NOT attisdropped AND attname NOT IN ('id', 'name', 'last_scale_in', 'created_at', 'dropped_at'))),
	'',
	'configuration.md has every option of a pool');

# The links.
for my $document (@documents)
{
	my @broken = grep { !-e dirname($document) . "/$_" }
	  slurp_file($document) =~ /\]\((?!https?:)([^)#\s]+)/g;

	is("@broken", '', 'the links of ' . basename($document) . ' lead somewhere');
}

$node->stop;
done_testing();
