//! Finance files of a monthly summary: its table, one month a file, money as decimals of USD.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use chrono::NaiveDate;

use super::manifest::SCHEMA_VERSION;
use super::parquet_file::TOOL_VERSION;
use super::storage::Storage;
use super::{PEAK_FOLDER, digest, owner, parquet_file, sha256};
use crate::failure::{self, Failure};
use crate::job::Job;
use crate::jobs::Jobs;
use crate::sql_text::quote_identifier;
use crate::store::windows::WindowState;
use crate::store::{Row, Store, Tx, Value};
use crate::window::Window;

/// Publishes the rows of a window as `<folder>/<window column>=<month>/<job>.parquet`, in the order of the grain.
///
/// A column's type follows from its name, as everywhere: `…_nanos` is money and becomes `…_usd`, `…_at` an instant, `…_date` and
/// `…_month` a day, `…_id`, `…_email` and `…_name` a text; all else is a 64-bit integer.
///
/// # Errors
/// What database or storage say; [`Failure`] of kind bad-data for an amount that `DECIMAL(18,9)` does not hold.
pub async fn publish(storage: &Storage, store: &Store, tx: &mut Tx, job: &Job, folder: &str, window: Window) -> Result<()> {
    let path = path(job, folder, window);
    let batch = derived(store, tx, job, window).await?;
    // A month that has lost its rows keeps no old file; an empty one says so. One that never had any has none.
    let found = storage.get(&path).await?;
    if batch.num_rows() == 0 && found.is_none() {
        return digest::forget(tx, &path).await;
    }
    let facts = vec![
        ("schema_version", SCHEMA_VERSION.to_owned()),
        (TOOL_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        ("project_id", owner::project_id(store).await?.to_string()),
        ("job", job.name.clone()),
        ("month", window.to_string()),
    ];
    let known = digest::of(tx, &path).await?;
    if !known.is_empty() && found.is_some_and(|found| !known.contains(&sha256(&found))) {
        tracing::warn!(path = storage.shown(&path), "A file that someone changed is written anew");
    }
    let bytes = parquet_file::write(batch.schema(), &[batch], &facts)?;
    digest::record(tx, &path, &bytes).await?;
    storage.replace(&path, bytes).await
}

/// The rows of a window's file, as its table has them.
async fn derived(store: &Store, tx: &mut Tx, job: &Job, window: Window) -> Result<RecordBatch> {
    let column = quote_identifier(&job.window_column);
    // NULL is a bucket of its own, and stands first on either database.
    let order: Vec<String> =
        job.grain.iter().map(|name| quote_identifier(name)).map(|name| format!("({name} IS NULL) DESC, {name}")).collect();
    let sql =
        format!("SELECT * FROM {} WHERE {column} >= $1 AND {column} < $2 ORDER BY {}", quote_identifier(&job.writes), order.join(", "));
    let rows = tx.query(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
    let names = match rows.first() {
        Some(first) => first.columns.to_vec(),
        None => store.table_columns(&job.writes).await?,
    };
    let columns = names.iter().enumerate().map(|(index, name)| finance_column(name, index, &rows)).collect::<Result<Vec<_>>>();
    let columns = columns.with_context(|| format!("The finance file of `{}` for {window}", job.name))?;
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The jobs that publish their months, each with its folder.
pub fn publishers(jobs: &Jobs) -> impl Iterator<Item = (&Job, &str)> {
    jobs.iter().filter_map(|job| Some((job, job.publish.as_deref()?)))
}

/// What does not hold of the published months of a job: each should be the file that was published, and say what its table says. A
/// window that is due or failed is behind its table; the file is the one that was published all the same.
///
/// # Errors
/// Where a check could not be made.
pub async fn problems(storage: &Storage, store: &Store, job: &Job, folder: &str) -> Result<Vec<(Window, String)>> {
    let mut problems = Vec::new();
    let mut tx = store.begin_read().await?;
    for (window, state) in tx.windows(&job.name).await? {
        let path = path(job, folder, window);
        let known = digest::of(&mut tx, &path).await?;
        let derived = match state.state {
            WindowState::Done => Some(derived(store, &mut tx, job, window).await?),
            _ => None,
        };
        let found = match storage.get(&path).await {
            Ok(None) if known.is_empty() && derived.as_ref().is_none_or(|derived| derived.num_rows() == 0) => continue,
            Ok(None) => Err(anyhow::anyhow!("`{}` is missing", storage.shown(&path))),
            Ok(Some(bytes)) if !known.contains(&sha256(&bytes)) => {
                Err(anyhow::anyhow!("`{}` is not the file that was published", storage.shown(&path)))
            }
            Ok(Some(bytes)) => parquet_file::read(bytes).with_context(|| format!("`{}` cannot be read", storage.shown(&path))),
            Err(error) if failure::exit_code(&error) == 65 => Err(error),
            Err(error) => return Err(error),
        };
        let again = format!("`tallyroll run-job {} --month {window}` writes it anew", job.name);
        match found.and_then(|found| Ok(concat_batches(&found.schema, &found.batches)?)) {
            Ok(found) if derived.is_none_or(|derived| says_the_same(&found, &derived)) => {}
            Ok(_) => problems.push((window, format!("`{}` says other than table `{}`; {again}", storage.shown(&path), job.writes))),
            Err(error) => problems.push((window, format!("{error:#}; {again}"))),
        }
    }
    Ok(problems)
}

/// Whether a file says what its table says, as far as the file goes: the table may have gained columns since.
fn says_the_same(file: &RecordBatch, table: &RecordBatch) -> bool {
    let names = file.schema();
    file.num_rows() == table.num_rows()
        && names.fields().iter().all(|field| file.column_by_name(field.name()) == table.column_by_name(field.name()))
}

/// The paths of every month of the jobs that publish.
///
/// # Errors
/// What the database says.
pub async fn paths(store: &Store, jobs: &Jobs) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for (job, folder) in publishers(jobs) {
        paths.extend(store.windows(&job.name).await?.into_keys().map(|window| path(job, folder, window)));
    }
    Ok(paths)
}

/// The files in the folders of the jobs, and in those that jobs published into before, that are no job's: whoever reads such a folder
/// counts them, whatever they are called.
///
/// # Errors
/// What database or storage say.
pub async fn strangers(storage: &Storage, store: &Store, jobs: &Jobs) -> Result<Vec<String>> {
    let ours = paths(store, jobs).await?;
    let mut folders: BTreeSet<String> = publishers(jobs).map(|(_, folder)| folder.to_owned()).collect();
    let recorded = digest::published(store).await?;
    folders.extend(recorded.iter().filter_map(|(path, _)| path.split_once('/')).map(|(folder, _)| folder.to_owned()));
    folders.remove(PEAK_FOLDER);
    let mut strangers = Vec::new();
    for folder in folders {
        strangers.extend(storage.list(&folder).await?.into_iter().filter(|path| !ours.contains(path)));
    }
    Ok(strangers)
}

/// The file of a window.
#[must_use]
pub fn path(job: &Job, folder: &str, window: Window) -> String {
    format!("{folder}/{}={window}/{}.parquet", job.window_column, job.name)
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
