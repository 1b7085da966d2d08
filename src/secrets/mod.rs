//! Parses the signing secrets, fetches them, and keeps them fresh.

pub mod keyring;
mod secrets_manager;
pub mod signing;
