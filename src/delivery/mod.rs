//! Takes each delivery to its topic exactly as far as the promise needs: claim, publish, complete.

pub mod ledger;
pub mod pace;
pub mod relay;
pub mod topic;
