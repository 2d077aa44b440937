//! How long pages take on a large database: printed, and held against a bound that only a wrong plan of the database breaks.

use std::time::{Duration, Instant};

use super::NOW;
use crate::on_both_databases;
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(pages_of_a_large_database_answer_in_time, those_that_cost_most_are_found_without_reading_all);

/// What each row of a summary holds beside its key.
const MEASURES: &str = "request_count, success_count, error_count, unpriced_count, input_tokens, output_tokens, total_tokens, input_cost_nanos, \
     output_cost_nanos, total_cost_nanos, success_total_tokens, success_cost_nanos, success_latency_ms_sum, success_latency_count, latency_ms_max, \
     tool_turns, rating_sum, rating_count, first_request_at, last_request_at";

const USER: [&str; 4] = ["user", "user_id", "user_email", "unique_customers"];
const CUSTOMER: [&str; 4] = ["customer", "customer_id", "customer_name", "unique_users"];

/// What a user costs a day: a few cost most, as people do; or all about the same, which no bound tells apart.
const SKEWED: &str = "1000000 + 90000000000 / n + (n * 7919) % 9000000";
const EVEN: &str = "1000000 + (n * 7919) % 9000";

/// `days` days of `count` users or customers.
async fn fill(fixture: &Fixture, engine: Engine, grain: [&str; 4], days: usize, count: usize, cost: &str) {
    let [table, id, label, unique] = grain;
    let (day, number, uuid) = match engine {
        Engine::Postgres => (
            format!(
                "SELECT CAST(at AS DATE) AS day FROM generate_series(TIMESTAMP '2026-04-05' - INTERVAL '{} days', '2026-04-05', '1 day') AS at",
                days - 1
            ),
            format!("SELECT n FROM generate_series(1, {count}) AS n"),
            "'00000000-0000-4000-8000-' || lpad(CAST(n AS TEXT), 12, '0')",
        ),
        Engine::Sqlite => (
            format!(
                "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT date('2026-04-05', '-' || n || ' days') AS day FROM s",
                days - 1
            ),
            format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s"),
            "'00000000-0000-4000-8000-' || substr('000000000000' || n, -12)",
        ),
    };
    let id_value = if id == "user_id" { uuid } else { "CAST(n AS TEXT)" };
    let at = if engine == Engine::Postgres { "CAST(day AS TIMESTAMPTZ)" } else { "day || 'T10:00:00.000000Z'" };
    fixture
        .execute(&format!(
            "INSERT INTO usage_daily_{table} (usage_date, {id}, {label}, {MEASURES}, {unique}) \
             SELECT day, {id_value}, 'name ' || n || '@example.com', 5, 5, 0, 0, 1000, 200, 1200, 1, 1, {cost}, 1200, 1, \
             1000, 5, 400, 1, 0, 0, {at}, {at}, 1 FROM ({day}) AS days CROSS JOIN ({number}) AS numbers"
        ))
        .await;
    let month =
        if engine == Engine::Postgres { "CAST(date_trunc('month', usage_date) AS DATE)" } else { "date(usage_date, 'start of month')" };
    let sums: Vec<String> = MEASURES
        .split(", ")
        .map(|measure| if measure.ends_with("_at") { format!("MAX({measure})") } else { format!("SUM({measure})") })
        .collect();
    fixture
        .execute(&format!(
            "INSERT INTO usage_monthly_{table} (usage_month, {id}, {label}, {MEASURES}, {unique}) SELECT {month}, {id}, MAX({label}), {}, 1 \
             FROM usage_daily_{table} GROUP BY 1, 2",
            sums.join(", ")
        ))
        .await;
}

