//! The ledger in a DynamoDB table. Each operation that writes is one `UpdateItem`, and its rule is
//! the condition.
//!
//! ```text
//!   time ──▶  T0 claim by A        T1        T2 lease of A ends        T3
//!             │                    │         │                         │
//!   claim     no row: granted to A │         │                         │
//!             by B ────────────────✗ PENDING, lease runs: in progress  │
//!             by B ────────────────│─────────✓ PENDING, lease over: granted to B
//!             by B ────────────────│─────────│─────────────────────────✗ PUBLISHED: duplicate
//!   complete  by A ────────────────✓ owner is A and PENDING            │
//!             by A ────────────────│─────────│─────────────────────────✗ owner is B: overtaken
//!   release   by A ────────────────✓ lease ends now: the next claim is granted at once
//! ```
//!
//! If alerts are debounced, each lead and status has one more row, the debounce lock. An attempt
//! takes the lock only after it has claimed its delivery:
//!
//! ```text
//!   lock      by A   no row: A has the lock                            │
//!             by B ────────────────✗ A has it: B is debounced          │
//!             by A ────────────────✓ again, in its next attempt        │
//!             by B ────────────────│─────────✓ the lock is over        │
//!             by A ────────────────│─────────│─────────────────────────✗ B has it: A is debounced
//! ```
//!
//! If the reconciliation is on, each alerted lead and status has another such row. The time of its
//! lock is the time of the event:
//!
//! ```text
//!   known     by webhook A of 10:00        no row: A has the lock
//!             by webhook B of 09:00 ───────✓ a webhook never suppresses another one
//!             by the reconciliation ───────✗ the lead is known
//!
//!   known     by the reconciliation R      no row: R has the lock, for changes until 10:00
//!             by webhook A of 09:59 ───────✗ R has reported this change: A is debounced
//!             by webhook B of 11:00 ───────✓ a later change
//! ```
//!
//! The reconciliation also has one row, with the key `{function's name}#run`. A run claims it for
//! its lease, and leaves its progress there.
//!
//! If alerts are paced, each slot has a row, with the key `{start in ms}#slot`. A slot never
//! changes its owner:
//!
//! ```text
//!   slot      by A   no row: A has the slot
//!             by B ────────────────✗ A has it: B asks for the next slot
//!             by A ────────────────✓ again, because the answer was lost
//! ```
//!
//! If replies are remembered, each lead that has replied has one row, with the key
//! `{workspaceId}#{leadId}#reply`. It has the newest reply:
//!
//! ```text
//!   remember  10:00  no row: stored
//!             09:00 ───────────────✗ an older reply that arrives later
//!             11:00 ───────────────✓ replaces the reply of 10:00
//! ```
//!
//! The redrive claims a delivery by its key alone. Such a claim requires a pending row, because
//! only the row has the message.
//!
//! If a condition fails, the answer contains the row (`ALL_OLD`). So [`may_claim`] and
//! [`may_finish`] can explain the refusal without a second read, which could return a later state
//! of the row. A request can be sent several times, because a later request recognises the effect
//! of an earlier one in this row.
//!
//! The first claim of a delivery writes the message, the content hash and the locks that the alert
//! needs. No later claim changes them. So every attempt publishes the same bytes, even if a retry
//! has another body or the configuration has changed.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered, Stream};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::{
    Claim, ClaimRequest, ClaimResult, FinishError, HeldLock, KnownLead, Ledger, LedgerError, Lock, MayClaim, MayFinish,
    MayPublish, Pending, Receipt, Reconciled, Row, Run, State, may_claim, may_finish, may_publish, may_remember,
    may_run,
};
use crate::delivery::pace::Slot;
use crate::error::chain;
use crate::invocation::{Attempt, Owner};
use crate::message::details::LastReply;
use crate::message::key::{DeliveryId, LockKey, ReplyKey};
use crate::message::{Known, Locks, Message};
use crate::timestamp::Timestamp;

