-- What the dashboards reckon with: money, averages, instants, days.

-- Nano-USD for each of p_count, in USD with so many places, rounded half-even once; 0 for each of nothing.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_usd(p_nanos NUMERIC, p_count NUMERIC, p_places INTEGER) RETURNS NUMERIC
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_count = 0 THEN round(0::NUMERIC, p_places) ELSE round((whole + CASE
        WHEN 2 * rest > divisor OR (2 * rest = divisor AND mod(whole, 2) = 1) THEN 1 ELSE 0
    END) / 10::NUMERIC ^ p_places, p_places) END
    FROM (
        SELECT div(scaled, divisor) AS whole, mod(scaled, divisor) AS rest, divisor
        FROM (
            SELECT COALESCE(p_nanos, 0) * 10::NUMERIC ^ p_places AS scaled, GREATEST(p_count, 1) * 1000000000 AS divisor
        ) AS fraction
    ) AS divided;
$$;

-- What so many requests cost: NULL where there are some and no cost is known, so that nothing unknown reads as 0.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_cost(p_nanos NUMERIC, p_request_count NUMERIC, p_places INTEGER) RETURNS NUMERIC
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_nanos IS NOT NULL OR COALESCE(p_request_count, 0) = 0
        THEN tallyroll.tallyroll_usd(p_nanos::NUMERIC, 1::NUMERIC, p_places) END;
$$;

-- What each of the p_priced among p_all costs; NULL where there are some and no cost is known.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_cost_of_each(p_nanos NUMERIC, p_priced NUMERIC, p_all NUMERIC, p_places INTEGER) RETURNS NUMERIC
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_priced > 0 OR COALESCE(p_all, 0) = 0
        THEN tallyroll.tallyroll_usd(p_nanos::NUMERIC, COALESCE(p_priced, 0)::NUMERIC, p_places) END;
$$;

-- What one request cost by its row, in USD with six places; NULL where that is nothing to add up.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_logged_cost(p_usd NUMERIC) RETURNS NUMERIC
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_usd >= 0 AND p_usd < 'NaN' THEN tallyroll.tallyroll_usd(round(p_usd * 1000000000), 1::NUMERIC, 6) END;
$$;

-- A whole average, rounded half-even; NULL of nothing.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_average(p_sum NUMERIC, p_count NUMERIC) RETURNS BIGINT
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_count > 0 THEN (div(p_sum, p_count) + CASE
        WHEN 2 * mod(p_sum, p_count) > p_count OR (2 * mod(p_sum, p_count) = p_count AND mod(div(p_sum, p_count), 2) = 1) THEN 1 ELSE 0
    END)::BIGINT END;
$$;

-- An instant in UTC, whatever the time zone of the session.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_instant(p_at TIMESTAMPTZ) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
$$;

-- The time zone that a summary was written in, NULL where it never was. Who asks need not be able to read the job's state.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_timezone(p_job TEXT) RETURNS TEXT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT timezone FROM tallyroll.job_window WHERE job = p_job AND state = 'done' LIMIT 1;
$$;

-- The day that it is, in the time zone that the summaries were written in.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_today() RETURNS DATE
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (now() AT TIME ZONE COALESCE(tallyroll.tallyroll_timezone('usage_daily_total'), 'UTC'))::DATE;
$$;

-- Usage of the days [p_from, p_to), as one row of sums.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_days(p_from DATE, p_to DATE, OUT requests BIGINT, OUT tokens BIGINT, OUT cost_nanos NUMERIC)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(SUM(request_count), 0)::BIGINT, COALESCE(SUM(total_tokens), 0)::BIGINT, SUM(total_cost_nanos)
    FROM tallyroll.usage_daily_total
    WHERE usage_date >= p_from AND usage_date < p_to;
$$;

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_check_days(p_days INTEGER) RETURNS VOID
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_days IS NULL OR p_days NOT BETWEEN 0 AND 36600 THEN
        RAISE EXCEPTION 'p_days is %, and must be from 0 to 36600', COALESCE(p_days::TEXT, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
END;
$$;
