//! Prices (`docs/semantics.md` section 2): cached, written and reasoning tokens, providers, tiers, sizes, a price that changes within a
//! day; what is missing, what another book would make of it, and LiteLLM's map.

use std::fs;

use serde_json::Value;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    each_event_has_its_price,
    a_price_that_changes_makes_its_days_due,
    failed_requests_are_free_where_they_are_to_be,
    what_is_missing_is_named,
    another_book_is_compared_before_anything_changes,
    prices_of_the_release_before_make_no_day_due,
);

const RUN: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

/// An event; its columns as `name = value`.
async fn event(fixture: &Fixture, instant: &str, columns: &[(&str, &str)]) {
    let (names, values): (Vec<&str>, Vec<&str>) = columns.iter().copied().unzip();
    let at = fixture.store.pick(format!("TIMESTAMPTZ '{instant}'"), format!("'{instant}'"));
    let sql = format!("INSERT INTO usage_event (occurred_at, user_id, {}) VALUES ({at}, 'ann', {})", names.join(", "), values.join(", "));
    fixture.execute(&sql).await;
}

/// A name, when, columns, what it costs.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

fn fail(fixture: &Fixture, arguments: &[&str]) -> (i32, String) {
    let finished = fixture.run(arguments);
    (finished.code.unwrap(), finished.stderr)
}

const BOOK: &str = r#"
[[price]]
model = "sonnet"
effective_from = "2026-01-01"
input_usd_per_million = "3"
cached_input_usd_per_million = "0.30"
cache_write_usd_per_million = "3.75"
output_usd_per_million = "15"

[[price]]
model = "sonnet"
above_input_tokens = 200000
effective_from = "2026-01-01"
input_usd_per_million = "6"
cached_input_usd_per_million = "0.60"
cache_write_usd_per_million = "7.50"
output_usd_per_million = "22.50"

[[price]]
model = "sonnet"
service_tier = "batch"
effective_from = "2026-01-01"
input_usd_per_million = "1.50"
output_usd_per_million = "7.50"

[[price]]
model = "o3*"
effective_from = "2026-01-01"
input_usd_per_million = "2"
output_usd_per_million = "8"
reasoning_usd_per_million = "9"

[[price]]
model = "o3*"
effective_from = "2026-03-10T12:00:00Z"
input_usd_per_million = "1"
output_usd_per_million = "4"

[[price]]
model = "azure/o3"
effective_from = "2026-01-01"
input_usd_per_million = "2.2"
output_usd_per_million = "8.8"
"#;

