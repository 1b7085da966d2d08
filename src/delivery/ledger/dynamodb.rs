//! The ledger as a DynamoDB table: each operation is one `UpdateItem`, and its rule is the condition.
//!
//! ```text
//!   time ──▶  T0 claim by A        T1        T2 lease of A ends        T3
//!             │                    │         │                         │
//!   claim     no row: A has it     │         │                         │
//!             by B ────────────────✗ PENDING, lease live: in progress  │
//!             by B ────────────────│─────────✓ PENDING, lease over: B takes over
//!             by B ────────────────│─────────│─────────────────────────✗ PUBLISHED: duplicate
//!   complete  by A ────────────────✓ owner is A and PENDING            │
//!             by A ────────────────│─────────│─────────────────────────✗ owner is B: not A's any more
//!   release   by A ────────────────✓ lease ends now: the next claim takes over at once
//! ```
//!
//! Where alerts are debounced, there is a row per lead and status besides, which only who has claimed a delivery may take:
//!
//! ```text
//!   quiet     by A   no row: A has the word                            │
//!             by B ────────────────✗ A has it: B is debounced          │
//!             by A ────────────────✓ again, in its next attempt        │
//!             by B ────────────────│─────────✓ the period is over      │
//!             by A ────────────────│─────────│─────────────────────────✗ B has it: A, still not out, is debounced
//! ```
//!
//! If alerts are paced, there is a row per slot, with the key `{start in ms}#slot`. A slot never
//! changes its owner:
//!
//! ```text
//!   slot      by A   no row: A has the slot
//!             by B ────────────────✗ A has it: B asks for the next slot
//!             by A ────────────────✓ again, because the answer was lost
//! ```
//!
//! A takeover by key alone has the second arm of the claim's condition and not the first: a row that is gone says no more
//! what to publish.
//!
//! A refused condition returns the row that refused it (`ALL_OLD`), so that [`may_claim`] and [`may_settle`] can say why
//! without another read, which could see a later row. Every request may be sent several times: a
//! later one finds the effect of an earlier one in that row.
//!
//! The first claim of a delivery writes the message, the content hash and the key of the quiet
//! period. No later claim changes them. So every attempt publishes the same bytes, even if a retry
//! has another body or the configuration has changed.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered, Stream};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{
    Claim, Claimed, Ledger, LedgerError, MayAlert, MayClaim, MaySettle, Pending, QuietPeriod, Receipt, Row, Settled,
    Standing, State, Wanted, may_alert, may_claim, may_settle,
};
use crate::delivery::pace::Slot;
use crate::error::chain;
use crate::invocation::{Attempt, Owner};
use crate::message::Message;
use crate::message::key::{DeliveryId, QuietId};
use crate::timestamp::Timestamp;

/// Values of the sparse index's key. One partition of an index takes 1,000 writes a second; a few keep the index from
/// capping the table.
pub const PENDING_SHARDS: u8 = 8;

/// Rows of one page of a listing. One page of each shard is read at the same time. With DynamoDB's
/// pages of 1 MB, a small function would need nearly [`PATIENCE`] to read them.
const PAGE: i32 = 1000;

/// How long a request waits for an answer before the same request is sent again in parallel.
/// DynamoDB answers within milliseconds, so a silent connection may be dead.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum number of parallel tries of one request. An event's two deliveries leave two open
/// connections, and both may be dead, so two tries would not be enough.
const TRIES: usize = 4;

/// The longest error text that a row keeps, in characters.
const MAX_ERROR: usize = 500;

/// The condition of [`may_claim`]: the row does not exist; or the row has the same content, is
/// pending, and its lease is over.
const MAY_CLAIM: &str = "attribute_not_exists(deliveryId) OR (#state = :pending AND leaseUntil <= :now \
     AND (attribute_not_exists(contentSha256) OR contentSha256 = :sha))";

