//! `/seats`: the list, a subscription's months and ledger, and its files.

use serde_json::json;
use tallyroll::snapshot::{parquet_file, peak_row};

use super::{NOW, filled};
use crate::on_both_databases;
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_subscription_shows_its_months_and_ledger,
    its_files_are_those_of_finance,
    many_subscriptions_go_page_by_page,
    a_long_ledger_is_drawn_in_few_steps,
    what_is_not_known_reads_as_unknown,
    who_uses_ai_seats_is_listed_by_last_use,
);

async fn a_subscription_shows_its_months_and_ledger(engine: Engine) {
    let fixture = filled(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let list = site.get("/api/seats").await.json();
    let line = &list["subscriptions"][0];
    assert_eq!((&line["subscription_id"], &line["org_id"], &line["committed_seats"]), (&json!("a"), &json!("org-1"), &json!(10)));
    assert_eq!(line["latest_month"], json!({ "month_number": 4, "peak_seats": 12, "coverage": "complete", "state": "open" }));
    assert_eq!(list["next_page"], json!(null));
    for (search, found) in [("ORG-2", "c"), ("b", "b"), ("Team", "a"), ("nobody", "")] {
        let list = site.get(&format!("/api/seats?q={search}")).await.json();
        assert_eq!(list["subscriptions"][0]["subscription_id"].as_str().unwrap_or_default(), found, "{search}");
    }
    let page = site.get("/seats/a").await.text();
    // Month 2 held 14 from its sixth day on; 10 were committed.
    for part in [
        "2026-01-20 10:00:00",
        "<td class=\"number\">14</td>",
        "<td class=\"number\">4</td>",
        "complete: the ledger begins",
        "sealed",
        "Chart of 12 months",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert_eq!(page.matches("class=\"peak\"").count(), 4);
    assert_eq!(page.matches("class=\"month\"").count(), 4);
    assert!(page.contains("<title>Month 2: peak 14 at 2026-01-20 10:00:00 UTC</title>"), "{page}");
    assert!(page.contains("class=\"step\" d=\"M") && page.contains("class=\"level\""), "{page}");
    assert_eq!(site.get("/seats/a?months=1").await.text().matches("class=\"month\"").count(), 1);
    for (path, status) in [
        ("/seats/nobody", 404),
        ("/seats/a?type=ai", 404),
        ("/seats/a?months=0", 400),
        ("/seats?page=0", 400),
        ("/seats?page=99", 200),
        ("/api/seats/a?format=xml", 400),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
}

async fn its_files_are_those_of_finance(engine: Engine) {
    let fixture = filled(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    // The report is what the command prints.
    let report = site.get("/api/seats/b").await.json();
    let command = fixture.run_well(&["report", "seats", "--subscription", "b", "--format", "json", "--as-of", NOW]);
    assert_eq!(report, serde_json::from_str::<serde_json::Value>(&command).unwrap());
    assert_eq!(report["months"][0]["peakProvisioned"], 14);

    let parquet = site.get("/api/seats/b?format=parquet").await;
    assert_eq!(parquet.header("content-disposition"), "attachment; filename=\"peak_seats-b.parquet\"");
    let rows = peak_row::read::rows(&parquet_file::read(parquet.body.clone().into()).unwrap().batches).unwrap();
    let published: Vec<_> = fixture.current().into_iter().filter(|row| row.subscription_id == "b").collect();
    assert!(!published.is_empty());
    assert_eq!(rows, published);
    let csv = site.get("/api/seats/b?format=csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert!(csv.text().starts_with("billing_month,subscription_id,org_id,"), "{}", csv.text());
    assert_eq!(csv.text().lines().count(), published.len() + 1);
}

async fn many_subscriptions_go_page_by_page(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let rows: Vec<String> = (0..120).map(|number| format!("('s-{number:04}', 'org', '2026-01-01T00:00:00.000000Z')")).collect();
    fixture.execute(&format!("INSERT INTO subscription (id, org_id, start_at) VALUES {}", rows.join(", "))).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let (mut seen, mut page) = (Vec::new(), json!(1));
    while let Some(number) = page.as_u64() {
        let list = site.get(&format!("/api/seats?q=org&page={number}")).await.json();
        seen.extend(list["subscriptions"].as_array().unwrap().iter().map(|line| line["subscription_id"].as_str().unwrap().to_owned()));
        page = list["next_page"].clone();
    }
    assert_eq!(seen, (0..120).map(|number| format!("s-{number:04}")).collect::<Vec<_>>());
    let text = site.get("/seats?q=org&page=2").await.text();
    assert!(
        text.contains("/seats?q=org&amp;page=1") && text.contains("/seats?q=org&amp;page=3") && text.contains("not written yet"),
        "{text}"
    );
}

async fn a_long_ledger_is_drawn_in_few_steps(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.subscribe("s", "org-1", "2026-01-01T00:00:00.000000Z", 10).await;
    let series = match engine {
        Engine::Postgres => {
            "SELECT n, 'org-1', 100 + n % 17, TIMESTAMPTZ '2026-01-01' + n * INTERVAL '1 minute' FROM generate_series(1, 30000) AS n"
        }
        Engine::Sqlite => {
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 30000) \
             SELECT n, 'org-1', 100 + n % 17, strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', '+' || n || ' minutes') || '.000000Z' FROM s"
        }
    };
    fixture.execute(&format!("INSERT INTO seat_usage_event (id, org_id, seats, occurred_at) {series}")).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let started = std::time::Instant::now();
    let page = site.get("/seats/s").await.text();
    println!("{engine:?}: a ledger of 30,000 rows in {:?}, {} bytes", started.elapsed(), page.len());
    assert!(page.contains("Only the latest 20,000 rows are drawn") && page.contains("None is written yet"), "{page}");
    let path = page.split("class=\"step\" d=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(path.matches('H').count() <= 1_001, "{}", path.len());
}

async fn what_is_not_known_reads_as_unknown(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // The ledger begins in the second month; another subscription has not begun; a third's org has no ledger.
    fixture.subscribe("early", "org-1", "2026-01-01T00:00:00.000000Z", 1).await;
    fixture.subscribe("later", "org-1", "2026-09-01T00:00:00.000000Z", 1).await;
    fixture.subscribe("bare", "org-9", "2026-03-01T00:00:00.000000Z", 1).await;
    fixture.seats(1, "org-1", "2026-02-10T00:00:00.000000Z", 3).await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let page = site.get("/seats/early").await.text();
    assert!(page.contains("<td class=\"number\">unknown</td>") && page.contains("the ledger begins after the month"), "{page}");
    assert!(page.contains("partial: the ledger begins inside"), "{page}");
    assert!(site.get("/seats/later").await.text().contains("It has not begun"));
    let bare = site.get("/seats/bare").await.text();
    assert!(bare.contains("has no row of this type") && bare.contains("unknown"), "{bare}");
    assert!(site.get("/seats").await.text().contains("unknown"));
    assert_eq!(site.get("/api/seats/later?format=csv").await.text().lines().count(), 1);
    assert_eq!(site.get("/api/seats/later").await.json()["months"], json!([]));
}

async fn who_uses_ai_seats_is_listed_by_last_use(engine: Engine) {
    let fixture = filled(engine).await;
    fixture.execute("INSERT INTO users (id, email) VALUES ('00000000-0000-4000-8000-000000000007', 'seven@x')").await;
    for number in 1..=60 {
        let org = if number % 2 == 0 { "'42'" } else { "NULL" };
        fixture
            .execute(&format!(
                "INSERT INTO ai_seat_state (user_id, org_id, first_used_at, last_used_at, last_event_type, last_event_description, updated_at) \
                 VALUES ('00000000-0000-4000-8000-{number:012}', {org}, '2026-01-01T00:00:00.000000Z', '2026-03-05T11:00:{:02}.000000Z', \
                     'task', 'Task {number}', '2026-03-05T12:00:00.000000Z')",
                number - 1
            ))
            .await;
    }
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let first = site.get("/api/seats/ai/users").await.json();
    let numbers = |page: &serde_json::Value| -> Vec<u64> {
        let last = |seat: &serde_json::Value| seat["user_id"].as_str().unwrap()[24..].parse().unwrap();
        page["seats"].as_array().unwrap().iter().map(last).collect()
    };
    assert_eq!((numbers(&first), &first["next_page"]), ((11..=60).rev().collect(), &json!(2)));
    let second = site.get("/api/seats/ai/users?page=2").await.json();
    assert_eq!((numbers(&second), &second["next_page"]), ((1..=10).rev().collect(), &json!(null)));
    assert_eq!(
        second["seats"][3],
        json!({
            "user_id": "00000000-0000-4000-8000-000000000007", "email": "seven@x", "org_id": null, "first_used_at": "2026-01-01T00:00:00Z",
            "last_used_at": "2026-03-05T11:00:06Z", "last_event_type": "task", "last_event_description": "Task 7"
        })
    );
    let org = site.get("/api/seats/ai/users?org=42").await.json();
    assert_eq!(numbers(&org), (1..=30).rev().map(|number| number * 2).collect::<Vec<_>>());
    let page = site.get("/seats/ai/users?page=2").await.text();
    for part in ["seven@x", "2026-03-05 11:00:06", "<td class=\"number\">31</td>", "Task 7"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(site.get("/seats/ai/users?org=nobody").await.text().contains("Nobody has an AI seat."));
    let text = fixture.run_well(&["report", "ai-seats", "--limit", "5"]);
    assert!(text.contains("2026-03-05 11:00") && text.contains("The 5 used last"), "{text}");
    let lines = fixture.run_well(&["report", "ai-seats", "--org", "42", "--json"]);
    assert_eq!(lines.lines().count(), 30);
    assert!(lines.lines().next().unwrap().contains("\"last_event_description\":\"Task 60\""), "{lines}");
    assert!(fixture.run_well(&["report", "ai-seats", "--org", "nobody"]).contains("Nobody"));
    // A table of the seed's, whose type is an enum.
    if engine == Engine::Postgres {
        fixture.execute("CREATE TYPE ai_seat_usage_reason AS ENUM ('task')").await;
        fixture.execute("ALTER TABLE ai_seat_state ALTER COLUMN last_event_type TYPE ai_seat_usage_reason USING 'task'").await;
        assert_eq!(fixture.run_well(&["report", "ai-seats", "--json"]).lines().count(), 60);
    }
}
