//! What may be wrong with a job's file.

use std::collections::BTreeSet;

use super::{EVENT_FOLDER, Job, OperatorKind, PEAK_FOLDER, ROW_FOLDER};
use crate::measure::MEASURES;
use crate::window::WindowKind;

/// PostgreSQL cuts longer names off, so that two of them could be one table.
pub const LONGEST_NAME_BYTES: usize = 63;
/// What the databases call their own.
const TAKEN_PREFIXES: [&str; 2] = ["pg_", "sqlite_"];

/// Everything that is wrong with a job's file, whatever the other jobs are.
#[must_use]
pub fn of(job: &Job, own_tables: &BTreeSet<String>) -> Vec<String> {
    let mut found = names(job, own_tables);
    found.extend(rules(job));
    found.into_iter().map(|problem| format!("`{}`: {problem}", job.origin)).collect()
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Of what it is called, writes and reads.
fn names(job: &Job, own_tables: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |problem: String| found.push(problem);
    if !is_plain(&job.name) {
        say(format!("a job's name is letters, digits and `_`, not `{}`", job.name));
    }
    if !is_plain(&job.writes) {
        say(format!("`writes` must be a plain table name, not `{}`", job.writes));
    }
    if job.writes.len() > LONGEST_NAME_BYTES {
        say(format!("`writes` has more than {LONGEST_NAME_BYTES} characters, which PostgreSQL would cut off"));
    }
    let lower = job.writes.to_ascii_lowercase();
    let is_taken =
        own_tables.contains(&lower) || lower == "information_schema" || TAKEN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    if is_taken && !job.has_table_of_the_schema {
        say(format!(
            "`writes = \"{}\"` is a table of Tallyroll's own or of the database; name another one, the job's name serves well. A job in \
             the place of a built-in one keeps its operator, window, grain and columns, and what a rollup or the dashboard reads",
            job.writes
        ));
    }
    if job.grain.is_empty() {
        say("`grain` must name at least one column".to_owned());
    }
    let columns = job.grain.iter().chain([&job.window_column]).chain(&job.labels);
    for column in columns.chain(job.unique.keys()).chain(job.unique.values()) {
        if !is_plain(column) {
            say(format!("`{column}` is no plain column name"));
        }
    }
    if job.operator == OperatorKind::Rollup {
        let mut columns = BTreeSet::new();
        let measures = MEASURES.iter().map(|measure| measure.name);
        let named = job.grain.iter().chain(&job.labels).chain(job.unique.keys()).map(String::as_str);
        for column in measures.chain(named) {
            if !columns.insert(column.to_ascii_lowercase()) {
                say(format!("its table would have two columns `{column}`: a grain, a label, a measure and a unique count differ in name"));
            }
        }
    }
    if job.reads.is_empty() {
        say("`reads` must name at least one table".to_owned());
    }
    if job.reads.contains(&job.writes) {
        say(format!("it reads `{}`, which it writes", job.writes));
    }
    found
}

/// Folders of the output that are others'.
const TAKEN: [&str; 3] = [PEAK_FOLDER, EVENT_FOLDER, ROW_FOLDER];

/// Of what its operator does.
fn rules(job: &Job) -> Vec<String> {
    let is = |operator: OperatorKind| job.operator == operator;
    // Disks without upper and lower case take `Peak_Seats` for the journal's folder, and none takes a very long name.
    let publishes_badly = job.publish.as_ref().is_some_and(|folder| {
        !is_plain(folder) || TAKEN.iter().any(|taken| folder.eq_ignore_ascii_case(taken)) || folder.len() > LONGEST_NAME_BYTES
    });
    let rules = [
        (is(OperatorKind::UsageRollup) && job.window != WindowKind::Day, "`usage_rollup` works by day: `window = \"day\"`"),
        (is(OperatorKind::UsageRollup) && job.writes != "usage_daily", "`usage_rollup` writes the table `usage_daily`"),
        (
            (job.window == WindowKind::BillingMonth) != is(OperatorKind::PeakSeats),
            "`window = \"billing_month\"` and `operator = \"peak_seats\"` go together; other jobs use `month`",
        ),
        (
            is(OperatorKind::Reconcile) && (job.window != WindowKind::All || job.writes != "reconciliation"),
            "`reconcile` has `window = \"all\"` and `writes = \"reconciliation\"`",
        ),
        (
            is(OperatorKind::Archive) && (job.window != WindowKind::All || job.writes != "archived_day"),
            "`archive` has `window = \"all\"` and `writes = \"archived_day\"`",
        ),
        (
            is(OperatorKind::UsageDashboard) && (job.window != WindowKind::All || job.writes != "usage_dashboard"),
            "`usage_dashboard` has `window = \"all\"` and writes the table `usage_dashboard`",
        ),
        (is(OperatorKind::PeakSeats) && job.writes != "peak_seats", "`peak_seats` writes the table `peak_seats`"),
        (
            job.follows.is_some() && !(is(OperatorKind::Sql) && job.window == WindowKind::All),
            "`follows` is for `operator = \"sql\"` with `window = \"all\"`",
        ),
        (
            job.publish.is_some() && !((is(OperatorKind::Sql) || is(OperatorKind::Rollup)) && job.window == WindowKind::Month),
            "`publish` is for `operator = \"sql\"` or `\"rollup\"` with `window = \"month\"`",
        ),
        (
            is(OperatorKind::Rollup) && !matches!(job.window, WindowKind::Day | WindowKind::Month),
            "`rollup` works by day or month: `window = \"day\"` or `\"month\"`",
        ),
        (is(OperatorKind::Rollup) && job.reads.len() != 1, "`rollup` reads one table"),
        (
            is(OperatorKind::Rollup) && job.grain.first() != Some(&job.window_column),
            "of a `rollup` the first column of `grain` is the day or month of its window",
        ),
        (
            !(is(OperatorKind::Rollup) || job.labels.is_empty() && job.unique.is_empty()),
            "`labels` and `unique` are for `operator = \"rollup\"`",
        ),
        (
            !(is(OperatorKind::Sql) || is(OperatorKind::Rollup) || job.checks.is_empty()),
            "`checks` are for `operator = \"sql\"` and `\"rollup\"`",
        ),
    ];
    let mut found: Vec<String> = rules.into_iter().filter(|(is_broken, _)| *is_broken).map(|(_, text)| text.to_owned()).collect();
    if publishes_badly {
        found.push(format!(
            "`publish` must be a plain folder name of at most {LONGEST_NAME_BYTES} characters, and none of {}, which are the journal's \
             and the lake's",
            TAKEN.map(|folder| format!("`{folder}`")).join(", ")
        ));
    }
    found
}
