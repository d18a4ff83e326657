-- Rows of a fleet in which the provider's pods are workers, as if each had been created, registered and heard from.
-- For psql; expects a temporary table pod(id, name) of what the provider has.
INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at, last_heartbeat)
    SELECT p.name, 'cloud', l.id, 'active', now() - interval '1 hour', now() - interval '1 hour', now()
    FROM pod p, gpu_orch.pool l WHERE l.name = 'large';
INSERT INTO gpu_orch.worker_profile (worker, capabilities, pod_id, bound_pod_id, gpu_type, price_micros, registered_at, booted_in,
                                     learned)
    SELECT w.no, '{"services": ["echo"]}', p.id, p.id, 'NVIDIA L4', 490000, w.created_at, 60, 3
    FROM pod p JOIN gpu_orch.worker w ON w.id = p.name;
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pool, pod_name, pod_id, gpu_type, gpu_count, price_micros,
                               planned_at, sent_at, answered_at, settled_at, http_status, verified)
    SELECT 'create', 'done', right(p.name, 26), w.no, w.pool, p.name, p.id, 'NVIDIA L4', 1, 490000,
           w.created_at, w.created_at, w.created_at, w.created_at, 201, true
    FROM pod p JOIN gpu_orch.worker w ON w.id = p.name;
INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, price_from, started_at)
    SELECT w.no, w.pool, p.id, 490000, 'provider', w.created_at
    FROM pod p JOIN gpu_orch.worker w ON w.id = p.name;
ANALYZE;
