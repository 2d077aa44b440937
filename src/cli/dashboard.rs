//! `dashboard`: what a user's dashboard shows, in the terminal.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use uuid::Uuid;

use super::output;
use super::session::Session;
use crate::clock::Clock;
use crate::dashboard::UserDashboard;
use crate::import::parse_instant;
use crate::store::{Create, format_instant};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The user's id
    #[arg(long, value_name = "UUID")]
    user: Uuid,
    /// Days of the chart, today included
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u64).range(1..=366))]
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
    let dashboard = UserDashboard::read(&session.project, config, &store, arguments.user, arguments.days, now).await?;
    store.close().await;
    if session.json {
        return output::json(&dashboard);
    }
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
        output::line(&format!("  rating       {rating:.2}"))?;
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
