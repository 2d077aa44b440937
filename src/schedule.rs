//! `schedules.toml`: when each job runs. Pure: the next fires follow from the file and an instant.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::failure::{self, Failure};
use crate::jobs::Jobs;
use crate::project::Project;

/// When one job runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub cron: Cron,
    pub timezone: Tz,
    /// How late a slot may begin, chosen for each by its hash.
    pub jitter: Duration,
    /// How long one try of a slot may take.
    pub timeout: Duration,
    /// The pause before the second try; it doubles with each.
    pub backoff: Duration,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    #[default]
    Skip,
    Queue,
}

/// Which of the slots missed while nothing ran are run afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    #[default]
    Latest,
    All,
    None,
}

const LONGEST_SECONDS: u64 = 7 * 86_400;
const MOST_RETRIES: u32 = 20;
/// Fires whose distances are held against the jitter.
const FIRES_COMPARED: usize = 200;

const FILE: &str = "schedules.toml";

/// Reads `schedules.toml`: the schedules that can be used, by job, and every problem of the others.
///
/// # Errors
/// When the file cannot be read or is not TOML.
pub fn read(project: &Project, jobs: &Jobs) -> Result<(BTreeMap<String, Schedule>, Vec<String>)> {
    let Some(file) = project.read_first(&[FILE.to_owned()])? else { return Ok((BTreeMap::new(), Vec::new())) };
    let table: toml::Table = toml::from_str(&file.text)
        .map_err(|error| Failure::config(format!("`{}` is not TOML: {}", file.origin, failure::toml_text(&file.text, &error))))?;
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

/// Every schedule, for those that run by them: a problem in one stops all.
///
/// # Errors
/// [`Failure`] of kind config that tells the problems.
pub fn all(project: &Project, jobs: &Jobs) -> Result<BTreeMap<String, Schedule>> {
    let (schedules, problems) = read(project, jobs)?;
    if problems.is_empty() {
        return Ok(schedules);
    }
    Err(Failure::config(problems.join("; ")).hint("`tallyroll check` reports all problems at once").into())
}

impl Schedule {
    /// The next `count` fires strictly after `after`, in order.
    #[must_use]
    pub fn next_fires(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        self.cron.iter_after(after.with_timezone(&self.timezone)).take(count).map(|fire| fire.with_timezone(&Utc)).collect()
    }

    /// The slots in `(after, until]`, in order, each once; of more than [`MOST_SLOTS`] the newest.
    ///
    /// A time of day that a clock change leaves out fires at the first instant after it, one that comes twice fires the first time;
    /// a line that fires every so often fires as often as time passes.
    #[must_use]
    pub fn slots(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let after = after.max(until - OLDEST_SLOT);
        // In the autumn's overlap the iterator is not chronological: it is followed a little past the end.
        let end = until + TimeDelta::hours(3);
        let fires = self.cron.iter_after(after.with_timezone(&self.timezone)).map(|fire| fire.with_timezone(&Utc));
        let mut slots: Vec<DateTime<Utc>> = fires.take_while(|fire| *fire <= end).filter(|fire| *fire > after && *fire <= until).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.drain(..slots.len().saturating_sub(MOST_SLOTS));
        slots
    }

    /// How long after its slot's time a run begins: the same on every machine, spread over the jitter.
    #[must_use]
    pub fn delay(&self, job: &str, slot: DateTime<Utc>) -> TimeDelta {
        let digest = Sha256::digest(format!("{job} {}", slot.timestamp()));
        let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let jitter_ms = u64::try_from(self.jitter.as_millis()).unwrap_or(0);
        let delay_ms = if jitter_ms == 0 { 0 } else { number % (jitter_ms + 1) };
        TimeDelta::milliseconds(i64::try_from(delay_ms).unwrap_or(0))
    }

    /// Fires by the clock of the schedule's zone, to the minute, with its offset.
    #[must_use]
    pub fn local_fires(&self, fires: &[DateTime<Utc>]) -> Vec<String> {
        fires.iter().map(|fire| fire.with_timezone(&self.timezone).format("%a %Y-%m-%d %H:%M %:z").to_string()).collect()
    }

    /// The cron line in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let sentence = self.cron.describe().replacen("At every", "Every", 1);
        format!("{} ({})", sentence.trim_end_matches('.'), self.timezone)
    }
}

/// A schedule that slept for longer begins anew.
const OLDEST_SLOT: TimeDelta = TimeDelta::days(366);
/// Slots that are looked at after downtime.
pub const MOST_SLOTS: usize = 1_000;

fn schedule(job: &str, value: toml::Value, jobs: &Jobs) -> Result<Schedule, String> {
    if !jobs.iter().any(|known| known.name == job) {
        let nearest = failure::nearest(job, jobs.iter().map(|known| known.name.as_str()));
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        return Err(format!("there is no job of that name{hint}"));
    }
    let settings: Entry = value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
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
    let duration = |key: &str, text: &str| match duration_seconds(text) {
        None => Err(format!("`{key} = \"{text}\"` is no duration: write `30s`, `10m` or `2h`")),
        Some(seconds) if seconds > LONGEST_SECONDS => Err(format!("`{key} = \"{text}\"` is longer than a week")),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    };
    let (jitter, timeout) = (duration("jitter", &settings.jitter)?, duration("timeout", &settings.timeout)?);
    let backoff = duration("retries.backoff", &settings.retries.backoff)?;
    // croner looks as far as the year 5000, so this ends; whatever fires at all does so in 400 years.
    let fires: Vec<_> = cron.iter_after(DateTime::<Utc>::default()).take(FIRES_COMPARED).collect();
    if fires.is_empty() {
        return Err(format!("`cron = \"{}\"` never fires: no month that it names has such a day", settings.cron));
    }
    // Slots that overtake one another would be taken for missed ones.
    if fires.windows(2).any(|pair| (pair[1] - pair[0]).to_std().is_ok_and(|gap| gap <= jitter)) {
        return Err(format!("`jitter = \"{}\"` is not shorter than the time between two runs", settings.jitter));
    }
    if timeout.is_zero() {
        return Err("`timeout` is zero: no run could end in time".to_owned());
    }
    if settings.retries.max > MOST_RETRIES {
        return Err(format!("`retries.max = {}` is more than {MOST_RETRIES}", settings.retries.max));
    }
    Ok(Schedule { cron, timezone, jitter, timeout, backoff, settings })
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

    #[test]
    fn a_line_that_never_fires_is_refused_and_a_leap_day_is_not() {
        for line in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            let (schedules, problems) = read_text(&format!("[usage_daily]\ncron = \"{line}\"\n"));
            assert!(schedules.is_empty());
            assert!(problems.join("").contains(&format!("`cron = \"{line}\"` never fires")), "{problems:?}");
        }
        // The 29th of February as a Monday comes every 28 years.
        for line in ["0 0 29 2 *", "0 0 29 2 +1", "0 0 L 2 *"] {
            let (_, problems) = read_text(&format!("[usage_daily]\ncron = \"{line}\"\n"));
            assert!(problems.is_empty(), "{line} {problems:?}");
        }
    }
}
