WITH next AS (
    SELECT id FROM bench_pgboss.job
    WHERE name = 'bench' AND state < 'active' AND NOT blocked AND start_after <= now()
    ORDER BY priority DESC, created_on LIMIT 1 FOR UPDATE SKIP LOCKED
), active AS (
    UPDATE bench_pgboss.job j
    SET state = 'active', started_on = now(), heartbeat_on = now(),
        retry_count = CASE WHEN started_on IS NULL THEN retry_count ELSE retry_count + 1 END
    FROM next WHERE j.name = 'bench' AND j.id = next.id
    RETURNING j.*
)
SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(id || ':' || retry_count), '{}') AS attempts,
       array_agg(data) AS data
FROM active \gset
WITH settled AS (
    UPDATE bench_pgboss.job SET completed_on = now(), state = 'completed', output = '{"ok": true}'
    WHERE name = 'bench' AND id = ANY (:ids) AND state = 'active' AND id || ':' || retry_count = ANY (:attempts)
    RETURNING id
)
SELECT count(*) FROM settled;
\set r random(1, 500)
\if :r = 1
SELECT bench_pgboss.enqueue(500);
\endif
