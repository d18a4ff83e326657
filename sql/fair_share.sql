-- Fair shares of tenants, the order within one, and batches of ends.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;
SELECT token FROM register_worker('fair', capabilities => '{"services": ["fair"], "models": ["a", "b", "c"]}') \gset
CREATE PROCEDURE pg_temp.submit(tenant text, names text, kind text DEFAULT 'fair', priority int DEFAULT 0, requirements jsonb DEFAULT '{}')
LANGUAGE sql AS $$
    SELECT count(gpu_orch.submit_task(kind, to_jsonb(n), requirements => requirements, priority => priority, tenant => tenant, max_attempts => 10))
    FROM unnest(string_to_array(names, ' ')) n
$$;
-- The names of what a claim of so many takes, in order.
CREATE FUNCTION pg_temp.claims(token text, n int, worker text DEFAULT 'fair') RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(payload #>> '{}', ' ' ORDER BY ordinality) FROM gpu_orch.claim_tasks(worker, token, n) WITH ORDINALITY
$$;
-- The same, one claim after another.
CREATE FUNCTION pg_temp.claims_singly(token text, n int, worker text DEFAULT 'fair') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    names text;
BEGIN
    FOR i IN 1 .. n LOOP
        names := concat_ws(' ', names, pg_temp.claims(token, 1, worker));
    END LOOP;
    RETURN names;
END
$$;

-- Weights 2 and 1: two of the one for one of the other, whoever came first. Equal places: first in, first out.
SELECT create_tenant('fair-two', weight => 2), create_tenant('fair-one', weight => 1);
CALL pg_temp.submit('fair-one', 'o1 o2 o3');
CALL pg_temp.submit('fair-two', 't1 t2 t3 t4 t5 t6');
SELECT pg_temp.claims(:'token', 10);
-- One that comes anew starts where the others are, not where they began, nor behind what they have in store.
CALL pg_temp.submit('fair-one', 'o1 o2 o3 o4 o5 o6');
SELECT pg_temp.claims_singly(:'token', 4);
SELECT create_tenant('fair-late');
CALL pg_temp.submit('fair-late', 'l1 l2');
SELECT pg_temp.claims_singly(:'token', 4);
-- One that floods the queue delays itself alone.
SELECT string_agg('f' || n, ' ') AS flood FROM generate_series(1, 1000) n \gset
CALL pg_temp.submit('fair-late', :'flood');
SELECT pg_temp.claims(:'token', 2);
CALL pg_temp.submit('fair-one', 'o7 o8 o9');
SELECT pg_temp.claims_singly(:'token', 6);
-- Priority goes before any share.
CALL pg_temp.submit('fair-late', 'urgent1 urgent2', priority => 1);
CALL pg_temp.submit('fair-one', 'o10');
CALL pg_temp.submit('fair-one', 'later', priority => -1);
SELECT pg_temp.claims(:'token', 4);
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'fair' AND state = 'ready';
SELECT pg_temp.claims(:'token', 1);

-- Within a tenant first in, first out; a task that comes back keeps its place.
CALL pg_temp.submit('fair-two', 'p1 p2 p3 p4');
SELECT pg_temp.claims(:'token', 2);
SELECT release_task('fair', :'token', l.task_id, l.id) FROM gpu_orch.lease l JOIN tasks t USING (task_id) WHERE t.payload = '"p1"';
CALL pg_temp.submit('fair-two', 'p5');
SELECT pg_temp.claims(:'token', 2);
SELECT fail_task('fair', :'token', l.task_id, l.id, 'x') FROM gpu_orch.lease l JOIN tasks t USING (task_id) WHERE t.payload = '"p2"';
SELECT advance_clock('1 minute') IS NOT NULL AS later;
SELECT admit() > 0 AS moved;
SELECT pg_temp.claims_singly(:'token', 5);
SELECT payload, attempts FROM tasks WHERE payload #>> '{}' LIKE 'p_' ORDER BY task_id;

-- A new weight is good for what comes after it.
SELECT create_tenant('fair-x'), create_tenant('fair-y');
CALL pg_temp.submit('fair-x', 'x1 x2');
CALL pg_temp.submit('fair-y', 'y1 y2');
SELECT alter_tenant('fair-x', null, 4);
CALL pg_temp.submit('fair-x', 'x3 x4 x5 x6');
CALL pg_temp.submit('fair-y', 'y3');
SELECT pg_temp.claims(:'token', 20);
-- A weight that is not named stays.
SELECT alter_tenant('fair-x', null);
CALL pg_temp.submit('fair-y', 'y4');
CALL pg_temp.submit('fair-x', 'x7 x8 x9 x10 x11');
SELECT pg_temp.claims(:'token', 20);
-- What a task really took, its tenant's next ones bear.
SELECT create_tenant('fair-slow'), create_tenant('fair-fast');
CALL pg_temp.submit('fair-slow', 's1');
CALL pg_temp.submit('fair-fast', 'q1');
SELECT pg_temp.claims(:'token', 2);
SELECT advance_clock('1 second') IS NOT NULL AS later;
SELECT complete_task('fair', :'token', l.task_id, l.id) FROM gpu_orch.lease l JOIN tasks t USING (task_id) WHERE t.payload = '"q1"';
SELECT advance_clock('20 seconds') IS NOT NULL AS later;
SELECT complete_task('fair', :'token', l.task_id, l.id) FROM gpu_orch.lease l JOIN tasks t USING (task_id) WHERE t.payload = '"s1"';
CALL pg_temp.submit('fair-slow', 's2 s3');
CALL pg_temp.submit('fair-fast', 'q2 q3 q4');
SELECT pg_temp.claims(:'token', 5);

CALL pg_temp.refusals(
    $$create_tenant('fair-bad', weight => 0)$$,
    $$create_tenant('fair-bad', weight => -1)$$,
    $$create_tenant('fair-bad', weight => null)$$,
    $$create_tenant('fair-bad', weight => 'NaN')$$,
    $$create_tenant('fair-bad', weight => 'Infinity')$$,
    $$create_tenant('fair-bad', weight => 1e-9)$$,
    $$create_tenant('fair-bad', weight => 1e30)$$,
    $$alter_tenant('fair-x', null, 0)$$,
    $$alter_tenant('fair-x', null, -1)$$,
    $$alter_tenant('fair-x', null, 'NaN')$$,
    $$alter_tenant('fair-x', null, 'Infinity')$$);

-- Batches of ends: what the worker holds ends, what it does not is left out; repeated, the answer is the same.
SELECT token AS token FROM register_worker('fair', capabilities => '{"services": ["fair"], "models": ["a", "b", "c"]}') \gset
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'fair' AND state = 'ready';
CALL pg_temp.submit('default', 'e1 e2 e3 e4');
CREATE TEMP TABLE claimed AS SELECT payload #>> '{}' AS name, task_id, lease, ordinality AS at FROM claim_tasks('fair', :'token', 4) WITH ORDINALITY;
SELECT release_task('fair', :'token', task_id, lease) FROM claimed WHERE name = 'e2';
CREATE FUNCTION pg_temp.ends(token text, results jsonb[]) RETURNS TABLE (ended text) LANGUAGE sql AS $$
    SELECT c.name FROM pg_temp.claimed c JOIN gpu_orch.complete_tasks('fair', token,
        (SELECT array_agg(task_id ORDER BY at) FROM pg_temp.claimed WHERE name <> 'e4'),
        (SELECT array_agg(lease ORDER BY at) FROM pg_temp.claimed WHERE name <> 'e4'), results) AS ended (id) ON ended.id = c.task_id
    ORDER BY c.at
$$;
SELECT * FROM pg_temp.ends(:'token', ARRAY['"r1"', '"r2"', null]::jsonb[]);
SELECT payload, state, result FROM tasks JOIN claimed USING (task_id) ORDER BY task_id;
SELECT * FROM pg_temp.ends(:'token', null);
SELECT payload, state, result FROM tasks JOIN claimed USING (task_id) ORDER BY task_id;
-- Within one call, too; another's lease is fenced.
SELECT name FROM claimed JOIN complete_tasks('fair', :'token', (SELECT ARRAY[task_id, task_id] FROM claimed WHERE name = 'e4'),
    (SELECT ARRAY[lease, lease] FROM claimed WHERE name = 'e4')) AS ended (id) ON ended.id = task_id;
SELECT count(*) FROM complete_tasks('fair', :'token', (SELECT ARRAY[task_id] FROM claimed WHERE name = 'e4'),
    (SELECT ARRAY[lease] FROM claimed WHERE name = 'e1'));
SELECT count(*) FROM complete_tasks('fair', :'token', '{}', '{}');
CREATE TEMP TABLE arrays AS SELECT :'token'::text AS token, '00000000-0000-0000-0000-000000000000'::uuid AS lease;
CALL pg_temp.refusals(
    $$arrays, complete_tasks('fair', token, null, ARRAY[lease])$$,
    $$arrays, complete_tasks('fair', token, ARRAY[1::bigint], null)$$,
    $$arrays, complete_tasks('fair', token, ARRAY[1, 2]::bigint[], ARRAY[lease])$$,
    $$arrays, complete_tasks('fair', token, ARRAY[1::bigint], ARRAY[lease], '{}')$$,
    $$arrays, complete_tasks('fair', token, ARRAY[null::bigint], ARRAY[lease])$$,
    $$arrays, complete_tasks('fair', token, ARRAY[1::bigint], ARRAY[null::uuid])$$,
    $$arrays, complete_tasks('fair', token, ARRAY[[1, 2]]::bigint[], ARRAY[lease, lease])$$,
    $$arrays, complete_tasks('fair', token, array_fill(1::bigint, ARRAY[1001]), array_fill(lease, ARRAY[1001]))$$,
    $$complete_tasks('fair', 'wrong', '{}', '{}')$$);
-- Refused as a whole: the first element ends only with the others.
SELECT pg_temp.claims(:'token', 1);
CALL pg_temp.refusals(
    $$arrays, complete_tasks('fair', token, ARRAY[(SELECT task_id FROM gpu_orch.tasks WHERE payload = '"e2"'), null],
      ARRAY[(SELECT l.id FROM gpu_orch.lease l JOIN gpu_orch.tasks USING (task_id) WHERE payload = '"e2"'), lease])$$);
SELECT state FROM tasks WHERE payload = '"e2"';
SELECT terminate_worker('fair', true);
SELECT count(cancel_task(task_id)) > 0 AS cancelled FROM tasks WHERE kind = 'fair' AND state IN ('ready', 'scheduled');
DROP TABLE claimed, arrays CASCADE;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
