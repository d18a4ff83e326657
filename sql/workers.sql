-- Workers: how many tasks one takes at once, two processes under one id, and taking leave.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;

-- Slots, and the leases that a worker may hold.
CALL pg_temp.refusals(
    $$register_worker('workers-x', slots => 0)$$,
    $$register_worker('workers-x', slots => 1001)$$,
    $$register_worker('workers-x', slots => -1)$$);
SELECT token FROM register_worker('workers-few', capabilities => '{"services": "workers"}') \gset few_
SELECT token FROM register_worker('workers-many', capabilities => '{"services": "workers"}', slots => 150) \gset many_
SELECT worker_id, slots FROM workers WHERE worker_id LIKE 'workers-%' ORDER BY 1;
SELECT count(*) FROM submit_tasks((SELECT jsonb_agg('{"kind": "workers"}'::jsonb) FROM generate_series(1, 600)));
SELECT count(*) FROM claim_tasks('workers-few', :'few_token', 150);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token', 150);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token');
-- What ends makes room, and an answer is never refused for want of it.
SELECT l.task_id, l.id AS lease FROM lease l JOIN worker w ON w.no = l.worker WHERE w.id = 'workers-few' ORDER BY 1 LIMIT 1 \gset
SELECT count(*) FROM complete_and_claim('workers-few', :'few_token', :task_id, :'lease', max_tasks => 5);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token');
-- What ended by a transaction, or a part of one, that is rolled back makes none.
SELECT array_agg(x.task_id) AS tasks, array_agg(x.id) AS leases FROM
    (SELECT l.task_id, l.id FROM lease l JOIN worker w ON w.no = l.worker WHERE w.id = 'workers-few' ORDER BY 1 LIMIT 50) x \gset
BEGIN;
SELECT count(*) FROM complete_tasks('workers-few', :'few_token', :'tasks', :'leases', NULL);
ROLLBACK;
SELECT count(*) FROM claim_tasks('workers-few', :'few_token');
BEGIN;
SAVEPOINT part;
SELECT count(*) FROM complete_tasks('workers-few', :'few_token', :'tasks', :'leases', NULL);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token', 40);
ROLLBACK TO part;
SELECT count(*) FROM claim_tasks('workers-few', :'few_token');
ROLLBACK;
SELECT count(*) FROM complete_tasks('workers-few', :'few_token', :'tasks', :'leases', NULL);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token', 60);
SELECT count(*) FROM claim_tasks('workers-few', :'few_token');
SELECT count(*) FROM claim_tasks('workers-many', :'many_token', 1000);
SELECT running FROM workers WHERE worker_id LIKE 'workers-%' ORDER BY worker_id;
SELECT count(*) = 0 AS within FROM workers WHERE running > greatest(2 * slots, 200);

-- Goodbye: at once, with a cause of its own, and at no cost to what was held.
SELECT goodbye('workers-few', :'few_token');
SELECT goodbye('workers-many', :'many_token');
SELECT worker_id, state, ended_because, running FROM workers WHERE worker_id LIKE 'workers-%' ORDER BY 1;
SELECT kind, rule, from_state, to_state FROM events WHERE subject = 'workers-few' ORDER BY event;
SELECT a.outcome, a.failure, a.error, count(*) FROM attempts a JOIN tasks t USING (task_id) WHERE t.kind = 'workers' GROUP BY 1, 2, 3 ORDER BY 1;
SELECT state, count(*) FROM tasks WHERE kind = 'workers' GROUP BY 1 ORDER BY 1;
SELECT max(faults) AS faults, max(losses) AS losses FROM ready_queue r JOIN task t ON t.id = r.task_id WHERE t.kind = 'workers';

-- A new session with fewer slots has no more room than these.
SELECT token AS room_token FROM register_worker('workers-room', capabilities => '{"services": "workers"}', slots => 1000) \gset
SELECT task_id, lease FROM claim_tasks('workers-room', :'room_token') \gset
SELECT release_task('workers-room', :'room_token', :task_id, :'lease');
SELECT token AS room_token FROM register_worker('workers-room', :'room_token', '{"services": "workers"}', slots => 1) \gset
SELECT count(*) FROM claim_tasks('workers-room', :'room_token', 300);
SELECT count(*) FROM claim_tasks('workers-room', :'room_token');
SELECT goodbye('workers-room', :'room_token');

