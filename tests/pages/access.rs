//! Who may see what: token, session, flood.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{NOW, PAGES};
use crate::on_both_databases;
use crate::support::site::{Site, TOKEN, csrf_of};
use crate::support::{Engine, Fixture};

on_both_databases!(
    without_a_token_nothing_is_shown,
    a_session_is_kept_from_strangers,
    a_flood_of_wrong_tokens_locks_nobody_out,
    what_fails_inside_stays_inside,
);

const FORM: &str = "application/x-www-form-urlencoded";

async fn without_a_token_nothing_is_shown(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let stranger = site.with(&[]);
    for path in ["/healthz", "/readyz", "/login", "/style.css"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    for path in PAGES.into_iter().chain(["/runs/x?started=a", "/seats/x"]) {
        let answer = stranger.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.header("location").starts_with("/login?next=%2F"), "{path}: {}", answer.header("location"));
        assert_eq!(stranger.post(path, FORM, "csrf=x").await.status, 401, "{path}");
    }
    for path in ["/api/jobs", "/api/nothing", "/api/openapi.json"] {
        let answer = stranger.get(path).await;
        let expected = if path == "/api/nothing" { 404 } else { 401 };
        assert_eq!((answer.status, answer.header("content-type")), (expected, "application/json"), "{path}");
        assert!(answer.json()["error"]["message"].is_string(), "{path}");
    }
    assert_eq!(stranger.get("/api/jobs").await.header("www-authenticate"), "Bearer");
    // What is no token of ours: another scheme, another case of the scheme, an old or forged session.
    for (headers, status) in [
        (("authorization", "Basic YTpi".to_owned()), 401),
        (("authorization", format!("bearer {TOKEN}")), 200),
        (("authorization", format!("Bearer {TOKEN}x")), 401),
        (("authorization", TOKEN.to_owned()), 401),
        (("authorization", "Bearer ".to_owned()), 401),
        (("cookie", "tallyroll_session=9999999999.x.y".to_owned()), 401),
        (("cookie", format!("tallyroll_session={TOKEN}")), 401),
    ] {
        let (name, value) = &headers;
        assert_eq!(site.with(&[(name, value)]).get("/api/jobs").await.status, status, "{headers:?}");
    }
    // A proxy that asks for a password of its own is not in a session's way.
    let cookie = session(&site).await;
    assert_eq!(site.with(&[("authorization", "Basic YTpi"), ("cookie", &cookie)]).get("/").await.status, 200);
}

async fn session(site: &Site) -> String {
    let answer = site.with(&[]).post("/login", FORM, &format!("token={TOKEN}")).await;
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn a_session_is_kept_from_strangers(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let login = site.with(&[]).post("/login", FORM, &format!("token={TOKEN}&next=%2F%2Fevil.example")).await;
    assert_eq!((login.status, login.header("location")), (303, "/"));
    let cookie = login.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(TOKEN), "{cookie}");
    let behind_tls = site.with(&[("x-forwarded-proto", "https")]).post("/login", FORM, &format!("token={TOKEN}")).await;
    assert!(behind_tls.header("set-cookie").ends_with("; Secure"));
    let wrong = site.with(&[]).post("/login", FORM, "token=wrong").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, ""));
    assert_eq!(site.with(&[]).post("/login", FORM, "").await.status, 422);
    assert_eq!(site.with(&[]).post("/login", "application/json", "{}").await.status, 415);

    let browser = site.log_in().await;
    assert_eq!(browser.get("/").await.status, 200);
    assert_eq!(browser.post("/logout", FORM, "csrf=x").await.status, 403);
    let csrf = csrf_of(&browser.get("/").await.text());
    let out = browser.post("/logout", FORM, &format!("csrf={csrf}")).await;
    assert!(out.status == 303 && out.header("set-cookie").contains("Max-Age=0"));
    // A program with the session's cookie sends its form token as a header.
    let program = site.with(&[("cookie", &session(&site).await)]);
    let csrf = csrf_of(&program.get("/").await.text());
    assert_eq!(program.post("/api/jobs/usage_daily/run", "", "").await.status, 403);
    let with_token = site.with(&[("cookie", &session(&site).await), ("x-csrf-token", &csrf)]);
    assert_eq!(with_token.post("/api/jobs/usage_daily/run", "", "").await.status, 403, "the form token of another session");

    // Open to this machine by its own name only.
    let open = Site::new(&fixture, "", NOW).await;
    assert_eq!(open.get("/").await.status, 200);
    assert_eq!(open.with(&[("host", "evil.example")]).get("/").await.status, 303);
    assert_eq!(open.with(&[("host", "evil.example:8080")]).get("/api/jobs").await.status, 401);
    // What a proxy passes on may come from anywhere.
    for name in ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"] {
        let proxied = open.with(&[("host", "127.0.0.1"), (name, "for=198.51.100.7")]);
        assert_eq!((proxied.get("/").await.status, proxied.get("/api/jobs").await.status), (403, 403), "{name}");
    }
    assert!(open.get("/login").await.text().contains("No token is set"));
    assert_eq!(open.post("/login", FORM, "token=").await.status, 401);
}

async fn a_flood_of_wrong_tokens_locks_nobody_out(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let browser = site.log_in().await;
    let started = Instant::now();
    let flood = join_all((0..1_000).map(|number| {
        let token = format!("Bearer wrong-{number}");
        let site = &site;
        async move {
            if number % 2 == 0 {
                site.with(&[("authorization", &token)]).get("/api/jobs").await.status
            } else {
                site.with(&[]).post("/login", FORM, &format!("token=wrong-{number}")).await.status
            }
        }
    }));
    let meanwhile = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!((browser.get("/runs").await.status, site.get("/api/runs").await.status), (200, 200));
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest
    };
    let (statuses, slowest) = tokio::join!(flood, meanwhile);
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(count(401) + count(429), 1_000, "every one is refused");
    assert_eq!(count(401), 20, "few are answered at all");
    assert!(started.elapsed() >= Duration::from_secs(2), "and those are slow");
    println!("{engine:?}: 1,000 wrong tokens in {:?}; a right one meanwhile took at most {slowest:?}", started.elapsed());
    assert_eq!(site.with(&[]).post("/login", FORM, &format!("token={TOKEN}")).await.status, 303);
    assert_eq!(site.with(&[("authorization", "Bearer wrong")]).get("/api/jobs").await.header("retry-after"), "60");
}

async fn what_fails_inside_stays_inside(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    fixture.execute("DROP TABLE usage_daily_type").await;
    fixture.execute("ALTER TABLE job_run RENAME COLUMN error_text TO words").await;
    for path in ["/", "/runs", "/usage", "/api/jobs", "/api/usage"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 500, "{path}");
        let text = answer.text().to_lowercase();
        assert!(text.contains("the log of `tallyroll serve` says why"), "{path}: {text}");
        for inside in ["select", "usage_daily_type", "error_text", "column", "sqlite", "postgres", "tallyroll.db", "migrate"] {
            assert!(!text.contains(inside), "{inside} in {path}: {text}");
        }
    }
}
