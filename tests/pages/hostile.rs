//! Names that want to be code: in every column that a page shows, in every path and query. Nothing executes, nothing is a 500.

use tallyroll::store::Value;

use super::{NOW, PAGES};
use crate::on_both_databases;
use crate::support::site::{Answer, Site, TOKEN, csrf_of};
use crate::support::{Engine, Fixture};

on_both_databases!(hostile_rows_stay_text, hostile_requests_stay_text);

const NAMES: [&str; 12] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "'; DROP TABLE users;--",
    "\u{202e}gnp.exe\u{2066}\u{61c}\u{200f}",
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)\t\r\n-2",
    "../../etc/passwd",
    "javascript:alert(1)",
    "%3Cscript%3E${7*7}{{7*7}}",
    "</title></svg></pre>]]>&lt;&amp;",
];

/// Tags and attributes that pages are made of; none executes.
const TAGS: [&str; 56] = [
    "!doctype", "html", "head", "meta", "title", "link", "body", "header", "nav", "a", "form", "input", "button", "main", "h1", "h2", "p",
    "div", "span", "section", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "bdi", "time", "label",
    "select", "option", "svg", "rect", "line", "text", "path", "circle", "ul", "li", "strong", "em", "br", "hr", "small", "caption",
    "tfoot", "g", "ol", "b", "i", "h3",
];
const ATTRIBUTES: [&str; 56] = [
    "html",
    "lang",
    "charset",
    "name",
    "content",
    "http-equiv",
    "rel",
    "href",
    "class",
    "method",
    "action",
    "type",
    "value",
    "id",
    "title",
    "datetime",
    "selected",
    "checked",
    "required",
    "autofocus",
    "autocomplete",
    "maxlength",
    "role",
    "aria-label",
    "viewbox",
    "width",
    "height",
    "x",
    "y",
    "rx",
    "x1",
    "x2",
    "y1",
    "y2",
    "cx",
    "cy",
    "r",
    "d",
    "text-anchor",
    "dominant-baseline",
    "min",
    "max",
    "for",
    "colspan",
    "scope",
    "placeholder",
    "pattern",
    "open",
    "hidden",
    "dir",
    "aria-hidden",
    "aria-current",
    "aria-live",
    "tabindex",
    "inputmode",
    "step",
];

/// A text that a person reads shows every character that it has.
fn check_text(path: &str, text: &str) {
    for hidden in ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\0'] {
        assert!(!text.contains(hidden), "{path} holds {hidden:?}: {}", text.chars().take(200).collect::<String>());
    }
}

/// Reads a page tag by tag, as a browser does, and knows every tag and attribute in it.
fn check_page(path: &str, page: &str) {
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        check_text(path, &rest[..start]);
        rest = &rest[start + 1..];
        let (mut name, mut at) = (String::new(), 0);
        let bytes = rest.as_bytes();
        while at < bytes.len() && !b" >\n".contains(&bytes[at]) {
            name.push(char::from(bytes[at]).to_ascii_lowercase());
            at += 1;
        }
        let shown: String = rest.chars().take(80).collect();
        assert!(TAGS.contains(&name.trim_start_matches('/')), "{path}: <{shown}");
        while at < bytes.len() && bytes[at] != b'>' {
            if bytes[at].is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let end = (at..bytes.len()).find(|at| b"= >".contains(&bytes[*at])).unwrap();
            let attribute = rest[at..end].to_lowercase();
            assert!(ATTRIBUTES.contains(&attribute.as_str()), "{path}: `{attribute}` in <{shown}");
            at = end;
            if bytes[at] == b'=' {
                assert_eq!(bytes[at + 1], b'"', "{path}: <{shown}");
                let close = at + 2 + rest[at + 2..].find('"').unwrap();
                let value = &rest[at + 2..close];
                if ["href", "action"].contains(&attribute.as_str()) {
                    let is_local = value.starts_with('/') && !value.starts_with("//") || value.starts_with('#') || value == "data:,";
                    assert!(is_local, "{path}: {attribute}={value}");
                }
                // A search box holds what was typed.
                if attribute != "value" {
                    check_text(path, value);
                }
                at = close + 1;
            }
        }
        rest = &rest[at..];
    }
    check_text(path, rest);
}

fn check(path: &str, answer: &Answer) {
    assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
    let kind = answer.header("content-type");
    if kind.starts_with("text/html") {
        check_page(path, &answer.text());
    } else if kind == "application/json" {
        answer.json();
    } else {
        let is_known = ["", "text/csv; charset=utf-8", "application/vnd.apache.parquet", "text/plain; charset=utf-8"].contains(&kind);
        assert!(is_known, "{path}: {kind}");
    }
}

fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| ["%".to_owned(), format!("{byte:02X}")]).collect()
}

