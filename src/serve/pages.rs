//! The pages and the JSON beside each.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use super::app::App;
use super::auth;

/// Every path that needs a token or a session.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/logout", post(auth::log_out))
}
