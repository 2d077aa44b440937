//! Usage events out of PostgreSQL, by binary COPY.

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use futures_util::TryStreamExt;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Column, Executor, SqlSafeStr, Statement, TypeInfo};
use tokio::sync::mpsc::Sender;

use super::batch::{self, BatchBuilder};
use super::copy_binary::{self, Decoder};
use crate::store::classify;

pub(super) async fn read(pool: &PgPool, sql: &str, origin: &str, batch_rows: usize, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN READ ONLY").await.map_err(classify)?;
    // The stream carries no names or types: the prepared statement does.
    let statement = tx.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(classify)?;
    let names: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let targets = batch::targets(&names, origin)?;
    let mut decoders = Vec::new();
    for (column, target) in statement.columns().iter().zip(targets) {
        let type_name = column.type_info().name();
        let decoder = Decoder::new(column.name(), type_name, target);
        decoders.push(decoder.with_context(|| format!("`{origin}` gives `{}` as {type_name}", column.name()))?);
    }

    let copy = format!("COPY (\n{sql}\n) TO STDOUT (FORMAT binary)");
    let mut stream = tx.copy_out_raw(&copy).await.map_err(classify)?;
    let mut builder = BatchBuilder::new();
    let mut is_first = true;
    while let Some(message) = stream.try_next().await.map_err(classify)? {
        let rows = if std::mem::take(&mut is_first) { copy_binary::skip_header(&message)? } else { &message[..] };
        copy_binary::decode_rows(rows, &decoders, &mut builder)?;
        if builder.row_count() >= batch_rows && sender.send(Ok(builder.finish()?)).await.is_err() {
            return Ok(());
        }
    }
    if builder.row_count() > 0 {
        // A receiver that is gone has stopped for its own reason.
        let _ = sender.send(Ok(builder.finish()?)).await;
    }
    Ok(())
}
