-- Dependencies: a task waits for its parents, and does not outlive their failure.
SET search_path = gpu_orch, pg_catalog;
SELECT token FROM register_worker('deps', capabilities => '{"services": "deps"}') \gset
CREATE VIEW pg_temp.now AS SELECT payload ->> 'n' AS task, state, attempts FROM tasks WHERE kind = 'deps';
-- Claim one task and complete or fail it.
CREATE FUNCTION pg_temp.work(token text, succeed boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    task gpu_orch.claimed_task;
BEGIN
    SELECT * INTO task FROM gpu_orch.claim_tasks('deps', token);
    IF succeed THEN
        PERFORM gpu_orch.complete_task('deps', token, task.task_id, task.lease);
    ELSE
        PERFORM gpu_orch.fail_task('deps', token, task.task_id, task.lease, 'no luck', retry => false);
    END IF;
    RETURN task.payload ->> 'n';
END
$$;

-- A diamond: d waits for b and c, which wait for a.
SELECT submit_task('deps', '{"n": "a"}') AS a \gset
SELECT submit_task('deps', '{"n": "b"}', depends_on => ARRAY[:a]) AS b \gset
SELECT submit_task('deps', '{"n": "c"}', depends_on => ARRAY[:a]) AS c \gset
SELECT submit_task('deps', '{"n": "d"}', priority => 10, depends_on => ARRAY[:b, :c]) AS d \gset
SELECT admit();
SELECT task, state FROM pg_temp.now ORDER BY task;
SELECT pg_temp.work(:'token', true);
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now ORDER BY task;
SELECT pg_temp.work(:'token', true);
SELECT admit();
SELECT task, state FROM pg_temp.now ORDER BY task;
SELECT pg_temp.work(:'token', true);
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now ORDER BY task;
SELECT pg_temp.work(:'token', true);
-- Parents that have succeeded keep nobody waiting, nor does the time of one that has none to wait for.
SELECT submit_task('deps', '{"n": "e"}', depends_on => ARRAY[:a, :d]) AS e \gset
SELECT submit_task('deps', '{"n": "f"}', depends_on => ARRAY[:a], run_at => clock() + interval '1 minute') AS f \gset
SELECT task, state FROM pg_temp.now WHERE task IN ('e', 'f') ORDER BY task;
SELECT advance_clock('1 minute') IS NOT NULL AS a_minute_later;
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now WHERE task IN ('e', 'f') ORDER BY task;
SELECT pg_temp.work(:'token', true), pg_temp.work(:'token', true);

-- A retry of the parent is no failure: its children go on waiting.
SELECT submit_task('deps', '{"n": "g"}', max_attempts => 2) AS g \gset
SELECT submit_task('deps', '{"n": "h"}', depends_on => ARRAY[:g]) AS h \gset
SELECT task_id, lease FROM claim_tasks('deps', :'token') \gset
SELECT admit();
SELECT fail_task('deps', :'token', :task_id, :'lease', 'once');
SELECT task, state FROM pg_temp.now WHERE task IN ('g', 'h') ORDER BY task;
SELECT advance_clock('1 minute') IS NOT NULL AS a_minute_later;
SELECT admit() > 0 AS moved;
SELECT pg_temp.work(:'token', true);
SELECT admit() > 0 AS moved;
SELECT task, state, attempts FROM pg_temp.now WHERE task IN ('g', 'h') ORDER BY task;
SELECT pg_temp.work(:'token', true);

-- A failure cancels what depends on it, and what depends on that, each with the reason.
SELECT submit_task('deps', '{"n": "p"}') AS p \gset
SELECT submit_task('deps', '{"n": "q"}') AS q \gset
SELECT submit_task('deps', '{"n": "r"}', depends_on => ARRAY[:p, :q]) AS r \gset
SELECT submit_task('deps', '{"n": "s"}', depends_on => ARRAY[:r]) AS s \gset
SELECT submit_task('deps', '{"n": "t"}', depends_on => ARRAY[:q]) AS t \gset
SELECT submit_task('deps', '{"n": "u"}', depends_on => ARRAY[:s], run_at => clock() + interval '1 minute') AS u \gset
SELECT pg_temp.work(:'token', false);
SELECT admit() > 0 AS moved;
SELECT task, state, attempts FROM pg_temp.now WHERE task BETWEEN 'p' AND 'u' ORDER BY task;
SELECT (SELECT error FROM task(:r)) = format('task %s, which it depends on, did not succeed', :p) AS r,
       (SELECT error FROM task(:s)) = format('task %s, which it depends on, did not succeed', :r) AS s;
-- One that was submitted too late, and one whose time comes too late, fare no better.
SELECT submit_task('deps', '{"n": "v"}', depends_on => ARRAY[:r]) AS v \gset
SELECT state FROM task(:v);
SELECT advance_clock('1 minute') IS NOT NULL AS a_minute_later;
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now WHERE task IN ('u', 'v') ORDER BY task;
-- Children come back with a retry of their own, behind their parents and not before them.
CREATE FUNCTION pg_temp.refusal(task bigint, OUT code text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM gpu_orch.retry_task(task);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END
$$;
SELECT code, detail = format('It depends on task %s, which did not succeed.', :r) AS detail,
       hint = format('Call retry_task(%s) first.', :r) AS hint FROM pg_temp.refusal(:s);
SELECT state FROM task(:s);
SELECT retry_task(:p), retry_task(:r), retry_task(:s);
SELECT admit();
SELECT task, state FROM pg_temp.now WHERE task BETWEEN 'p' AND 't' ORDER BY task;
SELECT pg_temp.work(:'token', true), pg_temp.work(:'token', true);
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now WHERE task BETWEEN 'p' AND 't' ORDER BY task;
SELECT pg_temp.work(:'token', true), pg_temp.work(:'token', true);
SELECT admit() > 0 AS moved;
SELECT pg_temp.work(:'token', true);
SELECT task, state, attempts FROM pg_temp.now WHERE task BETWEEN 'p' AND 't' ORDER BY task;

-- So does a cancelled parent; one that is asked to stop is none yet.
SELECT submit_task('deps', '{"n": "w"}') AS w \gset
SELECT submit_task('deps', '{"n": "x"}', depends_on => ARRAY[:w]) AS x \gset
SELECT task_id, lease FROM claim_tasks('deps', :'token') \gset
SELECT cancel_task(:w);
SELECT admit();
SELECT release_task('deps', :'token', :task_id, :'lease');
SELECT admit() > 0 AS moved;
SELECT task, state FROM pg_temp.now WHERE task IN ('w', 'x') ORDER BY task;
-- More of them than one look takes.
SELECT submit_task('deps', '{"n": "y"}') AS y \gset
SELECT count(*) FROM submit_tasks((SELECT jsonb_agg(jsonb_build_object('kind', 'deps', 'payload', '{"n": "z"}'::jsonb,
    'depends_on', jsonb_build_array(:y))) FROM generate_series(1, 2500)));
SELECT cancel_task(:y);
SELECT admit() > 0 AS moved;
SELECT state, count(*) FROM pg_temp.now WHERE task = 'z' GROUP BY state;

-- A parent that somebody deleted does not keep its children waiting; until then it is said so.
SELECT submit_task('deps', '{"n": "lost"}') AS lost \gset
SELECT submit_task('deps', '{"n": "left"}', depends_on => ARRAY[:lost]) AS "left" \gset
SELECT admit();
DELETE FROM gpu_orch.ready_queue WHERE task_id = :lost;
DELETE FROM gpu_orch.task WHERE id = :lost;
SELECT reason, subject = :'lost' AS subject, detail = format('It waits for task %s, which does not exist any more.', :lost) AS detail,
       hint FROM why_waiting(:left);
SELECT admit() > 0 AS moved;
SELECT state, error = format('task %s, which it depends on, does not exist any more', :lost) AS error FROM task(:left);
SELECT code, detail = format('It depends on task %s, which does not exist any more.', :lost) AS detail, hint
FROM pg_temp.refusal(:left);

-- What is released costs what it is, however many tasks are blocked beside it.
SELECT submit_task('deps', '{"n": "gate"}', run_at => clock() + interval '1 hour') AS gate \gset
SELECT count(*) FROM submit_tasks((SELECT jsonb_agg(jsonb_build_object('kind', 'deps', 'payload', '{"n": "many"}'::jsonb,
    'depends_on', jsonb_build_array(:gate))) FROM generate_series(1, 2000)));
SELECT submit_task('deps', '{"n": "quick"}', priority => 1) AS quick \gset
SELECT submit_task('deps', '{"n": "due"}', priority => 1, depends_on => ARRAY[:quick], run_at => clock() + interval '1 minute') AS due \gset
SELECT submit_task('deps', '{"n": "bad"}') AS bad \gset
SELECT submit_task('deps', '{"n": "doomed"}', depends_on => ARRAY[:bad]) AS doomed \gset
SELECT admit();
SELECT pg_temp.work(:'token', true);
SELECT advance_clock('1 minute') IS NOT NULL AS a_minute_later;
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT cancel_task(:bad);
SELECT admit() > 0 AS moved;
SELECT sum(seq_tup_read + idx_tup_fetch) < 1000 AS few_rows_read,
       sum(n_tup_ins + n_tup_upd + n_tup_del) < 20 AS few_rows_written
FROM pg_stat_xact_all_tables WHERE schemaname = 'gpu_orch';
COMMIT;
SELECT task, state FROM pg_temp.now WHERE task IN ('due', 'doomed') ORDER BY 1;
SELECT pg_temp.work(:'token', true);
SELECT cancel_task(:gate);
SELECT admit() > 0 AS moved;
SELECT state, count(*) FROM pg_temp.now WHERE task = 'many' GROUP BY state;
CREATE TEMP TABLE many AS SELECT id FROM gpu_orch.task WHERE payload ->> 'n' IN ('many', 'z');
DELETE FROM gpu_orch.attempt WHERE task_id IN (SELECT id FROM many);
DELETE FROM gpu_orch.task_dependency WHERE task_id IN (SELECT id FROM many);
DELETE FROM gpu_orch.task WHERE id IN (SELECT id FROM many);

SELECT terminate_worker('deps');
SELECT state, count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') GROUP BY state;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
