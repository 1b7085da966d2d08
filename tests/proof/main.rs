//! Model checking, every fault at every call, chaos, load and growth. The long runs are ignored by
//! default: `make model`, `make chaos`, `make load` and `make growth`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chaos;
mod claim_model;
mod faults;
mod growth;
mod load;
mod pace_model;
#[path = "../support/mod.rs"]
mod support;

use tokio::sync::Mutex;

/// Locked by tests that keep every processor busy, and by tests that measure time, which would measure
/// the other tests instead.
static PROCESSORS: Mutex<()> = Mutex::const_new(());
