//! Subscriptions and licences of a wrong year: refused where they come in; one that is in the table all the same stops nobody else.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use tallyroll::license;

use crate::on_both_databases;
use crate::support::site::Site;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_subscription_of_the_year_1_stops_nobody_else,
    what_was_sealed_stays_while_its_subscription_is_wrong,
    subscriptions_of_a_wrong_year_are_not_imported,
    an_id_of_control_characters_fakes_no_line,
);

const NOW: &str = "2026-04-05T12:00:00Z";

/// Rows that no calendar, no bill, or only a mistake reaches.
async fn add_wrong_ones(fixture: &Fixture, engine: Engine) {
    fixture.subscribe("y1", "org-1", "0001-01-01T00:00:00.000000Z", 5).await;
    fixture.subscribe("y1027", "org-2", "1027-05-05T00:00:00.000000Z", 5).await;
    fixture.subscribe("y2126", "org-2", "2126-05-05T00:00:00.000000Z", 5).await;
    if engine == Engine::Postgres {
        for (id, start) in [("bc", "4713-01-01 00:00:00+00 BC"), ("never", "infinity"), ("always", "-infinity"), ("far", "200000-01-01Z")] {
            fixture.subscribe(id, "org-1", start, 5).await;
        }
    }
}

async fn a_subscription_of_the_year_1_stops_nobody_else(engine: Engine) {
    let (fixture, undisturbed) = (Fixture::new(engine).await, Fixture::new(engine).await);
    for fixture in [&fixture, &undisturbed] {
        fixture.three_subscriptions().await;
    }
    // An end that never comes ends nothing.
    for fixture in [&fixture, &undisturbed] {
        fixture.execute("UPDATE subscription SET end_at = '9999-12-31T00:00:00.000000Z' WHERE id = 'b'").await;
    }
    add_wrong_ones(&fixture, engine).await;
    undisturbed.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    let run = fixture.run(&["run-job", "peak_seats", "--as-of", NOW]);
    assert_eq!(run.code, Some(65), "{run:?}");
    for said in [
        "cannot be billed; all others are",
        "`y1`: `start_at` (0001-01-01T00:00:00.000000Z) lies before 1970",
        "`y1027`",
        "hint: fix its row",
    ] {
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
    // Their files are those of a database without the wrong rows, byte by byte.
    let out = fixture.out();
    assert!(out.len() > 8 && out.keys().eq(undisturbed.out().keys()), "{:?}", out.keys());
    assert!(out == undisturbed.out());

    // Nothing is due any more, and still it is no success.
    let again = fixture.run(&["run-job", "peak_seats", "--as-of", NOW]);
    assert!(again.code == Some(65) && again.stdout.contains("Nothing is due"), "{again:?}");
    assert!(fixture.run_well(&["status"]).contains("peak_seats: "));
    assert!(fixture.run_well(&["status"]).contains("`y1`"));
    let check = fixture.run(&["check"]);
    assert!(check.code == Some(78) && check.stderr.contains("Subscription `y1027` cannot be billed"), "{check:?}");
    fixture.run_well(&["verify", "--as-of", NOW]);
    fixture.run_well(&["reconcile"]);

    let site = Site::new(&fixture, "", NOW).await;
    for (path, status, said) in [
        ("/seats", 200, "lies before 1970"),
        ("/api/seats", 200, "lies before 1970"),
        ("/seats/a", 200, "Subscription"),
        ("/seats/y1", 422, "cannot be billed"),
        ("/seats/y1027", 422, "cannot be billed"),
        ("/api/seats/y1", 422, "cannot be billed"),
        ("/api/seats/y1027?format=csv", 422, "cannot be billed"),
    ] {
        let answer = site.get(path).await;
        assert!(answer.status == status && answer.text().contains(said), "{path}: {} {}", answer.status, answer.text());
    }
    let report = fixture.run(&["report", "seats", "--subscription", "y1"]);
    assert!(report.code == Some(65) && report.stderr.contains("cannot be billed"), "{report:?}");

    fixture.execute("DELETE FROM subscription WHERE id NOT IN ('a', 'b', 'c')").await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    assert!(fixture.out() == undisturbed.out());
}

/// The row of a sealed subscription becomes wrong: nothing of it is credited, and nothing once it is right again.
async fn what_was_sealed_stays_while_its_subscription_is_wrong(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    let sealed = |fixture: &Fixture| -> BTreeMap<_, _> { fixture.out().into_iter().filter(|(path, _)| path.contains("/final/")).collect() };
    let before = sealed(&fixture);
    assert!(before.len() > 4);
    // Two of three: more than half of the rows of most months.
    fixture.execute("UPDATE subscription SET start_at = '0001-01-01T00:00:00.000000Z' WHERE id IN ('a', 'b')").await;
    for _ in 0..2 {
        let run = fixture.run(&["run-job", "peak_seats", "--as-of", NOW]);
        assert!(run.code == Some(65) && run.stderr.contains("2 subscriptions cannot be billed"), "{run:?}");
        assert!(sealed(&fixture) == before);
        fixture.run_well(&["verify", "--as-of", NOW]);
        fixture.run_well(&["reconcile"]);
    }
    let states = fixture.rows("SELECT DISTINCT state FROM job_window WHERE job = 'peak_seats'").await;
    assert_eq!(states, ["done"]);
    fixture.execute("UPDATE subscription SET start_at = '2025-12-15T13:45:30.000000Z' WHERE id = 'a'").await;
    fixture.execute("UPDATE subscription SET start_at = '2026-01-31T00:00:00.000000Z' WHERE id = 'b'").await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", NOW]);
    assert!(sealed(&fixture) == before);
    fixture.run_well(&["verify", "--as-of", NOW]);
}

async fn subscriptions_of_a_wrong_year_are_not_imported(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    fixture.write(
        "subscriptions.csv",
        "id,org_id,start_at,end_at\n\
         good,1,2026-01-01,\nfirst,1,1970-01-01,2030-01-01\n\
         y1,1,0001-01-01,\ny1027,1,1027-05-05,\ny1969,1,1969-12-31T23:59:59.999999Z,\ny2126,1,2126-01-01,\nlong,1,2026-01-01,9999-12-31\n",
    );
    let shown = fixture.run_well(&["import", "subscriptions", "subscriptions.csv"]);
    assert!(
        shown.contains("lies before 1970") && shown.contains("`end_at` (9999-12-31T00:00:00.000000Z) lies more than 10 years ahead"),
        "{shown}"
    );
    assert_eq!(fixture.rows("SELECT id FROM subscription ORDER BY id").await, ["first", "good"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 5);
}

/// What data brings into an error is shown escaped, in the terminal and in the tables.
async fn an_id_of_control_characters_fakes_no_line(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let sql = "INSERT INTO subscription (id, org_id, start_at) VALUES ($1, 'org-1', '0001-01-01T00:00:00.000000Z')";
    fixture.store.execute(sql, &["evil\u{1b}[2J\r\nerror: all is well".into()]).await.unwrap();
    let run = fixture.run(&["run-job", "peak_seats", "--as-of", NOW]);
    assert_eq!(run.code, Some(65), "{run:?}");
    let stored = fixture.rows("SELECT COALESCE(error_text, '') FROM job_run ORDER BY started_at DESC LIMIT 1").await.join("");
    for text in [&run.stderr, &stored] {
        assert!(text.contains("`evil\\u{1b}[2J\\r\\nerror: all is well`"), "{text}");
        assert!(!text.contains(['\u{1b}', '\r']) && text.lines().all(|line| !line.starts_with("error: all is well")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_that_has_expired_or_is_of_a_wrong_year_does_not_pass() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let key = SigningKey::from_bytes(&[7; 32]);
    let private = key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
    fixture.write("public.pem", &key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap());
    for (start, end, said) in [
        ("2020-01-01", "2021-01-01", "has expired: it ended at 2021-01-01"),
        ("0001-01-01", "2021-01-01", "`startDate` (0001-01-01) lies before 1970"),
        ("1027-01-01", "2121-01-01", "lies before 1970"),
        ("2020-01-01", "2121-01-01", "`expiryDate` (2121-01-01) lies more than 10 years ahead"),
        ("2020-01-01", "2019-01-01", "it expires before it starts"),
        ("2020-01-01", "soon", "`expiryDate` is `soon`"),
    ] {
        let text = format!("{{\"expiryDate\":\"{end}\",\"id\":\"lic-1\",\"startDate\":\"{start}\"}}");
        let licence = text.replacen('{', &format!("{{\"sig\":\"{}\",", license::sign(&text, &private).unwrap()), 1);
        for licence in [format!("v_{}", STANDARD.encode(&licence)), licence] {
            fixture.write("licence", &licence);
            for arguments in [
                &["license", "verify", "licence", "--public-key", "public.pem"][..],
                &["import", "subscriptions", "--license", "licence", "--public-key", "public.pem", "--org", "1"],
            ] {
                let refused = fixture.run(arguments);
                assert!(refused.code == Some(65) && refused.stderr.contains(said) && refused.stderr.contains("hint:"), "{refused:?}");
            }
        }
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM subscription").await, 0);
}
