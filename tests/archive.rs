//! The lake (`docs/semantics.md` section 10): what is archived is read as before, comes back as it was, and is never lost or counted twice.

mod distrust;
mod disturbed;
mod entangled;
mod lied_to;
mod statements;

use std::collections::BTreeMap;
use std::fs;

use crate::golden;
use crate::on_both_databases;
use crate::support::seats::tree;
use crate::support::{Engine, Fixture};

on_both_databases!(
    whatever_is_archived_is_read_as_before,
    a_copy_deletes_nothing,
    late_rows_are_a_revision_of_their_own,
    a_day_that_is_not_counted_waits,
    an_event_that_is_recorded_again_is_not_counted_twice,
    an_import_that_is_archived_is_not_undone,
);

pub const COUNT: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
pub const RECONCILE: [&str; 3] = ["reconcile", "--as-of", "2026-04-15T00:00:00Z"];

/// A request of a chat with two analytics rows, and one that is pending.
pub const CHAT: [&str; 5] = [
    "INSERT INTO users (id, email) VALUES ('00000000-0000-4000-8000-0000000000c1', 'chat@example.com')",
    "INSERT INTO chat_requests (id, user_id, prompt, model, tokens_used, cost, duration, status, created_at) VALUES \
     ('00000000-0000-4000-8000-00000000c001', '00000000-0000-4000-8000-0000000000c1', 'tab\t\\N ü ''q''', 'm', 7, 3, 9, 'completed', '2026-02-28T09:00:00.000000Z')",
    "INSERT INTO chat_requests (id, user_id, model, status, created_at) VALUES \
     ('00000000-0000-4000-8000-00000000c002', '00000000-0000-4000-8000-0000000000c1', 'm', 'pending', '2026-02-28T09:30:00.000000Z')",
    "INSERT INTO request_analytics (id, user_id, request_id, category, tokens_input, tokens_output, created_at) VALUES \
     ('00000000-0000-4000-8000-00000000a001', '00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-00000000c001', 'old', 1, 1, '2026-02-28T09:00:01.000000Z')",
    "INSERT INTO request_analytics (id, user_id, request_id, category, user_rating, tokens_input, tokens_output, created_at) VALUES \
     ('00000000-0000-4000-8000-00000000a002', '00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-00000000c001', 'new', 5, 4, 3, '2026-03-01T00:00:01.000000Z')",
];

const SOURCES: [&str; 4] = ["ai_usage_log", "chat_requests", "request_analytics", "usage_event"];

/// Every row of the tables that applications write, but for how it is tracked.
pub async fn raw_rows(fixture: &Fixture) -> BTreeMap<&'static str, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in SOURCES {
        let mut columns = fixture.store.table_columns(table).await.unwrap();
        columns.retain(|column| !column.starts_with("ingest_"));
        let columns: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS TEXT)")).collect();
        let mut rows = fixture.rows(&format!("SELECT {} FROM {table}", columns.join(", "))).await;
        rows.sort();
        all.insert(table, rows);
    }
    all
}

/// Names what differs, and not all that does not.
pub fn assert_same(found: &[String], expected: &[String]) {
    let of = |rows: &[String], others: &[String], sign: char| -> Vec<String> {
        rows.iter().filter(|row| !others.contains(row)).map(|row| format!("{sign} {row}")).collect()
    };
    let different = [of(expected, found, '-'), of(found, expected, '+')].concat();
    assert!(different.is_empty() && found.len() == expected.len(), "{}", different.join("\n"));
}

/// From now on what is archived is deleted.
pub fn delete(fixture: &Fixture) {
    let path = fixture.path().join("tallyroll.toml");
    let settings = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, format!("{settings}[archive]\ndelete = true\n")).unwrap();
}

/// The log of the golden cases with chats and imported events beside it, counted.
pub async fn counted(engine: Engine, timezone: &str) -> Fixture {
    let fixture = Fixture::new(engine).await;
    golden::load(&fixture, timezone).await;
    for statement in CHAT {
        fixture.execute(statement).await;
    }
    let row = |row: usize| format!("e{row},2026-03-{:02}T{:02}:30:00.123456Z,ü{},{row},1", row % 9 + 1, row % 24, row % 3);
    let rows: Vec<String> = (0..40).map(row).collect();
    fixture.write("log.csv", &format!("event_id,occurred_at,user_id,input_tokens,output_tokens\n{}\n", rows.join("\n")));
    fixture.run_well(&["import", "usage", "log.csv"]);
    fixture.run_well(&COUNT);
    fixture
}

pub fn archive(fixture: &Fixture) -> String {
    fixture.run_well(&["archive", "--as-of", "2026-07-15T00:00:00Z"])
}

