-- CALL pg_temp.refusals(call...) tells what becomes of each call: its error, or "accepted". Numbers of
-- tasks and random names of workers are masked; an error of ours without a hint is marked.
CREATE PROCEDURE pg_temp.refusals(VARIADIC calls text[]) LANGUAGE plpgsql AS $$
DECLARE
    call text;
    outcome text;
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    FOREACH call IN ARRAY calls LOOP
        BEGIN
            EXECUTE 'SELECT * FROM ' || call;
            outcome := 'accepted';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            outcome := format('%s %s%s%s', state, regexp_replace(regexp_replace(message, '\mtask \d+', 'task N'), '-[0-9a-f]{8}"', '-X"'),
                              CASE WHEN state IN ('22023', '54000') THEN nullif('. ' || detail, '. ') END,
                              CASE WHEN hint = '' AND state ~ '^(22023|54000|GO)' THEN ' (NO HINT)' END);
        END;
        RAISE INFO '%  -->  %', left(call, 110), outcome;
    END LOOP;
END
$$;
\set ECHO all
