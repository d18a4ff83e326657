-- Explanations: why each task waits, which requirements rule out which workers, what the calls did, who got how much.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;

-- Nothing of other tests is in the way: no task of theirs stands, no worker or pool is there, and their hour is over.
SELECT count(cancel_task(task_id)) >= 0 AS cancelled FROM tasks WHERE state IN ('scheduled', 'blocked', 'held', 'ready');
SELECT count(terminate_worker(worker_id, true)) >= 0 AS terminated FROM workers WHERE state <> 'terminated';
SELECT count(drop_pool(pool)) >= 0 AS dropped FROM pools;
SELECT count(cancel_task(task_id)) >= 0 AS cancelled FROM tasks WHERE state = 'ready';
SELECT advance_clock('3 hours') IS NOT NULL AS later;

-- Tasks are known by names here; why() shows the names for the numbers, and T for a time.
CREATE TEMP TABLE named (name text PRIMARY KEY, id bigint NOT NULL);
GRANT SELECT, INSERT ON named TO PUBLIC;
CREATE FUNCTION pg_temp.submit(name text, requirements jsonb DEFAULT '{}', after text[] DEFAULT '{}', tenant text DEFAULT 'default',
                               run_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 3, priority int DEFAULT 0)
RETURNS text LANGUAGE sql AS $$
    INSERT INTO pg_temp.named SELECT name, gpu_orch.submit_task('explain', to_jsonb(name), requirements, priority, tenant, run_at,
        max_attempts, depends_on => (SELECT array_agg(n.id) FROM pg_temp.named n WHERE n.name = ANY (after)))
    RETURNING named.name $$;
