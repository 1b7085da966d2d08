//! One invocation's view of time: when it began, when Lambda will kill it, and how its time is shared out.

use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::{Instant, timeout_at};

use crate::timestamp::Timestamp;

/// How long a lease outlives the invocation that holds it. Lambda's hosts keep their clocks by the Amazon Time Sync
/// Service, within milliseconds of each other; two seconds leave room for a bad day.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// Lambda lets no invocation run longer than 15 minutes. A deadline beyond that is not one, and would make a lease that
/// nobody outlives.
const MAX_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Taken where the runtime names a deadline that is already over, as some emulators do: the timeout in `template.yaml`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives up at the deadline, and does not begin after it: what is begun may take effect.
pub(crate) async fn within<T, E>(deadline: Instant, work: impl Future<Output = Result<T, E>>, late: E) -> Result<T, E> {
    if Instant::now() >= deadline {
        return Err(late);
    }
    timeout_at(deadline, work).await.unwrap_or(Err(late))
}

/// One invocation.
#[derive(Debug, Clone)]
pub struct Invocation {
    request_id: String,
    random: [u8; 8],
    began: Instant,
    began_at: Timestamp,
    allowed: Duration,
}

/// The moment by which each step of a request must be over. All are shares of the invocation's own time, so that they
/// hold whatever the function's timeout is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The signing secrets, where they are to be fetched. Later than that, the claim would be short of time.
    pub secrets_by: Instant,
    /// The claim. Later than that, too little time is left to publish.
    pub claim_by: Instant,
    /// The start of an alert's slot. Later than that, too little time is left to publish.
    pub pace_by: Instant,
    /// The publish. Later than that, its result could not be recorded any more.
    pub publish_by: Instant,
    /// Completion or release. Later than that, the answer could not get out any more.
    pub settle_by: Instant,
}

impl Invocation {
    /// `deadline` is when Lambda kills the invocation, `now` when it began, `random` what tells this attempt from any other.
    pub fn new(request_id: &str, deadline: Timestamp, now: Timestamp, random: [u8; 8]) -> Self {
        let allowed = deadline.since(now).min(MAX_DEADLINE);
        Self {
            request_id: request_id.to_owned(),
            random,
            began: Instant::now(),
            began_at: now,
            allowed: if allowed.is_zero() { DEFAULT_TIMEOUT } else { allowed },
        }
    }

    /// Lambda's id of the invocation.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time, counted from the invocation's beginning: a step of the host's clock meanwhile cannot confuse it.
    pub fn now(&self) -> Timestamp {
        self.began_at.after(self.elapsed())
    }

    /// What one delivery of many gets of this invocation: an attempt of its own that begins now and may take `longest`, or a
    /// quarter of the whole if that is less. None if not so much is left. `number` tells it from the other parts: two attempts must never have one owner.
    pub fn part(&self, number: u64, longest: Duration) -> Option<Self> {
        let began = Instant::now();
        let allowed = longest.min(self.allowed / 4);
        (began + allowed <= self.began + self.allowed).then(|| Self {
            request_id: self.request_id.clone(),
            random: u64::from_be_bytes(self.random).wrapping_add(number).to_be_bytes(),
            began,
            began_at: self.now(),
            allowed,
        })
    }

    /// The end of every lease that this invocation takes: after its own.
    pub fn lease_until(&self) -> Timestamp {
        self.began_at.after(self.allowed + LEASE_MARGIN)
    }

    /// An attempt that begins now.
    pub fn attempt(&self) -> Attempt {
        Attempt { owner: Owner::new(&self.request_id, self.random), now: self.now(), lease_until: self.lease_until() }
    }

    /// How the time of one request, or of one delivery, is shared out.
    pub fn schedule(&self) -> Schedule {
        let by = |percent: u32| self.began + self.allowed * percent / 100;
        Schedule { secrets_by: by(20), claim_by: by(35), pace_by: by(50), publish_by: by(75), settle_by: by(95) }
    }
}

/// One try to deliver, as the ledger sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Whose the claim will be.
    pub owner: Owner,
    /// The time of the claim.
    pub now: Timestamp,
    /// Until then nobody else may take the claim.
    pub lease_until: Timestamp,
}

/// The token of one attempt, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// The request id leads from a row to the logs of its owner. It is not unique enough alone: Lambda repeats it when
    /// it retries an asynchronous invocation.
    pub fn new(request_id: &str, random: [u8; 8]) -> Self {
        Self(format!("{request_id}/{}", HEXLOWER.encode(&random)))
    }

    /// A token as it was stored.
    pub fn from_stored(token: String) -> Self {
        Self(token)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
