//! What a source says of the rows to archive is held against its events: a mistake in it deletes nothing, and hides nothing.

use std::fs;

use super::{CHAT, COUNT, RECONCILE, archive, counted, delete, raw_rows};
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    rows_of_other_events_stay,
    rows_go_with_nothing_else,
    a_day_comes_back_whole_or_not_at_all,
    an_archived_source_is_missed
);

const STRANGER: &str = "which `events` does not give for that day";
const ARCHIVE: [&str; 3] = ["archive", "--as-of", "2026-07-15T00:00:00Z"];

fn path(fixture: &Fixture, source: &str) -> String {
    format!("sql/sources/{source}.{}.sql", fixture.store.engine())
}

fn built_in(fixture: &Fixture, source: &str) -> String {
    fs::read_to_string(format!("{}/{}", env!("CARGO_MANIFEST_DIR"), path(fixture, source))).unwrap()
}

/// Puts the project's own file in the place of a built-in one: `from` stands as `to` in it.
fn edit(fixture: &Fixture, source: &str, from: &str, to: &str) {
    let text = built_in(fixture, source);
    assert!(text.contains(from), "{from}");
    let (before, archive) = text.split_once("-- name: archive").unwrap();
    let edited =
        if archive.contains(from) { format!("{before}-- name: archive{}", archive.replace(from, to)) } else { text.replace(from, to) };
    fixture.write(&path(fixture, source), &edited);
}

async fn rows_of_other_events_stay(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    // An event at midnight, and what belongs to a request that is pending.
    fixture.execute("INSERT INTO usage_event (user_id, occurred_at, input_tokens) VALUES ('a', '2026-03-05T00:00:00.000000Z', 9)").await;
    let analytics = CHAT[3].replace("a001", "a003").replace("c001", "c002");
    fixture.execute(&analytics).await;
    fixture.run_well(&COUNT);
    delete(&fixture);
    let rows = raw_rows(&fixture).await;
    let place = fixture.store.pick("ctid", "rowid");
    let end = "occurred_at < :window_end";
    let twice = format!(
        "{end} UNION ALL SELECT source_name || '/' || event_id, {place} FROM usage_event WHERE occurred_at >= :window_start AND {end}"
    );
    let mistakes = [
        ("2026-03-06", "usage_event", end, "occurred_at < :window_end OR input_tokens = 3", STRANGER),
        ("2026-03-04", "usage_event", end, "occurred_at <= :window_end", STRANGER),
        ("2026-03-04", "usage_event", end, "occurred_at < :window_end AND input_tokens <> 3", "gives a row of the event `import/e3`"),
        ("2026-03-04", "usage_event", end, &twice, "for more than one event"),
        ("2026-02-28", "chat_requests", " AND status IN ('completed', 'failed')", "", STRANGER),
        ("2026-02-28", "chat_requests", " AND request.status IN ('completed', 'failed')", "", STRANGER),
    ];
    for (day, source, from, to, said) in mistakes {
        edit(&fixture, source, from, to);
        let failed = fixture.run(&["archive", "--day", day, "--as-of", "2026-07-15T00:00:00Z"]);
        let code = if said == STRANGER { 65 } else { 78 };
        assert!(failed.code == Some(code) && failed.stderr.contains(said), "{to}: {failed:?}");
        let there = raw_rows(&fixture).await;
        assert!(there[source] == rows[source] && there["request_analytics"] == rows["request_analytics"], "{to}");
        fs::remove_file(fixture.path().join(path(&fixture, source))).unwrap();
        for line in fixture.run_well(&["archive", "--list", "--json"]).lines() {
            let archived: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(archived["source"] != source, "{to}");
            fixture.run_well(&["archive", "--restore", day]);
        }
        assert_eq!(raw_rows(&fixture).await, rows, "{to}");
        fixture.run_well(&COUNT);
    }
    for day in ["2026-03-06", "2026-03-04", "2026-02-28"] {
        fixture.run_well(&["archive", "--day", day, "--as-of", "2026-07-15T00:00:00Z"]);
    }
}

