//! The signing secrets: how a value is read, and how the values are fetched and kept fresh.

pub mod keyring;
mod secrets_manager;
pub mod signing;
