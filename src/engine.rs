//! The ground that operators and runs stand on. It knows no operator.

pub mod blocking;
pub mod due;
pub mod env;
pub mod heartbeat;
pub mod log;
pub mod report;
pub mod request;
pub mod stop;
pub mod under_way;
pub mod upstream;
pub mod window_rows;
pub mod work;
