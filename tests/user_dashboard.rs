//! `user_dashboard_data`: totals, rates, categories, this month, today, plan and limits.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_dashboard_shows_usage_plan_and_limits,
    a_changed_plan_or_account_is_seen_by_the_next_run,
    midnight_moves_today_and_the_month,
    sums_do_not_overflow_32_bits,
    every_average_is_rounded_half_even_once,
    the_command_shows_what_the_seeds_api_does,
    one_user_is_refreshed_without_the_others,
);

const USER: [&str; 5] = [
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
    "00000000-0000-4000-8000-000000000004",
    "00000000-0000-4000-8000-000000000005",
];

fn run(fixture: &Fixture, as_of: &str) -> Vec<String> {
    let written = fixture.written(&["run-job", "usage_daily", "--downstream", "--as-of", as_of]);
    written.into_iter().filter(|window| window.starts_with("user_dashboard")).collect()
}

async fn account(fixture: &Fixture, user: usize, plan: &str, limit: i64, expires: &str) {
    fixture
        .execute(&format!(
            "INSERT INTO users (id, email, plan, requests_limit, plan_expires_at) VALUES ('{}', '{user}@x', '{plan}', {limit}, {expires})",
            USER[user]
        ))
        .await;
}

async fn plan(fixture: &Fixture, id: u32, user: usize, name: &str, limits: (i64, i64), start: &str, end: &str) {
    let (month, day) = limits;
    fixture
        .execute(&format!(
            "INSERT INTO user_plans (id, user_id, plan_name, monthly_requests, daily_requests, starts_at, expires_at) \
             VALUES ('00000000-0000-4000-8000-{id:012}', '{}', '{name}', {month}, {day}, '{start}T00:00:00.000000Z', {end})",
            USER[user]
        ))
        .await;
}

/// One chat request with its analytics.
#[allow(clippy::too_many_arguments, reason = "a row's columns")]
async fn chat(fixture: &Fixture, id: u32, user: usize, at: &str, status: &str, category: &str, rating: &str, duration: u32) {
    let request = format!("00000000-0000-4000-9000-{id:012}");
    fixture
        .execute(&format!(
            "INSERT INTO chat_requests (id, user_id, model, tokens_used, cost, duration, status, created_at) \
             VALUES ('{request}', '{}', 'm', 30, 3, {duration}, '{status}', '{at}')",
            USER[user]
        ))
        .await;
    fixture
        .execute(&format!(
            "INSERT INTO request_analytics (id, user_id, request_id, category, tokens_input, tokens_output, user_rating, created_at) \
             VALUES ('00000000-0000-4000-a000-{id:012}', '{}', '{request}', '{category}', 20, 10, {rating}, '{at}')",
            USER[user]
        ))
        .await;
}

async fn filled(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    // Two plans in force: the later start counts. One that expired: free. One of the account alone. Nothing but usage. No usage.
    account(&fixture, 0, "free", 100, "NULL").await;
    plan(&fixture, 1, 0, "pro", (1_000, 50), "2026-01-01", "NULL").await;
    plan(&fixture, 2, 0, "enterprise", (5, 3), "2026-02-01", "'2026-05-01T00:00:00.000000Z'").await;
    plan(&fixture, 3, 0, "future", (9, 9), "2026-09-01", "NULL").await;
    account(&fixture, 1, "pro", 777, "'2026-03-01T00:00:00.000000Z'").await;
    plan(&fixture, 4, 1, "pro", (777, 7), "2026-01-01", "'2026-03-01T00:00:00.000000Z'").await;
    account(&fixture, 2, "team", 2, "NULL").await;
    account(&fixture, 4, "free", 60, "NULL").await;
    for (id, (at, status, category, rating, duration)) in [
        ("2026-02-10T08:00:00.000000Z", "completed", "nft", "5", 100),
        ("2026-03-09T08:00:00.000000Z", "completed", "nft", "4", 201),
        ("2026-03-10T08:00:00.000000Z", "completed", "token", "NULL", 300),
        ("2026-03-10T09:00:00.000000Z", "failed", "token", "1", 900),
    ]
    .into_iter()
    .enumerate()
    {
        chat(&fixture, u32::try_from(id).unwrap(), 0, at, status, category, rating, duration).await;
    }
    chat(&fixture, 10, 1, "2026-03-10T08:00:00.000000Z", "completed", "dao", "NULL", 100).await;
    chat(&fixture, 11, 2, "2026-03-01T00:00:00.000000Z", "completed", "dao", "NULL", 100).await;
    chat(&fixture, 12, 2, "2026-03-10T23:00:00.000000Z", "completed", "dao", "NULL", 100).await;
    fixture.log("2026-03-10T08:00:00.000000Z", &[("user_id", "'00000000-0000-4000-8000-000000000004'"), ("input_tokens", "2500")]).await;
    fixture
}

