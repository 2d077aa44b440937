//! `dashboard`: the admin's dashboard or a user's, in the terminal.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

use super::output;
use super::session::Session;
use crate::clock::Clock;
use crate::dashboard::admin::{TypeUsage, UsageDashboard};
use crate::dashboard::costs::CostSummary;
use crate::dashboard::number::Usd;
use crate::dashboard::user::{self as dashboard, UserDashboard};
use crate::dashboard::user_usage::UserUsage;
use crate::import::parse_instant;
use crate::store::{Create, format_instant};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A user's own dashboard, by the user's id
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The user's days and requests with what they cost, in place of totals and limits
    #[arg(long, requires = "user")]
    usage: bool,
    /// Compute the user's dashboard afresh first
    #[arg(long, requires = "user", conflicts_with = "usage")]
    refresh: bool,
    /// Only what was spent today, this week, this month and ever
    #[arg(long, conflicts_with_all = ["user", "days"])]
    costs: bool,
    /// Days before today that are shown with it
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3_660))]
    days: u64,
    /// The instant that today lies in; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
}

/// Columns of the longest bar.
const BAR_COLUMNS: i64 = 30;

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let now = arguments.as_of.unwrap_or_else(|| Clock::system().now());
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let config = &session.loaded.config;
    if let Some(user) = arguments.user.as_ref().filter(|_| arguments.usage) {
        let usage = UserUsage::compute(&session.project, config, &store, user, arguments.days, now).await?;
        store.close().await;
        return if session.json { output::json(&usage) } else { print_usage(&usage) };
    }
    if let Some(user) = &arguments.user {
        let user = dashboard::parse_user(user)?;
        if arguments.refresh {
            dashboard::refresh(&session.project, config, &store, user, now).await?;
        }
        let dashboard = UserDashboard::read(&session.project, config, &store, user, arguments.days + 1, now).await?;
        store.close().await;
        return if session.json { output::json(&dashboard) } else { print_user(&dashboard) };
    }
    let mut tx = store.begin_read().await?;
    if arguments.costs {
        let costs = CostSummary::compute(&mut tx, config.reporting.timezone, now).await?;
        drop(tx);
        store.close().await;
        return if session.json { output::json(&costs) } else { print_costs(&costs) };
    }
    let dashboard = UsageDashboard::compute(&mut tx, arguments.days, config.reporting.timezone, now).await?;
    drop(tx);
    store.close().await;
    if session.json { output::json(&dashboard) } else { print_admin(&dashboard, arguments.days) }
}

/// Users and customers that a person is shown.
const SHOWN: usize = 10;

fn print_admin(dashboard: &UsageDashboard, days: u64) -> Result<()> {
    let (summary, costs) = (&dashboard.summary, &dashboard.costs);
    output::line(&format!("Today and the {days} days before"))?;
    output::line(&format!(
        "  requests     {}, {} failed",
        output::grouped(summary.total_requests),
        output::grouped(summary.failed_requests)
    ))?;
    output::line(&format!(
        "  tokens       {} in, {} out; {} a request",
        output::grouped(summary.total_input_tokens),
        output::grouped(summary.total_output_tokens),
        output::grouped(summary.avg_tokens_per_request)
    ))?;
    output::line(&format!(
        "  cost         {} USD; {} USD a request, {} USD for 1,000 tokens",
        shown(costs.total_cost_usd.as_ref()),
        shown(summary.avg_cost_per_request.as_ref()),
        shown(costs.cost_per_1k_tokens.as_ref())
    ))?;
    let latency = summary.avg_latency_ms.map_or("unknown".to_owned(), |latency| format!("{} ms", output::grouped(latency)));
    output::line(&format!("  latency      {latency}"))?;
    for (name, month) in [("this month", &dashboard.current_month), ("last month", &dashboard.previous_month)] {
        output::line(&format!("  {name}   {} requests, {} USD", output::grouped(month.requests), shown(month.cost_usd.as_ref())))?;
    }
    bars("day", dashboard.daily_trend.iter().map(|day| (day.date.to_string(), day.requests)).collect())?;
    let kind = |kind: &TypeUsage| (kind.request_type.clone(), kind.count);
    bars("request type", dashboard.by_request_type.iter().map(kind).collect())?;
    let users = dashboard.by_user.iter().take(SHOWN);
    costly(
        "user",
        "requests",
        users.map(|user| [user.user_email.clone(), output::grouped(user.request_count), shown(user.total_cost.as_ref())]).collect(),
    )?;
    let customers = dashboard.by_customer.iter().take(SHOWN);
    costly(
        "customer",
        "requests",
        customers
            .map(|customer| [customer.customer_name.clone(), output::grouped(customer.request_count), shown(customer.total_cost.as_ref())])
            .collect(),
    )
}

