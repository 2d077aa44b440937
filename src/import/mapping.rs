//! How a file's columns become a table's fields.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::file::Record;
use super::format::{Format, Headers};
use super::target::{Absent, Field, Target};
use crate::failure::{self, Failure};

/// How a file's columns become fields.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub target: &'static Target,
    /// Field → header of the file.
    pub columns: BTreeMap<String, String>,
    /// Field → the same value for every row.
    pub constants: BTreeMap<String, String>,
    /// Of the tool that wrote the file.
    pub format: Option<Format>,
}

impl Mapping {
    /// Reads `field=header` and `field=value` arguments.
    ///
    /// # Errors
    /// [`Failure`] of kind usage for an unknown field, with the nearest one.
    pub fn parse(target: &'static Target, columns: &[String], constants: &[String]) -> Result<Self> {
        let pairs = |arguments: &[String], flag: &str| -> Result<BTreeMap<String, String>> {
            arguments
                .iter()
                .map(|argument| {
                    let (name, value) = argument
                        .split_once('=')
                        .ok_or_else(|| Failure::usage(format!("`{flag} {argument}` has no `=`")).hint(format!("write `{flag} field=…`")))?;
                    let field = target.field(name).ok_or_else(|| {
                        let failure = Failure::usage(format!("`{flag} {argument}`: there is no field `{name}`"));
                        let known = target.fields.iter().map(|field| field.name);
                        match failure::nearest(name, known.clone()) {
                            Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
                            None => failure.hint(format!("the fields are {}", known.collect::<Vec<_>>().join(", "))),
                        }
                    })?;
                    Ok((field.name.to_owned(), value.to_owned()))
                })
                .collect()
        };
        Ok(Self { target, columns: pairs(columns, "--column")?, constants: pairs(constants, "--set")?, format: None })
    }

    /// The headers that may give a field, in the order in which they are asked; none where the same value is in every row.
    fn headers_of<'a>(&'a self, field: &'a Field) -> Vec<&'a str> {
        let named = self.columns.get(field.name).map(String::as_str);
        match (named, self.constants.contains_key(field.name)) {
            (Some(header), _) => vec![header],
            (None, true) => Vec::new(),
            (None, false) => {
                let of_format = self.format.as_ref().and_then(|format| format.columns.get(field.name)).map_or(&[][..], Headers::names);
                of_format.iter().map(String::as_str).chain([field.name]).chain(field.also.iter().copied()).collect()
            }
        }
    }

    /// Whether the command line says where a field comes from.
    pub(super) fn is_named(&self, field: &str) -> bool {
        self.columns.contains_key(field) || self.constants.contains_key(field)
    }

    /// The value that a field has in every row where no column gives it.
    fn constant(&self, field: &Field) -> Option<&str> {
        let of_format = || self.format.as_ref().and_then(|format| format.constants.get(field.name));
        self.constants.get(field.name).or_else(of_format).map(String::as_str)
    }

    /// The text of a field in a record, in our words; an empty cell is none.
    pub(super) fn text(&self, record: &Record, field: &Field) -> Result<Option<String>> {
        let format = self.format.as_ref().filter(|_| !self.is_named(field.name));
        let given = |header: &str| {
            let text = record.find(header).filter(|text| !text.is_empty())?.into_owned();
            let text = match format.filter(|format| format.gives(field.name, header)) {
                Some(format) => format.in_our_words(field.name, text),
                None => Ok(text),
            };
            Some(text).filter(|text| !matches!(text, Ok(text) if text.is_empty()))
        };
        match self.headers_of(field).into_iter().find_map(given) {
            Some(text) => text.map(Some),
            None => Ok(self.constant(field).filter(|text| !text.is_empty()).map(str::to_owned)),
        }
    }

    /// Fails when the file cannot give what every event needs.
    pub(super) fn check_headers(&self, headers: &[String], path: &Path) -> Result<()> {
        let has = |name: &str| headers.iter().any(|header| header == name);
        if let Some((field, header)) = self.columns.iter().find(|(_, header)| !has(header)) {
            return Err(Failure::usage(format!("`{}` has no column `{header}`, which `--column {field}={header}` names", path.display()))
                .hint(format!("its columns are {}", headers.join(", ")))
                .into());
        }
        for field in self.target.fields.iter().filter(|field| field.absent == Absent::Refused) {
            let needed = field.name;
            let given = self.constant(field).is_some() || self.headers_of(field).into_iter().any(|header| is_in(header, headers));
            if !given {
                return Err(Failure::usage(format!("No column of `{}` gives `{needed}`", path.display()))
                    .hint(format!(
                        "name it with `--column {needed}=HEADER`, or one value for all rows with `--set {needed}=VALUE`; its columns are {}",
                        headers.join(", ")
                    ))
                    .into());
            }
        }
        Ok(())
    }

