//! Exports of other tools go in as they are: status words, tokens that nest or stand side by side, units, rows that are no requests.

use serde_json::Value;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    what_the_command_line_names_comes_first,
    each_tools_export_goes_in_as_it_is,
    a_format_of_ones_own,
    a_column_of_the_log_is_a_field_of_the_event,
    a_row_that_is_the_sum_of_many_requests_becomes_as_many_events,
    mistakes_are_explained
);

const EXPORTS: [(&str, &str); 4] = [
    ("litellm.csv", include_str!("fixtures/formats/litellm.csv")),
    ("openai.jsonl", include_str!("fixtures/formats/openai.jsonl")),
    ("anthropic.jsonl", include_str!("fixtures/formats/anthropic.jsonl")),
    ("langfuse.jsonl", include_str!("fixtures/formats/langfuse.jsonl")),
];

async fn each_tools_export_goes_in_as_it_is(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for (file, text) in EXPORTS {
        fixture.write(file, text);
        let told = fixture.run_well(&["import", "usage", "--format", "auto", file]);
        let name = file.split('.').next().unwrap();
        assert!(told.contains(&format!("in the format `{name}`")), "{told}");
        // By its name, too: nothing new comes.
        let again: Value = serde_json::from_str(&fixture.run_well(&["import", "usage", "--format", name, file, "--json"])).unwrap();
        assert_eq!((&again["inserted_count"], &again["bad_count"]), (&Value::from(0), &Value::from(0)), "{again}");
    }
    let cost = if engine == Engine::Postgres { "CAST(cost_usd * 1000000000 AS BIGINT)" } else { "cost_nanos" };
    let read = format!(
        "SELECT source_name, event_id, user_id, customer_id, customer_name, request_type, provider, model, service_tier, status, input_tokens, \
         cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens, {cost} AS cost, latency_ms \
         FROM usage_event ORDER BY source_name, event_id"
    );
    assert_eq!(
        fixture.rows(&read).await,
        [
            "anthropic|msg_01|ann|NULL|NULL|message|anthropic|claude-sonnet-4-20250514|standard|success|2098|1800|248|503|0|NULL|NULL|NULL",
            "anthropic|msg_02|bob|NULL|NULL|message|anthropic|claude-sonnet-4-20250514|batch|success|7|0|0|3|0|NULL|NULL|NULL",
            "langfuse|obs-2|ann|NULL|NULL|answer|NULL|gpt-4o|NULL|success|1000|600|0|200|64|NULL|3750000|2346",
            "langfuse|obs-3|bob|NULL|NULL|answer|NULL|gpt-4o|NULL|error|0|0|0|0|0|NULL|NULL|NULL",
            "litellm|chatcmpl-a1|ann@example.com|team-1|Search, Berlin|acompletion|openai|gpt-4o|NULL|success|1000|600|0|200|64|1200|2450000|1250",
            "litellm|chatcmpl-a2|bob|org-9|NULL|acompletion|anthropic|claude-sonnet-4|NULL|success|20|5|7|10|0|30|12000|1900",
            "litellm|chatcmpl-a3|ann@example.com|team-1|NULL|acompletion|openai|gpt-4o|NULL|error|0|0|0|0|0|0|0|100",
            "openai|chatcmpl-o1|ann|NULL|NULL|chat.completion|openai|gpt-4o-2024-08-06|default|success|2006|1920|0|300|128|NULL|NULL|NULL",
            "openai|resp_o2|bob|NULL|NULL|response|openai|o3|flex|success|36|0|0|87|64|NULL|NULL|NULL",
            "openai|resp_o3|cy|NULL|NULL|response|openai|o3|NULL|error|1|0|0|0|0|NULL|NULL|NULL",
        ]
    );
    let instants = "SELECT occurred_at FROM usage_event WHERE source_name = 'openai' ORDER BY event_id";
    assert_eq!(fixture.rows(instants).await, ["2026-03-10T10:00:00.000000Z", "2026-03-11T10:00:00.500000Z", "2026-03-11T10:00:01.000000Z"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event WHERE tags IS NOT NULL").await, 4);
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 10);
}

async fn what_the_command_line_names_comes_first(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let anthropic = EXPORTS[2]
        .1
        .replace("\"input_tokens\": 50", "\"all\": 2098, \"input_tokens\": 50")
        .replace("\"input_tokens\": 7", "\"all\": 7, \"input_tokens\": 7");
    fixture.write("anthropic.jsonl", &anthropic);
    fixture.run_well(&["import", "usage", "--format", "anthropic", "anthropic.jsonl", "--column", "input_tokens=usage.all"]);
    assert_eq!(fixture.number("SELECT SUM(input_tokens) FROM usage_event").await, 2_105);
    let langfuse = EXPORTS[3].1.replace("\"latency\": 2.3455", "\"latency\": 2.3455, \"took\": 7");
    fixture.write("langfuse.jsonl", &langfuse);
    fixture.run_well(&["import", "usage", "--format", "langfuse", "langfuse.jsonl", "--column", "latency_ms=took"]);
    assert_eq!(fixture.rows("SELECT latency_ms FROM usage_event WHERE event_id = 'obs-2'").await, ["7"]);
    // A header may have a dot of its own.
    fixture.write("flat.csv", "event.time,who,usage.input_tokens\n2026-03-10,ann,5\n");
    let flat = ["import", "usage", "flat.csv", "--column", "occurred_at=event.time", "--column", "user_id=who", "--column"];
    fixture.run_well(&[&flat[..], &["input_tokens=usage.input_tokens"]].concat());
    assert_eq!(fixture.number("SELECT SUM(input_tokens) FROM usage_event WHERE source_name = 'import'").await, 5);
}

async fn a_format_of_ones_own(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "formats/gateway.toml",
        "description = \"Our gateway\"\nrecognised_by = [\"when\", \"who\"]\nseconds = [\"latency_ms\"]\n[columns]\noccurred_at = \"when\"\n\
         user_id = \"who\"\ninput_tokens = \"in\"\nlatency_ms = \"took\"\nstatus = \"ok\"\n[words.status]\nsuccess = [\"y\"]\nerror = [\"n\"]\n[constants]\nmodel = \"m\"\n",
    );
    fixture.write("log.csv", "when,who,in,took,ok\n2026-03-10,ann,5,0.25,Y\n2026-03-10,ann,6,,n\n2026-03-10,ann,6,soon,n\n");
    let told = fixture.run_well(&["import", "usage", "--format", "auto", "log.csv", "--dry-run"]);
    for part in ["in the format `gateway`", "column `took`", "`m` in every row", "line 4: `latency_ms`: not a number of seconds"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.5\n");
    fixture.run_well(&["import", "usage", "--format", "gateway", "log.csv", "--set", "model=other"]);
    let read = "SELECT model, status, latency_ms FROM usage_event ORDER BY input_tokens";
    assert_eq!(fixture.rows(read).await, ["other|success|250", "other|error|NULL"]);
}

/// A field may be called by the name of the log's column; called twice, nobody knows which is meant.
async fn a_column_of_the_log_is_a_field_of_the_event(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let format = |more: &str| {
        format!(
            "description = \"d\"\nrecognised_by = [\"when\"]\n[columns]\ncreated_at = \"when\"\nuser_id = \"who\"\nid = \"no\"\ncost_usd = \"spend\"\nmodel_used = \"m\"\n{more}"
        )
    };
    fixture.write("formats/mine.toml", &format("[words.model_used]\nbig = [\"b\"]\n"));
    fixture.write("log.csv", "no,when,who,spend,m\nx1,2026-03-10,ann,0.5,b\n");
    fixture.run_well(&["import", "usage", "--format", "mine", "log.csv"]);
    let read = format!("SELECT event_id, model, {} FROM usage_event", fixture.store.dialect().cost_nanos());
    assert_eq!(fixture.rows(&read).await, ["x1|big|500000000"]);
    fixture.write("formats/mine.toml", &format("model = \"other\"\n"));
    for command in [&["check"][..], &["import", "usage", "--format", "mine", "log.csv"]] {
        let refused = fixture.run(command);
        assert!(refused.code == Some(78) && refused.stderr.contains("`model` is there twice"), "{refused:?}");
    }
}

async fn a_row_that_is_the_sum_of_many_requests_becomes_as_many_events(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("usage.csv", include_str!("fixtures/formats/openai_usage.csv"));
    let import = ["import", "usage", "--format", "auto", "usage.csv"];
    let told: Value = serde_json::from_str(&fixture.run_well(&[&import[..], &["--dry-run", "--json"]].concat())).unwrap();
    assert_eq!(told["preview"]["models"]["gpt-4o-2024-08-06"]["event_count"], 8, "{told}");
    let told = fixture.run(&import);
    assert!(told.code == Some(0) && told.stdout.contains("Left out of usage.csv, as sums of spans that are not over: 1;"), "{told:?}");
    let groups = "SELECT user_id, customer_id, model, service_tier, MIN(occurred_at) AS at, COUNT(*) AS n, SUM(input_tokens) AS input, \
         SUM(cached_input_tokens) AS cached, SUM(output_tokens) AS output, COUNT(DISTINCT event_id) AS ids, MAX(input_tokens) - MIN(input_tokens) AS spread \
         FROM usage_event GROUP BY user_id, customer_id, model, service_tier ORDER BY 1, 3";
    assert_eq!(
        fixture.rows(groups).await,
        [
            "key_1|proj_1|o3|batch|2026-03-11T00:00:00.000000Z|1|36|0|87|1|0",
            "user-a|proj_1|gpt-4o-2024-08-06|default|2026-03-10T00:00:00.000000Z|7|900719925474099|450359962737049|1001|7|2",
            "user-b|proj_1|gpt-4o-2024-08-06|NULL|2026-03-10T00:00:00.000000Z|1|12|5|3|1|0",
        ]
    );
    // The same file brings nothing new, and its requests are counted once.
    assert!(fixture.run(&import).stdout.contains(" 9 "), "nine are there already");
    fixture.run_well(&["run-job", "usage_daily", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 9);
    assert_eq!(fixture.number("SELECT SUM(quarantined_count) FROM job_window").await, 0);
    fixture.write("costs.csv", include_str!("fixtures/formats/openai_costs.csv"));
    let refused = fixture.run(&["import", "usage", "--format", "auto", "costs.csv"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("by day and line item, without a request or a token"), "{}", refused.stderr);
}

async fn mistakes_are_explained(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("log.csv", "when,who\n2026-03-10,ann\n");
    for (format, file, code, said) in [
        ("litelm", "log.csv", 2, "did you mean `litellm`?"),
        ("auto", "log.csv", 2, "in no format that is known here"),
        ("auto", "-", 2, "standard input cannot be looked at first"),
        ("../../etc/passwd", "log.csv", 2, "There is no format"),
        ("litellm", "log.csv", 2, "gives `occurred_at`"),
    ] {
        let refused = fixture.run(&["import", "usage", "--format", format, file]);
        assert_eq!(refused.code, Some(code), "{format}: {refused:?}");
        assert!(refused.stderr.contains(said), "{format}: {}", refused.stderr);
    }
    for (text, said) in [
        (
            "description = \"d\"\nrecognised_by = [\"a\"]\n[columns]\nuser_idd = \"x\"\n",
            "there is no field `user_idd`: did you mean `user_id`?",
        ),
        ("description = \"d\"\nrecognised_by = []\n", "names no header"),
        ("description = \"d\"\nrecognized_by = []\n", "is no format"),
    ] {
        fixture.write("formats/mine.toml", text);
        let refused = fixture.run(&["import", "usage", "--format", "mine", "log.csv"]);
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
}
