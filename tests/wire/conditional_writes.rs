//! For every row that the rules can tell apart, the pure rule and the conditional write agree.

use crate::support::dynamodb::{DynamoDb, Item};
use crate::support::requests::{claim_of, delivery};
use aws_sdk_dynamodb::types::AttributeValue::{M, N, S};
use opportunity_alerts::delivery::ledger::{
    ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, MayClaim, MayFinish, Receipt, Refusal, Row, State,
    may_claim, may_finish, may_remember, may_take_slot,
};
use opportunity_alerts::delivery::pace::AlertRate;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::ReplyKey;
use opportunity_alerts::timestamp::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1000);

fn me() -> Owner {
    Owner::new("me", [0; 8])
}

/// Returns no row, and every row that the rules can tell apart. A row has any state, and my owner
/// or another. Its lease has ended, ends now, or is unexpired. Its content is absent, the same, or
/// other.
fn rows() -> Vec<Option<Row>> {
    let mut rows = vec![None];
    for state in [State::Pending, State::Published, State::Debounced, State::Discarded] {
        for owner in [me(), Owner::new("another", [0; 8])] {
            for lease in [999, 1000, 1001] {
                for content in [None, Some("x"), Some("other content")] {
                    let lease_until = Timestamp::from_millis(lease);
                    let content_sha256 = content.map(|content| delivery("evt", content).content_sha256);
                    rows.push(Some(Row { state, owner: owner.clone(), lease_until, content_sha256 }));
                }
            }
        }
    }
    rows
}

fn item(row: &Row) -> Item {
    let state = match row.state {
        State::Pending => "PENDING",
        State::Published => "PUBLISHED",
        State::Debounced => "DEBOUNCED",
        State::Discarded => "DISCARDED",
    };
    let content = row.content_sha256.clone().map(|content| ("contentSha256".to_owned(), S(content)));
    let attributes = [
        ("deliveryId".into(), S("ws#evt#alert".into())),
        ("state".into(), S(state.into())),
        ("owner".into(), S(row.owner.as_str().into())),
        ("leaseUntil".into(), N(row.lease_until.as_millis().to_string())),
        ("message".into(), M(["Subject", "Message"].map(|name| (name.into(), S("x".into()))).into())),
    ];
    attributes.into_iter().chain(content).collect()
}

/// Returns a table with only this row.
async fn table(row: Option<&Row>) -> DynamoDb {
    let dynamodb = DynamoDb::start().await;
    if let Some(row) = row {
        dynamodb.put(item(row)).await;
    }
    dynamodb
}

#[tokio::test]
async fn claim_and_takeover_agree_with_the_rule() {
    for row in rows() {
        for wanted in [ClaimRequest::Delivery(delivery("evt", "x")), ClaimRequest::Pending(delivery("evt", "x").id)] {
            let dynamodb = table(row.as_ref()).await;
            let by_key = matches!(wanted, ClaimRequest::Pending(_));
            let may = may_claim(row.as_ref(), wanted.content_sha256(), &me(), NOW);
            let attempt = Attempt { owner: me(), now: NOW, lease_until: Timestamp::from_millis(9999) };
            let claim = dynamodb.ledger().claim(wanted, attempt).await.map(|ClaimResult { claim, .. }| claim);
            let agree = match (&claim, may) {
                (Err(LedgerError::Gone), MayClaim::Yes) => by_key && row.is_none(),
                (Ok(Ok(_)), MayClaim::Yes) => !by_key || row.is_some(),
                (Ok(Ok(_)), MayClaim::Mine) => true,
                (Ok(Err(Refusal::BodyMismatch)), MayClaim::No(Refusal::BodyMismatch)) => !by_key,
                (Ok(Err(refusal)), MayClaim::No(expected)) => *refusal == expected,
                _ => false,
            };
            assert!(agree, "{row:?}, by key: {by_key}: {claim:?}");
            let left = dynamodb.rows().await.len();
            assert_eq!(left, usize::from(row.is_some() || !by_key), "a takeover should create no row");
        }
    }
}

