//! Failures whose kind decides something: the exit code, and whether another try may pass.

use std::fmt;

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
    pub hint: Option<String>,
    source: Option<anyhow::Error>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
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

/// The [`Failure`] in an error's chain, if there is one.
#[must_use]
pub fn find(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>())
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
