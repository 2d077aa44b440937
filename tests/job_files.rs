//! Job, SQL and other project files that could destroy, hang or lie: refused before anything is touched.

mod columns;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_job_writes_no_table_of_tallyrolls_or_of_the_databases,
    a_table_that_the_job_did_not_make_keeps_its_rows,
    tables_that_jobs_of_an_earlier_release_made_are_theirs,
    a_check_that_does_more_than_read_is_refused,
    a_select_that_does_more_than_read_is_refused,
    a_source_that_does_more_than_read_is_refused,
    comments_and_semicolons_around_a_statement_do_no_harm,
    whatever_a_check_returns_is_shown,
    a_table_that_took_the_place_of_a_jobs_keeps_its_rows,
);

const JOB: &str = "description = \"d\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"id\"]\nwindow = \"all\"\n";
pub const AS_OF: &str = "2026-04-15T00:00:00Z";

/// A database with a request, a subscription and an application's own table.
pub async fn fixture(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.execute("INSERT INTO subscription (id, org_id, start_at) VALUES ('kept', 'org', '2026-01-01T00:00:00.000000Z')").await;
    fixture.execute("CREATE TABLE orders (id TEXT, total BIGINT)").await;
    fixture.execute("INSERT INTO orders VALUES ('kept', 1)").await;
    fixture.run_well(&["run-job", "usage_daily", "--as-of", AS_OF]);
    fixture
}

impl Fixture {
    /// `check` and `run-job` both refuse, and what was there is there; what they say.
    pub async fn assert_refused(&self, job: &str, what: &str) -> String {
        let mut told = String::new();
        for arguments in [&["check"][..], &["run-job", job, "--force", "--as-of", AS_OF]] {
            let refused = self.run(arguments);
            assert_eq!(refused.code, Some(78), "{arguments:?} of {what}\n{refused:?}");
            told.push_str(&refused.stderr);
        }
        self.assert_untouched(what).await;
        told
    }

    async fn assert_untouched(&self, what: &str) {
        assert_eq!(self.rows("SELECT id FROM subscription UNION ALL SELECT id FROM orders").await, ["kept", "kept"], "{what}");
        assert_eq!(self.number("SELECT COUNT(*) FROM ai_usage_log").await, 1, "{what}");
        assert_eq!(self.number("SELECT COUNT(*) FROM usage_daily").await, 1, "{what}");
        assert_eq!(self.table("gone").await, "", "{what}");
    }

    async fn table(&self, name: &str) -> String {
        self.store.table_columns(name).await.unwrap().join(" ")
    }
}

async fn a_job_writes_no_table_of_tallyrolls_or_of_the_databases(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/greedy.sql", "SELECT 'x' AS id");
    for writes in [
        "subscription",
        "Subscription",
        "ai_usage_log",
        "users",
        "seat_usage_event",
        "job_window",
        "usage_daily",
        "USAGE_DAILY_USER",
        "ai_usage_summary",
        "tallyroll_migration",
        "pg_class",
        "sqlite_master",
        "Sqlite_Sequence",
        "information_schema",
    ] {
        fixture.write("jobs/greedy.toml", &format!("{JOB}writes = \"{writes}\"\n"));
        let told = fixture.assert_refused("greedy", writes).await;
        assert!(told.contains("greedy.toml") && told.contains(&format!("`writes = \"{writes}\"`")), "{told}");
    }
    // A job's own name counts as well, and two names that SQLite takes for one.
    std::fs::remove_file(fixture.path().join("jobs/greedy.toml")).unwrap();
    fixture.write("jobs/user_plans.toml", JOB);
    fixture.write("sql/user_plans.sql", "SELECT 'x' AS id");
    fixture.assert_refused("user_plans", "the job's own name").await;
    std::fs::remove_file(fixture.path().join("jobs/user_plans.toml")).unwrap();
    // In the place of a built-in job that is of another kind.
    for (job, window) in [("peak_seats", "all"), ("usage_daily", "day"), ("usage_daily_user", "month")] {
        fixture.write(
            &format!("jobs/{job}.toml"),
            &JOB.replace("\"all\"", &format!("\"{window}\"")).replace("usage_daily\"]", "chat_requests\"]"),
        );
        fixture.write(&format!("sql/{job}.sql"), &format!("SELECT * FROM {job} WHERE 1 = 0"));
        let told = fixture.assert_refused(job, "another kind of job").await;
        assert!(told.contains("keeps its operator, window"), "{told}");
        std::fs::remove_file(fixture.path().join(format!("jobs/{job}.toml"))).unwrap();
        std::fs::remove_file(fixture.path().join(format!("sql/{job}.sql"))).unwrap();
    }
    for job in ["first", "second"] {
        fixture.write(&format!("sql/{job}.sql"), "SELECT 'x' AS id");
        fixture.write(&format!("jobs/{job}.toml"), &format!("{JOB}writes = \"{}\"\n", if job == "first" { "Mine" } else { "mine" }));
    }
    fixture.assert_refused("second", "two names that differ in case").await;
}

