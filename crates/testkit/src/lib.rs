//! Surrounds a function with stand-ins for Lambda, AWS and SendPilot, for tests and measurements.
//!
//! | module | contents |
//! |---|---|
//! | [`lambda`] | Lambda: starts a function, and sends it one event at a time |
//! | [`aws`] | the wire format of DynamoDB, SNS and Secrets Manager |
//! | [`http`] | a server on loopback, with or without TLS |
//! | [`tls`] | a certification authority, and a certificate for `localhost` |
//! | [`sendpilot`] | SendPilot: signed requests, in the form in which API Gateway passes them on |
//! | [`sendpilot_api`] | SendPilot's REST API: leads and campaigns, faults and delays |
//!
//! The servers use plain hyper, so they add little work to a measured request. The bench counts
//! only the CPU time and the instructions of the function's process.

pub mod aws;
pub mod http;
pub mod lambda;
pub mod sendpilot;
pub mod sendpilot_api;
pub mod tls;
