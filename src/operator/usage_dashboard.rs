//! `usage_dashboard`: the admin's dashboards, computed from the summaries and kept.

use anyhow::Result;

use super::derived;
use crate::dashboard::admin;
use crate::engine::due::{DueWindows, Look};
use crate::engine::upstream::upstream_of_window;
use crate::engine::work::Work;
use crate::store::windows::Written;
use crate::window::Window;

/// When a summary, the day or the spans have changed.
///
/// # Errors
/// What the database says.
pub(super) async fn due(look: &mut Look<'_>) -> Result<DueWindows> {
    let follows = [admin::follows_from(&look.context.config, look.request.as_of)?];
    derived::due(look, &follows).await
}

/// Computes the dashboards and replaces them.
///
/// # Errors
/// What the database says.
pub(super) async fn write(work: &Work, window: Window) -> Result<Written> {
    let Work { context, under_way } = work;
    let mut tx = context.store.begin_snapshot().await?;
    let follows = [admin::follows_from(&context.config, under_way.request.as_of)?];
    let (input_fingerprint, rows_in) = upstream_of_window(context, &mut tx, &under_way.job, window, &follows).await?;
    let rows_out = admin::write(&context.store, &mut tx, &context.config, under_way.request.as_of).await?;
    let written = Written { rows_in, rows_out, input_fingerprint, ..Written::default() };
    work.record(&mut tx, window, &written, context.clock.now()).await?;
    work.commit(tx).await?;
    Ok(written)
}
