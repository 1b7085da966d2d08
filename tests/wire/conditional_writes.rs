//! For every row that the rules can tell apart, the pure rule and the conditional write agree.

use std::time::Duration;

use crate::support::dynamodb::{DynamoDb, Item};
use crate::support::requests::{claim_of, delivery};
use aws_sdk_dynamodb::types::AttributeValue::{M, N, S};
use opportunity_alerts::delivery::ledger::{
    ClaimRequest, ClaimResult, FinishError, HeldLock, KNOWN_RETENTION, Ledger, LedgerError, Lock, MayClaim, MayFinish,
    MayPublish, Receipt, Reconciled, Refusal, Row, Run, State, may_claim, may_finish, may_publish, may_remember,
    may_run, may_take_slot,
};
use opportunity_alerts::delivery::pace::AlertRate;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::Known;
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, LockKey, ReplyKey};
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

/// Returns the lock of every kind of alert, at a time before, at and after the other times here.
fn locks() -> Vec<Lock> {
    let at = Timestamp::from_millis;
    let mut locks = vec![
        Lock::debounce(LockKey::debounce_status(Some("ws"), "lead_1", "OPPORTUNITY"), NOW, Duration::from_secs(60)),
        Lock::known(Known::baseline("lead_1", "OPPORTUNITY"), NOW),
        Lock::known(Known::by_webhook("lead_1", "OPPORTUNITY", None), NOW),
    ];
    for millis in [0, 1, 999, 1000, 1001, u64::MAX] {
        locks.push(Lock::known(Known::by_webhook("lead_1", "OPPORTUNITY", Some(at(millis))), NOW));
        locks.push(Lock::known(Known::by_reconciliation("lead_1", "OPPORTUNITY", at(millis)), NOW));
    }
    locks
}

#[tokio::test]
async fn every_lock_agrees_with_the_rule() {
    let mine = delivery("evt", "x").id;
    let holders =
        [mine.clone(), delivery("another", "x").id, DeliveryId::from_stored("reconciliation#baseline".into())];
    let untils = [0, 1, 2, 999, 1000, 1001, u64::MAX].map(Timestamp::from_millis);
    let held = holders.iter().flat_map(|holder| untils.map(|until| HeldLock { holder: holder.clone(), until }));
    let held: Vec<_> = [None].into_iter().chain(held.map(Some)).collect();
    let dynamodb = DynamoDb::start().await;
    for lock in locks() {
        for before in &held {
            if let Some(HeldLock { holder, until }) = before {
                let row = [
                    ("deliveryId", S(lock.key.as_str().into())),
                    ("holder", S(holder.as_str().into())),
                    ("quietUntil", N(until.as_millis().to_string())),
                    ("expiresAt", N("7".into())),
                ];
                dynamodb.put(row.map(|(name, value)| (name.to_owned(), value)).into()).await;
            }
            let answer = dynamodb.ledger().lock(&mine, &lock).await.unwrap();
            assert_eq!(answer, may_publish(before.as_ref(), &mine, lock.at), "{lock:?}, {before:?}");
            let (expected, expires) = match (&answer, before) {
                (MayPublish::Yes, _) => (lock.taken(before.as_ref(), &mine), lock.expires_at.as_secs()),
                (MayPublish::Debounced(holder), Some(before)) => {
                    assert_eq!(*holder, before.holder);
                    (before.clone(), 7)
                }
                (MayPublish::Debounced(_), None) => panic!("nothing suppresses {lock:?}"),
            };
            let [left] = &dynamodb.rows().await[..] else { panic!("expected one row") };
            assert_eq!(left["holder"], S(expected.holder.as_str().into()), "{lock:?}, {before:?}");
            assert_eq!(left["quietUntil"], N(expected.until.as_millis().to_string()), "{lock:?}, {before:?}");
            assert_eq!((&left["expiresAt"], left.len()), (&N(expires.to_string()), 4), "{lock:?}, {before:?}");
            dynamodb.delete(lock.key.as_str()).await;
        }
    }
}

/// The locks of known leads have these effects on each other, whatever their times are.
#[test]
fn a_known_lead_suppresses_the_reconciliation_and_no_later_webhook() {
    let at = Timestamp::from_millis;
    let [mine, others] = ["evt", "another"].map(|event| delivery(event, "x").id);
    let webhook = |millis: Option<u64>| Lock::known(Known::by_webhook("lead_1", "x", millis.map(at)), NOW);
    let baseline = Lock::known(Known::baseline("lead_1", "x"), NOW);
    let run = |millis| Lock::known(Known::by_reconciliation("lead_1", "x", at(millis)), NOW);
    let times = [None, Some(0), Some(1), Some(1000), Some(u64::MAX)];
    let is_suppressed = |lock: &Lock, held: &HeldLock| may_publish(Some(held), &mine, lock.at) != MayPublish::Yes;
    for first in times.map(webhook).into_iter().chain([baseline.clone()]) {
        let held = first.taken(None, &others);
        assert!(times.map(webhook).iter().all(|webhook| !is_suppressed(webhook, &held)), "{first:?}");
        assert!(is_suppressed(&run(0), &held) && is_suppressed(&run(u64::MAX), &held), "{first:?}");
        assert!(is_suppressed(&baseline, &held), "{first:?}");
        // A later webhook does not change what is suppressed.
        assert_eq!(webhook(Some(5)).taken(Some(&held), &mine).until, held.until);
    }
    let held = run(1000).taken(None, &others);
    for (time, suppressed) in
        [(Some(0), true), (Some(999), true), (Some(1000), false), (Some(1001), false), (None, false)]
    {
        assert_eq!(is_suppressed(&webhook(time), &held), suppressed, "{time:?}");
    }
    assert!(is_suppressed(&run(5000), &held));
}

