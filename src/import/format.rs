//! What the exports of other tools look like: `formats/<name>.toml`, built in or the project's own (`docs/interface.md`, "Formats").

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::sync::watch;

use super::file::{self, Record};
use super::instant::parse_instant;
use super::number::whole;
use super::target::{field_name, named};
use crate::engine::stop::check_stop;
use crate::failure::{self, Failure};
use crate::money;
use crate::project::{Project, ProjectFile};

/// How a file of one tool gives the fields of a usage event. A header may be a way into a cell of JSON: `usage.input_tokens`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    #[serde(skip)]
    pub name: String,
    #[expect(dead_code, reason = "it is for who reads the file")]
    description: String,
    /// What every row has, by which `auto` knows it.
    recognised_by: Vec<String>,
    /// Field → headers, of which the first that has a value counts.
    #[serde(default)]
    pub(super) columns: BTreeMap<String, Headers>,
    /// Field → the same value for every row.
    #[serde(default)]
    pub(super) constants: BTreeMap<String, String>,
    /// Field → our word → theirs; an empty word of ours is none.
    #[serde(default)]
    words: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Field of tokens → the fields that stand beside it there, and are a part of it here.
    #[serde(default)]
    pub(super) adds: BTreeMap<String, Vec<String>>,
    /// Header → the values of rows that are requests; others are skipped.
    #[serde(default)]
    only: BTreeMap<String, Vec<String>>,
    /// Fields that are given in seconds.
    #[serde(default)]
    seconds: Vec<String>,
    /// Why such a file holds no events that could be imported.
    #[serde(default)]
    refused: Option<String>,
    /// Where a row is the sum of many requests.
    sums: Option<Sums>,
    /// Between which instants a request took as long as it did, where no column says so.
    duration: Option<Duration>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Headers {
    One(String),
    Any(Vec<String>),
}

impl Headers {
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Any(names) => names,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Duration {
    from: String,
    to: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    /// The header that says how many requests.
    requests: String,
    /// The header of the instant from which on nothing is added to the row.
    until: String,
}

/// The most requests that one row may be the sum of.
const MOST_REQUESTS: i64 = 1_000_000;

/// In place of a name: the format is told by what the file has.
pub const AUTO: &str = "auto";

impl Format {
    /// The format of this name, or the one that `file` is in.
    ///
    /// # Errors
    /// [`Failure`] of kind usage where there is none; of kind config for a format's file that is none.
    pub fn load(project: &Project, name: &str, file: &Path, stop: &watch::Receiver<Option<i32>>) -> Result<Self> {
        let mut formats = project.read_all("formats", "toml")?;
        if name == AUTO {
            let formats = formats.into_iter().map(|(name, file)| Self::parse(&name, &file?)).collect::<Result<Vec<_>>>()?;
            return recognise(formats, file, stop)?.usable(file);
        }
        if let Some(format) = formats.remove(name) {
            return Self::parse(name, &format?)?.usable(file);
        }
        let known: Vec<&str> = formats.keys().map(String::as_str).chain([AUTO]).collect();
        let nearest = failure::did_you_mean(name, known.iter().copied());
        Err(Failure::usage(format!("There is no format `{name}`{nearest}")).hint(format!("there are {}", known.join(", "))).into())
    }

    /// Gives each field its own name: it may be called by the name of a column of `ai_usage_log`, too.
    fn name_fields(&mut self) -> Result<(), String> {
        self.columns = named(std::mem::take(&mut self.columns))?;
        self.constants = named(std::mem::take(&mut self.constants))?;
        self.words = named(std::mem::take(&mut self.words))?;
        self.adds = named(std::mem::take(&mut self.adds))?;
        for field in self.seconds.iter_mut().chain(self.adds.values_mut().flatten()) {
            *field = field_name(field)?;
        }
        Ok(())
    }

