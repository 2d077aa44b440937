//! Rows that are the sum of many requests: each becomes as many events, which add up to it. Pure.

use anyhow::{Result, bail};

use super::chunk::Good;
use super::target::Target;
use crate::store::Value;

/// Fields of tokens that are parts of another one, which is shared out part by part, so that no part is larger than its whole.
const WHOLES: [(&str, &[&str]); 2] =
    [("input_tokens", &["cached_input_tokens", "cache_write_tokens"]), ("output_tokens", &["reasoning_tokens"])];

/// An id has room for which share it is.
const LONGEST_ID_BYTES: usize = 780;

/// The events that a row stands for.
pub(super) struct Shares {
    row: Good,
    target: &'static Target,
    count: i64,
    made: i64,
}

impl Shares {
    /// # Errors
    /// For an id that is too long to be told apart by numbers.
    pub(super) fn of(target: &'static Target, row: Good, count: i64) -> Result<Self> {
        let shares = Self { row, target, count, made: 0 };
        if count > 1
            && shares.place("event_id").is_some_and(|id| shares.row.values[id].to_text().is_some_and(|id| id.len() > LONGEST_ID_BYTES))
        {
            bail!("`event_id` is longer than {LONGEST_ID_BYTES} bytes, of a row of many requests");
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
    type Item = Good;

    fn next(&mut self) -> Option<Good> {
        if self.made == self.count {
            return None;
        }
        let mut good = self.row.clone();
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
            for field in ["total_tokens", "total_cost_usd"] {
                if let Some(Value::Int(sum) | Value::Nanos(sum)) = self.place(field).map(|place| &mut good.values[place]) {
                    *sum = self.share(*sum);
                }
            }
            if let Some(place) = self.place("event_id") {
                good.values[place] = format!("{}#{}", good.values[place].to_text().unwrap_or_default(), self.made + 1).into();
            }
        }
        self.made += 1;
        Some(good)
    }
}
