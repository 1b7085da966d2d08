//! Decides which attempt may publish which delivery: the rules, independent of any database.
//!
//! A delivery is one event on its way to one topic, and has one row. A row is `PENDING` from its
//! first claim. It becomes `PUBLISHED` once its message is published, or `DEBOUNCED` or `DISCARDED`
//! if the message is not to be published. A pending row belongs to the attempt that holds its
//! lease:
//!
//! ```text
//!             claim                  publish          complete
//! attempt A  ──┬───────────────────────┬─────────────────┬──────────────▶  PUBLISHED
//!              │◀────────── lease of A ──────────────▶│
//! attempt B     ✗ in progress           ✗ in progress      ✗ duplicate
//!
//!             claim      (A dies)
//! attempt A  ──┬───────────†
//!              │◀────────── lease of A ─────▶│
//! attempt B     ✗ in progress                claim ─── publish ─── complete ──▶  PUBLISHED
//! ```
//!
//! An attempt is one delivery in an invocation of the webhook function or of the redrive. Both
//! follow the same rules. The lease outlives the attempt (see [`crate::invocation`]), so a running
//! attempt is never overtaken. Each attempt has a new [`Owner`] token, and completes or releases
//! only a row that still has this token. So a late request of a dead attempt changes nothing.
//!
//! [`may_claim`] and [`may_settle`] are the rules. [`dynamodb`] sends them as conditions of its
//! writes, and calls them to understand a refusal. A test compares both over all rows.
//!
//! Two more rules apply to a claimed alert: [`may_alert`] if alerts are debounced, and
//! [`may_take_slot`] if they are paced (see [`crate::delivery::pace`]).

pub mod dynamodb;

use std::error::Error;

use futures_util::Stream;

use crate::delivery::pace::Slot;
use crate::invocation::{Attempt, Owner};
use crate::message::key::{DebounceKey, DeliveryId};
use crate::message::{Delivery, Message};
use crate::timestamp::Timestamp;

/// What a row says about its delivery: all that the rules look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// How far the delivery is.
    pub state: State,
    /// The attempt that claimed the delivery last.
    pub owner: Owner,
    /// The end of that claim's lease, or its release.
    pub lease_until: Timestamp,
    /// Content hash of the first claim. Rows of older versions have none.
    pub content_sha256: Option<String>,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed at least once, and the message is not known to be published.
    Pending,
    /// The message is published.
    Published,
    /// The message is never published, because another alert for the same lead and status is
    /// published or durably claimed.
    Debounced,
    /// The message is never published, because the lead status stream was turned off first.
    Discarded,
}

/// Whether an attempt may claim a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayClaim {
    /// No attempt holds the lease.
    Yes,
    /// The attempt has claimed the delivery before; the answer was lost, and it asked again.
    Mine,
    /// The row refuses the claim.
    No(Refusal),
}

/// Why a row refuses a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another attempt holds the lease, and may be alive.
    InProgress {
        /// The end of its lease.
        until: Timestamp,
    },
    /// The message is published, debounced or discarded.
    Done,
    /// The row belongs to another fact under the same event id. This fact needs a delivery of its
    /// own.
    OtherContent,
}

/// Applies the rule of a claim. `content_sha256` is [`ClaimRequest::content_sha256`].
pub fn may_claim(row: Option<&Row>, content_sha256: Option<&str>, owner: &Owner, now: Timestamp) -> MayClaim {
    let other = |row: &Row| row.content_sha256.as_deref().zip(content_sha256).is_some_and(|(had, has)| had != has);
    match row {
        None => MayClaim::Yes,
        Some(row) if other(row) => MayClaim::No(Refusal::OtherContent),
        Some(row) if row.state != State::Pending => MayClaim::No(Refusal::Done),
        Some(row) if row.owner == *owner => MayClaim::Mine,
        Some(row) if row.lease_until <= now => MayClaim::Yes,
        Some(row) => MayClaim::No(Refusal::InProgress { until: row.lease_until }),
    }
}

/// Whether an attempt may complete, debounce, discard or release its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaySettle {
    /// It still owns the pending row.
    Yes,
    /// It has settled the row before; the answer was lost, and it asked again.
    Done,
    /// Its lease ran out and another attempt claimed the delivery, or the row is gone.
    Overtaken,
}

/// Applies the rule of a completion, a debounce, a discard and a release.
pub fn may_settle(row: Option<&Row>, owner: &Owner) -> MaySettle {
    match row {
        Some(row) if row.owner == *owner && row.state == State::Pending => MaySettle::Yes,
        Some(row) if row.owner == *owner => MaySettle::Done,
        _ => MaySettle::Overtaken,
    }
}

/// What the row of a [`DebounceKey`] says: all that the rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DebounceLock {
    /// The delivery whose alert holds the lock. The delivery was claimed before, so its alert is
    /// published, or will be.
    pub holder: DeliveryId,
    /// The end of the lock.
    pub until: Timestamp,
}

/// Whether a claimed alert may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayAlert {
    /// No other alert holds the lock.
    Yes,
    /// The alert of this delivery holds the lock.
    Debounced(DeliveryId),
}

/// Applies the rule of a debounce lock.
///
/// The holder of a lock has claimed its delivery before. So its row is `PENDING`, and the alert
/// will be published, or the row is `PUBLISHED`. The alert that is refused may therefore be
/// suppressed. If a holder comes late, after the end of its lock, and finds another holder, it is
/// suppressed in turn. The last holder publishes, so the lead has its alert.
pub fn may_alert(lock: Option<&DebounceLock>, delivery: &DeliveryId, now: Timestamp) -> MayAlert {
    match lock {
        Some(lock) if lock.holder != *delivery && now < lock.until => MayAlert::Debounced(lock.holder.clone()),
        _ => MayAlert::Yes,
    }
}

