//! What a database says, as an error with a kind and the next step, where they are known.

use crate::failure::{self, Failure};

/// What a write to a standby, or to a file that may not be written, comes to.
pub(super) const READ_ONLY: &str = "The database is read-only";

/// Turns what the database says into an error with a kind and the next step, where they are known.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub fn classify(error: sqlx::Error) -> anyhow::Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned).unwrap_or_default();
    let text = what_it_says(&error);
    let failure = if is_read_only(&error) {
        read_only()
    } else if code == "42P01" || text.contains("no such table") {
        lacks_table()
    } else if code == "42703" || text.contains("no such column") {
        lacks_column()
    } else if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) {
        Failure::bad_data("The database holds a value that cannot be read").hint("fix the row that holds it")
    } else if sqlite_code(&code).is_some_and(|code| matches!(code, 11 | 26)) {
        return damaged(&text).into();
    } else if is_full(&code) {
        Failure::try_again("There is no room left for the database").hint("make room on its disk; this command can be repeated as it is")
    } else if matches!(code.as_str(), "26000" | "42P05") {
        // A prepared statement that is gone, or that another session's client has prepared.
        pooler_of_transactions()
    } else if code == "42501" && text.contains("row-level security") {
        Failure::config("Row-level security would hide rows from this database role").hint(
            "a run must see every row: connect as a role with BYPASSRLS (`tallyroll_runner` of sql/roles.sql), or as the tables' owner",
        )
    } else if code == "42501" {
        Failure::config("The database role lacks a right").hint("grant it, or connect as the role that owns the tables")
    } else if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
        Failure::bad_data("Two rows have the same unique key").hint("the statement gives more than one row for one grain; fix its GROUP BY")
    } else if ["22023", "23001", "1811"].contains(&code.as_str()) {
        // Raised by our own functions and triggers (1811: SQLITE_CONSTRAINT_TRIGGER), with words for the caller.
        return Failure::usage(text).hint(hint_of(&error).unwrap_or("nothing was changed")).into();
    } else if code == "55P03" {
        Failure::try_again("Another session kept a lock for too long")
            .hint("`pg_locks`, joined with `pg_stat_activity` by `pid`, shows whose it is; this command can be repeated as it is")
    } else if may_pass(&error) {
        Failure::try_again("The database could not do it this time").hint("this command can be repeated as it is")
    } else {
        return anyhow::anyhow!(text).context("The database refused a statement");
    };
    failure.caused_by(anyhow::anyhow!(text)).into()
}

pub(super) fn read_only() -> Failure {
    Failure::config(READ_ONLY).hint("connect to the primary, as a role or user that may write")
}

pub(super) fn lacks_table() -> Failure {
    Failure::config("The database lacks a table").hint("`tallyroll migrate` creates or upgrades the schema")
}

pub(super) fn lacks_column() -> Failure {
    Failure::config("The database lacks a column")
        .hint("fix the SQL file, or run `tallyroll migrate` if the schema is older than this version")
}

pub(super) fn hint_of(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.hint()
}

/// As [`classify`], where a session was not had: until there is one, the server is shown by its code alone, for it has been sent the
/// password and may repeat it.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub fn no_session(error: sqlx::Error) -> anyhow::Error {
    if is_read_only(&error) {
        return read_only().into();
    }
    Failure::try_again("The database gave no session")
        .caused_by(anyhow::anyhow!(without_words(&error)))
        .hint("this command can be repeated as it is")
        .into()
}

/// Why there is no session, in words of ours.
pub(super) fn without_words(error: &sqlx::Error) -> String {
    let said = match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => return error.to_string(),
        sqlx::Error::Database(said) => said,
        sqlx::Error::Tls(_) => return "TLS failed; check the key and the certificates that the URL names".to_owned(),
        _ => return "what it says is not shown: it may repeat the password".to_owned(),
    };
    let code = said.code().unwrap_or_default();
    if code.len() != 5 || !code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
        return "it says no".to_owned();
    }
    let meaning = match code.as_ref() {
        "28P01" => "the password is wrong",
        "28000" => "the role may not connect",
        "3D000" => "there is no such database",
        "53300" => "it has no connection left",
        "57P03" => "it starts or stops",
        _ => "it says",
    };
    format!("{meaning} [{code}]")
}

