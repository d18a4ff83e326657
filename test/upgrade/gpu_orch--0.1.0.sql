\echo Use "CREATE EXTENSION gpu_orch" to load this file. \quit
-- The clock, the roles and the domains that everything else uses.

CREATE FUNCTION gpu_orch.clock() RETURNS timestamptz
    LANGUAGE C VOLATILE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_clock';
COMMENT ON FUNCTION gpu_orch.clock() IS
    'The time that gpu_orch decides by: the server''s clock, moved by advance_clock() on test servers';

CREATE FUNCTION gpu_orch.advance_clock("by" interval, passed boolean DEFAULT true) RETURNS timestamptz
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_advance_clock';
COMMENT ON FUNCTION gpu_orch.advance_clock(interval, boolean) IS
    'Moves the clock of gpu_orch on a server started with gpu_orch.test_clock = on; returns the new time';

-- Roles belong to the cluster, so an earlier installation may have left them. One that could be used
-- to log in or to gain rights is not ours.
DO $roles$
DECLARE
    name text;
    role pg_catalog.pg_roles;
BEGIN
    FOREACH name IN ARRAY ARRAY['gpu_orch_admin', 'gpu_orch_operator', 'gpu_orch_submitter',
                                'gpu_orch_worker', 'gpu_orch_monitor']
    LOOP
        SELECT * INTO role FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) name;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', name);
        ELSIF role.rolcanlogin OR role.rolsuper OR role.rolcreaterole OR role.rolbypassrls THEN
            RAISE EXCEPTION 'role "%" exists and has attributes that gpu_orch does not accept', name
                USING ERRCODE = 'duplicate_object',
                      DETAIL = 'A role of gpu_orch is NOLOGIN, without SUPERUSER, CREATEROLE and BYPASSRLS.',
                      HINT = 'Rename the role or take these attributes from it.';
        END IF;
    END LOOP;
END
$roles$;

GRANT gpu_orch_monitor TO gpu_orch_operator;
GRANT gpu_orch_submitter TO gpu_orch_operator;
GRANT gpu_orch_operator TO gpu_orch_admin;

