//! The archive on a storage that lies: an event is in the tables or in the lake, whatever the storage does.

use std::sync::Arc;

use tallyroll::archive;
use tallyroll::clock::Clock;
use tallyroll::engine::env::Context;
use tallyroll::engine::report::Binding;
use tallyroll::engine::request::Request;
use tallyroll::failure;
use tallyroll::run;
use tallyroll::snapshot::storage::Storage;
use tokio::sync::watch;

use super::{COUNT, assert_same};
use crate::lying_storage::liar::Liar;
use crate::support::template::Template;
use crate::support::{Engine, Fixture, context_of, repetitions};

const DAYS: [&str; 3] = ["2026-03-01", "2026-03-02", "2026-03-03"];
/// Lies of one run at most, and runs.
const LIES: u32 = 5;
const TRIES: usize = 3;

async fn logged(engine: Engine) -> Template {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[archive]\ndelete = true\n");
    for day in DAYS {
        for hour in 10..14 {
            fixture.log(&format!("{day}T{hour}:00:00.000000Z"), &[]).await;
        }
    }
    fixture.run_well(&COUNT);
    fixture.freeze().await
}

async fn run_well(context: &Arc<Context>, job: &str, request: &Request) -> anyhow::Result<()> {
    for report in run::run(context, context.jobs.get(job).unwrap(), request, &Binding::default()).await? {
        report.failure.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// One seed; whether all was archived in the end.
async fn lied_to(template: &Template, expected: &[String], seed: u64) -> bool {
    let fixture = template.copy().await;
    let (_keep, stop) = watch::channel(None);
    let liar = Arc::new(Liar::new(seed, LIES));
    let storage = Storage::bucket(liar.clone(), "", "s3://liar");
    let Some(context) = Arc::into_inner(context_of(&fixture, Clock::system(), stop)) else { panic!("a context of others") };
    let context = Arc::new(Context { storage, ..context });
    let archiving = Request { as_of: "2026-07-15T00:00:00Z".parse().unwrap(), ..Request::default() };
    for _ in 0..TRIES {
        liar.relapse(LIES);
        let Err(error) = run_well(&context, "archive", &archiving).await else { break };
        let (code, text) = (failure::exit_code(&error), format!("{error:#}"));
        assert!([65, 75, 78].contains(&code) && text.contains("liar"), "seed {seed}: {code}: {text}\n{:?}", liar.told());
    }
    liar.reform();
    // Whatever was deleted is in the lake, to the last bit, and is counted from there.
    let (days, _) = archive::verify(&context).await.unwrap();
    let problems: Vec<_> = days.iter().filter_map(|day| day.problem.as_ref()).collect();
    assert!(problems.is_empty(), "seed {seed}: {problems:?}\n{:?}", liar.told());
    let everything = Request { as_of: "2026-04-15T00:00:00Z".parse().unwrap(), rebuild: true, downstream: true, ..Request::default() };
    let rebuilt = run_well(&context, "usage_daily", &everything).await;
    assert!(rebuilt.is_ok(), "seed {seed}: {rebuilt:?}\n{:?}", liar.told());
    println!("seed {seed}: {:?}", liar.told());
    assert_same(&fixture.results().await, expected);
    // And a plain run ends what was begun.
    let ended = run_well(&context, "archive", &archiving).await;
    let is_whole = ended.is_ok() && fixture.number("SELECT COUNT(*) FROM ai_usage_log").await == 0;
    if is_whole {
        let (days, strangers) = archive::verify(&context).await.unwrap();
        assert!(days.iter().all(|day| day.problem.is_none()) && strangers.is_empty(), "seed {seed}: {strangers:?}\n{:?}", liar.told());
    }
    drop(context);
    fixture.remove().await;
    is_whole
}

async fn campaign(engine: Engine, seeds: std::ops::Range<u64>) {
    let template = logged(engine).await;
    let undisturbed = template.copy().await;
    undisturbed.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    let expected = undisturbed.results().await;
    undisturbed.remove().await;
    let (mut whole, count) = (0, seeds.end - seeds.start);
    for seed in seeds {
        whole += u64::from(lied_to(&template, &expected, seed).await);
    }
    println!("{engine:?}: of {count} seeds {whole} ended with every day archived, the others with every row in the tables or the lake");
    assert!(whole > count / 2);
    template.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_of_many_seeds() {
    campaign(Engine::Sqlite, 1..repetitions(40, 1_000) as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_of_some_seeds_on_postgres() {
    campaign(Engine::Postgres, 1..repetitions(10, 200) as u64).await;
}
