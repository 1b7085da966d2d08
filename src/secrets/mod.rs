//! Parses the signing secrets, fetches them, and keeps them fresh.

pub mod api_key;
pub mod keyring;
mod secrets_manager;
pub mod signing;
