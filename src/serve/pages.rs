//! The pages and the JSON beside each.

mod api;
mod overview;
mod quarantine;
mod run;
mod runs;
mod seats;
mod start;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::app::App;
use super::login;

/// Every path that needs a token or a session.
pub(super) fn routes() -> Router<Arc<App>> {
    let pages = Router::new()
        .route("/", get(overview::page))
        .route("/runs", get(runs::page))
        .route("/runs/{id}", get(run::page))
        .route("/jobs/{job}/run", get(start::page).post(start::start))
        .route("/usage", get(usage::page))
        .route("/quarantine", get(quarantine::page))
        .route("/seats", get(seats::page))
        .route("/seats/ai/users", get(seats::ai::page))
        .route("/seats/{subscription}", get(seats::subscription::page))
        .route("/logout", post(login::log_out));
    api().into_iter().fold(pages, |router, (_, path, method)| router.route(path, method))
}

/// The JSON: method, path, and what answers.
fn api() -> Vec<(&'static str, &'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("get", "/api/openapi.json", get(api::openapi)),
        ("get", "/api/jobs", get(overview::json)),
        ("post", "/api/jobs/{job}/run", post(start::start_json)),
        ("get", "/api/runs", get(runs::json)),
        ("get", "/api/runs/{id}", get(run::json)),
        ("get", "/api/usage", get(usage::json)),
        ("get", "/api/usage/dashboard", get(api::usage_dashboard)),
        ("get", "/api/usage/costs", get(api::costs)),
        ("get", "/api/users/{id}/usage", get(api::user_usage)),
        ("get", "/api/user/dashboard", get(api::user_dashboard)),
        ("post", "/api/user/dashboard", post(api::refresh_user_dashboard)),
        ("get", "/api/quarantine", get(quarantine::json)),
        ("get", "/api/seats", get(seats::json)),
        ("get", "/api/seats/ai/users", get(seats::ai::json)),
        ("get", "/api/seats/{subscription}", get(seats::files::file)),
    ]
}

/// Method and path of what the pages' token opens below `/api/`.
pub(super) fn api_routes() -> Vec<(&'static str, &'static str)> {
    api().into_iter().map(|(method, path, _)| (method, path)).collect()
}
