//! The seat ledger and the subscriptions, as the peak fold takes them: org by org, each read once.

mod few;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::copy_binary;
use crate::failure::Failure;
use crate::project::{Project, ProjectFile};
use crate::seats::calendar::implausible;
use crate::seats::{LedgerRow, MAX_SEATS, Series, Subscription};
use crate::show::counted;
use crate::sql_text::{self, Numbered};
use crate::store::{Row, Store, Tx, Value, classify, format_instant, no_session, reading};

/// The ledger of one org.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrgLedger {
    pub org_id: String,
    /// By seat type, in byte order.
    pub series: Vec<Series>,
}

/// A ledger row as a person reads it.
#[derive(Debug, Clone, Serialize)]
pub struct ReadRow {
    pub id: i64,
    pub seat_type: String,
    pub seats: i64,
    pub occurred_at: DateTime<Utc>,
    pub reason: Option<String>,
}

/// A subscription that cannot be billed, and why. It stops no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadSubscription {
    pub id: String,
    pub org_id: Option<String>,
    pub reason: String,
}

/// A subscription as its row gives it.
pub type ReadSubscription = std::result::Result<Subscription, BadSubscription>;

/// Bad subscriptions that an error names.
const NAMED: usize = 10;

impl BadSubscription {
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::bad_data(format!("Subscription `{}` cannot be billed: {}", shortened(&self.id), self.reason)).hint(FIX)
    }

    /// What a run says that billed all others; none where there is none.
    #[must_use]
    pub fn failure_of_all(bad: &[Self]) -> Option<Failure> {
        let named = bad.iter().take(NAMED).map(|bad| format!("`{}`: {}", shortened(&bad.id), bad.reason));
        let more = (bad.len() > NAMED).then(|| format!("… and {} more", bad.len() - NAMED));
        let failure = Failure::bad_data(format!("{} cannot be billed; all others are", counted(bad.len(), "subscription")));
        (!bad.is_empty()).then(|| failure.listing(named.chain(more)).hint(FIX))
    }
}

const FIX: &str =
    "fix its row where `sql/sources/subscription.sql` reads it: the table `subscription`, unless changed; the next run bills it";

/// The two SQL files that say where ledger and subscriptions are.
#[derive(Debug, Clone)]
pub struct SeatSource {
    ledger: ProjectFile,
    subscription: ProjectFile,
}

const LEDGER_COLUMNS: [&str; 6] = ["org_id", "seat_type", "occurred_at", "id", "seats", "reason"];
const SUBSCRIPTION_COLUMNS: [&str; 7] = ["id", "org_id", "plan", "committed_seats", "start_at", "end_at", "license_id"];

/// Rows of a chunk of orgs; an org is never split, however many rows it has.
const CHUNK_ROWS: usize = 32_768;
const CHUNKS_AHEAD: usize = 2;

/// The years 1 to 9999, in microseconds since the Unix epoch: what both databases and every file can hold.
pub const INSTANTS: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

impl SeatSource {
    /// Loads `sql/sources/seat_usage_event.<engine>.sql` and `sql/sources/subscription.sql`, from the project folder or built in.
    ///
    /// # Errors
    /// [`Failure`] of kind config.
    pub fn load(project: &Project, engine: &str) -> Result<Self> {
        let read = |stem: &str| -> Result<ProjectFile> {
            let paths = [format!("sql/sources/{stem}.{engine}.sql"), format!("sql/sources/{stem}.sql")];
            project.read_first(&paths)?.with_context(|| format!("There is no `{}`", paths[0]))
        };
        Ok(Self { ledger: read("seat_usage_event")?, subscription: read("subscription")? })
    }