const SHOWN: &str = "SELECT user_id, total_requests, total_tokens_used, total_cost, average_response_time, success_rate, average_rating, \
     requests_this_month, requests_today, plan_name, monthly_used, monthly_limit, daily_used, daily_limit, can_make_request, last_calculated_at \
     FROM user_dashboard_data ORDER BY user_id";

async fn a_dashboard_shows_usage_plan_and_limits(engine: Engine) {
    let fixture = filled(engine).await;
    assert_eq!(run(&fixture, "2026-03-10T23:30:00Z"), ["user_dashboard all"]);
    let shown: Vec<String> = fixture.rows(SHOWN).await.iter().map(|row| row.replace("00000000-0000-4000-8000-00000000000", "")).collect();
    assert_eq!(
        shown,
        [
            // 601 ms over 3 successes; 3 of 4; (5 + 4 + 1) / 3; 12 cents.
            "1|4|120|12|200|0.75|3.3333|3|2|enterprise|3|5|2|3|1|2026-03-10T23:30:00.000000Z",
            "2|1|30|3|100|1|NULL|1|1|free|1|100|1|NULL|1|2026-03-10T23:30:00.000000Z",
            "3|2|60|6|100|1|NULL|2|1|team|2|2|1|NULL|0|2026-03-10T23:30:00.000000Z",
            // 2,500 and 10 tokens at 3 and 15 USD for a million: 0.765 cents, rounded once.
            "4|1|2510|1|0|1|NULL|1|1|free|1|100|1|NULL|1|2026-03-10T23:30:00.000000Z",
            "5|0|0|0|0|0|NULL|0|0|free|0|60|0|NULL|1|2026-03-10T23:30:00.000000Z",
        ]
    );
    let categories =
        fixture.rows(&format!("SELECT CAST(requests_by_category AS TEXT) FROM user_dashboard_data WHERE user_id = '{}'", USER[0])).await;
    let categories: serde_json::Value = serde_json::from_str(&categories[0]).unwrap();
    assert_eq!(categories, serde_json::json!({ "nft": 2, "token": 2 }));
    assert_eq!(fixture.rows("SELECT requests_used FROM users ORDER BY id").await, ["3", "1", "2", "0"]);
    // Twice is once, and nothing is due the same day.
    assert!(run(&fixture, "2026-03-10T23:59:00Z").is_empty());
    let before = fixture.rows(SHOWN).await;
    fixture.run_well(&["run-job", "user_dashboard", "--force", "--as-of", "2026-03-10T23:30:00Z"]);
    assert_eq!(fixture.rows(SHOWN).await, before);
}

