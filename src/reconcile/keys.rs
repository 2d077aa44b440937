//! A day of `usage_daily` key by key: its sums may agree while they stand at the wrong users.

use anyhow::Result;
use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use chrono::NaiveDate;
use hashbrown::HashMap;

use crate::fold::KEYS;
use crate::operator::usage_rollup::Rollup;
use crate::sql_text::quote_identifier;
use crate::store::Store;

/// What is compared of each key.
const FIGURES: [&str; 3] = ["request_count", "total_tokens", "total_cost_nanos"];

/// A key with its figures, as a text.
type Line = String;

/// The first row, in the order of texts, that only the log gives, and the first that only the table has.
pub(super) async fn differing(store: &Store, table: &str, day: NaiveDate, computed: &Rollup) -> Result<Option<(Line, Line)>> {
    let columns: Vec<&str> = KEYS.into_iter().chain(FIGURES).collect();
    let mut left: HashMap<Line, i64> = HashMap::new();
    for batch in computed.batches(day)? {
        for line in lines(&batch?, &columns) {
            *left.entry(line).or_default() += 1;
        }
    }
    let named: Vec<String> = columns.iter().map(|column| quote_identifier(column)).collect();
    let sql = format!("SELECT {} FROM {} WHERE usage_date = $1", named.join(", "), quote_identifier(table));
    for row in store.query(&sql, &[day.into()]).await? {
        let cells: Vec<String> = row.values.iter().map(|value| value.to_text().unwrap_or_else(|| "NULL".to_owned())).collect();
        *left.entry(cells.join("|")).or_default() -= 1;
    }
    let first = |is: fn(i64) -> bool| left.iter().filter(|(_, count)| is(**count)).map(|(line, _)| line.clone()).min();
    let (of_log, of_table) = (first(|count| count > 0), first(|count| count < 0));
    let or_none = |line: Option<Line>| line.unwrap_or_else(|| "none".to_owned());
    Ok((of_log.is_some() || of_table.is_some()).then(|| (or_none(of_log), or_none(of_table))))
}

fn lines(batch: &RecordBatch, columns: &[&str]) -> Vec<Line> {
    let columns: Vec<_> = columns.iter().filter_map(|name| batch.column_by_name(name)).collect();
    let cell = |column: &arrow::array::ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => "NULL".to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        _ => {
            let dictionary = column.as_dictionary::<UInt32Type>();
            dictionary.key(row).map_or_else(|| "NULL".to_owned(), |key| dictionary.values().as_string::<i32>().value(key).to_owned())
        }
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|")).collect()
}
