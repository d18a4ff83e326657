-- Attempts: how they end, what becomes of the task, and who may end them.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;
CREATE VIEW pg_temp.history AS
SELECT t.payload ->> 'n' AS task, a.attempt, a.worker, a.outcome, a.failure, a.final_state, a.error
FROM attempts a JOIN tasks t USING (task_id) WHERE t.kind = 'attempts';
CREATE VIEW pg_temp.now AS
SELECT payload ->> 'n' AS task, state, attempts, max_attempts, worker, result, error FROM tasks WHERE kind = 'attempts';
-- What a claim returned, by the name of the task.
CREATE TEMP TABLE claimed (task text, task_id bigint, lease uuid, attempt int);
CREATE FUNCTION pg_temp.claim(worker text, token text, max_tasks int = 1) RETURNS TABLE (task text, attempt int)
LANGUAGE sql AS $$
    INSERT INTO claimed SELECT payload ->> 'n', task_id, lease, attempt FROM gpu_orch.claim_tasks(worker, token, max_tasks)
    RETURNING task, attempt;
$$;
SELECT token AS a FROM register_worker('attempts-a', capabilities => '{"services": "attempts"}') \gset
SELECT token AS b FROM register_worker('attempts-b', capabilities => '{"services": "attempts"}') \gset

-- In a session that has claimed nothing: a task that nobody holds, and task 0, which does not exist.
SELECT release_task('attempts-a', :'a', 64, gen_random_uuid()), release_task('attempts-a', :'a', 0, gen_random_uuid());
-- A statement of many calls tells its worker's row once that it is busy.
BEGIN;
SELECT advance_clock('2 seconds') IS NOT NULL AS later;
SELECT n_tup_upd AS told FROM pg_stat_xact_user_tables WHERE relid = 'gpu_orch.worker'::regclass \gset
SELECT count(release_task('attempts-a', :'a', -n, gen_random_uuid())) FROM generate_series(1, 10) n;
SELECT n_tup_upd - :told <= 1 AS once FROM pg_stat_xact_user_tables WHERE relid = 'gpu_orch.worker'::regclass;
ROLLBACK;

-- Complete: true once, true again, and the first result stays.
SELECT submit_task('attempts', '{"n": "complete"}') AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'complete' \gset
SELECT progress_task('attempts-a', :'a', :id, :'lease', 0.25, 'sampling');
SELECT state, progress, stage FROM task(:id);
SELECT progress_task('attempts-a', :'a', :id, :'lease', stage => 'decoding');
SELECT progress_task('attempts-a', :'a', :id, :'lease', 1);
SELECT state, progress, stage FROM task(:id);
-- Another worker, another lease, another task: fenced, and nothing changes.
SELECT complete_task('attempts-b', :'b', :id, :'lease'), complete_task('attempts-a', :'a', :id, gen_random_uuid()),
       complete_task('attempts-a', :'a', :id + 1, :'lease'), fail_task('attempts-b', :'b', :id, :'lease', 'x'),
       release_task('attempts-b', :'b', :id, :'lease'), progress_task('attempts-b', :'b', :id, :'lease', 0);
SELECT state, progress FROM task(:id);
SELECT complete_task('attempts-a', :'a', :id, :'lease', '{"image": 1}');
SELECT complete_task('attempts-a', :'a', :id, :'lease', '{"image": 2}');
-- It has ended, for the other ends too.
SELECT fail_task('attempts-a', :'a', :id, :'lease', 'x'), release_task('attempts-a', :'a', :id, :'lease'),
       progress_task('attempts-a', :'a', :id, :'lease', 0), complete_task('attempts-b', :'b', :id, :'lease'),
       cancel_task(:id), retry_task(:id);
SELECT * FROM pg_temp.now WHERE task = 'complete';
SELECT * FROM pg_temp.history WHERE task = 'complete';

