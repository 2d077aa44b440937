//! LiteLLM's map of prices, `model_prices_and_context_window.json`, as prices of ours.
//!
//! Prices are read as the decimals that they are written as, never through a float. A field is a kind of token, beside it perhaps a
//! size (`_above_200k_tokens`) and a tier (`_batches`, `_flex`, `_priority`).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::book::PriceBook;
use super::{Price, PriceKey, Rates};
use crate::failure::Failure;
use crate::money;

/// What a map comes to.
#[derive(Debug, Default)]
pub struct PriceMap {
    /// Models that the map has.
    pub entry_count: u64,
    pub prices: BTreeMap<PriceKey, Rates>,
    /// Models of which a part is not expressed, and how often each field is that part.
    pub partial_count: u64,
    pub unused_fields: BTreeMap<String, u64>,
    /// Models that are not expressed at all, by why.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Prices with more than nine digits after the point of USD per million, and so rounded.
    pub rounded_count: usize,
}

const INPUT: &str = "input_cost_per_token";
const CACHED_INPUT: &str = "cache_read_input_token_cost";
const CACHE_WRITE: &str = "cache_creation_input_token_cost";
const OUTPUT: &str = "output_cost_per_token";
const REASONING: &str = "output_cost_per_reasoning_token";
const KINDS: [&str; 5] = [INPUT, CACHED_INPUT, CACHE_WRITE, OUTPUT, REASONING];

/// How the map ends a field of a tier, and the tier's name.
const TIERS: [(&str, &str); 3] = [("_batches", "batch"), ("_flex", "flex"), ("_priority", "priority")];

/// Not a model: what the map's own fields are.
const SAMPLE: &str = "sample_spec";

/// What a field is the price of.
type Part = (&'static str, Option<i64>, Option<&'static str>);

impl PriceMap {
    /// Reads the map.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data for a file that is no such map, or a price that is no number; it names the model and the field.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let models: BTreeMap<String, BTreeMap<String, Box<RawValue>>> = serde_json::from_str(text).map_err(|error| {
            Failure::bad_data(format!("`{path}` is not LiteLLM's map of prices"))
                .hint("it is `model_prices_and_context_window.json` of LiteLLM's repository, a JSON object of models")
                .caused_by(error)
        })?;
        let mut map = Self::default();
        for (model, fields) in models.into_iter().filter(|(model, _)| model != SAMPLE) {
            map.entry_count += 1;
            map.take(&model, &fields).map_err(|error| Failure::bad_data(format!("`{path}`, `{model}`: {error:#}")))?;
        }
        Ok(map)
    }

    fn take(&mut self, model: &str, fields: &BTreeMap<String, Box<RawValue>>) -> Result<()> {
        let mut parts: BTreeMap<Part, i64> = BTreeMap::new();
        let mut unused = BTreeSet::new();
        let is_price = |field: &str| field.contains("cost") || field.contains("pric");
        for (field, value) in fields.iter().filter(|(field, value)| is_price(field) && value.get() != "null") {
            if let Some(part) = part_of(field) {
                let price = self.price(value.get()).with_context(|| format!("`{field}` is {}", value.get()))?;
                parts.insert(part, price);
            } else if field == "tiered_pricing" {
                for tier in serde_json::from_str::<Vec<BTreeMap<String, Box<RawValue>>>>(value.get()).context("`tiered_pricing`")? {
                    let Some(above) = lower_bound(&tier) else {
                        unused.insert(field.clone());
                        continue;
                    };
                    for (field, value) in &tier {
                        if let Some((kind, None, service_tier)) = part_of(field) {
                            parts.insert((kind, (above > 0).then_some(above), service_tier), self.price(value.get())?);
                        }
                    }
                }
            } else if value.get() != "0.0" && value.get() != "0" {
                unused.insert(field.clone());
            }
        }
        // What embeds gives no tokens back.
        if fields.get("mode").is_some_and(|mode| mode.get() == r#""embedding""#) && parts.contains_key(&(INPUT, None, None)) {
            parts.entry((OUTPUT, None, None)).or_insert(0);
        }
        let mut prices = rates_of(&parts);
        // Free tokens beside another price: it is billed otherwise.
        let is_free = prices.values().all(|rates| *rates == Rates::plain(0, 0));
        if is_free && !unused.is_empty() {
            prices.clear();
        }
        if model.contains('*') {
            *self.left_out.entry("its name is no model's").or_default() += 1;
        } else if prices.is_empty() {
            *self
                .left_out
                .entry(if unused.is_empty() { "it has no price" } else { "it has no price of tokens in and out" })
                .or_default() += 1;
        } else {
            self.partial_count += u64::from(!unused.is_empty());
            for field in unused {
                *self.unused_fields.entry(field).or_default() += 1;
            }
            self.prices.extend(prices.into_iter().map(|((above_input_tokens, tier), rates)| {
                (PriceKey { model: model.to_owned(), service_tier: tier.map(str::to_owned), above_input_tokens }, rates)
            }));
        }
        Ok(())
    }

    /// USD for a token, as nano-USD for a million.
    fn price(&mut self, text: &str) -> Result<i64> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().context("no price")?;
        let per_million = |digits: i32| money::parse_usd_nanos(&format!("{mantissa}e{}", exponent.saturating_add(6 + digits)));
        let nanos = per_million(0)?;
        if nanos < 0 {
            anyhow::bail!("a price is not negative");
        }
        // Six digits more show whether any was lost; a price that has no room for them in 64 bits has none.
        if per_million(6).is_ok_and(|longer| longer != nanos * 1_000_000) {
            self.rounded_count += 1;
        }
        Ok(nanos)
    }
}

