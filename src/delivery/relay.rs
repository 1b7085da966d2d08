//! Attempts one delivery: claims it, publishes its message, and completes it. If the publish fails,
//! the attempt releases the claim, so that the next attempt does not have to wait for the lease.
//!
//! ```text
//! claim ──┬─ granted ──── publish ──┬─ accepted ── complete ──▶ Published    (*)
//!         │                         ├─ failed ──── release ───▶ Unpublished  (*)
//!         │                         └─ stream off ─ discard ──▶ Discarded
//!         ├─ refused: done, in progress, body mismatch ───────▶ Refused
//!         └─ no answer ───────────────────────────────────────▶ Unclaimed
//! ```
//!
//! (*) The result is the same if the completion or the release fails. Then the lease ends by
//! itself.
//!
//! If alerts are debounced or the reconciliation is on, an attempt takes locks after its claim:
//!
//! ```text
//! granted ── lock ──┬─ taken ── publish …
//!                   ├─ another alert's, which is claimed ── debounce ──▶ Debounced
//!                   └─ no answer ──────────────────────── release ──▶ Unpublished
//! ```
//!
//! If alerts are paced, an attempt takes a slot before it publishes an alert, and waits until the
//! slot starts:
//!
//! ```text
//! granted ── slot ──┬─ taken ── wait for its start ── publish …
//!                   ├─ another's ── the next slot …
//!                   └─ none free in the attempt's time, or no answer ── release ──▶ Unpublished
//! ```
//!
//! Until the end, the row is `PENDING` or does not exist. So if the function crashes, another
//! attempt can start again. SendPilot's retries and the redrive both use this module.
//!
//! If a completion, a debounce, a discard or a release fails, it is repeated until
//! [`Schedule::finish_by`]. This is safe, because each operation recognises its own effect. This is
//! necessary, because an alert that is published but not recorded is published again.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, Lock, MayPublish, Receipt, Refusal,
};
use crate::delivery::pace::Pacer;
use crate::delivery::topic::{Topic, TopicError};
use crate::error::chain;
use crate::invocation::{Invocation, Schedule, within};
use crate::message::{Locks, Message};
use crate::timestamp::Timestamp;

/// The longest wait of the webhook function for the topic of the lead status stream. SNS answers
/// within milliseconds. If the topic hangs, this wait must not use up the concurrent executions
/// that alerts need. The redrive then publishes the message.
pub const STREAM_WAIT: Duration = Duration::from_secs(2);

/// The time of one delivery in a run. It is longer than the webhook function's timeout of 10 s, and
/// half of it may be spent on the wait for a slot. So if new alerts take all slots that the webhook
/// function can reach, the redrive reaches later slots, and no pending alert starves.
pub const DELIVERY_TIME: Duration = Duration::from_secs(12);

/// The pause before a failed completion, debounce, discard or release is repeated. Each further
/// pause is twice as long, up to [`MAX_PAUSE`]. Before each pause, the SDK has tried three times
/// within 0.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause before an operation is repeated.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// The ledger, the topic and the settings with which a process attempts its deliveries.
#[derive(Debug)]
pub struct Relay<L, T> {
    /// The record of which attempt has claimed which delivery.
    pub ledger: L,
    /// The topics to which messages are published.
    pub topic: T,
    /// The time for which a row is kept after its delivery is done.
    pub retention: Duration,
    /// The duration of a debounce lock, if alerts are debounced.
    pub debounce: Option<Duration>,
    /// The slots for which this process has asked, if alerts are paced.
    pub pacer: Option<Pacer>,
    /// The longest wait for the topic of the lead status stream. The wait also ends at
    /// [`Schedule::publish_by`].
    pub stream_wait: Duration,
}

