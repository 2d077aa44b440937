//! A database that has the seeds' tables, filled, upgrades in place.

use crate::sql_functions::ROLES;
use crate::support::{Engine, Finished, Fixture};

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

/// A database that the release before filled, with roles: its results and state move, whole and as they are.
#[tokio::test(flavor = "multi_thread")]
async fn results_move_into_a_schema_of_their_own() {
    let fixture = Fixture::of_before(20_261_122_000_007).await;
    let public = |relation: &str| format!("SELECT CAST(pg_relation_filenode('{relation}') AS TEXT), (SELECT COUNT(*) FROM {relation})");
    for sql in [
        "CREATE ROLE own_schema_before",
        "GRANT SELECT ON usage_daily_total TO own_schema_before",
        "INSERT INTO usage_daily_total SELECT DATE '2026-01-01' + n, 1, 1, 0, 0, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 0, 0, 0, now(), now(), 1, 1 \
         FROM generate_series(0, 99) AS n",
        "INSERT INTO ai_usage_log (user_id, created_at) VALUES (gen_random_uuid(), '2026-01-05T12:00:00Z')",
        "SELECT upsert_seat_assignment(4, '{1}', '{base}')",
    ] {
        fixture.execute(sql).await;
    }
    let before = [fixture.rows(&public("usage_daily_total")).await, fixture.rows(&public("seat_org")).await];
    assert_eq!(fixture.run(&["run-job", "usage_daily"]).code, Some(78));
    fixture.run_well(&["migrate"]);
    let moved = [fixture.rows(&public("tallyroll.usage_daily_total")).await, fixture.rows(&public("tallyroll.seat_org")).await];
    assert_eq!(before, moved, "a table was rewritten, or lost rows");
    assert_eq!(
        fixture.rows("SELECT has_table_privilege('own_schema_before', 'tallyroll.usage_daily_total', 'SELECT')").await,
        ["1"],
        "rights go along"
    );
    // What is left are the tables that applications know, their functions and their view.
    let left = "SELECT relname::TEXT FROM pg_class WHERE relnamespace = 'public'::REGNAMESPACE AND relkind IN ('r', 'v') ORDER BY 1";
    let known = [
        "ai_seat_state",
        "ai_usage_log",
        "ai_usage_summary",
        "chat_requests",
        "request_analytics",
        "seat_usage_event",
        "subscription",
        "subscription_seat_assignments",
        "tallyroll_migration",
        "usage_event",
        "user_dashboard_data",
        "user_plans",
        "users",
    ];
    assert_eq!(fixture.rows(left).await, known);
    assert_eq!(Fixture::new(Engine::Postgres).await.rows(left).await, known);
    assert!(
        fixture.rows("SELECT obj_description('ai_usage_log'::REGCLASS)").await[0].contains("actual logged-in user"),
        "the seed's comments"
    );
    let foreign = "SELECT COUNT(*) FROM pg_proc WHERE pronamespace = 'public'::REGNAMESPACE AND proname LIKE 'tallyroll%'";
    assert_eq!(fixture.number(foreign).await, 0);
    // Old triggers mark what they find, and what is due is found.
    fixture.run_well(&["run-job", "usage_daily", "--as-of", "2026-04-15"]);
    fixture.execute("UPDATE ai_usage_log SET input_tokens = 9").await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_dirty_day").await, 1);
    assert_eq!(fixture.written(&["run-job", "usage_daily", "--as-of", "2026-04-15"]), ["usage_daily 2026-01-05"]);
    for sql in ["DROP OWNED BY own_schema_before", "DROP ROLE own_schema_before"] {
        fixture.execute(sql).await;
    }
}

/// The application's tables are where the history of migrations is, wherever a later session may look, and whatever the schema is called.
#[tokio::test(flavor = "multi_thread")]
async fn the_applications_schema_is_kept_under_another_search_path() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = Fixture::empty(Engine::Postgres).await;
    for sql in ["CREATE SCHEMA customer_app", "CREATE SCHEMA elsewhere"] {
        fixture.execute(sql).await;
    }
    let under = |path: &str, arguments: &[&str]| {
        let mut command = fixture.command(arguments);
        command.env("DATABASE_URL", format!("{}&options[search_path]={path}", fixture.url));
        Finished::of(&command.output().unwrap())
    };
    assert_eq!(under("customer_app", &["migrate"]).code, Some(0));
    for arguments in [&["migrate"][..], &["run-job", "usage_daily", "--downstream"], &["check"], &["migrate", "--roles"]] {
        let ran = under("elsewhere", arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?} {ran:?}");
    }
    let schemas = "SELECT nspname::TEXT, COUNT(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
         WHERE nspname IN ('customer_app', 'elsewhere', 'public') AND relkind IN ('r', 'v') GROUP BY 1";
    assert_eq!(fixture.rows(schemas).await, ["customer_app|13"]);
    fixture.execute("ALTER SCHEMA customer_app RENAME TO renamed").await;
    assert_eq!(under("elsewhere", &["migrate"]).code, Some(0));
    assert_eq!(under("elsewhere", &["run-job", "usage_daily"]).code, Some(0));
    // Two histories of the same owner: neither is taken.
    fixture.execute("CREATE TABLE elsewhere.tallyroll_migration (LIKE renamed.tallyroll_migration INCLUDING ALL)").await;
    fixture.execute("ALTER TABLE elsewhere.tallyroll_migration OWNER TO tallyroll_migrator").await;
    let lost = under("elsewhere", &["migrate"]);
    assert_eq!(lost.code, Some(78), "{lost:?}");
    assert!(lost.stderr.contains("tallyroll_migration"), "{lost:?}");
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
