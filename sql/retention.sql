-- What is removed when its time is over, what stays, and what is erased.
\set ECHO none
\i sql/include/refusals.sql
\set ECHO none
SET client_min_messages = warning;
SET search_path = gpu_orch, pg_catalog;
-- Rows of the tests before this one are not this one's affair; what they left is counted.
CREATE TEMP TABLE counted_before AS SELECT * FROM counted WHERE what = 'spend';
INSERT INTO counted VALUES ('usage', clock()), ('spend', date_trunc('day', clock(), 'UTC')) ON CONFLICT (what) DO UPDATE SET at = excluded.at;
DO $$
BEGIN
    WHILE EXISTS (SELECT FROM gpu_orch.prune(false)) LOOP
    END LOOP;
END
$$;

-- A task that has some name, and a way to end the next one; old() makes them so old.
SELECT token FROM register_worker('retention', capabilities => '{"services": "retention"}') \gset
CREATE TEMP TABLE named (name text PRIMARY KEY, id bigint);
CREATE FUNCTION pg_temp.make(name text, parents text[] DEFAULT '{}', key text DEFAULT NULL, kind text DEFAULT 'retention') RETURNS void LANGUAGE sql AS $$
    INSERT INTO named SELECT name, gpu_orch.submit_task(kind, jsonb_build_object('n', name), idempotency_key => key,
        depends_on => ARRAY(SELECT n.id FROM named n WHERE n.name = ANY (parents)), max_attempts => 2, traceparent => 'trace');