/// The number of values of the sparse index's key. One partition of an index accepts 1,000 writes a
/// second. With several partitions, the index does not limit the table.
pub const PENDING_SHARDS: u8 = 8;

/// Rows in one page of a listing. One page of each shard is read at the same time. If pages had
/// DynamoDB's maximum of 1 MB, a small function would need nearly [`PATIENCE`] to read them.
const PAGE: i32 = 1000;

/// The wait for an answer before the same request is sent again in parallel. DynamoDB answers
/// within milliseconds, so a silent connection may be dead.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum number of parallel tries of one request. An event's two deliveries leave two open
/// connections, and both may be dead, so two tries would not be enough.
const TRIES: usize = 4;

/// Maximum number of keys in one `BatchGetItem`.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
const MAX_BATCH: usize = 100;

/// Maximum number of requests for the keys of one `BatchGetItem`.
const MAX_ROUNDS: u32 = 8;

/// The pause before keys that the table has left unread are read again. Each further pause is
/// longer.
const UNREAD_PAUSE: Duration = Duration::from_millis(100);

/// The longest error text that a row keeps, in characters.
const MAX_ERROR: usize = 500;

/// The condition of [`may_claim`]. Either the row does not exist, or it is pending, its lease has
/// expired, and it has the same content.
const MAY_CLAIM: &str = "attribute_not_exists(deliveryId) OR (#state = :pending AND leaseUntil <= :now \
     AND (attribute_not_exists(contentSha256) OR contentSha256 = :sha))";

/// A later claim increments `attempts`, and keeps the message, the content hash and the locks of
/// the first claim. `pending` puts the row into the sparse index. A pending row has no `expiresAt`,
/// so it never expires.
const CLAIM: &str = "ADD attempts :one SET #state = :pending, #owner = :me, leaseUntil = :until, pending = :shard, \
     message = if_not_exists(message, :message), contentSha256 = if_not_exists(contentSha256, :sha), \
     firstSeenAt = if_not_exists(firstSeenAt, :now)";

/// Added to [`CLAIM`] if alerts are debounced, so that a claim by key alone finds the lock.
const AND_DEBOUNCE_KEY: &str = ", quiet = if_not_exists(quiet, :quiet)";

/// Added to [`CLAIM`] if the alert makes its lead known.
const AND_KNOWN: &str = ", known = if_not_exists(known, :known)";

/// The condition of a claim by key alone.
const MAY_CLAIM_BY_KEY: &str = "#state = :pending AND leaseUntil <= :now";

const CLAIM_BY_KEY: &str = "SET #owner = :me, leaseUntil = :until ADD attempts :one";

/// The condition of [`may_finish`].
const MAY_FINISH: &str = "#owner = :me AND #state = :pending";

const COMPLETE: &str =
    "SET #state = :published, publishedAt = :at, messageId = :id, expiresAt = :expires REMOVE pending";

const DEBOUNCE: &str = "SET #state = :debounced, debouncedBy = :holder, expiresAt = :expires REMOVE pending";

/// The row keeps the message, and `lastError` says why the message is not published. The row
/// expires like a published one.
const DISCARD: &str = "SET #state = :discarded, lastError = :error, expiresAt = :expires REMOVE pending";

/// The condition of [`may_publish`].
const MAY_PUBLISH: &str = "attribute_not_exists(deliveryId) OR holder = :delivery OR quietUntil <= :at";

/// The effect of [`Lock::taken`] on a lock that renews its end.
const LOCK_AND_RENEW: &str = "SET holder = :delivery, quietUntil = :until, expiresAt = :expires";

/// The effect of [`Lock::taken`] on any other lock.
const LOCK: &str = "SET holder = :delivery, quietUntil = if_not_exists(quietUntil, :until), expiresAt = :expires";

/// The condition of [`may_run`].
const MAY_RUN: &str = "attribute_not_exists(leaseUntil) OR #owner = :me OR leaseUntil <= :now";

