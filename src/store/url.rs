//! `database.url` in parts: what connects, and what of it may be shown.
//!
//! A password can stand anywhere in such a text: before the host, in `password=`, in a `/` or `?` that was not encoded, in a value that
//! is no URL at all. So what is shown is made of parts that were parsed and are nothing but names; of a text that does not parse,
//! nothing is shown.

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use url::{Position, Url};

/// What `database.url` names.
pub(super) enum DatabaseUrl {
    Postgres(Box<PostgresUrl>),
    /// The path after `sqlite:`.
    Sqlite(String),
}

pub(super) struct PostgresUrl {
    pub(super) options: PgConnectOptions,
    pub(super) shown: String,
    /// Parameters that are not known, and are left out: sqlx would log them with their values.
    pub(super) unknown_count: usize,
}

/// Why a text is no database URL, in words that quote nothing of it.
pub(super) struct NotUrl {
    pub(super) reason: String,
    pub(super) hint: &'static str,
}

/// The parameters that sqlx reads from a URL; `options[…]` aside.
const KNOWN: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

const SQLITE_FORM: &str = "write it as `sqlite://tallyroll.db` or `sqlite:///var/lib/tallyroll.db`";
const POSTGRES_FORM: &str =
    "write it as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; in the password `@` is `%40`, `/` `%2F`, `?` `%3F`, `#` `%23`, `%` `%25`";

/// A value of which nothing may be shown.
#[must_use]
pub(crate) fn hidden(value: &str) -> String {
    format!("a value that is not shown, of {} characters", value.chars().count())
}

/// What may be shown of a database URL.
#[must_use]
pub(crate) fn shown(text: &str) -> String {
    match parse(text) {
        Ok(DatabaseUrl::Postgres(url)) => url.shown,
        Ok(DatabaseUrl::Sqlite(_)) => text.to_owned(),
        Err(_) => hidden(text),
    }
}

/// Whether a text that should be a path looks like one with a user and a password.
#[must_use]
pub(crate) fn has_credentials(path: &str) -> bool {
    path.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// Reads a database URL.
pub(super) fn parse(text: &str) -> Result<DatabaseUrl, NotUrl> {
    let not_url = |reason: String, hint| NotUrl { reason, hint };
    if let Some(rest) = text.strip_prefix("sqlite:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let is_file = !path.is_empty() && !path.contains(":memory:") && !path.contains(['?', '\n']) && !has_credentials(path);
        return if is_file {
            Ok(DatabaseUrl::Sqlite(path.to_owned()))
        } else {
            Err(not_url("names no SQLite file".to_owned(), SQLITE_FORM))
        };
    }
    if !(text.starts_with("postgres:") || text.starts_with("postgresql:")) {
        return Err(not_url("is for neither of the two databases".to_owned(), "it starts with `sqlite://` or `postgres://`"));
    }
    // A URL parser drops line ends and encodes spaces: what followed them would become part of a name.
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(not_url("is no PostgreSQL URL: it holds a space or a line end".to_owned(), POSTGRES_FORM));
    }
    let url = Url::parse(text).map_err(|error| not_url(format!("is no PostgreSQL URL: {error}"), POSTGRES_FORM))?;
    // A `/`, `?` or `#` of the password that is not encoded ends the host, and the rest of the password follows it, up to the `@`.
    if !url.has_authority() || url[Position::BeforePath..].contains('@') {
        return Err(not_url("is no PostgreSQL URL: an `@` stands behind its host".to_owned(), POSTGRES_FORM));
    }
    postgres(url).map(Box::new).map(DatabaseUrl::Postgres)
}

