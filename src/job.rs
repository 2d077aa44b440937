//! Jobs as data: `jobs/<name>.toml`, from the project folder or built in.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Deserialize;

use crate::failure::{self, Failure};
use crate::project::{BUILT_IN_FILES, Project};
use crate::store::own_tables;
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
    /// Statements that must return no row once a window is written; each row they do return is a failure.
    #[serde(default)]
    pub checks: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorKind {
    /// Raw usage events, aggregated by polars: `src/operator/usage_rollup.rs`.
    UsageRollup,
    /// A SELECT that runs inside the database: `src/operator/sql.rs`.
    Sql,
    /// The seat ledger, folded in one pass: `src/operator/peak_seats.rs`.
    PeakSeats,
    /// Every result against what it was made from: `src/reconcile.rs`.
    Reconcile,
    /// The admin's dashboard as JSON: `src/usage_dashboard.rs`.
    UsageDashboard,
}

impl OperatorKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UsageRollup => "usage_rollup",
            Self::Sql => "sql",
            Self::PeakSeats => "peak_seats",
            Self::Reconcile => "reconcile",
            Self::UsageDashboard => "usage_dashboard",
        }
    }
}

/// PostgreSQL cuts longer names off, so that two of them could be one table.
const LONGEST_NAME_BYTES: usize = 63;
/// What the databases call their own.
const TAKEN_PREFIXES: [&str; 2] = ["pg_", "sqlite_"];

/// The folder of all files of billing months.
pub const PEAK_FOLDER: &str = "peak_seats";

/// The built-in job of a name.
fn built_in(name: &str) -> Option<Job> {
    let path = format!("jobs/{name}.toml");
    let (_, text) = BUILT_IN_FILES.iter().find(|(known, _)| *known == path)?;
    let mut job: Job = toml::from_str(text).ok()?;
    if job.writes.is_empty() {
        name.clone_into(&mut job.writes);
    }
    Some(job)
}

/// Every job of a project.
#[derive(Debug, Clone)]
pub struct Jobs {
    jobs: BTreeMap<String, Job>,
}

impl Jobs {
    /// Loads the built-in jobs and those of the project folder; the folder's win.
    ///
    /// # Errors
    /// All problems of all job files at once, each with its file.
    pub fn load(project: &Project) -> Result<Self> {
        let (jobs, problems) = Self::read(project)?;
        if problems.is_empty() { Ok(jobs) } else { Err(Failure::config("Jobs cannot be used").listing(problems).into()) }
    }

