-- The dashboard cache of the seed, with what its API shows beside. The job user_dashboard replaces its rows;
-- users.requests_used follows.
ALTER TABLE user_dashboard_data ADD COLUMN success_rate REAL;
ALTER TABLE user_dashboard_data ADD COLUMN average_rating REAL;
ALTER TABLE user_dashboard_data ADD COLUMN plan_name TEXT;
ALTER TABLE user_dashboard_data ADD COLUMN monthly_used INTEGER;
ALTER TABLE user_dashboard_data ADD COLUMN monthly_limit INTEGER;
ALTER TABLE user_dashboard_data ADD COLUMN daily_used INTEGER;
ALTER TABLE user_dashboard_data ADD COLUMN daily_limit INTEGER;
ALTER TABLE user_dashboard_data ADD COLUMN can_make_request INTEGER;
CREATE INDEX idx_user_dashboard_data_user ON user_dashboard_data (user_id);

CREATE TRIGGER tallyroll_follow_requests_used AFTER INSERT ON user_dashboard_data BEGIN
    UPDATE users
    SET requests_used = NEW.monthly_used
    WHERE id = NEW.user_id AND requests_used IS NOT NEW.monthly_used;
END;

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
    json_group_object(category, request_count) AS requests_by_category
FROM (SELECT user_id, category, request_count FROM counted ORDER BY user_id, category) AS ordered
GROUP BY user_id;