const BEGIN_RUN: &str = "SET #owner = :me, leaseUntil = :until";

const END_RUN: &str = "SET leaseUntil = :now, progress = :progress";

/// The condition of [`may_take_slot`](super::may_take_slot).
const MAY_TAKE_SLOT: &str = "attribute_not_exists(#owner) OR #owner = :me";

const TAKE_SLOT: &str = "SET #owner = :me, expiresAt = :expires";

/// The condition of [`may_remember`].
const MAY_REMEMBER: &str = "attribute_not_exists(repliedAt) OR repliedAt <= :at";

const REMEMBER: &str = "SET reply = :reply, repliedAt = :at, expiresAt = :expires";

/// The time for which the row of a slot is kept after the slot's start. A second attempt could take
/// the slot only if its clock were wrong by this time. The proofs assume an error of at most two
/// seconds.
const SLOT_RETENTION: Duration = Duration::from_secs(3600);

/// A release keeps the row, because the redrive finds the delivery only by this row.
const RELEASE: &str = "SET leaseUntil = :now, lastError = :error";

/// The ledger in one DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbLedger {
    client: Client,
    table: String,
}

impl DynamoDbLedger {
    /// Creates the ledger in a table with the key `deliveryId` and the sparse index `pending`, as
    /// `template.yaml` defines it.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    fn update_row(&self, key: &str) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).key("deliveryId", string(key))
    }

    fn update(&self, id: &DeliveryId, owner: &Owner) -> UpdateItemFluentBuilder {
        self.update_row(id.as_str())
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":pending", string(State::Pending.name()))
            .expression_attribute_values(":me", string(owner.as_str()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    fn claim_update(&self, request: &ClaimRequest, attempt: &Attempt) -> UpdateItemFluentBuilder {
        let update = self
            .update(request.id(), &attempt.owner)
            .expression_attribute_values(":until", millis(attempt.lease_until))
            .expression_attribute_values(":now", millis(attempt.now))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllOld);
        let ClaimRequest::Delivery(delivery) = request else {
            return update.condition_expression(MAY_CLAIM_BY_KEY).update_expression(CLAIM_BY_KEY);
        };
        let update = update
            .condition_expression(MAY_CLAIM)
            .expression_attribute_values(":message", parameters(&delivery.message))
            .expression_attribute_values(":sha", string(&delivery.content_sha256))
            .expression_attribute_values(":shard", string(&shard(&delivery.id)));
        let Locks { debounce, known } = &delivery.locks;
        let mut expression = CLAIM.to_owned();
        if debounce.is_some() {
            expression += AND_DEBOUNCE_KEY;
        }
        if known.is_some() {
            expression += AND_KNOWN;
        }
        let locks = debounce.iter().map(|key| (":quiet", string(key.as_str())));
        let locks = locks.chain(known.iter().map(|known| (":known", known_attribute(known))));
        locks.fold(update.update_expression(expression), |update, (name, value)| {
            update.expression_attribute_values(name, value)
        })
    }

    /// Returns the claim that the table has granted to the attempt. `row` is the row before the
    /// claim, or after the claim if a repeated request found its own effect. The row's message and
    /// locks take precedence over the request's, because they are those of the first claim.
    async fn grant(&self, request: ClaimRequest, attempt: Attempt, row: &Item) -> Result<Claim, LedgerError> {
        let locks = read_locks(row);
        match (request, read_message(row)) {
            // If there was no row, or its message cannot be read, the event's message is published.
            (ClaimRequest::Delivery(delivery), message) => Ok(Claim::new(
                delivery.id,
                message.unwrap_or(delivery.message),
                Locks {
                    debounce: locks.debounce.or(delivery.locks.debounce),
                    known: locks.known.or(delivery.locks.known),
                },
                attempt.owner,
            )),
            (ClaimRequest::Pending(id), Ok(message)) => Ok(Claim::new(id, message, locks, attempt.owner)),
            (ClaimRequest::Pending(id), Err(error)) => {
                // Records the error in the row. If the release fails, the next attempt finds the
                // same error.
                self.release_row(&id, &attempt.owner, attempt.now, &chain(&error)).await.ok();
                Err(error)
            }
        }
    }

    /// Reads the locks' rows with these keys, as far as the rows exist.
    async fn read_rows(&self, mut keys: Vec<Item>) -> Result<Vec<Item>, Box<dyn Error + Send + Sync>> {
        let mut rows = Vec::new();
        for round in 0..MAX_ROUNDS {
            sleep(UNREAD_PAUSE * round).await;
            let asked = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .projection_expression("deliveryId, holder, expiresAt")
                .consistent_read(true)
                .build()?;
            let get = self.client.batch_get_item().request_items(&self.table, asked);
            let got = until_answered(|| get.clone().send()).await?;
            rows.extend(got.responses.unwrap_or_default().remove(&self.table).unwrap_or_default());
            // A throttled table returns a part of the rows, and the keys of the others.
            let unread = got.unprocessed_keys.unwrap_or_default().remove(&self.table);
            keys = unread.map(|unread| unread.keys).unwrap_or_default();
            if keys.is_empty() {
                return Ok(rows);
            }
        }
        Err("the table did not return all rows".into())
    }

    async fn release_row(
        &self,
        id: &DeliveryId,
        owner: &Owner,
        now: Timestamp,
        error: &str,
    ) -> Result<(), FinishError> {
        let update = self
            .update(id, owner)
            .update_expression(RELEASE)
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":error", error_text(error));
        self.finish("release", owner, update).await
    }

    async fn finish(
        &self,
        doing: &'static str,
        owner: &Owner,
        update: UpdateItemFluentBuilder,
    ) -> Result<(), FinishError> {
        match send(doing, update.condition_expression(MAY_FINISH)).await? {
            Answer::TookEffect(_) => Ok(()),
            Answer::Refused(row) => match may_finish(read_row(&row)?.as_ref(), owner) {
                MayFinish::Yes => Err(LedgerError::Contradiction.into()),
                MayFinish::Done => Ok(()),
                MayFinish::Overtaken => Err(FinishError::Overtaken),
            },
        }
    }
}

