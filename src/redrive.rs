//! Publishes pending deliveries. Every minute, lists those whose lease has expired, claims each,
//! and publishes it.
//!
//! A delivery is due some time after its last attempt: the more attempts it took, the longer it
//! waits, up to [`LONGEST_WAIT`]. So a delivery that cannot be published costs little. The redrive
//! never gives a delivery up. An operator can start a run that skips these waits, after the cause
//! of the failures is fixed.
//!
//! Alerts and messages to the lead status stream are attempted in two lanes at the same time. Each
//! lane has workers of its own, so a stream topic that hangs delays no alert. If a topic does not
//! answer [`MAX_TIMEOUTS`] publishes, its lane starts no further delivery in this run. A publish
//! without an answer takes as long as hundreds of answered publishes.
//!
//! If alerts are paced, a run publishes them in the same slots as the webhook function
//! ([`crate::delivery::pace`]). The runs overlap a little, so a backlog drains at the configured
//! rate.
//!
//! Only the redrive waits after failed attempts. If SendPilot sends the event again, the webhook
//! function publishes its message at once.

use std::collections::HashMap;
use std::ops::Add;
use std::time::Duration;

use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, pin_mut};
use serde::Serialize;
use tokio::time::{sleep, timeout_at};
use tracing::{Level, error};

use crate::delivery::ledger::{ClaimRequest, FinishError, Ledger, LedgerError, Pending, Refusal};
use crate::delivery::log::log;
use crate::delivery::relay::{DELIVERY_TIME, Outcome, Relay};
use crate::delivery::topic::Topic;
use crate::error::chain;
use crate::invocation::Invocation;
use crate::message::key::DeliveryId;
use crate::telemetry::{LogLine, Metric, Telemetry};
use crate::timestamp::{Timestamp, millis};

/// The pause of a worker whose alert found no slot. Without the pause, the run would claim and
/// release its whole backlog.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(1);

/// Alerts attempted at the same time. Without a pace, an alert makes three calls, about 30 ms in
/// all. So four workers publish 133 alerts a second. Together with [`STREAM_WORKERS`], the rate
/// stays below SNS's lowest regional quota, 300 publishes a second.
pub const ALERT_WORKERS: usize = 4;

/// Messages to the lead status stream attempted at the same time.
pub const STREAM_WORKERS: usize = 4;

/// Number of publishes to one topic that may time out in a run. The topic's other deliveries then
/// wait for the next run.
pub const MAX_TIMEOUTS: u32 = 3;

/// The longest wait after an attempt. With the minute until the next run, at most 15 minutes pass
/// between two attempts.
pub const LONGEST_WAIT: Duration = Duration::from_secs(14 * 60);

/// Maximum number of due deliveries to one topic that a run takes up: more than it has time for.
/// This limit bounds the memory. Further deliveries are only counted.
const MAX_DUE: usize = 50_000;

/// The redrive.
#[derive(Debug)]
pub struct Redrive<L, T> {
    /// The relay, with the ledger of pending deliveries.
    pub relay: Relay<L, T>,
    /// The telemetry, which writes one log line per run.
    pub telemetry: Telemetry,
}

/// The choice of deliveries for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Deliveries whose wait is over.
    Patient,
    /// All deliveries whose last attempt is over.
    AtOnce,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The deliveries of the run, to both topics.
    #[serde(flatten)]
    pub counts: Counts,
    /// Age of the oldest alert that is still pending, in seconds since its first claim. It is 0 if
    /// no alert is pending.
    pub oldest_pending_age_seconds: u64,
    /// The same for messages to the lead status stream. Left out if the run found no such message;
    /// 0 if it published all that it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_stream_pending_age_seconds: Option<u64>,
}

/// The number of deliveries with each result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Pending deliveries listed, whether due or not.
    pub scanned: u64,
    /// Published by this run.
    pub published: u64,
    /// Suppressed, because another alert for the same lead and status is published or durably
    /// claimed. Left out if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub debounced: u64,
    /// Never published, because the lead status stream was turned off. Left out if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub discarded: u64,
    /// Published by another attempt since they were listed.
    pub duplicates: u64,
    /// Pending after the run, as far as it knows: claimed by another attempt, waiting, failed, not
    /// reached in time; or published, but not recorded as such.
    pub still_pending: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            scanned: self.scanned + other.scanned,
            published: self.published + other.published,
            debounced: self.debounced + other.debounced,
            discarded: self.discarded + other.discarded,
            duplicates: self.duplicates + other.duplicates,
            still_pending: self.still_pending + other.still_pending,
        }
    }
}