/// A takeover increments `attempts` and keeps the message, the content hash and the quiet period of
/// the first claim. `pending` puts the row into the sparse index. A pending row has no `expiresAt`,
/// so it never expires.
const CLAIM: &str = "ADD attempts :one SET #state = :pending, #owner = :me, leaseUntil = :until, pending = :shard, \
     message = if_not_exists(message, :message), contentSha256 = if_not_exists(contentSha256, :sha), \
     firstSeenAt = if_not_exists(firstSeenAt, :now)";

/// What a claim that has a quiet period to respect sets besides: a takeover by key alone has to know it.
const AND_QUIET: &str = ", quiet = if_not_exists(quiet, :quiet)";

/// A takeover by key alone.
const MAY_TAKE_OVER: &str = "#state = :pending AND leaseUntil <= :now";

const TAKE_OVER: &str = "SET #owner = :me, leaseUntil = :until ADD attempts :one";

/// The rule of [`may_settle`].
const MAY_SETTLE: &str = "#owner = :me AND #state = :pending";

const COMPLETE: &str =
    "SET #state = :published, publishedAt = :at, messageId = :id, expiresAt = :expires REMOVE pending";

const DEBOUNCE: &str = "SET #state = :debounced, debouncedBy = :holder, expiresAt = :expires REMOVE pending";

/// Keeps the message, and `lastError` says why the message is not published. The row expires as a
/// published row does.
const DISCARD: &str = "SET #state = :discarded, lastError = :error, expiresAt = :expires REMOVE pending";

/// The rule of [`may_alert`].
const MAY_ALERT: &str = "attribute_not_exists(deliveryId) OR holder = :delivery OR quietUntil <= :now";

const QUIET: &str = "SET holder = :delivery, quietUntil = :until, expiresAt = :expires";

/// The rule of [`may_take_slot`](super::may_take_slot).
const MAY_TAKE_SLOT: &str = "attribute_not_exists(#owner) OR #owner = :me";

const TAKE_SLOT: &str = "SET #owner = :me, expiresAt = :expires";

/// How long the row of a slot is kept after the slot's start. A second owner would need a clock
/// that is off by as much, and the proofs assume two seconds at most.
const SLOT_KEPT: Duration = Duration::from_secs(3600);

/// Released, never deleted: the row is the redrive's only way to know of the delivery.
const RELEASE: &str = "SET leaseUntil = :now, lastError = :error";

/// The ledger in one table.
#[derive(Debug, Clone)]
pub struct DynamoDbLedger {
    client: Client,
    table: String,
}

impl DynamoDbLedger {
    /// Over a table with key `deliveryId` and the sparse index `pending`, as in `template.yaml`.
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

    /// Returns the claim of an attempt that has won. `item` is the row before the claim, or after
    /// it if a repeated request found its own effect. Values of the first claim take precedence.
    async fn won(&self, wanted: Wanted, owner: Owner, now: Timestamp, item: &Item) -> Result<Standing, LedgerError> {
        let (message, quiet) = (read_message(item), text(item, "quiet").map(QuietId::stored));
        let (id, message, quiet) = match (wanted, message) {
            (Wanted::Delivery(delivery), message) => {
                // If there was no row, or its message cannot be read, the event's message is
                // published.
                (delivery.id, message.unwrap_or(delivery.message), quiet.or(delivery.quiet))
            }
            (Wanted::Pending(id), Ok(message)) => (id, message, quiet),
            (Wanted::Pending(id), Err(error)) => {
                // So that the row says what is wrong with it. Should that fail, the next attempt will find the same.
                self.give_back(&id, &owner, now, &chain(&error)).await.ok();
                return Err(error);
            }
        };
        Ok(Standing::Won(Claim::granted(id, message, quiet, owner)))
    }

