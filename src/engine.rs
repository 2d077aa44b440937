//! The ground that operators and runs stand on.

pub mod env;
pub mod heartbeat;
pub mod request;
pub mod stop;
