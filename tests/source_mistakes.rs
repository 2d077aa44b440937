//! The usual mistakes in what a project says of its sources, and what a writer may leave behind: told, or without effect; never billed.

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    a_source_is_named_once,
    an_event_of_another_window_fails_the_day,
    an_event_that_is_given_twice_is_found,
    a_subscription_that_is_given_twice_is_not_billed,
    a_ledger_row_that_is_given_twice_is_not_billed,
    no_setting_empties_written_days,
    a_row_without_what_tells_requests_is_bad,
    two_sources_of_one_table_are_refused,
    what_a_source_says_wrongly_is_found,
    a_price_book_that_is_named_is_there,
    what_is_no_field_of_a_bad_row_is_not_kept,
    formats_that_add_up_wrongly_are_refused
);

const RUN: [&str; 4] = ["run-job", "usage_daily", "--as-of", "2026-04-15T00:00:00Z"];

async fn fixture(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-02T00:00:00.000000Z", &[]).await;
    fixture
}

/// Writes the project's own copy of a built-in file of SQL, changed.
fn edit(fixture: &Fixture, engine: Engine, stem: &str, change: impl Fn(&str) -> String) {
    let engine = if engine == Engine::Postgres { "postgres" } else { "sqlite" };
    let file = format!("sql/sources/{stem}.{engine}.sql");
    let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    fixture.write(&file, &changed);
}