-- Bad arguments of the ends; the attempt goes on.
SELECT submit_task('attempts', '{"n": "bad input"}') AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'bad input' \gset
CREATE TEMP TABLE token AS SELECT :'a' AS a;
CALL pg_temp.refusals(
    $$token, complete_task('attempts-a', a, null, gen_random_uuid())$$,
    $$token, complete_task('attempts-a', a, 1, null)$$,
    $$token, complete_task('attempts-a', a, 1, gen_random_uuid(), jsonb_build_object('x', repeat('x', 1100000)))$$,
    $$token, complete_task('attempts-a', a, 1, gen_random_uuid(), (repeat('[', 65) || repeat(']', 65))::jsonb)$$,
    $$token, fail_task('attempts-a', a, 1, gen_random_uuid(), 'x', 'bad luck')$$,
    $$token, fail_task('attempts-a', a, 1, gen_random_uuid(), repeat('x', 16385))$$,
    $$token, progress_task('attempts-a', a, 1, gen_random_uuid(), 1.5)$$,
    $$token, progress_task('attempts-a', a, 1, gen_random_uuid(), -0.5)$$,
    $$token, progress_task('attempts-a', a, 1, gen_random_uuid(), 'nan')$$,
    $$token, progress_task('attempts-a', a, 1, gen_random_uuid(), 0, repeat('x', 201))$$,
    $$token, complete_and_claim('attempts-a', a, 1, gen_random_uuid(), max_tasks => -1)$$,
    $$token, complete_and_claim('attempts-a', a, 1, gen_random_uuid())$$,
    $$token, heartbeat('attempts-a', a, holding => '{{null}}')$$,
    $$token, heartbeat('attempts-a', a, holding => ARRAY[null]::uuid[])$$,
    $$token, heartbeat('attempts-a', a, jsonb_build_object('x', repeat('x', 20000)))$$,
    $$cancel_task(0)$$,
    $$retry_task(0)$$);
SELECT state FROM task(:id);
-- Nulls where they mean something: no error text, no result.
SELECT fail_task('attempts-a', :'a', :id, :'lease', null, null, false);
SELECT * FROM pg_temp.history WHERE task = 'bad input';

-- Fail: tried again after a delay that doubles, until the attempts are used up.
SELECT submit_task('attempts', '{"n": "fail"}') AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'fail' AND attempt = 1 \gset
SELECT fail_task('attempts-a', :'a', :id, :'lease', 'first fault');
SELECT fail_task('attempts-a', :'a', :id, :'lease', 'first fault');
SELECT state, attempts, error, run_at - (SELECT max(ended_at) FROM attempts WHERE task_id = :id) BETWEEN '2.5 s' AND '5 s' AS soon
FROM task(:id);
SELECT * FROM pg_temp.claim('attempts-b', :'b');
SELECT advance_clock('5 seconds') IS NOT NULL AS later;
SELECT admit() > 0 AS moved;
SELECT state, attempts, error FROM task(:id);
SELECT * FROM pg_temp.claim('attempts-b', :'b');
SELECT lease FROM claimed WHERE task = 'fail' AND attempt = 2 \gset
SELECT fail_task('attempts-b', :'b', :id, :'lease', 'second fault');
SELECT state, attempts, run_at - (SELECT max(ended_at) FROM attempts WHERE task_id = :id) BETWEEN '5 s' AND '10 s' AS later FROM task(:id);
SELECT advance_clock('10 seconds') IS NOT NULL AS later;
SELECT admit() > 0 AS moved;
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'fail' AND attempt = 3 \gset
SELECT fail_task('attempts-a', :'a', :id, :'lease', 'third fault');
SELECT * FROM pg_temp.now WHERE task = 'fail';
SELECT * FROM pg_temp.history WHERE task = 'fail' ORDER BY attempt;
-- Retried, it has a new budget, and its history goes on.
SELECT retry_task(:id), retry_task(:id);
SELECT * FROM pg_temp.now WHERE task = 'fail';
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'fail' AND attempt = 4 \gset
SELECT fail_task('attempts-a', :'a', :id, :'lease', 'fourth fault');
SELECT state FROM task(:id);
SELECT advance_clock('1 minute') IS NOT NULL AS later;
SELECT admit() > 0 AS moved;
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'fail' AND attempt = 5 \gset
SELECT complete_task('attempts-a', :'a', :id, :'lease', '"at last"');
SELECT * FROM pg_temp.now WHERE task = 'fail';

-- One attempt and no more; rejected for good; no use in trying again.
SELECT count(*) FROM submit_tasks('[{"kind": "attempts", "payload": {"n": "only one"}, "max_attempts": 1},
    {"kind": "attempts", "payload": {"n": "rejected"}}, {"kind": "attempts", "payload": {"n": "hopeless"}}]');
SELECT * FROM pg_temp.claim('attempts-a', :'a', 3);
SELECT task, fail_task('attempts-a', :'a', task_id, lease, 'why: ' || task,
                       failure => CASE task WHEN 'rejected' THEN 'rejected' ELSE 'task' END, retry => task <> 'hopeless')
