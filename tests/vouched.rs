//! Every file that the database vouches for is there and as it was published, and beside them there is no other: `verify`,
//! `reconcile`, `export` and runs say so, whatever state a window is in.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chrono::Datelike as _;

use crate::custom_job;
use crate::on_both_databases;
use crate::support::seats::tree;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    a_changed_monthly_file_is_named_whatever_its_window_is,
    a_month_that_lost_its_rows_and_its_file_is_well,
    a_missing_revision_stops_its_month,
    an_incomplete_set_is_not_exported,
    a_planted_month_to_come_is_not_taken_up,
    a_planted_month_that_is_not_closed_is_billed_and_named,
    files_of_a_job_that_moved_or_is_gone_are_named,
    a_file_of_any_name_is_named,
);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const USAGE: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"];
const VERIFY: [&str; 3] = ["verify", "--as-of", "2026-04-05T00:00:00Z"];
const RECONCILE: [&str; 3] = ["reconcile", "--as-of", "2026-04-05T00:00:00Z"];
const EXPORT: [&str; 3] = ["export", "--to", "finance"];
const MONTH: &str = "peak_seats/final/billing_month=2026-02";
const MONTHLY: &str = "usage_monthly/usage_month=2026-03/usage_monthly_customer.parquet";

/// A month with three revisions, and monthly files.
pub async fn published(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&RUN);
    for (id, seats) in [(7, 30), (8, 40)] {
        fixture.seats(id, "org-1", "2026-02-10T00:00:00.000000Z", seats).await;
        fixture.run_well(&RUN);
    }
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture.run_well(&USAGE);
    fixture.run_well(&VERIFY);
    assert!(fixture.path().join("out").join(MONTH).join("rev-0003").is_dir());
    fixture
}

fn assert_named(finished: &Finished, what: &str, part: &str) {
    assert_eq!(finished.code, Some(65), "{what}: {finished:?}");
    assert!(finished.stdout.contains(part) || finished.stderr.contains(part), "{what}: {finished:?}");
}

fn assert_both_name(fixture: &Fixture, what: &str, part: &str) {
    assert_named(&fixture.run(&VERIFY), &format!("verify, {what}"), part);
    assert_named(&fixture.run(&RECONCILE), &format!("reconcile, {what}"), part);
}

async fn a_changed_monthly_file_is_named_whatever_its_window_is(engine: Engine) {
    let fixture = published(engine).await;
    let path = fixture.path().join("out").join(MONTHLY);
    let good = fs::read(&path).unwrap();
    for state in ["failed", "due", "kept", "future", "done"] {
        fixture.execute(&format!("UPDATE job_window SET state = '{state}' WHERE job = 'usage_monthly_customer'")).await;
        fixture.run_well(&VERIFY);
        fs::write(&path, [&good[..], b" "].concat()).unwrap();
        assert_both_name(&fixture, state, MONTHLY);
        fs::remove_file(&path).unwrap();
        assert_both_name(&fixture, state, MONTHLY);
        fs::write(&path, &good).unwrap();
        fixture.run_well(&VERIFY);
    }
    // One that no run has published there is none of ours, whatever the window's state.
    fixture.execute("UPDATE job_window SET state = 'failed' WHERE job = 'usage_monthly_customer'").await;
    fixture.execute("DELETE FROM file_digest WHERE path LIKE '%usage_monthly_customer%'").await;
    assert_both_name(&fixture, "no record", MONTHLY);
    fs::remove_file(&path).unwrap();
    fixture.run_well(&VERIFY);
}

async fn a_month_that_lost_its_rows_and_its_file_is_well(engine: Engine) {
    let fixture = published(engine).await;
    fs::remove_file(fixture.path().join("out").join(MONTHLY)).unwrap();
    fixture.execute("DELETE FROM usage_daily").await;
    fixture.run_well(&["run-job", "usage_monthly_customer", "--month", "2026-03"]);
    assert!(!fixture.path().join("out").join(MONTHLY).exists());
    fixture.run_well(&VERIFY);
    fixture.run_well(&EXPORT);
}

