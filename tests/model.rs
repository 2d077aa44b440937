//! Random sequences of what happens to a log, a ledger and the runs over them, against a model of a few lines: on both databases,
//! whatever comes late, is changed, deleted, put back, priced anew, killed or sealed, the tables and files say what the model says.

mod world;

use std::os::unix::process::ExitStatusExt as _;

use self::world::{Deed, World};
use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture, repetitions};

on_both_databases!(tables_and_files_say_what_the_model_says);

const AS_OF: &str = "2026-03-20T00:00:00Z";
const RUN: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", AS_OF];

/// Where runs are killed.
const POINTS: [&str; 10] = [
    "lock_acquired",
    "plan_kept",
    "plan_committed",
    "window_computed",
    "rows_written",
    "window_before_commit",
    "window_committed",
    "derived_written",
    "run_before_finish",
    "dashboards_written",
];

const SEALING_POINTS: [&str; 6] = ["revision_put", "csv_put", "manifest_put", "month_sealed", "snapshot_recorded", "current_put"];

async fn tables_and_files_say_what_the_model_says(engine: Engine) {
    let (seeds, deeds) = (repetitions(2, 60) as u64, repetitions(24, 120));
    for seed in 1..=seeds {
        let fixture = Fixture::new(engine).await;
        fixture.write("tallyroll.toml", "[usage]\npricing = \"price_book\"\n");
        fixture.write("prices.toml", &world::prices(1));
        fixture.subscribe("s", "org-1", "2026-01-01T00:00:00.000000Z", 5).await;
        for user in 0..world::USERS {
            fixture.execute(&format!("INSERT INTO users (id, email) VALUES ({}, 'user{user}@example.com')", world::user(user))).await;
        }
        let mut play = Play { fixture, engine, world: World::new(seed), told: Vec::new() };
        for _ in 0..deeds {
            let deed = play.world.next();
            play.told.push(deed);
            play.act(deed).await;
        }
        play.told.push(Deed::Run);
        play.act(Deed::Run).await;
        play.fixture.remove().await;
    }
    println!("{engine:?}: {seeds} sequences of {deeds} deeds, no difference");
}

struct Play {
    fixture: Fixture,
    engine: Engine,
    world: World,
    told: Vec<Deed>,
}

impl Play {
    async fn act(&mut self, deed: Deed) {
        let (fixture, world) = (&self.fixture, &mut self.world);
        match deed {
            Deed::Insert(event) => {
                let id = fixture.log(&event.at(), &event.columns()).await;
                world.events.push((id, event));
            }
            Deed::LateCommit(event) => self.late_commit(event).await,
            Deed::Update(index, tokens) => {
                let Some((id, event)) = world.pick(index) else { return };
                event.output_tokens = tokens;
                fixture.execute(&format!("UPDATE ai_usage_log SET output_tokens = {tokens} WHERE id = '{id}'")).await;
            }
            Deed::Delete(index) => {
                if world.events.is_empty() {
                    return;
                }
                let (id, event) = world.events.remove(index % world.events.len());
                let ingested = fixture.store.pick("ingest_xid", "ingest_seq");
                let seen =
                    fixture.rows(&format!("SELECT CAST({ingested} AS TEXT) AS seen FROM ai_usage_log WHERE id = '{id}'")).await.remove(0);
                fixture.execute(&format!("DELETE FROM ai_usage_log WHERE id = '{id}'")).await;
                world.deleted.push((id, event, seen));
            }
            Deed::Restore => {
                let Some((id, event, seen)) = world.deleted.pop() else { return };
                // As a restore from a dump does it: with the number that the row had.
                let (column, value) = fixture.store.pick(("ingest_xid", format!("'{seen}'")), ("ingest_seq", seen));
                let columns = [("id", format!("'{id}'")), ("created_at", format!("'{}'", event.at())), (column, value)];
                let rest = event.columns().map(|(name, value)| (name, value.to_owned()));
                let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().chain(rest).unzip();
                fixture.execute(&format!("INSERT INTO ai_usage_log ({}) VALUES ({})", names.join(", "), values.join(", "))).await;
                world.events.push((id, event));
            }
            Deed::Reprice(price) => {
                world.price = price;
                fixture.write("prices.toml", &world::prices(price));
            }
            Deed::ChangePlan(user, plan) => {
                world.plans.insert(user, plan);
                fixture.execute(&format!("UPDATE users SET plan = '{plan}' WHERE id = {}", world::user(user))).await;
            }
            Deed::Kill(index, time) => {
                let _ = kill(fixture, &RUN, POINTS[index % POINTS.len()], time);
            }
            Deed::Run => self.run().await,
            Deed::Seats(id, day, seats) => {
                world.ledger.push((day, id, seats));
                fixture.seats(id, "org-1", &world::ledger_instant(day), seats).await;
            }
            Deed::Seal(months, point) => self.seal(months, point).await,
        }
    }

