-- Matching of capabilities against requirements: docs/matching.md, rule by rule.
\set VERBOSITY default
SET search_path = gpu_orch, pg_catalog;

-- The worker and the task of the documentation.
CREATE TEMP TABLE sample AS SELECT
$${"services": ["comfyui", "a1111"], "hardware": {"gpu_memory_gb": 24, "gpu_model": "RTX 4090"},
 "models": {"comfyui": ["sdxl", "sd15"], "a1111": ["anything-v3"]},
 "custom_capabilities": {"supports_controlnet": true, "max_batch_size": 4}}$$::jsonb AS worker,
$${"hardware": {"gpu_memory_gb": 16}, "models": ["sdxl"],
 "custom_capabilities": {"supports_controlnet": true}}$$::jsonb AS task;

SELECT satisfies(worker, task, 'comfyui'), match_reasons(worker, task, 'comfyui') FROM sample;
SELECT kind, satisfies(capabilities => worker, requirements => task, kind => kind), reason
FROM sample, (VALUES ('comfyui'), ('a1111'), ('wan2gp'), (NULL)) AS k(kind)
     LEFT JOIN LATERAL unnest(match_reasons(worker, task, kind)) AS reason ON true
ORDER BY kind NULLS LAST, reason;

-- Each line: what a worker has, what is wanted of it, the verdict and the reasons. The functions must
-- agree with each other.
CREATE TEMP TABLE rule (n int GENERATED ALWAYS AS IDENTITY, have jsonb, want jsonb, kind text);
INSERT INTO rule (have, want, kind) VALUES
    -- nothing is demanded
    ('{}', '{}', NULL),
    ('{"a": 1}', '{"a": null, "b": {}, "c": [], "d": {"e": {"f": null}}, "g": [null, {}]}', NULL),
    ('{"a": 1}', '{"a": {}}', NULL),
    -- numbers: at least, compared as numeric
    ('{"a": 16}', '{"a": 16.0}', NULL),
    ('{"a": 15.999999999999999999999}', '{"a": 1.6e1}', NULL),
    ('{"a": 9007199254740993}', '{"a": 9007199254740993}', NULL),
    ('{"a": 9007199254740992}', '{"a": 9007199254740993}', NULL),
    ('{"a": -1}', '{"a": -2}', NULL),
    ('{"a": "16"}', '{"a": 16}', NULL),
    ('{"a": null}', '{"a": 16}', NULL),
    ('{"a": {"b": 16}}', '{"a": 16}', NULL),
    -- strings and booleans: equal
    ('{"a": "x"}', '{"a": "x"}', NULL),
    ('{"a": "x"}', '{"a": "X"}', NULL),
    ('{"a": "x"}', '{"a": "x "}', NULL),
    ('{"a": true}', '{"a": true}', NULL),
    ('{"a": true}', '{"a": false}', NULL),
    ('{"a": "true"}', '{"a": true}', NULL),
    -- arrays: superset, where numbers are equal
    ('{"a": ["x", "y", 1]}', '{"a": [1.0, "x", "x", null]}', NULL),
    ('{"a": ["x"]}', '{"a": ["x", "y", "z"]}', NULL),
    ('{"a": [2]}', '{"a": [1]}', NULL),
    ('{"a": []}', '{"a": ["x"]}', NULL),
    ('{}', '{"a": ["x", "y"]}', NULL),
    ('{"a": ["x", "y"]}', '{"a": "y"}', NULL),
    ('{"a": ["x", "y"]}', '{"a": "z"}', NULL),
    ('{"a": [24]}', '{"a": 16}', NULL),
    ('{"a": [24]}', '{"a": 24}', NULL),
    ('{"a": "x"}', '{"a": ["x"]}', NULL),
    ('{"a": "x"}', '{"a": ["x", "y"]}', NULL),
    ('{"a": 24}', '{"a": [16]}', NULL),
    ('{"a": [["x", "y"], "z"]}', '{"a": [["y"]]}', NULL),
    ('{"a": ["y"]}', '{"a": [["y", "x"]]}', NULL),
    -- objects: key by key; in an array, one element meets the whole of it
    ('{"a": {"b": {"c": 2, "d": 1}}}', '{"a": {"b": {"c": 1}}}', NULL),
    ('{"a": {"b": {"c": 2}}}', '{"a": {"b": {"c": 3, "d": "x"}, "e": true}}', NULL),
    ('{"a": 5}', '{"a": {"b": 1}}', NULL),
    ('{}', '{"a": {"b": 1}}', NULL),
    ('{"gpus": [{"memory": 8, "model": "A"}, {"memory": 24, "model": "B"}]}', '{"gpus": [{"memory": 16, "model": "B"}]}', NULL),
    ('{"gpus": [{"memory": 8, "model": "A"}, {"memory": 24, "model": "B"}]}', '{"gpus": {"memory": 16, "model": "A"}}', NULL),
    ('{"gpus": {"memory": 24}}', '{"gpus": [{"memory": 16}]}', NULL),
    -- services
    ('{}', '{}', 'k'),
    ('{"services": null}', '{}', 'k'),
    ('{"services": []}', '{}', 'k'),
    ('{"services": "k"}', '{}', 'k'),
    ('{"services": ["j", "k"]}', '{"services": ["j"]}', 'k'),
    ('{"services": ["j"]}', '{"a": 1}', 'k'),
    -- models
    ('{"models": ["m", "n"]}', '{"models": ["m"]}', 'k'),
    ('{"models": ["m", "n"]}', '{"models": {"k": ["m"], "j": "n"}}', 'k'),
    ('{"models": {"k": ["m"], "j": ["n"]}}', '{"models": ["n"]}', 'k'),
    ('{"models": {"k": ["m"], "j": ["n"]}}', '{"models": {"j": ["n"], "k": ["m", "o"]}}', 'k'),
    ('{"models": {"j": ["n"]}}', '{"models": ["n"]}', 'k'),
    ('{"models": {"k": "m"}}', '{"models": "m"}', 'k'),
    ('{"models": {"k": ["m"], "j": ["n"]}}', '{"models": ["n"]}', NULL),
    ('{"models": {"k": ["m"], "j": ["n"]}}', '{"models": ["m", "n"]}', NULL),
    ('{"models": {}}', '{"models": ["m"]}', NULL),
    ('{"models": {}}', '{"models": []}', NULL),
    ('{}', '{"models": ["m"]}', 'k'),
    ('{"models": {"k": ["m"]}}', '{"models": {"$any": ["n", "m"]}}', 'k'),
    ('{"models": {"k": ["m"]}}', '{"models": {"$nin": ["m"]}}', 'k'),
    ('{"a": {"models": {"k": ["m"]}}}', '{"a": {"models": ["m"]}}', 'k'),
    -- operators on scalars
    ('{"a": 4}', '{"a": {"$eq": 4.0}}', NULL),
    ('{"a": 5}', '{"a": {"$eq": 4}}', NULL),
    ('{"a": 5}', '{"a": {"$ne": 4}}', NULL),
    ('{"a": 4}', '{"a": {"$ne": 4}}', NULL),
    ('{"a": 4}', '{"a": {"$gt": 4}}', NULL),
    ('{"a": 4}', '{"a": {"$gte": 4, "$lt": 5}}', NULL),
    ('{"a": 5}', '{"a": {"$gte": 6, "$lt": 5}}', NULL),
    ('{"a": 4}', '{"a": {"$lte": 3.9}}', NULL),
    ('{"a": "4"}', '{"a": {"$lte": 5}}', NULL),
    ('{"a": "x"}', '{"a": {"$in": ["x", "y"]}}', NULL),
    ('{"a": "z"}', '{"a": {"$in": ["x", "y"]}}', NULL),
    ('{"a": "z"}', '{"a": {"$nin": ["x", "y"]}}', NULL),
    ('{"a": "y"}', '{"a": {"$nin": ["x", "y"]}}', NULL),
    ('{"a": 2}', '{"a": {"$any": ["x", 1]}}', NULL),
    ('{"a": "y"}', '{"a": {"$any": ["x", 1]}}', NULL),
    ('{"a": 7}', '{"a": {"$all": [{"$gt": 1}, {"$ne": 7}, 8]}}', NULL),
    ('{"a": 7}', '{"a": {"$not": 8}}', NULL),
    ('{"a": 9}', '{"a": {"$not": 8}}', NULL),
    ('{"a": 0}', '{"a": {"$exists": true}}', NULL),
    ('{"a": 0}', '{"a": {"$exists": false}}', NULL),
    -- operators on arrays: $eq, $ne, $in and $nin look for an element, ordering does not
    ('{"a": ["x", "y"]}', '{"a": {"$eq": "y", "$in": ["z", "x"]}}', NULL),
    ('{"a": ["x", "y"]}', '{"a": {"$ne": "y", "$nin": ["z", "x"]}}', NULL),
    ('{"a": ["x", "y"]}', '{"a": {"$all": ["x", "z"], "$any": ["w", "z"]}}', NULL),
    ('{"a": ["x", "y"]}', '{"a": {"$not": ["x"]}}', NULL),
    ('{"a": [70, 80]}', '{"a": {"$gte": 80}}', NULL),
    ('{"a": [70, 80]}', '{"a": [{"$gte": 75, "$lt": 90}]}', NULL),
    ('{"a": [70, 90]}', '{"a": [{"$gte": 75, "$lt": 90}]}', NULL),
    -- a key that the worker does not have
    ('{}', '{"a": {"$ne": 1, "$nin": ["x"], "$not": 1, "$exists": false}, "b": {"c": {"$ne": 1}}}', NULL),
    ('{"a": null}', '{"a": {"$ne": 1, "$nin": ["x"], "$not": 1, "$exists": false}}', NULL),
    ('{}', '{"a": {"$eq": 1, "$gt": 1, "$gte": 1, "$lt": 1, "$lte": 1, "$in": ["x"], "$all": [1], "$any": [1], "$exists": true}}', NULL),
    -- operators on the whole
    ('{"hardware": {"gpu_model": "A100"}}', '{"$any": [{"hardware": {"gpu_model": "A100"}}, {"hardware": {"gpu_memory_gb": 80}}]}', NULL),
    ('{"hardware": {"gpu_model": "L4"}}', '{"$any": [{"hardware": {"gpu_model": "A100"}}, {"hardware": {"gpu_memory_gb": 80}}]}', NULL),
    ('{"models": {"k": ["m"]}}', '{"$not": {"models": ["m"]}}', 'k'),
    -- long keys and values are cut short in a reason
    (jsonb_build_object(repeat('k', 150), repeat('v', 300)), jsonb_build_object(repeat('k', 150), 'x'), NULL);

