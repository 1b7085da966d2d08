//! What is still pending though nobody holds it: listed every minute, claimed as anybody would, and relayed.
//!
//! A delivery is due when its last attempt is over, and then some: the more attempts it took, the longer it waits, up to
//! [`LONGEST_WAIT`], so that one which cannot be published costs little. It is never given up. A run that is told to hurry
//! waits for nothing but the end of the last attempt: somebody has mended what kept the messages from going out.
//!
//! Alerts and messages to the lead status stream are relayed in two lanes at the same time. Each
//! lane has workers of its own, so a stream topic that hangs delays no alert. If a topic does not
//! answer [`MAX_TIMEOUTS`] publishes, its lane starts no further delivery in this run. One publish
//! without an answer takes as long as hundreds with one.
//!
//! If alerts are paced, a run publishes them in the same slots as the webhook function
//! ([`crate::delivery::pace`]). The runs overlap a little, so a backlog drains at the configured rate.
//!
//! The wait is the redrive's own affair. The row is free meanwhile: if SendPilot sends the event again, it goes out at once.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, pin_mut};
use serde::Serialize;
use tokio::time::{sleep, timeout_at};
use tracing::{Level, error, info, warn};

use crate::delivery::ledger::{Ledger, LedgerError, Pending, Wanted};
use crate::delivery::relay::{Failure, Relay, Relayed, Steps};
use crate::delivery::topic::Topic;
use crate::error::chain;
use crate::invocation::Invocation;
use crate::message::key::DeliveryId;
use crate::telemetry::{Line, Metric, Telemetry};
use crate::timestamp::{Timestamp, millis};
use crate::webhook::response::Outcome;

/// The time of one delivery in a run. It is longer than the webhook function's timeout of 10 s, and
/// half of it may be spent on the wait for a slot. So if new alerts take all slots that the webhook
/// function can reach, the redrive reaches later slots, and no pending alert starves.
pub const DELIVERY_TIME: Duration = Duration::from_secs(12);

/// The pause of a worker whose alert found no slot. Without the pause, the run would claim and
/// release its whole backlog.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(1);

/// Alerts relayed at the same time. Without a pace, an alert makes three calls, about 30 ms in all.
/// So four workers publish 133 alerts a second. Together with [`STREAM_WORKERS`], the rate stays
/// below SNS's lowest regional quota, 300 publishes a second.
pub const ALERT_WORKERS: usize = 4;

/// Messages to the lead status stream relayed at the same time.
pub const STREAM_WORKERS: usize = 4;

/// Number of publishes to one topic that may time out in a run. The topic's other deliveries then
/// wait for the next run.
pub const MAX_TIMEOUTS: u32 = 3;

/// The longest wait after an attempt. With the minute until the next run, there are at most 15 minutes between two.
pub const LONGEST_WAIT: Duration = Duration::from_secs(14 * 60);

/// Maximum number of due deliveries to one topic that a run takes up: more than it has time for.
/// This limit bounds the memory. Further deliveries are only counted.
const MOST: usize = 50_000;

/// The redrive.
#[derive(Debug)]
pub struct Redrive<L, T> {
    /// What is pending, and the way to the topics.
    pub relay: Relay<L, T>,
    /// Where lines go.
    pub telemetry: Telemetry,
}

/// Which deliveries a run takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Those whose wait is over.
    Patient,
    /// All whose last attempt is over.
    AtOnce,
}

/// What a run found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Pending deliveries listed, whether due or not.
    pub scanned: u64,
    /// Published by this run.
    pub published: u64,
    /// Not published, because another alert has told the same of the same lead. Left out where there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub debounced: u64,
    /// Not published, because the lead status stream was turned off. Left out if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub discarded: u64,
    /// Published by somebody else since they were listed.
    pub duplicates: u64,
    /// Pending after the run, by all it knows: held by another attempt, waiting, refused, not reached in time; or
    /// published, but not recorded as such.
    pub still_pending: u64,
    /// Age of the oldest alert that is still pending, in seconds since its first claim. It is 0 if
    /// no alert is pending.
    pub oldest_pending_age_seconds: u64,
    /// The same for messages to the lead status stream. Left out if the run found no such message;
    /// 0 if it published all that it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_stream_pending_age_seconds: Option<u64>,
}

impl Report {
    fn of(alerts: &Tally, stream: &Tally, now: Timestamp) -> Self {
        let sum = |count: fn(&Tally) -> u64| count(alerts) + count(stream);
        Self {
            scanned: sum(|tally| tally.scanned),
            published: sum(|tally| tally.published),
            debounced: sum(|tally| tally.debounced),
            discarded: sum(|tally| tally.discarded),
            duplicates: sum(|tally| tally.duplicates),
            still_pending: sum(|tally| tally.still_pending),
            oldest_pending_age_seconds: alerts.oldest_age(now),
            oldest_stream_pending_age_seconds: (stream.scanned > 0).then(|| stream.oldest_age(now)),
        }
    }

