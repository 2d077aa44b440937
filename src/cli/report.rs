//! `report`: what a person sends on.

use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

use super::output;
use super::session::{Session, read_text};
use crate::ai_seats::AiSeat;
use crate::clock::Clock;
use crate::import::parse_instant;
use crate::license;
use crate::seat_report::SubscriptionMonths;
use crate::seats::TOTAL;
use crate::source::ledger::SeatSource;
use crate::store::Create;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// The peak of each completed month of a subscription
    #[command(after_help = "Examples:\n  tallyroll report seats --subscription acme-2026\n  \
        tallyroll report seats --subscription acme-2026 --format json --sign report-key.pem > report.json")]
    Seats(Arguments),
    /// Who has an AI seat, and when it was last used
    #[command(after_help = "Example:\n  tallyroll report ai-seats --org 42 --json")]
    AiSeats(AiArguments),
}

#[derive(Debug, Args)]
pub(super) struct AiArguments {
    /// Only the seats of this org
    #[arg(long)]
    org: Option<String>,
    /// How many, those used last first
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The subscription's id
    #[arg(long)]
    subscription: String,
    /// How to print it; `--json` is `--format json`
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Sign the JSON report with this Ed25519 private key (PEM): the signature stands last, as `sig`
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// The instant the ledger is read as of; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    let arguments = match what {
        What::Seats(arguments) => arguments,
        What::AiSeats(arguments) => return ai_seats(session, arguments).await,
    };
    let as_of = arguments.as_of.unwrap_or_else(|| Clock::system().now());
    let key = arguments.sign.as_deref().map(read_text).transpose()?;
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let source = SeatSource::load(&session.project, store.engine())?;
    let months = SubscriptionMonths::read(&mut store.begin_read().await?, &source, &arguments.subscription, TOTAL, as_of).await?;
    store.close().await;
    let report = months.report(as_of)?;
    let format = if session.json || key.is_some() { Format::Json } else { arguments.format };
    match (format, key) {
        (Format::Json, Some(key)) => {
            let text = serde_json::to_string(&report)?;
            let signature = license::sign(&text, &key)?;
            output::line(&format!("{},\"sig\":\"{signature}\"}}", text.trim_end_matches('}')))
        }
        (Format::Json, None) => output::json(&report),
        (Format::Csv, _) => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["month_number", "window_start", "window_end", "peak_provisioned", "peak_at", "coverage"])?;
            for month in &report.months {
                let (number, peak) = (month.month_number.to_string(), month.peak_provisioned.to_string());
                let peak_at = month.peak_at.as_deref().unwrap_or_default();
                writer.write_record([&number, &month.window_start, &month.window_end, &peak, peak_at, month.coverage])?;
            }
            let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
            output::line(String::from_utf8_lossy(&bytes).trim_end())
        }
        (Format::Table, _) => {
            let rows: Vec<Vec<String>> = report
                .months
                .iter()
                .map(|month| {
                    vec![
                        month.month_number.to_string(),
                        month.window_start.clone(),
                        month.window_end.clone(),
                        if month.coverage == "none" { "unknown".to_owned() } else { output::grouped(month.peak_provisioned) },
                        month.peak_at.clone().unwrap_or_else(|| "-".to_owned()),
                        month.coverage.to_owned(),
                    ]
                })
                .collect();
            if rows.is_empty() {
                return output::line("No month of the subscription has ended yet");
            }
            output::line(&output::table(&["month", "from", "to", "peak", "peak at", "coverage"], &["month", "peak"], &rows))
        }
    }
}

async fn ai_seats(session: Session, arguments: &AiArguments) -> Result<()> {
    let now = Clock::system().now();
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let limit = i64::from(arguments.limit);
    let mut seats = AiSeat::read(&mut store.begin_read().await?, arguments.org.as_deref(), 0, limit + 1).await?;
    store.close().await;
    let is_cut = seats.len() > usize::try_from(limit)?;
    seats.truncate(usize::try_from(limit)?);
    if session.json {
        return seats.iter().try_for_each(output::json);
    }
    if seats.is_empty() {
        return output::line("Nobody has an AI seat");
    }
    let cut = |text: &str| text.chars().take(40).collect::<String>();
    let row = |seat: &AiSeat| {
        vec![
            cut(seat.email.as_deref().unwrap_or(&seat.user_id)),
            cut(seat.org_id.as_deref().unwrap_or("-")),
            seat.first_used_at.format("%Y-%m-%d").to_string(),
            seat.last_used_at.format("%Y-%m-%d %H:%M").to_string(),
            output::grouped(seat.days_ago(now)),
            cut(&seat.last_event_type),
        ]
    };
    let header = ["user", "org", "since", "last used (UTC)", "days ago", "for"];
    output::line(&output::table(&header, &["days ago"], &seats.iter().map(row).collect::<Vec<_>>()))?;
    if is_cut { output::line(&format!("The {limit} used last; `--limit` shows more")) } else { Ok(()) }
}