impl Ledger for DynamoDbLedger {
    async fn claim(&self, request: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        let row = match send("claim", self.claim_update(&request, &attempt)).await? {
            Answer::TookEffect(before) => {
                let attempts = read_number(&before, "attempts").unwrap_or(0_u32).saturating_add(1);
                let claim = self.grant(request, attempt, &before).await?;
                return Ok(ClaimResult { claim: Ok(claim), attempts: Some(attempts) });
            }
            Answer::Refused(row) => row,
        };
        let refused_by = read_row(&row)?;
        let claim = match may_claim(refused_by.as_ref(), request.content_sha256(), &attempt.owner, attempt.now) {
            MayClaim::Mine => Ok(self.grant(request, attempt, &row).await?),
            MayClaim::No(refusal) => Err(refusal),
            MayClaim::Yes => {
                return Err(match (refused_by, request) {
                    (Some(_), _) => LedgerError::Contradiction,
                    (None, ClaimRequest::Pending(_)) => LedgerError::Gone,
                    (None, ClaimRequest::Delivery(_)) => LedgerError::Unexplained,
                });
            }
        };
        Ok(ClaimResult { claim, attempts: read_number(&row, "attempts") })
    }

    async fn lock(&self, holder: &DeliveryId, lock: &Lock) -> Result<MayPublish, LedgerError> {
        let update = self
            .update_row(lock.key.as_str())
            .condition_expression(MAY_PUBLISH)
            .update_expression(if lock.renews { LOCK_AND_RENEW } else { LOCK })
            .expression_attribute_values(":delivery", string(holder.as_str()))
            .expression_attribute_values(":at", millis(lock.at))
            .expression_attribute_values(":until", millis(lock.until))
            .expression_attribute_values(":expires", number(lock.expires_at.as_secs()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match send("take the alert's lock", update).await? {
            Answer::TookEffect(_) => Ok(MayPublish::Yes),
            Answer::Refused(row) => match may_publish(read_lock(&row)?.as_ref(), holder, lock.at) {
                // The row does not explain the refusal, so the alert must not be suppressed.
                MayPublish::Yes => Err(LedgerError::Contradiction),
                debounced => Ok(debounced),
            },
        }
    }

    async fn take_slot(&self, claim: &Claim, slot: Slot) -> Result<bool, LedgerError> {
        // A delivery's key has at least three parts, so this key is never a delivery's.
        let key = format!("{}#slot", slot.start().as_millis());
        let update = self
            .update_row(&key)
            .condition_expression(MAY_TAKE_SLOT)
            .update_expression(TAKE_SLOT)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", string(claim.owner().as_str()))
            .expression_attribute_values(":expires", number(slot.start().after(SLOT_RETENTION).as_secs()));
        Ok(matches!(send("take a slot", update).await?, Answer::TookEffect(_)))
    }

    async fn debounce(&self, claim: &Claim, holder: &DeliveryId, expires_at: Timestamp) -> Result<(), FinishError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(DEBOUNCE)
            .expression_attribute_values(":debounced", string(State::Debounced.name()))
            .expression_attribute_values(":holder", string(holder.as_str()))
            .expression_attribute_values(":expires", number(expires_at.as_secs()));
        self.finish("debounce", claim.owner(), update).await
    }

    async fn discard(&self, claim: &Claim, reason: &str, expires_at: Timestamp) -> Result<(), FinishError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(DISCARD)
            .expression_attribute_values(":discarded", string(State::Discarded.name()))
            .expression_attribute_values(":error", error_text(reason))
            .expression_attribute_values(":expires", number(expires_at.as_secs()));
        self.finish("discard", claim.owner(), update).await
    }

