//! Files that the database has not recorded, and bytes of recorded ones that their rows do not show: what a run takes up, what it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use tallyroll::snapshot::parquet_file;

use crate::on_both_databases;
use crate::support::seats::tree;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    a_forged_revision_is_not_taken_up,
    a_planted_first_revision_is_not_taken_up,
    what_a_killed_run_put_is_taken_up_by_a_later_one,
    a_revision_that_a_backup_does_not_know_is_adopted_by_a_statement,
    a_new_database_takes_up_what_the_writer_makes_alone,
    a_monthly_file_is_the_one_that_was_published,
    only_what_was_recorded_is_exported,
);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const LATER: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-06T00:00:00Z"];
const VERIFY: [&str; 3] = ["verify", "--as-of", "2026-04-05T00:00:00Z"];
const RECONCILE: [&str; 3] = ["reconcile", "--as-of", "2026-04-05T00:00:00Z"];
const RECORD: &str = "SELECT path, sha256 FROM snapshot_file WHERE billing_month = '2026-02' ORDER BY path";

fn revision(fixture: &Fixture, number: u32) -> PathBuf {
    fixture.path().join(format!("out/peak_seats/final/billing_month=2026-02/rev-{number:04}"))
}

/// Months that are sealed.
async fn sealed(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&RUN);
    fixture
}

/// A ledger row that comes after its month was sealed.
async fn come_late(fixture: &Fixture) {
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
}

/// The same file, with other texts in the footer: its statistics, which readers skip rows by.
fn with_footer(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let end = bytes.len() - 8;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap());
    let start = end - usize::try_from(length).unwrap();
    let mut count = 0;
    for at in start..end - from.len() {
        if changed[at..].starts_with(from) {
            changed[at..at + to.len()].copy_from_slice(to);
            count += 1;
        }
    }
    assert!(count > 0, "the footer does not have it");
    changed
}

/// The same file written anew with another column, another fact, or both.
fn rewritten(bytes: &[u8], column: Option<(&str, ArrayRef)>, fact: Option<(&str, &str)>) -> Vec<u8> {
    let read = parquet_file::read(bytes.to_vec().into()).unwrap();
    let mut batch = read.batches[0].clone();
    if let Some((name, array)) = column {
        let mut columns = batch.columns().to_vec();
        columns[read.schema.index_of(name).unwrap()] = array;
        batch = RecordBatch::try_new(read.schema.clone(), columns).unwrap();
    }
    let facts = read.facts.iter().filter(|(key, _)| key != "ARROW:schema").map(|(key, value)| {
        let value = fact.filter(|(name, _)| name == key).map_or(value.as_str(), |(_, value)| value);
        (&*key.clone().leak(), value.to_owned())
    });
    parquet_file::write(read.schema.clone(), &[batch], &facts.collect()).unwrap().to_vec()
}

fn row_count(bytes: &[u8]) -> usize {
    parquet_file::read(bytes.to_vec().into()).unwrap().row_count()
}

/// What an attacker makes of a revision's file.
fn forgeries(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let rows = row_count(good);
    let text = |text: &str| Arc::new(StringArray::from(vec![text; rows])) as ArrayRef;
    let instant = Arc::new(TimestampMicrosecondArray::from(vec![1_577_836_800_000_000; rows]).with_timezone("UTC")) as ArrayRef;
    let fact = |name, value| rewritten(good, None, Some((name, value)));
    vec![
        ("statistics", with_footer(good, b"total", b"zzzzz")),
        ("reason", rewritten(good, Some(("correction_reason", text("agreed with the customer: do not bill"))), None)),
        ("no reason", rewritten(good, Some(("correction_reason", text(""))), None)),
        ("as_of", rewritten(good, Some(("as_of", instant)), Some(("as_of", "2020-01-01T00:00:00.000000Z")))),
        ("as_of of the footer", fact("as_of", "2020-01-01T00:00:00.000000Z")),
        ("fingerprint", fact("input_fingerprint", &"0".repeat(64))),
        ("ledger id", fact("ledger_last_id", "999999")),
        ("version", fact("tool_version", "9.9.9")),
    ]
}

fn put(folder: &Path, bytes: &[u8]) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("peak_seats.parquet"), bytes).unwrap();
}

fn assert_named(finished: &Finished, what: &str, path: &str) {
    assert_eq!(finished.code, Some(65), "{what}: {finished:?}");
    assert!((finished.stdout.clone() + &finished.stderr).contains(path), "{what}: {finished:?}");
}