/// The result of one attempt at a delivery.
#[derive(Debug)]
pub struct Delivered {
    /// The outcome of the attempt.
    pub outcome: Outcome,
    /// The number of attempts that have claimed the delivery so far, if the ledger returned it.
    pub attempts: Option<u32>,
    /// The durations of the steps.
    pub timings: Timings,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// The topic accepted the message.
    Published {
        /// The time at which the topic accepted the message.
        at: Timestamp,
        /// Whether the ledger has recorded the publish. If not, the message may be published again,
        /// with the same bytes.
        recorded: Result<(), FinishError>,
    },
    /// The alert is suppressed, because another alert for the same lead and status has been
    /// published or is durably claimed. The other alert is recent, or the reconciliation's.
    Debounced {
        /// Whether the ledger has recorded this outcome.
        recorded: Result<(), FinishError>,
    },
    /// The message will never be published, because the lead status stream is off.
    Discarded {
        /// Whether the ledger has recorded this outcome.
        recorded: Result<(), FinishError>,
    },
    /// The row refused the claim.
    Refused(Refusal),
    /// The claim failed or got no answer. There may be no row.
    Unclaimed(LedgerError),
    /// The message is not known to be published.
    Unpublished {
        /// The reason.
        cause: Unpublished,
        /// Whether the claim was released. If not, no attempt can claim the delivery before the
        /// lease ends.
        released: Result<(), LedgerError>,
    },
}

/// The durations of an attempt's steps. `None` if a step was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// The claim.
    pub claim: Option<Duration>,
    /// The search for the alert's slot, and the wait for its start.
    pub pace: Option<Duration>,
    /// The publish.
    pub publish: Option<Duration>,
    /// The completion.
    pub complete: Option<Duration>,
}

/// Why a claimed message is not known to be published.
#[derive(Debug, thiserror::Error)]
pub enum Unpublished {
    /// The publish failed, or SNS gave no answer.
    #[error("publish failed")]
    Topic(#[source] TopicError),
    /// A lock failed or got no answer, so the alert was not published.
    #[error("locking the lead failed")]
    Lock(#[source] LedgerError),
    /// A request for a slot failed or got no answer, so the alert was not published.
    #[error("pacing failed")]
    Pace(#[source] LedgerError),
    /// Other alerts have all slots in the attempt's time, so the alert was not published.
    #[error("more alerts are due than ALERTS_PER_SECOND allows, so this one waits for another attempt")]
    NoSlot,
}

impl Delivered {
    /// Returns the time at which the topic accepted the message, if it did.
    pub fn published_at(&self) -> Option<Timestamp> {
        match self.outcome {
            Outcome::Published { at, .. } => Some(at),
            _ => None,
        }
    }
}

impl Outcome {
    /// Returns whether the delivery's row certainly exists: this attempt wrote the row, or the row
    /// refused this attempt. Then the delivery cannot be lost, because the redrive finds every
    /// pending row.
    pub fn is_claimed(&self) -> bool {
        !matches!(self, Self::Unclaimed(_) | Self::Refused(Refusal::BodyMismatch))
    }

    /// Returns whether the alert was not published only because no slot was free.
    pub fn found_no_slot(&self) -> bool {
        matches!(self, Self::Unpublished { cause: Unpublished::NoSlot, .. })
    }

    /// Returns whether the topic did not answer the publish in time.
    pub fn topic_timed_out(&self) -> bool {
        matches!(self, Self::Unpublished { cause: Unpublished::Topic(TopicError::TimedOut), .. })
    }

    /// Returns the error for the log, if there is one.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Published { recorded, .. } | Self::Debounced { recorded } | Self::Discarded { recorded } => {
                match recorded.as_ref().err()? {
                    FinishError::Overtaken => Some(format!("done, but {}", FinishError::Overtaken)),
                    FinishError::Failed(error) => Some(format!("done, but completion failed: {}", chain(error))),
                }
            }
            Self::Refused(Refusal::BodyMismatch) => {
                Some("body mismatch: the row belongs to an event with the same id and other content".into())
            }
            Self::Refused(Refusal::Done | Refusal::InProgress { .. }) => None,
            Self::Unclaimed(error) => Some(format!("claim failed: {}", chain(error))),
            Self::Unpublished { cause, released: Ok(()) } => Some(chain(cause)),
            Self::Unpublished { cause, released: Err(error) } => {
                Some(format!("{}; the release of the claim failed too: {}", chain(cause), chain(error)))
            }
        }
    }
}

