SELECT count(*) FROM bench_class_index.task WHERE state = 'done';
