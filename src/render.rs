//! `render`: the schedules as what another scheduler reads. Pure: the same `schedules.toml` gives the same text.

pub mod cron_line;
pub mod cronjobs;
pub mod crontab;
pub mod on_calendar;
pub mod systemd;

use std::collections::BTreeMap;

use anyhow::Result;

use self::cron_line::CronLine;
use crate::failure::Failure;
use crate::schedule::{CatchUp, Overlap, Schedule, duration_seconds};

/// One schedule, with its texts read: what every rendering starts from.
#[derive(Debug, Clone)]
pub struct Planned {
    pub job: String,
    pub line: CronLine,
    /// IANA name.
    pub timezone: &'static str,
    pub downstream: bool,
    pub jitter_seconds: u64,
    pub timeout_seconds: u64,
    pub retry_count: u32,
    pub backoff_seconds: u64,
    pub is_queued: bool,
    pub is_caught_up: bool,
}

/// The schedules to render, by job.
///
/// # Errors
/// A [`Failure`] of kind config that names every schedule which only Tallyroll's own scheduler can keep.
pub fn planned(schedules: &BTreeMap<String, Schedule>) -> Result<Vec<Planned>> {
    if schedules.is_empty() {
        return Err(Failure::config("`schedules.toml` holds no schedule to render").hint("give a job a table with a `cron` line").into());
    }
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for (job, schedule) in schedules {
        match CronLine::of(&schedule.cron) {
            Ok(line) => all.push(plan(job, line, schedule)),
            Err(problem) => problems.push(format!("`schedules.toml`, [{job}]: `cron = \"{}\"` {problem}", schedule.settings.cron)),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(untranslatable(&problems)) }
}

/// What cannot be said exactly is refused: a line that nearly fits runs on the wrong day, unseen.
fn untranslatable(problems: &[String]) -> anyhow::Error {
    Failure::config("A schedule has no exact translation")
        .listing(problems.iter().cloned())
        .hint("write it with numbers, lists, ranges and steps, or let `tallyroll serve` keep it")
        .into()
}

fn plan(job: &str, line: CronLine, schedule: &Schedule) -> Planned {
    let settings = &schedule.settings;
    // Reading the schedule has refused what is no duration.
    let seconds = |text: &str| duration_seconds(text).unwrap_or(0);
    Planned {
        job: job.to_owned(),
        line,
        timezone: schedule.timezone.name(),
        downstream: settings.downstream,
        jitter_seconds: seconds(&settings.jitter),
        timeout_seconds: seconds(&settings.timeout).max(1),
        retry_count: settings.retries.max,
        backoff_seconds: seconds(&settings.retries.backoff),
        is_queued: matches!(settings.overlap, Overlap::Queue),
        is_caught_up: !matches!(settings.catch_up, CatchUp::None),
    }
}

impl Planned {
    /// The arguments of `tallyroll` behind its options: the same for every scheduler, but for how long to wait for the lock.
    #[must_use]
    pub fn arguments(&self, lock_wait_seconds: u64) -> Vec<String> {
        let mut arguments = vec!["run-job".to_owned(), self.job.clone()];
        if self.downstream {
            arguments.push("--downstream".to_owned());
        }
        if lock_wait_seconds > 0 {
            arguments.extend(["--lock-wait".to_owned(), lock_wait_seconds.to_string()]);
        }
        arguments
    }

    /// How long a start waits for another run on the same host: `queue` outwaits one, `skip` leaves the work to it.
    #[must_use]
    pub fn queue_seconds(&self) -> u64 {
        if self.is_queued { self.timeout_seconds } else { 0 }
    }

    /// How often cron starts the job within a span, at most.
    #[must_use]
    pub fn starts_within(&self, seconds: u64) -> u64 {
        let (per_hour, hours) = (self.line.minutes.len() as u64, self.line.hours.len() as u64);
        let hour_count = seconds.div_ceil(3_600).min(hours.saturating_mul(seconds.div_ceil(86_400)));
        per_hour.saturating_mul(hour_count)
    }
}

/// A path or name that goes into a line of a file must not end that line.
fn one_line<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Failure::usage(format!("{what} `{}` is empty or holds a control character", text.escape_debug())).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