async fn a_source_is_named_once(engine: Engine) {
    let fixture = fixture(engine).await;
    for command in [&["check"][..], &RUN] {
        let sources = "ai_usage_log,usage_event,ai_usage_log";
        let refused = Finished::of(&fixture.command(command).env("TALLYROLL__USAGE__SOURCES", sources).output().unwrap());
        assert!(refused.code == Some(78) && refused.stderr.contains("must name each source once"), "{refused:?}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
}

async fn an_event_of_another_window_fails_the_day(engine: Engine) {
    let fixture = fixture(engine).await;
    edit(&fixture, engine, "ai_usage_log", |text| text.replace("created_at < :window_end", "created_at <= :window_end"));
    let failed = fixture.run(&RUN);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    let said = "source `ai_usage_log` gives an event of 2026-03-02T00:00:00.000000Z, which is of another window";
    assert!(failed.stderr.contains(said), "{}", failed.stderr);
    let rows = "SELECT usage_date, SUM(request_count) FROM usage_daily GROUP BY usage_date";
    assert_eq!(fixture.rows(rows).await, ["2026-03-02|1"]);
}

async fn an_event_that_is_given_twice_is_found(engine: Engine) {
    let fixture = fixture(engine).await;
    edit(&fixture, engine, "ai_usage_log", |text| {
        text.replacen("FROM ai_usage_log\n", "FROM ai_usage_log CROSS JOIN (SELECT 1 AS one UNION ALL SELECT 2) AS twice\n", 1)
    });
    let failed = fixture.run(&RUN);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("gives 1 event of 2026-03-01 again, the first with the id `"), "{}", failed.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    let own = format!("sql/sources/ai_usage_log.{}.sql", fixture.store.engine());
    std::fs::remove_file(fixture.path().join(own)).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn a_subscription_that_is_given_twice_is_not_billed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("subscriptions.csv", "id,org_id,start_at\ns1,7,2026-01-01T00:00:00Z\n");
    fixture.write("seats.csv", "org_id,seats,occurred_at\n7,5,2026-01-01T00:00:00Z\n");
    fixture.run_well(&["import", "subscriptions", "subscriptions.csv"]);
    fixture.run_well(&["import", "seats", "seats.csv"]);
    edit(&fixture, engine, "subscription", |text| {
        let select = text.trim_end().trim_end_matches(';');
        format!("{select}\nUNION ALL SELECT id, org_id, plan, committed_seats, start_at, end_at, license_id FROM subscription\n")
    });
    for command in [&["check"][..], &["run-job", "peak_seats", "--as-of", "2026-04-15T00:00:00Z"]] {
        let refused = fixture.run(command);
        assert!(matches!(refused.code, Some(65 | 78)) && refused.stderr.contains("gives subscription `s1` twice"), "{refused:?}");
    }
    assert!(!fixture.path().join("out/final").exists(), "nothing is sealed");
}

async fn a_ledger_row_that_is_given_twice_is_not_billed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let run = ["run-job", "peak_seats", "--as-of", "2026-04-05T12:00:00Z"];
    fixture.run_well(&run);
    let out = fixture.out();
    edit(&fixture, engine, "seat_usage_event", |text| {
        let select = text.trim_end().trim_end_matches(';');
        format!("SELECT ledger.* FROM (\n{select}\n) AS ledger CROSS JOIN (SELECT 1 AS one UNION ALL SELECT 2) AS twice\n")
    });
    let refused = fixture.run(&run);
    assert!(refused.code == Some(65) && refused.stderr.contains("is given twice"), "{refused:?}");
    // Nor under another type or org, nor once more at another instant.
    let later = fixture
        .store
        .pick("occurred_at + INTERVAL '40 days'", "strftime('%Y-%m-%dT%H:%M:%f', substr(occurred_at, 1, 23), '+40 days') || '000Z'");
    for (org, seat_type, instant) in
        [("org_id", "seat_type", later), ("org_id", "seat_type || 'x'", "occurred_at"), ("org_id || 'x'", "seat_type", "occurred_at")]
    {
        let text =
            std::fs::read_to_string(format!("{}/sql/sources/seat_usage_event.{}.sql", env!("CARGO_MANIFEST_DIR"), fixture.store.engine()))
                .unwrap();
        let again =
            format!("{}\nUNION ALL SELECT {org}, {seat_type}, {instant}, id, seats, reason FROM seat_usage_event\n", text.trim_end());
        fixture.write(&format!("sql/sources/seat_usage_event.{}.sql", fixture.store.engine()), &again);
        let refused = fixture.run(&run);
        assert!(refused.code == Some(65) && refused.stderr.contains("is given twice"), "{org} {seat_type} {instant}: {refused:?}");
    }
    assert!(fixture.out() == out, "nothing is corrected");
}

/// A later `usage.earliest_date` allows less; what was counted stays until somebody gives it up.
async fn no_setting_empties_written_days(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.run_well(&[&RUN[..], &["--downstream"]].concat());
    let before = fixture.rows("SELECT * FROM usage_daily_total ORDER BY usage_date").await;
    fixture.write("tallyroll.toml", "[usage]\nearliest_date = \"2026-03-02\"\n");
    for _ in 0..2 {
        let failed = fixture.run(&[&RUN[..], &["--downstream"]].concat());
        assert_eq!(failed.code, Some(65), "{failed:?}");
        let said = "`usage.earliest_date` = 2026-03-02 would empty 2026-03-01, which was written from 1 event; its old result stays";
        assert!(failed.stderr.contains(said), "{}", failed.stderr);
        assert_eq!(fixture.rows("SELECT * FROM usage_daily_total ORDER BY usage_date").await, before);
    }
    fixture.run_well(&["run-job", "usage_daily", "--day", "2026-03-01", "--force", "--downstream", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily_total").await, ["2026-03-02"]);
    fixture.run_well(&RUN);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn a_row_without_what_tells_requests_is_bad(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("log.csv", "when,who,a,kind\n2026-03-10,ann,1,call\n2026-03-10,ann,1,ping\n");
    let format = "description = \"d\"\nrecognised_by = [\"when\"]\n[columns]\noccurred_at = \"when\"\nuser_id = \"who\"\ninput_tokens = \"a\"\n[only]\nkind = [\"call\"]\n";
    fixture.write("formats/own.toml", format);
    let import = ["import", "usage", "--format", "own", "log.csv"];
    fixture.run_well(&import);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 1);
    fixture.write("formats/own.toml", &format.replace("kind", "knid"));
    let refused = fixture.run(&import);
    assert!(refused.code == Some(65) && refused.stderr.contains("it has no `knid`, which says whether it is a request"), "{refused:?}");
}

/// The usual way to a source of one's own: a copy of an example, whose table nobody has changed.
async fn two_sources_of_one_table_are_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.run_well(&RUN);
    let before = fixture.rows("SELECT * FROM usage_daily ORDER BY usage_date").await;
    let engine = fixture.store.engine();
    let log = std::fs::read_to_string(format!("{}/sql/sources/ai_usage_log.{engine}.sql", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for (name, sources) in [("mine", "ai_usage_log,mine"), ("usage_event", "ai_usage_log,chat_requests,usage_event")] {
        fixture.write(&format!("sql/sources/{name}.{engine}.sql"), &log);
        for command in [&["check"][..], &RUN] {
            let refused = Finished::of(&fixture.command(command).env("TALLYROLL__USAGE__SOURCES", sources).output().unwrap());
            assert!(
                refused.code == Some(78) && refused.stderr.contains("reads `ai_usage_log`, which is a source of its own"),
                "{refused:?}"
            );
        }
        std::fs::remove_file(fixture.path().join(format!("sql/sources/{name}.{engine}.sql"))).unwrap();
    }
    assert_eq!(fixture.rows("SELECT * FROM usage_daily ORDER BY usage_date").await, before);
    // Alone it may read it.
    fixture.write(&format!("sql/sources/mine.{engine}.sql"), &log);
    let alone = fixture.command(&RUN).env("TALLYROLL__USAGE__SOURCES", "mine").output().unwrap();
    assert!(alone.status.success(), "{:?}", Finished::of(&alone));
}

/// An event under one id on two days, and a statement of the next event that passes days over.
async fn what_a_source_says_wrongly_is_found(engine: Engine) {
    let twice = fixture(engine).await;
    let reconcile = ["reconcile", "--as-of", "2026-04-15T00:00:00Z"];
    let day_before =
        twice.store.pick("created_at - INTERVAL '1 day'", "strftime('%Y-%m-%dT%H:%M:%f', substr(created_at, 1, 23), '-1 day') || '000Z'");
    edit(&twice, engine, "ai_usage_log", |text| {
        let both = format!(
            "FROM (SELECT all_rows.*, created_at AS at FROM ai_usage_log AS all_rows \
             UNION ALL SELECT all_rows.*, {day_before} FROM ai_usage_log AS all_rows) AS ai_usage_log\nWHERE at >= :window_start AND at < :window_end"
        );
        let events = text.replacen("FROM ai_usage_log\nWHERE created_at >= :window_start AND created_at < :window_end", &both, 1);
        events.replacen("created_at AS occurred_at", "at AS occurred_at", 1)
    });
    twice.run_well(&["run-job", "usage_daily", "--from", "2026-02-28", "--to", "2026-03-03", "--as-of", "2026-04-15T00:00:00Z"]);
    let found = twice.run(&reconcile);
    assert!(
        found.code == Some(65) && format!("{}{}", found.stdout, found.stderr).contains("events of `ai_usage_log` that it gives again"),
        "{found:?}"
    );

    let passed_over = fixture(engine).await;
    edit(&passed_over, engine, "ai_usage_log", |text| {
        text.replace("SELECT MIN(created_at) AS occurred_at", "SELECT MAX(created_at) AS occurred_at")
    });
    passed_over.run_well(&RUN);
    assert_eq!(passed_over.rows("SELECT DISTINCT usage_date FROM usage_daily").await, ["2026-03-02"]);
    let found = passed_over.run(&reconcile);
    assert!(found.code == Some(65) && format!("{}{}", found.stdout, found.stderr).contains("raw_log, 2026-03-01"), "{found:?}");
}

async fn a_price_book_that_is_named_is_there(engine: Engine) {
    let fixture = fixture(engine).await;
    let refused = Finished::of(&fixture.command(&RUN).env("TALLYROLL__USAGE__PRICE_BOOK", "pricse.toml").output().unwrap());
    assert!(refused.code == Some(78) && refused.stderr.contains("`usage.price_book` names `pricse.toml`"), "{refused:?}");
    fixture.run_well(&RUN);
}

async fn what_is_no_field_of_a_bad_row_is_not_kept(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    fixture.write("log.csv", "occurred_at,user_id,input_tokens,messages,api_key\nyesterday,ann,5,my secret prompt,sk-secret\n");
    fixture.run_well(&["import", "usage", "log.csv"]);
    let kept = fixture.rows("SELECT payload FROM quarantined_event").await.join("");
    assert!(kept.contains("yesterday") && kept.contains("ann") && !kept.contains("secret"), "{kept}");
}

async fn formats_that_add_up_wrongly_are_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("log.csv", "when,who,a\n2026-03-10,ann,1\n");
    let head = "description = \"d\"\nrecognised_by = [\"when\"]\n";
    let columns = "[columns]\noccurred_at = \"when\"\nuser_id = \"who\"\ninput_tokens = \"a\"\n";
    for (before, after, said) in [
        ("", "[adds]\ntotal_cost_usd = [\"input_tokens\"]\n", "which is no field of tokens"),
        ("", "[adds]\ninput_tokens = [\"cached_input_tokens\", \"cached_input_tokens\"]\n", "more than once"),
        ("", "[adds]\ninput_tokens = [\"output_tokens\"]\noutput_tokens = [\"input_tokens\"]\n", "to which it adds others"),
        ("seconds = [\"input_tokens\"]\n", "", "which is no duration"),
    ] {
        fixture.write("formats/own.toml", &format!("{head}{before}{columns}{after}"));
        for command in [&["check"][..], &["import", "usage", "--format", "own", "log.csv"]] {
            let refused = fixture.run(command);
            assert!(refused.code == Some(78) && refused.stderr.contains(said), "{said}: {refused:?}");
        }
    }
    // A sum that does not say of how many requests.
    fixture.write("formats/own.toml", &format!("{head}{columns}[sums]\nrequests = \"n\"\nuntil = \"end\"\n"));
    let refused = fixture.run(&["import", "usage", "--format", "own", "log.csv"]);
    assert!(refused.code == Some(65) && refused.stderr.contains("it has no `n`, which says what it is the sum of"), "{refused:?}");
}

/// What lies past every calendar can be deleted again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_past_the_calendar_can_go() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture
        .execute("INSERT INTO usage_event (user_id, occurred_at) VALUES ('z', '294276-12-31 23:59:59.999999Z'), ('a', '2026-03-01')")
        .await;
    fixture.execute("UPDATE usage_event SET input_tokens = 1").await;
    assert_eq!(fixture.execute("DELETE FROM usage_event").await, 2);
    assert_eq!(fixture.number("SELECT COUNT(DISTINCT slot_start) FROM usage_dirty_day").await, 1);
}

/// Two imports of one file at once bring its rows once.
#[tokio::test(flavor = "multi_thread")]
async fn seats_imported_twice_at_once_are_there_once() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let rows: Vec<String> = (0..3_000).map(|row| format!("{},{},2026-01-01T00:00:{:02}Z", row % 7, row % 90, row % 60)).collect();
    fixture.write("seats.csv", &format!("org_id,seats,occurred_at\n{}\n", rows.join("\n")));
    let imports: Vec<_> = (0..2).map(|_| fixture.command(&["import", "seats", "seats.csv"]).spawn().unwrap()).collect();
    for import in imports {
        let finished = import.wait_with_output().unwrap();
        assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM seat_usage_event").await, 3_000);
}