fn postgres(mut url: Url) -> Result<PostgresUrl, NotUrl> {
    let is_known = |name: &str| KNOWN.contains(&name) || name.starts_with("options[");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let unknown_count = pairs.iter().filter(|(name, _)| !is_known(name)).count();
    if unknown_count > 0 {
        url.query_pairs_mut().clear().extend_pairs(pairs.iter().filter(|(name, _)| is_known(name)));
    }
    // What sqlx says of a wrong parameter quotes it.
    let options = PgConnectOptions::from_url(&url).map_err(|_| NotUrl {
        reason: "is no PostgreSQL URL: a parameter behind its `?` cannot be read".to_owned(),
        hint: "`port` is a number, `hostaddr` an address, `sslmode` one of disable, prefer, require, verify-ca, verify-full",
    })?;
    let user = plain(options.get_username(), "");
    let database = options.get_database().map(|database| plain(database, ""));
    let socket = options.get_socket().map(|socket| plain(&socket.to_string_lossy(), "/"));
    let host = plain(options.get_host(), "[]:,/");
    let or_hidden = |part: &Option<String>| part.clone().unwrap_or_else(|| "…".to_owned());
    let path = database.as_ref().map_or_else(String::new, |database| format!("/{}", or_hidden(database)));
    let (user, port) = (or_hidden(&user), options.get_port());
    let shown = match &socket {
        Some(socket) => format!("postgres://{user}@{path}?host={}&port={port}", or_hidden(socket)),
        None => format!("postgres://{user}@{}:{port}{path}", or_hidden(&host)),
    };
    Ok(PostgresUrl { options, shown, unknown_count })
}

/// A part that is nothing but a name; in any other a password may have slipped.
fn plain(part: &str, also: &str) -> Option<String> {
    let is_plain = |character: char| character.is_alphanumeric() || "_-.+$".contains(character) || also.contains(character);
    part.chars().all(is_plain).then(|| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "CanarY";

    #[test]
    fn names_are_shown_and_passwords_are_not() {
        for (url, expected) in [
            ("postgres://app:CanarY@db.internal/usage", "postgres://app@db.internal:5432/usage"),
            ("postgresql://app:p@CanarY@db:6000/usage", "postgres://app@db:6000/usage"),
            ("postgres://app@db/usage?password=CanarY", "postgres://app@db:5432/usage"),
            ("postgres://db/usage?user=app&password=CanarY&sslmode=require", "postgres://app@db:5432/usage"),
            ("postgres://app:%43anarY%40%2F@db/usage?sslpassword=CanarY", "postgres://app@db:5432/usage"),
            ("postgres://app@db/usage?sslkey=-----BEGIN%20CanarY", "postgres://app@db:5432/usage"),
            ("postgres://app:CanarY@[::1]:5433/usage", "postgres://app@[::1]:5433/usage"),
            ("postgres://app:CanarY@one,two/usage", "postgres://app@one,two:5432/usage"),
            ("postgres://app:CanarY@%2Frun%2Fpg/usage", "postgres://app@/usage?host=/run/pg&port=5432"),
            ("postgres:///usage?host=/run/pg&user=app&password=CanarY", "postgres://app@/usage?host=/run/pg&port=5432"),
            ("postgres://app%3ACanarY@db/usage", "postgres://…@db:5432/usage"),
            ("postgres://app@db/usage&password=CanarY", "postgres://app@db:5432/…"),
            ("postgres://app@db/usage;password=CanarY", "postgres://app@db:5432/…"),
            ("sqlite://usage.db", "sqlite://usage.db"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn of_what_does_not_parse_nothing_is_shown() {
        for text in [
            "host=db user=app password=CanarY",
            "app:CanarY@db/usage",
            "CanarY",
            "mysql://app:CanarY@db/usage",
            "postgres:app:CanarY@db/usage",
            "postgres://app:Can/arY@db/usage",
            "postgres://app:12/CanarY@db/usage",
            "postgres://app:12?CanarY@db/usage",
            "postgres://app:12#CanarY@db/usage",
            "postgres://app:CanarY@one:1,two:2/usage",
            "postgres://app@db/usage\nCanarY",
            "postgres://app@db/usage password=CanarY",
            "postgres://app@db/usage?sslmode=CanarY",
            "postgres://app@db/usage?port=CanarY",
            "sqlite://usage.db?key=CanarY",
            "sqlite://app:CanarY@db/usage",
        ] {
            assert_eq!(shown(text), hidden(text), "{text}");
            let Err(NotUrl { reason, hint }) = parse(text) else { panic!("{text}") };
            assert!(!format!("{reason}{hint}").contains(SECRET) && !reason.contains("arY"), "{text}: {reason}");
        }
    }
}
