//! The admin's dashboard against an oracle over the raw rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    every_number_is_that_of_the_raw_rows,
    the_job_keeps_what_the_command_computes,
    an_empty_log_has_an_empty_dashboard,
    costs_and_a_users_usage_are_those_of_the_raw_rows
);

/// One request of the log, as it was written.
#[derive(Debug, Clone)]
pub struct Request {
    day: u64,
    user: u64,
    customer: Option<u64>,
    kind: &'static str,
    input: i64,
    output: i64,
    latency_ms: Option<i64>,
    is_error: bool,
    is_unpriced: bool,
}

impl Request {
    fn date(&self) -> String {
        (chrono::NaiveDate::from_ymd_opt(2026, 2, 1).unwrap() + chrono::Days::new(self.day)).to_string()
    }

    /// None: unpriced.
    fn nanos(&self) -> Option<i128> {
        (!self.is_unpriced).then(|| i128::from(self.input) * 3_000 + i128::from(self.output) * 15_000)
    }
}

pub const AS_OF: &str = "2026-03-20T12:00:00Z";

/// Forty-nine days of requests, the last on the day of [`AS_OF`]; the same in every run.
fn requests() -> Vec<Request> {
    let mut state = 7_u64;
    let mut next = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mut requests: Vec<Request> = (0..400)
        .map(|_| Request {
            day: next(49).max(next(49)).min(47),
            user: next(40),
            customer: (next(5) > 0).then(|| next(30) + 1),
            kind: ["report", "insight", "widget"][usize::try_from(next(3)).unwrap()],
            input: i64::try_from(next(9_000)).unwrap(),
            output: i64::try_from(next(2_000)).unwrap(),
            latency_ms: (next(4) > 0).then(|| i64::try_from(next(5_000)).unwrap()),
            is_error: next(6) == 0,
            is_unpriced: next(5) == 0,
        })
        .collect();
    // Users, customers, a type and a day of which no cost is known.
    for request in &mut requests {
        request.kind = if request.user % 11 == 4 { "batch" } else { request.kind };
        request.is_unpriced |= request.kind == "batch" || request.customer.is_some_and(|customer| customer % 9 == 2) || request.day == 45;
    }
    requests
}

pub async fn filled(engine: Engine) -> (Fixture, Vec<Request>) {
    let fixture = Fixture::new(engine).await;
    let requests = requests();
    for (index, request) in requests.iter().enumerate() {
        let null = |number: Option<i64>| number.map_or("NULL".to_owned(), |number| number.to_string());
        // A user's and a customer's name changes half-way: they stay one.
        let version = u8::from(request.day > 40);
        let set = [
            ("user_id", format!("'00000000-0000-4000-8000-{:012}'", request.user)),
            ("user_email", format!("'u{}.{version}@x'", request.user)),
            ("customer_id", null(request.customer.map(|id| i64::try_from(id).unwrap()))),
            ("customer_name", request.customer.map_or("NULL".to_owned(), |id| format!("'c{id}.{version}'"))),
            ("request_type", format!("'{}'", request.kind)),
            ("input_tokens", request.input.to_string()),
            ("output_tokens", request.output.to_string()),
            ("latency_ms", null(request.latency_ms)),
            ("cost_basis", if request.is_unpriced { "'logged'" } else { "'generated'" }.to_owned()),
            ("status", if request.is_error { "'error'" } else { "'success'" }.to_owned()),
        ];
        let set: Vec<(&str, &str)> = set.iter().map(|(column, value)| (*column, value.as_str())).collect();
        fixture.log(&format!("{}T08:00:{:02}.{:06}Z", request.date(), index % 60, index), &set).await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    (fixture, requests)
}

/// `numerator / denominator` in units of 10^-places, rounded half-even.
fn rounded(numerator: i128, denominator: i128, places: u32) -> String {
    let unit = 10_i128.pow(places);
    let (quotient, rest) = ((numerator * unit) / denominator, (numerator * unit) % denominator);
    let up = rest * 2 > denominator || (rest * 2 == denominator && quotient % 2 == 1);
    let value = quotient + i128::from(up);
    if places == 0 { value.to_string() } else { format!("{}.{:0width$}", value / unit, value % unit, width = places as usize) }
}

const USD: i128 = 1_000_000_000;

fn sum(requests: &[&Request], of: impl Fn(&Request) -> i128) -> i128 {
    requests.iter().map(|request| of(request)).sum()
}

fn tokens(request: &Request) -> i128 {
    (request.input + request.output).into()
}

fn priced<'a>(requests: &[&'a Request]) -> Vec<&'a Request> {
    requests.iter().copied().filter(|request| !request.is_unpriced).collect()
}

fn count_of<T>(requests: &[T]) -> i128 {
    i128::try_from(requests.len()).unwrap()
}

