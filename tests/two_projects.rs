//! Two databases and one output folder: the second writes nothing into the first one's months.

use std::fs;
use std::path::Path;

use crate::on_both_databases;
use crate::support::seats::{S3, tree};
use crate::support::{Engine, Finished, Fixture, PROJECT_ID};

on_both_databases!(
    a_second_database_writes_nothing_into_the_folder,
    a_second_database_that_recorded_the_same_paths_takes_no_folder_over,
    a_month_of_another_project_is_not_taken_up,
    a_new_database_takes_the_folder_over_by_its_id,
    an_export_replaces_no_file_of_another_project,
);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const OTHER_ID: &str = "00000000-0000-4000-8000-00000000000b";

async fn project(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[("customer_id", "7")]).await;
    fixture
}

async fn another_project(engine: Engine) -> Fixture {
    let fixture = project(engine).await;
    fixture.execute(&format!("UPDATE tallyroll_project SET project_id = '{OTHER_ID}'")).await;
    fixture.seats(70, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture
}

fn run_in(fixture: &Fixture, out: &Path, arguments: &[&str]) -> Finished {
    Finished::of(&fixture.command(arguments).env("TALLYROLL__OUTPUT__URL", out).output().unwrap())
}

fn assert_refused(refused: &Finished) {
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains(PROJECT_ID) && refused.stderr.contains(OTHER_ID), "{}", refused.stderr);
}

async fn a_second_database_writes_nothing_into_the_folder(engine: Engine) {
    let (one, other) = (project(engine).await, another_project(engine).await);
    let out = one.path().join("out");
    let usage = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"];
    one.run_well(&RUN);
    one.run_well(&usage);
    let before = tree(&out);
    for command in
        [&RUN[..], &[&RUN[..], &["--force"]].concat(), &[&RUN[..], &["--dry-run"]].concat(), &["verify"], &["export", "--to", "x"]]
    {
        assert_refused(&run_in(&other, &out, command));
    }
    let refused = run_in(&other, &out, &usage);
    assert!(refused.stderr.contains(OTHER_ID), "{refused:?}");
    assert_eq!(run_in(&other, &out, &["run-job", "usage_monthly_customer"]).code, Some(78));
    assert!(tree(&out) == before, "a byte changed");
    // A file at the root that says nothing.
    let named = fs::read(out.join("_tallyroll.json")).unwrap();
    fs::write(out.join("_tallyroll.json"), "{}").unwrap();
    for command in [&["verify"][..], &["export", "--to", "x"]] {
        assert_eq!(one.run(command).code, Some(65), "{command:?}");
    }
    fs::write(out.join("_tallyroll.json"), named).unwrap();
    // Without the file at the root, the sealed months say whose they are.
    fs::remove_file(out.join("_tallyroll.json")).unwrap();
    let without = tree(&out);
    assert_refused(&run_in(&other, &out, &RUN));
    assert!(tree(&out) == without, "a byte changed");
    // Its own database goes on, and so does a restored copy of it, which has the same id.
    one.run_well(&[&RUN[..], &["--force"]].concat());
    assert!(tree(&out) == before);
    for table in ["job_window", "peak_seats", "snapshot_file"] {
        one.execute(&format!("DELETE FROM {table}")).await;
    }
    one.run_well(&RUN);
    assert!(tree(&out) == before);
}

/// It published the same months elsewhere: what it finds at a path that it has recorded is not its own for that.
async fn a_second_database_that_recorded_the_same_paths_takes_no_folder_over(engine: Engine) {
    let (one, other) = (project(engine).await, another_project(engine).await);
    let out = one.path().join("out");
    let usage = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05T00:00:00Z"];
    for fixture in [&one, &other] {
        fixture.run_well(&RUN);
        fixture.run_well(&usage);
    }
    fs::remove_file(out.join("_tallyroll.json")).unwrap();
    // Sealed files, then those in `current/`, then the monthly ones say whose they are.
    for lost in ["", "peak_seats/final", "peak_seats/current"] {
        if !lost.is_empty() {
            fs::remove_dir_all(out.join(lost)).unwrap();
        }
        let before = tree(&out);
        assert!(!before.is_empty());
        let monthly = ["run-job", "usage_monthly_customer", "--month", "2026-03"];
        for command in [&RUN[..], &[&RUN[..], &["--force"]].concat(), &[&RUN[..], &["--dry-run"]].concat(), &["verify"], &monthly] {
            assert_refused(&run_in(&other, &out, command));
        }
        assert!(tree(&out) == before, "a byte changed without `{lost}`");
    }
}