    fn parse(name: &str, file: &ProjectFile) -> Result<Self> {
        let refused = |said: String| Failure::config(format!("`{}` is no format: {said}", file.origin));
        let mut format: Self = toml::from_str(&file.text).map_err(|error| refused(failure::toml_text(&file.text, &error)))?;
        name.clone_into(&mut format.name);
        format.name_fields().map_err(refused)?;
        for (field, words) in &format.words {
            let mut words = words.iter().flat_map(|(ours, theirs)| theirs.iter().map(move |word| (word, ours)));
            let mut meant = BTreeMap::new();
            let mut has_other_meaning = |(word, ours): &(&String, &String)| {
                meant.insert(word.to_ascii_lowercase(), (*ours).clone()).is_some_and(|other| other != **ours)
            };
            if let Some((word, _)) = words.find(&mut has_other_meaning) {
                return Err(refused(format!("the {field} `{word}` has two meanings")).into());
            }
        }
        format.check_sums().map_err(refused)?;
        if format.recognised_by.is_empty() {
            return Err(refused("`recognised_by` names no header".to_owned()).into());
        }
        Ok(format)
    }

    /// What adds up has to be of one kind, and to be added once.
    fn check_sums(&self) -> Result<(), String> {
        for (whole, parts) in &self.adds {
            let mut fields = std::iter::once(whole).chain(parts);
            if let Some(field) = fields.clone().find(|field| !field.ends_with("_tokens")) {
                return Err(format!("`adds` adds `{field}`, which is no field of tokens"));
            }
            if parts.contains(whole) {
                return Err(format!("`adds` adds `{whole}` to itself"));
            }
            let mut seen = BTreeSet::new();
            if let Some(twice) = fields.find(|field| !seen.insert(*field)) {
                return Err(format!("`adds` adds `{twice}` to `{whole}` more than once"));
            }
            if let Some(part) = parts.iter().find(|part| self.adds.contains_key(*part)) {
                return Err(format!("`adds` adds `{part}`, to which it adds others"));
            }
        }
        match self.seconds.iter().find(|field| *field != "latency_ms") {
            Some(field) => Err(format!("`seconds` names `{field}`, which is no duration")),
            None => Ok(()),
        }
    }

    /// Why formats of a project cannot be used.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn problems(project: &Project) -> Result<Vec<String>> {
        let read = |(name, file): (String, Result<ProjectFile>)| Self::parse(&name, &file?);
        Ok(project.read_all("formats", "toml")?.into_iter().filter_map(|format| Some(format!("{:#}", read(format).err()?))).collect())
    }

    fn usable(self, file: &Path) -> Result<Self> {
        match &self.refused {
            Some(reason) => Err(Failure::usage(format!("`{}` cannot be imported as usage events: {reason}", file.display()))
                .hint("import the log of single requests: of the application, or of the gateway before the provider")
                .into()),
            None => Ok(self),
        }
    }

    /// Whether a field comes from this header by the format.
    pub(super) fn gives(&self, field: &str, header: &str) -> bool {
        self.words.contains_key(field) || self.columns.get(field).is_some_and(|headers| headers.names().iter().any(|name| name == header))
    }

    /// Whether a column is looked at for something else than a field.
    pub(super) fn looks_at(&self, column: &str) -> bool {
        self.only.contains_key(column)
            || self.sums.as_ref().is_some_and(|sums| sums.requests == column || sums.until == column)
            || self.duration.as_ref().is_some_and(|duration| duration.from == column || duration.to == column)
    }

    /// Whether a row is a request at all.
    ///
    /// # Errors
    /// Where it does not have what says so.
    pub(super) fn is_meant(&self, record: &Record) -> Result<bool> {
        if let Some(missing) = self.only.keys().find(|header| !record.has(header)) {
            bail!("it has no `{missing}`, which says whether it is a request");
        }
        Ok(self.only.iter().all(|(header, values)| record.find(header).is_some_and(|found| values.iter().any(|value| *value == found))))
    }

