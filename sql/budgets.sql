-- Budgets: what may be set, what counts, and which one stands in the way.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;
SELECT create_pool('budgets-a', 'image', '{L4}', max_workers => 20), create_pool('budgets-b', 'image', '{L4,A40}', max_workers => 20);
UPDATE gpu_orch.offer SET price_micros = 1000000 WHERE gpu_type = 'L4';
-- In tenths of a dollar: what the minutes of the test itself cost is not seen.
CREATE VIEW pg_temp.shown AS
SELECT pool, per, hard, amount, round(spent, 1) AS spent, round(committed, 1) AS committed, round("left", 1) AS "left", price_per_hour
FROM budgets ORDER BY pool, per, hard;
-- At noon on the 27th, by the calendar of all: half the day is left, and two to five days of the month. In seconds: some days have 23 hours.
SELECT advance_clock(make_interval(secs => extract(epoch FROM date_trunc('month', clock() + interval '1 month', 'UTC')
                                   + interval '636 hours' - clock())::float8)) IS NOT NULL AS noon;

CALL pg_temp.refusals(
    $$set_budget('budgets-x', 'day', 1)$$,
    $$set_budget('budgets-a', 'week', 1)$$,
    $$set_budget('budgets-a', null, 1)$$,
    $$set_budget('budgets-a', 'day', -1)$$,
    $$set_budget('budgets-a', 'day', 'NaN')$$,
    $$set_budget('budgets-a', 'day', 1e10)$$,
    $$alter_pool('budgets-a', '{"budget_per_day": -1}')$$,
    $$alter_pool('budgets-a', '{"budget_per_day": "1"}')$$);
-- Removing what is not there is no error and no event.
SELECT set_budget('budgets-a', 'day', null);
SELECT set_budget(null, 'hour', 4), set_budget('budgets-a', 'month', 1000), set_budget('budgets-a', 'month', 500, false);
SELECT alter_pool('budgets-b', '{"budget_per_hour": 3, "budget_per_day": 30}');
SELECT budget_per_hour, budget_per_day FROM pools WHERE pool = 'budgets-b';
SELECT * FROM pg_temp.shown;
SELECT subject, detail FROM events WHERE kind = 'budget_set' ORDER BY event;

-- What is announced counts at once, in each budget that it belongs to.
SELECT count(*) FROM spawn_worker('budgets-b', 2);
SELECT * FROM pg_temp.shown;
CALL pg_temp.refusals($$spawn_worker('budgets-b')$$);
SELECT count(*) FROM spawn_worker('budgets-a', 2);
CALL pg_temp.refusals($$spawn_worker('budgets-a')$$);
SELECT set_budget(null, 'hour', 100);
SELECT pool, per, hard, amount FROM pg_temp.shown WHERE pool IS NULL;
SELECT term, value, bound, note FROM explain_scaling('budgets-b') WHERE term ~ 'budget' ORDER BY 1;
SELECT alter_pool('budgets-b', '{"budget_per_day": null}');
CALL pg_temp.refusals($$spawn_worker('budgets-b', 2)$$);
-- Room is counted at the dearest offer within the price limit; who asks by hand gets the first offer whose price still fits.
SELECT create_pool('budgets-c', 'image', '{L40S,L4,A40}', options => '{"budget_per_hour": 1.5, "max_price_per_hour": 0.92}');
UPDATE gpu_orch.offer o SET price_micros = x.price FROM gpu_orch.pool p, (VALUES ('L40S', 900000), ('L4', 300000), ('A40', 950000)) x(gpu, price)
WHERE p.id = o.pool AND p.name = 'budgets-c' AND o.gpu_type = x.gpu;
SELECT term, value, note FROM explain_scaling('budgets-c') WHERE term = 'budget_room';
SELECT count(*) FROM spawn_worker('budgets-c', 3);
SELECT o.gpu_type, o.price_micros FROM gpu_orch.cloud_op o JOIN gpu_orch.worker w ON w.no = o.worker WHERE w.id LIKE 'budgets-c%' ORDER BY o.id;
CALL pg_temp.refusals($$spawn_worker('budgets-c')$$);
-- Where the price limit leaves no offer, that is what is said.
SELECT alter_pool('budgets-c', '{"max_price_per_hour": 0.2}');
SELECT count(*) FROM explain_scaling('budgets-c') WHERE term = 'budget_room';
CALL pg_temp.refusals($$spawn_worker('budgets-c')$$);
SELECT drop_pool('budgets-c');
-- A soft one stops nothing; it takes the idle buffer away.
SELECT alter_pool('budgets-a', '{"idle_buffer": 1}');
SELECT term, value, note FROM explain_scaling('budgets-a') WHERE term IN ('busy_plus_buffer', 'soft_budget');
SELECT set_budget('budgets-a', 'month', 0.5, false);
SELECT term, value, note FROM explain_scaling('budgets-a') WHERE term IN ('busy_plus_buffer', 'soft_budget');
SELECT set_budget('budgets-a', 'month', null, false);

