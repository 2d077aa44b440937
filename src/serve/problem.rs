//! What is wrong with a request: a page for people, JSON below `/api/`. What the database says stays in the log.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;
use serde_json::json;

use super::layout::{self, encode};
use super::parts::cut;
use crate::failure::{self, Kind};

/// What a handler answers in place of what was asked for; [`render`] gives it its shape.
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
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        let found = failure::find(&error);
        match found.map(|failure| failure.kind) {
            // What was asked for is not there: the words are made for who asked.
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

/// Gives every problem the shape that its path asks for; headers of the answer stay.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let known = response.extensions_mut().remove::<Problem>();
    let Some(problem) = known.or_else(|| unworded(&response, is_api)) else { return response };
    let mut rendered = if is_api { json(&problem) } else { page(&problem) };
    for (name, value) in response.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

/// An answer of the framework itself, such as one to a method that a path does not take.
fn unworded(response: &Response, is_api: bool) -> Option<Problem> {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let is_bare = status == StatusCode::METHOD_NOT_ALLOWED || (is_api && (status.is_client_error() || status.is_server_error()));
    (is_bare && !is_json).then(|| Problem::new(status, status.canonical_reason().unwrap_or("This cannot be answered")))
}

fn json(problem: &Problem) -> Response {
    let mut body = json!({ "error": { "message": problem.message, "hint": problem.hint } });
    if let Some((run_id, _)) = &problem.run {
        body["run_id"] = run_id.as_str().into();
    }
    (problem.status, Json(body)).into_response()
}

fn page(problem: &Problem) -> Response {
    // A message may name what a stranger sent.
    let message = cut(&problem.message, 400);
    let content = html! {
        h1 { (message) }
        @if let Some(hint) = &problem.hint { p { (cut(hint, 400)) } }
        @if let Some((run_id, job)) = &problem.run {
            p { a href={ "/runs/" (encode(run_id)) "?started=" (encode(job)) } { "To its run" } }
        }
        p { a href="/" { "To the jobs" } }
    };
    (problem.status, layout::page(&message, None, &content)).into_response()
}