    async fn complete(&self, claim: &Claim, receipt: &Receipt) -> Result<(), FinishError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(COMPLETE)
            .expression_attribute_values(":published", string(State::Published.name()))
            .expression_attribute_values(":at", millis(receipt.published_at))
            .expression_attribute_values(":id", string(&receipt.message_id))
            .expression_attribute_values(":expires", number(receipt.expires_at.as_secs()));
        self.finish("complete", claim.owner(), update).await
    }

    async fn release(&self, claim: &Claim, now: Timestamp, error: &str) -> Result<(), FinishError> {
        self.release_row(claim.delivery_id(), claim.owner(), now, error).await
    }

    async fn remember(&self, key: &ReplyKey, reply: &LastReply, expires_at: Timestamp) -> Result<(), LedgerError> {
        let update = self
            .update_row(key.as_str())
            .condition_expression(MAY_REMEMBER)
            .update_expression(REMEMBER)
            .expression_attribute_values(":reply", string(&reply.text))
            .expression_attribute_values(":at", millis(reply.at))
            .expression_attribute_values(":expires", number(expires_at.as_secs()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match send("remember the reply", update).await? {
            Answer::Refused(row) if may_remember(read_millis(&row, "repliedAt"), reply.at) => {
                Err(LedgerError::Contradiction)
            }
            Answer::TookEffect(_) | Answer::Refused(_) => Ok(()),
        }
    }

    /// The read is consistent, because SendPilot can report a reply and a change at the same time.
    async fn last_reply(&self, key: &ReplyKey, now: Timestamp) -> Result<Option<LastReply>, LedgerError> {
        let get = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("deliveryId", string(key.as_str()))
            .projection_expression("reply, repliedAt, expiresAt")
            .consistent_read(true);
        let got = until_answered(|| get.clone().send()).await.map_err(|error| {
            // As text, because the error itself contains the whole answer, which may be the reply.
            LedgerError::Failed("read the last reply", chain(&error).into())
        });
        let row = got?.item.unwrap_or_default();
        // DynamoDB deletes an expired row only some time later.
        let is_kept = read_number(&row, "expiresAt").is_some_and(|expires: u64| expires > now.as_secs());
        Ok(read_string(&row, "reply")
            .zip(read_millis(&row, "repliedAt"))
            .filter(|_| is_kept)
            .map(|(text, at)| LastReply { text, at }))
    }

    /// If a page cannot be read, the rest of its shard is not listed either. The other shards are.
    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        stream::select_all((0..PENDING_SHARDS).map(|shard| {
            let first_page = self
                .client
                .query()
                .table_name(&self.table)
                .index_name("pending")
                .key_condition_expression("pending = :shard")
                .expression_attribute_values(":shard", string(&shard.to_string()))
                .projection_expression("deliveryId, leaseUntil, firstSeenAt, attempts")
                .limit(PAGE);
            let pages = stream::unfold(Some(first_page), async |page| {
                let page = page?;
                match until_answered(|| page.clone().send()).await {
                    Ok(QueryOutput { items, last_evaluated_key, .. }) => {
                        let rows = items.unwrap_or_default().iter().map(read_pending).collect();
                        let last = last_evaluated_key.filter(|key| !key.is_empty());
                        Some((rows, last.map(|key| page.set_exclusive_start_key(Some(key)))))
                    }
                    Err(error) => {
                        Some((vec![Err(LedgerError::Failed("list the pending deliveries", error.into()))], None))
                    }
                }
            });
            Box::pin(pages.flat_map(stream::iter))
        }))
    }
}

