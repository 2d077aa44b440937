-- The writing function of the usage-tracking seed: all that an application needs. The seed lets every user of its database call it,
-- and believes p_user_id; here who is no writer logs for itself alone, and nobody logs what would be quarantined as negative.

-- Whose usage the asking role logs, where it may call log_ai_usage: 'everyone' for writers, runners, who owns the log, superusers; else
-- the id of the user that it is.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_logs_for() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1
        FROM pg_proc AS ours
        -- No other function of that name.
        JOIN pg_proc AS called ON called.proowner = ours.proowner
        WHERE ours.oid = 'tallyroll.tallyroll_logs_for()'::REGPROCEDURE AND called.pronamespace = '{app}'::REGNAMESPACE
            AND called.proname = 'log_ai_usage' AND called.pronargs = 13 AND has_function_privilege(called.oid, 'EXECUTE')
    ) THEN
        RETURN NULL;
    END IF;
    IF EXISTS (
        SELECT 1
        FROM pg_roles
        WHERE pg_has_role(CURRENT_USER, oid, 'MEMBER') AND (
            rolname IN ('tallyroll_writer', 'tallyroll_runner')
            OR oid = (SELECT relowner FROM pg_class WHERE oid = tallyroll.tallyroll_application_log())
        )
    ) THEN
        RETURN 'everyone';
    END IF;
    RETURN tallyroll.tallyroll_current_user_id()::TEXT;
END;
$$;

-- The way into the log for who may not write it. The first trigger says who inserts, with the rights of that one; whatever came in that
-- column, a default of a view on top say, is gone. The second writes, with its owner's rights.
CREATE OR REPLACE VIEW tallyroll.tallyroll_log_entry AS
SELECT
    NULL::UUID AS id,
    NULL::TEXT AS logs_for,
    NULL::UUID AS user_id,
    NULL::TEXT AS user_email,
    NULL::INTEGER AS customer_id,
    NULL::TEXT AS customer_name,
    NULL::TEXT AS request_type,
    NULL::TEXT AS session_id,
    NULL::INTEGER AS input_tokens,
    NULL::INTEGER AS output_tokens,
    NULL::TEXT AS model_used,
    NULL::INTEGER AS latency_ms,
    NULL::INTEGER AS tool_turns,
    NULL::TEXT AS status,
    NULL::TEXT AS error_message
WHERE FALSE;

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_say_who_logs() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.logs_for := tallyroll.tallyroll_logs_for();
    RETURN NEW;
END;
$$;

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_log_usage() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF COALESCE(NEW.logs_for NOT IN ('everyone', NEW.user_id::TEXT), TRUE) THEN
        RAISE EXCEPTION 'The usage of user % is for that user and for writers to log', NEW.user_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.user_id IS NULL THEN
        RAISE EXCEPTION 'log_ai_usage needs the user whose usage it is' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Else one user could bring a day past quarantine.max_ratio for everybody.
    IF LEAST(NEW.input_tokens, NEW.output_tokens, NEW.latency_ms, NEW.tool_turns) < 0 THEN
        RAISE EXCEPTION 'Tokens, latency and tool turns are not negative: %, %, %, %',
            NEW.input_tokens, NEW.output_tokens, NEW.latency_ms, NEW.tool_turns USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nor to where its costs no longer fit 64 bits.
    IF NEW.logs_for <> 'everyone' AND GREATEST(NEW.input_tokens, NEW.output_tokens) > 10000000 THEN
        RAISE EXCEPTION 'A request of a user has at most 10,000,000 tokens in and out each: %, %', NEW.input_tokens, NEW.output_tokens
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO {app}.ai_usage_log (
        user_id, user_email, customer_id, customer_name, request_type, session_id, input_tokens, output_tokens, model_used, latency_ms,
        tool_turns, status, error_message
    ) VALUES (
        NEW.user_id, NEW.user_email, NEW.customer_id, NEW.customer_name, COALESCE(NEW.request_type, 'report'), NEW.session_id,
        COALESCE(NEW.input_tokens, 0), COALESCE(NEW.output_tokens, 0), NEW.model_used, NEW.latency_ms, NEW.tool_turns,
        COALESCE(NEW.status, 'success'), NEW.error_message
    )
    RETURNING id INTO NEW.id;
    RETURN NEW;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'The usage of user % cannot be logged so: %', NEW.user_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;

-- In the order of their names.
DROP TRIGGER IF EXISTS tallyroll_1_say_who_logs ON tallyroll.tallyroll_log_entry;
DROP TRIGGER IF EXISTS tallyroll_2_log_usage ON tallyroll.tallyroll_log_entry;
CREATE TRIGGER tallyroll_1_say_who_logs INSTEAD OF INSERT ON tallyroll.tallyroll_log_entry
FOR EACH ROW EXECUTE FUNCTION tallyroll.tallyroll_say_who_logs();
CREATE TRIGGER tallyroll_2_log_usage INSTEAD OF INSERT ON tallyroll.tallyroll_log_entry
FOR EACH ROW EXECUTE FUNCTION tallyroll.tallyroll_log_usage();

CREATE OR REPLACE FUNCTION {app}.log_ai_usage(
    p_user_id UUID,
    p_user_email TEXT DEFAULT NULL,
    p_customer_id INTEGER DEFAULT NULL,
    p_customer_name TEXT DEFAULT NULL,
    p_request_type TEXT DEFAULT 'report',
    p_session_id TEXT DEFAULT NULL,
    p_input_tokens INTEGER DEFAULT 0,
    p_output_tokens INTEGER DEFAULT 0,
    p_model_used TEXT DEFAULT 'claude-sonnet-4-20250514',
    p_latency_ms INTEGER DEFAULT NULL,
    p_tool_turns INTEGER DEFAULT 0,
    p_status TEXT DEFAULT 'success',
    p_error_message TEXT DEFAULT NULL
) RETURNS UUID
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id UUID;
BEGIN
    INSERT INTO tallyroll.tallyroll_log_entry (
        user_id, user_email, customer_id, customer_name, request_type, session_id, input_tokens, output_tokens, model_used, latency_ms,
        tool_turns, status, error_message
    ) VALUES (
        p_user_id, p_user_email, p_customer_id, p_customer_name, p_request_type, p_session_id, p_input_tokens, p_output_tokens,
        p_model_used, p_latency_ms, p_tool_turns, p_status, p_error_message
    )
    RETURNING id INTO STRICT v_id;
    RETURN v_id;
END;
$$;
