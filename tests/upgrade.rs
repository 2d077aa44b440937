//! A database that has the seeds' tables, filled, upgrades in place.

use crate::support::{Engine, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_tables_upgrade_without_being_rewritten() {
    let fixture = Fixture::empty(Engine::Postgres).await;
    for statement in include_str!("fixtures/upgrade/seeds.sql").split(";\n").filter(|statement| !statement.trim().is_empty()) {
        fixture.execute(statement).await;
    }
    let files = "SELECT relname, CAST(pg_relation_filenode(oid) AS TEXT) FROM pg_class WHERE relname IN ('ai_usage_log', 'chat_requests', 'users') ORDER BY 1";
    let before = fixture.rows(files).await;
    fixture.run_well(&["migrate", "--dry-run"]);
    fixture.run_well(&["migrate"]);
    assert_eq!(before, fixture.rows(files).await, "a table was rewritten");
    assert!(fixture.run_well(&["migrate"]).contains("is up to date"));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log WHERE ingest_xid IS NULL").await, 1_000);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM pg_index WHERE NOT indisvalid").await, 0);

    // Rows from before are one backfill; existing writers need no change, and what they add is found.
    let run = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
    fixture.run_well(&run);
    let totals = "SELECT SUM(request_count), SUM(total_cost_nanos) FROM usage_daily WHERE source = 'ai_usage_log'";
    let raw = "SELECT COUNT(*), CAST(SUM(total_cost_usd) * 1000000000 AS BIGINT) FROM ai_usage_log";
    let text = |rows: Vec<String>| rows.join("").replace(".0", "");
    assert_eq!(
        text(
            fixture
                .rows(
                    &totals
                        .replace("SUM(request_count)", "CAST(SUM(request_count) AS BIGINT)")
                        .replace("SUM(total_cost_nanos)", "CAST(SUM(total_cost_nanos) AS BIGINT)")
                )
                .await
        ),
        text(fixture.rows(raw).await)
    );
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily WHERE source = 'chat_requests'").await, 1);
    fixture
        .execute("INSERT INTO ai_usage_log (user_id, input_tokens, created_at) VALUES (gen_random_uuid(), 5, '2026-01-01T12:00:00Z')")
        .await;
    assert!(fixture.written(&run).contains(&"usage_daily 2026-01-01".to_owned()));
    fixture.execute("UPDATE chat_requests SET cost = 99").await;
    assert!(fixture.written(&run).contains(&"usage_daily 2026-01-05".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_index_build_is_repeated() {
    let fixture = Fixture::new(Engine::Postgres).await;
    // What a killed CREATE INDEX CONCURRENTLY leaves, with the history's row half written or not written at all.
    for history in ["UPDATE tallyroll_migration SET success = FALSE", "DELETE FROM tallyroll_migration"] {
        fixture.execute("UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'idx_ai_usage_log_ingest_xid'::regclass").await;
        fixture.execute(&format!("{history} WHERE version = 20260301000002")).await;
        assert_eq!(fixture.run(&["run-job", "usage_daily"]).code, Some(78));
        fixture.run_well(&["migrate"]);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM pg_index WHERE NOT indisvalid").await, 0, "{history}");
        fixture.run_well(&["check"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_the_way_is_named_and_nothing_is_lost() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::empty(engine).await;
        fixture.execute("CREATE TABLE usage_daily (mine INTEGER)").await;
        fixture.execute("INSERT INTO usage_daily VALUES (1)").await;
        let failed = fixture.run(&["migrate"]);
        assert_eq!(failed.code, Some(78), "{failed:?}");
        assert!(failed.stderr.contains("usage_daily") && failed.stderr.contains("hint:"), "{}", failed.stderr);
        assert_eq!(fixture.number("SELECT mine FROM usage_daily").await, 1);
        fixture.execute("DROP TABLE usage_daily").await;
        fixture.run_well(&["migrate"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_left_alone() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await;
        fixture
            .execute(
                "INSERT INTO tallyroll_migration (version, description, success, checksum, execution_time) \
                 SELECT 99990101000000, 'from the future', success, checksum, 1 FROM tallyroll_migration ORDER BY version LIMIT 1",
            )
            .await;
        let failed = fixture.run(&["migrate"]);
        assert_eq!(failed.code, Some(78), "{failed:?}");
        assert!(failed.stderr.contains("migration 99990101000000"), "{}", failed.stderr);
    }
}
