WITH fetched AS (
    SELECT id FROM bench_river.job
    WHERE state = 'available' AND queue = 'default' AND scheduled_at <= now()
    ORDER BY priority, scheduled_at, id LIMIT 50 FOR UPDATE SKIP LOCKED
), running AS (
    UPDATE bench_river.job j
    SET state = 'running', attempt = attempt + 1, attempted_at = now(),
        attempted_by = array_append(attempted_by, :client_id::text)
    FROM fetched WHERE j.id = fetched.id
    RETURNING j.*
)
SELECT coalesce(array_agg(id), '{}') AS ids, array_agg(args) AS args FROM running \gset
WITH input AS (
    SELECT unnest(:ids::bigint[]) AS id, now() AS finalized_at
)
UPDATE bench_river.job j SET state = 'completed', finalized_at = input.finalized_at
FROM input WHERE j.id = input.id AND j.state = 'running'
RETURNING j.*;
\set r random(1, 10)
\if :r = 1
SELECT bench_river.enqueue(500);
\endif
