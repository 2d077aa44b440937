//! SQLite behind [`Store`](super::Store): opening the file, binding, decoding.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Row as _, Sqlite, SqliteExecutor, TypeInfo, ValueRef};

use super::value::{Row, Value, format_instant, hex};
use crate::failure::Failure;
use crate::fingerprint::Fingerprint;

/// How long a writer waits for another one's transaction: windows are short, and the database has one writer at a time.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Steps of SQLite's machine after which a statement looks whether it is cut off.
const OPERATIONS_PER_LOOK: i32 = 100_000;

/// Opens the file; creates it only where `create` says so.
///
/// # Errors
/// [`Failure`] of kind config when the file is not there or cannot be opened.
pub(super) async fn connect(file: &Path, create: bool, connections: u32, is_cut_off: &Arc<AtomicBool>) -> Result<SqlitePool> {
    if !create && !file.exists() {
        return Err(Failure::config(format!("There is no database at `{}`", file.display()))
            .hint("`tallyroll migrate` creates it; `database.url` says where it is")
            .into());
    }
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let is_cut_off = Arc::clone(is_cut_off);
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .after_connect(move |connection, _| {
            let is_cut_off = Arc::clone(&is_cut_off);
            Box::pin(async move {
                // A statement works in a thread of its own that nobody else can end, and keeps every writer waiting meanwhile.
                connection.lock_handle().await?.set_progress_handler(OPERATIONS_PER_LOOK, move || !is_cut_off.load(Ordering::Relaxed));
                Ok(())
            })
        })
        .connect_with(options)
        .await;
    pool.map_err(|error| {
        if super::classify::is_read_only(&error) {
            return super::classify::classify(error);
        }
        Failure::config(format!("The database `{}` cannot be opened", file.display()))
            .caused_by(anyhow::anyhow!(super::classify::what_it_says(&error)))
            .hint("check that the folder exists and that the file is an SQLite database which you may write")
            .into()
    })
}

pub(super) async fn query(executor: impl SqliteExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, sqlx::Error> {
    let rows = bind(sql, parameters).fetch_all(executor).await?;
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    rows.iter().map(|row| Ok(Row { columns: Arc::clone(&columns), values: decode(row)? })).collect()
}

pub(super) async fn digest(executor: impl SqliteExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<String, sqlx::Error> {
    let mut rows = bind(sql, parameters).fetch(executor);
    let mut fingerprint = Fingerprint::default();
    while let Some(row) = rows.try_next().await? {
        for value in decode(&row)? {
            // A text never begins as NULL does.
            fingerprint.add(value.to_text().map_or("\0".to_owned(), |text| format!("={text}")).as_bytes());
        }
    }
    Ok(fingerprint.finish())
}

pub(super) async fn execute(executor: impl SqliteExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<u64, sqlx::Error> {
    Ok(bind(sql, parameters).execute(executor).await?.rows_affected())
}

fn bind(sql: &str, parameters: &[Value]) -> Query<'static, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for parameter in parameters {
        query = match parameter.clone() {
            Value::Null => query.bind(None::<i64>),
            Value::Int(value) => query.bind(value),
            Value::Float(value) => query.bind(value),
            Value::Text(value) | Value::Other(value) => query.bind(value),
            Value::Nanos(value) => query.bind(value),
            Value::Date(value) => query.bind(value.to_string()),
            Value::Instant(value) => query.bind(format_instant(value)),
            Value::Uuid(value) => query.bind(value.to_string()),
        };
    }
    query
}

fn decode(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.columns().len())
        .map(|index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let storage_class = raw.type_info().name().to_owned();
            Ok(match storage_class.as_str() {
                "INTEGER" | "BOOLEAN" => Value::Int(row.try_get_unchecked(index)?),
                "REAL" => Value::Float(row.try_get_unchecked(index)?),
                "BLOB" => Value::Other(hex(row.try_get_unchecked(index)?)),
                _ => match row.try_get_unchecked(index) {
                    Ok(text) => Value::Text(text),
                    // SQLite takes any bytes for a text.
                    Err(_) => Value::Other(String::from_utf8_lossy(row.try_get_unchecked(index)?).into_owned()),
                },
            })
        })
        .collect()
}
