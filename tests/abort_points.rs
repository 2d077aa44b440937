//! Killed at every abort point, on both databases, and run again: the same tables and files as those of a run that nobody disturbed.

mod scenarios;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tallyroll::abort::POINTS;

use self::stage::Stage;
use crate::style;
use crate::support::repetitions;

// Which scenario kills at which points; together they are all.
const RUNNING: &[&str] = &[
    "lock_taken_over",
    "lock_before_commit",
    "lock_acquired",
    "plan_kept",
    "plan_committed",
    "run_before_finish",
    "run_finished",
    "lock_released",
    "log_kept",
    "table_made",
    "window_computed",
    "rows_deleted",
    "rows_written",
    "quarantine_written",
    "window_recorded",
    "rollup_deleted",
    "rollup_written",
    "pass_written",
    "window_before_commit",
    "window_committed",
    "derived_deleted",
    "derived_written",
    "usage_monthly_put",
    "dashboards_deleted",
    "dashboards_written",
    "reconciliation_written",
];
const FAILING: &[&str] = &["quarantine_committed", "failure_before_commit", "failure_committed"];
const BILLING: &[&str] = &[
    "output_claimed",
    "revision_intended",
    "revision_put",
    "revision_read_back",
    "csv_put",
    "manifest_put",
    "success_put",
    "month_sealed",
    "peaks_deleted",
    "peaks_written",
    "snapshot_recorded",
    "current_put",
    "file_before_rename",
];
const IMPORTING: &[&str] = &["import_batch", "import_before_commit", "import_committed"];
const RECORDING: &[&str] = &["seats_before_commit", "seats_recorded"];
const MIGRATING: &[&str] = &["migration_applied"];
const SCHEDULING: &[&str] =
    &["slots_before_commit", "slots_claimed", "slots_taken_over", "slot_begun", "slot_before_finish", "slot_finished", "history_tidied"];

const ARCHIVING: &[&str] = &[
    "part_put",
    "day_read_back",
    "lake_manifest_put",
    "day_copied",
    "day_counted",
    "rows_of_table_deleted",
    "delete_before_commit",
    "delete_committed",
    "day_archived",
];
const RESTORING: &[&str] = &["rows_put_back", "restore_before_commit", "restore_committed"];

/// Kills each stage at each of the scenario's `own` points that it passes: the first time, and in the first stage also the last time.
/// The campaign kills at every point that is passed, more often, and at pairs of the scenario's own.
async fn kill_everywhere(reached_in_pairs: &[&str], own: &[&str], stages: Vec<Stage>) {
    require_points();
    let is_campaign = repetitions(0, 1) == 1;
    let mut reached: BTreeSet<String> = reached_in_pairs.iter().map(|name| (*name).to_owned()).collect();
    let mut kills = 0;
    for (index, stage) in stages.into_iter().enumerate() {
        reached.extend(stage.passed.keys().cloned());
        for (point, passed) in &stage.passed {
            let mut times: BTreeSet<usize> = BTreeSet::new();
            if is_campaign {
                times.extend((1..=3.min(*passed)).chain([*passed]));
            } else if own.contains(&point.as_str()) {
                times.insert(1);
                times.extend((index == 0).then_some(*passed));
            }
            for time in times {
                assert!(stage.killed(&[(point, time)]).await);
                kills += 1;
            }
        }
        let passed_own: Vec<&str> = own.iter().copied().filter(|point| stage.passed.contains_key(*point)).collect();
        let pairs = passed_own.iter().flat_map(|first| passed_own.iter().map(move |second| [(*first, 1), (*second, 1)]));
        for pair in pairs.filter(|_| is_campaign) {
            kills += 1 + usize::from(stage.killed(&pair).await);
        }
        stage.remove().await;
    }
    println!("{kills} kills: no difference");
    let missed: Vec<_> = own.iter().filter(|point| !reached.contains(**point)).collect();
    assert!(missed.is_empty(), "the scenario does not come to {missed:?}");
}

/// Tells the stage to stop where a run begins, commits and ends; the campaign at every point that is passed.
async fn stop_everywhere(stage: &Stage) {
    require_points();
    let is_campaign = repetitions(0, 1) == 1;
    let mut stops = 0;
    for (point, passed) in &stage.passed {
        let times = match point.as_str() {
            "lock_acquired" => *passed,
            _ if is_campaign => 2.min(*passed),
            "plan_committed" | "window_committed" | "run_before_finish" => 1,
            _ => 0,
        };
        for time in 1..=times {
            stage.stopped((point, time)).await;
            stops += 1;
        }
    }
    println!("{stops} stops: no difference");
}

/// A test without the points would kill nothing and pass.
#[allow(clippy::assertions_on_constants, reason = "it holds in one of two builds")]
fn require_points() {
    assert!(
        cfg!(feature = "abort-points"),
        "built without the abort points: run the tests with scripts/test.sh, or `--features abort-points`"
    );
}

#[test]
fn the_list_names_every_point_of_the_source_once() {
    require_points();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for path in style::files("src", "rs") {
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split("abort::point(").skip(1) {
            let name = call.strip_prefix('"').and_then(|rest| rest.split_once("\")"));
            let (name, _) = name.unwrap_or_else(|| panic!("{}: a point's name is no plain text", path.display()));
            *places.entry(name.to_owned()).or_default() += 1;
        }
    }
    let listed: BTreeMap<String, usize> = POINTS.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(places, listed, "left: the source, right: `abort::POINTS`");
}

#[test]
fn an_unknown_point_is_an_error() {
    require_points();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tallyroll"))
        .args(["demo", "--events", "10", "--dir"])
        .arg(tempfile::tempdir().unwrap().path().join("demo"))
        .env("TALLYROLL_ABORT_AT", "no_such_point")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no abort point `no_such_point`"), "{output:?}");
}

/// What is built for use has none of it: only the tests' feature compiles the points, and a release build refuses the feature.
#[test]
fn only_the_feature_of_tests_has_points() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    assert_eq!(features.keys().collect::<Vec<_>>(), ["abort-points"], "another feature, `default` among them, may switch it on");
    assert!(include_str!("../src/abort.rs").contains("#[cfg(all(feature = \"abort-points\", not(debug_assertions)))]\ncompile_error!"));
}

#[test]
fn every_point_has_a_scenario_that_kills_there() {
    let mut killed = [RUNNING, FAILING, BILLING, IMPORTING, RECORDING, MIGRATING, SCHEDULING, ARCHIVING, RESTORING].concat();
    let mut all = POINTS.to_vec();
    killed.sort_unstable();
    all.sort_unstable();
    assert_eq!(killed, all);
}
