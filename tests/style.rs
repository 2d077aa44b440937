//! House rules that a machine can check.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::source::{in_cycles, sources, uses, way};

/// Files that define an enum of states, and say how each is written.
const STATE_ENUMS: &[&str] = &["src/scheduler/notify.rs", "src/scheduler/slot.rs", "src/store/runs.rs", "src/store/windows.rs"];

/// Files in which such a word is something else.
const OTHER_WORDS: &[(&str, &[&str])] = &[
    // Keys and headers of what is printed.
    ("src/cli/init.rs", &["kept"]),
    ("src/cli/list_jobs.rs", &["due"]),
    ("src/cli/status.rs", &["done", "due", "failed", "kept"]),
    ("src/cli/quarantine.rs", &["due"]),
    // The status of a usage event.
    ("src/store/recording.rs", &["failed"]),
    ("src/demo.rs", &["failed", "success"]),
    ("src/import/target.rs", &["success"]),
    ("src/operator/usage_rollup/event_values.rs", &["success"]),
    // The class of an error.
    ("src/failure.rs", &["failed", "interrupted"]),
    // A name in the query of an address.
    ("src/serve/pages/runs.rs", &["failed"]),
    // A column of sqlx's own table.
    ("src/store/migrate.rs", &["success"]),
];

const FILE_LINES_MAX: usize = 300;
const TEST_FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

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

/// Holds what was found against a list of exceptions: nothing else may be found, and all of the list must be.
fn assert_only(found: &BTreeMap<String, String>, exceptions: &[&str], list: &str) {
    let exceptions: BTreeSet<&str> = exceptions.iter().copied().collect();
    let new: Vec<&String> = found.iter().filter(|(name, _)| !exceptions.contains(name.as_str())).map(|(_, problem)| problem).collect();
    assert!(new.is_empty(), "{new:#?}");
    let fixed: Vec<&&str> = exceptions.iter().filter(|name| !found.contains_key(**name)).collect();
    assert!(fixed.is_empty(), "take these off the list `{list}`: {fixed:#?}");
}

#[test]
fn every_source_file_says_what_it_is_about() {
    for path in [files("src", "rs"), files("tests", "rs")].concat() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with `//!`", path.display());
    }
}

#[test]
fn a_file_fits_a_head() {
    let found = named([files("src", "rs"), files("tests", "rs")].concat()).into_iter().filter_map(|(name, text)| {
        let (lines, lines_max) = (text.lines().count(), if name.starts_with("src/") { FILE_LINES_MAX } else { TEST_FILE_LINES_MAX });
        (lines > lines_max).then(|| (name.clone(), format!("{name} has {lines} lines: split it by domain")))
    });
    assert_only(&found.collect(), &[], "");
}

#[test]
fn a_function_fits_a_page() {
    let mut found = BTreeMap::new();
    for (file, text) in named(files("src", "rs")) {
        for (function, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                found.insert(format!("{file} {function}"), format!("{file}: `{function}` has {lines} lines"));
            }
        }
    }
    assert_only(&found, &[], "");
}

/// Files by their path from the root of the checkout.
fn named(paths: Vec<PathBuf>) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    paths.into_iter().map(|path| (path.strip_prefix(root).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// The functions of a file with their lines, by the indentation that rustfmt gives.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else { continue };
        let is_head = before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || ["in", "const", "async"].contains(&word) || word.ends_with(')'));
        if !is_head || line.ends_with(['}', ';']) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[first..].iter().take_while(|line| **line != end).count() + 1;
        functions.push((after.split(['(', '<']).next().unwrap().to_owned(), length));
    }
    functions
}

#[test]
fn no_modules_import_one_another() {
    let sources = sources();
    let uses = uses(&sources);
    let in_cycles = in_cycles(&uses);
    let found = in_cycles.iter().map(|file| {
        let way = way(&uses, file, file).unwrap().join(" → ");
        ((*file).to_owned(), way)
    });
    assert_only(&found.collect(), &[], "");
}

#[test]
fn a_state_is_an_enum() {
    const STATES: [&str; 8] = ["done", "due", "failed", "kept", "future", "success", "interrupted", "running"];
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !STATE_ENUMS.contains(&source.name.as_str())) {
        let others = OTHER_WORDS.iter().find(|(file, _)| *file == source.name).map_or(&[][..], |(_, words)| words);
        let texts = source.texts.iter().map(String::as_str).filter(|text| STATES.contains(text) && !others.contains(text));
        found.extend(texts.map(|text| format!("{}: \"{text}\" is a state: use its enum", source.name)));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_store_and_the_sources_know_two_databases() {
    for source in sources().iter().filter(|source| !["src/store", "src/source"].iter().any(|folder| source.name.starts_with(folder))) {
        for word in ["pick", "Postgres", "Sqlite", "PgPool", "SqlitePool"] {
            assert!(!source.has(word), "{} says `{word}`: what the databases say differently stands in `store/` or `source/`", source.name);
        }
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
