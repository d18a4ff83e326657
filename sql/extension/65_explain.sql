-- Why a task waits, and how the queue does: for whoever submits, and for whoever watches. Only reads.

CREATE FUNCTION gpu_orch.shape_has_room(shape bigint, tenant int) RETURNS boolean
    LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'gpu_orch_shape_has_room';
COMMENT ON FUNCTION gpu_orch.shape_has_room(bigint, int) IS
    'Whether tasks of a shape and a tenant may become ready, by their shares of gpu_orch.max_shapes';

CREATE FUNCTION gpu_orch.why_waiting_for_caller(task_id bigint, OUT reason text, OUT subject text, OUT workers bigint,
                                     OUT detail text, OUT hint text)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        WITH t AS MATERIALIZED (
            SELECT k.id, k.kind, k.requirements, k.shape, k.tenant, v.state, v.worker, v.started_at, v.ended_at, v.error,
                   w.due_at, w.faults + w.losses > 0 AS is_retry,
                   v.state IN ('scheduled', 'blocked', 'held', 'ready') AS waits
            FROM gpu_orch.task k
            JOIN gpu_orch.tasks v ON v.task_id = k.id
            LEFT JOIN gpu_orch.waiting w ON w.task_id = k.id
            WHERE k.id = why_waiting_for_caller.task_id AND gpu_orch.caller_may_use_tenant(k.tenant)),
        -- The tasks that must succeed first. How one does that the caller may not see stays unsaid. One that was deleted
        -- counts as cancelled.
        parent AS MATERIALIZED (
            SELECT p.id, CASE WHEN p.state = 'gone' OR gpu_orch.caller_may_use_tenant(p.tenant) THEN p.state END AS state
            FROM (SELECT d.parent AS id, k.tenant,
                         coalesce((SELECT v.state FROM gpu_orch.tasks v WHERE v.task_id = k.id), 'gone') AS state
                  FROM t
                  JOIN gpu_orch.task_dependency d ON d.task_id = t.id
                  LEFT JOIN gpu_orch.task k ON k.id = d.parent
                  WHERE t.state IN ('scheduled', 'blocked')) p
            WHERE p.state <> 'succeeded'),
        -- What its tenant may run. Of one shape no more tasks are made ready than there is room.
        room AS MATERIALIZED (
            SELECT x.*, x.running + x.ahead >= x.max_running AS is_full
            FROM (SELECT n.name, n.max_running,
                         (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = n.id AND l.tenant <> 0) AS running,
                         (SELECT count(*) FROM gpu_orch.ready_queue r
                          WHERE t.state = 'held' AND r.shape = t.shape AND r.tenant = n.id) AS ahead
                  FROM t JOIN gpu_orch.tenant n ON n.id = t.tenant
                  WHERE t.waits AND n.max_running IS NOT NULL) x),
        -- What keeps it from being claimable.
        obstacle (place, rank, reason, subject, workers, detail, hint) AS MATERIALIZED (
            SELECT 1, 0::bigint, 'scheduled', NULL::text, NULL::bigint,
                   CASE WHEN t.is_retry THEN format('Its last attempt failed. The next may not start before %s.', t.due_at)
                        ELSE format('It may not start before %s.', t.due_at) END,
                   NULL::text
            FROM t WHERE t.due_at > gpu_orch.clock()
            UNION ALL
            SELECT 2, p.id, CASE WHEN p.state IN ('failed', 'cancelled', 'gone') THEN 'parent_failed' ELSE 'blocked' END,
                   p.id::text, NULL,
                   CASE WHEN p.state IS NULL THEN format('It waits for task %s of another tenant.', p.id)
                        WHEN p.state = 'failed' THEN format('It waits for task %s, which failed.', p.id)
                        WHEN p.state = 'cancelled' THEN format('It waits for task %s, which was cancelled.', p.id)
                        WHEN p.state = 'gone' THEN format('It waits for task %s, which does not exist any more.', p.id)
                        ELSE format('It waits for task %s, which is %s.', p.id, p.state) END,
                   CASE WHEN p.state IS NULL THEN NULL
                        WHEN p.state = 'gone' THEN 'The leader cancels this task.'
                        WHEN p.state IN ('failed', 'cancelled')
                        THEN format('Unless retry_task(%s) is called first, the leader cancels this task.', p.id)
                        ELSE format('why_waiting(%s) says how that task does.', p.id) END
            FROM parent p
            UNION ALL
            SELECT 3, 0, 'tenant_limit', r.name, NULL,
                   format('Tenant "%s" may run %s at once. Running: %s%s.', r.name, r.max_running, r.running,
                          CASE WHEN r.ahead > 0 THEN format('; ready before it: %s', r.ahead) END),
                   'It goes on when a task of this tenant ends, or alter_tenant() raises the limit.'
            FROM room r WHERE r.is_full
            UNION ALL
            SELECT 4, 0, 'shape_limit', NULL, NULL,
                   format('No place is left for its requirements: %s are shared by tenants and databases, and each has its share.',
                          pg_catalog.current_setting('gpu_orch.max_shapes', true)),
                   'It goes on when no task is ready any more with some other requirements of its tenant, or gpu_orch.max_shapes is raised.'
            FROM t WHERE t.state = 'held' AND NOT gpu_orch.shape_has_room(t.shape, t.tenant)),
        -- How the registered workers are that could take it. Equal capabilities are matched once.
        capset AS MATERIALIZED (
            SELECT g.*, gpu_orch.match_keys(f.capabilities, g.requirements, g.kind) AS keys,
                   gpu_orch.match_reasons(f.capabilities, g.requirements, g.kind) AS reasons
            FROM (SELECT t.requirements, t.kind, min(w.no) AS worker, count(*) AS n,
                         count(*) FILTER (WHERE h.how = 'silent') AS silent,
                         count(*) FILTER (WHERE h.how = 'draining') AS draining,
                         count(*) FILTER (WHERE h.how = 'busy') AS busy,
                         count(*) FILTER (WHERE h.how = 'idle') AS idle
                  FROM t CROSS JOIN gpu_orch.worker w
                  LEFT JOIN gpu_orch.pool p ON p.id = w.pool
                  CROSS JOIN LATERAL (SELECT CASE
                      WHEN gpu_orch.clock() - w.last_heartbeat > coalesce(p.heartbeat_timeout,
                           current_setting('gpu_orch.heartbeat_timeout', true)::interval, '30 s') THEN 'silent'
                      WHEN w.state = 'draining' THEN 'draining'
                      WHEN EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no) THEN 'busy'
                      ELSE 'idle' END AS how) h
                  WHERE t.state = 'ready' AND w.state IN ('active', 'draining')
                  GROUP BY t.requirements, t.kind, w.capset) g
            JOIN gpu_orch.worker_profile f ON f.worker = g.worker),
        fleet AS MATERIALIZED (
            SELECT coalesce(sum(c.n), 0)::bigint AS registered,
                   coalesce(sum(c.n) FILTER (WHERE c.keys = '{}'), 0)::bigint AS matching,
                   sum(c.silent) FILTER (WHERE c.keys = '{}')::bigint AS silent,
                   sum(c.draining) FILTER (WHERE c.keys = '{}')::bigint AS draining,
                   sum(c.busy) FILTER (WHERE c.keys = '{}')::bigint AS busy,
                   coalesce(sum(c.idle) FILTER (WHERE c.keys = '{}'), 0)::bigint AS idle
            FROM capset c),
        -- Whether a pool could create one. What the scaler goes by: the capabilities that the pool declares, else those
        -- of its last registered worker; a pool of which nothing is known could do everything.
        pool AS MATERIALIZED (
            SELECT p.id, p.name, p.max_workers, p.capabilities IS NOT NULL AS declared, x.known IS NOT NULL AS known,
                   CASE WHEN x.known IS NULL THEN '{}'
                        ELSE gpu_orch.match_reasons(x.known, t.requirements, t.kind) END AS reasons,
                   (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id AND w.state <> 'terminated'
                    AND w.origin = 'cloud') AS places,
                   (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id
                    AND w.state IN ('spawning', 'initializing')) AS booting
            FROM t CROSS JOIN gpu_orch.pool p
            CROSS JOIN LATERAL (SELECT coalesce(p.capabilities, (
                SELECT f.capabilities FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
                WHERE w.pool = p.id AND f.registered_at IS NOT NULL ORDER BY w.no DESC LIMIT 1)) AS known) x
            WHERE t.state = 'ready' AND p.dropped_at IS NULL AND (SELECT f.idle FROM fleet f) = 0)
        SELECT a.reason, a.subject, a.workers, a.detail, a.hint FROM (
            SELECT * FROM obstacle
            UNION ALL
            SELECT 4, 0, 'admission', NULL, NULL, 'Nothing stands against it any more: the leader is about to make it ready.',
                   CASE WHEN l.pid IS NULL THEN 'No leader runs here: see status(), or call admit().' END
            FROM t, gpu_orch.leader_status() l WHERE t.waits AND t.state <> 'ready' AND NOT EXISTS (SELECT 1 FROM obstacle)
            UNION ALL
            SELECT 5, 0, 'no_worker', NULL, 0, 'No worker is registered.', NULL
            FROM t, fleet f WHERE t.state = 'ready' AND f.registered = 0
            UNION ALL
            SELECT 5, 0, 'no_match', NULL, f.registered,
                   format('None of the %s registered workers could take it.', f.registered),
                   format('explain_match(%s) has the reasons for each.', t.id)
            FROM t, fleet f WHERE f.registered > 0 AND f.matching = 0
            UNION ALL
            SELECT 6, -sum(c.n), 'mismatch', m.key, sum(c.n),
                   format('It rules out %s of %s workers, and %s of them by itself. For example: %s.', sum(c.n), f.registered,
                          coalesce(sum(c.n) FILTER (WHERE c.others = 0), 0), min(substr(m.reason, length(m.key) + 3))),
                   NULL
            FROM fleet f, (SELECT x.*, cardinality(array_remove(x.keys, x.keys[1])) AS others FROM capset x) c,
                 LATERAL (SELECT u.key, min(u.reason) AS reason FROM unnest(c.keys, c.reasons) AS u(key, reason) GROUP BY u.key) m
            WHERE f.matching = 0 GROUP BY m.key, f.registered
            UNION ALL
            SELECT 7, 0, 'busy', NULL, f.busy, format('Matching workers that run other tasks: %s.', f.busy), NULL
            FROM fleet f WHERE f.busy > 0
            UNION ALL
            SELECT 8, 0, 'draining', NULL, f.draining,
                   format('Matching workers that are draining, and claim nothing new: %s.', f.draining), NULL
            FROM fleet f WHERE f.draining > 0
            UNION ALL
            SELECT 9, 0, 'silent', NULL, f.silent,
                   format('Matching workers that were not heard of for their heartbeat timeout: %s.', f.silent),
                   'The leader gives them up. See active_workers_health.'
            FROM fleet f WHERE f.silent > 0
            UNION ALL
            SELECT 10, 0, 'idle', NULL, f.idle,
                   format('Matching workers that are idle: %s. One of them takes it when it claims next.', f.idle),
                   'If none does, the workers'' logs say why.'
            FROM fleet f WHERE f.idle > 0 AND NOT EXISTS (SELECT 1 FROM obstacle)
            UNION ALL
            SELECT 11, p.id,
                   CASE WHEN p.reasons <> '{}' THEN 'pool_mismatch' WHEN p.places >= p.max_workers THEN 'pool_full'
                        ELSE 'pool_open' END,
                   p.name, p.booting,
                   CASE WHEN p.reasons <> '{}'
                        THEN format('The workers of pool "%s" could not, by the capabilities that %s: %s.', p.name,
                                    CASE WHEN p.declared THEN 'it declares' ELSE 'the last one had' END, p.reasons[1])
                        ELSE format('Pool "%s" %s: %s of %s places are taken, %s by pods that boot.%s', p.name,
                                    CASE WHEN p.places >= p.max_workers THEN 'could serve it and is full'
                                         ELSE 'could create a worker for it' END, p.places, p.max_workers, p.booting,
                                    CASE WHEN NOT p.known THEN ' It declares no capabilities, so it counts for every task.' END)
                        END,
                   CASE WHEN p.reasons <> '{}' THEN NULL
                        WHEN p.places >= p.max_workers THEN 'alter_pool() raises max_workers.'
                        ELSE format('explain_scaling(%L) says what is decided for it.', p.name) END
            FROM pool p
            UNION ALL
            SELECT 12, 0, 'no_pool', NULL, NULL, 'There is no pool that could create a worker.', NULL
            FROM t, fleet f WHERE t.state = 'ready' AND f.idle = 0 AND NOT EXISTS (SELECT 1 FROM pool)
            UNION ALL
            SELECT 13, 0, CASE WHEN i.hold THEN 'hold' ELSE 'paused' END, NULL, NULL,
                   CASE WHEN i.hold THEN 'No pod is created: this copy of the database is on hold.'
                        ELSE 'No pod is created: an operator paused it.' END,
                   CASE WHEN i.hold THEN 'status() says why.' ELSE 'resume() ends it.' END
            FROM gpu_orch.installation i WHERE (i.hold OR i.paused) AND EXISTS (SELECT 1 FROM pool p WHERE p.reasons = '{}')
            UNION ALL
            SELECT 14, 0, 'running', t.worker, NULL,
                   format('It does not wait: worker "%s" has run it since %s.', t.worker, t.started_at), NULL
            FROM t WHERE t.state = 'running'
            UNION ALL
            SELECT 14, 0, t.state, NULL, NULL,
                   format('It does not wait: it %s at %s%s.', CASE t.state WHEN 'cancelled' THEN 'was cancelled' ELSE t.state END,
                          t.ended_at, ': ' || left(t.error, 200)),
                   CASE WHEN t.state <> 'succeeded' THEN format('retry_task(%s) admits it again.', t.id) END
            FROM t WHERE t.state IN ('succeeded', 'failed', 'cancelled')) a (place, rank, reason, subject, workers, detail, hint)
        ORDER BY a.place, a.rank, a.subject;
    END;