impl<L: Ledger, T: Topic> Relay<L, T> {
    /// Attempts one delivery in the time of this invocation.
    pub async fn deliver(&self, request: ClaimRequest, invocation: &Invocation) -> Delivered {
        let schedule = invocation.schedule();
        let mut run = Run { relay: self, invocation, schedule, attempts: None, timings: Timings::default() };
        let outcome = run.deliver(request).await;
        Delivered { outcome, attempts: run.attempts, timings: run.timings }
    }
}

/// One attempt while it runs.
struct Run<'a, L, T> {
    relay: &'a Relay<L, T>,
    invocation: &'a Invocation,
    schedule: Schedule,
    attempts: Option<u32>,
    timings: Timings,
}

impl<L: Ledger, T: Topic> Run<'_, L, T> {
    async fn deliver(&mut self, request: ClaimRequest) -> Outcome {
        let claiming = self.relay.ledger.claim(request, self.invocation.attempt());
        let claimed;
        (claimed, self.timings.claim) = timed(self.schedule.claim_by, claiming, LedgerError::TimedOut).await;
        let claim = match claimed {
            Ok(ClaimResult { claim, attempts }) => {
                self.attempts = attempts;
                claim
            }
            Err(error) => return Outcome::Unclaimed(error),
        };
        let claim = match claim {
            Ok(claim) => claim,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        match self.end(&claim).await {
            Ok(outcome) => outcome,
            Err(cause) => self.release(&claim, cause).await,
        }
    }

    /// Publishes the message and completes the delivery, or records that the message is never
    /// published.
    async fn end(&mut self, claim: &Claim) -> Result<Outcome, Unpublished> {
        // An attempt takes the lock only after its claim. So if another alert is suppressed in
        // favour of this one, this one cannot be lost.
        if let MayPublish::Debounced(holder) = self.lock(claim).await? {
            let expires_at = self.invocation.now().after(self.relay.retention);
            let recorded = self.finish(|| self.relay.ledger.debounce(claim, &holder, expires_at)).await;
            return Ok(Outcome::Debounced { recorded });
        }
        self.pace(claim).await?;
        match self.publish(claim).await {
            Ok(message_id) => {
                let at = self.invocation.now();
                let receipt = Receipt { message_id, published_at: at, expires_at: at.after(self.relay.retention) };
                let completing = self.finish(|| self.relay.ledger.complete(claim, &receipt));
                let (recorded, took) = timed(self.schedule.finish_by, completing, LedgerError::TimedOut.into()).await;
                self.timings.complete = took;
                Ok(Outcome::Published { at, recorded })
            }
            // While the stream is off, every further attempt would fail too.
            Err(off @ TopicError::NoStream) => {
                let (reason, expires_at) = (chain(&off), self.invocation.now().after(self.relay.retention));
                let recorded = self.finish(|| self.relay.ledger.discard(claim, &reason, expires_at)).await;
                Ok(Outcome::Discarded { recorded })
            }
            Err(error) => Err(Unpublished::Topic(error)),
        }
    }

    /// Takes the locks that the alert needs, and stops at the first one that suppresses it.
    ///
    /// The lock that makes the lead known comes first. Otherwise, an alert that the reconciliation
    /// suppresses could hold the debounce lock, and suppress a later change.
    async fn lock(&self, claim: &Claim) -> Result<MayPublish, Unpublished> {
        let Locks { debounce, known } = claim.locks().clone();
        let now = self.invocation.now();
        let known = known.map(|known| Lock::known(known, now));
        let debounce = debounce.zip(self.relay.debounce).map(|(key, debounce)| Lock::debounce(key, now, debounce));
        for lock in known.into_iter().chain(debounce) {
            let locking = self.relay.ledger.lock(claim.delivery_id(), &lock);
            let locked = within(self.schedule.claim_by, locking, LedgerError::TimedOut).await;
            if let debounced @ MayPublish::Debounced(_) = locked.map_err(Unpublished::Lock)? {
                return Ok(debounced);
            }
        }
        Ok(MayPublish::Yes)
    }

    /// Waits for a slot for the alert. A message to the lead status stream needs no slot.
    async fn pace(&mut self, claim: &Claim) -> Result<(), Unpublished> {
        let (Message::Alert { .. }, Some(pacer)) = (claim.message(), &self.relay.pacer) else { return Ok(()) };
        let began = Instant::now();
        let slot = self.wait_for_slot(claim, pacer).await;
        self.timings.pace = Some(began.elapsed());
        slot
    }

    /// Takes the first free slot and waits for its start.
    async fn wait_for_slot(&self, claim: &Claim, pacer: &Pacer) -> Result<(), Unpublished> {
        let pace_by = self.schedule.pace_by;
        let mut ahead = Duration::ZERO;
        loop {
            let asked_at = self.invocation.now();
            let slot = pacer.next(asked_at.after(ahead));
            let starts_at = Instant::now() + slot.start().since(asked_at);
            if starts_at > pace_by {
                // If the ledger was too slow for a slot, the attempt has failed. If there was only
                // no slot, the alert just waits, and alarms for failures must not count it.
                let slow = !ahead.is_zero();
                return Err(if slow { Unpublished::Pace(LedgerError::TimedOut) } else { Unpublished::NoSlot });
            }
            pacer.asks_for(slot);
            let taken = within(pace_by, self.relay.ledger.take_slot(claim, slot), LedgerError::TimedOut).await;
            if taken.map_err(Unpublished::Pace)? {
                sleep_until(starts_at).await;
                let now = self.invocation.now();
                if slot.is_usable(now) {
                    return Ok(());
                }
                // The ledger answered too late for this slot. So ask for a slot that is as far
                // ahead as the ledger is slow.
                ahead = now.since(asked_at);
            }
        }
    }

    async fn publish(&mut self, claim: &Claim) -> Result<String, TopicError> {
        let publish_by = match claim.message() {
            Message::Alert { .. } => self.schedule.publish_by,
            Message::Status { .. } => self.schedule.publish_by.min(Instant::now() + self.relay.stream_wait),
        };
        let publishing = self.relay.topic.publish(claim.message());
        let (published, took) = timed(publish_by, publishing, TopicError::TimedOut).await;
        self.timings.publish = took;
        published
    }

    async fn release(&self, claim: &Claim, cause: Unpublished) -> Outcome {
        let (now, error) = (self.invocation.now(), chain(&cause));
        let released = match self.finish(|| self.relay.ledger.release(claim, now, &error)).await {
            // If another attempt has claimed the delivery, there is nothing to release.
            Ok(()) | Err(FinishError::Overtaken) => Ok(()),
            Err(FinishError::Failed(error)) => Err(error),
        };
        Outcome::Unpublished { cause, released }
    }

    /// Repeats an operation of the ledger until it succeeds or its time is over.
    async fn finish<F>(&self, finish: impl Fn() -> F) -> Result<(), FinishError>
    where
        F: Future<Output = Result<(), FinishError>>,
    {
        let finish_by = self.schedule.finish_by;
        let mut pause = FIRST_PAUSE;
        loop {
            match within(finish_by, finish(), LedgerError::TimedOut.into()).await {
                Err(FinishError::Failed(LedgerError::Failed(..))) if Instant::now() + pause < finish_by => {
                    sleep(pause).await
                }
                finished => return finished,
            }
            pause = MAX_PAUSE.min(pause * 2);
        }
    }
}

/// Runs `work` until the deadline. Also returns the duration of `work`, or `None` if the deadline
/// had passed before its start.
async fn timed<T, E>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
    late: E,
) -> (Result<T, E>, Option<Duration>) {
    let began = Instant::now();
    let result = within(deadline, work, late).await;
    (result, (began < deadline).then(|| began.elapsed()))
}