CREATE FUNCTION pg_temp.say(text text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n record;
BEGIN
    FOR n IN SELECT * FROM pg_temp.named LOOP
        text := regexp_replace(text, '(^|task |\()' || n.id || '(?=[ ,).]|$)', '\1<' || n.name || '>', 'g');
    END LOOP;
    RETURN regexp_replace(text, '\m[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d [\d:.]+ 2\d{3} (?:[A-Z]{3,4}|[+-]\d{2,4})', 'T', 'g');
END
$$;
CREATE FUNCTION pg_temp.why(name text) RETURNS TABLE (reason text, subject text, workers bigint, detail text, hint text)
LANGUAGE sql AS $$
    SELECT w.reason, pg_temp.say(w.subject), w.workers, pg_temp.say(w.detail), pg_temp.say(w.hint)
    FROM pg_temp.named n, gpu_orch.why_waiting(n.id) w WHERE n.name = why.name $$;
\a
\t

-- Nobody is there: no worker, no pool.
SELECT pg_temp.submit('first');
SELECT * FROM pg_temp.why('first');

-- Its time has not come; after that, the leader's turn has not.
SELECT pg_temp.submit('later', run_at => '2100-01-01 08:00+00');
SELECT * FROM pg_temp.why('later');
SELECT pg_temp.submit('soon', run_at => clock() + interval '1 minute');
SELECT advance_clock('2 minutes') IS NOT NULL AS later;
SELECT * FROM pg_temp.why('soon');
SELECT admit() > 0 AS moved;
SELECT reason FROM pg_temp.why('soon');
SELECT cancel_task(id) FROM named WHERE name = 'soon';

-- Other tasks must succeed first: each is named with its state, and those that succeeded are not.
SELECT pg_temp.submit('child', after => '{first,later}');
SELECT * FROM pg_temp.why('child');
SELECT pg_temp.submit('late child', after => '{first}', run_at => '2100-01-01 08:00+00');
SELECT reason, subject FROM pg_temp.why('late child');
SELECT token FROM register_worker('explain-1', capabilities => '{"services": "explain", "hardware": {"gpu_memory_gb": 24}}') \gset
SELECT task_id, lease FROM claim_tasks('explain-1', :'token') \gset
SELECT detail FROM pg_temp.why('child') WHERE subject = '<first>';
SELECT complete_task('explain-1', :'token', :task_id, :'lease');
SELECT reason, subject FROM pg_temp.why('child');
SELECT reason FROM pg_temp.why('late child');
-- One of them can no longer succeed.
SELECT cancel_task(id) FROM named WHERE name = 'later';
SELECT * FROM pg_temp.why('child');
SELECT admit() > 0 AS moved;
SELECT * FROM pg_temp.why('child');
SELECT pg_temp.submit('doomed', '{"x": 1}', max_attempts => 1), pg_temp.submit('heir', after => '{doomed}');
UPDATE gpu_orch.ready_queue SET shape = (SELECT shape FROM gpu_orch.task t, named n WHERE t.id = n.id AND n.name = 'first');
SELECT task_id, lease FROM claim_tasks('explain-1', :'token') \gset
SELECT fail_task('explain-1', :'token', :task_id, :'lease', 'no luck');
SELECT * FROM pg_temp.why('heir');
SELECT admit() > 0 AS moved;

-- It does not wait.
SELECT pg_temp.submit('one');
SELECT task_id, lease FROM claim_tasks('explain-1', :'token') \gset
SELECT * FROM pg_temp.why('one');
SELECT * FROM pg_temp.why('first');
SELECT * FROM pg_temp.why('doomed');
SELECT * FROM pg_temp.why('heir');
SELECT complete_task('explain-1', :'token', :task_id, :'lease');

-- Its last attempt failed.
SELECT pg_temp.submit('again');
SELECT task_id, lease FROM claim_tasks('explain-1', :'token') \gset
SELECT fail_task('explain-1', :'token', :task_id, :'lease', 'no luck');
SELECT * FROM pg_temp.why('again');
SELECT cancel_task(id) FROM named WHERE name = 'again';

-- Its tenant's limit: what runs, and what of its shape is ready before it.
SELECT create_tenant('explain-two', 2), create_tenant('explain-free');
SELECT pg_temp.submit('free', tenant => 'explain-free');
SELECT count(*) FROM claim_tasks('explain-1', :'token');
SELECT pg_temp.submit('two ' || n, tenant => 'explain-two', priority => 5) FROM generate_series(1, 3) n;
SELECT pg_temp.submit('two other', '{"hardware": {"gpu_memory_gb": 1}}', tenant => 'explain-two', priority => 5), pg_temp.submit('anybody');
SELECT * FROM pg_temp.why('two 3');
SELECT admit() > 0 AS moved;
SELECT * FROM pg_temp.why('two 3');
SELECT task_id, lease FROM claim_tasks('explain-1', :'token') \gset
SELECT detail FROM pg_temp.why('two 3');
SELECT count(*) FROM claim_tasks('explain-1', :'token');
SELECT detail FROM pg_temp.why('two 3');
SELECT complete_task('explain-1', :'token', :task_id, :'lease');
SELECT reason, workers FROM pg_temp.why('two 3');
SELECT admit() > 0 AS moved;
SELECT reason, workers FROM pg_temp.why('two 3');
-- A ready one of a tenant at its limit is not about to be claimed; a blocked one waits for both.
SELECT alter_tenant('explain-two', 1);
SELECT worker_id FROM register_worker('explain-2', capabilities => '{"services": "explain"}');
SELECT reason, subject, workers FROM pg_temp.why('two 3');
SELECT reason FROM pg_temp.why('two 2');
SELECT pg_temp.submit('two blocked', after => '{two 3}', tenant => 'explain-two');
SELECT reason, subject FROM pg_temp.why('two blocked');
SELECT alter_tenant('explain-two', null);
SELECT reason, subject FROM pg_temp.why('two blocked');
-- Held without a limit: about to be admitted.
SELECT alter_tenant('explain-two', 0);
SELECT pg_temp.submit('two held', tenant => 'explain-two');
SELECT detail FROM pg_temp.why('two held');
SELECT alter_tenant('explain-two', null);
SELECT * FROM pg_temp.why('two held');
SELECT count(cancel_task(t.task_id)) FROM tasks t WHERE t.kind = 'explain' AND t.state IN ('held', 'ready', 'blocked', 'scheduled');
SELECT terminate_worker('explain-1', true), terminate_worker('explain-2');
SELECT count(cancel_task(t.task_id)) FROM tasks t WHERE t.kind = 'explain' AND t.state IN ('held', 'ready', 'blocked', 'scheduled');

-- No worker could take it: which requirement rules out how many, and how many by itself.
SELECT token AS small FROM register_worker('explain-small', capabilities =>
    '{"services": "explain", "hardware": {"gpu_memory_gb": 24, "gpu_model": "L4"}}') \gset
SELECT token AS twin FROM register_worker('explain-twin', capabilities =>
    '{"services": "explain", "hardware": {"gpu_model": "L4", "gpu_memory_gb": 24.0}}') \gset
SELECT token AS large FROM register_worker('explain-large', capabilities =>
    '{"services": ["explain", "other"], "hardware": {"gpu_memory_gb": 80, "gpu_model": "A100"}, "models": {"explain": ["m1"]}}') \gset
SELECT token AS foreign FROM register_worker('explain-other', capabilities => '{"services": "other"}') \gset
SELECT pg_temp.submit('huge', '{"hardware": {"gpu_memory_gb": 40, "gpu_model": "L4"}, "models": ["m1", "m2", "m3"]}');
SELECT * FROM pg_temp.why('huge');
SELECT pg_temp.submit('larger', '{"hardware": {"gpu_memory_gb": 81}}');
SELECT * FROM pg_temp.why('larger') WHERE reason = 'mismatch';
SELECT cancel_task(id) FROM named WHERE name = 'larger';
-- Workers match, and are idle, busy, draining, silent.
SELECT pg_temp.submit('l4', '{"hardware": {"gpu_memory_gb": 8, "gpu_model": "L4"}}');
SELECT * FROM pg_temp.why('l4');
SELECT pg_temp.submit('l4 first', '{"hardware": {"gpu_memory_gb": 8, "gpu_model": "L4"}}', priority => 1);
SELECT task_id, lease FROM claim_tasks('explain-small', :'small') \gset
SELECT reason, workers FROM pg_temp.why('l4');
SELECT drain_worker('explain-twin');
SELECT * FROM pg_temp.why('l4');
-- What those do that could not take it is of no interest.
BEGIN;
SELECT drain_worker('explain-other'), pg_temp.submit('a100', '{"hardware": {"gpu_model": "A100"}}');
SELECT count(*) FROM claim_tasks('explain-large', :'large');
SELECT reason, workers FROM pg_temp.why('l4');
ROLLBACK;
SELECT release_task('explain-small', :'small', :task_id, :'lease');
SELECT advance_clock('31 seconds') IS NOT NULL AS later;
SELECT directive FROM heartbeat('explain-twin', :'twin');
SELECT reason, workers, detail, hint FROM pg_temp.why('l4');
SELECT cancel_task(id) FROM named WHERE name = 'l4 first';

-- Pools: none of the right kind, one that says nothing, one whose last worker told, one that could, one that is full.
BEGIN;
SELECT adopt_installation();
SELECT create_pool('explain-declared', 'i', '{L4}', options => '{"capabilities": {"services": ["other"]}}');
SELECT create_pool('explain-unknown', 'i', '{L4}', 0, 1);
SELECT * FROM pg_temp.why('l4') WHERE subject LIKE 'explain-%';
SELECT alter_pool('explain-declared', '{"capabilities": {"services": ["explain"], "hardware": {"gpu_memory_gb": 24, "gpu_model": "L4"}}}');
SELECT * FROM pg_temp.why('l4') WHERE subject = 'explain-declared';
SELECT count(*) FROM spawn_worker('explain-unknown');
SELECT * FROM pg_temp.why('l4') WHERE subject = 'explain-unknown';
-- The last worker that registered tells what the pool's workers can; a terminated or external one has no place.
UPDATE gpu_orch.worker SET state = 'terminated' WHERE id LIKE 'explain-unknown-%';
UPDATE gpu_orch.worker_profile SET registered_at = clock(), capabilities = '{"services": "explain"}'
WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id LIKE 'explain-unknown-%');
SELECT * FROM pg_temp.why('l4') WHERE subject = 'explain-unknown';
SELECT worker_id FROM register_worker('explain-last', pool => 'explain-unknown', capabilities =>
    '{"services": "explain", "hardware": {"gpu_memory_gb": 24, "gpu_model": "L4"}}');