COMMENT ON FUNCTION gpu_orch.why_waiting_for_caller(bigint) IS 'What why_waiting() returns; for nobody to call';

CREATE FUNCTION gpu_orch.why_waiting(task_id bigint, OUT reason text, OUT subject text, OUT workers bigint,
                                     OUT detail text, OUT hint text)
    RETURNS SETOF record
    LANGUAGE C STABLE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_why_waiting';
COMMENT ON FUNCTION gpu_orch.why_waiting(bigint) IS
    'Every reason why a task is not running; no row for a task that the caller may not see';

CREATE VIEW gpu_orch.mismatches AS
WITH RECURSIVE head AS (
    (SELECT r.shape, 1 AS n FROM gpu_orch.ready_queue r ORDER BY r.shape LIMIT 1)
    UNION ALL
    SELECT (SELECT r.shape FROM gpu_orch.ready_queue r WHERE r.shape > h.shape ORDER BY r.shape LIMIT 1), h.n + 1
    FROM head h WHERE h.shape IS NOT NULL AND h.n < 1000),
wanted AS MATERIALIZED (
    SELECT h.shape, s.kind, s.requirements,
           (SELECT count(*) FROM (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.shape = h.shape LIMIT 10000) c) AS tasks
    FROM head h, LATERAL (SELECT t.kind, t.requirements FROM gpu_orch.task t
                         WHERE t.id = (SELECT r.task_id FROM gpu_orch.ready_queue r WHERE r.shape = h.shape LIMIT 1)) s),
