//! `/usage`: its numbers, its spans, its search.

use super::{NOW, filled};
use crate::on_both_databases;
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture};

on_both_databases!(usage_adds_up_over_any_span, a_span_that_cannot_be_is_explained);

async fn usage_adds_up_over_any_span(engine: Engine) {
    let fixture = filled(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    // The last 30 days: all four requests, 100 and 10 tokens each at 3 and 15 USD for a million.
    let usage = site.get("/api/usage").await.json();
    assert_eq!((&usage["from"], &usage["to"], &usage["by"]), (&"2026-03-07".into(), &"2026-04-05".into(), &"day".into()));
    assert_eq!(usage["totals"]["request_count"], 4);
    assert_eq!(usage["totals"]["avg_latency_ms"], 250);
    assert_eq!(usage["periods"].as_array().unwrap().len(), 30);
    assert_eq!(usage["users"][0]["label"], "ann@x");
    let names: Vec<_> = usage["customers"].as_array().unwrap().iter().map(|line| (line["id"].clone(), line["label"].clone())).collect();
    assert!(names.contains(&("7".into(), "Seven & Sons".into())) && names.contains(&(serde_json::Value::Null, serde_json::Value::Null)));
    // A cost has all its digits.
    assert!(site.get("/api/usage").await.text().contains("\"total_cost_usd\":0.001800000"));

    for (query, requests) in [
        ("from=2026-03-10&to=2026-04-04", 2),
        ("from=2026-03-09&to=2026-03-09", 1),
        ("from=2026-03-11&to=2026-04-03", 0),
        ("from=2020-01-01&to=2026-04-05", 4),
        ("from=2026-04-01", 2),
        ("to=2026-03-31", 2),
        ("from=2027-01-01", 0),
    ] {
        let usage = site.get(&format!("/api/usage?{query}")).await.json();
        assert_eq!(usage["totals"]["request_count"], requests, "{query}");
        for list in ["users", "customers", "periods", "request_types"] {
            let sum: i64 = usage[list].as_array().unwrap().iter().map(|line| line["request_count"].as_i64().unwrap()).sum();
            assert_eq!(sum, requests, "{list} of {query}");
        }
    }
    for (search, users, customers) in
        [("ANN", 1, 0), ("seven", 0, 1), ("8", 0, 1), ("00000000-0000-4000-8000-000000000002", 1, 0), ("%25", 0, 0)]
    {
        let usage = site.get(&format!("/api/usage?q={search}")).await.json();
        let counts = ["users", "customers"].map(|list| usage[list].as_array().unwrap().len());
        assert_eq!(counts, [users, customers], "{search}");
    }
    for (query, by, periods) in [
        ("from=2026-01-01", "week", 14),
        ("from=2023-01-01", "month", 40),
        ("from=2024-01-01&by=day", "week", 118),
        ("by=month", "month", 2),
    ] {
        let usage = site.get(&format!("/api/usage?to=2026-04-05&{query}")).await.json();
        assert_eq!((usage["by"].as_str(), usage["periods"].as_array().unwrap().len()), (Some(by), periods), "{query}");
    }
    let page = site.get("/usage").await.text();
    assert!(page.contains("Seven &amp; Sons") && page.contains("ann@x") && page.contains("no customer"), "{page}");
    assert_eq!(page.matches("<svg role=\"img\" aria-label=\"").count(), 2, "{page}");
    assert_eq!(page.matches("class=\"bar\"").count(), 60);
    assert!(page.contains("<title>2026-03-09: $0.0004"), "{page}");
}

async fn a_span_that_cannot_be_is_explained(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    for (query, why) in [
        ("from=yesterday", "`from` is no day"),
        ("to=2026-02-30", "`to` is no day"),
        ("from=2026-03-02&to=2026-03-01", "is after"),
        ("from=2000-01-01&to=2026-03-01", "are 9557 days"),
        ("from=%2B12026-01-01", "is no day"),
        ("from=0000-01-01", "is no day"),
        ("from=9999-12-31", "is no day"),
        ("by=hour", "`by` is `hour`"),
        ("q=%00", "NUL"),
    ] {
        let (page, json) = (site.get(&format!("/usage?{query}")).await, site.get(&format!("/api/usage?{query}")).await);
        assert_eq!((page.status, json.status), (400, 400), "{query}");
        assert!(page.text().contains(why), "{query}: {}", page.text());
        assert!(json.json()["error"]["message"].as_str().unwrap().contains(why), "{query}: {}", json.text());
    }
    // The ends of the calendar are days like others.
    for query in ["from=9998-12-31&to=9998-12-31", "to=0001-01-01", "from=9998-12-01"] {
        assert_eq!(site.get(&format!("/usage?{query}")).await.status, 200, "{query}");
    }
}
