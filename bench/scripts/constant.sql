SELECT coalesce(task_id, 0) AS task_id, lease, payload
FROM (SELECT 1) one LEFT JOIN gpu_orch.claim_tasks(:worker_id, :token) ON true \gset
\if :task_id > 0
SELECT gpu_orch.complete_task(:worker_id, :token, :task_id, :lease, '{"ok": true}');
\set n random(1, @shapes@)
SELECT gpu_orch.submit_task('@kind@', '{"prompt": "a cat", "seed": 1}', bench.needs(@shapes@, :n));
\endif
