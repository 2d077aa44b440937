//! Every job of a project, and which reads which.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::failure::{self, Failure, did_you_mean};
use crate::fold::label_of;
use crate::job::{self, Job, OperatorKind};
use crate::project::{BUILT_IN_FILES, Project};
use crate::store::migrate::own_tables;

/// The built-in job of a name.
fn built_in(name: &str) -> Option<Job> {
    let path = format!("jobs/{name}.toml");
    let (_, text) = BUILT_IN_FILES.iter().find(|(known, _)| *known == path)?;
    let mut job: Job = toml::from_str(text).ok()?;
    job.fill_in(name);
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
                    job.fill_in(&name);
                    (job.origin, job.is_built_in) = (file.origin, file.is_built_in);
                    // Of its kind: another would empty what that one has written, or say otherwise what its columns mean.
                    job.has_table_of_the_schema = built_in(&name).is_some_and(|known| job.stands_for(&known));
                    problems.extend(job::problems::of(&job, &own_tables));
                    jobs.insert(name, job);
                }
                Err(error) => problems.push(format!("`{}`: {}", file.origin, failure::toml_text(&file.text, &error))),
            }
        }
        let jobs = Self { jobs };
        problems.extend(jobs.graph_problems(&sources(project)?));
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

    /// The job that writes a table.
    #[must_use]
    pub fn writer_of(&self, table: &str) -> Option<&Job> {
        self.jobs.values().find(|job| job.writes == table)
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

    fn graph_problems(&self, sources: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut rollups = self.jobs.values().filter(|job| job.operator == OperatorKind::UsageRollup);
        if let (Some(first), Some(second)) = (rollups.next(), rollups.next()) {
            problems.push(format!(
                "`{}`: the raw log has one reader, `{}`; read the table that it writes with `operator = \"sql\"`",
                second.origin, first.origin
            ));
        }
        for job in self.jobs.values() {
            problems.extend(self.read_problems(job, sources).into_iter().map(|problem| format!("`{}`: {problem}", job.origin)));
        }
        // SQLite takes two names that differ in case for one.
        let mut writers: BTreeMap<String, &Job> = BTreeMap::new();
        let mut folders: BTreeMap<String, &str> = BTreeMap::new();
        for job in self.jobs.values() {
            // And so do some disks.
            if let Some(folder) = &job.publish {
                let other = *folders.entry(folder.to_ascii_lowercase()).or_insert(folder);
                if other != folder {
                    problems.push(format!("`{}`: `publish = \"{folder}\"` differs from `{other}` in case alone", job.origin));
                }
            }
            if let Some(other) = writers.insert(job.writes.to_ascii_lowercase(), job) {
                problems.push(format!("`{}`: `writes = \"{}\"` is also what `{}` writes", job.origin, job.writes, other.origin));
            }
            if self.reachable_from(job).contains(job.name.as_str()) {
                problems.push(format!("`{}`: `{}` reads, through other jobs, what it writes", job.origin, job.name));
            }
        }
        problems
    }

    /// What a job reads that is not there, and what a rollup asks of it that it does not have.
    fn read_problems(&self, job: &Job, sources: &BTreeSet<String>) -> Vec<String> {
        let tables = || self.jobs.values().map(|job| job.writes.as_str()).chain(sources.iter().map(String::as_str));
        let mut problems = Vec::new();
        for read in job.reads.iter().filter(|read| tables().all(|table| table != *read)) {
            problems.push(format!("it reads `{read}`, which no job writes and no source is called{}", did_you_mean(read, tables())));
        }
        if job.operator == OperatorKind::Sql && job.follows.is_none() {
            for read in job.reads.iter().filter(|read| sources.contains(*read)) {
                problems.push(format!(
                    "it reads the source `{read}`, which makes no `sql` job due: read a table that a job writes, such as `usage_daily`, \
                     or, over everything, say in `follows` which rows it follows from"
                ));
            }
        }
        let Some(upstream) = job.reads.first().and_then(|table| self.writer_of(table)) else { return problems };
        if job.operator != OperatorKind::Rollup {
            return problems;
        }
        let labels: Vec<&str> = match upstream.operator {
            OperatorKind::UsageRollup => upstream.grain.iter().filter_map(|key| label_of(key)).collect(),
            OperatorKind::Rollup => upstream.labels.iter().map(String::as_str).collect(),
            _ => {
                problems.push(format!("a `rollup` reads `usage_daily` or another rollup's table, not `{}`", upstream.writes));
                return problems;
            }
        };
        let keys: Vec<&str> = upstream.grain.iter().skip(1).map(String::as_str).collect();
        for key in job.grain.iter().skip(1).chain(job.unique.values()).filter(|key| !keys.contains(&key.as_str())) {
            problems.push(format!("`{key}` is no key of `{}`{}", upstream.writes, did_you_mean(key, keys.iter().copied())));
        }
        for label in job.labels.iter().filter(|label| !labels.contains(&label.as_str())) {
            problems.push(format!("`{label}` is no label of `{}`{}", upstream.writes, did_you_mean(label, labels.iter().copied())));
        }
        for label in job.labels.iter().filter(|label| job.grain.iter().all(|key| label_of(key) != Some(label.as_str()))) {
            problems.push(format!("`{label}` is the label of a key that `grain` does not have"));
        }
        problems
    }
}

/// The tables that a project's files map, and those of seats.
fn sources(project: &Project) -> Result<BTreeSet<String>> {
    let files = project.read_all("sql/sources", "sql")?;
    Ok(files.into_keys().filter_map(|name| name.split('.').next().map(str::to_owned)).collect())
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
                "usage_daily_total",
                "usage_daily_type",
                "usage_daily_user",
                "usage_monthly_customer",
                "usage_monthly_user",
                "user_dashboard",
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
