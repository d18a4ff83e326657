\if :task_id = 0
SELECT task_id, lease, payload FROM gpu_orch.claim_tasks(:worker_id, :token) \gset
\endif
SELECT task_id, lease, attempt, kind, payload, requirements, priority, tenant, deadline, traceparent
FROM gpu_orch.complete_and_claim(:worker_id, :token, :task_id, :lease, '{"ok": true}') \gset