/// What a map adds to a book.
#[derive(Debug, Default)]
pub struct Additions {
    pub new: Vec<(PriceKey, Price)>,
    /// Prices that the book has already.
    pub unchanged_count: u64,
    /// Keys of which the book has another price from the very instant.
    pub conflicts: Vec<PriceKey>,
}

impl PriceMap {
    /// What a book lacks of this map's prices from an instant on, of the models that `glob` names (`*` stands for anything).
    #[must_use]
    pub fn additions(&self, book: &PriceBook, from: DateTime<Utc>, glob: Option<&str>) -> Additions {
        let mut additions = Additions::default();
        for (key, rates) in self.prices.iter().filter(|(key, _)| glob.is_none_or(|glob| matches(glob, &key.model))) {
            let known = book.series_of(key).and_then(|series| series.at(from));
            match known {
                Some(known) if known.rates == *rates => additions.unchanged_count += 1,
                Some(known) if known.effective_from == from => additions.conflicts.push(key.clone()),
                _ => additions.new.push((key.clone(), Price { effective_from: from, rates: *rates })),
            }
        }
        additions
    }
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((beginning, rest)) => text
            .strip_prefix(beginning)
            .is_some_and(|text| rest.is_empty() || (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| matches(rest, text)))),
    }
}

/// What a field is the price of, if it is one of tokens.
fn part_of(field: &str) -> Option<Part> {
    let kind = KINDS.into_iter().find(|kind| field.starts_with(kind))?;
    let (size, tier) = TIERS
        .into_iter()
        .find_map(|(end, tier)| Some((field[kind.len()..].strip_suffix(end)?, Some(tier))))
        .unwrap_or((&field[kind.len()..], None));
    if size.is_empty() {
        return Some((kind, None, tier));
    }
    let thousands: i64 = size.strip_prefix("_above_")?.strip_suffix("k_tokens")?.parse().ok()?;
    Some((kind, Some(thousands.checked_mul(1_000)?), tier))
}

/// Above how many input tokens an entry of `tiered_pricing` counts: 0 for the first.
fn lower_bound(tier: &BTreeMap<String, Box<RawValue>>) -> Option<i64> {
    let range: Vec<Box<RawValue>> = serde_json::from_str(tier.get("range")?.get()).ok()?;
    let tokens: f64 = range.first()?.get().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 10^15")]
    (tokens.fract() == 0.0 && (0.0..1e15).contains(&tokens)).then_some(tokens as i64)
}

/// The rates of each size and tier for which the map has a price in and out. What it does not say for one, it says for all.
fn rates_of(parts: &BTreeMap<Part, i64>) -> BTreeMap<(Option<i64>, Option<&'static str>), Rates> {
    let of = |kind, above, tier| {
        let places = [(above, tier), (above, None), (None, tier), (None, None)];
        places.into_iter().find_map(|(above, tier)| parts.get(&(kind, above, tier)).copied())
    };
    let sizes: BTreeSet<_> =
        parts.keys().filter(|(kind, ..)| [INPUT, OUTPUT].contains(kind)).map(|(_, above, tier)| (*above, *tier)).collect();
    let rates = sizes.into_iter().filter_map(|(above, tier)| {
        let (input, output) = (of(INPUT, above, tier)?, of(OUTPUT, above, tier)?);
        let or = |kind, or| of(kind, above, tier).unwrap_or(or);
        let rates = Rates {
            input,
            cached_input: or(CACHED_INPUT, input),
            cache_write: or(CACHE_WRITE, input),
            output,
            reasoning: or(REASONING, output),
        };
        Some(((above, tier), rates))
    });
    rates.collect()
}
