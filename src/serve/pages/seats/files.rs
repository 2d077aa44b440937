//! `/api/seats/{subscription}`: the seat-usage report as JSON; the months as the finance files have them, as CSV or Parquet.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::RecordBatch;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::read::{self, Written};
use crate::seat_report::SubscriptionMonths;
use crate::seats::TOTAL;
use crate::serve::app::App;
use crate::serve::problem::Problem;
use crate::serve::query::{Named, Query};
use crate::snapshot::{csv_twin, parquet_file, peak_row};
use crate::source::ledger::SeatSource;

/// The most ledger rows that are folded into a report while somebody waits.
const LEDGER_ROWS_MAX: i64 = 200_000;

pub(in crate::serve::pages) async fn file(State(app): State<Arc<App>>, Named(id): Named, query: Query) -> Result<Response, Problem> {
    let format = query.word("format", &["json", "csv", "parquet"])?;
    let store = &app.context.store;
    let now = app.context.clock.now();
    let source = SeatSource::load(&app.context.project, store.engine())?;
    let mut tx = store.begin_read().await?;
    let subscription = read::subscription(&mut tx, &source, &id, now).await?;
    if format == "json" {
        let rows = source.count_rows(&mut tx, &subscription.org_id, TOTAL, now, LEDGER_ROWS_MAX + 1).await?;
        if rows > LEDGER_ROWS_MAX {
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("The ledger has more than {LEDGER_ROWS_MAX} rows"))
                .hint("`tallyroll report seats` folds any number; `format=csv` has what the last run wrote"));
        }
        let months = SubscriptionMonths::read(&mut tx, &source, &id, TOTAL, now).await?;
        return Ok(Json(months.report(now)?).into_response());
    }
    let periods = read::periods(subscription.start_at, subscription.end_at, now)?;
    let batches = batches(read::written(&mut tx, &[&id], &periods).await?)?;
    let schema = peak_row::schema();
    if format == "csv" {
        return Ok(attached("text/csv; charset=utf-8", &id, "csv", csv_twin::write(&schema, &batches)?));
    }
    let facts = vec![("tool_version", env!("CARGO_PKG_VERSION").to_owned()), ("subscription_id", id.clone())];
    Ok(attached("application/vnd.apache.parquet", &id, "parquet", parquet_file::write(schema, &batches, &facts)?.to_vec()))
}

/// One batch for each billing month, in order.
fn batches(mut written: Vec<Written>) -> Result<Vec<RecordBatch>> {
    written.sort_by_key(|written| written.billing_month);
    written
        .chunk_by(|left, right| left.billing_month == right.billing_month)
        .map(|month| {
            let mut batch = peak_row::PeakBatch::new(month[0].billing_month)?;
            for written in month {
                batch.push(&written.row);
            }
            batch.finish()
        })
        .collect()
}

/// A file to save. Its name has only those characters of the subscription's id that are safe in any folder.
fn attached(kind: &'static str, id: &str, extension: &str, bytes: Vec<u8>) -> Response {
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || "-_".contains(*character);
    let plain: String = id.chars().filter(is_plain).take(60).collect();
    let disposition = format!("attachment; filename=\"peak_seats-{plain}.{extension}\"");
    ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], bytes).into_response()
}
