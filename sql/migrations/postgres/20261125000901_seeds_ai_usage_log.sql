-- The seed's comments on its log, where nobody has written one.
SET LOCAL lock_timeout = '10s';

DO $$
DECLARE
    v_column TEXT;
    v_comment TEXT;
BEGIN
    IF obj_description('ai_usage_log'::REGCLASS, 'pg_class') IS NULL THEN
        COMMENT ON TABLE ai_usage_log IS 'Tracks all AI API requests by actual logged-in user (not customer context)';
    END IF;
    FOR v_column, v_comment IN VALUES
        ('user_id', 'The actual logged-in user who made the request (admin or customer user)'),
        ('customer_id', 'The customer context being viewed - for audit trail only'),
        ('total_cost_usd', 'Calculated cost based on Claude Sonnet 4 pricing: $3/MTok input + $15/MTok output')
    LOOP
        IF EXISTS (
            SELECT 1 FROM pg_attribute
            WHERE attrelid = 'ai_usage_log'::REGCLASS AND attname = v_column AND col_description(attrelid, attnum) IS NULL
        ) THEN
            EXECUTE format('COMMENT ON COLUMN ai_usage_log.%I IS %L', v_column, v_comment);
        END IF;
    END LOOP;
END;
$$;
