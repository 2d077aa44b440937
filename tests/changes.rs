//! What makes a window due, and what does not.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    nothing_due_says_so_and_changes_nothing,
    a_new_row_makes_exactly_its_day_due,
    an_updated_or_deleted_row_makes_exactly_its_days_due,
    a_chat_request_counts_once_it_has_ended,
    several_analytics_rows_count_a_request_once,
    an_empty_window_that_is_asked_for_is_written_empty,
    vanished_raw_rows_keep_the_old_result_until_forced,
    lookback_redoes_the_last_days_and_finds_new_ones,
    another_time_zone_stops_until_a_rebuild,
    new_prices_make_only_their_days_due,
    a_force_rewrites_without_changing_a_row,
    resume_goes_on_with_what_a_run_was_asked_to_do,
    future_events_wait_until_their_day_comes,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

async fn nothing_due_says_so_and_changes_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let before = (fixture.results().await, fixture.rows("SELECT * FROM job_run ORDER BY run_id").await);
    let watermark = fixture.rows("SELECT source, position, updated_at FROM usage_watermark ORDER BY source").await;
    let stdout = fixture.run_well(RUN);
    assert!(stdout.starts_with("Nothing is due for `usage_daily`"), "{stdout}");
    assert_eq!(before, (fixture.results().await, fixture.rows("SELECT * FROM job_run ORDER BY run_id").await));
    assert_eq!(watermark, fixture.rows("SELECT source, position, updated_at FROM usage_watermark ORDER BY source").await);
}

async fn a_new_row_makes_exactly_its_day_due(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02", "03"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    assert_eq!(fixture.written(RUN).len(), 3 * 5 + 2 + 2);
    // A late row: its day was written long ago.
    fixture.log("2026-03-02T23:59:59.999999Z", &[]).await;
    assert_eq!(
        fixture.written(RUN),
        [
            "usage_daily 2026-03-02",
            "usage_daily_customer 2026-03-02",
            "usage_daily_total 2026-03-02",
            "usage_daily_type 2026-03-02",
            "usage_daily_user 2026-03-02",
            "usage_monthly_customer 2026-03",
            "usage_monthly_user 2026-03",
            "user_dashboard all",
            "usage_dashboard all",
        ]
    );
    assert_eq!(
        fixture.rows("SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1").await,
        ["2026-03-01|1", "2026-03-02|2", "2026-03-03|1"]
    );
    assert_eq!(fixture.rows("SELECT request_count FROM usage_monthly_customer").await, ["4"]);
}

async fn an_updated_or_deleted_row_makes_exactly_its_days_due(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut ids = Vec::new();
    for day in ["01", "02", "03", "04"] {
        ids.push(fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await);
        fixture.log(&format!("2026-03-{day}T11:00:00.000000Z"), &[]).await;
    }
    fixture.run_well(RUN);
    let daily = |written: Vec<String>| written.into_iter().filter(|line| line.starts_with("usage_daily ")).collect::<Vec<_>>();

    fixture.execute(&format!("UPDATE ai_usage_log SET output_tokens = 999 WHERE id = '{}'", ids[1])).await;
    assert_eq!(daily(fixture.written(RUN)), ["usage_daily 2026-03-02"]);
    fixture.execute(&format!("DELETE FROM ai_usage_log WHERE id = '{}'", ids[0])).await;
    assert_eq!(daily(fixture.written(RUN)), ["usage_daily 2026-03-01"]);
    fixture.execute(&format!("UPDATE ai_usage_log SET created_at = '2026-03-04T12:00:00.000000Z' WHERE id = '{}'", ids[2])).await;
    assert_eq!(daily(fixture.written(RUN)), ["usage_daily 2026-03-03", "usage_daily 2026-03-04"]);
    assert_eq!(
        fixture.rows("SELECT usage_date, request_count, output_tokens FROM usage_daily_user ORDER BY 1").await,
        ["2026-03-01|1|10", "2026-03-02|2|1009", "2026-03-03|1|10", "2026-03-04|3|30"]
    );
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_dirty_day").await, 0);
}

