-- The public side of the tables. Each view is owned by the extension's owner and granted to roles; none
-- shows a token, a digest or an environment variable.

CREATE FUNCTION gpu_orch.dollars(micros bigint, "from" timestamptz, until timestamptz) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN round(micros * extract(epoch FROM until - "from") / 3600 / 1000000, 6);
COMMENT ON FUNCTION gpu_orch.dollars(bigint, timestamptz, timestamptz) IS
    'What a price in millionths of a dollar per hour comes to between two times';

-- A task stands in one place. Each place has an index that leads by task_id, so a page by task_id, of all tasks or of
-- those in one state, reads that page and no more. Two things keep the planner to that: there is no WHERE inside the
-- UNION, and the join is by an expression, so that no merge join walks through all tasks above the page.
CREATE VIEW gpu_orch.tasks AS
SELECT q.task_id, q.state, t.kind, t.priority, coalesce(n.name, 'default') AS tenant,
       ((SELECT count(*) FROM gpu_orch.attempt e WHERE e.task_id = q.task_id AND e.lease IS NOT NULL)
        + CASE q.state WHEN 'running' THEN 1 ELSE 0 END)::int AS attempts, t.max_attempts,
       wk.id AS worker,
       q.progress, q.stage, q.cancel_requested,
       a.result, a.error,
       t.payload, t.requirements,
       t.submitted_at, coalesce(q.due_at, t.run_at) AS run_at,
       coalesce(q.claimed_at, a.claimed_at) AS started_at,
       q.ended_at,
       q.deadline, t.timeout,
       (SELECT sum(gpu_orch.dollars(s.price_micros, greatest(s.started_at, x.claimed_at),
                                    least(coalesce(s.ended_at, x.ended_at), x.ended_at)))
        FROM (SELECT e.worker, e.claimed_at, e.ended_at FROM gpu_orch.attempt e WHERE e.task_id = q.task_id
              UNION ALL SELECT q.worker, q.claimed_at, gpu_orch.clock() WHERE q.state = 'running') x
        JOIN gpu_orch.spend s ON s.worker = x.worker AND s.started_at < x.ended_at
                             AND (s.ended_at IS NULL OR s.ended_at > x.claimed_at)) AS cost,
       t.idempotency_key, t.submitted_by, t.traceparent, t.tenant AS tenant_id
FROM (SELECT l.task_id, 'running' AS state, l.worker, l.claimed_at, l.deadline, l.progress, l.stage,
             EXISTS (SELECT 1 FROM gpu_orch.cancel_request c WHERE c.task_id = l.task_id) AS cancel_requested,
             NULL::timestamptz AS due_at, NULL::timestamptz AS ended_at
      FROM gpu_orch.lease l
      UNION ALL
      SELECT w.task_id, w.state::text, NULL::bigint, NULL::timestamptz, NULL::timestamptz, NULL::real, NULL::text,
             false, w.due_at, NULL::timestamptz
      FROM gpu_orch.waiting w
      UNION ALL
      SELECT r.task_id, 'ready', NULL::bigint, NULL::timestamptz, NULL::timestamptz, NULL::real, NULL::text,
             false, NULL::timestamptz, NULL::timestamptz
      FROM gpu_orch.ready_queue r
      UNION ALL
      SELECT e.task_id, e.final_state::text, NULL::bigint, NULL::timestamptz, NULL::timestamptz, NULL::real, NULL::text,
             false, NULL::timestamptz, e.ended_at
      FROM gpu_orch.attempt e) q
JOIN gpu_orch.task t ON t.id = coalesce(q.task_id, q.task_id)
LEFT JOIN gpu_orch.tenant n ON n.id = t.tenant
LEFT JOIN LATERAL (SELECT * FROM gpu_orch.attempt e WHERE e.task_id = q.task_id ORDER BY e.attempt DESC LIMIT 1) a ON true
LEFT JOIN gpu_orch.worker wk ON wk.no = coalesce(q.worker, a.worker)
WHERE q.state IS NOT NULL;
COMMENT ON VIEW gpu_orch.tasks IS
    'All tasks with their state, last attempt and cost in dollars; result, error and worker are those of the attempt that ran last';

CREATE FUNCTION gpu_orch.task_for_caller(task_id bigint) RETURNS SETOF gpu_orch.tasks
    LANGUAGE sql STABLE STRICT ROWS 1 SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT v.* FROM gpu_orch.tasks v WHERE v.task_id = task_for_caller.task_id AND gpu_orch.caller_may_use_tenant(v.tenant_id);
    END;
COMMENT ON FUNCTION gpu_orch.task_for_caller(bigint) IS 'What task() returns; for nobody to call';

CREATE FUNCTION gpu_orch.task(task_id bigint) RETURNS SETOF gpu_orch.tasks
    LANGUAGE C STABLE STRICT ROWS 1
    AS 'MODULE_PATHNAME', 'gpu_orch_task';
