//! `reconcile`: it agrees with an untouched database, and finds each thing that was touched.

use serde_json::Value;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    an_untouched_database_agrees,
    whatever_was_touched_is_found_with_both_numbers,
    a_mended_row_that_was_not_taken_up_is_found,
    what_is_due_is_not_held_against_anyone,
    months_written_as_of_different_instants_agree,
    the_job_keeps_what_it_found,
);

const AS_OF: &str = "2026-04-05T00:00:00Z";

async fn filled(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    // The one bad row is a large share of a small day.
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.5\n");
    fixture.three_subscriptions().await;
    for day in 1..=4 {
        for customer in ["7", "8", "NULL"] {
            fixture.log(&format!("2026-02-{day:02}T10:00:00.000000Z"), &[("customer_id", customer), ("latency_ms", "120")]).await;
        }
    }
    fixture.log("2026-02-03T11:00:00.000000Z", &[("latency_ms", "-1")]).await;
    if engine == Engine::Postgres {
        // The rows above brought their ids.
        fixture.execute("ALTER TABLE seat_usage_event ALTER COLUMN id RESTART WITH 1000").await;
    }
    fixture.run_well(&["record", "assignment", "--namespace", "42", "--user", "1", "--user", "2", "--seat-type", "base"]);
    run(&fixture);
    fixture
}

fn run(fixture: &Fixture) {
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", AS_OF]);
}

/// The differences, as `check|window|subject|expected|found`.
fn differences(fixture: &Fixture) -> Vec<String> {
    let finished = fixture.run(&["reconcile", "--as-of", AS_OF, "--json"]);
    let report: Value = serde_json::from_str(finished.stdout.trim()).unwrap_or_else(|_| panic!("{finished:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let differences: Vec<String> = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| ["check", "window", "subject", "expected", "found"].map(|key| text(&difference[key])).join("|"))
        .collect();
    assert_eq!(finished.code, Some(if differences.is_empty() { 0 } else { 65 }), "{finished:?}");
    differences
}

async fn an_untouched_database_agrees(engine: Engine) {
    let fixture = filled(engine).await;
    let shown = fixture.run_well(&["reconcile", "--as-of", AS_OF]);
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("reconcile_agrees", shown);
    });
    assert!(Fixture::new(engine).await.run(&["reconcile"]).code == Some(0), "an empty database agrees");
}

