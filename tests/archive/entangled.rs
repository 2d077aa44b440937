//! A row that more than its own event is made from is not deleted: another day's event, another source, a job or a bill would change with it.

use super::{COUNT, raw_rows};
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    tables_that_are_read_whole_stay,
    rows_that_others_read_stay,
    rows_of_two_events_stay,
    what_could_not_come_back_stays,
    an_identity_comes_back
);

const ARCHIVE: [&str; 3] = ["archive", "--as-of", "2026-07-15T00:00:00Z"];

/// Calls of a table of the application's: of one user's session on two days.
async fn with_calls(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    let (instant, id) = fixture.store.pick(("TIMESTAMPTZ", "GENERATED ALWAYS AS IDENTITY"), ("TEXT", "DEFAULT 0"));
    fixture
        .execute(&format!("CREATE TABLE calls (id TEXT PRIMARY KEY, at {instant}, ended_at {instant}, sid TEXT, number BIGINT {id})"))
        .await;
    fixture.execute("CREATE TABLE sess (sid TEXT PRIMARY KEY, cust TEXT)").await;
    fixture.execute("INSERT INTO sess VALUES ('s1', 'c1'), ('s2', 'c2')").await;
    for (id, at, ended_at, sid) in [
        ("a1", "2026-03-10T10:00", "2026-03-10T11:00", "s1"),
        ("a2", "2026-03-10T23:59", "2026-03-11T02:00", "s2"),
        ("a3", "2026-03-11T00:00", "2026-03-11T00:05", "s1"),
    ] {
        fixture
            .execute(&format!(
                "INSERT INTO calls (id, at, ended_at, sid) VALUES ('{id}', '{at}:00.000000Z', '{ended_at}:00.000000Z', '{sid}')"
            ))
            .await;
    }
    fixture.write("tallyroll.toml", "[archive]\ndelete = true\n[usage]\nchange_tracking = \"lookback\"\nsources = [\"ai_usage_log\", \"chat_requests\", \"usage_event\", \"calls\"]\n");
    fixture
}

/// A source whose events have this id, instant and customer, of these rows.
fn source(fixture: &Fixture, name: &str, events: &[(&str, &str, &str, &str)], archive: &str) {
    let (text, number) = ("CAST(NULL AS TEXT)", "CAST(NULL AS BIGINT)");
    let event = |(id, at, customer, from): &(&str, &str, &str, &str)| {
        format!(
            "SELECT {id} AS event_id, {at} AS occurred_at, 'u' AS user_id, {text} AS user_email, {customer} AS customer_id, {text} AS customer_name, \
             'r' AS request_type, {text} AS category, 'm' AS model, 5 AS input_tokens, 5 AS output_tokens, {number} AS total_tokens, \
             {number} AS input_cost_nanos, {number} AS output_cost_nanos, {number} AS total_cost_nanos, {number} AS latency_ms, 'success' AS status, \
             {number} AS rating, {number} AS tool_turns FROM {from} {} {at} >= :window_start AND {at} < :window_end",
            if from.contains(" WHERE ") { "AND" } else { "WHERE" }
        )
    };
    let (_, at, _, from) = events[0];
    let changed = fixture.store.pick(
        "SELECT to_timestamp(0) AS slot_start, '' AS reason WHERE CAST(:seen AS TEXT) IS NULL",
        "SELECT '' AS slot_start, '' AS reason WHERE :seen IS NULL",
    );
    fixture.write(
        &format!("sql/sources/{name}.{}.sql", fixture.store.engine()),
        &format!(
            "-- name: events\n{}\n\n-- name: changed\n{changed}\n\n-- name: position\nSELECT '1' AS position, 1 = 0 AS is_behind\n\n\
             -- name: next_event\nSELECT MIN({at}) AS occurred_at FROM {from} {} {at} >= :from\n\n{}",
            events.iter().map(event).collect::<Vec<_>>().join("\nUNION ALL\n"),
            if from.contains(" WHERE ") { "AND" } else { "WHERE" },
            archive.replace("PLACE", fixture.store.pick("ctid", "rowid"))
        ),
    );
}