FROM claimed WHERE task IN ('only one', 'rejected', 'hopeless') ORDER BY task_id;
SELECT * FROM pg_temp.now WHERE task IN ('only one', 'rejected', 'hopeless') ORDER BY 1;
SELECT * FROM pg_temp.history WHERE task IN ('only one', 'rejected', 'hopeless') ORDER BY 1;

-- Given back: at once, to its place, and at no cost to its attempts.
SELECT submit_task('attempts', '{"n": "release"}', max_attempts => 1) AS id \gset
SELECT submit_task('attempts', '{"n": "behind"}') AS behind \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease FROM claimed WHERE task = 'release' AND attempt = 1 \gset
SELECT release_task('attempts-a', :'a', :id, :'lease');
SELECT release_task('attempts-a', :'a', :id, :'lease');
SELECT state FROM task(:id);
SELECT * FROM pg_temp.claim('attempts-b', :'b', 2);
-- The first holder is fenced; the second is not.
SELECT complete_task('attempts-a', :'a', :id, :'lease');
SELECT task, complete_task('attempts-b', :'b', task_id, lease) FROM claimed
WHERE task = 'release' AND attempt = 2 OR task = 'behind' ORDER BY task_id;
SELECT * FROM pg_temp.history WHERE task = 'release' ORDER BY attempt;

-- Losses of the platform are counted apart: gpu_orch.max_losses of them are too many, whatever max_attempts is.
SELECT current_setting('gpu_orch.max_losses') AS max_losses;
SELECT submit_task('attempts', '{"n": "losses"}', max_attempts => 1) AS id \gset
DO $$
DECLARE
    token text;
    task record;
BEGIN
    FOR i IN 1 .. 5 LOOP
        -- Two say so, three fall silent.
        SELECT r.token INTO token FROM gpu_orch.register_worker('attempts-lost', capabilities => '{"services": "attempts"}') r;
        SELECT * INTO STRICT task FROM gpu_orch.claim_tasks('attempts-lost', token);
        IF i <= 2 THEN
            PERFORM gpu_orch.fail_task('attempts-lost', token, task.task_id, task.lease, 'CUDA is gone', 'platform');
            PERFORM gpu_orch.advance_clock('1 hour');
            PERFORM gpu_orch.admit();
        ELSE
            PERFORM gpu_orch.terminate_worker('attempts-lost', force => true);
        END IF;
    END LOOP;
END
$$;
SELECT * FROM pg_temp.now WHERE task = 'losses';
SELECT * FROM pg_temp.history WHERE task = 'losses' ORDER BY attempt;
SELECT retry_task(:id), cancel_task(:id);

-- The task's own timeout is the deadline of an attempt.
SELECT submit_task('attempts', '{"n": "timeout"}', timeout => '10 seconds', max_attempts => 1) AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT state, deadline - started_at AS allowed FROM task(:id);
SELECT lease FROM claimed WHERE task = 'timeout' \gset
SELECT advance_clock('11 seconds') IS NOT NULL AS later;
SELECT directive FROM heartbeat('attempts-a', :'a');
SELECT health FROM active_workers_health WHERE worker_id = 'attempts-a';
-- As long as nobody has ended it, a late completion wins.
SELECT complete_task('attempts-a', :'a', :id, :'lease');

-- Complete and claim in one commit.
SELECT count(*) FROM submit_tasks('[{"kind": "attempts", "payload": {"n": "fused 1"}}, {"kind": "attempts", "payload": {"n": "fused 2"}},
    {"kind": "attempts", "payload": {"n": "fused 3"}}, {"kind": "attempts", "payload": {"n": "fused 4"}}]');
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT task_id AS id, lease FROM claimed WHERE task = 'fused 1' \gset
SELECT payload, attempt FROM complete_and_claim('attempts-a', :'a', :id, :'lease', '{"fused": true}', max_tasks => 2);
-- The answer was lost: the same call returns the same leases.
CREATE TEMP TABLE again AS SELECT * FROM complete_and_claim('attempts-a', :'a', :id, :'lease', '{"fused": true}', max_tasks => 2);
SELECT payload, a.attempt, a.lease = l.id AS same FROM again a JOIN gpu_orch.lease l USING (task_id) ORDER BY task_id;
SELECT complete_task('attempts-a', :'a', task_id, lease) FROM again WHERE payload ->> 'n' = 'fused 2';
SELECT payload FROM complete_and_claim('attempts-a', :'a', :id, :'lease', '{"fused": true}');
SELECT * FROM pg_temp.now WHERE task LIKE 'fused%' ORDER BY task;
-- Fenced it is an error, and nothing is claimed.
\set VERBOSITY sqlstate
SELECT * FROM complete_and_claim('attempts-b', :'b', :id, :'lease');
\set VERBOSITY default
SELECT running FROM workers WHERE worker_id = 'attempts-b';
-- With max_tasks 0 it completes.
SELECT count(*) FROM again a, complete_and_claim('attempts-a', :'a', a.task_id, a.lease, max_tasks => 0)
WHERE a.payload ->> 'n' = 'fused 3';
SELECT task, state FROM pg_temp.now WHERE task LIKE 'fused%' ORDER BY task;
SELECT cancel_task(task_id) FROM tasks WHERE payload ->> 'n' = 'fused 4';

