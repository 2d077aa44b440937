//! Nobody is believed: not a trigger that deletes other rows, not the files of the lake, not who edits the settings.

use std::fs;
use std::path::PathBuf;

use super::{COUNT, RECONCILE, archive, assert_same, counted, delete, lake, raw_rows};
use crate::on_both_databases;
use crate::support::seats::tree;
use crate::support::{Engine, Fixture};

on_both_databases!(
    what_was_deleted_is_what_was_copied,
    the_lake_is_not_believed,
    a_copy_of_the_database_removes_nothing,
    mistakes_are_told
);

/// A trigger of the application keeps rows from being deleted: what is not in the lake bit by bit stays.
async fn what_was_deleted_is_what_was_copied(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let rows = raw_rows(&fixture).await;
    delete(&fixture);
    let make = fixture.store.pick(
        vec![
            "CREATE FUNCTION keep_one() RETURNS TRIGGER LANGUAGE plpgsql SET search_path = public AS $$ BEGIN \
             RETURN CASE WHEN OLD.event_id = 'e4' THEN NULL ELSE OLD END; END; $$",
            "CREATE TRIGGER keep_one BEFORE DELETE ON usage_event FOR EACH ROW EXECUTE FUNCTION keep_one()",
        ],
        vec!["CREATE TRIGGER keep_one BEFORE DELETE ON usage_event WHEN OLD.event_id = 'e4' BEGIN SELECT RAISE(IGNORE); END"],
    );
    for statement in make {
        fixture.execute(statement).await;
    }
    fixture.accept_triggers().await;
    for _ in 0..2 {
        let failed = fixture.run(&["archive", "--as-of", "2026-07-15T00:00:00Z"]);
        assert_eq!(failed.code, Some(65), "{failed:?}");
        assert!(failed.stderr.contains("2026-03-05 of `usage_event` was not archived"), "{}", failed.stderr);
        assert!(failed.stderr.contains("no row was deleted"), "{}", failed.stderr);
        let there = raw_rows(&fixture).await;
        let of_day = |rows: &[String]| rows.iter().filter(|row| row.contains("2026-03-05")).count();
        assert_eq!(of_day(&there["usage_event"]), of_day(&rows["usage_event"]));
        assert!(there["usage_event"].len() < rows["usage_event"].len(), "other days are archived");
    }
    // What it has written is no day's, and goes.
    let strangers = fixture.run(&["archive", "--verify"]);
    assert!(strangers.code == Some(65) && strangers.stderr.contains("belongs to no archived day"), "{strangers:?}");
    fixture.execute(fixture.store.pick("DROP TRIGGER keep_one ON usage_event", "DROP TRIGGER keep_one")).await;
    archive(&fixture);
    fixture.run_well(&["archive", "--verify"]);
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    fixture.run_well(&RECONCILE);
}

/// A byte that was changed, a file that is gone, one of another day, a manifest that fits: named, and nothing is counted or put back from it.
async fn the_lake_is_not_believed(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let before = fixture.results().await;
    delete(&fixture);
    archive(&fixture);
    let file = |tree: &str, date: &str, name: &str| -> PathBuf {
        fixture.path().join("out").join(tree).join(format!("source=ai_usage_log/event_date={date}/rev-0001")).join(name)
    };
    let (events, rows) = (
        file("usage_event", "2026-03-08", "part-00000.parquet"),
        file("source_row/table=ai_usage_log", "2026-03-08", "part-00000.parquet"),
    );
    let manifest = file("usage_event", "2026-03-08", "_manifest.json");
    let others = fixture.rows("SELECT event_date FROM archived_day WHERE source = 'ai_usage_log' AND event_date <> '2026-03-08'").await;
    let (good_events, good_rows, good_manifest) = (fs::read(&events).unwrap(), fs::read(&rows).unwrap(), fs::read(&manifest).unwrap());
    let recount = [&COUNT[..], &["--rebuild"]].concat();
    let restore = ["archive", "--restore", "2026-03-08", "--source", "ai_usage_log"];
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    // Each: the file, what it was, what it is now, and whether a recount reads it.
    let mut tampered = Vec::new();
    for (index, at) in (0..good_events.len()).step_by(good_events.len() / 8).enumerate() {
        tampered.push((&events, &good_events, Some(flipped(&good_events, at)), index % 3 == 0));
    }
    tampered.push((&events, &good_events, None, true));
    tampered.push((&events, &good_events, Some(fs::read(file("usage_event", &others[0], "part-00000.parquet")).unwrap()), true));
    tampered.push((&rows, &good_rows, Some(flipped(&good_rows, good_rows.len() / 2)), false));
    tampered.push((&rows, &good_rows, None, false));
    let forged = String::from_utf8(good_manifest.clone()).unwrap().replacen("\"row_count\": ", "\"row_count\": 1", 1);
    tampered.push((&manifest, &good_manifest, Some(forged.into_bytes()), true));
    for (path, good, bytes, is_read) in tampered {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let name = path.strip_prefix(fixture.path().join("out")).unwrap().display().to_string();
        let verified = fixture.run(&["archive", "--verify"]);
        assert!(verified.code == Some(65) && verified.stderr.contains(&name), "{name}: {verified:?}");
        let refused = fixture.run(&restore);
        assert!(refused.code == Some(65) && refused.stderr.contains(&name), "{name}: {refused:?}");
        if is_read {
            let failed = fixture.run(&recount);
            assert!(failed.code == Some(65) && failed.stderr.contains(&name), "{name}: {failed:?}");
        }
        fs::write(path, good).unwrap();
    }
    fixture.run_well(&["archive", "--verify"]);
    fixture.run_well(&recount);
    assert_same(&fixture.results().await, &before);
    // What lies beside belongs to no day.
    let stranger = events.with_file_name("part-00001.parquet");
    fs::write(&stranger, &good_events).unwrap();
    let verified = fixture.run(&["archive", "--verify"]);
    assert!(verified.code == Some(65) && verified.stderr.contains("part-00001.parquet` belongs to no archived day"), "{verified:?}");
    fs::remove_file(&stranger).unwrap();
    fixture.run_well(&restore);
}