SELECT drain_worker('explain-last');
SELECT * FROM pg_temp.why('l4') WHERE subject = 'explain-unknown';
UPDATE gpu_orch.worker_profile SET capabilities = '{"services": "other"}'
WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = 'explain-last');
-- No pool could.
SELECT alter_pool('explain-declared', '{"capabilities": {"services": ["other"]}}');
SELECT pause();
SELECT reason, subject FROM pg_temp.why('l4');
-- One could, but none is created now.
SELECT alter_pool('explain-declared', '{"capabilities": null}');
SELECT * FROM pg_temp.why('l4') WHERE subject IS NULL AND workers IS NULL;
UPDATE gpu_orch.installation SET hold = true;
SELECT * FROM pg_temp.why('l4') WHERE subject IS NULL AND workers IS NULL;
UPDATE gpu_orch.installation SET hold = false;
SELECT resume();
SELECT * FROM pg_temp.why('l4') WHERE subject IS NULL AND workers IS NULL;
SELECT drop_pool('explain-unknown');
SELECT reason, subject FROM pg_temp.why('l4') WHERE subject LIKE 'explain-%';
-- A pool's own timeout counts. With an idle worker it is of no interest what the pools could.
SELECT alter_pool('explain-declared', '{"heartbeat_timeout": "10 minutes"}');
UPDATE gpu_orch.worker SET pool = (SELECT id FROM gpu_orch.pool WHERE name = 'explain-declared') WHERE id = 'explain-small';
SELECT reason, workers FROM pg_temp.why('l4');
ROLLBACK;