    async fn give_back(
        &self,
        id: &DeliveryId,
        owner: &Owner,
        now: Timestamp,
        error: &str,
    ) -> Result<Settled, LedgerError> {
        let update = self
            .update(id, owner)
            .update_expression(RELEASE)
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":error", error_text(error));
        self.settle("release", owner, update).await
    }

    async fn settle(
        &self,
        doing: &'static str,
        owner: &Owner,
        update: UpdateItemFluentBuilder,
    ) -> Result<Settled, LedgerError> {
        match send(update.condition_expression(MAY_SETTLE)).await {
            Ok(Answer::TookEffect(_)) => Ok(Settled::Recorded),
            Ok(Answer::Refused(item)) => match may_settle(read_row(&item)?.as_ref(), owner) {
                MaySettle::Yes => Err(LedgerError::Contradiction),
                MaySettle::Done => Ok(Settled::Recorded),
                MaySettle::NotMine => Ok(Settled::NotMine),
            },
            Err(error) => Err(LedgerError::Failed(doing, error.into())),
        }
    }
}

impl Ledger for DynamoDbLedger {
    async fn claim(&self, wanted: Wanted, attempt: Attempt) -> Result<Claimed, LedgerError> {
        let Attempt { owner, now, lease_until } = attempt;
        let update = self
            .update(wanted.id(), &owner)
            .expression_attribute_values(":until", millis(lease_until))
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .return_values(ReturnValue::AllOld);
        let update = match &wanted {
            Wanted::Delivery(delivery) => {
                let update = update
                    .condition_expression(MAY_CLAIM)
                    .expression_attribute_values(":message", stored(&delivery.message))
                    .expression_attribute_values(":sha", string(&delivery.content_sha256))
                    .expression_attribute_values(":shard", string(&shard(&delivery.id)));
                match &delivery.quiet {
                    None => update.update_expression(CLAIM),
                    Some(quiet) => update
                        .update_expression([CLAIM, AND_QUIET].concat())
                        .expression_attribute_values(":quiet", string(quiet.as_str())),
                }
            }
            Wanted::Pending(_) => update.condition_expression(MAY_TAKE_OVER).update_expression(TAKE_OVER),
        };
        let item = match send(update).await {
            Ok(Answer::TookEffect(before)) => {
                let attempts = parsed(&before, "attempts").unwrap_or(0_u32).saturating_add(1);
                let standing = self.won(wanted, owner, now, &before).await?;
                return Ok(Claimed { standing, attempts: Some(attempts) });
            }
            Ok(Answer::Refused(item)) => item,
            Err(error) => return Err(LedgerError::Failed("claim", error.into())),
        };
        let row = read_row(&item)?;
        let attempts = parsed(&item, "attempts");
        let standing = match (may_claim(row.as_ref(), wanted.content_sha256(), &owner, now), &wanted) {
            (MayClaim::Mine, _) => self.won(wanted, owner, now, &item).await?,
            (MayClaim::NotBefore(until), _) => Standing::InProgress { until },
            (MayClaim::Done, _) => Standing::Done,
            (MayClaim::OtherContent, _) => Standing::OtherContent,
            (MayClaim::Yes, _) if row.is_some() => return Err(LedgerError::Contradiction),
            (MayClaim::Yes, Wanted::Pending(_)) => return Err(LedgerError::Gone),
            (MayClaim::Yes, Wanted::Delivery(_)) => return Err(LedgerError::Unexplained),
        };
        Ok(Claimed { standing, attempts })
    }

    async fn quiet(
        &self,
        claim: &Claim,
        period: &QuietId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<MayAlert, LedgerError> {
        let delivery = claim.delivery_id();
        let update = self
            .update_row(period.as_str())
            .condition_expression(MAY_ALERT)
            .update_expression(QUIET)
            .expression_attribute_values(":delivery", string(delivery.as_str()))
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":until", millis(until))
            // From then on it says the same as no row. Seconds are rounded down.
            .expression_attribute_values(":expires", number(until.as_secs() + 1))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match send(update).await {
            Ok(Answer::TookEffect(_)) => Ok(MayAlert::Yes),
            Ok(Answer::Refused(item)) => match may_alert(read_quiet(&item)?.as_ref(), delivery, now) {
                // Never silence on a guess.
                MayAlert::Yes => Err(LedgerError::Contradiction),
                debounced => Ok(debounced),
            },
            Err(error) => Err(LedgerError::Failed("see to the quiet period", error.into())),
        }
    }

