//! Values, which lie side by side row by row, as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};

use super::groups::Values;
use crate::measure::{COUNT, MEASURES, Measure};

/// The Arrow fields of the measures.
#[must_use]
pub fn measure_fields() -> Vec<Field> {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field =
        |measure: &Measure| Field::new(measure.name, if measure.is_instant { instant() } else { DataType::Int64 }, measure.is_nullable());
    MEASURES.iter().map(field).collect()
}

/// The measures of rows as Arrow columns of these fields.
#[must_use]
pub fn measure_columns<'a>(rows: impl Iterator<Item = &'a Values>) -> Vec<ArrayRef> {
    // In one pass: a row's values lie side by side.
    let mut of: [Vec<i64>; COUNT] = std::array::from_fn(|_| Vec::with_capacity(rows.size_hint().0));
    let mut known = Vec::with_capacity(rows.size_hint().0);
    for values in rows {
        for (column, value) in of.iter_mut().zip(&values.of) {
            column.push(*value);
        }
        known.push(values.known);
    }
    let column = |(index, measure): (usize, &Measure)| -> ArrayRef {
        let values = std::mem::take(&mut of[index]);
        if measure.is_instant {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
        } else {
            let nulls = measure.is_nullable().then(|| known.iter().map(|known| known & (1 << index) != 0).collect::<NullBuffer>());
            Arc::new(Int64Array::new(values.into(), nulls))
        }
    };
    MEASURES.iter().enumerate().map(column).collect()
}