-- A worker that registers again gets another token; its leases go back to their places.
SELECT submit_task('attempts', '{"n": "restart"}', max_attempts => 1) AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT lease, :'a' AS old FROM claimed WHERE task = 'restart' \gset
SELECT worker_id, token <> :'old' AS new_token, heartbeat_interval, pool, token AS a
FROM register_worker('attempts-a', :'old', '{"services": "attempts"}') \gset
SELECT :'worker_id' AS worker_id, :'new_token' AS new_token, :'heartbeat_interval' AS heartbeat_interval;
\set VERBOSITY sqlstate
SELECT complete_task('attempts-a', :'old', :id, :'lease');
SELECT directive FROM heartbeat('attempts-a', :'old');
SELECT register_worker('attempts-a', :'old');
\set VERBOSITY default
SELECT complete_task('attempts-a', :'a', :id, :'lease');
SELECT * FROM pg_temp.now WHERE task = 'restart';
SELECT epoch FROM workers WHERE worker_id = 'attempts-a';
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT * FROM pg_temp.history WHERE task = 'restart';

-- A heartbeat that names the leases it holds: others are released once they are older than one interval.
SELECT submit_task('attempts', '{"n": "unanswered"}') AS id \gset
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT directive, cancelled, messages FROM heartbeat('attempts-a', :'a', '{"gpu": 1}');
SELECT directive FROM heartbeat('attempts-a', :'a', holding => '{}');
SELECT task, state FROM pg_temp.now WHERE task IN ('restart', 'unanswered') ORDER BY 1;
SELECT advance_clock('6 seconds') IS NOT NULL AS later;
SELECT directive FROM heartbeat('attempts-a', :'a');
SELECT task, state FROM pg_temp.now WHERE task IN ('restart', 'unanswered') ORDER BY 1;
SELECT directive FROM heartbeat('attempts-a', :'a', holding => ARRAY[gen_random_uuid(),
    (SELECT lease FROM claimed WHERE task = 'restart' AND attempt = 2)]);
SELECT task, state FROM pg_temp.now WHERE task IN ('restart', 'unanswered') ORDER BY 1;
SELECT stats FROM workers WHERE worker_id = 'attempts-a';
SELECT * FROM pg_temp.history WHERE task = 'unanswered';
SELECT * FROM pg_temp.claim('attempts-b', :'b');
SELECT task, complete_task('attempts-a', :'a', task_id, lease) AS by_a, complete_task('attempts-b', :'b', task_id, lease) AS by_b
FROM claimed WHERE task IN ('restart', 'unanswered') ORDER BY task, attempt;

-- Cancel: what waits or is ready ends at once, without an attempt.
SELECT create_tenant('attempts-none', 0);
SELECT submit_task('attempts', '{"n": "c parent"}') AS parent \gset
SELECT submit_task('attempts', '{"n": "c scheduled"}', run_at => clock() + interval '1 day'),
       submit_task('attempts', '{"n": "c blocked"}', depends_on => ARRAY[:parent]),
       submit_task('attempts', '{"n": "c held"}', tenant => 'attempts-none') \gset
