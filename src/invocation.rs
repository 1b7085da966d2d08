//! Divides the time of one invocation, from its start to the moment at which Lambda kills it.

use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::{Instant, timeout_at};

use crate::timestamp::Timestamp;

/// The time between the end of an invocation and the end of its leases. Lambda's hosts set their
/// clocks by the Amazon Time Sync Service, within milliseconds of each other. Two seconds leave a
/// margin.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// The longest time until a deadline. Lambda stops every invocation after 15 minutes, so a later
/// deadline is wrong, and its lease would hardly ever end.
const MAX_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The time that is assumed if the deadline has already passed, as with some emulators. It is the
/// timeout in `template.yaml`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `work` until the deadline, and returns `late` if `work` is not done by then. Does not start
/// `work` after the deadline, because it might take effect.
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

/// The deadlines of an attempt's steps. All are shares of the invocation's time, so they suit every
/// timeout of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The end of the work before the claim: the fetch of signing secrets, and the search for the
    /// lead's details. Later, too little time is left for the claim.
    pub prepare_by: Instant,
    /// The end of the claim. Later, too little time is left to publish.
    pub claim_by: Instant,
    /// The latest start of an alert's slot. Later, too little time is left to publish.
    pub pace_by: Instant,
    /// The end of the publish. Later, its result could not be recorded.
    pub publish_by: Instant,
    /// The end of the completion or the release. Later, the answer could not be sent.
    pub finish_by: Instant,
}

impl Invocation {
    /// Creates an invocation that began at `now` and that Lambda kills at `deadline`. `random`
    /// makes its owner token unique.
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

    /// Returns Lambda's id of the invocation.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Returns the time since the invocation began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the time of day. It is counted from the invocation's start, so that a change of the
    /// host's clock has no effect.
    pub fn now(&self) -> Timestamp {
        self.began_at.after(self.elapsed())
    }

    /// Returns the part of this invocation for one of many deliveries. The part begins now and
    /// lasts `longest`, or a quarter of the invocation if that is less. Returns `None` if less time
    /// is left. `number` must be different for each part, because two attempts must never have the
    /// same owner.
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

    /// Returns the end of every lease of this invocation.
    pub fn lease_until(&self) -> Timestamp {
        self.began_at.after(self.allowed + LEASE_MARGIN)
    }

    /// Returns an attempt that begins now.
    pub fn attempt(&self) -> Attempt {
        Attempt { owner: Owner::new(&self.request_id, self.random), now: self.now(), lease_until: self.lease_until() }
    }

    /// Returns the deadlines of the steps of one request, or of one delivery.
    pub fn schedule(&self) -> Schedule {
        let by = |percent: u32| self.began + self.allowed * percent / 100;
        Schedule { prepare_by: by(20), claim_by: by(35), pace_by: by(50), publish_by: by(75), finish_by: by(95) }
    }
}

/// The part of an attempt that the ledger needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The owner token of the attempt.
    pub owner: Owner,
    /// The time of the claim.
    pub now: Timestamp,
    /// The end of the claim's lease.
    pub lease_until: Timestamp,
}

/// The token of one attempt. No token is used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// Creates a token. The request id leads from a row to the log of its owner. The request id
    /// alone is not unique, because Lambda uses it again when it retries an asynchronous
    /// invocation.
    pub fn new(request_id: &str, random: [u8; 8]) -> Self {
        Self(format!("{request_id}/{}", HEXLOWER.encode(&random)))
    }

    /// Creates a token from its stored text.
    pub fn from_stored(token: String) -> Self {
        Self(token)
    }

    /// Returns the token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