async fn chat(fixture: &Fixture, id: &str, status: &str) {
    fixture.execute("INSERT INTO users (id, email) VALUES ('00000000-0000-4000-8000-0000000000aa', 'a@x') ON CONFLICT DO NOTHING").await;
    fixture
        .execute(&format!(
            "INSERT INTO chat_requests (id, user_id, model, tokens_used, cost, duration, status, created_at) VALUES \
             ('{id}', '00000000-0000-4000-8000-0000000000aa', 'gpt-4', 500, 7, 1200, '{status}', '2026-03-05T10:00:00.000000Z')"
        ))
        .await;
}

async fn analytics(fixture: &Fixture, request: &str, created_at: &str, rating: i64) {
    fixture
        .execute(&format!(
            "INSERT INTO request_analytics (user_id, request_id, request_type, category, tokens_input, tokens_output, user_rating, created_at) VALUES \
             ('00000000-0000-4000-8000-0000000000aa', '{request}', 'analysis', 'nft', 300, 200, {rating}, '{created_at}')"
        ))
        .await;
}

async fn a_chat_request_counts_once_it_has_ended(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let id = "00000000-0000-4000-8000-0000000000c1";
    chat(&fixture, id, "pending").await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    fixture.execute(&format!("UPDATE chat_requests SET status = 'completed' WHERE id = '{id}'")).await;
    fixture.run_well(RUN);
    let columns = "request_type, category, input_tokens, output_tokens, total_tokens, input_cost_nanos, total_cost_nanos, rating_sum, rating_count, user_email";
    let read = format!("SELECT {columns} FROM usage_daily");
    assert_eq!(fixture.rows(&read).await, ["chat|NULL|0|0|500|NULL|70000000|0|0|NULL"]);
    analytics(&fixture, id, "2026-03-05T10:00:02.000000Z", 4).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows(&read).await, ["analysis|nft|300|200|500|NULL|70000000|4|1|NULL"]);
}

async fn several_analytics_rows_count_a_request_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let id = "00000000-0000-4000-8000-0000000000c1";
    chat(&fixture, id, "failed").await;
    analytics(&fixture, id, "2026-03-05T10:00:02.000000Z", 5).await;
    analytics(&fixture, id, "2026-03-06T10:00:00.000000Z", 2).await;
    fixture.run_well(RUN);
    let read = "SELECT request_count, error_count, total_cost_nanos, rating_sum FROM usage_daily";
    assert_eq!(fixture.rows(read).await, ["1|1|70000000|2"]);
}