    /// How many requests a row is the sum of; `None` while more may come.
    pub(super) fn request_count(&self, record: &Record, now: DateTime<Utc>) -> Result<Option<i64>> {
        let Some(Sums { requests, until }) = &self.sums else { return Ok(Some(1)) };
        if let Some(missing) = [requests, until].into_iter().find(|header| !record.has(header)) {
            bail!("it has no `{missing}`, which says what it is the sum of");
        }
        let given = |header: &str| record.find(header).filter(|text| !text.is_empty());
        let count = given(requests).map_or(Ok(0), |text| whole(&text)).with_context(|| format!("`{requests}`"))?;
        if !(0..=MOST_REQUESTS).contains(&count) {
            bail!("`{requests}` is {count}, and a row has at most {MOST_REQUESTS} requests: export shorter spans");
        }
        let is_over = given(until).map_or(Ok(true), |until| parse_instant(&until).map(|until| until <= now));
        Ok(is_over.with_context(|| format!("`{until}`"))?.then_some(count))
    }

    /// A field's text as this tool writes it, in our words and units.
    pub(super) fn in_our_words(&self, field: &str, text: String) -> Result<String> {
        if let Some(words) = self.words.get(field) {
            let ours = words.iter().find(|(_, theirs)| theirs.iter().any(|word| word.eq_ignore_ascii_case(&text)));
            return Ok(ours.map_or(text, |(word, _)| word.clone()));
        }
        if self.seconds.iter().any(|name| name == field) {
            let nanos = money::parse_usd_nanos(&text).map_err(|_| anyhow::anyhow!("not a number of seconds"))?;
            return Ok(money::div_half_even(i128::from(nanos), 1_000_000).to_string());
        }
        Ok(text)
    }

    /// How long a request took, in milliseconds, where the file says when it began and ended.
    pub(super) fn duration_ms(&self, record: &Record) -> Result<Option<i64>> {
        let Some(Duration { from, to }) = &self.duration else { return Ok(None) };
        let instant = |header: &str| record.find(header).filter(|text| !text.is_empty()).map(|text| parse_instant(&text)).transpose();
        let (Some(from), Some(to)) = (instant(from)?, instant(to)?) else { return Ok(None) };
        match (to - from).num_milliseconds() {
            duration @ 0.. => Ok(Some(duration)),
            _ => bail!("it ended before it began"),
        }
    }
}

/// The format whose marks a file has; of several the one with the most.
fn recognise(formats: Vec<Format>, path: &Path, stop: &watch::Receiver<Option<i32>>) -> Result<Format> {
    let names = formats.iter().map(|format| format.name.clone()).collect::<Vec<_>>().join(", ");
    let hint = format!("name the format, one of {names}, or the columns with `--column field=header`");
    if path.as_os_str() == file::STDIN {
        return Err(Failure::usage("What comes by standard input cannot be looked at first").hint(hint).into());
    }
    let opened = file::open(path, stop);
    check_stop(stop)?;
    let mut reader = opened?;
    let first = loop {
        let read = reader.next_record(path);
        check_stop(stop)?;
        match read? {
            Some((_, Ok(record))) => break Some(record),
            Some((_, Err(_))) => {}
            None => break None,
        }
    };
    let has = |header: &String| match &first {
        Some(record) => record.has(header),
        None => reader.headers().is_some_and(|headers| headers.contains(header)),
    };
    let mut known: Vec<Format> = formats.into_iter().filter(|format| format.recognised_by.iter().all(has)).collect();
    known.sort_by_key(|format| std::cmp::Reverse(format.recognised_by.len()));
    match known.as_slice() {
        [] => Err(Failure::usage(format!("`{}` is in no format that is known here", path.display())).hint(hint).into()),
        [one, two, ..] if one.recognised_by.len() == two.recognised_by.len() => {
            Err(Failure::usage(format!("`{}` may be in format {} or {}", path.display(), one.name, two.name)).hint(hint).into())
        }
        _ => Ok(known.remove(0)),
    }
}
