//! Golden cases: the same rows on both databases, in three session time zones and three reporting time zones, and the same
//! again when the job runs twice.

use crate::support::{Engine, Fixture};

/// Each database, in each session time zone that an application or a server may have set.
async fn fixtures() -> Vec<(String, Fixture)> {
    let mut fixtures = vec![("SQLite".to_owned(), Fixture::new(Engine::Sqlite).await)];
    for session_zone in ["UTC", "America/Los_Angeles", "Asia/Kolkata"] {
        let fixture = Fixture::new(Engine::Postgres).await;
        let database = fixture.rows("SELECT current_database()").await[0].clone();
        fixture.execute(&format!("ALTER DATABASE {database} SET timezone = '{session_zone}'")).await;
        fixtures.push((format!("PostgreSQL, sessions in {session_zone}"), fixture));
    }
    fixtures
}

/// Fills a new project with the log of the golden cases.
pub async fn load(fixture: &Fixture, timezone: &str) {
    fixture.write("tallyroll.toml", &format!("[reporting]\ntimezone = \"{timezone}\"\n[quarantine]\nmax_ratio = 0.5\n"));
    fixture.write("prices.toml", include_str!("fixtures/usage_daily/prices.toml"));
    for statement in include_str!("fixtures/usage_daily/log.sql").split(";\n").filter(|statement| !statement.trim().is_empty()) {
        fixture.execute(statement).await;
    }
    for line in include_str!("fixtures/usage_daily/logged_costs.txt").lines() {
        let (id, usd) = line.split_once(' ').unwrap();
        let nanos = tallyroll::money::parse_usd_nanos(usd).unwrap();
        let set = fixture.store.pick(format!("logged_cost_usd = {usd}"), format!("logged_cost_nanos = {nanos}"));
        assert_eq!(fixture.execute(&format!("UPDATE ai_usage_log SET {set} WHERE id = '{id}'")).await, 1);
    }
}

async fn check(timezone: &str, expected_path: &str) {
    for (name, fixture) in fixtures().await {
        load(&fixture, timezone).await;
        let run = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-01T00:00:00Z"];
        fixture.run_well(&run);
        let results = fixture.results().await;
        fixture.run_well(&[&run[..], &["--force"]].concat());
        assert_eq!(results, fixture.results().await, "{name}: a second run changed rows");

        let path = format!("{}/tests/fixtures/usage_daily/{expected_path}", env!("CARGO_MANIFEST_DIR"));
        let actual = results.join("\n") + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() && name == "SQLite" {
            std::fs::write(&path, &actual).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        for (line, (actual, expected)) in actual.lines().zip(expected.lines()).enumerate() {
            assert_eq!(actual, expected, "{name}, {timezone}, line {}", line + 1);
        }
        assert_eq!(actual.lines().count(), expected.lines().count(), "{name}, {timezone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_utc() {
    check("UTC", "expected_utc.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_new_york_across_both_clock_changes() {
    check("America/New_York", "expected_new_york.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_kathmandu() {
    check("Asia/Kathmandu", "expected_kathmandu.txt").await;
}