async fn a_table_that_the_job_did_not_make_keeps_its_rows(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.execute("CREATE VIEW order_list AS SELECT id FROM orders").await;
    fixture.write("sql/greedy.sql", "SELECT 'x' AS id");
    for writes in ["orders", "order_list"] {
        fixture.write("jobs/greedy.toml", &format!("{JOB}writes = \"{writes}\"\n"));
        fixture.assert_refused("greedy", writes).await;
    }
    // Handed over on purpose, by the statement that the error gives.
    fixture.write("jobs/greedy.toml", &format!("{JOB}writes = \"orders\"\n"));
    let told = fixture.run(&["run-job", "greedy"]).stderr;
    let statement = told.split('`').find(|part| part.starts_with("INSERT INTO ")).unwrap_or_else(|| panic!("{told}"));
    fixture.execute(statement).await;
    fixture.run_well(&["check"]);
    fixture.run_well(&["run-job", "greedy", "--as-of", AS_OF]);
    assert_eq!(fixture.rows("SELECT id FROM orders").await, ["x"]);
    // One that a job made stays that job's; a view in its place is none.
    fixture.write("jobs/maker.toml", JOB);
    fixture.write("sql/maker.sql", "SELECT 'x' AS id");
    fixture.run_well(&["run-job", "maker", "--as-of", AS_OF]);
    std::fs::remove_file(fixture.path().join("jobs/maker.toml")).unwrap();
    fixture.write("jobs/greedy.toml", &format!("{JOB}writes = \"maker\"\n"));
    let refused = fixture.run(&["run-job", "greedy", "--as-of", AS_OF]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("`maker`"), "{}", refused.stderr);
    fixture.write("jobs/maker.toml", JOB);
    fixture.write("jobs/greedy.toml", &format!("{JOB}writes = \"orders\"\n"));
    fixture.execute("DROP TABLE maker").await;
    fixture.execute("CREATE VIEW maker AS SELECT id FROM subscription").await;
    let refused = fixture.run(&["run-job", "maker", "--force", "--as-of", AS_OF]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert_eq!(fixture.rows("SELECT id FROM subscription").await, ["kept"]);
}

async fn tables_that_jobs_of_an_earlier_release_made_are_theirs(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/mine.sql", "SELECT 'x' AS id");
    fixture.write("jobs/mine.toml", JOB);
    fixture.run_well(&["run-job", "mine", "--as-of", AS_OF]);
    fixture.execute("DROP TABLE result_table").await;
    fixture.execute("DELETE FROM tallyroll_migration WHERE version = 20261125009400").await;
    fixture.run_well(&["migrate"]);
    assert_eq!(fixture.rows("SELECT table_name, job FROM result_table WHERE table_name = 'mine'").await, ["mine|mine"]);
    fixture.run_well(&["run-job", "mine", "--force", "--as-of", AS_OF]);
    // One that only failed has made none.
    assert_eq!(fixture.number("SELECT COUNT(*) FROM result_table WHERE table_name = 'orders'").await, 0);
}

/// The job's table was dropped, and the application made one of its own of that name.
async fn a_table_that_took_the_place_of_a_jobs_keeps_its_rows(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/mine.sql", "SELECT 'x' AS id");
    fixture.write("jobs/mine.toml", JOB);
    let run = ["run-job", "mine", "--force", "--as-of", AS_OF];
    fixture.run_well(&run);
    let place = if engine == Engine::Postgres { "public.mine" } else { "mine" };
    fixture.execute("ALTER TABLE mine ADD COLUMN note TEXT").await;
    fixture.run_well(&run);
    fixture.execute("DROP TABLE mine").await;
    fixture.execute(&format!("CREATE TABLE {place} (id TEXT PRIMARY KEY, total BIGINT)")).await;
    fixture.execute(&format!("INSERT INTO {place} VALUES ('kept', 1)")).await;
    let told = fixture.assert_refused("mine", "another table of that name").await;
    assert!(told.contains("`mine`"), "{told}");
    assert_eq!(fixture.rows(&format!("SELECT id FROM {place}")).await, ["kept"]);
    fixture.execute(&format!("DROP TABLE {place}")).await;
    fixture.run_well(&run);
    assert_eq!(fixture.rows("SELECT id FROM mine").await, ["x"]);
    // An index is no table.
    if engine == Engine::Sqlite {
        fixture.write("jobs/mine.toml", &format!("{JOB}writes = \"idx_seat_assignments_user\"\n"));
        let told = fixture.assert_refused("mine", "an index").await;
        assert!(told.contains("is no table"), "{told}");
    }
}

/// A cursor that is held is read when the transaction commits, after what a job's SQL may do has ended.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_select_leaves_is_run_afterwards() {
    let fixture = fixture(Engine::Postgres).await;
    fixture.execute("CREATE FUNCTION wipe() RETURNS INTEGER LANGUAGE sql AS 'DELETE FROM orders; SELECT 1'").await;
    let hold = "CREATE FUNCTION hold() RETURNS TEXT LANGUAGE plpgsql AS \
         $$ BEGIN EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT wipe()'; RETURN 'x'; END; $$";
    fixture.execute(hold).await;
    fixture.execute("CREATE TABLE public.mine (id TEXT)").await;
    fixture.execute("CREATE TABLE public.job_window (LIKE tallyroll.job_window INCLUDING ALL)").await;
    fixture.execute("INSERT INTO public.mine VALUES ('kept')").await;
    fixture.execute("CREATE TABLE tallyroll.mine (id TEXT UNIQUE)").await;
    fixture.execute("INSERT INTO result_table VALUES ('mine', 'mine')").await;
    let elsewhere = "set_config('search_path', 'public, tallyroll', false)";
    for attack in ["hold()", elsewhere, &format!("set_config('role', 'none', false) || hold() || {elsewhere}")] {
        for (select, more) in [
            (attack, String::new()),
            ("'x'", format!("[checks]\nno_rows = \"SELECT 1 AS one WHERE {attack} = ''\"\n")),
            ("'x'", format!("follows = \"SELECT {attack} AS one\"\n")),
        ] {
            fixture.write("sql/mine.sql", &format!("SELECT {select} AS id"));
            fixture.write("jobs/mine.toml", &format!("{JOB}{more}"));
            let ran = fixture.run(&["run-job", "mine", "--force", "--as-of", AS_OF]);
            assert_eq!(ran.code, Some(0), "{attack} {more} {ran:?}");
            assert_eq!(fixture.rows("SELECT id FROM orders").await, ["kept"], "{attack} {more}");
            assert_eq!(fixture.rows("SELECT id FROM public.mine").await, ["kept"], "{attack} {more}");
            assert_eq!(fixture.number("SELECT COUNT(*) FROM tallyroll.mine").await, 1, "{attack} {more}");
            assert_eq!(fixture.number("SELECT COUNT(*) FROM public.job_window").await, 0, "{attack} {more}");
        }
    }
}

