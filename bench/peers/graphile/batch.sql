WITH found AS (
    SELECT id, job_queue_id FROM bench_graphile.job
    WHERE is_available = true AND run_at <= now() AND task_id = ANY ('{1}'::int[])
      AND (job_queue_id IS NULL
           OR job_queue_id IN (SELECT id FROM bench_graphile.queue WHERE is_available = true FOR UPDATE SKIP LOCKED))
    ORDER BY priority, run_at LIMIT 50 FOR UPDATE SKIP LOCKED
), queues AS (
    UPDATE bench_graphile.queue q SET locked_by = :client_id::text, locked_at = now()
    FROM found WHERE q.id = found.job_queue_id
), locked AS (
    UPDATE bench_graphile.job j SET attempts = attempts + 1, locked_by = :client_id::text, locked_at = now()
    FROM found WHERE j.id = found.id
    RETURNING j.*
)
SELECT coalesce(array_agg(id), '{}') AS ids, array_agg(payload) AS payloads FROM locked \gset
DELETE FROM bench_graphile.job USING unnest(:ids::bigint[]) n WHERE id = n;
\set r random(1, 10)
\if :r = 1
SELECT bench_graphile.enqueue(500);
\endif
