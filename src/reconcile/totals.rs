//! What every measure of a window comes to: the numbers that are compared.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDate};

use crate::fold::groups::Groups;
use crate::job::Job;
use crate::measure::{COUNT, Fold, MEASURES, SUM_COUNT};
use crate::sql_text::quote_identifier;
use crate::store::{Row, Store, Value, format_instant};

/// A total of each measure, in the order of [`MEASURES`]; instants in microseconds. None where nothing is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals([Option<i128>; COUNT]);

impl Totals {
    /// Of no row at all.
    pub(super) const NONE: Self = Self([None; COUNT]);

    pub(super) fn of_groups(groups: &Groups) -> Self {
        let mut totals = Self::NONE;
        for group in 0..groups.len() {
            let values = groups.values(group);
            totals.add(&Self(std::array::from_fn(|index| values.is_known(index).then(|| values.of[index].into()))));
        }
        totals
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (index, measure) in MEASURES.iter().enumerate() {
            self.0[index] = match (self.0[index], other.0[index]) {
                (Some(one), Some(other)) => Some(match measure.fold {
                    Fold::Sum | Fold::SumOfKnown => one + other,
                    Fold::Min => one.min(other),
                    Fold::Max => one.max(other),
                }),
                (one, other) => one.or(other),
            };
        }
    }

    /// The total of a measure in words.
    pub(super) fn shown(&self, index: usize) -> String {
        match self.0[index] {
            None if MEASURES[index].fold == Fold::Sum => "0".to_owned(),
            None => "none".to_owned(),
            Some(micros) if MEASURES[index].is_instant => {
                let micros = i64::try_from(micros).ok().and_then(DateTime::from_timestamp_micros);
                micros.map(format_instant).unwrap_or_default()
            }
            Some(number) => number.to_string(),
        }
    }
}

/// Which measures a table has, by their positions.
pub(super) async fn measures_of(store: &Store, job: &Job) -> Result<Vec<usize>> {
    let columns = store.table_columns(&job.writes).await?;
    Ok((0..COUNT).filter(|index| columns.iter().any(|column| column == MEASURES[*index].name)).collect())
}

/// A table's totals by the day that its windows start on.
pub(super) async fn stored(store: &Store, job: &Job) -> Result<BTreeMap<NaiveDate, Totals>> {
    let measures = measures_of(store, job).await?;
    let fold = |index: &usize| {
        let name = MEASURES[*index].name;
        if *index < SUM_COUNT { format!("CAST(SUM({name}) AS TEXT) AS {name}") } else { MEASURES[*index].sql() }
    };
    let column = quote_identifier(&job.window_column);
    let sql = format!(
        "SELECT {column} AS window_start, {} FROM {} GROUP BY {column} ORDER BY {column}",
        measures.iter().map(fold).collect::<Vec<_>>().join(", "),
        quote_identifier(&job.writes)
    );
    let totals = |row: &Row| {
        let mut totals = Totals::NONE;
        for index in &measures {
            totals.0[*index] = total(row, *index)?;
        }
        Ok((row.date("window_start")?, totals))
    };
    store.query(&sql, &[]).await?.iter().map(totals).collect()
}

fn total(row: &Row, index: usize) -> Result<Option<i128>> {
    let name = MEASURES[index].name;
    if MEASURES[index].is_instant {
        return Ok(row.opt_instant(name)?.map(|instant| instant.timestamp_micros().into()));
    }
    match row.get(name)? {
        Value::Null => Ok(None),
        value => value.to_text().unwrap_or_default().parse().map(Some).with_context(|| format!("`{name}` is no number")),
    }
}
