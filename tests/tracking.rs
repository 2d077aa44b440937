//! Who writes a row does not decide how it is tracked: every row is found once, however it came in.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    rows_put_back_under_their_old_numbers_are_found,
    nobody_chooses_how_a_new_row_is_tracked,
    reconcile_names_a_day_of_the_log_that_no_run_wrote,
    a_late_row_before_1970_is_found,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const USER: &str = "00000000-0000-4000-8000-000000000001";

fn ingest_column(engine: Engine) -> &'static str {
    if engine == Engine::Postgres { "ingest_xid" } else { "ingest_seq" }
}

async fn rows_put_back_under_their_old_numbers_are_found(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{USER}', 'a@x')")).await;
    fixture
        .execute(&format!(
            "INSERT INTO chat_requests (user_id, status, created_at) VALUES ('{USER}', 'completed', '2026-03-03T10:00:00.000000Z')"
        ))
        .await;
    fixture.run_well(RUN);
    let before = fixture.results().await;
    let ingest = ingest_column(engine);
    let tables = [
        ("ai_usage_log", format!("id, user_id, input_tokens, output_tokens, created_at, {ingest}")),
        ("chat_requests", format!("id, user_id, status, created_at, {ingest}")),
    ];
    for (table, columns) in &tables {
        fixture.execute(&format!("CREATE TABLE kept_{table} AS SELECT {columns} FROM {table}")).await;
        fixture.execute(&format!("DELETE FROM {table}")).await;
    }
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    // What the hint asks for: the very rows, with every column that they had.
    for (table, columns) in &tables {
        fixture.execute(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM kept_{table}")).await;
    }
    fixture.run_well(RUN);
    assert_eq!(before, fixture.results().await);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
}

async fn nobody_chooses_how_a_new_row_is_tracked(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{USER}', 'a@x')")).await;
    for second in 0..5 {
        fixture.log(&format!("2026-03-01T10:00:0{second}.000000Z"), &[]).await;
    }
    fixture
        .execute(&format!(
            "INSERT INTO chat_requests (user_id, status, created_at) VALUES ('{USER}', 'completed', '2026-03-01T10:00:00.000000Z')"
        ))
        .await;
    fixture.run_well(RUN);
    let ingest = ingest_column(engine);
    let chosen = match engine {
        Engine::Postgres => ["'1'", "NULL", "'18446744073709551615'"],
        Engine::Sqlite => ["0", "NULL", "-5"],
    };
    for (day, number) in (2..).zip(chosen) {
        fixture.log(&format!("2026-03-0{day}T10:00:00.000000Z"), &[(ingest, number)]).await;
        let sql = format!(
            "INSERT INTO chat_requests (user_id, status, created_at, {ingest}) VALUES ('{USER}', 'completed', '2026-03-0{day}T11:00:00.000000Z', {number})"
        );
        fixture.execute(&sql).await;
    }
    fixture.run_well(RUN);
    let read = "SELECT usage_date, source, request_count FROM usage_daily WHERE usage_date > '2026-03-01' ORDER BY 1, 2";
    let expected: Vec<String> =
        (2..5).flat_map(|day| ["ai_usage_log", "chat_requests"].map(|source| format!("2026-03-0{day}|{source}|1"))).collect();
    assert_eq!(fixture.rows(read).await, expected);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"), "no row makes its day due for ever");
}

async fn reconcile_names_a_day_of_the_log_that_no_run_wrote(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    fixture.log("2026-03-09T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-09T11:00:00.000000Z", &[]).await;
    // As if the rows had come in past every trigger.
    let position = match engine {
        Engine::Postgres => "CAST(pg_current_snapshot() AS TEXT)",
        Engine::Sqlite => "(SELECT CAST(seq + 1 AS TEXT) FROM sqlite_sequence WHERE name = 'ai_usage_log')",
    };
    fixture.execute(&format!("UPDATE usage_watermark SET position = {position} WHERE source = 'ai_usage_log'")).await;
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    let reconcile = ["reconcile", "--as-of", "2026-04-15T00:00:00Z"];
    let found = fixture.run(&reconcile);
    assert_eq!(found.code, Some(65), "{found:?}");
    assert!(found.stderr.contains("first `raw_log`, 2026-03-09: request_count should be 2 and is 0"), "{}", found.stderr);
    // Days outside of the range are not read.
    fixture.run_well(&[&reconcile[..], &["--to", "2026-03-09"]].concat());
    // The command that it names heals it.
    assert!(found.stderr.contains("tallyroll run-job usage_daily --day 2026-03-09"), "{}", found.stderr);
    fixture.run_well(&["run-job", "usage_daily", "--day", "2026-03-09", "--downstream", "--as-of", "2026-04-15T00:00:00Z"]);
    fixture.run_well(&reconcile);
}

async fn a_late_row_before_1970_is_found(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.run_well(RUN);
    // The last quarter of an hour of its day, and the first.
    let id = fixture.log("1969-12-30T23:50:00.000000Z", &[]).await;
    fixture.log("1969-12-28T00:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let read = "SELECT usage_date, input_tokens FROM usage_daily_user ORDER BY 1";
    assert_eq!(fixture.rows(read).await, ["1969-12-28|100", "1969-12-30|100"]);
    fixture.execute(&format!("UPDATE ai_usage_log SET input_tokens = 7 WHERE id = '{id}'")).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows(read).await, ["1969-12-28|100", "1969-12-30|7"]);
    fixture.execute(&format!("DELETE FROM ai_usage_log WHERE id = '{id}'")).await;
    assert_eq!(fixture.run(RUN).code, Some(65));
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_numbers_are_not_changed_and_leave_room() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    for number in ["NULL", "1000000", "-1", "9223372036854775807"] {
        assert!(fixture.store.execute(&format!("UPDATE ai_usage_log SET ingest_seq = {number}"), &[]).await.is_err(), "{number}");
    }
    let sql = format!("INSERT INTO ai_usage_log (user_id, ingest_seq) VALUES ('{USER}', 9223372036854775807)");
    assert!(fixture.store.execute(&sql, &[]).await.is_err(), "no number would be left for the next row");
    fixture.log("2026-03-02T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_takes_the_number_of_another_marks_the_others_day() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for second in ["00", "01"] {
        fixture.log(&format!("2026-03-01T10:00:{second}.000000Z"), &[]).await;
    }
    fixture.run_well(RUN);
    let sql = format!(
        "INSERT OR REPLACE INTO ai_usage_log (ingest_seq, user_id, created_at) VALUES (1, '{USER}', '2026-03-05T10:00:00.000000Z')"
    );
    fixture.execute(&sql).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1").await, ["2026-03-01|1", "2026-03-05|1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_transaction_hides_nothing() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.log("2026-03-01T10:00:00Z", &[]).await;
    fixture.run_well(RUN);
    for given in ["NULL", "'1'", "'18446744073709551615'"] {
        fixture.log("2026-03-02T10:00:00Z", &[]).await;
        fixture.execute(&format!("UPDATE ai_usage_log SET ingest_xid = {given}")).await;
        assert_eq!(
            fixture
                .number("SELECT COUNT(*) FROM ai_usage_log WHERE ingest_xid IS NULL OR ingest_xid::TEXT IN ('1', '18446744073709551615')")
                .await,
            0
        );
        fixture.run_well(RUN);
        assert!(fixture.run_well(RUN).starts_with("Nothing is due"), "{given}");
    }
    assert_eq!(fixture.rows("SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1").await, ["2026-03-01|1", "2026-03-02|3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_replica_session_are_found() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let id = fixture.log("2026-03-01T10:00:00Z", &[]).await;
    fixture.log("2026-03-01T11:00:00Z", &[]).await;
    fixture.run_well(RUN);
    // How replication and some restores write: ordinary triggers do not fire.
    let mut tx = fixture.store.begin().await.unwrap();
    tx.execute("SET LOCAL session_replication_role = replica", &[]).await.unwrap();
    tx.execute(&format!("INSERT INTO ai_usage_log (user_id, created_at, ingest_xid) VALUES ('{USER}', '2026-03-02T10:00:00Z', '3')"), &[])
        .await
        .unwrap();
    tx.execute(&format!("DELETE FROM ai_usage_log WHERE id = '{id}'"), &[]).await.unwrap();
    tx.commit().await.unwrap();
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1").await, ["2026-03-01|1", "2026-03-02|1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_is_reported_like_deleted_rows() {
    let fixture = Fixture::new(Engine::Postgres).await;
    // West of Greenwich, and a day whose midnight is skipped.
    fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"America/Santiago\"\n");
    for day in ["2025-09-07", "2026-03-01"] {
        fixture.log(&format!("{day}T15:00:00Z"), &[]).await;
    }
    fixture.run_well(RUN);
    let before = fixture.rows("SELECT * FROM usage_daily ORDER BY usage_date").await;
    fixture.execute("TRUNCATE ai_usage_log").await;
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(
        refused.stderr.contains("2 of 2 windows failed, the first 2025-09-07") && refused.stderr.contains("are gone"),
        "{}",
        refused.stderr
    );
    assert_eq!(before, fixture.rows("SELECT * FROM usage_daily ORDER BY usage_date").await);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
}
