//! SendPilot's protocol: the signature of a request, the event in its body, and the REST API.

pub mod api;
pub mod event;
pub mod lists;
pub mod page;
pub mod signature;
