\if :known = 0
SELECT worker_id, token FROM bench.worker WHERE n = :client_id AND fleet = '@fleet@' \gset
\set known 1
\endif
