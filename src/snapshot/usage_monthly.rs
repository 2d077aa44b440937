//! Finance files of a monthly summary: its table, one month a file, money as decimals of USD.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use chrono::NaiveDate;

use super::manifest::SCHEMA_VERSION;
use super::parquet_file;
use super::storage::Storage;
use crate::failure::Failure;
use crate::job::Job;
use crate::sql_text::quote_identifier;
use crate::store::{Row, Tx, Value};
use crate::window::Window;

/// Publishes the rows of a window as `<folder>/<window column>=<month>/<job>.parquet`, in the order of the grain.
///
/// A column's type follows from its name, as everywhere: `…_nanos` is money and becomes `…_usd`, `…_at` an instant, `…_date` and
/// `…_month` a day, `…_id`, `…_email` and `…_name` a text; all else is a 64-bit integer.
///
/// # Errors
/// What database or storage say; [`Failure`] of kind bad-data for an amount that `DECIMAL(18,9)` does not hold.
pub async fn publish(storage: &Storage, tx: &mut Tx, job: &Job, folder: &str, window: Window) -> Result<()> {
    let column = quote_identifier(&job.window_column);
    // NULL is a bucket of its own, and stands first on either database.
    let order: Vec<String> =
        job.grain.iter().map(|name| quote_identifier(name)).map(|name| format!("({name} IS NULL) DESC, {name}")).collect();
    let sql =
        format!("SELECT * FROM {} WHERE {column} >= $1 AND {column} < $2 ORDER BY {}", quote_identifier(&job.writes), order.join(", "));
    let rows = tx.query(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
    let path = path(job, folder, window);
    let Some(first) = rows.first() else {
        // A month that has lost its rows keeps no old file; an empty one says so.
        return if storage.get(&path).await?.is_some() {
            replace(storage, &path, job, window, &empty_batch(storage, &path).await?).await
        } else {
            Ok(())
        };
    };
    let columns = first.columns.iter().enumerate().map(|(index, name)| finance_column(name, index, &rows)).collect::<Result<Vec<_>>>();
    let columns = columns.with_context(|| format!("The finance file of `{}` for {window}", job.name))?;
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    replace(storage, &path, job, window, &RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?).await
}

/// The file of a window.
#[must_use]
pub fn path(job: &Job, folder: &str, window: Window) -> String {
    format!("{folder}/{}={window}/{}.parquet", job.window_column, job.name)
}

async fn replace(storage: &Storage, path: &str, job: &Job, window: Window, batch: &RecordBatch) -> Result<()> {
    let facts = vec![
        ("schema_version", SCHEMA_VERSION.to_owned()),
        ("tool_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("job", job.name.clone()),
        ("month", window.to_string()),
    ];
    let bytes = parquet_file::write(batch.schema(), std::slice::from_ref(batch), &facts)?;
    storage.replace(path, bytes).await
}

async fn empty_batch(storage: &Storage, path: &str) -> Result<RecordBatch> {
    let old = parquet_file::read(super::storage::require(storage, path).await?)?;
    Ok(RecordBatch::new_empty(old.schema))
}

fn finance_column(name: &str, index: usize, rows: &[Row]) -> Result<(Field, ArrayRef)> {
    let values = rows.iter().map(|row| &row.values[index]);
    let is = |suffix: &str| name.ends_with(suffix);
    let unfit = |value: &Value| anyhow::anyhow!("Column `{name}` holds {value:?}, which its name does not allow");
    let (name, array): (String, ArrayRef) = if let Some(stem) = name.strip_suffix("_nanos") {
        let nanos = integers(values, unfit)?;
        if nanos.iter().flatten().any(|nanos| nanos.unsigned_abs() >= 10_u64.pow(18)) {
            return Err(
                Failure::bad_data(format!("An amount in `{name}` is more than a billion USD, which DECIMAL(18,9) does not hold")).into()
            );
        }
        let decimals: Decimal128Array = nanos.into_iter().map(|nanos| nanos.map(i128::from)).collect();
        (format!("{stem}_usd"), Arc::new(decimals.with_precision_and_scale(18, 9)?))
    } else if is("_at") {
        let micros = rows.iter().map(|row| Ok(row.opt_instant(name)?.map(|at| at.timestamp_micros()))).collect::<Result<Vec<_>>>()?;
        (name.to_owned(), Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")))
    } else if is("_date") || is("_month") {
        let epoch = NaiveDate::default();
        let days = rows.iter().map(|row| Ok(i32::try_from((row.date(name)? - epoch).num_days())?)).collect::<Result<Vec<_>>>()?;
        (name.to_owned(), Arc::new(Date32Array::from(days)))
    } else if is("_id") || is("_email") || is("_name") {
        (name.to_owned(), Arc::new(values.map(Value::to_text).collect::<StringArray>()))
    } else {
        (name.to_owned(), Arc::new(Int64Array::from(integers(values, unfit)?)))
    };
    Ok((Field::new(name, array.data_type().clone(), true), array))
}

fn integers<'a>(values: impl Iterator<Item = &'a Value>, unfit: impl Fn(&Value) -> anyhow::Error) -> Result<Vec<Option<i64>>> {
    values
        .map(|value| match value {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(*value)),
            other => bail!(unfit(other)),
        })
        .collect()
}
