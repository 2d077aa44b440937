//! Settings: built-in defaults < `tallyroll.toml` < environment < flags (`docs/interface.md`, "Configuration").

mod environment;
mod settings;
#[cfg(test)]
mod tests;
mod wrong_value;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use anyhow::{Context, Result};
use chrono::Datelike;
use config::builder::DefaultState;
use config::{ConfigBuilder, File, FileFormat, Value, ValueKind};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::settings::{
    Archive, Billing, ChangeTracking, Config, Dashboard, Database, Engine, History, Log, LogFormat, Metrics, Notify, Output, Quarantine,
    Reporting, Serve, Usage,
};
use crate::failure::{self, Failure};
use crate::price::book::PriceBook;
use crate::price::{Pricing, file as price_file};
use crate::project::{Project, read_text};
use crate::store::url as database_url;

/// Every key, with its default as TOML.
const KEYS: &[(&str, &str)] = &[
    ("archive.after_days", "90"),
    ("archive.delete", "false"),
    ("archive.url", "\"\""),
    ("billing.grace_hours", "72"),
    ("dashboard.days", "[7, 30, 90]"),
    ("database.url", "\"sqlite://tallyroll.db\""),
    ("engine.batch_rows", "65536"),
    ("engine.lock_lease_seconds", "60"),
    ("engine.windows_at_once", "2"),
    ("history.keep_days", "400"),
    ("log.format", "\"text\""),
    ("metrics.textfile", "\"\""),
    ("notify.webhook_url", "\"\""),
    ("output.url", "\"./out\""),
    ("quarantine.max_ratio", "0.01"),
    ("reporting.timezone", "\"UTC\""),
    ("serve.bind", "\"127.0.0.1:8080\""),
    ("serve.grace_seconds", "25"),
    ("serve.token", "\"\""),
    ("serve.writer_token", "\"\""),
    ("usage.change_tracking", "\"ingest\""),
    ("usage.earliest_date", "\"1900-01-01\""),
    ("usage.failed", "\"bill\""),
    ("usage.lookback_days", "3"),
    ("usage.price_book", "\"prices.toml\""),
    ("usage.pricing", "\"log\""),
    ("usage.sources", "[\"ai_usage_log\", \"chat_requests\", \"usage_event\"]"),
];

/// Keys of which no error quotes a value.
const SECRETS: [&str; 6] = ["archive.url", "database.url", "notify.webhook_url", "output.url", "serve.token", "serve.writer_token"];

const CONFIG_FILE: &str = "tallyroll.toml";

/// One effective setting, for `check --show`.
#[derive(Debug, Clone)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub origin: String,
}

/// A [`Config`] with the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub settings: Vec<Setting>,
}

/// Loads the settings of a project folder.
///
/// `environment` is the process's own (`std::env::vars_os`), `flags` what the command line sets, as (key, value).
///
/// # Errors
/// A [`Failure`] of kind config: unreadable file, TOML that does not parse, an unknown key (with the nearest known one),
/// a value of the wrong type or out of range. Each names where the value came from.
pub fn load(
    project: &Project,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[(&str, SecretString)],
) -> Result<Loaded> {
    let mut origins: BTreeMap<String, String> = BTreeMap::new();
    let mut builder = config::Config::builder().add_source(File::from_str(&defaults()?, FileFormat::Toml));

    let path = project.dir.join(CONFIG_FILE);
    if let Some(text) = read_text(&path)? {
        let origin = path.display().to_string();
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| Failure::config(format!("`{origin}` is not TOML: {}", failure::toml_text_of_secrets(&text, &error))))?;
        for key in leaf_keys(&table) {
            check_known(&key, &origin)?;
            origins.insert(key, origin.clone());
        }
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    for (key, value, origin) in environment::overrides(environment)? {
        check_known(&key, &origin)?;
        builder = set(builder, &key, &value)?;
        origins.insert(key, origin);
    }
    for (key, value) in flags {
        builder = set(builder, key, value.expose_secret())?;
        origins.insert((*key).to_owned(), "the command line".to_owned());
    }

    let built = builder.build().map_err(|error| Failure::config("The configuration cannot be read").caused_by(error))?;
    let settings = KEYS.iter().map(|(key, _)| setting(&built, key, &origins)).collect();
    // Of a value in a list the parser does not say whose list it is.
    if built.get::<Vec<u32>>("dashboard.days").is_err() {
        let origin = origins.get("dashboard.days").map_or("the defaults", String::as_str);
        return Err(Failure::config(format!("`dashboard.days` in {origin} is a list of whole numbers of days, such as [7, 30]")).into());
    }
    // One key at a time, so that a value of the wrong type is reported with its key and origin.
    let config: Config = built.try_deserialize().map_err(|error| wrong_value(&error, &origins))?;
    check_ranges(&config, &origins)?;
    Ok(Loaded { config, settings })
}

