//! What the two databases say differently outside of whole statements: how they keep a value, and what a function is called.

use super::value::Value;
use crate::sql_text::quote_identifier;

/// Which of the two databases it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// The value for this database.
    pub fn pick<T>(self, postgres: T, sqlite: T) -> T {
        match self {
            Self::Postgres => postgres,
            Self::Sqlite => sqlite,
        }
    }

    /// The name of the database in file names: `sql/<stem>.<engine>.sql`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.pick("postgres", "sqlite")
    }

    /// How many jobs a run has at work side by side: a file has one writer at a time.
    #[must_use]
    pub fn jobs_at_once(self) -> u32 {
        self.pick(2, 1)
    }

    /// The column of a cost in the tables of the raw log: a NUMERIC of USD in PostgreSQL, an INTEGER of nano-USD in SQLite.
    #[must_use]
    pub fn cost_column(self, cost: &str) -> String {
        format!("{cost}_{}", self.pick("usd", "nanos"))
    }

    /// Behind a text: compare it byte by byte, in whatever language the database sorts.
    #[must_use]
    pub fn collate(self) -> &'static str {
        self.pick(" COLLATE \"C\"", "")
    }

    /// The function that says where in its first text the second one begins: 0 where it is not in it.
    #[must_use]
    pub fn position(self) -> &'static str {
        self.pick("strpos", "instr")
    }

    /// A text parameter whose ASCII letters are small.
    #[must_use]
    pub fn lower(self, place: &str) -> String {
        self.pick(format!("lower(CAST({place} AS TEXT) COLLATE \"C\")"), format!("lower({place})"))
    }

    /// A text parameter as the value of a JSON column.
    #[must_use]
    pub fn json(self, place: &str) -> String {
        self.pick(format!("CAST({place} AS TEXT)::JSONB"), place.to_owned())
    }

    /// The name of an index, where it needs one: PostgreSQL finds a name by itself, and would cut a long one.
    #[must_use]
    pub fn index_name(self, name: &str) -> String {
        self.pick(String::new(), quote_identifier(name))
    }

    /// The type to cast a parameter of a job's SQL to: SQLite has none to give.
    #[must_use]
    pub fn type_of_parameter(self, name: &str) -> Option<&'static str> {
        let is_instant = name == "as_of" || name.ends_with("_at");
        self.pick(Some(if is_instant { "TIMESTAMPTZ" } else { "DATE" }), None)
    }

    /// The first day of the month that a day lies in.
    #[must_use]
    pub fn first_of_month(&self, column: &str) -> String {
        self.pick(format!("CAST(date_trunc('month', {column}) AS DATE)"), format!("date({column}, 'start of month')"))
    }

    /// The quarter of an hour that an instant lies in.
    #[must_use]
    pub fn quarter_of_an_hour(self, column: &str) -> String {
        self.pick(
            format!("to_timestamp(floor(extract(EPOCH FROM {column}) / 900) * 900)"),
            format!("substr({column}, 1, 14) || printf('%02d:00.000000Z', substr({column}, 15, 2) / 15 * 15)"),
        )
    }

    /// The cost of an event of our own in nano-USD, as `cost_nanos`.
    #[must_use]
    pub fn cost_nanos(self) -> &'static str {
        self.pick("CAST(cost_usd * 1000000000 AS BIGINT) AS cost_nanos", "cost_nanos")
    }

    /// A table of ours, as a session of any search path finds it.
    #[must_use]
    pub fn own_table(self, table: &str) -> String {
        format!("{}{table}", self.pick("tallyroll.", ""))
    }
}

/// The statement that lists a table's columns, and its parameter.
pub(super) fn postgres_columns(table: &str) -> (&'static str, Value) {
    let sql = "SELECT attname::TEXT AS name FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    (sql, quote_identifier(table).into())
}

/// As [`postgres_columns`].
pub(super) fn sqlite_columns(table: &str) -> (&'static str, Value) {
    ("SELECT name FROM pragma_table_xinfo($1)", table.into())
}
