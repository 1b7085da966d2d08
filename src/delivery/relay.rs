//! The one way of a message: claim, publish, complete; or release, so that the next attempt need not wait.
//!
//! ```text
//! claim ──┬─ won ──────── publish ──┬─ taken ──── complete ──▶ Alerted, or  (also where completion fails: the message is out)
//!         │                         │                          Streamed
//!         │                         ├─ not taken ─ release ──▶ Unavailable  (also where release fails: the lease runs out)
//!         │                         └─ stream off ─ discard ─▶ Discarded
//!         ├─ done ───────────────────────────────────────────▶ Duplicate
//!         ├─ in progress ────────────────────────────────────▶ InProgress
//!         └─ no answer ──────────────────────────────────────▶ Unavailable
//! ```
//!
//! Where alerts are debounced, whoever has won asks for the lead's quiet period before it publishes:
//!
//! ```text
//! won ────── quiet ──┬─ its own ── publish …
//!                    ├─ another's, whose alert is claimed ── debounce ──▶ Debounced
//!                    └─ no answer ───────────────────────── release ──▶ Unavailable
//! ```
//!
//! If alerts are paced, the attempt takes a slot before it publishes an alert, and waits until the
//! slot starts:
//!
//! ```text
//! won ────── slot ──┬─ taken ── wait for its start ── publish …
//!                   ├─ another's ── the next slot …
//!                   └─ none free in the attempt's time, or no answer ── release ──▶ Unavailable
//! ```
//!
//! SendPilot gets 2xx for an alert once it is published, or once it is debounced, because the other
//! alert cannot be lost any more. A message to the lead status stream only has to be claimed: see
//! [`crate::webhook::response`]. Before that, the row is `PENDING` or does not exist. If this function is
//! cut off, the next attempt starts from there: SendPilot's or the redrive's, as both use this
//! module.
//!
//! If a completion, a debounce, a discard or a release fails, it is repeated until
//! [`Schedule::settle_by`]. A repetition is safe, because each operation recognises its own effect.
//! It is needed, because an alert that was published but not recorded is published again.
//!
//! [`Schedule::settle_by`]: crate::invocation::Schedule::settle_by

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::delivery::ledger::{Claim, Claimed, Ledger, LedgerError, MayAlert, Receipt, Settled, Standing, Wanted};
use crate::delivery::pace::Pacer;
use crate::delivery::topic::{Topic, TopicError};
use crate::error::chain;
use crate::invocation::{Invocation, within};
use crate::message::Message;
use crate::timestamp::Timestamp;
use crate::webhook::response::Outcome;

/// What became of a delivery.
#[derive(Debug)]
pub struct Relayed {
    /// What to answer.
    pub outcome: Outcome,
    /// Whether the event's id belongs to another fact.
    pub other_content: bool,
    /// What went wrong on the way, if anything did.
    pub failure: Option<Failure>,
    /// How it went.
    pub steps: Steps,
}

/// How a delivery went: what of it was begun, and how long that took, whatever came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// How often it has been claimed by now, where the ledger says so.
    pub attempts: Option<u32>,
    /// The claim.
    pub claim: Option<Duration>,
    /// The search for an alert's slot, and the wait for its start.
    pub pace: Option<Duration>,
    /// The publish.
    pub publish: Option<Duration>,
    /// When the topic took the message.
    pub published_at: Option<Timestamp>,
    /// The completion.
    pub complete: Option<Duration>,
}