/// Texts that do something else than give rows.
fn attacks(engine: Engine) -> Vec<&'static str> {
    let mut attacks = vec![
        "DELETE FROM subscription RETURNING id",
        "DELETE FROM orders",
        "UPDATE orders SET id = 'gone' RETURNING id",
        "INSERT INTO orders VALUES ('gone', 1) RETURNING id",
        "CREATE TABLE gone AS SELECT 'x' AS id",
        "DROP TABLE orders",
        "SELECT 'x' AS id; DELETE FROM orders",
        "SELECT 'x' AS id WHERE 1 = 0; DELETE FROM orders; COMMIT",
        "SELECT 'x' AS id WHERE 1 = 0; COMMIT; BEGIN; DELETE FROM orders",
        "SELECT 'x' AS id) AS result; DELETE FROM orders; SELECT * FROM (SELECT 'x' AS id",
        "SELECT 'x' AS id WHERE 1 = 0 -- \n; DELETE FROM orders; --",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT gone",
        "EXPLAIN SELECT 'x' AS id",
    ];
    match engine {
        Engine::Postgres => attacks.extend([
            "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone",
            "WITH gone AS (UPDATE orders SET id = 'gone' RETURNING id) SELECT id FROM gone WHERE id = 'none'",
            "SELECT 'x' AS id INTO gone",
            "SELECT id FROM orders FOR UPDATE",
            "EXPLAIN ANALYZE DELETE FROM orders",
            "COPY orders TO PROGRAM 'true'",
            "SET transaction_read_only = off",
            "DO $$ BEGIN DELETE FROM orders; END $$",
            "TRUNCATE orders",
            "NOTIFY gone",
            "DECLARE gone CURSOR FOR SELECT 'x' AS id",
        ]),
        Engine::Sqlite => attacks.extend([
            "ATTACH DATABASE 'gone.db' AS gone",
            "PRAGMA writable_schema = ON",
            "PRAGMA journal_mode = DELETE",
            "SELECT load_extension('gone') AS id",
            "SELECT 1 AS id, * FROM pragma_optimize",
            "VACUUM INTO 'gone.db'",
            "REPLACE INTO orders VALUES ('gone', 1) RETURNING id",
            "SELECT ? AS id",
        ]),
    }
    attacks
}

