//! `reconcile`: every result against what it was made from.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;

use super::output;
use super::session::Session;
use crate::import::parse_instant;
use crate::reconcile::{self, Range};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// First day of the raw log to compare, inclusive
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Last day, exclusive
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// The instant to look as of; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
}

/// Differences that a person is shown.
const SHOWN: usize = 20;

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let context = session.context().await?;
    let range = Range { from: arguments.from, to: arguments.to };
    let report = reconcile::run(&context, &range, arguments.as_of.unwrap_or_else(|| context.clock.now())).await?;
    context.store.close().await;
    if session.json {
        output::json(&report)?;
    } else {
        let rows: Vec<Vec<String>> = report
            .checks
            .iter()
            .map(|check| {
                let result = if check.difference_count == 0 { "agree".to_owned() } else { format!("{} differ", check.difference_count) };
                vec![check.name.to_owned(), check.description.to_owned(), output::grouped(check.compared_count), result]
            })
            .collect();
        output::line(&output::table(&["check", "what", "compared", "result"], &["compared"], &rows))?;
        for difference in report.differences.iter().take(SHOWN) {
            let text = format!(
                "\n{}, {}: {}\n  should be {}\n  is        {}\n  look at   {}",
                difference.check, difference.window, difference.subject, difference.expected, difference.found, difference.query
            );
            output::line(&output::printable(&text))?;
        }
        if report.differences.len() > SHOWN {
            output::line(&format!("\n… and {} more; `--json` lists them all", report.differences.len() - SHOWN))?;
        }
    }
    report.failure().map_or(Ok(()), Err)
}