    /// Fails where a column that is used stands there twice: nobody knows which is meant.
    pub(super) fn refuse_twice(&self, headers: &[String], path: &Path) -> Result<()> {
        let ignored = self.ignored(headers);
        let is_twice = |header: &&String| !ignored.contains(header) && headers.iter().filter(|other| other == header).count() > 1;
        match headers.iter().find(is_twice) {
            Some(header) => Err(Failure::usage(format!("`{}` has two columns `{header}`", path.display()))
                .hint("rename one of them, or take it out")
                .into()),
            None => Ok(()),
        }
    }

    /// Whether a record with these headers gives a token or a cost, where the target is of such.
    pub(super) fn gives_figures(&self, headers: &[String]) -> bool {
        let given = self.given(headers);
        self.target.figures.is_empty() || self.target.figures.iter().any(|column| given.contains(column))
    }

    /// Why such a file is refused.
    pub(super) fn no_figures(headers: &[String], path: &Path) -> anyhow::Error {
        Failure::usage(format!("No column of `{}` gives tokens or a cost", path.display()))
            .hint(format!(
                "name them with `--column input_tokens=HEADER`, `output_tokens` or `total_cost_usd`, or, for events of none, \
                 `--set input_tokens=0`; its columns are {}",
                headers.join(", ")
            ))
            .into()
    }

    /// Where each field comes from, in words.
    pub(super) fn shown(&self, headers: &[String]) -> Vec<(&'static str, String)> {
        let source = |field: &Field| {
            let columns: Vec<String> = self
                .headers_of(field)
                .into_iter()
                .filter(|header| is_in(header, headers))
                .map(|header| format!("column `{header}`"))
                .collect();
            if let (false, shown) = (columns.is_empty(), columns.join(", or ")) {
                return shown;
            }
            match (self.constant(field), field.absent) {
                (Some(constant), _) => format!("`{constant}` in every row"),
                (None, Absent::Identity) => "made from the row's text".to_owned(),
                (None, Absent::Numbered) => "given by the database".to_owned(),
                (None, Absent::Zero) => "0 in every row".to_owned(),
                (None, Absent::Text(text)) => format!("`{text}` in every row"),
                (None, Absent::Null | Absent::Refused) => "-".to_owned(),
            }
        };
        self.target.fields.iter().map(|field| (field.name, source(field))).collect()
    }

    /// The table's columns that a row with these headers gives.
    pub(super) fn given(&self, headers: &[String]) -> Vec<&'static str> {
        // A column that this record lacks is no empty cell.
        let is_given = |field: &&Field| {
            self.headers_of(field).into_iter().any(|header| is_in(header, headers))
                || (self.constant(field).is_some() && !self.columns.contains_key(field.name))
        };
        self.target.fields.iter().filter(is_given).map(|field| field.column).collect()
    }

    /// Whether a field may be a whole cell of this header.
    pub(super) fn takes(&self, header: &str) -> bool {
        self.target.fields.iter().any(|field| self.headers_of(field).contains(&header))
    }

    pub(super) fn ignored(&self, headers: &[String]) -> Vec<String> {
        let used = |header: &String| {
            self.target.fields.iter().any(|field| self.headers_of(field).iter().any(|used| used == header || root(used) == header))
        };
        let is_looked_at = |header: &String| self.format.as_ref().is_some_and(|format| format.looks_at(header));
        headers.iter().filter(|header| !used(header) && !is_looked_at(header)).cloned().collect()
    }
}

/// Whether there is such a column, or one of JSON that a header leads into.
fn is_in(header: &str, headers: &[String]) -> bool {
    headers.iter().any(|known| known == header || known == root(header))
}

/// The column that a header is, or leads into.
fn root(header: &str) -> &str {
    header.split_once('.').map_or(header, |(column, _)| column)
}