/// What requests cost, as it is shown: null where none of them has a known cost.
fn cost_of(requests: &[&Request], places: u32) -> String {
    cost_of_part(requests, |request| request.nanos().unwrap(), places)
}

fn cost_of_part(requests: &[&Request], nanos: impl Fn(&Request) -> i128, places: u32) -> String {
    let known = priced(requests);
    if known.is_empty() && !requests.is_empty() { "null".to_owned() } else { rounded(sum(&known, nanos), USD, places) }
}

/// What a successful request costs, over those whose cost is known.
fn cost_of_each(requests: &[&Request], places: u32) -> String {
    let good: Vec<&Request> = requests.iter().copied().filter(|request| !request.is_error).collect();
    let known = priced(&good);
    if known.is_empty() && !good.is_empty() {
        "null".to_owned()
    } else {
        rounded(sum(&known, |request| request.nanos().unwrap()), USD * count_of(&known).max(1), places)
    }
}

/// The dashboard's JSON text: numbers as they are written.
fn dashboard(fixture: &Fixture, days: &str) -> (String, Value) {
    let text = fixture.run_well(&["dashboard", "--days", days, "--as-of", AS_OF, "--json"]);
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

#[allow(clippy::too_many_lines, reason = "one look at everything that the dashboard shows")]
async fn every_number_is_that_of_the_raw_rows(engine: Engine) {
    let (fixture, all) = filled(engine).await;
    for days in [0_u64, 7, 30, 90] {
        // Today, the 47th day after 1 February, and the days before it.
        let within: Vec<&Request> = all.iter().filter(|request| request.day + days >= 47 && request.day <= 47).collect();
        let good: Vec<&Request> = within.iter().copied().filter(|request| !request.is_error).collect();
        let timed: Vec<&Request> = good.iter().copied().filter(|request| request.latency_ms.is_some()).collect();
        let (text, found) = dashboard(&fixture, &days.to_string());
        let count = count_of(&within);
        let over = |requests: &[&Request]| i128::try_from(requests.len().max(1)).unwrap();
        let summary = format!(
            "\"summary\":{{\"total_requests\":{count},\"successful_requests\":{},\"failed_requests\":{},\"total_input_tokens\":{},\"total_output_tokens\":{},\
             \"total_tokens\":{},\"total_cost_usd\":{},\"avg_tokens_per_request\":{},\"avg_cost_per_request\":{},\"avg_latency_ms\":{}}}",
            good.len(),
            within.len() - good.len(),
            sum(&within, |request| request.input.into()),
            sum(&within, |request| request.output.into()),
            sum(&within, tokens),
            cost_of(&within, 2),
            rounded(sum(&good, tokens), over(&good), 0),
            cost_of_each(&within, 4),
            if timed.is_empty() {
                "null".to_owned()
            } else {
                rounded(sum(&timed, |request| request.latency_ms.unwrap().into()), over(&timed), 0)
            },
        );
        assert!(text.contains(&summary), "{days} days\n{summary}\n{text}");
        let costs = format!(
            "\"costs\":{{\"input_cost_usd\":{},\"output_cost_usd\":{},\"total_cost_usd\":{},\"cost_per_1k_tokens\":{}}}",
            cost_of_part(&within, |request| i128::from(request.input) * 3_000, 2),
            cost_of_part(&within, |request| i128::from(request.output) * 15_000, 2),
            cost_of(&within, 2),
            rounded(sum(&priced(&within), |request| request.nanos().unwrap() * 1_000), USD * sum(&priced(&within), tokens), 4),
        );
        assert!(text.contains(&costs), "{days} days\n{costs}\n{text}");

        let mut users: BTreeMap<u64, Vec<&Request>> = BTreeMap::new();
        let mut customers: BTreeMap<u64, Vec<&Request>> = BTreeMap::new();
        let mut dates: BTreeMap<String, Vec<&Request>> = BTreeMap::new();
        let mut kinds: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
        for request in &within {
            users.entry(request.user).or_default().push(request);
            if let Some(customer) = request.customer {
                customers.entry(customer).or_default().push(request);
            }
            dates.entry(request.date()).or_default().push(request);
            kinds.entry(request.kind).or_default().push(request);
        }
        // Ids are texts, and so is their order.
        let by_cost = |groups: &BTreeMap<u64, Vec<&Request>>, text: fn(u64) -> String| {
            let mut order: Vec<(i128, String, u64)> =
                groups.iter().map(|(id, requests)| (-sum(requests, |one| one.nanos().unwrap_or(0)), text(*id), *id)).collect();
            order.sort_unstable();
            order.truncate(25);
            order.into_iter().map(|(_, _, id)| id).collect::<Vec<_>>()
        };
        let label = |requests: &[&Request]| u8::from(requests.iter().any(|request| request.day > 40));
        let expected: Vec<Value> = by_cost(&users, |id| format!("{id:012}"))
            .iter()
            .map(|user| {
                let requests = &users[user];
                json!([
                    format!("00000000-0000-4000-8000-{user:012}"),
                    format!("u{user}.{}@x", label(requests)),
                    requests.len(),
                    sum(requests, tokens).to_string()
                ])
            })
            .collect();
        let shown = |user: &Value| json!([user["user_id"], user["user_email"], user["request_count"], user["total_tokens"].to_string()]);
        assert_eq!(found["by_user"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>(), expected, "{days} days");
        let shown_users = text.split("\"by_user\":").nth(1).unwrap().split("\"by_customer\":").next().unwrap();
        let costs: Vec<String> = by_cost(&users, |id| format!("{id:012}"))
            .iter()
            .map(|user| format!("\"total_cost\":{},\"avg_cost_per_request\":{}", cost_of(&users[user], 4), cost_of_each(&users[user], 6)))
            .collect();
        assert_eq!(shown_users.matches("\"total_cost\":").count(), costs.len());
        for (user, cost) in shown_users.split("},{").zip(&costs) {
            assert!(user.contains(cost), "{days} days: {cost}\n{user}");
        }

        let expected: Vec<Value> = by_cost(&customers, |id| id.to_string())
            .iter()
            .map(|customer| {
                let requests = &customers[customer];
                let unique: BTreeSet<u64> = requests.iter().map(|request| request.user).collect();
                let fragment = format!("\"total_cost\":{},\"unique_users\":{}}}", cost_of(requests, 4), unique.len());
                assert!(text.contains(&fragment), "{days} days: customer {customer} {fragment}\n{text}");
                json!([customer, format!("c{customer}.{}", label(requests)), requests.len(), unique.len()])
            })
            .collect();
        let shown = |customer: &Value| {
            json!([customer["customer_id"], customer["customer_name"], customer["request_count"], customer["unique_users"]])
        };
        assert_eq!(found["by_customer"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>(), expected, "{days} days");

        let expected: Vec<String> = dates
            .iter()
            .map(|(date, requests)| {
                let unique: BTreeSet<u64> = requests.iter().map(|request| request.user).collect();
                let cost = cost_of(requests, 4);
                format!(
                    "{{\"date\":\"{date}\",\"requests\":{},\"tokens\":{},\"cost\":{cost},\"unique_users\":{}}}",
                    requests.len(),
                    sum(requests, tokens),
                    unique.len()
                )
            })
            .collect();
        assert!(text.contains(&format!("\"daily_trend\":[{}]", expected.join(","))), "{days} days\n{expected:?}\n{text}");
        for kind in found["by_request_type"].as_array().unwrap() {
            let requests = &kinds[kind["request_type"].as_str().unwrap()];
            assert_eq!(kind["count"], requests.len());
            assert_eq!(kind["tokens"].to_string(), sum(requests, tokens).to_string());
            let name = kind["request_type"].as_str().unwrap();
            let fragment = format!(
                "\"request_type\":\"{name}\",\"count\":{},\"tokens\":{},\"cost\":{}",
                kind["count"],
                kind["tokens"],
                cost_of(requests, 4)
            );
            assert!(text.contains(&fragment), "{days} days: {fragment}\n{text}");
            assert_eq!(kind["cost"].is_null(), name == "batch");
        }
        assert_eq!(found["by_request_type"].as_array().unwrap().len(), kinds.len());
        for (key, month) in [("current_month", "2026-03"), ("previous_month", "2026-02")] {
            let requests: Vec<&Request> = all.iter().filter(|request| request.date().starts_with(month)).collect();
            let cost = cost_of(&requests, 2);
            let expected =
                format!("\"{key}\":{{\"requests\":{},\"tokens\":{},\"cost_usd\":{cost}}}", requests.len(), sum(&requests, tokens));
            assert!(text.contains(&expected), "{expected}\n{text}");
        }
    }
}

async fn the_job_keeps_what_the_command_computes(engine: Engine) {
    let (fixture, _) = filled(engine).await;
    let keys = "SELECT dashboard_key FROM usage_dashboard ORDER BY dashboard_key";
    assert_eq!(fixture.rows(keys).await, ["admin:30", "admin:7", "admin:90", "cost_summary"]);
    for days in ["7", "30", "90"] {
        let kept = fixture.rows(&format!("SELECT CAST(content AS TEXT) FROM usage_dashboard WHERE dashboard_key = 'admin:{days}'")).await;
        let kept: Value = serde_json::from_str(&kept[0]).unwrap();
        assert_eq!(kept, dashboard(&fixture, days).1, "{days} days");
    }
    let run = |as_of: &str| {
        let written = fixture.written(&["run-job", "usage_daily", "--downstream", "--as-of", as_of]);
        written.into_iter().filter(|window| window.starts_with("usage_dashboard")).count()
    };
    // The same day nothing is due; at midnight it is, and when other spans are asked for.
    assert_eq!(run("2026-03-20T23:59:59Z"), 0);
    assert_eq!(run("2026-03-21T00:00:00Z"), 1);
    fixture.write("tallyroll.toml", "[dashboard]\ndays = [1, 365]\n");
    assert_eq!(run("2026-03-21T00:00:00Z"), 1);
    assert_eq!(fixture.rows(keys).await, ["admin:1", "admin:365", "cost_summary"]);
    let shown = fixture.run_well(&["dashboard", "--days", "3", "--as-of", AS_OF]);
    assert!(shown.contains("2026-03-20") && shown.contains("USD") && shown.lines().all(|line| line.chars().count() <= 110), "{shown}");
}

async fn an_empty_log_has_an_empty_dashboard(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (text, found) = dashboard(&fixture, "30");
    assert_eq!(found["summary"]["total_requests"], 0);
    assert!(text.contains("\"total_cost_usd\":0.00") && text.contains("\"by_user\":[]"), "{text}");
    fixture.run_well(&["dashboard"]);
}

async fn costs_and_a_users_usage_are_those_of_the_raw_rows(engine: Engine) {
    let (fixture, all) = filled(engine).await;
    let text = fixture.run_well(&["dashboard", "--costs", "--as-of", AS_OF, "--json"]);
    let cost = |from: u64, to: u64| cost_of(&all.iter().filter(|one| (from..to).contains(&one.day)).collect::<Vec<_>>(), 2);
    let count = |from: u64, to: u64| all.iter().filter(|one| (from..to).contains(&one.day)).count();
    // Day 47 is Friday 20 March; the week began on day 43, the month on day 28.
    let expected = format!(
        "{{\"today\":{},\"yesterday\":{},\"this_week\":{},\"this_month\":{},\"last_month\":{},\"all_time\":{},\"requests_today\":{},\"requests_this_month\":{}}}\n",
        cost(47, 48),
        cost(46, 47),
        cost(43, 50),
        cost(28, 59),
        cost(0, 28),
        cost(0, 99),
        count(47, 48),
        count(28, 59)
    );
    assert_eq!(text, expected);
    assert!(fixture.run_well(&["dashboard", "--costs", "--as-of", AS_OF]).contains("this week"));
    // The day of which no cost is known, on its evening.
    let unknown = ["dashboard", "--costs", "--as-of", "2026-03-18T23:00:00Z"];
    assert!(fixture.run_well(&[&unknown[..], &["--json"]].concat()).starts_with("{\"today\":null,"));
    assert!(fixture.run_well(&unknown).contains("unknown"));
    assert!(
        fixture
            .run_well(&["dashboard", "--days", "0", "--as-of", "2026-03-18T23:00:00Z"])
            .contains("cost         unknown USD; unknown USD")
    );

    let user = "00000000-0000-4000-8000-000000000003";
    let text = fixture.run_well(&["dashboard", "--user", user, "--usage", "--days", "30", "--as-of", AS_OF, "--json"]);
    let mine: Vec<&Request> = all.iter().filter(|one| one.user == 3 && one.day >= 17).collect();
    let good: Vec<&Request> = mine.iter().copied().filter(|one| !one.is_error).collect();
    let summary = format!(
        "{{\"summary\":{{\"total_requests\":{},\"total_tokens\":{},\"total_cost_usd\":{},\"avg_tokens_per_request\":{}}}",
        mine.len(),
        sum(&mine, tokens),
        cost_of(&mine, 4),
        rounded(sum(&good, tokens), i128::try_from(good.len()).unwrap(), 0)
    );
    assert!(text.starts_with(&summary), "{summary}\n{text}");
    let found: Value = serde_json::from_str(&text).unwrap();
    let recent = found["recent_requests"].as_array().unwrap();
    assert_eq!(recent.len(), mine.len());
    assert!(recent.windows(2).all(|pair| pair[0]["created_at"].as_str() > pair[1]["created_at"].as_str()), "{recent:?}");
    let last = mine.iter().max_by_key(|one| one.day).unwrap();
    assert!(
        text.contains(&format!("\"cost\":{},\"latency_ms\"", last.nanos().map_or("null".to_owned(), |nanos| rounded(nanos, USD, 6)))),
        "{text}"
    );
    let days: BTreeSet<String> = mine.iter().map(|one| one.date()).collect();
    let shown: BTreeSet<String> =
        found["daily_usage"].as_array().unwrap().iter().map(|day| day["date"].as_str().unwrap().to_owned()).collect();
    assert_eq!(days, shown);
    assert!(fixture.run_well(&["dashboard", "--user", user, "--usage", "--as-of", AS_OF]).contains("recent request"));
}
