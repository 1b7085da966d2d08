//! Model checking, every fault at every call, chaos, load and growth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chaos;
mod claim_model;
mod faults;
mod growth;
mod load;
mod pace_model;
#[path = "../support/mod.rs"]
mod support;
