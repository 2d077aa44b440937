//! The ledger as it is read: chunks of orgs, a few ahead of whoever folds them.

use std::path::Path;

use anyhow::{Context, Result};
use chrono::DateTime;
use futures_util::TryStreamExt;
use hashbrown::HashSet;
use rusqlite::{Connection, OpenFlags};
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::seats::{LedgerRow, MAX_SEATS, Series};
use crate::source::copy_binary;
use crate::store::{Store, classify, no_session};

/// Rows of a chunk of orgs; an org is never split, however many rows it has.
const CHUNK_ROWS: usize = 32_768;
const CHUNKS_AHEAD: usize = 2;

/// The years 1 to 9999, in microseconds since the Unix epoch: what both databases and every file can hold.
pub const INSTANTS: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

/// The ledger of one org.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrgLedger {
    pub org_id: String,
    /// By seat type, in byte order.
    pub series: Vec<Series>,
}

/// Chunks of orgs being read, a few ahead.
#[derive(Debug)]
pub struct Ledger {
    receiver: mpsc::Receiver<Result<Vec<OrgLedger>>>,
    reader: Option<JoinHandle<()>>,
}

impl Ledger {
    /// The next orgs, for a thread that may block; `None` only at the end of the ledger, never because its reader died.
    pub fn blocking_next(&mut self) -> Option<Result<Vec<OrgLedger>>> {
        if let Some(chunk) = self.receiver.blocking_recv() {
            return Some(chunk);
        }
        let reader = self.reader.take()?;
        let ended = tokio::runtime::Handle::current().block_on(reader);
        ended.err().map(|error| Err(anyhow::Error::new(error).context("The reader of the ledger died")))
    }
}

/// Collects rows that come ordered by org, type, instant and id.
#[derive(Default)]
struct Orgs {
    done: Vec<OrgLedger>,
    current: OrgLedger,
    row_count: usize,
    /// The ids so far, of a ledger that the project's own SQL gives: the built-in table keeps each once.
    seen: Option<HashSet<i64>>,
}

impl Orgs {
    fn new(proves_ids: bool) -> Self {
        Self { seen: proves_ids.then(HashSet::new), ..Self::default() }
    }

    fn push(&mut self, org_id: &str, seat_type: &str, row: LedgerRow) -> Result<()> {
        if !(0..=MAX_SEATS).contains(&row.seats) {
            return Err(Failure::bad_data(format!("Ledger row {} holds {} seats", row.id, row.seats))
                .hint(format!("a count lies between 0 and {MAX_SEATS}"))
                .into());
        }
        if !INSTANTS.contains(&row.occurred_at) {
            return Err(Failure::bad_data(format!("Ledger row {} stands outside of the years 1 to 9999", row.id))
                .hint("nobody held a seat then: take the row out, as the ledger's triggers say")
                .into());
        }
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(row.id)) {
            return Err(Failure::bad_data(format!("Ledger row {} is given twice", row.id))
                .hint("its months would be corrected: the statement must give one row for each id (a JOIN may give more)")
                .into());
        }
        if self.current.series.is_empty() || self.current.org_id != org_id {
            self.end_org();
            org_id.clone_into(&mut self.current.org_id);
        }
        if self.current.series.last().is_none_or(|series| series.seat_type != seat_type) {
            self.current.series.push(Series { seat_type: seat_type.to_owned(), rows: Vec::new() });
        }
        if let Some(series) = self.current.series.last_mut() {
            series.rows.push(row);
        }
        self.row_count += 1;
        Ok(())
    }

    fn end_org(&mut self) {
        if !self.current.series.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    /// The orgs that are complete, once there are enough rows.
    fn full_chunk(&mut self) -> Option<Vec<OrgLedger>> {
        if self.row_count < CHUNK_ROWS || self.done.is_empty() {
            return None;
        }
        self.row_count = self.current.series.iter().map(|series| series.rows.len()).sum();
        Some(std::mem::take(&mut self.done))
    }

    fn rest(mut self) -> Vec<OrgLedger> {
        self.end_org();
        self.done
    }
}

type Sender = mpsc::Sender<Result<Vec<OrgLedger>>>;

async fn read_postgres(pool: &PgPool, sql: &str, proves_ids: bool, sender: &Sender) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN READ ONLY").await.map_err(no_session)?;
    let mut stream = tx.copy_out_raw(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).await.map_err(classify)?;
    let mut orgs = Orgs::new(proves_ids);
    let mut is_first = true;
    while let Some(message) = stream.try_next().await.map_err(classify)? {
        let mut rows = if std::mem::take(&mut is_first) { copy_binary::skip_header(&message)? } else { &message[..] };
        while let Some(fields) = copy_binary::next_row::<5>(&mut rows)? {
            let [Some(org_id), Some(seat_type), Some(occurred_at), Some(id), Some(seats)] = fields else {
                return Err(Failure::bad_data("A ledger row has no org, type, instant, id or count").into());
            };
            let occurred_at = copy_binary::instant_micros(occurred_at)?;
            let row = LedgerRow { occurred_at, id: copy_binary::integer(id)?, seats: copy_binary::integer(seats)? };
            orgs.push(std::str::from_utf8(org_id)?, std::str::from_utf8(seat_type)?, row)?;
        }
        if let Some(chunk) = orgs.full_chunk()
            && sender.send(Ok(chunk)).await.is_err()
        {
            return Ok(());
        }
    }
    let _ = sender.send(Ok(orgs.rest())).await;
    Ok(())
}

fn read_sqlite(file: &Path, sql: &str, proves_ids: bool, sender: &Sender) -> Result<()> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_context(|| format!("Failed to open `{}`", file.display()))?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut orgs = Orgs::new(proves_ids);
    while let Some(row) = rows.next()? {
        let occurred_at = row.get_ref(2)?.as_str()?;
        let instant = DateTime::parse_from_rfc3339(occurred_at).with_context(|| format!("`{occurred_at}` is no instant"))?;
        let read = LedgerRow { occurred_at: instant.timestamp_micros(), id: row.get(3)?, seats: row.get(4)? };
        orgs.push(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, read)?;
        if let Some(chunk) = orgs.full_chunk()
            && sender.blocking_send(Ok(chunk)).is_err()
        {
            return Ok(());
        }
    }
    let _ = sender.blocking_send(Ok(orgs.rest()));
    Ok(())
}

/// Begins to read the rows that a statement gives, ordered by org, type, instant and id; where it `proves_ids`, one that gives an id twice
/// fails.
pub(super) fn read(
    store: Store,
    sql: String,
    proves_ids: bool,
    explain: impl Fn(anyhow::Error) -> anyhow::Error + Send + 'static,
) -> Ledger {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let reader = tokio::spawn(async move {
        let result = match &store {
            Store::Postgres { pool, .. } => read_postgres(pool, &sql, proves_ids, &sender).await,
            Store::Sqlite { file, .. } => {
                let (file, sender) = (file.clone(), sender.clone());
                tokio::task::spawn_blocking(move || read_sqlite(&file, &sql, proves_ids, &sender))
                    .await
                    .unwrap_or_else(|died| Err(died.into()))
            }
        };
        if let Err(error) = result {
            // A receiver that is gone wants no error either.
            let _ = sender.send(Err(explain(error))).await;
        }
    });
    Ledger { receiver, reader: Some(reader) }
}
