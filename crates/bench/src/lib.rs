//! The requests that the bench sends, for its program and for the steps in `benches/`.

pub mod requests;