async fn a_missing_revision_stops_its_month(engine: Engine) {
    let fixture = published(engine).await;
    let (out, aside) = (fixture.path().join("out").join(MONTH), fixture.path().join("aside"));
    for number in 1..=3 {
        let name = format!("rev-000{number}");
        fs::rename(out.join(&name), &aside).unwrap();
        assert_named(&fixture.run(&RUN), &name, &format!("{name}/peak_seats.parquet"));
        assert!(!out.join(&name).join("peak_seats.parquet").exists(), "{name}");
        fs::rename(&aside, out.join(&name)).unwrap();
        fixture.run_well(&RUN);
        // The rest of its folder vouches for nothing.
        let file = out.join(&name).join("peak_seats.parquet");
        fs::rename(&file, &aside).unwrap();
        assert_named(&fixture.run(&RUN), &name, &format!("{name}/peak_seats.parquet"));
        fs::rename(&aside, &file).unwrap();
        fixture.run_well(&RUN);
    }
    fixture.run_well(&VERIFY);
}

async fn an_incomplete_set_is_not_exported(engine: Engine) {
    let fixture = published(engine).await;
    let (out, aside) = (fixture.path().join("out"), fixture.path().join("aside"));
    for missing in [
        "peak_seats/final/billing_month=2026-02/rev-0002",
        "peak_seats/final/billing_month=2026-02/rev-0003",
        "peak_seats/final/billing_month=2026-02/rev-0001/manifest.json",
        "peak_seats/final/billing_month=2026-02/rev-0001/_SUCCESS",
        "peak_seats/final/billing_month=2026-02",
        "peak_seats/final",
        "peak_seats/current/billing_month=2026-02/peak_seats.parquet",
        "peak_seats",
        MONTHLY,
        "usage_monthly",
    ] {
        fs::rename(out.join(missing), &aside).unwrap();
        assert_named(&fixture.run(&EXPORT), missing, missing);
        assert!(!fixture.path().join("finance").exists(), "{missing}: something was handed on");
        fs::rename(&aside, out.join(missing)).unwrap();
    }
    fixture.run_well(&EXPORT);
    let (from, to) = (tree(&out), tree(&fixture.path().join("finance")));
    assert!(from.iter().filter(|(path, _)| !path.starts_with('_')).all(|(path, bytes)| to[path] == *bytes));
}

async fn files_of_a_job_that_moved_or_is_gone_are_named(engine: Engine) {
    let fixture = published(engine).await;
    let out = fixture.path().join("out");
    let publish = |folder: &str| {
        fixture.write("sql/usage_by_model.sql", &custom_job::SQL.replace("AS model,", "AS model_name,"));
        let job = custom_job::JOB.replace("\"model\"", "\"model_name\"");
        fixture.write("jobs/usage_by_model.toml", &format!("{job}publish = \"{folder}\"\n"));
    };
    let file = |folder: &str| format!("{folder}/usage_month=2026-03/usage_by_model.parquet");
    publish("foo");
    fixture.run_well(&["run-job", "usage_by_model", "--as-of", "2026-04-05T00:00:00Z"]);
    fixture.run_well(&VERIFY);
    publish("bar");
    fixture.run_well(&["run-job", "usage_by_model", "--as-of", "2026-04-05T00:00:00Z"]);
    assert_both_name(&fixture, "moved", &file("foo"));
    assert_named(&fixture.run(&EXPORT), "moved", &file("foo"));
    fs::remove_dir_all(out.join("foo")).unwrap();
    fixture.run_well(&VERIFY);
    fixture.run_well(&EXPORT);
    assert!(fixture.path().join("finance").join(file("bar")).is_file(), "all that is published is exported");
    fs::remove_file(fixture.path().join("jobs/usage_by_model.toml")).unwrap();
    assert_both_name(&fixture, "removed", &file("bar"));
    fs::write(out.join("bar/extra.parquet"), "extra").unwrap();
    assert_both_name(&fixture, "beside a removed one's", "bar/extra.parquet");
    fs::remove_dir_all(out.join("bar")).unwrap();
    fixture.run_well(&VERIFY);
    fixture.run_well(&RECONCILE);
    fixture.run_well(&EXPORT);
}

