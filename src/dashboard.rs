//! What people are shown of usage and cost: the admin's dashboard, a user's, a user's usage, the cost summary, recent requests.

pub mod admin;
mod costly;
pub mod costs;
pub mod number;
mod read;
pub mod recent;
pub mod user;
pub mod user_usage;
