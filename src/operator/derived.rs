//! What is made from other results, by a SELECT or a rollup: which of its windows are due, and how one is written.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::RecordBatch;

use super::content;
use super::pass::Pass;
use super::rollup::from_table;
use super::rollup::shape::Shape;
use super::sql::SqlSelect;
use crate::abort;
use crate::engine::due::{DueWindows, Look};
use crate::engine::request::FORCED;
use crate::engine::upstream::{upstream_fingerprints, upstream_of_window};
use crate::engine::work::Work;
use crate::snapshot::usage_monthly;
use crate::store::Tx;
use crate::store::windows::{WindowRecord, WindowState, Written};
use crate::window::{Window, WindowKind};

/// Windows whose upstream windows were written since; `follows` is what else the result follows from.
///
/// # Errors
/// What database and storage say.
pub(super) async fn due(look: &mut Look<'_>, follows: &[String]) -> Result<DueWindows> {
    let (context, job, request) = (look.context, look.job, look.request);
    let published = match &job.publish {
        Some(folder) => Some(context.storage.list(folder).await?),
        None => None,
    };
    let mut due = DueWindows::new();
    for (window, input) in upstream_fingerprints(context, look.tx, job, follows).await? {
        let is_unpublished = |state: &WindowRecord| {
            let path = job.publish.as_ref().map(|folder| usage_monthly::path(job, folder, window));
            state.rows_out > 0 && path.is_some_and(|path| published.as_ref().is_some_and(|published| !published.contains(&path)))
        };
        let reason = match look.states.get(&window) {
            None => "never written",
            Some(state) if state.state == WindowState::Due => "left undone",
            Some(state) if state.state == WindowState::Failed => "failed before",
            Some(state) if state.input_fingerprint.as_deref() != Some(&input) => "what it is made from has changed",
            Some(state) if let Some(changed) = look.definition.change_since(state) => changed,
            Some(state) if is_unpublished(state) => "its finance file is missing",
            Some(_) if request.force || request.rebuild => FORCED,
            Some(_) => continue,
        };
        due.insert(window, reason.to_owned());
    }
    Ok(due)
}

/// As [`due`], of a SELECT or a rollup.
///
/// # Errors
/// As [`due`].
pub(super) async fn due_of_select(look: &mut Look<'_>, select: &SqlSelect) -> Result<DueWindows> {
    let follows = select.follows_from(look.tx, look.job, look.request.as_of).await?;
    let mut due = due(look, &follows).await?;
    look.add_emptied(&mut due).await?;
    Ok(due)
}

/// Replaces a window's rows, and its finance file where it has one.
///
/// # Errors
/// What database and storage say; [`Failure`](crate::failure::Failure) of kind bad-data where a check does not hold.
pub(super) async fn write(
    work: &Work,
    select: &SqlSelect,
    shape: Option<&Shape>,
    pass: Option<&Arc<Pass>>,
    window: Window,
) -> Result<Written> {
    let context = &work.context;
    // One snapshot: the check after the write compares what the write read.
    let mut tx = context.store.begin_snapshot().await?;
    select.lock_whole(&mut tx, &work.under_way.job).await?;
    tx.begin_reading().await?;
    let follows = select.follows_from(&mut tx, &work.under_way.job, work.under_way.request.as_of).await?;
    tx.end_reading().await?;
    // Taken before the rows are read: an upstream window that is rewritten in between makes this one due again.
    let (input_fingerprint, rows_in) = upstream_of_window(context, &mut tx, &work.under_way.job, window, &follows).await?;
    let (job, as_of) = (&work.under_way.job, work.under_way.request.as_of);
    let made = match shape {
        Some(shape) => made_in_memory(work, pass, &mut tx, shape, window, rows_in).await?,
        None => None,
    };
    let (rows_out, noted) = match made {
        Some((rows, noted)) => {
            select.replace(&mut tx, job, window, &rows, as_of).await?;
            (i64::try_from(rows.num_rows())?, Some(noted))
        }
        None => (select.write(&mut tx, job, window, as_of).await?, content::read(&mut tx, select, job, window).await?),
    };
    if let Some(folder) = &work.under_way.job.publish {
        // Before the commit: a run that is killed in between leaves the window due, never an old file behind a new table.
        work.under_way.lock.assert_held(&context.store, &mut tx).await?;
        usage_monthly::publish(&context.storage, &context.store, &mut tx, &work.under_way.job, folder, window).await?;
        abort::point("usage_monthly_put");
    }
    let written = Written { rows_in, rows_out, input_fingerprint, content: noted, ..Written::default() };
    work.record(&mut tx, window, &written, context.clock.now()).await?;
    work.commit(tx).await?;
    Ok(written)
}

/// A rollup's rows, and what they come to, where they are not left to the database.
async fn made_in_memory(
    work: &Work,
    pass: Option<&Arc<Pass>>,
    tx: &mut Tx,
    shape: &Shape,
    window: Window,
    rows_in: i64,
) -> Result<Option<(RecordBatch, String)>> {
    match pass {
        Some(pass) if work.under_way.job.window == WindowKind::Month => pass.month(tx, shape, window, rows_in).await,
        _ => match from_table::read(tx, &shape.reads, &shape.level(), window, rows_in).await? {
            Some(folded) => folded.rows(shape, window.start_date).map(Some),
            None => Ok(None),
        },
    }
}
