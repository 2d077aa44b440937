//! `docs/openapi.json`: it names what the router answers, no more and no less, and answers are as it says.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallyroll::serve::api_routes;

use super::{NOW, filled};
use crate::on_both_databases;
use crate::support::Engine;
use crate::support::seats::python;
use crate::support::site::{Site, TOKEN, WRITER_TOKEN};

on_both_databases!(every_answer_is_as_described);

const USER: &str = "00000000-0000-4000-8000-000000000001";

/// Method, path as the document names it, path as it is asked for, status.
const ASKED: [(&str, &str, &str, u16); 40] = [
    ("get", "/api/openapi.json", "", 200),
    ("get", "/api/jobs", "", 200),
    ("post", "/api/jobs/{job}/run", "/api/jobs/usage_daily/run", 202),
    ("post", "/api/jobs/{job}/run", "/api/jobs/nothing/run", 404),
    ("post", "/api/jobs/{job}/run", "/api/jobs/reconcile/run", 409),
    ("get", "/api/runs", "", 200),
    ("get", "/api/runs", "/api/runs?failed=1&job=usage_daily", 200),
    ("get", "/api/runs", "/api/runs?before=x", 400),
    ("get", "/api/runs/{id}", "/api/runs/RUN", 200),
    ("get", "/api/runs/{id}", "/api/runs/FAILED", 200),
    ("get", "/api/runs/{id}", "/api/runs/nothing", 404),
    ("get", "/api/usage", "", 200),
    ("get", "/api/usage", "/api/usage?from=2020-01-01&to=2026-04-05&q=ann", 200),
    ("get", "/api/usage", "/api/usage?from=x", 400),
    ("get", "/api/usage/dashboard", "", 200),
    ("get", "/api/usage/dashboard", "/api/usage/dashboard?days=3660", 200),
    ("get", "/api/usage/dashboard", "/api/usage/dashboard?days=-1", 400),
    ("get", "/api/usage/costs", "", 200),
    ("get", "/api/users/{id}/usage", "/api/users/00000000-0000-4000-8000-000000000001/usage?days=90", 200),
    ("get", "/api/users/{id}/usage", "/api/users/00000000-0000-4000-8000-00000000dead/usage", 200),
    ("get", "/api/users/{id}/usage", "/api/users/me/usage", 200),
    ("get", "/api/users/{id}/usage", "/api/users/a%00b/usage", 400),
    ("get", "/api/user/dashboard", "/api/user/dashboard?user=00000000-0000-4000-8000-000000000001", 200),
    ("get", "/api/user/dashboard", "/api/user/dashboard?user=00000000-0000-4000-8000-00000000dead", 404),
    ("get", "/api/user/dashboard", "/api/user/dashboard", 400),
    ("post", "/api/user/dashboard", "/api/user/dashboard?user=00000000-0000-4000-8000-000000000001", 200),
    ("post", "/api/user/dashboard", "/api/user/dashboard?user=x", 400),
    ("post", "/api/user/dashboard", "/api/user/dashboard?user=00000000-0000-4000-8000-00000000dead", 404),
    ("get", "/api/quarantine", "/api/quarantine?source=ai_usage_log", 200),
    ("get", "/api/quarantine", "/api/quarantine?page=0", 400),
    ("get", "/api/seats", "", 200),
    ("get", "/api/seats", "/api/seats?page=x", 400),
    ("get", "/api/seats/ai/users", "/api/seats/ai/users?org=org-1", 200),
    ("get", "/api/seats/ai/users", "/api/seats/ai/users?page=0", 400),
    ("get", "/api/seats/{subscription}", "/api/seats/a", 200),
    ("get", "/api/seats/{subscription}", "/api/seats/a?format=csv", 200),
    ("get", "/api/seats/{subscription}", "/api/seats/a?format=parquet", 200),
    ("get", "/api/seats/{subscription}", "/api/seats/a?format=xml", 400),
    ("get", "/api/seats/{subscription}", "/api/seats/nothing", 404),
    ("get", "/api/seats/{subscription}", "/api/seats/..%2F..%2Fx", 404),
];

const EVENT: &str = r#"{"event_id": "e", "user_id": "ann", "occurred_at": "2026-04-05", "input_tokens": 1}"#;