CREATE TEMP TABLE answer AS
    SELECT n, satisfies(have, want, kind) AS verdict, match_reasons(have, want, kind) AS reasons,
           match_keys(have, want, kind) AS keys FROM rule;
\pset format unaligned
SELECT n, have, want, kind, verdict, reasons FROM rule NATURAL JOIN answer ORDER BY n;
\pset format aligned
SELECT count(*) AS the_functions_disagree FROM answer WHERE verdict IS DISTINCT FROM (reasons = '{}');
-- Each reason begins with the requirement that it is about, and that is its key.
SELECT count(*) AS reasons, count(*) FILTER (WHERE starts_with(reason, key || ': wants ')) AS have_their_key
FROM answer, unnest(reasons, keys) AS u(reason, key);

-- What is cut short is cut between characters.
SELECT getdatabaseencoding() <> 'UTF8'
       OR match_reasons(jsonb_build_object('a', repeat('é', 300)), '{"a": "x"}')
          = ARRAY['a: wants "x", worker has "' || repeat('é', 99) || '...'] AS whole_characters;

-- Nulls.
SELECT satisfies(NULL, '{}') IS NULL AS capabilities, satisfies('{}', NULL) IS NULL AS requirements,
       match_reasons(NULL, '{}') IS NULL AS reasons_capabilities,
       match_reasons('{}', NULL) IS NULL AS reasons_requirements,
       match_keys(NULL, '{}') IS NULL AS keys_capabilities, match_keys('{}', NULL) IS NULL AS keys_requirements,
       satisfies('{}', '{}', NULL) AS kind;

