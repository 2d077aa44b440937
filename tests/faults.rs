//! What goes wrong around Tallyroll: servers that stop, disks and memory that end, settings of administrators, files of others.
//! Each time: nothing half-written, an exit code and a message that are true, and the next plain run ends in the tables of an undisturbed one.

mod connections;
mod limits;
mod server;
mod size;
mod sqlite_file;

use crate::support::{Engine, Fixture};

/// Everything that a test here lets go wrong once.
const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

/// Twenty-eight days of events, all from one statement.
async fn fill(fixture: &Fixture, engine: Engine) {
    let sql = match engine {
        Engine::Postgres => {
            "INSERT INTO ai_usage_log (user_id, customer_id, input_tokens, output_tokens, created_at) \
             SELECT CAST('00000000-0000-4000-8000-' || lpad((n % 9)::TEXT, 12, '0') AS UUID), n % 5, n, 10, \
                 '2026-02-01T00:00:00Z'::TIMESTAMPTZ + n * INTERVAL '67 minutes' FROM generate_series(0, 599) AS n"
        }
        Engine::Sqlite => {
            "WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < 599) \
             INSERT INTO ai_usage_log (id, user_id, customer_id, input_tokens, output_tokens, created_at) \
             SELECT printf('10000000-0000-4000-8000-%012d', n), printf('00000000-0000-4000-8000-%012d', n % 9), n % 5, n, 10, \
                 strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2026-02-01', (n * 67) || ' minutes') FROM counted"
        }
    };
    assert_eq!(fixture.execute(sql).await, 600);
}

/// The results of a run that nothing disturbs.
async fn undisturbed(engine: Engine) -> Vec<String> {
    let fixture = Fixture::new(engine).await;
    fill(&fixture, engine).await;
    fixture.run_well(RUN);
    fixture.results().await
}
