//! `prices.toml`: read, and written to.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::Deserialize;

use super::book::PriceBook;
use super::{Price, PriceKey, Rates, tier_of};
use crate::failure::{self, Failure};
use crate::money;

const EXAMPLE: &str = "an entry looks like this:
  [[price]]
  model = \"gpt-4o\"
  effective_from = \"2026-01-01\"
  input_usd_per_million = \"2.50\"
  output_usd_per_million = \"10\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    #[serde(default)]
    price: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    provider: Option<String>,
    service_tier: Option<String>,
    above_input_tokens: Option<toml::Value>,
    effective_from: toml::Value,
    input_usd_per_million: toml::Value,
    cached_input_usd_per_million: Option<toml::Value>,
    cache_write_usd_per_million: Option<toml::Value>,
    output_usd_per_million: toml::Value,
    reasoning_usd_per_million: Option<toml::Value>,
}

/// Reads `prices.toml`.
///
/// # Errors
/// Names the entry and the field: an unknown key, a price that is no exact decimal, a date that is none, two prices of one
/// model, provider, tier and size from the same instant.
pub fn parse(text: &str, path: &str) -> Result<PriceBook> {
    let file: PriceFile = toml::from_str(text)
        .map_err(|error| Failure::config(format!("`{path}` is not a price book: {}", failure::toml_text(text, &error))).hint(EXAMPLE))?;
    let mut book: BTreeMap<PriceKey, Vec<Price>> = BTreeMap::new();
    let mut places: HashMap<(PriceKey, DateTime<Utc>), usize> = HashMap::new();
    for (index, entry) in file.price.into_iter().enumerate() {
        let place = format!("`{path}`, price {} (`{}`)", index + 1, entry.model);
        let (key, price) = entry.read().map_err(|error| Failure::config(format!("{place}: {error:#}")).hint(EXAMPLE))?;
        if let Some(other) = places.insert((key.clone(), price.effective_from), index + 1) {
            return Err(Failure::config(format!(
                "{place}: a second price from {}: it is as specific as price {other}",
                price.effective_from
            ))
            .hint("keep one of the two")
            .into());
        }
        book.entry(key).or_default().push(price);
    }
    for prices in book.values_mut() {
        prices.sort_by_key(|price| price.effective_from);
    }
    Ok(PriceBook::of(book))
}

impl Entry {
    fn read(&self) -> Result<(PriceKey, Price)> {
        for (key, text) in
            [("model", Some(&self.model)), ("provider", self.provider.as_ref()), ("service_tier", self.service_tier.as_ref())]
        {
            if text.is_some_and(|text| text.trim().is_empty()) {
                bail!("`{key}` is empty");
            }
        }
        if self.model.trim_end_matches('*').contains('*') || self.model.ends_with("**") {
            bail!("a `*` in `model` stands at its end alone");
        }
        let above_input_tokens = match &self.above_input_tokens {
            None => None,
            Some(toml::Value::Integer(tokens)) if *tokens > 0 => Some(*tokens),
            Some(other) => bail!("`above_input_tokens` = {other} is no whole number of tokens above 0"),
        };
        let optional = |key: &str, value: &Option<toml::Value>, or: i64| value.as_ref().map_or(Ok(or), |value| rate(key, value));
        let input = rate("input_usd_per_million", &self.input_usd_per_million)?;
        let output = rate("output_usd_per_million", &self.output_usd_per_million)?;
        let rates = Rates {
            input,
            cached_input: optional("cached_input_usd_per_million", &self.cached_input_usd_per_million, input)?,
            cache_write: optional("cache_write_usd_per_million", &self.cache_write_usd_per_million, input)?,
            output,
            reasoning: optional("reasoning_usd_per_million", &self.reasoning_usd_per_million, output)?,
        };
        // `gpt-4o` of the provider azure, and `azure/gpt-4o`, are the same.
        let model = match &self.provider {
            Some(provider) if !self.model.starts_with(&format!("{provider}/")) => format!("{provider}/{}", self.model),
            _ => self.model.clone(),
        };
        let key = PriceKey { model, service_tier: self.service_tier.as_deref().map(tier_of), above_input_tokens };
        Ok((key, Price { effective_from: instant(&self.effective_from)?, rates }))
    }
}

fn rate(key: &str, value: &toml::Value) -> Result<i64> {
    let nanos = match value {
        toml::Value::String(text) if decimal_places(text) > 9 => {
            bail!("`{key}` is \"{text}\", and a price has at most nine decimal places")
        }
        toml::Value::String(text) => money::parse_usd_nanos(text).with_context(|| format!("`{key}` is \"{text}\""))?,
        toml::Value::Integer(usd) => usd.checked_mul(money::NANOS_PER_USD).with_context(|| format!("`{key}` is too large"))?,
        toml::Value::Float(usd) => bail!("`{key}` = {usd} is a float, which cannot hold every price: write it in quotes"),
        other => bail!("`{key}` is a {}, not a price", other.type_str()),
    };
    if nanos < 0 {
        bail!("`{key}` is negative");
    }
    Ok(nanos)
}

/// How many decimal places a number needs; 0 of what is none.
fn decimal_places(text: &str) -> i64 {
    let (mantissa, exponent) = text.trim().split_once(['e', 'E']).unwrap_or((text.trim(), "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    if digits.trim_matches(['0', '+', '-']).is_empty() {
        return 0;
    }
    let places = |text: usize| i64::try_from(text).unwrap_or(i64::MAX);
    places(fraction.len()).saturating_sub(places(zeros)).saturating_sub(exponent.parse().unwrap_or(0))
}

fn instant(value: &toml::Value) -> Result<DateTime<Utc>> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Datetime(datetime) => datetime.to_string(),
        other => bail!("`effective_from` is a {}, not a date", other.type_str()),
    };
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let instant = DateTime::parse_from_rfc3339(&text)
        .with_context(|| format!("`effective_from` = \"{text}\" is neither a date nor an instant with a zone"))?;
    Ok(instant.with_timezone(&Utc))
}

/// One entry of `prices.toml`, as [`parse`] reads it.
#[must_use]
pub fn entry(key: &PriceKey, price: &Price) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!("[[price]]\nmodel = {}\n", quoted(&key.model));
    if let Some(tier) = &key.service_tier {
        let _ = writeln!(text, "service_tier = {}", quoted(tier));
    }
    if let Some(above) = key.above_input_tokens {
        let _ = writeln!(text, "above_input_tokens = {above}");
    }
    let Price { effective_from, rates } = price;
    let midnight = effective_from.time() == chrono::NaiveTime::MIN;
    let from = if midnight { effective_from.date_naive().to_string() } else { effective_from.to_rfc3339_opts(SecondsFormat::AutoSi, true) };
    let _ = writeln!(text, "effective_from = \"{from}\"");
    for (name, nanos, unless) in [
        ("input", rates.input, None),
        ("cached_input", rates.cached_input, Some(rates.input)),
        ("cache_write", rates.cache_write, Some(rates.input)),
        ("output", rates.output, None),
        ("reasoning", rates.reasoning, Some(rates.output)),
    ] {
        if unless != Some(nanos) {
            let _ = writeln!(text, "{name}_usd_per_million = \"{}\"", usd(nanos));
        }
    }
    text
}

/// USD with as many digits as it needs.
#[must_use]
pub fn usd(nanos: i64) -> String {
    let text = money::format_usd(nanos.into(), 9);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