async fn each_event_has_its_price(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("prices.toml", BOOK);
    let morning = "2026-03-10T11:59:59.999999Z";
    let noon = "2026-03-10T12:00:00.000000Z";
    // What each costs in and out, in nano-USD, worked out by hand. The type keeps the groups apart.
    let cases: [Case<'_>; 12] = [
        (
            "cached and written",
            morning,
            &[
                ("model", "'sonnet'"),
                ("input_tokens", "1000"),
                ("cached_input_tokens", "600"),
                ("cache_write_tokens", "100"),
                ("output_tokens", "50"),
            ],
            "1455000|750000|2205000",
        ),
        (
            "at the size",
            morning,
            &[("model", "'sonnet'"), ("input_tokens", "200000"), ("output_tokens", "10")],
            "600000000|150000|600150000",
        ),
        (
            "past the size",
            morning,
            &[("model", "'sonnet'"), ("input_tokens", "200001"), ("cached_input_tokens", "1"), ("output_tokens", "10")],
            "1200000600|225000|1200225600",
        ),
        (
            "batch, of any size",
            morning,
            &[
                ("model", "'sonnet'"),
                ("service_tier", "'batch'"),
                ("input_tokens", "200001"),
                ("cached_input_tokens", "1"),
                ("output_tokens", "10"),
            ],
            "300001500|75000|300076500",
        ),
        (
            "another tier",
            morning,
            &[("model", "'sonnet'"), ("service_tier", "'flex'"), ("input_tokens", "1"), ("output_tokens", "1")],
            "3000|15000|18000",
        ),
        (
            "before noon",
            morning,
            &[("model", "'o3-mini'"), ("input_tokens", "10"), ("output_tokens", "10"), ("reasoning_tokens", "4")],
            "20000|84000|104000",
        ),
        (
            "from noon on",
            noon,
            &[("model", "'o3-mini'"), ("input_tokens", "10"), ("output_tokens", "10"), ("reasoning_tokens", "4")],
            "10000|40000|50000",
        ),
        (
            "of the provider",
            noon,
            &[("model", "'o3'"), ("provider", "'azure'"), ("input_tokens", "10"), ("output_tokens", "10")],
            "22000|88000|110000",
        ),
        (
            "of another provider",
            noon,
            &[("model", "'o3'"), ("provider", "'openai'"), ("input_tokens", "10"), ("output_tokens", "10")],
            "10000|40000|50000",
        ),
        (
            "logged",
            noon,
            &[
                ("model", "'o3'"),
                ("input_tokens", "10"),
                ("output_tokens", "10"),
                if engine == Engine::Postgres { ("cost_usd", "0.000000007") } else { ("cost_nanos", "7") },
            ],
            "NULL|NULL|7",
        ),
        ("a total alone", noon, &[("model", "'o3'"), ("total_tokens", "15")], "NULL|NULL|NULL"),
        ("without a price", noon, &[("model", "'o4'"), ("input_tokens", "10"), ("output_tokens", "10")], "NULL|NULL|NULL"),
    ];
    for (name, instant, columns, _) in &cases {
        event(&fixture, instant, &[&[("request_type", format!("'{name}'").as_str())], *columns].concat()).await;
    }
    fixture.run_well(&RUN);
    for (name, _, _, expected) in cases {
        let sql = format!("SELECT input_cost_nanos, output_cost_nanos, total_cost_nanos FROM usage_daily WHERE request_type = '{name}'");
        assert_eq!(fixture.rows(&sql).await, [expected], "{name}");
    }
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

/// The days that it is in force in, and no other.
async fn a_price_that_changes_makes_its_days_due(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("prices.toml", BOOK);
    event(&fixture, "2026-03-10T10:00:00.000000Z", &[("model", "'o3'"), ("input_tokens", "1"), ("output_tokens", "1")]).await;
    event(&fixture, "2026-03-09T10:00:00.000000Z", &[("model", "'o3'"), ("input_tokens", "1"), ("output_tokens", "1")]).await;
    fixture.run_well(&RUN);
    fixture.write("prices.toml", &BOOK.replace("\"1\"", "\"1.1\""));
    let planned = fixture.run_well(&[&RUN[..], &["--dry-run"]].concat());
    assert!(planned.contains("2026-03-10") && !planned.contains("2026-03-09"), "{planned}");
}

async fn failed_requests_are_free_where_they_are_to_be(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("prices.toml", BOOK);
    let logged = fixture.store.pick(("cost_usd", "0.5"), ("cost_nanos", "500000000"));
    for (model, more) in [("'o3'", ("rating", "1")), ("'unheard-of'", ("rating", "1")), ("'sonnet'", logged)] {
        let columns = [("model", model), ("status", "'error'"), ("input_tokens", "10"), ("output_tokens", "10"), more];
        event(&fixture, "2026-03-10T10:00:00.000000Z", &columns).await;
    }
    let read = "SELECT total_cost_nanos, unpriced_count FROM usage_daily_total";
    fixture.run_well(&RUN);
    assert_eq!(fixture.rows(read).await, ["500100000|1"]);
    fixture.write("tallyroll.toml", "[usage]\nfailed = \"free\"\n");
    fixture.run_well(&RUN);
    assert_eq!(fixture.rows(read).await, ["0|0"]);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    fixture.write("tallyroll.toml", "[usage]\nfailed = \"fre\"\n");
    let (code, error) = fail(&fixture, &["check"]);
    assert!(code == 78 && error.contains("`usage.failed` is one of `bill`, `free`"), "{error}");
}

async fn what_is_missing_is_named(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let of_one_provider = "[[price]]\nmodel = \"phi\"\nprovider = \"azure\"\neffective_from = \"2026-01-01\"\n\
         input_usd_per_million = \"1\"\noutput_usd_per_million = \"1\"\n";
    fixture.write("prices.toml", &format!("{BOOK}\n{of_one_provider}"));
    let tokens = [("input_tokens", "10"), ("output_tokens", "5")];
    for (day, model) in [("10", "'sonnett'"), ("12", "'sonnett'"), ("11", "'sonnet'"), ("11", "'llama'"), ("11", "'phi'"), ("11", "NULL")] {
        event(&fixture, &format!("2026-03-{day}T10:00:00.000000Z"), &[&[("model", model)], &tokens[..]].concat()).await;
    }
    event(&fixture, "2025-12-31T10:00:00.000000Z", &[&[("model", "'o3'")], &tokens[..]].concat()).await;
    fixture.run_well(&RUN);
    let missing: Vec<String> = fixture
        .run_well(&["prices", "missing", "--json"])
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            ["model", "unpriced_count", "tokens", "first_date", "last_date", "priced_from", "priced_only_as", "nearest"]
                .map(|key| line[key].to_string())
                .join(" ")
        })
        .collect();
    let expected = [
        r#""sonnett" 2 30 "2026-03-10" "2026-03-12" null null "sonnet""#,
        r#""llama" 1 15 "2026-03-11" "2026-03-11" null null null"#,
        r#""phi" 1 15 "2026-03-11" "2026-03-11" null "`azure/phi`" null"#,
        r#""o3" 1 15 "2025-12-31" "2025-12-31" "2026-01-01T00:00:00Z" null null"#,
        r#"null 1 15 "2026-03-11" "2026-03-11" null null null"#,
    ];
    let mut sorted = missing.clone();
    sorted.sort();
    let mut expected_sorted = expected.to_vec();
    expected_sorted.sort_unstable();
    assert_eq!(sorted, expected_sorted);
    assert_eq!(missing[0], expected[0]);
    let shown = fixture.run_well(&["prices", "missing"]);
    assert!(
        shown.contains("like `sonnet`?")
            && shown.contains("priced from 2026-01-01")
            && shown.contains("only `azure/phi`")
            && shown.contains("(no model)"),
        "{shown}"
    );
}