const CALLS: [(&str, &str, &str, &str); 1] = [("id", "at", "'c'", "calls")];
const ARCHIVE_CALLS: &str =
    "-- name: archive calls\nSELECT id AS event_id, PLACE AS place FROM calls WHERE at >= :window_start AND at < :window_end\n";

async fn assert_refused(fixture: &Fixture, said: &str) {
    let (raw, calls) = (raw_rows(fixture).await, fixture.rows("SELECT id, sid FROM calls ORDER BY 1").await);
    let refused = fixture.run(&ARCHIVE);
    assert!(refused.code == Some(78) && refused.stderr.contains(said), "{said}: {refused:?}");
    assert!(refused.stderr.contains("no row was deleted"), "{refused:?}");
    assert!(raw_rows(fixture).await == raw && fixture.rows("SELECT id, sid FROM calls ORDER BY 1").await == calls, "{said}");
}

async fn tables_that_are_read_whole_stay(engine: Engine) {
    let fixture = with_calls(engine).await;
    fixture.three_subscriptions().await;
    for (table, id, at) in [("subscription", "id", "start_at"), ("users", "CAST(id AS TEXT)", "created_at")] {
        source(
            &fixture,
            "calls",
            &[(id, at, "'c'", table)],
            &format!(
                "-- name: archive {table}\nSELECT {id} AS event_id, PLACE AS place FROM {table} WHERE {at} >= :window_start AND {at} < :window_end\n"
            ),
        );
        assert_refused(&fixture, "it is a table of Tallyroll's, which is read whole").await;
    }
    let count = fixture.number("SELECT COUNT(*) FROM subscription").await;
    assert!(count > 0);
}

async fn rows_that_others_read_stay(engine: Engine) {
    let fixture = with_calls(engine).await;
    source(&fixture, "calls", &CALLS, ARCHIVE_CALLS);
    source(&fixture, "ours", &CALLS, ARCHIVE_CALLS);
    // Another source of the same table, and one of what a built-in source deletes.
    let settings = std::fs::read_to_string(fixture.path().join("tallyroll.toml")).unwrap();
    fixture.write("tallyroll.toml", &settings.replace("\"calls\"", "\"ours\", \"others\""));
    source(&fixture, "others", &[("id || '/2'", "ended_at", "'c'", "calls")], "");
    assert_refused(&fixture, "others.").await;
    source(&fixture, "others", &[("CAST(id AS TEXT)", "created_at", "'c'", "request_analytics")], "");
    assert_refused(&fixture, "Rows of `request_analytics` cannot be archived").await;
    fixture.write("tallyroll.toml", &settings);
    // Not listed now, they may be again.
    assert_refused(&fixture, "which `usage.sources` does not list, reads it as well").await;
    for name in ["ours", "others"] {
        std::fs::remove_file(fixture.path().join(format!("sql/sources/{name}.{}.sql", fixture.store.engine()))).unwrap();
    }
    if engine == Engine::Postgres {
        fixture.execute("CREATE MATERIALIZED VIEW kept_calls AS SELECT * FROM (SELECT * FROM calls) AS calls").await;
        source(&fixture, "others", &[("id || '/2'", "ended_at", "'c'", "kept_calls")], "");
        assert_refused(&fixture, "reads it as well").await;
        std::fs::remove_file(fixture.path().join("sql/sources/others.postgres.sql")).unwrap();
    }
    // A job that reads the raw log.
    fixture.write(
        "jobs/raw.toml",
        "description = \"d\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_date\"]\nwindow = \"day\"\n",
    );
    fixture.write("sql/raw.sql", "SELECT CAST(:window_start AS DATE) AS usage_date, COUNT(*) AS n FROM ai_usage_log WHERE created_at >= :window_start_at AND created_at < :window_end_at");
    assert_refused(&fixture, "job `raw` reads it as well").await;
}

