-- The dashboard cache of the seed, with sums that do not overflow 32 bits and what its API shows beside them. The job user_dashboard
-- replaces its rows; users.requests_used follows.
SET LOCAL lock_timeout = '10s';

ALTER TABLE user_dashboard_data
    ALTER COLUMN total_requests TYPE BIGINT,
    ALTER COLUMN total_tokens_used TYPE BIGINT,
    ALTER COLUMN total_cost TYPE BIGINT,
    ALTER COLUMN average_response_time TYPE BIGINT,
    ALTER COLUMN requests_this_month TYPE BIGINT,
    ALTER COLUMN requests_today TYPE BIGINT,
    ADD COLUMN IF NOT EXISTS success_rate DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS average_rating DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS plan_name TEXT,
    ADD COLUMN IF NOT EXISTS monthly_used BIGINT,
    ADD COLUMN IF NOT EXISTS monthly_limit BIGINT,
    ADD COLUMN IF NOT EXISTS daily_used BIGINT,
    ADD COLUMN IF NOT EXISTS daily_limit BIGINT,
    ADD COLUMN IF NOT EXISTS can_make_request BOOLEAN;
CREATE INDEX IF NOT EXISTS idx_user_dashboard_data_user ON user_dashboard_data (user_id);

CREATE FUNCTION tallyroll_follow_requests_used() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE users
    SET requests_used = LEAST(dashboard.monthly_used, 2147483647)
    FROM new_rows AS dashboard
    WHERE users.id = dashboard.user_id AND users.requests_used IS DISTINCT FROM LEAST(dashboard.monthly_used, 2147483647);
    RETURN NULL;
END;
$$;
CREATE TRIGGER tallyroll_follow_requests_used AFTER INSERT ON user_dashboard_data
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_follow_requests_used();

-- Requests of each user by category, as JSON: what the databases write differently of user_dashboard_data.
CREATE VIEW usage_requests_by_category AS
WITH counted AS (
    SELECT
        user_id,
        category,
        CAST(SUM(request_count) AS BIGINT) AS request_count
    FROM usage_daily
    WHERE category IS NOT NULL
    GROUP BY user_id, category
)
SELECT
    user_id,
    jsonb_object_agg(category, request_count) AS requests_by_category
FROM counted
GROUP BY user_id;