async fn rows_go_with_nothing_else(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    let place = fixture.store.pick("ctid", "rowid");
    // Tables that no event is made from.
    for table in ["subscription", "job_window", "usage_daily", "archived_day", "ai_usage_log", "USAGE_EVENT"] {
        let text = built_in(&fixture, "usage_event");
        let more = format!("{text}\n-- name: archive {table}\nSELECT 'a' AS event_id, {place} AS place FROM {table}\n");
        fixture.write(&path(&fixture, "usage_event"), &more);
        for command in [&["check"][..], &ARCHIVE] {
            let refused = fixture.run(command);
            assert!(refused.code == Some(78) && refused.stderr.contains("are not made from that table"), "{table}: {refused:?}");
        }
    }
    // A name that no statement has.
    for name in ["archiv usage_event", "Archive usage_event", "archive"] {
        edit(&fixture, "usage_event", "-- name: archive usage_event", &format!("-- name: {name}"));
        let refused = fixture.run(&["check"]);
        assert!(refused.code == Some(78) && refused.stderr.contains("which no source has"), "{name}: {refused:?}");
    }
    fs::remove_file(fixture.path().join(path(&fixture, "usage_event"))).unwrap();
    // The request itself is forgotten, of which other rows are known: its event would still be there.
    fixture
        .execute(
            "INSERT INTO request_analytics (id, user_id, request_id, tokens_input, tokens_output, created_at) \
             SELECT id, user_id, id, 1, 1, created_at FROM chat_requests WHERE id NOT IN (SELECT request_id FROM request_analytics)",
        )
        .await;
    fixture.run_well(&COUNT);
    let rows = raw_rows(&fixture).await;
    let chats = built_in(&fixture, "chat_requests");
    fixture.write(&path(&fixture, "chat_requests"), chats.split("-- name: archive chat_requests").next().unwrap());
    let day = ["archive", "--day", "2026-02-28", "--as-of", "2026-07-15T00:00:00Z"];
    let failed = fixture.run(&day);
    assert!(failed.code == Some(65) && failed.stderr.contains("it would count twice"), "{failed:?}");
    fs::remove_file(fixture.path().join(path(&fixture, "chat_requests"))).unwrap();
    // Rows of another table would go with the request.
    let id = fixture.store.pick("UUID", "TEXT");
    fixture.execute(&format!("CREATE TABLE note (request {id} REFERENCES chat_requests (id) ON DELETE CASCADE)")).await;
    fixture.execute("INSERT INTO note VALUES ('00000000-0000-4000-8000-00000000c002')").await;
    fixture.execute("INSERT INTO note VALUES ('00000000-0000-4000-8000-00000000c001')").await;
    let failed = fixture.run(&day);
    assert!(failed.code == Some(65) && failed.stderr.contains("Rows of `note` refer to"), "{failed:?}");
    assert_eq!(raw_rows(&fixture).await["chat_requests"], rows["chat_requests"]);
    assert_eq!(raw_rows(&fixture).await["request_analytics"], rows["request_analytics"]);
    fixture.execute("DELETE FROM note WHERE request = '00000000-0000-4000-8000-00000000c001'").await;
    fixture.run_well(&day);
    // An events statement that leaves some out: their rows are of no event, and stay.
    edit(&fixture, "usage_event", "FROM usage_event\nWHERE", "FROM usage_event\nWHERE input_tokens <> 3 AND");
    fixture.run_well(&COUNT);
    let failed = fixture.run(&ARCHIVE);
    assert!(failed.code == Some(65) && failed.stderr.contains(STRANGER), "{failed:?}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event WHERE input_tokens = 3").await, 1);
}

async fn a_day_comes_back_whole_or_not_at_all(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let (rows, before) = (raw_rows(&fixture).await, fixture.results().await);
    delete(&fixture);
    fixture.run_well(&["archive", "--day", "2026-02-28", "--as-of", "2026-07-15T00:00:00Z"]);
    let left = raw_rows(&fixture).await;
    let restore = ["archive", "--restore", "2026-02-28", "--source", "chat_requests"];
    let (chats, name) = (built_in(&fixture, "chat_requests"), "-- name: archive request_analytics");
    let (first, rest) = chats.split_once(name).unwrap();
    let without = format!("{first}-- name: archive chat_requests{}", rest.split_once("-- name: archive chat_requests").unwrap().1);
    for edited in [first.to_owned(), without, chats.replace("-- name: archive chat_requests", "-- name: archive CHAT_REQUESTS")] {
        fixture.write(&path(&fixture, "chat_requests"), &edited);
        let refused = fixture.run(&restore);
        assert!(refused.code == Some(78), "{refused:?}");
        assert_eq!(raw_rows(&fixture).await, left);
        fixture.run(&["archive", "--verify"]);
    }
    // Put right, it comes back.
    fixture.write(&path(&fixture, "chat_requests"), &chats);
    fixture.run_well(&restore);
    fixture.run_well(&["archive", "--verify"]);
    let now = raw_rows(&fixture).await;
    assert!(now["chat_requests"] == rows["chat_requests"] && now["request_analytics"] == rows["request_analytics"]);
    fixture.run_well(&COUNT);
    super::assert_same(&fixture.results().await, &before);
}

async fn an_archived_source_is_missed(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    archive(&fixture);
    let settings = fs::read_to_string(fixture.path().join("tallyroll.toml")).unwrap();
    fixture.write("tallyroll.toml", &format!("{settings}[usage]\nsources = [\"ai_usage_log\", \"chat_requests\"]\n"));
    let refused = fixture.run(&["check"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("rows of `usage_event` are in the lake alone"), "{refused:?}");
    let refused = fixture.run(&["archive", "--restore", "2026-03-05"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("A source `usage_event` was archived"), "{refused:?}");
    let differs = fixture.run(&RECONCILE);
    assert!(differs.code == Some(65) && differs.stdout.contains("archived events of `usage_event`"), "{differs:?}");
    fixture.write("tallyroll.toml", &settings);
    fixture.run_well(&RECONCILE);
}
