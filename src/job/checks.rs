//! What must hold once a window is written.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::sql_text::quote_identifier;

/// The check that a summary adds up to what it reads.
pub const EQUAL_SUMS: &str = "equal_sums";

/// Checks by name, and SELECTs of the project that must give no row: each row they do give is a failure.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Checks {
    /// A usage summary, to whose requests and cost the window's rows must add up.
    pub equal_sums: Option<String>,
    /// Columns that hold a value in each row of the window.
    #[serde(default)]
    pub not_null: Vec<String>,
    /// Columns that, together, no two rows of the window share.
    #[serde(default)]
    pub unique: Vec<String>,
    #[serde(flatten)]
    pub selects: BTreeMap<String, String>,
}

/// A table, and its column that says which window a row is in.
type Windowed = (String, String);

fn rows((table, column): &Windowed) -> String {
    let (table, column) = (quote_identifier(table), quote_identifier(column));
    format!("FROM {table} WHERE {column} >= :window_start AND {column} < :window_end")
}

impl Checks {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.equal_sums.is_none() && self.not_null.is_empty() && self.unique.is_empty() && self.selects.is_empty()
    }

    /// Each check as its name and a SELECT that must give no row. `result` is the job's own table, `summed` that of `equal_sums`.
    #[must_use]
    pub fn statements(&self, result: &Windowed, summed: Option<&Windowed>) -> Vec<(String, String)> {
        let mut statements: Vec<(String, String)> = Vec::new();
        if let Some(summed) = summed {
            statements.push((EQUAL_SUMS.to_owned(), equal_sums(result, summed)));
        }
        let names = |columns: &[String], between: &str| {
            columns.iter().map(|column| format!("{}{between}", quote_identifier(column))).collect::<Vec<_>>()
        };
        if !self.not_null.is_empty() {
            let is_null = names(&self.not_null, " IS NULL").join(" OR ");
            statements
                .push(("not_null".to_owned(), format!("SELECT {} {} AND ({is_null})", names(&self.not_null, "").join(", "), rows(result))));
        }
        if !self.unique.is_empty() {
            let columns = names(&self.unique, "").join(", ");
            let sql = format!("SELECT {columns}, COUNT(*) AS row_count {} GROUP BY {columns} HAVING COUNT(*) > 1", rows(result));
            statements.push(("unique".to_owned(), sql));
        }
        statements.extend(self.selects.iter().map(|(name, sql)| (name.clone(), sql.clone())));
        statements
    }
}

fn equal_sums(result: &Windowed, summed: &Windowed) -> String {
    let sums = "SELECT COALESCE(SUM(request_count), 0) AS request_count, COALESCE(SUM(total_cost_nanos), 0) AS total_cost_nanos";
    let of = quote_identifier(&format!("request_count of {}", summed.0));
    let cost_of = quote_identifier(&format!("total_cost_nanos of {}", summed.0));
    format!(
        "SELECT result.request_count AS request_count, summed.request_count AS {of}, \
             result.total_cost_nanos AS total_cost_nanos, summed.total_cost_nanos AS {cost_of} \
         FROM ({sums} {}) AS result, ({sums} {}) AS summed \
         WHERE result.request_count <> summed.request_count OR result.total_cost_nanos <> summed.total_cost_nanos",
        rows(result),
        rows(summed)
    )
}
