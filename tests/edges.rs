//! What a reviewer would try: rows that come between a kill and a resume, sources that end at different days, instants and
//! numbers past any calendar.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_late_row_is_not_lost_to_a_resume,
    one_sources_rows_that_vanish_keep_the_day,
    a_rebuild_refuses_to_lose_days,
    a_rebuild_cures_another_time_zone_also_with_future_events,
    a_new_lookback_day_is_found_however_old,
    a_lookback_day_that_lost_rows_is_reported_once,
    an_absurd_row_of_an_import_is_a_bad_row,
    a_second_reader_of_the_raw_log_is_refused,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const REBUILD: &[&str] = &["run-job", "usage_daily", "--downstream", "--rebuild", "--as-of", "2026-04-15T00:00:00Z"];

async fn a_late_row_is_not_lost_to_a_resume(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    let report: serde_json::Value = serde_json::from_str(&fixture.run_well(&["run-job", "usage_daily", "--json"])).unwrap();
    let run_id = report["jobs"][0]["run_id"].as_str().unwrap();
    fixture.log("2026-03-01T11:00:00.000000Z", &[]).await;
    assert_eq!(fixture.written(&["run-job", "usage_daily", "--resume", &run_id[28..]]), ["usage_daily 2026-03-01"]);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 2);
}

async fn chat(fixture: &Fixture, created_at: &str) {
    let user = "'00000000-0000-4000-8000-0000000000aa'";
    fixture.execute(&format!("INSERT INTO users (id) VALUES ({user}) ON CONFLICT DO NOTHING")).await;
    fixture.execute(&format!("INSERT INTO chat_requests (user_id, status, created_at) VALUES ({user}, 'completed', '{created_at}')")).await;
}

async fn one_sources_rows_that_vanish_keep_the_day(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    chat(&fixture, "2026-03-01T11:00:00.000000Z").await;
    fixture.run_well(RUN);
    fixture.execute("DELETE FROM ai_usage_log").await;
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("The raw rows of 2026-03-01 in `ai_usage_log` are gone"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 2);
    fixture.run_well(&["run-job", "usage_daily", "--day", "2026-03-01", "--force"]);
    assert_eq!(fixture.rows("SELECT source FROM usage_daily").await, ["chat_requests"]);
}

async fn a_rebuild_refuses_to_lose_days(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "10", "20"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    chat(&fixture, "2026-03-01T11:00:00.000000Z").await;
    fixture.run_well(RUN);
    // In the middle, and of one source only.
    fixture.execute("DELETE FROM ai_usage_log WHERE created_at < '2026-03-15'").await;
    let refused = fixture.run(REBUILD);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("A rebuild would empty 2 days, the first 2026-03-01 (ai_usage_log)"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 4);
    fixture.run_well(&[REBUILD, &["--force"]].concat());
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 2);
}

async fn a_rebuild_cures_another_time_zone_also_with_future_events(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T02:00:00.000000Z", &[]).await;
    fixture.log("2099-01-01T02:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 1);
    fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"America/New_York\"\n");
    assert_eq!(fixture.run(RUN).code, Some(78));
    fixture.run_well(REBUILD);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily").await, ["2026-02-28"]);
}