capset AS MATERIALIZED (
    SELECT g.capset, g.workers, f.capabilities
    FROM (SELECT w.capset, count(*) AS workers, min(w.no) AS worker FROM gpu_orch.worker w WHERE w.state = 'active'
          GROUP BY w.capset ORDER BY 2 DESC, 1 LIMIT 100) g
    JOIN gpu_orch.worker_profile f ON f.worker = g.worker),
verdict AS (
    SELECT d.shape, d.tasks, c.capset, c.workers, m.keys, bool_and(m.keys <> '{}') OVER (PARTITION BY d.shape) AS stuck
    FROM wanted d, capset c, LATERAL (SELECT gpu_orch.match_keys(c.capabilities, d.requirements, d.kind)) m (keys)),
ruled_out AS MATERIALIZED (
    SELECT DISTINCT u.requirement, v.shape, v.tasks, v.stuck, v.capset, v.workers
    FROM verdict v, unnest(v.keys) u (requirement))
SELECT s.requirement, s.shapes, s.tasks, s.stuck_tasks, w.workers
FROM (SELECT x.requirement, count(*) AS shapes, sum(x.tasks)::bigint AS tasks,
             coalesce(sum(x.tasks) FILTER (WHERE x.stuck), 0)::bigint AS stuck_tasks
      FROM (SELECT DISTINCT o.requirement, o.shape, o.tasks, o.stuck FROM ruled_out o) x GROUP BY x.requirement) s
