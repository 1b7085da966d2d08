//! For any row and any time, the pure rule and the conditional write decide alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use opportunity_alerts::ledger::{
    Attempt, Claimed, Ledger, MayClaim, MaySettle, Owner, Receipt, Row, Settled, Standing, State, Wanted, may_claim,
    may_settle,
};
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::dynamodb::{DynamoDb, Item};
use support::requests::{claim_of, delivery};

fn owner(number: u8) -> Owner {
    Owner::new("request", [number; 8])
}

/// Few owners and few moments, so that they meet often.
fn rows() -> impl Strategy<Value = Option<Row>> {
    let row = (any::<bool>(), 0u8..3, 0u64..6).prop_map(|(published, holder, lease)| Row {
        state: if published { State::Published } else { State::Pending },
        owner: owner(holder),
        lease_until: Timestamp::from_millis(lease),
        body_sha256: Some("sha".into()),
    });
    proptest::option::weighted(0.9, row)
}

fn item(row: &Row) -> Item {
    let state = if row.state == State::Published { "PUBLISHED" } else { "PENDING" };
    Item::from([
        ("deliveryId".into(), S("ws#evt#alert".into())),
        ("state".into(), S(state.into())),
        ("owner".into(), S(row.owner.as_str().into())),
        ("leaseUntil".into(), N(row.lease_until.as_millis().to_string())),
        ("bodySha256".into(), S("sha".into())),
    ])
}

async fn set(dynamodb: &DynamoDb, row: Option<&Row>) {
    match row {
        Some(row) => dynamodb.put(item(row)).await,
        None => {
            let key = S("ws#evt#alert".into());
            dynamodb
                .client
                .delete_item()
                .table_name(support::dynamodb::TABLE)
                .key("deliveryId", key)
                .send()
                .await
                .unwrap();
        }
    }
}

#[test]
fn they_agree() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dynamodb = runtime.block_on(DynamoDb::start());
    let ledger = dynamodb.ledger();
    let mut runner = TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
    runner
        .run(&(rows(), 0u8..3, 0u64..6), |(row, me, now)| {
            let (me, now) = (owner(me), Timestamp::from_millis(now));
            runtime.block_on(async {
                set(&dynamodb, row.as_ref()).await;
                let attempt = Attempt { owner: me.clone(), now, lease_until: Timestamp::from_millis(99) };
                let Claimed { standing, .. } =
                    ledger.claim(Wanted::Delivery(delivery("evt", "x")), attempt).await.unwrap();
                let expected = may_claim(row.as_ref(), &me, now);
                let agree = match (&standing, expected) {
                    (Standing::Won(_), MayClaim::Yes | MayClaim::Mine) | (Standing::Published, MayClaim::Published) => {
                        true
                    }
                    (Standing::InProgress { until }, MayClaim::NotBefore(lease)) => *until == lease,
                    _ => false,
                };
                prop_assert!(agree, "claim: the table says {standing:?}, the rule {expected:?}");

                let expected = may_settle(row.as_ref(), &me);
                let settled = if expected == MaySettle::NotMine { Settled::NotMine } else { Settled::Recorded };
                let claim = || claim_of("evt", me.clone());
                let receipt = Receipt { message_id: "m".into(), published_at: now, expires_at: now };
                let before = row.as_ref().map(|row| item(row)["state"].clone());
                let state = async || dynamodb.rows().await.first().map(|row| row["state"].clone());
                set(&dynamodb, row.as_ref()).await;
                prop_assert_eq!(ledger.complete(claim(), receipt).await.unwrap(), settled, "complete");
                let after = if expected == MaySettle::Yes { Some(S("PUBLISHED".into())) } else { before.clone() };
                prop_assert_eq!(state().await, after, "complete");
                set(&dynamodb, row.as_ref()).await;
                prop_assert_eq!(ledger.release(claim(), now, "e").await.unwrap(), settled, "release");
                prop_assert_eq!(state().await, before, "release");
                Ok(())
            })
        })
        .unwrap();
}
