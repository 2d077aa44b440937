//! `serve`: scheduler, health, metrics and web page in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_cron_scheduler::{Job as WakeUp, JobScheduler};

use super::output;
use super::session::Session;
use crate::engine::env::Context;
use crate::engine::stop::check_stop;
use crate::failure::Failure;
use crate::schedule;
use crate::scheduler::Scheduler;
use crate::scheduler::runner::runner;
use crate::serve::auth::Auth;
use crate::serve::connections::{self, connections_max};
use crate::serve::{App, Starter, router, token};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Address and port to listen on, in place of `serve.bind`
    #[arg(long, value_name = "ADDRESS:PORT")]
    bind: Option<String>,
}

/// How often the scheduler looks what is due, as the six fields of tokio-cron-scheduler, which wakes it and does nothing else.
const WAKE_UP: &str = "*/5 * * * * *";

/// The longest time between two looks at the schedules, whatever the clock does.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// How long an answer that is on its way may take after everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let context = session.context().await?;
    let schedule_of = schedule::all(&context.project, &context.jobs)?;
    let bind = arguments.bind.as_ref().unwrap_or(&context.config.serve.bind);
    let address: SocketAddr = bind.parse().map_err(|_| {
        Failure::config(format!("`{bind}` is no address to listen on")).hint("write `127.0.0.1:8080`, or `0.0.0.0:8080` with a token")
    })?;
    let token = context.config.serve.token.expose_secret();
    if token.is_empty() && !address.ip().is_loopback() {
        return Err(Failure::config(format!("`{address}` can be reached from other machines, and no token is set"))
            .hint("set `TALLYROLL__SERVE__TOKEN_FILE` to the path of a file that holds one, or listen on 127.0.0.1")
            .into());
    }
    token::check_all(&context.config.serve)?;
    let listener =
        TcpListener::bind(address).await.map_err(|error| Failure::config(format!("`{address}` cannot be listened on")).caused_by(error))?;

    let heartbeat_micros = Arc::new(AtomicI64::new(context.clock.now().timestamp_micros()));
    let scheduler = Arc::new(Scheduler::new(Arc::clone(&context), schedule_of.clone(), runner(&context)));
    let app = App {
        context: Arc::clone(&context),
        schedules: schedule_of,
        auth: Auth::new(token, address.ip().is_loopback()).with_writer(context.config.serve.writer_token.expose_secret()),
        starter: starter(&context, &scheduler),
        heartbeat_micros: Arc::clone(&heartbeat_micros),
    };
    let (answers_end, answers_may_end) = watch::channel(false);
    let address = listener.local_addr()?;
    let answers = tokio::spawn(connections::answer(listener, router(Arc::new(app)), connections_max(), answers_may_end));
    output::line(&format!("Listening on http://{address}"))?;

    tick_until_stopped(&context, &scheduler, &heartbeat_micros).await?;
    let grace = Duration::from_secs(context.config.serve.grace_seconds.into());
    let is_clean = tokio::time::timeout(grace, scheduler.finish()).await.is_ok();
    if !is_clean {
        tracing::warn!("Runs that did not end in time are cut off; the database rolls them back");
        scheduler.abort().await;
    }
    answers_end.send_replace(true);
    let _ = tokio::time::timeout(LAST_ANSWERS, answers).await;
    context.store.close().await;
    // Asked to stop, it has stopped: that is no error.
    if is_clean { Ok(()) } else { check_stop(&context.stop) }
}

/// Looks what is due at every wake-up, until a signal asks the process to stop.
async fn tick_until_stopped(context: &Context, scheduler: &Arc<Scheduler>, heartbeat_micros: &AtomicI64) -> Result<()> {
    // One wake-up waits at most: a slow tick is not followed by a heap of others.
    let (wake, mut woken) = mpsc::channel::<()>(1);
    let mut wake_ups = JobScheduler::new().await.context("The wake-up could not start")?;
    let job = WakeUp::new_async(WAKE_UP, move |_, _| {
        let wake = wake.clone();
        Box::pin(async move {
            let _ = wake.try_send(());
        })
    })?;
    wake_ups.add(job).await?;
    wake_ups.start().await?;
    let mut stop = context.stop.clone();
    loop {
        // In a task of its own: one that hangs leaves a signal heard and shows in the heartbeat, one that panics ends nobody.
        let ticking = Arc::clone(scheduler);
        tokio::select! {
            ticked = tokio::spawn(async move { ticking.tick().await }) => {
                if let Err(died) = ticked {
                    tracing::error!(error = died.to_string(), "Looking at the schedules failed");
                }
            }
            _ = stop.wait_for(Option::is_some) => break,
        }
        heartbeat_micros.store(context.clock.now().timestamp_micros(), Ordering::Relaxed);
        tokio::select! {
            Some(()) = woken.recv() => {}
            // The wake-up goes by the clock: one that went back would not wake us until it has caught up.
            () = tokio::time::sleep(LONGEST_SLEEP) => {}
            _ = stop.wait_for(Option::is_some) => break,
        }
    }
    let _ = wake_ups.shutdown().await;
    Ok(())
}

/// Starts runs that a person asks for on the page.
fn starter(context: &Arc<Context>, scheduler: &Arc<Scheduler>) -> Starter {
    let (context, scheduler) = (Arc::clone(context), Arc::clone(scheduler));
    Arc::new(move |job, downstream| {
        context.jobs.get(job)?;
        Ok(scheduler.ask(job, downstream))
    })
}
