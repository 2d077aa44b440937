-- Grain: user_id, every UUID that made a request or has an account, as of :as_of. Input: usage_monthly_user, usage_daily_user,
-- usage_requests_by_category, users, user_plans. Output: user_dashboard_data. Counts and sums are all-time unless they say otherwise.
-- NOT MATERIALIZED: asked for one user, the database looks at that user's rows only.
WITH total AS NOT MATERIALIZED (
    SELECT
        user_id,
        CAST(SUM(request_count) AS BIGINT) AS request_count,
        CAST(SUM(success_count) AS BIGINT) AS success_count,
        CAST(SUM(total_tokens) AS BIGINT) AS total_tokens,
        CAST(COALESCE(SUM(total_cost_nanos), 0) AS BIGINT) AS total_cost_nanos,
        CAST(SUM(success_latency_ms_sum) AS BIGINT) AS latency_ms_sum,
        CAST(SUM(success_latency_count) AS BIGINT) AS latency_count,
        CAST(SUM(rating_sum) AS BIGINT) AS rating_sum,
        CAST(SUM(rating_count) AS BIGINT) AS rating_count
    FROM usage_monthly_user
    GROUP BY user_id
), plan AS (
    -- Of several plans in force, the one with the latest start.
    SELECT
        CAST(user_id AS TEXT) AS user_id,
        plan_name,
        monthly_requests,
        daily_requests,
        max_tokens_per_request,
        features,
        ROW_NUMBER() OVER (PARTITION BY CAST(user_id AS TEXT) ORDER BY starts_at DESC, id DESC) AS place
    FROM user_plans
    WHERE is_active AND starts_at <= :as_of AND (expires_at IS NULL OR expires_at > :as_of)
), account AS NOT MATERIALIZED (
    -- A plan of the account itself; one that expired is free.
    SELECT
        id,
        is_active,
        CASE WHEN plan_expires_at IS NULL OR plan_expires_at > :as_of THEN plan ELSE 'free' END AS plan_name,
        -- The limit of an expired plan is not that of the free one: 100 is what an account begins with.
        CASE WHEN plan_expires_at IS NULL OR plan_expires_at > :as_of OR plan = 'free' THEN requests_limit ELSE 100 END AS monthly_limit
    FROM users
), everyone AS (
    -- The table's users are UUIDs.
    SELECT user_id
    FROM (
        SELECT user_id FROM total
        UNION
        SELECT CAST(id AS TEXT) FROM account
    ) AS known
    -- As one condition that PostgreSQL takes to be true of nearly all: by three it would expect one user, and look for it among all, for each.
    WHERE CASE
        WHEN user_id LIKE '________-____-____-____-____________'
            AND length(replace(user_id, '-', '')) = 32 AND ltrim(user_id, '0123456789abcdef-') = ''
        THEN 1 ELSE 0
    END <> 0
), used AS (
    SELECT
        everyone.user_id AS user_id,
        COALESCE(total.request_count, 0) AS request_count,
        COALESCE(total.success_count, 0) AS success_count,
        COALESCE(total.total_tokens, 0) AS total_tokens,
        COALESCE(total.total_cost_nanos, 0) AS total_cost_nanos,
        COALESCE(total.latency_ms_sum, 0) AS latency_ms_sum,
        COALESCE(total.latency_count, 0) AS latency_count,
        COALESCE(total.rating_sum, 0) AS rating_sum,
        COALESCE(total.rating_count, 0) AS rating_count,
        COALESCE(month.request_count, 0) AS month_count,
        COALESCE(today.request_count, 0) AS today_count,
        COALESCE(by_category.requests_by_category, '{}') AS requests_by_category,
        COALESCE(plan.plan_name, account.plan_name, 'free') AS plan_name,
        COALESCE(plan.monthly_requests, account.monthly_limit, 100) AS monthly_limit,
        plan.daily_requests AS daily_limit,
        plan.max_tokens_per_request AS max_tokens_per_request,
        plan.features AS features,
        COALESCE(account.is_active, TRUE) AS is_active
    FROM everyone
    LEFT JOIN total ON total.user_id = everyone.user_id
    LEFT JOIN usage_monthly_user AS month ON month.user_id = everyone.user_id AND month.usage_month = :as_of_month
    LEFT JOIN usage_daily_user AS today ON today.user_id = everyone.user_id AND today.usage_date = :as_of_date
    LEFT JOIN usage_requests_by_category AS by_category ON by_category.user_id = everyone.user_id
    LEFT JOIN plan ON plan.user_id = everyone.user_id AND plan.place = 1
    -- To the letter what the index is by: SQLite would else look for each account among all.
    LEFT JOIN account ON CAST(account.id AS TEXT) = everyone.user_id
)
SELECT
    user_id AS id,
    user_id AS user_id,
    request_count AS total_requests,
    total_tokens AS total_tokens_used,
    -- Nano-USD to cents. This and the averages are rounded half-even, once.
    total_cost_nanos / 10000000 + CASE
        WHEN total_cost_nanos % 10000000 > 5000000 THEN 1
        WHEN total_cost_nanos % 10000000 = 5000000 THEN total_cost_nanos / 10000000 % 2
        ELSE 0
    END AS total_cost,
    CASE WHEN latency_count > 0 THEN latency_ms_sum / latency_count + CASE
        WHEN 2 * (latency_ms_sum % latency_count) > latency_count THEN 1
        WHEN 2 * (latency_ms_sum % latency_count) = latency_count THEN latency_ms_sum / latency_count % 2
        ELSE 0
    END ELSE 0 END AS average_response_time,
    -- Whole ten-thousandths first: the same fraction in either database.
    CASE WHEN request_count > 0 THEN (10000 * success_count / request_count + CASE
        WHEN 2 * (10000 * success_count % request_count) > request_count THEN 1
        WHEN 2 * (10000 * success_count % request_count) = request_count THEN 10000 * success_count / request_count % 2
        ELSE 0
    END) / 10000.0 ELSE 0 END AS success_rate,
    CASE WHEN rating_count > 0 THEN (10000 * rating_sum / rating_count + CASE
        WHEN 2 * (10000 * rating_sum % rating_count) > rating_count THEN 1
        WHEN 2 * (10000 * rating_sum % rating_count) = rating_count THEN 10000 * rating_sum / rating_count % 2
        ELSE 0
    END) / 10000.0 END AS average_rating,
    requests_by_category AS requests_by_category,
    month_count AS requests_this_month,
    today_count AS requests_today,
    plan_name AS plan_name,
    month_count AS monthly_used,
    monthly_limit AS monthly_limit,
    today_count AS daily_used,
    daily_limit AS daily_limit,
    max_tokens_per_request AS max_tokens_per_request,
    features AS features,
    is_active AND month_count < monthly_limit AND (daily_limit IS NULL OR today_count < daily_limit) AS can_make_request,
    :as_of AS last_calculated_at,
    :as_of AS created_at,
    :as_of AS updated_at
FROM used
