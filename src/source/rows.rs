//! Rows as they stand in their tables, every column as a text from which the database makes the same value again: what the archive keeps
//! beside the events, to put the rows back.
//!
//! PostgreSQL's texts are those of its types' output functions, which its dumps rely on, too. SQLite's values have no types but their
//! own: `i`, `r` or `t` stands before an integer, a real or a text.

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Row as _, TypeInfo as _, ValueRef as _};

use super::copy_binary;
use crate::failure::Failure;
use crate::sql_text::quote_identifier;
use crate::store::{Store, Tx, Value, classify};

/// Columns of ours that say when a row was taken in: a row that is put back is a new one.
const TRACKING: [&str; 2] = ["ingest_xid", "ingest_seq"];

/// Where rows go, their cells in the order of the columns.
pub trait Sink: Send {
    /// Takes in a row.
    ///
    /// # Errors
    /// Its own.
    fn row(&mut self, cells: &[Option<&str>]) -> Result<()>;

    /// Does now and then what takes waiting.
    ///
    /// # Errors
    /// Its own.
    fn settle(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Rows of one table that belong to a window of a source.
#[derive(Debug, Clone)]
pub struct TableRows {
    pub table: String,
    /// All that are stored and not computed.
    pub columns: Vec<String>,
    /// The statement that says where they stand, and of which event each is.
    places: String,
}

/// Reads the event's id of each row that a statement gives; `each` is given it as a text.
///
/// # Errors
/// What the database says.
pub async fn read_event_ids(tx: &mut Tx, statement: &str, each: impl FnMut(&str) + Send) -> Result<()> {
    struct Ids<F> {
        each: F,
        /// SQLite's cells say first of which type they are.
        type_length: usize,
    }
    impl<F: FnMut(&str) + Send> Sink for Ids<F> {
        fn row(&mut self, cells: &[Option<&str>]) -> Result<()> {
            let id = cells.first().copied().flatten().unwrap_or_default();
            (self.each)(id.get(self.type_length..).unwrap_or_default());
            Ok(())
        }

        async fn settle(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let (id, type_length) = tx.pick(("event_id::TEXT", 0), ("CAST(event_id AS TEXT)", 1));
    stream(tx, &format!("SELECT {id} FROM (\n{statement}\n) AS given"), 1, &mut Ids { each, type_length }).await
}

/// Reads all that a statement gives, column by column.
///
/// # Errors
/// What the database says, and the sink.
pub async fn read_all(tx: &mut Tx, statement: &str, sink: &mut impl Sink) -> Result<()> {
    let columns = tx.columns_of(statement).await?;
    let cells: Vec<String> = columns.keys().map(|column| format!("CAST({} AS TEXT)", quote_identifier(column))).collect();
    stream(tx, &format!("SELECT {} FROM (\n{statement}\n) AS given", cells.join(", ")), cells.len(), sink).await
}

/// A transaction whose statements see what readers see that are given the name with it: an exported snapshot of PostgreSQL. In SQLite
/// nobody else writes until it ends.
///
/// # Errors
/// What the database says.
pub async fn snapshot(store: &Store) -> Result<(Tx, Option<String>)> {
    if store.pick(false, true) {
        return Ok((store.begin().await?, None));
    }
    let mut tx = store.begin_read().await?;
    let rows = tx.query("SELECT pg_export_snapshot() AS name", &[]).await?;
    let name = rows.first().context("PostgreSQL exported no snapshot")?.text("name")?;
    Ok((tx, Some(name)))
}

impl TableRows {
    /// # Errors
    /// [`Failure`] of kind config for what is no plain table.
    pub async fn of(tx: &mut Tx, table: &str, places: String) -> Result<Self> {
        let (sql, name) = tx.pick(
            (
                // In a partitioned table two rows may stand at the same place.
                "SELECT attname::TEXT AS name FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r' \
                 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
                quote_identifier(table),
            ),
            (
                "SELECT info.name AS name FROM sqlite_schema AS made, pragma_table_xinfo(made.name) AS info \
                 WHERE made.name = $1 AND made.type = 'table' AND info.hidden = 0 ORDER BY info.cid",
                table.to_owned(),
            ),
        );
        let rows = tx.query(sql, &[name.into()]).await?;
        let mut columns = rows.iter().map(|row| row.text("name")).collect::<Result<Vec<_>>>()?;
        columns.retain(|column| !TRACKING.contains(&column.as_str()));
        if columns.is_empty() {
            return Err(Failure::config(format!("`{table}` is no plain table, and its rows cannot be archived"))
                .hint("name the table itself in `-- name: archive …`; of a partitioned one, archive partition by partition")
                .into());
        }
        Ok(Self { table: table.to_owned(), columns, places })
    }

    /// Reads the rows.
    ///
    /// # Errors
    /// What the database says, and the sink.
    pub async fn read(&self, tx: &mut Tx, sink: &mut impl Sink) -> Result<()> {
        let sql = format!("SELECT {} FROM {} WHERE {}", self.cells(tx), quote_identifier(&self.table), self.condition(tx));
        stream(tx, &sql, self.columns.len(), sink).await
    }

    /// Deletes the rows; each as it was deleted.
    ///
    /// # Errors
    /// What the database says, and the sink.
    pub async fn delete(&self, tx: &mut Tx, sink: &mut impl Sink) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE {} RETURNING {}", quote_identifier(&self.table), self.condition(tx), self.cells(tx));
        stream(tx, &sql, self.columns.len(), sink).await
    }

    /// Reads of which event each of the rows is.
    ///
    /// # Errors
    /// What the database says.
    pub async fn read_event_ids(&self, tx: &mut Tx, each: impl FnMut(&str) + Send) -> Result<()> {
        read_event_ids(tx, &self.places, each).await
    }

    /// A table whose rows would be deleted, or changed, with these: it refers to them by a foreign key that does so.
    ///
    /// # Errors
    /// What the database says.
    pub async fn takes_along(&self, tx: &mut Tx) -> Result<Option<String>> {
        let keys = tx.pick(FOREIGN_KEYS_OF_POSTGRES, FOREIGN_KEYS_OF_SQLITE);
        let keys = tx.query(keys, &[self.table.as_str().into()]).await?;
        for key in keys {
            let (table, same) = (key.text("table_name")?, key.text("same")?);
            let sql = format!(
                "SELECT 1 AS one FROM {} AS referring WHERE EXISTS (SELECT 1 FROM {} AS referred WHERE {} AND {same}) LIMIT 1",
                key.text("table_quoted")?,
                quote_identifier(&self.table),
                self.condition_of(tx, "referred.")
            );
            if !tx.query(&sql, &[]).await?.is_empty() {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    fn cells(&self, tx: &Tx) -> String {
        let cell = |column: &String| tx.pick(format!("{}::TEXT", quote_identifier(column)), quote_identifier(column));
        self.columns.iter().map(cell).collect::<Vec<_>>().join(", ")
    }

    fn condition(&self, tx: &Tx) -> String {
        self.condition_of(tx, "")
    }

    fn condition_of(&self, tx: &Tx, row: &str) -> String {
        let places = format!("SELECT place FROM (\n{}\n) AS places", self.places);
        tx.pick(format!("{row}ctid = ANY (ARRAY({places}))"), format!("{row}rowid IN ({places})"))
    }
}

const FOREIGN_KEYS_OF_POSTGRES: &str = include_str!("../../sql/foreign_keys.postgres.sql");
const FOREIGN_KEYS_OF_SQLITE: &str = include_str!("../../sql/foreign_keys.sqlite.sql");

/// Puts rows back, each cell as [`TableRows::read`] gave it; how many.
///
/// # Errors
/// What the database says: a row of that key that is there already, one that another table lacks.
pub async fn insert(tx: &mut Tx, table: &str, columns: &[String], rows: Vec<Vec<Option<String>>>) -> Result<u64> {
    let is_typed = tx.pick(true, false);
    let value = |cell: Option<String>| match cell {
        Some(text) if is_typed => Ok(Value::Text(text)),
        Some(text) => typed(&text),
        None => Ok(Value::Null),
    };
    let rows = rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect::<Result<Vec<Vec<Value>>>>()?;
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    tx.insert_many_rows(table, &columns, &rows, "").await
}

/// A value of SQLite from its cell.
fn typed(cell: &str) -> Result<Value> {
    let (kind, text) = cell.split_at_checked(1).context("A cell has no type")?;
    Ok(match kind {
        "i" => Value::Int(text.parse()?),
        "r" => Value::Float(text.parse()?),
        "t" => Value::Text(text.to_owned()),
        _ => bail!("A cell has no type"),
    })
}

async fn stream(tx: &mut Tx, sql: &str, column_count: usize, sink: &mut impl Sink) -> Result<()> {
    match tx {
        Tx::Postgres(tx) => {
            let copy = format!("COPY ({sql}) TO STDOUT (FORMAT binary)");
            let mut stream = tx.copy_out_raw(&copy).await.map_err(classify)?;
            let mut is_first = true;
            while let Some(message) = stream.try_next().await.map_err(classify)? {
                let mut fields = Vec::with_capacity(column_count);
                let mut bytes = if std::mem::take(&mut is_first) { copy_binary::skip_header(&message)? } else { &message[..] };
                while copy_binary::begin_row(&mut bytes, column_count)? {
                    fields.clear();
                    for _ in 0..column_count {
                        fields.push(copy_binary::next_field(&mut bytes)?.map(std::str::from_utf8).transpose()?);
                    }
                    sink.row(&fields)?;
                }
                sink.settle().await?;
            }
            Ok(())
        }
        Tx::Sqlite(tx) => {
            let mut rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch(&mut **tx);
            while let Some(row) = rows.try_next().await.map_err(classify)? {
                let cells = (0..column_count).map(|index| cell(&row, index)).collect::<Result<Vec<_>>>()?;
                sink.row(&cells.iter().map(Option::as_deref).collect::<Vec<_>>())?;
                sink.settle().await?;
            }
            Ok(())
        }
    }
}

/// A value of SQLite with its type.
fn cell(row: &sqlx::sqlite::SqliteRow, index: usize) -> Result<Option<String>> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(None);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(Some(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => format!("i{}", row.try_get_unchecked::<i64, _>(index)?),
        "REAL" => format!("r{:e}", row.try_get_unchecked::<f64, _>(index)?),
        "TEXT" => format!("t{}", row.try_get_unchecked::<String, _>(index).context("A text of a row is not UTF-8")?),
        other => bail!("A row holds a value of type {other}, which cannot be archived"),
    }))
}
