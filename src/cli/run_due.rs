//! `run-due`: what cron runs once a minute. Every schedule that is due, then the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use chrono::TimeDelta;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::engine::env::Context;
use crate::engine::stop::check_stop;
use crate::scheduler::runner::runner;
use crate::scheduler::{Scheduler, Ticked};
use crate::store::format_instant;
use crate::{metrics, schedule};

/// How long a slot's jitter is waited for; one that comes later is the next call's.
const LONGEST_WAIT: TimeDelta = TimeDelta::seconds(59);

pub(super) async fn run(session: Session) -> Result<()> {
    let context = session.context().await?;
    let schedule_of = schedule::all(&context.project, &context.jobs)?;
    let scheduler = Arc::new(Scheduler::new(Arc::clone(&context), schedule_of.clone(), runner(&context)));
    let until = context.clock.now() + LONGEST_WAIT;
    let mut seen = Ticked::default();
    let mut problem = None;
    loop {
        let ticked = match scheduler.tick().await {
            Ok(ticked) => ticked,
            // What was started before goes on to its end.
            Err(error) => {
                problem = Some(error);
                break;
            }
        };
        seen.started.extend(ticked.started);
        seen.passed_over.extend(ticked.passed_over);
        let Some(next_at) = ticked.next_at.filter(|next_at| *next_at < until) else { break };
        let wait = (next_at - context.clock.now()).to_std().unwrap_or_default() + Duration::from_millis(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&context) => break,
        }
    }
    let all_well = tokio::select! {
        all_well = scheduler.finish() => all_well,
        () = grace_after_stop(&context) => {
            scheduler.abort().await;
            false
        }
    };
    metrics::write_textfile(&context, &schedule_of).await;
    let stop = check_stop(&context.stop);
    context.store.close().await;
    print(&session, &seen)?;
    stop?;
    if let Some(error) = problem {
        return Err(error.context("A schedule could not be looked at"));
    }
    if all_well { Ok(()) } else { Err(anyhow!("Some of what was due failed; `tallyroll runs --failed` tells why")) }
}

/// Ends when runs at work have had their grace after a signal.
async fn grace_after_stop(context: &Context) {
    stopped(context).await;
    tokio::time::sleep(Duration::from_secs(context.config.serve.grace_seconds.into())).await;
}

async fn stopped(context: &Context) {
    let mut stop = context.stop.clone();
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn print(session: &Session, ticked: &Ticked) -> Result<()> {
    let started = ticked.started.iter().map(|(job, slot)| (job, slot, "ran"));
    let slots: Vec<_> = started.chain(ticked.passed_over.iter().map(|(job, slot, fate)| (job, slot, *fate))).collect();
    for (job, slot, fate) in &slots {
        if session.json {
            output::json(&json!({ "job": job, "scheduled_for": slot, "fate": fate }))?;
        } else {
            session.tell(&format!("{job} {}: {fate}", format_instant(**slot)))?;
        }
    }
    Ok(())
}