async fn an_empty_window_that_is_asked_for_is_written_empty(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    let asked = ["run-job", "usage_daily", "--day", "2026-03-09", "--downstream"];
    assert_eq!(fixture.written(&asked).len(), 9);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    assert_eq!(fixture.rows("SELECT state, rows_in FROM job_window WHERE job = 'usage_daily'").await, ["done|0"]);
    // Rows that come later are found as ever.
    fixture.log("2026-03-09T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);
}

async fn vanished_raw_rows_keep_the_old_result_until_forced(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-02T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    fixture.execute("DELETE FROM ai_usage_log WHERE created_at < '2026-03-02'").await;
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("The 1 raw rows of 2026-03-01 are gone; its old result stays"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 2);
    // Said once: a nightly run is not red for ever because of retention.
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    assert!(fixture.run_well(&["status", "--json"]).contains("\"kept\":1"));
    fixture.run_well(&["run-job", "usage_daily", "--day", "2026-03-01", "--force", "--downstream"]);
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily_user").await, ["2026-03-02"]);
}

async fn lookback_redoes_the_last_days_and_finds_new_ones(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[usage]\nchange_tracking = \"lookback\"\nlookback_days = 2\n");
    for day in ["01", "10", "11", "12"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    let run = ["run-job", "usage_daily", "--as-of", "2026-03-12T12:00:00Z"];
    assert_eq!(fixture.written(&run).len(), 4);
    assert_eq!(fixture.written(&run), ["usage_daily 2026-03-11", "usage_daily 2026-03-12"]);
    // A row in a day that was never written is found, one in an old day that was is not: that is what makes it weaker.
    fixture.log("2026-03-05T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    assert_eq!(fixture.written(&run), ["usage_daily 2026-03-05", "usage_daily 2026-03-11", "usage_daily 2026-03-12"]);
}

async fn another_time_zone_stops_until_a_rebuild(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-02T02:00:00.000000Z", &[]).await;
    fixture.log("2026-03-02T20:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"America/New_York\"\n");
    let stopped = fixture.run(RUN);
    assert_eq!(stopped.code, Some(78));
    assert!(stopped.stderr.contains("`reporting.timezone` = `UTC`, and it is `America/New_York` now"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("--rebuild --downstream"), "{}", stopped.stderr);
    assert_eq!(fixture.run(&["run-job", "usage_monthly_user"]).code, Some(78));
    fixture.run_well(&[RUN, &["--rebuild"]].concat());
    let read = "SELECT usage_date, request_count FROM usage_daily_user ORDER BY 1";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|1", "2026-03-02|1"]);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
}

async fn new_prices_make_only_their_days_due(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let price = |from: &str, usd: &str| {
        format!(
            "[[price]]\nmodel = \"m\"\neffective_from = \"{from}\"\ninput_usd_per_million = \"{usd}\"\noutput_usd_per_million = \"{usd}\"\n"
        )
    };
    fixture.write("tallyroll.toml", "[usage]\npricing = \"price_book\"\n");
    fixture.write("prices.toml", &price("2026-01-01", "1"));
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[("model_used", "'m'")]).await;
    }
    fixture.run_well(RUN);
    let read = "SELECT usage_date, input_cost_nanos, output_cost_nanos, total_cost_nanos FROM usage_daily_user ORDER BY 1";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|100000|10000|110000", "2026-03-02|100000|10000|110000"]);
    fixture.write("prices.toml", &(price("2026-01-01", "1") + &price("2026-03-02", "2")));
    let written = fixture.written(RUN);
    assert_eq!(written.iter().filter(|line| line.starts_with("usage_daily ")).collect::<Vec<_>>(), ["usage_daily 2026-03-02"]);
    assert_eq!(fixture.rows(read).await, ["2026-03-01|100000|10000|110000", "2026-03-02|200000|20000|220000"]);
}

async fn a_force_rewrites_without_changing_a_row(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    fixture.run_well(RUN);
    let before = fixture.results().await;
    let written = fixture.written(&[RUN, &["--force"]].concat());
    assert_eq!(written.len(), 2 * 5 + 2 + 2);
    assert_eq!(before, fixture.results().await);
}

async fn resume_goes_on_with_what_a_run_was_asked_to_do(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in ["01", "02", "03"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[]).await;
    }
    let report: serde_json::Value =
        serde_json::from_str(&fixture.run_well(&["run-job", "usage_daily", "--from", "2026-03-01", "--to", "2026-03-04", "--json"]))
            .unwrap();
    let run_id = report["jobs"][0]["run_id"].as_str().unwrap();
    // As if the run had been killed before its last window.
    fixture.execute("UPDATE job_window SET run_id = NULL, state = 'due' WHERE window_start = '2026-03-03'").await;
    assert_eq!(fixture.written(&["run-job", "usage_daily", "--resume", run_id]), ["usage_daily 2026-03-03"]);
    let unknown = fixture.run(&["run-job", "usage_daily", "--resume", "nothing"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}

async fn future_events_wait_until_their_day_comes(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-03T10:00:00.000000Z", &[]).await;
    let run = |as_of: &'static str| ["run-job", "usage_daily", "--downstream", "--as-of", as_of];
    fixture.run_well(&run("2026-03-01T12:00:00Z"));
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily").await, ["2026-03-01"]);
    assert_eq!(fixture.rows("SELECT usage_date, reason FROM quarantined_event").await, ["2026-03-03|occurred_in_future"]);
    assert!(fixture.run_well(&run("2026-03-01T13:00:00Z")).starts_with("Nothing is due"));
    fixture.run_well(&run("2026-03-02T12:00:00Z"));
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily_user ORDER BY 1").await, ["2026-03-01", "2026-03-03"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
}
