# The leader works as the extension's owner. An owner who has lost SUPERUSER does not get it back by what
# hangs on the tables, and the leader goes on with the rights that are left.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = GpuOrch->running('owner', 'gpu_orch.test_clock' => 'on');
$node->give_to_ordinary_owner('dba');
$node->sql(q{
	CREATE TABLE public.seen (at timestamptz DEFAULT clock_timestamp(), who name, said text);
	ALTER TABLE public.seen OWNER TO dba;
	GRANT CREATE ON SCHEMA public TO dba});
is($node->sql(q{SELECT extowner::regrole FROM pg_extension WHERE extname = 'gpu_orch'}), 'dba', 'the extension has an owner of its own');

# The owner sets a trap on each table that the leader writes to.
$node->sql(q{
	SET SESSION AUTHORIZATION dba;
	CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		way text;
	BEGIN
		FOREACH way IN ARRAY ARRAY['ALTER ROLE dba SUPERUSER', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'CREATE TEMP TABLE left_behind (a int)', 'LISTEN left_behind']
		LOOP
			BEGIN
				EXECUTE way;
				INSERT INTO public.seen (who, said) VALUES (current_user, 'could ' || way);
			EXCEPTION WHEN OTHERS THEN
				INSERT INTO public.seen (who, said) VALUES (current_user, SQLSTATE);
			END;
		END LOOP;
		RETURN NULL;
	END
	$$;
	DO $$
	DECLARE
		t text;
	BEGIN
		FOREACH t IN ARRAY ARRAY['installation', 'waiting', 'worker', 'event'] LOOP
			EXECUTE format('CREATE TRIGGER trap AFTER INSERT OR UPDATE OR DELETE ON gpu_orch.%I FOR EACH ROW EXECUTE FUNCTION public.trap()', t);
		END LOOP;
	END
	$$});
my $task = $node->sql(q{SELECT gpu_orch.submit_task('k', run_at => gpu_orch.clock() + '1 hour')});
$node->sql('TRUNCATE public.seen');
$node->wait_for_leader;
$node->advance('2 hours');
$node->until('the leader released a task', "SELECT state = 'ready' FROM gpu_orch.tasks WHERE task_id = $task");
$node->until('a trap went off', 'SELECT count(*) > 0 FROM public.seen');
is($node->sql('SELECT DISTINCT who FROM public.seen'), 'dba', 'what the leader runs into runs as the owner');
is($node->sql(q{SELECT DISTINCT said FROM public.seen WHERE said LIKE 'could%'}), '', 'and cannot become more, or leave anything in the session');
is($node->sql(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'dba'}), 'f', 'the owner is no superuser');
$node->cycle(2);
is($node->sql('SELECT last_error FROM gpu_orch.leader_status()'), '', 'no step of the leader failed');
is($node->sql(q{SELECT DISTINCT usename FROM pg_stat_activity WHERE pid = (SELECT pid FROM gpu_orch.leader_status()) AND backend_xid IS NOT NULL}), '',
	'outside of its steps it has no transaction');
$node->stop;
done_testing();
