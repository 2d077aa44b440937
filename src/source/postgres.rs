//! Usage events out of PostgreSQL, by binary COPY.

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use futures_util::TryStreamExt;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Column, Executor, SqlSafeStr, Statement, TypeInfo};
use tokio::sync::mpsc::Sender;

use super::batch::{BatchBuilder, MAX_TEXT_BYTES};
use super::copy_binary::{self, Decoder};
use super::event;
use crate::sql_text::quote_identifier;
use crate::store::{classify, no_session};

/// Reads as of `snapshot`, an exported one, or of its own.
pub(super) async fn read(
    pool: &PgPool,
    sql: &str,
    snapshot: Option<&str>,
    origin: &str,
    batch_rows: usize,
    sender: &Sender<Result<RecordBatch>>,
) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(no_session)?;
    if let Some(snapshot) = snapshot {
        let set = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *tx).await.map_err(classify)?;
    }
    // The stream carries no names or types: the prepared statement does.
    let statement = tx.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(classify)?;
    let names: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let targets = event::targets(&names, origin)?;
    let mut decoders = Vec::new();
    let mut columns = Vec::new();
    for (column, target) in statement.columns().iter().zip(targets) {
        let type_name = column.type_info().name();
        let decoder = Decoder::new(column.name(), type_name, target);
        let decoder = decoder.with_context(|| format!("`{origin}` gives `{}` as {type_name}", column.name()))?;
        columns.push(bounded(column.name(), decoder.is_text()));
        decoders.push(decoder);
    }

    // COPY sends a row in one message, however long.
    let copy = format!("COPY (SELECT {} FROM (\n{sql}\n) AS event) TO STDOUT (FORMAT binary)", columns.join(", "));
    let mut stream = tx.copy_out_raw(&copy).await.map_err(classify)?;
    let mut builder = BatchBuilder::new();
    let mut is_first = true;
    while let Some(message) = stream.try_next().await.map_err(classify)? {
        let rows = if std::mem::take(&mut is_first) { copy_binary::skip_header(&message)? } else { &message[..] };
        copy_binary::decode_rows(rows, &decoders, &mut builder)?;
        if builder.is_full(batch_rows) && sender.send(Ok(builder.finish()?)).await.is_err() {
            return Ok(());
        }
    }
    if builder.row_count() > 0 {
        // A receiver that is gone has stopped for its own reason.
        let _ = sender.send(Ok(builder.finish()?)).await;
    }
    Ok(())
}

/// A column of the events; of a text as much as tells that it is too long, and of an id also what tells it from others.
fn bounded(name: &str, is_text: bool) -> String {
    let column = format!("event.{}", quote_identifier(name));
    if !is_text {
        return column;
    }
    let cut = MAX_TEXT_BYTES + 1;
    let long = if name == "event_id" {
        format!("rpad(left({column}::TEXT, 100) || md5({column}::TEXT), {cut})")
    } else {
        format!("left({column}::TEXT, {cut})")
    };
    // Asking for a text's length costs a third of cutting it.
    format!("CASE WHEN octet_length({column}::TEXT) < {cut} THEN {column}::TEXT ELSE {long} END AS {}", quote_identifier(name))
}
