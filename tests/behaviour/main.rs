//! Tests of pure code with doubles for AWS, and of the contracts and `template.yaml`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alert;
mod api_key;
mod details;
mod event;
mod layers;
mod lists;
mod messages;
mod openapi;
mod relay;
mod rules;
mod signature;
#[path = "../support/mod.rs"]
mod support;
mod template;
mod template_alarms;
mod template_security;
mod webhook;
