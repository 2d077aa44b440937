//! `run-job`: one job, by hand.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Months, NaiveDate, Utc};
use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::session::Session;
use super::{output, shell};
use crate::engine::env::Context;
use crate::engine::report::{Binding, JobReport};
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::import::parse_instant;
use crate::job::Job;
use crate::jobs::Jobs;
use crate::run;
use crate::store::format_instant;
use crate::window::next_day;
use crate::{metrics, schedule};

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The job; `tallyroll list-jobs` lists them
    #[arg(add = ArgValueCandidates::new(shell::job_names))]
    job: String,
    /// First day of the windows to write, inclusive
    #[arg(long, value_name = "DAY", conflicts_with_all = ["day", "month", "resume"])]
    from: Option<NaiveDate>,
    /// Last day, exclusive; without it, through the day of `--as-of`
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<NaiveDate>,
    /// The window of one day
    #[arg(long, conflicts_with_all = ["month", "resume"])]
    day: Option<NaiveDate>,
    /// The windows of one month, such as 2026-03
    #[arg(long, value_parser = month, conflicts_with = "resume")]
    month: Option<NaiveDate>,
    /// The instant the run is as of, such as 2026-03-31T00:00:00Z; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
    /// Then run every job that reads what this one writes
    #[arg(long)]
    downstream: bool,
    /// Write windows that are not due, and windows whose raw rows are gone
    #[arg(long)]
    force: bool,
    /// Forget how far the log was read and redo every window: after a change of `reporting.timezone`, or on a restored database
    #[arg(long, conflicts_with_all = ["from", "day", "month", "resume"])]
    rebuild: bool,
    /// Only tell which windows would be written, and why
    #[arg(long)]
    dry_run: bool,
    /// Take the results over as they are after the job's file or SQL was edited, instead of writing them anew
    #[arg(long, conflicts_with_all = ["from", "day", "month", "resume", "rebuild", "force", "dry_run"])]
    accept_definition: bool,
    /// Go on with what an earlier run was asked to do and has not done
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    /// Seconds to wait for another run of the same job
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    // What the command line alone can tell comes before the database.
    Jobs::load(&session.project)?.get(&arguments.job)?;
    let named = named_days(arguments)?;
    let context = session.context().await?;
    let job = context.jobs.get(&arguments.job)?;
    let (request, resume) = if let Some(run_id) = &arguments.resume {
        let (request, run_id) = resumed(&context, job, run_id).await?;
        (request, Some(run_id))
    } else {
        let request = Request {
            from: named.map(|(from, _)| from),
            to: named.and_then(|(_, to)| to),
            as_of: arguments.as_of.unwrap_or_else(|| context.clock.now()),
            downstream: arguments.downstream,
            force: arguments.force,
            rebuild: arguments.rebuild,
        };
        (request, None)
    };
    if arguments.accept_definition {
        return accept_definition(&session, &context, job, arguments.downstream).await;
    }
    if arguments.dry_run {
        return dry_run(&session, &context, job, &request).await;
    }
    let binding = Binding { lock_wait: Duration::from_secs(arguments.lock_wait), resume, ..Binding::default() };
    let mut reports = run::run(&context, job, &request, &binding).await?;
    if let Ok((schedules, _)) = schedule::read(&context.project, &context.jobs) {
        metrics::write_textfile(&context, &schedules).await;
    }
    context.store.close().await;
    print(&session, &reports, &request)?;
    match reports.iter_mut().find_map(|report| report.failure.take().map(|failure| (report.job.clone(), failure))) {
        Some((job, failure)) => Err(failure.context(format!("Job `{job}` failed"))),
        None => Ok(()),
    }
}

/// Corrections that a dry run lists for a person.
const SHOWN_CORRECTIONS: usize = 20;

fn month(text: &str) -> Result<NaiveDate, String> {
    format!("{text}-01").parse().map_err(|_| "write a month as 2026-03".to_owned())
}

/// The days that the arguments name, `[from, to)`.
fn named_days(arguments: &Arguments) -> Result<Option<(NaiveDate, Option<NaiveDate>)>> {
    if let Some(day) = arguments.day {
        return Ok(Some((day, Some(next_day(day)?))));
    }
    if let Some(month) = arguments.month {
        let end = month.checked_add_months(Months::new(1)).context("`--month` is out of range")?;
        return Ok(Some((month, Some(end))));
    }
    let Some(from) = arguments.from else { return Ok(None) };
    if let Some(to) = arguments.to.filter(|to| *to <= from) {
        return Err(Failure::usage(format!("`--from {from}` is not before `--to {to}`"))
            .hint("`--from` is the first day, `--to` the day after the last one")
            .into());
    }
    Ok(Some((from, arguments.to)))
}

