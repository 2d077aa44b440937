//! Commands that look at finance files while a run is at work: what it is about to record is not held against anyone.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tallyroll::clock::Clock;
use tallyroll::failure::{self, Failure};
use tallyroll::snapshot::overlap;
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::{Engine, Fixture, context_of};

on_both_databases!(a_run_at_work_is_waited_for);

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];

async fn a_run_at_work_is_waited_for(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    fixture.run_well(&RUN);
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    // A run that has put its files and has not recorded them: it is killed there, and then taken for one of another host.
    assert_eq!(fixture.command(&RUN).env("TALLYROLL_ABORT_AT", "current_put").output().unwrap().status.code(), None);
    let looks = [
        &["verify", "--as-of", "2026-04-05T00:00:00Z"][..],
        &["reconcile", "--as-of", "2026-04-05T00:00:00Z"],
        &["export", "--to", "finance"],
    ];
    let move_to = |host: &str| format!("UPDATE job_run SET host = '{host}' WHERE state = 'running'");
    let host = fixture.rows("SELECT host FROM job_run WHERE state = 'running'").await[0].clone();
    fixture.execute(&move_to("elsewhere")).await;
    for arguments in looks {
        let refused = fixture.run(arguments);
        assert_eq!(refused.code, Some(75), "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains("is publishing now"), "{arguments:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("--force"), "{arguments:?}: {}", refused.stderr);
    }
    // The process is gone, and what it left stands there.
    fixture.execute(&move_to(&host)).await;
    for arguments in looks {
        assert_eq!(fixture.run(arguments).code, Some(65), "{arguments:?}");
    }
    fixture.run_well(&RUN);
    for arguments in looks {
        fixture.run_well(arguments);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_it_was_looked_at_is_looked_at_again() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.three_subscriptions().await;
    let context = context_of(&fixture, Clock::system(), watch::channel(None).1);
    // Each look says whether a run has been at work meanwhile, and what it finds.
    for (looks, expected) in [
        (&[(true, "a problem"), (false, "well")][..], "well"),
        (&[(true, "a problem"), (false, "a problem")], "a problem"),
        (&[(false, "a problem")], "a problem"),
        (&[(true, "well")], "well"),
        (&[(true, "a problem"), (true, "a problem")], "75"),
        (&[(true, "65"), (false, "well")], "well"),
        (&[(false, "65")], "65"),
        (&[(false, "1")], "1"),
    ] {
        let made = AtomicUsize::new(0);
        let look = || -> BoxFuture<'_, anyhow::Result<&str>> {
            let (is_overlapped, found) = looks[made.fetch_add(1, Ordering::SeqCst)];
            if is_overlapped {
                fixture.run_well(&[&RUN[..], &["--force"]].concat());
            }
            Box::pin(async move {
                match found {
                    "65" => Err(Failure::bad_data("it is missing").into()),
                    "1" => anyhow::bail!("it broke"),
                    found => Ok(found),
                }
            })
        };
        let settled = overlap::settled(&context, look, |found| *found == "well").await;
        let said = settled.map_or_else(|error| failure::exit_code(&error).to_string(), ToOwned::to_owned);
        assert_eq!((said.as_str(), made.into_inner()), (expected, looks.len()), "{looks:?}");
    }
}
