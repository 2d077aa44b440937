//! Events that may not enter any total.

use chrono::{DateTime, TimeDelta, Utc};
use tallyroll::window::start_of_day;

use crate::on_both_databases;
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(
    a_bad_row_stays_out_until_it_is_mended,
    too_many_bad_rows_fail_the_window_and_keep_its_result,
    an_event_ahead_of_the_clock_fails_no_run_and_counts_in_its_time,
    an_event_that_leaves_the_future_leaves_no_record,
    a_window_that_lost_its_rows_keeps_no_record_of_them,
    what_is_set_aside_is_shown_and_looked_at_again,
);

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

/// Events and runs at and beside every border: a day's beginning, 24 hours ahead, a day of 25 hours.
async fn an_event_ahead_of_the_clock_fails_no_run_and_counts_in_its_time(engine: Engine) {
    let timezone = chrono_tz::America::New_York;
    let mut state = 11_u64;
    let mut next = |end: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).unwrap() % end
    };
    for _ in 0..repetitions(4, 40) {
        let fixture = Fixture::new(engine).await;
        fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"America/New_York\"\n");
        // 1 November 2026 has 25 hours there.
        let day = |days: i64| chrono::NaiveDate::from_ymd_opt(2026, 10, 30).unwrap() + TimeDelta::days(days);
        let beginning = |days: i64| start_of_day(day(days), timezone).unwrap();
        let micro = |number: i64| TimeDelta::microseconds(number - 1);
        let mut runs: Vec<DateTime<Utc>> = (0..5).map(|days| beginning(days) + TimeDelta::minutes(next(1_440))).collect();
        runs.extend([beginning(1) - micro(2), beginning(2), beginning(3) + micro(2)]);
        runs.sort_unstable();
        let mut events: Vec<DateTime<Utc>> = Vec::new();
        for run in &runs {
            events.push(*run + TimeDelta::hours(24) + micro(next(3)));
            events.push(*run + TimeDelta::hours(next(100)));
        }
        events.extend((0..5).map(|days| beginning(days) + micro(next(3))));
        // Some are known before the first run, others come later.
        let known = events.len() / 2;
        for event in &events[..known] {
            fixture.log(&tallyroll::store::format_instant(*event), &[]).await;
        }
        let mut coming = events[known..].iter();
        let mut logged: Vec<DateTime<Utc>> = events[..known].to_vec();
        for run in runs.iter().chain([&(beginning(20))]) {
            for event in coming.by_ref().take(2) {
                fixture.log(&tallyroll::store::format_instant(*event), &[]).await;
                logged.push(*event);
            }
            let as_of = tallyroll::store::format_instant(*run);
            fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", &as_of]);
            let expected = logged.iter().filter(|event| **event <= *run + TimeDelta::hours(24)).count();
            let found = fixture.number("SELECT COALESCE(SUM(request_count), 0) FROM usage_daily").await;
            assert_eq!(found, i64::try_from(expected).unwrap(), "as of {as_of}: {logged:?}");
            assert!(fixture.run_well(&["run-job", "usage_daily", "--as-of", &as_of]).starts_with("Nothing is due"), "as of {as_of}");
        }
        assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
    }
}

async fn an_event_that_leaves_the_future_leaves_no_record(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    let moved = fixture.log("2026-03-02T13:00:00.000000Z", &[]).await;
    let run = |as_of: &'static str| fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", as_of]);
    run("2026-03-01T12:00:00Z");
    assert_eq!(fixture.rows("SELECT event_id, reason FROM quarantined_event").await, [format!("{moved}|occurred_in_future")]);
    fixture.execute(&format!("UPDATE ai_usage_log SET created_at = '2026-03-01T11:00:00.000000Z' WHERE id = '{moved}'")).await;
    for as_of in ["2026-03-01T12:01:00Z", "2026-03-02T00:00:00Z", "2026-03-02T14:00:00Z", "2026-03-04T00:00:00Z"] {
        run(as_of);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0, "{as_of}");
    }
    assert_eq!(fixture.rows("SELECT usage_date, request_count FROM usage_daily_user").await, ["2026-03-01|2"]);
    fixture.run_well(&["reconcile", "--as-of", "2026-03-04T00:00:00Z"]);
}

async fn a_window_that_lost_its_rows_keeps_no_record_of_them(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-01T10:00:01.000000Z", &[("latency_ms", "-1")]).await;
    // Nothing was written of a day that has bad rows alone, so nothing is lost with them.
    fixture.log("2026-03-02T10:00:00.000000Z", &[("latency_ms", "-1")]).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 2);
    fixture.execute("DELETE FROM ai_usage_log").await;
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("rows of 2026-03-01 are gone") && !refused.stderr.contains("2026-03-02"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 1);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn what_is_set_aside_is_shown_and_looked_at_again(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    assert!(fixture.run_well(&["quarantine", "list"]).contains("Nothing is in quarantine"));
    let bad = fixture.log("2026-03-01T12:00:00.000000Z", &[("latency_ms", "-7"), ("user_email", "'a\u{1b}[2Jb'")]).await;
    fixture.log("2026-03-02T12:00:00.000000Z", &[("input_tokens", "-7")]).await;
    fixture.run_well(RUN);
    fixture.write("spend.csv", "occurred_at,user_id,input_tokens\n2026-03-10,ann,5\n2026-03-10,,6\n");
    fixture.run_well(&["import", "usage", "spend.csv"]);
    let shown = fixture.run_well(&["quarantine", "list"]);
    for part in ["negative_latency", "negative_tokens", "import:spend.csv", "not imported", "2026-03-01", "line 3"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let lines = fixture.run_well(&["quarantine", "list", "--json", "--source", "ai_usage_log"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(fixture.run_well(&["quarantine", "list", "--json", "--limit", "1"]).lines().count(), 1);
    let one = fixture.run_well(&["quarantine", "show", &bad]);
    assert!(one.contains("\"latency_ms\": -7") && one.contains("negative_latency") && !one.contains('\u{1b}'), "{one}");
    // Fixed past what tracks rows: nothing is due until it is asked for.
    let fixed = format!("UPDATE ai_usage_log SET latency_ms = 7 WHERE id = '{bad}'");
    fixture.execute(&fixed).await;
    fixture.execute("DELETE FROM usage_dirty_day").await;
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event WHERE source = 'ai_usage_log'").await, 2);
    assert!(fixture.run_well(&["quarantine", "retry", "--source", "ai_usage_log"]).contains("2 days of `usage_daily` due"));
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_monthly_user").await, 2);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event WHERE source = 'ai_usage_log'").await, 1);
    // A file's rows are forgotten, the log's are not.
    for (arguments, expected) in [
        (&["quarantine", "drop", "--source", "ai_usage_log"][..], "a source of the log"),
        (&["quarantine", "drop", "--source", "import:other.csv"], "Nothing of `import:other.csv`"),
        (&["quarantine", "show", "nothing"], "No event `nothing`"),
    ] {
        let refused = fixture.run(arguments);
        assert!(refused.code == Some(2) && refused.stderr.contains(expected), "{refused:?}");
    }
    assert!(fixture.run_well(&["quarantine", "drop", "--source", "import:spend.csv"]).contains("1 row of"));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 1);
}
