//! The seat ledger and the subscriptions, as the peak fold takes them: org by org, each read once.

mod few;
mod stream;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;

pub use self::stream::{INSTANTS, Ledger, OrgLedger};
use crate::failure::Failure;
use crate::project::{Project, ProjectFile};
use crate::seats::calendar::implausible;
use crate::seats::{MAX_SEATS, Subscription};
use crate::show::counted;
use crate::sql_text::{self, Numbered};
use crate::store::{Row, Store, Tx, Value, format_instant, reading};
use crate::text_file;

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
            let sql = statement(file);
            let line = text_file::line_of(&file.text, &sql);
            let given = store
                .columns_given(&Numbered { sql, names: Vec::new(), line }, file.is_built_in)
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

    /// The tables that ledger and subscriptions are read from, as the database names them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn tables_read(&self, store: &Store) -> Result<BTreeSet<String>> {
        let mut tables = store.tables_read(&statement(&self.ledger), &[]).await?;
        tables.extend(store.tables_read(&statement(&self.subscription), &[]).await?);
        Ok(tables)
    }

    /// Every subscription that can be billed as of `now`, by org and id in byte order; and those that cannot.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind bad-data for an id that is given twice.
    pub async fn subscriptions(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<(Vec<Subscription>, Vec<BadSubscription>)> {
        let (mut subscriptions, mut bad) = (Vec::new(), Vec::new());
        for read in self.read_subscriptions(tx, "", &[], now).await? {
            match read {
                Ok(subscription) => subscriptions.push(subscription),
                Err(row) => bad.push(row),
            }
        }
        let mut seen = BTreeSet::new();
        let mut ids = subscriptions.iter().map(|subscription| &subscription.id).chain(bad.iter().map(|bad| &bad.id));
        if let Some(twice) = ids.find(|id| !seen.insert(*id)) {
            return Err(Failure::bad_data(format!("`{}` gives subscription `{}` twice", self.subscription.origin, shortened(twice)))
                .hint("it would be billed twice: the statement must give one row for each id (a JOIN may give more)")
                .into());
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
            statement(&self.ledger)
        );
        let file = self.ledger.clone();
        stream::read(store.clone(), sql, !self.ledger.is_built_in, move |error| explain(error, &file))
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
        ensure!(committed_seats.is_none_or(|seats| (0..=MAX_SEATS).contains(&seats)), "`committed_seats` is no number of seats");
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