JOIN (SELECT x.requirement, sum(x.workers)::bigint AS workers
      FROM (SELECT DISTINCT o.requirement, o.capset, o.workers FROM ruled_out o) x GROUP BY x.requirement) w
     ON w.requirement = s.requirement;
COMMENT ON VIEW gpu_orch.mismatches IS
    'Which requirements of ready tasks rule out active workers; looks at 1000 shapes, 10000 tasks of each, and the 100 most common sets of capabilities';

-- How calls did -------------------------------------------------------------------------------

CREATE FUNCTION gpu_orch.claim_counters(OUT call text, OUT claimed bigint, OUT empty bigint, OUT skipped bigint,
                                        OUT ended bigint, OUT repeated bigint, OUT fenced bigint,
                                        OUT latency bigint[], OUT since timestamptz)
    RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 5
    AS 'MODULE_PATHNAME', 'gpu_orch_claim_counters';
COMMENT ON FUNCTION gpu_orch.claim_counters() IS
    'The counters of the workers'' calls as they stand in shared memory; the view claim_stats makes sense of them';

CREATE FUNCTION gpu_orch.reset_claim_stats() RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_reset_claim_stats';
COMMENT ON FUNCTION gpu_orch.reset_claim_stats() IS 'Sets the counters of claim_stats to zero, for the whole server';

