SELECT task_id, lease, attempt, kind, payload, requirements, priority, tenant, deadline, traceparent
FROM gpu_orch.claim_tasks(:worker_id, :token) \gset
SELECT gpu_orch.complete_task(:worker_id, :token, :task_id, :lease, '{"ok": true}');
