//! The ledger on a real DynamoDB engine: claim, takeover, completion, release, and fifty concurrent
//! claims.

use std::time::Duration;

use crate::support::dynamodb::{DynamoDb, Item};
use crate::support::requests::{claim_of, delivery};
use aws_sdk_dynamodb::types::AttributeValue::{self, M, N, S};
use opportunity_alerts::delivery::ledger::dynamodb::{DynamoDbLedger, PENDING_SHARDS};
use opportunity_alerts::delivery::ledger::{Claim, ClaimRequest, FinishError, Ledger, Lock, Receipt, Refusal};
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::key::{DeliveryId, LockKey};
use opportunity_alerts::message::{Delivery, Known, Locks, Message};
use opportunity_alerts::timestamp::Timestamp;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LEASE: Duration = Duration::from_secs(12);

fn attempt(owner: u8, now: Timestamp) -> Attempt {
    Attempt { owner: Owner::new("request", [owner; 8]), now, lease_until: now.after(LEASE) }
}

async fn claim(ledger: &DynamoDbLedger, event: &str, attempt: Attempt) -> Result<Claim, Refusal> {
    ledger.claim(ClaimRequest::Delivery(delivery(event, event)), attempt).await.unwrap().claim
}

async fn win(ledger: &DynamoDbLedger, event: &str, attempt: Attempt) -> Claim {
    match claim(ledger, event, attempt).await {
        Ok(claim) => claim,
        refused => panic!("the claim should be granted, not {refused:?}"),
    }
}

fn receipt(at: Timestamp) -> Receipt {
    Receipt { message_id: "message-1".into(), published_at: at, expires_at: at.after(Duration::from_secs(30 * 86_400)) }
}

fn number(value: u64) -> AttributeValue {
    N(value.to_string())
}

fn names(item: &Item) -> Vec<&str> {
    let mut names: Vec<_> = item.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_first_claim_writes_all_that_a_redrive_needs() {
    let dynamodb = DynamoDb::start().await;
    let claimed = win(&dynamodb.ledger(), "evt_1", attempt(1, START)).await;
    let row = dynamodb.row(claimed.delivery_id()).await.unwrap();
    assert_eq!(
        names(&row),
        [
            "attempts",
            "contentSha256",
            "deliveryId",
            "firstSeenAt",
            "leaseUntil",
            "message",
            "owner",
            "pending",
            "state"
        ]
    );
    assert_eq!(row["deliveryId"], S("ws#evt_1#alert".into()));
    assert_eq!(row["state"], S("PENDING".into()));
    assert_eq!(row["owner"], S("request/0101010101010101".into()));
    assert_eq!(row["leaseUntil"], number(START.after(LEASE).as_millis()));
    assert_eq!((&row["attempts"], &row["firstSeenAt"]), (&number(1), &number(START.as_millis())));
    assert_eq!(row["contentSha256"], S(delivery("evt_1", "evt_1").content_sha256));
    let message =
        [("Subject", "New opportunity: x"), ("Message", "{\"default\":\"evt_1\"}"), ("MessageStructure", "json")];
    assert_eq!(row["message"], M(message.map(|(name, value)| (name.into(), S(value.into()))).into()));
    assert!(row["pending"].as_s().unwrap().parse::<u8>().unwrap() < PENDING_SHARDS);
    let indexed = &dynamodb.pending().await[0];
    assert_eq!(names(indexed), ["attempts", "deliveryId", "firstSeenAt", "leaseUntil", "pending"]);
}

#[tokio::test]
async fn a_lease_excludes_other_attempts() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let _held = win(&ledger, "evt_1", attempt(1, START)).await;
    let last = START.after(LEASE - Duration::from_millis(1));
    for now in [START, last] {
        let Err(Refusal::InProgress { until }) = claim(&ledger, "evt_1", attempt(2, now)).await else { panic!() };
        assert_eq!(until, START.after(LEASE));
    }
}

#[tokio::test]
async fn the_next_attempt_takes_over_an_expired_lease() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let stale = win(&ledger, "evt_1", attempt(1, START)).await;
    let later = START.after(LEASE);
    let taken = win(&ledger, "evt_1", attempt(2, later)).await;
    let row = dynamodb.row(taken.delivery_id()).await.unwrap();
    assert_eq!((&row["attempts"], &row["firstSeenAt"]), (&number(2), &number(START.as_millis())));
    assert_eq!(row["leaseUntil"], number(later.after(LEASE).as_millis()));

    // The old owner can no longer change the row.
    assert!(matches!(ledger.complete(&stale, &receipt(later)).await, Err(FinishError::Overtaken)));
    assert_eq!(dynamodb.row(taken.delivery_id()).await.unwrap(), row);
    ledger.complete(&taken, &receipt(later)).await.unwrap();
}

