//! The job `peak_seats`: the reference cases from import to file, and what makes a month due.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tallyroll::seats::calendar::{State, instant, subscription_months};
use tallyroll::seats::{LedgerRow, MonthPeak, peaks};

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

/// PostgreSQL's usual way to say "no end", and an instant that nothing can count.
#[tokio::test(flavor = "multi_thread")]
async fn infinity_is_no_end_and_no_start() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.three_subscriptions().await;
    fixture.execute("UPDATE subscription SET end_at = 'infinity' WHERE id = 'a'").await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM peak_seats WHERE subscription_id = 'a'").await, 4);
    fixture.execute("UPDATE subscription SET start_at = '-infinity' WHERE id = 'a'").await;
    for command in [&["run-job", "peak_seats", "--as-of", "2026-04-05"][..], &["report", "seats", "--subscription", "a"][..]] {
        let refused = fixture.run(command);
        assert_eq!(refused.code, Some(65), "{refused:?}");
    }
    let status = fixture.run_well(&["status"]);
    assert!(status.contains("usage_daily") && status.contains("peak_seats: 1 subscription cannot be billed"), "{status}");
}

on_both_databases!(
    the_reference_cases_hold_from_import_to_file,
    the_order_of_rows_changes_nothing,
    every_seat_type_has_its_own_peaks,
    a_month_is_due_when_it_says_something_else,
    ledger_rows_that_vanish_keep_the_month,
    hostile_names_stay_inside_and_run_nowhere,
    what_cannot_be_is_explained,
    the_commands_show_what_stands_behind_a_peak,
);

#[derive(Deserialize)]
struct Case {
    name: String,
    subscription_start: DateTime<Utc>,
    as_of: DateTime<Utc>,
    ledger: Vec<CaseRow>,
    months: Vec<CaseMonth>,
}

#[derive(Deserialize)]
struct CaseRow {
    id: i64,
    occurred_at: DateTime<Utc>,
    seats: i64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct CaseMonth {
    month_number: i32,
    period_start: DateTime<Utc>,
    period_end: DateTime<Utc>,
    complete: bool,
    peak_seats: i64,
    peak_at: Option<DateTime<Utc>>,
    peak_event_id: Option<i64>,
    peak_carried_in: bool,
    opening_seats: Option<i64>,
    closing_seats: Option<i64>,
    min_seats: Option<i64>,
    seconds_at_peak: i64,
    coverage: String,
    ledger_rows: i64,
}

/// The cases, in the order of their `as_of`.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = serde_json::from_str(include_str!("fixtures/peak_seats/cases.json")).unwrap();
    assert_eq!(cases.len(), 18);
    cases.sort_by_key(|case| case.as_of);
    cases
}

/// A month as the cases have it; ids of ledger rows count from `first_id`.
fn case_month(month: &MonthPeak, complete: bool, first_id: i64) -> CaseMonth {
    let at = |micros: i64| instant(micros).unwrap();
    CaseMonth {
        month_number: month.period.number,
        period_start: at(month.period.start),
        period_end: at(month.period.end),
        complete,
        peak_seats: month.peak_seats,
        peak_at: month.peak_at.map(at),
        peak_event_id: month.peak_event_id.map(|id| id - first_id),
        peak_carried_in: month.peak_carried_in,
        opening_seats: month.opening_seats,
        closing_seats: month.closing_seats,
        min_seats: month.min_seats,
        seconds_at_peak: month.seconds_at_peak,
        coverage: month.coverage.name().to_owned(),
        ledger_rows: month.ledger_rows,
    }
}

