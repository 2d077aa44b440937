//! Sizes past what a demo has: a day of millions of rows, thousands of days, a million of everything, a long history.

use std::time::{Duration, Instant};

use super::RUN;
use crate::on_both_databases;
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(a_day_of_many_rows, many_days, a_day_of_many_users_customers_and_models, a_long_history);

/// Rows numbered from 0, `count` of them, under the name `n`.
fn numbers(engine: Engine, count: usize) -> String {
    match engine {
        Engine::Postgres => format!("generate_series(0, {}) AS n", count - 1),
        Engine::Sqlite => {
            format!(
                "(WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < {}) SELECT n FROM counted)",
                count - 1
            )
        }
    }
}

/// A UUID whose last twelve digits are a number.
fn uuid(engine: Engine, number: &str) -> String {
    match engine {
        Engine::Postgres => format!("CAST('00000000-0000-4000-8000-' || lpad(({number})::TEXT, 12, '0') AS UUID)"),
        Engine::Sqlite => format!("printf('00000000-0000-4000-8000-%012d', {number})"),
    }
}

fn instant(engine: Engine, start: &str, seconds: &str) -> String {
    match engine {
        Engine::Postgres => format!("'{start}'::TIMESTAMPTZ + ({seconds}) * INTERVAL '1 second'"),
        Engine::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%S.000000Z', '{start}', ({seconds}) || ' seconds')"),
    }
}

async fn log(fixture: &Fixture, engine: Engine, count: usize, user: &str, at: &str) {
    let sql = format!(
        "INSERT INTO ai_usage_log (id, user_id, customer_id, input_tokens, output_tokens, model_used, created_at) \
         SELECT {id}, {user}, {customer}, 10, 1, 'model-' || {customer}, {at} FROM {numbers}",
        id = uuid(engine, "n"),
        user = uuid(engine, user),
        customer = user,
        numbers = numbers(engine, count),
    );
    fixture.execute(&sql).await;
}

async fn a_day_of_many_rows(engine: Engine) {
    let count = repetitions(30_000, 3_000_000);
    let fixture = Fixture::new(engine).await;
    log(&fixture, engine, count, "n % 50", &instant(engine, "2026-02-01", "n % 86400")).await;
    fixture.run_well(RUN);
    assert_eq!(
        fixture.rows("SELECT CAST(SUM(request_count) AS BIGINT), CAST(SUM(total_tokens) AS BIGINT) FROM usage_daily").await,
        [format!("{count}|{}", count * 11)]
    );
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn many_days(engine: Engine) {
    let days = repetitions(300, 10_000);
    let fixture = Fixture::new(engine).await;
    log(&fixture, engine, days, "n % 3", &instant(engine, "1998-11-01", "n * 86400")).await;
    let started = Instant::now();
    fixture.run_well(RUN);
    println!("{days} days in {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(
        fixture.number("SELECT COUNT(*) FROM job_window WHERE job = 'usage_daily' AND state = 'done'").await,
        i64::try_from(days).unwrap()
    );
    assert_eq!(fixture.written(RUN), Vec::<String>::new());
}

async fn a_day_of_many_users_customers_and_models(engine: Engine) {
    let count = repetitions(5_000, 1_000_000);
    let fixture = Fixture::new(engine).await;
    log(&fixture, engine, count, "n", &instant(engine, "2026-02-01", "n % 86400")).await;
    fixture.run_well(RUN);
    for table in ["usage_daily", "usage_daily_user", "usage_daily_customer", "usage_monthly_user"] {
        assert_eq!(fixture.number(&format!("SELECT COUNT(*) FROM {table}")).await, i64::try_from(count).unwrap(), "{table}");
    }
}

async fn a_long_history(engine: Engine) {
    let count = repetitions(20_000, 1_000_000);
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-02-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let columns = "job, \"trigger\", state, request, host, pid, version, attempt, windows_planned, windows_done, rows_in, rows_out, quarantined_count";
    let runs = format!(
        "INSERT INTO job_run (run_id, {columns}, as_of, started_at, heartbeat_at, finished_at, duration_ms) \
         SELECT 'old-' || n, {columns}, as_of, started_at, heartbeat_at, finished_at, duration_ms \
         FROM job_run CROSS JOIN {} WHERE job = 'usage_daily'",
        numbers(engine, count)
    );
    fixture.execute(&runs).await;
    fixture.execute("ANALYZE").await;
    let site = Site::new(&fixture, TOKEN, "2026-04-15T00:00:00Z").await;
    let mut slowest = Duration::ZERO;
    for path in ["/", "/runs", "/runs?failed=1", "/runs?job=usage_daily", "/api/jobs", "/api/runs", "/metrics"] {
        let started = Instant::now();
        assert_eq!(site.get(path).await.status, 200, "{path}");
        slowest = slowest.max(started.elapsed());
    }
    let started = Instant::now();
    assert_eq!(fixture.written(RUN), Vec::<String>::new());
    println!("{count} runs: an idle tick {:.3} s, the slowest page {:.3} s", started.elapsed().as_secs_f64(), slowest.as_secs_f64());
}
