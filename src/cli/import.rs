//! `import`: files into the source tables.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::output;
use super::session::{Session, stop_signal};
use crate::clock::Clock;
use crate::import::{Mapping, import_usage};
use crate::store::Create;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Usage events, into `ai_usage_log`
    #[command(
        after_help = "Example:\n  tallyroll import usage trace.csv --column occurred_at=TIMESTAMP --column input_tokens=ContextTokens \\\n    \
        --set user_id=00000000-0000-0000-0000-000000000001 --set model=gpt-4o"
    )]
    Usage(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files: .csv with a header, .jsonl with one object per line, or .parquet
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Take a field from a column of another name
    #[arg(long, value_name = "FIELD=HEADER")]
    column: Vec<String>,
    /// Give every row the same value
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let mapping = Mapping::parse(&arguments.column, &arguments.set)?;
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let stop = stop_signal()?;
    let mut rows = Vec::new();
    let mut bad_lines = Vec::new();
    for file in &arguments.files {
        let report = import_usage(&store, &session.loaded.config, &Clock::system(), &stop, file, &mapping).await?;
        if session.json {
            output::json(&report)?;
            continue;
        }
        let count = |number: u64| output::grouped(i64::try_from(number).unwrap_or(i64::MAX));
        rows.push(vec![
            report.file.clone(),
            count(report.row_count),
            count(report.inserted_count),
            count(report.known_count),
            count(report.bad_count),
            report.ignored_columns.join(", "),
        ]);
        bad_lines.extend(report.bad_rows.iter().map(|bad| format!("{}, line {}: {}", report.file, bad.line, bad.reason)));
    }
    store.close().await;
    if session.json {
        return Ok(());
    }
    let header = ["file", "rows", "imported", "there already", "bad", "columns not used"];
    output::line(&output::table(&header, &["rows", "imported", "there already", "bad"], &rows))?;
    for bad in &bad_lines {
        output::line(&output::printable(bad))?;
    }
    if !bad_lines.is_empty() {
        output::line("Bad rows are kept in `quarantined_event`; mend them and import the file again")?;
    }
    Ok(())
}