async fn a_new_lookback_day_is_found_however_old(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[usage]\nchange_tracking = \"lookback\"\nlookback_days = 1\n");
    fixture.log("2026-03-20T10:00:00.000000Z", &[]).await;
    // Not begun yet at the first run, long past at the second.
    fixture.run_well(&["run-job", "usage_daily", "--as-of", "2026-03-01"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    fixture.run_well(&["run-job", "usage_daily", "--as-of", "2026-04-01"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);
}

async fn a_lookback_day_that_lost_rows_is_reported_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[usage]\nchange_tracking = \"lookback\"\nlookback_days = 3\n");
    for day in ["10", "11", "12"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
        chat(&fixture, &format!("2026-03-{day}T11:00:00.000000Z")).await;
    }
    let run = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-03-12T12:00:00Z"];
    fixture.run_well(&run);
    let before = fixture.rows("SELECT usage_date, source, request_count FROM usage_daily ORDER BY 1, 2").await;
    // One day loses a source, another all.
    fixture.execute("CREATE TABLE kept AS SELECT * FROM chat_requests WHERE created_at < '2026-03-12'").await;
    fixture.execute("DELETE FROM chat_requests WHERE created_at < '2026-03-12'").await;
    fixture.execute("DELETE FROM ai_usage_log WHERE created_at < '2026-03-11'").await;
    let refused = fixture.run(&run);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("2 of 3 windows failed"), "{}", refused.stderr);
    for _ in 0..2 {
        let daily: Vec<String> = fixture.written(&run).into_iter().filter(|window| window.starts_with("usage_daily ")).collect();
        assert_eq!(daily, ["usage_daily 2026-03-12"]);
    }
    assert_eq!(fixture.rows("SELECT usage_date, source, request_count FROM usage_daily ORDER BY 1, 2").await, before);
    assert_eq!(
        fixture.rows("SELECT state FROM job_window WHERE job = 'usage_daily' ORDER BY window_start").await,
        ["kept", "kept", "done"]
    );
    // Once every source has rows again, the day is written again.
    let columns = fixture.store.table_columns("kept").await.unwrap().join(", ");
    fixture.execute(&format!("INSERT INTO chat_requests ({columns}) SELECT {columns} FROM kept WHERE created_at > '2026-03-11'")).await;
    fixture.log("2026-03-11T12:00:00.000000Z", &[]).await;
    fixture.run_well(&run);
    assert_eq!(
        fixture.rows("SELECT usage_date, SUM(request_count) FROM usage_daily GROUP BY 1 ORDER BY 1").await,
        ["2026-03-10|2", "2026-03-11|3", "2026-03-12|2"]
    );
}

async fn an_absurd_row_of_an_import_is_a_bad_row(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    let user = "00000000-0000-4000-8000-000000000001";
    fixture.write(
        "usage.csv",
        &format!(
            "occurred_at,user_id,input_tokens,output_tokens,total_cost_usd\n2026-03-01,{user},1,1,\n2026-03-01,{user},1,700000000,\n\
             2026-03-01,{user},9223372036854775808,1,\n2026-03-01,{user},1,1,1000000000\n"
        ),
    );
    let stdout = fixture.run_well(&["import", "usage", "usage.csv"]);
    for line in ["line 4: `input_tokens` is `9223372036854775808`: not a whole number", "line 5: the cost is more"] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 2);
}

async fn a_second_reader_of_the_raw_log_is_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let job =
        "description = \"d\"\noperator = \"usage_rollup\"\nreads = [\"ai_usage_log\"]\ngrain = [\"usage_date\"]\nwindow = \"month\"\n";
    fixture.write("jobs/mine.toml", job);
    let refused = fixture.run(&["check"]);
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("works by day") && refused.stderr.contains("the raw log has one reader"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_past_the_calendar_stop_nothing() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.log("2026-03-01T10:00:00Z", &[]).await;
    for instant in ["infinity", "-infinity", "20000-01-01", "9999-12-31 23:00Z"] {
        fixture.log(instant, &[]).await;
    }
    fixture.run_well(RUN);
    fixture.run_well(&["status"]);
    fixture.log("infinity", &[]).await;
    fixture.execute("UPDATE ai_usage_log SET latency_ms = 1 WHERE created_at > '9999-01-01'").await;
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_rows_that_overflow_or_have_no_user_are_quarantined() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-01T10:00:01.000000Z", &[("user_id", "''")]).await;
    // Cents that do not fit as nano-USD: SQLite turns the product into a float.
    chat(&fixture, "2026-03-01T10:00:02.000000Z").await;
    fixture.execute("UPDATE chat_requests SET cost = 9000000000000000").await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT reason FROM quarantined_event ORDER BY reason").await, ["no_user", "number_too_large"]);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_days_that_are_not_in_the_calendar() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for instant in ["2026-02-30T10:00:00.000000Z", "2026-02-28T24:00:00.000000Z", "2026-02-28T10:00:00Z", "2026-02-28 10:00:00.000000Z"] {
        let sql = format!("INSERT INTO ai_usage_log (user_id, created_at) VALUES ('u', '{instant}')");
        assert!(fixture.store.execute(&sql, &[]).await.is_err(), "{instant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_replaced_on_another_day_leaves_its_old_one() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let id = fixture.log("2026-03-01T23:59:59.999900Z", &[]).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let user = "00000000-0000-4000-8000-000000000001";
    fixture
        .execute(&format!(
            "INSERT OR REPLACE INTO ai_usage_log (id, user_id, created_at) VALUES ('{id}', '{user}', '2026-03-05T10:00:00.000000Z')"
        ))
        .await;
    fixture.run_well(RUN);
    let read = "SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|1", "2026-03-05|1"]);
}
