//! Who else reads the tables whose rows are to be deleted: its numbers would change with them.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::engine::env::Context;
use crate::failure::Failure;
use crate::job::OperatorKind;
use crate::operator::{self, Operator};
use crate::source::Source;
use crate::store::migrate::own_tables;

/// Fails where a table of which rows would be deleted is one of Tallyroll's, or is read by anything but its source.
///
/// # Errors
/// [`Failure`] of kind config that names table and reader; what the database says.
pub(super) async fn refuse_other_readers(context: &Context, sources: &[Source]) -> Result<()> {
    let now = context.clock.now();
    let mut archived = Vec::new();
    for source in sources {
        archived.extend(source.archived_tables(&context.store, now, now)?.into_iter().map(|(table, _)| (source, table)));
    }
    let mut own = own_tables();
    own.extend(context.jobs.iter().map(|job| job.writes.to_lowercase()));
    for (source, table) in &archived {
        if own.contains(&table.to_lowercase()) && !LOGS.contains(&table.as_str()) {
            return Err(refused(source, table, "it is a table of Tallyroll's, which is read whole"));
        }
    }
    for source in sources {
        let read = source.tables_read(&context.store).await?;
        refuse(&archived, &read, Some(&source.name), &format!("`{}` reads it as well", source.origin))?;
    }
    // A source that is not listed now may be listed again.
    let engine = context.store.engine();
    for name in context.project.read_all("sql/sources", "sql")?.keys().filter_map(|stem| stem.strip_suffix(&format!(".{engine}"))) {
        if sources.iter().any(|source| source.name == name) {
            continue;
        }
        // One that does not load, or does not fit the database, gives no events.
        let Ok(source) = Source::load(&context.project, name, engine) else { continue };
        if let Ok(read) = source.tables_read(&context.store).await {
            refuse(&archived, &read, None, &format!("`{}`, which `usage.sources` does not list, reads it as well", source.origin))?;
        }
    }
    for job in context.jobs.iter().filter(|job| matches!(job.operator, OperatorKind::Sql | OperatorKind::PeakSeats)) {
        let loaded = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        let read = match &loaded {
            Operator::Sql(select) => select.tables_read(&context.store, job).await?,
            Operator::PeakSeats(peak_seats) => peak_seats.source.tables_read(&context.store).await?,
            _ => continue,
        };
        refuse(&archived, &read, None, &format!("job `{}` reads it as well", job.name))?;
    }
    Ok(())
}

/// Tables of ours that applications write the raw log into.
const LOGS: [&str; 4] = ["ai_usage_log", "chat_requests", "request_analytics", "usage_event"];

fn refuse(archived: &[(&Source, String)], read: &BTreeSet<String>, by: Option<&String>, why: &str) -> Result<()> {
    match archived.iter().find(|(source, table)| by != Some(&source.name) && read.contains(table)) {
        Some((source, table)) => Err(refused(source, table, why)),
        None => Ok(()),
    }
}

fn refused(source: &Source, table: &str, why: &str) -> anyhow::Error {
    Failure::config(format!("Rows of `{table}` cannot be archived from `{}` and deleted: {why}", source.origin))
        .hint(
            "whoever else reads a table loses what is deleted; have it read a summary, or set `archive.delete = false`; no row was deleted",
        )
        .into()
}
