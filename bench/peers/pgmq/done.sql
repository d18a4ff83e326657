SELECT (SELECT last_value FROM bench_pgmq.q_msg_id_seq) - (SELECT count(*) FROM bench_pgmq.q);