#[test]
fn the_reference_cases_hold_on_the_pure_fold() {
    for case in cases() {
        let rows = case.ledger.iter();
        let mut rows: Vec<LedgerRow> =
            rows.map(|row| LedgerRow { occurred_at: row.occurred_at.timestamp_micros(), id: row.id, seats: row.seats }).collect();
        rows.sort_unstable();
        let as_of = case.as_of.timestamp_micros();
        let periods = subscription_months(case.subscription_start.timestamp_micros(), None, as_of).unwrap();
        let months = peaks(&rows, &periods, as_of).unwrap();
        let months: Vec<CaseMonth> = months.iter().map(|month| case_month(month, month.period.end <= as_of, 0)).collect();
        assert_eq!(months, case.months, "{}", case.name);
    }
}

async fn the_reference_cases_hold_from_import_to_file(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let cases = cases();
    let (mut subscriptions, mut ledger) = (String::from("id,org_id,start_at\n"), String::from("id,org_id,seats,occurred_at\n"));
    for (index, case) in cases.iter().enumerate() {
        writeln!(subscriptions, "{0},org of {0},{1}", case.name, case.subscription_start.to_rfc3339()).unwrap();
        for row in &case.ledger {
            let id = index * 100 + usize::try_from(row.id).unwrap();
            writeln!(ledger, "{id},org of {},{},{}", case.name, row.seats, row.occurred_at.to_rfc3339()).unwrap();
        }
    }
    fixture.write("subscriptions.csv", &subscriptions);
    fixture.write("ledger.csv", &ledger);
    fixture.run_well(&["import", "subscriptions", "subscriptions.csv"]);
    fixture.run_well(&["import", "seats", "ledger.csv"]);
    for (index, case) in cases.iter().enumerate() {
        fixture.run_well(&["run-job", "peak_seats", "--as-of", &case.as_of.to_rfc3339()]);
        let case_id = i64::try_from(index * 100).unwrap();
        let rows = fixture.current().into_iter().filter(|row| row.subscription_id == case.name);
        let mut months: Vec<CaseMonth> = rows.map(|row| case_month(&row.month, row.state != State::Open, case_id)).collect();
        months.sort_by_key(|month| month.month_number);
        assert_eq!(months, case.months, "{}", case.name);
    }
    // The table holds what the files do.
    let in_table = fixture.number("SELECT SUM(peak_seats) FROM peak_seats").await;
    assert_eq!(in_table, fixture.current().iter().map(|row| row.month.peak_seats).sum::<i64>());
    fixture.run_well(&["verify", "--as-of", "2029-04-01"]);
}

async fn the_order_of_rows_changes_nothing(engine: Engine) {
    // In the order of time, and in another one, on another database: the same bytes.
    let one = Fixture::new(Engine::Sqlite).await;
    one.three_subscriptions().await;
    let other = Fixture::new(engine).await;
    for (id, org_id, at, seats) in [
        (6, "org-1", "2026-03-09T00:00:00.000000Z", 12),
        (3, "org-2", "2026-01-10T00:00:00.000000Z", 4),
        (2, "org-1", "2026-01-20T10:00:00.000000Z", 14),
        (5, "org-2", "2026-02-20T00:00:00.000000Z", 6),
        (1, "org-1", "2025-12-01T00:00:00.000000Z", 9),
        (4, "org-1", "2026-02-03T00:00:00.000000Z", 11),
    ] {
        other.seats(id, org_id, at, seats).await;
    }
    other.subscribe("c", "org-2", "2026-01-01T00:00:00.000000Z", 5).await;
    other.subscribe("b", "org-1", "2026-01-31T00:00:00.000000Z", 20).await;
    other.subscribe("a", "org-1", "2025-12-15T13:45:30.000000Z", 10).await;
    for fixture in [&one, &other] {
        fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"]);
    }
    let (one, other) = (one.out(), other.out());
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (path, bytes) in &one {
        assert!(bytes == &other[path], "{path}");
    }
}

