SELECT count(*) FROM bench_textbook.task WHERE state = 'done';