impl Config {
    /// The price book that `usage.price_book` names, or an empty one where the file does not exist.
    ///
    /// # Errors
    /// As [`price_file::parse`]; and where `usage.pricing` needs a book that is not there.
    pub fn price_book(&self, project: &Project) -> Result<PriceBook> {
        let path = project.dir.join(&self.usage.price_book);
        if self.usage.pricing == Pricing::PriceBook && !path.exists() {
            return Err(Failure::config(format!("`usage.pricing` is `price_book`, but there is no `{}`", path.display()))
                .hint("write the price book there, or set `usage.price_book` to its path")
                .into());
        }
        if self.usage.price_book != DEFAULT_PRICE_BOOK && !path.exists() {
            return Err(Failure::config(format!("`usage.price_book` names `{}`, and there is no such file", self.usage.price_book))
                .hint("without it every event that it prices would be unpriced: write it there, or fix the path")
                .into());
        }
        self.price_book_or_none(project)
    }

    /// The price book, or an empty one where the file does not exist, whatever `usage.pricing` says.
    ///
    /// # Errors
    /// As [`price_file::parse`].
    pub fn price_book_or_none(&self, project: &Project) -> Result<PriceBook> {
        let path = project.dir.join(&self.usage.price_book);
        read_text(&path)?.map_or_else(|| Ok(PriceBook::default()), |text| price_file::parse(&text, &path.display().to_string()))
    }
}

/// `usage.price_book` unless set: a file that need not be there.
const DEFAULT_PRICE_BOOK: &str = "prices.toml";

fn has_twice<T: Ord>(values: &[T]) -> bool {
    values.iter().collect::<BTreeSet<_>>().len() < values.len()
}

fn defaults() -> Result<String> {
    let mut table = toml::Table::new();
    for (key, value) in KEYS {
        let (section, name) = key.split_once('.').with_context(|| format!("`{key}` has no section"))?;
        let parsed: toml::Table = toml::from_str(&format!("value = {value}"))?;
        let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
        if let (Some(section), Some(value)) = (section.as_table_mut(), parsed.get("value")) {
            section.insert(name.to_owned(), value.clone());
        }
    }
    Ok(table.to_string())
}

fn leaf_keys(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, value) in table {
        match value {
            toml::Value::Table(inner) => keys.extend(inner.keys().map(|name| format!("{section}.{name}"))),
            _ => keys.push(section.clone()),
        }
    }
    keys
}

fn check_known(key: &str, origin: &str) -> Result<()> {
    if KEYS.iter().any(|(known, _)| *known == key) {
        return Ok(());
    }
    let failure = Failure::config(format!("Unknown key `{key}` in {origin}"));
    Err(match failure::nearest(key, KEYS.iter().map(|(known, _)| *known)) {
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
        None => failure.hint("`tallyroll check --show` lists every key"),
    }
    .into())
}

fn set(builder: ConfigBuilder<DefaultState>, key: &str, text: &str) -> Result<ConfigBuilder<DefaultState>> {
    let value = if ["dashboard.days", "usage.sources"].contains(&key) {
        Value::from(text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect::<Vec<_>>())
    } else {
        Value::from(text.to_owned())
    };
    Ok(builder.set_override(key, value)?)
}

fn setting(built: &config::Config, key: &str, origins: &BTreeMap<String, String>) -> Setting {
    let value = built.get::<Value>(key).map(|value| show(&value)).unwrap_or_default();
    let value = match key {
        "notify.webhook_url" | "serve.token" | "serve.writer_token" if !value.is_empty() => "********".to_owned(),
        "database.url" => database_url::shown(&value),
        _ => value,
    };
    let origin = origins.get(key).cloned().unwrap_or_else(|| "default".to_owned());
    Setting { key: key.to_owned(), value, origin }
}

fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn wrong_value(error: &config::ConfigError, origins: &BTreeMap<String, String>) -> anyhow::Error {
    let text = error.to_string();
    let key = KEYS.iter().map(|(key, _)| *key).find(|key| text.ends_with(&format!("for key `{key}`")));
    let origin = key.and_then(|key| origins.get(key)).map_or_else(String::new, |origin| format!(" in {origin}"));
    let what = match key {
        Some(key) if !SECRETS.contains(&key) => wrong_value::in_words(key, text),
        Some(key) => format!("`{key}` is not a text"),
        // Whose value it quotes is not known.
        None => "one of a wrong type".to_owned(),
    };
    Failure::config(format!("The configuration{origin} has a wrong value: {what}"))
        .hint("fix the value, or take it out to have the default")
        .into()
}

/// Why `output.url` is none, if so, in words that quote nothing of it.
fn output_problem(url: &str) -> Option<&'static str> {
    if let Some(place) = url.strip_prefix("s3://") {
        let bucket = place.split('/').next().unwrap_or_default();
        let is_bucket =
            !bucket.is_empty() && bucket.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character));
        // A secret key may hold a `/`, so that what follows it looks like a prefix.
        return (!is_bucket || place.contains(['@', '?', '#']) || place.contains("//")).then_some(
            "is no bucket and prefix. Write it as `s3://bucket/prefix`; credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        );
    }
    let path = url.strip_prefix("file://").unwrap_or(url);
    let is_place = !path.is_empty() && !path.contains("://") && !database_url::has_credentials(path);
    (!is_place).then_some("is no place for files. Write a folder such as `./out`, `file:///srv/out`, or `s3://bucket/prefix`")
}

fn check_ranges(config: &Config, origins: &BTreeMap<String, String>) -> Result<()> {
    for (key, place) in [("output.url", &config.output.url), ("archive.url", &config.archive.url)] {
        if let Some(problem) = output_problem(place).filter(|_| key == "output.url" || !place.is_empty()) {
            let origin = origins.get(key).map_or("the defaults", String::as_str);
            return Err(Failure::config(format!("`{key}` in {origin} ({}) {problem}", database_url::hidden(place))).into());
        }
    }
    let problems = [
        ("quarantine.max_ratio", !(0.0..=1.0).contains(&config.quarantine.max_ratio), "must lie between 0 and 1"),
        ("engine.windows_at_once", !(1..=16).contains(&config.engine.windows_at_once), "must lie between 1 and 16"),
        ("engine.batch_rows", !(1..=1_048_576).contains(&config.engine.batch_rows), "must lie between 1 and 1048576"),
        ("engine.lock_lease_seconds", !(2..=3_600).contains(&config.engine.lock_lease_seconds), "must lie between 2 and 3600"),
        ("dashboard.days", config.dashboard.days.iter().any(|days| *days > 3_660), "must each be at most 3660"),
        ("history.keep_days", !(1..=36_500).contains(&config.history.keep_days), "must lie between 1 and 36500"),
        ("serve.grace_seconds", config.serve.grace_seconds > 3_600, "must be at most 3600"),
        ("archive.after_days", !(1..=36_500).contains(&config.archive.after_days), "must lie between 1 and 36500"),
        ("billing.grace_hours", config.billing.grace_hours > 8_760, "must be at most 8760, a year"),
        ("usage.sources", config.usage.sources.is_empty(), "must name at least one source"),
        ("usage.sources", has_twice(&config.usage.sources), "must name each source once: its events would be counted twice"),
        ("dashboard.days", has_twice(&config.dashboard.days), "must name each number of days once"),
        ("usage.sources", config.usage.sources.iter().any(|source| source.contains(['/', '\\'])), "must each be a name, not a path"),
        ("usage.earliest_date", !(1..=9_000).contains(&config.usage.earliest_date.year()), "must lie in the years 1 to 9000"),
        ("usage.lookback_days", config.usage.lookback_days > 3_660, "must be at most 3660"),
    ];
    match problems.into_iter().find(|(_, wrong, _)| *wrong) {
        Some((key, _, rule)) => {
            let origin = origins.get(key).map_or("the defaults", String::as_str);
            Err(Failure::config(format!("`{key}` in {origin} {rule}")).into())
        }
        None => Ok(()),
    }
}
