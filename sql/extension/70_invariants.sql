-- What must always be true, as queries. Each row that a query finds is a violation.

CREATE FUNCTION gpu_orch.check_invariants(OUT name text, OUT holds boolean, OUT detail text)
    RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        WITH violation(name, what) AS (
            SELECT 'I1: a pod belongs to one worker', 'pod ' || f.pod_id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NOT NULL
            GROUP BY f.pod_id HAVING count(*) > 1
            UNION ALL
            SELECT 'I1: a pod belongs to one worker', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.bound_pod_id <> f.pod_id
            UNION ALL
            SELECT 'I1: each create has its worker, and both one pod', 'op ' || o.id
            FROM gpu_orch.cloud_op o LEFT JOIN gpu_orch.worker w ON w.no = o.worker
            LEFT JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE o.kind = 'create'
              AND (o.state IN ('planned', 'sent', 'unknown') AND (w.no IS NULL OR w.state = 'terminated')
                   OR o.state = 'done' AND (w.no IS NULL OR w.state <> 'terminated' AND o.pod_id IS DISTINCT FROM f.pod_id))
            UNION ALL
            SELECT 'I2: each live cloud worker has a pod or an open op', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NULL
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no
                              AND o.state IN ('planned', 'sent', 'unknown'))
            UNION ALL
            SELECT 'I3: a task stands in one place', 'task ' || t.id || ' stands in ' || x.places
            FROM gpu_orch.task t, LATERAL (
                SELECT (SELECT count(*) FROM gpu_orch.lease l WHERE l.task_id = t.id)
                     + (SELECT count(*) FROM gpu_orch.waiting w WHERE w.task_id = t.id)
                     + (SELECT count(*) FROM gpu_orch.ready_queue r WHERE r.task_id = t.id) AS places,
                       (SELECT a.final_state FROM gpu_orch.attempt a WHERE a.task_id = t.id
                        ORDER BY a.attempt DESC LIMIT 1) AS final_state) x
            WHERE x.places > 1 OR (x.places = 0 AND x.final_state IS NULL)
               OR (x.places > 0 AND x.final_state = 'succeeded')
            UNION ALL
            SELECT 'I3: a lease belongs to a worker that lives', 'task ' || l.task_id
            FROM gpu_orch.lease l JOIN gpu_orch.worker w ON w.no = l.worker
            WHERE w.state NOT IN ('active', 'draining')
            UNION ALL
            SELECT 'I4: attempts never pass the limit', 'task ' || q.task_id
            FROM (SELECT l.task_id, l.faults FROM gpu_orch.lease l
                  UNION ALL SELECT r.task_id, r.faults FROM gpu_orch.ready_queue r
                  UNION ALL SELECT w.task_id, w.faults FROM gpu_orch.waiting w) q
            JOIN gpu_orch.task t ON t.id = q.task_id WHERE q.faults >= t.max_attempts
            UNION ALL
            SELECT x.name, 'task ' || a.task_id
            FROM (SELECT a.task_id, count(*) FILTER (WHERE a.outcome = 'succeeded') > 1 AS twice,
                         max(a.attempt) <> count(*) OR min(a.attempt) <> 1 AS gap,
                         count(*) FILTER (WHERE a.outcome IN ('failed', 'timeout', 'lost')
                                                AND a.failure IS NULL AND a.error IS NULL) > 0 AS unexplained
                  FROM gpu_orch.attempt a GROUP BY a.task_id) a,
                 LATERAL (VALUES ('I4: a task succeeds once', a.twice), ('I4: attempts are numbered without a gap', a.gap),
                                 ('I4: each end has its reason', a.unexplained)) x(name, broken)
            WHERE (a.twice OR a.gap OR a.unexplained) AND x.broken
            UNION ALL
            SELECT 'I4: attempts are numbered without a gap', 'task ' || q.task_id
            FROM (SELECT l.task_id, l.attempt FROM gpu_orch.lease l
                  UNION ALL SELECT r.task_id, r.attempt FROM gpu_orch.ready_queue r
                  UNION ALL SELECT w.task_id, w.attempt FROM gpu_orch.waiting w) q
            WHERE q.attempt <> 1 + (SELECT count(*) FROM gpu_orch.attempt a WHERE a.task_id = q.task_id)
            UNION ALL
            SELECT 'I5: what may bill is counted', 'worker ' || w.id
            FROM gpu_orch.worker w
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
            FROM gpu_orch.cloud_op o
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
            FROM gpu_orch.cloud_op o
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
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state = 'terminated' AND f.pod_id IS NOT NULL
              AND f.ended_because IS DISTINCT FROM 'pod_gone'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'delete')
            UNION ALL
            SELECT 'I8: each create has its decision or its operator', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'create'
              AND (o.decision IS NULL AND o.requested_by IS NULL AND o.cause IS NULL
                   OR o.decision IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM gpu_orch.decision d WHERE d.id = o.decision AND d.pool = o.pool))
            UNION ALL
            -- A move of its worker, or, where no worker had the pod, an event that tells of it.
            SELECT 'I8: each delete has its cause', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'delete'
              AND CASE WHEN o.cause IN (SELECT t.cause FROM gpu_orch.worker_transition t)
                       THEN NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = o.cause
                                        AND e.to_state = 'terminating')
                       ELSE o.cause IS NULL OR (o.cause, o.pod_name) NOT IN (SELECT e.kind, e.subject FROM gpu_orch.event e) END
            UNION ALL
            -- Two minutes are many polls. Of tasks that were tried before, or that a limit held, it is not known since when they wait.
            SELECT DISTINCT 'I9: no work waits beside an idle worker', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            JOIN gpu_orch.shape s ON gpu_orch.satisfies(f.capabilities, s.requirements, s.kind)
            WHERE w.state = 'active' AND w.last_heartbeat > gpu_orch.clock() - interval '1 minute'
              AND greatest(w.busy_at, w.state_since) < gpu_orch.clock() - interval '2 minutes'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no)
              AND EXISTS (SELECT 1 FROM gpu_orch.ready_queue r JOIN gpu_orch.task t ON t.id = r.task_id
                          WHERE r.shape = s.id AND r.attempt = 1
                            AND greatest(t.submitted_at, t.run_at) < gpu_orch.clock() - interval '2 minutes'
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.tenant n WHERE n.id = t.tenant AND n.max_running IS NOT NULL)
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d JOIN gpu_orch.attempt a ON a.task_id = d.parent
                                            WHERE d.task_id = t.id AND a.ended_at > gpu_orch.clock() - interval '2 minutes'))
            UNION ALL
            SELECT 'I10: the events tell each worker''s state', 'worker ' || w.id
            FROM gpu_orch.worker w LEFT JOIN LATERAL (
                SELECT e.to_state FROM gpu_orch.event e WHERE e.worker = w.no ORDER BY e.id DESC LIMIT 1) e ON true
            WHERE e.to_state <> w.state OR (e.to_state IS NULL AND w.state <> 'terminated')
            UNION ALL
            SELECT DISTINCT 'I10: the events tell each worker''s way', 'worker ' || e.subject
            FROM (SELECT e.subject, e.from_state, lag(e.to_state) OVER (PARTITION BY e.worker ORDER BY e.id) AS before
                  FROM gpu_orch.event e WHERE e.worker IS NOT NULL) e
            WHERE e.from_state IS DISTINCT FROM e.before AND e.before IS NOT NULL
            UNION ALL
            SELECT 'I10: the events tell each pod''s end', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'delete' AND o.state = 'done'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = 'pod_absent_proved')
              AND ('pod_ended', o.pod_name) NOT IN (SELECT e.kind, e.subject FROM gpu_orch.event e)
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
COMMENT ON FUNCTION gpu_orch.check_invariants() IS
    'What must always be true of the rows; detail names what breaks it. The provider''s side is checked by reconciling';