/// The files of the lake.
pub fn lake(fixture: &Fixture) -> BTreeMap<String, Vec<u8>> {
    let files = tree(&fixture.path().join("out")).into_iter();
    files.filter(|(path, _)| path.starts_with("usage_event/") || path.starts_with("source_row/")).collect()
}

async fn whatever_is_archived_is_read_as_before(engine: Engine) {
    for timezone in ["America/New_York", "Asia/Kathmandu"] {
        let fixture = counted(engine, timezone).await;
        let (rows, before) = (raw_rows(&fixture).await, fixture.results().await);
        delete(&fixture);
        assert!(archive(&fixture).contains("deleted from their tables"));
        // A request that is pending is no event yet, and an event of the future not counted.
        let left = [
            ("ai_usage_log", "created_at > '2026-04-20'"),
            ("chat_requests", "status = 'pending'"),
            ("request_analytics", "request_id IN (SELECT id FROM chat_requests WHERE status = 'pending')"),
            ("usage_event", "1 = 0"),
        ];
        for (table, stays) in left {
            let count = |condition: &str| format!("SELECT COUNT(*) FROM {table} WHERE {condition}");
            let (all, staying) = (fixture.number(&count("1 = 1")).await, fixture.number(&count(stays)).await);
            assert!(all == staying && rows[table].len() > usize::try_from(all).unwrap(), "{table}: {all} rows are left");
        }
        // Nothing is due, and nothing is lost: not by a run, a rebuild or a comparison.
        assert!(fixture.run_well(&COUNT).starts_with("Nothing is due"));
        fixture.run_well(&RECONCILE);
        fixture.run_well(&["archive", "--verify"]);
        fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
        assert_same(&fixture.results().await, &before);
        // Other prices, and back.
        let book = fs::read_to_string(fixture.path().join("prices.toml")).unwrap();
        let every =
            "[[price]]\nmodel = \"*\"\neffective_from = \"2020-01-01\"\ninput_usd_per_million = \"1\"\noutput_usd_per_million = \"1\"\n";
        fixture.write("prices.toml", &format!("{book}\n{every}"));
        fixture.run_well(&COUNT);
        assert!(fixture.results().await != before, "{timezone}");
        fixture.write("prices.toml", &book);
        fixture.run_well(&COUNT);
        assert_same(&fixture.results().await, &before);
        // Day by day it comes back, column by column.
        for line in fixture.run_well(&["archive", "--list", "--json"]).lines() {
            let day: serde_json::Value = serde_json::from_str(line).unwrap();
            let (date, source) = (day["event_date"].as_str().unwrap(), day["source"].as_str().unwrap());
            fixture.run_well(&["archive", "--restore", date, "--source", source]);
        }
        assert_eq!(raw_rows(&fixture).await, rows, "{timezone}");
        assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day").await, 0);
        assert!(lake(&fixture).is_empty(), "{:?}", lake(&fixture).keys());
        fixture.run_well(&COUNT);
        assert_same(&fixture.results().await, &before);
    }
}

async fn a_copy_deletes_nothing(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let rows = raw_rows(&fixture).await;
    assert!(archive(&fixture).contains("0 rows deleted"));
    assert_eq!(raw_rows(&fixture).await, rows);
    let files = lake(&fixture);
    assert!(files.len() > 20);
    // It is made once, and again for a day that was counted anew.
    assert!(archive(&fixture).starts_with("No day was archived"));
    fixture.execute("UPDATE usage_event SET input_tokens = input_tokens + 1 WHERE event_id = 'e4'").await;
    fixture.run_well(&COUNT);
    let before = fixture.results().await;
    archive(&fixture);
    let now = lake(&fixture);
    let gone: Vec<&String> = files.keys().filter(|path| !now.contains_key(*path)).collect();
    assert!(!gone.is_empty() && gone.iter().all(|path| path.contains("event_date=2026-03-05/rev-0001")), "{gone:?}");
    fixture.run_well(&["archive", "--verify"]);
    // What is only a copy is not read: no event counts twice.
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    assert_same(&fixture.results().await, &before);
    fixture.run_well(&RECONCILE);
    let nothing = fixture.run_well(&["archive", "--restore", "2026-03-05"]);
    assert!(nothing.contains("No rows of 2026-03-05 are in the lake alone"), "{nothing}");
    // The copy is replaced by what is deleted.
    delete(&fixture);
    archive(&fixture);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE NOT is_deleted").await, 0);
    fixture.run_well(&["archive", "--verify"]);
}