-- Which requirements of ready tasks rule out which active workers. The twin drains; one of small's kind stays.
\t
\a
SELECT pg_temp.submit('other ' || n, '{"hardware": {"gpu_model": "A100"}}') FROM generate_series(1, 2) n;
SELECT * FROM mismatches ORDER BY requirement;
-- Workers of one set of capabilities are counted, and matched once.
SELECT worker_id FROM register_worker('explain-small-2', capabilities =>
    '{"services": "explain", "hardware": {"gpu_memory_gb": 24, "gpu_model": "L4"}}');
SELECT * FROM mismatches ORDER BY requirement;
SELECT count(terminate_worker(worker_id)) FROM workers WHERE worker_id LIKE 'explain-%' AND state IN ('active', 'draining');
SELECT * FROM mismatches;
SELECT count(cancel_task(t.task_id)) FROM tasks t WHERE t.kind = 'explain' AND t.state = 'ready';

-- Who may ask: nobody learns that a task of another tenant is there, or how one does that his own waits for.
CREATE ROLE explain_app IN ROLE gpu_orch_submitter;
CREATE ROLE explain_two IN ROLE gpu_orch_submitter;
SELECT grant_tenant('explain-two', 'explain_two'), grant_tenant('explain-two', 'explain_app');
SELECT pg_temp.submit('secret', tenant => 'explain-two');
SET ROLE explain_app;
SELECT pg_temp.submit('open', after => '{secret}');
SELECT reason, subject, detail FROM pg_temp.why('open');
RESET ROLE;
SELECT revoke_tenant('explain-two', 'explain_app');
SET ROLE explain_app;
SELECT count(*) FROM pg_temp.why('secret');
SELECT * FROM pg_temp.why('open');
RESET ROLE;
SELECT cancel_task(id) FROM named WHERE name = 'secret';
SET ROLE explain_app;
SELECT reason, subject, detail FROM pg_temp.why('open');
SET ROLE explain_two;
SELECT reason FROM pg_temp.why('secret');
SELECT count(*) FROM unnest('{0, -1, 9223372036854775807, null}'::bigint[]) id, why_waiting(id);
CALL pg_temp.refusals($$mismatches$$, $$claim_stats$$, $$fairness$$, $$reset_claim_stats()$$, $$claim_counters()$$);
RESET ROLE;
SELECT admit() > 0 AS moved;

