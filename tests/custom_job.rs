//! A user's own summary: two files and no rebuild.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    two_files_make_a_summary,
    a_failing_check_keeps_the_old_rows,
    two_rows_of_one_grain_are_refused,
    an_edited_source_reads_another_table,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

pub const JOB: &str = r#"
description = "Requests per model and month"
operator = "sql"
reads = ["usage_daily"]
grain = ["usage_month", "model"]
window = "month"
"#;

pub const SQL: &str = "
-- Grain: usage_month, model. Input: usage_daily. Output: usage_by_model.
SELECT
    :window_start AS usage_month,
    model AS model,
    CAST(SUM(request_count) AS BIGINT) AS request_count
FROM usage_daily
WHERE usage_date >= :window_start AND usage_date < :window_end
GROUP BY model
";

async fn two_files_make_a_summary(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for (day, model) in [("01", "'a'"), ("02", "'a'"), ("03", "'b'")] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[("model_used", model)]).await;
    }
    fixture.run_well(RUN);
    fixture.write("jobs/usage_by_model.toml", JOB);
    let missing = fixture.run(&["check"]);
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("sql/usage_by_model.sql"), "{}", missing.stderr);
    fixture.write("sql/usage_by_model.sql", SQL);
    fixture.run_well(&["check"]);
    assert!(fixture.run_well(&["list-jobs", "--json"]).contains("\"name\":\"usage_by_model\""));

    // Due at once for what is there already, then with every change, like the built-in ones.
    assert_eq!(fixture.written(&["run-job", "usage_by_model"]), ["usage_by_model 2026-03"]);
    let read = "SELECT usage_month, model, request_count FROM usage_by_model ORDER BY 1, 2";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|a|2", "2026-03-01|b|1"]);
    fixture.log("2026-04-01T10:00:00.000000Z", &[("model_used", "'b'")]).await;
    assert!(fixture.written(RUN).contains(&"usage_by_model 2026-04".to_owned()));
    assert_eq!(fixture.rows(read).await, ["2026-03-01|a|2", "2026-03-01|b|1", "2026-04-01|b|1"]);
}

async fn a_failing_check_keeps_the_old_rows(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "jobs/usage_by_model.toml",
        &format!("{JOB}\n[checks]\nnot_more_than_two = \"SELECT model, request_count FROM usage_by_model WHERE request_count > 2\"\n"),
    );
    fixture.write("sql/usage_by_model.sql", SQL);
    for hour in ["10", "11"] {
        fixture.log(&format!("2026-03-01T{hour}:00:00.000000Z"), &[("model_used", "'a'")]).await;
    }
    fixture.run_well(RUN);
    fixture.log("2026-03-01T12:00:00.000000Z", &[("model_used", "'a'")]).await;
    let failed = fixture.run(RUN);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("Check `not_more_than_two` of job `usage_by_model` returned 1 row for 2026-03"), "{}", failed.stderr);
    assert!(failed.stderr.contains("model = a, request_count = 3"), "{}", failed.stderr);
    assert_eq!(fixture.rows("SELECT request_count FROM usage_by_model").await, ["2"]);
}

async fn two_rows_of_one_grain_are_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("jobs/usage_by_model.toml", JOB);
    fixture.write("sql/usage_by_model.sql", &format!("{} UNION ALL SELECT :window_start, 'a', CAST(1 AS BIGINT)", SQL.trim_end()));
    fixture.log("2026-03-01T10:00:00.000000Z", &[("model_used", "'a'")]).await;
    let failed = fixture.run(RUN);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.to_lowercase().contains("unique"), "{}", failed.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_by_model").await, 0);
}

/// Reads the table `calls`, of (number, at, who, tokens), as usage events; `customer` gives their customers.
pub fn source_of_calls(fixture: &Fixture, customer: &str) -> String {
    let (instant, null_text, null_int) =
        fixture.store.pick(("CAST(at AS TIMESTAMPTZ)", "CAST(NULL AS TEXT)", "CAST(NULL AS BIGINT)"), ("at", "NULL", "NULL"));
    format!(
        "-- name: events
SELECT number AS event_id, {instant} AS occurred_at, who AS user_id, {null_text} AS user_email, {customer} AS customer_id,
    {null_text} AS customer_name, 'call' AS request_type, {null_text} AS category, {null_text} AS model, 'success' AS status,
    {null_int} AS input_tokens, {null_int} AS output_tokens, tokens AS total_tokens, {null_int} AS input_cost_nanos,
    {null_int} AS output_cost_nanos, {null_int} AS total_cost_nanos, {null_int} AS latency_ms, {null_int} AS rating, {null_int} AS tool_turns
FROM calls WHERE {instant} >= :window_start AND {instant} < :window_end
-- name: changed
SELECT at AS slot_start, 'never' AS reason FROM calls WHERE 1 = 0
-- name: position
SELECT '1' AS position, 0 AS is_behind
-- name: next_event
SELECT MIN({instant}) AS occurred_at FROM calls WHERE {instant} >= :from
"
    )
}

async fn an_edited_source_reads_another_table(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // A table without any of Tallyroll's columns: found by looking back.
    fixture.execute("CREATE TABLE calls (number INTEGER, at TEXT, who TEXT, tokens INTEGER)").await;
    fixture.execute("INSERT INTO calls VALUES (1, '2026-03-01T10:00:00.000000Z', '00000000-0000-4000-8000-000000000001', 42)").await;
    let events = source_of_calls(&fixture, "CAST(NULL AS BIGINT)");
    fixture.write(&format!("sql/sources/calls.{}.sql", fixture.store.engine()), &events);
    fixture.write("tallyroll.toml", "[usage]\nsources = [\"calls\"]\nchange_tracking = \"lookback\"\n");
    fixture.run_well(RUN);
    let read = "SELECT source, request_type, total_tokens, unpriced_count, total_cost_nanos FROM usage_daily";
    assert_eq!(fixture.rows(read).await, ["calls|call|42|1|NULL"]);

    fixture.write(&format!("sql/sources/calls.{}.sql", fixture.store.engine()), &events.replace("AS total_tokens", "AS tokens"));
    let failed = fixture.run(RUN);
    assert_eq!(failed.code, Some(78));
    assert!(failed.stderr.contains("lacks `total_tokens`"), "{}", failed.stderr);
}