CREATE DOMAIN gpu_orch.task_state AS text
    CHECK (VALUE IN ('scheduled', 'blocked', 'held', 'ready', 'running', 'succeeded', 'failed', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.task_state IS 'Where a task stands on its way';

CREATE DOMAIN gpu_orch.waiting_state AS text
    CHECK (VALUE IN ('scheduled', 'blocked', 'held'));
COMMENT ON DOMAIN gpu_orch.waiting_state IS 'Why a task is not claimable yet';

CREATE DOMAIN gpu_orch.final_state AS text
    CHECK (VALUE IN ('succeeded', 'failed', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.final_state IS 'How a task ended';

CREATE DOMAIN gpu_orch.attempt_outcome AS text
    CHECK (VALUE IN ('succeeded', 'failed', 'timeout', 'lost', 'released', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.attempt_outcome IS 'How one attempt ended';

CREATE DOMAIN gpu_orch.failure_class AS text
    CHECK (VALUE IN ('task', 'platform', 'rejected'));
COMMENT ON DOMAIN gpu_orch.failure_class IS 'Whose fault it was: the task''s, the machine''s, or a refusal for good';

CREATE DOMAIN gpu_orch.worker_state AS text
    CHECK (VALUE IN ('spawning', 'initializing', 'active', 'draining', 'terminating', 'terminated'));
COMMENT ON DOMAIN gpu_orch.worker_state IS 'Where a worker stands; the legal moves are in worker_transition';

CREATE DOMAIN gpu_orch.op_state AS text
    CHECK (VALUE IN ('planned', 'sent', 'unknown', 'done', 'refused', 'absent'));
COMMENT ON DOMAIN gpu_orch.op_state IS
    'Where a call to the provider stands: announced, on its way, of unknown outcome, effective, refused, or settled as without effect';
-- Matching of capabilities against requirements.

CREATE FUNCTION gpu_orch.satisfies(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_satisfies';
COMMENT ON FUNCTION gpu_orch.satisfies(jsonb, jsonb, text) IS
    'Whether a worker with these capabilities may take a task with these requirements and of this kind';

CREATE FUNCTION gpu_orch.match_reasons(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_match_reasons';
COMMENT ON FUNCTION gpu_orch.match_reasons(jsonb, jsonb, text) IS
    'Why satisfies() says no: each mismatch as a sentence; an empty array when it says yes';

CREATE FUNCTION gpu_orch.match_keys(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_match_keys';
COMMENT ON FUNCTION gpu_orch.match_keys(jsonb, jsonb, text) IS
    'The requirement that each reason of match_reasons() is about, in the same order';

REVOKE ALL ON FUNCTION gpu_orch.satisfies(jsonb, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION gpu_orch.match_reasons(jsonb, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION gpu_orch.match_keys(jsonb, jsonb, text) FROM PUBLIC;
-- Base tables: private, singular. The views of 60_views.sql are the public side.
-- ready_queue, lease, attempt and task carry no foreign keys and no triggers: they are the hot path.

-- Work -----------------------------------------------------------------------------------------

CREATE TABLE gpu_orch.tenant (
    id          int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name <> 'default'),
    max_running int CHECK (max_running >= 0),
    weight      numeric NOT NULL DEFAULT 1 CHECK (weight > 0),
    created_at  timestamptz NOT NULL
);
COMMENT ON TABLE gpu_orch.tenant IS
    'Who the work is for, how much of it may run at once, and its share; tenant 0, "default", is unlimited, has weight 1 and no row';

CREATE TABLE gpu_orch.tenant_grant (
    tenant int NOT NULL REFERENCES gpu_orch.tenant ON DELETE CASCADE,
    role   name NOT NULL,
    PRIMARY KEY (tenant, role)
);
COMMENT ON TABLE gpu_orch.tenant_grant IS 'Which role may submit for which tenant';

CREATE TABLE gpu_orch.shape (
    id           bigint NOT NULL,
    form         text NOT NULL,
    kind         text NOT NULL,
    requirements jsonb NOT NULL,
    isolation    text,
    created_at   timestamptz NOT NULL
);
-- Not unique: two submitters of the same new shape must not wait for each other.
CREATE INDEX shape_id ON gpu_orch.shape (id);
COMMENT ON TABLE gpu_orch.shape IS
    'Requirement classes; the id is 64 bits of the SHA-256 of the canonical form, which is compared on use';

CREATE TABLE gpu_orch.task (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    shape           bigint NOT NULL,
    tenant          int NOT NULL,
    priority        int NOT NULL,
    max_attempts    int NOT NULL,
    submitted_at    timestamptz NOT NULL,
    run_at          timestamptz,
    timeout         interval,
    kind            text NOT NULL,
    submitted_by    name NOT NULL,
    idempotency_key text,
    traceparent     text,
    requirements    jsonb NOT NULL,
    payload         jsonb NOT NULL
);
CREATE UNIQUE INDEX task_idempotency_key ON gpu_orch.task (tenant, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
COMMENT ON TABLE gpu_orch.task IS 'One row for each task, never changed once submitted';

CREATE TABLE gpu_orch.task_dependency (
    task_id bigint NOT NULL,
    parent  bigint NOT NULL,
    PRIMARY KEY (task_id, parent)
);
CREATE INDEX task_dependency_parent ON gpu_orch.task_dependency (parent);
COMMENT ON TABLE gpu_orch.task_dependency IS 'Which tasks a task waits for';

CREATE TABLE gpu_orch.waiting (
    task_id  bigint PRIMARY KEY,
    state    gpu_orch.waiting_state NOT NULL,
    due_at   timestamptz,
    shape    bigint NOT NULL,
    tenant   int NOT NULL,
    priority int NOT NULL,
    attempt  int NOT NULL,
    faults   int NOT NULL,
    losses   int NOT NULL,
    tag      bigint NOT NULL,
    since    timestamptz NOT NULL,
    CHECK ((state = 'scheduled') = (due_at IS NOT NULL))
);
CREATE INDEX waiting_due ON gpu_orch.waiting (due_at) WHERE state = 'scheduled';
CREATE INDEX waiting_held ON gpu_orch.waiting (tenant, priority DESC, task_id) WHERE state = 'held';
CREATE INDEX waiting_blocked ON gpu_orch.waiting (task_id) WHERE state = 'blocked';
COMMENT ON TABLE gpu_orch.waiting IS 'Tasks that are not claimable yet: before their time, behind other tasks, or beyond a limit';

CREATE TABLE gpu_orch.ready_queue (
    shape   bigint NOT NULL,
    task_id bigint NOT NULL,
    rank    int NOT NULL,
    tag     bigint NOT NULL,
    tenant  int NOT NULL,
    attempt int NOT NULL,
    faults  int NOT NULL,
    losses  int NOT NULL
);
CREATE INDEX ready_queue_head ON gpu_orch.ready_queue (shape, rank, tag, task_id);
CREATE UNIQUE INDEX ready_queue_task ON gpu_orch.ready_queue (task_id);
COMMENT ON TABLE gpu_orch.ready_queue IS
    'One row for each claimable task: rank is ~priority, so that the lower goes first, tag its fair share, attempt the number that the next claim gets, faults and losses what came before';

CREATE TABLE gpu_orch.lease (
    task_id          bigint PRIMARY KEY,
    id               uuid NOT NULL,
    worker           bigint NOT NULL,
    shape            bigint NOT NULL,
    tenant           int NOT NULL,
    priority         int NOT NULL,
    attempt          int NOT NULL,
    faults           int NOT NULL,
    losses           int NOT NULL,
    tag              bigint NOT NULL,
    claimed_at       timestamptz NOT NULL,
    deadline         timestamptz,
    claimed_after    uuid,
    cancel_requested boolean NOT NULL DEFAULT false,
    progress         real,
    stage            text,
    progress_at      timestamptz
) WITH (fillfactor = 80);
CREATE INDEX lease_worker ON gpu_orch.lease (worker);
CREATE INDEX lease_tenant ON gpu_orch.lease (tenant) WHERE tenant <> 0;
CREATE INDEX lease_deadline ON gpu_orch.lease (deadline) WHERE deadline IS NOT NULL;
COMMENT ON TABLE gpu_orch.lease IS
    'One row for each running attempt; the random id is the fencing token, claimed_after the lease whose completion took this one';

CREATE TABLE gpu_orch.attempt (
    task_id     bigint NOT NULL,
    attempt     int NOT NULL,
    worker      bigint,
    lease       uuid,
    claimed_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    outcome     gpu_orch.attempt_outcome NOT NULL,
    failure     gpu_orch.failure_class,
    final_state gpu_orch.final_state,
    error       text,
    result      jsonb,
    PRIMARY KEY (task_id, attempt)
);
COMMENT ON TABLE gpu_orch.attempt IS
    'One row for each ended attempt; the last one carries the task''s result and final state. A task cancelled before it ran has a row without a lease';

-- Fleet ----------------------------------------------------------------------------------------

CREATE TABLE gpu_orch.pool (
    id                 int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name               text NOT NULL,
    image              text NOT NULL,
    gpu_types          text[] NOT NULL,
    min_workers        int NOT NULL CHECK (min_workers >= 0),
    max_workers        int NOT NULL CHECK (max_workers BETWEEN 0 AND 100000),
    provider           text NOT NULL DEFAULT 'runpod' CHECK (provider = 'runpod'),
    cloud_type         text NOT NULL DEFAULT 'SECURE' CHECK (cloud_type IN ('SECURE', 'COMMUNITY')),
    data_centers       text[] NOT NULL DEFAULT '{}',
    gpu_count          int NOT NULL DEFAULT 1 CHECK (gpu_count BETWEEN 1 AND 64),
    container_disk_gb  int CHECK (container_disk_gb > 0),
    volume_id          text,
    volume_mount_path  text,
    env                jsonb NOT NULL DEFAULT '{}',
    ports              text[] NOT NULL DEFAULT '{}' CHECK (array_position(ports, NULL) IS NULL),
    args               text,
    template_id        text,
    registry_id        text,
    min_cuda_version   text,
    capabilities       jsonb,
    policy             text NOT NULL DEFAULT 'queue_ratio' CHECK (policy IN ('queue_ratio', 'one_to_one', 'fixed')),
    policy_options     jsonb NOT NULL DEFAULT '{}',
    idle_timeout       interval NOT NULL DEFAULT '5 minutes' CHECK (idle_timeout >= '0'),
    heartbeat_timeout  interval CHECK (heartbeat_timeout > '0'),
    spawn_timeout      interval NOT NULL DEFAULT '10 minutes' CHECK (spawn_timeout > '0'),
    drain_timeout      interval NOT NULL DEFAULT '10 minutes' CHECK (drain_timeout >= '0'),
    max_worker_age     interval CHECK (max_worker_age >= '0'),
    idle_buffer        int NOT NULL DEFAULT 0 CHECK (idle_buffer >= 0),
    max_price_per_hour numeric CHECK (max_price_per_hour > 0 AND max_price_per_hour <= 1000000),
    budget_per_hour    numeric CHECK (budget_per_hour BETWEEN 0 AND 1000000),
    budget_per_day     numeric CHECK (budget_per_day BETWEEN 0 AND 1000000),
    last_scale_in      timestamptz,
    created_at         timestamptz NOT NULL,
    dropped_at         timestamptz,
    CHECK (min_workers <= max_workers OR max_workers = 0)
);
CREATE UNIQUE INDEX pool_name ON gpu_orch.pool (name) WHERE dropped_at IS NULL;
COMMENT ON TABLE gpu_orch.pool IS 'A desired kind of fleet; a dropped pool stays until its last pod is proved gone, and after that as history';

CREATE TABLE gpu_orch.offer (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    pool            int NOT NULL REFERENCES gpu_orch.pool ON DELETE CASCADE,
    ordinal         int NOT NULL,
    gpu_type        text NOT NULL,
    data_center     text,
    gpu_count       int NOT NULL,
    cloud_type      text NOT NULL,
    price_micros    bigint CHECK (price_micros > 0),
    price_at        timestamptz,
    backoff_until   timestamptz,
    refusals        int NOT NULL DEFAULT 0,
    UNIQUE (pool, ordinal) DEFERRABLE,
    UNIQUE NULLS NOT DISTINCT (pool, gpu_type, data_center)
);
COMMENT ON TABLE gpu_orch.offer IS
    'Where a pool''s pods may be rented, in order of preference; the price is for a whole pod, in millionths of a dollar per hour';

CREATE TABLE gpu_orch.offer_stats (
    pool        int NOT NULL REFERENCES gpu_orch.pool ON DELETE CASCADE,
    gpu_type    text NOT NULL,
    data_center text NOT NULL,
    ready       float8 NOT NULL DEFAULT 0,
    failed      float8 NOT NULL DEFAULT 0,
    no_capacity float8 NOT NULL DEFAULT 0,
    stats_at    timestamptz NOT NULL,
    boots       float8[] NOT NULL DEFAULT '{}',
    boot_p95    float8,
    refused_for text CHECK (refused_for IN ('capacity', 'invalid')),
    refused_at  timestamptz,
    refusal     text,
    PRIMARY KEY (pool, gpu_type, data_center)
);
COMMENT ON TABLE gpu_orch.offer_stats IS
    'What was learned of each offer (data center '''': any): pods that came up, pods that failed and refusals, as much as they were worth at stats_at, the last boot times in seconds, and the last refusal';

CREATE TABLE gpu_orch.image_breaker (
    image      text PRIMARY KEY,
    state      text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures   int NOT NULL,
    must_work  boolean NOT NULL,
    canaries   int NOT NULL,
    last_cause text,
    opened_at  timestamptz,
    retry_at   timestamptz,
    canary     bigint
);
COMMENT ON TABLE gpu_orch.image_breaker IS
    'Images whose pods failed in a row, and whether any more are created of them: only one at a time, the canary, while the breaker is open';

CREATE TABLE gpu_orch.worker (
    no             bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id             text NOT NULL,
    origin         text NOT NULL CHECK (origin IN ('cloud', 'external')),
    pool           int,
    state          gpu_orch.worker_state NOT NULL,
    state_since    timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    epoch          int NOT NULL DEFAULT 0,
    session_digest bytea,
    capset         bigint,
    last_heartbeat timestamptz,
    busy_at        timestamptz
) WITH (fillfactor = 50);
-- A name may return once the worker that had it is terminated.
CREATE UNIQUE INDEX worker_id ON gpu_orch.worker (id) WHERE state <> 'terminated';
CREATE INDEX worker_pool ON gpu_orch.worker (pool, no);
CREATE INDEX worker_live ON gpu_orch.worker (pool) WHERE state <> 'terminated';
COMMENT ON TABLE gpu_orch.worker IS
    'Processes that claim tasks. Narrow, so that a heartbeat is one HOT update; busy_at is when it last held a lease, to the second';

CREATE TABLE gpu_orch.worker_profile (
    worker              bigint PRIMARY KEY REFERENCES gpu_orch.worker ON DELETE CASCADE,
    capabilities        jsonb NOT NULL DEFAULT '{}',
    stats               jsonb,
    pod_id              text,
    registration_digest bytea,
    bound_pod_id        text,
    gpu_type            text,
    data_center         text,
    price_micros        bigint,
    registered_at       timestamptz,
    draining_for        text,
    ended_because       text,
    image               text,
    boot_expected       float8,
    booted_in           float8,
    no_runtime          boolean NOT NULL DEFAULT false,
    passed_since        timestamptz,
    learned             smallint NOT NULL DEFAULT 0
);
CREATE INDEX worker_profile_pod ON gpu_orch.worker_profile (pod_id) WHERE pod_id IS NOT NULL;
-- Until all is learned of a pod: that it came up (1), that it took a task (2), how it ended (3).
CREATE INDEX worker_profile_learning ON gpu_orch.worker_profile (worker) WHERE image IS NOT NULL AND learned < 3;
COMMENT ON TABLE gpu_orch.worker_profile IS 'The wide and rarely changed part of a worker';

CREATE TABLE gpu_orch.worker_transition (
    rule       int PRIMARY KEY,
    from_state gpu_orch.worker_state NOT NULL,
    to_state   gpu_orch.worker_state NOT NULL,
    origin     text NOT NULL,
    cause      text NOT NULL,
    comment    text NOT NULL
);
COMMENT ON TABLE gpu_orch.worker_transition IS 'The legal moves of a worker; events name the rule that fired';

CREATE FUNCTION gpu_orch.worker_rules(OUT rule int, OUT from_state text, OUT to_state text,
                                      OUT origin text, OUT cause text, OUT comment text)
    RETURNS SETOF record
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_worker_rules';
COMMENT ON FUNCTION gpu_orch.worker_rules() IS 'The legal moves of a worker as the library knows them';

INSERT INTO gpu_orch.worker_transition SELECT * FROM gpu_orch.worker_rules();

CREATE TABLE gpu_orch.cloud_op (
    id           bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('create', 'delete')),
    state        gpu_orch.op_state NOT NULL,
    nonce        text NOT NULL UNIQUE,
    worker       bigint,
    pool         int,
    offer        bigint,
    pod_name     text NOT NULL,
    pod_id       text,
    gpu_type     text,
    data_center  text,
    gpu_count    int,
    cloud_type   text,
    price_micros bigint CHECK (price_micros > 0),
    price_assumed boolean NOT NULL DEFAULT false,
    decision     bigint,
    epoch        bigint,
    tries        int NOT NULL DEFAULT 0,
    due_at       timestamptz,
    absent_looks int NOT NULL DEFAULT 0,
    absent_since timestamptz,
    denied_at    timestamptz,
    planned_at   timestamptz NOT NULL,
    sent_at      timestamptz,
    answered_at  timestamptz,
    settled_at   timestamptz,
    http_status  int,
    reason       text,
    message      text,
    requested_by name,
    cause        text,
    verified     boolean NOT NULL DEFAULT false
);
CREATE INDEX cloud_op_open ON gpu_orch.cloud_op (state) WHERE state IN ('planned', 'sent', 'unknown');
CREATE INDEX cloud_op_worker ON gpu_orch.cloud_op (worker);
CREATE INDEX cloud_op_pod_name ON gpu_orch.cloud_op (pod_name) WHERE kind = 'create';
CREATE INDEX cloud_op_sent ON gpu_orch.cloud_op (sent_at) WHERE kind = 'create';
CREATE INDEX cloud_op_deletes ON gpu_orch.cloud_op (pod_id) WHERE kind = 'delete';
CREATE INDEX cloud_op_unverified ON gpu_orch.cloud_op (pod_id) WHERE NOT verified AND pod_id IS NOT NULL;
COMMENT ON COLUMN gpu_orch.cloud_op.cause IS
    'Why, where no decision asked for it: of a delete the cause that ended the worker, or the kind of event that told of the pod; of a create only that its rows were restored';
COMMENT ON COLUMN gpu_orch.cloud_op.requested_by IS 'The operator that asked for it; null: nobody did, it was decided or followed';
COMMENT ON COLUMN gpu_orch.cloud_op.verified IS
    'The provider itself showed the pod_id under the op''s pod_name; without that no delete is sent';
COMMENT ON COLUMN gpu_orch.cloud_op.denied_at IS
    'When the provider, asked for the pod of an answered delete alone, first had none, and has not shown it to such a question since';
COMMENT ON TABLE gpu_orch.cloud_op IS
    'The journal of calls that change something at the provider; a row is committed before its call is made, and stays';

-- Money and record -----------------------------------------------------------------------------

CREATE TABLE gpu_orch.spend (
    id           bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    worker       bigint,
    pool         int,
    pod_id       text,
    price_micros bigint NOT NULL CHECK (price_micros > 0),
    price_from   text NOT NULL DEFAULT 'catalog' CHECK (price_from IN ('assumed', 'catalog', 'provider')),
    started_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    CHECK (ended_at >= started_at),
    CHECK (worker IS NOT NULL OR pod_id IS NOT NULL)
);
CREATE UNIQUE INDEX spend_open ON gpu_orch.spend (worker) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX spend_open_pod ON gpu_orch.spend (pod_id) WHERE ended_at IS NULL AND worker IS NULL;
CREATE INDEX spend_pod ON gpu_orch.spend (pod_id);
CREATE INDEX spend_pool ON gpu_orch.spend (pool, started_at);
CREATE INDEX spend_worker ON gpu_orch.spend (worker);
CREATE INDEX spend_ended ON gpu_orch.spend (ended_at);
COMMENT ON TABLE gpu_orch.spend IS
    'What each pod cost, from when to when, by our clock and the pod''s price; open from the moment its create is sent. Without a worker for a pod that none has';

CREATE TABLE gpu_orch.bill (
    pod_id        text NOT NULL,
    hour          timestamptz NOT NULL,
    amount_micros bigint NOT NULL CHECK (amount_micros >= 0),
    read_at       timestamptz NOT NULL,
    looked_at     timestamptz,
    PRIMARY KEY (pod_id, hour)
);
CREATE INDEX bill_hour ON gpu_orch.bill (hour);
COMMENT ON TABLE gpu_orch.bill IS
    'What the provider bills for each pod of ours and hour, as last read; kept for 90 days. looked_at: the pod was taken for gone, was asked for, and was';

CREATE TABLE gpu_orch.foreign_pod (
    pod_id       text PRIMARY KEY,
    name         text,
    gpu_type     text,
    status       text,
    price_micros bigint,
    first_seen   timestamptz NOT NULL
);
COMMENT ON TABLE gpu_orch.foreign_pod IS
    'The first 1000 pods of the last list that are not this installation''s; for people to see, and never acted on';

CREATE TABLE gpu_orch.budget (
    pool          int REFERENCES gpu_orch.pool ON DELETE CASCADE,
    per           text NOT NULL CHECK (per IN ('hour', 'day', 'month')),
    hard          boolean NOT NULL,
    amount_micros bigint NOT NULL CHECK (amount_micros >= 0),
    set_at        timestamptz NOT NULL,
    UNIQUE NULLS NOT DISTINCT (pool, per, hard)
);
COMMENT ON TABLE gpu_orch.budget IS
    'What may be spent for a pool, or without one for all pods together; those that are options of a pool stand there';

CREATE TABLE gpu_orch.event (
    id         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    kind       text NOT NULL,
    subject    text NOT NULL,
    worker     bigint,
    rule       int,
    from_state text,
    to_state   text,
    actor      name NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX event_worker ON gpu_orch.event (worker) WHERE worker IS NOT NULL;
COMMENT ON TABLE gpu_orch.event IS 'Append-only: what changed in the fleet or its rules, by whom, why';

CREATE TABLE gpu_orch.decision (
    id       bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    pool     int NOT NULL,
    at       timestamptz NOT NULL,
    policy   text NOT NULL,
    desired  int NOT NULL,
    created  int NOT NULL,
    ended    int NOT NULL,
    bound_by text NOT NULL,
    terms    jsonb NOT NULL
);
CREATE INDEX decision_pool ON gpu_orch.decision (pool, id DESC);
COMMENT ON TABLE gpu_orch.decision IS
    'Scaling evaluations that asked for something or differ from the one before, each with all its terms';

CREATE TABLE gpu_orch.alert_rule (
    name    text PRIMARY KEY,
    level   text NOT NULL CHECK (level IN ('warning', 'critical')),
    meaning text NOT NULL,
    action  text NOT NULL
);
COMMENT ON TABLE gpu_orch.alert_rule IS 'What alerts there are, how grave each is, and what to do about it';

INSERT INTO gpu_orch.alert_rule (name, level, meaning, action) VALUES
    ('hold', 'critical', 'This copy of the database is not where the installation was made; it creates and deletes no pods',
     'Find out which copy is to act. If it is this one, call adopt_installation().'),
    ('second_owner', 'critical', 'Another copy of this installation makes pods; this one creates and deletes none any more',
     'Find out which copy is to act, and end the other one. Then call adopt_installation() in the one that stays.'),
    ('budget_hard', 'warning', 'Work waits for pods that a hard budget does not allow',
     'Look at the view budgets. Raise the budget with set_budget() or alter_pool(), or let the work wait.'),
    ('budget_soft', 'warning', 'A soft budget is used up, by what was spent and by what runs until its end',
     'Look at the views budgets and spend_by_pool. Idle buffers are off; nothing else is.'),
    ('delete_owed', 'warning', 'A pod should have been gone for ten minutes and is not proved to be',
     'Look at cloud_ops for what the provider answers, and at the provider''s console.'),
    ('delete_owed_long', 'critical', 'A pod should have been gone for an hour; it is still paid for',
     'End it in the provider''s console; the next reconciling notices.'),
    ('list_not_believed', 'critical', 'The provider''s list differs from the rows by more than kill_cap_percent; nothing is deleted or declared gone for it',
     'Compare the list with the provider''s console. If it is true, set gpu_orch.kill_cap_percent to 100 until it is believed.'),
    ('wrong_account', 'critical', 'The key is of another account than the pods; nothing is created, and no pod is proved gone',
     'Put back a key of the account. If the installation is to move, end its pods first, then call adopt_installation().'),
    ('balance_low', 'warning', 'The account''s balance lasts less than a day at what it spends now', 'Add credit.'),
    ('balance_empty', 'critical', 'The account''s balance is used up; the provider ends pods', 'Add credit.'),
    ('key_refused', 'critical', 'The provider refuses our key, or what we ask with it; no pods are created, and deletes may fail',
     'Put a key of the same account that may write into the key file. Until it has worked, the one before is used.'),
    ('no_money', 'critical', 'The provider creates no pod for want of money, or because of a limit of spending; none is created meanwhile',
     'Add credit, or raise the limit, in the provider''s console. A create is tried now and then.'),
    ('rate_limited', 'warning', 'The provider has answered several times in a row that we ask too much',
     'Lower gpu_orch.api_concurrency, or look for what else uses the account.'),
    ('image_broken', 'critical', 'Pods of an image failed in a row; only one at a time is still created of it, to find out whether it is mended',
     'Look at the logs of its pods. alter_pool() of a pool that uses it, with another image or with {}, has the next pod tried at once.'),
    ('request_refused', 'critical', 'Every offer of a pool says that the request itself is wrong; nothing is created for it any more',
     'Correct the pool''s options with alter_pool(), which also has it tried again.'),
    ('poisoned_row', 'critical', 'The row of a pool or a worker makes no sense; nothing is created, or ended for want of demand, by that row, and all others go on',
     'Set what is wrong with alter_pool(), or mend the row of the worker by hand. It may come from an edit by hand, or from a later version.'),
    ('no_capacity', 'warning', 'No offer of a pool has a machine',
     'Wait, or give the pool more GPU types or data centers with alter_pool().'),
    ('price_unknown', 'warning', 'The provider''s catalog names no price for pods that are announced or run; they count as the dearest that they may be',
     'Look at the view offers. Set max_price_per_hour for the pool, which keeps it to offers with a known price.'),
    ('billing_mismatch', 'warning', 'What the provider bills for our pods in a day, and what we counted, differ by more than two percent and a cent',
     'Look at the view billing for the pods that differ, and at the provider''s console.');

CREATE TABLE gpu_orch.alert (
    id         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    subject    text NOT NULL,
    detail     text NOT NULL,
    raised_at  timestamptz NOT NULL,
    cleared_at timestamptz CHECK (cleared_at >= raised_at)
);
CREATE UNIQUE INDEX alert_open ON gpu_orch.alert (name, subject) WHERE cleared_at IS NULL;
COMMENT ON TABLE gpu_orch.alert IS 'What somebody should look at or should have looked at, and from when to when';

CREATE TABLE gpu_orch.installation (
    one               boolean PRIMARY KEY DEFAULT true CHECK (one),
    id                text NOT NULL,
    epoch             int NOT NULL DEFAULT 1,
    leader_epoch      bigint NOT NULL DEFAULT 0,
    system_identifier text NOT NULL,
    database          oid NOT NULL,
    timeline          int,
    site              text,
    host              text,
    taken_over_at     timestamptz,
    hold              boolean NOT NULL DEFAULT false,
    hold_reason       text,
    paused            boolean NOT NULL DEFAULT false,
    account           text,
    killing_since     timestamptz,
    created_at        timestamptz NOT NULL
);
COMMENT ON TABLE gpu_orch.installation IS
    'Who we are to the provider, where this copy of the database acts (site and host are digests), and whether it may';

CREATE TABLE gpu_orch.installation_secret (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret bytea NOT NULL
);
COMMENT ON TABLE gpu_orch.installation_secret IS 'What the registration tokens of pods are computed from; for nobody to read';

-- What users own goes into dumps; the moves of a worker come with the extension.
DO $dump$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['tenant', 'tenant_grant', 'shape', 'task', 'task_dependency', 'waiting',
                                    'ready_queue', 'lease', 'attempt', 'pool', 'offer', 'offer_stats', 'image_breaker', 'worker',
                                    'worker_profile', 'cloud_op', 'spend', 'bill', 'budget', 'event', 'decision', 'alert', 'installation',
                                    'installation_secret',
                                    'tenant_id_seq', 'task_id_seq', 'pool_id_seq', 'offer_id_seq', 'worker_no_seq',
                                    'cloud_op_id_seq', 'spend_id_seq', 'event_id_seq', 'decision_id_seq', 'alert_id_seq']
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump('gpu_orch.' OPERATOR(pg_catalog.||) relation, '');
    END LOOP;
END
$dump$;
-- For applications.

CREATE FUNCTION gpu_orch.submit_task(
        kind text, payload jsonb DEFAULT '{}', requirements jsonb DEFAULT '{}', priority int DEFAULT 0,
        tenant text DEFAULT 'default', run_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 3,
        timeout interval DEFAULT NULL, idempotency_key text DEFAULT NULL, depends_on bigint[] DEFAULT NULL,
        traceparent text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_submit_task';
COMMENT ON FUNCTION gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text) IS
    'Submits a task in the caller''s transaction and returns its id; the same idempotency key returns the first task''s id';

CREATE FUNCTION gpu_orch.submit_tasks(tasks jsonb) RETURNS SETOF bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_submit_tasks';
COMMENT ON FUNCTION gpu_orch.submit_tasks(jsonb) IS
    'Submits an array of tasks, objects with the argument names of submit_task() as keys, and returns their ids in order; all or none';

CREATE FUNCTION gpu_orch.cancel_task(task_id bigint) RETURNS boolean
    LANGUAGE C VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_cancel_task';
COMMENT ON FUNCTION gpu_orch.cancel_task(bigint) IS
    'Cancels a task, or asks the worker that runs it to stop; false when it had ended before';

CREATE FUNCTION gpu_orch.retry_task(task_id bigint) RETURNS boolean
    LANGUAGE C VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_retry_task';
COMMENT ON FUNCTION gpu_orch.retry_task(bigint) IS
    'Admits a failed or cancelled task again with a new budget of attempts; false when it is neither';

CREATE FUNCTION gpu_orch.may_use_tenant(tenant int) RETURNS boolean
    LANGUAGE C STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_may_use_tenant';
COMMENT ON FUNCTION gpu_orch.may_use_tenant(int) IS
    'Whether the calling role may submit and see tasks of a tenant';

CREATE FUNCTION gpu_orch.admit() RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_admit';
COMMENT ON FUNCTION gpu_orch.admit() IS
    'Releases the tasks that need not wait any longer, as the leader does at each tick; returns how many rows moved';

-- For workers.

CREATE TYPE gpu_orch.claimed_task AS (
    task_id      bigint,
    lease        uuid,
    attempt      int,
    kind         text,
    payload      jsonb,
    requirements jsonb,
    priority     int,
    tenant       text,
    deadline     timestamptz,
    traceparent  text
);
COMMENT ON TYPE gpu_orch.claimed_task IS 'A task as its worker gets it; the lease proves that the worker holds it';

CREATE TYPE gpu_orch.worker_session AS (
    worker_id          text,
    token              text,
    heartbeat_interval interval,
    pool               text
);
COMMENT ON TYPE gpu_orch.worker_session IS 'What a worker is told when it registers; the token is shown this once';

CREATE FUNCTION gpu_orch.register_worker(
        worker_id text, token text DEFAULT NULL, capabilities jsonb DEFAULT '{}', pool text DEFAULT NULL,
        pod_id text DEFAULT NULL)
    RETURNS gpu_orch.worker_session
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_register_worker';
COMMENT ON FUNCTION gpu_orch.register_worker(text, text, jsonb, text, text) IS
    'Begins a session of a worker: revokes the last one, releases its leases, and returns the token for all other calls';

CREATE FUNCTION gpu_orch.heartbeat(
        worker_id text, token text, stats jsonb DEFAULT NULL, holding uuid[] DEFAULT NULL,
        acked bigint DEFAULT NULL,
        OUT directive text, OUT cancelled bigint[], OUT messages jsonb)
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_heartbeat';
COMMENT ON FUNCTION gpu_orch.heartbeat(text, text, jsonb, uuid[], bigint) IS
    'Says that a worker lives and which leases it holds; returns what it should do (continue, drain, stop) and which tasks to abandon';

-- Claims and completions pin the search_path in C, where they run a statement at all: see spi_may_pin().

CREATE FUNCTION gpu_orch.claim_tasks(worker_id text, token text, max_tasks int DEFAULT 1)
    RETURNS SETOF gpu_orch.claimed_task
    LANGUAGE C VOLATILE ROWS 1 SECURITY DEFINER
    AS 'MODULE_PATHNAME', 'gpu_orch_claim_tasks';
COMMENT ON FUNCTION gpu_orch.claim_tasks(text, text, int) IS
    'Leases up to max_tasks of the tasks that the worker can do, best first';

CREATE FUNCTION gpu_orch.complete_task(worker_id text, token text, task_id bigint, lease uuid,
                                       result jsonb DEFAULT NULL)
    RETURNS boolean
    LANGUAGE C VOLATILE SECURITY DEFINER
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_task';
COMMENT ON FUNCTION gpu_orch.complete_task(text, text, bigint, uuid, jsonb) IS
    'Ends an attempt with its result; false when the lease is no longer this worker''s, true again when repeated';

CREATE FUNCTION gpu_orch.complete_tasks(
        worker_id text, token text, task_ids bigint[], leases uuid[], results jsonb[] DEFAULT NULL)
    RETURNS SETOF bigint
    LANGUAGE C VOLATILE SECURITY DEFINER
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_tasks';
COMMENT ON FUNCTION gpu_orch.complete_tasks(text, text, bigint[], uuid[], jsonb[]) IS
    'Ends many running attempts as succeeded in one commit; returns the tasks for which complete_task() would be true';

CREATE FUNCTION gpu_orch.fail_task(worker_id text, token text, task_id bigint, lease uuid, error text,
                                   failure text DEFAULT 'task', retry boolean DEFAULT true)
    RETURNS boolean
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_fail_task';
COMMENT ON FUNCTION gpu_orch.fail_task(text, text, bigint, uuid, text, text, boolean) IS
    'Ends an attempt as failed by the task, by the platform, or rejected for good; the task is retried where that may help';

CREATE FUNCTION gpu_orch.release_task(worker_id text, token text, task_id bigint, lease uuid)
    RETURNS boolean
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_release_task';
COMMENT ON FUNCTION gpu_orch.release_task(text, text, bigint, uuid) IS
    'Gives a task back to its place, at no cost to its attempts';

CREATE FUNCTION gpu_orch.progress_task(worker_id text, token text, task_id bigint, lease uuid,
                                       fraction real DEFAULT NULL, stage text DEFAULT NULL)
    RETURNS boolean
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_progress_task';
COMMENT ON FUNCTION gpu_orch.progress_task(text, text, bigint, uuid, real, text) IS
    'Notes how far a running attempt is; false when the lease is no longer this worker''s';

CREATE FUNCTION gpu_orch.complete_and_claim(worker_id text, token text, task_id bigint, lease uuid,
                                            result jsonb DEFAULT NULL, max_tasks int DEFAULT 1)
    RETURNS SETOF gpu_orch.claimed_task
    LANGUAGE C VOLATILE ROWS 1 SECURITY DEFINER
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_and_claim';
COMMENT ON FUNCTION gpu_orch.complete_and_claim(text, text, bigint, uuid, jsonb, int) IS
    'Completes a task and claims the next ones in one commit; fenced it raises GO001, repeated it returns what the first call claimed';
-- For operators.

CREATE FUNCTION gpu_orch.create_pool(name text, image text, gpu_types text[], min_workers int DEFAULT 0,
                                     max_workers int DEFAULT 10, options jsonb DEFAULT '{}')
    RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_create_pool';
COMMENT ON FUNCTION gpu_orch.create_pool(text, text, text[], int, int, jsonb) IS
    'Adds a pool: which image to run on which GPU types, in order of preference, and how many workers it may have';

CREATE FUNCTION gpu_orch.alter_pool(name text, options jsonb) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_alter_pool';
COMMENT ON FUNCTION gpu_orch.alter_pool(text, jsonb) IS
    'Changes options of a pool; what runs already keeps its pod';

CREATE FUNCTION gpu_orch.drop_pool(name text) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_drop_pool';
COMMENT ON FUNCTION gpu_orch.drop_pool(text) IS
    'Drops a pool: its workers finish what they hold and their pods are deleted';

CREATE FUNCTION gpu_orch.spawn_worker(pool text, count int DEFAULT 1) RETURNS SETOF text
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_spawn_worker';
COMMENT ON FUNCTION gpu_orch.spawn_worker(text, int) IS
    'Announces pods outside of the pool''s policy but within its limits, and returns the ids of their workers';

CREATE FUNCTION gpu_orch.drain_worker(worker_id text) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_drain_worker';
COMMENT ON FUNCTION gpu_orch.drain_worker(text) IS
    'Lets a worker finish what it holds and gives it nothing new; its pod is deleted afterwards';

CREATE FUNCTION gpu_orch.terminate_worker(worker_id text, force boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_terminate_worker';
COMMENT ON FUNCTION gpu_orch.terminate_worker(text, boolean) IS
    'Ends a worker and its pod now; one that is running tasks only by force, and its tasks go back to their places';

CREATE FUNCTION gpu_orch.create_tenant(name text, max_running int DEFAULT NULL, weight numeric DEFAULT 1) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_create_tenant';
COMMENT ON FUNCTION gpu_orch.create_tenant(text, int, numeric) IS
    'Adds a tenant; max_running is how many of its tasks may run at once, null for no limit, weight its share beside the others';

CREATE FUNCTION gpu_orch.alter_tenant(name text, max_running int, weight numeric DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_alter_tenant';
COMMENT ON FUNCTION gpu_orch.alter_tenant(text, int, numeric) IS
    'Changes how many of a tenant''s tasks may run at once, null for no limit, and its share, null to leave it; tasks that are ready keep their places';

CREATE FUNCTION gpu_orch.grant_tenant(tenant text, role name) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_grant_tenant';
COMMENT ON FUNCTION gpu_orch.grant_tenant(text, name) IS
    'Lets a role, and the members of it, submit for a tenant';

CREATE FUNCTION gpu_orch.revoke_tenant(tenant text, role name) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_revoke_tenant';
COMMENT ON FUNCTION gpu_orch.revoke_tenant(text, name) IS
    'Takes back what grant_tenant() gave';

CREATE FUNCTION gpu_orch.set_budget(pool text, per text, amount numeric, hard boolean DEFAULT true) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_set_budget';
COMMENT ON FUNCTION gpu_orch.set_budget(text, text, numeric, boolean) IS
    'Sets how many dollars a pool, or with null all pods together, may cost per hour, day or month; null removes the budget';

CREATE FUNCTION gpu_orch.pause() RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_pause';
COMMENT ON FUNCTION gpu_orch.pause() IS
    'Stops the creation of pods; tasks are served and pods are deleted as before';

CREATE FUNCTION gpu_orch.resume() RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_resume';
COMMENT ON FUNCTION gpu_orch.resume() IS
    'Goes on creating pods after pause() or kill_fleet()';

CREATE FUNCTION gpu_orch.kill_fleet() RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_kill_fleet';
COMMENT ON FUNCTION gpu_orch.kill_fleet() IS
    'Ends every pod of ours, those that show up later too, and creates none until resume(); returns how many deletes are owed now';

CREATE FUNCTION gpu_orch.adopt_installation() RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_adopt_installation';
COMMENT ON FUNCTION gpu_orch.adopt_installation() IS
    'Makes this copy of the database the one that acts for the fleet; call it only where the original is gone';

CREATE FUNCTION gpu_orch.run_cycle(dry_run boolean DEFAULT false) RETURNS jsonb
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_run_cycle';
COMMENT ON FUNCTION gpu_orch.run_cycle(boolean) IS
    'Has the leader run one cycle and waits for it; with dry_run it decides here and changes nothing';

CREATE FUNCTION gpu_orch.reconcile_now() RETURNS jsonb
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_reconcile_now';
COMMENT ON FUNCTION gpu_orch.reconcile_now() IS
    'Has the leader compare the provider''s pods with our rows and waits for the outcome';

CREATE FUNCTION gpu_orch.explain_scaling(pool text, OUT term text, OUT value numeric, OUT bound boolean,
                                         OUT note text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_explain_scaling';
COMMENT ON FUNCTION gpu_orch.explain_scaling(text) IS
    'What would be decided for a pool now, and every number that enters the decision; bound marks the one that decided';

CREATE FUNCTION gpu_orch.leader_status(
        OUT preloaded boolean, OUT pid int, OUT doing text, OUT started_at timestamptz,
        OUT last_tick timestamptz, OUT ticks bigint, OUT memory_bytes bigint, OUT failed_starts int,
        OUT last_error text, OUT last_error_at timestamptz, OUT api_ok boolean, OUT api_error text,
        OUT api_last_success timestamptz, OUT api_retry_at timestamptz, OUT last_reconcile timestamptz)
    LANGUAGE C VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'gpu_orch_leader_status';
COMMENT ON FUNCTION gpu_orch.leader_status() IS
    'What the leader says of itself and of the provider, from shared memory; pid is null where no leader runs';
-- The public side of the tables. Each view is owned by the extension's owner and granted to roles; none
-- shows a token, a digest or an environment variable.

CREATE FUNCTION gpu_orch.dollars(micros bigint, "from" timestamptz, until timestamptz) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN round(micros * extract(epoch FROM until - "from") / 3600 / 1000000, 6);
COMMENT ON FUNCTION gpu_orch.dollars(bigint, timestamptz, timestamptz) IS
    'What a price in millionths of a dollar per hour comes to between two times';

CREATE VIEW gpu_orch.tasks AS
SELECT t.id AS task_id,
       CASE WHEN l.task_id IS NOT NULL THEN 'running'
            WHEN w.task_id IS NOT NULL THEN w.state
            WHEN r.task_id IS NOT NULL THEN 'ready'
            ELSE a.final_state END AS state,
       t.kind, t.priority, coalesce(n.name, 'default') AS tenant,
       ((SELECT count(*) FROM gpu_orch.attempt e WHERE e.task_id = t.id AND e.lease IS NOT NULL)
        + CASE WHEN l.task_id IS NULL THEN 0 ELSE 1 END)::int AS attempts, t.max_attempts,
       wk.id AS worker,
       l.progress, l.stage, coalesce(l.cancel_requested, false) AS cancel_requested,
       a.result, a.error,
       t.payload, t.requirements,
       t.submitted_at, coalesce(w.due_at, t.run_at) AS run_at,
       coalesce(l.claimed_at, a.claimed_at) AS started_at,
       CASE WHEN l.task_id IS NULL AND w.task_id IS NULL AND r.task_id IS NULL THEN a.ended_at END AS ended_at,
       l.deadline, t.timeout,
       (SELECT sum(gpu_orch.dollars(s.price_micros, greatest(s.started_at, x.claimed_at),
                                    least(coalesce(s.ended_at, x.ended_at), x.ended_at)))
        FROM (SELECT e.worker, e.claimed_at, e.ended_at FROM gpu_orch.attempt e WHERE e.task_id = t.id
              UNION ALL SELECT l.worker, l.claimed_at, gpu_orch.clock() WHERE l.task_id IS NOT NULL) x
        JOIN gpu_orch.spend s ON s.worker = x.worker AND s.started_at < x.ended_at
                             AND (s.ended_at IS NULL OR s.ended_at > x.claimed_at)) AS cost,
       t.idempotency_key, t.submitted_by, t.traceparent
FROM gpu_orch.task t
LEFT JOIN gpu_orch.lease l ON l.task_id = t.id
LEFT JOIN gpu_orch.waiting w ON w.task_id = t.id
LEFT JOIN gpu_orch.ready_queue r ON r.task_id = t.id
LEFT JOIN gpu_orch.tenant n ON n.id = t.tenant
LEFT JOIN LATERAL (SELECT * FROM gpu_orch.attempt e WHERE e.task_id = t.id ORDER BY e.attempt DESC LIMIT 1) a ON true
LEFT JOIN gpu_orch.worker wk ON wk.no = coalesce(l.worker, a.worker);
COMMENT ON VIEW gpu_orch.tasks IS
    'All tasks with their state, last attempt and cost in dollars; result, error and worker are those of the attempt that ran last';

CREATE FUNCTION gpu_orch.task(task_id bigint) RETURNS SETOF gpu_orch.tasks
    LANGUAGE sql STABLE STRICT ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT v.* FROM gpu_orch.tasks v JOIN gpu_orch.task t ON t.id = v.task_id
        WHERE v.task_id = task.task_id AND gpu_orch.may_use_tenant(t.tenant);
    END;
COMMENT ON FUNCTION gpu_orch.task(bigint) IS
    'One task as in the view tasks; no row for a task that the caller may not see';

CREATE VIEW gpu_orch.attempts AS
SELECT a.task_id, a.attempt, w.id AS worker, a.claimed_at, a.ended_at, a.outcome::text AS outcome,
       a.failure::text AS failure, a.final_state::text AS final_state, a.error
FROM gpu_orch.attempt a LEFT JOIN gpu_orch.worker w ON w.no = a.worker;
COMMENT ON VIEW gpu_orch.attempts IS 'Every ended attempt of every task';

CREATE VIEW gpu_orch.workers AS
SELECT w.id AS worker_id, w.origin, p.name AS pool, w.state::text AS state, w.state_since,
       coalesce(l.held, 0) AS running, w.last_heartbeat, w.busy_at, w.epoch, w.created_at,
       f.registered_at, f.pod_id, f.gpu_type, f.data_center, round(f.price_micros / 1000000.0, 6) AS price_per_hour,
       f.capabilities, f.stats, f.draining_for, f.ended_because
FROM gpu_orch.worker w
JOIN gpu_orch.worker_profile f ON f.worker = w.no
LEFT JOIN gpu_orch.pool p ON p.id = w.pool
LEFT JOIN (SELECT worker, count(*) AS held FROM gpu_orch.lease GROUP BY worker) l ON l.worker = w.no;
COMMENT ON VIEW gpu_orch.workers IS 'All workers that ever were, with their pods and what they run';

CREATE VIEW gpu_orch.pools AS
SELECT p.name AS pool, p.image, p.gpu_types, p.gpu_count, p.cloud_type, p.data_centers, p.min_workers, p.max_workers,
       p.policy, p.policy_options, p.idle_timeout, p.spawn_timeout, p.drain_timeout, p.heartbeat_timeout,
       p.max_worker_age, p.idle_buffer, p.max_price_per_hour, p.budget_per_hour, p.budget_per_day,
       s.spawning, s.initializing, s.active, s.draining, s.terminating,
       (SELECT round(coalesce(sum(x.price_micros), 0) / 1000000.0, 6) FROM gpu_orch.spend x
        WHERE x.pool = p.id AND x.ended_at IS NULL) AS spend_per_hour,
       p.created_at
FROM gpu_orch.pool p,
LATERAL (SELECT count(*) FILTER (WHERE w.state = 'spawning') AS spawning,
                count(*) FILTER (WHERE w.state = 'initializing') AS initializing,
                count(*) FILTER (WHERE w.state = 'active') AS active,
                count(*) FILTER (WHERE w.state = 'draining') AS draining,
                count(*) FILTER (WHERE w.state = 'terminating') AS terminating
         FROM gpu_orch.worker w WHERE w.pool = p.id AND w.state <> 'terminated') s
WHERE p.dropped_at IS NULL;
COMMENT ON VIEW gpu_orch.pools IS 'The pools, their rules, and how many workers they have in each state';

CREATE VIEW gpu_orch.offers AS
SELECT p.name AS pool, o.ordinal, o.gpu_type, o.data_center, p.cloud_type, round(o.price_micros / 1000000.0, 6) AS price_per_hour,
       o.price_at, o.refusals, o.backoff_until, coalesce(o.backoff_until > gpu_orch.clock(), false) AS passed_over,
       round((s.no_capacity * d.rest)::numeric, 2) AS no_capacity, round((s.ready * d.rest)::numeric, 2) AS ready,
       round((s.failed * d.rest)::numeric, 2) AS failed, round((s.failed / nullif(s.ready + s.failed, 0))::numeric, 4) AS failure_share,
       make_interval(secs => s.boot_p95) AS boot_p95, s.refused_for, s.refused_at, s.refusal
FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool
LEFT JOIN gpu_orch.offer_stats s ON s.pool = o.pool AND s.gpu_type = o.gpu_type AND s.data_center = coalesce(o.data_center, '')
LEFT JOIN LATERAL (SELECT 0.5 ^ greatest(extract(epoch FROM gpu_orch.clock() - s.stats_at)::float8 / 7200, 0) AS rest) d ON true
WHERE p.dropped_at IS NULL;
COMMENT ON VIEW gpu_orch.offers IS
    'Where each pool rents, in order of preference, at what price, what is passed over for now, and what was learned of each';

CREATE VIEW gpu_orch.image_breakers AS
SELECT b.image, b.state, b.failures, b.last_cause, b.canaries, b.opened_at, b.retry_at, w.id AS canary,
       ARRAY(SELECT p.name FROM gpu_orch.pool p WHERE p.image = b.image AND p.dropped_at IS NULL ORDER BY p.id) AS pools
FROM gpu_orch.image_breaker b LEFT JOIN gpu_orch.worker w ON w.no = b.canary;
COMMENT ON VIEW gpu_orch.image_breakers IS
    'Images whose last pods failed; while the state is not closed, only one pod at a time is created of an image, from retry_at on';

CREATE VIEW gpu_orch.queue_depth AS
SELECT t.kind, q.state, coalesce(n.name, 'default') AS tenant, q.reason, count(*) AS tasks,
       min(t.submitted_at) AS oldest
FROM (SELECT w.task_id, w.state::text AS state, w.tenant,
             CASE w.state WHEN 'scheduled' THEN 'its time has not come'
                          WHEN 'blocked' THEN 'other tasks must succeed first'
                          ELSE CASE WHEN x.max_running IS NULL THEN 'it is about to be admitted'
                                    ELSE 'its tenant''s limit is reached' END END AS reason
      FROM gpu_orch.waiting w LEFT JOIN gpu_orch.tenant x ON x.id = w.tenant
      UNION ALL
      SELECT r.task_id, 'ready', r.tenant, 'no worker has claimed it yet' FROM gpu_orch.ready_queue r
      UNION ALL
      SELECT l.task_id, 'running', l.tenant, NULL FROM gpu_orch.lease l) q
JOIN gpu_orch.task t ON t.id = q.task_id
LEFT JOIN gpu_orch.tenant n ON n.id = q.tenant
GROUP BY t.kind, q.state, coalesce(n.name, 'default'), q.reason;
COMMENT ON VIEW gpu_orch.queue_depth IS 'Tasks that have not ended, by kind, state and tenant, with the reason why they wait';

CREATE VIEW gpu_orch.task_queue_analysis AS
SELECT q.kind, q.state, sum(q.tasks) AS tasks, min(q.oldest) AS oldest, gpu_orch.clock() - min(q.oldest) AS oldest_age
FROM gpu_orch.queue_depth q GROUP BY q.kind, q.state;
COMMENT ON VIEW gpu_orch.task_queue_analysis IS 'Tasks that have not ended, by kind and state, with the age of the oldest';

CREATE VIEW gpu_orch.orchestrator_status AS
SELECT (SELECT count(*) FROM gpu_orch.waiting) AS waiting,
       (SELECT count(*) FROM gpu_orch.ready_queue) AS queued,
       (SELECT count(*) FROM gpu_orch.lease) AS running,
       count(*) FILTER (WHERE w.state = 'spawning') AS spawning,
       count(*) FILTER (WHERE w.state = 'initializing') AS initializing,
       count(*) FILTER (WHERE w.state = 'active') AS active,
       count(*) FILTER (WHERE w.state = 'draining') AS draining,
       count(*) FILTER (WHERE w.state = 'terminating') AS terminating,
       count(*) FILTER (WHERE w.origin = 'external') AS external,
       (SELECT round(coalesce(sum(s.price_micros), 0) / 1000000.0, 6) FROM gpu_orch.spend s WHERE s.ended_at IS NULL) AS spend_per_hour,
       (SELECT pid IS NOT NULL FROM gpu_orch.leader_status()) AS leader_runs,
       (SELECT api_ok FROM gpu_orch.leader_status()) AS provider_ok,
       gpu_orch.clock() AS as_of
FROM gpu_orch.worker w WHERE w.state <> 'terminated';
COMMENT ON VIEW gpu_orch.orchestrator_status IS 'The installation in one row';

CREATE VIEW gpu_orch.active_workers_health AS
SELECT w.id AS worker_id, p.name AS pool, w.state::text AS state,
       gpu_orch.clock() - w.last_heartbeat AS heartbeat_age,
       l.task_id, l.stage, l.progress, gpu_orch.clock() - l.claimed_at AS running_for,
       CASE WHEN w.state IN ('spawning', 'initializing') THEN 'BOOTING'
            WHEN w.state = 'terminating' THEN 'ENDING'
            WHEN w.last_heartbeat IS NULL THEN 'NO_HEARTBEAT'
            WHEN gpu_orch.clock() - w.last_heartbeat > coalesce(p.heartbeat_timeout,
                 pg_catalog.current_setting('gpu_orch.heartbeat_timeout', true)::interval, '30 s') / 2
                 THEN 'STALE_HEARTBEAT'
            WHEN l.deadline < gpu_orch.clock() THEN 'STUCK_TASK'
            ELSE 'HEALTHY' END AS health,
       f.stats
FROM gpu_orch.worker w
JOIN gpu_orch.worker_profile f ON f.worker = w.no
LEFT JOIN gpu_orch.pool p ON p.id = w.pool
LEFT JOIN LATERAL (SELECT * FROM gpu_orch.lease x WHERE x.worker = w.no ORDER BY x.claimed_at, x.task_id LIMIT 1) l ON true
WHERE w.state <> 'terminated';
COMMENT ON VIEW gpu_orch.active_workers_health IS 'Each worker that is not terminated: how it is, and the task that it has run longest';

CREATE VIEW gpu_orch.recent_task_activity AS
SELECT a.task_id, t.kind, a.attempt, a.outcome::text AS outcome, a.final_state::text AS final_state, w.id AS worker,
       a.claimed_at, a.ended_at, a.ended_at - a.claimed_at AS took, a.error
FROM gpu_orch.attempt a
JOIN gpu_orch.task t ON t.id = a.task_id
LEFT JOIN gpu_orch.worker w ON w.no = a.worker
WHERE a.ended_at > gpu_orch.clock() - interval '24 hours'
ORDER BY a.ended_at DESC LIMIT 100;
COMMENT ON VIEW gpu_orch.recent_task_activity IS 'The last hundred attempts that ended within a day';

CREATE VIEW gpu_orch.worker_performance AS
SELECT w.id AS worker_id, count(*) AS attempts,
       count(*) FILTER (WHERE a.outcome = 'succeeded') AS succeeded,
       round(100.0 * count(*) FILTER (WHERE a.outcome = 'succeeded') / count(*), 1) AS success_percent,
       avg(a.ended_at - a.claimed_at) AS mean_time
FROM gpu_orch.attempt a JOIN gpu_orch.worker w ON w.no = a.worker
WHERE a.ended_at > gpu_orch.clock() - interval '7 days'
GROUP BY w.id;
COMMENT ON VIEW gpu_orch.worker_performance IS 'What each worker did within seven days';

CREATE VIEW gpu_orch.cloud_ops AS
SELECT o.id AS op_id, o.kind, o.state::text AS state, w.id AS worker, p.name AS pool, o.pod_name, o.pod_id, o.gpu_type,
       o.data_center, round(o.price_micros / 1000000.0, 6) AS price_per_hour, o.decision, o.tries, o.due_at, o.planned_at,
       o.sent_at, o.answered_at, o.settled_at, o.http_status, o.reason, o.message, o.requested_by, o.cause
FROM gpu_orch.cloud_op o
LEFT JOIN gpu_orch.worker w ON w.no = o.worker
LEFT JOIN gpu_orch.pool p ON p.id = o.pool;
COMMENT ON VIEW gpu_orch.cloud_ops IS 'The journal of creates and deletes: announced, sent, and how each was settled';

CREATE VIEW gpu_orch.decisions AS
SELECT d.id AS decision, p.name AS pool, d.at, d.policy, d.desired, d.created, d.ended, d.bound_by, d.terms
FROM gpu_orch.decision d JOIN gpu_orch.pool p ON p.id = d.pool;
COMMENT ON VIEW gpu_orch.decisions IS
    'Scaling evaluations that asked for something or differed from the one before, with every term';

CREATE VIEW gpu_orch.events AS
SELECT e.id AS event, e.at, e.kind, e.subject, e.rule, e.from_state, e.to_state, e.actor, e.detail
FROM gpu_orch.event e;
COMMENT ON VIEW gpu_orch.events IS 'What changed in the fleet and its rules, by whom; rule is a row of worker_transition';

CREATE VIEW gpu_orch.alerts AS
SELECT a.name AS alert, r.level, a.subject, a.detail, a.raised_at, a.cleared_at, r.meaning, r.action
FROM gpu_orch.alert a JOIN gpu_orch.alert_rule r ON r.name = a.name;
COMMENT ON VIEW gpu_orch.alerts IS 'What somebody should look at: open while cleared_at is null, with what to do about it';

CREATE VIEW gpu_orch.cost_estimate AS
SELECT w.id AS worker_id, p.name AS pool, s.pod_id, round(s.price_micros / 1000000.0, 6) AS price_per_hour, s.price_from,
       s.started_at, s.ended_at,
       extract(epoch FROM coalesce(s.ended_at, gpu_orch.clock()) - s.started_at) AS seconds,
       gpu_orch.dollars(s.price_micros, s.started_at, coalesce(s.ended_at, gpu_orch.clock())) AS cost
FROM gpu_orch.spend s
LEFT JOIN gpu_orch.worker w ON w.no = s.worker
LEFT JOIN gpu_orch.pool p ON p.id = s.pool;
COMMENT ON VIEW gpu_orch.cost_estimate IS
    'What each pod has cost until now in dollars, counted from the moment its create was sent until its end was answered';

CREATE VIEW gpu_orch.billing AS
SELECT b.pod_id, p.name AS pool, b.hour, round(b.amount_micros / 1000000.0, 6) AS billed, s.counted,
       round(b.amount_micros / 1000000.0, 6) - s.counted AS difference, b.read_at
FROM gpu_orch.bill b
CROSS JOIN LATERAL (
    SELECT max(x.pool) AS pool,
           coalesce(sum(gpu_orch.dollars(x.price_micros, greatest(x.started_at, b.hour),
                                         least(coalesce(x.ended_at, gpu_orch.clock()), b.hour + interval '1 hour'))), 0) AS counted
    FROM gpu_orch.spend x
    WHERE x.pod_id = b.pod_id AND x.started_at < b.hour + interval '1 hour'
          AND coalesce(x.ended_at, gpu_orch.clock()) > b.hour) s
LEFT JOIN gpu_orch.pool p ON p.id = s.pool;
COMMENT ON VIEW gpu_orch.billing IS
    'What the provider bills for each pod and hour in dollars, and what we counted for them; kept for 90 days';

CREATE VIEW gpu_orch.foreign_pods AS
SELECT f.pod_id, f.name, f.gpu_type, f.status, round(f.price_micros / 1000000.0, 6) AS price_per_hour, f.first_seen
FROM gpu_orch.foreign_pod f;
COMMENT ON VIEW gpu_orch.foreign_pods IS
    'Pods in the provider''s account that are not of this installation, as the last list showed them; they are never touched';

CREATE VIEW gpu_orch.spend_by_pool AS
SELECT c.pool, count(*) AS pods, sum(c.seconds) AS seconds, sum(c.cost) AS cost,
       sum(c.price_per_hour) FILTER (WHERE c.ended_at IS NULL) AS price_per_hour
FROM gpu_orch.cost_estimate c GROUP BY c.pool;
COMMENT ON VIEW gpu_orch.spend_by_pool IS 'What each pool has cost until now, and what it costs per hour at present';

CREATE VIEW gpu_orch.spend_by_tenant AS
WITH clock AS (SELECT gpu_orch.clock() AS now),
     paid AS (SELECT s.id, s.worker, s.price_micros, s.started_at, coalesce(s.ended_at, greatest(c.now, s.started_at)) AS ended_at
              FROM gpu_orch.spend s, clock c),
     used AS (SELECT a.worker, t.tenant, a.claimed_at, a.ended_at
              FROM gpu_orch.attempt a JOIN gpu_orch.task t ON t.id = a.task_id WHERE a.worker IS NOT NULL
              UNION ALL SELECT l.worker, l.tenant, l.claimed_at, c.now FROM gpu_orch.lease l, clock c),
     part AS (SELECT p.id, p.price_micros, u.tenant,
                     extract(epoch FROM least(u.ended_at, p.ended_at) - greatest(u.claimed_at, p.started_at)) AS seconds,
                     extract(epoch FROM p.ended_at - p.started_at) AS paid
              FROM paid p JOIN used u ON u.worker = p.worker AND u.claimed_at < p.ended_at AND u.ended_at > p.started_at),
     -- Attempts at the same time share what the pod costs.
     share AS (SELECT x.id, x.price_micros, x.tenant,
                      x.seconds * least(1, x.paid / sum(x.seconds) OVER (PARTITION BY x.id)) AS seconds FROM part x),
     line AS (SELECT s.tenant, s.seconds, s.price_micros FROM share s
              UNION ALL
              SELECT NULL, extract(epoch FROM p.ended_at - p.started_at)
                           - coalesce((SELECT sum(s.seconds) FROM share s WHERE s.id = p.id), 0), p.price_micros
              FROM paid p)
SELECT CASE WHEN l.tenant IS NOT NULL THEN coalesce(n.name, 'default') END AS tenant, round(sum(l.seconds), 6) AS seconds,
       round(sum(l.seconds * l.price_micros) / 3600 / 1000000, 6) AS cost
FROM line l LEFT JOIN gpu_orch.tenant n ON n.id = l.tenant
GROUP BY 1;
COMMENT ON VIEW gpu_orch.spend_by_tenant IS
    'What each tenant''s tasks have cost until now, by the price of their workers'' pods; the row without a tenant is the time in which pods had nothing to do';

CREATE VIEW gpu_orch.budget_state AS
SELECT l.pool, l.per, l.hard, l.amount_micros, l.set_at, c.at, w.starts_at, w.ends_at,
       (SELECT coalesce(ceil(sum(s.price_micros * extract(epoch FROM least(s.ended_at, c.at) - greatest(s.started_at, w.starts_at))) / 3600), 0)::bigint
        FROM gpu_orch.spend s
        WHERE (l.pool IS NULL OR s.pool = l.pool) AND s.started_at < c.at AND (s.ended_at IS NULL OR s.ended_at > w.starts_at)) AS spent_micros,
       ((SELECT coalesce(sum(s.price_micros), 0) FROM gpu_orch.spend s
         WHERE (l.pool IS NULL OR s.pool = l.pool) AND s.ended_at IS NULL)
        + (SELECT coalesce(sum(o.price_micros), 0) FROM gpu_orch.cloud_op o
           WHERE (l.pool IS NULL OR o.pool = l.pool) AND o.kind = 'create' AND o.state = 'planned'
             AND o.state IN ('planned', 'sent', 'unknown')))::bigint AS rate_micros
FROM (SELECT b.pool, b.per, b.hard, b.amount_micros, b.set_at
      FROM gpu_orch.budget b LEFT JOIN gpu_orch.pool p ON p.id = b.pool WHERE p.dropped_at IS NULL
      UNION ALL
      SELECT p.id, x.per, true, (x.amount * 1000000)::bigint, p.created_at
      FROM gpu_orch.pool p, LATERAL (VALUES ('hour', p.budget_per_hour), ('day', p.budget_per_day)) AS x(per, amount)
      WHERE p.dropped_at IS NULL AND x.amount IS NOT NULL) l,
     (SELECT gpu_orch.clock() AS at) c,
     LATERAL (SELECT CASE l.per WHEN 'hour' THEN c.at ELSE date_trunc(l.per, c.at, 'UTC') END AS starts_at,
                     CASE l.per WHEN 'hour' THEN c.at + interval '1 hour'
                                ELSE (date_trunc(l.per, c.at AT TIME ZONE 'UTC') + ('1 ' || l.per)::interval) AT TIME ZONE 'UTC'
                     END AS ends_at) w;
COMMENT ON VIEW gpu_orch.budget_state IS
    'Each budget with its window, what was spent in it, and the price per hour of all that bills, may bill or is announced; an hour is the one that begins now';

CREATE VIEW gpu_orch.budgets AS
SELECT p.name AS pool, b.per, b.hard, b.amount, b.spent, b.committed, b.amount - b.spent - b.committed AS left,
       b.price_per_hour, b.starts_at, b.ends_at
FROM (SELECT s.pool, s.per, s.hard, round(s.amount_micros / 1000000.0, 6) AS amount, round(s.spent_micros / 1000000.0, 6) AS spent,
             round(s.rate_micros * extract(epoch FROM s.ends_at - s.at) / 3600 / 1000000, 6) AS committed,
             round(s.rate_micros / 1000000.0, 6) AS price_per_hour, s.starts_at, s.ends_at
      FROM gpu_orch.budget_state s) b
LEFT JOIN gpu_orch.pool p ON p.id = b.pool;
COMMENT ON VIEW gpu_orch.budgets IS
    'The budgets of pools and, without a pool, of the installation: spent in the window, committed until its end by what runs, and left';

CREATE VIEW gpu_orch.tenant_usage AS
SELECT n.name AS tenant, n.max_running,
       (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = n.id) AS running,
       (SELECT count(*) FROM gpu_orch.ready_queue r WHERE r.tenant = n.id) AS ready,
       (SELECT count(*) FROM gpu_orch.waiting w WHERE w.tenant = n.id AND w.state = 'held') AS held
FROM (SELECT 0 AS id, 'default' AS name, NULL::int AS max_running
      UNION ALL SELECT t.id, t.name, t.max_running FROM gpu_orch.tenant t) n;
COMMENT ON VIEW gpu_orch.tenant_usage IS 'The tenants, their limits, and how many of their tasks run, are ready and are held';

CREATE VIEW gpu_orch.config AS
SELECT s.name, CASE WHEN s.name = 'gpu_orch.worker_dsn' AND s.setting <> '' THEN '(set)' ELSE s.setting END AS setting,
       s.unit, s.boot_val AS default_setting, s.source, s.short_desc AS description
FROM pg_catalog.pg_settings s WHERE s.name LIKE 'gpu\_orch.%';
COMMENT ON VIEW gpu_orch.config IS 'The settings, their defaults, and what each does; the workers'' connection string is not shown';

CREATE FUNCTION gpu_orch.explain_match(task_id bigint, OUT worker_id text, OUT pool text, OUT matches boolean,
                                       OUT reasons text[])
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT w.id, p.name, cardinality(m.reasons) = 0, m.reasons
        FROM gpu_orch.task t
        CROSS JOIN gpu_orch.worker w
        JOIN gpu_orch.worker_profile f ON f.worker = w.no
        LEFT JOIN gpu_orch.pool p ON p.id = w.pool
        CROSS JOIN LATERAL gpu_orch.match_reasons(f.capabilities, t.requirements, t.kind) AS m(reasons)
        WHERE t.id = explain_match.task_id AND gpu_orch.may_use_tenant(t.tenant) AND w.state IN ('active', 'draining')
        ORDER BY 3 DESC, 1;
    END;
COMMENT ON FUNCTION gpu_orch.explain_match(bigint) IS
    'For each registered worker whether it could do a task, and if not, which requirement rules it out';

CREATE FUNCTION gpu_orch.status() RETURNS jsonb
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT jsonb_build_object(
            'at', gpu_orch.clock(),
            'leader', jsonb_build_object('runs', l.pid IS NOT NULL, 'pid', l.pid, 'doing', l.doing,
                'started_at', l.started_at, 'last_tick', l.last_tick, 'ticks', l.ticks,
                'memory_bytes', l.memory_bytes, 'failed_starts', l.failed_starts,
                'last_error', l.last_error, 'last_error_at', l.last_error_at),
            'provider', jsonb_build_object('ok', l.api_ok, 'error', l.api_error,
                'last_success', l.api_last_success, 'retry_at', l.api_retry_at, 'last_reconcile', l.last_reconcile),
            'installation', (SELECT jsonb_build_object('id', i.id, 'epoch', i.epoch, 'paused', i.paused,
                'hold', i.hold, 'hold_reason', i.hold_reason) FROM gpu_orch.installation i),
            'tasks', jsonb_build_object('waiting', s.waiting, 'ready', s.queued, 'running', s.running),
            'workers', jsonb_build_object('spawning', s.spawning, 'initializing', s.initializing, 'active', s.active,
                'draining', s.draining, 'terminating', s.terminating, 'external', s.external),
            'spend_per_hour', s.spend_per_hour,
            'open_ops', (SELECT count(*) FROM gpu_orch.cloud_op o WHERE o.state IN ('planned', 'sent', 'unknown')))
        FROM gpu_orch.leader_status() l, gpu_orch.orchestrator_status s;
    END;
COMMENT ON FUNCTION gpu_orch.status() IS
    'Everything at a glance: the leader, the provider, the installation, tasks, workers and money';
-- Why a task waits, and how the queue does: for whoever submits, and for whoever watches. Only reads.

CREATE FUNCTION gpu_orch.shape_has_room(shape bigint) RETURNS boolean
    LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'gpu_orch_shape_has_room';
COMMENT ON FUNCTION gpu_orch.shape_has_room(bigint) IS
    'Whether tasks of a shape may become ready, or gpu_orch.max_shapes others are';

CREATE FUNCTION gpu_orch.why_waiting(task_id bigint, OUT reason text, OUT subject text, OUT workers bigint,
                                     OUT detail text, OUT hint text)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        WITH t AS MATERIALIZED (
            SELECT k.id, k.kind, k.requirements, k.shape, k.tenant, v.state, v.worker, v.started_at, v.ended_at, v.error,
                   w.due_at, w.faults + w.losses > 0 AS is_retry,
                   v.state IN ('scheduled', 'blocked', 'held', 'ready') AS waits
            FROM gpu_orch.task k
            JOIN gpu_orch.tasks v ON v.task_id = k.id
            LEFT JOIN gpu_orch.waiting w ON w.task_id = k.id
            WHERE k.id = why_waiting.task_id AND gpu_orch.may_use_tenant(k.tenant)),
        -- The tasks that must succeed first. How one does that the caller may not see stays unsaid.
        parent AS MATERIALIZED (
            SELECT p.id, CASE WHEN gpu_orch.may_use_tenant(p.tenant) THEN p.state END AS state
            FROM (SELECT k.id, k.tenant, (SELECT v.state FROM gpu_orch.tasks v WHERE v.task_id = k.id) AS state
                  FROM t
                  JOIN gpu_orch.task_dependency d ON d.task_id = t.id
                  JOIN gpu_orch.task k ON k.id = d.parent
                  WHERE t.state IN ('scheduled', 'blocked')) p
            WHERE p.state <> 'succeeded'),
        -- What its tenant may run. Of one shape no more tasks are made ready than there is room.
        room AS MATERIALIZED (
            SELECT x.*, x.running + x.ahead >= x.max_running AS is_full
            FROM (SELECT n.name, n.max_running,
                         (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = n.id AND l.tenant <> 0) AS running,
                         (SELECT count(*) FROM gpu_orch.ready_queue r
                          WHERE t.state = 'held' AND r.shape = t.shape AND r.tenant = n.id) AS ahead
                  FROM t JOIN gpu_orch.tenant n ON n.id = t.tenant
                  WHERE t.waits AND n.max_running IS NOT NULL) x),
        -- What keeps it from being claimable.
        obstacle (place, rank, reason, subject, workers, detail, hint) AS MATERIALIZED (
            SELECT 1, 0::bigint, 'scheduled', NULL::text, NULL::bigint,
                   CASE WHEN t.is_retry THEN format('Its last attempt failed. The next may not start before %s.', t.due_at)
                        ELSE format('It may not start before %s.', t.due_at) END,
                   NULL::text
            FROM t WHERE t.due_at > gpu_orch.clock()
            UNION ALL
            SELECT 2, p.id, CASE WHEN p.state IN ('failed', 'cancelled') THEN 'parent_failed' ELSE 'blocked' END,
                   p.id::text, NULL,
                   CASE WHEN p.state IS NULL THEN format('It waits for task %s of another tenant.', p.id)
                        WHEN p.state = 'failed' THEN format('It waits for task %s, which failed.', p.id)
                        WHEN p.state = 'cancelled' THEN format('It waits for task %s, which was cancelled.', p.id)
                        ELSE format('It waits for task %s, which is %s.', p.id, p.state) END,
                   CASE WHEN p.state IS NULL THEN NULL
                        WHEN p.state IN ('failed', 'cancelled')
                        THEN format('Unless retry_task(%s) is called first, the leader cancels this task.', p.id)
                        ELSE format('why_waiting(%s) says how that task does.', p.id) END
            FROM parent p
            UNION ALL
            SELECT 3, 0, 'tenant_limit', r.name, NULL,
                   format('Tenant "%s" may run %s at once. Running: %s%s.', r.name, r.max_running, r.running,
                          CASE WHEN r.ahead > 0 THEN format('; ready before it: %s', r.ahead) END),
                   'It goes on when a task of this tenant ends, or alter_tenant() raises the limit.'
            FROM room r WHERE r.is_full
            UNION ALL
            SELECT 4, 0, 'shape_limit', NULL, NULL,
                   format('Tasks with %s different requirements are ready, and no more are followed at a time.',
                          pg_catalog.current_setting('gpu_orch.max_shapes', true)),
                   'It goes on when all tasks with one of them have ended, or gpu_orch.max_shapes is raised.'
            FROM t WHERE t.state = 'held' AND NOT gpu_orch.shape_has_room(t.shape)),
        -- How the registered workers are that could take it. Equal capabilities are matched once.
        capset AS MATERIALIZED (
            SELECT g.*, gpu_orch.match_keys(f.capabilities, g.requirements, g.kind) AS keys,
                   gpu_orch.match_reasons(f.capabilities, g.requirements, g.kind) AS reasons
            FROM (SELECT t.requirements, t.kind, min(w.no) AS worker, count(*) AS n,
                         count(*) FILTER (WHERE h.how = 'silent') AS silent,
                         count(*) FILTER (WHERE h.how = 'draining') AS draining,
                         count(*) FILTER (WHERE h.how = 'busy') AS busy,
                         count(*) FILTER (WHERE h.how = 'idle') AS idle
                  FROM t CROSS JOIN gpu_orch.worker w
                  LEFT JOIN gpu_orch.pool p ON p.id = w.pool
                  CROSS JOIN LATERAL (SELECT CASE
                      WHEN gpu_orch.clock() - w.last_heartbeat > coalesce(p.heartbeat_timeout,
                           current_setting('gpu_orch.heartbeat_timeout', true)::interval, '30 s') THEN 'silent'
                      WHEN w.state = 'draining' THEN 'draining'
                      WHEN EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no) THEN 'busy'
                      ELSE 'idle' END AS how) h
                  WHERE t.state = 'ready' AND w.state IN ('active', 'draining')
                  GROUP BY t.requirements, t.kind, w.capset) g
            JOIN gpu_orch.worker_profile f ON f.worker = g.worker),
        fleet AS MATERIALIZED (
            SELECT coalesce(sum(c.n), 0)::bigint AS registered,
                   coalesce(sum(c.n) FILTER (WHERE c.keys = '{}'), 0)::bigint AS matching,
                   sum(c.silent) FILTER (WHERE c.keys = '{}')::bigint AS silent,
                   sum(c.draining) FILTER (WHERE c.keys = '{}')::bigint AS draining,
                   sum(c.busy) FILTER (WHERE c.keys = '{}')::bigint AS busy,
                   coalesce(sum(c.idle) FILTER (WHERE c.keys = '{}'), 0)::bigint AS idle
            FROM capset c),
        -- Whether a pool could create one. What the scaler goes by: the capabilities that the pool declares, else those
        -- of its last registered worker; a pool of which nothing is known could do everything.
        pool AS MATERIALIZED (
            SELECT p.id, p.name, p.max_workers, p.capabilities IS NOT NULL AS declared, x.known IS NOT NULL AS known,
                   CASE WHEN x.known IS NULL THEN '{}'
                        ELSE gpu_orch.match_reasons(x.known, t.requirements, t.kind) END AS reasons,
                   (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id AND w.state <> 'terminated'
                    AND w.origin = 'cloud') AS places,
                   (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id
                    AND w.state IN ('spawning', 'initializing')) AS booting
            FROM t CROSS JOIN gpu_orch.pool p
            CROSS JOIN LATERAL (SELECT coalesce(p.capabilities, (
                SELECT f.capabilities FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
                WHERE w.pool = p.id AND f.registered_at IS NOT NULL ORDER BY w.no DESC LIMIT 1)) AS known) x
            WHERE t.state = 'ready' AND p.dropped_at IS NULL AND (SELECT f.idle FROM fleet f) = 0)
        SELECT a.reason, a.subject, a.workers, a.detail, a.hint FROM (
            SELECT * FROM obstacle
            UNION ALL
            SELECT 4, 0, 'admission', NULL, NULL, 'Nothing stands against it any more: the leader is about to make it ready.',
                   CASE WHEN l.pid IS NULL THEN 'No leader runs here: see status(), or call admit().' END
            FROM t, gpu_orch.leader_status() l WHERE t.waits AND t.state <> 'ready' AND NOT EXISTS (SELECT 1 FROM obstacle)
            UNION ALL
            SELECT 5, 0, 'no_worker', NULL, 0, 'No worker is registered.', NULL
            FROM t, fleet f WHERE t.state = 'ready' AND f.registered = 0
            UNION ALL
            SELECT 5, 0, 'no_match', NULL, f.registered,
                   format('None of the %s registered workers could take it.', f.registered),
                   format('explain_match(%s) has the reasons for each.', t.id)
            FROM t, fleet f WHERE f.registered > 0 AND f.matching = 0
            UNION ALL
            SELECT 6, -sum(c.n), 'mismatch', m.key, sum(c.n),
                   format('It rules out %s of %s workers, and %s of them by itself. For example: %s.', sum(c.n), f.registered,
                          coalesce(sum(c.n) FILTER (WHERE c.others = 0), 0), min(substr(m.reason, length(m.key) + 3))),
                   NULL
            FROM fleet f, (SELECT x.*, cardinality(array_remove(x.keys, x.keys[1])) AS others FROM capset x) c,
                 LATERAL (SELECT u.key, min(u.reason) AS reason FROM unnest(c.keys, c.reasons) AS u(key, reason) GROUP BY u.key) m
            WHERE f.matching = 0 GROUP BY m.key, f.registered
            UNION ALL
            SELECT 7, 0, 'busy', NULL, f.busy, format('Matching workers that run other tasks: %s.', f.busy), NULL
            FROM fleet f WHERE f.busy > 0
            UNION ALL
            SELECT 8, 0, 'draining', NULL, f.draining,
                   format('Matching workers that are draining, and claim nothing new: %s.', f.draining), NULL
            FROM fleet f WHERE f.draining > 0
            UNION ALL
            SELECT 9, 0, 'silent', NULL, f.silent,
                   format('Matching workers that were not heard of for their heartbeat timeout: %s.', f.silent),
                   'The leader gives them up. See active_workers_health.'
            FROM fleet f WHERE f.silent > 0
            UNION ALL
            SELECT 10, 0, 'idle', NULL, f.idle,
                   format('Matching workers that are idle: %s. One of them takes it when it claims next.', f.idle),
                   'If none does, the workers'' logs say why.'
            FROM fleet f WHERE f.idle > 0 AND NOT EXISTS (SELECT 1 FROM obstacle)
            UNION ALL
            SELECT 11, p.id,
                   CASE WHEN p.reasons <> '{}' THEN 'pool_mismatch' WHEN p.places >= p.max_workers THEN 'pool_full'
                        ELSE 'pool_open' END,
                   p.name, p.booting,
                   CASE WHEN p.reasons <> '{}'
                        THEN format('The workers of pool "%s" could not, by the capabilities that %s: %s.', p.name,
                                    CASE WHEN p.declared THEN 'it declares' ELSE 'the last one had' END, p.reasons[1])
                        ELSE format('Pool "%s" %s: %s of %s places are taken, %s by pods that boot.%s', p.name,
                                    CASE WHEN p.places >= p.max_workers THEN 'could serve it and is full'
                                         ELSE 'could create a worker for it' END, p.places, p.max_workers, p.booting,
                                    CASE WHEN NOT p.known THEN ' It declares no capabilities, so it counts for every task.' END)
                        END,
                   CASE WHEN p.reasons <> '{}' THEN NULL
                        WHEN p.places >= p.max_workers THEN 'alter_pool() raises max_workers.'
                        ELSE format('explain_scaling(%L) says what is decided for it.', p.name) END
            FROM pool p
            UNION ALL
            SELECT 12, 0, 'no_pool', NULL, NULL, 'There is no pool that could create a worker.', NULL
            FROM t, fleet f WHERE t.state = 'ready' AND f.idle = 0 AND NOT EXISTS (SELECT 1 FROM pool)
            UNION ALL
            SELECT 13, 0, CASE WHEN i.hold THEN 'hold' ELSE 'paused' END, NULL, NULL,
                   CASE WHEN i.hold THEN 'No pod is created: this copy of the database is on hold.'
                        ELSE 'No pod is created: an operator paused it.' END,
                   CASE WHEN i.hold THEN 'status() says why.' ELSE 'resume() ends it.' END
            FROM gpu_orch.installation i WHERE (i.hold OR i.paused) AND EXISTS (SELECT 1 FROM pool p WHERE p.reasons = '{}')
            UNION ALL
            SELECT 14, 0, 'running', t.worker, NULL,
                   format('It does not wait: worker "%s" has run it since %s.', t.worker, t.started_at), NULL
            FROM t WHERE t.state = 'running'
            UNION ALL
            SELECT 14, 0, t.state, NULL, NULL,
                   format('It does not wait: it %s at %s%s.', CASE t.state WHEN 'cancelled' THEN 'was cancelled' ELSE t.state END,
                          t.ended_at, ': ' || left(t.error, 200)),
                   CASE WHEN t.state <> 'succeeded' THEN format('retry_task(%s) admits it again.', t.id) END
            FROM t WHERE t.state IN ('succeeded', 'failed', 'cancelled')) a (place, rank, reason, subject, workers, detail, hint)
        ORDER BY a.place, a.rank, a.subject;
    END;
COMMENT ON FUNCTION gpu_orch.why_waiting(bigint) IS
    'Every reason why a task is not running; no row for a task that the caller may not see';

CREATE VIEW gpu_orch.mismatches AS
WITH RECURSIVE head AS (
    (SELECT r.shape, 1 AS n FROM gpu_orch.ready_queue r ORDER BY r.shape LIMIT 1)
    UNION ALL
    SELECT (SELECT r.shape FROM gpu_orch.ready_queue r WHERE r.shape > h.shape ORDER BY r.shape LIMIT 1), h.n + 1
    FROM head h WHERE h.shape IS NOT NULL AND h.n < 1000),
wanted AS MATERIALIZED (
    SELECT h.shape, s.kind, s.requirements,
           (SELECT count(*) FROM (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.shape = h.shape LIMIT 10000) c) AS tasks
    FROM head h, LATERAL (SELECT x.kind, x.requirements FROM gpu_orch.shape x WHERE x.id = h.shape LIMIT 1) s),
capset AS MATERIALIZED (
    SELECT g.capset, g.workers, f.capabilities
    FROM (SELECT w.capset, count(*) AS workers, min(w.no) AS worker FROM gpu_orch.worker w WHERE w.state = 'active'
          GROUP BY w.capset ORDER BY 2 DESC, 1 LIMIT 100) g
    JOIN gpu_orch.worker_profile f ON f.worker = g.worker),
verdict AS (
    SELECT d.shape, d.tasks, c.capset, c.workers, m.keys, bool_and(m.keys <> '{}') OVER (PARTITION BY d.shape) AS stuck
    FROM wanted d, capset c, LATERAL (SELECT gpu_orch.match_keys(c.capabilities, d.requirements, d.kind)) m (keys)),
ruled_out AS MATERIALIZED (
    SELECT DISTINCT u.requirement, v.shape, v.tasks, v.stuck, v.capset, v.workers
    FROM verdict v, unnest(v.keys) u (requirement))
SELECT s.requirement, s.shapes, s.tasks, s.stuck_tasks, w.workers
FROM (SELECT x.requirement, count(*) AS shapes, sum(x.tasks)::bigint AS tasks,
             coalesce(sum(x.tasks) FILTER (WHERE x.stuck), 0)::bigint AS stuck_tasks
      FROM (SELECT DISTINCT o.requirement, o.shape, o.tasks, o.stuck FROM ruled_out o) x GROUP BY x.requirement) s
JOIN (SELECT x.requirement, sum(x.workers)::bigint AS workers
      FROM (SELECT DISTINCT o.requirement, o.capset, o.workers FROM ruled_out o) x GROUP BY x.requirement) w
     ON w.requirement = s.requirement;
COMMENT ON VIEW gpu_orch.mismatches IS
    'Which requirements of ready tasks rule out active workers; looks at 1000 shapes, 10000 tasks of each, and the 100 most common sets of capabilities';

-- How calls did -------------------------------------------------------------------------------

CREATE FUNCTION gpu_orch.claim_counters(OUT call text, OUT claimed bigint, OUT empty bigint, OUT skipped bigint,
                                        OUT ended bigint, OUT repeated bigint, OUT fenced bigint,
                                        OUT latency bigint[], OUT since timestamptz)
    RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 5
    AS 'MODULE_PATHNAME', 'gpu_orch_claim_counters';
COMMENT ON FUNCTION gpu_orch.claim_counters() IS
    'The counters of the workers'' calls as they stand in shared memory; the view claim_stats makes sense of them';

CREATE FUNCTION gpu_orch.reset_claim_stats() RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'gpu_orch_reset_claim_stats';
COMMENT ON FUNCTION gpu_orch.reset_claim_stats() IS 'Sets the counters of claim_stats to zero, for the whole server';

-- Bucket 1 of a histogram holds what took less than a microsecond, bucket i > 1 what took from 2^(i-2) to less than
-- 2^(i-1) microseconds, the last one everything above. Within a bucket calls are taken to be spread evenly.
CREATE FUNCTION gpu_orch.latency_quantile(latency bigint[], fraction numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT round((l.low + (l.high - l.low) * (b.total * fraction - (b.up_to - b.n)) / b.n) / 1000, 4)
        FROM (SELECT u.i, u.n, sum(u.n) OVER (ORDER BY u.i) AS up_to, sum(u.n) OVER () AS total
              FROM unnest(latency) WITH ORDINALITY AS u(n, i)) b
        CROSS JOIN LATERAL (SELECT CASE WHEN b.i = 1 THEN 0 ELSE 2::numeric ^ (b.i - 2) END AS low,
                                   2::numeric ^ (b.i - CASE WHEN b.i = cardinality(latency) THEN 2 ELSE 1 END) AS high) l
        WHERE b.n > 0 AND b.up_to >= b.total * fraction
        ORDER BY b.i LIMIT 1;
    END;
COMMENT ON FUNCTION gpu_orch.latency_quantile(bigint[], numeric) IS
    'Within how many milliseconds this share of the calls of a histogram was over; null for an empty one';

CREATE VIEW gpu_orch.claim_stats AS
SELECT c.call, n.calls, c.claimed, c.empty, c.skipped, c.ended, c.repeated, c.fenced,
       gpu_orch.latency_quantile(c.latency, 0.5) AS p50_ms, gpu_orch.latency_quantile(c.latency, 0.95) AS p95_ms,
       gpu_orch.latency_quantile(c.latency, 0.99) AS p99_ms, c.latency, c.since
FROM gpu_orch.claim_counters() c, LATERAL (SELECT sum(u.n)::bigint AS calls FROM unnest(c.latency) u (n)) n;
COMMENT ON VIEW gpu_orch.claim_stats IS
    'What the workers'' calls did since the server''s start or reset_claim_stats(), and how long they took without their commit';

CREATE FUNCTION gpu_orch.api_counters(OUT call text, OUT calls bigint, OUT failures bigint, OUT in_flight int,
                                      OUT last_success timestamptz, OUT last_failure_at timestamptz, OUT last_failure text,
                                      OUT message text, OUT shut boolean, OUT retry_at timestamptz,
                                      OUT key_fingerprint text, OUT key_since timestamptz, OUT since timestamptz)
    RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 6
    AS 'MODULE_PATHNAME', 'gpu_orch_api_counters';
COMMENT ON FUNCTION gpu_orch.api_counters() IS
    'The counters of calls to the provider as they stand in shared memory; the view api_stats makes sense of them';

CREATE VIEW gpu_orch.api_stats AS
SELECT c.call, c.calls, c.failures, c.in_flight, c.last_success, c.last_failure_at, c.last_failure, c.message,
       CASE WHEN c.retry_at > gpu_orch.clock() THEN 'waiting' WHEN c.shut THEN 'trying' ELSE 'open' END AS gate,
       CASE WHEN c.retry_at > gpu_orch.clock() THEN c.retry_at END AS retry_at,
       c.key_fingerprint, c.key_since, c.since
FROM gpu_orch.api_counters() c;
COMMENT ON VIEW gpu_orch.api_stats IS
    'How each kind of call to the provider did since the server''s start, whether such calls wait, and the fingerprint of the key that they are made with';

-- Who got how much ----------------------------------------------------------------------------

-- A tenant has a row for each window in which a task of it ran, or stood ready. When a task became ready is known of a
-- first attempt that waited for no other task and no limit; only such ones count as waits.
CREATE VIEW gpu_orch.tenant_service AS
WITH time AS MATERIALIZED (
    SELECT c.now, date_bin('5 minutes', c.now, '2000-01-01') - interval '55 minutes' AS first
    FROM (SELECT gpu_orch.clock() AS now) c),
ready AS MATERIALIZED (
    SELECT r.tenant, min(r.task_id) AS task_id FROM gpu_orch.ready_queue r WHERE r.attempt = 1 GROUP BY r.tenant),
run AS MATERIALIZED (
    SELECT k.tenant, x.claimed_at, x.ended_at, coalesce(n.weight, 1) AS weight, coalesce(n.name, 'default') AS name,
           CASE WHEN x.attempt = 1 AND n.max_running IS NULL
                     AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d WHERE d.task_id = k.id)
                THEN greatest(k.submitted_at, k.run_at) END AS ready_at
    FROM (SELECT a.task_id, a.attempt, a.claimed_at, a.ended_at FROM gpu_orch.attempt a, time
          WHERE a.ended_at > time.first AND a.claimed_at IS NOT NULL
          UNION ALL SELECT l.task_id, l.attempt, l.claimed_at, NULL FROM gpu_orch.lease l
          UNION ALL SELECT r.task_id, 1, NULL, NULL FROM ready r) x
    JOIN gpu_orch.task k ON k.id = x.task_id
    LEFT JOIN gpu_orch.tenant n ON n.id = k.tenant),
part AS (
    SELECT r.*, s.window_start, least(s.window_start + interval '5 minutes', time.now) AS window_end, time.now
    FROM run r, time,
         LATERAL generate_series(
             date_bin('5 minutes', greatest(coalesce(r.ready_at, r.claimed_at), time.first), '2000-01-01'),
             coalesce(r.ended_at, time.now), '5 minutes') AS s (window_start)
    WHERE coalesce(r.ready_at, r.claimed_at) IS NOT NULL)
SELECT p.window_start, p.name AS tenant, p.weight,
       round(coalesce(sum(extract(epoch FROM least(coalesce(p.ended_at, p.now), p.window_end)
                                             - greatest(p.claimed_at, p.window_start)))
                      FILTER (WHERE p.claimed_at < p.window_end), 0), 3) AS seconds,
       count(*) FILTER (WHERE p.claimed_at >= p.window_start AND p.claimed_at < p.window_end) AS started,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY p.claimed_at - p.ready_at)
           FILTER (WHERE p.claimed_at >= p.window_start AND p.claimed_at < p.window_end) AS p95_wait,
       max(least(p.claimed_at, p.window_end) - p.ready_at)
           FILTER (WHERE p.claimed_at IS NULL OR p.claimed_at >= p.window_start) AS longest_wait
FROM part p
GROUP BY p.window_start, p.tenant, p.name, p.weight;
COMMENT ON VIEW gpu_orch.tenant_service IS
    'What each tenant got in each window of five minutes of the last hour: seconds of running tasks, and how long its tasks stood ready';

-- R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
-- Computer Systems. DEC Research Report TR-301, 1984. For n shares x: (sum x)^2 / (n * sum x^2), from 1/n, where one has
-- everything, to 1, where all have the same.
CREATE VIEW gpu_orch.fairness AS
SELECT s.window_start, count(*) AS tenants, sum(s.seconds) AS seconds,
       round(sum(s.seconds / s.weight) ^ 2 / nullif(count(*) * sum((s.seconds / s.weight) ^ 2), 0), 4) AS jain_index
FROM gpu_orch.tenant_service s GROUP BY s.window_start;
COMMENT ON VIEW gpu_orch.fairness IS
    'Jain''s index of the tenants'' seconds divided by their weights, for each window of five minutes of the last hour; 1 is fair';
-- What must always be true, as queries. Each row that a query finds is a violation.

CREATE FUNCTION gpu_orch.check_invariants(OUT name text, OUT holds boolean, OUT detail text)
    RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        WITH violation(name, what) AS (
            SELECT 'I1: a pod belongs to one worker', 'pod ' || f.pod_id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NOT NULL
            GROUP BY f.pod_id HAVING count(*) > 1
            UNION ALL
            SELECT 'I1: a pod belongs to one worker', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.bound_pod_id <> f.pod_id
            UNION ALL
            SELECT 'I1: each create has its worker, and both one pod', 'op ' || o.id
            FROM gpu_orch.cloud_op o LEFT JOIN gpu_orch.worker w ON w.no = o.worker
            LEFT JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE o.kind = 'create'
              AND (o.state IN ('planned', 'sent', 'unknown') AND (w.no IS NULL OR w.state = 'terminated')
                   OR o.state = 'done' AND (w.no IS NULL OR w.state <> 'terminated' AND o.pod_id IS DISTINCT FROM f.pod_id))
            UNION ALL
            SELECT 'I2: each live cloud worker has a pod or an open op', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state <> 'terminated' AND f.pod_id IS NULL
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no
                              AND o.state IN ('planned', 'sent', 'unknown'))
            UNION ALL
            SELECT 'I3: a task stands in one place', 'task ' || t.id || ' stands in ' || x.places
            FROM gpu_orch.task t, LATERAL (
                SELECT (SELECT count(*) FROM gpu_orch.lease l WHERE l.task_id = t.id)
                     + (SELECT count(*) FROM gpu_orch.waiting w WHERE w.task_id = t.id)
                     + (SELECT count(*) FROM gpu_orch.ready_queue r WHERE r.task_id = t.id) AS places,
                       (SELECT a.final_state FROM gpu_orch.attempt a WHERE a.task_id = t.id
                        ORDER BY a.attempt DESC LIMIT 1) AS final_state) x
            WHERE x.places > 1 OR (x.places = 0 AND x.final_state IS NULL)
               OR (x.places > 0 AND x.final_state = 'succeeded')
            UNION ALL
            SELECT 'I3: a lease belongs to a worker that lives', 'task ' || l.task_id
            FROM gpu_orch.lease l JOIN gpu_orch.worker w ON w.no = l.worker
            WHERE w.state NOT IN ('active', 'draining')
            UNION ALL
            SELECT 'I4: attempts never pass the limit', 'task ' || q.task_id
            FROM (SELECT l.task_id, l.faults FROM gpu_orch.lease l
                  UNION ALL SELECT r.task_id, r.faults FROM gpu_orch.ready_queue r
                  UNION ALL SELECT w.task_id, w.faults FROM gpu_orch.waiting w) q
            JOIN gpu_orch.task t ON t.id = q.task_id WHERE q.faults >= t.max_attempts
            UNION ALL
            SELECT x.name, 'task ' || a.task_id
            FROM (SELECT a.task_id, count(*) FILTER (WHERE a.outcome = 'succeeded') > 1 AS twice,
                         max(a.attempt) <> count(*) OR min(a.attempt) <> 1 AS gap,
                         count(*) FILTER (WHERE a.outcome IN ('failed', 'timeout', 'lost')
                                                AND a.failure IS NULL AND a.error IS NULL) > 0 AS unexplained
                  FROM gpu_orch.attempt a GROUP BY a.task_id) a,
                 LATERAL (VALUES ('I4: a task succeeds once', a.twice), ('I4: attempts are numbered without a gap', a.gap),
                                 ('I4: each end has its reason', a.unexplained)) x(name, broken)
            WHERE (a.twice OR a.gap OR a.unexplained) AND x.broken
            UNION ALL
            SELECT 'I4: attempts are numbered without a gap', 'task ' || q.task_id
            FROM (SELECT l.task_id, l.attempt FROM gpu_orch.lease l
                  UNION ALL SELECT r.task_id, r.attempt FROM gpu_orch.ready_queue r
                  UNION ALL SELECT w.task_id, w.attempt FROM gpu_orch.waiting w) q
            WHERE q.attempt <> 1 + (SELECT count(*) FROM gpu_orch.attempt a WHERE a.task_id = q.task_id)
            UNION ALL
            SELECT 'I5: what may bill is counted', 'worker ' || w.id
            FROM gpu_orch.worker w
            WHERE w.origin = 'cloud' AND w.state IN ('initializing', 'active', 'draining', 'terminating')
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.worker = w.no AND s.ended_at IS NULL)
              AND EXISTS (SELECT 1 FROM gpu_orch.worker_profile f WHERE f.worker = w.no AND f.pod_id IS NOT NULL)
            UNION ALL
            SELECT 'I5: nothing is counted that cannot bill', 'worker ' || w.id
            FROM gpu_orch.spend s JOIN gpu_orch.worker w ON w.no = s.worker
            WHERE s.ended_at IS NULL AND w.state = 'terminated'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'delete'
                              AND o.state IN ('planned', 'sent', 'unknown'))
            UNION ALL
            SELECT 'I5: what may bill is counted', 'pod ' || o.pod_id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'delete' AND o.worker IS NULL AND o.state IN ('planned', 'sent', 'unknown')
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.pod_id = o.pod_id AND s.ended_at IS NULL)
            UNION ALL
            -- A budget that was lowered, or a window that began, under a running fleet is no fault of a create.
            SELECT 'I6: no create breaks a hard budget', coalesce('pool ' || p.name, 'installation') || ' per ' || b.per
            FROM gpu_orch.budget_state b LEFT JOIN gpu_orch.pool p ON p.id = b.pool
            WHERE b.hard
              AND b.spent_micros + b.rate_micros * extract(epoch FROM b.ends_at - b.at) / 3600 > b.amount_micros + 10
              AND EXISTS (SELECT 1 FROM gpu_orch.cloud_op o
                          WHERE o.kind = 'create' AND (b.pool IS NULL OR o.pool = b.pool)
                            AND o.state NOT IN ('refused', 'absent') AND o.planned_at >= b.set_at
                            AND (b.per = 'hour' OR o.planned_at >= b.starts_at)
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.kind = 'pool_altered'
                                            AND e.subject = p.name AND e.at >= o.planned_at))
            UNION ALL
            SELECT 'I6: each intent counts at a price', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'create' AND o.state IN ('planned', 'sent', 'unknown') AND o.price_micros IS NULL
            UNION ALL
            SELECT 'I6: no create passes max_workers', 'pool ' || p.name
            FROM gpu_orch.pool p
            WHERE p.dropped_at IS NULL
              AND p.max_workers < (SELECT count(*) FROM gpu_orch.worker w WHERE w.pool = p.id AND w.origin = 'cloud'
                                   AND w.state <> 'terminated')
              AND EXISTS (SELECT 1 FROM gpu_orch.cloud_op o
                          WHERE o.kind = 'create' AND o.pool = p.id AND o.state NOT IN ('refused', 'absent')
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.kind = 'pool_altered'
                                            AND e.subject = p.name AND e.at >= o.planned_at))
            UNION ALL
            SELECT 'I7: no delete is forgotten', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            WHERE w.origin = 'cloud' AND w.state = 'terminated' AND f.pod_id IS NOT NULL
              AND f.ended_because IS DISTINCT FROM 'pod_gone'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'delete')
            UNION ALL
            SELECT 'I8: each create has its decision or its operator', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'create'
              AND (o.decision IS NULL AND o.requested_by IS NULL AND o.cause IS NULL
                   OR o.decision IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM gpu_orch.decision d WHERE d.id = o.decision AND d.pool = o.pool))
            UNION ALL
            -- A move of its worker, or, where no worker had the pod, an event that tells of it.
            SELECT 'I8: each delete has its cause', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'delete'
              AND CASE WHEN o.cause IN (SELECT t.cause FROM gpu_orch.worker_transition t)
                       THEN NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = o.cause
                                        AND e.to_state = 'terminating')
                       ELSE o.cause IS NULL OR (o.cause, o.pod_name) NOT IN (SELECT e.kind, e.subject FROM gpu_orch.event e) END
            UNION ALL
            -- Two minutes are many polls. Of tasks that were tried before, or that a limit held, it is not known since when they wait.
            SELECT DISTINCT 'I9: no work waits beside an idle worker', 'worker ' || w.id
            FROM gpu_orch.worker w JOIN gpu_orch.worker_profile f ON f.worker = w.no
            JOIN gpu_orch.shape s ON gpu_orch.satisfies(f.capabilities, s.requirements, s.kind)
            WHERE w.state = 'active' AND w.last_heartbeat > gpu_orch.clock() - interval '1 minute'
              AND greatest(w.busy_at, w.state_since) < gpu_orch.clock() - interval '2 minutes'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no)
              AND EXISTS (SELECT 1 FROM gpu_orch.ready_queue r JOIN gpu_orch.task t ON t.id = r.task_id
                          WHERE r.shape = s.id AND r.attempt = 1
                            AND greatest(t.submitted_at, t.run_at) < gpu_orch.clock() - interval '2 minutes'
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.tenant n WHERE n.id = t.tenant AND n.max_running IS NOT NULL)
                            AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d JOIN gpu_orch.attempt a ON a.task_id = d.parent
                                            WHERE d.task_id = t.id AND a.ended_at > gpu_orch.clock() - interval '2 minutes'))
            UNION ALL
            SELECT 'I10: the events tell each worker''s state', 'worker ' || w.id
            FROM gpu_orch.worker w LEFT JOIN LATERAL (
                SELECT e.to_state FROM gpu_orch.event e WHERE e.worker = w.no ORDER BY e.id DESC LIMIT 1) e ON true
            WHERE e.to_state <> w.state OR (e.to_state IS NULL AND w.state <> 'terminated')
            UNION ALL
            SELECT DISTINCT 'I10: the events tell each worker''s way', 'worker ' || e.subject
            FROM (SELECT e.subject, e.from_state, lag(e.to_state) OVER (PARTITION BY e.worker ORDER BY e.id) AS before
                  FROM gpu_orch.event e WHERE e.worker IS NOT NULL) e
            WHERE e.from_state IS DISTINCT FROM e.before AND e.before IS NOT NULL
            UNION ALL
            SELECT 'I10: the events tell each pod''s end', 'op ' || o.id
            FROM gpu_orch.cloud_op o
            WHERE o.kind = 'delete' AND o.state = 'done'
              AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = o.worker AND e.kind = 'pod_absent_proved')
              AND ('pod_ended', o.pod_name) NOT IN (SELECT e.kind, e.subject FROM gpu_orch.event e)
        ),
        invariant(name) AS (VALUES
            ('I1: a pod belongs to one worker'),
            ('I1: each create has its worker, and both one pod'),
            ('I2: each live cloud worker has a pod or an open op'),
            ('I3: a task stands in one place'),
            ('I3: a lease belongs to a worker that lives'),
            ('I4: attempts never pass the limit'),
            ('I4: a task succeeds once'),
            ('I4: each end has its reason'),
            ('I4: attempts are numbered without a gap'),
            ('I5: what may bill is counted'),
            ('I5: nothing is counted that cannot bill'),
            ('I6: no create breaks a hard budget'),
            ('I6: each intent counts at a price'),
            ('I6: no create passes max_workers'),
            ('I7: no delete is forgotten'),
            ('I8: each create has its decision or its operator'),
            ('I8: each delete has its cause'),
            ('I9: no work waits beside an idle worker'),
            ('I10: the events tell each worker''s state'),
            ('I10: the events tell each worker''s way'),
            ('I10: the events tell each pod''s end'))
        SELECT i.name, count(v.what) = 0, string_agg(v.what, ', ' ORDER BY v.what)
        FROM invariant i LEFT JOIN violation v ON v.name = i.name
        GROUP BY i.name ORDER BY i.name;
    END;
COMMENT ON FUNCTION gpu_orch.check_invariants() IS
    'What must always be true of the rows; detail names what breaks it. The provider''s side is checked by reconciling';
-- Everything is revoked from PUBLIC, and each role gets what it is for.

REVOKE ALL ON SCHEMA gpu_orch FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA gpu_orch FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA gpu_orch FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gpu_orch FROM PUBLIC;

GRANT USAGE ON SCHEMA gpu_orch TO gpu_orch_admin, gpu_orch_operator, gpu_orch_submitter, gpu_orch_worker,
    gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.clock(),
    gpu_orch.satisfies(jsonb, jsonb, text),
    gpu_orch.match_reasons(jsonb, jsonb, text),
    gpu_orch.match_keys(jsonb, jsonb, text)
    TO gpu_orch_submitter, gpu_orch_worker, gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text),
    gpu_orch.submit_tasks(jsonb),
    gpu_orch.cancel_task(bigint),
    gpu_orch.retry_task(bigint),
    gpu_orch.may_use_tenant(int),
    gpu_orch.task(bigint),
    gpu_orch.explain_match(bigint),
    gpu_orch.why_waiting(bigint)
    TO gpu_orch_submitter;

GRANT EXECUTE ON FUNCTION
    gpu_orch.register_worker(text, text, jsonb, text, text),
    gpu_orch.heartbeat(text, text, jsonb, uuid[], bigint),
    gpu_orch.claim_tasks(text, text, int),
    gpu_orch.complete_task(text, text, bigint, uuid, jsonb),
    gpu_orch.complete_tasks(text, text, bigint[], uuid[], jsonb[]),
    gpu_orch.fail_task(text, text, bigint, uuid, text, text, boolean),
    gpu_orch.release_task(text, text, bigint, uuid),
    gpu_orch.progress_task(text, text, bigint, uuid, real, text),
    gpu_orch.complete_and_claim(text, text, bigint, uuid, jsonb, int)
    TO gpu_orch_worker, gpu_orch_operator;

GRANT SELECT ON
    gpu_orch.tasks, gpu_orch.attempts, gpu_orch.workers, gpu_orch.pools, gpu_orch.offers, gpu_orch.image_breakers, gpu_orch.queue_depth,
    gpu_orch.task_queue_analysis, gpu_orch.orchestrator_status, gpu_orch.active_workers_health,
    gpu_orch.recent_task_activity, gpu_orch.worker_performance, gpu_orch.cloud_ops, gpu_orch.decisions,
    gpu_orch.events, gpu_orch.alerts, gpu_orch.alert_rule, gpu_orch.cost_estimate, gpu_orch.billing, gpu_orch.foreign_pods, gpu_orch.spend_by_pool,
    gpu_orch.spend_by_tenant, gpu_orch.budgets, gpu_orch.tenant_usage, gpu_orch.config,
    gpu_orch.mismatches, gpu_orch.claim_stats, gpu_orch.api_stats, gpu_orch.tenant_service, gpu_orch.fairness, gpu_orch.worker_transition
    TO gpu_orch_monitor;
GRANT EXECUTE ON FUNCTION
    gpu_orch.status(),
    gpu_orch.leader_status(),
    gpu_orch.dollars(bigint, timestamptz, timestamptz),
    gpu_orch.claim_counters(),
    gpu_orch.api_counters(),
    gpu_orch.latency_quantile(bigint[], numeric),
    gpu_orch.check_invariants(),
    gpu_orch.explain_scaling(text)
    TO gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.create_pool(text, text, text[], int, int, jsonb),
    gpu_orch.alter_pool(text, jsonb),
    gpu_orch.drop_pool(text),
    gpu_orch.spawn_worker(text, int),
    gpu_orch.drain_worker(text),
    gpu_orch.terminate_worker(text, boolean),
    gpu_orch.create_tenant(text, int, numeric),
    gpu_orch.alter_tenant(text, int, numeric),
    gpu_orch.grant_tenant(text, name),
    gpu_orch.revoke_tenant(text, name),
    gpu_orch.set_budget(text, text, numeric, boolean),
    gpu_orch.pause(),
    gpu_orch.resume(),
    gpu_orch.kill_fleet(),
    gpu_orch.run_cycle(boolean),
    gpu_orch.reconcile_now(),
    gpu_orch.reset_claim_stats(),
    gpu_orch.admit()
    TO gpu_orch_operator;

GRANT EXECUTE ON FUNCTION
    gpu_orch.adopt_installation(),
    gpu_orch.advance_clock(interval, boolean)
    TO gpu_orch_admin;
