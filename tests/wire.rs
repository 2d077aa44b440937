//! The wire to PostgreSQL is cut, or dead for longer than the lease, at every kind of moment: what is reported is true, nothing is done
//! twice or half, and the same command run again ends in the tables of a run that nobody disturbed.

pub mod proxy;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use self::proxy::{Moment, Proxy, Then};
use crate::support::template::{Template, Whole};
use crate::support::{Engine, Finished, Fixture, repetitions};

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-03-15T00:00:00Z"];

/// Moments of a run.
const OF_A_RUN: [Moment; 13] = [
    Moment::Sent("COMMIT"),
    Moment::Answered("COMMIT"),
    Moment::CopyIn,
    Moment::CopyOut,
    Moment::Sent("INSERT INTO job_lock"),
    Moment::Sent("SET heartbeat_at"),
    Moment::Answered("SET heartbeat_at"),
    Moment::Sent("SET state = $2, finished_at"),
    Moment::Answered("SET state = $2, finished_at"),
    Moment::Sent("SET run_id = NULL"),
    Moment::Answered("SET run_id = NULL"),
    Moment::Sent("SET log"),
    Moment::Answered("SET log"),
];

/// Moments of schedules.
const OF_SLOTS: [Moment; 6] = [
    Moment::Sent("INSERT INTO schedule_state"),
    Moment::Answered("INSERT INTO schedule_state"),
    Moment::Sent("SET attempt = $4"),
    Moment::Answered("SET attempt = $4"),
    Moment::Sent("SET state = $4, finished_at"),
    Moment::Answered("SET state = $4, finished_at"),
];

/// A command on a state of the database, and where it ends undisturbed.
struct Case {
    before: Template,
    command: &'static [&'static str],
    after: Whole,
    /// How often an undisturbed run comes to each moment.
    seen: std::collections::BTreeMap<Moment, usize>,
}

impl Case {
    async fn of(fixture: Fixture, command: &'static [&'static str], watched: &[Moment]) -> Self {
        let before = fixture.freeze().await;
        let fixture = before.copy().await;
        let proxy = Proxy::start(watched, None).await;
        let finished = through(&proxy, &fixture, command).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let after = fixture.whole().await;
        let seen = proxy.seen();
        let missed: Vec<_> = watched.iter().filter(|moment| !seen.contains_key(moment)).collect();
        assert!(missed.is_empty(), "{command:?} never comes to {missed:?}");
        fixture.remove().await;
        Self { before, command, after, seen }
    }

    /// Cuts the wire at the nth of a moment.
    async fn cut(&self, watched: &[Moment], moment: Moment, nth: usize) {
        let fixture = self.before.copy().await;
        let proxy = Proxy::start(watched, Some((moment, nth, Then::Cut))).await;
        let finished = through(&proxy, &fixture, self.command).await;
        let when = format!("{:?}, cut at {nth} {moment:?}", self.command);
        // Hearts beat by the clock, too: a run that is faster than the one that was counted has fewer beats.
        let is_beat = matches!(moment, Moment::Sent("SET heartbeat_at") | Moment::Answered("SET heartbeat_at"));
        let may_not_come = is_beat && nth > 1;
        assert!(proxy.has_fired() || may_not_come, "{when}: never came");
        self.assert_true(&fixture, &finished, &when).await;
        if moment == Moment::Answered("COMMIT") {
            // It is done, and the client cannot know.
            assert!(finished.stderr.contains("whether it did is not known"), "{when}: {finished:?}");
        }
        self.run_again(&fixture, &when).await;
        fixture.remove().await;
    }

    /// A report of success is true at once; one of failure says what to do, and that the same command may be run again.
    async fn assert_true(&self, fixture: &Fixture, finished: &Finished, when: &str) {
        match finished.code {
            Some(0) => {
                let differences = self.after.differences(&fixture.whole().await);
                assert!(differences.is_empty(), "{when}: success was reported\n{finished:?}\n{}", differences.join("\n"));
            }
            Some(75) => {
                let said = &finished.stderr;
                let says_how =
                    ["can be repeated", "run the same command again", "run this command again"].iter().any(|hint| said.contains(hint));
                assert!(says_how, "{when}: {said}");
            }
            // A slot that failed; `run-due` says so and no more.
            Some(1) if self.command[0] == "run-due" => {}
            _ => panic!("{when}: {finished:?}"),
        }
    }

    async fn run_again(&self, fixture: &Fixture, when: &str) {
        for _ in 0..5 {
            let again = fixture.run(self.command);
            assert_eq!(again.code, Some(0), "{when}, run again: {again:?}");
            if self.command[0] != "run-due" || again.stdout.is_empty() {
                let differences = self.after.differences(&fixture.whole().await);
                assert!(differences.is_empty(), "{when}:\n{}", differences.join("\n"));
                return;
            }
        }
        panic!("{when}: schedules go on being due");
    }

    /// Cuts at the first, a middle and the last of each moment; the campaign at every one.
    async fn cut_everywhere(self, watched: &[Moment]) {
        let mut cuts = 0;
        for moment in watched {
            let last = self.seen[moment];
            let few = BTreeSet::from([1, last.div_ceil(2), last]);
            let times = if repetitions(0, 1) == 1 { (1..=last).collect() } else { few };
            for nth in times {
                self.cut(watched, *moment, nth).await;
                cuts += 1;
            }
        }
        println!("{:?}: {cuts} cuts, no difference", self.command);
        self.before.remove().await;
    }
}

