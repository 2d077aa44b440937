//! Folding: rows of the log into groups, and groups into fewer groups.

pub mod columns;
pub mod folder;
pub mod groups;
pub mod intern;

use arrow::datatypes::{DataType, Field};

/// What identifies a group of a day's events, as codes of [`intern::Codes`]: the grain of `usage_daily` but for the day.
pub const KEYS: [&str; 6] = ["source", "user_id", "customer_id", "request_type", "category", "model"];

/// The label of a key, where it has one: the column that holds it.
#[must_use]
pub fn label_of(key: &str) -> Option<&'static str> {
    match key {
        "user_id" => Some("user_email"),
        "customer_id" => Some("customer_name"),
        _ => None,
    }
}

/// The Arrow field of a key or a label in a result table.
#[must_use]
pub fn key_field(name: &str, is_nullable: bool) -> Field {
    let text = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    Field::new(name, text, is_nullable && name != "user_id")
}
