//! What a rollup of `usage_daily` is made of, and its rows from groups in memory.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::NaiveDate;

use crate::fold::columns::{measure_columns, measure_fields};
use crate::fold::folder::{Folder, Rows};
use crate::fold::intern::Codes;
use crate::fold::{KEYS, key_field, label_of};
use crate::job::Job;
use crate::measure::{MEASURES, SUM_COUNT};

/// The table that a rollup reads, and its column of days.
#[derive(Debug, Clone)]
pub struct Reads {
    pub table: String,
    pub day_column: String,
}

/// The keys, labels and unique counts of a rollup.
#[derive(Debug, Clone)]
pub struct Shape {
    pub reads: Reads,
    window_column: String,
    /// The grain but for the window.
    keys: Vec<&'static str>,
    labels: Vec<&'static str>,
    /// Columns, each with the key whose values it counts.
    unique: Vec<(String, &'static str)>,
}

fn key(name: &str) -> Result<&'static str> {
    KEYS.into_iter().find(|key| *key == name).with_context(|| format!("`{name}` is no key of `usage_daily`"))
}

impl Shape {
    /// # Errors
    /// When the job names a key or a label that `usage_daily` does not have.
    pub fn of(job: &Job, upstream: &Job) -> Result<Self> {
        let label = |name: &String| {
            let label = KEYS.into_iter().filter_map(label_of).find(|label| label == name);
            label.with_context(|| format!("`{name}` is no label of `usage_daily`"))
        };
        Ok(Self {
            reads: Reads { table: upstream.writes.clone(), day_column: upstream.window_column.clone() },
            window_column: job.window_column.clone(),
            keys: job.grain.iter().skip(1).map(|name| key(name)).collect::<Result<_>>()?,
            labels: job.labels.iter().map(label).collect::<Result<_>>()?,
            unique: job.unique.iter().map(|(column, name)| Ok((column.clone(), key(name)?))).collect::<Result<_>>()?,
        })
    }

    /// The keys that groups are folded by before its rows can be told, in the order of [`KEYS`].
    #[must_use]
    pub fn level(&self) -> Vec<&'static str> {
        KEYS.into_iter().filter(|key| self.keys.contains(key) || self.unique.iter().any(|(_, unique)| unique == key)).collect()
    }

    /// Its rows of one window, from groups folded by at least its level, whose measures come to `sums`.
    ///
    /// # Errors
    /// A sum that does not fit 64 bits, or is not that of the groups.
    pub fn batch(&self, folder: &Folder, codes: &Codes, sums: &[i128; SUM_COUNT], window_start: NaiveDate) -> Result<RecordBatch> {
        let unique: Vec<&'static str> = self.unique.iter().map(|(_, key)| *key).collect();
        let rows = folder.rows(&self.keys, &unique)?;
        check_sums(&rows, sums)?;
        let days = i32::try_from((window_start - NaiveDate::default()).num_days())?;
        let mut fields = vec![Field::new(&self.window_column, DataType::Date32, false)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from(vec![days; rows.groups.len()]))];
        for key in &self.keys {
            let label = self.labels.iter().filter(|label| label_of(key) == Some(**label));
            for name in std::iter::once(key).chain(label) {
                fields.push(key_field(name, true));
                columns.push(codes.column(name, rows.codes(key)?)?);
            }
        }
        fields.extend(measure_fields());
        columns.extend(measure_columns(rows.groups.iter()));
        for ((name, _), counts) in self.unique.iter().zip(&rows.unique) {
            fields.push(Field::new(name, DataType::Int64, false));
            columns.push(Arc::new(Int64Array::from(counts.clone())));
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// Fails where rows do not add up to the groups that they were made from.
fn check_sums(rows: &Rows, sums: &[i128; SUM_COUNT]) -> Result<()> {
    for (index, (sum, expected)) in rows.groups.sums().iter().zip(sums).enumerate() {
        if sum != expected {
            bail!("The sum of `{}` should be {expected} and is {sum}", MEASURES[index].name);
        }
    }
    Ok(())
}
