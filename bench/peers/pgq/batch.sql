SELECT coalesce(pgq.next_batch('bench_pgq_' || :client_id, 'worker'), 0) AS batch \gset
\if :batch > 0
SELECT ev_id, ev_type, ev_data FROM pgq.get_batch_events(:batch);
SELECT pgq.finish_batch(:batch);
\endif
\set r random(1, 10)
\if :r = 1
CALL bench_pgq.enqueue('bench_pgq_' || :client_id, 10);
\endif