async fn late_rows_are_a_revision_of_their_own(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    archive(&fixture);
    fixture.log("2026-03-02T10:00:00.000000Z", &[("model_used", "'late'")]).await;
    let first = lake(&fixture);
    let written = fixture.written(&COUNT);
    assert!(
        written.contains(&"usage_daily 2026-03-02".to_owned()) && !written.contains(&"usage_daily 2026-03-03".to_owned()),
        "{written:?}"
    );
    let before = fixture.results().await;
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily WHERE model = 'late'").await, 1);
    let told = archive(&fixture);
    assert!(told.starts_with("1 day archived: 1 event"), "{told}");
    let now = lake(&fixture);
    assert!(first.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "what is archived does not change");
    assert!(fixture.run_well(&COUNT).starts_with("Nothing is due"));
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    assert_same(&fixture.results().await, &before);
    fixture.run_well(&RECONCILE);
    fixture.run_well(&["archive", "--restore", "2026-03-02", "--source", "ai_usage_log"]);
    assert!(raw_rows(&fixture).await["ai_usage_log"].len() > 1);
    fixture.run_well(&COUNT);
    assert_same(&fixture.results().await, &before);
}

async fn a_day_that_is_not_counted_waits(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    fixture.log("2026-03-02T11:00:00.000000Z", &[]).await;
    let planned = fixture.run_well(&["archive", "--dry-run", "--as-of", "2026-07-15T00:00:00Z"]);
    assert!(planned.contains("waits: 2026-03-02 is due"), "{planned}");
    archive(&fixture);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE event_date = '2026-03-02'").await, 0);
    assert!(fixture.number("SELECT COUNT(*) FROM archived_day").await > 5);
    fixture.run_well(&COUNT);
    let before = fixture.results().await;
    archive(&fixture);
    assert!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE event_date = '2026-03-02'").await > 0);
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    assert_same(&fixture.results().await, &before);
    // A day that ended yesterday is not old enough, unless it is named; one that has not ended is not archived at all.
    fixture.log("2026-03-12T11:00:00.000000Z", &[]).await;
    fixture.run_well(&COUNT);
    assert!(fixture.run_well(&["archive", "--as-of", "2026-03-13T00:00:00Z"]).starts_with("No day was archived"));
    let refused = fixture.run(&["archive", "--day", "2026-03-12", "--as-of", "2026-03-12T12:00:00Z"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("No day that has ended"), "{refused:?}");
    assert!(fixture.run_well(&["archive", "--day", "2026-03-12", "--as-of", "2026-04-15T00:00:00Z"]).starts_with("1 day archived"));
}

/// The application, or an import, brings an event once more that is in the lake: its id is no longer in the table to refuse it.
async fn an_event_that_is_recorded_again_is_not_counted_twice(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let before = fixture.results().await;
    delete(&fixture);
    archive(&fixture);
    fixture.run_well(&["import", "usage", "log.csv"]);
    let failed = fixture.run(&COUNT);
    assert!(failed.code == Some(65) && failed.stderr.contains("may have been recorded once more"), "{failed:?}");
    let without_windows = |rows: &[String]| -> Vec<String> { rows.iter().filter(|row| !row.starts_with("usage_")).cloned().collect() };
    assert_same(&without_windows(&fixture.results().await), &without_windows(&before));
    // Nor is such a day archived.
    assert!(archive(&fixture).starts_with("No day was archived"));
    fixture.execute("DELETE FROM usage_event").await;
    fixture.run_well(&COUNT);
    assert_same(&fixture.results().await, &before);
}

async fn an_import_that_is_archived_is_not_undone(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    archive(&fixture);
    let id = fixture.rows("SELECT import_id FROM usage_import").await[0].clone();
    let refused = fixture.run(&["import", "undo", &id]);
    assert!(refused.code == Some(2) && refused.stderr.contains("has 40 rows that are not in the table"), "{refused:?}");
    for day in 1..=9 {
        fixture.run_well(&["archive", "--restore", &format!("2026-03-{day:02}"), "--source", "usage_event"]);
    }
    fixture.run_well(&["import", "undo", &id]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 0);
}

/// DuckDB and pyarrow read the lake as what it is: a table by day.
#[tokio::test(flavor = "multi_thread")]
async fn readers_open_the_lake() {
    let fixture = counted(Engine::Sqlite, "UTC").await;
    delete(&fixture);
    archive(&fixture);
    let output = crate::support::seats::python("lake.py").current_dir(fixture.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    let days = fixture.rows("SELECT event_date, SUM(event_count) FROM archived_day GROUP BY event_date ORDER BY 1").await;
    assert!(days.len() > 10);
    for (read, day) in read.lines().zip(&days) {
        assert_eq!(read.rsplit_once('|').unwrap().0, day);
    }
    assert_eq!(read.lines().count(), days.len());
}