/// What can go wrong on the way.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No claim, or none that we know of.
    #[error("claim failed")]
    Claim(#[source] LedgerError),
    /// The delivery's row belongs to another fact under the same event id.
    #[error("the row belongs to other content under the same event id")]
    OtherContent,
    /// The message is not known to be out. The delivery is free for the next attempt.
    #[error(transparent)]
    Publish(Unpublished),
    /// As above, but nobody can take the delivery before its lease runs out.
    #[error("{cause}, and so did the release of the claim ({release})")]
    Release {
        /// Why the message is not known to be out.
        #[source]
        cause: Unpublished,
        /// Why the claim is not free.
        release: LedgerError,
    },
    /// The message is out, or will not be, but the row does not say so: it may be published again under the same id.
    #[error("done, but completion failed")]
    Complete(#[source] LedgerError),
    /// The same, and somebody else took the claim over meanwhile and may have published it too.
    #[error("done, but the claim had passed to another attempt")]
    Overtaken,
}

/// Why a claimed message is not known to be out.
#[derive(Debug, thiserror::Error)]
pub enum Unpublished {
    /// The topic did not take it, as far as we know.
    #[error("publish failed")]
    Topic(#[source] TopicError),
    /// It was not published, because nobody could say whether another alert has told the same.
    #[error("debounce failed")]
    Quiet(#[source] LedgerError),
    /// It was not published, because a request for a slot failed or got no answer.
    #[error("pacing failed")]
    Pace(#[source] LedgerError),
    /// It was not published, because other alerts have all slots in the attempt's time.
    #[error("more alerts are due than ALERTS_PER_SECOND allows, so this one waits for another attempt")]
    NoSlot,
}

/// When to try again what nobody holds. SendPilot's first retry comes after 5 s too.
const RETRY: Duration = Duration::from_secs(5);

/// How long the webhook function waits for the stream's topic. SNS answers within milliseconds. If
/// the topic hangs, the function must not hold concurrent executions that alerts need. The redrive
/// publishes the message.
pub const STREAM_WAIT: Duration = Duration::from_secs(2);

/// The pause before a failed completion, debounce, discard or release is repeated. Each further
/// pause is twice as long, up to [`LONGEST_PAUSE`]. Before each pause, the SDK has tried three
/// times within 0.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two repetitions.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl From<Outcome> for Relayed {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, other_content: false, failure: None, steps: Steps::default() }
    }
}

impl Relayed {
    /// Whether the delivery's row certainly exists: this attempt wrote the row, or the row refused
    /// this attempt. Then the delivery cannot be lost, because the redrive finds every pending row.
    /// A claim that failed or got no answer may have left no row.
    pub fn is_claimed(&self) -> bool {
        match &self.failure {
            Some(Failure::Claim(_) | Failure::OtherContent) => false,
            None | Some(Failure::Publish(_) | Failure::Release { .. } | Failure::Complete(_) | Failure::Overtaken) => {
                true
            }
        }
    }

    /// Whether the alert was not published only because no slot was free.
    pub fn found_no_slot(&self) -> bool {
        matches!(
            &self.failure,
            Some(Failure::Publish(Unpublished::NoSlot) | Failure::Release { cause: Unpublished::NoSlot, .. })
        )
    }

    /// Whether the topic did not answer the publish in time.
    pub fn topic_timed_out(&self) -> bool {
        matches!(
            &self.failure,
            Some(
                Failure::Publish(Unpublished::Topic(TopicError::TimedOut))
                    | Failure::Release { cause: Unpublished::Topic(TopicError::TimedOut), .. }
            )
        )
    }

    /// Where the claim stands, or may, nobody can do anything before its lease is over.
    fn unavailable(failure: Failure, invocation: &Invocation) -> Self {
        let retry_after = match failure {
            Failure::Publish(_) | Failure::OtherContent => RETRY,
            _ => invocation.lease_until().since(invocation.now()),
        };
        Self { failure: Some(failure), ..Outcome::Unavailable { retry_after }.into() }
    }
}

/// Takes deliveries to their topics.
#[derive(Debug)]
pub struct Relay<L, T> {
    /// Who has claimed what.
    pub ledger: L,
    /// Where messages go.
    pub topic: T,
    /// How long a row is kept that is done with.
    pub retention: Duration,
    /// How long there is no second alert for the same lead and status, where alerts are debounced.
    pub debounce: Option<Duration>,
    /// This process's part in the pace of alerts, if alerts are paced.
    pub pacer: Option<Pacer>,
    /// The longest wait for the topic of the lead status stream, if that ends before
    /// [`Schedule::publish_by`](crate::invocation::Schedule::publish_by).
    pub stream_wait: Duration,
}

impl<L: Ledger, T: Topic> Relay<L, T> {
    /// Takes one delivery as far as it can be taken in the time of this invocation.
    pub async fn deliver(&self, wanted: Wanted, invocation: &Invocation) -> Relayed {
        let mut steps = Steps::default();
        let relayed = self.claim(wanted, invocation, &mut steps).await;
        Relayed { steps, ..relayed }
    }

    async fn claim(&self, wanted: Wanted, invocation: &Invocation, steps: &mut Steps) -> Relayed {
        let claim_by = invocation.schedule().claim_by;
        let claiming = self.ledger.claim(wanted, invocation.attempt());
        let claimed = timed(claim_by, claiming, LedgerError::TimedOut, &mut steps.claim).await;
        let Claimed { standing, attempts } = match claimed {
            Ok(claimed) => claimed,
            Err(error) => return Relayed::unavailable(Failure::Claim(error), invocation),
        };
        steps.attempts = attempts;
        match standing {
            Standing::Won(claim) => self.see_to_quiet(claim, invocation, steps).await,
            Standing::Done => Outcome::Duplicate.into(),
            Standing::InProgress { until } => Outcome::InProgress { retry_after: until.since(invocation.now()) }.into(),
            Standing::OtherContent => {
                Relayed { other_content: true, ..Relayed::unavailable(Failure::OtherContent, invocation) }
            }
        }
    }

    /// After the claim, so that whoever is refused knows that the holder's alert cannot be lost any more.
    async fn see_to_quiet(&self, claim: Claim, invocation: &Invocation, steps: &mut Steps) -> Relayed {
        let Some((period, debounce)) = claim.quiet().zip(self.debounce) else {
            return self.pace(claim, invocation, steps).await;
        };
        let now = invocation.now();
        let asking = self.ledger.quiet(&claim, period, now, now.after(debounce));
        match within(invocation.schedule().claim_by, asking, LedgerError::TimedOut).await {
            Ok(MayAlert::Yes) => self.pace(claim, invocation, steps).await,
            Ok(MayAlert::Debounced(holder)) => {
                let expires_at = now.after(self.retention);
                let settle_by = invocation.schedule().settle_by;
                let debounced = settle(settle_by, || self.ledger.debounce(&claim, &holder, expires_at)).await;
                Relayed { failure: unsettled(debounced), ..Outcome::Debounced.into() }
            }
            Err(error) => self.release(claim, Unpublished::Quiet(error), invocation).await,
        }
    }

    /// Publishes an alert in a slot of its own. A message to the stream needs no slot.
    async fn pace(&self, claim: Claim, invocation: &Invocation, steps: &mut Steps) -> Relayed {
        if let (Message::Alert { .. }, Some(pacer)) = (claim.message(), &self.pacer) {
            let began = Instant::now();
            let slot = self.wait_for_slot(&claim, pacer, invocation).await;
            steps.pace = Some(began.elapsed());
            if let Err(cause) = slot {
                return self.release(claim, cause, invocation).await;
            }
        }
        self.publish(claim, invocation, steps).await
    }

    /// Takes the first free slot and waits for its start.
    async fn wait_for_slot(&self, claim: &Claim, pacer: &Pacer, invocation: &Invocation) -> Result<(), Unpublished> {
        let pace_by = invocation.schedule().pace_by;
        let mut ahead = Duration::ZERO;
        loop {
            let asked_at = invocation.now();
            let slot = pacer.next(asked_at.after(ahead));
            let starts_at = Instant::now() + slot.start().since(asked_at);
            if starts_at > pace_by {
                // An alarm does not count an alert that only found no slot. A ledger that is too
                // slow for every slot is a failure.
                let slow = !ahead.is_zero();
                return Err(if slow { Unpublished::Pace(LedgerError::TimedOut) } else { Unpublished::NoSlot });
            }
            pacer.asks_for(slot);
            let taken = within(pace_by, self.ledger.take_slot(claim, slot), LedgerError::TimedOut).await;
            if taken.map_err(Unpublished::Pace)? {
                sleep_until(starts_at).await;
                let now = invocation.now();
                if slot.is_usable(now) {
                    return Ok(());
                }
                // The ledger answered too late for this slot. The next slot is as far ahead as the
                // ledger is slow.
                ahead = now.since(asked_at);
            }
        }
    }

    async fn publish(&self, claim: Claim, invocation: &Invocation, steps: &mut Steps) -> Relayed {
        let schedule = invocation.schedule();
        let (outcome, publish_by) = match claim.message() {
            Message::Alert { .. } => (Outcome::Alerted, schedule.publish_by),
            Message::Status { .. } => (Outcome::Streamed, schedule.publish_by.min(Instant::now() + self.stream_wait)),
        };
        let publishing = self.topic.publish(claim.message());
        match timed(publish_by, publishing, TopicError::TimedOut, &mut steps.publish).await {
            Ok(message_id) => {
                let published_at = invocation.now();
                steps.published_at = Some(published_at);
                let receipt = Receipt { message_id, published_at, expires_at: published_at.after(self.retention) };
                let completing = settle(schedule.settle_by, || self.ledger.complete(&claim, &receipt));
                let completed = timed(schedule.settle_by, completing, LedgerError::TimedOut, &mut steps.complete).await;
                Relayed { failure: unsettled(completed), ..outcome.into() }
            }
            // While the stream is off, every further attempt would end here too.
            Err(off @ TopicError::NoStream) => self.discard(claim, &off, invocation).await,
            Err(error) => self.release(claim, Unpublished::Topic(error), invocation).await,
        }
    }

    async fn discard(&self, claim: Claim, reason: &TopicError, invocation: &Invocation) -> Relayed {
        let reason = chain(reason);
        let expires_at = invocation.now().after(self.retention);
        let settle_by = invocation.schedule().settle_by;
        let discarded = settle(settle_by, || self.ledger.discard(&claim, &reason, expires_at)).await;
        Relayed { failure: unsettled(discarded), ..Outcome::Discarded.into() }
    }

    async fn release(&self, claim: Claim, cause: Unpublished, invocation: &Invocation) -> Relayed {
        let error = chain(&cause);
        let (now, settle_by) = (invocation.now(), invocation.schedule().settle_by);
        let released = settle(settle_by, || self.ledger.release(&claim, now, &error)).await;
        let failure = match released {
            Ok(Settled::Recorded | Settled::NotMine) => Failure::Publish(cause),
            Err(release) => Failure::Release { cause, release },
        };
        Relayed::unavailable(failure, invocation)
    }
}

/// Repeats an operation of the ledger that fails, until it succeeds or `settle_by` has passed.
async fn settle<F>(settle_by: Instant, settle: impl Fn() -> F) -> Result<Settled, LedgerError>
where
    F: Future<Output = Result<Settled, LedgerError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match within(settle_by, settle(), LedgerError::TimedOut).await {
            Err(LedgerError::Failed(..)) if Instant::now() + pause < settle_by => sleep(pause).await,
            settled => return settled,
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

fn unsettled(settled: Result<Settled, LedgerError>) -> Option<Failure> {
    match settled {
        Ok(Settled::Recorded) => None,
        Ok(Settled::NotMine) => Some(Failure::Overtaken),
        Err(error) => Some(Failure::Complete(error)),
    }
}

/// Gives up at the deadline, and says how long it `took`, if there was time for it at all.
async fn timed<T, E>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
    late: E,
    took: &mut Option<Duration>,
) -> Result<T, E> {
    let began = Instant::now();
    let result = within(deadline, work, late).await;
    *took = (began < deadline).then(|| began.elapsed());
    result
}
