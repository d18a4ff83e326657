SELECT count(*) FROM bench_where_filter.task WHERE state = 'done';
