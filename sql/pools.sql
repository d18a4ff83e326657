-- Pools: options, offers, scaling as it is explained, and workers that operators ask for and end.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;

-- What is required, and the defaults of the rest.
SELECT create_pool('pools-a', 'me/image:1', ARRAY['NVIDIA L4']);
\x on
SELECT p.image, p.gpu_types, p.min_workers, p.max_workers, p.policy, p.policy_options, p.idle_timeout, p.spawn_timeout, p.drain_timeout,
       p.heartbeat_timeout, p.max_worker_age, p.idle_buffer, p.max_price_per_hour, p.budget_per_hour, p.cloud_type, p.gpu_count,
       p.data_centers, p.spawning, p.initializing, p.active, p.draining, p.terminating, p.spend_per_hour,
       b.provider, b.env, b.ports, b.container_disk_gb, b.capabilities
FROM pools p JOIN gpu_orch.pool b ON b.name = p.pool WHERE p.pool = 'pools-a';
-- Every option, at once and one by one.
SELECT create_pool('pools-b', 'me/image:2', ARRAY['NVIDIA L4', 'NVIDIA L40S'], 1, 5, '{
    "args": "--lowvram", "budget_per_day": 100, "budget_per_hour": 7.25, "capabilities": {"services": ["pools"]}, "cloud_type": "COMMUNITY",
    "container_disk_gb": 50, "data_centers": ["EU-RO-1", "EU-SE-1"], "drain_timeout": "20 minutes",
    "env": {"HF_HOME": "/cache", "_x1": ""}, "gpu_count": 2, "heartbeat_timeout": 45, "idle_buffer": 1,
    "idle_timeout": 90.5, "max_price_per_hour": 2, "max_worker_age": "1 day", "min_cuda_version": "12.4",
    "policy": "one_to_one", "policy_options": {"scale_down_grace": 10}, "ports": ["22/tcp"], "provider": "runpod",
    "registry_id": "r1", "spawn_timeout": "15 minutes", "template_id": "t1", "volume_id": "v1", "volume_mount_path": "/data"}');
SELECT image, gpu_types, min_workers, max_workers, args, budget_per_hour, budget_per_day, capabilities, cloud_type, container_disk_gb, data_centers,
       drain_timeout, env, gpu_count, heartbeat_timeout, idle_buffer, idle_timeout, max_price_per_hour, max_worker_age,
       min_cuda_version, policy, policy_options, ports, provider, registry_id, spawn_timeout, template_id, volume_id,
       volume_mount_path FROM gpu_orch.pool WHERE name = 'pools-b';
CREATE TEMP TABLE option AS SELECT * FROM jsonb_each('{
    "args": null, "budget_per_day": null, "budget_per_hour": null, "capabilities": null, "cloud_type": "SECURE", "container_disk_gb": null,
    "data_centers": [], "drain_timeout": 60, "env": {}, "gpu_count": 1, "gpu_types": ["NVIDIA L40S", "NVIDIA A40"],
    "heartbeat_timeout": null, "idle_buffer": 0, "idle_timeout": "1 minute", "image": "me/image:3",
    "max_price_per_hour": null, "max_worker_age": null, "max_workers": 4, "min_cuda_version": null, "min_workers": 0,
    "policy": "fixed", "policy_options": {"fixed_workers": 1}, "ports": [], "registry_id": null, "spawn_timeout": 60,
    "template_id": null, "volume_id": null, "volume_mount_path": null}');
SELECT count(*) FROM (SELECT alter_pool('pools-b', jsonb_build_object(key, value)) FROM option) x;
SELECT image, gpu_types, min_workers, max_workers, args, budget_per_hour, budget_per_day, capabilities, cloud_type, container_disk_gb, data_centers,
       drain_timeout, env, gpu_count, heartbeat_timeout, idle_buffer, idle_timeout, max_price_per_hour, max_worker_age,
       min_cuda_version, policy, policy_options, ports, provider, registry_id, spawn_timeout, template_id, volume_id,
       volume_mount_path FROM gpu_orch.pool WHERE name = 'pools-b';
