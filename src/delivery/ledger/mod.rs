//! Decides which attempt may publish which delivery. The rules here are independent of any
//! database.
//!
//! A delivery is one event on its way to one topic, and has one row. The row is `PENDING` from the
//! first claim on. It becomes `PUBLISHED` once the message has been published. If the message will
//! never be published, the row becomes `DEBOUNCED` or `DISCARDED`. A pending row belongs to the
//! attempt that has its lease:
//!
//! ```text
//!             claim                  publish          complete
//! attempt A  ──┬───────────────────────┬─────────────────┬──────────────▶  PUBLISHED
//!              │◀────────── lease of A ──────────────▶│
//! attempt B     ✗ in progress           ✗ in progress      ✗ duplicate
//!
//!             claim      (A crashes)
//! attempt A  ──┬───────────†
//!              │◀────────── lease of A ─────▶│
//! attempt B     ✗ in progress                claim ─── publish ─── complete ──▶  PUBLISHED
//! ```
//!
//! An attempt is one try at a delivery, in an invocation of the webhook function or of the redrive.
//! Both follow the same rules. The lease outlives the attempt (see [`crate::invocation`]), so no
//! other attempt can take a running attempt's claim. Each attempt has a new [`Owner`] token, and
//! changes only a row that still has this token. So a late request of a crashed attempt changes
//! nothing.
//!
//! [`may_claim`] and [`may_finish`] are the rules. [`dynamodb`] sends them as the conditions of its
//! writes, and calls them to explain a refusal. A test checks that both agree for every kind of
//! row.
//!
//! Two more rules apply to a claimed alert: [`may_publish`] if alerts are debounced, and
//! [`may_take_slot`] if they are paced (see [`crate::delivery::pace`]).
//!
//! The table also keeps the last reply of each lead, for the message of an alert. [`may_remember`]
//! is its rule. No delivery depends on a reply.

pub mod dynamodb;

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use futures_util::Stream;

use crate::delivery::pace::Slot;
use crate::invocation::{Attempt, Owner};
use crate::message::details::LastReply;
use crate::message::key::{DeliveryId, LockKey, ReplyKey};
use crate::message::{Delivery, Known, Locks, Message};
use crate::timestamp::Timestamp;

/// The part of a delivery's row that the rules need.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// The state of the delivery.
    pub state: State,
    /// The attempt that claimed the delivery last.
    pub owner: Owner,
    /// The end of the last claim's lease, or the time of its release.
    pub lease_until: Timestamp,
    /// The content hash of the first claim. Rows of older versions have none.
    pub content_sha256: Option<String>,
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed at least once, and the message is not known to be published.
    Pending,
    /// The message has been published.
    Published,
    /// The message will never be published, because another alert for the same lead and status has
    /// been published or is durably claimed.
    Debounced,
    /// The message will never be published, because the lead status stream was turned off first.
    Discarded,
}

/// Whether an attempt may claim a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayClaim {
    /// No other attempt has the lease.
    Yes,
    /// The attempt has claimed the delivery already. The answer was lost, so the attempt asked
    /// again.
    Mine,
    /// The row refuses the claim.
    No(Refusal),
}

/// Why a row refuses a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another attempt has the lease, and may still be running.
    InProgress {
        /// The end of the other attempt's lease.
        until: Timestamp,
    },
    /// The message has been published, debounced or discarded.
    Done,
    /// The row belongs to another event with the same id and other content: a body mismatch. This
    /// event needs its own delivery.
    BodyMismatch,
}

/// Returns whether `owner` may claim the delivery. `content_sha256` is
/// [`ClaimRequest::content_sha256`].
pub fn may_claim(row: Option<&Row>, content_sha256: Option<&str>, owner: &Owner, now: Timestamp) -> MayClaim {
    let other = |row: &Row| row.content_sha256.as_deref().zip(content_sha256).is_some_and(|(had, has)| had != has);
    match row {
        None => MayClaim::Yes,
        Some(row) if other(row) => MayClaim::No(Refusal::BodyMismatch),
        Some(row) if row.state != State::Pending => MayClaim::No(Refusal::Done),
        Some(row) if row.owner == *owner => MayClaim::Mine,
        Some(row) if row.lease_until <= now => MayClaim::Yes,
        Some(row) => MayClaim::No(Refusal::InProgress { until: row.lease_until }),
    }
}