async fn another_book_is_compared_before_anything_changes(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("prices.toml", BOOK);
    for (instant, customer, model) in [
        ("2026-03-10T10:00:00.000000Z", "'acme'", "'o3'"),
        ("2026-03-11T10:00:00.000000Z", "'acme'", "'o3'"),
        ("2026-03-11T10:00:00.000000Z", "NULL", "'new'"),
        ("2026-04-01T10:00:00.000000Z", "'acme'", "'o3'"),
        ("2026-04-01T10:00:00.000000Z", "'acme'", "'sonnet'"),
    ] {
        let columns = [("customer_id", customer), ("model", model), ("input_tokens", "1000000"), ("output_tokens", "1000000")];
        event(&fixture, instant, &columns).await;
    }
    // Without a run: the raw log says it.
    let new =
        "[[price]]\nmodel = \"new\"\neffective_from = \"2026-01-01\"\ninput_usd_per_million = \"1\"\noutput_usd_per_million = \"1\"\n";
    fixture.write("other.toml", &format!("{}{new}", BOOK.replacen("\"1\"", "\"1.5\"", 1)));
    let diff = |more: &[&str]| -> Vec<String> {
        let told = fixture.run_well(&[&["prices", "diff", "other.toml", "--json"], more].concat());
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            ["usage_month", "customer_id", "model", "request_count", "cost_usd", "other_cost_usd", "unpriced_count", "other_unpriced_count"]
                .map(|key| line[key].to_string().replace('"', ""))
                .join(" ")
        };
        told.lines().map(line).collect()
    };
    let march = ["2026-03-01 null new 1 null 2.000000000 1 0", "2026-03-01 acme o3 2 15.000000000 15.500000000 0 0"];
    let april = "2026-04-01 acme o3 1 5.000000000 5.500000000 0 0";
    assert_eq!(diff(&[]), [&march[..], &[april]].concat());
    assert_eq!(diff(&["--from", "2026-03-11", "--to", "2026-04-01"])[1], "2026-03-01 acme o3 1 5.000000000 5.500000000 0 0");
    let shown = fixture.run_well(&["prices", "diff", "other.toml"]);
    assert!(shown.contains("+0.500000") && shown.contains("unknown") && shown.contains("1 requests now, 0 with the other"), "{shown}");
    assert!(fixture.run_well(&["prices", "diff", "prices.toml"]).contains("It costs the same"));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    let (code, error) = fail(&fixture, &["prices", "diff", "nowhere.toml"]);
    assert!(code == 2 && error.contains("nowhere.toml"), "{error}");
}

/// The rules' digest of a day as the release before made it, of two prices of a model.
async fn prices_of_the_release_before_make_no_day_due(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[usage]\nsources = [\"ai_usage_log\", \"usage_event\"]\n");
    let two = "[[price]]\nmodel = \"m\"\neffective_from = \"2026-01-01\"\ninput_usd_per_million = \"2\"\noutput_usd_per_million = \"4\"\n";
    fixture.write("prices.toml", two);
    event(&fixture, "2026-03-04T10:00:00.000000Z", &[("model", "'m'"), ("input_tokens", "1"), ("output_tokens", "1")]).await;
    fixture.run_well(&RUN);
    let fingerprint = "UPDATE job_window SET input_fingerprint = 'v2 c10b6242625c18ef87f04a14468a9263' WHERE job = 'usage_daily'";
    fixture.execute(fingerprint).await;
    let planned = fixture.run_well(&[&RUN[..], &["--dry-run"]].concat());
    assert!(!planned.contains("2026-03-04"), "{planned}");
    fixture.write("prices.toml", &format!("{two}cached_input_usd_per_million = \"1\"\n"));
    let planned = fixture.run_well(&[&RUN[..], &["--dry-run"]].concat());
    assert!(planned.contains("2026-03-04"), "{planned}");
}

