//! Files that someone changed: named, and never recorded as if a run had written them.

use std::fs;
use std::path::PathBuf;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tallyroll::seats::calendar::BillingMonth;
use tallyroll::snapshot::manifest::{Manifest, PeakFacts};
use tallyroll::snapshot::peak_row::{self, Entry, PeakRow};
use tallyroll::snapshot::{journal, parquet_file, sha256};

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_forged_csv_is_never_recorded,
    a_record_that_is_gone_is_missed,
    a_revision_that_was_not_recorded_must_be_consistent,
    a_forged_current_file_is_named_whatever_the_record_says,
    a_forged_monthly_file_is_named,
    a_forged_revision_changes_no_agreement,
    a_file_that_no_run_published_is_named,
);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const VERIFY: [&str; 3] = ["verify", "--as-of", "2026-04-05T00:00:00Z"];
const RECORD: &str = "SELECT path, sha256 FROM snapshot_file WHERE billing_month = '2026-02' ORDER BY path";

async fn sealed(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    fixture
}

fn revision(fixture: &Fixture, number: u32) -> PathBuf {
    fixture.path().join(format!("out/peak_seats/final/billing_month=2026-02/rev-{number:04}"))
}

/// Changes the last digit of a CSV's first peak.
fn forge_csv(folder: &std::path::Path) {
    let csv = fs::read_to_string(folder.join("peak_seats.csv")).unwrap();
    let forged = csv.replacen(",14,", ",15,", 1);
    assert_ne!(csv, forged);
    fs::write(folder.join("peak_seats.csv"), forged).unwrap();
}

/// Makes the manifest say what the files beside it are.
fn fit_manifest(folder: &std::path::Path) {
    let path = folder.join("manifest.json");
    let mut manifest = Manifest::parse(&fs::read(&path).unwrap().into()).unwrap();
    for file in &mut manifest.files {
        let bytes = fs::read(folder.join(&file.name)).unwrap();
        (file.sha256, file.size_bytes) = (sha256(&bytes), bytes.len());
    }
    fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
}

