//! The one way of an alert: claim, publish, complete; or release, so that the next attempt need not wait.
//!
//! ```text
//! claim ──┬─ won ──────── publish ──┬─ taken ──── complete ──▶ Alerted      (also where completion fails: the alert is out)
//!         │                         └─ not taken ─ release ──▶ Unavailable  (also where release fails: the lease runs out)
//!         ├─ published ──────────────────────────────────────▶ Duplicate
//!         ├─ in progress ────────────────────────────────────▶ InProgress
//!         └─ no answer ──────────────────────────────────────▶ Unavailable
//! ```
//!
//! 2xx is said only when the alert is out. Until then the row is `PENDING`, or was never written; wherever this function
//! is cut off, the next attempt finds one or the other. That is SendPilot's, or the redrive's: both come this way.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::chain;
use crate::invocation::{Invocation, within};
use crate::ledger::{Claim, Claimed, Ledger, LedgerError, Receipt, Settled, Standing, Wanted};
use crate::response::Outcome;
use crate::timestamp::Timestamp;
use crate::topic::{Topic, TopicError};

/// What became of a delivery.
#[derive(Debug)]
pub struct Relayed {
    /// What to answer.
    pub outcome: Outcome,
    /// The ledger knows the event's id with another body.
    pub other_body: bool,
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
    /// The publish.
    pub publish: Option<Duration>,
    /// When the topic took the alert.
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
    /// The alert is not known to be out. The delivery is free for the next attempt.
    #[error("publish failed")]
    Publish(#[source] TopicError),
    /// As above, but nobody can take the delivery before its lease runs out.
    #[error("publish failed, and so did the release of the claim ({release})")]
    Release {
        /// Why the alert is not known to be out.
        #[source]
        publish: TopicError,
        /// Why the claim is not free.
        release: LedgerError,
    },
    /// The alert is out, but the row does not say so: it may be published again under the same id.
    #[error("published, but completion failed")]
    Complete(#[source] LedgerError),
    /// The alert is out, but somebody else took the claim over meanwhile and may have published it too.
    #[error("published, but the claim had passed to another attempt")]
    Overtaken,
}

/// When to try again what nobody holds. SendPilot's first retry comes after 5 s too.
const RETRY: Duration = Duration::from_secs(5);

impl From<Outcome> for Relayed {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, other_body: false, failure: None, steps: Steps::default() }
    }
}

impl Relayed {
    /// Where the claim stands, or may, nobody can do anything before its lease is over.
    fn unavailable(failure: Failure, invocation: &Invocation) -> Self {
        let retry_after = match failure {
            Failure::Publish(_) => RETRY,
            _ => invocation.lease_until().since(invocation.now()),
        };
        Self { failure: Some(failure), ..Outcome::Unavailable { retry_after }.into() }
    }
}

/// Takes one delivery as far as it can be taken in the time of this invocation. `retention` is how long a published row is kept.
pub async fn relay(
    ledger: &impl Ledger,
    topic: &impl Topic,
    wanted: Wanted,
    invocation: &Invocation,
    retention: Duration,
) -> Relayed {
    let mut steps = Steps::default();
    let relayed = claim(ledger, topic, wanted, invocation, retention, &mut steps).await;
    Relayed { steps, ..relayed }
}

async fn claim(
    ledger: &impl Ledger,
    topic: &impl Topic,
    wanted: Wanted,
    invocation: &Invocation,
    retention: Duration,
    steps: &mut Steps,
) -> Relayed {
    let claim_by = invocation.schedule().claim_by;
    let claiming = ledger.claim(wanted, invocation.attempt());
    let claimed = timed(claim_by, claiming, LedgerError::TimedOut, &mut steps.claim).await;
    let Claimed { standing, other_body, attempts } = match claimed {
        Ok(claimed) => claimed,
        Err(error) => return Relayed::unavailable(Failure::Claim(error), invocation),
    };
    steps.attempts = attempts;
    let relayed = match standing {
        Standing::Won(claim) => publish(ledger, topic, claim, invocation, retention, steps).await,
        Standing::Published => Outcome::Duplicate.into(),
        Standing::InProgress { until } => Outcome::InProgress { retry_after: until.since(invocation.now()) }.into(),
    };
    Relayed { other_body, ..relayed }
}

async fn publish(
    ledger: &impl Ledger,
    topic: &impl Topic,
    claim: Claim,
    invocation: &Invocation,
    retention: Duration,
    steps: &mut Steps,
) -> Relayed {
    let schedule = invocation.schedule();
    let publishing = topic.publish(claim.message());
    match timed(schedule.publish_by, publishing, TopicError::TimedOut, &mut steps.publish).await {
        Ok(message_id) => {
            let published_at = invocation.now();
            steps.published_at = Some(published_at);
            let receipt = Receipt { message_id, published_at, expires_at: published_at.after(retention) };
            let completing = ledger.complete(claim, receipt);
            let completed = timed(schedule.settle_by, completing, LedgerError::TimedOut, &mut steps.complete).await;
            let failure = match completed {
                Ok(Settled::Recorded) => None,
                Ok(Settled::NotMine) => Some(Failure::Overtaken),
                Err(error) => Some(Failure::Complete(error)),
            };
            Relayed { failure, ..Outcome::Alerted.into() }
        }
        Err(publish) => {
            let error = chain(&publish);
            let releasing = ledger.release(claim, invocation.now(), &error);
            let released = within(schedule.settle_by, releasing, LedgerError::TimedOut).await;
            let failure = match released {
                Ok(Settled::Recorded | Settled::NotMine) => Failure::Publish(publish),
                Err(release) => Failure::Release { publish, release },
            };
            Relayed::unavailable(failure, invocation)
        }
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
