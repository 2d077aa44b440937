//! What an import would do, before it does. Pure.

use std::collections::BTreeMap;
use std::convert::Infallible;

use serde::{Serialize, Serializer};

use super::target::{Target, USAGE};
use crate::money::format_usd;
use crate::price::book::PriceBook;
use crate::price::{Cost, CostRules, Tokens, price_at};
use crate::store::{Value, format_instant};

/// Rows that are shown as they would go in.
const SHOWN_ROWS: usize = 5;

/// What a file would bring.
#[derive(Debug, Default, Serialize)]
pub struct Preview {
    /// Each field, and where it comes from.
    pub mapping: Vec<(&'static str, String)>,
    /// The first rows, in the order of the fields; an empty one is NULL.
    pub rows: Vec<Vec<String>>,
    /// Of usage events, by model; events without one under an empty name.
    pub models: BTreeMap<String, ModelUsage>,
}

/// What the events of one model come to.
#[derive(Debug, Default, Serialize)]
pub struct ModelUsage {
    pub event_count: u64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// Of the events whose cost is known, in nano-USD; in JSON as USD.
    #[serde(rename = "total_cost_usd", serialize_with = "as_usd")]
    pub cost_nanos: i128,
    pub unpriced_count: u64,
}

impl Preview {
    pub(super) fn add(&mut self, target: &Target, values: &[Value], rules: CostRules, prices: &PriceBook) {
        if self.rows.len() < SHOWN_ROWS {
            self.rows.push(values.iter().map(shown).collect());
        }
        if target.table != USAGE.table {
            return;
        }
        let of = |name: &str| target.fields.iter().position(|field| field.name == name).and_then(|place| values.get(place));
        let tokens = |name: &str| if let Some(Value::Int(count)) = of(name) { *count } else { 0 };
        let text = |name: &str| if let Some(Value::Text(text)) = of(name) { Some(text.as_str()) } else { None };
        let of_event = Tokens {
            input: tokens("input_tokens"),
            cached_input: tokens("cached_input_tokens"),
            cache_write: tokens("cache_write_tokens"),
            output: tokens("output_tokens"),
            reasoning: tokens("reasoning_tokens"),
        };
        let model = text("model").unwrap_or_default();
        let logged = if let Some(Value::Nanos(nanos)) = of("total_cost_usd") { Some(*nanos) } else { None };
        let rate = || {
            let Some(Value::Instant(at)) = of("occurred_at") else { return None };
            let total = if let Some(Value::Int(total)) = of("total_tokens") { Some(*total) } else { None };
            if !of_event.can_be_rated(total) {
                return None;
            }
            let prices = prices.candidates(text("model")?, text("provider"), text("service_tier"));
            price_at(&prices, *at, of_event.input)?.rates.rate(&of_event)
        };
        let logged = Cost { input: None, output: None, total: logged };
        let cost = rules.cost(text("status") == Some("error"), logged, || Ok::<_, Infallible>(rate())).unwrap_or(logged);
        let usage = self.models.entry(model.to_owned()).or_default();
        usage.event_count += 1;
        usage.input_tokens = usage.input_tokens.saturating_add(of_event.input);
        usage.output_tokens = usage.output_tokens.saturating_add(of_event.output);
        usage.cost_nanos += i128::from(cost.total.unwrap_or(0));
        usage.unpriced_count += u64::from(cost.total.is_none());
    }
}

fn as_usd<S: Serializer>(nanos: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_usd(*nanos, 9))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) | Value::Other(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Instant(at) => format_instant(*at),
        Value::Nanos(nanos) => format_usd(i128::from(*nanos), 9),
        Value::Uuid(id) => id.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Date(date) => date.to_string(),
    }
}
