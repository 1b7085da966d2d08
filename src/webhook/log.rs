//! The line of one request: what came, what became of it, how long that took, and the metrics that follow from it.

use std::time::Duration;

use sendpilot_events::STATUSES;
use tracing::Level;

use super::handler::Handled;
use crate::delivery::relay::{Relayed, Steps};
use crate::error::chain;
use crate::sendpilot::event::{Kind, StatusChange};
use crate::telemetry::{Line, Metric};
use crate::timestamp::{Timestamp, millis};
use crate::webhook::response::Outcome;

/// The most of a text from outside that a line holds, in characters. What SendPilot documents has half of it.
const MAX_TEXT: usize = 64;

/// No event takes longer: SendPilot gives up after 77 minutes. What is older is a sample that somebody sent by hand, and
/// would be years among milliseconds.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Handled {
    /// An error where we failed, a warning where the sender did or something is odd.
    pub(super) fn level(&self) -> Level {
        let status = self.outcome.status();
        if status.is_server_error() && !self.only_lacks_a_slot() {
            Level::ERROR
        } else if status.is_client_error()
            || self.renamed().is_some()
            || self.relayed().any(|one| one.other_content || one.failure.is_some())
        {
            Level::WARN
        } else {
            Level::INFO
        }
    }

    /// Tells all that a line may. `took` is the time that the request has taken.
    pub(super) fn describe(&self, line: &mut Line, took: Duration) {
        let outcome = &self.outcome;
        line.field("outcome", outcome.name());
        line.field("status", outcome.status().as_u16());
        line.field("reason", outcome.rejection());
        line.field("detail", outcome.detail());
        if let Some(event) = &self.event {
            line.field("eventId", event.id.as_deref());
            line.field("eventType", Some(cut(&event.event_type)).filter(|name| !name.is_empty()));
            line.field("renamed", self.renamed());
            if let Kind::StatusChanged(change) = &event.kind {
                line.field("previousStatus", change.previous_status.as_deref().map(cut));
                line.field("newStatus", cut(&change.new_status));
            }
        }
        if let (Some(alert), Some(status)) = (&self.alert, &self.status) {
            line.field("alert", alert.outcome.name());
            line.field("stream", status.outcome.name());
            line.field("streamAttempts", status.steps.attempts);
            line.field("streamFailure", failure(status));
        }
        if let Some(main) = self.relayed().next() {
            line.field("attempts", main.steps.attempts);
            line.field("PaceTime", main.steps.pace.map(millis));
            line.field("failure", failure(main));
        }
        line.field("otherBody", self.other_content().then_some("the same event id came with other content"));
        line.field("durationMs", millis(took));
        self.measure(line);
    }

    /// What was due, the alert first: of what the two have in common, the line tells the first one's.
    fn relayed(&self) -> impl Iterator<Item = &Relayed> {
        self.alert.iter().chain(&self.status)
    }

    fn other_content(&self) -> bool {
        self.relayed().any(|relayed| relayed.other_content)
    }

    fn measure(&self, line: &mut Line) {
        let outcome = &self.outcome;
        line.count(metric(outcome));
        // If the message to the stream is the only delivery, the outcome's own metric counts it.
        if let (Some(_), Some(Relayed { outcome: stream @ (Outcome::Streamed | Outcome::Pending), .. })) =
            (&self.alert, &self.status)
        {
            line.count(metric(stream));
        }
        if self.only_lacks_a_slot() {
            line.count(Metric::NoSlot);
        }
        if let Some(reason) = outcome.rejection() {
            line.count_by(Metric::Rejected, reason);
        }
        if self.is_genuine_and_rejected() {
            line.count(Metric::GenuineRejected);
        } else if self.event.is_some() {
            line.count(Metric::Genuine);
        }
        if self.renamed().is_some() {
            line.count(Metric::RenamedEvents);
        }
        if let Some(Kind::StatusChanged(change)) = self.event.as_ref().map(|event| &event.kind) {
            line.count_by(Metric::StatusChanges, listed(change));
        }
        if let Some(alert) = &self.alert {
            line.count(Metric::Opportunities);
            line.time(Metric::TimeToAlert, alert.steps.published_at.and_then(|at| self.age(at)));
        }
        if let Some(Relayed { steps: Steps { claim, publish, complete, .. }, .. }) = self.relayed().next() {
            line.time(Metric::ClaimTime, *claim);
            line.time(Metric::PublishTime, *publish);
            line.time(Metric::CompleteTime, *complete);
        }
        if self.other_content() {
            line.count(Metric::OtherBody);
        }
    }

    /// Whether the answer is 503 only because no slot was free for the alert.
    fn only_lacks_a_slot(&self) -> bool {
        self.alert.as_ref().is_some_and(Relayed::found_no_slot) && self.status.as_ref().is_none_or(Relayed::is_claimed)
    }

    /// Whether a request with a valid signature was refused for good. Both reasons are checked only
    /// after the signature, so a stranger cannot cause them.
    fn is_genuine_and_rejected(&self) -> bool {
        matches!(self.outcome.rejection(), Some("body" | "stale"))
    }

    /// Returns what an event of an unknown type was recognised as.
    fn renamed(&self) -> Option<&'static str> {
        match &self.event.as_ref().filter(|event| event.renamed)?.kind {
            Kind::StatusChanged(_) => Some("the event type is not known; its data is that of a change of status"),
            Kind::TagChanged(_) => Some("the event type is not known; its data is that of a change of tag"),
            Kind::Other => None,
        }
    }

    /// The time since what the event tells of, where it says when that was.
    fn age(&self, at: Timestamp) -> Option<Duration> {
        let occurred_at = self.event.as_ref()?.occurred_at?.into();
        Some(at.since(occurred_at)).filter(|age| *age <= LONGEST)
    }
}

fn metric(outcome: &Outcome) -> Metric {
    match outcome {
        Outcome::Alerted => Metric::Alerted,
        Outcome::Streamed => Metric::Streamed,
        Outcome::Pending => Metric::StreamPending,
        Outcome::Debounced => Metric::Debounced,
        Outcome::Duplicate => Metric::Duplicate,
        Outcome::Ignored | Outcome::Discarded => Metric::Ignored,
        Outcome::InProgress { .. } => Metric::InProgress,
        Outcome::Unavailable { .. } | Outcome::NoSecret { .. } => Metric::Unavailable,
        Outcome::Malformed(_) => Metric::Malformed,
        Outcome::Unauthorized { .. } => Metric::Unauthorized,
        Outcome::NotFound => Metric::NotFound,
        Outcome::MethodNotAllowed => Metric::MethodNotAllowed,
        Outcome::TooLarge => Metric::TooLarge,
    }
}

fn failure(relayed: &Relayed) -> Option<String> {
    relayed.failure.as_ref().map(|failure| chain(failure))
}

/// A text from outside has any number of values, a dimension must not: each would be a metric to pay for.
fn listed(change: &StatusChange) -> &'static str {
    STATUSES.into_iter().find(|status| *status == change.new_status).unwrap_or("OTHER")
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