-- What cannot be matched is refused, with the argument's name.
CREATE FUNCTION pg_temp.refusal(have jsonb, want jsonb) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
    detail text;
    hint text;
BEGIN
    RETURN satisfies(have, want)::text;
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    IF detail = '' OR hint = '' THEN
        RETURN 'without detail or hint: ' || SQLERRM;
    END IF;
    RETURN SQLERRM;
END
$$;
CREATE FUNCTION pg_temp.nested(levels int) RETURNS jsonb LANGUAGE sql AS
    $$SELECT (repeat('{"a":', levels - 1) || '{}' || repeat('}', levels - 1))::jsonb$$;

SELECT satisfies('{}', '{"hardware": {"gpu_memory_gb": {"$least": 16}}}');
SELECT satisfies('[]', '{}');
SELECT match_reasons('{}', '"x"');
SELECT want, pg_temp.refusal('{}', want::jsonb) FROM (VALUES
    ('null'), ('[]'), ('1'),
    ('{"a": {"$eq": null}}'), ('{"a": {"$eq": ["x"]}}'), ('{"a": {"$ne": {"b": 1}}}'),
    ('{"a": {"$gt": "1"}}'), ('{"a": {"$gte": null}}'), ('{"a": {"$lt": true}}'), ('{"a": {"$lte": [1]}}'),
    ('{"a": {"$in": []}}'), ('{"a": {"$in": "x"}}'), ('{"a": {"$in": [null]}}'), ('{"a": {"$nin": [["x"]]}}'),
    ('{"a": {"$all": []}}'), ('{"a": {"$all": [{}]}}'), ('{"a": {"$any": {"b": 1}}}'), ('{"a": {"$any": [1, null]}}'),
    ('{"a": {"$exists": 1}}'), ('{"a": {"$not": null}}'), ('{"a": {"$not": {"b": [{}]}}}'),
    ('{"a": {"$gt": 1, "b": 1}}'), ('{"a": {"b": 1, "$gt": 1}}'), ('{"$unknown": 1}'), ('{"a": [{"$": 1}]}'),
    ('{"a": {"$not": {"$not": {"$regex": "x"}}}}')) AS v(want);
