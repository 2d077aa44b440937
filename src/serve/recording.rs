//! What applications record over HTTP, with a token of their own: usage events, and chat requests.

mod body;
mod chat;
mod events;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post, put};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::app::App;
use super::guard;
use super::problem::Problem;
use super::receive::receive_up_to;
/// Bytes of a body: 10,000 events of 1,600 bytes.
const BODY_BYTES_MAX: usize = 16 << 20;
/// The longest wait for a body, of somebody who has the token.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Requests whose bodies are in memory at once, and how long others wait for their turn.
const AT_ONCE: usize = 8;
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Methods, path, and what answers.
type Recorder = (&'static [&'static str], &'static str, MethodRouter<Arc<App>>);

fn all() -> Vec<Recorder> {
    vec![
        (&["post"], "/api/usage-events", post(events::record)),
        (&["post", "put"], "/api/chat/track", post(chat::track).merge(put(chat::complete))),
    ]
}

pub(super) fn api_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().into_iter().flat_map(|(methods, path, _)| methods.iter().map(move |method| (*method, path)))
}

/// The paths, behind their guard. A body is read only once the token was the right one.
pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let router = all().into_iter().fold(Router::new(), |router, (_, path, method)| router.route(path, method));
    router
        .layer(middleware::from_fn(receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::guard_writing))
}

async fn receive(request: Request, next: Next) -> Response {
    let Ok(Ok(_turn)) = timeout(TURN_WAIT_MAX, TURNS.acquire()).await else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too much is being recorded at once").hint("send it again").into_response();
    };
    receive_up_to(BODY_BYTES_MAX, BODY_WAIT_MAX, request, next).await
}
