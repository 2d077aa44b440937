//! Values and rows as both databases give and take them.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use crate::failure::Failure;
use crate::money::format_usd;

/// One value of a row or of a parameter.
///
/// SQLite keeps dates, instants and UUIDs as text; the getters of [`Row`] read either form.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    /// Money in nano-USD: a NUMERIC of USD in PostgreSQL, an INTEGER of nano-USD in SQLite.
    Nanos(i64),
    Date(NaiveDate),
    Instant(DateTime<Utc>),
    Uuid(Uuid),
    /// What none of the others can hold, as text to show: `infinity`, JSON, bytes. It is never taken for data.
    Other(String),
}

/// How SQLite stores an instant, and how reports print one: microseconds, UTC.
pub const INSTANT_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// `instant` in [`INSTANT_FORMAT`].
#[must_use]
pub fn format_instant(instant: DateTime<Utc>) -> String {
    instant.format(INSTANT_FORMAT).to_string()
}

impl Value {
    /// The value as plain text, the same from either database.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Int(value) => Some(value.to_string()),
            Self::Float(value) => Some(value.to_string()),
            Self::Text(value) | Self::Other(value) => Some(value.clone()),
            Self::Nanos(value) => Some(format_usd((*value).into(), 9)),
            Self::Date(value) => Some(value.to_string()),
            Self::Instant(value) => Some(format_instant(*value)),
            Self::Uuid(value) => Some(value.to_string()),
        }
    }
}

/// Bytes as PostgreSQL prints them; of many the first.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    format!("\\x{digits}{}", if bytes.len() > 64 { "…" } else { "" })
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<NaiveDate> for Value {
    fn from(value: NaiveDate) -> Self {
        Self::Date(value)
    }
}

impl From<DateTime<Utc>> for Value {
    fn from(value: DateTime<Utc>) -> Self {
        Self::Instant(value)
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Uuid(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row, its values by column name.
#[derive(Debug, Clone)]
pub struct Row {
    pub columns: Arc<[String]>,
    pub values: Vec<Value>,
}

impl Row {
    /// The value of `column`.
    ///
    /// # Errors
    /// When the row has no such column.
    pub fn get(&self, column: &str) -> Result<&Value> {
        let index = self.columns.iter().position(|name| name == column);
        index.and_then(|index| self.values.get(index)).with_context(|| format!("The row has no column `{column}`"))
    }

    fn data(&self, column: &str) -> Result<&Value> {
        match self.get(column)? {
            Value::Other(text) => {
                let shown: String = text.chars().take(80).collect();
                Err(Failure::bad_data(format!("`{column}` holds `{shown}`, which cannot be read")).hint("fix the row that holds it").into())
            }
            value => Ok(value),
        }
    }

    /// # Errors
    /// When the column is missing, NULL or no integer; so for its siblings.
    pub fn int(&self, column: &str) -> Result<i64> {
        match self.data(column)? {
            Value::Int(value) => Ok(*value),
            other => bail!("`{column}` is {other:?}, not an integer"),
        }
    }

    /// # Errors
    /// As [`Self::int`].
    pub fn text(&self, column: &str) -> Result<String> {
        self.opt_text(column)?.with_context(|| format!("`{column}` is NULL"))
    }

    /// # Errors
    /// As [`Self::int`], but NULL is `None`.
    pub fn opt_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.data(column)?.to_text())
    }

    /// A word of an enum.
    ///
    /// # Errors
    /// As [`Self::int`]; when it is none of the enum's words.
    pub fn word<T: FromStr<Err = anyhow::Error>>(&self, column: &str) -> Result<T> {
        self.text(column)?.parse().with_context(|| format!("`{column}` cannot be read"))
    }

    /// # Errors
    /// As [`Self::int`].
    pub fn opt_int(&self, column: &str) -> Result<Option<i64>> {
        if *self.get(column)? == Value::Null { Ok(None) } else { self.int(column).map(Some) }
    }

    /// # Errors
    /// As [`Self::int`].
    pub fn date(&self, column: &str) -> Result<NaiveDate> {
        match self.data(column)? {
            Value::Date(value) => Ok(*value),
            Value::Text(text) => text.parse().with_context(|| format!("`{column}` is `{text}`, not a date")),
            other => bail!("`{column}` is {other:?}, not a date"),
        }
    }

    /// # Errors
    /// As [`Self::int`].
    pub fn instant(&self, column: &str) -> Result<DateTime<Utc>> {
        self.opt_instant(column)?.with_context(|| format!("`{column}` is NULL"))
    }

    /// # Errors
    /// As [`Self::int`], but NULL is `None`.
    pub fn opt_instant(&self, column: &str) -> Result<Option<DateTime<Utc>>> {
        match self.data(column)? {
            Value::Null => Ok(None),
            Value::Instant(value) => Ok(Some(*value)),
            Value::Text(text) => {
                let instant = DateTime::parse_from_rfc3339(text);
                Ok(Some(instant.with_context(|| format!("`{column}` is `{text}`, not an instant"))?.with_timezone(&Utc)))
            }
            other => bail!("`{column}` is {other:?}, not an instant"),
        }
    }
}