async fn a_changed_plan_or_account_is_seen_by_the_next_run(engine: Engine) {
    let fixture = filled(engine).await;
    let as_of = "2026-03-10T23:30:00Z";
    run(&fixture, as_of);
    let of = |user: usize| {
        format!("SELECT plan_name, monthly_limit, daily_limit, can_make_request FROM user_dashboard_data WHERE user_id = '{}'", USER[user])
    };
    plan(&fixture, 7, 2, "pro", (1_000, 50), "2026-03-09", "NULL").await;
    let changes: [(String, usize, &str); 9] = [
        ("UPDATE user_plans SET features = '[]' WHERE plan_name = 'enterprise'".to_owned(), 0, "enterprise|5|3|1"),
        (format!("UPDATE users SET plan = 'max', requests_limit = 900 WHERE id = '{}'", USER[4]), 4, "max|900|NULL|1"),
        (format!("UPDATE users SET is_active = FALSE WHERE id = '{}'", USER[4]), 4, "max|900|NULL|0"),
        (format!("UPDATE users SET plan_expires_at = '2026-03-10T23:00:00.000000Z' WHERE id = '{}'", USER[4]), 4, "free|100|NULL|0"),
        ("UPDATE user_plans SET daily_requests = 1 WHERE plan_name = 'enterprise'".to_owned(), 0, "enterprise|5|1|0"),
        ("UPDATE user_plans SET expires_at = '2026-03-10T23:00:00.000000Z' WHERE plan_name = 'enterprise'".to_owned(), 0, "pro|1000|50|1"),
        (format!("UPDATE user_plans SET is_active = FALSE WHERE user_id = '{}'", USER[0]), 0, "free|100|NULL|1"),
        (format!("INSERT INTO users (id, email, plan, requests_limit) VALUES ('{}', '3@x', 'new', 7)", USER[3]), 3, "new|7|NULL|1"),
        ("SELECT 1".to_owned(), 2, "pro|1000|50|1"),
    ];
    for (change, user, expected) in &changes {
        fixture.execute(change).await;
        let due = run(&fixture, as_of);
        assert_eq!(due.len(), usize::from(change != "SELECT 1"), "{change}");
        assert_eq!(fixture.rows(&of(*user)).await, [*expected], "{change}");
        assert!(run(&fixture, as_of).is_empty(), "{change}");
    }
    // Time alone: a plan that begins or ends within the day. What nothing is made from makes nothing due.
    plan(&fixture, 8, 2, "night", (3, 3), "2026-03-10", "'2026-03-10T23:50:00.000000Z'").await;
    assert_eq!(run(&fixture, "2026-03-10T23:40:00Z"), ["user_dashboard all"]);
    assert_eq!(fixture.rows(&of(2)).await, ["night|3|3|1"]);
    assert_eq!(run(&fixture, "2026-03-10T23:50:00Z"), ["user_dashboard all"]);
    assert_eq!(fixture.rows(&of(2)).await, ["pro|1000|50|1"]);
    fixture.execute("UPDATE users SET name = 'N'").await;
    assert!(run(&fixture, "2026-03-10T23:55:00Z").is_empty());
}

async fn midnight_moves_today_and_the_month(engine: Engine) {
    let fixture = filled(engine).await;
    fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"Asia/Kathmandu\"\n");
    // 18:15 UTC is midnight in Kathmandu: the request of 23:00 on the 10th is one of the 11th.
    run(&fixture, "2026-03-11T17:00:00Z");
    let today = "SELECT requests_today, requests_this_month FROM user_dashboard_data ORDER BY user_id";
    assert_eq!(fixture.rows(today).await, ["0|3", "0|1", "1|2", "0|1", "0|0"]);
    assert_eq!(run(&fixture, "2026-03-11T18:14:59Z"), Vec::<String>::new());
    assert_eq!(run(&fixture, "2026-03-11T18:15:00Z"), ["user_dashboard all"]);
    assert_eq!(fixture.rows(today).await, ["0|3", "0|1", "0|2", "0|1", "0|0"]);
    assert_eq!(run(&fixture, "2026-03-31T18:15:00Z"), ["user_dashboard all"]);
    assert_eq!(fixture.rows(today).await, ["0|0"; 5]);
    // The plan that ended in between falls back.
    run(&fixture, "2026-06-01T00:00:00Z");
    let plans = "SELECT plan_name, monthly_limit FROM user_dashboard_data ORDER BY user_id";
    assert_eq!(fixture.rows(plans).await[0], "pro|1000");
}

async fn sums_do_not_overflow_32_bits(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for hour in 0..6 {
        fixture.log(&format!("2026-03-10T{hour:02}:00:00.000000Z"), &[("input_tokens", "500000000"), ("output_tokens", "1")]).await;
    }
    run(&fixture, "2026-03-10T23:30:00Z");
    assert_eq!(fixture.rows("SELECT total_tokens_used, total_cost FROM user_dashboard_data").await, ["3000000006|900000"]);
}