async fn a_month_of_another_project_is_not_taken_up(engine: Engine) {
    let (one, other) = (project(engine).await, another_project(engine).await);
    one.run_well(&RUN);
    let month = "peak_seats/final/billing_month=2026-02";
    let stray = other.path().join("out").join(month);
    fs::create_dir_all(stray.join("rev-0001")).unwrap();
    for name in ["peak_seats.parquet", "peak_seats.csv", "manifest.json", "_SUCCESS"] {
        let name = Path::new("rev-0001").join(name);
        fs::copy(one.path().join("out").join(month).join(&name), stray.join(&name)).unwrap();
    }
    fs::write(other.path().join("out/_tallyroll.json"), format!("{{\n  \"project_id\": \"{OTHER_ID}\"\n}}\n")).unwrap();
    let before = tree(&stray);
    assert_refused(&other.run(&[&RUN[..], &["--month", "2026-02"]].concat()));
    assert!(tree(&stray) == before);
    assert_eq!(other.number("SELECT COUNT(*) FROM snapshot_file WHERE billing_month = '2026-02'").await, 0);
}

/// A disaster that left the files and no backup of the database: the new one is given the folder's id.
async fn a_new_database_takes_the_folder_over_by_its_id(engine: Engine) {
    let (one, other) = (project(engine).await, another_project(engine).await);
    let out = one.path().join("out");
    one.run_well(&RUN);
    let before = tree(&out);
    let refused = run_in(&other, &out, &RUN);
    let statement =
        format!("UPDATE {} SET project_id = '{PROJECT_ID}'", one.store.pick("tallyroll.tallyroll_project", "tallyroll_project"));
    assert!(refused.stderr.contains(&statement), "{}", refused.stderr);
    other.execute(&statement).await;
    let taken = run_in(&other, &out, &RUN);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let after = tree(&out);
    assert!(before.iter().filter(|(path, _)| path.contains("final")).all(|(path, bytes)| after[path] == *bytes), "a sealed byte changed");
    assert_eq!(run_in(&other, &out, &["verify", "--as-of", "2026-04-05T00:00:00Z"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_at_once_in_one_bucket() {
    let server = S3::start();
    let (one, other) = (project(Engine::Sqlite).await, another_project(Engine::Sqlite).await);
    let spawn = |fixture: &Fixture| {
        let mut command = fixture.command(&RUN);
        command.envs(server.environment("shared")).spawn().unwrap()
    };
    let both = [spawn(&one), spawn(&other)].map(|run| Finished::of(&run.wait_with_output().unwrap()));
    let mut codes = both.iter().map(|finished| finished.code).collect::<Vec<_>>();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(78)], "{both:?}");
    let winner = if both[0].code == Some(0) { &one } else { &other };
    let mut verify = winner.command(&["verify", "--as-of", "2026-04-05T00:00:00Z"]);
    let verified = Finished::of(&verify.envs(server.environment("shared")).output().unwrap());
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// Without the file at its root nothing says whose a folder is but its files.
async fn an_export_replaces_no_file_of_another_project(engine: Engine) {
    let (one, other) = (project(engine).await, another_project(engine).await);
    one.run_well(&RUN);
    other.run_well(&RUN);
    let out = one.path().join("out");
    fs::remove_file(out.join("_tallyroll.json")).unwrap();
    let before = tree(&out);
    assert_refused(&other.run(&["export", "--to", out.to_str().unwrap()]));
    // Nor an earlier export.
    let kept = one.path().join("kept");
    fs::rename(out.join("peak_seats"), one.path().join("moved")).unwrap();
    fs::create_dir(&kept).unwrap();
    fs::rename(one.path().join("moved"), kept.join("peak_seats")).unwrap();
    assert_refused(&other.run(&["export", "--to", kept.to_str().unwrap()]));
    fs::rename(kept.join("peak_seats"), out.join("peak_seats")).unwrap();
    assert!(tree(&out) == before, "a byte changed");
}
