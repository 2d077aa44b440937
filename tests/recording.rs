//! Recording seats: the functions of PostgreSQL, the views of SQLite, `record`, the baseline, and the append-only ledger.

use std::time::{Duration, Instant};

use tallyroll::store::Store;

use crate::on_both_databases;
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(
    assignments_record_what_changed,
    a_user_given_twice_has_what_it_was_given_last,
    the_first_ai_use_takes_a_seat,
    the_ledger_is_append_only,
    orgs_that_were_there_get_a_baseline,
    imports_go_in_once_and_leave_ids_free,
);

/// Type, count and reason, in order.
async fn ledger(fixture: &Fixture, org_id: &str) -> Vec<String> {
    fixture.rows(&format!("SELECT seat_type, seats, reason FROM seat_usage_event WHERE org_id = '{org_id}' ORDER BY occurred_at, id")).await
}

async fn assignments_record_what_changed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let assign = |users: &[&str], seat_type: &str| {
        let users: Vec<&str> = users.iter().flat_map(|user| ["--user", user]).collect();
        fixture.run_well(&[&["record", "assignment", "--namespace", "42", "--seat-type", seat_type][..], &users].concat())
    };
    assign(&["1", "2", "3"], "base");
    // All in one count: no two or one stand between.
    assert_eq!(ledger(&fixture, "42").await, ["base|3|seat_change", "total|3|seat_change"]);
    let before = fixture.rows("SELECT user_id, updated_at FROM subscription_seat_assignments ORDER BY 1").await;
    assert!(assign(&["1"], "base").contains("No count changed"));
    assert_eq!(fixture.rows("SELECT user_id, updated_at FROM subscription_seat_assignments ORDER BY 1").await, before);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assign(&["1"], "free");
    let after = fixture.rows("SELECT user_id, updated_at FROM subscription_seat_assignments ORDER BY 1").await;
    assert!(after[0] > before[0] && after[1..] == before[1..], "{before:?} {after:?}");
    assert_eq!(ledger(&fixture, "42").await[2..], ["base|2|seat_change", "free|1|seat_change"]);
    fixture.execute("DELETE FROM subscription_seat_assignments WHERE user_id = 1").await;
    fixture.run_well(&["record", "seat-change", "--org", "42", "--reason", "left"]);
    assert_eq!(ledger(&fixture, "42").await[4..], ["free|0|left", "total|2|left"]);
    let refused = fixture.run(&["record", "seat-change", "--org", "acme"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("no namespace_id"), "{}", refused.stderr);
}

async fn the_first_ai_use_takes_a_seat(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let used = |user: &str, org: &str| {
        let user = format!("00000000-0000-4000-8000-00000000000{user}");
        fixture.run_well(&["record", "ai-use", "--user", &user, "--org", org, "--event-type", "task", "--description", "d"])
    };
    used("1", "a");
    used("2", "a");
    assert!(used("1", "a").contains("No count changed"));
    used("3", "b");
    // A user has one AI seat, wherever it is used next.
    assert!(used("1", "b").contains("No count changed"));
    assert!(used("2", "c").contains("No count changed"));
    assert_eq!(ledger(&fixture, "a").await, ["ai|1|task", "ai|2|task"]);
    assert_eq!(ledger(&fixture, "b").await, ["ai|1|task"]);
    let states = "SELECT COUNT(*), SUM(CASE WHEN last_used_at > first_used_at THEN 1 ELSE 0 END) FROM ai_seat_state";
    assert_eq!(fixture.rows(states).await, ["3|2"]);
}

async fn a_user_given_twice_has_what_it_was_given_last(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    match engine {
        Engine::Postgres => {
            let ids = fixture.rows("SELECT upsert_seat_assignment(42, '{1,2,1}', '{base,base,free}')").await;
            assert_eq!(ids.len(), 2);
        }
        Engine::Sqlite => {
            fixture
                .execute("INSERT INTO upsert_seat_assignment (namespace_id, user_id, seat_type) VALUES (42, 1, 'base'), (42, 2, 'base'), (42, 1, 'free')")
                .await;
        }
    }
    let held = "SELECT user_id, seat_type FROM subscription_seat_assignments ORDER BY 1";
    assert_eq!(fixture.rows(held).await, ["1|free", "2|base"]);
    fixture.run_well(&["record", "seat-change", "--org", "42"]);
    assert_eq!(ledger(&fixture, "42").await, ["base|1|seat_change", "free|1|seat_change", "total|2|seat_change"]);
}