SELECT task, state, attempts FROM pg_temp.now WHERE task LIKE 'c %' ORDER BY 1;
SELECT payload ->> 'n' AS task, cancel_task(task_id), cancel_task(task_id) AS again FROM tasks
WHERE kind = 'attempts' AND payload ->> 'n' LIKE 'c %' ORDER BY 1;
SELECT * FROM pg_temp.now WHERE task LIKE 'c %' ORDER BY 1;
SELECT * FROM pg_temp.history WHERE task LIKE 'c %' ORDER BY 1;
SELECT bool_and(started_at IS NULL AND ended_at IS NOT NULL) AS never_started FROM tasks
WHERE kind = 'attempts' AND payload ->> 'n' LIKE 'c %';
-- Of a running one it is a request, which its worker learns.
SELECT count(*) FROM submit_tasks('[{"kind": "attempts", "payload": {"n": "r completes"}}, {"kind": "attempts", "payload": {"n": "r fails"}},
    {"kind": "attempts", "payload": {"n": "r releases"}}, {"kind": "attempts", "payload": {"n": "r is lost"}},
    {"kind": "attempts", "payload": {"n": "r goes on"}}]');
SELECT * FROM pg_temp.claim('attempts-b', :'b', 5);
SELECT bool_and(cancel_task(task_id)), bool_and(cancel_task(task_id)) AS again FROM claimed
WHERE task LIKE 'r %' AND task <> 'r goes on';
SELECT directive, (SELECT array_agg(task ORDER BY task) FROM claimed WHERE task_id = ANY (cancelled)) AS cancelled
FROM heartbeat('attempts-b', :'b');
SELECT cancelled FROM heartbeat('attempts-a', :'a');
SELECT payload ->> 'n' AS task, state, cancel_requested FROM tasks
WHERE kind = 'attempts' AND payload ->> 'n' LIKE 'r %' ORDER BY 1;
-- A completion under the live lease still wins; anything else is the end.
SELECT CASE task WHEN 'r completes' THEN complete_task('attempts-b', :'b', task_id, lease)
                 WHEN 'r fails' THEN fail_task('attempts-b', :'b', task_id, lease, 'cancelled by the user')
                 WHEN 'r releases' THEN release_task('attempts-b', :'b', task_id, lease) END AS done
FROM claimed WHERE task LIKE 'r %' ORDER BY task;
SELECT terminate_worker('attempts-b', true);
SELECT * FROM pg_temp.now WHERE task LIKE 'r %' ORDER BY 1;
SELECT * FROM pg_temp.history WHERE task LIKE 'r %' ORDER BY 1;
SELECT cancel_task(task_id), retry_task(task_id) FROM tasks WHERE payload ->> 'n' = 'r completes';
-- A cancelled task may be tried again, and the request is forgotten.
SELECT retry_task(task_id), retry_task(task_id) AS again FROM tasks WHERE payload ->> 'n' = 'r releases';
SELECT cancel_task(task_id) FROM tasks WHERE payload ->> 'n' = 'r goes on';
SELECT * FROM pg_temp.claim('attempts-a', :'a');
SELECT cancelled FROM heartbeat('attempts-a', :'a');
SELECT complete_task('attempts-a', :'a', task_id, lease) FROM claimed WHERE task = 'r releases' AND attempt > 1;
SELECT task, state, attempts FROM pg_temp.now WHERE task = 'r releases';
-- Tried again before its time, a task waits for it as before.
SELECT task_id AS id FROM tasks WHERE payload ->> 'n' = 'c scheduled' \gset
SELECT retry_task(:id), retry_task(:id) AS again;
SELECT state, run_at > clock() + interval '23 hours' AS tomorrow, run_at = (SELECT run_at FROM gpu_orch.task WHERE id = :id) AS same
FROM task(:id);
SELECT admit();
SELECT cancel_task(:id);

-- A worker that was ended may not go on, nor one that was never there.
SELECT terminate_worker('attempts-a');
\set VERBOSITY sqlstate
SELECT directive FROM heartbeat('attempts-a', :'a');
SELECT register_worker('attempts-a', :'a');
SELECT register_worker('attempts-nobody', 'a token');
\set VERBOSITY default
SELECT worker_id, state, running, ended_because FROM workers WHERE worker_id LIKE 'attempts-_' ORDER BY 1;
SELECT kind, from_state, to_state, rule FROM events WHERE subject = 'attempts-a' ORDER BY event;
-- Its name may return.
SELECT worker_id FROM register_worker('attempts-a');
SELECT state, epoch FROM workers WHERE worker_id = 'attempts-a' ORDER BY created_at;
SELECT terminate_worker('attempts-a');

SELECT state, count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') GROUP BY state;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
