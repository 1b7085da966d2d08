//! Who may publish which delivery, and what may follow what: the rules, free of any database.
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
//! An attempt is an invocation by SendPilot's webhook, or one delivery in a run of the redrive; the rules are the same.
//! The lease outlives the attempt (see [`crate::invocation`]), so nobody overtakes the living. The owner's token, new
//! for every attempt, fences what the dead left behind: an attempt completes or releases only what is still its own.
//!
//! [`may_claim`] and [`may_settle`] are the rules. [`dynamodb`] asks the table to hold to the same two as conditions, and
//! calls them to understand a refusal; a test holds both against one another over random rows.
//!
//! Two more rules apply to a claimed alert: [`may_alert`] if alerts are debounced, and
//! [`may_take_slot`] if they are paced (see [`crate::delivery::pace`]).

pub mod dynamodb;

use std::error::Error;

use futures_util::Stream;

use crate::delivery::pace::Slot;
use crate::invocation::{Attempt, Owner};
use crate::message::key::{DeliveryId, QuietId};
use crate::message::{Delivery, Message};
use crate::timestamp::Timestamp;

/// What an attempt asks the ledger for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A delivery that an event calls for. Its row is made if there is none.
    Delivery(Delivery),
    /// A delivery that was claimed before, known by its key alone: what to publish stands in its row.
    Pending(DeliveryId),
}

impl Wanted {
    /// The key of its row.
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

/// The right to publish one delivery, and the duty to end it with [`Ledger::complete`],
/// [`Ledger::debounce`], [`Ledger::discard`] or [`Ledger::release`]. A claim cannot be cloned. Its
/// message is the one that the row holds.
#[derive(Debug)]
#[must_use = "a claim that is neither completed nor released blocks its delivery until the lease runs out"]
pub struct Claim {
    id: DeliveryId,
    message: Message,
    quiet: Option<QuietId>,
    owner: Owner,
}

impl Claim {
    /// What a ledger hands out when it has let `owner` take a delivery.
    pub fn granted(id: DeliveryId, message: Message, quiet: Option<QuietId>, owner: Owner) -> Self {
        Self { id, message, quiet, owner }
    }

    /// The key of the claimed row.
    pub fn delivery_id(&self) -> &DeliveryId {
        &self.id
    }

    /// What to publish.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The quiet period that it has to respect.
    pub fn quiet(&self) -> Option<&QuietId> {
        self.quiet.as_ref()
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// What a row says about its delivery: all that the rules look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// How far it is.
    pub state: State,
    /// The attempt that holds it, or held it last.
    pub owner: Owner,
    /// Until when it holds it.
    pub lease_until: Timestamp,
    /// Content hash of the first claim. Rows of older versions have none.
    pub content_sha256: Option<String>,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed at least once, and the message is not known to be out.
    Pending,
    /// The message is out.
    Published,
    /// The message is not going to be out, because another alert has told the same of the same lead, or is about to.
    Debounced,
    /// The message is never published, because the lead status stream was turned off first.
    Discarded,
}

/// Whether an attempt may claim a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayClaim {
    /// Nobody ever has, or the lease of the last who did ran out or was given back.
    Yes,
    /// It has done so already; the answer was lost, and it asked again.
    Mine,
    /// Another attempt holds the lease, and may be alive.
    NotBefore(Timestamp),
    /// Nothing is left to do.
    Done,
    /// The row belongs to another fact under the same event id.
    OtherContent,
}

/// The rule of a claim. `content_sha256` is [`Wanted::content_sha256`].
pub fn may_claim(row: Option<&Row>, content_sha256: Option<&str>, owner: &Owner, now: Timestamp) -> MayClaim {
    let other = |row: &Row| row.content_sha256.as_deref().zip(content_sha256).is_some_and(|(had, has)| had != has);
    match row {
        None => MayClaim::Yes,
        Some(row) if other(row) => MayClaim::OtherContent,
        Some(row) if row.state != State::Pending => MayClaim::Done,
        Some(row) if row.owner == *owner => MayClaim::Mine,
        Some(row) if row.lease_until <= now => MayClaim::Yes,
        Some(row) => MayClaim::NotBefore(row.lease_until),
    }
}

/// Whether an attempt may complete or release its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaySettle {
    /// It is the owner still.
    Yes,
    /// It has completed it already; the answer was lost, and it asked again.
    Done,
    /// Its lease ran out and somebody took over, or the row is gone.
    NotMine,
}

/// The rule of a completion and of a release.
pub fn may_settle(row: Option<&Row>, owner: &Owner) -> MaySettle {
    match row {
        Some(row) if row.owner == *owner && row.state == State::Pending => MaySettle::Yes,
        Some(row) if row.owner == *owner => MaySettle::Done,
        _ => MaySettle::NotMine,
    }
}