/// Without a key, and with an enumeration of the application's own for what the user did.
#[tokio::test]
async fn the_seeds_own_table_of_ai_seats_takes_uses() {
    let fixture = Fixture::empty(Engine::Postgres).await;
    for sql in [
        "CREATE TYPE ai_seat_usage_reason AS ENUM ('aibridge', 'task')",
        "CREATE TABLE ai_seat_state (
            user_id uuid NOT NULL,
            first_used_at timestamp with time zone NOT NULL,
            last_used_at timestamp with time zone NOT NULL,
            last_event_type ai_seat_usage_reason NOT NULL,
            last_event_description text NOT NULL,
            updated_at timestamp with time zone NOT NULL
        )",
    ] {
        fixture.execute(sql).await;
    }
    fixture.run_well(&["migrate"]);
    let used = |event_type: &str| {
        let user = "00000000-0000-4000-8000-000000000001";
        fixture.run(&["record", "ai-use", "--user", user, "--org", "a", "--event-type", event_type, "--description", "d"])
    };
    for event_type in ["task", "aibridge"] {
        let recorded = used(event_type);
        assert_eq!(recorded.code, Some(0), "{recorded:?}");
    }
    assert_eq!(fixture.rows("SELECT last_event_type::TEXT FROM ai_seat_state").await, ["aibridge"]);
    assert_eq!(ledger(&fixture, "a").await, ["ai|1|task"]);
    let unknown = used("chat");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("'chat'") && unknown.stderr.contains("'aibridge', 'task'"), "{}", unknown.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM seat_usage_event").await, 1);
    fixture.run_well(&["check"]);

    let twice = Fixture::of_before(20_261_122_000_007).await;
    twice.execute("ALTER TABLE ai_seat_state DROP CONSTRAINT ai_seat_state_pkey").await;
    twice.execute("INSERT INTO ai_seat_state SELECT gen_random_uuid(), now(), now(), 'task', '', now() FROM generate_series(1, 2)").await;
    twice.execute("UPDATE ai_seat_state SET user_id = '00000000-0000-4000-8000-000000000001'").await;
    let refused = twice.run(&["migrate"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("holds a user more than once"), "{}", refused.stderr);
}

async fn the_ledger_is_append_only(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.seats(1, "a", "2026-01-01T00:00:00.000000Z", 3).await;
    for sql in [
        "UPDATE seat_usage_event SET seats = 4",
        "DELETE FROM seat_usage_event",
        "INSERT INTO seat_usage_event (id, org_id, seats) VALUES (2, 'a', -1)",
        "INSERT INTO seat_usage_event (id, org_id, seats) VALUES (2, 'a', 1000000000000)",
        "INSERT INTO seat_usage_event (id, org_id, seats) VALUES (-1, 'a', 1)",
        "INSERT INTO seat_usage_event (id, org_id, seats) VALUES (9223372036854775807, 'a', 1)",
        match engine {
            Engine::Sqlite => "INSERT OR REPLACE INTO seat_usage_event (id, org_id, seats) VALUES (1, 'a', 9)",
            Engine::Postgres => "TRUNCATE seat_usage_event",
        },
    ] {
        assert!(fixture.store.execute(sql, &[]).await.is_err(), "{sql}");
    }
    assert_eq!(fixture.rows("SELECT id, seats FROM seat_usage_event").await, ["1|3"]);
}

