//! The windows of a run: planned under the lock, then written, a few at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::abort;
use crate::archive;
use crate::engine::env::{Context, Event};
use crate::engine::log::EACH_WINDOW;
use crate::engine::request::{ASKED_FOR, FORCED};
use crate::engine::stop::{check_stop, is_final};
use crate::engine::under_way::UnderWay;
use crate::engine::work::{RawRowsGone, Work};
use crate::failure::{self, Kind};
use crate::operator::pass::Pass;
use crate::operator::{Found, Operator};
use crate::plan::Plan;
use crate::reconcile;
use crate::snapshot::owner;
use crate::store::windows::{WindowRecord, WindowState, Written};
use crate::window::Window;

/// What the windows of a run are written by.
struct WindowWriter {
    work: Work,
    operator: Operator,
    found: Found,
    pass: Option<Arc<Pass>>,
}

/// Writes what is due; windows that the run `resume` has written stay as they are. `found` is what the look before found.
///
/// # Errors
/// The first failure of a window, or the one that ended the run; the others are recorded with their windows.
pub(super) async fn run(
    context: &Arc<Context>,
    under_way: &Arc<UnderWay>,
    operator: Operator,
    found: &Found,
    resume: Option<&str>,
    pass: Option<&Arc<Pass>>,
) -> Result<()> {
    let job = &under_way.job;
    if matches!(operator, Operator::PeakSeats(_)) || job.publish.is_some() {
        owner::claim(&context.storage, &context.store).await?;
    }
    let mut tx = context.store.begin().await?;
    let mut plan = Plan::make(context, &mut tx, job, &operator, &under_way.request, found).await?;
    if let Some(resumed) = resume {
        plan.windows.retain(|planned| {
            let written = plan.states.get(&planned.window);
            let is_done = written.is_some_and(|state| state.run_id.as_deref() == Some(resumed) && state.state == WindowState::Done);
            // What made a window due by itself has come since: it is due whoever wrote it before.
            !(is_done && [ASKED_FOR, FORCED].contains(&planned.reason.as_str()))
        });
    }
    plan.keep(context, &mut tx, job, context.clock.now()).await?;
    under_way.lock.assert_held(&context.store, &mut tx).await?;
    abort::point("plan_kept");
    tx.commit().await?;
    abort::point("plan_committed");
    under_way.planned(&plan.windows);
    let window_count = plan.windows.len();
    (context.observe)(&Event::Planned { job: job.name.clone(), window_count });
    tracing::info!(windows = window_count, "Windows are due");

    let work = Work { context: Arc::clone(context), under_way: Arc::clone(under_way) };
    let writer = Arc::new(WindowWriter { work, operator, found: plan.found.clone(), pass: pass.cloned() });
    let mut failures = write(&writer, plan).await?;
    let failed_count = failures.len();
    // The one that ended the run, if any did, says most.
    let chosen = failures.iter().find(|(_, error)| is_final(error)).or_else(|| failures.iter().next()).map(|(window, _)| *window);
    match chosen.and_then(|window| failures.remove(&window).map(|error| (window, error))) {
        None => {
            check_stop(&context.stop)?;
            writer.found.left_out().map_or(Ok(()), |failure| Err(failure.into()))
        }
        Some((_, error)) if matches!(failure::find(&error).map(|failure| failure.kind), Some(Kind::Interrupted(_))) => Err(error),
        Some((window, error)) => Err(error.context(format!("{failed_count} of {window_count} windows failed, the first {window}"))),
    }
}

/// Writes the windows of a plan; the failures of those that were not written.
async fn write(writer: &Arc<WindowWriter>, plan: Plan) -> Result<BTreeMap<Window, anyhow::Error>> {
    let mut states = plan.states;
    let mut waiting = plan.windows.into_iter();
    let mut at_work: JoinSet<(Window, Result<Written>)> = JoinSet::new();
    let mut failures: BTreeMap<Window, anyhow::Error> = BTreeMap::new();
    let work = &writer.work;
    let at_once = usize::try_from(work.context.config.engine.windows_at_once)?;
    loop {
        let may_start = !failures.values().any(is_final) && check_stop(&work.context.stop).is_ok();
        while may_start && at_work.len() < at_once {
            let Some(planned) = waiting.next() else { break };
            let (writer, before) = (Arc::clone(writer), states.remove(&planned.window));
            let span = tracing::info_span!("window", window = %planned.window);
            at_work.spawn(async move { (planned.window, writer.window(planned.window, before.as_ref()).await) }.instrument(span));
        }
        let Some(ended) = at_work.join_next().await else { break };
        match ended.context("A window's task died")? {
            (window, Ok(written)) => {
                work.under_way.written(&written);
                (work.context.observe)(&Event::WindowDone { rows_in: written.rows_in });
                tracing::info!(target: EACH_WINDOW, %window, rows_in = written.rows_in, rows_out = written.rows_out, quarantined = written.quarantined_count, "Window written");
            }
            (window, Err(error)) => {
                failures.insert(window, error);
            }
        }
    }
    Ok(failures)
}

impl WindowWriter {
    /// Computes and replaces one window; a failure is recorded with it.
    async fn window(&self, window: Window, before: Option<&WindowRecord>) -> Result<Written> {
        let result = match &self.operator {
            Operator::Reconcile => self.reconcile(window).await,
            Operator::Archive => self.archive(window).await,
            operator => operator.write(&self.work, &self.found, self.pass.as_ref(), window, before).await,
        };
        if let Err(error) = &result {
            tracing::warn!(error = format!("{error:#}"), "The window was not written");
            // A run that is to stop, or lost its lock, leaves the window due.
            if !is_final(error) {
                let state = if error.is::<RawRowsGone>() { WindowState::Kept } else { WindowState::Failed };
                self.work.fail(window, state, &failure::text(error)).await?;
            }
        }
        result
    }

    /// Archives what can be; each day by itself.
    async fn archive(&self, window: Window) -> Result<Written> {
        let Work { context, .. } = &self.work;
        let written = archive::run(&self.work).await?;
        let mut tx = context.store.begin().await?;
        self.work.record(&mut tx, window, &written, context.clock.now()).await?;
        self.work.commit(tx).await?;
        Ok(written)
    }

    /// Checks everything and keeps what does not hold; any of it fails the window.
    async fn reconcile(&self, window: Window) -> Result<Written> {
        let Work { context, under_way } = &self.work;
        let report = reconcile::run(context, &reconcile::Range::default(), under_way.request.as_of).await?;
        let mut tx = context.store.begin().await?;
        reconcile::write(&mut tx, &report).await?;
        abort::point("reconciliation_written");
        if let Some(failure) = report.failure() {
            under_way.lock.assert_held(&context.store, &mut tx).await?;
            tx.commit().await?;
            return Err(failure);
        }
        let written = Written { rows_in: report.compared_count(), ..Written::default() };
        self.work.record(&mut tx, window, &written, context.clock.now()).await?;
        self.work.commit(tx).await?;
        Ok(written)
    }
}