#[tokio::test]
async fn a_completed_delivery_stays_a_duplicate_and_expires() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let claimed = win(&ledger, "evt_1", attempt(1, START)).await;
    let id = claimed.delivery_id().clone();
    ledger.complete(&claimed, &receipt(START)).await.unwrap();
    let row = dynamodb.row(&id).await.unwrap();
    assert_eq!(row["state"], S("PUBLISHED".into()));
    assert_eq!((&row["messageId"], &row["publishedAt"]), (&S("message-1".into()), &number(START.as_millis())));
    assert_eq!(row["expiresAt"], number(START.as_secs() + 30 * 86_400));
    assert_eq!(dynamodb.pending().await, []);
    for now in [START, START.after(LEASE * 1000)] {
        assert!(matches!(claim(&ledger, "evt_1", attempt(2, now)).await, Err(Refusal::Done)));
    }
    assert_eq!(dynamodb.row(&id).await.unwrap(), row);
}

#[tokio::test]
async fn a_released_delivery_stays_pending_and_is_free_at_once() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let claimed = win(&ledger, "evt_1", attempt(1, START)).await;
    let id = claimed.delivery_id().clone();
    let soon = START.after(Duration::from_secs(1));
    ledger.release(&claimed, soon, &"e".repeat(5000)).await.unwrap();
    let row = dynamodb.row(&id).await.unwrap();
    assert_eq!((&row["state"], &row["leaseUntil"]), (&S("PENDING".into()), &number(soon.as_millis())));
    assert_eq!(row["lastError"], S("e".repeat(500)));
    assert!(!row.contains_key("expiresAt"), "a pending row should never expire");
    assert_eq!(dynamodb.pending().await[0]["lastError"], row["lastError"]);
    let _again = win(&ledger, "evt_1", attempt(2, soon)).await;
}

#[tokio::test]
async fn a_stranger_can_neither_complete_nor_release() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let claimed = win(&ledger, "evt_1", attempt(1, START)).await;
    let row = dynamodb.row(claimed.delivery_id()).await.unwrap();
    for event in ["evt_1", "evt_unknown"] {
        let forged = || claim_of(event, Owner::new("stranger", [9; 8]));
        assert!(matches!(ledger.complete(&forged(), &receipt(START)).await, Err(FinishError::Overtaken)));
        assert!(matches!(ledger.release(&forged(), START, "no").await, Err(FinishError::Overtaken)));
    }
    assert_eq!(dynamodb.rows().await, [row], "the table should not change");
}

#[tokio::test]
async fn every_request_may_be_sent_twice() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let first = win(&ledger, "evt_1", attempt(1, START)).await;
    let repeated = win(&ledger, "evt_1", attempt(1, START)).await;
    assert_eq!(dynamodb.row(first.delivery_id()).await.unwrap()["attempts"], number(1));
    ledger.complete(&first, &receipt(START)).await.unwrap();
    ledger.complete(&repeated, &receipt(START)).await.unwrap();
}

#[tokio::test]
async fn every_claim_reports_the_attempts() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let attempts =
        async |wanted: ClaimRequest, owner, now| ledger.claim(wanted, attempt(owner, now)).await.unwrap().attempts;
    let event = || ClaimRequest::Delivery(delivery("evt_1", "evt_1"));
    assert_eq!(attempts(event(), 1, START).await, Some(1), "won");
    assert_eq!(attempts(event(), 1, START).await, Some(1), "sent again");
    assert_eq!(attempts(event(), 2, START).await, Some(1), "in progress");
    let by_key = ClaimRequest::Pending(delivery("evt_1", "").id);
    assert_eq!(attempts(by_key, 3, START.after(LEASE)).await, Some(2), "taken over by key");
    assert_eq!(attempts(event(), 4, START.after(LEASE * 2)).await, Some(3), "taken over");
    ledger.complete(&claim_of("evt_1", attempt(4, START).owner), &receipt(START)).await.unwrap();
    assert_eq!(attempts(event(), 5, START).await, Some(3), "published");
}

/// In every state, the first fact's row and message stay unchanged.
#[tokio::test]
async fn other_content_never_takes_over_a_row() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let refused = async |owner, now, state: &str| {
        let before = dynamodb.rows().await;
        let other = ClaimRequest::Delivery(delivery("evt_1", "other content"));
        let claim = ledger.claim(other, attempt(owner, now)).await.unwrap().claim;
        assert!(matches!(claim, Err(Refusal::BodyMismatch)), "{state}: {claim:?}");
        assert_eq!(dynamodb.rows().await, before, "{state}");
    };
    let claimed = win(&ledger, "evt_1", attempt(1, START)).await;
    refused(2, START, "in progress").await;
    refused(3, START.after(LEASE), "abandoned").await;
    ledger.release(&claimed, START, "refused").await.unwrap();
    refused(4, START, "released").await;
    let again = win(&ledger, "evt_1", attempt(5, START)).await;
    ledger.complete(&again, &receipt(START)).await.unwrap();
    refused(6, START, "published").await;
    assert!(matches!(claim(&ledger, "evt_1", attempt(7, START)).await, Err(Refusal::Done)));
}

