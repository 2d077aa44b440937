//! `prices`: what models cost, what of the log has no price, and what other prices would make of it.

use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::session::{Session, read_text};
use super::{output, price_import};
use crate::clock::Clock;
use crate::failure::{Failure, did_you_mean};
use crate::import::parse_instant;
use crate::money::format_usd;
use crate::price::{Price, PriceKey, file};
use crate::repricing::{self, Repriced};
use crate::store::format_instant;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Write what LiteLLM's map of prices has changed into the price book, in force from a day on
    #[command(after_help = "The map is `model_prices_and_context_window.json` of LiteLLM's repository, or of its package.\n\n\
        Example:\n  tallyroll prices import model_prices_and_context_window.json --from 2026-01-01 --model 'gpt-*'")]
    Import(price_import::Arguments),
    /// Show the prices of a model
    #[command(after_help = "Example:\n  tallyroll prices show gpt-4o --at 2026-03-01")]
    Show(Show),
    /// List the models that have requests without a known cost
    Missing,
    /// Show what another price book would make of the log, by month, customer and model; nothing is written
    #[command(after_help = "Example:\n  tallyroll prices diff new-prices.toml --from 2026-03-01 --to 2026-04-01")]
    Diff(Diff),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// A model, as the log has it
    model: String,
    /// The instant whose prices to show; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The other price book, a file as `prices.toml` is one
    other: PathBuf,
    /// First day, inclusive
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Last day, exclusive
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
}

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    match what {
        What::Import(arguments) => price_import::run(&session, arguments),
        What::Show(arguments) => show(&session, arguments),
        What::Missing => missing(&session).await,
        What::Diff(arguments) => diff(&session, arguments).await,
    }
}

fn show(session: &Session, arguments: &Show) -> Result<()> {
    let book = session.loaded.config.price_book_or_none(&session.project)?;
    let at = arguments.at.unwrap_or_else(|| Clock::system().now());
    let series = book.of_model(&arguments.model);
    if series.is_empty() {
        let nearest = did_you_mean(&arguments.model, book.series().iter().map(|series| series.key.model.as_str()));
        return Err(Failure::usage(format!("The price book has no price of `{}`{nearest}", arguments.model))
            .hint("`tallyroll prices missing` lists the models of the log that have none")
            .into());
    }
    let in_force: Vec<(&PriceKey, &Price)> = series.iter().filter_map(|series| Some((&series.key, series.at(at)?))).collect();
    if session.json {
        return in_force.iter().try_for_each(|(key, price)| {
            output::json(&json!({
                "model": key.model, "service_tier": key.service_tier,
                "above_input_tokens": key.above_input_tokens, "effective_from": format_instant(price.effective_from),
                "input_usd_per_million": file::usd(price.rates.input), "cached_input_usd_per_million": file::usd(price.rates.cached_input),
                "cache_write_usd_per_million": file::usd(price.rates.cache_write), "output_usd_per_million": file::usd(price.rates.output),
                "reasoning_usd_per_million": file::usd(price.rates.reasoning),
            }))
        });
    }
    if in_force.is_empty() {
        let first = series.iter().filter_map(|series| series.prices.first()).map(|price| price.effective_from).min();
        let since = first.map(|first| format!("; the first is from {first}")).unwrap_or_default();
        return output::line(&format!("No price of `{}` is in force at {at}{since}", output::printable(&arguments.model)));
    }
    let rows: Vec<Vec<String>> = in_force
        .iter()
        .map(|(key, price)| {
            let or_any = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let unless = |rate: i64, other: i64| if rate == other { "-".to_owned() } else { file::usd(rate) };
            vec![
                key.model.clone(),
                or_any(&key.service_tier),
                key.above_input_tokens.map_or("-".to_owned(), output::grouped),
                price.effective_from.date_naive().to_string(),
                file::usd(price.rates.input),
                unless(price.rates.cached_input, price.rates.input),
                unless(price.rates.cache_write, price.rates.input),
                file::usd(price.rates.output),
                unless(price.rates.reasoning, price.rates.output),
            ]
        })
        .collect();
    let header = ["model", "tier", "above", "from", "input", "cached", "write", "output", "reasoning"];
    let if_any = ["tier", "above", "cached", "write", "reasoning"];
    output::line(&output::narrow(session.wide, &header, &header[4..], &rows, &[], &if_any))?;
    output::line("\nUSD per million tokens; `above` counts input tokens. Of an event's prices the most specific one counts")
}