impl Reconciled for DynamoDbLedger {
    /// The read is consistent, so a lead that a webhook has just made known does not seem missed.
    async fn known(&self, keys: &[LockKey]) -> Result<HashMap<LockKey, KnownLead>, LedgerError> {
        // The table refuses a request that has a key twice.
        let keys: Vec<_> = keys.iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut known = HashMap::new();
        for batch in keys.chunks(MAX_BATCH) {
            let batch = batch.iter().map(|key| [("deliveryId".to_owned(), string(key.as_str()))].into());
            let rows = self
                .read_rows(batch.collect())
                .await
                .map_err(|error| LedgerError::Failed("read the known leads", error))?;
            known.extend(rows.iter().filter_map(read_known_lead));
        }
        Ok(known)
    }

    async fn begin_run(&self, name: &str, attempt: &Attempt) -> Result<Run, LedgerError> {
        let update = self
            .update_row(&run_key(name))
            .condition_expression(MAY_RUN)
            .update_expression(BEGIN_RUN)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", string(attempt.owner.as_str()))
            .expression_attribute_values(":now", millis(attempt.now))
            .expression_attribute_values(":until", millis(attempt.lease_until))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match send("begin the run", update).await? {
            Answer::TookEffect(before) => Ok(Run::Claimed(read_string(&before, "progress"))),
            Answer::Refused(row) => {
                let until = read_millis(&row, "leaseUntil").ok_or(LedgerError::BadRow("leaseUntil"))?;
                let owner = Owner::from_stored(read_string(&row, "owner").unwrap_or_default());
                // The row does not explain the refusal.
                if may_run(Some((&owner, until)), &attempt.owner, attempt.now) {
                    return Err(LedgerError::Contradiction);
                }
                Ok(Run::InProgress { until })
            }
        }
    }

    async fn end_run(&self, name: &str, attempt: &Attempt, now: Timestamp, progress: &str) -> Result<(), FinishError> {
        let update = self
            .update_row(&run_key(name))
            .condition_expression("#owner = :me")
            .update_expression(END_RUN)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", string(attempt.owner.as_str()))
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":progress", string(progress));
        match send("end the run", update).await? {
            Answer::TookEffect(_) => Ok(()),
            Answer::Refused(_) => Err(FinishError::Overtaken),
        }
    }
}

/// Returns the key of a run's row. A delivery's key has at least three parts, so this key is never
/// a delivery's.
fn run_key(name: &str) -> String {
    format!("{name}#run")
}

