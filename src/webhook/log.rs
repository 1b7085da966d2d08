//! The line of one request: what came, the answer, the durations, and the metrics.

use std::time::Duration;

use sendpilot_events::STATUSES;
use tracing::Level;

use crate::delivery::relay::Timings;
use crate::sendpilot::event::{Kind, StatusChange};
use crate::telemetry::{LogLine, Metric};
use crate::timestamp::{Timestamp, millis};
use crate::webhook::handler::{Handled, Part};
use crate::webhook::response::{Answer, Row};

/// Longest text from outside in a line, in characters. SendPilot's documented texts have half of it.
const MAX_TEXT: usize = 64;

/// The highest age that is measured. SendPilot gives up after 77 minutes, so an older event is a
/// sample that somebody sent by hand.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Handled {
    /// Returns the level of the line: an error if we failed, a warning if the sender did or
    /// something is unusual.
    pub(super) fn level(&self) -> Level {
        let status = self.answer.row().status;
        let is_unusual = |part: &Part| part.other_content || part.delivered.outcome.failure().is_some();
        if status.is_server_error() && !self.only_lacks_a_slot() {
            Level::ERROR
        } else if status.is_client_error() || self.renamed().is_some() || self.parts().any(is_unusual) {
            Level::WARN
        } else {
            Level::INFO
        }
    }

    /// Adds the request to its line. `took` is the time that the request has taken.
    pub(super) fn describe(&self, line: &mut LogLine, took: Duration) {
        let Row { status, outcome, reason, detail, .. } = self.answer.row();
        line.field("outcome", outcome);
        line.field("status", status.as_u16());
        line.field("reason", reason);
        line.field("detail", detail);
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
            line.field("alert", alert.answer.row().outcome);
            line.field("stream", status.answer.row().outcome);
            line.field("streamAttempts", status.delivered.attempts);
            line.field("streamFailure", status.delivered.outcome.failure());
        }
        if let Some(Part { delivered, .. }) = self.parts().next() {
            line.field("attempts", delivered.attempts);
            line.field("PaceTime", delivered.timings.pace.map(millis));
            line.field("failure", delivered.outcome.failure());
        }
        line.field("otherBody", self.other_content().then_some("the same event id came with other content"));
        line.field("durationMs", millis(took));
        self.measure(line);
    }

    /// The attempted deliveries, alert first. Fields that both share are logged from the first.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.alert.iter().chain(&self.status)
    }

    fn other_content(&self) -> bool {
        self.parts().any(|part| part.other_content)
    }

    fn measure(&self, line: &mut LogLine) {
        let Row { metric, reason, .. } = self.answer.row();
        line.count(metric);
        // If the message to the stream is the only delivery, the answer's own metric counts it.
        if let (Some(_), Some(Part { answer: stream @ (Answer::Streamed | Answer::Pending), .. })) =
            (&self.alert, &self.status)
        {
            line.count(stream.row().metric);
        }
        if self.only_lacks_a_slot() {
            line.count(Metric::NoSlot);
        }
        if let Some(reason) = reason {
            line.count_by(Metric::Rejected, reason);
        }
        // Both reasons are checked only after the signature, so a stranger cannot cause them.
        if matches!(reason, Some("body" | "stale")) {
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
            line.time(Metric::TimeToAlert, alert.delivered.published_at().and_then(|at| self.age(at)));
        }
        if let Some(Part { delivered, .. }) = self.parts().next() {
            let Timings { claim, publish, complete, .. } = delivered.timings;
            line.time(Metric::ClaimTime, claim);
            line.time(Metric::PublishTime, publish);
            line.time(Metric::CompleteTime, complete);
        }
        if self.other_content() {
            line.count(Metric::OtherBody);
        }
    }

    /// Whether the answer is 503 only because no slot was free for the alert.
    fn only_lacks_a_slot(&self) -> bool {
        self.alert.as_ref().is_some_and(|alert| alert.delivered.outcome.found_no_slot())
            && self.status.as_ref().is_none_or(|status| status.delivered.outcome.is_claimed())
    }

    /// Returns what an event of an unknown type was recognised as.
    fn renamed(&self) -> Option<&'static str> {
        match &self.event.as_ref().filter(|event| event.renamed)?.kind {
            Kind::StatusChanged(_) => Some("the event type is not known; its data is that of a change of status"),
            Kind::TagChanged(_) => Some("the event type is not known; its data is that of a change of tag"),
            Kind::Other => None,
        }
    }

    /// Returns the time from the change that the event reports until `at`, if the event says when
    /// that was.
    fn age(&self, at: Timestamp) -> Option<Duration> {
        let occurred_at = self.event.as_ref()?.occurred_at?.into();
        Some(at.since(occurred_at)).filter(|age| *age <= MAX_AGE)
    }
}

/// Returns the status as the value of a dimension. Each value is a metric that costs money, so a
/// status that SendPilot does not document becomes `OTHER`.
fn listed(change: &StatusChange) -> &'static str {
    STATUSES.into_iter().find(|status| *status == change.new_status).unwrap_or("OTHER")
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
