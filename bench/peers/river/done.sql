SELECT count(*) FROM bench_river.job WHERE state = 'completed';