async fn whatever_was_touched_is_found_with_both_numbers(engine: Engine) {
    let fixture = filled(engine).await;
    let file = fixture.path().join("out/peak_seats/final/billing_month=2026-02/rev-0001/peak_seats.csv");
    let sealed = std::fs::read(&file).unwrap();
    // Each: what is done, and a difference that must be found, in whole.
    let all_of = |table: &str| format!("CREATE TABLE kept AS SELECT * FROM {table}");
    let touched: [(&str, &str, &str); 7] = [
        // A row edited by hand.
        (
            "usage_daily",
            "UPDATE usage_daily SET total_cost_nanos = total_cost_nanos + 10000000 WHERE usage_date = '2026-02-02' AND customer_id = '7'",
            "raw_log|2026-02-02|total_cost_nanos|1350000|11350000",
        ),
        // A deleted day.
        ("usage_daily", "DELETE FROM usage_daily WHERE usage_date = '2026-02-03'", "raw_log|2026-02-03|request_count|3|0"),
        // A doubled customer.
        (
            "usage_daily_customer",
            "UPDATE usage_daily_customer SET request_count = request_count * 2 WHERE usage_date = '2026-02-01' AND customer_id = '8'",
            "days|usage_daily_customer 2026-02-01|request_count|3|4",
        ),
        // An emptied table is due, and found all the same.
        (
            "usage_monthly_user",
            "DELETE FROM usage_monthly_user",
            "results|usage_monthly_user 2026-02|rows and sums as written|1 row, request_count = 12, total_tokens = 1320, total_cost_nanos = 5400000|0 rows",
        ),
        // A day that nobody wrote.
        (
            "usage_daily_user",
            "UPDATE usage_daily_user SET usage_date = '2026-03-09' WHERE usage_date = '2026-02-04'",
            "days|usage_daily_user 2026-03-09|request_count|0|3",
        ),
        // A dashboard off by one cent.
        (
            "user_dashboard_data",
            "UPDATE user_dashboard_data SET total_cost = total_cost + 1 WHERE total_requests > 0",
            "dashboards|00000000-0000-4000-8000-000000000001|total_cost|1|2",
        ),
        (
            "peak_seats",
            "UPDATE peak_seats SET peak_seats = peak_seats + 1 WHERE subscription_id = 'c' AND month_number = 2",
            "peaks|2026-02|peak_seats|34|35",
        ),
    ];
    for (table, touch, expected) in touched {
        fixture.execute(&all_of(table)).await;
        assert!(fixture.execute(touch).await > 0, "{touch}");
        let found = differences(&fixture);
        assert!(found.iter().any(|difference| difference == expected), "{touch}\n{found:#?}");
        let shown = fixture.run(&["reconcile", "--as-of", AS_OF]);
        let parts: Vec<&str> = expected.split('|').collect();
        assert!(shown.stdout.contains(&format!("should be {}\n  is        {}", parts[3], parts[4])), "{}", shown.stdout);
        // The query that it names runs, and shows the number.
        if let Some(query) = shown.stdout.lines().find_map(|line| line.strip_prefix("  look at   SELECT")) {
            fixture.rows(&format!("SELECT{query}")).await;
        }
        fixture.execute(&format!("DELETE FROM {table}")).await;
        let columns = fixture.store.table_columns(table).await.unwrap().join(", ");
        fixture.execute(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM kept")).await;
        fixture.execute("DROP TABLE kept").await;
        assert_eq!(differences(&fixture), Vec::<String>::new(), "{touch}");
    }
    // A day's sums are right, and stand at somebody else.
    fixture.execute(&all_of("usage_daily")).await;
    assert!(fixture.execute("UPDATE usage_daily SET customer_id = 'else' WHERE usage_date = '2026-02-02' AND customer_id = '7'").await > 0);
    let found = differences(&fixture);
    assert!(
        found.iter().any(|difference| difference.starts_with("raw_log|2026-02-02|rows by key|") && difference.contains("|else|")),
        "{found:#?}"
    );
    fixture.execute("DELETE FROM usage_daily").await;
    let columns = fixture.store.table_columns("usage_daily").await.unwrap().join(", ");
    fixture.execute(&format!("INSERT INTO usage_daily ({columns}) SELECT {columns} FROM kept")).await;
    fixture.execute("DROP TABLE kept").await;
    assert_eq!(differences(&fixture), Vec::<String>::new());
    // Seats that nobody recorded.
    fixture.execute("DELETE FROM subscription_seat_assignments WHERE user_id = 2").await;
    assert_eq!(differences(&fixture), ["seat_drift|now|seats of org 42|1|2"]);
    fixture.run_well(&["record", "seat-change", "--org", "42"]);
    // An org whose ledger was imported uses AI: nobody counts its assignments.
    let imported = "INSERT INTO seat_usage_event (org_id, seat_type, seats, occurred_at, reason) \
         VALUES ('imported', 'total', 50, '2026-02-01T00:00:00.000000Z', 'import')";
    fixture.execute(imported).await;
    fixture.run_well(&["record", "ai-use", "--user", "00000000-0000-4000-8000-000000000001", "--org", "imported", "--event-type", "chat"]);
    assert!(differences(&fixture).iter().all(|difference| !difference.starts_with("seat_drift")));
    // A sealed file that was changed.
    std::fs::write(&file, b"changed").unwrap();
    let found = differences(&fixture);
    assert!(!found.is_empty() && found.iter().all(|difference| difference.starts_with("sealed_files|2026-02|")), "{found:?}");
    std::fs::write(&file, sealed).unwrap();
    assert_eq!(differences(&fixture), Vec::<String>::new());
}

async fn a_mended_row_that_was_not_taken_up_is_found(engine: Engine) {
    let fixture = filled(engine).await;
    let id = fixture.rows("SELECT event_id FROM quarantined_event").await[0].clone();
    fixture.execute("UPDATE ai_usage_log SET latency_ms = 90 WHERE latency_ms = -1").await;
    assert_eq!(differences(&fixture), [format!("quarantine|2026-02-03|ai_usage_log {id}|bad|fixed, and not taken up")]);
    run(&fixture);
    assert_eq!(differences(&fixture), Vec::<String>::new());
}

async fn what_is_due_is_not_held_against_anyone(engine: Engine) {
    let fixture = filled(engine).await;
    fixture.log("2026-02-02T23:00:00.000000Z", &[]).await;
    fixture.log("2026-03-02T23:00:00.000000Z", &[]).await;
    assert_eq!(differences(&fixture), Vec::<String>::new());
    run(&fixture);
    assert_eq!(differences(&fixture), Vec::<String>::new());
    // A range keeps to its days.
    fixture.execute("UPDATE usage_daily SET tool_turns = 99 WHERE usage_date = '2026-02-02'").await;
    fixture.execute("UPDATE usage_daily_user SET tool_turns = 99 WHERE usage_date = '2026-02-02'").await;
    let days = |from: &str, to: &str| fixture.run(&["reconcile", "--as-of", AS_OF, "--from", from, "--to", to]).stdout;
    assert!(days("2026-02-02", "2026-02-03").contains("raw_log, 2026-02-02: tool_turns"));
    assert!(!days("2026-02-03", "2026-02-04").contains("raw_log, 2026-02-02"));
}

async fn months_written_as_of_different_instants_agree(engine: Engine) {
    let fixture = filled(engine).await;
    let bill = |as_of: &str| fixture.run_well(&["run-job", "peak_seats", "--as-of", as_of]);
    // March and April as of an instant of March: what came later is taken back.
    bill("2026-03-20T00:00:00Z");
    assert_eq!(differences(&fixture), Vec::<String>::new());
    bill("2026-04-20T00:00:00Z");
    assert_eq!(differences(&fixture), Vec::<String>::new());
    // One month alone; a ledger row that no run has seen; and again an earlier instant.
    fixture.run_well(&["run-job", "peak_seats", "--month", "2026-04", "--as-of", "2026-04-25T00:00:00Z"]);
    assert_eq!(differences(&fixture), Vec::<String>::new());
    fixture
        .execute("INSERT INTO seat_usage_event (id, org_id, seats, occurred_at) VALUES (900, 'org-1', 33, '2026-04-10T00:00:00.000000Z')")
        .await;
    assert_eq!(differences(&fixture), Vec::<String>::new());
    bill("2026-04-12T00:00:00Z");
    assert_eq!(differences(&fixture), Vec::<String>::new());
    // What is wrong is found as ever, in a month of either kind.
    for month in ["2026-02", "2026-04"] {
        fixture.execute(&format!("UPDATE peak_seats SET peak_seats = peak_seats + 1 WHERE billing_month = '{month}'")).await;
        let found = differences(&fixture);
        assert!(
            !found.is_empty() && found.iter().all(|difference| difference.starts_with(&format!("peaks|{month}|peak_seats|"))),
            "{found:?}"
        );
        fixture.execute(&format!("UPDATE peak_seats SET peak_seats = peak_seats - 1 WHERE billing_month = '{month}'")).await;
    }
}

async fn the_job_keeps_what_it_found(engine: Engine) {
    let fixture = filled(engine).await;
    let job = ["run-job", "reconcile", "--as-of", AS_OF];
    fixture.run_well(&job);
    fixture.execute("UPDATE usage_monthly_customer SET request_count = 0 WHERE customer_id = '7'").await;
    let failed = fixture.run(&job);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(
        failed.stderr.contains("numbers disagree; first `months`, usage_monthly_customer 2026-02: request_count should be 12 and is 8"),
        "{}",
        failed.stderr
    );
    let kept = "SELECT check_name, window_name, subject, expected, found FROM reconciliation ORDER BY 1";
    let rows = fixture.rows(kept).await;
    assert_eq!(rows[0], "months|usage_monthly_customer 2026-02|request_count|12|8");
    // The published file still says what the table said.
    assert!(rows.len() == 3 && rows[1].starts_with("results|") && rows[2].starts_with("sealed_files|2026-02|"), "{rows:?}");
    fixture.execute("UPDATE usage_monthly_customer SET request_count = 4 WHERE customer_id = '7'").await;
    fixture.run_well(&job);
    assert!(fixture.rows(kept).await.is_empty());
    assert_eq!(
        fixture.rows("SELECT state, error_class FROM job_run WHERE job = 'reconcile' ORDER BY started_at").await,
        ["success|NULL", "failed|bad_data", "success|NULL"]
    );
}
