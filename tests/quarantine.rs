//! Events that may not enter any total.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(a_bad_row_stays_out_until_it_is_mended, too_many_bad_rows_fail_the_window_and_keep_its_result);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

async fn a_bad_row_stays_out_until_it_is_mended(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for second in 0..200 {
        fixture.log(&format!("2026-03-01T10:{:02}:{:02}.000000Z", second / 60, second % 60), &[]).await;
    }
    let bad = fixture.log("2026-03-01T12:00:00.000000Z", &[("latency_ms", "-7")]).await;
    let report = fixture.run_well(&[RUN, &["--json"]].concat());
    assert!(report.contains("\"quarantined_count\":1"), "{report}");
    let quarantine = "SELECT source, event_id, reason FROM quarantined_event";
    assert_eq!(fixture.rows(quarantine).await, [format!("ai_usage_log|{bad}|negative_latency")]);
    let payload = fixture.rows("SELECT payload FROM quarantined_event").await;
    assert!(payload[0].contains("\"latency_ms\":-7"), "{payload:?}");
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 200);
    assert_eq!(fixture.rows("SELECT rows_in, quarantined_count FROM job_window WHERE job = 'usage_daily'").await, ["201|1"]);

    // Written once: a second look at the day keeps when it was first seen.
    let first_seen = fixture.rows("SELECT first_seen_at FROM quarantined_event").await;
    fixture.run_well(&["run-job", "usage_daily", "--day", "2026-03-01"]);
    assert_eq!(first_seen, fixture.rows("SELECT first_seen_at FROM quarantined_event").await);

    fixture.execute(&format!("UPDATE ai_usage_log SET latency_ms = 7 WHERE id = '{bad}'")).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_monthly_user").await, 201);
}

async fn too_many_bad_rows_fail_the_window_and_keep_its_result(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    fixture.run_well(RUN);
    let before = fixture.results().await;
    fixture.log("2026-03-01T11:00:00.000000Z", &[("input_tokens", "-1")]).await;
    fixture.log("2026-03-02T11:00:00.000000Z", &[]).await;
    let failed = fixture.run(RUN);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("1 of the 2 events of 2026-03-01 are quarantined (negative_tokens)"), "{}", failed.stderr);
    // The other day went on, the failed one keeps its old rows and says why.
    let read = "SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|1", "2026-03-02|2"]);
    assert_eq!(fixture.rows("SELECT reason FROM quarantined_event").await, ["negative_tokens"]);
    let status = fixture.run_well(&["status", "--json"]);
    assert!(status.contains("\"failed\":1"), "{status}");
    assert!(status.contains("negative_tokens"), "{status}");
    assert_eq!(fixture.rows("SELECT error_class FROM job_run WHERE state = 'failed'").await, ["bad_data"]);

    fixture.execute("DELETE FROM ai_usage_log WHERE input_tokens < 0 OR created_at > '2026-03-02T10:30:00.000000Z'").await;
    fixture.run_well(RUN);
    assert_eq!(before, fixture.results().await);
}