async fn a_forged_revision_is_not_taken_up(engine: Engine) {
    let (fixture, honest) = (sealed(engine).await, sealed(engine).await);
    come_late(&fixture).await;
    come_late(&honest).await;
    honest.run_well(&RUN);
    let good = fs::read(revision(&honest, 2).join("peak_seats.parquet")).unwrap();
    let record = fixture.rows(RECORD).await;
    let path = "billing_month=2026-02/rev-0002/peak_seats.";
    for (what, forged) in forgeries(&good) {
        put(&revision(&fixture, 2), &forged);
        for arguments in [&RUN[..], &LATER, &[&RUN[..], &["--force"]].concat(), &[&RUN[..], &["--month", "2026-02"]].concat()] {
            assert_named(&fixture.run(arguments), what, path);
        }
        assert_named(&fixture.run(&VERIFY), what, path);
        assert_named(&fixture.run(&RECONCILE), what, path);
        assert_eq!(fixture.rows(RECORD).await, record, "{what}");
        let files: Vec<_> = fs::read_dir(revision(&fixture, 2)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(files == ["peak_seats.parquet"] && !revision(&fixture, 3).exists(), "{what}: {files:?}");
    }
    // It is removed, and the run writes its own.
    fs::remove_dir_all(revision(&fixture, 2)).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_eq!(fs::read(revision(&fixture, 2).join("peak_seats.parquet")).unwrap(), good);
}

/// The month was written before, open or provisional: the database knows it.
async fn a_planted_first_revision_is_not_taken_up(engine: Engine) {
    let (fixture, other) = (Fixture::new(engine).await, sealed(engine).await);
    fixture.three_subscriptions().await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-03-02T00:00:00Z"]);
    assert!(!revision(&fixture, 1).exists());
    let good = fs::read(revision(&other, 1).join("peak_seats.parquet")).unwrap();
    let plan = Arc::new(StringArray::from(vec!["free"; row_count(&good)])) as ArrayRef;
    put(&revision(&fixture, 1), &rewritten(&good, Some(("plan", plan)), None));
    assert_named(&fixture.run(&RUN), "a first revision", "billing_month=2026-02/rev-0001/peak_seats.parquet");
    fs::remove_dir_all(revision(&fixture, 1)).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
}

/// Whatever the ledger says by then.
async fn what_a_killed_run_put_is_taken_up_by_a_later_one(engine: Engine) {
    let fixture = sealed(engine).await;
    come_late(&fixture).await;
    for point in ["revision_intended:1", "revision_put:1"] {
        let killed = fixture.command(&RUN).env("TALLYROLL_ABORT_AT", point).output().unwrap();
        assert!(!killed.status.success(), "{killed:?}");
    }
    let put = tree(&fixture.path().join("out/peak_seats/final"));
    assert!(put.keys().any(|path| path.contains("rev-0002")), "{:?}", put.keys());
    fixture.seats(8, "org-1", "2026-02-11T00:00:00.000000Z", 31).await;
    fixture.run_well(&LATER);
    fixture.run_well(&["verify", "--as-of", "2026-04-06T00:00:00Z"]);
    let after = tree(&fixture.path().join("out/peak_seats/final"));
    assert!(put.iter().all(|(path, bytes)| after[path] == *bytes), "a sealed byte changed");
    assert!(after.keys().any(|path| path.contains("rev-0003")), "{:?}", after.keys());
    // So is what one with `--force` put.
    fixture.execute("UPDATE subscription SET committed_seats = 12 WHERE id = 'a'").await;
    let mut forced = fixture.command(&[&LATER[..], &["--force"]].concat());
    assert!(!forced.env("TALLYROLL_ABORT_AT", "revision_put:1").output().unwrap().status.success());
    let put = tree(&fixture.path().join("out/peak_seats/final"));
    fixture.run_well(&LATER);
    fixture.run_well(&["verify", "--as-of", "2026-04-06T00:00:00Z"]);
    let after = tree(&fixture.path().join("out/peak_seats/final"));
    assert!(put.iter().all(|(path, bytes)| after[path] == *bytes), "a sealed byte changed");
    let both = "SELECT COUNT(*) FROM file_digest JOIN snapshot_file ON file_digest.path = snapshot_file.path";
    assert_eq!(fixture.number(both).await, 0, "what was intended and recorded is forgotten");
}

/// The statement in an error that says that a file is one of ours.
pub fn adoption(stderr: &str) -> String {
    let (_, rest) = stderr.split_once("INSERT INTO").unwrap_or_else(|| panic!("{stderr}"));
    format!("INSERT INTO{}", rest.lines().next().unwrap())
}

async fn a_revision_that_a_backup_does_not_know_is_adopted_by_a_statement(engine: Engine) {
    let (fixture, later) = (sealed(engine).await, sealed(engine).await);
    come_late(&fixture).await;
    come_late(&later).await;
    later.run_well(&LATER);
    let good = fs::read(revision(&later, 2).join("peak_seats.parquet")).unwrap();
    put(&revision(&fixture, 2), &good);
    let refused = fixture.run(&[&RUN[..], &["--month", "2026-02"]].concat());
    assert_named(&refused, "restored", "billing_month=2026-02/rev-0002/peak_seats.parquet");
    fixture.execute(&adoption(&refused.stderr)).await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_eq!(fs::read(revision(&fixture, 2).join("peak_seats.parquet")).unwrap(), good);
    assert!(!revision(&fixture, 3).exists());
}

/// A database that knows nothing of the month has nothing to hold its files against but the writer.
async fn a_new_database_takes_up_what_the_writer_makes_alone(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    // More rows than go into one batch.
    let row = |number: i32| format!("('many-{number}', 'org-1', '2026-01-31T00:00:00.000000Z')");
    let rows: Vec<String> = (0..2_500).map(row).collect();
    fixture.execute(&format!("INSERT INTO subscription (id, org_id, start_at) VALUES {}", rows.join(", "))).await;
    fixture.run_well(&RUN);
    let parquet = revision(&fixture, 1).join("peak_seats.parquet");
    let good = fs::read(&parquet).unwrap();
    assert!(row_count(&good) > 2_500);
    forget_all(&fixture).await;
    for name in ["peak_seats.csv", "manifest.json", "_SUCCESS"] {
        fs::remove_file(revision(&fixture, 1).join(name)).unwrap();
    }
    fs::write(&parquet, with_footer(&good, b"total", b"zzzzz")).unwrap();
    assert_named(&fixture.run(&RUN), "statistics", "billing_month=2026-02/rev-0001/peak_seats.parquet");
    fs::write(&parquet, &good).unwrap();
    // By now it has sealed another month, and takes up none.
    assert_named(&fixture.run(&LATER), "late", "billing_month=2026-02/rev-0001/peak_seats.parquet");
    forget_all(&fixture).await;
    fixture.run_well(&LATER);
    fixture.run_well(&["verify", "--as-of", "2026-04-06T00:00:00Z"]);
    assert_eq!(fs::read(&parquet).unwrap(), good);
}

async fn forget_all(fixture: &Fixture) {
    for table in ["job_window", "peak_seats", "snapshot_file"] {
        fixture.execute(&format!("DELETE FROM {table}")).await;
    }
}

async fn a_monthly_file_is_the_one_that_was_published(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"]);
    fixture.run_well(&VERIFY);
    let name = "usage_month=2026-03/usage_monthly_customer.parquet";
    let path = fixture.path().join("out/usage_monthly").join(name);
    let good = fs::read(&path).unwrap();
    let forged = [
        ("statistics", with_footer(&good, &1_i64.to_le_bytes(), &(-1_i64).to_le_bytes())),
        ("a fact", rewritten(&good, None, Some(("tool_version", "9.9.9")))),
    ];
    for (what, forged) in forged {
        fs::write(&path, &forged).unwrap();
        assert_named(&fixture.run(&VERIFY), what, name);
        assert_named(&fixture.run(&RECONCILE), what, name);
        let mut again = fixture.command(&["run-job", "usage_monthly_customer", "--month", "2026-03"]);
        let again = Finished::of(&again.env("RUST_LOG", "warn").output().unwrap());
        assert_eq!(again.code, Some(0), "{what}: {again:?}");
        assert!(again.stderr.contains(name), "{what}: {}", again.stderr);
        assert_eq!(fs::read(&path).unwrap(), good, "{what}");
        fixture.run_well(&VERIFY);
    }
}

async fn only_what_was_recorded_is_exported(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"]);
    let export = ["export", "--to", "finance"];
    fixture.run_well(&export);
    for (name, text) in [
        ("peak_seats/final/billing_month=2026-02/rev-0001/peak_seats.parquet", &b"total"[..]),
        ("peak_seats/final/billing_month=2026-02/rev-0001/peak_seats.csv", b""),
        ("peak_seats/final/billing_month=2026-02/rev-0001/manifest.json", b""),
        ("peak_seats/final/billing_month=2026-02/rev-0001/_SUCCESS", b""),
        ("peak_seats/current/billing_month=2026-04/peak_seats.parquet", b"total"),
        ("usage_monthly/usage_month=2026-03/usage_monthly_customer.parquet", &1_i64.to_le_bytes()),
    ] {
        let path = fixture.path().join("out").join(name);
        let good = fs::read(&path).unwrap();
        let forged = if text.is_empty() { [&good[..], b" "].concat() } else { with_footer(&good, text, &b"zzzzzzzz"[..text.len()]) };
        fs::write(&path, forged).unwrap();
        let _ = fs::remove_dir_all(fixture.path().join("finance"));
        assert_named(&fixture.run(&export), name, name);
        assert!(!fixture.path().join("finance").join(name).exists(), "{name} was handed on");
        fs::write(&path, good).unwrap();
    }
    // One that no run published.
    let extra = fixture.path().join("out/peak_seats/final/billing_month=2026-02/rev-0002/peak_seats.parquet");
    fs::create_dir(extra.parent().unwrap()).unwrap();
    fs::copy(revision(&fixture, 1).join("peak_seats.parquet"), &extra).unwrap();
    assert_named(&fixture.run(&export), "extra", "rev-0002/peak_seats.parquet");
    fs::remove_dir_all(extra.parent().unwrap()).unwrap();
    let _ = fs::remove_dir_all(fixture.path().join("finance"));
    fixture.run_well(&export);
    let (out, exported) = (tree(&fixture.path().join("out")), tree(&fixture.path().join("finance")));
    assert!(out.iter().filter(|(path, _)| !path.starts_with('_')).all(|(path, bytes)| exported[path] == *bytes));
}
