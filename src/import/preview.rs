//! What an import would do, before it does. Pure.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::target::{Target, USAGE};
use crate::money::format_usd;
use crate::price::{PriceBook, Pricing, price_at};
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
    pub(super) fn add(&mut self, target: &Target, values: &[Value], pricing: Pricing, prices: &PriceBook) {
        if self.rows.len() < SHOWN_ROWS {
            self.rows.push(values.iter().map(shown).collect());
        }
        if target.table != USAGE.table {
            return;
        }
        let of = |name: &str| target.fields.iter().position(|field| field.name == name).and_then(|place| values.get(place));
        let tokens = |name: &str| if let Some(Value::Int(count)) = of(name) { *count } else { 0 };
        let (input, output) = (tokens("input_tokens"), tokens("output_tokens"));
        let model = if let Some(Value::Text(model)) = of("model") { model.clone() } else { String::new() };
        let logged = if let Some(Value::Nanos(nanos)) = of("total_cost_usd") { Some(*nanos) } else { None };
        let rated = if let Some(Value::Instant(at)) = of("occurred_at") {
            price_at(prices.prices_of(&model), *at).and_then(|price| price.rate(input, output)).map(|cost| cost.total_nanos)
        } else {
            None
        };
        let cost = match pricing {
            Pricing::Log => logged.or(rated),
            Pricing::PriceBook => rated.or(logged),
        };
        let usage = self.models.entry(model).or_default();
        usage.event_count += 1;
        usage.input_tokens += input;
        usage.output_tokens += output;
        usage.cost_nanos += i128::from(cost.unwrap_or(0));
        usage.unpriced_count += u64::from(cost.is_none());
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