    /// A row whose transaction begins before a run and commits after it. SQLite has one writer at a time: there it is only later.
    async fn late_commit(&mut self, event: world::Event) {
        let id = uuid::Uuid::new_v4().to_string();
        let columns = [("id", format!("'{id}'")), ("created_at", format!("'{}'", event.at()))];
        let rest = event.columns().map(|(name, value)| (name, value.to_owned()));
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().chain(rest).unzip();
        let sql = format!("INSERT INTO ai_usage_log ({}) VALUES ({})", names.join(", "), values.join(", "));
        if self.engine == Engine::Postgres {
            let mut open = self.fixture.store.begin().await.unwrap();
            open.execute(&sql, &[]).await.unwrap();
            self.run().await;
            open.commit().await.unwrap();
        } else {
            self.run().await;
            self.fixture.execute(&sql).await;
        }
        self.world.events.push((id, event));
    }

    async fn run(&mut self) {
        let mut finished = self.fixture.run(&RUN);
        // A day that lost all of its rows keeps its result, and is done without them when somebody says so. A killed run may have said it.
        let kept = "SELECT 1 FROM job_window WHERE state = 'kept'";
        if finished.code == Some(65) || !self.fixture.rows(kept).await.is_empty() {
            let is_said = finished.code == Some(0) || finished.stderr.contains("raw rows");
            assert!(is_said, "{finished:?}\n{:#?}", self.told);
            let force =
                ["run-job", "usage_daily", "--from", "2026-03-01", "--to", "2026-03-06", "--force", "--downstream", "--as-of", AS_OF];
            finished = self.fixture.run(&force);
        }
        assert_eq!(finished.code, Some(0), "{finished:?}\n{:#?}", self.told);
        let daily = "SELECT usage_date, user_id, request_count, total_tokens, total_cost_nanos FROM usage_daily_user ORDER BY 1, 2";
        assert_eq!(self.fixture.rows(daily).await, self.world.daily(), "left: the table, right: the model, after {:#?}", self.told);
        let monthly = "SELECT user_id, request_count, total_tokens, total_cost_nanos FROM usage_monthly_user ORDER BY 1";
        assert_eq!(self.fixture.rows(monthly).await, self.world.monthly(), "left: the table, right: the model, after {:#?}", self.told);
        let plans = self.fixture.rows("SELECT user_id, plan_name FROM user_dashboard_data ORDER BY 1").await;
        if plans.is_empty() && self.world.events.is_empty() {
            return;
        }
        assert_eq!(plans, self.world.plan_names(), "left: the table, right: the model, after {:#?}", self.told);
    }

    async fn seal(&mut self, months: u32, point: Option<usize>) {
        let as_of = format!("2026-{:02}-10T00:00:00Z", months + 1);
        let command = ["run-job", "peak_seats", "--as-of", &as_of];
        let before = self.fixture.out();
        if let Some(point) = point {
            let _ = kill(&self.fixture, &command, SEALING_POINTS[point % SEALING_POINTS.len()], 1);
        }
        self.fixture.run_well(&command);
        let after = self.fixture.out();
        let sealed = before.iter().filter(|(path, _)| path.contains("/final/") && !path.contains("/."));
        for (path, bytes) in sealed {
            assert!(after.get(path) == Some(bytes), "the sealed {path} changed, after {:#?}", self.told);
        }
        let table = "SELECT billing_month, peak_seats FROM peak_seats ORDER BY 1";
        assert_eq!(self.fixture.rows(table).await, self.world.peaks(months), "left: the table, right: the model, after {:#?}", self.told);
        let mut sums = std::collections::BTreeMap::new();
        for row in self.fixture.journal() {
            *sums.entry(row.month.period.number).or_insert(0) += row.entry.peak_seats_delta;
        }
        let peaks = self.world.peaks(months);
        for (number, sum) in sums {
            let month = usize::try_from(number).unwrap() - 1;
            assert!(peaks[month].ends_with(&format!("|{sum}")), "{number}: {sum} in the journal, {peaks:?}, after {:#?}", self.told);
        }
    }
}

/// Whether the run came to the point.
fn kill(fixture: &Fixture, command: &[&str], point: &str, time: usize) -> bool {
    let output = fixture.command(command).env("TALLYROLL_ABORT_AT", format!("{point}:{time}")).output().unwrap();
    let is_killed = output.status.signal() == Some(9);
    let finished = Finished::of(&output);
    // Where nothing is due there is no point to come to; days without rows are said.
    assert!(is_killed || [Some(0), Some(65)].contains(&finished.code), "{finished:?}");
    is_killed
}