/// The database's own words, once: sqlx repeats them as the source of its error.
pub(super) fn what_it_says(error: &sqlx::Error) -> String {
    let Some(said) = error.as_database_error() else { return error.to_string() };
    let detail = said.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|said| said.detail());
    match (said.code(), detail) {
        (Some(code), Some(detail)) => format!("{} ({detail}) [{code}]", said.message()),
        (Some(code), None) => format!("{} [{code}]", said.message()),
        (None, _) => said.message().to_owned(),
    }
}

pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    // 25006: PostgreSQL's read_only_sql_transaction. 8: SQLITE_READONLY.
    code == "25006" || sqlite_code(&code) == Some(8)
}

/// SQLite's primary result code: its extended ones are the primary one + 256 n. PostgreSQL's codes have five characters.
fn sqlite_code(code: &str) -> Option<u32> {
    (code.len() < 5).then(|| code.parse::<u32>().ok()).flatten().map(|code| code & 0xff)
}

/// 53100: PostgreSQL's `disk_full`. 13: `SQLITE_FULL`.
fn is_full(code: &str) -> bool {
    code == "53100" || sqlite_code(code) == Some(13)
}

pub(super) fn pooler_of_transactions() -> Failure {
    Failure::config("The database is reached through a pooler that changes sessions between transactions")
        .hint("connect to the server itself, or to a pool that keeps a session for each connection (pgbouncer: `pool_mode = session`)")
}

fn damaged(text: &str) -> Failure {
    Failure::bad_data("The database file is damaged")
        .caused_by(anyhow::anyhow!(text.to_owned()))
        .hint("restore it from a copy; `PRAGMA integrity_check` of sqlite3(1) says what is broken")
}

/// As [`classify`], of an error of the connection that reads SQLite's log.
#[must_use]
pub fn classify_sqlite(error: rusqlite::Error) -> anyhow::Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => damaged(&error.to_string()).into(),
        Some(
            rusqlite::ErrorCode::DatabaseBusy
            | rusqlite::ErrorCode::DatabaseLocked
            | rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::OutOfMemory,
        ) => Failure::try_again("The database could not do it this time")
            .caused_by(error)
            .hint("this command can be repeated as it is")
            .into(),
        _ => match error {
            // It would show the whole statement.
            rusqlite::Error::SqlInputError { msg, .. } => anyhow::anyhow!(msg),
            other => other.into(),
        },
    }
}

/// Whether another try may pass: lost connections, serialization failures, a server that starts or is full, a busy file.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // 5 and 6: busy, locked. 14: SQLITE_CANTOPEN of a file that was open a moment ago: no descriptor is left. 7: no memory.
            sqlite_code(&code).is_some_and(|code| matches!(code, 5 | 6 | 7 | 14))
                // 08: connections. 53: disk, memory, connections used up.
                || code.starts_with("08")
                || code.starts_with("53")
                || matches!(code.as_ref(), "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03" | "25P03")
        }
        _ => false,
    }
}

/// What to do about a migration or a file of functions that the database refused.
pub(super) fn refused(error: sqlx::Error, what: &str, location: &str) -> anyhow::Error {
    let text = what_it_says(&error);
    let classified = classify(error);
    if failure::find(&classified).is_some() {
        return classified.context(format!("{what} failed"));
    }
    Failure::config(format!("{what} does not fit the tables that `{location}` holds: {text}"))
        .hint("rename or fix the table in the way, then run `tallyroll migrate` again; what was applied stays")
        .into()
}
