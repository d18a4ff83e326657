SELECT count(*) FROM bench_pgboss.job WHERE state = 'completed';
