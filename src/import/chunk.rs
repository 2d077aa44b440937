//! Rows of a file on their way into the database, some at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use hashbrown::HashMap;
use uuid::Uuid;

use super::bad_rows::BadRows;
use super::known;
use super::target::{Field, Form, SEATS, Target};
use crate::store::{Tx, Value};

/// Rows sent at once, and texts of them.
const CHUNK_ROWS: usize = 10_000;
const CHUNK_TEXT_BYTES: usize = 16 << 20;
/// Rows whose ids are asked for by one statement.
const ASKED_ROWS: usize = 1_000;

/// Where a ledger row's org and instant stand.
const ORG: usize = 1;
const OCCURRED_AT: usize = 4;

/// A digest of what a ledger row says.
fn said(values: &[Value]) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), format!("{values:?}").as_bytes())
}

/// A row that can be taken in, the columns that its file gives, and its line.
#[derive(Clone)]
pub(super) struct GoodRow {
    pub(super) given: Arc<[&'static str]>,
    pub(super) line: u64,
    pub(super) values: Vec<Value>,
}

/// Rows on their way, all with the same columns given.
pub(super) struct Chunk {
    target: &'static Target,
    given: Arc<[&'static str]>,
    lines: Vec<u64>,
    rows: Vec<Vec<Value>>,
    text_bytes: usize,
}

impl Chunk {
    pub(super) fn new(target: &'static Target) -> Self {
        Self { target, given: Arc::new([]), lines: Vec::new(), rows: Vec::new(), text_bytes: 0 }
    }

    pub(super) fn is_full_for(&self, given: &Arc<[&'static str]>) -> bool {
        let depends = self.target.is_updated || self.target.table == SEATS.table;
        let most_rows = if depends { ASKED_ROWS } else { CHUNK_ROWS };
        let is_large = self.rows.len() == most_rows || self.text_bytes >= CHUNK_TEXT_BYTES;
        is_large || (!self.rows.is_empty() && depends && self.given != *given)
    }

    pub(super) fn push(&mut self, GoodRow { given, line, values }: GoodRow) {
        self.given = given;
        self.lines.push(line);
        self.text_bytes += values.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 }).sum::<usize>();
        self.rows.push(values);
    }
}

/// Puts the rows of one file into its table.
pub(super) struct Inserter {
    target: &'static Target,
    /// What says which import its rows came by, where the table has a column for it.
    import_id: Option<String>,
    /// Ledger rows so far, by a digest of all that they say but their ids.
    seen: HashMap<Uuid, u64>,
    pub(super) differing: Differing,
}

/// Rows whose event the log has otherwise, and the line of the first.
#[derive(Debug, Default)]
pub(super) struct Differing {
    pub(super) count: u64,
    pub(super) first_line: Option<u64>,
}

impl Inserter {
    pub(super) fn new(target: &'static Target, import_id: Option<String>) -> Self {
        Self { target, import_id, seen: HashMap::new(), differing: Differing::default() }
    }

    pub(super) async fn insert(&mut self, tx: &mut Tx, mut chunk: Chunk, bad: &mut BadRows) -> Result<u64> {
        let columns: Vec<String> = self.target.fields.iter().map(|field| column(tx, field)).collect();
        let mut columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let is_numbered = self.target.table == SEATS.table && !chunk.given.contains(&SEATS.key[0]);
        if is_numbered {
            self.pass_known_rows(tx, &mut chunk).await?;
            columns.remove(0);
            chunk.rows.iter_mut().for_each(|row| drop(row.remove(0)));
        } else if self.target.table == SEATS.table {
            self.refuse_taken_ids(tx, &mut chunk, bad).await?;
        }
        let on_conflict = self.target.on_conflict(&chunk.given);
        let Some(import_id) = &self.import_id else {
            return tx.insert_rows(self.target.table, &columns, &chunk.rows, &on_conflict).await;
        };
        columns.push("import_id");
        chunk.rows.iter_mut().for_each(|row| row.push(import_id.as_str().into()));
        let inserted = tx.insert_many_rows(self.target.table, &columns, &chunk.rows, &on_conflict).await?;
        if inserted < chunk.rows.len() as u64 {
            self.note_differing(tx, &chunk).await?;
        }
        Ok(inserted)
    }

