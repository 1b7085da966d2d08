//! Model checking, every fault at every call, chaos, load and growth. The long runs are ignored by
//! default. `make model`, `make chaos`, `make load` and `make growth` start them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chaos;
mod claim_model;
mod faults;
mod growth;
mod known_model;
mod load;
mod pace_model;
#[path = "../support/mod.rs"]
mod support;

use tokio::sync::Mutex;

/// Locked by tests that keep every processor busy, and by tests that measure time. Without the
/// lock, they would measure each other.
static PROCESSORS: Mutex<()> = Mutex::const_new(());
