//! The requests that the bench sends. Both its program and `benches/` use them.

pub mod requests;
