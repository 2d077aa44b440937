//! `import`: files into the source tables.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::license::read_license;
use super::output;
use super::session::{Session, read_text, stop_signal};
use crate::clock::Clock;
use crate::import::{Mapping, SEATS, SUBSCRIPTIONS, Target, USAGE, import_file, import_license};
use crate::license;
use crate::store::Create;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Usage events, into `ai_usage_log`
    #[command(
        after_help = "Example:\n  tallyroll import usage trace.csv --column occurred_at=TIMESTAMP --column input_tokens=ContextTokens \\\n    \
        --set user_id=00000000-0000-0000-0000-000000000001 --set model=gpt-4o"
    )]
    Usage(Arguments),
    /// Rows of the seat ledger, into `seat_usage_event`
    #[command(after_help = "Columns: id, org_id, seat_type (`total` unless given), seats, occurred_at, reason\n\n\
        Example:\n  tallyroll import seats ledger.csv")]
    Seats(Arguments),
    /// Subscriptions, from files or from a signed licence; one that is there already takes what the file says now
    #[command(after_help = "Columns: id, org_id, plan, committed_seats, start_at, end_at, license_id\n\n\
        Examples:\n  tallyroll import subscriptions subscriptions.csv\n  \
        tallyroll import subscriptions --license acme.json --public-key vendor.pem --org 42")]
    Subscriptions(Subscriptions),
}

#[derive(Debug, Args)]
pub(super) struct Subscriptions {
    /// Files: .csv with a header, .jsonl with one object per line, or .parquet
    #[arg(required_unless_present = "license")]
    files: Vec<PathBuf>,
    /// Take a field from a column of another name
    #[arg(long, value_name = "FIELD=HEADER")]
    column: Vec<String>,
    /// Give every row the same value
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// A signed offline licence, in place of files
    #[arg(long, value_name = "FILE", conflicts_with = "files", requires_all = ["public_key", "org"])]
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

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    match what {
        What::Usage(arguments) => files(session, &USAGE, &arguments.files, &arguments.column, &arguments.set).await,
        What::Seats(arguments) => files(session, &SEATS, &arguments.files, &arguments.column, &arguments.set).await,
        What::Subscriptions(Subscriptions { license: Some(license), public_key: Some(key), org: Some(org), .. }) => {
            from_license(&session, license, key, org).await
        }
        What::Subscriptions(arguments) => files(session, &SUBSCRIPTIONS, &arguments.files, &arguments.column, &arguments.set).await,
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

async fn files(session: Session, target: &'static Target, files: &[PathBuf], columns: &[String], constants: &[String]) -> Result<()> {
    let mapping = Mapping::parse(target, columns, constants)?;
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let stop = stop_signal()?;
    let mut rows = Vec::new();
    let mut bad_lines = Vec::new();
    for file in files {
        let report = import_file(&store, &session.loaded.config, &Clock::system(), &stop, file, &mapping).await?;
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
    session.tell(&output::table(&header, &["rows", "imported", "there already", "bad"], &rows))?;
    for bad in &bad_lines {
        output::line(&output::printable(bad))?;
    }
    if !bad_lines.is_empty() {
        output::line("Bad rows are kept in `quarantined_event`; fix them and import the file again")?;
    }
    Ok(())
}