    /// A run that found nothing sends no metric: there is one every minute, for the most part of nothing.
    fn describe(&self, line: &mut Line, failure: Option<&Incomplete>) {
        line.field("scanned", self.scanned);
        line.field("published", self.published);
        line.field("debounced", Some(self.debounced).filter(|debounced| !is_zero(debounced)));
        line.field("discarded", Some(self.discarded).filter(|discarded| !is_zero(discarded)));
        line.field("duplicates", self.duplicates);
        line.field("stillPending", self.still_pending);
        line.field("oldestPendingAgeSeconds", self.oldest_pending_age_seconds);
        line.field("oldestStreamPendingAgeSeconds", self.oldest_stream_pending_age_seconds);
        line.field("failure", failure.map(|failure| chain(failure)));
        if self.scanned > 0 {
            line.add(Metric::Scanned, self.scanned);
            line.add(Metric::Published, self.published);
            line.add(Metric::Duplicates, self.duplicates);
            if !is_zero(&self.debounced) {
                line.add(Metric::Debounced, self.debounced);
            }
            line.add(Metric::StillPending, self.still_pending);
            line.add(Metric::OldestPendingAge, self.oldest_pending_age_seconds);
        }
        if let Some(age) = self.oldest_stream_pending_age_seconds {
            line.add(Metric::OldestStreamPendingAge, age);
        }
        if failure.is_some() {
            line.count(Metric::Incomplete);
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why a run does not know all that is pending. It did its work on what it knows of.
#[derive(Debug, thiserror::Error)]
#[error("the listing of what is pending is incomplete")]
pub struct Incomplete(#[source] LedgerError);

impl<L: Ledger, T: Topic> Redrive<L, T> {
    /// One run, in the time of one invocation. What one delivery meets does not concern the others, and another run beside
    /// this one finds each delivery claimed.
    ///
    /// # Errors
    /// When what is pending could not be listed, or not all of it. What could be has been relayed all the same.
    pub async fn run(&self, invocation: &Invocation, urgency: Urgency) -> Result<Report, Incomplete> {
        let mut line = self.telemetry.begin("redrive", invocation.request_id());
        let Survey { alerts, stream, failure } = self.survey(invocation, urgency).await;
        // The number is part of the owner token, so no two attempts of a run may share one.
        let stream_from = alerts.due.len() as u64;
        let (alerts, stream) = join(
            self.work(alerts, urgency, ALERT_WORKERS, 0, invocation),
            self.work(stream, urgency, STREAM_WORKERS, stream_from, invocation),
        )
        .await;
        let report = Report::of(&alerts, &stream, invocation.now());
        report.describe(&mut line, failure.as_ref());
        let stopped = [("alerts", &alerts), ("stream", &stream)].into_iter().filter(|(_, lane)| lane.stopped_early);
        let stopped: Vec<_> = stopped.map(|(name, _)| name).collect();
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
    async fn survey(&self, invocation: &Invocation, urgency: Urgency) -> Survey {
        let now = invocation.now();
        let survey_by = invocation.schedule().claim_by;
        let mut survey = Survey::default();
        let listing = self.relay.ledger.pending();
        pin_mut!(listing);
        loop {
            match timeout_at(survey_by, listing.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(pending))) => {
                    let lane = if pending.id.is_for_stream() { &mut survey.stream } else { &mut survey.alerts };
                    let is_due = due_at(&pending, urgency) <= now;
                    lane.list(pending, is_due);
                }
                Ok(Some(Err(error))) => {
                    // Eight shards can fail for eight reasons; the run ends with one.
                    error!(requestId = invocation.request_id(), failure = chain(&error), "listing");
                    survey.failure = Some(Incomplete(error));
                }
                Err(_) => {
                    survey.failure = Some(Incomplete(LedgerError::TimedOut));
                    break;
                }
            }
        }
        survey
    }

    /// Relays the due deliveries of one lane, the longest overdue first. Numbers the attempts from
    /// `from` on.
    async fn work(&self, lane: Lane, urgency: Urgency, workers: usize, from: u64, invocation: &Invocation) -> Tally {
        let Lane { due, mut tally } = lane;
        let mut due: Vec<_> = due.into_values().collect();
        due.sort_unstable_by_key(|pending| due_at(pending, urgency));
        tally.scanned = tally.still_pending + due.len() as u64;
        let mut waiting = due.into_iter().zip(from..);
        let mut relays = FuturesUnordered::new();
        let mut timeouts = 0;
        loop {
            while relays.len() < workers
                && timeouts < MAX_TIMEOUTS
                && let Some((pending, number)) = waiting.next()
            {
                relays.push(async move { (self.relay(&pending, number, invocation).await, pending) });
            }
            let Some((relayed, pending)) = relays.next().await else { break };
            timeouts += u32::from(relayed.as_ref().is_some_and(Relayed::topic_timed_out));
            tally.count(&pending, relayed);
        }
        for (pending, _) in waiting {
            tally.stopped_early = true;
            tally.stays(&pending);
        }
        tally
    }

    /// None if no time is left.
    async fn relay(&self, pending: &Pending, number: u64, invocation: &Invocation) -> Option<Relayed> {
        let part = invocation.part(number, DELIVERY_TIME)?;
        let wanted = Wanted::Pending(pending.id.clone());
        let relayed = self.relay.deliver(wanted, &part).await;
        log(pending, &relayed, part.request_id());
        if relayed.found_no_slot() {
            sleep(NO_SLOT_PAUSE).await;
        }
        Some(relayed)
    }
}

/// The line of one delivery. Times go by the names that they have as metrics of the webhook.
fn log(pending: &Pending, relayed: &Relayed, request_id: &str) {
    let Steps { attempts, claim, pace, publish, complete, .. } = relayed.steps;
    let failure = relayed.failure.as_ref().map(|failure| chain(failure));
    macro_rules! log {
        ($level:ident) => {
            $level!(
                requestId = request_id,
                deliveryId = pending.id.as_str(),
                outcome = relayed.outcome.name(),
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
    match failure {
        None if relayed.outcome != Outcome::Discarded => log!(info),
        _ => log!(warn),
    }
}

/// When the redrive tries a delivery again. The first attempts wait for no more than its next run: most failures are over
/// within minutes.
fn due_at(pending: &Pending, urgency: Urgency) -> Timestamp {
    const FREE: u32 = 5;
    let wait = match pending.attempts.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(_) if urgency == Urgency::AtOnce => Duration::ZERO,
        Some(more) => LONGEST_WAIT.min(Duration::from_secs(60) * 2_u32.saturating_pow(more)),
    };
    pending.lease_until.after(wait)
}

/// The pending deliveries that a run found, by topic.
#[derive(Default)]
struct Survey {
    alerts: Lane,
    stream: Lane,
    failure: Option<Incomplete>,
}

/// The pending deliveries to one topic: those that a run takes up, and a tally of the others.
#[derive(Default)]
struct Lane {
    /// By id, because a row that changes while it is listed can appear twice.
    due: HashMap<DeliveryId, Pending>,
    tally: Tally,
}

impl Lane {
    fn list(&mut self, pending: Pending, is_due: bool) {
        if is_due && self.due.len() < MOST {
            self.due.insert(pending.id.clone(), pending);
        } else {
            self.due.remove(&pending.id);
            self.tally.stays(&pending);
        }
    }
}

/// The results of one lane's deliveries.
#[derive(Default)]
struct Tally {
    scanned: u64,
    published: u64,
    debounced: u64,
    discarded: u64,
    duplicates: u64,
    still_pending: u64,
    /// When the oldest delivery that is still pending was first claimed.
    oldest: Option<Timestamp>,
    /// Whether deliveries were left to the next run, because the topic did not answer.
    stopped_early: bool,
}

impl Tally {
    /// Counts a delivery that was taken up. `relayed` is `None` if no time was left for it.
    fn count(&mut self, pending: &Pending, relayed: Option<Relayed>) {
        let Some(Relayed { outcome, failure, .. }) = relayed else { return self.stays(pending) };
        match outcome {
            Outcome::Alerted | Outcome::Streamed => self.published += 1,
            Outcome::Debounced => self.debounced += 1,
            Outcome::Discarded => self.discarded += 1,
            Outcome::Duplicate => self.duplicates += 1,
            _ => self.stays(pending),
        }
        if matches!(failure, Some(Failure::Complete(_))) {
            self.stays(pending);
        }
    }

    fn stays(&mut self, pending: &Pending) {
        self.still_pending += 1;
        self.oldest = self.oldest.into_iter().chain([pending.first_seen_at]).min();
    }

    /// Returns the age of the oldest delivery that is still pending, in seconds. It is 0 if no
    /// delivery is pending.
    fn oldest_age(&self, now: Timestamp) -> u64 {
        self.oldest.map_or(0, |oldest| now.since(oldest).as_secs())
    }
}
