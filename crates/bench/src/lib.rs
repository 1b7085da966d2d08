//! SendPilot's requests, for all that measures what becomes of them.

pub mod sendpilot;