-- What the calls did: each is counted once, under its name, as what it was.
SELECT reset_claim_stats();
SELECT call, calls, claimed, empty, skipped, ended, repeated, fenced, p50_ms, p95_ms, p99_ms FROM claim_stats;
SELECT DISTINCT since = (SELECT max(since) FROM claim_stats) AND since BETWEEN clock() - interval '1 minute' AND clock() AS since,
       cardinality(latency) FROM claim_stats;
SELECT clock_timestamp() AS began \gset
SELECT token FROM register_worker('explain-3', capabilities => '{"services": "explain"}') \gset
CREATE TEMP TABLE mine (n serial, task_id bigint, lease uuid);
SELECT count(*) FROM claim_tasks('explain-3', :'token');
SELECT count(*) FROM claim_tasks('explain-3', :'token', 0);
SELECT pg_temp.submit('count ' || n) FROM generate_series(1, 9) n;
INSERT INTO mine (task_id, lease) SELECT task_id, lease FROM claim_tasks('explain-3', :'token', 4) ORDER BY task_id;
INSERT INTO mine (task_id, lease) SELECT task_id, lease FROM claim_tasks('explain-3', :'token');
SELECT complete_task('explain-3', :'token', task_id, lease) FROM mine WHERE n = 1;
SELECT complete_task('explain-3', :'token', task_id, lease) FROM mine WHERE n = 1;
SELECT complete_task('explain-3', :'token', task_id, gen_random_uuid()) FROM mine WHERE n = 2;
SELECT fail_task('explain-3', :'token', task_id, lease, 'x', retry => false) FROM mine WHERE n = 2;
SELECT fail_task('explain-3', :'token', task_id, gen_random_uuid(), 'x') FROM mine WHERE n = 3;
SELECT release_task('explain-3', :'token', task_id, lease) FROM mine WHERE n = 3;
SELECT release_task('explain-3', :'token', task_id, lease) FROM mine WHERE n = 3;
SELECT progress_task('explain-3', :'token', task_id, lease) FROM mine WHERE n = 4;
SELECT count(*) FROM complete_and_claim('explain-3', :'token', (SELECT task_id FROM mine WHERE n = 4), (SELECT lease FROM mine WHERE n = 4), max_tasks => 3);
SELECT count(*) FROM complete_and_claim('explain-3', :'token', (SELECT task_id FROM mine WHERE n = 4), (SELECT lease FROM mine WHERE n = 4), max_tasks => 3);
SELECT count(*) FROM complete_and_claim('explain-3', :'token', (SELECT task_id FROM mine WHERE n = 5), (SELECT lease FROM mine WHERE n = 5), max_tasks => 0);
INSERT INTO mine (task_id, lease) SELECT l.task_id, l.id FROM gpu_orch.lease l JOIN tasks t USING (task_id) WHERE t.worker = 'explain-3' ORDER BY 1;
SELECT cancel_task(task_id) FROM tasks WHERE kind = 'explain' AND state = 'ready' ORDER BY task_id;
SELECT count(*) FROM complete_and_claim('explain-3', :'token', (SELECT task_id FROM mine WHERE n = 6), (SELECT lease FROM mine WHERE n = 6), max_tasks => 3);
CREATE TEMP TABLE session AS SELECT :'token' AS token;
CALL pg_temp.refusals(
    $$session, complete_and_claim('explain-3', token, 1, gen_random_uuid())$$,
    $$claim_tasks('explain-3', 'wrong')$$,
    $$session, claim_tasks('explain-3', token, -1)$$);