#[tokio::test]
async fn a_run_agrees_with_the_rule() {
    let attempt = Attempt { owner: me(), now: NOW, lease_until: Timestamp::from_millis(9999) };
    let key = "function#run";
    let dynamodb = DynamoDb::start().await;
    for last in [None, Some(me()), Some(Owner::new("another", [0; 8]))] {
        for (lease, progress) in [(999, None), (1000, Some("{}")), (1001, Some("{}"))] {
            dynamodb.delete(key).await;
            let lease_until = Timestamp::from_millis(lease);
            if let Some(owner) = &last {
                let row = [
                    ("deliveryId", S(key.into())),
                    ("owner", S(owner.as_str().into())),
                    ("leaseUntil", N(lease.to_string())),
                ];
                let progress = progress.map(|progress| ("progress", S(progress.into())));
                let row = row.into_iter().chain(progress).map(|(name, value)| (name.to_owned(), value));
                dynamodb.put(row.collect()).await;
            }
            let why = format!("{last:?}, {lease}, {progress:?}");
            let may = may_run(last.as_ref().map(|owner| (owner, lease_until)), &me(), NOW);
            let stored = progress.filter(|_| last.is_some()).map(str::to_owned);
            let expected = if may { Run::Claimed(stored) } else { Run::InProgress { until: lease_until } };
            assert_eq!(dynamodb.ledger().begin_run("function", &attempt).await.unwrap(), expected, "{why}");
            let before = dynamodb.rows().await;

            let ended = dynamodb.ledger().end_run("function", &attempt, NOW, "new").await;
            let [row] = &dynamodb.rows().await[..] else { panic!("expected one row") };
            if may {
                assert!(ended.is_ok(), "{why}: {ended:?}");
                let left = ["owner", "leaseUntil", "progress"].map(|name| row[name].clone());
                assert_eq!(left, [S(me().as_str().into()), N("1000".into()), S("new".into())], "{why}");
                // The lease is over, so the next run may begin, and finds the progress.
                let next = Attempt { owner: Owner::new("next", [0; 8]), ..attempt.clone() };
                let claimed = dynamodb.ledger().begin_run("function", &next).await.unwrap();
                assert_eq!(claimed, Run::Claimed(Some("new".into())), "{why}");
            } else {
                assert!(matches!(ended, Err(FinishError::Overtaken)), "{why}: {ended:?}");
                assert_eq!(vec![row.clone()], before, "{why}");
            }
            assert_eq!(dynamodb.pending().await, []);
        }
    }
    // A row without a lease, such as one that a person has made.
    dynamodb.delete(key).await;
    dynamodb.put([("deliveryId".to_owned(), S(key.into()))].into()).await;
    assert_eq!(dynamodb.ledger().begin_run("function", &attempt).await.unwrap(), Run::Claimed(None));
    // Without a row, nothing can end.
    dynamodb.delete(key).await;
    let ended = dynamodb.ledger().end_run("function", &attempt, NOW, "new").await;
    assert!(matches!(ended, Err(FinishError::Overtaken)), "{ended:?}");
    assert_eq!(dynamodb.rows().await, []);
}

#[tokio::test]
async fn reads_the_known_leads_in_batches() {
    let dynamodb = DynamoDb::start().await;
    let keys: Vec<_> = (0..250).map(|number| LockKey::known(&format!("lead_{number}"), "OPPORTUNITY")).collect();
    for number in (0..250).step_by(3) {
        let lock = Lock::known(Known::by_webhook(&format!("lead_{number}"), "opportunity", None), NOW);
        dynamodb.ledger().lock(&delivery("evt", "x").id, &lock).await.unwrap();
    }
    // The table would refuse a key that comes twice.
    let twice = [&keys[..], &keys[..100]].concat();
    let known = dynamodb.ledger().known(&twice).await.unwrap();
    assert_eq!(known.len(), 84);
    for (number, key) in keys.iter().enumerate() {
        let holder = known.get(key).map(|lead| lead.holder.clone());
        assert_eq!(holder, (number % 3 == 0).then(|| delivery("evt", "x").id), "{number}");
    }
    let expires_at = known[&keys[0]].expires_at;
    assert_eq!(expires_at.as_secs(), NOW.after(KNOWN_RETENTION).as_secs());
    assert!(dynamodb.ledger().known(&[]).await.unwrap().is_empty());
}