/// A database in which everything is called as somebody who means harm would call it.
async fn filled(engine: Engine) -> (Fixture, Vec<String>) {
    let fixture = Fixture::new(engine).await;
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.push("é".repeat(500));
    if engine == Engine::Sqlite {
        names.push("a\0<script>b".to_owned());
    }
    let execute = async |sql: &str, values: &[&str]| {
        let values: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
        fixture.store.execute(sql, &values).await.unwrap_or_else(|error| panic!("{error:#}\n{sql}"))
    };
    let long = "<script>".repeat(125_000);
    for (number, name) in names.iter().enumerate() {
        let short: String = name.chars().take(100).collect();
        let longest = "<script>".repeat(125);
        let labels = if number == 0 { &longest } else { name };
        let user = format!("00000000-0000-4000-8000-{number:012}");
        let uuid = if engine == Engine::Postgres { "CAST($1 AS UUID)" } else { "$1" };
        let id = format!("00000000-0000-4000-9000-{number:012}");
        execute(
            &format!(
                "INSERT INTO ai_usage_log (id, user_id, user_email, customer_id, customer_name, request_type, model_used, input_tokens, output_tokens, \
                 status, error_message, created_at) VALUES ({}, {uuid}, $3, {number}, $4, $5, $6, 100, 10, 'success', $3, '2026-04-05T10:00:00.000000Z')",
                uuid.replace("$1", "$2")
            ),
            &[&user, &id, labels, labels, &short, &short],
        )
        .await;
        execute(&format!("INSERT INTO users (id, email, name) VALUES ({uuid}, $2, $2)"), &[&user, name]).await;
        execute(
            "INSERT INTO subscription (id, org_id, plan, license_id, committed_seats, start_at) VALUES ($1, $1, $2, $2, 3, '2026-01-15T00:00:00.000000Z')",
            &[name, name],
        )
        .await;
        execute(
            &format!(
                "INSERT INTO ai_seat_state (user_id, org_id, first_used_at, last_used_at, last_event_type, last_event_description, updated_at) \
                 VALUES ({uuid}, $2, '2026-04-01T00:00:00.000000Z', '2026-04-02T00:00:00.000000Z', $2, $3, '2026-04-02T00:00:00.000000Z')"
            ),
            &[&user, name, labels],
        )
        .await;
        for kind in ["total", name] {
            execute("INSERT INTO seat_usage_event (org_id, seat_type, seats, occurred_at, reason) VALUES ($1, $2, 5, '2026-01-20T00:00:00.000000Z', $1)", &[name, kind])
                .await;
        }
    }
    if engine == Engine::Sqlite {
        execute("INSERT INTO subscription (id, org_id, plan, start_at) VALUES ($1, 'org', $1, '2026-01-15T00:00:00.000000Z')", &[&long])
            .await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", NOW]);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    for (number, name) in names.iter().enumerate() {
        let text = if number == 0 { &long } else { name };
        let job = if number % 2 == 0 { "usage_daily" } else { name };
        execute(
            "INSERT INTO job_run (run_id, job, parent_run_id, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, windows_planned, \
             windows_done, rows_in, rows_out, quarantined_count, host, pid, version, error_class, error_text, log) \
             VALUES ($1, $2, $1, $3, 1, 'failed', $4, '2026-04-05T11:00:00.000000Z', '2026-04-05T11:00:00.000000Z', '2026-04-05T11:00:00.000000Z', \
             1, 0, 0, 0, 0, $3, 1, $3, $3, $4, $4)",
            &[name, job, name, text],
        )
        .await;
        execute("UPDATE job_window SET state = 'failed', due_reason = $1, error_text = $2 WHERE job = 'usage_daily'", &[name, text]).await;
    }
    (fixture, names)
}