    async fn take_slot(&self, claim: &Claim, slot: Slot) -> Result<bool, LedgerError> {
        // A delivery's key has at least three parts, so it is never that of a slot.
        let key = format!("{}#slot", slot.start().as_millis());
        let update = self
            .update_row(&key)
            .condition_expression(MAY_TAKE_SLOT)
            .update_expression(TAKE_SLOT)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", string(claim.owner().as_str()))
            .expression_attribute_values(":expires", number(slot.start().after(SLOT_KEPT).as_secs()));
        match send(update).await {
            Ok(Answer::TookEffect(_)) => Ok(true),
            Ok(Answer::Refused(_)) => Ok(false),
            Err(error) => Err(LedgerError::Failed("take a slot", error.into())),
        }
    }

    async fn debounce(
        &self,
        claim: &Claim,
        holder: &DeliveryId,
        expires_at: Timestamp,
    ) -> Result<Settled, LedgerError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(DEBOUNCE)
            .expression_attribute_values(":debounced", string(State::Debounced.name()))
            .expression_attribute_values(":holder", string(holder.as_str()))
            .expression_attribute_values(":expires", number(expires_at.as_secs()));
        self.settle("debounce", claim.owner(), update).await
    }

    async fn discard(&self, claim: &Claim, reason: &str, expires_at: Timestamp) -> Result<Settled, LedgerError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(DISCARD)
            .expression_attribute_values(":discarded", string(State::Discarded.name()))
            .expression_attribute_values(":error", error_text(reason))
            .expression_attribute_values(":expires", number(expires_at.as_secs()));
        self.settle("discard", claim.owner(), update).await
    }

    async fn complete(&self, claim: &Claim, receipt: &Receipt) -> Result<Settled, LedgerError> {
        let update = self
            .update(claim.delivery_id(), claim.owner())
            .update_expression(COMPLETE)
            .expression_attribute_values(":published", string(State::Published.name()))
            .expression_attribute_values(":at", millis(receipt.published_at))
            .expression_attribute_values(":id", string(&receipt.message_id))
            .expression_attribute_values(":expires", number(receipt.expires_at.as_secs()));
        self.settle("complete", claim.owner(), update).await
    }

    async fn release(&self, claim: &Claim, now: Timestamp, error: &str) -> Result<Settled, LedgerError> {
        self.give_back(claim.delivery_id(), claim.owner(), now, error).await
    }

    /// Of a page that cannot be read, the rest of its shard is missing too; the other shards are not.
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
                    Err(error) => Some((vec![Err(LedgerError::Failed("list what is pending", error.into()))], None)),
                }
            });
            Box::pin(pages.flat_map(stream::iter))
        }))
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Published => "PUBLISHED",
            Self::Debounced => "DEBOUNCED",
            Self::Discarded => "DISCARDED",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Pending, Self::Published, Self::Debounced, Self::Discarded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Spread evenly, and the same for every claim of one delivery.
fn shard(id: &DeliveryId) -> String {
    (Sha256::digest(id.as_str())[0] % PENDING_SHARDS).to_string()
}

/// Named as in the API of SNS, so that a person can publish it by hand from the row.
fn stored(message: &Message) -> AttributeValue {
    match message {
        Message::Alert { subject, body } => {
            map([("Subject", string(subject)), ("Message", string(body)), ("MessageStructure", string("json"))])
        }
        Message::Status { body, attributes, group, deduplication } => map([
            ("Message", string(body)),
            ("MessageAttributes", AttributeValue::M(attributes.iter().map(stored_attribute).collect())),
            ("MessageGroupId", string(group)),
            ("MessageDeduplicationId", string(deduplication)),
        ]),
    }
}

fn stored_attribute((name, value): (&String, &String)) -> (String, AttributeValue) {
    (name.clone(), map([("DataType", string("String")), ("StringValue", string(value))]))
}