SELECT call, calls, claimed, empty, skipped, ended, repeated, fenced FROM claim_stats;
SELECT call, p50_ms > 0 AND p50_ms <= p95_ms AND p95_ms <= p99_ms AS quantiles,
       calls = (SELECT sum(n) FROM unnest(latency) n) AS counted FROM claim_stats;
-- None was in less than a microsecond, and none took longer than all of them together.
SELECT sum(n) FILTER (WHERE i = 1) AS too_fast,
       max(2 ^ (i - 2)) FILTER (WHERE n > 0) > extract(epoch FROM clock_timestamp() - :'began') * 1000000 AS too_slow
FROM claim_stats, unnest(latency) WITH ORDINALITY AS u(n, i);
-- What is rolled back was done all the same.
SELECT pg_temp.submit('rolled back');
BEGIN;
SELECT count(*) FROM claim_tasks('explain-3', :'token');
ROLLBACK;
SELECT calls, claimed FROM claim_stats WHERE call = 'claim_tasks';
SELECT reset_claim_stats();
SELECT sum(calls + claimed + empty + skipped + ended + repeated + fenced) AS sum FROM claim_stats;
SELECT terminate_worker('explain-3', true);
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'explain' AND state IN ('ready', 'held');

-- Within which time a share of the calls was over: in the middle of a bucket, at its ends, in the first and the last one.
SELECT latency, fraction, latency_quantile(latency, fraction) AS ms
FROM (VALUES ('{0,0,0,4}'::bigint[]), ('{0,0,2,0,2,0}'), ('{3,0,0}'), ('{1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1}'),
      ('{0,0,0}'), ('{}')) l (latency), (VALUES (0.5), (1), (0.95)) f (fraction);
SELECT latency_quantile('{0,0,4}', null) IS NULL AS fraction, latency_quantile(null, 0.5) IS NULL AS latency;

-- Who got how much. The clock stands just after the begin of a window; ago(n) is the begin of the n-th before it.
SELECT advance_clock(date_bin('5 minutes', clock(), '2000-01-01') + interval '3 hours 5 minutes 1 second' - clock()) IS NOT NULL AS later;
CREATE TEMP TABLE base AS SELECT date_bin('5 minutes', clock(), '2000-01-01') AS at;
CREATE FUNCTION pg_temp.ago(n numeric) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT at - n * interval '5 minutes' FROM pg_temp.base $$;
SELECT * FROM tenant_service;
SELECT * FROM fairness;
SELECT create_tenant('explain-a'), create_tenant('explain-b'), create_tenant('explain-c');
UPDATE gpu_orch.tenant SET weight = 2 WHERE name = 'explain-a';
-- An attempt at a task of this tenant, submitted, claimed and ended in these windows (and so many parts of them).
CREATE FUNCTION pg_temp.ran(tenant text, submitted numeric, claimed numeric, ended numeric, attempt int DEFAULT 1, run_at numeric DEFAULT NULL,
                            parent bigint DEFAULT NULL)
RETURNS bigint LANGUAGE sql AS $$
    WITH t AS (INSERT INTO gpu_orch.task (shape, tenant, priority, max_attempts, submitted_at, run_at, kind, submitted_by, requirements, payload)
               SELECT 1, coalesce((SELECT id FROM gpu_orch.tenant n WHERE n.name = ran.tenant), 0), 0, 1, pg_temp.ago(submitted),
                      pg_temp.ago(run_at), 'explain', current_user, '{}', '{}' RETURNING id),
         d AS (INSERT INTO gpu_orch.task_dependency SELECT t.id, parent FROM t WHERE parent IS NOT NULL),
         a AS (INSERT INTO gpu_orch.attempt (task_id, attempt, lease, claimed_at, ended_at, outcome, final_state)
               SELECT t.id, ran.attempt, gen_random_uuid(), pg_temp.ago(claimed), pg_temp.ago(ended), 'succeeded', 'succeeded' FROM t)
    SELECT id FROM t $$;