    /// Checks that both statements fit the database and give every column.
    ///
    /// # Errors
    /// [`Failure`] of kind config that names the file and the column.
    pub async fn check(&self, store: &Store) -> Result<()> {
        for (file, needed) in [(&self.ledger, &LEDGER_COLUMNS[..]), (&self.subscription, &SUBSCRIPTION_COLUMNS[..])] {
            let given = store
                .prove_select(&Numbered { sql: statement(file), names: Vec::new() }, None)
                .await
                .with_context(|| format!("`{}` does not fit the database", file.origin))?;
            if let Some(missing) = needed.iter().find(|needed| given.iter().all(|given| given != *needed)) {
                return Err(Failure::config(format!("`{}` gives no column `{missing}`", file.origin))
                    .hint(format!("it gives {}; needed are {}", given.join(", "), needed.join(", ")))
                    .into());
            }
        }
        Ok(())
    }

    /// Every subscription that can be billed as of `now`, by org and id in byte order; and those that cannot.
    ///
    /// # Errors
    /// What the database says.
    pub async fn subscriptions(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<(Vec<Subscription>, Vec<BadSubscription>)> {
        let (mut subscriptions, mut bad) = (Vec::new(), Vec::new());
        for read in self.read_subscriptions(tx, "", &[], now).await? {
            match read {
                Ok(subscription) => subscriptions.push(subscription),
                Err(row) => bad.push(row),
            }
        }
        subscriptions.sort_unstable_by(|left, right| (&left.org_id, &left.id).cmp(&(&right.org_id, &right.id)));
        bad.sort_unstable();
        Ok((subscriptions, bad))
    }

    /// The subscription of an id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn subscription(&self, tx: &mut Tx, id: &str, now: DateTime<Utc>) -> Result<Option<ReadSubscription>> {
        Ok(self.read_subscriptions(tx, "WHERE id = $1", &[id.into()], now).await?.pop())
    }

    async fn read_subscriptions(
        &self,
        tx: &mut Tx,
        clauses: &str,
        parameters: &[Value],
        now: DateTime<Utc>,
    ) -> Result<Vec<ReadSubscription>> {
        // PostgreSQL has instants that no calendar here reaches, and infinite ones: an end there is none, and a start is missing.
        let columns = SUBSCRIPTION_COLUMNS.map(|column| match column {
            "start_at" | "end_at" if tx.pick(true, false) => {
                format!("CASE WHEN {column} <= '9999-12-31 23:59:59+00' THEN GREATEST({column}, '0001-01-01 00:00:00+00') END AS {column}")
            }
            _ => column.to_owned(),
        });
        let sql = format!("SELECT {} FROM ({}) AS subscriptions {clauses}", columns.join(", "), statement(&self.subscription));
        let rows = tx.read(&sql, parameters).await.map_err(|error| explain(error, &self.subscription))?;
        Ok(rows.iter().map(|row| subscription_of(row, now)).collect())
    }

    /// The ledger up to `as_of`, a few orgs at a time, in byte order of their ids.
    pub fn read(&self, store: &Store, as_of: DateTime<Utc>) -> Ledger {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (source, store) = (self.clone(), store.clone());
        let reader = tokio::spawn(async move {
            let collate = store.dialect().collate();
            let until = format_instant(as_of);
            let until = store.pick(format!("TIMESTAMPTZ '{until}'"), format!("'{until}'"));
            // The stream carries no types: each is cast to the one it is decoded as.
            let columns = store.pick(
                "org_id::TEXT, seat_type::TEXT, occurred_at::TIMESTAMPTZ, id::BIGINT, seats::BIGINT",
                "org_id, seat_type, occurred_at, id, seats",
            );
            let sql = format!(
                "SELECT {columns} FROM ({}) AS ledger WHERE occurred_at <= {until} \
                 ORDER BY org_id{collate}, seat_type{collate}, occurred_at, id",
                statement(&source.ledger)
            );
            let result = match &store {
                Store::Postgres { pool, .. } => read_postgres(pool, &sql, &sender).await,
                Store::Sqlite { file, .. } => {
                    let (file, sender) = (file.clone(), sender.clone());
                    tokio::task::spawn_blocking(move || read_sqlite(&file, &sql, &sender)).await.unwrap_or_else(|died| Err(died.into()))
                }
            };
            if let Err(error) = result {
                // A receiver that is gone wants no error either.
                let _ = sender.send(Err(explain(error, &source.ledger))).await;
            }
        });
        Ledger { receiver, reader: Some(reader) }
    }

