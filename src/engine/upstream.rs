//! Which windows of other jobs a window is made from, and a digest of what they were.

use std::collections::BTreeMap;

use anyhow::Result;

use super::env::Context;
use crate::fingerprint;
use crate::job::Job;
use crate::store::Tx;
use crate::store::windows::WindowRecord;
use crate::window::{Window, WindowKind};

/// For each window of `job` that has written upstream windows: a digest of which writes of them it would read, and of what else it
/// follows from (`follows`).
///
/// # Errors
/// What the database says.
pub async fn upstream_fingerprints(context: &Context, tx: &mut Tx, job: &Job, follows: &[String]) -> Result<BTreeMap<Window, String>> {
    let mut inputs: BTreeMap<Window, Vec<String>> = BTreeMap::new();
    for upstream in context.jobs.upstream_of(job) {
        for (window, state) in tx.windows(&upstream.name).await? {
            for reader in readers_of(job.window, window)? {
                inputs.entry(reader).or_default().extend(write_of(upstream, window, &state));
            }
        }
    }
    inputs.retain(|_, writes| !writes.is_empty());
    Ok(inputs.into_iter().map(|(window, writes)| (window, fingerprint::of(writes.into_iter().chain(follows.iter().cloned())))).collect())
}

/// The digest of one window, as [`upstream_fingerprints`] makes it, and the rows that its upstream windows hold. Only they are
/// looked at: a backfill of many windows does not read all of them for each.
///
/// # Errors
/// What the database says.
pub async fn upstream_of_window(context: &Context, tx: &mut Tx, job: &Job, window: Window, follows: &[String]) -> Result<(String, i64)> {
    let (mut writes, mut row_count) = (Vec::new(), 0);
    for upstream in context.jobs.upstream_of(job) {
        for (read, state) in tx.windows_near(&upstream.name, window).await? {
            if readers_of(job.window, read)?.contains(&window) {
                writes.extend(write_of(upstream, read, &state));
                row_count += if window.contains(&read) { state.rows_out } else { 0 };
            }
        }
    }
    let fingerprint = if writes.is_empty() { String::new() } else { fingerprint::of(writes.into_iter().chain(follows.iter().cloned())) };
    Ok((fingerprint, row_count))
}

/// The digest of a window that reads one upstream window and nothing else, as [`upstream_of_window`] makes it.
#[must_use]
pub fn fingerprint_of_write(upstream: &Job, window: Window, write_count: i64) -> String {
    fingerprint::of([write_text(upstream, window, write_count)])
}

/// Which writing of an upstream window is read; none where it was never written.
fn write_of(upstream: &Job, window: Window, state: &WindowRecord) -> Option<String> {
    (state.write_count > 0).then(|| write_text(upstream, window, state.write_count))
}

fn write_text(upstream: &Job, window: Window, write_count: i64) -> String {
    format!("{} {} {write_count}", upstream.name, window.start_date)
}

/// The windows of `kind` that read an upstream window.
///
/// # Errors
/// Only at the end of the calendar.
pub fn readers_of(kind: WindowKind, upstream: Window) -> Result<Vec<Window>> {
    if kind == WindowKind::All || upstream == Window::containing(WindowKind::All, upstream.start_date)? {
        return Ok(vec![Window::containing(WindowKind::All, upstream.start_date)?]);
    }
    Window::covering(kind, upstream.start_date, upstream.end_date)
}
