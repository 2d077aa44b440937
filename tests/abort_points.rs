//! Killed at every abort point, on both databases, and run again: the same tables and files as those of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::fs;

use tallyroll::abort::POINTS;

use crate::style;

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
