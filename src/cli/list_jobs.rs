//! `list-jobs`: what there is to run.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::json;

use super::output;
use super::session::{Global, Session};
use super::status::{self, JobStatus};
use crate::clock::Clock;
use crate::jobs::Jobs;
use crate::schedule::{self, Schedule};

pub(super) async fn run(global: &Global) -> Result<()> {
    let session = Session::load(global)?;
    let jobs = Jobs::load(&session.project)?;
    let (schedules, problems) = schedule::read(&session.project, &jobs)?;
    for problem in problems {
        tracing::warn!(problem, "A schedule cannot be used");
    }
    // The jobs are worth listing also where there is no database yet.
    let statuses: BTreeMap<String, JobStatus> = match status::all(&session).await {
        Ok(statuses) => statuses.into_iter().map(|status| (status.job.clone(), status)).collect(),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "What is due is not known");
            BTreeMap::new()
        }
    };
    let now = Clock::system().now();
    let mut rows = Vec::new();
    for job in jobs.iter() {
        let schedule = schedules.get(&job.name);
        let status = statuses.get(&job.name);
        let next_fires = schedule.map(|schedule| schedule.next_fires(now, 3)).unwrap_or_default();
        if session.json {
            output::json(&json!({
                "name": job.name,
                "description": job.description,
                "operator": job.operator.name(),
                "reads": job.reads,
                "writes": job.writes,
                "grain": job.grain,
                "window": job.window,
                "schedule": schedule.map(|schedule| &schedule.settings.cron),
                "timezone": schedule.map(|schedule| schedule.timezone.name()),
                "description_of_schedule": schedule.map(Schedule::describe),
                "next_fires": next_fires,
                "last_success_at": status.and_then(|status| status.last_success_at),
                "windows_due": status.map(|status| status.due + status.failed),
            }))?;
            continue;
        }
        let upstream_schedule = || {
            let mut with_downstream = schedules.iter().filter(|(_, schedule)| schedule.settings.downstream);
            let runs_us =
                |upstream: &str| jobs.get(upstream).is_ok_and(|up| jobs.downstream_of(up).iter().any(|down| down.name == job.name));
            with_downstream.find(|(upstream, _)| runs_us(upstream)).map_or("-".to_owned(), |(upstream, _)| format!("after {upstream}"))
        };
        rows.push(vec![
            job.name.clone(),
            job.reads.join("\n"),
            job.writes.clone(),
            job.window.to_string(),
            schedule.map_or_else(upstream_schedule, |schedule| format!("{} {}", schedule.settings.cron, schedule.timezone)),
            status.and_then(|status| status.last_success_at).map_or("never".to_owned(), |at| output::instant(session.wide, at, now)),
            status.map_or("?".to_owned(), |status| (status.due + status.failed).to_string()),
        ]);
    }
    if session.json {
        return Ok(());
    }
    let header = ["job", "reads", "writes", "window", "schedule", "last success", "due"];
    output::line(&output::narrow(session.wide, &header, &["due"], &rows, &["reads", "writes", "window"], &[]))?;
    if schedules.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::line(&times(&schedules, now))
}

/// When each schedule runs: in a sentence, and the next three times by its own clock and in UTC.
pub(super) fn times(schedules: &BTreeMap<String, Schedule>, now: DateTime<Utc>) -> String {
    let rows: Vec<Vec<String>> = schedules
        .iter()
        .map(|(job, schedule)| {
            let fires = schedule.next_fires(now, 3);
            let in_utc: Vec<String> = fires.iter().map(|fire| fire.format("%Y-%m-%d %H:%M").to_string()).collect();
            vec![job.clone(), schedule.describe(), schedule.local_fires(&fires).join("\n"), in_utc.join("\n")]
        })
        .collect();
    // Where all clocks are UTC, the times say so themselves.
    let is_local = schedules.values().any(|schedule| schedule.timezone != chrono_tz::UTC);
    output::narrow(is_local, &["job", "runs", "next times", "in UTC"], &[], &rows, &["in UTC"], &[])
}