    /// Notes the rows whose event was in the log already and says something else there.
    async fn note_differing(&mut self, tx: &mut Tx, chunk: &Chunk) -> Result<()> {
        let sent: Vec<&[Value]> = chunk.rows.iter().map(Vec::as_slice).collect();
        let stored = known::stored(tx, &sent).await?;
        for (row, line) in chunk.rows.iter().zip(&chunk.lines) {
            let is_other = stored.get(&known::key_of(row)).is_some_and(|there| !known::says(there, row, |_| false));
            if is_other {
                self.differing.count += 1;
                self.differing.first_line.get_or_insert(*line);
            }
        }
        Ok(())
    }

    /// Ledger rows without ids: the n-th of equal rows is there already if the ledger has n.
    async fn pass_known_rows(&mut self, tx: &mut Tx, chunk: &mut Chunk) -> Result<()> {
        let columns: Vec<&str> = SEATS.fields[1..].iter().map(|field| field.column).collect();
        let columns = columns.join(", ");
        let orgs: BTreeSet<Option<String>> = chunk.rows.iter().map(|row| row[ORG].to_text()).collect();
        let instants: BTreeMap<Option<String>, &Value> =
            chunk.rows.iter().map(|row| (row[OCCURRED_AT].to_text(), &row[OCCURRED_AT])).collect();
        let parameters: Vec<Value> = orgs.iter().cloned().map(Value::from).chain(instants.into_values().cloned()).collect();
        if parameters.is_empty() {
            return Ok(());
        }
        let places: Vec<String> = (1..=parameters.len()).map(|place| format!("${place}")).collect();
        let (of_orgs, of_instants) = places.split_at(orgs.len());
        let sql = format!(
            "SELECT {columns}, COUNT(*) AS row_count FROM seat_usage_event \
             WHERE org_id{} IN ({}) AND occurred_at IN ({}) GROUP BY {columns}",
            tx.dialect().collate(),
            of_orgs.join(", "),
            of_instants.join(", ")
        );
        let mut stored: HashMap<Uuid, u64> = HashMap::new();
        for row in tx.query(&sql, &parameters).await? {
            let values = [
                row.text("org_id")?.into(),
                row.text("seat_type")?.into(),
                row.int("seats")?.into(),
                row.instant("occurred_at")?.into(),
                row.opt_text("reason")?.into(),
            ];
            stored.insert(said(&values), u64::try_from(row.int("row_count")?)?);
        }
        let (rows, lines) = (std::mem::take(&mut chunk.rows), std::mem::take(&mut chunk.lines));
        for (row, line) in rows.into_iter().zip(lines) {
            let said = said(&row[ORG..]);
            let count = self.seen.entry(said).or_insert(0);
            *count += 1;
            if *count > stored.get(&said).copied().unwrap_or(0) {
                chunk.rows.push(row);
                chunk.lines.push(line);
            }
        }
        Ok(())
    }

    /// A ledger row is known by its id: another row under the same id would be lost without a word.
    async fn refuse_taken_ids(&mut self, tx: &mut Tx, chunk: &mut Chunk, bad: &mut BadRows) -> Result<()> {
        let ids: Vec<Value> = chunk.rows.iter().map(|row| row[0].clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT id, org_id, seat_type, seats, occurred_at FROM seat_usage_event WHERE id IN ({})", places.join(", "));
        let mut taken: HashMap<i64, Vec<Value>> = HashMap::new();
        for row in tx.query(&sql, &ids).await? {
            let facts = vec![
                row.text("org_id")?.into(),
                row.text("seat_type")?.into(),
                row.int("seats")?.into(),
                row.instant("occurred_at")?.into(),
            ];
            taken.insert(row.int("id")?, facts);
        }
        let (rows, lines) = (std::mem::take(&mut chunk.rows), std::mem::take(&mut chunk.lines));
        for (row, line) in rows.into_iter().zip(lines) {
            // The fields stand in the target's order: org, type, count, instant follow the id.
            let (id, facts) = (&row[0], &row[1..5]);
            let Value::Int(id) = id else { continue };
            if taken.entry(*id).or_insert_with(|| facts.to_vec()) == facts {
                *self.seen.entry(said(&row[ORG..])).or_insert(0) += 1;
                chunk.rows.push(row);
                chunk.lines.push(line);
            } else {
                bad.push(line, format!("`id` {id} is that of another ledger row"), "");
            }
        }
        Ok(())
    }
}

/// The column of a field in this database.
pub(super) fn column(tx: &Tx, field: &Field) -> String {
    if field.form == Form::Usd { tx.dialect().cost_column("cost") } else { field.column.to_owned() }
}