async fn every_seat_type_has_its_own_peaks(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.subscribe("a", "1", "2026-01-01T00:00:00.000000Z", 5).await;
    for (id, seat_type, seats, day) in
        [(1, "total", 6, 1), (2, "base", 4, 1), (3, "free", 2, 1), (4, "base", 2, 9), (5, "free", 4, 9), (6, "ai", 1, 20)]
    {
        fixture
            .execute(&format!(
                "INSERT INTO seat_usage_event (id, org_id, seat_type, seats, occurred_at) \
                 VALUES ({id}, '1', '{seat_type}', {seats}, '2026-01-{day:02}T00:00:00.000000Z')"
            ))
            .await;
    }
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-02-01T00:00:00Z"]);
    // The total is 6 throughout: never the sum of the types' peaks. A commitment is of the whole org.
    let read = "SELECT seat_type, peak_seats, coverage, committed_seats, overage_seats, state, revision FROM peak_seats \
         WHERE month_number = 1 ORDER BY seat_type";
    assert_eq!(
        fixture.rows(read).await,
        [
            "ai|1|partial|NULL|NULL|provisional|0",
            "base|4|complete|NULL|NULL|provisional|0",
            "free|4|complete|NULL|NULL|provisional|0",
            "total|6|complete|5|1|provisional|0"
        ]
    );
}

async fn a_month_is_due_when_it_says_something_else(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let run = |as_of: &str| fixture.written(&["run-job", "peak_seats", "--as-of", as_of]);
    let due = |months: &[&str]| months.iter().map(|month| format!("peak_seats {month}")).collect::<Vec<_>>();
    assert_eq!(run("2026-03-20T00:00:00Z"), due(&["2026-01", "2026-02", "2026-03", "2026-04"]));
    assert_eq!(run("2026-03-20T00:00:00Z"), due(&[]));
    // Time goes on: only months that hold an open one change.
    assert_eq!(run("2026-03-21T00:00:00Z"), due(&["2026-03", "2026-04"]));
    assert_eq!(run("2026-04-03T00:00:00Z"), due(&["2026-03", "2026-04"]));
    // The grace of 72 hours is over: sealed.
    assert_eq!(run("2026-04-04T00:00:00Z"), due(&["2026-03", "2026-04"]));
    assert_eq!(
        fixture.rows("SELECT DISTINCT billing_month, state, revision FROM peak_seats WHERE state = 'final' ORDER BY 1").await,
        ["2026-01|final|1", "2026-02|final|1", "2026-03|final|1"]
    );
    // A changed label does not open a closed month again.
    fixture.execute("UPDATE subscription SET plan = 'enterprise' WHERE id = 'c'").await;
    assert_eq!(run("2026-04-04T00:00:00Z"), due(&["2026-04"]));
    let force = fixture.written(&["run-job", "peak_seats", "--as-of", "2026-04-04T00:00:00Z", "--force"]);
    assert_eq!(force.len(), 4, "{force:?}");
    assert_eq!(fixture.written(&["run-job", "peak_seats", "--as-of", "2026-04-04T00:00:00Z", "--month", "2026-02"]), due(&["2026-02"]));
    let status = fixture.run_well(&["status"]);
    assert!(status.contains("peak_seats"), "{status}");
}

async fn ledger_rows_that_vanish_keep_the_month(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let run = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
    fixture.run_well(&run);
    let before = fixture.out();
    let (off, on) = match engine {
        Engine::Postgres => ("ALTER TABLE seat_usage_event DISABLE TRIGGER USER", "ALTER TABLE seat_usage_event ENABLE TRIGGER USER"),
        Engine::Sqlite => ("DROP TRIGGER tallyroll_ledger_delete", "SELECT 1"),
    };
    fixture.execute(off).await;
    fixture.execute("DELETE FROM seat_usage_event WHERE id = 5").await;
    fixture.execute(on).await;
    let failed = fixture.run(&run);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("1 of the 2 ledger rows of 2026-02 are gone; the old result of"), "{}", failed.stderr);
    let sealed =
        |tree: &crate::support::seats::Tree| tree.clone().into_iter().filter(|(path, _)| path.contains("final")).collect::<Vec<_>>();
    assert_eq!(sealed(&before), sealed(&fixture.out()));
    // March carries that count in: it waits as well, and every run says so.
    assert!(failed.stderr.contains("2 of 3 windows failed") || failed.stderr.contains("3 of 3 windows failed"), "{}", failed.stderr);
    assert_eq!(fixture.run(&run).code, Some(65));
    fixture.run_well(&[&run[..], &["--force"]].concat());
    assert_eq!(fixture.journal().iter().filter(|row| row.entry.is_correction).count(), 2);
    fixture.run_well(&["verify", "--as-of", "2026-04-05T00:00:00Z"]);
}