async fn rows_of_two_events_stay(engine: Engine) {
    let fixture = with_calls(engine).await;
    // The end of a call is an event of its own, which may be of the next day.
    let day = fixture
        .store
        .pick("CAST(ended_at AT TIME ZONE 'UTC' AS DATE) <> CAST(at AT TIME ZONE 'UTC' AS DATE)", "date(ended_at) <> date(at)");
    source(&fixture, "calls", &[CALLS[0], ("id || '/end'", "ended_at", "'c'", &format!("calls WHERE {day}"))], ARCHIVE_CALLS);
    fixture.run_well(&COUNT);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, 4);
    assert_refused(&fixture, "no `archive` statement gives a row of the event `a2/end`").await;
    // A session is of calls of two days.
    let joined = [("calls.id", "calls.at", "sess.cust", "calls LEFT JOIN sess ON sess.sid = calls.sid")];
    let sessions = "-- name: archive sess\nSELECT calls.id AS event_id, sess.PLACE AS place FROM sess JOIN calls ON calls.sid = sess.sid WHERE calls.at >= :window_start AND calls.at < :window_end\n";
    source(&fixture, "calls", &joined, &format!("{sessions}\n{ARCHIVE_CALLS}"));
    assert_refused(&fixture, "`archive sess` gives a row of that table for more than one event").await;
    // Of a session the first call counts: with it gone, the next one would.
    let first = "calls AS one WHERE NOT EXISTS (SELECT 1 FROM calls AS other WHERE other.sid = one.sid AND other.id < one.id)";
    let archive = ARCHIVE_CALLS.replace("calls WHERE", &format!("{first} AND"));
    source(&fixture, "calls", &[("id", "at", "'c'", first)], &archive);
    for late in ["2026-03-11T00:00", "2026-03-10T12:00"] {
        fixture.execute(&format!("UPDATE calls SET at = '{late}:00.000000Z' WHERE id = 'a3'")).await;
        fixture.run_well(&[&COUNT[..], &["--force"]].concat());
        let failed = fixture.run(&ARCHIVE);
        assert!(failed.code == Some(65) && failed.stderr.contains("With its rows deleted, `events` of"), "{failed:?}");
        assert_eq!(fixture.number("SELECT COUNT(*) FROM calls").await, 3);
    }
    fixture.execute("UPDATE calls SET at = '2026-03-11T00:00:00.000000Z' WHERE id = 'a3'").await;
    // The calls alone can go.
    source(&fixture, "calls", &joined, ARCHIVE_CALLS);
    fixture.run_well(&COUNT);
    let before = fixture.results().await;
    fixture.run_well(&ARCHIVE);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM calls").await, 0);
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    super::assert_same(&fixture.results().await, &before);
}

async fn what_could_not_come_back_stays(engine: Engine) {
    let fixture = with_calls(engine).await;
    // A view: what goes from it goes elsewhere.
    fixture.execute("ALTER TABLE calls RENAME TO kept").await;
    fixture
        .execute(
            fixture.store.pick("CREATE VIEW calls AS SELECT *, ctid FROM kept", "CREATE VIEW calls AS SELECT rowid AS rowid, * FROM kept"),
        )
        .await;
    source(&fixture, "calls", &CALLS, ARCHIVE_CALLS);
    fixture.run(&COUNT);
    let refused = fixture.run(&ARCHIVE);
    assert!(refused.code == Some(78), "{refused:?}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM kept").await, 3);
}

async fn an_identity_comes_back(engine: Engine) {
    let fixture = with_calls(engine).await;
    source(&fixture, "calls", &CALLS, ARCHIVE_CALLS);
    fixture.run_well(&COUNT);
    let calls = fixture.rows("SELECT * FROM calls ORDER BY id").await;
    fixture.run_well(&ARCHIVE);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM calls").await, 0);
    for day in ["2026-03-10", "2026-03-11"] {
        fixture.run_well(&["archive", "--restore", day]);
    }
    assert_eq!(fixture.rows("SELECT * FROM calls ORDER BY id").await, calls);
}
