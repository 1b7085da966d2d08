//! The log line of one request: the event, the answer, the durations and the metrics.

use std::time::Duration;

use sendpilot_events::STATUSES;
use tracing::Level;

use crate::delivery::relay::Timings;
use crate::error::chain;
use crate::sendpilot::event::{Kind, StatusChange};
use crate::telemetry::{LogLine, Metric};
use crate::timestamp::{Timestamp, millis};
use crate::webhook::handler::{Handled, Part, Unstored};
use crate::webhook::response::{Answer, Row};

/// Longest text from outside in a log line, in characters. SendPilot's longest documented text has
/// half of it.
const MAX_TEXT: usize = 64;

/// The highest age of an event whose time to alert is measured. SendPilot gives up after 77
/// minutes, so an older event is a sample that someone sent by hand.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Handled {
    /// Returns the level of the log line: an error if we failed, a warning if the sender failed or
    /// something is unusual.
    pub(super) fn level(&self) -> Level {
        let status = self.answer.row().status;
        let is_unusual = |part: &Part| part.body_mismatch || part.delivered.outcome.failure().is_some();
        if status.is_server_error() && !self.only_lacks_a_slot() {
            Level::ERROR
        } else if status.is_client_error()
            || self.renamed().is_some()
            || self.lacks_key()
            || self.parts().any(is_unusual)
        {
            Level::WARN
        } else {
            Level::INFO
        }
    }

    /// Adds the request to its log line. `took` is the time that the request has taken.
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
            let Timings { claim, pace, publish, complete } = delivered.timings;
            line.field("attempts", delivered.attempts);
            line.time("ClaimTime", claim);
            line.time("PaceTime", pace);
            line.time("PublishTime", publish);
            line.time("CompleteTime", complete);
            line.field("failure", delivered.outcome.failure());
        }
        if let Some(found) = &self.found {
            line.field("details", found.parts().collect::<Vec<_>>().join(", "));
            line.time("DetailsTime", Some(found.took));
            line.field("detailsFailure", Some(found.failures.join("; ")).filter(|failures| !failures.is_empty()));
        }
        match &self.reply {
            Some(Err(unused @ Unstored::Lacks(_))) => line.field("unusedReply", unused.to_string()),
            Some(Err(failed @ Unstored::Failed(_))) => line.field("failure", chain(failed)),
            Some(Ok(())) | None => {}
        }
        line.field("bodyMismatch", self.body_mismatch().then_some("the same event id came with other content"));
        line.field("durationMs", millis(took));
        self.measure(line);
    }

    /// The attempted deliveries, alert first. Fields that both share are logged from the first.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.alert.iter().chain(&self.status)
    }

    /// Returns whether the alert lacks details because of the API key.
    fn lacks_key(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.key_unusable)
    }

    fn body_mismatch(&self) -> bool {
        self.parts().any(|part| part.body_mismatch)
    }

    fn measure(&self, line: &mut LogLine) {
        let reason = self.answer.row().reason;
        if let Some(reason) = reason {
            line.count_by(Metric::Rejected, reason);
        }
        if reason == Some("mismatch") {
            line.count(Metric::SignatureMismatch);
        }
        // Both reasons are checked only after the signature, so a stranger cannot cause them.
        if matches!(reason, Some("body" | "stale")) {
            line.count(Metric::GenuineRejected);
        }
        if self.renamed().is_some() || self.body_mismatch() {
            line.count(Metric::UnexpectedEvent);
        }
        if self.only_lacks_a_slot() {
            line.count(Metric::NoSlot);
        }
        if self.lacks_key() {
            line.count(Metric::ApiKeyUnusable);
        }
        if let Some(Kind::StatusChanged(change)) = self.event.as_ref().map(|event| &event.kind) {
            line.count_by(Metric::StatusChanges, listed(change));
        }
        let published_at = self.alert.as_ref().and_then(|alert| alert.delivered.published_at());
        if let Some(age) = published_at.and_then(|at| self.age(at)) {
            line.add(Metric::TimeToAlert, millis(age));
        }
    }

    /// Returns whether the answer is 503 only because no slot was free for the alert.
    fn only_lacks_a_slot(&self) -> bool {
        self.alert.as_ref().is_some_and(|alert| alert.delivered.outcome.found_no_slot())
            && self.status.as_ref().is_none_or(|status| status.delivered.outcome.is_claimed())
    }

    /// Returns what the shape of the data says about an event of an unknown type.
    fn renamed(&self) -> Option<&'static str> {
        match &self.event.as_ref().filter(|event| event.renamed)?.kind {
            Kind::StatusChanged(_) => Some("the event type is unknown; its data has the shape of a status change"),
            Kind::TagChanged(_) => Some("the event type is unknown; its data has the shape of a tag change"),
            Kind::Replied(_) if self.answer != Answer::Ignored => {
                Some("the event type is unknown; its data has the shape of a reply")
            }
            Kind::Replied(_) | Kind::Other => None,
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
