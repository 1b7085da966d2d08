//! What is still pending though nobody holds it: listed every minute, claimed as anybody would, and relayed.
//!
//! A delivery is due when its last attempt is over, and then some: the more attempts it took, the longer it waits, up to
//! [`LONGEST_WAIT`], so that one which cannot be published costs little. It is never given up. A run that is told to hurry
//! waits for nothing but the end of the last attempt: somebody has mended what kept the messages from going out.
//!
//! The wait is the redrive's own affair. The row is free meanwhile: if SendPilot sends the event again, it goes out at once.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut, stream};
use serde::Serialize;
use tokio::time::timeout_at;
use tracing::{Level, error, info, warn};

use crate::error::chain;
use crate::invocation::Invocation;
use crate::ledger::{Ledger, LedgerError, Pending, Wanted};
use crate::relay::{Failure, Relay, Relayed, Steps};
use crate::response::Outcome;
use crate::telemetry::{Line, Metric, Telemetry};
use crate::timestamp::{Timestamp, millis};
use crate::topic::Topic;

/// What one delivery gets of the run's time: as much as the webhook function has.
pub const DELIVERY_TIME: Duration = Duration::from_secs(10);

/// Deliveries relayed at once. Each makes three calls, some 30 ms in all, so that eight keep below the lowest of SNS's
/// regional quotas, 300 publishes a second, and one run can do ten thousand.
pub const CONCURRENCY: usize = 8;

/// The longest wait after an attempt. With the minute until the next run, there are at most 15 minutes between two.
pub const LONGEST_WAIT: Duration = Duration::from_secs(14 * 60);

/// Due deliveries that one run takes on: more than it has time for. It bounds the memory; the rest is counted.
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
pub enum Pace {
    /// Those whose wait is over.
    Patient,
    /// All that nobody has in hand.
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
    /// Not published, because another alert has told the same of the same lead.
    pub debounced: u64,
    /// Published by somebody else since they were listed.
    pub duplicates: u64,
    /// Pending after the run, by all it knows: held by another attempt, waiting, refused, not reached in time; or
    /// published, but not recorded as such.
    pub still_pending: u64,
    /// Since the oldest of them was first claimed, in seconds; 0 if there is none.
    pub oldest_pending_age_seconds: u64,
}

impl Report {
    /// A run that found nothing sends no metric: there is one every minute, for the most part of nothing.
    fn describe(&self, line: &mut Line, failure: Option<&Incomplete>) {
        line.field("scanned", self.scanned);
        line.field("published", self.published);
        line.field("debounced", self.debounced);
        line.field("duplicates", self.duplicates);
        line.field("stillPending", self.still_pending);
        line.field("oldestPendingAgeSeconds", self.oldest_pending_age_seconds);
        line.field("failure", failure.map(|failure| chain(failure)));
        if self.scanned > 0 {
            line.add(Metric::Scanned, self.scanned);
            line.add(Metric::Published, self.published);
            line.add(Metric::Duplicates, self.duplicates);
            if self.debounced > 0 {
                line.add(Metric::Debounced, self.debounced);
            }
            line.add(Metric::StillPending, self.still_pending);
            line.add(Metric::OldestPendingAge, self.oldest_pending_age_seconds);
        }
        if failure.is_some() {
            line.count(Metric::Incomplete);
        }
    }
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
    pub async fn run(&self, invocation: &Invocation, pace: Pace) -> Result<Report, Incomplete> {
        let mut line = self.telemetry.begin("redrive", invocation.request_id());
        let Survey { due, mut tally, failure } = self.survey(invocation, pace).await;
        let mut relays = stream::iter(due.into_iter().zip(0..))
            .map(|(pending, number)| async move { (self.relay(&pending, number, invocation).await, pending) })
            .buffer_unordered(CONCURRENCY);
        while let Some((relayed, pending)) = relays.next().await {
            let Some(Relayed { outcome, failure, .. }) = relayed else {
                tally.stays(&pending);
                continue;
            };
            match outcome {
                Outcome::Alerted | Outcome::Streamed => tally.published += 1,
                Outcome::Debounced => tally.debounced += 1,
                Outcome::Duplicate => tally.duplicates += 1,
                _ => tally.stays(&pending),
            }
            if matches!(failure, Some(Failure::Complete(_))) {
                tally.stays(&pending);
            }
        }
        let report = tally.report(invocation.now());
        report.describe(&mut line, failure.as_ref());
        line.field("durationMs", millis(invocation.elapsed()));
        let level = if failure.is_some() { Level::ERROR } else { Level::INFO };
        self.telemetry.end(line, level, invocation.now());
        failure.map_or(Ok(report), Err)
    }