/// A copy of the database, for tests, say, has the same id and may be given the same lake.
async fn a_copy_of_the_database_removes_nothing(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    let place = tempfile::tempdir().unwrap();
    delete(&fixture);
    let path = fixture.path().join("tallyroll.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{settings}url = \"{}\"\n", place.path().display())).unwrap();
    let template = fixture.freeze().await;
    let (ours, copy) = (template.copy().await, template.copy().await);
    archive(&ours);
    let files = tree(place.path());
    assert!(files.len() > 20);
    let refused = copy.run(&["archive", "--as-of", "2026-07-15T00:00:00Z"]);
    assert!(refused.code == Some(65) && refused.stderr.contains("belongs to no archived day of this database"), "{refused:?}");
    assert!(tree(place.path()) == files);
    assert_eq!(raw_rows(&copy).await["usage_event"].len(), 40);
    ours.run_well(&["archive", "--verify"]);
    template.remove().await;
}

async fn mistakes_are_told(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    for (settings, said) in [
        ("[archive]\nafter_days = 0\n", "`archive.after_days` in"),
        ("[archive]\nurl = \"ftp://x\"\n", "`archive.url` in"),
        ("[archive]\nurl = \"./out/usage_monthly\"\n", "`archive.url` is a folder of `output.url`"),
        ("[archive]\nurl = \"s3://key:secret@bucket/x\"\n", "`archive.url` in"),
        ("[archive]\ndelete = \"perhaps\"\n", "archive.delete"),
        ("[archive]\ndeletes = true\n", "did you mean `archive.delete`?"),
    ] {
        fixture.write("tallyroll.toml", settings);
        let refused = fixture.run(&["archive"]);
        assert!(refused.code == Some(78) && refused.stderr.contains(said) && !refused.stderr.contains("secret"), "{settings}: {refused:?}");
    }
    // A place of its own, and one project's alone.
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.5\n[archive]\ndelete = true\nurl = \"./lake\"\n");
    archive(&fixture);
    assert!(lake(&fixture).is_empty() && fixture.path().join("lake/usage_event").is_dir());
    let other = Fixture::new(engine).await;
    other.execute("UPDATE tallyroll_project SET project_id = '00000000-0000-4000-8000-000000000bad'").await;
    other.write("tallyroll.toml", &format!("[archive]\nurl = \"{}\"\n", fixture.path().join("lake").display()));
    let refused = other.run(&["archive"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("this database is project"), "{refused:?}");
    // A source that does not say which rows its events are made from.
    let own = format!("sql/sources/usage_event.{}.sql", fixture.store.engine());
    let text = fs::read_to_string(format!("{}/{own}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let without = text.split("-- name: archive").next().unwrap();
    fixture.write(&own, without);
    fixture.execute("INSERT INTO usage_event (user_id, occurred_at, input_tokens) VALUES ('a', '2026-03-20T00:00:00.000000Z', 1)").await;
    fixture.run_well(&COUNT);
    let planned = fixture.run_well(&["archive", "--dry-run", "--as-of", "2026-07-15T00:00:00Z"]);
    assert!(planned.contains("has no statement `-- name: archive TABLE`"), "{planned}");
    // And one that says it wrongly: that deletes, that gives no places, that names what is no table.
    for (table, statement, said) in [
        ("usage_event", "DELETE FROM usage_event RETURNING 1 AS place", "archive usage_event"),
        ("usage_event", "SELECT 1 AS there", "it gives two columns"),
        (
            "usage_events",
            fixture.store.pick("SELECT event_id, ctid AS place FROM usage_event", "SELECT event_id, rowid AS place FROM usage_event"),
            "are not made from that table",
        ),
    ] {
        fixture.write(&own, &format!("{without}-- name: archive {table}\n{statement}\n"));
        let refused = fixture.run(&["archive", "--as-of", "2026-07-15T00:00:00Z"]);
        assert!(refused.code == Some(78) && refused.stderr.contains(said), "{statement}: {refused:?}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 1);
}
