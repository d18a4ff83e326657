-- What must always be true, as queries. Each row that a query finds is a violation.
--
-- What lives is looked at as a whole: open tasks, leases, workers, open ops. Of what is over, as much as two windows
-- show: the newest rows, and others that change with each minute, so that calls look at everything in the course of time.

CREATE FUNCTION gpu_orch.check_window(first bigint, last bigint, size bigint, complete boolean, OUT low bigint, OUT high bigint)
    RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT first, last WHERE complete OR last - first < size
        UNION
        -- The others end before the newest: what is in both would be counted twice.
        SELECT x.low, least(x.low + size - 1, x.high)
        FROM (VALUES (last - size + 1, last),
                     (first + size * ((extract(epoch FROM gpu_orch.clock())::bigint / 60) % greatest((last - first) / size, 1)), last - size)) x(low, high)
        WHERE NOT complete AND last - first >= size;
    END;
COMMENT ON FUNCTION gpu_orch.check_window(bigint, bigint, bigint, boolean) IS
    'Which numbers of those from first to last are looked at now: so many of the newest, and so many others; or all';

CREATE FUNCTION gpu_orch.check_invariants(full boolean DEFAULT false, OUT name text, OUT holds boolean, OUT detail text)
    RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off
    BEGIN ATOMIC
        WITH RECURSIVE task_window AS MATERIALIZED (
            SELECT w.low, w.high FROM (SELECT min(t.id) AS first, max(t.id) AS last FROM gpu_orch.task t) r,
                 LATERAL gpu_orch.check_window(r.first, r.last, 20000, check_invariants.full) w),
        open AS MATERIALIZED (
            SELECT l.task_id, l.attempt, l.faults FROM gpu_orch.lease l
            UNION ALL SELECT r.task_id, r.attempt, r.faults FROM gpu_orch.ready_queue r
            UNION ALL SELECT w.task_id, w.attempt, w.faults FROM gpu_orch.waiting w),
        -- Of open tasks those whose history is looked at: it is short, or in the window.
        tried AS MATERIALIZED (
            SELECT o.task_id, o.attempt FROM open o
            WHERE o.attempt > 1 OR EXISTS (SELECT 1 FROM task_window v WHERE o.task_id BETWEEN v.low AND v.high)),
        worker AS MATERIALIZED (
            SELECT w.* FROM gpu_orch.worker w WHERE w.no IN (
                SELECT x.no FROM gpu_orch.worker x WHERE x.state <> 'terminated'
                UNION
                SELECT x.no FROM (SELECT min(y.no) AS first, max(y.no) AS last FROM gpu_orch.worker y) r,
                     LATERAL gpu_orch.check_window(r.first, r.last, 2000, check_invariants.full) v,
                     LATERAL (SELECT y.no FROM gpu_orch.worker y WHERE y.no BETWEEN v.low AND v.high) x)),
        op AS MATERIALIZED (
            SELECT o.* FROM gpu_orch.cloud_op o WHERE o.id IN (
                SELECT x.id FROM gpu_orch.cloud_op x WHERE x.state IN ('planned', 'sent', 'unknown')
                UNION
                SELECT x.id FROM worker w JOIN gpu_orch.cloud_op x ON x.worker = w.no WHERE w.state <> 'terminated'
                UNION
                SELECT x.id FROM (SELECT min(y.id) AS first, max(y.id) AS last FROM gpu_orch.cloud_op y) r,
                     LATERAL gpu_orch.check_window(r.first, r.last, 4000, check_invariants.full) v,
                     LATERAL (SELECT y.id FROM gpu_orch.cloud_op y WHERE y.id BETWEEN v.low AND v.high) x)),
        head AS (
            (SELECT r.shape, 1 AS n FROM gpu_orch.ready_queue r ORDER BY r.shape LIMIT 1)
            UNION ALL
            SELECT (SELECT r.shape FROM gpu_orch.ready_queue r WHERE r.shape > h.shape ORDER BY r.shape LIMIT 1), h.n + 1
            FROM head h WHERE h.shape IS NOT NULL AND h.n < 1000),
        violation(name, what) AS (
            SELECT 'I1: a pod belongs to one worker', 'pod ' || f.pod_id
            FROM worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NOT NULL
            GROUP BY f.pod_id HAVING count(*) > 1
            UNION ALL
            SELECT 'I1: a pod belongs to one worker', 'worker ' || w.id
            FROM worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.bound_pod_id <> f.pod_id
            UNION ALL
            SELECT 'I1: each create has its worker, and both one pod', 'op ' || o.id
            FROM op o LEFT JOIN gpu_orch.worker w ON w.no = o.worker
            LEFT JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE o.kind = 'create'
              AND (o.state IN ('planned', 'sent', 'unknown') AND (w.no IS NULL OR w.state = 'terminated')
                   OR o.state = 'done' AND (w.no IS NULL OR w.state <> 'terminated' AND o.pod_id IS DISTINCT FROM f.pod_id))
            UNION ALL
            SELECT 'I2: each live cloud worker has a pod or an open op', 'worker ' || w.id
            FROM worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NULL
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no
                              AND o.state IN ('planned', 'sent', 'unknown'))
            UNION ALL
            SELECT 'I3: a task stands in one place', 'task ' || o.task_id || ' stands in ' || count(*)
            FROM open o GROUP BY o.task_id HAVING count(*) > 1
            UNION ALL
            SELECT 'I3: a task stands in one place', 'task ' || t.id || ' stands in 0'
            FROM task_window v JOIN gpu_orch.task t ON t.id BETWEEN v.low AND v.high
            WHERE NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.task_id = t.id)
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.waiting w WHERE w.task_id = t.id)
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.task_id = t.id)
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.attempt a WHERE a.task_id = t.id AND a.final_state IS NOT NULL)
            UNION ALL
            SELECT 'I3: a task stands in one place', 'task ' || o.task_id || ' stands in 1 and has ended'
            FROM tried o
            WHERE EXISTS (SELECT 1 FROM gpu_orch.attempt a WHERE a.task_id = o.task_id AND a.final_state IS NOT NULL)
            UNION ALL
            SELECT 'I3: a lease belongs to a worker that lives', 'task ' || l.task_id
            FROM gpu_orch.lease l JOIN gpu_orch.worker w ON w.no = l.worker
            WHERE w.state NOT IN ('active', 'draining')
            UNION ALL
            SELECT 'I4: attempts never pass the limit', 'task ' || q.task_id
            FROM open q JOIN gpu_orch.task t ON t.id = q.task_id WHERE q.faults > 0 AND q.faults >= t.max_attempts
            UNION ALL
            SELECT x.name, 'task ' || a.task_id
            FROM (SELECT a.task_id, count(*) FILTER (WHERE a.outcome = 'succeeded') > 1 AS twice,
                         max(a.attempt) <> count(*) OR min(a.attempt) <> 1 AS gap,
                         count(*) FILTER (WHERE a.outcome IN ('failed', 'timeout', 'lost')
                                                AND a.failure IS NULL AND a.error IS NULL) > 0 AS unexplained
                  FROM task_window v JOIN gpu_orch.attempt a ON a.task_id BETWEEN v.low AND v.high
                  GROUP BY a.task_id) a,
                 LATERAL (VALUES ('I4: a task succeeds once', a.twice), ('I4: attempts are numbered without a gap', a.gap),
                                 ('I4: each end has its reason', a.unexplained)) x(name, broken)
            WHERE (a.twice OR a.gap OR a.unexplained) AND x.broken
            UNION ALL
            SELECT 'I4: attempts are numbered without a gap', 'task ' || q.task_id
            FROM tried q
            WHERE q.attempt <> 1 + (SELECT count(*) FROM gpu_orch.attempt a WHERE a.task_id = q.task_id)
            UNION ALL
            SELECT 'I5: what may bill is counted', 'worker ' || w.id
            FROM worker w
            WHERE w.origin = 'cloud' AND w.state IN ('initializing', 'active', 'draining', 'terminating')
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.worker = w.no AND s.ended_at IS NULL)
              AND EXISTS (SELECT 1 FROM gpu_orch.worker_profile f WHERE f.worker = w.no AND f.pod_id IS NOT NULL)
            UNION ALL
            SELECT 'I5: nothing is counted that cannot bill', 'worker ' || w.id
            FROM gpu_orch.spend s JOIN gpu_orch.worker w ON w.no = s.worker
            WHERE s.ended_at IS NULL AND w.state = 'terminated'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'delete'
                              AND o.state IN ('planned', 'sent', 'unknown'))
            UNION ALL
            SELECT 'I5: what may bill is counted', 'pod ' || o.pod_id
            FROM op o
            WHERE o.kind = 'delete' AND o.worker IS NULL AND o.state IN ('planned', 'sent', 'unknown')
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.pod_id = o.pod_id AND s.ended_at IS NULL)
            UNION ALL
            -- A budget that was lowered, or a window that began, under a running fleet is no fault of a create.
            SELECT 'I6: no create breaks a hard budget', coalesce('pool ' || p.name, 'installation') || ' per ' || b.per
            FROM gpu_orch.budget_state b LEFT JOIN gpu_orch.pool p ON p.id = b.pool
            WHERE b.hard
              AND b.spent_micros + b.rate_micros * extract(epoch FROM b.ends_at - b.at) / 3600 > b.amount_micros + 10
              AND EXISTS (SELECT 1 FROM gpu_orch.cloud_op o
                          WHERE o.kind = 'create' AND (b.pool IS NULL OR o.pool = b.pool)
                            AND o.state NOT IN ('refused', 'absent') AND o.planned_at >= b.set_at
                            AND (b.per = 'hour' OR o.planned_at >= b.starts_at)
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.kind = 'pool_altered'
                                            AND e.subject = p.name AND e.at >= o.planned_at))
            UNION ALL
            SELECT 'I6: each intent counts at a price', 'op ' || o.id
            FROM op o
            WHERE o.kind = 'create' AND o.state IN ('planned', 'sent', 'unknown') AND o.price_micros IS NULL
            UNION ALL
            SELECT 'I6: no create passes max_workers', 'pool ' || p.name
            FROM gpu_orch.pool p
            WHERE p.dropped_at IS NULL
              AND p.max_workers < (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id AND w.origin = 'cloud'
                                   AND w.state <> 'terminated')
              AND EXISTS (SELECT 1 FROM gpu_orch.cloud_op o
                          WHERE o.kind = 'create' AND o.pool = p.id AND o.state NOT IN ('refused', 'absent')
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.kind = 'pool_altered'
                                            AND e.subject = p.name AND e.at >= o.planned_at))
            UNION ALL
            SELECT 'I7: no delete is forgotten', 'worker ' || w.id
            FROM worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state = 'terminated' AND f.pod_id IS NOT NULL
              AND f.ended_because IS DISTINCT FROM 'pod_gone'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'delete')
            UNION ALL
            SELECT 'I8: each create has its decision or its operator', 'op ' || o.id
            FROM op o
            WHERE o.kind = 'create'
              AND (o.decision IS NULL AND o.requested_by IS NULL AND o.cause IS NULL
                   -- Old decisions go before the calls that they asked for.
                   OR o.decision IS NOT NULL
                   AND o.planned_at >= coalesce((SELECT d.at FROM gpu_orch.decision d ORDER BY d.id LIMIT 1),
                                                (SELECT timestamptz 'infinity' FROM gpu_orch.event e
                                                 WHERE e.subject = 'decision' AND e.kind = 'checkpoint' LIMIT 1), '-infinity')
                   AND NOT EXISTS (SELECT 1 FROM gpu_orch.decision d WHERE d.id = o.decision AND d.pool = o.pool))
            UNION ALL
            -- A move of its worker, or, where no worker had the pod, an event that tells of it.
            SELECT 'I8: each delete has its cause', 'op ' || o.id
            FROM op o
            WHERE o.kind = 'delete'
              AND CASE WHEN o.cause IN (SELECT t.cause FROM gpu_orch.worker_transition t)
                       THEN NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = o.cause
                                        AND e.to_state = 'terminating')
                       ELSE o.cause IS NULL OR NOT EXISTS (SELECT 1 FROM gpu_orch.event e
                                                           WHERE e.subject = o.pod_name AND e.kind = o.cause) END
            UNION ALL
            -- Two minutes are many polls. Of tasks that were tried before, or that a limit held, it is not known since when they wait.
            SELECT DISTINCT 'I9: no work waits beside an idle worker', 'worker ' || w.id
            FROM worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            JOIN head h ON h.shape IS NOT NULL,
            LATERAL (SELECT t.shape AS id, t.kind, t.requirements FROM gpu_orch.task t
                     WHERE t.id = (SELECT r.task_id FROM gpu_orch.ready_queue r WHERE r.shape = h.shape LIMIT 1)) s
            WHERE gpu_orch.satisfies(f.capabilities, s.requirements, s.kind) AND w.state = 'active' AND w.last_heartbeat > gpu_orch.clock() - interval '1 minute'
              AND greatest(w.busy_at, w.state_since) < gpu_orch.clock() - interval '2 minutes'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no)
              AND EXISTS (SELECT 1 FROM (SELECT x.task_id, x.attempt FROM gpu_orch.ready_queue x WHERE x.shape = s.id
                                         ORDER BY x.rank, x.tag, x.task_id LIMIT 1000) r
                          JOIN gpu_orch.task t ON t.id = r.task_id
                          WHERE r.attempt = 1
                            AND greatest(t.submitted_at, t.run_at) < gpu_orch.clock() - interval '2 minutes'
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.tenant n WHERE n.id = t.tenant AND n.max_running IS NOT NULL)
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d JOIN gpu_orch.attempt a ON a.task_id = d.parent
                                            WHERE d.task_id = t.id AND a.ended_at > gpu_orch.clock() - interval '2 minutes'))
            UNION ALL
            SELECT 'I10: the events tell each worker''s state', 'worker ' || w.id
            FROM worker w LEFT JOIN LATERAL (
                SELECT e.to_state FROM gpu_orch.event e WHERE e.worker = w.no ORDER BY e.id DESC LIMIT 1) e ON true
            WHERE e.to_state <> w.state OR (e.to_state IS NULL AND w.state <> 'terminated')
            UNION ALL
            SELECT DISTINCT 'I10: the events tell each worker''s way', 'worker ' || e.subject
            FROM (SELECT e.subject, e.from_state, lag(e.to_state) OVER (PARTITION BY e.worker ORDER BY e.id) AS before
                  FROM worker w JOIN gpu_orch.event e ON e.worker = w.no) e
            WHERE e.from_state IS DISTINCT FROM e.before AND e.before IS NOT NULL
            UNION ALL
            SELECT 'I10: the events tell each pod''s end', 'op ' || o.id
            FROM op o
            WHERE o.kind = 'delete' AND o.state = 'done'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = 'pod_absent_proved')
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.subject = o.pod_name AND e.kind = 'pod_ended')
        ),
        invariant(name) AS (VALUES
            ('I1: a pod belongs to one worker'),
            ('I1: each create has its worker, and both one pod'),
            ('I2: each live cloud worker has a pod or an open op'),
            ('I3: a task stands in one place'),
            ('I3: a lease belongs to a worker that lives'),
            ('I4: attempts never pass the limit'),
            ('I4: a task succeeds once'),
            ('I4: each end has its reason'),
            ('I4: attempts are numbered without a gap'),
            ('I5: what may bill is counted'),
            ('I5: nothing is counted that cannot bill'),
            ('I6: no create breaks a hard budget'),
            ('I6: each intent counts at a price'),
            ('I6: no create passes max_workers'),
            ('I7: no delete is forgotten'),
            ('I8: each create has its decision or its operator'),
            ('I8: each delete has its cause'),
            ('I9: no work waits beside an idle worker'),
            ('I10: the events tell each worker''s state'),
            ('I10: the events tell each worker''s way'),
            ('I10: the events tell each pod''s end'))
        SELECT i.name, count(v.what) = 0, string_agg(v.what, ', ' ORDER BY v.what)
        FROM invariant i LEFT JOIN violation v ON v.name = i.name
        GROUP BY i.name ORDER BY i.name;
    END;
COMMENT ON FUNCTION gpu_orch.check_invariants(boolean) IS
    'What must always be true of the rows; detail names what breaks it. Looks at what lives and at a part of what is over, or at all of it; the provider''s side is checked by reconciling';
