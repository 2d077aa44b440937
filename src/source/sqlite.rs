//! Usage events out of SQLite, by a reading connection of their own: four times as fast as row by row through the pool.

use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use chrono::DateTime;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

use super::batch::{BatchBuilder, MAX_TEXT_BYTES};
use super::event::{self, Target};
use crate::failure::Failure;
use crate::money;
use crate::sql_text::quote_identifier;
use crate::store::classify_sqlite;

pub(super) async fn read(file: &Path, sql: String, origin: &str, batch_rows: usize, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
    let (file, origin, sender) = (file.to_owned(), origin.to_owned(), sender.clone());
    tokio::task::spawn_blocking(move || read_blocking(&file, &sql, &origin, batch_rows, &sender)).await?
}

fn read_blocking(file: &Path, sql: &str, origin: &str, batch_rows: usize, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(classify_sqlite)
        .with_context(|| format!("Failed to open `{}`", file.display()))?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    let mut statement = connection.prepare(sql).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::Unknown) | None => Failure::config(format!("The events statement of `{origin}` does not fit the database"))
            .caused_by(error)
            .hint("fix the SQL file, or run `tallyroll migrate` if the schema is older than this version")
            .into(),
        _ => classify_sqlite(error),
    })?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let targets = event::targets(&names, origin)?;
    let columns: Vec<String> = names.iter().zip(&targets).map(|(name, target)| bounded(name, *target)).collect();
    statement = connection.prepare(&format!("SELECT {} FROM (\n{sql}\n) AS event", columns.join(", "))).map_err(classify_sqlite)?;
    let mut builder = BatchBuilder::new();
    let mut rows = statement.query([]).map_err(classify_sqlite)?;
    while let Some(row) = rows.next().map_err(classify_sqlite)? {
        for (index, target) in targets.iter().enumerate() {
            let Some(target) = *target else { continue };
            put(&mut builder, target, &names[index], row.get_ref(index)?)
                .with_context(|| format!("`{origin}` gives a `{}` that is none", names[index]))?;
        }
        builder.end_row();
        if builder.is_full(batch_rows) && sender.blocking_send(Ok(builder.finish()?)).is_err() {
            return Ok(());
        }
    }
    if builder.row_count() > 0 {
        // A receiver that is gone has stopped for its own reason.
        let _ = sender.blocking_send(Ok(builder.finish()?));
    }
    Ok(())
}

/// A column of the events; a text that is too long is not read at all, only its length, and an empty blob stands for it.
fn bounded(name: &str, target: Option<Target>) -> String {
    let (column, name) = (format!("event.{}", quote_identifier(name)), quote_identifier(name));
    match target {
        Some(Target::Text(_)) => {
            format!("CASE WHEN octet_length({column}) > {MAX_TEXT_BYTES} THEN x'' ELSE {column} END AS {name}")
        }
        _ => format!("{column} AS {name}"),
    }
}

fn put(builder: &mut BatchBuilder, target: Target, name: &str, value: ValueRef<'_>) -> Result<()> {
    match value {
        ValueRef::Null => builder.put_null(target),
        ValueRef::Text(text) if target == Target::OccurredAt => {
            let text = std::str::from_utf8(text)?;
            let instant = DateTime::parse_from_rfc3339(text).with_context(|| format!("`{text}` is no instant"))?;
            builder.put_instant(target, instant.timestamp_micros())?;
        }
        ValueRef::Text(text) if matches!(target, Target::Cost(_)) && name.ends_with("_usd") => {
            builder.put_cost(target, money::parse_usd_nanos(std::str::from_utf8(text)?).ok())?;
        }
        ValueRef::Text(text) => match uuid_of(target, text) {
            Some(uuid) => builder.put_uuid(target, uuid)?,
            None => builder.put_text(target, std::str::from_utf8(text)?)?,
        },
        ValueRef::Integer(usd) if matches!(target, Target::Cost(_)) && name.ends_with("_usd") => {
            builder.put_cost(target, usd.checked_mul(money::NANOS_PER_USD))?;
        }
        ValueRef::Integer(value) => builder.put_int(target, value)?,
        ValueRef::Real(usd) if matches!(target, Target::Cost(_)) && name.ends_with("_usd") => {
            builder.put_cost(target, money::parse_usd_nanos(&usd.to_string()).ok())?;
        }
        // What a product or sum of integers gives when it overflows.
        ValueRef::Real(_) if matches!(target, Target::Cost(_) | Target::Int(_)) => builder.put_bad_number(target),
        ValueRef::Real(value) => bail!("{value} is a float"),
        ValueRef::Blob([]) if matches!(target, Target::Text(_)) => builder.put_left_out(target),
        ValueRef::Blob(_) => bail!("a blob"),
    }
    Ok(())
}

/// An event's id where its text is that of a UUID, to the letter.
fn uuid_of(target: Target, text: &[u8]) -> Option<Uuid> {
    if target != Target::EventId || text.len() != 36 || text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    Uuid::try_parse_ascii(text).ok()
}
