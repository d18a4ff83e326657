\set dice random(1, 500)
\if :dice = 1
SELECT count(*) FROM gpu_orch.submit_tasks(bench.batch('bench', 500));
\endif
