-- The writing function of the usage-tracking seed: all that an application needs. The seed lets every user of its database call it,
-- and believes p_user_id; here who is no writer logs for itself alone, and nobody logs what would be quarantined as negative.

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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id UUID;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF NOT tallyroll.tallyroll_records_for_all() AND p_user_id IS DISTINCT FROM tallyroll.tallyroll_current_user_id() THEN
        RAISE EXCEPTION 'The usage of user % is for that user and for writers to log', p_user_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF p_user_id IS NULL THEN
        RAISE EXCEPTION 'log_ai_usage needs the user whose usage it is' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Else one user could bring a day past quarantine.max_ratio for everybody.
    IF LEAST(p_input_tokens, p_output_tokens, p_latency_ms, p_tool_turns) < 0 THEN
        RAISE EXCEPTION 'Tokens, latency and tool turns are not negative: %, %, %, %', p_input_tokens, p_output_tokens, p_latency_ms, p_tool_turns
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO {app}.ai_usage_log (
        user_id, user_email, customer_id, customer_name, request_type, session_id, input_tokens, output_tokens, model_used, latency_ms,
        tool_turns, status, error_message
    ) VALUES (
        p_user_id, p_user_email, p_customer_id, p_customer_name, COALESCE(p_request_type, 'report'), p_session_id,
        COALESCE(p_input_tokens, 0), COALESCE(p_output_tokens, 0), p_model_used, p_latency_ms, p_tool_turns,
        COALESCE(p_status, 'success'), p_error_message
    )
    RETURNING id INTO v_id;
    RETURN v_id;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'The usage of user % cannot be logged so: %', p_user_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;