const MAP: &str = r#"{
    "sample_spec": {"input_cost_per_token": 0.0},
    "sonnet": {"input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07,
        "input_cost_per_token_batches": 1.5e-06, "output_cost_per_token_batches": 7.5e-06, "input_cost_per_audio_token": 1e-05},
    "azure/o3": {"input_cost_per_token": 2.2e-06, "output_cost_per_token": 8.8e-06},
    "drawn": {"output_cost_per_image": 0.04}
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_litellm_is_written_into_the_book() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("map.json", MAP);
    let read = || fs::read_to_string(fixture.path().join("prices.toml")).unwrap();
    let import = |more: &[&str]| -> Value {
        let told = fixture.run_well(&[&["prices", "import", "map.json", "--json"], more].concat());
        serde_json::from_str(&told).unwrap()
    };
    // Without a book; then into one, whose lines stay.
    let told = import(&["--from", "2026-01-01", "--model", "son*"]);
    assert_eq!([&told["written_count"], &told["model_count"], &told["partial_count"]], [2, 3, 1].map(Value::from).each_ref(), "{told}");
    assert_eq!(told["left_out"]["it has no price of tokens in and out"], 1);
    fixture.write("prices.toml", &format!("# Ours.\n{}", read()));
    assert_eq!(import(&["--from", "2026-01-01"])["written_count"], 1);
    assert!(read().starts_with("# Ours.\n[[price]]\nmodel = \"sonnet\"\neffective_from = \"2026-01-01\"\n"), "{}", read());
    assert_eq!(import(&["--from", "2026-01-01"])["written_count"], 0);
    fixture.run_well(&["check"]);
    // What changes is in force from its day on; what does not is not repeated.
    fixture.write("map.json", &MAP.replace("2.2e-06", "2.1e-06"));
    let before = read();
    assert_eq!(import(&["--from", "2026-02-01", "--dry-run"])["new_count"], 1);
    assert_eq!(read(), before);
    assert_eq!(import(&["--from", "2026-02-01"])["written_count"], 1);
    let shown = |at: &str| fixture.run_well(&["prices", "show", "o3", "--at", at, "--json"]);
    assert!(shown("2026-01-31T23:59:59Z").contains(r#""input_usd_per_million":"2.2""#), "{}", shown("2026-01-31"));
    assert!(shown("2026-02-01").contains(r#""input_usd_per_million":"2.1""#));
    assert!(fixture.run_well(&["prices", "show", "o3", "--at", "2025-06-01"]).contains("the first is from 2026-01-01"));
    // Another price from the very day is a mistake, and nothing is written.
    fixture.write("map.json", &MAP.replace("2.2e-06", "2.3e-06"));
    let before = read();
    let (code, error) = fail(&fixture, &["prices", "import", "map.json", "--from", "2026-02-01"]);
    assert!(code == 2 && error.contains("another price of `azure/o3` from 2026-02-01"), "{error}");
    assert_eq!(read(), before);
    // A link leads to the file that is meant, and stays one; the file's mode stays, too.
    let linked = fixture.path().join("real.toml");
    fs::rename(fixture.path().join("prices.toml"), &linked).unwrap();
    fs::set_permissions(&linked, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("real.toml", fixture.path().join("prices.toml")).unwrap();
    assert_eq!(import(&["--from", "2026-03-01"])["written_count"], 1);
    assert!(fs::symlink_metadata(fixture.path().join("prices.toml")).unwrap().is_symlink());
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&linked).unwrap().permissions()) & 0o777, 0o600);
    for (text, code, expected) in [
        ("[1]", 65, "not LiteLLM's map"),
        (r#"{"m": {"input_cost_per_token": "x", "output_cost_per_token": 1}}"#, 65, "`m`: `input_cost_per_token`"),
        (r#"{"m": {"input_cost_per_token": 1e30, "output_cost_per_token": 1}}"#, 65, "larger than"),
    ] {
        fixture.write("map.json", text);
        let (exit, error) = fail(&fixture, &["prices", "import", "map.json"]);
        assert!(exit == code && error.contains(expected), "{exit} {error}");
    }
    let (code, error) = fail(&fixture, &["prices", "show", "sonett"]);
    assert!(code == 2 && error.contains("did you mean `sonnet`?"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_prices_that_nothing_decides_between() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let again = "[[price]]\nmodel = \"o3\"\nprovider = \"azure\"\neffective_from = \"2026-01-01\"\ninput_usd_per_million = \"1\"\noutput_usd_per_million = \"1\"\n";
    fixture.write("prices.toml", &format!("{BOOK}\n{again}"));
    let (code, error) = fail(&fixture, &["check"]);
    assert!(code == 78 && error.contains("price 7 (`o3`): a second price") && error.contains("as specific as price 6"), "{error}");
}