async fn a_check_that_does_more_than_read_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/mine.sql", "SELECT 'x' AS id");
    for attack in attacks(engine) {
        fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nno_rows = '''\n{attack}\n'''\n"));
        let told = fixture.assert_refused("mine", attack).await;
        assert!(told.contains("no_rows") && told.contains("mine.toml"), "{attack}\n{told}");
    }
    // Nothing was made either: the next good one makes the table.
    assert_eq!(fixture.table("mine").await, "");
    fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nno_rows = \"SELECT id FROM mine WHERE id <> 'x'\"\n"));
    fixture.run_well(&["check"]);
    fixture.run_well(&["run-job", "mine", "--as-of", AS_OF]);
    assert_eq!(fixture.rows("SELECT id FROM mine").await, ["x"]);
    for attack in attacks(engine).into_iter().take(9) {
        fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nno_rows = '''\n{attack}\n'''\n"));
        fixture.assert_refused("mine", attack).await;
    }
}

async fn a_select_that_does_more_than_read_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("jobs/mine.toml", JOB);
    for attack in attacks(engine) {
        fixture.write("sql/mine.sql", attack);
        fixture.assert_refused("mine", attack).await;
        assert_eq!(fixture.table("mine").await, "", "{attack}");
    }
    if engine == Engine::Sqlite {
        return;
    }
    // What a function does shows only as it runs: then the server refuses it.
    fixture.execute("CREATE FUNCTION wipe() RETURNS TEXT LANGUAGE sql AS 'DELETE FROM orders RETURNING id'").await;
    fixture.execute("CREATE SEQUENCE counter").await;
    // One that takes the lock off itself.
    let unlocking = "CREATE FUNCTION unlock() RETURNS TEXT LANGUAGE plpgsql SET transaction_read_only = off AS \
         $$ BEGIN DELETE FROM orders; RETURN 'x'; END; $$";
    fixture.execute(unlocking).await;
    for attack in ["wipe()", "unlock()", "CAST(nextval('counter') AS TEXT)", "CAST(setval('counter', 9) AS TEXT)"] {
        fixture.write("sql/mine.sql", &format!("SELECT {attack} AS id"));
        fixture.write("jobs/mine.toml", JOB);
        let refused = fixture.run(&["run-job", "mine", "--force", "--as-of", AS_OF]);
        assert_eq!(refused.code, Some(78), "{attack} {refused:?}");
        assert!(refused.stderr.contains("sql/mine.sql") && refused.stderr.contains("only read"), "{attack} {}", refused.stderr);
        fixture.write("sql/mine.sql", "SELECT 'x' AS id");
        fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nno_rows = \"SELECT {attack} AS id\"\n"));
        let refused = fixture.run(&["run-job", "mine", "--force", "--as-of", AS_OF]);
        assert_eq!(refused.code, Some(78), "{attack} {refused:?}");
        assert!(refused.stderr.contains("no_rows") && refused.stderr.contains("only read"), "{}", refused.stderr);
        fixture.assert_untouched(attack).await;
    }
    assert_eq!(fixture.rows("SELECT is_called FROM counter").await, ["0"]);
}

