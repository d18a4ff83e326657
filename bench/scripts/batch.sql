SELECT array_agg(task_id) AS ids, array_agg(lease) AS leases, array_agg(payload) AS payloads
FROM gpu_orch.claim_tasks(:worker_id, :token, 50) \gset
SELECT count(*) FROM gpu_orch.complete_tasks(:worker_id, :token, :ids, :leases);
\set dice random(1, 10)
\if :dice = 1
SELECT count(*) FROM gpu_orch.submit_tasks(bench.batch('bench', 500));
\endif