#[tokio::test]
async fn complete_discard_and_release_agree_with_the_rule() {
    for row in rows() {
        let expected = may_finish(row.as_ref(), &me());
        let is_settled = |result: Result<(), FinishError>| match result {
            Ok(()) => expected != MayFinish::Overtaken,
            Err(error) => expected == MayFinish::Overtaken && matches!(error, FinishError::Overtaken),
        };
        let before = row.as_ref().map(|row| item(row)["state"].clone());
        let state = async |dynamodb: &DynamoDb| dynamodb.rows().await.first().map(|row| row["state"].clone());

        let dynamodb = table(row.as_ref()).await;
        let receipt = Receipt { message_id: "m".into(), published_at: NOW, expires_at: NOW };
        assert!(is_settled(dynamodb.ledger().complete(&claim_of("evt", me()), &receipt).await), "{row:?}");
        let after = if expected == MayFinish::Yes { Some(S("PUBLISHED".into())) } else { before.clone() };
        assert_eq!(state(&dynamodb).await, after, "{row:?}");

        let dynamodb = table(row.as_ref()).await;
        assert!(is_settled(dynamodb.ledger().discard(&claim_of("evt", me()), "off", NOW).await), "{row:?}");
        let after = if expected == MayFinish::Yes { Some(S("DISCARDED".into())) } else { before.clone() };
        assert_eq!(state(&dynamodb).await, after, "{row:?}");

        let dynamodb = table(row.as_ref()).await;
        assert!(is_settled(dynamodb.ledger().release(&claim_of("evt", me()), NOW, "e").await), "{row:?}");
        assert_eq!(state(&dynamodb).await, before, "{row:?}");
    }
}

#[tokio::test]
async fn slot_agrees_with_the_rule() {
    let another = Owner::new("another", [0; 8]);
    for holder in [None, Some(me()), Some(another)] {
        let dynamodb = DynamoDb::start().await;
        let slot = AlertRate::new(5).unwrap().slot_at(NOW);
        if let Some(holder) = &holder {
            assert!(dynamodb.ledger().take_slot(&claim_of("evt", holder.clone()), slot).await.unwrap());
        }
        let may = may_take_slot(holder.as_ref(), &me());
        assert_eq!(dynamodb.ledger().take_slot(&claim_of("evt", me()), slot).await.unwrap(), may, "{holder:?}");
        let left = dynamodb.rows().await[0]["owner"].clone();
        assert_eq!(left, S(holder.unwrap_or_else(me).as_str().into()));
    }
}

#[tokio::test]
async fn a_reply_agrees_with_the_rule() {
    let key = ReplyKey::new(Some("ws"), "lead_1");
    let reply = LastReply::new("new", NOW).unwrap();
    let times = [0, 999, 1000, 1001, u64::MAX].map(|at| Some(Timestamp::from_millis(at)));
    // No row, a row without a time, and a row with a time before, at or after the new reply.
    for (has_row, stored_at) in [(false, None), (true, None)].into_iter().chain(times.map(|at| (true, at))) {
        let dynamodb = DynamoDb::start().await;
        if has_row {
            let stored_at = stored_at.map(|at| ("repliedAt".to_owned(), N(at.as_millis().to_string())));
            let attributes = [("deliveryId", key.as_str()), ("reply", "old")];
            let attributes = attributes.map(|(name, value)| (name.to_owned(), S(value.to_owned())));
            dynamodb.put(attributes.into_iter().chain(stored_at).collect()).await;
        }
        let before = dynamodb.rows().await;
        dynamodb.ledger().remember(&key, &reply, Timestamp::from_millis(9000)).await.unwrap();
        let after = dynamodb.rows().await;
        if may_remember(stored_at, NOW) {
            let [row] = &after[..] else { panic!("{after:?}") };
            let stored = ["reply", "repliedAt", "expiresAt"].map(|name| row[name].clone());
            assert_eq!(stored, [S("new".into()), N("1000".into()), N("9".into())], "{stored_at:?}");
            let read = dynamodb.ledger().last_reply(&key, Timestamp::from_millis(8999)).await.unwrap();
            assert_eq!(read, Some(reply.clone()), "{stored_at:?}");
            let read = dynamodb.ledger().last_reply(&key, Timestamp::from_millis(9000)).await.unwrap();
            assert_eq!(read, None, "an expired reply should not be read");
        } else {
            assert_eq!(after, before, "{stored_at:?}");
        }
        assert_eq!(dynamodb.pending().await, []);
    }
}
