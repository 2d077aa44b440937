//! What one writer can make a run do: read a text without end, add up numbers that do not fit, open days that nobody used.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_text_past_the_limit_is_refused,
    long_texts_from_before_the_limit_are_quarantined,
    an_event_before_the_earliest_day_is_quarantined_and_fails_nothing,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const USER: &str = "00000000-0000-4000-8000-000000000001";

async fn a_text_past_the_limit_is_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let text = |bytes: usize| format!("'{}'", "é".repeat(bytes / 2));
    for column in ["user_email", "customer_name", "request_type", "model_used", "status"] {
        fixture.log("2026-03-01T10:00:00.000000Z", &[(column, &text(1_000))]).await;
        let insert = format!("INSERT INTO ai_usage_log (user_id, {column}) VALUES ('{USER}', {})", text(1_002));
        assert!(fixture.store.execute(&insert, &[]).await.is_err(), "{column}");
        assert!(fixture.store.execute(&format!("UPDATE ai_usage_log SET {column} = {}", text(1_002)), &[]).await.is_err(), "{column}");
    }
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{USER}', 'a@x')")).await;
    for (table, insert) in [
        ("chat_requests", format!("INSERT INTO chat_requests (user_id, model) VALUES ('{USER}', {})", text(1_002))),
        ("seat_usage_event", format!("INSERT INTO seat_usage_event (org_id, seat_type, seats) VALUES ('o', {}, 1)", text(1_002))),
    ] {
        assert!(fixture.store.execute(&insert, &[]).await.is_err(), "{table}");
    }
    // What no job reads is the application's own.
    fixture.execute(&format!("INSERT INTO ai_usage_log (user_id, error_message) VALUES ('{USER}', {})", text(100_000))).await;
}

async fn long_texts_from_before_the_limit_are_quarantined(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    match engine {
        Engine::Postgres => {
            for column in ["user_email", "customer_name", "model_used"] {
                fixture.execute(&format!("ALTER TABLE ai_usage_log DROP CONSTRAINT IF EXISTS tallyroll_{column}_length")).await;
            }
        }
        Engine::Sqlite => {
            fixture.execute("DROP TRIGGER IF EXISTS tallyroll_ai_usage_log_text_insert").await;
        }
    }
    let long = match engine {
        Engine::Postgres => "repeat('x', 20000000)",
        Engine::Sqlite => "replace(hex(zeroblob(10000000)), '0', 'x')",
    };
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    let mut ids = Vec::new();
    for column in ["user_email", "customer_name", "model_used"] {
        ids.push(fixture.log("2026-03-01T11:00:00.000000Z", &[(column, long)]).await);
    }
    fixture.run_well(RUN);
    ids.sort();
    let expected: Vec<String> = ids.iter().map(|id| format!("{id}|text_too_long")).collect();
    assert_eq!(fixture.rows("SELECT event_id, reason FROM quarantined_event ORDER BY 1").await, expected);
    assert!(fixture.number("SELECT MAX(LENGTH(payload)) FROM quarantined_event").await < 2_000);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 1);
    fixture.execute("UPDATE ai_usage_log SET user_email = 'a@x', customer_name = NULL, model_used = 'm'").await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 4);
}

async fn an_event_before_the_earliest_day_is_quarantined_and_fails_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("1027-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("1899-12-31T23:59:59.999999Z", &[]).await;
    fixture.log("1900-01-01T00:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily_total ORDER BY 1").await, ["1900-01-01", "2026-03-01"]);
    let quarantine = "SELECT usage_date, reason FROM quarantined_event ORDER BY 1";
    assert_eq!(fixture.rows(quarantine).await, ["1027-03-01|implausible_instant", "1899-12-31|implausible_instant"]);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    // An earlier day may be meant.
    fixture.write("tallyroll.toml", "[usage]\nearliest_date = \"1000-01-01\"\n");
    fixture.run_well(RUN);
    assert_eq!(
        fixture.rows("SELECT usage_date FROM usage_daily_total ORDER BY 1").await,
        ["1027-03-01", "1899-12-31", "1900-01-01", "2026-03-01"]
    );
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
}

/// Writes a row as an SQLite before 3.42 does, which takes one whose generated columns are no integers.
fn log_unchecked(fixture: &Fixture, set: &[(&str, &str)]) {
    let connection = || rusqlite::Connection::open(fixture.path().join("tallyroll.db")).unwrap();
    let schema: String = connection().query_row("SELECT sql FROM sqlite_schema WHERE name = 'ai_usage_log'", [], |row| row.get(0)).unwrap();
    let mut relaxed = schema.clone();
    for generated in [
        "(input_tokens + output_tokens)",
        "(input_tokens * 3000)",
        "(output_tokens * 15000)",
        "(input_tokens * 3000 + output_tokens * 15000)",
    ] {
        assert!(relaxed.contains(generated));
        relaxed = relaxed.replace(generated, "(0)");
    }
    let replace = |sql: &str| {
        let connection = connection();
        connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
        connection.execute("UPDATE sqlite_schema SET sql = ?1 WHERE name = 'ai_usage_log'", [sql]).unwrap();
    };
    replace(&relaxed);
    let (columns, values): (Vec<&str>, Vec<&str>) = set.iter().copied().unzip();
    let sql = format!(
        "INSERT INTO ai_usage_log (user_id, created_at, {}) VALUES ('{USER}', '2026-03-01T11:00:00.000000Z', {})",
        columns.join(", "),
        values.join(", ")
    );
    connection().execute(&sql, []).unwrap();
    replace(&schema);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_do_not_fit_are_quarantined_on_sqlite() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.99\n");
    let good = fixture.log("2026-03-01T10:00:00.000000Z", &[("latency_ms", "1000000000000000")]).await;
    let half = "4611686018427387904";
    for set in [
        // A generated cost of 2^62 tokens, and a total of 2^63, are no integers in SQLite.
        &[("input_tokens", half)][..],
        &[("input_tokens", half), ("output_tokens", half), ("cost_basis", "'logged'")],
        // Each fits 64 bits, and two of a day would not.
        &[("input_tokens", half), ("cost_basis", "'logged'")],
        &[("latency_ms", "4611686018427387905")],
        &[("latency_ms", "9223372036854775807")],
        &[("tool_turns", "9223372036854775807")],
        &[("cost_basis", "'logged'"), ("logged_cost_nanos", "1000000000000000001")],
    ] {
        log_unchecked(&fixture, set);
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT reason, COUNT(*) FROM quarantined_event GROUP BY reason").await, ["number_too_large|7"]);
    assert_eq!(fixture.rows("SELECT request_count, latency_ms_max FROM usage_daily").await, ["1|1000000000000000"]);
    assert_eq!(fixture.rows("SELECT average_response_time FROM user_dashboard_data").await, ["1000000000000000"]);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    // The page that lists a user's requests reads them too.
    let shown = fixture.run_well(&["dashboard", "--user", USER, "--usage", "--days", "90", "--as-of", "2026-04-15T00:00:00Z", "--json"]);
    assert!(shown.contains(&good), "{shown}");
}
