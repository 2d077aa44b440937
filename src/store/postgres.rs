//! PostgreSQL behind [`Store`](super::Store): connecting, binding, decoding.

mod decode;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnection, PgPool, PgPoolOptions, PgTypeInfo};
use sqlx::query::Query;
use sqlx::types::Decimal;
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Encode, Executor, PgExecutor, Postgres, Row as _, Type};

use super::url::PostgresUrl;
use super::value::{Row, Value};
use crate::failure::Failure;
use crate::fingerprint::Fingerprint;

/// What every session is told: results must not depend on the settings of the server, the database or the role; a role that
/// row-level security would show fewer rows gets an error instead; a run that hangs inside a transaction is cut off and cannot keep
/// a window. How long a run may take is said by `timeout` in `schedules.toml`, not by a timeout meant for web requests.
const SESSION_SETTINGS: &str = "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'; SET row_security = off; \
     SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
     SET statement_timeout = 0; SET lock_timeout = 0; SET standard_conforming_strings = on; \
     SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning; SET jit = off";

/// Where nothing is found that somebody made, until the transaction ends.
pub(super) const NOTHING_OF_OTHERS: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// Where unqualified names are looked for: our own schema, then the application's, which is where `tallyroll_migration` is, of the owner
/// that our schema has. Before there is one: the first that the session would look in. The rest of the session's path is left out: a
/// schema that is named like a role is whoever's makes it. Only the catalog is read, since a table's indexes may run code of its owner's.
/// A statement whose client is gone ends within seconds, but on servers before 14, and some that are not on Linux.
const SEARCH_PATH: &str = "SET search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    v_found NAME[];
    v_application NAME;
BEGIN
    IF EXISTS (
        SELECT 1 FROM pg_class AS setting JOIN pg_namespace AS own ON own.oid = setting.relnamespace
        WHERE own.nspname = 'tallyroll' AND setting.relname = 'tallyroll_setting' AND setting.relkind = 'r'
    ) THEN
        SELECT COALESCE(
            array_agg(place.nspname) FILTER (WHERE history.relowner = own.nspowner),
            array_agg(place.nspname) FILTER (WHERE pg_has_role(own.nspowner, history.relowner, 'MEMBER'))
        ) INTO v_found
        FROM pg_namespace AS own
        JOIN pg_class AS history ON history.relname = 'tallyroll_migration' AND history.relkind = 'r'
        JOIN pg_namespace AS place ON place.oid = history.relnamespace
        WHERE own.nspname = 'tallyroll' AND place.nspname <> 'tallyroll';
        v_application := CASE cardinality(v_found) WHEN 1 THEN v_found[1] END;
    ELSE
        RESET search_path;
        v_found := pg_catalog.current_schemas(FALSE);
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', FALSE);
        v_application := (
            SELECT name
            FROM unnest(v_found) WITH ORDINALITY AS path (name, place)
            WHERE name <> 'tallyroll' AND name NOT LIKE 'pg\\_%' AND name <> 'information_schema'
            ORDER BY EXISTS (
                SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                WHERE nspname = name AND relname = 'tallyroll_migration' AND relkind = 'r'
            ) DESC, place
            LIMIT 1
        );
    END IF;
    PERFORM set_config('tallyroll.application_schema', COALESCE(v_application, ''), FALSE);
    BEGIN
        PERFORM set_config('client_connection_check_interval', '5s', FALSE);
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    PERFORM set_config('search_path', concat_ws(', ', 'tallyroll', quote_ident(v_application), 'pg_temp'), FALSE);
END;
$$";

/// Makes a session what it was when it began, whatever a function has set in it.
pub(super) async fn renew(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let forget = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL";
    connection.execute(AssertSqlSafe(format!("{forget}; {SESSION_SETTINGS}; {SEARCH_PATH}"))).await.map(|_| ())
}

