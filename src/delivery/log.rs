//! Writes the log line of an attempt in a run, which makes many attempts. The webhook function has
//! one line per request instead.

use tracing::{info, warn};

use crate::delivery::ledger::Refusal;
use crate::delivery::relay::{Delivered, Outcome, Timings};
use crate::message::key::DeliveryId;
use crate::timestamp::millis;

/// Writes the log line of one attempt. The times have the names that the webhook function's log
/// line has.
pub fn log(id: &DeliveryId, Delivered { outcome, attempts, timings }: &Delivered, request_id: &str) {
    let Timings { claim, pace, publish, complete } = *timings;
    let failure = outcome.failure();
    // The level is part of a tracing event's static data, so it cannot be an argument.
    macro_rules! log {
        ($level:ident) => {
            $level!(
                requestId = request_id,
                deliveryId = id.as_str(),
                outcome = name(outcome, id),
                attempts,
                ClaimTime = claim.map(millis),
                PaceTime = pace.map(millis),
                PublishTime = publish.map(millis),
                CompleteTime = complete.map(millis),
                failure,
                "delivery"
            )
        };
    }
    // A discarded message never reaches a subscriber, so its line is a warning.
    match (&failure, outcome) {
        (Some(_), _) | (None, Outcome::Discarded { .. }) => log!(warn),
        (None, _) => log!(info),
    }
}

/// Returns the outcome in the words of the webhook function's answers.
fn name(outcome: &Outcome, id: &DeliveryId) -> &'static str {
    match outcome {
        Outcome::Published { .. } if id.is_for_stream() => "streamed",
        Outcome::Published { .. } => "alerted",
        Outcome::Debounced { .. } => "debounced",
        Outcome::Discarded { .. } => "discarded",
        Outcome::Refused(Refusal::Done) => "duplicate",
        Outcome::Refused(Refusal::InProgress { .. }) => "in_progress",
        Outcome::Refused(Refusal::BodyMismatch) | Outcome::Unclaimed(_) | Outcome::Unpublished { .. } => "unavailable",
    }
}
