-- What the cells need in the database: the row that the limit updates, workers, and batches of tasks.
CREATE EXTENSION gpu_orch;
CREATE SCHEMA bench;

CREATE TABLE bench.row (id int PRIMARY KEY, n int NOT NULL) WITH (fillfactor = 20);
INSERT INTO bench.row SELECT id, 0 FROM generate_series(1, 100000) id;

CREATE TABLE bench.worker (fleet text, n int, worker_id text, token text, PRIMARY KEY (fleet, n));
CREATE FUNCTION bench.fleet(fleet text, workers int, capabilities jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench.worker
    SELECT fleet, n, w.worker_id, w.token
    FROM generate_series(0, workers - 1) n,
         LATERAL gpu_orch.register_worker(fleet || '-' || n, capabilities => capabilities) w
$$;

-- What a task of the nth of several shapes requires; of one shape, nothing.
CREATE FUNCTION bench.needs(shapes int, n int) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN shapes = 1 THEN '{}'::jsonb
                ELSE jsonb_build_object('hardware', jsonb_build_object('gpu_memory_gb', n)) END
$$;

CREATE FUNCTION bench.batch(kind text, tasks int, shapes int = 1, tenant text = 'default') RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_agg(jsonb_build_object('kind', kind, 'tenant', tenant, 'requirements', bench.needs(shapes, 1 + n % shapes),
                                        'payload', jsonb_build_object('prompt', 'a cat', 'seed', n)))
    FROM generate_series(1, tasks) n
$$;

-- Brings the ready tasks of a kind to a number, in transactions of 5000.
CREATE PROCEDURE bench.fill(kind text, tasks int, shapes int = 1, tenant text = 'default') LANGUAGE plpgsql AS $$
DECLARE
    missing int := tasks - (SELECT count(*) FROM gpu_orch.ready_queue q JOIN gpu_orch.shape s ON s.id = q.shape
                            WHERE s.kind = fill.kind);
BEGIN
    WHILE missing > 0 LOOP
        PERFORM count(*) FROM gpu_orch.submit_tasks(bench.batch(kind, least(missing, 5000), shapes, tenant));
        missing := missing - 5000;
        COMMIT;
    END LOOP;
END
$$;