async fn hostile_names_stay_inside_and_run_nowhere(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let megabyte = "x".repeat(1 << 20);
    let names =
        ["../../x", "/etc/passwd", "=HYPERLINK(\"http://example.com\")", "\u{202e}=1+1", "a,b\"c\nd", "-- '; DROP TABLE x", "@SUM(1)"];
    for (index, name) in names.iter().enumerate() {
        let quoted = name.replace('\'', "''");
        fixture.subscribe(&quoted, &quoted, "2026-01-01T00:00:00.000000Z", 1).await;
        fixture.seats(i64::try_from(index).unwrap() + 1, &quoted, "2026-01-01T00:00:00.000000Z", 7).await;
    }
    fixture.execute(&format!("UPDATE subscription SET plan = '{megabyte}' WHERE id = '../../x'")).await;
    if engine == Engine::Sqlite {
        // PostgreSQL's texts cannot hold a NUL, and its keys no megabyte.
        fixture.subscribe(&megabyte, &megabyte, "2026-01-01T00:00:00.000000Z", 1).await;
        fixture
            .execute(
                "INSERT INTO subscription (id, org_id, start_at) VALUES ('nul' || char(0) || '=1', 'o', '2026-01-01T00:00:00.000000Z')",
            )
            .await;
    }
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-02-10T00:00:00Z"]);
    let out = fixture.out();
    let folders: Vec<&str> = out.keys().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder).collect();
    assert!(
        folders.iter().all(|folder| folder.strip_prefix("peak_seats/").is_some_and(|rest| rest.split("billing_month=2026-").count() == 2))
    );
    let csv = std::str::from_utf8(&out["peak_seats/final/billing_month=2026-01/rev-0001/peak_seats.csv"]).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    for record in reader.records() {
        let record = record.unwrap();
        for cell in &record {
            let shown = cell.trim_start_matches(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '\u{202e}');
            assert!(!shown.starts_with(['=', '+', '-', '@']), "{}", &cell[..20.min(cell.len())]);
        }
    }
    assert!(!csv.contains('\0'));
    let known: Vec<String> = fixture.current().iter().map(|row| row.subscription_id.clone().into_owned()).collect();
    assert!(names.iter().all(|name| known.iter().any(|known| known == name)), "the Parquet keeps them as they are");
    assert!(fixture.current().iter().any(|row| row.plan.as_deref() == Some(&megabyte)));
    for name in names {
        let shown =
            fixture.run(&["explain", "peak-seats", "--month-number", "1", "--as-of", "2026-02-10", &format!("--subscription={name}")]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        assert!(shown.stdout.lines().all(|line| line.chars().count() <= 80 && !line.contains('\u{202e}')), "{}", shown.stdout);
    }
}