/// Whether an attempt may complete, debounce, discard or release its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayFinish {
    /// The row is pending, and the attempt still owns it.
    Yes,
    /// The attempt has done so already. The answer was lost, so the attempt asked again.
    Done,
    /// The lease expired and another attempt claimed the delivery, or the row is gone.
    Overtaken,
}

/// Returns whether `owner` may complete, debounce, discard or release its claim.
pub fn may_finish(row: Option<&Row>, owner: &Owner) -> MayFinish {
    match row {
        Some(row) if row.owner == *owner && row.state == State::Pending => MayFinish::Yes,
        Some(row) if row.owner == *owner => MayFinish::Done,
        _ => MayFinish::Overtaken,
    }
}

/// The part of a lock's row that the rule needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLock {
    /// The delivery whose alert has the lock. The delivery was claimed before, so its alert has
    /// been published, or will be. The baseline also holds locks, which suppress only alerts of the
    /// reconciliation.
    pub holder: DeliveryId,
    /// The lock suppresses alerts whose [`Lock::at`] is before this time.
    pub until: Timestamp,
}

/// A request for a lock on the alerts about one lead and status, or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The key of the lock's row.
    pub key: LockKey,
    /// The time of the alert. It is compared with [`HeldLock::until`].
    pub at: Timestamp,
    /// The end of the lock.
    pub until: Timestamp,
    /// Whether `until` also replaces the end of a lock that another alert has had.
    pub renews: bool,
    /// The time from which the row may be deleted.
    pub expires_at: Timestamp,
}

/// The time for which a lead stays known. It is longer than any usual row of a delivery. The
/// reconciliation renews the time of a lead that keeps its status.
pub const KNOWN_RETENTION: Duration = Duration::from_secs(400 * 24 * 60 * 60);

impl Lock {
    /// Creates the request for a debounce lock, from now on.
    pub fn debounce(key: LockKey, now: Timestamp, debounce: Duration) -> Self {
        let until = now.after(debounce);
        // After `until`, the row has no effect any more. Seconds are rounded down, so one is added.
        Self { key, at: now, until, renews: true, expires_at: until.after(Duration::from_secs(1)) }
    }

    /// Creates the request for the lock that makes a lead known.
    pub fn known(Known { key, at, until }: Known, now: Timestamp) -> Self {
        Self { key, at, until, renews: false, expires_at: now.after(KNOWN_RETENTION) }
    }

    /// Returns the lock after the alert of `delivery` has taken it.
    pub fn taken(&self, before: Option<&HeldLock>, delivery: &DeliveryId) -> HeldLock {
        let kept = before.filter(|_| !self.renews).map(|before| before.until);
        HeldLock { holder: delivery.clone(), until: kept.unwrap_or(self.until) }
    }
}

/// Whether a claimed alert may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayPublish {
    /// No other alert has a lock that suppresses this one.
    Yes,
    /// The alert of this delivery has the lock.
    Debounced(DeliveryId),
}

/// Returns whether the alert of `delivery` with the time `at` may be published, or which alert has
/// a lock that suppresses it.
///
/// The delivery with the lock was claimed before. So its alert has been published, or its row is
/// `PENDING` and its alert will be. Any other alert may therefore be suppressed. If an attempt
/// finds after the end of its own lock that another alert has taken the lock, its alert is
/// suppressed in turn. The last alert with the lock is published, so the lead has its alert.
pub fn may_publish(lock: Option<&HeldLock>, delivery: &DeliveryId, at: Timestamp) -> MayPublish {
    match lock {
        Some(lock) if lock.holder != *delivery && at < lock.until => MayPublish::Debounced(lock.holder.clone()),
        _ => MayPublish::Yes,
    }
}