COMMENT ON FUNCTION gpu_orch.task(bigint) IS
    'One task as in the view tasks; no row for a task that the caller may not see';

CREATE VIEW gpu_orch.submissions AS
SELECT t.id AS task_id, t.tenant AS tenant_id, t.kind, t.priority, t.submitted_at, t.run_at, t.submitted_by, t.idempotency_key
FROM gpu_orch.task t;
COMMENT ON VIEW gpu_orch.submissions IS
    'All tasks as they were submitted, without their state: for pages of one tenant''s tasks, to be joined with tasks';

CREATE VIEW gpu_orch.attempts AS
SELECT a.task_id, a.attempt, w.id AS worker, a.claimed_at, a.ended_at, a.outcome::text AS outcome,
       a.failure::text AS failure, a.final_state::text AS final_state, a.error
FROM gpu_orch.attempt a LEFT JOIN gpu_orch.worker w ON w.no = a.worker;
COMMENT ON VIEW gpu_orch.attempts IS 'Every ended attempt of every task that is kept';

CREATE VIEW gpu_orch.workers AS
SELECT w.id AS worker_id, w.origin, p.name AS pool, w.state::text AS state, w.state_since,
       (SELECT count(*) FROM gpu_orch.lease l WHERE l.worker = w.no) AS running, w.last_heartbeat, w.busy_at, w.epoch, w.created_at,
       f.registered_at, f.pod_id, f.gpu_type, f.data_center, round(f.price_micros / 1000000.0, 6) AS price_per_hour,
       f.capabilities, f.stats, f.draining_for, f.ended_because, f.slots
FROM gpu_orch.worker w
JOIN gpu_orch.worker_profile f ON f.worker = w.no
LEFT JOIN gpu_orch.pool p ON p.id = w.pool;
COMMENT ON VIEW gpu_orch.workers IS 'All workers, with their pods and what they run; those that ended until their time is over';

CREATE VIEW gpu_orch.pools AS
SELECT p.name AS pool, p.image, p.gpu_types, p.gpu_count, p.cloud_type, p.data_centers, p.min_workers, p.max_workers,
       p.policy, p.policy_options, p.idle_timeout, p.spawn_timeout, p.drain_timeout, p.heartbeat_timeout,
       p.max_worker_age, p.idle_buffer, p.max_price_per_hour, p.budget_per_hour, p.budget_per_day,
       s.spawning, s.initializing, s.active, s.draining, s.terminating,
       (SELECT round(coalesce(sum(x.price_micros), 0) / 1000000.0, 6) FROM gpu_orch.spend x
        WHERE x.pool = p.id AND x.ended_at IS NULL) AS spend_per_hour,
       p.created_at
FROM gpu_orch.pool p,
LATERAL (SELECT count(*) FILTER (WHERE w.state = 'spawning') AS spawning,
                count(*) FILTER (WHERE w.state = 'initializing') AS initializing,
                count(*) FILTER (WHERE w.state = 'active') AS active,
                count(*) FILTER (WHERE w.state = 'draining') AS draining,
                count(*) FILTER (WHERE w.state = 'terminating') AS terminating
         FROM gpu_orch.worker w WHERE w.pool = p.id AND w.state <> 'terminated') s
WHERE p.dropped_at IS NULL;
COMMENT ON VIEW gpu_orch.pools IS 'The pools, their rules, and how many workers they have in each state';

CREATE VIEW gpu_orch.offers AS
SELECT p.name AS pool, o.ordinal, o.gpu_type, o.data_center, p.cloud_type, round(o.price_micros / 1000000.0, 6) AS price_per_hour,
       o.price_at, o.refusals, o.backoff_until, coalesce(o.backoff_until > gpu_orch.clock(), false) AS passed_over,
       round((s.no_capacity * d.rest)::numeric, 2) AS no_capacity, round((s.ready * d.rest)::numeric, 2) AS ready,
       round((s.failed * d.rest)::numeric, 2) AS failed, round((s.failed / nullif(s.ready + s.failed, 0))::numeric, 4) AS failure_share,
       make_interval(secs => s.boot_p95) AS boot_p95, s.refused_for, s.refused_at, s.refusal
FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool
LEFT JOIN gpu_orch.offer_stats s ON s.pool = o.pool AND s.gpu_type = o.gpu_type AND s.data_center = coalesce(o.data_center, '')
LEFT JOIN LATERAL (SELECT 0.5 ^ greatest(extract(epoch FROM gpu_orch.clock() - s.stats_at)::float8 / 7200, 0) AS rest) d ON true
WHERE p.dropped_at IS NULL;
COMMENT ON VIEW gpu_orch.offers IS
    'Where each pool rents, in order of preference, at what price, what is passed over for now, and what was learned of each';