/// Returns whether `owner` may take a slot, or has it already. `holder` is the owner in the slot's
/// row. An attempt that asks again, because the answer was lost, still has its slot.
pub fn may_take_slot(holder: Option<&Owner>, owner: &Owner) -> bool {
    holder.is_none_or(|holder| holder == owner)
}

/// What an attempt asks the ledger for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRequest {
    /// A delivery that an event needs. The claim creates its row if the row does not
    /// exist.
    Delivery(Delivery),
    /// A delivery that was claimed before, known by its key alone. Its row has the message.
    Pending(DeliveryId),
}

impl ClaimRequest {
    /// The key of the row.
    pub fn id(&self) -> &DeliveryId {
        match self {
            Self::Delivery(delivery) => &delivery.id,
            Self::Pending(id) => id,
        }
    }

    /// Returns the content hash that the row must have. Returns `None` if the row is claimed by its
    /// key alone, whatever its content is.
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
    /// The number of times that the delivery has been claimed, if the row says so.
    pub attempts: Option<u32>,
}

/// The right to publish one delivery, and the duty to end it with [`Ledger::complete`],
/// [`Ledger::debounce`], [`Ledger::discard`] or [`Ledger::release`]. A claim cannot be cloned. Its
/// message is the one that the row holds.
#[derive(Debug)]
#[must_use = "a claim that is neither completed nor released blocks its delivery until the lease runs out"]
pub struct Claim {
    id: DeliveryId,
    message: Message,
    debounce_key: Option<DebounceKey>,
    owner: Owner,
}

impl Claim {
    /// Creates the claim that a ledger has granted to `owner`.
    pub fn new(id: DeliveryId, message: Message, debounce_key: Option<DebounceKey>, owner: Owner) -> Self {
        Self { id, message, debounce_key, owner }
    }

    /// The key of the claimed row.
    pub fn delivery_id(&self) -> &DeliveryId {
        &self.id
    }

    /// The message to publish.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The lock that the alert needs if alerts are debounced.
    pub fn debounce_key(&self) -> Option<&DebounceKey> {
        self.debounce_key.as_ref()
    }

    /// The attempt that has the claim.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// The proof that a message is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// SNS's id of the message.
    pub message_id: String,
    /// When it was published.
    pub published_at: Timestamp,
    /// When the row may expire.
    pub expires_at: Timestamp,
}

/// One pending delivery, as a listing shows it. The row may have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The key of its row.
    pub id: DeliveryId,
    /// The end of the last attempt's lease, or its release.
    pub lease_until: Timestamp,
    /// When it was claimed for the first time.
    pub first_seen_at: Timestamp,
    /// The number of times that it has been claimed.
    pub attempts: u32,
}

/// Why an operation of the ledger did not succeed. It may have taken effect all the same.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refused, or could not be reached.
    #[error("the ledger could not {0}")]
    Failed(&'static str, #[source] Box<dyn Error + Send + Sync>),
    /// A row is there that we did not write: the attribute named is missing or of another type.
    #[error("the row's attribute {0} is missing or of a wrong type")]
    BadRow(&'static str),
    /// There is no row with this key, and so nothing that says what to publish.
    #[error("the row is gone")]
    Gone,
    /// The condition failed, on a row that meets it.
    #[error("the table refused what its own row allows")]
    Contradiction,
    /// The condition failed, and the table did not return the row, which may belong to other
    /// content.
    #[error("the table refused the claim and did not return the row (ReturnValuesOnConditionCheckFailure)")]
    Unexplained,
    /// No answer in the time that the attempt has.
    #[error("the ledger did not answer in time")]
    TimedOut,
}

/// Why a claim could not be completed, debounced, discarded or released.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The claim had passed to another attempt, and the row is as it was.
    #[error("the claim had passed to another attempt")]
    Overtaken,
    /// The operation did not succeed.
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

/// Records which attempt has claimed which delivery. Every operation is atomic, and its caller may
/// repeat it without harm.
pub trait Ledger {
    /// Claims the delivery if [`may_claim`] allows it.
    fn claim(
        &self,
        request: ClaimRequest,
        attempt: Attempt,
    ) -> impl Future<Output = Result<ClaimResult, LedgerError>> + Send;

    /// Takes the debounce lock of a claimed alert until `until`, if [`may_alert`] allows it.
    fn lock_debounce(
        &self,
        claim: &Claim,
        key: &DebounceKey,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<MayAlert, LedgerError>> + Send;

    /// Takes a slot for the claim's alert if [`may_take_slot`] allows it. Returns whether the claim
    /// has the slot.
    fn take_slot(&self, claim: &Claim, slot: Slot) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Records that the message is published, if [`may_settle`] allows it.
    fn complete(&self, claim: &Claim, receipt: &Receipt) -> impl Future<Output = Result<(), SettleError>> + Send;

    /// Records that the alert is suppressed in favour of `holder`'s, if [`may_settle`] allows it.
    fn debounce(
        &self,
        claim: &Claim,
        holder: &DeliveryId,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), SettleError>> + Send;

    /// Records that the message is never published, and why, if [`may_settle`] allows it.
    fn discard(
        &self,
        claim: &Claim,
        reason: &str,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<(), SettleError>> + Send;

    /// Ends the claim's lease, so that another attempt can claim the delivery, and records the
    /// error, if [`may_settle`] allows it.
    fn release(
        &self,
        claim: &Claim,
        now: Timestamp,
        error: &str,
    ) -> impl Future<Output = Result<(), SettleError>> + Send;

    /// Lists every pending delivery, also those that are claimed. If rows could not be listed, the
    /// listing has an error instead of them.
    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send;
}
