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
-- Children come back with a retry of their own, behind their parents.
SELECT retry_task(:s), retry_task(:r), retry_task(:p);
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

SELECT terminate_worker('deps');
SELECT state, count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') GROUP BY state;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