async fn a_source_that_does_more_than_read_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    let built_in = |source: &str| {
        let path = format!("sql/sources/{source}.{}.sql", fixture.store.engine());
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        (path, text)
    };
    let (path, text) = built_in("ai_usage_log");
    let parts: Vec<&str> = text.split("-- name: ").collect();
    let deleting = match engine {
        Engine::Postgres => "WITH gone AS (DELETE FROM orders RETURNING id)\nSELECT",
        Engine::Sqlite => "DELETE FROM orders;\nSELECT",
    };
    for name in ["events", "changed", "position", "next_event"] {
        let hostile: Vec<String> = parts
            .iter()
            .map(|part| if part.starts_with(name) { part.replacen("SELECT", deleting, 1) } else { (*part).to_owned() })
            .collect();
        fixture.write(&path, &hostile.join("-- name: "));
        for arguments in [&["check"][..], &["run-job", "usage_daily", "--as-of", AS_OF], &["run-job", "usage_daily", "--dry-run"]] {
            let refused = fixture.run(arguments);
            assert_eq!(refused.code, Some(78), "{name} {arguments:?} {refused:?}");
            assert!(refused.stderr.contains(&path) && refused.stderr.contains(name), "{}", refused.stderr);
        }
        fixture.assert_untouched(name).await;
    }
    std::fs::remove_file(fixture.path().join(&path)).unwrap();
    for source in ["subscription", "seat_usage_event"] {
        let (path, text) = built_in(source);
        let breaking_out = format!("{text}) AS x; DELETE FROM orders; SELECT * FROM ({text}");
        for hostile in [text.replacen("SELECT", deleting, 1), breaking_out] {
            fixture.write(&path, &hostile);
            let explain = ["explain", "peak-seats", "--subscription", "kept", "--month-number", "1", "--as-of", AS_OF];
            for arguments in [&["check"][..], &["run-job", "peak_seats", "--as-of", AS_OF], &explain] {
                let refused = fixture.run(arguments);
                assert_eq!(refused.code, Some(78), "{source} {arguments:?} {refused:?}");
                assert!(refused.stderr.contains(&path), "{}", refused.stderr);
            }
            fixture.assert_untouched(source).await;
        }
        std::fs::remove_file(fixture.path().join(&path)).unwrap();
    }
}

async fn comments_and_semicolons_around_a_statement_do_no_harm(engine: Engine) {
    let fixture = fixture(engine).await;
    let select = "SELECT 'it''s; -- x' AS id";
    let harmless = [
        format!("{select} -- end"),
        format!("{select} -- end\n"),
        format!("{select} /* end; */"),
        format!("{select};  "),
        format!("{select};;"),
        format!("{select} ; -- end"),
        format!("{select}; /* end */ ; \n"),
        format!("\u{feff}{select}"),
        format!("-- first\r\n{select}\r\n-- last\r\n"),
        format!("/* :window_strt ; */ {select} /* : */"),
    ];
    for (number, text) in harmless.iter().enumerate() {
        let job = format!("mine_{number}");
        fixture.write(&format!("jobs/{job}.toml"), &format!("{JOB}[checks]\nnone = '''SELECT id FROM {job} WHERE id = 'y'; -- end'''\n"));
        fixture.write(&format!("sql/{job}.sql"), text);
        fixture.run_well(&["run-job", &job, "--as-of", AS_OF]);
        assert_eq!(fixture.rows(&format!("SELECT id FROM {job}")).await, ["it's; -- x"], "{text}");
    }
    fixture.run_well(&["check"]);
    for empty in ["", " \n", "-- only\n", ";", "/* only */ ;; -- x"] {
        fixture.write("jobs/mine_0.toml", JOB);
        fixture.write("sql/mine_0.sql", empty);
        fixture.assert_empty(empty);
        fixture.write("sql/mine_0.sql", select);
        fixture.write("jobs/mine_0.toml", &format!("{JOB}[checks]\nnone = '''{empty}'''\n"));
        fixture.assert_empty(empty);
    }
    std::fs::remove_file(fixture.path().join("jobs/mine_0.toml")).unwrap();
    // The same for what is read as a part of another statement.
    for source in ["subscription", "seat_usage_event"] {
        let path = format!("sql/sources/{source}.{}.sql", fixture.store.engine());
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        fixture.write(&path, &format!("{text}; -- end"));
    }
    fixture.run_well(&["run-job", "peak_seats", "--as-of", AS_OF]);
    fixture.run_well(&["explain", "peak-seats", "--subscription", "kept", "--month-number", "1", "--as-of", AS_OF]);
}