async fn a_file_of_any_name_is_named(engine: Engine) {
    let fixture = published(engine).await;
    for name in [
        "usage_monthly/x.parq",
        "usage_monthly/usage_month=2026-03/part-0",
        "usage_monthly/usage_month=2026-03/x.parquet.gz",
        "usage_monthly/usage_month=2026-03/d.parquet/part-0",
        "usage_monthly/usage_month=2026-03/usage_monthly_customer.csv",
        "peak_seats/x.parq",
        "peak_seats/current/x.csv",
        "peak_seats/final/.x.csv",
        "peak_seats/final/billing_month=2026-02/rev-0001/.peak_seats.csv",
        "usage_monthly/.tallyroll-x.tmp",
    ] {
        fixture.write(&format!("out/{name}"), "1,2,3\n");
        assert_both_name(&fixture, name, name);
        assert_named(&fixture.run(&EXPORT), name, name);
        fs::remove_file(fixture.path().join("out").join(name)).unwrap();
        fixture.run_well(&VERIFY);
    }
    // A name that begins with a dot hides no link, and no folder behind one.
    let month = fixture.path().join("out").join(MONTH);
    let link = "peak_seats/final/.hidden";
    symlink(&month, fixture.path().join("out").join(link)).unwrap();
    assert_both_name(&fixture, link, link);
    assert_named(&fixture.run(&EXPORT), link, link);
    fs::remove_file(fixture.path().join("out").join(link)).unwrap();
    // Folders within folders end somewhere; so does looking into them.
    let deep = fixture.path().join("out/peak_seats/deep");
    fs::create_dir(&deep).unwrap();
    for _ in 0..1_500 {
        // Path names end before that.
        let built = tempfile::tempdir_in(fixture.path()).unwrap().keep();
        fs::rename(&deep, built.join("d")).unwrap();
        fs::rename(&built, &deep).unwrap();
    }
    assert_both_name(&fixture, "deep", "peak_seats/deep");
    fs::remove_dir_all(&deep).unwrap();
    // What a killed run left of a file that it was writing is no finance file.
    fixture.write(&format!("out/{MONTH}/rev-0001/.tallyroll-{}.tmp", uuid::Uuid::now_v7().simple()), "1,2");
    fixture.run_well(&VERIFY);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_into_an_output() {
    let fixture = published(Engine::Sqlite).await;
    let other = published(Engine::Sqlite).await;
    let theirs = other.path().join("out/peak_seats").display().to_string();
    symlink("out/peak_seats", fixture.path().join("link")).unwrap();
    let (ours_before, theirs_before) = (tree(&fixture.path().join("out")), tree(&other.path().join("out")));
    let refuse = |to: &str| {
        let refused = fixture.run(&["export", "--to", to]);
        assert_eq!(refused.code, Some(2), "{to}: {refused:?}");
        assert!(refused.stderr.contains("an output of tallyroll"), "{to}: {}", refused.stderr);
        let is_untouched = tree(&fixture.path().join("out")) == ours_before && tree(&other.path().join("out")) == theirs_before;
        assert!(is_untouched && !fixture.path().join("out/new").exists(), "{to}");
    };
    for to in ["out", "out/", "out/peak_seats", "./out/new/deep", "link", "link/new", "out/peak_seats/../new", &theirs] {
        refuse(to);
    }
    // Nor into one that has lost the file that says what it is.
    fs::rename(fixture.path().join("out/_tallyroll.json"), fixture.path().join("owner")).unwrap();
    let ours_before = tree(&fixture.path().join("out"));
    for to in ["out", "out/new/deep"] {
        let refused = fixture.run(&["export", "--to", to]);
        assert_eq!(refused.code, Some(2), "{to}: {refused:?}");
        assert!(tree(&fixture.path().join("out")) == ours_before, "{to}");
    }
    fixture.run_well(&["export", "--to", "new/deep"]);
    assert!(Path::new(&fixture.path().join("new/deep").join(MONTHLY)).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_to_publish_into_has_a_name_that_every_disk_has() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("sql/usage_by_model.sql", custom_job::SQL);
    for folder in ["Peak_Seats", "PEAK_SEATS", "peak_seats", &"x".repeat(300)] {
        fixture.write("jobs/usage_by_model.toml", &format!("{}publish = \"{folder}\"\n", custom_job::JOB));
        let refused = fixture.run(&["check"]);
        assert_eq!(refused.code, Some(78), "{folder}: {refused:?}");
        assert!(refused.stderr.contains("`publish`"), "{folder}: {}", refused.stderr);
    }
    fixture.write("jobs/usage_by_model.toml", &format!("{}publish = \"{}\"\n", custom_job::JOB, "x".repeat(63)));
    fixture.run_well(&["check"]);
    let other = custom_job::JOB.replace("usage_by_model", "models");
    fixture.write("jobs/models.toml", &format!("{other}publish = \"{}\"\n", "X".repeat(63)));
    fixture.write("sql/models.sql", custom_job::SQL);
    let refused = fixture.run(&["check"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("in case alone"), "{}", refused.stderr);
}

/// What lies in the output of the month that is running, or in its grace, is no reason not to bill it.
async fn a_planted_month_that_is_not_closed_is_billed_and_named(engine: Engine) {
    let this_month = chrono::Utc::now().date_naive();
    let last_month = this_month.with_day(1).unwrap().pred_opt().unwrap();
    for (day, state) in [(this_month, "open"), (last_month, "provisional")] {
        let fixture = Fixture::new(engine).await;
        fixture.three_subscriptions().await;
        fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"]);
        fixture.write("tallyroll.toml", "[billing]\ngrace_hours = 1000\n");
        let month = day.format("%Y-%m").to_string();
        let folder = |month: &str| fixture.path().join(format!("out/peak_seats/final/billing_month={month}"));
        let copied = std::process::Command::new("cp").arg("-r").args([folder("2026-03"), folder(&month)]).status().unwrap();
        assert!(copied.success());
        let ran = Finished::of(&fixture.command(&["run-job", "peak_seats"]).env("RUST_LOG", "warn").output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains("a month that is not closed"), "{}", ran.stderr);
        let billed = format!("SELECT COUNT(*) FROM peak_seats WHERE billing_month = '{month}' AND state = '{state}'");
        assert!(fixture.number(&billed).await > 0, "{month}");
        for command in ["verify", "reconcile"] {
            assert_named(&fixture.run(&[command]), command, &format!("billing_month={month}/rev-0001"));
        }
    }
}

/// A month that the database cannot know yet, written well, by somebody who can write into the output.
async fn a_planted_month_to_come_is_not_taken_up(engine: Engine) {
    let (fixture, other) = (Fixture::new(engine).await, Fixture::new(engine).await);
    fixture.three_subscriptions().await;
    other.three_subscriptions().await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"]);
    other.execute("UPDATE subscription SET committed_seats = 100000").await;
    let later = ["run-job", "peak_seats", "--as-of", "2026-05-06T00:00:00Z"];
    other.run_well(&later);
    let folder = |of: &Fixture| of.path().join("out/peak_seats/final/billing_month=2026-04");
    let copied = std::process::Command::new("cp").arg("-r").args([folder(&other), folder(&fixture)]).status().unwrap();
    assert!(copied.success());
    let refused = fixture.run(&later);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("billing_month=2026-04/rev-0001"), "{}", refused.stderr);
    assert_eq!(fixture.run(&["verify", "--as-of", "2026-05-06T00:00:00Z"]).code, Some(65));
    std::fs::remove_dir_all(folder(&fixture)).unwrap();
    fixture.run_well(&later);
    fixture.run_well(&["verify", "--as-of", "2026-05-06T00:00:00Z"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM peak_seats WHERE committed_seats = 100000").await, 0);
}