/// Returns whether `owner` may take a slot, or has it already. `holder` is the owner in the slot's
/// row. If an answer is lost and the attempt asks again, the attempt still has its slot.
pub fn may_take_slot(holder: Option<&Owner>, owner: &Owner) -> bool {
    holder.is_none_or(|holder| holder == owner)
}

/// Returns whether a reply of this time may replace the stored one. The newest reply is kept, in
/// whatever order the replies arrive.
pub fn may_remember(stored_at: Option<Timestamp>, at: Timestamp) -> bool {
    stored_at.is_none_or(|stored_at| stored_at <= at)
}

/// A request for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRequest {
    /// A delivery that an event needs. The claim creates the row if it does not exist.
    Delivery(Delivery),
    /// A delivery that was claimed before, and of which only the key is known. Its row has the
    /// message.
    Pending(DeliveryId),
}

impl ClaimRequest {
    /// Returns the key of the row.
    pub fn id(&self) -> &DeliveryId {
        match self {
            Self::Delivery(delivery) => &delivery.id,
            Self::Pending(id) => id,
        }
    }

    /// Returns the content hash that the row must have. Returns `None` if only the row's key is
    /// known, because then any content is accepted.
    pub fn content_sha256(&self) -> Option<&str> {
        match self {
            Self::Delivery(delivery) => Some(&delivery.content_sha256),
            Self::Pending(_) => None,
        }
    }
}

/// The ledger's answer to a [`ClaimRequest`].
#[derive(Debug)]
pub struct ClaimResult {
    /// The claim, or why the row refuses it.
    pub claim: Result<Claim, Refusal>,
    /// The number of attempts that have claimed the delivery so far, if the row has it.
    pub attempts: Option<u32>,
}

/// The right to publish one delivery's message, as the row has it. The attempt must end the claim
/// with [`Ledger::complete`], [`Ledger::debounce`], [`Ledger::discard`] or [`Ledger::release`]. A
/// claim cannot be cloned.
#[derive(Debug)]
#[must_use = "a claim that is neither completed nor released blocks its delivery until the lease ends"]
pub struct Claim {
    id: DeliveryId,
    message: Message,
    locks: Locks,
    owner: Owner,
}

impl Claim {
    /// Creates the claim that a ledger has granted to `owner`.
    pub fn new(id: DeliveryId, message: Message, locks: Locks, owner: Owner) -> Self {
        Self { id, message, locks, owner }
    }

    /// Returns the key of the claimed row.
    pub fn delivery_id(&self) -> &DeliveryId {
        &self.id
    }

    /// Returns the message to publish.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Returns the locks that the alert needs before it may be published.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Returns the owner token of the attempt that has the claim.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// The proof that a message has been published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// SNS's id of the message.
    pub message_id: String,
    /// The time of the publish.
    pub published_at: Timestamp,
    /// The time from which the row may be deleted.
    pub expires_at: Timestamp,
}

/// One pending delivery in a listing. The row may have changed since the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The key of the row.
    pub id: DeliveryId,
    /// The end of the last claim's lease, or the time of its release.
    pub lease_until: Timestamp,
    /// The time of the first claim.
    pub first_seen_at: Timestamp,
    /// The number of attempts that have claimed the delivery so far.
    pub attempts: u32,
}