async fn missing(session: &Session) -> Result<()> {
    let context = session.context().await?;
    let found = repricing::missing(&context, &session.loaded.config.price_book_or_none(&session.project)?).await?;
    context.store.close().await;
    if session.json {
        return found.iter().try_for_each(output::json);
    }
    if found.is_empty() {
        return output::line("Every request in `usage_daily` has a known cost");
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|missing| {
            vec![
                missing.model.clone().unwrap_or_else(|| "(no model)".to_owned()),
                output::grouped(missing.unpriced_count),
                output::grouped(missing.tokens),
                missing.first_date.to_string(),
                match (&missing.priced_from, &missing.priced_only_as, &missing.nearest) {
                    (Some(from), ..) => format!("priced from {}", from.date_naive()),
                    (None, Some(key), _) => format!("only {key}"),
                    (None, None, Some(nearest)) => format!("like `{nearest}`?"),
                    (None, None, None) => String::new(),
                },
            ]
        })
        .collect();
    output::line(&output::table(&["model", "requests", "tokens", "since", "in the price book"], &["requests", "tokens"], &rows))?;
    output::line("\nA price needs the tokens in and out; add it to the price book, and the next run rates its days")
}

async fn diff(session: &Session, arguments: &Diff) -> Result<()> {
    let other = file::parse(&read_text(&arguments.other)?, &arguments.other.display().to_string())?;
    let context = session.context().await?;
    let found = repricing::diff(&context, other, arguments.from, arguments.to, context.clock.now()).await?;
    context.store.close().await;
    let mut total = Repriced::default();
    for cost in found.values() {
        total.add(cost);
    }
    let changed: Vec<_> = found.iter().filter(|(_, cost)| cost.is_changed()).collect();
    if session.json {
        for (subject, cost) in &changed {
            let mut line = serde_json::to_value(subject)?;
            if let (Some(line), serde_json::Value::Object(cost)) = (line.as_object_mut(), serde_json::to_value(cost)?) {
                line.extend(cost);
            }
            output::json(&line)?;
        }
        return Ok(());
    }
    if total.request_count == 0 {
        return output::line("There are no events of those days");
    }
    if changed.is_empty() {
        return output::line(&format!("It costs the same: {}", usd(total.nanos)));
    }
    let row = |[month, customer, model]: [String; 3], cost: &Repriced| {
        let difference = cost.nanos.zip(cost.other_nanos).map_or_else(String::new, |(now, then)| signed(then - now));
        vec![month, customer, model, output::grouped(cost.request_count), usd(cost.nanos), usd(cost.other_nanos), difference]
    };
    let shown = changed.iter().take(DIFFERENCES_SHOWN).map(|(subject, cost)| {
        let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
        let month = subject.usage_month.format("%Y-%m").to_string();
        row([month, or(&subject.customer_id, "(none)"), or(&subject.model, "(no model)")], cost)
    });
    let mut rows: Vec<Vec<String>> = shown.collect();
    rows.push(row(["all".to_owned(), String::new(), String::new()], &total));
    let header = ["month", "customer", "model", "requests", "cost USD", "other USD", "difference"];
    output::line(&output::table(&header, &header[3..], &rows))?;
    if changed.len() > DIFFERENCES_SHOWN {
        output::line(&format!("… and {} more; `--json` lists them all", changed.len() - DIFFERENCES_SHOWN))?;
    }
    if total.unpriced_count + total.other_unpriced_count > 0 {
        output::line(&format!(
            "Without a known cost: {} requests now, {} with the other",
            output::grouped(total.unpriced_count),
            output::grouped(total.other_unpriced_count)
        ))?;
    }
    Ok(())
}

const DIFFERENCES_SHOWN: usize = 50;

fn usd(nanos: Option<i128>) -> String {
    nanos.map_or("unknown".to_owned(), |nanos| format_usd(nanos, 6))
}

fn signed(nanos: i128) -> String {
    format!("{}{}", if nanos > 0 { "+" } else { "" }, format_usd(nanos, 6))
}
