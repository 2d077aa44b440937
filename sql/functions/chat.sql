-- Chat requests, begun and completed by the application.

-- Begins a chat request, with what sorts it: it counts once it is complete.
CREATE OR REPLACE FUNCTION {app}.track_chat_request(
    p_user_id UUID,
    p_prompt TEXT DEFAULT NULL,
    p_session_id TEXT DEFAULT NULL,
    p_model TEXT DEFAULT NULL,
    p_request_type TEXT DEFAULT 'chat',
    p_category TEXT DEFAULT NULL,
    p_complexity TEXT DEFAULT NULL
) RETURNS UUID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id UUID;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF p_user_id IS NULL THEN
        RAISE EXCEPTION 'track_chat_request needs the user whose request it is' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH request AS (
        INSERT INTO {app}.chat_requests (user_id, session_id, prompt, model, status, started_at)
        VALUES (p_user_id, p_session_id, p_prompt, p_model, 'pending', now())
        RETURNING id, user_id
    ), analytics AS (
        INSERT INTO {app}.request_analytics (user_id, request_id, request_type, category, complexity)
        SELECT user_id, id, p_request_type, p_category, p_complexity
        FROM request
    )
    SELECT id INTO STRICT v_id FROM request;
    RETURN v_id;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'A chat request of user % cannot begin so: %', p_user_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;

-- Completes a chat request. Called again, it adds what is known only later, a rating say: what is NULL stays as it was.
CREATE OR REPLACE FUNCTION {app}.complete_chat_request(
    p_request_id UUID,
    p_status TEXT DEFAULT NULL,
    p_response TEXT DEFAULT NULL,
    p_tokens_used INTEGER DEFAULT NULL,
    p_cost INTEGER DEFAULT NULL,
    p_duration INTEGER DEFAULT NULL,
    p_user_rating INTEGER DEFAULT NULL,
    p_tokens_input INTEGER DEFAULT NULL,
    p_tokens_output INTEGER DEFAULT NULL,
    p_error_message TEXT DEFAULT NULL
) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF p_status NOT IN ('completed', 'failed') THEN
        RAISE EXCEPTION 'A chat request ends as completed or failed, not as %', p_status USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE {app}.chat_requests
    SET status = COALESCE(p_status, NULLIF(status, 'pending'), 'completed'),
        response = COALESCE(p_response, response),
        tokens_used = COALESCE(p_tokens_used, tokens_used, CASE
            WHEN COALESCE(p_tokens_input, p_tokens_output) IS NOT NULL
                THEN LEAST(COALESCE(p_tokens_input, 0)::BIGINT + COALESCE(p_tokens_output, 0), 2147483647)
        END),
        cost = COALESCE(p_cost, cost),
        duration = COALESCE(p_duration, duration),
        error_message = COALESCE(p_error_message, error_message),
        completed_at = COALESCE(completed_at, now())
    WHERE id = p_request_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no chat request %', p_request_id USING ERRCODE = 'no_data_found',
            HINT = 'track_chat_request gives the id of one.';
    END IF;
    UPDATE {app}.request_analytics
    SET user_rating = COALESCE(p_user_rating, user_rating),
        tokens_input = COALESCE(p_tokens_input, tokens_input),
        tokens_output = COALESCE(p_tokens_output, tokens_output),
        response_time = COALESCE(p_duration, response_time),
        was_successful = (SELECT status = 'completed' FROM {app}.chat_requests WHERE id = p_request_id)
    WHERE id = (SELECT id FROM {app}.request_analytics WHERE request_id = p_request_id ORDER BY created_at DESC, id DESC LIMIT 1);
    IF NOT FOUND AND COALESCE(p_user_rating, p_tokens_input, p_tokens_output) IS NOT NULL THEN
        INSERT INTO {app}.request_analytics (user_id, request_id, tokens_input, tokens_output, user_rating, was_successful)
        SELECT user_id, id, p_tokens_input, p_tokens_output, p_user_rating, status = 'completed'
        FROM {app}.chat_requests
        WHERE id = p_request_id;
    END IF;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'Chat request % cannot be completed so: %', p_request_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;
