//! What Prometheus reads: at `/metrics`, or as a text file for `node_exporter` after each `run-job` and `run-due`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::archive;
use crate::engine::env::Context;
use crate::schedule::Schedule;
use crate::store::Row;
use crate::store::runs::{RunCount, RunState};
use crate::store::windows::WindowState;
use crate::text_file;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// How every text of metrics begins.
const FIRST_WORDS: &[u8] = b"# HELP tallyroll_";

/// What only `serve` knows.
#[derive(Debug)]
pub struct Served {
    pub heartbeat_at: DateTime<Utc>,
    pub wrong_token_count: u64,
}

/// The metrics of every job, from the state tables, in the Prometheus text format.
///
/// # Errors
/// What the database says.
pub async fn render(context: &Context, schedules: &BTreeMap<String, Schedule>, served: Option<&Served>) -> Result<String> {
    let mut registry = Registry::with_prefix("tallyroll");
    let now = context.clock.now();
    let build = family(&mut registry, "build_info", "The version that runs");
    build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1.0);
    if let Some(served) = served {
        let help = "When the scheduler last showed that it lives";
        gauge(&mut registry, "scheduler_heartbeat_timestamp_seconds", help, seconds(served.heartbeat_at));
        let wrong_tokens = Counter::<u64>::default();
        wrong_tokens.inc_by(served.wrong_token_count);
        registry.register("wrong_tokens", "Wrong tokens that were tried since the server began", wrong_tokens);
    }
    runs(context, &mut registry).await?;
    windows(context, &mut registry).await?;

    let next = family(&mut registry, "job_next_run_timestamp_seconds", "When the schedule fires next");
    for (job, schedule) in schedules {
        if let Some(fire) = schedule.next_fires(now, 1).first() {
            next.get_or_create(&of_job(job)).set(seconds(*fire));
        }
    }
    let age = family(&mut registry, "source_watermark_age_seconds", "How long ago the source was last looked at for changes");
    for row in context.store.query("SELECT source, updated_at FROM usage_watermark", &[]).await? {
        let seconds = (now - row.instant("updated_at")?).as_seconds_f64();
        age.get_or_create(&vec![("source", row.text("source")?)]).set(seconds);
    }
    archived(context, &mut registry).await?;
    let count = context.store.query("SELECT COUNT(*) AS event_count FROM quarantined_event", &[]).await?;
    let count = count.first().map(|row| number(row, "event_count")).transpose()?.unwrap_or(0.0);
    gauge(&mut registry, "quarantined_events", "Events that are in quarantine", count);
    let sql = "SELECT CAST(COALESCE(SUM(unpriced_count), 0) AS BIGINT) AS event_count FROM usage_daily_total";
    let count = context.store.query(sql, &[]).await?;
    let count = count.first().map(|row| number(row, "event_count")).transpose()?.unwrap_or(0.0);
    gauge(&mut registry, "unpriced_events", "Requests whose cost is not known", count);

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

async fn runs(context: &Context, registry: &mut Registry) -> Result<()> {
    let count = family(registry, "job_runs", "Runs in the history, by how they ended");
    let success_at =
        family(registry, "job_last_success_timestamp_seconds", "When the job last ended well, whether or not anything was due");
    let duration = family(registry, "job_last_run_duration_seconds", "How long the last run took");
    let rows_in = family(registry, "job_last_run_rows_in", "Rows that the last run read");
    let rows_out = family(registry, "job_last_run_rows_out", "Rows that the last run wrote");
    let success = family(registry, "job_last_run_success", "Whether the last run ended well");
    let running = family(registry, "job_running", "Whether the job is at work");

    let mut successes: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    // A slot whose job had nothing due ended well without a run.
    let sql = "SELECT job, MAX(finished_at) AS finished_at FROM schedule_state WHERE state = 'success' GROUP BY job";
    let mut ended_well = Vec::new();
    for row in context.store.query(sql, &[]).await? {
        ended_well.push((row.text("job")?, row.opt_instant("finished_at")?));
    }
    for job in context.jobs.iter() {
        running.get_or_create(&of_job(&job.name)).set(0.0);
    }
    for RunCount { job, state, run_count, finished_at } in context.store.run_counts().await? {
        match state {
            RunState::Running => {
                running.get_or_create(&of_job(&job)).set(1.0);
            }
            RunState::Success => ended_well.push((job.clone(), finished_at)),
            RunState::Failed | RunState::Interrupted => {}
        }
        count.get_or_create(&vec![("job", job), ("state", state.to_string())]).set(as_number(run_count));
    }
    for (job, at) in ended_well {
        if let Some(at) = at {
            let latest = successes.entry(job).or_insert(at);
            *latest = at.max(*latest);
        }
    }
    for (job, at) in successes {
        success_at.get_or_create(&of_job(&job)).set(seconds(at));
    }
    for job in context.jobs.iter() {
        if let Some(run) = context.store.last_ended_run(&job.name).await? {
            let labels = of_job(&job.name);
            duration.get_or_create(&labels).set(as_number(run.duration_ms.unwrap_or(0)) / 1_000.0);
            rows_in.get_or_create(&labels).set(as_number(run.rows_in));
            rows_out.get_or_create(&labels).set(as_number(run.rows_out));
            success.get_or_create(&labels).set(if run.state == RunState::Success { 1.0 } else { 0.0 });
        }
    }
    Ok(())
}