-- Where a hard budget is, a price that is not known passes none; elsewhere the pod counts as the dearest one.
SELECT alter_pool('budgets-b', '{"budget_per_hour": null, "gpu_types": ["A40"]}');
CALL pg_temp.refusals($$spawn_worker('budgets-b')$$);
SELECT set_budget(null, 'hour', null), set_budget('budgets-a', 'month', null);
SELECT count(*) FROM spawn_worker('budgets-b');
SELECT alter_pool('budgets-b', '{"gpu_count": 2}');
SELECT count(*) FROM spawn_worker('budgets-b');
SELECT gpu_type, gpu_count, cloud_type, price_micros, price_assumed FROM gpu_orch.cloud_op WHERE gpu_type = 'A40' ORDER BY id;
SELECT price_per_hour FROM workers WHERE gpu_type = 'A40';

-- An offer that stays keeps its id and what is known of it, but no price for another pod.
SELECT alter_pool('budgets-a', '{"gpu_types": ["L4", "A40", "L4"]}');
UPDATE gpu_orch.offer SET refusals = 2, price_micros = 2000000, price_at = clock() WHERE gpu_type = 'A40';
CREATE TEMP TABLE before AS SELECT o.* FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool WHERE p.name = 'budgets-a';
SELECT alter_pool('budgets-a', '{"gpu_types": ["A40", "L40S", "L4"]}');
SELECT o.ordinal, o.gpu_type, b.id IS NOT NULL AS kept, o.refusals, o.price_micros FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool
LEFT JOIN before b ON b.id = o.id WHERE p.name = 'budgets-a' ORDER BY 1;
SELECT alter_pool('budgets-a', '{"gpu_count": 4}');
SELECT o.ordinal, o.gpu_type, b.id IS NOT NULL AS kept, o.refusals, o.price_micros, o.price_at FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool
LEFT JOIN before b ON b.id = o.id WHERE p.name = 'budgets-a' ORDER BY 1;
UPDATE gpu_orch.offer SET price_micros = 4000000 WHERE gpu_type = 'A40';
SELECT alter_pool('budgets-a', '{"cloud_type": "COMMUNITY"}');
SELECT count(price_micros) FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool WHERE p.name = 'budgets-a';

-- What was spent in the window, by pods that are gone too, and what runs until its end.
DELETE FROM gpu_orch.cloud_op WHERE worker IN (SELECT no FROM gpu_orch.worker WHERE id LIKE 'budgets-%');
INSERT INTO gpu_orch.spend (pool, pod_id, price_micros, started_at, ended_at)
SELECT p.id, x.pod, x.price, date_trunc('day', clock(), 'UTC') + x.starts, date_trunc('day', clock(), 'UTC') + x.ends
FROM gpu_orch.pool p, (VALUES ('gone', 2000000, interval '-1 hour', interval '30 minutes'), ('long gone', 9000000, '-2 hours', '-1 hour'),
                              ('there', 1000000, '11 hours', null)) x(pod, price, starts, ends)
WHERE p.name = 'budgets-a';
SELECT set_budget('budgets-a', per, 100) FROM unnest('{hour,day}'::text[]) per;
SELECT set_budget(null, 'day', 100);
SELECT * FROM pg_temp.shown;
SELECT advance_clock('6 hours') IS NOT NULL AS evening;
SELECT * FROM pg_temp.shown;
SELECT advance_clock('6 hours 1 second') IS NOT NULL AS midnight;
SELECT * FROM pg_temp.shown;
SELECT pod_id, price_from, seconds BETWEEN 46800 AND 46860 AS seconds, worker_id FROM cost_estimate WHERE pool = 'budgets-a' AND ended_at IS NULL;

SELECT drop_pool('budgets-a'), drop_pool('budgets-b');
-- The budget of a pool goes with it.
SELECT * FROM pg_temp.shown;
SELECT set_budget(null, 'day', null);
DELETE FROM gpu_orch.spend;
DELETE FROM gpu_orch.event WHERE worker IN (SELECT no FROM gpu_orch.worker WHERE id LIKE 'budgets-%') OR kind = 'budget_set';
DELETE FROM gpu_orch.worker WHERE id LIKE 'budgets-%';
DELETE FROM gpu_orch.offer WHERE pool IN (SELECT id FROM gpu_orch.pool WHERE name LIKE 'budgets-%');
SELECT name, detail FROM check_invariants() WHERE NOT holds;