impl Report {
    fn new(alerts: &Lane, stream: &Lane, now: Timestamp) -> Self {
        Self {
            counts: alerts.counts + stream.counts,
            oldest_pending_age_seconds: alerts.oldest_age(now),
            oldest_stream_pending_age_seconds: (stream.counts.scanned > 0).then(|| stream.oldest_age(now)),
        }
    }

    /// Adds the run to its line. A run that found nothing sends no metric, because most runs find
    /// nothing.
    fn describe(&self, line: &mut LogLine, failure: Option<&Incomplete>) {
        let Counts { scanned, published, debounced, discarded, duplicates, still_pending } = self.counts;
        line.field("scanned", scanned);
        line.field("published", published);
        line.field("debounced", Some(debounced).filter(|debounced| !is_zero(debounced)));
        line.field("discarded", Some(discarded).filter(|discarded| !is_zero(discarded)));
        line.field("duplicates", duplicates);
        line.field("stillPending", still_pending);
        line.field("oldestPendingAgeSeconds", self.oldest_pending_age_seconds);
        line.field("oldestStreamPendingAgeSeconds", self.oldest_stream_pending_age_seconds);
        line.field("failure", failure.map(|failure| chain(failure)));
        if scanned > 0 {
            line.add(Metric::OldestPendingAge, self.oldest_pending_age_seconds);
        }
        if let Some(age) = self.oldest_stream_pending_age_seconds {
            line.add(Metric::OldestStreamPendingAge, age);
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The error of a run that could not list all pending deliveries.
#[derive(Debug, thiserror::Error)]
#[error("the list of pending deliveries is incomplete")]
pub struct Incomplete(#[source] LedgerError);

impl<L: Ledger, T: Topic> Redrive<L, T> {
    /// Makes one run in the time of one invocation. A delivery that fails does not stop the others,
    /// and a second run at the same time finds each delivery claimed.
    ///
    /// # Errors
    /// If not all pending deliveries could be listed. The listed ones were attempted.
    pub async fn run(&self, invocation: &Invocation, urgency: Urgency) -> Result<Report, Incomplete> {
        let mut line = self.telemetry.begin("redrive", invocation.request_id());
        let (mut alerts, mut stream) = (Lane::new("alerts", ALERT_WORKERS), Lane::new("stream", STREAM_WORKERS));
        let failure = self.list(&mut alerts, &mut stream, invocation, urgency).await.err();
        // The number is part of the owner token, so no two attempts of a run may share one.
        let stream_from = alerts.due.len() as u64;
        join(
            self.publish(&mut alerts, urgency, 0, invocation),
            self.publish(&mut stream, urgency, stream_from, invocation),
        )
        .await;
        let report = Report::new(&alerts, &stream, invocation.now());
        report.describe(&mut line, failure.as_ref());
        let stopped = [&alerts, &stream].into_iter().filter(|lane| lane.stopped_early);
        let stopped: Vec<_> = stopped.map(|lane| lane.name).collect();
        line.field("stoppedEarly", (!stopped.is_empty()).then(|| stopped.join(", ")));
        line.field("durationMs", millis(invocation.elapsed()));
        let level = match (&failure, &stopped[..]) {
            (Some(_), _) => Level::ERROR,
            (None, []) => Level::INFO,
            (None, _) => Level::WARN,
        };
        self.telemetry.end(line, level, invocation.now());
        failure.map_or(Ok(report), Err)
    }

    /// Lists the pending deliveries to both topics, and picks those that are due.
    async fn list(
        &self,
        alerts: &mut Lane,
        stream: &mut Lane,
        invocation: &Invocation,
        urgency: Urgency,
    ) -> Result<(), Incomplete> {
        let now = invocation.now();
        let list_by = invocation.schedule().claim_by;
        let mut result = Ok(());
        let listing = self.relay.ledger.pending();
        pin_mut!(listing);
        loop {
            match timeout_at(list_by, listing.next()).await {
                Ok(None) => return result,
                Ok(Some(Ok(pending))) => {
                    let lane = if pending.id.is_for_stream() { &mut *stream } else { &mut *alerts };
                    let is_due = due_at(&pending, urgency) <= now;
                    lane.list(pending, is_due);
                }
                Ok(Some(Err(error))) => {
                    // Each shard can fail for its own reason. Every reason is logged, and the run
                    // returns the last one.
                    error!(requestId = invocation.request_id(), failure = chain(&error), "listing");
                    result = Err(Incomplete(error));
                }
                Err(_) => return Err(Incomplete(LedgerError::TimedOut)),
            }
        }
    }

    /// Attempts the due deliveries of one lane, the longest overdue first. Numbers the attempts
    /// from `from` on.
    async fn publish(&self, lane: &mut Lane, urgency: Urgency, from: u64, invocation: &Invocation) {
        let mut due: Vec<_> = lane.due.drain().map(|(_, pending)| pending).collect();
        due.sort_unstable_by_key(|pending| due_at(pending, urgency));
        lane.counts.scanned = lane.counts.still_pending + due.len() as u64;
        let mut waiting = due.into_iter().zip(from..);
        let mut attempts = FuturesUnordered::new();
        let mut timeouts = 0;
        loop {
            while attempts.len() < lane.workers
                && timeouts < MAX_TIMEOUTS
                && let Some((pending, number)) = waiting.next()
            {
                attempts.push(async move { (self.attempt(&pending, number, invocation).await, pending) });
            }
            let Some((outcome, pending)) = attempts.next().await else { break };
            timeouts += u32::from(outcome.as_ref().is_some_and(Outcome::topic_timed_out));
            lane.count(&pending, outcome);
        }
        for (pending, _) in waiting {
            lane.stopped_early = true;
            lane.leave(&pending);
        }
    }

    /// Attempts one delivery. Returns `None` if no time is left.
    async fn attempt(&self, pending: &Pending, number: u64, invocation: &Invocation) -> Option<Outcome> {
        let part = invocation.part(number, DELIVERY_TIME)?;
        let delivered = self.relay.deliver(ClaimRequest::Pending(pending.id.clone()), &part).await;
        log(&pending.id, &delivered, part.request_id());
        if delivered.outcome.found_no_slot() {
            sleep(NO_SLOT_PAUSE).await;
        }
        Some(delivered.outcome)
    }
}

/// Returns when the redrive tries a delivery again. The first attempts wait only for its next run,
/// because most failures are over within minutes.
fn due_at(pending: &Pending, urgency: Urgency) -> Timestamp {
    const WITHOUT_WAIT: u32 = 5;
    let wait = match pending.attempts.checked_sub(WITHOUT_WAIT + 1) {
        None => Duration::ZERO,
        Some(_) if urgency == Urgency::AtOnce => Duration::ZERO,
        Some(more) => LONGEST_WAIT.min(Duration::from_secs(60) * 2_u32.saturating_pow(more)),
    };
    pending.lease_until.after(wait)
}

/// The pending deliveries to one topic in one run.
struct Lane {
    name: &'static str,
    workers: usize,
    /// The deliveries that the run takes up, by id, because a row that changes while it is listed
    /// can appear twice.
    due: HashMap<DeliveryId, Pending>,
    counts: Counts,
    /// When the oldest delivery that is still pending was first claimed.
    oldest: Option<Timestamp>,
    /// Whether deliveries were left to the next run, because the topic did not answer.
    stopped_early: bool,
}

impl Lane {
    fn new(name: &'static str, workers: usize) -> Self {
        Self { name, workers, due: HashMap::new(), counts: Counts::default(), oldest: None, stopped_early: false }
    }

    fn list(&mut self, pending: Pending, is_due: bool) {
        if is_due && self.due.len() < MAX_DUE {
            self.due.insert(pending.id.clone(), pending);
        } else {
            self.due.remove(&pending.id);
            self.leave(&pending);
        }
    }

    /// Counts a delivery that was taken up. `outcome` is `None` if no time was left for it.
    fn count(&mut self, pending: &Pending, outcome: Option<Outcome>) {
        let counts = &mut self.counts;
        let recorded = match outcome {
            Some(Outcome::Published { recorded, .. }) => {
                counts.published += 1;
                recorded
            }
            Some(Outcome::Debounced { recorded }) => {
                counts.debounced += 1;
                recorded
            }
            Some(Outcome::Discarded { recorded }) => {
                counts.discarded += 1;
                recorded
            }
            Some(Outcome::Refused(Refusal::Done)) => {
                counts.duplicates += 1;
                Ok(())
            }
            Some(
                Outcome::Refused(Refusal::InProgress { .. } | Refusal::BodyMismatch)
                | Outcome::Unclaimed(_)
                | Outcome::Unpublished { .. },
            )
            | None => return self.leave(pending),
        };
        // The attempt that overtook this one records the result.
        if recorded.is_err_and(|error| !matches!(error, FinishError::Overtaken)) {
            self.leave(pending);
        }
    }

    /// Counts a delivery that stays pending.
    fn leave(&mut self, pending: &Pending) {
        self.counts.still_pending += 1;
        self.oldest = self.oldest.into_iter().chain([pending.first_seen_at]).min();
    }

    /// Returns the age of the oldest delivery that is still pending, in seconds. It is 0 if no
    /// delivery is pending.
    fn oldest_age(&self, now: Timestamp) -> u64 {
        self.oldest.map_or(0, |oldest| now.since(oldest).as_secs())
    }
}
