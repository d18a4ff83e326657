SELECT (SELECT last_value FROM bench_graphile.job_id_seq) - (SELECT count(*) FROM bench_graphile.job);