-- Bucket 1 of a histogram holds what took less than a microsecond, bucket i > 1 what took from 2^(i-2) to less than
-- 2^(i-1) microseconds, the last one everything above. Within a bucket calls are taken to be spread evenly.
CREATE FUNCTION gpu_orch.latency_quantile(latency bigint[], fraction numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT round((l.low + (l.high - l.low) * (b.total * fraction - (b.up_to - b.n)) / b.n) / 1000, 4)
        FROM (SELECT u.i, u.n, sum(u.n) OVER (ORDER BY u.i) AS up_to, sum(u.n) OVER () AS total
              FROM unnest(latency) WITH ORDINALITY AS u(n, i)) b
        CROSS JOIN LATERAL (SELECT CASE WHEN b.i = 1 THEN 0 ELSE 2::numeric ^ (b.i - 2) END AS low,
                                   2::numeric ^ (b.i - CASE WHEN b.i = cardinality(latency) THEN 2 ELSE 1 END) AS high) l
        WHERE b.n > 0 AND b.up_to >= b.total * fraction
        ORDER BY b.i LIMIT 1;
    END;
COMMENT ON FUNCTION gpu_orch.latency_quantile(bigint[], numeric) IS
    'Within how many milliseconds this share of the calls of a histogram was over; null for an empty one';

CREATE VIEW gpu_orch.claim_stats AS
SELECT c.call, n.calls, c.claimed, c.empty, c.skipped, c.ended, c.repeated, c.fenced,
       gpu_orch.latency_quantile(c.latency, 0.5) AS p50_ms, gpu_orch.latency_quantile(c.latency, 0.95) AS p95_ms,
       gpu_orch.latency_quantile(c.latency, 0.99) AS p99_ms, c.latency, c.since
FROM gpu_orch.claim_counters() c, LATERAL (SELECT sum(u.n)::bigint AS calls FROM unnest(c.latency) u (n)) n;
COMMENT ON VIEW gpu_orch.claim_stats IS
    'What the workers'' calls did since the server''s start or reset_claim_stats(), and how long they took without their commit';

CREATE FUNCTION gpu_orch.api_counters(OUT call text, OUT calls bigint, OUT failures bigint, OUT in_flight int,
                                      OUT last_success timestamptz, OUT last_failure_at timestamptz, OUT last_failure text,
                                      OUT message text, OUT shut boolean, OUT retry_at timestamptz,
                                      OUT key_fingerprint text, OUT key_since timestamptz, OUT since timestamptz)
    RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 6
    AS 'MODULE_PATHNAME', 'gpu_orch_api_counters';
COMMENT ON FUNCTION gpu_orch.api_counters() IS
    'The counters of calls to the provider as they stand in shared memory; the view api_stats makes sense of them';

CREATE VIEW gpu_orch.api_stats AS
SELECT c.call, c.calls, c.failures, c.in_flight, c.last_success, c.last_failure_at, c.last_failure, c.message,
       CASE WHEN c.retry_at > gpu_orch.clock() THEN 'waiting' WHEN c.shut THEN 'trying' ELSE 'open' END AS gate,
       CASE WHEN c.retry_at > gpu_orch.clock() THEN c.retry_at END AS retry_at,
       c.key_fingerprint, c.key_since, c.since
FROM gpu_orch.api_counters() c;
COMMENT ON VIEW gpu_orch.api_stats IS
    'How each kind of call to the provider did since the server''s start, whether such calls wait, and the fingerprint of the key that they are made with';

-- Who got how much ----------------------------------------------------------------------------

-- A tenant has a row for each window in which a task of it ran, or stood ready. When a task became ready is known of a
-- first attempt that waited for no other task and no limit; only such ones count as waits.
CREATE VIEW gpu_orch.tenant_service AS
WITH time AS MATERIALIZED (
    SELECT c.now, date_bin('5 minutes', c.now, '2000-01-01') - interval '55 minutes' AS first
    FROM (SELECT gpu_orch.clock() AS now) c),
ready AS MATERIALIZED (
    SELECT r.tenant, min(r.task_id) AS task_id FROM gpu_orch.ready_queue r WHERE r.attempt = 1 GROUP BY r.tenant),
run AS MATERIALIZED (
    SELECT k.tenant, x.claimed_at, x.ended_at, coalesce(n.weight, 1) AS weight, coalesce(n.name, 'default') AS name,
           CASE WHEN x.attempt = 1 AND n.max_running IS NULL
                     AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d WHERE d.task_id = k.id)
                THEN greatest(k.submitted_at, k.run_at) END AS ready_at
    FROM (SELECT a.task_id, a.attempt, a.claimed_at, a.ended_at FROM gpu_orch.attempt a, time
          WHERE a.ended_at > time.first AND a.claimed_at IS NOT NULL
          UNION ALL SELECT l.task_id, l.attempt, l.claimed_at, NULL FROM gpu_orch.lease l
          UNION ALL SELECT r.task_id, 1, NULL, NULL FROM ready r) x
    CROSS JOIN LATERAL (SELECT t.* FROM gpu_orch.task t WHERE t.id = x.task_id LIMIT 1) k
    LEFT JOIN gpu_orch.tenant n ON n.id = k.tenant),