async fn hostile_rows_stay_text(engine: Engine) {
    let (fixture, names) = filled(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    for path in PAGES.into_iter().chain([
        "/runs?failed=1",
        "/usage?by=month",
        "/seats?page=1",
        "/api/jobs",
        "/api/runs",
        "/api/usage",
        "/api/usage/dashboard",
        "/api/seats",
    ]) {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        check(path, &answer);
    }
    assert!(site.get("/usage").await.text().contains("&lt;script&gt;"));
    let mut shown = 0;
    for (number, name) in names.iter().enumerate() {
        let id = encoded(name);
        // No query holds a NUL.
        let asked = encoded(&name.replace('\0', ""));
        for path in [
            format!("/runs/{id}"),
            format!("/seats/{id}"),
            format!("/seats/{id}?type={}", if name.contains('\0') { "total" } else { &asked }),
            format!("/api/runs/{id}"),
            format!("/api/seats/{id}"),
            format!("/api/seats/{id}?format=parquet"),
            format!("/usage?q={asked}"),
            format!("/api/users/00000000-0000-4000-8000-{number:012}/usage"),
            format!("/api/user/dashboard?user=00000000-0000-4000-8000-{number:012}"),
        ] {
            let answer = site.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            check(&path, &answer);
            shown += 1;
        }
        let csv = site.get(&format!("/api/seats/{id}?format=csv")).await;
        check("csv", &csv);
        let disposition = csv.header("content-disposition");
        let file = disposition.strip_prefix("attachment; filename=\"peak_seats-").unwrap().strip_suffix(".csv\"").unwrap();
        assert!(file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{disposition}");
        for record in csv::Reader::from_reader(&csv.body[..]).records() {
            for cell in &record.unwrap() {
                assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{cell}");
            }
        }
    }
    assert_eq!(shown, names.len() * 9);
}

async fn hostile_requests_stay_text(engine: Engine) {
    let (fixture, names) = filled(engine).await;
    let owner = Site::new(&fixture, TOKEN, NOW).await;
    let browser = owner.log_in().await;
    let csrf = csrf_of(&browser.get("/").await.text());
    let mut sent: Vec<String> = names.iter().map(|name| encoded(name)).collect();
    sent.extend(
        ["%00", "%FF%FE", "%", "%zz", "%2e%2e%2f", "%C0%AF", "0", "-1", "99999999999999999999", "NaN", "1e9", "NULL", "%25%5F"]
            .map(str::to_owned),
    );
    sent.push("A".repeat(1_500));
    sent.push(encoded(&"é".repeat(5_000)));
    sent.push("A".repeat(1_000_000));
    for value in &sent {
        for path in [
            format!("/runs?job={value}&failed={value}&before={value}"),
            format!("/runs?before=2026-01-01T00:00:00Z,{value}"),
            format!("/runs/{value}?started={value}"),
            format!("/runs/x?started={value}"),
            format!("/jobs/{value}/run"),
            format!("/usage?q={value}"),
            format!("/usage?from={value}"),
            format!("/usage?to={value}&by={value}"),
            format!("/seats?q={value}"),
            format!("/seats?page={value}"),
            format!("/seats/{value}?type={value}"),
            format!("/seats/a?months={value}"),
            format!("/login?next={value}"),
            format!("/{value}"),
            format!("/?{value}={value}"),
            format!("/api/{value}"),
            format!("/api/runs?job={value}&before={value}"),
            format!("/api/runs/{value}"),
            format!("/api/usage?from={value}&to={value}&by={value}&q={value}"),
            format!("/api/usage/dashboard?days={value}"),
            format!("/api/users/{value}/usage?days={value}"),
            format!("/api/user/dashboard?user={value}"),
            format!("/api/seats?q={value}&page={value}"),
            format!("/api/seats/{value}?format={value}"),
        ] {
            // The client itself refuses what is no address, and an address of a megabyte; the server one of 32 KiB.
            if reqwest::Url::parse(&format!("{}{path}", owner.url)).is_err() || path.len() > 30_000 {
                continue;
            }
            let answer = browser.get(&path).await;
            assert!([200, 303, 400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            check(&path, &answer);
            // Who is not logged in is shown nothing but the way in.
            let stranger = owner.with(&[]).get(&path).await;
            assert!([200, 303, 400, 401, 404].contains(&stranger.status), "{path}: {}", stranger.status);
            check(&path, &stranger);
            if stranger.status == 200 {
                assert!(path.starts_with("/login"), "{path}");
            }
        }
        let form = "application/x-www-form-urlencoded";
        for (path, kind, body) in [
            (format!("/jobs/{value}/run"), form, format!("csrf={csrf}")),
            ("/jobs/usage_daily/run".to_owned(), form, format!("csrf={value}&downstream={value}")),
            ("/login".to_owned(), form, format!("token={TOKEN}&next={value}")),
            ("/login".to_owned(), form, format!("token={TOKEN}&next=/{value}")),
            ("/api/jobs/usage_daily/run".to_owned(), "application/json", value.clone()),
            ("/api/user/dashboard".to_owned(), "application/json", value.clone()),
        ] {
            if path.len() > 30_000 || reqwest::Url::parse(&format!("{}{path}", owner.url)).is_err() {
                continue;
            }
            let answer =
                if path.starts_with("/api") { owner.post(&path, kind, &body).await } else { browser.post(&path, kind, &body).await };
            assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
            check(&path, &answer);
            let location = answer.header("location");
            assert!(location.is_empty() || (location.starts_with('/') && !location.starts_with("//")), "{path}: {location}");
        }
    }
    let large = owner.post("/api/jobs/usage_daily/run", "application/json", &"x".repeat(3_000_000)).await;
    assert_eq!((large.status, large.header("content-type")), (413, "application/json"));
    assert!(owner.started.lock().unwrap().iter().all(|(job, _)| job == "usage_daily"), "{:?}", owner.started.lock().unwrap());
    // The tables are all there.
    assert_eq!(fixture.number("SELECT COUNT(*) FROM users").await, i64::try_from(names.len()).unwrap());
}