async fn orgs_that_were_there_get_a_baseline(engine: Engine) {
    let fixture = match engine {
        Engine::Postgres => Fixture::of_before(20_260_301_000_008).await,
        Engine::Sqlite => Fixture::new(engine).await,
    };
    if engine == Engine::Sqlite {
        // As it was before seats were recorded: the migration is taken back, its tables keep their rows.
        for sql in [
            "DELETE FROM tallyroll_migration WHERE version = 20261122000001",
            "DROP VIEW record_seat_change",
            "DROP VIEW upsert_seat_assignment",
            "DROP VIEW record_ai_seat_usage",
            "DROP VIEW tallyroll_append_seats",
            "DROP TRIGGER tallyroll_ledger_insert",
            "DROP TRIGGER tallyroll_ledger_replace",
            "DROP TRIGGER tallyroll_ledger_update",
            "DROP TRIGGER tallyroll_ledger_delete",
            "DROP TABLE seat_org",
            "DROP INDEX idx_ai_seat_state_org",
            "ALTER TABLE ai_seat_state DROP COLUMN org_id",
            "DROP INDEX idx_seat_usage_event_ledger",
            "CREATE INDEX idx_seat_usage_event_org ON seat_usage_event (org_id)",
        ] {
            fixture.execute(sql).await;
        }
    }
    for (namespace, user, seat_type) in [(5, 1, "'base'"), (5, 2, "'free'"), (5, 3, "NULL"), (6, 1, "'base'"), (7, 1, "'base'")] {
        fixture
            .execute(&format!(
                "INSERT INTO subscription_seat_assignments (namespace_id, user_id, seat_type) VALUES ({namespace}, {user}, {seat_type})"
            ))
            .await;
    }
    fixture.seats(1_000, "7", "2026-01-01T00:00:00.000000Z", 9).await;
    fixture.run_well(&["migrate"]);
    assert_eq!(ledger(&fixture, "5").await, ["base|1|baseline", "free|1|baseline", "total|3|baseline"]);
    assert_eq!(ledger(&fixture, "6").await, ["base|1|baseline", "total|1|baseline"]);
    // An org that records already begins where it did.
    assert_eq!(ledger(&fixture, "7").await, ["total|9|NULL"]);
}

async fn imports_go_in_once_and_leave_ids_free(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "ledger.jsonl",
        concat!(
            r#"{"id": 500, "org_id": "42", "seats": 3, "occurred_at": "2026-01-01T00:00:00+01:00"}"#,
            "\n",
            r#"{"id": 501, "org_id": "42", "seats": 4, "occurred_at": "2026-01-02T00:00:00", "seat_type": "base", "reason": "r"}"#,
            "\n",
        ),
    );
    let first = fixture.run_well(&["import", "seats", "ledger.jsonl", "--json"]);
    assert!(first.contains("\"inserted_count\":2,\"known_count\":0"), "{first}");
    let again = fixture.run_well(&["import", "seats", "ledger.jsonl", "--json"]);
    assert!(again.contains("\"inserted_count\":0,\"known_count\":2"), "{again}");
    fixture.run_well(&["record", "assignment", "--namespace", "42", "--user", "1", "--seat-type", "base"]);
    assert_eq!(fixture.rows("SELECT id > 501, seats FROM seat_usage_event WHERE id NOT IN (500, 501) ORDER BY id").await, ["1|1", "1|1"]);

    fixture.write("subscriptions.csv", "id,org_id,plan,committed_seats,start_at,end_at\ns,42,team,5,2026-01-31,\ns,42,team,5,2026-01-31,\nt,42,team,5,2026-01-31,2026-01-30\nu,42,,-1,2026-01-31,\nv,42,,,2026-01-31,2027-01-31\n");
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    let report = fixture.run_well(&["import", "subscriptions", "subscriptions.csv"]);
    for text in ["stands twice in the file", "`end_at` is not after `start_at`", "not between 0 and"] {
        assert!(report.contains(text), "{report}");
    }
    fixture.write("subscriptions.csv", "id,org_id,committed_seats,start_at\ns,42,9,2026-01-31\n");
    fixture.run_well(&["import", "subscriptions", "subscriptions.csv"]);
    assert_eq!(
        // A column that the file lacks stays as it is.
        fixture.rows("SELECT id, plan, committed_seats, start_at, end_at FROM subscription ORDER BY id").await,
        ["s|team|9|2026-01-31T00:00:00.000000Z|NULL", "v|NULL|NULL|2026-01-31T00:00:00.000000Z|2027-01-31T00:00:00.000000Z"]
    );
    // Another row under an id that is taken would be lost: it is listed instead, on either database.
    fixture.write("taken.csv", concat!(
        "id,org_id,seats,occurred_at\n500,42,3,2026-01-01T00:00:00+01:00\n501,42,77,2026-01-02\n600,42,1,2026-01-03\n600,42,2,2026-01-03\n",
        "-1,42,1,2026-01-03\n9223372036854775807,42,1,2026-01-03\n601,42,1,0000-01-01T00:00:00Z\n602,42,-3,2026-01-03\n",
    ));
    let report = fixture.run_well(&["import", "seats", "taken.csv"]);
    for line in [3, 5, 6, 7, 8, 9] {
        assert!(report.contains(&format!("taken.csv, line {line}: ")), "{report}");
    }
    assert_eq!(
        fixture.rows("SELECT id, seats FROM seat_usage_event WHERE id IN (500, 501, 600) ORDER BY id").await,
        ["500|3", "501|4", "600|1"]
    );
    fixture.run_well(&["record", "assignment", "--namespace", "42", "--user", "2", "--seat-type", "base"]);

    let refused = fixture.run(&["import", "seats", "subscriptions.csv"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("No column of `subscriptions.csv` gives `seats`"), "{}", refused.stderr);
}

