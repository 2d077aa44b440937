//! What is wrong with a request, in words for whoever sent it. What the database says stays in the log.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::html::{cut, encode};
use crate::failure::{self, Kind};

/// What a handler answers when it cannot give what was asked for. The layout makes it a page, or JSON below `/api/`.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    hint: Option<String>,
    /// The run that is in the way, and its job.
    run: Option<(String, String)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None, run: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// A post without the right form token, or by someone who may only read.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "This needs a login, and a form of this site that is not older than its session")
            .hint("a program sends a bearer token; with a session's cookie, its form token as the header `x-csrf-token`")
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(super) fn run(mut self, run_id: String, job: &str) -> Self {
        self.run = Some((run_id, job.to_owned()));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn json(&self) -> Value {
        let mut body = json!({ "error": { "message": self.message, "hint": self.hint } });
        if let Some((run_id, _)) = &self.run {
            body["run_id"] = run_id.as_str().into();
        }
        body
    }

    /// What people see of it: a title and the content of the page.
    pub(super) fn page(&self) -> (String, Markup) {
        // A message may name what a stranger sent.
        let message = cut(&self.message, 400);
        let content = html! {
            h1 { (message) }
            @if let Some(hint) = &self.hint { p { (cut(hint, 400)) } }
            @if let Some((run_id, job)) = &self.run {
                p { a href={ "/runs/" (encode(run_id)) "?started=" (encode(job)) } { "To its run" } }
            }
            p { a href="/" { "To the jobs" } }
        };
        (message, content)
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        let found = failure::find(&error);
        match found.map(|failure| failure.kind) {
            // What was asked for does not exist; the error's text is meant for whoever asked.
            Some(Kind::Usage) => Self { hint: found.and_then(|failure| failure.hint.clone()), ..Self::not_found(error.to_string()) },
            Some(Kind::TryAgain | Kind::Locked) => {
                tracing::warn!(error = format!("{error:#}"), "A request could not be answered this time");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "This could not be read this time").hint("try it again")
            }
            _ => {
                tracing::error!(error = format!("{error:#}"), "A request could not be answered");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "This could not be read").hint("the log of `tallyroll serve` says why")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