\x off
SELECT kind, actor = current_user AS by_us, detail FROM events WHERE subject = 'pools-b' ORDER BY event LIMIT 3;
SELECT alter_pool('pools-a', '{}'), alter_pool('pools-a', null);
-- Every column of a pool that an operator may choose is an option.
SELECT attname AS no_option FROM pg_attribute
WHERE attrelid = 'gpu_orch.pool'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN (SELECT key FROM option)
ORDER BY 1;

-- Each GPU type in each data centre before the next type; what is known of one that stays is kept.
SELECT alter_pool('pools-b', '{"gpu_types": ["NVIDIA L4", "NVIDIA L40S"], "data_centers": ["EU-RO-1", "EU-SE-1"]}');
UPDATE gpu_orch.offer SET price_micros = 440000, refusals = 2
WHERE pool = (SELECT id FROM gpu_orch.pool WHERE name = 'pools-b') AND gpu_type = 'NVIDIA L40S';
SELECT pool, ordinal, gpu_type, data_center, cloud_type, price_per_hour, refusals, passed_over FROM offers
WHERE pool LIKE 'pools-%' ORDER BY pool, ordinal;
SELECT alter_pool('pools-b', '{"gpu_types": ["NVIDIA L40S", "NVIDIA A40"], "data_centers": ["EU-SE-1"]}');
SELECT ordinal, gpu_type, data_center, price_per_hour, refusals FROM offers WHERE pool = 'pools-b' ORDER BY ordinal;

-- Refused, and nothing has changed.
SELECT md5(string_agg(p::text, ' ' ORDER BY p.id)) AS before FROM gpu_orch.pool p \gset
CALL pg_temp.refusals(
    $$create_pool('', 'i', '{L4}')$$,
    $$create_pool('Pools', 'i', '{L4}')$$,
    $$create_pool('pools a', 'i', '{L4}')$$,
    $$create_pool(repeat('x', 41), 'i', '{L4}')$$,
    $$create_pool(null, 'i', '{L4}')$$,
    $$create_pool('pools-a', 'i', '{L4}')$$,
    $$create_pool('pools-c', '', '{L4}')$$,
    $$create_pool('pools-c', null, '{L4}')$$,
    $$create_pool('pools-c', 'i', null)$$,
    $$create_pool('pools-c', 'i', '{}')$$,
    $$create_pool('pools-c', 'i', '{null}')$$,
    $$create_pool('pools-c', 'i', '{""}')$$,
    $$create_pool('pools-c', 'i', '{{L4},{L40}}')$$,
    $$create_pool('pools-c', 'i', ARRAY(SELECT 'L' || n FROM generate_series(1, 21) n))$$,
    $$create_pool('pools-c', 'i', '{L4}', -1)$$,
    $$create_pool('pools-c', 'i', '{L4}', 0, -1)$$,
    $$create_pool('pools-c', 'i', '{L4}', 3, 2)$$,
    $$create_pool('pools-c', 'i', '{L4}', 0, 100001)$$,
    $$create_pool('pools-c', 'i', '{L4}', options => '[]')$$,
    $$create_pool('pools-c', 'i', '{L4}', options => '1')$$,
    $$create_pool('pools-c', 'i', '{L4}', options => '{"idle_timout": 1}')$$);
