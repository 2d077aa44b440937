//! Values, which lie side by side row by row, as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};

use super::groups::Values;
use crate::measure::{COUNT, MEASURES, Measure};

/// The measures of rows as Arrow columns, with their fields.
#[must_use]
pub fn measure_columns<'a>(rows: impl Iterator<Item = &'a Values>) -> (Vec<Field>, Vec<ArrayRef>) {
    // In one pass: a row's values lie side by side.
    let mut of: [Vec<i64>; COUNT] = std::array::from_fn(|_| Vec::with_capacity(rows.size_hint().0));
    let mut known = Vec::with_capacity(rows.size_hint().0);
    for values in rows {
        for (column, value) in of.iter_mut().zip(&values.of) {
            column.push(*value);
        }
        known.push(values.known);
    }
    let column = |(index, measure): (usize, &Measure)| {
        let values = std::mem::take(&mut of[index]);
        if measure.is_instant {
            let instants = TimestampMicrosecondArray::from(values);
            let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            (Field::new(measure.name, data_type, false), Arc::new(instants.with_timezone("UTC")) as ArrayRef)
        } else if measure.is_nullable() {
            let nulls: NullBuffer = known.iter().map(|known| known & (1 << index) != 0).collect();
            (Field::new(measure.name, DataType::Int64, true), Arc::new(Int64Array::new(values.into(), Some(nulls))) as ArrayRef)
        } else {
            (Field::new(measure.name, DataType::Int64, false), Arc::new(Int64Array::from(values)) as ArrayRef)
        }
    };
    MEASURES.iter().enumerate().map(column).unzip()
}