/// Why an operation of the ledger did not succeed. The operation may have taken effect
/// nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refused, or could not be reached.
    #[error("the ledger could not {0}")]
    Failed(&'static str, #[source] Box<dyn Error + Send + Sync>),
    /// This program did not write the row: this attribute is missing or has the wrong type.
    #[error("the row's attribute {0} is missing or of a wrong type")]
    BadRow(&'static str),
    /// There is no row with this key, so the message is not known.
    #[error("the row is gone")]
    Gone,
    /// The condition failed, although the row satisfies it.
    #[error("the table refused a write that the row allows")]
    Contradiction,
    /// The condition failed, and the table did not return the row. The row may belong to another
    /// event with the same id.
    #[error("the table refused the claim and did not return the row (ReturnValuesOnConditionCheckFailure)")]
    Unexplained,
    /// There was no answer in the attempt's time.
    #[error("the ledger did not answer in time")]
    TimedOut,
}

/// Why a claim could not be completed, debounced, discarded or released.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Another attempt had claimed the delivery, so the row was not changed.
    #[error("another attempt had claimed the delivery")]
    Overtaken,
    /// The operation did not succeed.
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

/// The record of which attempt has claimed which delivery. Every operation is atomic, and can be
/// repeated without harm.
pub trait Ledger {
    /// Claims the delivery if [`may_claim`] allows it.
    fn claim(
        &self,
        request: ClaimRequest,
        attempt: Attempt,
    ) -> impl Future<Output = Result<ClaimResult, LedgerError>> + Send;

    /// Takes a lock for the alert of `holder`, if [`may_publish`] allows it. The delivery must be
    /// claimed before, unless the lock suppresses no webhook's alert ([`Known::baseline`]).
    fn lock(&self, holder: &DeliveryId, lock: &Lock) -> impl Future<Output = Result<MayPublish, LedgerError>> + Send;

    /// Takes a slot for the claim's alert if [`may_take_slot`] allows it. Returns whether the claim
    /// has the slot.
    fn take_slot(&self, claim: &Claim, slot: Slot) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Records that the message has been published, if [`may_finish`] allows it.
    fn complete(&self, claim: &Claim, receipt: &Receipt) -> impl Future<Output = Result<(), FinishError>> + Send;

    /// Records that the alert is suppressed in favour of the alert of `holder`, if [`may_finish`]
    /// allows it.
    fn debounce(
        &self,
        claim: &Claim,
        holder: &DeliveryId,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), FinishError>> + Send;

    /// Records that the message will never be published, and why, if [`may_finish`] allows it.
    fn discard(
        &self,
        claim: &Claim,
        reason: &str,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), FinishError>> + Send;

    /// Ends the claim's lease, so that another attempt can claim the delivery, and records the
    /// error, if [`may_finish`] allows it.
    fn release(
        &self,
        claim: &Claim,
        now: Timestamp,
        error: &str,
    ) -> impl Future<Output = Result<(), FinishError>> + Send;

    /// Stores a lead's reply until `expires_at`, if [`may_remember`] allows it. Otherwise a newer
    /// reply is stored, and nothing changes.
    fn remember(
        &self,
        key: &ReplyKey,
        reply: &LastReply,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Returns the stored reply, unless it has expired.
    fn last_reply(
        &self,
        key: &ReplyKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<LastReply>, LedgerError>> + Send;

    /// Lists every pending delivery, including those whose lease has not expired. If rows cannot be
    /// listed, the listing has an error in their place.
    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send;
}

/// The records of the reconciliation.
pub trait Reconciled: Ledger {
    /// Returns the known leads among these locks.
    fn known(&self, keys: &[LockKey]) -> impl Future<Output = Result<HashMap<LockKey, KnownLead>, LedgerError>> + Send;

    /// Claims the run of the reconciliation with this name, if [`may_run`] allows it.
    fn begin_run(&self, name: &str, attempt: &Attempt) -> impl Future<Output = Result<Run, LedgerError>> + Send;

    /// Stores the progress of a claimed run and ends it.
    fn end_run(
        &self,
        name: &str,
        attempt: &Attempt,
        now: Timestamp,
        progress: &str,
    ) -> impl Future<Output = Result<(), FinishError>> + Send;
}

/// A known lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLead {
    /// The delivery that has the lock.
    pub holder: DeliveryId,
    /// The time from which the row may be deleted.
    pub expires_at: Timestamp,
}

/// The ledger's answer to a request for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// The run is claimed. The text is what the last run stored.
    Claimed(Option<String>),
    /// Another run is in progress.
    InProgress {
        /// The end of the other run's lease.
        until: Timestamp,
    },
}

/// Returns whether `owner` may claim the run of the reconciliation. `last` is the owner and the end
/// of the lease of the last run.
pub fn may_run(last: Option<(&Owner, Timestamp)>, owner: &Owner, now: Timestamp) -> bool {
    last.is_none_or(|(last, lease_until)| last == owner || lease_until <= now)
}
