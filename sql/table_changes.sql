-- What others change about our tables: columns, indexes, constraints. It is honoured, or refused with what to do; never
-- written past. Each change is undone at the end of its part.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;
CREATE EXTENSION amcheck SCHEMA public;
CREATE TEMP TABLE session AS SELECT token FROM register_worker('changes', capabilities => '{"services": ["changes"]}');
-- One task through all of its life. Says how it ended, and whether each index holds the rows of its table.
CREATE FUNCTION pg_temp.live(OUT ended bigint, OUT indexes bigint) LANGUAGE plpgsql AS $$
DECLARE
    worker_token text := (SELECT token FROM session);
    claimed gpu_orch.claimed_task;
BEGIN
    PERFORM gpu_orch.submit_task('changes', '{"words": ["a", "b"], "n": 1}');
    SELECT * INTO STRICT claimed FROM gpu_orch.claim_tasks('changes', worker_token);
    IF NOT gpu_orch.complete_task('changes', worker_token, claimed.task_id, claimed.lease, '{"done": true}') THEN
        RAISE 'not completed';
    END IF;
    SELECT count(*) INTO ended FROM gpu_orch.tasks t WHERE t.task_id = claimed.task_id AND t.state = 'succeeded';
    SELECT count(public.bt_index_check(i.indexrelid, true)) INTO indexes
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
    WHERE i.indrelid IN ('gpu_orch.task'::regclass, 'gpu_orch.lease'::regclass, 'gpu_orch.attempt'::regclass,
                         'gpu_orch.ready_queue'::regclass);
END
$$;
SELECT ended FROM pg_temp.live();

-- A column, with and without a default, and one that is computed; and after it was dropped.
ALTER TABLE task ADD note text, ADD made int NOT NULL DEFAULT 40 + 2, ADD size int GENERATED ALWAYS AS (length(kind)) STORED;
ALTER TABLE lease ADD n int NOT NULL DEFAULT 42;
ALTER TABLE ready_queue ADD n int DEFAULT 43;
ALTER TABLE attempt ADD seen boolean DEFAULT false;
SELECT submit_task('changes') AS id \gset
SELECT note, made, size AS computed FROM task WHERE id = :id;
SELECT n FROM ready_queue WHERE task_id = :id;
CREATE TEMP TABLE mine AS SELECT task_id, lease FROM session, claim_tasks('changes', token);
SELECT n FROM lease WHERE task_id = :id;
SELECT complete_task('changes', token, task_id, lease) FROM session, mine;
SELECT seen FROM attempt WHERE task_id = :id;
ALTER TABLE task DROP note, DROP made, DROP size;
ALTER TABLE lease DROP n;
ALTER TABLE ready_queue DROP n;
ALTER TABLE attempt DROP seen;
SELECT ended FROM pg_temp.live();

-- A column that nobody can fill in.
BEGIN;
ALTER TABLE attempt ADD judge text NOT NULL DEFAULT 'x';
ALTER TABLE attempt ALTER judge DROP DEFAULT;
CALL pg_temp.refusals($$pg_temp.live()$$);
ROLLBACK;

-- A column of ours that has another type or another name; the table itself under another name.
BEGIN;
ALTER TABLE ready_queue ALTER losses TYPE bigint;
CALL pg_temp.refusals($$submit_task('changes')$$);
ROLLBACK;
BEGIN;
ALTER TABLE task RENAME payload TO body;
CALL pg_temp.refusals($$submit_task('changes')$$);
ROLLBACK;
BEGIN;
ALTER TABLE task RENAME TO work;
CALL pg_temp.refusals($$submit_task('changes')$$);
ROLLBACK;
-- A column of ours that was taken away and came back, at another place.
BEGIN;
CREATE TEMP TABLE kept AS SELECT task_id, shape FROM ready_queue;
ALTER TABLE ready_queue DROP losses CASCADE;
ALTER TABLE ready_queue ADD losses int NOT NULL DEFAULT 0;
SELECT ended FROM pg_temp.live();
ROLLBACK;
-- Rows from before have the default, wherever they are read.
BEGIN;
SELECT submit_task('changes', '{"n": 2}') > 0 AS before;
ALTER TABLE task RENAME payload TO old_payload;
ALTER TABLE task ALTER old_payload DROP NOT NULL;
ALTER TABLE task ADD payload jsonb NOT NULL DEFAULT '{"restored": true}';
SELECT c.payload FROM session, claim_tasks('changes', token) c;
ALTER TABLE lease DROP losses CASCADE;
ALTER TABLE lease ADD losses int NOT NULL DEFAULT 2;
SELECT fail_task('changes', token, l.task_id, l.id, 'once more') FROM session, lease l;
SELECT losses FROM waiting;
ROLLBACK;

