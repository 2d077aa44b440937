//! Rows that are the sum of many requests: each becomes as many events, which add up to it. Pure.

use anyhow::{Result, bail};

use super::chunk::GoodRow;
use super::target::Target;
use crate::store::Value;

/// Fields of tokens that are parts of another one, which is shared out part by part, so that no part is larger than its whole.
const WHOLES: [(&str, &[&str]); 2] =
    [("input_tokens", &["cached_input_tokens", "cache_write_tokens"]), ("output_tokens", &["reasoning_tokens"])];

/// An id has room for which share it is.
const LONGEST_ID_BYTES: usize = 780;

/// Whether a row has a token or a cost.
pub(super) fn has_figures(target: &Target, values: &[Value]) -> bool {
    let is_figure = |name: &str| target.figures.contains(&name) || name.ends_with("_tokens");
    target.fields.iter().zip(values).any(|(field, value)| is_figure(field.column) && matches!(value, Value::Int(1..) | Value::Nanos(1..)))
}

/// The events that a row stands for.
pub(super) struct Shares {
    row: GoodRow,
    target: &'static Target,
    count: i64,
    made: i64,
}

impl Shares {
    /// # Errors
    /// For an id that is too long to be told apart by numbers.
    pub(super) fn of(target: &'static Target, row: GoodRow, count: i64) -> Result<Self> {
        let shares = Self { row, target, count, made: 0 };
        if count > 1
            && shares.place("event_id").is_some_and(|id| shares.row.values[id].to_text().is_some_and(|id| id.len() > LONGEST_ID_BYTES))
        {
            bail!("`event_id` is longer than {LONGEST_ID_BYTES} bytes, of a row of many requests");
        }
        if count > 1 && WHOLES.iter().flat_map(|(whole, parts)| parts.iter().chain([whole])).any(|field| shares.tokens(field) < 0) {
            bail!("it has a negative number of tokens");
        }
        Ok(shares)
    }

    fn place(&self, field: &str) -> Option<usize> {
        self.target.fields.iter().position(|known| known.name == field)
    }

    /// What this share has of a sum: as much as any other, or one more.
    fn share(&self, sum: i64) -> i64 {
        let until = |shares: i64| (i128::from(sum) * i128::from(shares)).div_euclid(self.count.into());
        i64::try_from(until(self.made + 1) - until(self.made)).unwrap_or(i64::MAX)
    }

    fn tokens(&self, field: &str) -> i64 {
        if let Some(Value::Int(tokens)) = self.place(field).map(|place| &self.row.values[place]) { *tokens } else { 0 }
    }
}

impl Iterator for Shares {
    type Item = GoodRow;

    fn next(&mut self) -> Option<GoodRow> {
        if self.made == self.count {
            return None;
        }
        // Nearly every row is one request, and the last share needs no copy.
        let mut good =
            if self.count == 1 { GoodRow { values: std::mem::take(&mut self.row.values), ..self.row.clone() } } else { self.row.clone() };
        if self.count > 1 {
            for (whole, parts) in WHOLES {
                let of_parts = parts.iter().map(|part| (*part, self.tokens(part)));
                let rest = self.tokens(whole) - of_parts.clone().map(|(_, tokens)| tokens).sum::<i64>();
                let mut sum = self.share(rest);
                for (part, tokens) in of_parts {
                    sum += self.share(tokens);
                    if let Some(place) = self.place(part) {
                        good.values[place] = self.share(tokens).into();
                    }
                }
                if let Some(place) = self.place(whole) {
                    good.values[place] = sum.into();
                }
            }
            let whole_total = self.tokens("input_tokens").checked_add(self.tokens("output_tokens"));
            for field in ["total_tokens", "total_cost_usd", "tool_turns"] {
                if let Some(Value::Int(sum) | Value::Nanos(sum)) = self.place(field).map(|place| &mut good.values[place]) {
                    *sum = self.share(*sum);
                }
            }
            // Where a total is that of the parts, so is its share.
            if whole_total == Some(self.tokens("total_tokens"))
                && let [Some(total), Some(input), Some(output)] =
                    ["total_tokens", "input_tokens", "output_tokens"].map(|field| self.place(field))
                && let (Value::Int(_), Value::Int(input), Value::Int(output)) =
                    (&good.values[total], &good.values[input], &good.values[output])
            {
                good.values[total] = (input + output).into();
            }
            // Of no single request.
            for place in ["latency_ms", "rating"].iter().filter_map(|field| self.place(field)) {
                good.values[place] = Value::Null;
            }
            if let Some(place) = self.place("event_id") {
                good.values[place] = format!("{}#{}", good.values[place].to_text().unwrap_or_default(), self.made + 1).into();
            }
        }
        self.made += 1;
        Some(good)
    }
}