SELECT have, pg_temp.refusal(have::jsonb, '{}') FROM (VALUES
    ('null'), ('"x"'), ('{"services": {"k": true}}'), ('{"services": ["k", 1]}'), ('{"services": true}'),
    ('{"services": ["k", null]}'), ('{"$gt": 1, "a": {"$unknown": null}}')) AS v(have);

-- Limits: at the limit it goes, one more is refused, on both sides.
\pset format unaligned
SELECT what, pg_temp.refusal(value, '{}') AS capabilities, pg_temp.refusal('{}', value) AS requirements
FROM (VALUES
    ('16 levels', pg_temp.nested(16)),
    ('17 levels', pg_temp.nested(17)),
    ('2000 levels', jsonb_build_object('a', (repeat('[', 1999) || repeat(']', 1999))::jsonb)),
    ('1000 nodes', (SELECT jsonb_object_agg('k' || i, null) FROM generate_series(1, 1000) i)),
    ('1001 nodes', (SELECT jsonb_object_agg('k' || i, null) FROM generate_series(1, 1001) i)),
    ('1000 elements', (SELECT jsonb_build_object('k', jsonb_agg(null::int)) FROM generate_series(1, 999) i)),
    ('1001 elements', (SELECT jsonb_build_object('k', jsonb_agg(null::int)) FROM generate_series(1, 1000) i)),
    ('64 kB', jsonb_build_object(repeat('x', 65520), null)),
    ('64 kB and 4', jsonb_build_object(repeat('x', 65524), null)),
    ('a long key', jsonb_build_object(repeat('x', 1000), pg_temp.nested(16))),
    ('100 digits', jsonb_build_object('a', '[]'::jsonb, 'b', jsonb_build_object('$nin', jsonb_build_array(repeat('9', 100)::numeric, 1e-100)))),
    ('101 digits', '{"a": {"$ne": 1e100}}'),
    ('-101 digits', '{"a": {"$ne": -1e100}}'),
    ('101 decimals', '{"a": {"$ne": 1e-101}}'),
    ('a huge number', '{"a": {"$ne": 1e131071}}')) AS v(what, value);