async fn pages_of_a_large_database_answer_in_time(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fill(&fixture, engine, USER, 90, repetitions(1_000, 20_000), SKEWED).await;
    fill(&fixture, engine, CUSTOMER, 90, repetitions(100, 2_000), SKEWED).await;
    let sums: Vec<String> = MEASURES
        .split(", ")
        .map(|measure| if measure.ends_with("_at") { format!("MAX({measure})") } else { format!("SUM({measure})") })
        .collect();
    let sums = sums.join(", ");
    fixture.execute(&format!("INSERT INTO usage_daily_total (usage_date, {MEASURES}, unique_users, unique_customers) SELECT usage_date, {sums}, 1, 1 FROM usage_daily_user GROUP BY 1")).await;
    fixture.execute(&format!("INSERT INTO usage_daily_type (usage_date, request_type, model, {MEASURES}) SELECT usage_date, 'type', CAST(CAST(customer_id AS BIGINT) % 20 AS TEXT), {sums} FROM usage_daily_customer GROUP BY 1, 3")).await;
    fixture.execute("ANALYZE").await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    for path in [
        "/",
        "/usage",
        "/usage?from=2026-01-06&to=2026-04-05",
        "/usage?from=2026-01-15&to=2026-04-05",
        "/usage?from=2026-01-15&to=2026-03-16",
        "/usage?from=2026-02-16&to=2026-03-17",
        "/usage?from=2026-01-06&to=2026-04-05&q=name%2077",
        "/usage?from=2016-04-05&to=2026-04-05",
    ] {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let answer = site.get(path).await;
            took.push(started.elapsed());
            assert_eq!(answer.status, 200, "{path}");
        }
        took.sort();
        println!("{engine:?} {path}: {:?}, at most {:?}", took[2], took[4]);
        assert!(took[2] < Duration::from_secs(5), "{path} took {took:?}");
    }
}

async fn those_that_cost_most_are_found_without_reading_all(engine: Engine) {
    for cost in [SKEWED, EVEN] {
        let fixture = Fixture::new(engine).await;
        fill(&fixture, engine, USER, 60, 600, cost).await;
        fill(&fixture, engine, CUSTOMER, 60, 150, cost).await;
        // Costs that differ from day to day, so that the order differs from span to span.
        let day =
            if engine == Engine::Postgres { "EXTRACT(DAY FROM usage_date)::BIGINT" } else { "CAST(strftime('%d', usage_date) AS INTEGER)" };
        for (table, id) in [("user", "length(user_email)"), ("customer", "CAST(customer_id AS BIGINT)")] {
            fixture
                .execute(&format!("UPDATE usage_daily_{table} SET total_cost_nanos = total_cost_nanos + ({id} * {day} * 7919) % 100003"))
                .await;
            let month = if engine == Engine::Postgres { "date_trunc('month', usage_date)" } else { "date(usage_date, 'start of month')" };
            fixture
                .execute(&format!(
                    "UPDATE usage_monthly_{table} SET total_cost_nanos = (SELECT SUM(total_cost_nanos) FROM usage_daily_{table} AS days \
                     WHERE days.{table}_id = usage_monthly_{table}.{table}_id AND {month} = usage_month)"
                ))
                .await;
        }
        let site = Site::new(&fixture, TOKEN, NOW).await;
        for (from, to) in [
            ("2026-02-05", "2026-04-05"),
            ("2026-02-10", "2026-03-20"),
            ("2026-02-20", "2026-03-10"),
            ("2026-03-03", "2026-03-04"),
            ("2026-03-02", "2026-03-30"),
            ("2025-01-01", "2026-03-31"),
        ] {
            let usage = site.get(&format!("/api/usage?from={from}&to={to}")).await.json();
            for (list, table, id) in [("users", "user", "user_id"), ("customers", "customer", "customer_id")] {
                let shown: Vec<String> = usage[list]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|line| format!("{}|{}|{}", line["id"].as_str().unwrap(), line["request_count"], line["total_cost_usd"]))
                    .collect();
                let cost = if engine == Engine::Postgres { "SUM(total_cost_nanos)::BIGINT" } else { "SUM(total_cost_nanos)" };
                let expected: Vec<String> = fixture
                    .rows(&format!(
                        "SELECT {id}, CAST(SUM(request_count) AS BIGINT), {cost} FROM usage_daily_{table} WHERE usage_date BETWEEN '{from}' AND '{to}' \
                         GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT 100"
                    ))
                    .await
                    .iter()
                    .map(|row| {
                        let fields: Vec<&str> = row.split('|').collect();
                        let usd: f64 = tallyroll::money::format_usd(fields[2].parse().unwrap(), 9).parse().unwrap();
                        format!("{}|{}|{}", fields[0], fields[1], serde_json::json!(usd))
                    })
                    .collect();
                assert_eq!(shown, expected, "{list} of {from} to {to}, {cost}");
            }
        }
    }
}
