//! One HTTP request, from API Gateway's payload to the answer.

pub mod gateway;
mod handler;
mod log;
pub mod response;

pub use handler::{PATH, Webhook};