    /// Lists what is pending, and picks what is due, the longest overdue first.
    async fn survey(&self, invocation: &Invocation, pace: Pace) -> Survey {
        let now = invocation.now();
        let survey_by = invocation.schedule().claim_by;
        let mut survey = Survey::default();
        // A row that changes while it is listed can show up twice.
        let mut due = HashMap::new();
        let listing = self.relay.ledger.pending();
        pin_mut!(listing);
        loop {
            match timeout_at(survey_by, listing.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(pending))) if due_at(&pending, pace) <= now && due.len() < MOST => {
                    due.insert(pending.id.clone(), pending);
                }
                Ok(Some(Ok(pending))) => {
                    due.remove(&pending.id);
                    survey.tally.stays(&pending);
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
        survey.due = due.into_values().collect();
        survey.due.sort_unstable_by_key(|pending| due_at(pending, pace));
        survey.tally.scanned = survey.tally.still_pending + survey.due.len() as u64;
        survey
    }

    /// None if no time is left.
    async fn relay(&self, pending: &Pending, number: u64, invocation: &Invocation) -> Option<Relayed> {
        let part = invocation.part(number, DELIVERY_TIME)?;
        let wanted = Wanted::Pending(pending.id.clone());
        let relayed = self.relay.deliver(wanted, &part).await;
        log(pending, &relayed, part.request_id());
        Some(relayed)
    }
}

/// The line of one delivery. Times go by the names that they have as metrics of the webhook.
fn log(pending: &Pending, relayed: &Relayed, request_id: &str) {
    let Steps { attempts, claim, publish, complete, .. } = relayed.steps;
    let failure = relayed.failure.as_ref().map(|failure| chain(failure));
    macro_rules! log {
        ($level:ident) => {
            $level!(
                requestId = request_id,
                deliveryId = pending.id.as_str(),
                outcome = relayed.outcome.name(),
                attempts,
                ClaimTime = claim.map(millis),
                PublishTime = publish.map(millis),
                CompleteTime = complete.map(millis),
                failure,
                "delivery"
            )
        };
    }
    match failure {
        Some(_) => log!(warn),
        None => log!(info),
    }
}

/// When the redrive tries a delivery again. The first attempts wait for no more than its next run: most failures are over
/// within minutes.
fn due_at(pending: &Pending, pace: Pace) -> Timestamp {
    const FREE: u32 = 5;
    let wait = match pending.attempts.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(_) if pace == Pace::AtOnce => Duration::ZERO,
        Some(more) => LONGEST_WAIT.min(Duration::from_secs(60) * 2_u32.saturating_pow(more)),
    };
    pending.lease_until.after(wait)
}

#[derive(Default)]
struct Survey {
    due: Vec<Pending>,
    tally: Tally,
    failure: Option<Incomplete>,
}

#[derive(Default)]
struct Tally {
    scanned: u64,
    published: u64,
    debounced: u64,
    duplicates: u64,
    still_pending: u64,
    oldest: Option<Timestamp>,
}

impl Tally {
    fn stays(&mut self, pending: &Pending) {
        self.still_pending += 1;
        self.oldest = self.oldest.into_iter().chain([pending.first_seen_at]).min();
    }

    fn report(self, now: Timestamp) -> Report {
        Report {
            scanned: self.scanned,
            published: self.published,
            debounced: self.debounced,
            duplicates: self.duplicates,
            still_pending: self.still_pending,
            oldest_pending_age_seconds: self.oldest.map_or(0, |oldest| now.since(oldest).as_secs()),
        }
    }
}