impl Fixture {
    fn assert_empty(&self, text: &str) {
        for arguments in [&["check"][..], &["run-job", "mine_0", "--as-of", AS_OF]] {
            let refused = self.run(arguments);
            assert_eq!(refused.code, Some(78), "{text:?} {refused:?}");
            assert!(refused.stderr.contains("must hold one SELECT"), "{text:?} {}", refused.stderr);
        }
    }
}

async fn whatever_a_check_returns_is_shown(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/mine.sql", "SELECT 'x' AS id");
    let cases: &[(&str, &str)] = match engine {
        Engine::Postgres => &[
            ("DATE 'infinity'", "v = infinity"),
            ("DATE '-infinity'", "v = -infinity"),
            ("DATE '4000000-01-01'", "v = "),
            ("DATE '4713-01-01 BC'", "v = -4712-01-01"),
            ("TIMESTAMPTZ 'infinity'", "v = infinity"),
            ("TIMESTAMP '-infinity'", "v = -infinity"),
            ("TIMESTAMPTZ '290000-01-01Z'", "v = "),
            ("CAST('NaN' AS NUMERIC)", "v = NaN"),
            ("CAST('NaN' AS DOUBLE PRECISION)", "v = NaN"),
            ("CAST(1e40 AS NUMERIC) + 0.5", "v = 10000000000000000000000000000000000000000.5"),
            ("CAST('-0.000000000000000000000000000000000012' AS NUMERIC)", "v = -0.000000000000000000000000000000000012"),
            ("repeat('9', 100000)::NUMERIC", "v = 999"),
            ("INTERVAL '1 day'", "INTERVAL"),
            ("ARRAY[1, 2]", "INT4[]"),
            ("CAST('{\"a\": 1}' AS JSON)", "v = {\"a\": 1}"),
            ("CAST('{\"a\": 1}' AS JSONB)", "v = {\"a\": 1}"),
            ("CAST('a' AS BYTEA)", "v = \\x61"),
            ("TRUE", "v = 1"),
            ("CAST('10.0.0.1' AS INET)", "INET"),
            ("ROW(1, 'a')", "RECORD"),
            ("CAST('mood' AS mood)", "v = mood"),
            ("repeat('x', 5000000)", "v = xxx"),
        ],
        Engine::Sqlite => &[
            ("x'ff00'", "v = \\xff00"),
            ("CAST(x'ff' AS TEXT)", "v = \u{fffd}"),
            ("9e999", "v = inf"),
            ("1.5", "v = 1.5"),
            ("hex(zeroblob(2500000))", "v = 000"),
        ],
    };
    if engine == Engine::Postgres {
        fixture.execute("CREATE TYPE mood AS ENUM ('mood')").await;
    }
    for (value, shown) in cases {
        fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nodd = '''SELECT {value} AS v'''\n"));
        let failed = fixture.run(&["run-job", "mine", "--as-of", AS_OF]);
        assert_eq!(failed.code, Some(65), "{value} {failed:?}");
        assert!(failed.stderr.contains("returned 1 row") && failed.stderr.contains(shown), "{value} {}", failed.stderr);
        assert!(!failed.stderr.contains("panicked") && failed.stderr.len() < 2_000, "{value} {}", failed.stderr);
    }
    // Many rows are not all fetched to show the first.
    let many = "WITH RECURSIVE n AS (SELECT 1 AS v UNION ALL SELECT v + 1 FROM n WHERE v < 3000000) SELECT v FROM n";
    fixture.write("jobs/mine.toml", &format!("{JOB}[checks]\nodd = '''{many}'''\n"));
    let failed = fixture.run(&["run-job", "mine", "--as-of", AS_OF]);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("1000 rows or more") && failed.stderr.contains("v = 1"), "{}", failed.stderr);
    // Where such a value should be data, that is said.
    let (path, from) = match engine {
        Engine::Postgres => ("sql/sources/subscription.postgres.sql", "start_at AS start_at"),
        Engine::Sqlite => ("sql/sources/subscription.sqlite.sql", "start_at AS start_at"),
    };
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let odd = if engine == Engine::Postgres { "CAST('infinity' AS TIMESTAMPTZ) AS start_at" } else { "x'ff' AS start_at" };
    fixture.write(path, &text.replace(from, odd));
    let failed = fixture.run(&["explain", "peak-seats", "--subscription", "kept", "--month-number", "1", "--as-of", AS_OF]);
    assert_eq!(failed.code, Some(65), "{failed:?}");
}
