//! What a run is asked to do, and which windows it will write.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::window::Window;

/// What a run is asked to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Request {
    /// First day, inclusive, of the windows asked for.
    pub from: Option<NaiveDate>,
    /// Last day, exclusive.
    pub to: Option<NaiveDate>,
    pub as_of: DateTime<Utc>,
    /// Also run what reads it.
    pub downstream: bool,
    /// Write windows that are not due, and windows whose raw rows are gone.
    pub force: bool,
    /// Forget the watermark and redo every window: another time zone, a restored database.
    pub rebuild: bool,
}

impl Request {
    /// What a job downstream is asked: whatever has become due.
    #[must_use]
    pub fn for_downstream(&self) -> Self {
        Self { from: None, to: None, force: false, ..self.clone() }
    }
}

/// A window to be written, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    #[serde(serialize_with = "as_text")]
    pub window: Window,
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn as_text<S: serde::Serializer>(window: &Window, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(window)
}

/// The reason of a window that was named.
pub const ASKED_FOR: &str = "asked for";

/// The reason of a window that is due for no other reason than `--force`.
pub const FORCED: &str = "forced";