/// Sixteen connections change the memberships of one org; the ledger's largest count is the largest that ever was committed.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_never_skip_the_peak() {
    const CONNECTIONS: i64 = 16;
    let duration = Duration::from_secs(repetitions(1, 10).try_into().unwrap());
    for round in 0..repetitions(2, 20) {
        let fixture = Fixture::new(Engine::Postgres).await;
        fixture.write("tallyroll.toml", "[engine]\nwindows_at_once = 8\n");
        // What was committed, in the order of commits: a row of this table is written under the org's lock, after the change.
        fixture
            .execute("CREATE TABLE seen (at_xid XID8 DEFAULT pg_current_xact_id(), seq BIGINT GENERATED ALWAYS AS IDENTITY, change BIGINT)")
            .await;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..CONNECTIONS {
            let store = own_store(&fixture).await;
            workers.spawn(async move {
                let end = Instant::now() + duration;
                let mut step = 0_i64;
                while Instant::now() < end {
                    step += 1;
                    let user = worker * 1_000 + step % 5;
                    let adds = (step * 7 + worker) % 3 != 0;
                    let mut tx = store.begin().await.unwrap();
                    let sql = if adds {
                        "SELECT upsert_seat_assignment(42, ARRAY[$1::BIGINT], ARRAY['base'])"
                    } else {
                        "SELECT remove_seat_assignment(42, ARRAY[$1::BIGINT])"
                    };
                    tx.execute(sql, &[user.into()]).await.unwrap();
                    // Under the lock, which is held to the commit: sequence values are in the order of commits.
                    let count = "INSERT INTO seen (change) SELECT COUNT(*) FROM subscription_seat_assignments WHERE namespace_id = 42";
                    tx.execute(count, &[]).await.unwrap();
                    if (step + worker) % 11 == 0 {
                        drop(tx);
                    } else {
                        tx.commit().await.unwrap();
                    }
                }
                store.close().await;
                step
            });
        }
        let mut steps = 0;
        while let Some(done) = workers.join_next().await {
            steps += done.unwrap();
        }
        let true_counts = fixture.rows("SELECT change FROM seen ORDER BY seq").await;
        let ledger = fixture.rows("SELECT seats FROM seat_usage_event WHERE seat_type = 'total' ORDER BY occurred_at, id").await;
        // Not only the largest: the whole course of the ledger is that of the commits, each change once.
        let mut course = true_counts.clone();
        course.dedup();
        assert_eq!(ledger, course, "round {round}");
        let in_time = fixture.rows("SELECT seats FROM seat_usage_event WHERE seat_type = 'total' ORDER BY id").await;
        assert_eq!(in_time, ledger, "round {round}: ids and instants disagree");
        let peak = ledger.iter().map(|seats| seats.parse::<i64>().unwrap()).max().unwrap();
        println!("round {round}: {steps} changes, {} ledger rows, peak {peak}", ledger.len());
        assert!(peak > CONNECTIONS, "too few changes met");
    }
}

/// A connection that waits for no other's.
async fn own_store(fixture: &Fixture) -> Store {
    let project = tallyroll::project::Project::new(fixture.path());
    Store::open(&project, &fixture.config(), tallyroll::store::Create::Never).await.unwrap()
}

/// A transaction that saw the org before another change was committed must not count what it saw.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_snapshot_fails_instead_of_counting() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let mut stale = fixture.store.begin_snapshot().await.unwrap();
    stale.query("SELECT COUNT(*) FROM subscription_seat_assignments", &[]).await.unwrap();
    fixture.execute("SELECT upsert_seat_assignment(42, ARRAY[1::BIGINT], ARRAY['base'])").await;
    let refused = stale.execute("SELECT upsert_seat_assignment(42, ARRAY[2::BIGINT], ARRAY['base'])", &[]).await.unwrap_err();
    assert_eq!(tallyroll::failure::exit_code(&refused), 75, "{refused:#}");
}
