//! `import`: files into the source tables.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::watch;

use super::imports::{self, count};
use super::license::read_license;
use super::output;
use super::session::{Session, read_text, stop_signal};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::import::{
    AUTO, Format, ImportReport, Mapping, SEATS, SUBSCRIPTIONS, Target, USAGE, import_file, import_license, preview_file, shorten,
};
use crate::license;
use crate::money::format_usd;
use crate::store::Create;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Usage events, into `usage_event`
    #[command(
        after_help = "Example:\n  tallyroll import usage trace.csv --column occurred_at=TIMESTAMP --column input_tokens=ContextTokens \\\n    \
        --set user_id=ann --set model=gpt-4o"
    )]
    Usage(Usage),
    /// The imports of usage events, the latest first
    List,
    /// Take the rows of an import out again; their days become due
    Undo {
        /// The import's id, or how it begins
        id: String,
    },
    /// Rows of the seat ledger, into `seat_usage_event`
    #[command(
        after_help = "Columns: id (given by the database unless the file has it), org_id, seat_type (`total` unless given), seats, occurred_at, reason\n\n\
        Example:\n  tallyroll import seats ledger.csv"
    )]
    Seats(Arguments),
    /// Subscriptions, from files or from a signed licence; one that is there already takes what the file says now
    #[command(after_help = "Columns: id, org_id, plan, committed_seats, start_at, end_at, license_id\n\n\
        Examples:\n  tallyroll import subscriptions subscriptions.csv\n  \
        tallyroll import subscriptions --license acme.json --public-key vendor.pem --org 42")]
    Subscriptions(Subscriptions),
}

#[derive(Debug, Args)]
pub(super) struct Subscriptions {
    /// Files: .csv or .tsv with a header, .jsonl with one object per line, each also with .gz; .parquet; `-` for standard input
    #[arg(required_unless_present = "license")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
    /// A signed offline licence, in place of files
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "column", "set", "dry_run"], requires_all = ["public_key", "org"])]
    license: Option<PathBuf>,
    /// The vendor's Ed25519 public key, PEM
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// The org whose seats the licence is for
    #[arg(long)]
    org: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files: .csv or .tsv with a header, .jsonl with one object per line, each also with .gz; .parquet; `-` for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(super) struct Usage {
    /// Files: .csv or .tsv with a header, .jsonl with one object per line, each also with .gz; .parquet; `-` for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
    /// What wrote the files: a format of `formats/`, such as litellm, openai, anthropic or langfuse; `auto` tells it by their columns
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Take out what an import brought, and bring this file's rows in its place, at once
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    replace: Option<String>,
}

#[derive(Debug, Args)]
struct How {
    /// Take a field from a column of another name
    #[arg(long, value_name = "FIELD=HEADER")]
    column: Vec<String>,
    /// Give every row the same value
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Show where each field comes from, the first rows, the bad rows and what the models come to, and import nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    match what {
        What::Usage(Usage { files, replace: Some(_), .. }) if files.len() > 1 => {
            Err(Failure::usage("`--replace` takes one file in place of one import").hint("import the others by themselves").into())
        }
        What::Usage(arguments) => {
            files(session, &USAGE, &arguments.files, &arguments.how, arguments.format.as_deref(), arguments.replace.as_deref()).await
        }
        What::List => imports::list(&session).await,
        What::Undo { id } => imports::undo(&session, id).await,
        What::Seats(arguments) => files(session, &SEATS, &arguments.files, &arguments.how, None, None).await,
        What::Subscriptions(Subscriptions { license: Some(license), public_key: Some(key), org: Some(org), .. }) => {
            from_license(&session, license, key, org).await
        }
        What::Subscriptions(arguments) => files(session, &SUBSCRIPTIONS, &arguments.files, &arguments.how, None, None).await,
    }
}

async fn from_license(session: &Session, license: &Path, public_key: &Path, org: &str) -> Result<()> {
    let license = license::verify(&read_license(license)?, &read_text(public_key)?)?;
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let is_changed = import_license(&store, &license, org, Clock::system().now()).await?;
    store.close().await;
    if session.json {
        return output::json(&json!({ "subscription_id": license.id, "org_id": org, "is_changed": is_changed, "license": license }));
    }
    let done = if is_changed { "imported" } else { "was there already" };
    session.tell(&format!("Subscription `{}` of org `{}` {done}", output::printable(&license.id), output::printable(org)))
}

/// The mapping of a file that a tool wrote.
fn in_format(
    session: &Session,
    plain: &Mapping,
    format: Option<&str>,
    file: &Path,
    stop: &watch::Receiver<Option<i32>>,
) -> Result<Mapping> {
    let found = format.map(|name| Format::load(&session.project, name, file, stop)).transpose()?;
    if let (Some(AUTO), Some(found), false) = (format, &found, session.json) {
        session.tell(&format!("{} is in the format `{}`", output::printable(&file.display().to_string()), found.name))?;
    }
    Ok(Mapping { format: found, ..plain.clone() })
}

