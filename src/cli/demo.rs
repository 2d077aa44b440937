//! `demo`: everything once, on made-up data.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chrono::{Datelike as _, NaiveDate};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::output;
use super::session::{Global, Session};
use crate::clock::Clock;
use crate::demo;
use crate::engine::report::Binding;
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::money::format_usd;
use crate::run;
use crate::store::{Create, Row};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder to make
    #[arg(long, default_value = "tallyroll-demo", value_parser = output::local_folder)]
    dir: PathBuf,
    /// Events in the log
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    events: u64,
    /// The day that the log ends before; today unless set, or the day that the folder was made for
    #[arg(long, value_name = "DAY")]
    as_of: Option<NaiveDate>,
    /// Another seed gives another log
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) async fn run(global: Global, arguments: &Arguments) -> Result<()> {
    let dir = &arguments.dir;
    let as_of = make_folder(dir, arguments)?;
    let session = Session::load(&Global { project: dir.clone(), database_url: Some("sqlite://tallyroll.db".into()), ..global })?;
    let store = session.open(Create::IfMissing).await?;
    store.migrate(false).await?;
    demo::write(&store, arguments.events, arguments.seed, as_of).await?;
    store.close().await;

    let context = session.context().await?;
    let request = Request { as_of: demo::start_of(as_of), downstream: true, ..Request::default() };
    for name in ["usage_daily", "peak_seats"] {
        let job = context.jobs.get(name)?;
        let reports = run::run(&context, job, &request, &Binding::default()).await?;
        if let Some(failure) = reports.into_iter().find_map(|report| report.failure) {
            return Err(failure);
        }
    }
    let peaks = context.store.query(PEAKS, &[]).await?;
    let summary = context.store.query(SUMMARY, &[]).await?;
    let quarantined = context.store.query("SELECT COUNT(*) AS row_count FROM quarantined_event", &[]).await?;
    let quarantined = quarantined.first().map_or(Ok(0), |row| row.int("row_count"))?;
    context.store.close().await;

    let rows = summary_rows(&session, &summary)?;
    let peak_rows = peak_rows(&session, &peaks)?;
    if session.json {
        return Ok(());
    }
    let header = ["month", "days", "users", "customers", "requests", "unpriced", "tokens", "cost USD"];
    output::line(&output::table(&header, &header[1..], &rows))?;
    let header = ["billing month", "state", "subscriptions", "peak seats", "above committed", "not covered"];
    output::line("")?;
    output::line(&output::table(&header, &header[2..], &peak_rows))?;
    let shown = dir.display();
    // As it was called: right after a build nothing is on the PATH.
    let program = std::env::args().next().unwrap_or_else(|| "tallyroll".to_owned());
    output::line(&format!(
        "In quarantine, and in no total: {} with a negative latency.\n\n\
         Settings   {shown}/tallyroll.toml\nPrices     {shown}/prices.toml\nDatabase   {shown}/tallyroll.db\nParquet    {shown}/out\n\n\
         Try next:\n  {program} -C {shown} explain peak-seats --subscription acme-freight --month-number 4\n  \
         {program} -C {shown} verify --as-of {as_of}\n  {program} -C {shown} serve",
        output::counted(quarantined, "event")
    ))
}

/// One row a month and one for all of them, from the summaries.
const SUMMARY: &str = include_str!("../../sql/demo_summary.sql");

/// One row a billing month.
const PEAKS: &str = include_str!("../../sql/demo_peaks.sql");

/// What a demo was made of, kept beside its database.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    events: u64,
    seed: u64,
    as_of: NaiveDate,
}

/// The folder with its settings, and the day that its log ends before; one that holds another database is refused.
fn make_folder(dir: &Path, arguments: &Arguments) -> Result<NaiveDate> {
    let database = dir.join("tallyroll.db");
    let stamp = dir.join("demo.json");
    let known = fs::read_to_string(&stamp).ok().and_then(|text| serde_json::from_str::<Stamp>(&text).ok());
    let as_of = arguments.as_of.or(known.as_ref().map(|known| known.as_of)).unwrap_or_else(|| Clock::system().now().date_naive());
    if !(2001..=9_998).contains(&as_of.year()) {
        return Err(Failure::usage(format!("A demo cannot be of {as_of}")).hint("name a day of the years 2001 to 9998").into());
    }
    let made_of = Stamp { events: arguments.events, seed: arguments.seed, as_of };
    if database.exists() && known.as_ref() != Some(&made_of) {
        return Err(Failure::usage(format!("`{}` holds another database", dir.display()))
            .hint("choose another folder with `--dir`, or remove that one")
            .into());
    }
    fs::create_dir_all(dir).with_context(|| format!("Failed to make `{}`", dir.display()))?;
    write_if_missing(
        &dir.join("tallyroll.toml"),
        "[database]\nurl = \"sqlite://tallyroll.db\"\n\n[quarantine]\n# A demo's quiet days are small, and one bad row is a large share of one.\nmax_ratio = 0.25\n",
    )?;
    write_if_missing(&dir.join("prices.toml"), &demo::prices(as_of))?;
    fs::write(&stamp, serde_json::to_string(&made_of)?)?;
    Ok(as_of)
}

/// The lines of the table of months; printed here as JSON, where that is asked for.
fn summary_rows(session: &Session, summary: &[Row]) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for row in summary {
        let count = |column: &str| row.int(column).map(output::grouped);
        let cost = format_usd(row.int("total_cost_nanos")?.into(), 6);
        let month = row.text("month")?;
        if session.json {
            output::json(&json!({
                "month": month, "days": row.int("days")?, "users": row.int("users")?, "customers": row.int("customers")?,
                "requests": row.int("requests")?, "unpriced": row.int("unpriced")?, "total_tokens": row.int("total_tokens")?, "cost_usd": cost,
            }))?;
        }
        rows.push(vec![
            month,
            count("days")?,
            count("users")?,
            count("customers")?,
            count("requests")?,
            count("unpriced")?,
            count("total_tokens")?,
            cost,
        ]);
    }
    Ok(rows)
}

/// The lines of the table of billing months; printed here as JSON, where that is asked for.
fn peak_rows(session: &Session, peaks: &[Row]) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for row in peaks {
        if session.json {
            output::json(&json!({
                "billing_month": row.text("billing_month")?, "state": row.text("state")?, "subscriptions": row.int("subscriptions")?,
                "peak_seats": row.int("peak_seats")?, "overage_seats": row.int("overage_seats")?, "not_covered": row.int("not_covered")?,
            }))?;
        }
        let mut cells = vec![row.text("billing_month")?, row.text("state")?];
        for column in ["subscriptions", "peak_seats", "overage_seats", "not_covered"] {
            cells.push(output::grouped(row.int(column)?));
        }
        rows.push(cells);
    }
    Ok(rows)
}

fn write_if_missing(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("Failed to write `{}`", path.display()))
}
