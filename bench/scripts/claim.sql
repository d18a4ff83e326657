SELECT task_id, lease FROM gpu_orch.claim_tasks(:worker_id, :token) \gset
SELECT gpu_orch.release_task(:worker_id, :token, :task_id, :lease);
