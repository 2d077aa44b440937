//! The body of a request: how large it may be, and how long it may take.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest as _, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::connections::Client;
use super::problem::Problem;

/// The longest wait for the body.
const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of a body. The largest is the login form, with the path to return to.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;
/// How much of a body that is too large is read, and for how long, before it is refused.
pub(super) const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Receives the whole request before it is handled: a connection that waits for its client can be closed, one at work cannot.
pub(super) async fn receive(request: Request, next: Next) -> Response {
    receive_up_to(BODY_BYTES_MAX, BODY_WAIT_MAX, request, next).await
}

/// As [`receive`], with a body of at most so many bytes, which may take so long.
pub(super) async fn receive_up_to(bytes_max: usize, wait_max: Duration, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().cloned();
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > bytes_max as u64 {
        leave_unread(body, bytes_max.max(DRAIN_BYTES_MAX)).await;
        return unreceived(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = match timeout(wait_max, Bytes::from_request(Request::from_parts(parts.clone(), body), &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return unreceived(rejection.status()),
        Err(_) => return unreceived(StatusCode::REQUEST_TIMEOUT),
    };
    let at_work = client.map(Client::begin);
    if matches!(at_work, Some(None)) {
        return unreceived(StatusCode::SERVICE_UNAVAILABLE);
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// If the connection ended while the client is still sending, it would never see the answer.
pub(super) async fn leave_unread(body: Body, bytes_max: usize) {
    let _ = timeout(DRAIN_WAIT_MAX, drain(body, bytes_max)).await;
}

async fn drain(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let (Some(Ok(frame)), true) = (body.frame().await, left > 0) {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

fn unreceived(status: StatusCode) -> Response {
    let why = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "The body of the request is too large",
        StatusCode::REQUEST_TIMEOUT => "The body of the request did not come in time",
        StatusCode::SERVICE_UNAVAILABLE => "There are too many connections",
        _ => "The body of the request cannot be read",
    };
    Problem::new(status, why).into_response()
}