/// A cost, which may not be known.
fn shown(cost: Option<&Usd>) -> String {
    cost.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// Those that cost most.
fn costly(name: &str, count: &str, rows: Vec<[String; 3]>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows: Vec<Vec<String>> = rows.into_iter().map(|[label, count, cost]| vec![label.chars().take(40).collect(), count, cost]).collect();
    output::line(&output::table(&[name, count, "cost USD"], &[count, "cost USD"], &rows))
}

fn print_user(dashboard: &UserDashboard) -> Result<()> {
    let (metrics, limits, performance) = (&dashboard.metrics, &dashboard.limits, &dashboard.performance);
    let email = dashboard.user.email.as_deref().unwrap_or("no account");
    output::line(&format!("User {} ({})", dashboard.user.id, output::printable(email)))?;
    output::line(&format!("  as of        {}", format_instant(dashboard.last_calculated_at)))?;
    output::line(&format!(
        "  requests     {}, {} this month, {} today",
        output::grouped(metrics.total_requests),
        output::grouped(metrics.requests_this_month),
        output::grouped(metrics.requests_today)
    ))?;
    output::line(&format!("  tokens       {}", output::grouped(metrics.total_tokens_used)))?;
    output::line(&format!("  cost         {}.{:02} USD", output::grouped(metrics.total_cost / 100), metrics.total_cost % 100))?;
    output::line(&format!(
        "  performance  {} ms, {:.2} % succeeded",
        output::grouped(performance.average_response_time),
        performance.success_rate * 100.0
    ))?;
    if let Some(rating) = performance.average_rating {
        output::line(&format!("  rating       {rating}"))?;
    }
    let daily_limit = limits.daily_limit.map_or("no limit".to_owned(), output::grouped);
    let may = if limits.can_make_request { "may make requests" } else { "has reached a limit" };
    output::line(&format!(
        "  plan         {}: {} of {} this month, {} of {daily_limit} today; {may}",
        output::printable(&limits.plan_name),
        output::grouped(limits.monthly_used),
        output::grouped(limits.monthly_limit),
        output::grouped(limits.daily_used)
    ))?;
    if let Some(tokens) = limits.max_tokens_per_request {
        output::line(&format!("  per request  {} tokens at most", output::grouped(tokens)))?;
    }
    if !limits.features.is_null() {
        output::line(&format!("  features     {}", output::printable(&limits.features.to_string())))?;
    }

    bars("day", dashboard.daily_usage.iter().map(|day| (day.date.to_string(), day.requests)).collect())?;
    let categories = dashboard.requests_by_category.as_object().into_iter().flatten();
    let mut categories: Vec<(String, i64)> = categories.map(|(name, count)| (name.clone(), count.as_i64().unwrap_or_default())).collect();
    categories.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    bars("category", categories)?;
    if dashboard.recent_requests.is_empty() {
        return Ok(());
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let number = |number: Option<i64>| number.map_or("-".to_owned(), output::grouped);
    let rows: Vec<Vec<String>> = dashboard
        .recent_requests
        .iter()
        .map(|request| {
            let at = request.created_at.format("%Y-%m-%d %H:%M:%S").to_string();
            vec![
                at,
                text(&request.request_type),
                text(&request.model),
                number(request.total_tokens),
                number(request.latency_ms),
                text(&request.status),
            ]
        })
        .collect();
    output::line("")?;
    output::line(&output::table(&["recent request", "type", "model", "tokens", "ms", "status"], &["tokens", "ms"], &rows))
}

fn print_costs(costs: &CostSummary) -> Result<()> {
    let rows: Vec<Vec<String>> = [
        ("today", &costs.today, Some(costs.requests_today)),
        ("yesterday", &costs.yesterday, None),
        ("this week", &costs.this_week, None),
        ("this month", &costs.this_month, Some(costs.requests_this_month)),
        ("last month", &costs.last_month, None),
        ("all time", &costs.all_time, None),
    ]
    .into_iter()
    .map(|(name, cost, requests)| vec![name.to_owned(), shown(cost.as_ref()), requests.map_or_else(String::new, output::grouped)])
    .collect();
    output::line(&output::table(&["", "cost USD", "requests"], &["cost USD", "requests"], &rows))
}

fn print_usage(usage: &UserUsage) -> Result<()> {
    let summary = &usage.summary;
    output::line(&format!("  requests     {}", output::grouped(summary.total_requests)))?;
    output::line(&format!(
        "  tokens       {}; {} a request",
        output::grouped(summary.total_tokens),
        output::grouped(summary.avg_tokens_per_request)
    ))?;
    output::line(&format!("  cost         {} USD", shown(summary.total_cost_usd.as_ref())))?;
    bars("day", usage.daily_usage.iter().map(|day| (day.date.to_string(), day.requests)).collect())?;
    let recent = usage.recent_requests.iter().take(SHOWN);
    costly(
        "recent request",
        "tokens",
        recent
            .map(|request| {
                let kind = request.request_type.as_deref().unwrap_or("-");
                let label = format!("{} {kind}", request.created_at.format("%Y-%m-%d %H:%M:%S"));
                [
                    label,
                    request.total_tokens.map_or("-".to_owned(), output::grouped),
                    request.cost.as_ref().map_or("-".to_owned(), ToString::to_string),
                ]
            })
            .collect(),
    )
}

/// A table of counts with a bar for each.
fn bars(name: &str, counts: Vec<(String, i64)>) -> Result<()> {
    let largest = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    if counts.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        counts.into_iter().map(|(label, count)| vec![label, output::grouped(count), output::bar(count, largest, BAR_COLUMNS)]).collect();
    output::line("")?;
    output::line(&output::table(&[name, "requests", ""], &["requests"], &rows))
}