fn read_message(item: &Item) -> Result<Message, LedgerError> {
    let message = item.get("message").and_then(|message| message.as_m().ok());
    message.and_then(read_parameters).ok_or(LedgerError::BadRow("message"))
}

fn read_parameters(parameters: &Item) -> Option<Message> {
    let body = text(parameters, "Message")?;
    let Some(attributes) = parameters.get("MessageAttributes") else {
        return Some(Message::Alert { subject: text(parameters, "Subject")?, body });
    };
    let attribute =
        |(name, value): (&String, &AttributeValue)| Some((name.clone(), text(value.as_m().ok()?, "StringValue")?));
    Some(Message::Status {
        body,
        attributes: attributes.as_m().ok()?.iter().map(attribute).collect::<Option<_>>()?,
        group: text(parameters, "MessageGroupId")?,
        deduplication: text(parameters, "MessageDeduplicationId")?,
    })
}

type Item = HashMap<String, AttributeValue>;

fn map<const N: usize>(members: [(&str, AttributeValue); N]) -> AttributeValue {
    AttributeValue::M(members.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Sends a request. Each time that [`PATIENCE`] passes without an answer, sends the same request
/// again in parallel, up to [`TRIES`]. No try is cancelled, because it may have taken effect while
/// its answer is on the way. Returns the first success, or an error once no other try is running.
/// The caller sets the deadline.
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

/// The result of a conditional write, with the row as it was before the write. The row is empty if
/// it did not exist, or if the request did not ask for it.
enum Answer {
    TookEffect(Item),
    Refused(Item),
}

async fn send(update: UpdateItemFluentBuilder) -> Result<Answer, Box<SdkError<UpdateItemError>>> {
    until_answered(|| send_once(update.clone())).await
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

/// Asks of a row only what the rules need of one in its state.
fn read_row(item: &Item) -> Result<Option<Row>, LedgerError> {
    if item.is_empty() {
        return Ok(None);
    }
    let state = text(item, "state").as_deref().and_then(State::named).ok_or(LedgerError::BadRow("state"))?;
    let lease_until = match (moment(item, "leaseUntil"), state) {
        (Some(lease_until), _) => lease_until,
        (None, State::Published | State::Debounced | State::Discarded) => Timestamp::from_millis(0),
        (None, State::Pending) => return Err(LedgerError::BadRow("leaseUntil")),
    };
    let owner = Owner::stored(text(item, "owner").unwrap_or_default());
    Ok(Some(Row { state, owner, lease_until, content_sha256: text(item, "contentSha256") }))
}

fn read_quiet(item: &Item) -> Result<Option<QuietPeriod>, LedgerError> {
    if item.is_empty() {
        return Ok(None);
    }
    let holder = text(item, "holder").map(DeliveryId::stored).ok_or(LedgerError::BadRow("holder"))?;
    let until = moment(item, "quietUntil").ok_or(LedgerError::BadRow("quietUntil"))?;
    Ok(Some(QuietPeriod { holder, until }))
}

/// Both keys of the index are there, or the row would not be in it.
fn read_pending(item: &Item) -> Result<Pending, LedgerError> {
    let id = text(item, "deliveryId").ok_or(LedgerError::BadRow("deliveryId"))?;
    let lease_until = moment(item, "leaseUntil").ok_or(LedgerError::BadRow("leaseUntil"))?;
    Ok(Pending {
        id: DeliveryId::stored(id),
        lease_until,
        first_seen_at: moment(item, "firstSeenAt").unwrap_or(lease_until),
        attempts: parsed(item, "attempts").unwrap_or_default(),
    })
}

fn text(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

fn moment(item: &Item, name: &str) -> Option<Timestamp> {
    parsed(item, name).map(Timestamp::from_millis)
}

fn parsed<N: FromStr>(item: &Item, name: &str) -> Option<N> {
    item.get(name)?.as_n().ok()?.parse().ok()
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
