//! Runs jobs for the scheduler, each run on connections of its own that are closed when it ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::engine::env::Context;
use crate::engine::report::{Binding, JobReport};
use crate::engine::request::Request;
use crate::run;
use crate::snapshot::storage::Storage;
use crate::store::runs::Origin;
use crate::store::{Create, Store};

/// Runs a job for a slot, on connections of its own: a run that is cut off takes no others with it.
pub type Runner = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Vec<JobReport>>> + Send + Sync>;

/// What a [`Runner`] is asked to do.
#[derive(Debug, Clone)]
pub struct Call {
    pub job: String,
    pub downstream: bool,
    pub origin: Origin,
    /// The id that the run gets; a new one unless set.
    pub run_id: Option<String>,
    /// How long to wait for another run of the job.
    pub lock_wait: Duration,
    /// Becomes a signal's number when the run should end.
    pub stop: watch::Receiver<Option<i32>>,
}

/// Runs jobs of the context's project.
#[must_use]
pub fn runner(context: &Arc<Context>) -> Runner {
    let context = Arc::clone(context);
    Arc::new(move |call| {
        let context = Arc::clone(&context);
        Box::pin(async move {
            let context = own_context(&context, call.stop.clone()).await?;
            let _cut_off_with_this = CutOff(context.store.clone());
            let result = run_call(&context, &call).await;
            context.store.close().await;
            result
        })
    })
}

/// Cancels a run's statements when the run is dropped, because it was cut off or has ended.
struct CutOff(Store);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.cut_off();
    }
}

async fn run_call(context: &Arc<Context>, call: &Call) -> Result<Vec<JobReport>> {
    let request = Request { as_of: context.clock.now(), downstream: call.downstream, ..Request::default() };
    let binding = Binding { lock_wait: call.lock_wait, origin: call.origin.clone(), run_id: call.run_id.clone(), ..Binding::default() };
    run::run(context, context.jobs.get(&call.job)?, &request, &binding).await
}

/// The context with a store and a stop signal of its own: a run that is cut off leaves no half-used connection to others.
async fn own_context(shared: &Context, stop: watch::Receiver<Option<i32>>) -> Result<Arc<Context>> {
    let store = Store::open(&shared.project, &shared.config, Create::Never).await?;
    // Somebody may have come since the scheduler began.
    store.require_trust().await?;
    Ok(Arc::new(Context {
        project: shared.project.clone(),
        config: shared.config.clone(),
        store,
        storage: Storage::open(&shared.project, &shared.config.output.url)?,
        jobs: shared.jobs.clone(),
        clock: shared.clock.clone(),
        stop,
        observe: Box::new(|_| {}),
    }))
}
