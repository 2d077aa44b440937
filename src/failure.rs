//! Failures whose kind decides something: the exit code, and whether another try may pass.

use std::fmt;
use std::panic::AssertUnwindSafe;

use anyhow::Result;

use crate::show::escaped;

/// What kind of failure it is; each has one exit code (`docs/interface.md`, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line asks for something that cannot be.
    Usage,
    /// Data that must not be taken in: too many quarantined rows, raw rows that are gone, checks that do not hold.
    BadData,
    /// Held by another run, or the database cannot be reached: the same command may pass later.
    TryAgain,
    /// Another run of the job is at work.
    Locked,
    /// Configuration or schema.
    Config,
    /// Stopped by a signal; the number is the signal's.
    Interrupted(i32),
}

/// An error with a kind and the next step for the reader.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    pub kind: Kind,
    message: String,
    /// Each stands on a line of its own below the message.
    problems: Vec<String>,
    pub hint: Option<String>,
    source: Option<anyhow::Error>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escaped(&self.message))?;
        self.problems.iter().try_for_each(|problem| write!(formatter, "\n{}", escaped(problem)))
    }
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), problems: Vec::new(), hint: None, source: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(Kind::BadData, message)
    }

    pub fn try_again(message: impl Into<String>) -> Self {
        Self::new(Kind::TryAgain, message)
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what is wrong in particular, a line each.
    #[must_use]
    pub fn listing(mut self, problems: impl IntoIterator<Item = String>) -> Self {
        self.problems.extend(problems);
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// The exit code of an error (`docs/interface.md`, "Exit codes").
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match find(error).map(|failure| failure.kind) {
        Some(Kind::Usage) => 2,
        Some(Kind::BadData) => 65,
        Some(Kind::TryAgain | Kind::Locked) => 75,
        Some(Kind::Config) => 78,
        Some(Kind::Interrupted(signal)) => u8::try_from(128 + signal).unwrap_or(1),
        None => 1,
    }
}

/// A word for the kind of an error, kept with the run in `job_run.error_class`.
#[must_use]
pub fn class(error: &anyhow::Error) -> &'static str {
    match find(error).map(|failure| failure.kind) {
        Some(Kind::Usage) => "usage",
        Some(Kind::BadData) => "bad_data",
        Some(Kind::TryAgain | Kind::Locked) => "try_again",
        Some(Kind::Config) => "config",
        Some(Kind::Interrupted(_)) => "interrupted",
        None => "failed",
    }
}

/// An error and what caused it, as it is printed, stored and sent: what data brought into it steers no terminal and fakes no line,
/// so that the only line ends are those between the problems of a [`Failure`].
#[must_use]
pub fn text(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| match cause.downcast_ref::<Failure>() {
        Some(failure) => failure.to_string(),
        None => escaped(&cause.to_string()),
    });
    causes.collect::<Vec<_>>().join(": ")
}

/// Reads `what` with a library that panics at some damaged files.
///
/// # Errors
/// Those of `read`; [`Failure`] of kind bad-data where it panics.
pub fn or_damaged<T>(what: impl fmt::Display, read: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(Failure::bad_data(format!("{what} is damaged in a way that its reader does not know")).into()))
}

/// What is wrong with a TOML file, and where. The line itself is left out: it may hold a secret.
#[must_use]
pub fn toml_text(file: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| file.get(..span.start)) else { return error.message().to_owned() };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// As [`toml_text`], of a file with secrets: nothing of it is repeated, such as a number that TOML cannot hold.
#[must_use]
pub fn toml_text_of_secrets(file: &str, error: &toml::de::Error) -> String {
    let said = toml_text(file, error);
    let quotes = ["integer `", "float `", "string \"", "boolean `"].iter().any(|kind| said.contains(kind));
    match said.split_once(": ").filter(|_| quotes) {
        Some((place, _)) if place.starts_with("line ") => format!("{place}: this is no value; a text is in quotes"),
        Some(_) => "a value in it is none; a text is in quotes".to_owned(),
        None => said,
    }
}

/// The [`Failure`] in an error's chain, if there is one.
#[must_use]
pub fn find(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>())
}

/// What follows an unknown name in a sentence: the nearest known one, if one is near enough.
#[must_use]
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map(|nearest| format!(": did you mean `{nearest}`?")).unwrap_or_default()
}

/// The known name nearest to `given`, when one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= name.chars().count().max(3) / 3 + 1)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn data_in_an_error_steers_no_terminal_and_fakes_no_line() {
        let failure = Failure::config("job `a\x1b[2J`").listing(["one\r".to_owned(), "two\nhint: rm".to_owned()]);
        let error = anyhow::Error::from(failure.caused_by(anyhow!("row \u{202e}`x\ny`"))).context("read\u{9b}");
        let expected = "read\\u{9b}: job `a\\u{1b}[2J`\none\\r\ntwo\\nhint: rm: row \\u{202e}`x\\ny`";
        assert_eq!(text(&error), expected);
    }
}