-- Its session is over, its name is free.
\set VERBOSITY sqlstate
SELECT goodbye('workers-few', :'few_token');
SELECT goodbye('workers-nobody', 'x');
SELECT heartbeat('workers-few', :'few_token');
\set VERBOSITY default
SELECT token AS few_token FROM register_worker('workers-few', capabilities => '{"services": "workers"}') \gset
SELECT token AS drained FROM register_worker('workers-drained') \gset
SELECT token AS broken FROM register_worker('workers-broken') \gset
SELECT drain_worker('workers-drained'), goodbye('workers-drained', :'drained');
SELECT goodbye('workers-broken', :'broken', 'the handler cannot be run: "run" is no command here');
SELECT worker_id, state, ended_because FROM workers WHERE worker_id IN ('workers-drained', 'workers-broken') ORDER BY 1;
SELECT alert, level, subject, detail FROM alerts WHERE alert = 'worker_broken' AND cleared_at IS NULL;
CALL pg_temp.refusals(
    $$goodbye('workers-few', null)$$,
    $$goodbye('', 'x')$$,
    $$goodbye('workers-few', 'x', repeat('x', 1001))$$,
    $$goodbye('workers-few', 'x', E'a\tb')$$);

-- A session that lives may be taken over as by a container that starts again. Tasks that it held count as lost once;
-- after that it is a war, which costs them nothing, and in the end the newcomer is refused.
DO $$
DECLARE
    current text;
    n bigint;
BEGIN
    FOR i IN 1 .. 4 LOOP
        SELECT r.token INTO current FROM gpu_orch.register_worker('workers-shared', capabilities => '{"services": "workers"}') r;
        SELECT count(*) INTO n FROM gpu_orch.claim_tasks('workers-shared', current, 5);
        RAISE INFO 'registration %, % claimed', i, n;
    END LOOP;
    BEGIN
        PERFORM gpu_orch.register_worker('workers-shared');
    EXCEPTION WHEN SQLSTATE 'GO007' THEN
        RAISE INFO '%', SQLERRM;
    END;
END
$$;
SELECT a.outcome, a.error, count(*) FROM attempts a WHERE a.worker = 'workers-shared' GROUP BY 1, 2 ORDER BY 1;
SELECT max(losses) AS losses FROM (SELECT r.losses FROM ready_queue r UNION ALL SELECT l.losses FROM lease l) x;
-- Whoever has the session may register again. The other one gets in when nothing is heard of it any more, though not
-- before; and one that was refused a moment ago does not get in by waiting for a minute.
SELECT advance_clock('30 seconds') IS NOT NULL AS later;
SELECT state, running FROM workers WHERE worker_id = 'workers-shared';
SELECT token FROM register_worker('workers-shared') \gset shared_
SELECT directive FROM heartbeat('workers-shared', :'shared_token');
CALL pg_temp.refusals($$register_worker('workers-shared')$$);
SELECT advance_clock('9 seconds') IS NOT NULL AS later;
SELECT directive FROM heartbeat('workers-shared', :'shared_token');
SELECT advance_clock('9 seconds') IS NOT NULL AS later;
SELECT token FROM register_worker('workers-shared', :'shared_token') \gset shared_
CALL pg_temp.refusals($$register_worker('workers-shared')$$);
SELECT advance_clock('10 seconds') IS NOT NULL AS later;
SELECT worker_id FROM register_worker('workers-shared');

-- Processes that wait for a minute each time are found out as well.
DO $$
DECLARE
    current text;
BEGIN
    FOR i IN 1 .. 4 LOOP
        SELECT r.token INTO current FROM gpu_orch.register_worker('workers-slow') r;
        PERFORM gpu_orch.advance_clock('60 seconds');
        PERFORM gpu_orch.heartbeat('workers-slow', current);
    END LOOP;
END
$$;
CALL pg_temp.refusals($$register_worker('workers-slow')$$);

-- Progress is a share as programs have it.
SELECT token FROM register_worker('workers-few', :'few_token', '{"services": "workers"}') \gset few_
SELECT task_id, lease FROM claim_tasks('workers-few', :'few_token') \gset
SELECT progress_task('workers-few', :'few_token', :task_id, :'lease', 0.125::double precision),
       progress_task('workers-few', :'few_token', :task_id, :'lease', 0.25::real),
       progress_task('workers-few', :'few_token', :task_id, :'lease', 0.5, 'half');
SELECT progress, stage FROM task(:task_id);
PREPARE beat(text, text, text[]) AS SELECT directive FROM heartbeat(worker_id => $1, token => $2, holding => $3::uuid[]);
EXECUTE beat('workers-few', :'few_token', ARRAY[:'lease']);
DEALLOCATE beat;

-- Leave nothing behind.
SELECT count(*) FROM (SELECT terminate_worker(worker_id, true) FROM workers WHERE worker_id LIKE 'workers-%' AND state <> 'terminated') x;
SELECT count(*) > 0 AS cancelled FROM (SELECT cancel_task(task_id) FROM tasks WHERE kind = 'workers' AND state NOT IN ('succeeded', 'failed', 'cancelled')) x;
UPDATE gpu_orch.alert SET cleared_at = raised_at WHERE name = 'worker_broken';