/// What applications record: method, path, body, status.
const RECORDED: [(&str, &str, &str, u16); 11] = [
    ("post", "/api/usage-events", EVENT, 200),
    ("post", "/api/usage-events", "[{\"event_id\": \"f\", \"user_id\": \"ann\"}, {}]", 207),
    ("post", "/api/usage-events", r#"{"event_id": "e", "user_id": "bob"}"#, 409),
    ("post", "/api/usage-events", "{}", 422),
    ("post", "/api/usage-events", "{", 400),
    ("post", "/api/chat/track", r#"{"userId": "00000000-0000-4000-8000-000000000001"}"#, 201),
    ("post", "/api/chat/track", "{}", 422),
    ("put", "/api/chat/track", r#"{"requestId": "CHAT", "status": "completed"}"#, 200),
    ("put", "/api/chat/track", r#"{"requestId": "CHAT", "status": "odd"}"#, 422),
    ("put", "/api/chat/track", r#"{"requestId": "00000000-0000-4000-8000-00000000dead"}"#, 404),
    ("put", "/api/chat/track", "{", 400),
];

async fn every_answer_is_as_described(engine: Engine) {
    let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone())))
        .collect();
    let routed: BTreeSet<(String, String)> = api_routes().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(described, routed);
    let asked = ASKED.iter().map(|(method, path, ..)| (method, path)).chain(RECORDED.iter().map(|(method, path, ..)| (method, path)));
    let asked: BTreeSet<(String, String)> = asked.map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, asked, "each is asked for below");

    let fixture = filled(engine).await;
    fixture
        .execute("INSERT INTO users (id, email, plan, requests_limit) VALUES ('00000000-0000-4000-8000-000000000001', 'ann@x', 'pro', 9)")
        .await;
    // A run that failed: a quarantined event too many.
    fixture.log("2026-04-05T11:00:00.000000Z", &[("input_tokens", "-5")]).await;
    assert_eq!(fixture.run(&["run-job", "usage_daily", "--downstream", "--as-of", NOW]).code, Some(65));
    let run = fixture.rows("SELECT run_id FROM job_run WHERE job = 'usage_daily' AND state = 'success'").await.remove(0);
    let failed = fixture.rows("SELECT run_id FROM job_run WHERE state = 'failed'").await.remove(0);
    // One job is at work, on another machine.
    fixture
        .execute(&format!(
            "INSERT INTO job_run (run_id, job, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, windows_planned, windows_done, \
             rows_in, rows_out, quarantined_count, host, pid, version) VALUES ('at-work', 'reconcile', 'manual', 1, 'running', '{{}}', '{NOW}', '{NOW}', \
             '{NOW}', 0, 0, 0, 0, 0, 'another', 1, '0')"
        ))
        .await;
    fixture.execute("UPDATE job_lock SET run_id = 'at-work' WHERE job = 'reconcile'").await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let (stranger, open) = (site.with(&[]), Site::new(&fixture, "", NOW).await);
    let mut lines = Vec::new();
    for (method, path, asked, status) in ASKED {
        let asked = if asked.is_empty() { path } else { asked };
        let asked = asked.replace("RUN", &run).replace("FAILED", &failed);
        let verb = if method == "get" { reqwest::Method::GET } else { reqwest::Method::POST };
        let answers = [
            (site.send(verb.clone(), &asked, "", "").await, Some(status)),
            (stranger.send(verb.clone(), &asked, "", "").await, Some(401)),
            // Who may read only is refused before all else.
            (open.send(verb, &asked, "", "").await, if method == "post" { Some(403) } else { Some(status) }),
        ];
        for (answer, expected) in answers {
            assert_eq!(Some(answer.status), expected, "{method} {asked}: {}", answer.text());
            let body = if answer.header("content-type") == "application/json" { answer.text() } else { String::new() };
            lines.push(
                json!({ "method": method, "path": path, "status": answer.status, "kind": answer.header("content-type"), "body": body })
                    .to_string(),
            );
        }
    }
    let (writer, mut chat) = (site.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}"))]), String::new());
    for (method, path, body, status) in RECORDED {
        let (verb, body) = (reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), body.replace("CHAT", &chat));
        for (who, expected) in [(&writer, status), (&site, 401), (&stranger, 401), (&open, 401)] {
            let answer = who.send(verb.clone(), path, "application/json", &body).await;
            assert_eq!(answer.status, expected, "{method} {path} {body}: {}", answer.text());
            if answer.status == 201 {
                answer.json()["requestId"].as_str().unwrap().clone_into(&mut chat);
            }
            lines.push(
                json!({ "method": method, "path": path, "status": answer.status, "kind": answer.header("content-type"), "body": answer.text() })
                    .to_string(),
            );
        }
    }
    fixture.write("answers.jsonl", &lines.join("\n"));
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let output = python("openapi.py").arg(document).arg(fixture.path().join("answers.jsonl")).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    // The seed's document has the keys alone, its example reads them from `dashboard`.
    let dashboard = site.get(&format!("/api/user/dashboard?user={USER}")).await.json();
    for key in ["user", "metrics", "limits", "performance", "recentRequests", "requestsByCategory"] {
        assert!(!dashboard[key].is_null() && dashboard[key] == dashboard["dashboard"][key], "{key}: {dashboard}");
    }
    assert_eq!((&dashboard["metrics"]["totalRequests"], &dashboard["limits"]["planName"]), (&json!(2), &json!("pro")));
}