async fn every_average_is_rounded_half_even_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    account(&fixture, 0, "free", 100, "NULL").await;
    // 201 ms of 2; 2 successes of 64 are 0.03125; ratings of 33 by 32 are 1.03125.
    for id in 0..64 {
        let (status, duration) = if id < 2 { ("completed", 100 + id) } else { ("failed", 9) };
        let rating = match id {
            0 => "2",
            1..32 => "1",
            _ => "NULL",
        };
        chat(&fixture, id, 0, "2026-03-10T08:00:00.000000Z", status, "nft", rating, duration).await;
    }
    run(&fixture, "2026-03-10T23:30:00Z");
    let shown = "SELECT average_response_time, success_rate, average_rating FROM user_dashboard_data";
    assert_eq!(fixture.rows(shown).await, ["100|0.0312|1.0312"]);
}

async fn the_command_shows_what_the_seeds_api_does(engine: Engine) {
    let fixture = filled(engine).await;
    fixture
        .execute("UPDATE user_plans SET max_tokens_per_request = 4000, features = '[\"chat\", \"<b>export</b>\"]' WHERE plan_name = 'enterprise'")
        .await;
    let none = fixture.run(&["dashboard", "--user", USER[0]]);
    assert_eq!(none.code, Some(2), "{none:?}");
    run(&fixture, "2026-03-10T23:30:00Z");
    let arguments = ["dashboard", "--user", USER[0], "--as-of", "2026-03-10T23:30:00Z"];
    let json: serde_json::Value = serde_json::from_str(&fixture.run_well(&[&arguments[..], &["--json"]].concat())).unwrap();
    for key in ["user", "metrics", "limits", "performance", "recentRequests", "requestsByCategory"] {
        assert!(json.get(key).is_some(), "{key}: {json}");
    }
    assert_eq!(
        json["user"],
        serde_json::json!({ "id": USER[0], "email": "0@x", "plan": "enterprise", "requestsUsed": 3, "requestsLimit": 5 })
    );
    assert_eq!(
        json["limits"],
        serde_json::json!({ "monthlyUsed": 3, "monthlyLimit": 5, "dailyUsed": 2, "dailyLimit": 3, "canMakeRequest": true, "planName": "enterprise",
            "maxTokensPerRequest": 4000, "features": ["chat", "<b>export</b>"] })
    );
    assert_eq!(json["performance"]["successRate"], 0.75);
    assert_eq!(json["requestsByCategory"], serde_json::json!({ "nft": 2, "token": 2 }));
    let recent: Vec<&str> =
        json["recentRequests"].as_array().unwrap().iter().map(|request| request["createdAt"].as_str().unwrap()).collect();
    assert_eq!(recent, ["2026-03-10T09:00:00Z", "2026-03-10T08:00:00Z", "2026-03-09T08:00:00Z", "2026-02-10T08:00:00Z"]);
    // The same on either database.
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("user_dashboard", fixture.run_well(&arguments));
    });
}

async fn one_user_is_refreshed_without_the_others(engine: Engine) {
    let fixture = filled(engine).await;
    run(&fixture, "2026-03-10T23:30:00Z");
    let before = fixture.rows(SHOWN).await;
    plan(&fixture, 9, 2, "pro", (1_000, 50), "2026-03-01", "NULL").await;
    fixture.execute(&format!("UPDATE user_dashboard_data SET total_requests = 77 WHERE user_id = '{}'", USER[0])).await;
    let arguments = ["dashboard", "--user", USER[2], "--refresh", "--as-of", "2026-03-10T23:40:00Z", "--json"];
    let json: serde_json::Value = serde_json::from_str(&fixture.run_well(&arguments)).unwrap();
    assert_eq!(json["limits"]["planName"], "pro");
    let after = fixture.rows(SHOWN).await;
    assert_eq!(after[2], before[2].replace("|team|2|2|1|NULL|0|", "|pro|2|1000|1|50|1|").replace("23:30", "23:40"));
    assert!(after[0].contains("|77|"), "{after:?}");
    assert_eq!([&after[1], &after[3], &after[4]], [&before[1], &before[3], &before[4]]);
    // The same as the job makes.
    fixture.run_well(&["run-job", "user_dashboard", "--force", "--as-of", "2026-03-10T23:40:00Z"]);
    assert_eq!(fixture.rows(SHOWN).await[2], after[2]);
    assert_eq!(fixture.run(&["dashboard", "--user", "00000000-0000-4000-8000-00000000dead", "--refresh"]).code, Some(2));
}
