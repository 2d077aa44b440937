//! What is killed: runs, windows that fail, billing with a correction, an import, a seat that is recorded, a migration, schedules.

use std::fmt::Write as _;

use super::stage::Stage;
use super::{
    ARCHIVING, BILLING, FAILING, IMPORTING, MIGRATING, RECORDING, RESTORING, RUNNING, SCHEDULING, kill_everywhere, stop_everywhere,
};
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(running, failing_windows, billing, importing, recording, migrating, scheduling, archiving);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-03-15T00:00:00Z"];

/// A few events of two days in two months, one of them bad, and a job of the project's own.
async fn logged(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.4\n");
    fixture.write(
        "jobs/usage_by_model.toml",
        "description = \"Requests per model and month\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_month\", \"model\"]\nwindow = \"month\"\n",
    );
    fixture.write(
        "sql/usage_by_model.sql",
        "-- Grain: usage_month, model.\nSELECT :window_start AS usage_month, model AS model, CAST(SUM(request_count) AS BIGINT) AS request_count \
         FROM usage_daily WHERE usage_date >= :window_start AND usage_date < :window_end GROUP BY model\n",
    );
    fixture.execute("INSERT INTO users (id, email) VALUES ('00000000-0000-4000-8000-000000000001', 'one@example.com')").await;
    for (at, user) in [("2026-02-28T10:00", 1), ("2026-02-28T11:00", 2), ("2026-03-01T10:00", 1), ("2026-03-01T11:00", 2)] {
        let user = format!("'00000000-0000-4000-8000-{user:012}'");
        fixture.log(&format!("{at}:00.000000Z"), &[("user_id", &user), ("customer_id", "7"), ("model_used", "'gpt-4o'")]).await;
    }
    fixture.log("2026-03-01T12:00:00.000000Z", &[("latency_ms", "-7")]).await;
    fixture
}

async fn running(engine: Engine) {
    let (first, fixture) = Stage::of(logged(engine).await, RUN, 0).await;
    // A late row, a changed one, one that goes, and one that is fixed.
    fixture.log("2026-02-28T23:00:00.000000Z", &[("customer_id", "8")]).await;
    fixture.execute("UPDATE ai_usage_log SET output_tokens = 11 WHERE input_tokens = 100 AND customer_id = 7").await;
    fixture.execute("UPDATE ai_usage_log SET latency_ms = 7 WHERE latency_ms < 0").await;
    let (second, fixture) = Stage::of(fixture, RUN, 0).await;
    fixture.execute("UPDATE usage_daily_user SET request_count = request_count + 1 WHERE usage_date = '2026-03-01'").await;
    let reconcile = &["run-job", "reconcile", "--as-of", "2026-03-15T00:00:00Z"];
    let (third, fixture) = Stage::of(fixture, reconcile, 65).await;
    fixture.remove().await;
    // A run that takes over another's lock is killed as it does.
    let take_over = [("plan_committed", 1), ("lock_taken_over", 1)];
    assert!(first.killed(&take_over).await, "no run took the lock over");
    assert!(first.killed(&[("window_before_commit", 1), ("lock_taken_over", 1)]).await, "no run took the lock over");
    stop_everywhere(&first).await;
    kill_everywhere(&["lock_taken_over"], RUNNING, vec![first, second, third]).await;
}

async fn failing_windows(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    fixture.log("2026-03-01T12:00:00.000000Z", &[("latency_ms", "-7")]).await;
    let (stage, fixture) = Stage::of(fixture, RUN, 65).await;
    fixture.remove().await;
    kill_everywhere(&[], FAILING, vec![stage]).await;
}

async fn billing(engine: Engine) {
    const RUN: &[&str] = &["run-job", "peak_seats", "--as-of", "2026-03-05T00:00:00Z"];
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let (sealing, fixture) = Stage::of(fixture, RUN, 0).await;
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    let (correcting, fixture) = Stage::of(fixture, RUN, 0).await;
    fixture.run_well(&["verify", "--as-of", "2026-03-05T00:00:00Z"]);
    fixture.remove().await;
    kill_everywhere(&[], BILLING, vec![sealing, correcting]).await;
}

async fn importing(engine: Engine) {
    const IMPORT: &[&str] = &["import", "usage", "log.csv"];
    let fixture = Fixture::new(engine).await;
    let mut csv = "occurred_at,user_id,model,input_tokens,output_tokens\n".to_owned();
    for row in 0..1_100 {
        let model = if row == 500 { "gpt-4o,many,4" } else { "gpt-4o,10,4" };
        let _ = writeln!(csv, "2026-03-{:02}T10:00:00Z,00000000-0000-4000-8000-{:012},{model}", row % 28 + 1, row % 9);
    }
    fixture.write("log.csv", &csv);
    let (stage, fixture) = Stage::of(fixture, IMPORT, 0).await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 1_099);
    fixture.remove().await;
    kill_everywhere(&[], IMPORTING, vec![stage]).await;
}

async fn recording(engine: Engine) {
    const RECORD: &[&str] = &["record", "assignment", "--namespace", "42", "--user", "7", "--user", "8", "--seat-type", "base"];
    let (stage, fixture) = Stage::of(Fixture::new(engine).await, RECORD, 0).await;
    assert_eq!(fixture.rows("SELECT seat_type, seats FROM seat_usage_event ORDER BY 1").await, ["base|2", "total|2"]);
    fixture.remove().await;
    kill_everywhere(&[], RECORDING, vec![stage]).await;
}

async fn migrating(engine: Engine) {
    let (stage, fixture) = Stage::of(Fixture::empty(engine).await, &["migrate"], 0).await;
    fixture.remove().await;
    kill_everywhere(&[], MIGRATING, vec![stage]).await;
}

async fn scheduling(engine: Engine) {
    let fixture = logged(engine).await;
    // The firsts of the last months, each run.
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"0 0 1 * *\"\ncatch_up = \"all\"\n");
    fixture.first_seen("usage_daily").await;
    // Forgetting would make the end depend on how often it was run.
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.4\n[history]\nkeep_days = 36500\n");
    let (stage, fixture) = Stage::of(fixture, &["run-due"], 0).await;
    assert!(fixture.number("SELECT COUNT(*) FROM schedule_state WHERE state = 'success'").await >= 2);
    fixture.remove().await;
    for first in ["slots_claimed", "slot_begun", "slot_before_finish"] {
        assert!(stage.killed(&[(first, 1), ("slots_taken_over", 1)]).await, "no scheduler took the slots over");
    }
    kill_everywhere(&["slots_taken_over"], SCHEDULING, vec![stage]).await;
}

async fn archiving(engine: Engine) {
    const ARCHIVE: &[&str] = &["archive", "--day", "2026-02-28"];
    const RESTORE: &[&str] = &["archive", "--restore", "2026-02-28"];
    let fixture = logged(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.4\n[archive]\ndelete = true\n");
    for statement in crate::archive::CHAT {
        fixture.execute(statement).await;
    }
    fixture.run_well(RUN);
    let (archiving, fixture) = Stage::of(fixture, ARCHIVE, 0).await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE is_deleted").await, 2);
    // A late row of the day is a revision of its own.
    fixture.log("2026-02-28T12:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(RUN);
    let (again, fixture) = Stage::of(fixture, ARCHIVE, 0).await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE is_deleted").await, 3);
    let (restoring, fixture) = Stage::of(fixture, RESTORE, 0).await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day").await, 0);
    fixture.remove().await;
    kill_everywhere(&[], ARCHIVING, vec![archiving, again]).await;
    kill_everywhere(&[], RESTORING, vec![restoring]).await;
}
