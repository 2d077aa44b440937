//! Jobs as data: `jobs/<name>.toml`, from the project folder or built in.

pub mod checks;
pub mod problems;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::checks::Checks;
use crate::fingerprint;
use crate::window::WindowKind;

/// What one job does: reads these, writes that, one window at a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The file's stem; also the table, the SQL stem, the schedule key and the metric label.
    #[serde(skip)]
    pub name: String,
    /// The file it was read from, as an error should name it.
    #[serde(skip)]
    pub origin: String,
    /// Whether its file is a part of this program, or says the same.
    #[serde(skip)]
    pub is_built_in: bool,
    /// Its table comes with the schema; another job's is made by that job, and `result_table` says so.
    #[serde(skip)]
    pub has_table_of_the_schema: bool,
    pub description: String,
    pub operator: OperatorKind,
    /// Tables and sources that it reads; those that another job writes make it due.
    pub reads: Vec<String>,
    /// The result table; the job's own name unless set.
    #[serde(default)]
    pub writes: String,
    /// Columns that identify a row of the result.
    pub grain: Vec<String>,
    pub window: WindowKind,
    /// The column of the result that says which window a row is in; the grain's first unless set.
    #[serde(default)]
    pub window_column: String,
    /// Folder of `output.url` into which each written window also goes as Parquet for finance.
    #[serde(default)]
    pub publish: Option<String>,
    /// A SELECT of what the result follows from beside the tables of other jobs: other rows than at the last writing make it due.
    #[serde(default)]
    pub follows: Option<String>,
    /// Of a rollup: columns that say what a key of the grain was called last.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Of a rollup: columns that count the distinct values of a column of what is read.
    #[serde(default)]
    pub unique: BTreeMap<String, String>,
    /// What must hold once a window is written.
    #[serde(default)]
    pub checks: Checks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorKind {
    /// Raw usage events, added up by day: `src/operator/usage_rollup.rs`.
    UsageRollup,
    /// A usage summary by fewer keys than the one it reads: `src/operator/rollup.rs`.
    Rollup,
    /// A SELECT that runs inside the database: `src/operator/sql.rs`.
    Sql,
    /// The seat ledger, folded in one pass: `src/operator/peak_seats.rs`.
    PeakSeats,
    /// Every result against what it was made from: `src/reconcile.rs`.
    Reconcile,
    /// Past days of the raw log into the lake: `src/archive.rs`.
    Archive,
    /// The admin's dashboard as JSON: `src/usage_dashboard.rs`.
    UsageDashboard,
}

impl Job {
    /// Its name, and what follows from it where its file does not say.
    pub fn fill_in(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        if self.writes.is_empty() {
            name.clone_into(&mut self.writes);
        }
        if self.window_column.is_empty() {
            self.window_column = self.grain.first().cloned().unwrap_or_default();
        }
    }

    /// Whether it can be in the place of a built-in job: what reads that one's table finds the same in it.
    #[must_use]
    pub fn stands_for(&self, built_in: &Self) -> bool {
        let table = |job: &Self| (job.operator, job.window, job.writes.clone(), job.window_column.clone(), job.grain.clone());
        let columns = |job: &Self| (job.labels.clone(), job.unique.clone(), job.follows.clone());
        // The database says what SQL reads; the sources of the log are those of `usage.sources`.
        let is_due_by_reads = matches!(self.operator, OperatorKind::Rollup | OperatorKind::UsageDashboard);
        table(self) == table(built_in) && columns(self) == columns(built_in) && (!is_due_by_reads || self.reads == built_in.reads)
    }
}

impl OperatorKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UsageRollup => "usage_rollup",
            Self::Rollup => "rollup",
            Self::Sql => "sql",
            Self::PeakSeats => "peak_seats",
            Self::Reconcile => "reconcile",
            Self::Archive => "archive",
            Self::UsageDashboard => "usage_dashboard",
        }
    }
}

/// The folder of all files of billing months.
pub const PEAK_FOLDER: &str = "peak_seats";
/// The folders of the lake.
pub const EVENT_FOLDER: &str = "usage_event";
pub const ROW_FOLDER: &str = "source_row";

impl Job {
    /// What of its file says what it writes: all but the description.
    #[must_use]
    pub fn definition(&self) -> String {
        let parts = (&self.reads, &self.writes, &self.grain, self.window, &self.window_column, &self.publish, &self.labels, &self.unique);
        fingerprint::of([format!("{} {parts:?}", self.operator.name())])
    }
}
