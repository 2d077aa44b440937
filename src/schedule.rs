//! `schedules.toml`: when each job runs. Pure: the next fires follow from the file and an instant.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Result;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::Deserialize;

use crate::failure::{self, Failure};
use crate::job::Jobs;
use crate::project::Project;

/// When one job runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub cron: Cron,
    pub timezone: Tz,
    pub settings: Entry,
}

/// The keys of one table of `schedules.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Five fields, as in cron(8).
    pub cron: String,
    #[serde(default = "utc")]
    pub timezone: String,
    #[serde(default)]
    pub downstream: bool,
    #[serde(default = "zero")]
    pub jitter: String,
    #[serde(default = "ten_minutes")]
    pub timeout: String,
    #[serde(default)]
    pub retries: Retries,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub catch_up: CatchUp,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    pub max: u32,
    pub backoff: String,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 0, backoff: "10s".to_owned() }
    }
}

/// What happens to a slot while the job still runs.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    #[default]
    Skip,
    Queue,
}

/// Which of the slots missed while nothing ran are run afterwards.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    #[default]
    Latest,
    All,
    None,
}

const FILE: &str = "schedules.toml";

/// Reads `schedules.toml`: the schedules that can be used, by job, and every problem of the others.
///
/// # Errors
/// When the file cannot be read or is not TOML.
pub fn read(project: &Project, jobs: &Jobs) -> Result<(BTreeMap<String, Schedule>, Vec<String>)> {
    let Some(file) = project.read_first(&[FILE.to_owned()])? else { return Ok((BTreeMap::new(), Vec::new())) };
    let table: toml::Table =
        toml::from_str(&file.text).map_err(|error| Failure::config(format!("`{}` is not TOML", file.origin)).caused_by(error))?;
    let mut schedules = BTreeMap::new();
    let mut problems = Vec::new();
    for (job, value) in table {
        match schedule(&job, value, jobs) {
            Ok(schedule) => {
                schedules.insert(job, schedule);
            }
            Err(problem) => problems.push(format!("`{}`, [{job}]: {problem}", file.origin)),
        }
    }
    Ok((schedules, problems))
}

impl Schedule {
    /// The next `count` fires strictly after `after`, in order.
    #[must_use]
    pub fn next_fires(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        self.cron.iter_after(after.with_timezone(&self.timezone)).take(count).map(|fire| fire.with_timezone(&Utc)).collect()
    }
}

fn schedule(job: &str, value: toml::Value, jobs: &Jobs) -> Result<Schedule, String> {
    if !jobs.iter().any(|known| known.name == job) {
        let nearest = failure::nearest(job, jobs.iter().map(|known| known.name.as_str()));
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        return Err(format!("there is no job of that name{hint}"));
    }
    let settings: Entry = value.try_into().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
    let fields = settings.cron.split_whitespace().count();
    if fields != 5 {
        return Err(format!("`cron = \"{}\"` has {fields} fields; cron(8) has five: minute, hour, day, month, weekday", settings.cron));
    }
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(&settings.cron)
        .map_err(|error| format!("`cron = \"{}\"`: {error}", settings.cron))?;
    let timezone = Tz::from_str(&settings.timezone).map_err(|_| format!("`timezone = \"{}\"` is no IANA time zone", settings.timezone))?;
    for (key, text) in [("jitter", &settings.jitter), ("timeout", &settings.timeout), ("retries.backoff", &settings.retries.backoff)] {
        duration_seconds(text).ok_or_else(|| format!("`{key} = \"{text}\"` is no duration: write `30s`, `10m` or `2h`"))?;
    }
    Ok(Schedule { cron, timezone, settings })
}

/// Seconds of `30s`, `10m`, `2h` or `1d`.
#[must_use]
pub fn duration_seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(seconds)
}

fn utc() -> String {
    "UTC".to_owned()
}

fn zero() -> String {
    "0s".to_owned()
}

fn ten_minutes() -> String {
    "10m".to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read_text(text: &str) -> (BTreeMap<String, Schedule>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        let project = Project::new(dir.path());
        read(&project, &Jobs::load(&project).unwrap()).unwrap()
    }

    #[test]
    fn fires_follow_the_clock_of_the_schedules_zone() {
        let (schedules, problems) = read_text("[usage_daily]\ncron = \"30 9 * * *\"\ntimezone = \"Europe/Paris\"\n");
        assert!(problems.is_empty(), "{problems:?}");
        let fires = schedules["usage_daily"].next_fires("2026-03-28T00:00:00Z".parse().unwrap(), 2);
        assert_eq!(fires[0].to_rfc3339(), "2026-03-28T08:30:00+00:00");
        assert_eq!(fires[1].to_rfc3339(), "2026-03-29T07:30:00+00:00");
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_table_and_key() {
        let (schedules, problems) = read_text(
            "[usage_daily]\ncron = \"61 * * * *\"\n[usage_dayly]\ncron = \"* * * * *\"\n[usage_daily_user]\ncron = \"0 * * * * *\"\n\
             [usage_daily_customer]\ncron = \"* * * * *\"\ntimezone = \"Mars\"\n[usage_monthly_user]\ncron = \"* * * * *\"\njitter = \"soon\"\n",
        );
        assert!(schedules.is_empty());
        let all = problems.join("\n");
        for expected in
            ["`cron = \"61 * * * *\"`", "did you mean `usage_daily`?", "has 6 fields", "no IANA time zone", "`jitter = \"soon\"`"]
        {
            assert!(all.contains(expected), "{expected} in {all}");
        }
    }
}
