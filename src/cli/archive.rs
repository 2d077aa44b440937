//! `archive`: past days of the raw log into the lake, and back.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::archive::{self, Candidate, Verified};
use crate::engine::env::Context;
use crate::engine::report::Binding;
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::import::parse_instant;
use crate::job::{Job, OperatorKind};
use crate::run;
use crate::window::next_day;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One UTC day, however long ago it ended
    #[arg(long, value_name = "DAY")]
    day: Option<NaiveDate>,
    /// The instant the run is as of; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
    /// Only tell which days would be archived, and which wait for what
    #[arg(long)]
    dry_run: bool,
    /// List the archived days
    #[arg(long, conflicts_with_all = ["day", "as_of", "dry_run", "verify", "restore"])]
    list: bool,
    /// Hold every file and row of the lake against what was recorded; exit code 65 names what does not hold
    #[arg(long, conflicts_with_all = ["day", "as_of", "dry_run", "restore"])]
    verify: bool,
    /// Put the rows of a day that are in the lake alone back into their tables
    #[arg(long, value_name = "DAY", conflicts_with_all = ["day", "as_of", "dry_run"])]
    restore: Option<NaiveDate>,
    /// Of one source alone
    #[arg(long, requires = "restore")]
    source: Option<String>,
    /// Seconds to wait for another run of the archive
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let context = session.context().await?;
    let done = act(session, &context, arguments).await;
    context.store.close().await;
    done
}

async fn act(session: &Session, context: &std::sync::Arc<Context>, arguments: &Arguments) -> Result<()> {
    if arguments.list {
        return list(session, context).await;
    }
    if arguments.verify {
        return verify(session, context).await;
    }
    let job = job(context)?;
    let request = Request {
        from: arguments.day,
        to: arguments.day.map(next_day).transpose()?,
        as_of: arguments.as_of.unwrap_or_else(|| context.clock.now()),
        ..Request::default()
    };
    if arguments.dry_run {
        return dry_run(session, &archive::candidates(context, &request).await?);
    }
    let binding = Binding { lock_wait: Duration::from_secs(arguments.lock_wait), ..Binding::default() };
    if let Some(event_date) = arguments.restore {
        let restored = run::restore(context, job, &request, &binding, event_date, arguments.source.as_deref()).await?;
        if session.json {
            return output::json(&restored);
        }
        if restored.is_empty() {
            session.tell(&format!("No rows of {event_date} are in the lake alone; `tallyroll archive --list` shows the days that are"))?;
        }
        for day in restored {
            session.tell(&format!(
                "{} of {} are back in the tables of `{}`; `tallyroll run-job usage_daily --downstream` counts them as before",
                output::counted(day.row_count, "row"),
                day.event_date,
                day.source
            ))?;
        }
        return Ok(());
    }
    let before = context.store.archived_days(None, None).await?;
    let mut reports = run::run(context, job, &request, &binding).await?;
    let mut after = context.store.archived_days(None, None).await?;
    after.retain(|day| !before.contains(day));
    if session.json {
        output::json(&json!({ "as_of": request.as_of, "days": after }))?;
    } else if after.is_empty() {
        session.tell("No day was archived; `tallyroll archive --dry-run` says which wait, and for what")?;
    } else {
        let events = after.iter().map(|day| day.event_count).sum::<i64>();
        let deleted = after.iter().filter(|day| day.is_deleted).map(|day| day.row_count).sum::<i64>();
        let bytes = after.iter().map(|day| day.size_bytes).sum::<i64>();
        session.tell(&format!(
            "{} archived: {}, {} bytes; {} deleted from their tables",
            output::counted(after.len(), "day"),
            output::counted(events, "event"),
            output::grouped(bytes),
            output::counted(deleted, "row")
        ))?;
    }
    match reports.iter_mut().find_map(|report| report.failure.take()) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn job(context: &Context) -> Result<&Job> {
    let missing =
        || Failure::config("The project has no job `archive`").hint("take `jobs/archive.toml` out of it to have the built-in one");
    Ok(context.jobs.iter().find(|job| job.operator == OperatorKind::Archive).ok_or_else(missing)?)
}

fn dry_run(session: &Session, candidates: &[Candidate]) -> Result<()> {
    if session.json {
        return candidates.iter().try_for_each(output::json);
    }
    if candidates.is_empty() {
        return output::line("No day would be archived: none ended `archive.after_days` ago that is not archived already");
    }
    let rows: Vec<Vec<String>> = candidates
        .iter()
        .map(|day| {
            let waits = day.waits.as_ref().map_or("would be archived".to_owned(), |why| format!("waits: {why}"));
            vec![day.event_date.to_string(), day.source.clone(), day.revision.to_string(), waits]
        })
        .collect();
    output::line(&output::table(&["day", "source", "revision", "what"], &["revision"], &rows))
}

async fn list(session: &Session, context: &Context) -> Result<()> {
    let days = context.store.archived_days(None, None).await?;
    if session.json {
        return days.iter().try_for_each(output::json);
    }
    let rows: Vec<Vec<String>> = days
        .iter()
        .map(|day| {
            vec![
                day.event_date.to_string(),
                day.source.clone(),
                day.revision.to_string(),
                output::grouped(day.event_count),
                output::grouped(day.size_bytes),
                if day.is_deleted { "the lake alone" } else { "a copy" }.to_owned(),
            ]
        })
        .collect();
    let header = ["day", "source", "revision", "events", "bytes", "rows are in"];
    output::line(&output::table(&header, &["revision", "events", "bytes"], &rows))
}

async fn verify(session: &Session, context: &Context) -> Result<()> {
    let (days, strangers) = archive::verify(context).await?;
    let bad: Vec<&Verified> = days.iter().filter(|day| day.problem.is_some()).collect();
    if session.json {
        output::json(&json!({ "days": days, "strangers": strangers }))?;
    } else {
        session.tell(&format!("{} checked: every file and row held against what was recorded", output::counted(days.len(), "revision")))?;
    }
    if bad.is_empty() && strangers.is_empty() {
        return Ok(());
    }
    let named = bad.iter().map(|day| format!("{} of `{}`: {}", day.event_date, day.source, day.problem.as_deref().unwrap_or_default()));
    let others = strangers.iter().map(|path| format!("`{path}` belongs to no archived day"));
    Err(Failure::bad_data("The lake is not what was archived")
        .listing(named.chain(others))
        .hint("restore files from a copy; what a run of this database has left the next `tallyroll archive` of the day removes")
        .into())
}
