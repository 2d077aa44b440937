//! Closed billing months: sealed once, corrected by further revisions, and every byte checked.

use std::collections::BTreeMap;
use std::fs;

use crate::on_both_databases;
use crate::support::seats::Tree;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_late_row_becomes_a_revision_of_its_own,
    subscriptions_that_come_go_and_change_are_corrected,
    plan_and_licence_are_sealed_with_the_month,
    any_flipped_byte_is_named,
    a_lost_sealed_file_is_never_written_anew,
    a_restored_database_takes_the_journal_as_it_is,
    a_new_seat_type_leaves_closed_months_alone,
    a_lost_later_revision_stops_the_month,
    nothing_is_sealed_before_its_time,
    subscriptions_that_vanish_keep_what_was_billed,
    subscriptions_that_vanish_while_a_month_is_open_are_missed,
    a_subscription_that_is_cancelled_moves,
    a_rebuild_writes_every_month_again,
    a_missing_current_file_is_written_again,
    a_revision_that_was_not_recorded_makes_its_month_due,
);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const VERIFY: [&str; 3] = ["verify", "--as-of", "2026-04-05T00:00:00Z"];

async fn sealed(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    fixture
}

fn files(tree: &Tree, containing: &str) -> Tree {
    tree.iter().filter(|(path, _)| path.contains(containing)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

/// Σ of the journal's differences, per subscription month, is what `current/` says.
fn assert_sums_agree(fixture: &Fixture) {
    let mut journal: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for row in fixture.journal() {
        let sum = journal.entry(row.key()).or_default();
        sum.0 += row.entry.peak_seats_delta;
        sum.1 += row.entry.overage_seats_delta.unwrap_or_default();
    }
    journal.retain(|_, sum| *sum != (0, 0));
    let current = fixture.current().into_iter().filter(|row| row.state.name() == "final");
    let mut current: BTreeMap<_, _> =
        current.map(|row| (row.key(), (row.month.peak_seats, row.overage_seats().unwrap_or_default()))).collect();
    current.retain(|_, sum| *sum != (0, 0));
    assert_eq!(journal, current);
}

async fn a_late_row_becomes_a_revision_of_its_own(engine: Engine) {
    let fixture = sealed(engine).await;
    let first = files(&fixture.out(), "final");
    assert_sums_agree(&fixture);
    // 10 February belongs to month 2 of a and 1 of b, both billed in March and February, and to month 2 of c's other org.
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    let plan = fixture.run_well(&[&RUN[..], &["--dry-run"]].concat());
    assert!(
        plan.contains("ledger or subscriptions changed after it was sealed") && plan.contains("peak 14 by row 2 -> 30 by row 7"),
        "{plan}"
    );
    let stale = fixture.run(&VERIFY);
    assert_eq!(stale.code, Some(65), "{stale:?}");
    assert!(stale.stderr.contains("the ledger says otherwise"), "{}", stale.stderr);

    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    let second = fixture.out();
    assert!(first.iter().all(|(path, bytes)| second[path] == *bytes), "a sealed byte changed");
    let corrections: Vec<String> = fixture
        .journal()
        .iter()
        .filter(|row| row.entry.is_correction)
        .map(|row| {
            format!(
                "{} {} rev {} peak {} ({:+}) over {:+}: {}",
                row.subscription_id,
                row.month.period.number,
                row.entry.revision,
                row.month.peak_seats,
                row.entry.peak_seats_delta,
                row.entry.overage_seats_delta.unwrap_or_default(),
                row.entry.correction_reason.as_deref().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(
        corrections,
        [
            "a 2 rev 2 peak 30 (+16) over +16: late ledger row: peak 14 by row 2 -> 30 by row 7",
            "b 1 rev 2 peak 30 (+16) over +10: late ledger row: peak 14 by row 2 -> 30 by row 7",
            "a 3 rev 2 peak 30 (+18) over +18: late ledger row: peak 12 by row 6 -> 30 by row 7",
            "b 2 rev 2 peak 30 (+18) over +10: late ledger row: peak 12 by row 6 -> 30 by row 7",
        ]
    );
    assert_sums_agree(&fixture);
    // Nothing new: nothing is due, and no revision comes.
    assert_eq!(fixture.written(&RUN), Vec::<String>::new());
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    assert_eq!(files(&fixture.out(), "final"), files(&second, "final"));
    assert_eq!(files(&fixture.out(), "current"), files(&second, "current"));

    // A second late row: the third revision says only what it changes.
    fixture.seats(8, "org-2", "2026-01-15T00:00:00.000000Z", 9).await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    let read =
        "SELECT subscription_id, month_number, revision, entry, peak_seats FROM peak_seats WHERE billing_month = '2026-02' ORDER BY 1, 2";
    assert_eq!(fixture.rows(read).await, ["a|2|2|correction|30", "b|1|2|correction|30", "c|2|3|correction|9"]);
}

async fn subscriptions_that_come_go_and_change_are_corrected(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.subscribe("late", "org-2", "2026-01-01T00:00:00.000000Z", 3).await;
    fixture.execute("DELETE FROM subscription WHERE id = 'b'").await;
    // What was committed is sealed with the month, whatever is agreed later.
    fixture.execute("UPDATE subscription SET committed_seats = 12 WHERE id = 'a'").await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    assert!(fixture.journal().iter().all(|row| !row.entry.is_correction || row.subscription_id != "a"));
    let overages = "SELECT billing_month, overage_seats FROM peak_seats WHERE subscription_id = 'a' ORDER BY 1";
    assert_eq!(fixture.rows(overages).await, ["2026-01|0", "2026-02|4", "2026-03|2", "2026-04|0"]);
    // Unless someone says so.
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    assert_eq!(fixture.rows(overages).await, ["2026-01|0", "2026-02|2", "2026-03|0", "2026-04|0"]);
    let mut reasons: Vec<String> = fixture
        .journal()
        .iter()
        .filter(|row| row.entry.is_correction)
        .map(|row| {
            format!("{} {}: {}", row.subscription_id, row.month.period.number, row.entry.correction_reason.as_deref().unwrap_or_default())
        })
        .collect();
    reasons.sort();
    reasons.dedup_by_key(|reason| reason.split(' ').next().unwrap().to_owned());
    assert_eq!(
        reasons,
        [
            "a 1: subscription changed: committed seats 10 -> 12",
            "b 1: subscription month no longer exists",
            "late 1: subscription month added after closing"
        ]
    );
    assert!(fixture.current().iter().all(|row| row.subscription_id != "b"));
    // It comes back: the journal says so, and adds up.
    fixture.subscribe("b", "org-1", "2026-01-31T00:00:00.000000Z", 20).await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    // Another start moves every month of it.
    fixture.execute("UPDATE subscription SET start_at = '2026-01-10T00:00:00.000000Z' WHERE id = 'b'").await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
}

async fn plan_and_licence_are_sealed_with_the_month(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.execute("UPDATE subscription SET plan = 'free', license_id = 'L2', committed_seats = 99 WHERE id = 'a'").await;
    let ai = "INSERT INTO seat_usage_event (id, org_id, seat_type, seats, occurred_at) \
        VALUES (50, 'org-1', 'ai', 1, '2026-02-01T00:00:00.000000Z')";
    let agreements = || {
        let rows = fixture.journal().into_iter().filter(|row| row.entry.is_correction && row.subscription_id == "a");
        let mut rows: Vec<String> = rows
            .map(|row| {
                let text = |text: Option<std::borrow::Cow<'_, str>>| text.map_or("NULL".to_owned(), std::borrow::Cow::into_owned);
                let Some(reason) = row.entry.correction_reason.clone() else { panic!("a correction has a reason") };
                let reason = reason.split(':').next().unwrap_or_default().to_owned();
                let (plan, license) = (text(row.plan), text(row.license_id));
                let committed = row.committed_seats.map_or("NULL".to_owned(), |seats| seats.to_string());
                format!("rev {} {} {}: {plan} {license} {committed}, {reason}", row.entry.revision, row.seat_type, row.month.period.number)
            })
            .collect();
        rows.sort();
        rows
    };
    // Two late rows, each a revision; and a seat type that comes late into months that are sealed.
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture.run_well(&RUN);
    fixture.seats(8, "org-1", "2026-02-11T00:00:00.000000Z", 31).await;
    fixture.execute(ai).await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    assert_eq!(
        agreements(),
        [
            "rev 2 total 2: team lic-a 10, late ledger row",
            "rev 2 total 3: team lic-a 10, late ledger row",
            "rev 3 ai 2: team lic-a NULL, subscription month added after closing",
            "rev 3 ai 3: team lic-a NULL, subscription month added after closing",
            "rev 3 total 2: team lic-a 10, late ledger row",
            "rev 3 total 3: team lic-a 10, late ledger row",
        ]
    );
    // What was agreed since is of the months that are not sealed, unless someone says so.
    let plans = "SELECT billing_month, plan, license_id, committed_seats FROM peak_seats \
        WHERE subscription_id = 'a' AND seat_type = 'total' ORDER BY 1";
    assert_eq!(
        fixture.rows(plans).await,
        ["2026-01|team|lic-a|10", "2026-02|team|lic-a|10", "2026-03|team|lic-a|10", "2026-04|free|L2|99"]
    );
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    assert!(fixture.rows(plans).await.iter().all(|row| row.ends_with("|free|L2|99")), "{:?}", fixture.rows(plans).await);
    let forced = "subscription changed: plan team -> free, licence lic-a -> L2, committed seats 10 -> 99";
    let reasons =
        "SELECT DISTINCT correction_reason FROM peak_seats WHERE subscription_id = 'a' AND seat_type = 'total' AND state = 'final'";
    assert_eq!(fixture.rows(reasons).await, [forced]);
}

async fn any_flipped_byte_is_named(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture.run_well(&RUN);
    let sealed = files(&fixture.out(), "final/billing_month=2026-02/");
    assert_eq!(sealed.len(), 8);
    for (name, bytes) in sealed {
        let path = fixture.path().join("out").join(&name);
        // Bytes spread over the whole file by the golden ratio; each is given another value.
        let places: Vec<usize> = (1..=12).map(|step| (bytes.len() * 618 * step / 1_000) % bytes.len().max(1)).collect();
        for place in places {
            let mut changed = bytes.clone();
            match changed.get_mut(place) {
                Some(byte) => *byte ^= 1 << (place % 8),
                None => changed.push(b'x'),
            }
            fs::write(&path, &changed).unwrap();
            let refused = fixture.run(&VERIFY);
            assert_eq!(refused.code, Some(65), "{name}, byte {place}: {refused:?}");
            assert!(refused.stderr.contains(&name), "{name}, byte {place}: {}", refused.stderr);
        }
        fs::write(&path, &bytes).unwrap();
    }
    fixture.run_well(&VERIFY);
}

/// Without the database's record, the manifest alone shows every flip.
#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_a_manifest_counts() {
    let fixture = sealed(Engine::Sqlite).await;
    fixture.execute("UPDATE snapshot_file SET path = 'x' || path WHERE path LIKE '%final%'").await;
    let path = fixture.path().join("out/peak_seats/final/billing_month=2026-02/rev-0001/manifest.json");
    let bytes = fs::read(&path).unwrap();
    let storage = tallyroll::snapshot::storage::Storage::Local { root: fixture.path().join("out") };
    let jobs = tallyroll::jobs::Jobs::load(&tallyroll::project::Project::new(fixture.path())).unwrap();
    fixture.execute("DELETE FROM snapshot_file").await;
    fixture
        .execute(
            "INSERT INTO snapshot_file SELECT 'peak_seats/current/billing_month=2026-02/none', '2026-02', 1, 'final', '', 0, 0, '', ''",
        )
        .await;
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        fs::write(&path, &changed).unwrap();
        let month = tallyroll::seats::calendar::BillingMonth::parse("2026-02");
        let verified = tallyroll::snapshot::verify::verify(&storage, &fixture.store, &jobs, month).await.unwrap();
        let problems = &verified[0].problems;
        assert!(
            problems.iter().any(|problem| problem.contains("manifest.json") && !problem.contains("no record")),
            "{place}: {problems:?}"
        );
    }
}

async fn a_lost_sealed_file_is_never_written_anew(engine: Engine) {
    let fixture = sealed(engine).await;
    let folder = fixture.path().join("out/peak_seats/final/billing_month=2026-02");
    fs::rename(&folder, fixture.path().join("kept")).unwrap();
    let lost = fixture.run(&VERIFY);
    assert_eq!(lost.code, Some(65), "{lost:?}");
    assert!(lost.stderr.contains("billing_month=2026-02/rev-0001/peak_seats.parquet` is missing"), "{}", lost.stderr);
    let refused = fixture.run(&[&RUN[..], &["--month", "2026-02"]].concat());
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("a closed month is never sealed twice"), "{}", refused.stderr);
    assert!(!folder.exists());
    fs::rename(fixture.path().join("kept"), &folder).unwrap();
    fixture.run_well(&[&RUN[..], &["--month", "2026-02"]].concat());
    fixture.run_well(&VERIFY);
}

async fn a_restored_database_takes_the_journal_as_it_is(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = files(&fixture.out(), "final");
    // A database from before the run: it knows nothing of what was sealed.
    for table in ["job_window", "peak_seats", "snapshot_file"] {
        fixture.execute(&format!("DELETE FROM {table}")).await;
    }
    let unknown = fixture.run(&VERIFY);
    assert_eq!(unknown.code, Some(65), "{unknown:?}");
    assert!(unknown.stderr.contains("the database has no record of it"), "{}", unknown.stderr);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-20T00:00:00Z"]);
    assert_eq!(files(&fixture.out(), "final"), before, "adopted as it is, whenever it was sealed");
    fixture.run_well(&["verify", "--as-of", "2026-04-20T00:00:00Z"]);
}

async fn a_new_seat_type_leaves_closed_months_alone(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = files(&fixture.out(), "final");
    let ai = |id: i64, at: &str| {
        format!("INSERT INTO seat_usage_event (id, org_id, seat_type, seats, occurred_at) VALUES ({id}, 'org-1', 'ai', 1, '{at}')")
    };
    fixture.execute(&ai(50, "2026-04-02T00:00:00.000000Z")).await;
    fixture.run_well(&VERIFY);
    assert_eq!(fixture.written(&RUN), ["peak_seats 2026-04"]);
    assert_eq!(files(&fixture.out(), "final"), before);
    assert_eq!(
        fixture.rows("SELECT subscription_id, month_number FROM peak_seats WHERE seat_type = 'ai' ORDER BY 1").await,
        ["a|4", "b|3"]
    );
    // A late first row of it reaches back to its own months, and no further.
    fixture.execute(&ai(51, "2026-03-20T00:00:00.000000Z")).await;
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    let added: Vec<String> = fixture
        .journal()
        .iter()
        .filter(|row| row.entry.is_correction)
        .map(|row| format!("{} {}", row.subscription_id, row.month.period.number))
        .collect();
    assert_eq!(added, ["b 2"]);
}

async fn a_lost_later_revision_stops_the_month(engine: Engine) {
    let fixture = sealed(engine).await;
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture.run_well(&RUN);
    let folder = fixture.path().join("out/peak_seats/final/billing_month=2026-02/rev-0002");
    let file = folder.join("peak_seats.parquet");
    let bytes = fs::read(&file).unwrap();
    let month = [&RUN[..], &["--month", "2026-02"]].concat();
    let refused = |what: &str| {
        let refused = fixture.run(&month);
        assert_eq!(refused.code, Some(65), "{refused:?}");
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    };
    // Only the file, then the whole revision, is gone; then its bytes are others, in a page that still reads.
    fs::rename(&file, fixture.path().join("kept")).unwrap();
    fixture.seats(8, "org-2", "2026-02-11T00:00:00.000000Z", 40).await;
    refused("rev-0002/peak_seats.parquet` is missing");
    fs::rename(&folder, fixture.path().join("kept-folder")).unwrap();
    refused("rev-0002/peak_seats.parquet` is missing");
    fs::rename(fixture.path().join("kept-folder"), &folder).unwrap();
    let mut other = bytes.clone();
    other[40] ^= 1;
    fs::write(&file, &other).unwrap();
    refused("rev-0002/peak_seats.parquet` is broken");
    fs::write(&file, &bytes).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
}

async fn nothing_is_sealed_before_its_time(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2126-01-01"]);
    // Whatever the day of this test is, the next century has not happened.
    assert_eq!(fixture.rows("SELECT DISTINCT state FROM peak_seats WHERE billing_month = '2125-11'").await, ["provisional"]);
    assert!(files(&fixture.out(), "final/billing_month=2125").is_empty());
    assert!(!files(&fixture.out(), "final/billing_month=2026-03").is_empty());
}

async fn subscriptions_that_vanish_keep_what_was_billed(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = fixture.out();
    fixture.execute("DELETE FROM subscription").await;
    let refused = fixture.run(&RUN);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("subscriptions are gone; its old result stays"), "{}", refused.stderr);
    assert_eq!(files(&fixture.out(), "final"), files(&before, "final"));
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
    assert_eq!(fixture.journal().iter().map(|row| row.entry.peak_seats_delta).sum::<i64>(), 0);
}

/// Emptied while it is open, a month would be sealed with nothing.
async fn subscriptions_that_vanish_while_a_month_is_open_are_missed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    let run = |as_of| ["run-job", "peak_seats", "--as-of", as_of];
    fixture.run_well(&run("2026-03-20T00:00:00Z"));
    let open = "SELECT COUNT(*) FROM peak_seats WHERE billing_month = '2026-03'";
    let billed = fixture.number(open).await;
    assert!(billed > 1);
    // As of an earlier instant an open month rightly holds less.
    fixture.run_well(&run("2026-02-20T00:00:00Z"));
    fixture.run_well(&run("2026-03-20T00:00:00Z"));
    fixture.execute("DELETE FROM subscription").await;
    for as_of in ["2026-03-21T00:00:00Z", "2026-04-05T00:00:00Z"] {
        let refused = fixture.run(&run(as_of));
        assert_eq!(refused.code, Some(65), "{refused:?}");
        assert!(refused.stderr.contains("subscriptions are gone; its old result stays"), "{}", refused.stderr);
        assert_eq!(fixture.number(open).await, billed);
    }
    assert!(files(&fixture.out(), "final/billing_month=2026-03").is_empty());
    fixture.run_well(&[&run("2026-04-05T00:00:00Z")[..], &["--force"]].concat());
    assert_eq!(fixture.number(open).await, 0);
}

