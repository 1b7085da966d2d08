//! Helpers that the three test programs share. Each program uses some of them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod alarms;
pub mod aws;
pub mod contracts;
pub mod doubles;
pub mod dynamodb;
pub mod emf;
pub mod fleet;
pub mod guide;
pub mod lambda;
pub mod model;
pub mod receiver;
pub mod requests;
pub mod template;
pub mod tls_proxy;
pub mod world;
