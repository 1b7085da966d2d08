//! Answers one HTTP request: from API Gateway's payload to the response.

pub mod details;
pub mod gateway;
mod handler;
mod log;
pub mod response;

pub use handler::{PATH, Webhook};
