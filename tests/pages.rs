//! The site: every page filled and empty, who may see it, and what it does not let through.

mod access;
mod hostile;
mod openapi;
mod seats;
mod speed;
mod usage;

use serde_json::json;

use crate::on_both_databases;
use crate::support::site::{STARTED_RUN, Site, TOKEN, csrf_of};
use crate::support::{Engine, Fixture};

on_both_databases!(
    every_page_answers,
    the_archive_shows_what_is_in_the_lake,
    a_list_of_thousands_of_runs_goes_page_by_page,
    a_run_is_shown_from_before_it_begins_to_its_end,
    a_run_starts_by_a_form_of_this_site_only,
);

/// When the tests' sites are looked at.
pub const NOW: &str = "2026-04-05T12:00:00Z";

pub async fn filled(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    for (day, customer, email, model) in [
        ("03-09", "7", "ann@x", "claude-3"),
        ("03-10", "8", "bob@x", "gpt-4"),
        ("04-04", "7", "ann@x", "gpt-4"),
        ("04-05", "NULL", "bob@x", "gpt-4"),
    ] {
        let user = if email == "ann@x" { "1" } else { "2" };
        fixture
            .log(
                &format!("2026-{day}T10:00:00.000000Z"),
                &[
                    ("customer_id", customer),
                    ("customer_name", if customer == "7" { "'Seven & Sons'" } else { "NULL" }),
                    ("user_id", &format!("'00000000-0000-4000-8000-00000000000{user}'")),
                    ("user_email", &format!("'{email}'")),
                    ("model_used", &format!("'{model}'")),
                    ("latency_ms", "250"),
                ],
            )
            .await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", NOW]);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    fixture.run_well(&["run-job", "reconcile", "--as-of", NOW]);
    fixture
}

async fn the_archive_shows_what_is_in_the_lake(engine: Engine) {
    let fixture = filled(engine).await;
    fixture.write("tallyroll.toml", "[archive]\ndelete = true\n");
    fixture.run_well(&["archive", "--day", "2026-03-10", "--as-of", NOW]);
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let page = site.get("/").await.text();
    for part in ["<code>ai_usage_log</code>: 1 day in the lake, the last 2026-03-10; 1 event, ", "the oldest event in the table is of"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let jobs = site.get("/api/jobs").await.json();
    let archive = jobs["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "archive").unwrap();
    let archived = &archive["archived"][0];
    assert_eq!(
        (&archived["source"], &archived["deleted_day_count"], &archived["last_day"]),
        (&json!("ai_usage_log"), &json!(1), &json!("2026-03-10"))
    );
}

pub const PAGES: [&str; 7] = ["/", "/runs", "/jobs/usage_daily/run", "/usage", "/quarantine", "/seats", "/seats/ai/users"];

async fn every_page_answers(engine: Engine) {
    let empty = Fixture::new(engine).await;
    for fixture in [filled(engine).await, empty] {
        let site = Site::new(&fixture, TOKEN, NOW).await;
        for path in PAGES {
            let answer = site.get(path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let text = answer.text();
            assert!(text.starts_with("<!DOCTYPE html>") && text.contains("name=\"viewport\""), "{path}");
            assert!(!text.contains("<script") && !text.contains("style=\"") && !text.contains("http://"), "{path}: {text}");
        }
        for path in ["/api/jobs", "/api/runs"] {
            let answer = site.get(path).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}: {}", answer.text());
        }
        assert_eq!(site.get("/nothing").await.status, 404);
        assert_eq!(site.get("/jobs/usage_dayly/run").await.status, 404);
        assert!(site.get("/jobs/usage_dayly/run").await.text().contains("did you mean `usage_daily`?"));
        let problem = site.get("/api/runs/nothing").await;
        assert_eq!(problem.status, 404);
        assert!(problem.json()["error"]["message"].as_str().unwrap().contains("nothing"), "{}", problem.text());
        assert_eq!(site.post("/api/runs", "", "").await.json()["error"]["message"], "Method Not Allowed");
    }
}

async fn run_row(fixture: &Fixture, id: &str, job: &str, state: &str, started_at: &str, error: &str) {
    fixture
        .execute(&format!(
            "INSERT INTO job_run (run_id, job, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, windows_planned, windows_done, \
             rows_in, rows_out, quarantined_count, host, pid, version, error_text, log) VALUES ('{id}', '{job}', 'manual', 1, '{state}', \
             '{{\"from\":\"2026-03-01\",\"to\":null,\"as_of\":\"2026-04-01T00:00:00Z\",\"downstream\":true,\"force\":false,\"rebuild\":false}}', \
             '{started_at}', '{started_at}', '{started_at}', 0, 0, 0, 0, 0, 'host', 1, '0', {error}, 'first line')"
        ))
        .await;
}

async fn a_list_of_thousands_of_runs_goes_page_by_page(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // Seven of each thousand start at one instant: the run's id decides between those.
    let rows: Vec<String> = (0..5_000)
        .map(|number| {
            let at = format!("2026-03-{:02}T{:02}:{:02}:00.000000Z", 1 + number / 7 / 60 / 24, number / 7 / 60 % 24, number / 7 % 60);
            let state = if number % 100 == 0 { "failed" } else { "success" };
            format!(
                "('run-{number:05}', 'usage_daily', 'schedule', 1, '{state}', '{{}}', '{at}', '{at}', '{at}', '{at}', 1000, 1, 1, 1, 1, 0, 'h', 1, '0')"
            )
        })
        .collect();
    fixture
        .execute(&format!(
            "INSERT INTO job_run (run_id, job, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, finished_at, duration_ms, \
             windows_planned, windows_done, rows_in, rows_out, quarantined_count, host, pid, version) VALUES {}",
            rows.join(", ")
        ))
        .await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let mut seen = Vec::new();
    let mut path = "/api/runs?job=usage_daily".to_owned();
    loop {
        let page = site.get(&path).await.json();
        seen.extend(page["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/api/runs?job=usage_daily&before={}", next.replace(':', "%3A"));
    }
    let expected: Vec<String> = (0..5_000).rev().map(|number| format!("run-{number:05}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(site.get("/api/runs?failed=1").await.json()["runs"].as_array().unwrap().len(), 50);
    let started = std::time::Instant::now();
    let page = site.get("/runs?job=usage_daily&failed=1").await.text();
    println!("{engine:?}: 50 of 5,000 runs in {:?}", started.elapsed());
    assert_eq!(page.matches("<tr>").count(), 51);
    assert!(!page.contains("Earlier runs"), "50 failed, and no more");
    assert!(site.get("/runs?job=usage_daily").await.text().contains("/runs?job=usage_daily&amp;before=2026-03-01T"));
    for bad in ["x", ",", "2026-03-01,x", "2026-03-01T00:00:00Z"] {
        assert_eq!(site.get(&format!("/runs?before={bad}")).await.status, 400, "{bad}");
    }
    // The strip of the overview has the last 30.
    assert_eq!(site.get("/").await.text().matches("<rect").count(), 30);
}

async fn a_run_is_shown_from_before_it_begins_to_its_end(engine: Engine) {
    let fixture = filled(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let refreshes = |text: &str| text.contains("http-equiv=\"refresh\" content=\"2\"");
    // Ten seconds before now, by the id's own clock; and a year before.
    let made_at = |seconds: u64| uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)).to_string();
    let new = made_at(1_775_390_390);
    assert_eq!(site.get(&format!("/runs/{new}")).await.status, 404);
    let waiting = site.get(&format!("/runs/{new}?started=usage_daily")).await;
    assert!(waiting.status == 200 && refreshes(&waiting.text()) && waiting.text().contains("has not begun"), "{}", waiting.text());
    let old = site.get(&format!("/runs/{}?started=usage_daily", made_at(1_743_854_390))).await;
    assert!(old.status == 200 && !refreshes(&old.text()) && old.text().contains("nothing was due"), "{}", old.text());
    assert_eq!(site.get(&format!("/runs/{new}?started=no_job")).await.status, 404);

    run_row(&fixture, &new, "usage_daily", "running", "2026-04-05T11:59:58.000000Z", "NULL").await;
    let running = site.get(&format!("/runs/{new}")).await.text();
    assert!(refreshes(&running) && running.contains("state busy") && running.contains("first line"), "{running}");
    fixture.execute(&format!("UPDATE job_run SET heartbeat_at = '2026-04-05T11:50:00.000000Z' WHERE run_id = '{new}'")).await;
    let silent = site.get(&format!("/runs/{new}")).await.text();
    assert!(!refreshes(&silent) && silent.contains("silent since"), "{silent}");
    fixture
        .execute(&format!(
            "UPDATE job_run SET state = 'failed', error_class = 'bad_data', error_text = 'too & much' WHERE run_id = '{new}'"
        ))
        .await;
    let failed = site.get(&format!("/runs/{new}")).await.text();
    assert!(!refreshes(&failed) && failed.contains("too &amp; much") && failed.contains("bad_data"), "{failed}");
    let command = "tallyroll run-job usage_daily --from 2026-03-01 --as-of 2026-04-01T00:00:00.000000Z --downstream";
    assert!(failed.contains(command), "{failed}");

    // One that wrote windows, and had others run after it.
    let id = fixture.rows("SELECT run_id FROM job_run WHERE job = 'usage_daily' AND state = 'success'").await.remove(0);
    let json = site.get(&format!("/api/runs/{id}")).await.json();
    assert_eq!(json["windows"].as_array().unwrap().len(), 4);
    assert_eq!((&json["windows"][0]["window"], &json["windows"][0]["rows_in"]), (&"2026-04-05".into(), &1.into()));
    assert_eq!(json["downstream"].as_array().unwrap().len(), 8);
    assert_eq!(json["rerun"], "tallyroll run-job usage_daily --as-of 2026-04-05T12:00:00.000000Z --downstream");
    let page = site.get(&format!("/runs/{id}")).await.text();
    assert!(page.contains("Runs after it") && page.contains("usage_monthly_user"), "{page}");
    let child = json["downstream"][0]["run_id"].as_str().unwrap();
    assert!(site.get(&format!("/runs/{child}")).await.text().contains(&format!("href=\"/runs/{id}\"")));
}

async fn a_run_starts_by_a_form_of_this_site_only(engine: Engine) {
    const FORM: &str = "application/x-www-form-urlencoded";
    let fixture = Fixture::new(engine).await;
    let owner = Site::new(&fixture, TOKEN, NOW).await;
    let browser = owner.log_in().await;
    let path = "/jobs/usage_daily/run";
    let csrf = csrf_of(&browser.get(path).await.text());
    for body in ["", "csrf=", "csrf=wrong", &format!("csrf={csrf}x"), "downstream=true"] {
        assert_eq!(browser.post(path, FORM, body).await.status, 403, "{body}");
    }
    assert_eq!(browser.post("/api/jobs/usage_daily/run", "application/json", "{}").await.status, 403);
    // Another session's form is no form of this one.
    let other = owner.log_in().await;
    assert_eq!(other.post(path, FORM, &format!("csrf={csrf}")).await.status, 403);
    assert!(owner.started.lock().unwrap().is_empty());

    let answer = browser.post(path, FORM, &format!("csrf={csrf}&downstream=true")).await;
    assert_eq!((answer.status, answer.header("location")), (303, format!("/runs/{STARTED_RUN}?started=usage_daily").as_str()));
    assert_eq!(browser.post(path, FORM, &format!("csrf={csrf}")).await.status, 303);
    assert_eq!(browser.post("/jobs/no_job/run", FORM, &format!("csrf={csrf}")).await.status, 404);
    let answer = owner.post("/api/jobs/peak_seats/run", "application/json", "{\"downstream\": true}").await;
    assert_eq!((answer.status, answer.json()["run_id"].as_str()), (202, Some(STARTED_RUN)));
    assert_eq!(owner.post("/api/jobs/peak_seats/run", "", "").await.status, 202);
    let expected = [("usage_daily", true), ("usage_daily", false), ("peak_seats", true), ("peak_seats", false)];
    assert_eq!(*owner.started.lock().unwrap(), expected.map(|(job, downstream)| (job.to_owned(), downstream)));
    for (body, status) in [("{", 400), ("[]", 422), ("{\"downstream\": 1}", 422), ("{\"from\": 1}", 422)] {
        assert_eq!(owner.post("/api/jobs/peak_seats/run", "application/json", body).await.status, status, "{body}");
    }

    // Being on this machine lets one read, not run.
    let open = Site::new(&fixture, "", NOW).await;
    let page = open.get(path).await.text();
    assert!(page.contains("no token is set") && !page.contains("<button>Run now"), "{page}");
    assert_eq!(open.post(path, FORM, "csrf=").await.status, 403);
    assert_eq!(open.post("/api/jobs/usage_daily/run", "application/json", "{}").await.status, 403);
}