async fn a_forged_csv_is_never_recorded(engine: Engine) {
    let fixture = sealed(engine).await;
    let folder = revision(&fixture, 1);
    let derived = ["peak_seats.csv", "manifest.json", "_SUCCESS"];
    let good = derived.map(|name| fs::read(folder.join(name)).unwrap());
    let record = fixture.rows(RECORD).await;
    // The month is due, so that a run looks at it and records its files.
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    for (is_fitted, removed) in [(false, &derived[1..]), (true, &derived[2..]), (true, &[][..]), (false, &[][..])] {
        forge_csv(&folder);
        if is_fitted {
            fit_manifest(&folder);
        }
        for name in removed {
            fs::remove_file(folder.join(name)).unwrap();
        }
        let refused = fixture.run(&RUN);
        assert_eq!(refused.code, Some(65), "{is_fitted} {removed:?}: {refused:?}");
        assert!(refused.stderr.contains("rev-0001/peak_seats.csv"), "{is_fitted} {removed:?}: {}", refused.stderr);
        assert!(!revision(&fixture, 2).exists(), "corrected beside a forged file");
        assert_eq!(fixture.rows(RECORD).await, record, "{is_fitted} {removed:?}");
        for command in [&VERIFY[..], &["reconcile", "--as-of", "2026-04-05T00:00:00Z"]] {
            let named = fixture.run(command);
            assert_eq!(named.code, Some(65), "{command:?} {named:?}");
            assert!((named.stdout + &named.stderr).contains("rev-0001/peak_seats.csv"), "{command:?}");
        }
        for (name, bytes) in derived.iter().zip(&good) {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    // Whatever follows from the Parquet file may be lost: it is derived again, to the byte.
    for name in derived {
        fs::remove_file(folder.join(name)).unwrap();
    }
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_eq!(derived.map(|name| fs::read(folder.join(name)).unwrap()), good);
}

async fn a_record_that_is_gone_is_missed(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture.run_well(&RUN);
    // Revision 2 is replaced whole and fitted, and what the database knew of it is deleted: the table still says that it was sealed.
    let folder = revision(&fixture, 2);
    let parquet = folder.join("peak_seats.parquet");
    let forged = with_longs(&fs::read(&parquet).unwrap(), "committed_seats", 99);
    fs::write(&parquet, forged).unwrap();
    for name in ["peak_seats.csv", "manifest.json", "_SUCCESS"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    fixture.execute("DELETE FROM snapshot_file WHERE billing_month = '2026-02' AND revision = 2").await;
    let refused = fixture.run(&RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("rev-0002/peak_seats.parquet"), "{}", refused.stderr);
    assert_eq!(fixture.run(&VERIFY).code, Some(65));
}

/// A database that was restored knows nothing of the revision: what its file says of itself must hold together.
async fn a_revision_that_was_not_recorded_must_be_consistent(engine: Engine) {
    let fixture = sealed(engine).await;
    let folder = revision(&fixture, 1);
    let parquet = folder.join("peak_seats.parquet");
    let good = fs::read(&parquet).unwrap();
    for table in ["job_window", "peak_seats", "snapshot_file"] {
        fixture.execute(&format!("DELETE FROM {table}")).await;
    }
    for name in ["peak_seats.csv", "manifest.json", "_SUCCESS"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for column in ["overage_seats", "peak_seats_delta"] {
        fs::write(&parquet, with_longs(&good, column, 0)).unwrap();
        let refused = fixture.run(&RUN);
        assert_eq!(refused.code, Some(65), "{column}: {refused:?}");
        assert!(refused.stderr.contains("rev-0001/peak_seats.parquet"), "{column}: {}", refused.stderr);
        assert_eq!(fixture.rows(RECORD).await, Vec::<String>::new(), "{column}");
    }
    fs::write(&parquet, good).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
}

async fn a_forged_current_file_is_named_whatever_the_record_says(engine: Engine) {
    let fixture = sealed(engine).await;
    let path = fixture.path().join("out/peak_seats/current/billing_month=2026-02/peak_seats.parquet");
    let forged = with_longs(&fs::read(&path).unwrap(), "peak_seats", 1);
    fs::write(&path, &forged).unwrap();
    fixture
        .execute(&format!("UPDATE snapshot_file SET sha256 = '{}' WHERE path LIKE '%current/billing_month=2026-02%'", sha256(&forged)))
        .await;
    let named = fixture.run(&VERIFY);
    assert_eq!(named.code, Some(65), "{named:?}");
    assert!(named.stderr.contains("current/billing_month=2026-02/peak_seats.parquet"), "{}", named.stderr);
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    fixture.run_well(&VERIFY);
    // A file that no run published is named as well.
    fs::create_dir(fixture.path().join("out/peak_seats/current/billing_month=2031-01")).unwrap();
    fs::write(fixture.path().join("out/peak_seats/current/billing_month=2031-01/peak_seats.parquet"), forged).unwrap();
    let named = fixture.run(&VERIFY);
    assert_eq!(named.code, Some(65), "{named:?}");
    assert!(named.stderr.contains("billing_month=2031-01"), "{}", named.stderr);
}

async fn a_forged_monthly_file_is_named(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let as_of = ["--as-of", "2026-04-05T00:00:00Z"];
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(&[&["run-job", "usage_daily", "--downstream"][..], &as_of].concat());
    fixture.run_well(&VERIFY);
    let path = fixture.path().join("out/usage_monthly/usage_month=2026-03/usage_monthly_customer.parquet");
    let good = fs::read(&path).unwrap();
    fs::write(&path, with_longs(&good, "request_count", 7)).unwrap();
    for command in [&VERIFY[..], &["reconcile", "--as-of", "2026-04-05T00:00:00Z"]] {
        let named = fixture.run(command);
        assert_eq!(named.code, Some(65), "{command:?} {named:?}");
        assert!((named.stdout + &named.stderr).contains("usage_month=2026-03/usage_monthly_customer.parquet"), "{command:?}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(fixture.run(&VERIFY).code, Some(65));
    fixture.run_well(&["run-job", "usage_monthly_customer", "--month", "2026-03"]);
    fixture.run_well(&VERIFY);
    assert_eq!(fs::read(&path).unwrap(), good);
}

/// Revision 2 of a month with one row: subscription `a` of revision 1, as `change` has it.
fn forge_revision(fixture: &Fixture, change: impl Fn(&mut PeakRow<'static>)) {
    let read = parquet_file::read(fs::read(revision(fixture, 1).join("peak_seats.parquet")).unwrap().into()).unwrap();
    let rows = peak_row::read::rows(&read.batches).unwrap();
    let sealed = rows.into_iter().find(|row| row.subscription_id == "a").unwrap();
    let (peak_seats, overage_seats) = (sealed.month.peak_seats, sealed.overage_seats().unwrap());
    assert!(overage_seats > 0);
    let mut row = sealed.clone();
    let reason = Some("subscription changed".into());
    row.entry = Entry { revision: 2, is_correction: true, peak_seats_delta: 0, overage_seats_delta: None, correction_reason: reason };
    change(&mut row);
    let is_of_sealed = row.key() == sealed.key();
    row.entry.peak_seats_delta = row.month.peak_seats - if is_of_sealed { peak_seats } else { 0 };
    row.entry.overage_seats_delta = Some(row.overage_seats().unwrap_or(0) - if is_of_sealed { overage_seats } else { 0 });
    let facts = PeakFacts {
        billing_month: "2026-02".to_owned(),
        revision: 2,
        state: "final",
        as_of: read.fact("as_of").unwrap().to_owned(),
        input_fingerprint: read.fact("input_fingerprint").unwrap().to_owned(),
        ledger_ids: None,
        project_id: read.fact("project_id").unwrap().parse().unwrap(),
    };
    fs::create_dir_all(revision(fixture, 2)).unwrap();
    let bytes = journal::write_rows(BillingMonth::parse("2026-02").unwrap(), &[row], &facts).unwrap();
    fs::write(revision(fixture, 2).join("peak_seats.parquet"), bytes).unwrap();
}

async fn a_forged_revision_changes_no_agreement(engine: Engine) {
    let fixture = sealed(engine).await;
    let record = fixture.rows(RECORD).await;
    let forgeries: [fn(&mut PeakRow<'static>); 6] = [
        |row| row.plan = Some("free".into()),
        |row| row.license_id = Some("other".into()),
        |row| row.committed_seats = None,
        // Taken back, so that it would come again as the subscription is now.
        |row| {
            row.month.peak_seats = 0;
            row.entry.correction_reason = Some("subscription month no longer exists".into());
        },
        |row| row.subscription_id = "nobody".into(),
        |row| row.committed_seats = Some(14),
    ];
    for (index, forgery) in forgeries.into_iter().enumerate() {
        let _ = fs::remove_dir_all(revision(&fixture, 2));
        fixture.run_well(&RUN);
        fixture.run_well(&VERIFY);
        forge_revision(&fixture, forgery);
        assert_eq!(fixture.run(&VERIFY).code, Some(65), "{index}");
        let refused = fixture.run(&RUN);
        assert_eq!(refused.code, Some(65), "{index} {refused:?}");
        assert!(
            ["rev-0002/peak_seats.parquet", "INSERT INTO"].iter().all(|part| refused.stderr.contains(part)),
            "{index} {}",
            refused.stderr
        );
        for command in [&VERIFY[..], &["reconcile", "--as-of", "2026-04-05T00:00:00Z"]] {
            let named = fixture.run(command);
            assert_eq!(named.code, Some(65), "{index} {command:?} {named:?}");
            assert!((named.stdout + &named.stderr).contains("rev-0002/"), "{index} {command:?}");
        }
        assert_eq!(fixture.rows(RECORD).await, record, "{index}");
        let files: Vec<_> = fs::read_dir(revision(&fixture, 2)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(files == ["peak_seats.parquet"] && !revision(&fixture, 3).exists(), "{index} {files:?}");
    }
    // It goes, and `--force` takes the subscription as it is.
    fs::remove_dir_all(revision(&fixture, 2)).unwrap();
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    fixture.run_well(&VERIFY);
    let committed = "SELECT committed_seats, overage_seats FROM peak_seats WHERE billing_month = '2026-02' AND subscription_id = 'a'";
    assert_eq!(fixture.rows(committed).await, ["10|4"]);
}

async fn a_file_that_no_run_published_is_named(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"]);
    fixture.run_well(&VERIFY);
    let out = fixture.path().join("out");
    let published = out.join("usage_monthly/usage_month=2026-03/usage_monthly_customer.parquet");
    for path in [
        "usage_monthly/extra.parquet",
        "usage_monthly/.extra.parquet",
        "usage_monthly/usage_month=2026-03/extra.parquet",
        "usage_monthly/usage_month=2026-03/extra.PARQUET",
        "usage_monthly/usage_month=2026-03/deep/usage_monthly_customer.parquet",
        "usage_monthly/usage_month=2031-01/usage_monthly_customer.parquet",
        "peak_seats/extra.parquet",
        "peak_seats/final2/billing_month=2026-02/peak_seats.parquet",
    ] {
        let extra = out.join(path);
        fs::create_dir_all(extra.parent().unwrap()).unwrap();
        fs::copy(&published, &extra).unwrap();
        for command in [&VERIFY[..], &["reconcile", "--as-of", "2026-04-05T00:00:00Z"]] {
            let named = fixture.run(command);
            assert_eq!(named.code, Some(65), "{path} {command:?} {named:?}");
            assert!((named.stdout + &named.stderr).contains(path), "{path} {command:?}");
        }
        fs::remove_file(extra).unwrap();
        fixture.run_well(&VERIFY);
    }
}

/// The same file with every number of a column another.
fn with_longs(bytes: &[u8], column: &str, number: i64) -> Vec<u8> {
    let read = parquet_file::read(bytes.to_vec().into()).unwrap();
    let index = read.schema.index_of(column).unwrap();
    let batches: Vec<RecordBatch> = read
        .batches
        .iter()
        .map(|batch| {
            let mut columns = batch.columns().to_vec();
            columns[index] = std::sync::Arc::new(Int64Array::from(vec![number; batch.num_rows()])) as ArrayRef;
            RecordBatch::try_new(read.schema.clone(), columns).unwrap()
        })
        .collect();
    let facts = read.facts.iter().filter(|(key, _)| key != "ARROW:schema");
    let facts = facts.map(|(key, value)| (&*key.clone().leak(), value.clone())).collect();
    parquet_file::write(read.schema.clone(), &batches, &facts).unwrap().to_vec()
}