CALL pg_temp.refusals(
    $$alter_pool('pools-nobody', '{}')$$,
    $$alter_pool('pools-a', '{"name": "x"}')$$,
    $$alter_pool('pools-a', '{"provider": "other"}')$$,
    $$alter_pool('pools-a', '{"cloud_type": "secure"}')$$,
    $$alter_pool('pools-a', '{"image": null}')$$,
    $$alter_pool('pools-a', '{"image": ""}')$$,
    $$alter_pool('pools-a', '{"gpu_types": []}')$$,
    $$alter_pool('pools-a', '{"gpu_types": [1]}')$$,
    $$alter_pool('pools-a', '{"gpu_types": [null]}')$$,
    $$alter_pool('pools-a', '{"data_centers": "EU-RO-1"}')$$,
    $$alter_pool('pools-a', '{"gpu_count": 0}')$$,
    $$alter_pool('pools-a', '{"gpu_count": 1.5}')$$,
    $$alter_pool('pools-a', '{"gpu_count": 1e12}')$$,
    $$alter_pool('pools-a', '{"gpu_count": "1"}')$$,
    $$alter_pool('pools-a', '{"container_disk_gb": 0}')$$,
    $$alter_pool('pools-a', '{"min_workers": -1}')$$,
    $$alter_pool('pools-a', '{"min_workers": 11}')$$,
    $$alter_pool('pools-a', '{"max_workers": -1}')$$,
    $$alter_pool('pools-a', '{"max_workers": 1000000}')$$,
    $$alter_pool('pools-a', '{"idle_buffer": -1}')$$,
    $$alter_pool('pools-a', '{"idle_timeout": null}')$$,
    $$alter_pool('pools-a', '{"idle_timeout": "soon"}')$$,
    $$alter_pool('pools-a', '{"idle_timeout": -1}')$$,
    $$alter_pool('pools-a', '{"idle_timeout": true}')$$,
    $$alter_pool('pools-a', '{"spawn_timeout": "-1 minute"}')$$,
    $$alter_pool('pools-a', '{"drain_timeout": "-1 minute"}')$$,
    $$alter_pool('pools-a', '{"heartbeat_timeout": 0}')$$,
    $$alter_pool('pools-a', '{"max_worker_age": -1}')$$,
    $$alter_pool('pools-a', '{"max_price_per_hour": 0}')$$,
    $$alter_pool('pools-a', '{"max_price_per_hour": "2"}')$$,
    $$alter_pool('pools-a', '{"budget_per_hour": -1}')$$,
    $$alter_pool('pools-a', '{"policy": "clever"}')$$,
    $$alter_pool('pools-a', '{"policy_options": {"tasks_per_worker": 0}}')$$,
    $$alter_pool('pools-a', '{"policy_options": {"tasks_per_worker": "1"}}')$$,
    $$alter_pool('pools-a', '{"policy_options": {"task_per_worker": 1}}')$$,
    $$alter_pool('pools-a', '{"policy_options": []}')$$,
    $$alter_pool('pools-a', '{"env": {"1X": "x"}}')$$,
    $$alter_pool('pools-a', '{"env": {"A B": "x"}}')$$,
    $$alter_pool('pools-a', '{"env": {"X": 1}}')$$,
    $$alter_pool('pools-a', '{"env": {"RUNPOD_POD_ID": "x"}}')$$,
    $$alter_pool('pools-a', '{"env": {"GPU_ORCH_TOKEN": "x"}}')$$,
    $$alter_pool('pools-a', '{"env": {"LD_PRELOAD": "x"}}')$$,
    $$alter_pool('pools-a', '{"env": {"PATH": "x"}}')$$,
    $$alter_pool('pools-a', jsonb_build_object('env', jsonb_build_object('X', repeat('x', 8193))))$$,
    $$alter_pool('pools-a', (SELECT jsonb_build_object('env', jsonb_object_agg('X' || n, '')) FROM generate_series(1, 41) n))$$,
    $$alter_pool('pools-a', '{"ports": {}}')$$,
    $$alter_pool('pools-a', '{"ports": ["22/tcp", 80]}')$$,
    $$alter_pool('pools-a', '{"data_centers": [null]}')$$,
    $$alter_pool('pools-a', '{"min_workers": 5, "max_workers": 4}')$$,
    $$alter_pool('pools-a', '[]')$$,
    $$alter_pool('pools-a', '{"image": "me/other", "nonsense": 1}')$$,
    $$drop_pool('pools-nobody')$$,
    $$explain_scaling('pools-nobody')$$);
SELECT md5(string_agg(p::text, ' ' ORDER BY p.id)) = :'before' AS unchanged FROM gpu_orch.pool p;

-- Decisions, as they would be taken now: every term, and exactly one that decided.
SELECT count(submit_task('pools')) FROM generate_series(1, 9);
SELECT term, value, bound FROM explain_scaling('pools-a')
WHERE bound OR term IN ('claimable', 'waiting', 'capacity', 'queue_ratio', 'min_workers', 'max_workers', 'desired', 'short', 'create');
SELECT count(*) FILTER (WHERE bound) AS bound, count(*) = count(DISTINCT term) AS each_once, bool_and(note IS NOT NULL) AS notes
FROM explain_scaling('pools-a');
SELECT count(*) FILTER (WHERE bound) AS bound FROM explain_scaling('pools-b');
-- Without a look at the provider nothing is created, and a dry run changes nothing.
SELECT 'actions' AS part, k AS key FROM jsonb_object_keys(run_cycle(dry_run => true) -> 'actions') k
UNION ALL SELECT 'status', k FROM jsonb_object_keys(run_cycle(dry_run => true) -> 'status') k ORDER BY 1, 2;
SELECT (run_cycle(dry_run => true) -> 'status' ->> 'queued')::int AS queued, run_cycle(true) -> 'status' ->> 'desired' AS desired,
       (SELECT count(*) FROM decisions) AS decisions, (SELECT count(*) FROM cloud_ops) AS ops;