$$;
CREATE FUNCTION pg_temp.work(token text, failing text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    task gpu_orch.claimed_task;
BEGIN
    PERFORM gpu_orch.admit();
    SELECT * INTO task FROM gpu_orch.claim_tasks('retention', token);
    IF failing IS NULL THEN
        PERFORM gpu_orch.complete_task('retention', token, task.task_id, task.lease, '{"made": 1}');
    ELSE
        PERFORM gpu_orch.fail_task('retention', token, task.task_id, task.lease, failing, retry => false);
    END IF;
    RETURN task.payload ->> 'n';
END
$$;
CREATE FUNCTION pg_temp.old(age interval, VARIADIC names text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE gpu_orch.attempt SET ended_at = gpu_orch.clock() - age, claimed_at = gpu_orch.clock() - age - interval '1 second'
        WHERE task_id IN (SELECT id FROM named WHERE name = ANY (names));
    UPDATE gpu_orch.task SET submitted_at = gpu_orch.clock() - age - interval '1 minute' WHERE id IN (SELECT id FROM named WHERE name = ANY (names));
$$;
CREATE VIEW pg_temp.left AS
SELECT n.name, v.state FROM named n LEFT JOIN tasks v ON v.task_id = n.id;
SET client_min_messages = info;
\set ECHO all

-- What ended long ago goes, with its attempts and what it depended on; what is young or open stays.
SELECT pg_temp.make('old'), pg_temp.make('young'), pg_temp.make('failed');
SELECT pg_temp.work(:'token'), pg_temp.work(:'token'), pg_temp.work(:'token', 'bad input');
SELECT pg_temp.make('open', kind => 'retention-open');
SELECT pg_temp.old('31 days', 'old', 'failed', 'open'), pg_temp.old('29 days', 'young');
SELECT * FROM prune();
SELECT * FROM prune(dry_run => true);
SELECT * FROM prune(false);
SELECT * FROM prune(false);
SELECT * FROM pg_temp.left ORDER BY name;
SELECT count(*) FROM attempt a JOIN named n ON n.id = a.task_id;

-- A parent is needed while a child is open or young; a chain that is old goes as a whole.
SELECT pg_temp.make('a'), pg_temp.make('b', '{a}'), pg_temp.make('c', '{b}'), pg_temp.make('d', '{c}');
SELECT pg_temp.work(:'token'), pg_temp.work(:'token'), pg_temp.work(:'token');
SELECT pg_temp.old('40 days', 'a', 'b', 'c', 'd');
SELECT * FROM prune(false);
SELECT * FROM pg_temp.left WHERE name <= 'd' ORDER BY name;
SELECT pg_temp.work(:'token', 'no luck');
SELECT * FROM prune();
SELECT pg_temp.old('31 days', 'd');
SELECT * FROM prune();
SELECT * FROM prune(false);

-- What has gone is not there, for any function.
SELECT id AS old FROM named WHERE name = 'old' \gset
CREATE TEMP TABLE gone AS SELECT :old::bigint AS id;
SELECT count(*) FROM task(:old);
CALL pg_temp.refusals($$gone, submit_task('retention', depends_on => ARRAY[id])$$, $$gone, retry_task(id)$$,
    $$gone, cancel_task(id)$$, $$gone, forget_task(id)$$);

-- A key keeps its task for a while after the submission, whatever becomes of the task.
SELECT pg_temp.make('key', key => 'retention-key');
SELECT pg_temp.work(:'token');
SELECT pg_temp.old('31 days', 'key');
UPDATE task SET submitted_at = clock() - interval '6 days' WHERE idempotency_key = 'retention-key';
SELECT * FROM prune();
SELECT n.id = submit_task('retention', '{"n": "key"}', max_attempts => 2, idempotency_key => 'retention-key') AS found FROM named n WHERE name = 'key';
UPDATE task SET submitted_at = clock() - interval '8 days' WHERE idempotency_key = 'retention-key';
SELECT * FROM prune(false);
SELECT n.id = submit_task('retention', '{"n": "other"}', idempotency_key => 'retention-key') AS found FROM named n WHERE name = 'key';
SELECT pg_temp.work(:'token');

-- What is not counted yet, or belongs to a day that is not summed up, stays.
SELECT pg_temp.make('unsummed');
SELECT pg_temp.work(:'token');
SELECT pg_temp.old('31 days', 'unsummed');
BEGIN;
UPDATE counted SET at = clock() - interval '32 days' WHERE what = 'spend';
SELECT * FROM prune();
ROLLBACK;
BEGIN;
UPDATE counted SET at = clock() - interval '32 days' WHERE what = 'usage';
SELECT * FROM prune();
ROLLBACK;
SELECT * FROM prune(false);

-- Rows of a clock that was ahead do not keep older ones that came after them.
INSERT INTO decision (pool, at, policy, desired, created, ended, bound_by, terms)
    SELECT 0, clock() + interval '300 days', 'fixed', 0, 0, 0, 'demand', '[]' FROM generate_series(1, 1500);
INSERT INTO decision (pool, at, policy, desired, created, ended, bound_by, terms)
    SELECT 0, clock() - interval '40 days', 'fixed', 0, 0, 0, 'demand', '[]' FROM generate_series(1, 1500);
SELECT * FROM prune();
SELECT * FROM prune(false);
SELECT count(*) FROM decision WHERE pool = 0 AND at > clock();
DELETE FROM decision WHERE pool = 0;

-- A class of requirements goes when none of its tasks is ready; a task that comes back brings along what it demands.
SELECT pg_temp.make('class', kind => 'retention-class');
SELECT id AS class FROM named WHERE name = 'class' \gset
UPDATE shape SET created_at = clock() - interval '31 days' WHERE kind LIKE 'retention-%';
SELECT * FROM prune();
SELECT cancel_task(:class);
SELECT * FROM prune();
SELECT * FROM prune(false);
SELECT kind FROM shape WHERE kind LIKE 'retention-%';
SELECT retry_task(:class);
SELECT kind FROM shape WHERE kind LIKE 'retention-%';
SELECT token AS class_token FROM register_worker('retention-class', capabilities => '{"services": "retention-class"}') \gset
SELECT c.kind, c.payload FROM claim_tasks('retention-class', :'class_token') c;
SELECT pg_temp.make('class again', kind => 'retention-class');
SELECT kind FROM shape WHERE kind LIKE 'retention-%';
SELECT c.payload FROM claim_tasks('retention-class', :'class_token') c;
SELECT goodbye('retention-class', :'class_token');
SELECT cancel_task(id) FROM named WHERE name LIKE 'class%' ORDER BY id;

-- Erasing: what a task was given and what it returned, and nothing else.
SELECT pg_temp.make('secret', key => 'secret-key'), pg_temp.make('secret failure');
SELECT pg_temp.work(:'token'), pg_temp.work(:'token', 'a secret');
SELECT id AS secret FROM named WHERE name = 'secret' \gset
SELECT id AS failure FROM named WHERE name = 'secret failure' \gset
SELECT forget_task(:secret), forget_task(:failure), forget_task(:failure);
SELECT state, payload, result, error, traceparent, attempts FROM tasks WHERE task_id IN (:secret, :failure) ORDER BY task_id;
SELECT kind, detail FROM event WHERE subject IN (:'secret', :'failure') ORDER BY id;
SELECT submit_task('retention', '{"n": "secret"}', max_attempts => 2, idempotency_key => 'secret-key') = :secret AS found;
CREATE TEMP TABLE erased AS SELECT :failure::bigint AS id, (SELECT id FROM named WHERE name = 'open') AS open;
CALL pg_temp.refusals($$erased, retry_task(id)$$, $$erased, forget_task(open)$$);
SELECT pg_temp.old('31 days', 'secret', 'secret failure');
SELECT * FROM prune(false);

-- The ledger: a worker that ended long ago goes with all that is told of it. Not one whose pod is not proved gone, whose
-- calls or costs are open, or that is alive, however old.
INSERT INTO worker (no, id, origin, state, state_since, created_at)
SELECT n, 'ledger ' || n, 'cloud', CASE n WHEN -14 THEN 'active' ELSE 'terminated' END, clock() - interval '401 days', clock() - interval '402 days'
FROM generate_series(-15, -10) n;
INSERT INTO worker_profile (worker, pod_id, image, learned, ended_because) SELECT no, 'ledger ' || no, 'i', 3, 'terminate' FROM worker WHERE no < 0;
INSERT INTO cloud_op (kind, state, nonce, worker, pod_name, pod_id, price_micros, planned_at, sent_at, settled_at, requested_by, cause, verified)
SELECT k, CASE WHEN k = 'delete' AND no = -13 THEN 'planned' ELSE 'done' END, k || no, no, id, id, 1, clock() - interval '402 days', clock() - interval '402 days',
       CASE WHEN k = 'delete' AND no = -13 THEN NULL WHEN k = 'delete' AND no = -12 THEN clock() ELSE clock() - interval '401 days' END, 'me', 'terminate', true
FROM worker, unnest(ARRAY['create', 'delete']) k WHERE no < 0 AND (no, k) <> (-11, 'delete') AND (no <> -14 OR k = 'create');
INSERT INTO spend (worker, pod_id, price_micros, started_at, ended_at)
SELECT no, id, 1, clock() - interval '402 days', CASE WHEN no NOT IN (-14, -13) THEN clock() - interval '401 days' END FROM worker WHERE no < 0;
INSERT INTO event (at, kind, subject, worker, from_state, to_state, actor)
SELECT clock() - interval '402 days', e.kind, w.id, w.no, e.from_state, e.to_state, 'me' FROM worker w, (VALUES
    (1, 'spawned', NULL, 'active'), (2, 'terminate', 'active', 'terminating'), (3, 'pod_absent_proved', 'terminating', 'terminated')) e(n, kind, from_state, to_state)
WHERE w.no < 0 AND (w.no <> -14 OR e.n = 1) ORDER BY w.no, e.n;
-- A pod that no worker had, its costs, and what was told of it; one whose delete is owed.
INSERT INTO cloud_op (kind, state, nonce, pod_name, pod_id, planned_at, settled_at, cause)
SELECT 'delete', CASE p WHEN 'stray' THEN 'done' ELSE 'planned' END, p, 'gpo-' || p, p, clock() - interval '402 days',
       CASE p WHEN 'stray' THEN clock() - interval '401 days' END, 'orphan_pod' FROM unnest(ARRAY['stray', 'owed']) p;
INSERT INTO spend (pod_id, price_micros, started_at, ended_at)
SELECT p, 1, clock() - interval '402 days', CASE p WHEN 'stray' THEN clock() - interval '401 days' END FROM unnest(ARRAY['stray', 'owed']) p;
INSERT INTO event (at, kind, subject, actor, detail)
SELECT clock() - interval '401 days', k, 'gpo-' || p, 'me', jsonb_build_object('pod_id', p)
FROM unnest(ARRAY['stray', 'owed']) p, unnest(ARRAY['orphan_pod', 'pod_ended']) k WHERE (p, k) <> ('owed', 'pod_ended');
INSERT INTO event (at, kind, subject, actor) SELECT clock() - a, 'tenant_altered', 'ledger', 'me' FROM unnest(ARRAY[interval '401 days', '399 days']) a;
INSERT INTO alert (name, subject, detail, raised_at, cleared_at)
SELECT 'no_capacity', 'ledger', 'none', clock() - interval '402 days', c FROM unnest(ARRAY[NULL, clock(), clock() - interval '401 days']) c;
INSERT INTO usage_day SELECT (clock() AT TIME ZONE 'UTC')::date - d, -15, 1, 1, 1 FROM unnest(ARRAY[402, 401, 399]) d;
INSERT INTO share_day SELECT (clock() AT TIME ZONE 'UTC')::date - d, 0, 0, '', 1, 1, 1 FROM unnest(ARRAY[401, 399]) d;
INSERT INTO spend_day SELECT (clock() AT TIME ZONE 'UTC')::date - d, 0, 0, '', 1, 1, 1, 1 FROM unnest(ARRAY[401, 399]) d;
INSERT INTO decision (pool, at, policy, desired, created, ended, bound_by, terms)
SELECT 0, clock() - a, 'fixed', 0, 0, 0, 'demand', '[]' FROM unnest(ARRAY[interval '31 days', '29 days']) a;
SELECT * FROM prune();
-- What is told of the stray pod is counted once nothing else is known of it.
SELECT * FROM prune(false);
SELECT * FROM prune(false);
SELECT no, state FROM worker WHERE no < 0 ORDER BY no;
SELECT worker, count(*) FROM event WHERE worker < 0 GROUP BY worker ORDER BY worker;
SELECT kind, subject FROM event WHERE subject LIKE 'gpo-%' AND actor = 'me' OR subject = 'ledger' ORDER BY id;
SELECT count(*) FILTER (WHERE cleared_at IS NULL) AS open, count(*) FROM alert WHERE subject = 'ledger';

-- Each cut is on record, and nobody but an administrator makes one.
SELECT subject, sum((detail ->> 'rows')::int) AS rows, min(detail ->> 'setting') AS setting, min(detail ->> 'value') AS value,
       bool_and((detail ->> 'until')::timestamptz < at) AS before
FROM event WHERE kind = 'checkpoint' AND id > (SELECT min(id) FROM event WHERE subject = :'secret') GROUP BY subject ORDER BY subject;
CREATE ROLE retention_ops IN ROLE gpu_orch_operator;
CREATE ROLE retention_admin IN ROLE gpu_orch_admin;
SET ROLE retention_ops;
CALL pg_temp.refusals('prune()', 'prune(false)');
SET ROLE retention_admin;
SELECT count(*) AS over FROM prune();
RESET ROLE;
DROP ROLE retention_ops, retention_admin;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM prune(false);
ROLLBACK;

-- Too short a time is refused.
ALTER SYSTEM SET gpu_orch.retention_tasks = '59 min';
ALTER SYSTEM SET gpu_orch.retention_ledger = '30 d';
ALTER SYSTEM SET gpu_orch.retention_decisions = 0;

-- What these rows broke by themselves is put away.
SELECT name, detail FROM check_invariants(true) WHERE NOT holds AND name ~ '^(I3: a task|I4|I8|I10)' ORDER BY name;
DELETE FROM spend WHERE worker < 0 OR pod_id = 'owed';
DELETE FROM cloud_op WHERE worker < 0 OR pod_id = 'owed';
DELETE FROM event WHERE worker < 0 OR actor = 'me';
DELETE FROM worker WHERE no < 0;
DELETE FROM alert WHERE subject = 'ledger';
DELETE FROM usage_day WHERE worker < 0;
DELETE FROM share_day WHERE day < (clock() AT TIME ZONE 'UTC')::date - 398;
DELETE FROM spend_day WHERE day < (clock() AT TIME ZONE 'UTC')::date - 398;
DELETE FROM decision WHERE pool = 0;
SELECT cancel_task(id) FROM named WHERE name = 'open';
SELECT terminate_worker('retention', true);
DELETE FROM counted WHERE what = 'spend';
INSERT INTO counted SELECT * FROM counted_before;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
