//! The archive: past UTC days of the raw log into the lake, and back (`docs/semantics.md` section 10).
//!
//! A day goes in three steps. Its events and rows are copied as of one snapshot and read back; then the plan says whether a run has counted
//! all that was copied; then, where rows are to be deleted, one transaction deletes them, holds what it deleted against what was read
//! back, and notes the day. Killed anywhere, the rows are in the tables or the day is noted, never neither and never both.

mod candidates;
mod copy;
mod delete;
mod event_ids;
mod overview;
mod readers;
mod restore;
mod verify;

use anyhow::{Context as _, Result};

pub use self::candidates::{Candidate, candidates};
use self::candidates::{Summary, candidates_of, sweep};
pub use self::overview::{ArchivedSource, overview};
pub use self::restore::{Restored, restore};
pub use self::verify::{Verified, verify};
use crate::abort;
use crate::engine::env::Context;
use crate::engine::log::EACH_WINDOW;
use crate::engine::stop::{check_stop, is_final};
use crate::engine::work::Work;
use crate::failure::Failure;
use crate::lake::Lake;
use crate::snapshot::owner;
use crate::source::Source;
use crate::store::archived::ArchivedDay;
use crate::store::windows::Written;

/// Archives what can be: the job `archive`.
///
/// # Errors
/// The first failure of a day, once all others were tried; what ends a run ends it at once.
pub async fn run(work: &Work) -> Result<Written> {
    let Work { context, under_way } = work;
    let lake = Lake::open(&context.project, &context.config, &context.storage)?;
    owner::claim(&lake.storage, &context.store).await?;
    let summary = Summary::load(context).await?;
    if context.config.archive.delete {
        require_apart(context, &summary.rollup()?.sources).await?;
    }
    let request = &under_way.request;
    let mut written = Written::default();
    let mut failures = Vec::new();
    for candidate in candidates_of(context, &summary, request).await? {
        check_stop(&context.stop)?;
        if let Some(why) = &candidate.waits {
            tracing::info!(target: EACH_WINDOW, source = candidate.source, day = %candidate.event_date, why, "A day is not archived yet");
            continue;
        }
        match day(work, &lake, &summary, &candidate).await {
            Ok(Some(archived)) => {
                written.rows_in += archived.event_count;
                written.rows_out += if archived.is_deleted { archived.row_count } else { 0 };
                tracing::info!(target: EACH_WINDOW, source = archived.source, day = %archived.event_date, events = archived.event_count, deleted = archived.is_deleted, "Day archived");
            }
            Ok(None) => {}
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                let context = format!("{} of `{}` was not archived", candidate.event_date, candidate.source);
                tracing::warn!(error = format!("{error:#}"), context);
                failures.push(error.context(context));
            }
        }
    }
    match failures.into_iter().next() {
        Some(first) => Err(first),
        None => Ok(written),
    }
}

/// Fails where rows of the log cannot go day by day without changing what others, or other days, are made from.
///
/// # Errors
/// [`Failure`] of kind config; what the database says.
async fn require_apart(context: &Context, sources: &[Source]) -> Result<()> {
    readers::refuse_other_readers(context, sources).await?;
    let mut tx = context.store.begin_read().await?;
    for source in sources {
        if let Some(why) = source.entangled(&context.store, &mut tx).await? {
            return Err(Failure::config(format!("Rows of `{}` cannot be deleted day by day: {why}", source.origin))
                .hint("each row must be of one event, and each event have a row; no row was deleted")
                .into());
        }
    }
    Ok(())
}

/// Archives one day; nothing where it turns out not to be counted whole, or to have no event.
async fn day(work: &Work, lake: &Lake, summary: &Summary<'_>, candidate: &Candidate) -> Result<Option<ArchivedDay>> {
    let Work { context, under_way } = work;
    let rollup = summary.rollup()?;
    let source = rollup.sources.iter().find(|source| source.name == candidate.source).context("A source is gone")?;
    sweep(context, &under_way.lock, lake, source, candidate.event_date, &[]).await?;
    let mut tx = context.store.begin().await?;
    tx.intend_archived_day(&source.name, candidate.event_date, candidate.revision).await?;
    under_way.lock.assert_held(&context.store, &mut tx).await?;
    tx.commit().await?;
    let Some(copied) = copy::copy(context, lake, source, candidate).await? else { return Ok(None) };
    abort::point("day_copied");
    // Rows that came before the copy, and that no run has counted, are told by the plan as it is now.
    if let Some(why) = summary.counted(context, under_way.request.as_of).await?.lacks(candidate.event_date, rollup.timezone)? {
        tracing::info!(source = source.name, day = %candidate.event_date, why, "A day changed while it was copied");
        sweep(context, &under_way.lock, lake, source, candidate.event_date, &[]).await?;
        return Ok(None);
    }
    abort::point("day_counted");
    let archived = if context.config.archive.delete {
        delete::delete(work, lake, source, &copied).await?
    } else {
        let archived = copied.record(false, context.clock.now())?;
        let mut tx = context.store.begin().await?;
        tx.record_archived_day(&archived).await?;
        under_way.lock.assert_held(&context.store, &mut tx).await?;
        tx.commit().await?;
        archived
    };
    abort::point("day_archived");
    // The copy that it took the place of.
    sweep(context, &under_way.lock, lake, source, candidate.event_date, &[]).await?;
    Ok(Some(archived))
}