async fn what_cannot_be_is_explained(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let refused = |arguments: &[&str], code: i32, text: &str| {
        let finished = fixture.run(arguments);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.stderr.contains(text), "{}", finished.stderr);
    };
    refused(&["run-job", "peak_seats", "--month", "2031-01", "--as-of", "2026-04-05"], 2, "No subscription month ends in 2031-01");
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05"]);
    refused(&["run-job", "peak_seats", "--month", "2026-02", "--as-of", "2026-02-10"], 2, "Billing month 2026-02 is sealed");
    // A run as of an earlier instant leaves what is sealed alone.
    let before = fixture.out();
    fixture.run(&["run-job", "peak_seats", "--as-of", "2026-02-10"]);
    let after = fixture.out();
    assert!(before.iter().filter(|(path, _)| path.contains("final")).all(|(path, bytes)| after[path] == *bytes));
    refused(&["explain", "peak-seats", "--subscription", "z", "--month-number", "1"], 2, "There is no subscription `z`");
    refused(&["explain", "peak-seats", "--subscription", "a", "--month-number", "99", "--as-of", "2026-04-05"], 2, "its months are 1 to 4");
    refused(&["explain", "peak-seats", "--subscription", "a", "--month-number", "1", "--seat-type", "totla"], 2, "did you mean `total`?");
    refused(&["verify", "--billing-month", "March"], 2, "write a month as 2026-03");
    refused(&["verify", "--billing-month", "2031-01", "--as-of", "2026-04-05"], 2, "No file of billing month 2031-01");
    // A month whose time has come and that nobody sealed.
    refused(&["verify", "--as-of", "2026-05-05"], 65, "Billing month 2026-04 is closed and was not sealed");
    fixture.write("tallyroll.toml", "[output]\nurl = \"gs://bucket\"\n");
    refused(&["run-job", "peak_seats"], 78, "(a value that is not shown, of 11 characters) is no place for files");
    fixture.write("tallyroll.toml", "");
    fixture.write(
        "jobs/peak_seats.toml",
        "description = \"p\"\noperator = \"peak_seats\"\nreads = [\"x\"]\ngrain = [\"g\"]\nwindow = \"month\"\n",
    );
    refused(&["run-job", "peak_seats"], 78, "go together");
    std::fs::remove_file(fixture.path().join("jobs/peak_seats.toml")).unwrap();
    let source = match engine {
        Engine::Sqlite => "sql/sources/seat_usage_event.sqlite.sql",
        Engine::Postgres => "sql/sources/seat_usage_event.postgres.sql",
    };
    fixture.write(source, "-- No seats.\nSELECT org_id, seat_type, occurred_at, id, reason FROM seat_usage_event\n");
    refused(&["run-job", "peak_seats"], 78, "gives no column `seats`");
}

async fn the_commands_show_what_stands_behind_a_peak(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.subscribe("early", "org-2", "2025-11-05T00:00:00.000000Z", 5).await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05"]);
    let explain = |subscription: &str, month: &str| {
        let shown =
            fixture.run_well(&["explain", "peak-seats", "--subscription", subscription, "--month-number", month, "--as-of", "2026-04-05"]);
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        shown
    };
    let shown = [
        explain("a", "1"),
        explain("a", "3"),
        explain("c", "1"),
        explain("early", "1"),
        fixture.run_well(&["report", "seats", "--subscription", "c", "--as-of", "2026-04-05"]),
        fixture.run_well(&["report", "seats", "--subscription", "c", "--as-of", "2026-04-05", "--format", "csv"]),
        fixture.run_well(&["report", "seats", "--subscription", "early", "--as-of", "2026-01-05", "--json"]),
        fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-05-01", "--dry-run"]),
        fixture.run_well(&["verify", "--as-of", "2026-04-05"]),
    ];
    // The same on either database.
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("peak_seats_commands", shown.join("\n"));
    });
    let json: serde_json::Value = serde_json::from_str(&fixture.run_well(&[
        "explain",
        "peak-seats",
        "--subscription",
        "a",
        "--month-number",
        "3",
        "--json",
        "--as-of",
        "2026-04-05",
    ]))
    .unwrap();
    assert_eq!(json["peak_event_id"], 6);
    assert_eq!(json["ledger_rows"].as_array().unwrap().len(), 2);
}
