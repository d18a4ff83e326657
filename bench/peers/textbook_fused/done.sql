SELECT count(*) FROM bench_textbook_fused.task WHERE state = 'done';
