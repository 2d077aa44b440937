//! `quarantine`: what enters no total, why, and what can be done.

use anyhow::Result;
use chrono::NaiveDate;
use clap::Subcommand;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::clock::Clock;
use crate::import;
use crate::jobs::Jobs;
use crate::quarantine::{self, OF_FILE};
use crate::store::{Create, Store};

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Count what is set aside, by source and reason, and show the latest
    List {
        /// Only of this source, such as `ai_usage_log` or `import:spend.csv`
        #[arg(long)]
        source: Option<String>,
        /// How many to show
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Show an event or row with all that it holds
    Show {
        /// Its id, as `list` shows it
        id: String,
    },
    /// Make the days of the log's quarantined events due again, after their rows were fixed past what tracks them
    Retry {
        /// Only those of this source
        #[arg(long)]
        source: Option<String>,
    },
    /// Forget the rows of a file that were not imported
    Drop {
        /// `import:` and the file's name, as `list` shows it
        #[arg(long)]
        source: String,
    },
}

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    match what {
        What::List { source, limit } => list(&session, &store, source.as_deref(), *limit).await?,
        What::Show { id } => show(&session, &store, id).await?,
        What::Retry { source } => {
            let jobs = Jobs::load(&session.project)?;
            let due = quarantine::retry(&store, &Clock::system(), &session.loaded.config, &jobs, source.as_deref()).await?;
            if session.json {
                output::json(&json!({ "due": due }))?;
            } else if due.is_empty() {
                session.tell("No day has quarantined events of the log; a file's rows are fixed in the file, and imported again")?;
            }
            for (job, days) in due.iter().filter(|_| !session.json) {
                session.tell(&format!("{} of `{job}` due: `tallyroll run-job {job} --downstream`", output::counted(days.len(), "day")))?;
            }
        }
        What::Drop { source } => {
            let dropped = quarantine::drop_rows(&store, source).await?;
            if session.json {
                output::json(&json!({ "source": source, "dropped_count": dropped }))?;
            } else {
                session.tell(&format!(
                    "{} of `{}` forgotten",
                    output::counted(usize::try_from(dropped)?, "row"),
                    output::printable(source)
                ))?;
            }
        }
    }
    store.close().await;
    Ok(())
}

async fn list(session: &Session, store: &Store, source: Option<&str>, limit: i64) -> Result<()> {
    let mut tx = store.begin_read().await?;
    let events = quarantine::list(&mut tx, source, 0, limit).await?;
    if session.json {
        return events.iter().try_for_each(output::json);
    }
    let counts = quarantine::counts(&mut tx).await?;
    let counts: Vec<_> = counts.iter().filter(|count| source.is_none_or(|source| count.source == source)).collect();
    if counts.is_empty() {
        return output::line("Nothing is in quarantine");
    }
    let date = |date: Option<NaiveDate>| date.map_or_else(String::new, |date| date.to_string());
    let rows: Vec<Vec<String>> = counts
        .iter()
        .take(usize::try_from(limit)?)
        .map(|count| {
            let reason = import::shorten(&count.reason);
            vec![count.source.clone(), reason, output::grouped(count.event_count), date(count.first_date), date(count.last_date)]
        })
        .collect();
    output::line(&output::table(&["source", "reason", "events", "first day", "last day"], &["events"], &rows))?;
    let now = Clock::system().now();
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            vec![
                event.event_id.clone(),
                event.source.clone(),
                date(event.usage_date),
                output::instant(session.wide, event.first_seen_at, now),
            ]
        })
        .collect();
    output::line(&format!("\nThe latest:\n{}", output::table(&["event", "source", "day", "since"], &[], &rows)))?;
    let of_files = counts.iter().any(|count| count.source.starts_with(OF_FILE));
    let next = if of_files { "; a file's are fixed in the file, and imported again" } else { "" };
    output::line(&format!("\nFix or delete the rows of the log; the next run looks at their days again{next}"))
}

async fn show(session: &Session, store: &Store, id: &str) -> Result<()> {
    let mut tx = store.begin_read().await?;
    for event in quarantine::of_id(&mut tx, id).await? {
        if session.json {
            output::json(&event)?;
            continue;
        }
        let day = event.usage_date.map(|day| format!(", day {day}")).unwrap_or_default();
        output::line(&output::printable(&format!("{} of {}{day}: {}", event.event_id, event.source, event.reason)))?;
        // Printed as JSON, each text in it is escaped.
        output::line(&serde_json::to_string_pretty(&event.payload)?)?;
    }
    Ok(())
}
