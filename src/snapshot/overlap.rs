//! Looking at finance files while runs publish: what a run is about to record is no problem.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::usage_monthly;
use crate::engine::env::Context;
use crate::failure::{self, Failure};
use crate::store::lock;

/// How often each publishing job has been locked, and who holds its lock.
type AtWork = BTreeMap<String, (i64, Option<String>)>;

/// Makes a check whose findings, where it has some, are of a moment without a run: where a run was at work it is made once more.
///
/// # Errors
/// What the check says; [`Failure`] of kind try-again where a run was at work the second time as well.
pub async fn settled<'a, T>(context: &Context, check: impl Fn() -> BoxFuture<'a, Result<T>>, is_well: impl Fn(&T) -> bool) -> Result<T> {
    let mut now = at_work(context).await?;
    for _ in 0..2 {
        let before = now;
        let found = check().await;
        let is_doubtful = match &found {
            Ok(found) => !is_well(found),
            Err(error) => failure::exit_code(error) == 65,
        };
        if !is_doubtful {
            return found;
        }
        now = at_work(context).await?;
        if before == now && now.values().all(|(_, holder)| holder.is_none()) {
            return found;
        }
    }
    let held = now.iter().find_map(|(job, (_, holder))| Some((job, holder.as_ref()?)));
    let failure = match held {
        Some((job, holder)) => {
            Failure::try_again(format!("Job `{job}` is publishing now: {holder}")).hint("run this again when it has ended")
        }
        None => Failure::try_again("Runs published while their files were looked at").hint("this command can be repeated as it is"),
    };
    Err(failure.into())
}

async fn at_work(context: &Context) -> Result<AtWork> {
    let mut fences = BTreeMap::new();
    for row in context.store.query("SELECT job, fence FROM job_lock", &[]).await? {
        fences.insert(row.text("job")?, row.int("fence")?);
    }
    let mut at_work = AtWork::new();
    for job in usage_monthly::publishers(&context.jobs).map(|(job, _)| job.name.as_str()).chain(["peak_seats"]) {
        let holder = lock::holder(&context.store, &context.clock, job, context.config.engine.lock_lease_seconds).await?;
        at_work.insert(job.to_owned(), (fences.get(job).copied().unwrap_or(0), holder.map(|holder| holder.shown)));
    }
    Ok(at_work)
}