/// What a lead's quiet period says: all that the rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuietPeriod {
    /// The delivery whose alert began it, and which is claimed for good: it is out, or will be.
    pub holder: DeliveryId,
    /// Until then nobody else has the word.
    pub until: Timestamp,
}

/// Whether a claimed alert may go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayAlert {
    /// No period runs, or its own does, from an attempt before this one.
    Yes,
    /// Another alert has told the same of the same lead, or is about to.
    Debounced(DeliveryId),
}

/// The rule of a quiet period.
///
/// Who has it has claimed a delivery before, so that its row is `PENDING` and goes out, or is `PUBLISHED`. Who is refused may
/// therefore rest: the lead has its alert. If the holder comes late, after its period, and finds another's, it rests in turn.
/// Whoever had it last goes out, so no lead is left without.
pub fn may_alert(period: Option<&QuietPeriod>, delivery: &DeliveryId, now: Timestamp) -> MayAlert {
    match period {
        Some(period) if period.holder != *delivery && now < period.until => MayAlert::Debounced(period.holder.clone()),
        _ => MayAlert::Yes,
    }
}

/// Returns whether `owner` may take a slot, or has it already. `holder` is the owner in the slot's
/// row. An attempt that asks again, because the answer was lost, still has its slot.
pub fn may_take_slot(holder: Option<&Owner>, owner: &Owner) -> bool {
    holder.is_none_or(|holder| holder == owner)
}

/// The proof that a message is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// SNS's id of the message.
    pub message_id: String,
    /// When it was published.
    pub published_at: Timestamp,
    /// When the row may be forgotten. Only a published row ever is.
    pub expires_at: Timestamp,
}

/// Answer to a claim.
#[derive(Debug)]
pub struct Claimed {
    /// Who has it now.
    pub standing: Standing,
    /// How often the delivery has been claimed by now, where the row says so.
    pub attempts: Option<u32>,
}

/// Who has a delivery after somebody tried to claim it.
#[derive(Debug)]
pub enum Standing {
    /// The claimant.
    Won(Claim),
    /// Another attempt, at least until then.
    InProgress {
        /// End of its lease.
        until: Timestamp,
    },
    /// Nobody any more: nothing is left to do.
    Done,
    /// The row belongs to another fact under the same event id. This fact needs a delivery of its
    /// own.
    OtherContent,
}

/// Answer to a completion or a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// So it stands in the row.
    Recorded,
    /// The claim was not the caller's any more, and the row is as it was.
    NotMine,
}

/// One delivery that is not known to be out, as a listing shows it. By the time it is read, it may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The key of its row.
    pub id: DeliveryId,
    /// The end of the last attempt's lease, or its release.
    pub lease_until: Timestamp,
    /// When it was claimed for the first time.
    pub first_seen_at: Timestamp,
    /// How often it has been claimed.
    pub attempts: u32,
}

/// Why the ledger did not answer. The effect may have taken place all the same.
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

/// Keeps who has claimed which delivery. Every operation is atomic, and may be repeated by its caller without harm.
pub trait Ledger {
    /// Takes the delivery if [`may_claim`] allows it.
    fn claim(&self, wanted: Wanted, attempt: Attempt) -> impl Future<Output = Result<Claimed, LedgerError>> + Send;

    /// Has the word on the claim's lead and status until `until`, if [`may_alert`] allows it.
    fn quiet(
        &self,
        claim: &Claim,
        period: &QuietId,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<MayAlert, LedgerError>> + Send;

    /// Takes a slot for the claim's alert if [`may_take_slot`] allows it. Returns whether the claim
    /// has the slot.
    fn take_slot(&self, claim: &Claim, slot: Slot) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Records that the message is out, if the claim still holds.
    fn complete(&self, claim: &Claim, receipt: &Receipt) -> impl Future<Output = Result<Settled, LedgerError>> + Send;

    /// Records that the message is not to go out, because `holder`'s is or will be, if the claim still holds.
    fn debounce(
        &self,
        claim: &Claim,
        holder: &DeliveryId,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<Settled, LedgerError>> + Send;

    /// Records that the message is never published, and why, if the claim still holds.
    fn discard(
        &self,
        claim: &Claim,
        reason: &str,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<Settled, LedgerError>> + Send;

    /// Gives the claim back for anybody to take, and says why.
    fn release(
        &self,
        claim: &Claim,
        now: Timestamp,
        error: &str,
    ) -> impl Future<Output = Result<Settled, LedgerError>> + Send;

    /// Lists every pending delivery, whoever holds it. What fails stands in the place of what it kept from being listed.
    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send;
}