CREATE TEMP VIEW service AS
SELECT (extract(epoch FROM (SELECT at FROM pg_temp.base) - window_start) / 300)::int AS ago, tenant, weight, seconds, started, p95_wait, longest_wait
FROM tenant_service;
CREATE TEMP VIEW index AS
SELECT (extract(epoch FROM (SELECT at FROM pg_temp.base) - window_start) / 300)::int AS ago, tenants, seconds, jain_index FROM fairness;
-- 11: shares as the weights, so fair. 9: the same seconds for both, which is 0.9. 7: one alone. 5 and 4: one attempt in both.
-- 13: not of the last hour.
SELECT pg_temp.ran('explain-a', 11, 11, 10.6), pg_temp.ran('explain-b', 11, 11, 10.8),
       pg_temp.ran('explain-a', 9, 8.9, 8.5), pg_temp.ran('default', 9, 8.8, 8.4),
       pg_temp.ran('explain-b', 7, 6.9, 6.5), pg_temp.ran('explain-b', 5, 4.5, 3.5), pg_temp.ran('explain-b', 13, 13, 12.5) \gset ignored_
SELECT * FROM service ORDER BY ago DESC, tenant;
SELECT * FROM index ORDER BY ago DESC;
-- Who waits gets nothing, and that counts: while it waits, and no longer than it waits for the queue alone.
SELECT pg_temp.ran('explain-c', 7.5, 5.5, 5.2) AS parent \gset
SELECT pg_temp.ran('explain-a', 3, 2.9, 2.1), pg_temp.ran('explain-c', 3, 1.5, 1.4, parent => :parent),
       pg_temp.ran('explain-c', 3, 1.5, 1.4, run_at => 1.6), pg_temp.ran('explain-c', 3, 1.5, 1.4, attempt => 2) \gset ignored_
SELECT * FROM service WHERE ago <> 11 AND ago <> 9 ORDER BY ago DESC, tenant;
SELECT ago, tenants, jain_index FROM index WHERE ago <> 11 AND ago <> 9 ORDER BY ago DESC;
-- Waits: the longest, and that of all but one in twenty.
SELECT count(pg_temp.ran('explain-a', 0.9 + n / 1000.0, 0.9, 0.8)) FROM generate_series(0, 100) n;
SELECT started, p95_wait, longest_wait FROM service WHERE ago = 1 AND tenant = 'explain-a';
-- What is ready now waits, and what runs now is served.
SELECT token FROM register_worker('explain-4', capabilities => '{"services": "explain"}') \gset
SELECT pg_temp.submit('runs now', tenant => 'explain-a'), pg_temp.submit('ready now', tenant => 'explain-b');
SELECT count(*) FROM claim_tasks('explain-4', :'token');
UPDATE gpu_orch.lease SET claimed_at = pg_temp.ago(0) WHERE task_id IN (SELECT id FROM named);
UPDATE gpu_orch.task SET submitted_at = pg_temp.ago(1) WHERE id IN (SELECT id FROM named WHERE name IN ('runs now', 'ready now'));
SELECT tenant, seconds BETWEEN 1 AND 299 AS served, started, p95_wait, longest_wait BETWEEN '5 min 1 s' AND '10 min' AS longest FROM service WHERE ago = 0 ORDER BY 1;
SELECT tenant, seconds, started, longest_wait FROM service WHERE ago = 1 AND tenant IN ('explain-b', 'explain-c') ORDER BY 1;
SELECT tenants, jain_index FROM index WHERE ago = 0;
-- Of a tenant with a limit nobody knows what the limit held back.
SELECT alter_tenant('explain-b', 1), alter_tenant('explain-a', 1);
SELECT ago, tenant, seconds > 0 AS served, started, p95_wait, longest_wait FROM service WHERE ago = 0 ORDER BY 1;

SELECT terminate_worker('explain-4', true);
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'explain' AND state IN ('ready', 'held', 'scheduled', 'blocked');
DELETE FROM gpu_orch.attempt WHERE task_id IN (SELECT id FROM gpu_orch.task WHERE shape = 1);
DELETE FROM gpu_orch.task WHERE shape = 1;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
DROP ROLE explain_app, explain_two;