    /// The ledger rows of one org and seat type up to `as_of`, in order.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rows_of_org(&self, tx: &mut Tx, org_id: &str, seat_type: &str, as_of: DateTime<Utc>) -> Result<Vec<ReadRow>> {
        let collate = tx.dialect().collate();
        let sql = format!(
            "SELECT seat_type, occurred_at, id, seats, reason FROM ({}) AS ledger \
             WHERE org_id{collate} = $1 AND seat_type{collate} = $2 AND occurred_at <= $3 ORDER BY occurred_at, id",
            statement(&self.ledger)
        );
        let rows = tx.read(&sql, &[org_id.into(), seat_type.into(), as_of.into()]).await.map_err(|error| explain(error, &self.ledger))?;
        rows.iter()
            .map(|row| {
                Ok(ReadRow {
                    id: row.int("id")?,
                    seat_type: row.text("seat_type")?,
                    seats: row.int("seats")?,
                    occurred_at: row.instant("occurred_at")?,
                    reason: row.opt_text("reason")?,
                })
            })
            .collect()
    }

    /// The seat types that the ledger of an org has.
    ///
    /// # Errors
    /// What the database says.
    pub async fn types_of_org(&self, tx: &mut Tx, org_id: &str) -> Result<Vec<String>> {
        let collate = tx.dialect().collate();
        let sql =
            format!("SELECT DISTINCT seat_type FROM ({}) AS ledger WHERE org_id{collate} = $1 ORDER BY seat_type", statement(&self.ledger));
        let rows = tx.read(&sql, &[org_id.into()]).await.map_err(|error| explain(error, &self.ledger))?;
        rows.iter().map(|row| row.text("seat_type")).collect()
    }
}

fn statement(file: &ProjectFile) -> String {
    sql_text::statements(&file.text).remove("").unwrap_or_default()
}

fn explain(error: anyhow::Error, file: &ProjectFile) -> anyhow::Error {
    reading::only_reads(error).context(format!("Failed to read `{}`", file.origin))
}

fn subscription_of(row: &Row, now: DateTime<Utc>) -> ReadSubscription {
    let text = |column: &str| row.opt_text(column).ok().flatten();
    let id = text("id").unwrap_or_default();
    let read = || -> Result<Subscription> {
        ensure!(!id.is_empty(), "it has no id");
        let committed_seats = match row.get("committed_seats")? {
            Value::Null => None,
            _ => Some(row.int("committed_seats")?),
        };
        let started_at = row.opt_instant("start_at")?.context("`start_at` is missing, or lies past the year 9999")?;
        let start_at = started_at.timestamp_micros();
        if let Some(problem) = implausible(start_at, now.timestamp_micros()) {
            bail!("`start_at` ({}) {problem}", format_instant(started_at));
        }
        // However far ahead: until it comes it ends nothing.
        let end_at = row.opt_instant("end_at")?.map(|end| end.timestamp_micros());
        Ok(Subscription {
            id: id.clone(),
            org_id: row.text("org_id")?,
            plan: row.opt_text("plan")?,
            license_id: row.opt_text("license_id")?,
            committed_seats,
            start_at,
            end_at,
        })
    };
    read().map_err(|error| BadSubscription { id: id.clone(), org_id: text("org_id"), reason: format!("{error:#}") })
}

/// An id that somebody may have made long.
fn shortened(id: &str) -> String {
    id.chars().take(80).collect()
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
}

impl Orgs {
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

async fn read_postgres(pool: &PgPool, sql: &str, sender: &Sender) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN READ ONLY").await.map_err(no_session)?;
    let mut stream = tx.copy_out_raw(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).await.map_err(classify)?;
    let mut orgs = Orgs::default();
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

fn read_sqlite(file: &Path, sql: &str, sender: &Sender) -> Result<()> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_context(|| format!("Failed to open `{}`", file.display()))?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut orgs = Orgs::default();
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