async fn windows(context: &Context, registry: &mut Registry) -> Result<()> {
    let due = family(registry, "job_windows_due", "Windows that are known to be due");
    let failed = family(registry, "job_windows_failed", "Windows that failed and are still due");
    let counts = context.store.window_counts().await?;
    for job in context.jobs.iter() {
        let count = |state| counts.get(&job.name).and_then(|states| states.get(&state)).copied().unwrap_or(0);
        due.get_or_create(&of_job(&job.name)).set(as_number(count(WindowState::Due)));
        failed.get_or_create(&of_job(&job.name)).set(as_number(count(WindowState::Failed)));
    }
    Ok(())
}

async fn archived(context: &Context, registry: &mut Registry) -> Result<()> {
    let days = family(registry, "archived_days", "Days that are in the lake");
    let events = family(registry, "archived_events", "Events that are in the lake");
    let bytes = family(registry, "archived_bytes", "Bytes that they take there");
    let oldest =
        family(registry, "log_oldest_event_timestamp_seconds", "The oldest event that is in the tables, of sources that are archived");
    for source in archive::overview(context).await? {
        let labels = vec![("source", source.source)];
        days.get_or_create(&labels).set(as_number(source.day_count));
        events.get_or_create(&labels).set(as_number(source.event_count));
        bytes.get_or_create(&labels).set(as_number(source.size_bytes));
        if let Some(at) = source.oldest_event_at {
            oldest.get_or_create(&labels).set(seconds(at));
        }
    }
    Ok(())
}

/// Writes the metrics to `metrics.textfile`, if it is set, in one step. An error is logged and fails no run.
pub async fn write_textfile(context: &Context, schedules: &BTreeMap<String, Schedule>) {
    let path = &context.config.metrics.textfile;
    if path.is_empty() {
        return;
    }
    let written = match render(context, schedules, None).await {
        Ok(text) => replace(&context.project.dir.join(path), &text),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!(error = format!("{error:#}"), "`metrics.textfile` could not be written");
    }
}

/// Replaces a file of metrics, and no other: a path of the database or of a finance file is a mistake.
fn replace(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        let mut start = Vec::new();
        if path.is_file() {
            File::open(path)?.take(FIRST_WORDS.len() as u64).read_to_end(&mut start)?;
        }
        ensure!(start == FIRST_WORDS, "`{}` is no file of metrics, and stays as it is", path.display());
    }
    // node_exporter runs as another user.
    text_file::replace(path, text, Some(0o644))
}

fn family(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn of_job(job: &str) -> Labels {
    vec![("job", job.to_owned())]
}

fn number(row: &Row, column: &str) -> Result<f64> {
    row.int(column).map(as_number)
}

#[expect(clippy::cast_precision_loss, reason = "a count past 2^53 is not exact in Prometheus either")]
fn as_number(count: i64) -> f64 {
    count as f64
}

fn seconds(at: DateTime<Utc>) -> f64 {
    (at - DateTime::<Utc>::default()).as_seconds_f64()
}
