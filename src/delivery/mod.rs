//! Publishes each delivery's message once: claim, publish, complete.
//!
//! [`relay`] runs the steps of one attempt. It knows DynamoDB and SNS only by the traits in
//! [`ledger`] and [`topic`], so a test can replace both.

pub mod ledger;
pub mod log;
pub mod pace;
pub mod relay;
pub mod topic;