part AS (
    SELECT r.*, s.window_start, least(s.window_start + interval '5 minutes', time.now) AS window_end, time.now
    FROM run r, time,
         LATERAL generate_series(
             date_bin('5 minutes', greatest(coalesce(r.ready_at, r.claimed_at), time.first), '2000-01-01'),
             coalesce(r.ended_at, time.now), '5 minutes') AS s (window_start)
    WHERE coalesce(r.ready_at, r.claimed_at) IS NOT NULL)
SELECT p.window_start, p.name AS tenant, p.weight,
       round(coalesce(sum(extract(epoch FROM least(coalesce(p.ended_at, p.now), p.window_end)
                                             - greatest(p.claimed_at, p.window_start)))
                      FILTER (WHERE p.claimed_at < p.window_end), 0), 3) AS seconds,
       count(*) FILTER (WHERE p.claimed_at >= p.window_start AND p.claimed_at < p.window_end) AS started,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY p.claimed_at - p.ready_at)
           FILTER (WHERE p.claimed_at >= p.window_start AND p.claimed_at < p.window_end) AS p95_wait,
       max(least(p.claimed_at, p.window_end) - p.ready_at)
           FILTER (WHERE p.claimed_at IS NULL OR p.claimed_at >= p.window_start) AS longest_wait
FROM part p
GROUP BY p.window_start, p.tenant, p.name, p.weight;
COMMENT ON VIEW gpu_orch.tenant_service IS
    'What each tenant got in each window of five minutes of the last hour: seconds of running tasks, and how long its tasks stood ready';

-- R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
-- Computer Systems. DEC Research Report TR-301, 1984. For n shares x: (sum x)^2 / (n * sum x^2), from 1/n, where one has
-- everything, to 1, where all have the same.
CREATE VIEW gpu_orch.fairness AS
SELECT s.window_start, count(*) AS tenants, sum(s.seconds) AS seconds,
       round(sum(s.seconds / s.weight) ^ 2 / nullif(count(*) * sum((s.seconds / s.weight) ^ 2), 0), 4) AS jain_index
FROM gpu_orch.tenant_service s GROUP BY s.window_start;
COMMENT ON VIEW gpu_orch.fairness IS
    'Jain''s index of the tenants'' seconds divided by their weights, for each window of five minutes of the last hour; 1 is fair';
