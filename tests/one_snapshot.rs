//! Every document is read from one snapshot: while a writer moves amounts between tables and days, each is that of before or of after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallyroll::clock::Clock;
use tallyroll::store::format_instant;

use crate::on_both_databases;
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(a_document_is_never_half_of_one_state_and_half_of_another);

const USER: &str = "00000000-0000-4000-8000-000000000001";

/// Documents of several statements each.
fn documents() -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api/usage/costs", "/api/usage/dashboard?days=7", "/api/usage", "/usage", "/api/seats", "/seats", "/seats/a"]
            .map(str::to_owned)
            .to_vec();
    paths.extend([format!("/api/users/{USER}/usage"), format!("/api/user/dashboard?user={USER}")]);
    paths
}

/// The functions of the same names, where the database has them.
const FUNCTIONS: [&str; 3] =
    ["get_ai_cost_summary()", "get_ai_usage_dashboard(7)", "get_user_ai_usage('00000000-0000-4000-8000-000000000001', 7)"];

/// What a reader is shown, in words that two states share no part of.
async fn shown(fixture: &Fixture, site: &Site, document: &str) -> String {
    if document.starts_with('/') {
        let answer = site.get(document).await;
        assert_eq!(answer.status, 200, "{document}: {}", answer.text());
        return answer.text();
    }
    fixture.rows(&format!("SELECT CAST({document} AS TEXT)")).await.join("\n")
}

/// Everything at once, in one transaction: to the second state with `sign` 1, back with -1.
async fn turn(fixture: &Fixture, at: &str, sign: i64) {
    let mut tx = fixture.store.begin().await.unwrap();
    for table in ["daily_total", "daily_user", "daily_customer", "daily_type", "monthly_user", "monthly_customer"] {
        let sql = format!(
            "UPDATE usage_{table} SET request_count = request_count + {}, total_cost_nanos = total_cost_nanos + {}",
            sign * 7,
            sign * 5_000_000_000
        );
        tx.execute(&sql, &[]).await.unwrap();
    }
    let id = "00000000-0000-4000-8000-0000000000ff";
    let raw = if sign > 0 {
        format!("INSERT INTO ai_usage_log (id, user_id, created_at) VALUES ('{id}', '{USER}', '{at}')")
    } else {
        format!("DELETE FROM ai_usage_log WHERE id = '{id}'")
    };
    let plan = if sign > 0 { "second" } else { "first" };
    for sql in [
        raw,
        format!("UPDATE user_dashboard_data SET total_requests = total_requests + {sign}"),
        format!("UPDATE subscription SET plan = '{plan}'"),
        format!("UPDATE peak_seats SET peak_seats = peak_seats + {sign}"),
    ] {
        tx.execute(&sql, &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn a_document_is_never_half_of_one_state_and_half_of_another(engine: Engine) {
    let fixture = Arc::new(Fixture::new(engine).await);
    let now = Clock::system().now();
    let at = format_instant(now);
    fixture.three_subscriptions().await;
    for days in 0..3 {
        fixture.log(&format_instant(now - chrono::TimeDelta::days(days)), &[("customer_id", "7"), ("user_email", "'a@x'")]).await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", &at]);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", &at]);
    // What is kept would be given as it is.
    fixture.execute("DELETE FROM usage_dashboard").await;
    fixture.execute("UPDATE subscription SET plan = 'first'").await;
    let site = Site::new(&fixture, TOKEN, &at).await;

    let mut documents = documents();
    documents.extend(FUNCTIONS.iter().filter(|_| engine == Engine::Postgres).map(|function| (*function).to_owned()));
    let mut states = Vec::new();
    for document in &documents {
        states.push(vec![shown(&fixture, &site, document).await]);
    }
    turn(&fixture, &at, 1).await;
    for (document, states) in documents.iter().zip(&mut states) {
        states.push(shown(&fixture, &site, document).await);
        assert_ne!(states[0], states[1], "{document}");
    }
    turn(&fixture, &at, -1).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (fixture, is_over) = (Arc::clone(&fixture), Arc::clone(&is_over));
        async move {
            while !is_over.load(Ordering::Relaxed) {
                turn(&fixture, &at, 1).await;
                turn(&fixture, &at, -1).await;
            }
        }
    });
    for _ in 0..repetitions(60, 3_000) {
        for (document, states) in documents.iter().zip(&states) {
            let found = shown(&fixture, &site, document).await;
            assert!(states.contains(&found), "{document}\n{found}\nis neither\n{}\nnor\n{}", states[0], states[1]);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}