-- No leader acts here, and whoever asks for one is told so.
CALL pg_temp.refusals($$run_cycle()$$, $$run_cycle(null)$$, $$reconcile_now()$$);
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'pools';

-- Workers that an operator asks for: announced, within every limit of the pool.
SELECT alter_pool('pools-a', '{"max_workers": 2}');
SELECT worker ~ '^pools-a-[0-9a-f]{8}$' AS named, worker AS w1 FROM spawn_worker('pools-a') AS worker \gset
SELECT :'named' AS named_after_the_pool;
SELECT state, pool, origin, running, gpu_type, data_center, price_per_hour FROM workers WHERE worker_id = :'w1';
SELECT kind, state, worker = :'w1' AS worker, pool, gpu_type, tries, sent_at IS NULL AS not_sent, requested_by = current_user AS by_us
FROM cloud_ops WHERE worker = :'w1';
SELECT pod_name ~ '^[A-Za-z0-9._-]{1,191}$' AS pod_named FROM cloud_ops WHERE worker = :'w1';
SELECT spawning, spend_per_hour FROM pools WHERE pool = 'pools-a';
CALL pg_temp.refusals(
    $$spawn_worker('pools-nobody')$$,
    $$spawn_worker(null)$$,
    $$spawn_worker('pools-a', 0)$$,
    $$spawn_worker('pools-a', 101)$$,
    $$spawn_worker('pools-a', 2)$$);
SELECT count(*) FROM spawn_worker('pools-a', null);
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
-- While paused nothing is announced.
SELECT alter_pool('pools-a', '{"max_workers": 200}');
SELECT pause(), pause();
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
SELECT resume(), resume();
SELECT kind, subject FROM events WHERE subject = 'installation' ORDER BY event;
-- The price limit: an unknown price does not pass, nor a higher one; and the budget, which counts what is announced:
-- what had no price before as the dearest that was known.
SELECT price_per_hour, count(*) FROM cloud_ops WHERE kind = 'create' AND pool = 'pools-a' GROUP BY 1;
SELECT alter_pool('pools-a', '{"max_price_per_hour": 0.5}');
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
UPDATE gpu_orch.offer SET price_micros = 600000 WHERE pool = (SELECT id FROM gpu_orch.pool WHERE name = 'pools-a');
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
SELECT alter_pool('pools-a', '{"max_price_per_hour": 0.6, "budget_per_hour": 2.2}');
CALL pg_temp.refusals($$spawn_worker('pools-a', 3)$$);
SELECT count(*) FROM spawn_worker('pools-a', 2);
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
SELECT value, bound FROM explain_scaling('pools-a') WHERE term = 'budget_room';
-- An offer that backs off is passed over.
SELECT alter_pool('pools-a', '{"max_price_per_hour": null, "budget_per_hour": null}');
UPDATE gpu_orch.offer SET backoff_until = clock() + interval '1 minute' WHERE pool = (SELECT id FROM gpu_orch.pool WHERE name = 'pools-a');
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
SELECT passed_over FROM offers WHERE pool = 'pools-a';
SELECT advance_clock('2 minutes') IS NOT NULL AS later;
-- No more than so many a minute.
SELECT current_setting('gpu_orch.spawn_rate_limit') AS spawn_rate_limit;
SELECT count(*) FROM spawn_worker('pools-a', 56);
CALL pg_temp.refusals($$spawn_worker('pools-a')$$);
SELECT alter_pool('pools-a', '{"max_workers": 0}');