CREATE VIEW gpu_orch.image_breakers AS
SELECT b.image, b.state, b.failures, b.last_cause, b.canaries, b.opened_at, b.retry_at, w.id AS canary,
       ARRAY(SELECT p.name FROM gpu_orch.pool p WHERE p.image = b.image AND p.dropped_at IS NULL ORDER BY p.id) AS pools
FROM gpu_orch.image_breaker b LEFT JOIN gpu_orch.worker w ON w.no = b.canary;
COMMENT ON VIEW gpu_orch.image_breakers IS
    'Images whose last pods failed; while the state is not closed, only one pod at a time is created of an image, from retry_at on';

CREATE FUNCTION gpu_orch.waiting_reason(state text, limited boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE state WHEN 'scheduled' THEN 'its time has not come'
                      WHEN 'blocked' THEN 'other tasks must succeed first'
                      WHEN 'held' THEN CASE WHEN limited THEN 'its tenant''s limit is reached'
                                            ELSE 'it is about to be admitted' END
                      WHEN 'ready' THEN 'no worker has claimed it yet' END;
COMMENT ON FUNCTION gpu_orch.waiting_reason(text, boolean) IS
    'Why tasks in a state wait, of a tenant with a limit or without; null for those that run';

CREATE FUNCTION gpu_orch.count_queue(OUT kind text, OUT state text, OUT tenant int, OUT tasks bigint, OUT oldest timestamptz)
    RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 100 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    BEGIN ATOMIC
        SELECT t.kind, q.state, q.tenant, sum(q.tasks)::bigint, min(t.submitted_at)
        FROM (SELECT w.shape, w.state::text AS state, w.tenant, count(*) AS tasks, min(w.task_id) AS first
              FROM gpu_orch.waiting w GROUP BY w.shape, w.state, w.tenant
              UNION ALL
              SELECT r.shape, 'ready', r.tenant, count(*), min(r.task_id)
              FROM gpu_orch.ready_queue r GROUP BY r.shape, r.tenant
              UNION ALL
              SELECT l.shape, 'running', l.tenant, count(*), min(l.task_id)
              FROM gpu_orch.lease l GROUP BY l.shape, l.tenant) q,
             -- The tasks of a shape are of one kind, and the lowest number is the oldest.
             LATERAL (SELECT k.kind, k.submitted_at FROM gpu_orch.task k WHERE k.id = q.first LIMIT 1) t
        GROUP BY t.kind, q.state, q.tenant;
    END;
COMMENT ON FUNCTION gpu_orch.count_queue() IS
    'Counts the tasks that have not ended, by kind, state and tenant''s number; reads each of their rows';

CREATE FUNCTION gpu_orch.queue_depth_exact(OUT kind text, OUT state text, OUT tenant text, OUT reason text,
                                           OUT tasks bigint, OUT oldest timestamptz, OUT as_of timestamptz)
    RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 100 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT c.kind, c.state, coalesce(n.name, 'default'),
               gpu_orch.waiting_reason(c.state, n.max_running IS NOT NULL), c.tasks, c.oldest, gpu_orch.clock()
        FROM gpu_orch.count_queue() c LEFT JOIN gpu_orch.tenant n ON n.id = c.tenant;
    END;
COMMENT ON FUNCTION gpu_orch.queue_depth_exact() IS
    'The same as the view queue_depth, counted now; takes as long as there are tasks to count';

CREATE VIEW gpu_orch.queue_depth AS
SELECT c.kind, c.state, coalesce(n.name, 'default') AS tenant,
       gpu_orch.waiting_reason(c.state, n.max_running IS NOT NULL) AS reason, c.tasks, c.oldest, k.at AS as_of
FROM gpu_orch.queue_count c
LEFT JOIN gpu_orch.tenant n ON n.id = c.tenant
LEFT JOIN gpu_orch.counted k ON k.what = 'queue';
COMMENT ON VIEW gpu_orch.queue_depth IS
    'Tasks that have not ended, by kind, state and tenant, with the reason why they wait, as the leader counted them last; as_of is when they last changed';

CREATE VIEW gpu_orch.task_queue_analysis AS
SELECT q.kind, q.state, sum(q.tasks) AS tasks, min(q.oldest) AS oldest, gpu_orch.clock() - min(q.oldest) AS oldest_age,
       max(q.as_of) AS as_of
FROM gpu_orch.queue_depth q GROUP BY q.kind, q.state;
COMMENT ON VIEW gpu_orch.task_queue_analysis IS 'Tasks that have not ended, by kind and state, with the age of the oldest';

CREATE VIEW gpu_orch.orchestrator_status AS
SELECT (SELECT count(*) FROM gpu_orch.waiting) AS waiting,
       (SELECT count(*) FROM gpu_orch.ready_queue) AS queued,
       (SELECT count(*) FROM gpu_orch.lease) AS running,
       count(*) FILTER (WHERE w.state = 'spawning') AS spawning,
       count(*) FILTER (WHERE w.state = 'initializing') AS initializing,
       count(*) FILTER (WHERE w.state = 'active') AS active,
       count(*) FILTER (WHERE w.state = 'draining') AS draining,
       count(*) FILTER (WHERE w.state = 'terminating') AS terminating,
       count(*) FILTER (WHERE w.origin = 'external') AS external,
       (SELECT round(coalesce(sum(s.price_micros), 0) / 1000000.0, 6) FROM gpu_orch.spend s WHERE s.ended_at IS NULL) AS spend_per_hour,
       (SELECT pid IS NOT NULL FROM gpu_orch.leader_status()) AS leader_runs,
       (SELECT api_ok FROM gpu_orch.leader_status()) AS provider_ok,
       gpu_orch.clock() AS as_of,
       (SELECT count(*) FROM gpu_orch.ready_queue) AS ready
FROM gpu_orch.worker w WHERE w.state <> 'terminated';
COMMENT ON VIEW gpu_orch.orchestrator_status IS 'The installation in one row';

CREATE VIEW gpu_orch.active_workers_health AS
SELECT w.id AS worker_id, p.name AS pool, w.state::text AS state,
       gpu_orch.clock() - w.last_heartbeat AS heartbeat_age,
       l.task_id, l.stage, l.progress, gpu_orch.clock() - l.claimed_at AS running_for,
       CASE WHEN w.state IN ('spawning', 'initializing') THEN 'BOOTING'
            WHEN w.state = 'terminating' THEN 'ENDING'
            WHEN w.last_heartbeat IS NULL THEN 'NO_HEARTBEAT'
            WHEN gpu_orch.clock() - w.last_heartbeat > coalesce(p.heartbeat_timeout,
                 pg_catalog.current_setting('gpu_orch.heartbeat_timeout', true)::interval, '30 s') / 2
                 THEN 'STALE_HEARTBEAT'
            WHEN l.deadline < gpu_orch.clock() THEN 'STUCK_TASK'
            ELSE 'HEALTHY' END AS health,
       f.stats
FROM gpu_orch.worker w
JOIN gpu_orch.worker_profile f ON f.worker = w.no
LEFT JOIN gpu_orch.pool p ON p.id = w.pool
LEFT JOIN LATERAL (SELECT x.task_id, x.stage, x.progress, x.claimed_at, x.deadline FROM gpu_orch.lease x WHERE x.worker = w.no ORDER BY x.claimed_at, x.task_id LIMIT 1) l ON true
WHERE w.state <> 'terminated';
COMMENT ON VIEW gpu_orch.active_workers_health IS 'Each worker that is not terminated: how it is, and the task that it has run longest';

CREATE VIEW gpu_orch.recent_task_activity AS
SELECT a.task_id, t.kind, a.attempt, a.outcome::text AS outcome, a.final_state::text AS final_state, w.id AS worker,
       a.claimed_at, a.ended_at, a.ended_at - a.claimed_at AS took, a.error
FROM (SELECT e.* FROM gpu_orch.attempt e WHERE e.ended_at > gpu_orch.clock() - interval '24 hours'
      ORDER BY e.ended_at DESC LIMIT 100) a
JOIN gpu_orch.task t ON t.id = a.task_id
LEFT JOIN gpu_orch.worker w ON w.no = a.worker
ORDER BY a.ended_at DESC;
COMMENT ON VIEW gpu_orch.recent_task_activity IS 'The last hundred attempts that ended within a day';

CREATE VIEW gpu_orch.worker_performance AS
SELECT w.id AS worker_id, sum(u.attempts)::bigint AS attempts, sum(u.succeeded)::bigint AS succeeded,
       round(100.0 * sum(u.succeeded) / sum(u.attempts), 1) AS success_percent,
       make_interval(secs => (sum(u.took) / sum(u.attempts))::float8) AS mean_time
FROM gpu_orch.usage_day u JOIN gpu_orch.worker w ON w.no = u.worker
WHERE u.day > (gpu_orch.clock() AT TIME ZONE 'UTC')::date - 7
GROUP BY w.id HAVING sum(u.attempts) > 0;
COMMENT ON VIEW gpu_orch.worker_performance IS
    'What each worker did today and on the six days before (UTC), as the leader counted last';

CREATE VIEW gpu_orch.cloud_ops AS
SELECT o.id AS op_id, o.kind, o.state::text AS state, w.id AS worker, p.name AS pool, o.pod_name, o.pod_id, o.gpu_type,
       o.data_center, round(o.price_micros / 1000000.0, 6) AS price_per_hour, o.decision, o.tries, o.due_at, o.planned_at,
       o.sent_at, o.answered_at, o.settled_at, o.http_status, o.reason, o.message, o.requested_by, o.cause
FROM gpu_orch.cloud_op o
LEFT JOIN gpu_orch.worker w ON w.no = o.worker
LEFT JOIN gpu_orch.pool p ON p.id = o.pool;
COMMENT ON VIEW gpu_orch.cloud_ops IS 'The journal of creates and deletes: announced, sent, and how each was settled';

CREATE VIEW gpu_orch.decisions AS
SELECT d.id AS decision, p.name AS pool, d.at, d.policy, d.desired, d.created, d.ended, d.bound_by, d.terms
FROM gpu_orch.decision d JOIN gpu_orch.pool p ON p.id = d.pool;
COMMENT ON VIEW gpu_orch.decisions IS
    'Scaling evaluations that asked for something or differed from the one before, with every term';

CREATE VIEW gpu_orch.events AS
SELECT e.id AS event, e.at, e.kind, e.subject, e.rule, e.from_state, e.to_state, e.actor, e.detail
FROM gpu_orch.event e;
COMMENT ON VIEW gpu_orch.events IS 'What changed in the fleet and its rules, by whom; rule is a row of worker_transition';

CREATE VIEW gpu_orch.alerts AS
SELECT a.name AS alert, r.level, a.subject, a.detail, a.raised_at, a.cleared_at, r.meaning, r.action
FROM gpu_orch.alert a JOIN gpu_orch.alert_rule r ON r.name = a.name;
COMMENT ON VIEW gpu_orch.alerts IS 'What somebody should look at: open while cleared_at is null, with what to do about it';

CREATE VIEW gpu_orch.cost_estimate AS
SELECT w.id AS worker_id, p.name AS pool, s.pod_id, round(s.price_micros / 1000000.0, 6) AS price_per_hour, s.price_from,
       s.started_at, s.ended_at,
       extract(epoch FROM coalesce(s.ended_at, gpu_orch.clock()) - s.started_at) AS seconds,
       gpu_orch.dollars(s.price_micros, s.started_at, coalesce(s.ended_at, gpu_orch.clock())) AS cost
FROM gpu_orch.spend s
LEFT JOIN gpu_orch.worker w ON w.no = s.worker
LEFT JOIN gpu_orch.pool p ON p.id = s.pool;
COMMENT ON VIEW gpu_orch.cost_estimate IS
    'What each pod has cost until now in dollars, counted from the moment its create was sent until its end was answered';

CREATE VIEW gpu_orch.billing AS
SELECT b.pod_id, p.name AS pool, b.hour, round(b.amount_micros / 1000000.0, 6) AS billed, s.counted,
       round(b.amount_micros / 1000000.0, 6) - s.counted AS difference, b.read_at
FROM gpu_orch.bill b
CROSS JOIN LATERAL (
    SELECT max(x.pool) AS pool,
           coalesce(sum(gpu_orch.dollars(x.price_micros, greatest(x.started_at, b.hour),
                                         least(coalesce(x.ended_at, gpu_orch.clock()), b.hour + interval '1 hour'))), 0) AS counted
    FROM gpu_orch.spend x
    WHERE x.pod_id = b.pod_id AND x.started_at < b.hour + interval '1 hour'
          AND coalesce(x.ended_at, gpu_orch.clock()) > b.hour) s
LEFT JOIN gpu_orch.pool p ON p.id = s.pool;
COMMENT ON VIEW gpu_orch.billing IS
    'What the provider bills for each pod and hour in dollars, and what we counted for them; kept for 90 days';

CREATE VIEW gpu_orch.foreign_pods AS
SELECT f.pod_id, f.name, f.gpu_type, f.status, round(f.price_micros / 1000000.0, 6) AS price_per_hour, f.first_seen
FROM gpu_orch.foreign_pod f;
COMMENT ON VIEW gpu_orch.foreign_pods IS
    'Pods in the provider''s account that are not of this installation, as the last list showed them; they are never touched';

CREATE VIEW gpu_orch.spend_by_pool AS
SELECT c.pool, count(DISTINCT c.pod_id) AS pods, sum(c.seconds) AS seconds, sum(c.cost) AS cost,
       sum(c.price_per_hour) FILTER (WHERE c.ended_at IS NULL) AS price_per_hour
FROM gpu_orch.cost_estimate c GROUP BY c.pool;
COMMENT ON VIEW gpu_orch.spend_by_pool IS 'What each pool has cost until now, as far back as spend is kept, how many pods that were, and what it costs per hour at present';

-- What the pods of a pool cost is split by what tenants' attempts took of it. What is left is the time in which they had
-- nothing to do, without a tenant. Attempts at the same time on one pod may take more than there is; then they share it.
CREATE FUNCTION gpu_orch.spend_of_days("from" date, until date, OUT day date, OUT pool int, OUT tenant int, OUT image text,
                                       OUT pods bigint, OUT tasks bigint, OUT seconds numeric, OUT dollars numeric)
    RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 1000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    BEGIN ATOMIC
        WITH clock AS MATERIALIZED (SELECT gpu_orch.clock() AS now),
        day AS MATERIALIZED (
            SELECT d::date AS day, d AT TIME ZONE 'UTC' AS starts, least((d + interval '1 day') AT TIME ZONE 'UTC', c.now) AS ends
            FROM clock c, generate_series(greatest("from", DATE '2000-01-01')::timestamp,
                                          least(until, (c.now AT TIME ZONE 'UTC')::date)::timestamp, interval '1 day') d),
        paid AS (
            SELECT s.worker, s.pod_id, s.pool, s.price_micros, s.started_at, greatest(c.now, s.started_at) AS ended_at
            FROM clock c, gpu_orch.spend s WHERE s.ended_at IS NULL
            UNION ALL
            SELECT s.worker, s.pod_id, s.pool, s.price_micros, s.started_at, s.ended_at
            FROM gpu_orch.spend s WHERE s.ended_at > ("from"::timestamp AT TIME ZONE 'UTC')),
        cost AS MATERIALIZED (
            SELECT d.day, coalesce(p.pool, 0) AS pool, coalesce(f.image, '') AS image,
                   count(DISTINCT coalesce(p.worker::text, p.pod_id)) AS pods,
                   sum(x.seconds) AS seconds, sum(x.seconds * p.price_micros) / 3600000000 AS dollars
            FROM paid p
            JOIN day d ON p.started_at < d.ends AND p.ended_at > d.starts
            LEFT JOIN gpu_orch.worker_profile f ON f.worker = p.worker,
            LATERAL (SELECT extract(epoch FROM least(p.ended_at, d.ends) - greatest(p.started_at, d.starts)) AS seconds) x
            GROUP BY 1, 2, 3),
        share AS MATERIALIZED (
            SELECT u.day, u.pool, u.tenant, u.image, sum(u.tasks)::bigint AS tasks, sum(u.seconds) AS seconds, sum(u.dollars) AS dollars,
                   sum(sum(u.seconds)) OVER same AS all_seconds, sum(sum(u.dollars)) OVER same AS all_dollars
            FROM (SELECT h.day, h.pool, h.tenant, h.image, h.tasks, h.seconds, h.dollars
                  FROM gpu_orch.share_day h WHERE h.day BETWEEN "from" AND until
                  UNION ALL
                  SELECT d.day, coalesce(s.pool, 0), l.tenant, coalesce(f.image, ''), 0, x.seconds, x.seconds * s.price_micros / 3600000000
                  FROM gpu_orch.lease l
                  JOIN gpu_orch.spend s ON s.worker = l.worker AND (s.ended_at IS NULL OR s.ended_at > l.claimed_at)
                  LEFT JOIN gpu_orch.worker_profile f ON f.worker = l.worker
                  JOIN day d ON l.claimed_at < d.ends AND s.started_at < d.ends,
                  LATERAL (SELECT extract(epoch FROM least(coalesce(s.ended_at, d.ends), d.ends)
                                                     - greatest(l.claimed_at, s.started_at, d.starts)) AS seconds) x
                  WHERE x.seconds > 0) u
            GROUP BY u.day, u.pool, u.tenant, u.image
            WINDOW same AS (PARTITION BY u.day, u.pool, u.image))
        SELECT c.day, c.pool, h.tenant, c.image, c.pods, h.tasks,
               h.seconds * c.seconds / nullif(greatest(h.all_seconds, c.seconds), 0),
               h.dollars * c.dollars / nullif(greatest(h.all_dollars, c.dollars), 0)
        FROM cost c JOIN share h ON h.day = c.day AND h.pool = c.pool AND h.image = c.image
        UNION ALL
        SELECT c.day, c.pool, -1, c.image, c.pods, 0, greatest(c.seconds - coalesce(h.seconds, 0), 0),
               greatest(c.dollars - coalesce(h.dollars, 0), 0)
        FROM cost c
        LEFT JOIN (SELECT x.day, x.pool, x.image, sum(x.seconds) AS seconds, sum(x.dollars) AS dollars FROM share x GROUP BY 1, 2, 3) h
            ON h.day = c.day AND h.pool = c.pool AND h.image = c.image;
    END;
COMMENT ON FUNCTION gpu_orch.spend_of_days(date, date) IS
    'What pods cost on each of these days (UTC), by pool (0: none), tenant (-1: nothing ran) and image, computed from what each pod cost and how long it ran whose tasks';

CREATE VIEW gpu_orch.spend_by_day AS
SELECT d.day, p.name AS pool, CASE WHEN d.tenant >= 0 THEN coalesce(n.name, 'default') END AS tenant,
       nullif(d.image, '') AS image, d.pods, d.tasks, round(d.seconds, 6) AS seconds, round(d.dollars, 6) AS cost
FROM (SELECT s.day, s.pool, s.tenant, s.image, s.pods, s.tasks, s.seconds, s.dollars FROM gpu_orch.spend_day s
      UNION ALL
      SELECT o.day, o.pool, o.tenant, o.image, o.pods, o.tasks, o.seconds, o.dollars
      FROM gpu_orch.spend_of_days(
          (SELECT coalesce((SELECT (k.at AT TIME ZONE 'UTC')::date FROM gpu_orch.counted k WHERE k.what = 'spend'),
                           (SELECT (min(x.started_at) AT TIME ZONE 'UTC')::date FROM gpu_orch.spend x),
                           (gpu_orch.clock() AT TIME ZONE 'UTC')::date)),
          (SELECT (gpu_orch.clock() AT TIME ZONE 'UTC')::date)) o) d
LEFT JOIN gpu_orch.pool p ON p.id = d.pool
LEFT JOIN gpu_orch.tenant n ON n.id = d.tenant;
COMMENT ON VIEW gpu_orch.spend_by_day IS
    'What the pods cost on each day (UTC), by pool, tenant and image; without a tenant: the time in which they had nothing to do. A day is written down when it has been over for a day';

CREATE VIEW gpu_orch.spend_by_tenant AS
SELECT s.tenant, sum(s.seconds) AS seconds, sum(s.cost) AS cost
FROM gpu_orch.spend_by_day s GROUP BY s.tenant;
COMMENT ON VIEW gpu_orch.spend_by_tenant IS
    'What each tenant''s tasks have cost until now, by the price of their workers'' pods; the row without a tenant is the time in which pods had nothing to do';

CREATE VIEW gpu_orch.budget_state AS
SELECT l.pool, l.per, l.hard, l.amount_micros, l.set_at, c.at, w.starts_at, w.ends_at,
       (SELECT coalesce(ceil(sum(s.price_micros * extract(epoch FROM least(s.ended_at, c.at) - greatest(s.started_at, w.starts_at))) / 3600), 0)::bigint
        FROM gpu_orch.spend s
        WHERE (l.pool IS NULL OR s.pool = l.pool) AND s.started_at < c.at AND (s.ended_at IS NULL OR s.ended_at > w.starts_at)) AS spent_micros,
       ((SELECT coalesce(sum(s.price_micros), 0) FROM gpu_orch.spend s
         WHERE (l.pool IS NULL OR s.pool = l.pool) AND s.ended_at IS NULL)
        + (SELECT coalesce(sum(o.price_micros), 0) FROM gpu_orch.cloud_op o
           WHERE (l.pool IS NULL OR o.pool = l.pool) AND o.kind = 'create' AND o.state = 'planned'
             AND o.state IN ('planned', 'sent', 'unknown')))::bigint AS rate_micros
FROM (SELECT b.pool, b.per, b.hard, b.amount_micros, b.set_at
      FROM gpu_orch.budget b LEFT JOIN gpu_orch.pool p ON p.id = b.pool WHERE p.dropped_at IS NULL
      UNION ALL
      SELECT p.id, x.per, true, (x.amount * 1000000)::bigint, p.created_at
      FROM gpu_orch.pool p, LATERAL (VALUES ('hour', p.budget_per_hour), ('day', p.budget_per_day)) AS x(per, amount)
      WHERE p.dropped_at IS NULL AND x.amount IS NOT NULL) l,
     (SELECT gpu_orch.clock() AS at) c,
     LATERAL (SELECT CASE l.per WHEN 'hour' THEN c.at ELSE date_trunc(l.per, c.at, 'UTC') END AS starts_at,
                     CASE l.per WHEN 'hour' THEN c.at + interval '1 hour'
                                ELSE (date_trunc(l.per, c.at AT TIME ZONE 'UTC') + ('1 ' || l.per)::interval) AT TIME ZONE 'UTC'
                     END AS ends_at) w;
COMMENT ON VIEW gpu_orch.budget_state IS
    'Each budget with its window, what was spent in it, and the price per hour of all that bills, may bill or is announced; an hour is the one that begins now';

CREATE VIEW gpu_orch.budgets AS
SELECT p.name AS pool, b.per, b.hard, b.amount, b.spent, b.committed, b.amount - b.spent - b.committed AS left,
       b.price_per_hour, b.starts_at, b.ends_at, b.amount - b.spent - b.committed AS remaining
FROM (SELECT s.pool, s.per, s.hard, round(s.amount_micros / 1000000.0, 6) AS amount, round(s.spent_micros / 1000000.0, 6) AS spent,
             round(s.rate_micros * extract(epoch FROM s.ends_at - s.at) / 3600 / 1000000, 6) AS committed,
             round(s.rate_micros / 1000000.0, 6) AS price_per_hour, s.starts_at, s.ends_at
      FROM gpu_orch.budget_state s) b
LEFT JOIN gpu_orch.pool p ON p.id = b.pool;
COMMENT ON VIEW gpu_orch.budgets IS
    'The budgets of pools and, without a pool, of the installation: spent in the window, committed until its end by what runs, and what remains (left is the same)';

CREATE VIEW gpu_orch.tenant_usage AS
SELECT n.name AS tenant, n.max_running,
       (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = n.id) AS running,
       (SELECT count(*) FROM gpu_orch.ready_queue r WHERE r.tenant = n.id) AS ready,
       (SELECT count(*) FROM gpu_orch.waiting w WHERE w.tenant = n.id AND w.state = 'held') AS held,
       n.id AS tenant_id
FROM (SELECT 0 AS id, 'default' AS name, NULL::int AS max_running
      UNION ALL SELECT t.id, t.name, t.max_running FROM gpu_orch.tenant t WHERE t.dropped_at IS NULL) n;
COMMENT ON VIEW gpu_orch.tenant_usage IS 'The tenants, their limits, and how many of their tasks run, are ready and are held';

CREATE VIEW gpu_orch.config AS
SELECT s.name, CASE WHEN s.name = 'gpu_orch.worker_dsn' AND s.setting <> '' THEN '(set)' ELSE s.setting END AS setting,
       s.unit, s.boot_val AS default_setting, s.source, s.short_desc AS description
FROM pg_catalog.pg_settings s WHERE s.name LIKE 'gpu\_orch.%';
COMMENT ON VIEW gpu_orch.config IS 'The settings, their defaults, and what each does; the workers'' connection string is not shown';

CREATE FUNCTION gpu_orch.explain_match_for_caller(task_id bigint, OUT worker_id text, OUT pool text, OUT matches boolean,
                                       OUT reasons text[])
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT w.id, p.name, cardinality(m.reasons) = 0, m.reasons
        FROM gpu_orch.task t
        CROSS JOIN gpu_orch.worker w
        JOIN gpu_orch.worker_profile f ON f.worker = w.no
        LEFT JOIN gpu_orch.pool p ON p.id = w.pool
        CROSS JOIN LATERAL gpu_orch.match_reasons(f.capabilities, t.requirements, t.kind) AS m(reasons)
        WHERE t.id = explain_match_for_caller.task_id AND gpu_orch.caller_may_use_tenant(t.tenant) AND w.state IN ('active', 'draining')
        ORDER BY 3 DESC, 1;
    END;
COMMENT ON FUNCTION gpu_orch.explain_match_for_caller(bigint) IS 'What explain_match() returns; for nobody to call';

CREATE FUNCTION gpu_orch.explain_match(task_id bigint, OUT worker_id text, OUT pool text, OUT matches boolean,
                                       OUT reasons text[])
    RETURNS SETOF record
    LANGUAGE C STABLE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_explain_match';
COMMENT ON FUNCTION gpu_orch.explain_match(bigint) IS
    'For each registered worker whether it could do a task, and if not, which requirement rules it out';

CREATE FUNCTION gpu_orch.status() RETURNS jsonb
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT jsonb_build_object(
            'at', gpu_orch.clock(),
            'leader', jsonb_build_object('runs', l.pid IS NOT NULL, 'pid', l.pid, 'doing', l.doing,
                'started_at', l.started_at, 'last_tick', l.last_tick, 'ticks', l.ticks,
                'memory_bytes', l.memory_bytes, 'failed_starts', l.failed_starts,
                'last_error', l.last_error, 'last_error_at', l.last_error_at),
            'provider', jsonb_build_object('ok', l.api_ok, 'error', l.api_error,
                'last_success', l.api_last_success, 'retry_at', l.api_retry_at, 'last_reconcile', l.last_reconcile),
            'installation', (SELECT jsonb_build_object('id', i.id, 'epoch', i.epoch, 'paused', i.paused,
                'hold', i.hold, 'hold_reason', i.hold_reason) FROM gpu_orch.installation i),
            'tasks', jsonb_build_object('waiting', s.waiting, 'ready', s.queued, 'running', s.running),
            'workers', jsonb_build_object('spawning', s.spawning, 'initializing', s.initializing, 'active', s.active,
                'draining', s.draining, 'terminating', s.terminating, 'external', s.external),
            'spend_per_hour', s.spend_per_hour,
            'open_ops', (SELECT count(*) FROM gpu_orch.cloud_op o WHERE o.state IN ('planned', 'sent', 'unknown')))
        FROM gpu_orch.leader_status() l, gpu_orch.orchestrator_status s;
    END;
COMMENT ON FUNCTION gpu_orch.status() IS
    'Everything at a glance: the leader, the provider, the installation, tasks, workers and money';