/// What a run was asked to do, and its whole id.
async fn resumed(context: &Context, job: &Job, run_id: &str) -> Result<(Request, String)> {
    let run =
        context.store.run(run_id).await?.filter(|run| run.job == job.name).ok_or_else(|| {
            Failure::usage(format!("There is no run `{run_id}` of job `{}`", job.name)).hint("`tallyroll runs` lists them")
        })?;
    let request = serde_json::from_str(&run.request).with_context(|| format!("The record of run `{run_id}` cannot be read"))?;
    Ok((request, run.run_id))
}

async fn accept_definition(session: &Session, context: &Context, job: &Job, downstream: bool) -> Result<()> {
    let mut jobs = vec![job];
    if downstream {
        jobs.extend(context.jobs.downstream_of(job));
    }
    for job in jobs {
        let window_count = run::accept_definition(context, job).await?;
        if session.json {
            output::json(&json!({ "job": job.name, "windows": window_count }))?;
        } else {
            session.tell(&format!("`{}`: {} taken over as they are", job.name, output::counted(window_count, "window")))?;
        }
    }
    context.store.close().await;
    Ok(())
}

async fn dry_run(session: &Session, context: &Arc<Context>, job: &Job, request: &Request) -> Result<()> {
    let mut jobs = vec![job];
    if request.downstream {
        jobs.extend(context.jobs.downstream_of(job));
    }
    let mut rows = Vec::new();
    let mut corrections = Vec::new();
    for mut window in run::dry_run(context, &jobs, request).await? {
        if session.json {
            output::json(&window)?;
        }
        if let Some(billing) = window.billing.take() {
            window.state = match billing.revision_count {
                0 => billing.state.to_owned(),
                count => format!("{}, {}", billing.state, output::counted(count, "revision")),
            };
            corrections.extend(billing.corrections.into_iter().map(|correction| {
                vec![
                    window.window.clone(),
                    correction.subscription_id,
                    correction.month_number.to_string(),
                    correction.seat_type,
                    output::grouped(correction.peak_seats),
                    format!("{:+}", correction.peak_seats_delta),
                    correction.reason,
                ]
            }));
        }
        rows.push(vec![window.job, window.window, window.state, window.reason, window.rows_in.map_or("?".to_owned(), output::grouped)]);
    }
    if session.json {
        return Ok(());
    }
    if rows.is_empty() {
        return output::line(&format!("Nothing is due for `{}` as of {}", job.name, format_instant(request.as_of)));
    }
    output::line(&output::table(&["job", "window", "state", "why it is due", "rows expected"], &["rows expected"], &rows))?;
    if !corrections.is_empty() {
        let count = corrections.len();
        corrections.truncate(SHOWN_CORRECTIONS);
        output::line(&format!("\n{} of closed months would be corrected by a new revision:", output::counted(count, "row")))?;
        let header = ["billing month", "subscription", "month", "seat type", "peak", "change", "why"];
        output::line(&output::table(&header, &["month", "peak", "change"], &corrections))?;
        if count > SHOWN_CORRECTIONS {
            output::line(&format!("… and {} more; `--json` lists them all", count - SHOWN_CORRECTIONS))?;
        }
    }
    output::line(&format!("{} would be written; nothing was changed", output::counted(rows.len(), "window")))
}

fn print(session: &Session, reports: &[JobReport], request: &Request) -> Result<()> {
    if session.json {
        return output::json(&json!({ "as_of": request.as_of, "jobs": reports }));
    }
    if reports.iter().all(|report| report.run_id.is_none()) {
        let names: Vec<String> = reports.iter().map(|report| format!("`{}`", report.job)).collect();
        return session.tell(&format!("Nothing is due for {} as of {}", names.join(", "), format_instant(request.as_of)));
    }
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| {
            vec![
                report.job.clone(),
                if report.run_id.is_none() {
                    "nothing due".to_owned()
                } else {
                    format!("{}/{}", report.windows_done, report.windows.len())
                },
                output::grouped(report.rows_in),
                output::grouped(report.rows_out),
                output::grouped(report.quarantined_count),
                output::seconds(report.duration_ms),
                report.run_id.as_ref().map_or("-".to_owned(), |id| output::run_id(session.wide, id)),
            ]
        })
        .collect();
    let header = ["job", "windows", "rows in", "rows out", "quarantined", "took", "run"];
    let right = ["windows", "rows in", "rows out", "quarantined", "took"];
    session.tell(&output::narrow(session.wide, &header, &right, &rows, &[], &["quarantined"]))
}