-- A pod's worker: it registers with the token of its environment, for the pod of the first use alone, and proves
-- by that that its create took effect.
UPDATE gpu_orch.worker_profile SET registration_digest = sha256('pod token')
WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = :'w1');
WITH op AS (UPDATE gpu_orch.cloud_op SET state = 'sent', sent_at = clock()
            WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = :'w1') RETURNING *)
INSERT INTO gpu_orch.spend (worker, pool, price_micros, started_at) SELECT worker, pool, 440000, sent_at FROM op;
CREATE TEMP TABLE w AS SELECT :'w1' AS id;
CALL pg_temp.refusals(
    $$w, register_worker(id, 'wrong', pod_id => 'pod1')$$,
    $$w, register_worker(id, pod_id => 'pod1')$$,
    $$w, register_worker(id, 'pod token')$$,
    $$w, register_worker(id, 'pod token', '[]', pod_id => 'pod1')$$,
    $$w, register_worker(id, 'pod token', pool => 'pools-nobody', pod_id => 'pod1')$$);
SELECT token, pool FROM register_worker(:'w1', 'pod token', '{"services": ["pools"]}', pod_id => 'pod1') \gset
SELECT :'pool' AS pool;
SELECT state, pod_id, epoch FROM workers WHERE worker_id = :'w1';
SELECT state, pod_id, reason FROM cloud_ops WHERE worker = :'w1';
SELECT from_state, to_state, kind FROM events WHERE subject = :'w1' ORDER BY event;
CALL pg_temp.refusals($$w, register_worker(id, 'pod token', pod_id => 'pod2')$$);
SELECT token FROM register_worker(:'w1', 'pod token', '{"services": ["pools"]}', 'pools-b', 'pod1') \gset
SELECT state, pool, epoch FROM workers WHERE worker_id = :'w1';

-- Ended by operators: one that runs tasks by force alone.
SELECT submit_task('pools') AS task \gset
SELECT count(*) FROM claim_tasks(:'w1', :'token');
CALL pg_temp.refusals(
    $$w, terminate_worker(id)$$,
    $$terminate_worker('pools-nobody')$$,
    $$drain_worker('pools-nobody')$$,
    $$terminate_worker(null)$$,
    $$drain_worker('')$$);
SELECT drain_worker(:'w1');
CALL pg_temp.refusals($$w, drain_worker(id)$$);
SELECT directive FROM heartbeat(:'w1', :'token');
SELECT state, draining_for FROM workers WHERE worker_id = :'w1';
SELECT terminate_worker(:'w1', force => true);
SELECT state, ended_because, pod_id FROM workers WHERE worker_id = :'w1';
SELECT state, attempts, error FROM task(:task);
CALL pg_temp.refusals(
    $$w, terminate_worker(id, true)$$,
    $$w, drain_worker(id)$$,
    $$w, register_worker(id, 'pod token', pod_id => 'pod1')$$);
SELECT cancel_task(:task);

-- One that has ended is not unknown.
SELECT worker_id, pool FROM register_worker('pools-ended');
SELECT terminate_worker('pools-ended');
CALL pg_temp.refusals(
    $$drain_worker('pools-ended')$$,
    $$terminate_worker('pools-ended', true)$$);

-- A dropped pool is gone from the views, and its name is free; the row stays for its workers.
SELECT drop_pool('pools-a');
SELECT count(*) FROM pools WHERE pool = 'pools-a';
SELECT count(*) FROM offers WHERE pool = 'pools-a';
CALL pg_temp.refusals($$drop_pool('pools-a')$$, $$alter_pool('pools-a', '{}')$$, $$spawn_worker('pools-a')$$, $$explain_scaling('pools-a')$$);
SELECT create_pool('pools-a', 'me/image:9', ARRAY['NVIDIA L4']);
SELECT image, spawning FROM pools WHERE pool = 'pools-a';
SELECT drop_pool('pools-a'), drop_pool('pools-b');
SELECT name, detail FROM check_invariants() WHERE NOT holds;

-- No provider was ever asked: let the pods that were announced be forgotten.
DELETE FROM gpu_orch.event WHERE worker IN (SELECT no FROM gpu_orch.worker WHERE origin = 'cloud');
DELETE FROM gpu_orch.worker WHERE origin = 'cloud';
DELETE FROM gpu_orch.cloud_op;
DELETE FROM gpu_orch.spend;
