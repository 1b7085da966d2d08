//! Tests over the network: the real binaries under a Lambda Runtime API, and a real DynamoDB
//! engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conditional_writes;
mod connections;
mod debounce;
mod details;
mod keyring;
mod ledger;
mod pace;
mod reconcile;
mod reconcile_faults;
mod reconcile_limits;
mod redrive;
mod replies;
mod sendpilot_api;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod template;
mod webhook;