-- Indexes of every kind are maintained, also one that comes while the session knows the others.
CREATE INDEX by_outcome ON attempt (outcome, ended_at) WHERE outcome = 'succeeded';
CREATE UNIQUE INDEX one_order ON task ((payload ->> 'order')) WHERE payload ? 'order';
CREATE INDEX by_words ON task USING gin (payload);
CREATE INDEX by_time ON attempt USING brin (ended_at);
CREATE INDEX by_worker ON lease USING hash (worker);
SELECT ended, indexes > 8 AS all_checked FROM pg_temp.live();
SELECT ended FROM pg_temp.live();
SELECT submit_task('changes', '{"order": 7}') > 0 AS first;
CALL pg_temp.refusals($$submit_task('changes', '{"order": 7}')$$);
SET enable_seqscan = off;
SELECT count(*) FROM task WHERE payload @> '{"words": ["b"]}' AND kind = 'changes';
SELECT count(*) > 0 AS by_brin FROM attempt WHERE ended_at > clock() - interval '1 day';
RESET enable_seqscan;
DROP INDEX by_outcome, one_order, by_words, by_time, by_worker;
SELECT ended FROM pg_temp.live();
-- One that cannot be maintained row by row.
-- The index that rows are looked up by.
BEGIN;
ALTER TABLE lease DROP CONSTRAINT lease_pkey;
CREATE INDEX lease_pkey ON lease (worker);
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
DROP INDEX lease_pkey;
CREATE INDEX lease_pkey ON lease USING hash (task_id);
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
DROP INDEX lease_pkey;
CREATE INDEX lease_pkey ON lease (task_id) WHERE tenant = 0;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
DROP INDEX lease_pkey;
CREATE INDEX lease_pkey ON lease (task_id DESC);
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
-- A column of ours that takes less than its type has, or is computed.
BEGIN;
CREATE DOMAIN public.few AS int CHECK (value < 3);
ALTER TABLE lease DROP losses CASCADE;
ALTER TABLE lease ADD losses public.few;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
BEGIN;
ALTER TABLE lease DROP losses CASCADE;
ALTER TABLE lease ADD losses int GENERATED ALWAYS AS (attempt - 1) STORED;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
-- Rows that are elsewhere, are hidden from their owner, or are deleted without a subscriber being told.
BEGIN;
CREATE TABLE heir () INHERITS (lease);
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
BEGIN;
ALTER TABLE lease ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = error;
CREATE PUBLICATION of_some FOR TABLE lease WHERE (worker > 0);
RESET client_min_messages;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
-- A column of somebody that takes no null and has no default, and one that is made from its table.
BEGIN;
CREATE DOMAIN public.must AS int NOT NULL;
ALTER TABLE lease ADD x public.must;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
BEGIN;
ALTER TABLE lease ADD of int GENERATED ALWAYS AS (tableoid::int) STORED;
SELECT submit_task('changes', '{}') > 0 AS submitted;
SELECT count(*) FROM session, claim_tasks('changes', token);
SELECT of = tableoid::int AS right FROM lease;
ROLLBACK;
SELECT ended FROM pg_temp.live();

-- Triggers, foreign keys and rules, which would be passed over now and then; other tables may have them.
CREATE FUNCTION pg_temp.watch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
CREATE TRIGGER watch AFTER INSERT ON task FOR EACH ROW EXECUTE FUNCTION pg_temp.watch();
CREATE TRIGGER watch AFTER INSERT ON attempt FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.watch();
CREATE TABLE public.job (task_id bigint REFERENCES task);
ALTER TABLE lease ADD FOREIGN KEY (task_id) REFERENCES task;
ALTER TABLE task ADD CONSTRAINT late UNIQUE (id, kind) DEFERRABLE;
CREATE RULE watch AS ON INSERT TO ready_queue DO ALSO NOTIFY watch;
CREATE TRIGGER watch AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION pg_temp.watch();
DROP TRIGGER watch ON event;
SELECT ended FROM pg_temp.live();

-- What stands under the name of a table and has no rows of its own, or rows that another table answers for.
BEGIN;
ALTER TABLE lease RENAME TO old_lease;
ALTER INDEX lease_pkey RENAME TO old_pkey;
CREATE TABLE lease (LIKE old_lease INCLUDING DEFAULTS, PRIMARY KEY (task_id)) PARTITION BY RANGE (task_id);
CREATE TABLE lease_rest PARTITION OF lease DEFAULT;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
BEGIN;
CREATE TABLE all_leases (LIKE lease) PARTITION BY RANGE (task_id);
ALTER TABLE all_leases ATTACH PARTITION lease DEFAULT;
CALL pg_temp.refusals($$session, claim_tasks('changes', token)$$);
ROLLBACK;
SELECT ended FROM pg_temp.live();

-- A constraint of somebody holds.
ALTER TABLE task ADD CONSTRAINT small CHECK (pg_column_size(payload) < 200) NOT VALID;
CALL pg_temp.refusals($$submit_task('changes', jsonb_build_object('long', repeat('x', 300)))$$);
SELECT ended FROM pg_temp.live();
ALTER TABLE task DROP CONSTRAINT small;
-- Nor is a null written where somebody forbids it.
ALTER TABLE task ADD COLUMN needed int NOT NULL DEFAULT 1;
ALTER TABLE task ALTER COLUMN needed SET DEFAULT nullif(1, 1);
CALL pg_temp.refusals($$submit_task('changes')$$);
ALTER TABLE task DROP COLUMN needed;
SELECT cancel_task(task_id) FROM tasks WHERE kind = 'changes' AND state NOT IN ('succeeded', 'cancelled');
SELECT terminate_worker('changes', true);
SELECT name FROM check_invariants() WHERE NOT holds;
DROP EXTENSION amcheck;

-- A session that begins when the sequence of the ids has another name.
ALTER SEQUENCE task_id_seq RENAME TO renamed;
\c -
SELECT gpu_orch.submit_task('changes');
ALTER SEQUENCE gpu_orch.renamed RENAME TO task_id_seq;