/// Sends a request. Each time that [`PATIENCE`] passes without an answer, sends the same request
/// again in parallel, up to [`TRIES`]. No try is cancelled, because a try may have taken effect
/// although its answer has not arrived. Returns the first success, or an error if no other try is
/// running. The caller sets the deadline.
async fn until_answered<T, E, F: Future<Output = Result<T, E>>>(send: impl Fn() -> F) -> Result<T, E> {
    let mut tries = FuturesUnordered::from_iter([send()]);
    loop {
        match timeout(PATIENCE, tries.next()).await {
            Ok(Some(Err(_))) if !tries.is_empty() => {}
            Ok(Some(answer)) => return answer,
            Ok(None) | Err(_) if tries.len() < TRIES => tries.push(send()),
            Ok(None) | Err(_) => {}
        }
    }
}

/// The result of a conditional write, with the row before the write. The row is empty if it did not
/// exist, or if the request did not ask for it.
enum Answer {
    TookEffect(Item),
    Refused(Item),
}

/// Sends a conditional write. `doing` names the operation for the error.
async fn send(doing: &'static str, update: UpdateItemFluentBuilder) -> Result<Answer, LedgerError> {
    until_answered(|| send_once(update.clone())).await.map_err(|error| LedgerError::Failed(doing, error.into()))
}

async fn send_once(update: UpdateItemFluentBuilder) -> Result<Answer, Box<SdkError<UpdateItemError>>> {
    match update.send().await {
        Ok(UpdateItemOutput { attributes, .. }) => Ok(Answer::TookEffect(attributes.unwrap_or_default())),
        Err(SdkError::ServiceError(refused)) if refused.err().is_conditional_check_failed_exception() => {
            let item = match refused.into_err() {
                UpdateItemError::ConditionalCheckFailedException(refused) => refused.item,
                _ => None,
            };
            Ok(Answer::Refused(item.unwrap_or_default()))
        }
        Err(error) => Err(error.into()),
    }
}

type Item = HashMap<String, AttributeValue>;

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Published => "PUBLISHED",
            Self::Debounced => "DEBOUNCED",
            Self::Discarded => "DISCARDED",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Published, Self::Debounced, Self::Discarded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Returns the shard of a delivery in the index `pending`. It is the same for every claim.
fn shard(id: &DeliveryId) -> String {
    (Sha256::digest(id.as_str())[0] % PENDING_SHARDS).to_string()
}

/// Returns the message under the parameter names of the SNS API. So a person can copy it from the
/// row and publish it by hand.
fn parameters(message: &Message) -> AttributeValue {
    match message {
        Message::Alert { subject, body } => {
            map([("Subject", string(subject)), ("Message", string(body)), ("MessageStructure", string("json"))])
        }
        Message::Status { body, attributes, group, deduplication } => map([
            ("Message", string(body)),
            ("MessageAttributes", AttributeValue::M(attributes.iter().map(parameter_attribute).collect())),
            ("MessageGroupId", string(group)),
            ("MessageDeduplicationId", string(deduplication)),
        ]),
    }
}

fn parameter_attribute((name, value): (&String, &String)) -> (String, AttributeValue) {
    (name.clone(), map([("DataType", string("String")), ("StringValue", string(value))]))
}

/// Returns an error text, cut to the length that a row keeps.
fn error_text(error: &str) -> AttributeValue {
    AttributeValue::S(error.chars().take(MAX_ERROR).collect())
}

fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn millis(at: Timestamp) -> AttributeValue {
    number(at.as_millis())
}