\pset format aligned

-- The answer depends on no setting.
BEGIN;
SET LOCAL TimeZone = 'Pacific/Chatham';
SET LOCAL DateStyle = 'SQL, DMY';
SET LOCAL extra_float_digits = -15;
SET LOCAL search_path = pg_temp;
SELECT count(*) AS answers_changed FROM rule NATURAL JOIN answer
WHERE verdict IS DISTINCT FROM gpu_orch.satisfies(have, want, kind)
   OR reasons IS DISTINCT FROM gpu_orch.match_reasons(have, want, kind);
ROLLBACK;
SELECT proname, provolatile, proparallel, proisstrict, proleakproof,
       has_function_privilege('public', oid, 'EXECUTE') AS public
FROM pg_proc WHERE pronamespace = 'gpu_orch'::regnamespace AND proname IN ('satisfies', 'match_reasons', 'match_keys')
ORDER BY proname;

-- Generated data: the same on each run. Few names and values, so that many pairs match.
CREATE FUNCTION pg_temp.dice(seed text, sides int) RETURNS int LANGUAGE sql IMMUTABLE AS
    $$SELECT (abs(hashtextextended(seed, 42) % sides))::int$$;

CREATE FUNCTION pg_temp.scalar(seed text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    $$SELECT (ARRAY['1', '2', '3', '2.0', '"x"', '"y"', '"z"', 'true', 'false', '"x"']::jsonb[])[1 + pg_temp.dice(seed, 10)]$$;

-- A value with or without operators; weights decide how much of it is nested.
CREATE FUNCTION pg_temp.value(seed text, depth int, wanted boolean) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
    throw int := pg_temp.dice(seed || 'v', 20);
    result jsonb;
    operator text;
BEGIN
    IF depth = 0 OR throw < 7 THEN
        RETURN pg_temp.scalar(seed || 's');
    ELSIF throw < 8 THEN
        RETURN 'null';
    ELSIF throw < 12 THEN
        SELECT coalesce(jsonb_agg(pg_temp.value(seed || 'e' || i, depth - 1, wanted)), '[]') INTO result
        FROM generate_series(1, pg_temp.dice(seed || 'n', CASE WHEN wanted THEN 3 ELSE 5 END)) i;
        RETURN result;
    ELSIF throw < 15 OR NOT wanted THEN
        SELECT coalesce(jsonb_object_agg(key, pg_temp.value(seed || key, depth - 1, wanted)), '{}') INTO result
        FROM unnest(ARRAY['a', 'b', 'models', 'services']) key
        WHERE pg_temp.dice(seed || key || 'in', 3) < CASE WHEN wanted THEN 1 ELSE 2 END;
        RETURN result;
    END IF;
    operator := (ARRAY['$eq', '$ne', '$gt', '$gte', '$lt', '$lte', '$in', '$nin', '$all', '$any', '$exists', '$not'])
        [1 + pg_temp.dice(seed || 'o', 12)];
    result := CASE
        WHEN operator IN ('$eq', '$ne') THEN pg_temp.scalar(seed || 'q')
        WHEN operator LIKE '$g%' OR operator LIKE '$l%' THEN to_jsonb(pg_temp.dice(seed || 'q', 4))
        WHEN operator = '$exists' THEN to_jsonb(pg_temp.dice(seed || 'q', 2) = 0)
        WHEN operator = '$not' THEN pg_temp.value(seed || 'q', depth - 1, true)
        WHEN operator IN ('$all', '$any') THEN
            jsonb_build_array(pg_temp.value(seed || 'q', depth - 1, true), pg_temp.value(seed || 'r', depth - 1, true))
        ELSE jsonb_build_array(pg_temp.scalar(seed || 'q'), pg_temp.scalar(seed || 'r'))
    END;
    RETURN jsonb_build_object(operator, result);
END
$$;

CREATE FUNCTION pg_temp.accepted(have jsonb, want jsonb) RETURNS boolean LANGUAGE plpgsql AS
$$
BEGIN
    RETURN satisfies(have, want) IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END
$$;

CREATE FUNCTION pg_temp.document(seed text, wanted boolean) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$
    SELECT coalesce(jsonb_object_agg(key, pg_temp.value(seed || key, 3, wanted)), '{}')
           || CASE WHEN wanted OR pg_temp.dice(seed, 3) = 0 THEN '{}'
                   ELSE jsonb_build_object('services', (ARRAY['["k"]', '["j"]', '["j", "k"]', '"k"', 'null']::jsonb[])[1 + pg_temp.dice(seed || 'k', 5)]) END
           || CASE WHEN pg_temp.dice(seed || 'm', 2) = 0 THEN '{}'
                   WHEN wanted THEN jsonb_build_object('models', (ARRAY['["x"]', '"x"', '["x", "y"]', '{"k": ["x"]}', '{"j": "y"}', '{"k": []}',
                                                                        '{"$nin": ["z"]}', '{"$any": ["x", "z"]}']::jsonb[])[1 + pg_temp.dice(seed || 'm2', 8)])
                   ELSE jsonb_build_object('models', (ARRAY['["x", "y"]', '{"k": ["x", "y"], "j": ["z"]}', '{"k": "x"}', '{}', '{"j": ["x"], "k": null}'
                                                           ]::jsonb[])[1 + pg_temp.dice(seed || 'm2', 5)]) END
    FROM unnest(ARRAY['a', 'b', 'c']) key
    WHERE pg_temp.dice(seed || key || 'in', 4) < CASE WHEN wanted THEN 1 ELSE 3 END
$$;

CREATE TEMP TABLE worker AS
    SELECT i AS n, pg_temp.document('worker' || i, false) AS have FROM generate_series(1, 60) i;
CREATE TEMP TABLE task AS
    SELECT i AS n, pg_temp.document('task' || i, true) AS want, (ARRAY['k', 'j', NULL])[1 + i % 3] AS kind
    FROM generate_series(1, 110) i;
DELETE FROM worker WHERE NOT pg_temp.accepted(have, '{}');
DELETE FROM task WHERE want = '{}' OR NOT pg_temp.accepted('{}', want);
SELECT (SELECT count(*) > 50 FROM worker) AS workers, (SELECT count(*) > 50 FROM task) AS tasks;

-- A slow matcher, written from the documentation alone.
CREATE FUNCTION pg_temp.is_operators(want jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    $$SELECT jsonb_typeof(want) = 'object' AND want <> '{}' AND NOT EXISTS (SELECT FROM jsonb_object_keys(want) k WHERE k NOT LIKE '$%')$$;

CREATE FUNCTION pg_temp.idle(want jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
    RETURN CASE jsonb_typeof(want)
        WHEN 'null' THEN true
        WHEN 'array' THEN (SELECT coalesce(bool_and(pg_temp.idle(e)), true) FROM jsonb_array_elements(want) e)
        WHEN 'object' THEN NOT pg_temp.is_operators(want)
            AND (SELECT coalesce(bool_and(pg_temp.idle(value)), true) FROM jsonb_each(want))
        ELSE false
    END;
END
$$;

CREATE FUNCTION pg_temp.as_array(have jsonb) RETURNS SETOF jsonb LANGUAGE sql IMMUTABLE AS
$$
    SELECT e FROM jsonb_array_elements(CASE jsonb_typeof(have) WHEN 'array' THEN have ELSE jsonb_build_array(have) END) e
    WHERE have IS NOT NULL AND e <> 'null'
$$;

CREATE FUNCTION pg_temp.slow(have jsonb, want jsonb, kind text, top boolean) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
    has_array boolean := jsonb_typeof(have) = 'array';
    wanted text := jsonb_typeof(want);
BEGIN
    IF have = 'null' THEN
        have := NULL;
    END IF;
    IF pg_temp.idle(want) THEN
        RETURN true;
    ELSIF wanted = 'array' THEN
        RETURN NOT EXISTS (
            SELECT FROM jsonb_array_elements(want) e
            WHERE NOT pg_temp.idle(e) AND NOT EXISTS (
                SELECT FROM pg_temp.as_array(have) h
                WHERE CASE WHEN jsonb_typeof(e) IN ('object', 'array') THEN pg_temp.slow(h, e, kind, false)
                           ELSE h = e END));
    ELSIF pg_temp.is_operators(want) THEN
        RETURN (SELECT bool_and(CASE key
            WHEN '$eq' THEN value IN (SELECT pg_temp.as_array(have))
            WHEN '$ne' THEN value NOT IN (SELECT pg_temp.as_array(have))
            WHEN '$in' THEN EXISTS (SELECT FROM jsonb_array_elements(value) v JOIN pg_temp.as_array(have) h ON h = v)
            WHEN '$nin' THEN NOT EXISTS (SELECT FROM jsonb_array_elements(value) v JOIN pg_temp.as_array(have) h ON h = v)
            WHEN '$gt' THEN jsonb_typeof(have) = 'number' AND have > value
            WHEN '$gte' THEN jsonb_typeof(have) = 'number' AND have >= value
            WHEN '$lt' THEN jsonb_typeof(have) = 'number' AND have < value
            WHEN '$lte' THEN jsonb_typeof(have) = 'number' AND have <= value
            WHEN '$exists' THEN (have IS NOT NULL) = value::boolean
            WHEN '$not' THEN NOT pg_temp.slow(have, value, kind, top)
            WHEN '$all' THEN (SELECT bool_and(pg_temp.slow(have, v, kind, top)) FROM jsonb_array_elements(value) v)
            WHEN '$any' THEN (SELECT bool_or(pg_temp.slow(have, v, kind, top)) FROM jsonb_array_elements(value) v)
            END IS TRUE) FROM jsonb_each(want));
    ELSIF wanted = 'object' AND has_array THEN
        RETURN EXISTS (SELECT FROM pg_temp.as_array(have) h WHERE pg_temp.slow(h, want, kind, false));
    ELSIF wanted = 'object' AND jsonb_typeof(have) <> 'object' THEN
        RETURN false;
    ELSIF wanted = 'object' THEN
        RETURN (SELECT bool_and(CASE WHEN top AND key = 'models' THEN pg_temp.slow_models(have -> 'models', value, kind)
                                     ELSE pg_temp.slow(have -> key, value, kind, false) END) FROM jsonb_each(want));
    ELSIF have IS NULL THEN
        RETURN false;
    ELSIF has_array THEN
        RETURN want IN (SELECT pg_temp.as_array(have));
    ELSIF wanted = 'number' THEN
        RETURN jsonb_typeof(have) = 'number' AND have >= want;
    END IF;
    RETURN have = want;
END
$$;

CREATE FUNCTION pg_temp.slow_models(have jsonb, want jsonb, kind text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
    by_kind boolean := coalesce(jsonb_typeof(have) = 'object', false);
    models jsonb;
BEGIN
    IF jsonb_typeof(want) = 'object' AND NOT pg_temp.is_operators(want) THEN
        RETURN (SELECT coalesce(bool_and(pg_temp.slow(CASE WHEN by_kind THEN have -> key ELSE have END, value, kind, false)), true)
                FROM jsonb_each(want));
    ELSIF by_kind AND kind IS NULL THEN
        models := jsonb_strip_nulls(have);
        RETURN CASE WHEN models = '{}' THEN pg_temp.slow(NULL, want, kind, false)
                    ELSE (SELECT bool_or(pg_temp.slow(value, want, kind, false)) FROM jsonb_each(models)) END;
    END IF;
    RETURN pg_temp.slow(CASE WHEN by_kind THEN have -> kind ELSE have END, want, kind, false);
END
$$;

CREATE FUNCTION pg_temp.slow_satisfies(have jsonb, want jsonb, kind text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$
    SELECT (kind IS NULL OR coalesce(have -> 'services', 'null') = 'null'
            OR to_jsonb(kind) IN (SELECT pg_temp.as_array(have -> 'services')))
           AND pg_temp.slow(have, want, kind, true)
$$;

SELECT count(*) AS rules_that_disagree FROM rule WHERE satisfies(have, want, kind) <> pg_temp.slow_satisfies(have, want, kind);

CREATE TEMP TABLE verdict AS
    SELECT w.n AS worker, t.n AS task, have, want, kind, satisfies(have, want, kind) AS verdict FROM worker w, task t;
SELECT count(*) > 3000 AS thousands_of_pairs,
       count(*) FILTER (WHERE verdict) > 500 AS matches,
       count(*) FILTER (WHERE NOT verdict) > 500 AS mismatches,
       count(*) FILTER (WHERE verdict IS DISTINCT FROM pg_temp.slow_satisfies(have, want, kind)) AS disagreements,
       count(*) FILTER (WHERE verdict IS DISTINCT FROM (match_reasons(have, want, kind) = '{}')) AS reasons_disagree
FROM verdict;

-- Reflexive: a worker does what it can.
SELECT count(*) AS not_reflexive FROM worker WHERE NOT satisfies(have, have);

-- Monotonic: with more of everything, a task without negative demands still matches. More is a greater
-- number, a longer array, one more key. A list of services is a restriction, and a number in an array a
-- label, so neither is made more of.
CREATE FUNCTION pg_temp.more(have jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
    RETURN CASE jsonb_typeof(have)
        WHEN 'number' THEN to_jsonb(have::numeric + 0.5)
        WHEN 'array' THEN have || '[7, "extra", {"extra": 1}]'
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(key, pg_temp.more(value)), '{}') || '{"extra": true}' FROM jsonb_each(have))
        ELSE have
    END;
END
$$;
SELECT count(*) FILTER (WHERE verdict) > 200 AS matches,
       count(*) FILTER (WHERE verdict AND NOT satisfies(pg_temp.more(have - 'services') || jsonb_build_object('services', have -> 'services'),
                                                  want, kind)) AS not_monotonic
FROM verdict WHERE want::text !~ '\$(ne|nin|not|lt|lte|eq|in|exists)"'
  AND NOT jsonb_path_exists(want, '$.** ? (@.type() == "array")[*] ? (@.type() == "number")');

-- No verdict depends on what does not count: order, repetition, the spelling of a number, empty demands.
CREATE FUNCTION pg_temp.respell(value jsonb, wanted boolean) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'number' THEN to_jsonb(round(value::numeric, 7))
        WHEN 'array' THEN (SELECT coalesce(jsonb_agg(pg_temp.respell(e, wanted) ORDER BY i DESC) || jsonb_agg(e), '[]')
                           FROM jsonb_array_elements(value) WITH ORDINALITY AS v(e, i))
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(key, pg_temp.respell(v.value, wanted) ORDER BY key DESC), '{}') FROM jsonb_each(value) v)
            || CASE WHEN pg_temp.is_operators(value) THEN '{}'
                    WHEN wanted THEN '{"q": null, "r": {}, "s": [], "t": {"u": [null, {}]}}'
                    ELSE '{"q": null}' END::jsonb
        ELSE value
    END;
END
$$;
SELECT count(*) FILTER (WHERE verdict IS DISTINCT FROM satisfies(pg_temp.respell(have, false), pg_temp.respell(want, true), kind)) AS spelling_matters
FROM verdict;

-- Asking for a kind never gains a match, unless models are asked for in the negative.
SELECT count(*) AS gained_by_kind FROM verdict
WHERE satisfies(have, want, 'k') AND NOT satisfies(have, want) AND want::text !~ '\$(ne|nin|not|exists)"';
