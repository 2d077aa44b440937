//! `runs`: history.

use anyhow::Result;
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::session::Session;
use super::{output, shell};
use crate::clock::Clock;
use crate::jobs::Jobs;
use crate::store::Create;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only runs of this job
    #[arg(long, add = ArgValueCandidates::new(shell::job_names))]
    job: Option<String>,
    /// Only runs that failed or were interrupted
    #[arg(long)]
    failed: bool,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    if let Some(job) = &arguments.job {
        Jobs::load(&session.project)?.get(job)?;
    }
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let runs = store.runs(arguments.job.as_deref(), arguments.failed, arguments.limit).await?;
    store.close().await;
    if session.json {
        return runs.iter().try_for_each(output::json);
    }
    let (wide, now) = (session.wide, Clock::system().now());
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            vec![
                output::run_id(wide, &run.run_id),
                run.job.clone(),
                run.state.to_string(),
                output::instant(wide, run.started_at, now),
                run.duration_ms.map_or("-".to_owned(), output::seconds),
                format!("{}/{}", run.windows_done, run.windows_planned),
                output::grouped(run.rows_in),
                output::grouped(run.rows_out),
                output::grouped(run.quarantined_count),
            ]
        })
        .collect();
    let header = ["run", "job", "state", "started", "took", "windows", "rows in", "rows out", "quarantined"];
    let right = ["took", "windows", "rows in", "rows out", "quarantined"];
    output::line(&output::narrow(wide, &header, &right, &rows, &["rows in", "rows out"], &["quarantined"]))?;
    for run in &runs {
        if let Some(error) = &run.error_text {
            output::line(&format!("{}: {}", output::run_id(wide, &run.run_id), output::printable(error)))?;
        }
    }
    Ok(())
}