async fn files(
    session: Session,
    target: &'static Target,
    files: &[PathBuf],
    how: &How,
    format: Option<&str>,
    replace: Option<&str>,
) -> Result<()> {
    let plain = Mapping::parse(target, &how.column, &how.set)?;
    let stop = stop_signal()?;
    let mapping_of = |file: &Path| in_format(&session, &plain, format, file, &stop);
    let (config, clock) = (&session.loaded.config, Clock::system());
    if how.dry_run {
        let prices = config.price_book(&session.project)?;
        for file in files {
            let report = preview_file(config, &clock, &stop, file, &mapping_of(file)?, &prices)?;
            if session.json { output::json(&report)? } else { preview(&session, &report)? }
        }
        return Ok(());
    }
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let mut reports = Vec::new();
    for file in files {
        let report = import_file(&store, config, &clock, &stop, file, &mapping_of(file)?, replace).await?;
        if session.json {
            output::json(&report)?;
        }
        reports.push(report);
    }
    store.close().await;
    if session.json {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| {
            vec![
                report.file.clone(),
                count(report.row_count),
                count(report.inserted_count),
                count(report.known_count),
                count(report.bad_count),
                report.ignored_columns.join(", "),
            ]
        })
        .collect();
    let header = ["file", "rows", "imported", "there already", "bad", "columns not used"];
    session.tell(&output::table(&header, &["rows", "imported", "there already", "bad"], &rows))?;
    for report in &reports {
        bad_rows(report)?;
    }
    for report in reports.iter().filter(|report| report.unfinished_count > 0) {
        let (unfinished, file) = (count(report.unfinished_count), output::printable(&report.file));
        session.tell(&format!("Left out of {file}, as sums of spans that are not over: {unfinished}; export them again later"))?;
    }
    for report in &reports {
        differing(report)?;
        if let Some(replaced) = report.replaced_count {
            session.tell(&format!("{} rows of the import before taken out", count(replaced)))?;
        }
        if let Some(id) = &report.import_id {
            session.tell(&format!("`tallyroll import undo {id}` takes {} out again", output::printable(&report.file)))?;
        }
    }
    if reports.iter().any(|report| report.bad_count > 0) {
        output::line("`tallyroll quarantine list` shows the bad rows; fix them and import the file again")?;
    }
    Ok(())
}

fn differing(report: &ImportReport) -> Result<()> {
    let (Some(line), count) = (report.first_differing_line, report.differing_count) else { return Ok(()) };
    let (was, says) = if count == 1 { ("was", "says") } else { ("were", "say") };
    output::line(&format!(
        "{} of {} {was} there already and {says} something else there, the first in line {line}; that stays: `--replace` puts a file in the \
         place of an import",
        crate::show::counted(count, "event"),
        output::printable(&report.file),
    ))
}

fn bad_rows(report: &ImportReport) -> Result<()> {
    for bad in &report.bad_rows {
        output::line(&output::printable(&format!("{}, line {}: {}", report.file, bad.line, bad.reason)))?;
    }
    Ok(())
}

/// What a file would bring, for a person.
fn preview(session: &Session, report: &ImportReport) -> Result<()> {
    let Some(preview) = &report.preview else { return Ok(()) };
    session.tell(&format!(
        "{}: {} rows, {} of them bad; nothing is imported\n",
        report.file,
        count(report.row_count),
        count(report.bad_count)
    ))?;
    // A field that no row of the first has is in the list of fields alone.
    let filled = |place: usize| preview.rows.iter().any(|row| row.get(place).is_some_and(|cell| !cell.is_empty()));
    let examples: Vec<Vec<String>> = preview
        .mapping
        .iter()
        .enumerate()
        .map(|(place, (field, from))| {
            let values = preview.rows.iter().map(|row| row.get(place).map_or("", String::as_str));
            let shown = if filled(place) {
                values.map(|value| if value.is_empty() { "NULL".to_owned() } else { shorten(value) }).collect::<Vec<_>>().join(" │ ")
            } else {
                String::new()
            };
            vec![(*field).to_owned(), from.clone(), shown]
        })
        .collect();
    output::line(&output::table(&["field", "from", "first rows"], &[], &examples))?;
    if !report.ignored_columns.is_empty() {
        output::line(&output::printable(&format!("\nColumns not used: {}", report.ignored_columns.join(", "))))?;
    }
    if !preview.models.is_empty() {
        let rows: Vec<Vec<String>> = preview
            .models
            .iter()
            .map(|(model, usage)| {
                vec![
                    if model.is_empty() { "(no model)".to_owned() } else { model.clone() },
                    count(usage.event_count),
                    output::grouped(usage.input_tokens),
                    output::grouped(usage.output_tokens),
                    if usage.unpriced_count == usage.event_count { "unknown".to_owned() } else { format_usd(usage.cost_nanos, 6) },
                    count(usage.unpriced_count),
                ]
            })
            .collect();
        let header = ["model", "events", "input tokens", "output tokens", "cost USD", "without a price"];
        output::line(&format!("\n{}", output::table(&header, &header[1..], &rows)))?;
    }
    bad_rows(report)
}