/// A connection that cannot be opened is tried this often, with growing pauses, before exit code 75.
const CONNECT_ATTEMPTS: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a pool and proves that one connection works.
///
/// # Errors
/// [`Failure`] of kind try-again when the server cannot be reached, of kind config when it refuses.
pub(super) async fn connect(url: &PostgresUrl, connections: u32) -> Result<PgPool> {
    let shown_url = &url.shown;
    if url.unknown_count > 0 {
        tracing::warn!(count = url.unknown_count, "Parameters of `database.url` that are not known are left out");
    }
    let options = url
        .options
        .clone()
        .application_name("tallyroll")
        // How long a window takes is in `job_run`; sqlx would log each slow statement whole.
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SESSION_SETTINGS).await?;
                connection.execute(SEARCH_PATH).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options.clone());
    let mut attempt = 1;
    loop {
        // Not through the pool, which tells only that it waited for long enough.
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        let connected = connected.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        match connected {
            Ok(connection) => {
                require_own_session(connection, &pool).await?;
                return Ok(pool);
            }
            Err(error) if attempt < CONNECT_ATTEMPTS && super::classify::may_pass(&error) => {
                tracing::warn!(attempt, error = super::classify::without_words(&error), "The database cannot be reached; trying again");
                tokio::time::sleep(Duration::from_millis(500) * attempt).await;
                attempt += 1;
            }
            Err(error) if super::classify::may_pass(&error) => {
                return Err(Failure::try_again(format!("The database at `{shown_url}` cannot be reached ({attempt} attempts)"))
                    .caused_by(anyhow::anyhow!(super::classify::without_words(&error)))
                    .hint("check that the server runs and that `database.url` names it; this command can be repeated as it is")
                    .into());
            }
            Err(error) => {
                return Err(Failure::config(format!("The database at `{shown_url}` refuses the connection"))
                    .caused_by(anyhow::anyhow!(super::classify::without_words(&error)))
                    .hint("check user, password and database name in `database.url` or `DATABASE_URL`")
                    .into());
            }
        }
    }
}

/// A session, new or used before.
///
/// # Errors
/// As [`super::classify::no_session`].
pub(super) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    pool.acquire().await.map_err(super::classify::no_session)
}

/// Refuses a pooler that hands sessions from one transaction to the next: settings and locks of a session would be somebody else's.
/// Behind one, a second connection gets the session that the first has just used.
async fn require_own_session(mut first: PgConnection, pool: &PgPool) -> Result<()> {
    let mut second = acquire(pool).await?;
    // Not yet told where to look, the first finds what the database's owner lets it.
    let sql = "SELECT pg_catalog.pg_backend_pid()";
    let of_first: i32 =
        sqlx::raw_sql(sql).fetch_one(&mut first).await.and_then(|row| row.try_get_unchecked(0)).map_err(super::classify::no_session)?;
    let of_second: i32 =
        sqlx::raw_sql(sql).fetch_one(&mut *second).await.and_then(|row| row.try_get_unchecked(0)).map_err(super::classify::no_session)?;
    first.close().await.map_err(super::classify::classify)?;
    if of_first == of_second {
        return Err(super::classify::pooler_of_transactions().into());
    }
    Ok(())
}

pub(super) async fn query(executor: impl PgExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, sqlx::Error> {
    let rows = bind(sql, parameters).fetch_all(executor).await?;
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    rows.iter().map(|row| Ok(Row { columns: Arc::clone(&columns), values: decode::decode(row)? })).collect()
}

pub(super) async fn digest(executor: impl PgExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<String, sqlx::Error> {
    let mut rows = bind(sql, parameters).fetch(executor);
    let mut fingerprint = Fingerprint::default();
    while let Some(row) = rows.try_next().await? {
        for value in decode::decode(&row)? {
            // A text never begins as NULL does.
            fingerprint.add(value.to_text().map_or("\0".to_owned(), |text| format!("={text}")).as_bytes());
        }
    }
    Ok(fingerprint.finish())
}

pub(super) async fn execute(executor: impl PgExecutor<'_>, sql: &str, parameters: &[Value]) -> Result<u64, sqlx::Error> {
    Ok(bind(sql, parameters).execute(executor).await?.rows_affected())
}

fn bind(sql: &str, parameters: &[Value]) -> Query<'static, Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    // An INSERT with a NULL is prepared for this once: the server gives the NULL its column's type (INTEGER, say), to which the
    // next execution's 64-bit number would not fit. Other statements keep to 64 bits, and are cached.
    if sql.starts_with("INSERT") && parameters.contains(&Value::Null) {
        query = query.persistent(false);
    }
    for parameter in parameters {
        query = match parameter.clone() {
            Value::Null => query.bind(Untyped),
            Value::Int(value) => query.bind(value),
            Value::Float(value) => query.bind(value),
            Value::Text(value) | Value::Other(value) => query.bind(value),
            Value::Nanos(value) => query.bind(Decimal::new(value, 9)),
            Value::Date(value) => query.bind(value),
            Value::Instant(value) => query.bind(value),
            Value::Uuid(value) => query.bind(value),
        };
    }
    query
}

/// A NULL whose type the server infers, so that one `Value::Null` fits every column.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}