fn map<const N: usize>(members: [(&str, AttributeValue); N]) -> AttributeValue {
    AttributeValue::M(members.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Reads only the attributes that the rules need for a row in its state.
fn read_row(item: &Item) -> Result<Option<Row>, LedgerError> {
    if item.is_empty() {
        return Ok(None);
    }
    let state = read_string(item, "state").as_deref().and_then(State::from_name).ok_or(LedgerError::BadRow("state"))?;
    let lease_until = match (read_millis(item, "leaseUntil"), state) {
        (Some(lease_until), _) => lease_until,
        (None, State::Published | State::Debounced | State::Discarded) => Timestamp::from_millis(0),
        (None, State::Pending) => return Err(LedgerError::BadRow("leaseUntil")),
    };
    let owner = Owner::from_stored(read_string(item, "owner").unwrap_or_default());
    Ok(Some(Row { state, owner, lease_until, content_sha256: read_string(item, "contentSha256") }))
}

fn known_attribute(Known { key, at, until }: &Known) -> AttributeValue {
    map([("key", string(key.as_str())), ("at", millis(*at)), ("until", millis(*until))])
}

fn read_locks(item: &Item) -> Locks {
    let known = item.get("known").and_then(|known| known.as_m().ok()).and_then(|known| {
        let key = LockKey::from_stored(read_string(known, "key")?);
        Some(Known { key, at: read_millis(known, "at")?, until: read_millis(known, "until")? })
    });
    Locks { debounce: read_string(item, "quiet").map(LockKey::from_stored), known }
}

fn read_known_lead(item: &Item) -> Option<(LockKey, KnownLead)> {
    let key = LockKey::from_stored(read_string(item, "deliveryId")?);
    let holder = DeliveryId::from_stored(read_string(item, "holder")?);
    let expires_at = Timestamp::from_millis(read_number::<u64>(item, "expiresAt")?.saturating_mul(1000));
    Some((key, KnownLead { holder, expires_at }))
}

fn read_lock(item: &Item) -> Result<Option<HeldLock>, LedgerError> {
    if item.is_empty() {
        return Ok(None);
    }
    let holder = read_string(item, "holder").map(DeliveryId::from_stored).ok_or(LedgerError::BadRow("holder"))?;
    let until = read_millis(item, "quietUntil").ok_or(LedgerError::BadRow("quietUntil"))?;
    Ok(Some(HeldLock { holder, until }))
}

/// Reads a row of the index. The index contains only rows that have both of its keys.
fn read_pending(item: &Item) -> Result<Pending, LedgerError> {
    let id = read_string(item, "deliveryId").ok_or(LedgerError::BadRow("deliveryId"))?;
    let lease_until = read_millis(item, "leaseUntil").ok_or(LedgerError::BadRow("leaseUntil"))?;
    Ok(Pending {
        id: DeliveryId::from_stored(id),
        lease_until,
        first_seen_at: read_millis(item, "firstSeenAt").unwrap_or(lease_until),
        attempts: read_number(item, "attempts").unwrap_or_default(),
    })
}

fn read_message(item: &Item) -> Result<Message, LedgerError> {
    let message = item.get("message").and_then(|message| message.as_m().ok());
    message.and_then(read_parameters).ok_or(LedgerError::BadRow("message"))
}

fn read_parameters(parameters: &Item) -> Option<Message> {
    let body = read_string(parameters, "Message")?;
    let Some(attributes) = parameters.get("MessageAttributes") else {
        return Some(Message::Alert { subject: read_string(parameters, "Subject")?, body });
    };
    let attribute = |(name, value): (&String, &AttributeValue)| {
        Some((name.clone(), read_string(value.as_m().ok()?, "StringValue")?))
    };
    Some(Message::Status {
        body,
        attributes: attributes.as_m().ok()?.iter().map(attribute).collect::<Option<_>>()?,
        group: read_string(parameters, "MessageGroupId")?,
        deduplication: read_string(parameters, "MessageDeduplicationId")?,
    })
}

fn read_string(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

fn read_millis(item: &Item, name: &str) -> Option<Timestamp> {
    read_number(item, name).map(Timestamp::from_millis)
}

fn read_number<N: FromStr>(item: &Item, name: &str) -> Option<N> {
    item.get(name)?.as_n().ok()?.parse().ok()
}
