//! House rules that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn every_source_file_says_what_it_is_about_and_fits_a_head() {
    for path in [files("src", "rs"), files("tests", "rs")].concat() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with `//!`", path.display());
        assert!(text.lines().count() <= 500, "{} has {} lines: split it by domain", path.display(), text.lines().count());
    }
}

#[test]
fn sql_reads_no_clock_and_names_its_columns() {
    let is_definition = |path: &Path| path.components().any(|part| part.as_os_str() == "migrations" || part.as_os_str() == "functions");
    for path in files("sql", "sql").into_iter().filter(|path| !is_definition(path)) {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        assert!(text.starts_with("-- "), "{shown} has no header comment");
        let lower = text.to_lowercase();
        for banned in ["now()", "current_timestamp", "current_date", "select *", "'now'"] {
            assert!(!lower.contains(banned), "{shown} holds `{banned}`");
        }
    }
}

#[test]
fn only_the_clock_reads_the_time() {
    for path in files("src", "rs").into_iter().filter(|path| !path.ends_with("clock.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        assert!(!code.contains("Utc::now()") && !code.contains("SystemTime::now()"), "{} reads a clock", path.display());
    }
}
