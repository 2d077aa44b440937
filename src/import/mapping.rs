//! How a file's columns become a table's fields.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::file::Record;
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
        Ok(Self { target, columns: pairs(columns, "--column")?, constants: pairs(constants, "--set")? })
    }

    /// The text of a field in a record; an empty cell is none.
    pub(super) fn text<'a>(&'a self, record: &'a Record, field: &Field) -> Option<&'a str> {
        let text = match (self.columns.get(field.name), self.constants.get(field.name)) {
            (Some(header), _) => record.get(header),
            (None, Some(constant)) => Some(constant.as_str()),
            (None, None) => record.get(field.name).or_else(|| record.get(field.also)),
        };
        text.filter(|text| !text.is_empty())
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
            let given = self.columns.contains_key(needed) || self.constants.contains_key(needed) || has(needed) || has(field.also);
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
        let source = |field: &Field| match (self.columns.get(field.name), self.constants.get(field.name)) {
            (Some(header), _) => format!("column `{header}`"),
            (None, Some(constant)) => format!("`{constant}` in every row"),
            (None, None) => match (headers.iter().find(|header| *header == field.name || *header == field.also), field.absent) {
                (Some(header), _) => format!("column `{header}`"),
                (None, Absent::Identity) => "made from the row's text".to_owned(),
                (None, Absent::Zero) => "0 in every row".to_owned(),
                (None, Absent::Text(text)) => format!("`{text}` in every row"),
                (None, Absent::Null | Absent::Refused) => "-".to_owned(),
            },
        };
        self.target.fields.iter().map(|field| (field.name, source(field))).collect()
    }

    /// The table's columns that a row with these headers gives.
    pub(super) fn given(&self, headers: &[String]) -> Vec<&'static str> {
        let has = |name: &str| headers.iter().any(|header| header == name);
        let is_given = |field: &&Field| match self.columns.get(field.name) {
            // One that this record lacks is no empty cell.
            Some(header) => has(header),
            None => self.constants.contains_key(field.name) || has(field.name) || has(field.also),
        };
        self.target.fields.iter().filter(is_given).map(|field| field.column).collect()
    }

    pub(super) fn ignored(&self, headers: &[String]) -> Vec<String> {
        let used = |header: &String| self.columns.values().any(|used| used == header) || self.target.field(header).is_some();
        headers.iter().filter(|header| !used(header)).cloned().collect()
    }
}