    /// As [`Self::load`], with the problems beside the jobs that can be used.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn read(project: &Project) -> Result<(Self, Vec<String>)> {
        let mut jobs = BTreeMap::new();
        let mut problems = Vec::new();
        let own_tables = own_tables();
        for (name, file) in project.read_all("jobs", "toml")? {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    problems.push(format!("{error:#}"));
                    continue;
                }
            };
            match toml::from_str::<Job>(&file.text) {
                Ok(mut job) => {
                    job.name.clone_from(&name);
                    job.origin = file.origin;
                    if job.writes.is_empty() {
                        job.writes.clone_from(&name);
                    }
                    if job.window_column.is_empty() {
                        job.window_column = job.grain.first().cloned().unwrap_or_default();
                    }
                    // In the place of a built-in job, and of its kind: another would empty what that one has written.
                    job.has_table_of_the_schema = built_in(&name)
                        .is_some_and(|known| (&known.writes, known.operator, known.window) == (&job.writes, job.operator, job.window));
                    problems.extend(job.problems(&own_tables));
                    jobs.insert(name, job);
                }
                Err(error) => problems.push(format!("`{}`: {}", file.origin, failure::toml_text(&file.text, &error))),
            }
        }
        let jobs = Self { jobs };
        problems.extend(jobs.graph_problems());
        Ok((jobs, problems))
    }

    /// The job called `name`.
    ///
    /// # Errors
    /// A [`Failure`] of kind usage that suggests the nearest name.
    pub fn get(&self, name: &str) -> Result<&Job> {
        self.jobs.get(name).ok_or_else(|| {
            let failure = Failure::usage(format!("There is no job `{name}`"));
            match failure::nearest(name, self.jobs.keys().map(String::as_str)) {
                Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
                None => failure.hint("`tallyroll list-jobs` lists them"),
            }
            .into()
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The jobs whose tables `job` reads.
    #[must_use]
    pub fn upstream_of(&self, job: &Job) -> Vec<&Job> {
        self.jobs.values().filter(|other| other.name != job.name && job.reads.contains(&other.writes)).collect()
    }

    /// Every job that reads what `job` writes, directly or not, each after all that it reads.
    #[must_use]
    pub fn downstream_of(&self, job: &Job) -> Vec<&Job> {
        let mut reached: BTreeSet<&str> = BTreeSet::from([job.name.as_str()]);
        let mut ordered = Vec::new();
        // Each pass takes the jobs whose upstream jobs that are reachable at all have been taken: at most one pass per job.
        let reachable = self.reachable_from(job);
        for _ in 0..self.jobs.len() {
            for candidate in self.jobs.values() {
                let ready = self
                    .upstream_of(candidate)
                    .iter()
                    .all(|upstream| reached.contains(upstream.name.as_str()) || !reachable.contains(upstream.name.as_str()));
                if ready && reachable.contains(candidate.name.as_str()) && reached.insert(&candidate.name) {
                    ordered.push(candidate);
                }
            }
        }
        ordered
    }

    fn reachable_from(&self, job: &Job) -> BTreeSet<&str> {
        let mut reachable: BTreeSet<&str> = BTreeSet::new();
        for _ in 0..self.jobs.len() {
            for candidate in self.jobs.values() {
                let upstream = self.upstream_of(candidate);
                if upstream.iter().any(|up| up.name == job.name || reachable.contains(up.name.as_str())) {
                    reachable.insert(&candidate.name);
                }
            }
        }
        reachable
    }

    fn graph_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut rollups = self.jobs.values().filter(|job| job.operator == OperatorKind::UsageRollup);
        if let (Some(first), Some(second)) = (rollups.next(), rollups.next()) {
            problems.push(format!(
                "`{}`: the raw log has one reader, `{}`; read the table that it writes with `operator = \"sql\"`",
                second.origin, first.origin
            ));
        }
        // SQLite takes two names that differ in case for one.
        let mut writers: BTreeMap<String, &Job> = BTreeMap::new();
        for job in self.jobs.values() {
            if let Some(other) = writers.insert(job.writes.to_ascii_lowercase(), job) {
                problems.push(format!("`{}`: `writes = \"{}\"` is also what `{}` writes", job.origin, job.writes, other.origin));
            }
            if self.reachable_from(job).contains(job.name.as_str()) {
                problems.push(format!("`{}`: `{}` reads, through other jobs, what it writes", job.origin, job.name));
            }
        }
        problems
    }
}

impl Job {
    /// Whether its file is a part of this program.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.origin.ends_with("(built in)")
    }

    fn problems(&self, own_tables: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |problem: String| problems.push(format!("`{}`: {problem}", self.origin));
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !plain(&self.name) {
            say(format!("a job's name is letters, digits and `_`, not `{}`", self.name));
        }
        if !plain(&self.writes) {
            say(format!("`writes` must be a plain table name, not `{}`", self.writes));
        }
        if self.writes.len() > LONGEST_NAME_BYTES {
            say(format!("`writes` has more than {LONGEST_NAME_BYTES} characters, which PostgreSQL would cut off"));
        }
        let lower = self.writes.to_ascii_lowercase();
        let is_taken =
            own_tables.contains(&lower) || lower == "information_schema" || TAKEN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
        if is_taken && !self.has_table_of_the_schema {
            say(format!(
                "`writes = \"{}\"` is a table of Tallyroll's own or of the database; name another one, the job's name serves well. A job in \
                 the place of a built-in one keeps its operator and window",
                self.writes
            ));
        }
        if self.grain.is_empty() {
            say("`grain` must name at least one column".to_owned());
        }
        for column in self.grain.iter().chain([&self.window_column]) {
            if !plain(column) {
                say(format!("`{column}` is no plain column name"));
            }
        }
        if self.reads.is_empty() {
            say("`reads` must name at least one table".to_owned());
        }
        if self.reads.contains(&self.writes) {
            say(format!("it reads `{}`, which it writes", self.writes));
        }
        if self.operator == OperatorKind::UsageRollup && self.window != WindowKind::Day {
            say("`usage_rollup` works by day: `window = \"day\"`".to_owned());
        }
        if self.operator == OperatorKind::UsageRollup && self.writes != "usage_daily" {
            say("`usage_rollup` writes the table `usage_daily`".to_owned());
        }
        if (self.window == WindowKind::BillingMonth) != (self.operator == OperatorKind::PeakSeats) {
            say("`window = \"billing_month\"` and `operator = \"peak_seats\"` go together; other jobs use `month`".to_owned());
        }
        if self.operator == OperatorKind::Reconcile && (self.window != WindowKind::All || self.writes != "reconciliation") {
            say("`reconcile` has `window = \"all\"` and `writes = \"reconciliation\"`".to_owned());
        }
        if self.operator == OperatorKind::UsageDashboard && (self.window != WindowKind::All || self.writes != "usage_dashboard") {
            say("`usage_dashboard` has `window = \"all\"` and writes the table `usage_dashboard`".to_owned());
        }
        if self.operator == OperatorKind::PeakSeats && self.writes != "peak_seats" {
            say("`peak_seats` writes the table `peak_seats`".to_owned());
        }
        if self.follows.is_some() && (self.operator != OperatorKind::Sql || self.window != WindowKind::All) {
            say("`follows` is for `operator = \"sql\"` with `window = \"all\"`".to_owned());
        }
        if self.publish.is_some() && (self.operator != OperatorKind::Sql || self.window != WindowKind::Month) {
            say("`publish` is for `operator = \"sql\"` with `window = \"month\"`".to_owned());
        }
        if self.publish.as_ref().is_some_and(|folder| !plain(folder) || folder == PEAK_FOLDER) {
            say(format!("`publish` must be a plain folder name, and not `{PEAK_FOLDER}`, which is the journal's"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn built_in_jobs_load_and_follow_their_reads() {
        let project = Project::new(tempfile::tempdir().unwrap().path());
        let jobs = Jobs::load(&project).unwrap();
        let downstream: Vec<_> = jobs.downstream_of(jobs.get("usage_daily").unwrap()).iter().map(|job| job.name.clone()).collect();
        assert_eq!(
            downstream,
            [
                "usage_daily_customer",
                "usage_daily_type",
                "usage_daily_user",
                "usage_monthly_customer",
                "usage_monthly_user",
                "user_dashboard",
                "usage_daily_total",
                "usage_dashboard"
            ]
        );
    }

    #[test]
    fn a_chain_runs_in_the_order_of_what_it_reads_and_a_circle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("jobs")).unwrap();
        let write = |name: &str, reads: &str| {
            let text = format!("description = \"d\"\noperator = \"sql\"\nreads = [\"{reads}\"]\ngrain = [\"d\"]\nwindow = \"day\"\n");
            fs::write(dir.path().join(format!("jobs/{name}.toml")), text).unwrap();
        };
        write("a_last", "b_middle");
        write("b_middle", "usage_daily");
        let project = Project::new(dir.path());
        let jobs = Jobs::load(&project).unwrap();
        let order: Vec<_> = jobs.downstream_of(jobs.get("usage_daily").unwrap()).iter().map(|job| job.name.clone()).collect();
        let at = |name: &str| order.iter().position(|job| job == name).unwrap();
        assert!(at("b_middle") < at("a_last"), "{order:?}");
        write("b_middle", "a_last");
        let error = Jobs::load(&project).unwrap_err();
        assert!(error.to_string().contains("reads, through other jobs, what it writes"), "{error}");
        assert_eq!(failure::exit_code(&error), 78);
    }
}
