//! SendPilot's protocol: the signature of a request, and the event in its body.

pub mod api;
pub mod event;
pub mod signature;
