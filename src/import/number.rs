//! Numbers as files write them. Pure.

use anyhow::{Context as _, Result};

/// A whole number, also as spreadsheets and data frames write one that might have been none: `7.0`.
pub(super) fn whole(text: &str) -> Result<i64> {
    let text = text.trim();
    let digits = text.split_once('.').filter(|(_, places)| places.bytes().all(|byte| byte == b'0')).map_or(text, |(digits, _)| digits);
    digits.parse().context("not a whole number")
}
