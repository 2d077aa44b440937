//! What is sent, as JSON, and what is wrong with it in words.

use axum::body::Bytes;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::failure::{self, Kind};
use crate::serve::html::shortened;
use crate::serve::problem::Problem;

/// A body of JSON.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => unprocessable(shortened(&error.to_string())),
        _ => Problem::bad_request(format!("The body is not JSON: {error}")),
    })
}

pub(super) fn unprocessable(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)
}

/// What the database refuses of what was sent is the sender's.
pub(super) fn refused(error: anyhow::Error) -> Problem {
    match failure::find(&error) {
        Some(failure) if failure.kind == Kind::Usage => unprocessable(failure.to_string()),
        _ => error.into(),
    }
}
