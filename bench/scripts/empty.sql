SELECT count(*) FROM gpu_orch.claim_tasks(:worker_id, :token);
