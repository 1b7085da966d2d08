//! The surroundings of a function, for tests and for measurements.
//!
//! | module | stands for |
//! |---|---|
//! | [`lambda`] | Lambda: starts a function, and hands it one event at a time |
//! | [`aws`] | the wire format of DynamoDB, SNS and Secrets Manager |
//! | [`http`] | a server on loopback, with or without TLS |
//! | [`tls`] | a certification authority, and a certificate for `localhost` |
//! | [`sendpilot`] | SendPilot: signed requests, as API Gateway passes them to a function |
//!
//! The servers are plain hyper. They add little work to a measured request, and the bench counts
//! the CPU time and the instructions of the function's process alone.

pub mod aws;
pub mod http;
pub mod lambda;
pub mod sendpilot;
pub mod tls;