/// A subscription that ends earlier than it was to has moved to another month, and nothing is gone.
async fn a_subscription_that_is_cancelled_moves(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.execute("DELETE FROM subscription WHERE id <> (SELECT MIN(id) FROM subscription)").await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-03-20T00:00:00Z"]);
    let at = if engine == Engine::Postgres { "TIMESTAMPTZ '2026-03-20T12:00:00Z'" } else { "'2026-03-20T12:00:00.000000Z'" };
    fixture.execute(&format!("UPDATE subscription SET end_at = {at}")).await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-03-21T00:00:00Z"]);
    let twice = "SELECT subscription_id, seat_type, month_number FROM peak_seats GROUP BY 1, 2, 3 HAVING COUNT(*) > 1";
    assert_eq!(fixture.rows(twice).await, Vec::<String>::new());
}

async fn a_rebuild_writes_every_month_again(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = fixture.out();
    fixture.run_well(&[&RUN[..], &["--rebuild"]].concat());
    assert!(fixture.out() == before);
    fixture.run_well(&VERIFY);
}

async fn a_revision_that_was_not_recorded_makes_its_month_due(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = fixture.rows("SELECT path, sha256 FROM snapshot_file ORDER BY path").await;
    // A run that was killed after it sealed, or that lost its lock: the journal knows more than the database.
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    let other = Fixture::new(engine).await;
    other.three_subscriptions().await;
    other.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    let mut run = other.command(&RUN);
    assert!(run.env("TALLYROLL__OUTPUT__URL", fixture.path().join("out")).output().unwrap().status.success());
    assert_eq!(fixture.rows("SELECT path, sha256 FROM snapshot_file ORDER BY path").await, before);
    let plan = fixture.run_well(&[&RUN[..], &["--dry-run"]].concat());
    assert!(plan.contains("holds a revision that was not recorded"), "{plan}");
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert_sums_agree(&fixture);
}

async fn a_missing_current_file_is_written_again(engine: Engine) {
    let fixture = sealed(engine).await;
    let before = fixture.out();
    for month in ["2026-02", "2026-04"] {
        fs::remove_file(fixture.path().join(format!("out/peak_seats/current/billing_month={month}/peak_seats.parquet"))).unwrap();
    }
    assert_eq!(fixture.run(&VERIFY).code, Some(65));
    assert_eq!(fixture.written(&RUN), ["peak_seats 2026-02", "peak_seats 2026-04"]);
    assert!(fixture.out() == before);
    // Another place for the files: what is sealed must be brought there, and nothing is sealed twice.
    let mut elsewhere = fixture.command(&RUN);
    let refused = crate::support::Finished::of(&elsewhere.env("TALLYROLL__OUTPUT__URL", "./elsewhere").output().unwrap());
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("a closed month is never sealed twice"), "{}", refused.stderr);
}