/// The configuration or the text of the event may have changed since the first claim.
#[tokio::test]
async fn every_attempt_gets_the_first_claims_message() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let lead = |lead: &str| Locks {
        debounce: Some(LockKey::debounce_status(Some("ws"), lead, "OPPORTUNITY")),
        known: Some(Known::by_webhook(lead, "OPPORTUNITY", Some(START))),
    };
    let first = Delivery { locks: lead("lead_1"), ..delivery("evt_1", "same") };
    let message = Message::Alert { subject: "Other words".into(), body: "{}".into() };
    let changed = Delivery { message, locks: lead("lead_2"), ..first.clone() };
    let take = async |wanted: ClaimRequest, owner: u8| {
        let now = START.after(LEASE * u32::from(owner));
        let Ok(claim) = ledger.claim(wanted, attempt(owner, now)).await.unwrap().claim else { panic!() };
        (claim.message().clone(), claim.locks().clone())
    };
    let expected = (first.message.clone(), first.locks.clone());
    for (wanted, owner) in [
        (ClaimRequest::Delivery(first.clone()), 1),
        (ClaimRequest::Delivery(changed.clone()), 2),
        // The answer was lost, and the attempt sends the request again.
        (ClaimRequest::Delivery(changed.clone()), 2),
        (ClaimRequest::Pending(first.id.clone()), 3),
        (ClaimRequest::Delivery(changed), 4),
    ] {
        assert_eq!(take(wanted, owner).await, expected, "attempt {owner}");
    }
    let row = dynamodb.row(&first.id).await.unwrap();
    assert_eq!(row["contentSha256"], S(first.content_sha256));
    assert_eq!(row["attempts"], number(4));
}

/// DynamoDB accepts keys of at most 2,048 bytes.
#[tokio::test]
async fn the_longest_ids_make_a_valid_key() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    for part in ["\u{e9}".repeat(128), "#".repeat(256), "x".repeat(256), "#".repeat(5000)] {
        let quiet = LockKey::debounce_status(Some(&part), &part, &part);
        let id = DeliveryId::alert(Some(&part), &part);
        assert!(
            quiet.as_str().len() <= 2048 && id.as_str().len() <= 2048,
            "{} {}",
            quiet.as_str().len(),
            id.as_str().len()
        );
        let delivery =
            Delivery { id, locks: Locks { debounce: Some(quiet.clone()), known: None }, ..delivery("evt", "x") };
        let claimed = ledger.claim(ClaimRequest::Delivery(delivery), attempt(1, START)).await.unwrap();
        let Ok(claim) = claimed.claim else { panic!() };
        ledger.lock(claim.delivery_id(), &Lock::debounce(quiet.clone(), START, LEASE)).await.unwrap();
        // No other lead, status or kind shares the key.
        let others = [
            LockKey::debounce_status(Some(&part), &part, "OPPORTUNITY"),
            LockKey::debounce_status(Some(&part), "lead_1", &part),
            LockKey::debounce_status(None, &part, &part),
            LockKey::debounce_tag(Some(&part), &part, &part),
        ];
        assert!(!others.contains(&quiet));
    }
}

#[tokio::test]
async fn reads_a_minimal_row() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let row = |attributes: &[(&str, AttributeValue)]| {
        let key = ("deliveryId", S("ws#evt_1#alert".into()));
        attributes.iter().cloned().chain([key]).map(|(name, value)| (name.to_owned(), value)).collect::<Item>()
    };
    dynamodb.put(row(&[("state", S("PUBLISHED".into()))])).await;
    assert!(matches!(claim(&ledger, "evt_1", attempt(1, START)).await, Err(Refusal::Done)));
    dynamodb.put(row(&[("state", S("PENDING".into())), ("leaseUntil", number(7))])).await;
    assert!(claim(&ledger, "evt_1", attempt(1, START)).await.is_ok());
    for bad in [row(&[]), row(&[("state", S("LOST".into()))]), row(&[("state", S("PENDING".into()))])] {
        dynamodb.put(bad).await;
        assert!(ledger.claim(ClaimRequest::Delivery(delivery("evt_1", "b")), attempt(2, START)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_concurrent_claims_wins() {
    let dynamodb = DynamoDb::start().await;
    for round in 0..100 {
        let event = format!("evt_{round}");
        let claims = (0..50).map(|owner| {
            let (ledger, event) = (dynamodb.ledger(), event.clone());
            tokio::spawn(async move { claim(&ledger, &event, attempt(owner, START)).await.is_ok() })
        });
        let mut won = 0;
        for claim in claims.collect::<Vec<_>>() {
            won += usize::from(claim.await.unwrap());
        }
        assert_eq!(won, 1, "round {round}");
    }
}