async fn through(proxy: &Proxy, fixture: &Fixture, command: &[&str]) -> Finished {
    let mut command = fixture.command(command);
    command.env("DATABASE_URL", proxy.url(&fixture.url));
    Finished::of(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

async fn logged() -> Fixture {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 2\n[history]\nkeep_days = 36500\n");
    for day in 1..=3 {
        fixture.log(&format!("2026-03-0{day}T10:00:00.000000Z"), &[("customer_id", "7")]).await;
    }
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_in_a_run() {
    Case::of(logged().await, RUN, &OF_A_RUN).await.cut_everywhere(&OF_A_RUN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_in_billing() {
    let watched = [Moment::Sent("COMMIT"), Moment::Answered("COMMIT"), Moment::CopyIn, Moment::CopyOut];
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.three_subscriptions().await;
    let command = &["run-job", "peak_seats", "--as-of", "2026-03-05T00:00:00Z"];
    Case::of(fixture, command, &watched).await.cut_everywhere(&watched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_in_an_import_and_a_record() {
    let watched = [Moment::Sent("COMMIT"), Moment::Answered("COMMIT")];
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.write("log.csv", "occurred_at,user_id,input_tokens\n2026-03-01T10:00:00Z,00000000-0000-4000-8000-000000000001,5\n");
    Case::of(fixture, &["import", "usage", "log.csv"], &watched).await.cut_everywhere(&watched).await;
    let record = &["record", "assignment", "--namespace", "42", "--user", "7", "--seat-type", "base"];
    Case::of(Fixture::new(Engine::Postgres).await, record, &watched).await.cut_everywhere(&watched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_in_schedules() {
    let fixture = logged().await;
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"0 0 1 * *\"\ncatch_up = \"all\"\n");
    fixture.first_seen("usage_daily").await;
    Case::of(fixture, &["run-due"], &OF_SLOTS).await.cut_everywhere(&OF_SLOTS).await;
}

/// The wire is dead for longer than the lease, another run takes over, and then all that was held back comes through.
async fn held(moment: Moment, nth: usize) {
    let case = Case::of(logged().await, RUN, &[moment]).await;
    let fixture = case.before.copy().await;
    let proxy = Proxy::start(&[moment], Some((moment, nth, Then::Hold))).await;
    let first = through(&proxy, &fixture, RUN);
    let second = async {
        proxy.fired().await;
        // Through no wire: it waits for the lease, or for the rows that the first one's open transaction holds.
        let mut command = fixture.command(&[RUN, &["--lock-wait", "60"]].concat());
        let second = tokio::task::spawn_blocking(move || Finished::of(&command.output().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(40);
        let waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let silent =
            "SELECT 1 FROM job_run WHERE (state = 'running' AND heartbeat_at < now() - INTERVAL '3 seconds') OR state = 'interrupted'";
        while !second.is_finished() && (fixture.rows(waiting).await.is_empty() || fixture.rows(silent).await.is_empty()) {
            assert!(Instant::now() < deadline, "the second run neither ends nor waits");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.release();
        second.await.unwrap()
    };
    let (first, second) = tokio::join!(first, second);
    let when = format!("held at {nth} {moment:?}");
    assert_eq!(second.code, Some(0), "{when}: {second:?}");
    // Its lock was taken over, or it was only slow.
    assert!([Some(0), Some(75)].contains(&first.code), "{when}: {first:?}");
    case.run_again(&fixture, &when).await;
    fixture.remove().await;
    case.before.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_for_longer_than_the_lease_as_a_commit_is_answered() {
    held(Moment::Answered("COMMIT"), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_for_longer_than_the_lease_before_a_commit_arrives() {
    // The lock of a rollup that is made with its day, and a window.
    held(Moment::Sent("COMMIT"), 4).await;
    held(Moment::Sent("COMMIT"), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_for_longer_than_the_lease_in_the_middle_of_rows() {
    held(Moment::CopyIn, 2).await;
    held(Moment::CopyOut, 2).await;
}
