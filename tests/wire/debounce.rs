//! Debounced alerts. Within the period, one alert on a lead and status is published, even if many
//! arrive at once. A fault never suppresses all of them.

use std::time::Duration;

use crate::support::aws::Fault;
use crate::support::dynamodb::{DynamoDb, Item};
use crate::support::lambda::{Lambda, Said};
use crate::support::requests::{delivery, opportunity, signed_now};
use crate::support::world::World;
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use futures_util::future::join_all;
use opportunity_alerts::delivery::ledger::{
    ClaimRequest, HeldLock, Ledger, LedgerError, Lock, MayPublish, Refusal, may_publish,
};
use opportunity_alerts::delivery::relay::{Delivered, Outcome, Relay};
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::Message;
use opportunity_alerts::message::key::{DeliveryId, LockKey};
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Mutex;

const TIMEOUT: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_millis(1_708_770_600_000);

impl World {
    async fn debouncing(&self) -> Lambda {
        self.debouncing_within(TIMEOUT).await
    }

    async fn debouncing_within(&self, timeout: Duration) -> Lambda {
        Lambda::start_with(&self.aws, vec![("DEBOUNCE_MINUTES", "5".into())], timeout).await
    }
}

fn on(event_id: &str, lead: &str, status: &str) -> Value {
    let mut body: Value = serde_json::from_str(&opportunity(event_id)).unwrap();
    body["data"]["leadId"] = lead.into();
    body["data"]["newStatus"] = status.into();
    signed_now(&body.to_string())
}

#[tokio::test]
async fn debounces_the_same_lead_only() {
    let world = World::new().await;
    let mut function = world.debouncing().await;
    let mut outcome =
        async |event: &str, lead: &str| function.answer(&on(event, lead, "OPPORTUNITY")).await.1["outcome"].clone();
    assert_eq!(outcome("evt_1", "lead_1").await, "alerted");
    assert_eq!(outcome("evt_2", "lead_1").await, "debounced");
    assert_eq!(outcome("evt_2", "lead_1").await, "duplicate");
    assert_eq!(outcome("evt_1", "lead_1").await, "duplicate");
    assert_eq!(outcome("evt_3", "lead_2").await, "alerted");
    assert_eq!(world.aws.alerts(), ["evt_1", "evt_3"]);
    let row = world.dynamodb.row(&DeliveryId::alert(Some("ws_abc123xyz"), "evt_2")).await.unwrap();
    assert_eq!((&row["state"], &row["debouncedBy"]), (&S("DEBOUNCED".into()), &S("ws_abc123xyz#evt_1#alert".into())));
    assert!(row.contains_key("expiresAt") && !row.contains_key("pending"), "{row:?}");
    assert!(world.dynamodb.pending().await.is_empty());
}

#[tokio::test]
async fn one_of_fifty_concurrent_events_alerts() {
    let world = World::new().await;
    let (world, mut outcomes) = (&world, Vec::new());
    for batch in 0..5 {
        let answers = join_all((0..10).map(|number| async move {
            // Ten processes start at once and share the processors, so they need more time.
            let mut function = world.debouncing_within(TIMEOUT * 4).await;
            function.answer(&on(&format!("evt_{batch}_{number}"), "lead_1", "OPPORTUNITY")).await
        }));
        outcomes.extend(answers.await.into_iter().map(|(status, answer)| (status, answer["outcome"].clone())));
    }
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == (200, json!("alerted"))).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == (200, json!("debounced"))).count(), 49);
    assert_eq!(world.aws.alerts().len(), 1);
}

/// Without the retry, the redrive could publish the debounced alert after the end of the period.
#[tokio::test]
async fn retries_a_throttled_debounce() {
    let world = World::new().await;
    let mut function = world.debouncing().await;
    assert_eq!(function.answer(&on("evt_1", "lead_1", "OPPORTUNITY")).await.1["outcome"], "alerted");
    // Nine throttled calls are three retries, because the SDK tries three times for each.
    (0..9).for_each(|_| world.aws.next("debounce", Fault::Throttled));
    assert_eq!(function.answer(&on("evt_2", "lead_1", "OPPORTUNITY")).await.1["outcome"], "debounced");
    assert!(world.dynamodb.pending().await.is_empty());
}

/// A failed alert may suppress another, because the failed alert is claimed.
#[tokio::test]
async fn the_redrive_publishes_a_failed_alert_that_debounced_another() {
    let world = World::new().await;
    let mut function = world.debouncing().await;
    world.aws.next("publish", Fault::Refused(403));
    assert_eq!(function.answer(&on("evt_1", "lead_1", "OPPORTUNITY")).await.0, 503);
    assert_eq!(function.answer(&on("evt_2", "lead_1", "OPPORTUNITY")).await.1["outcome"], "debounced");
    assert_eq!(world.aws.alerts(), [""; 0]);
    let mut redrive = Lambda::start_redrive_with(&world.aws, vec![("DEBOUNCE_MINUTES", "5".into())], TIMEOUT).await;
    let Said::Response(report) = redrive.invoke(&json!({})).await else { panic!("expected a report") };
    assert_eq!((&report["published"], &report["stillPending"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(world.aws.alerts(), ["evt_1"]);
}

/// The first attempt is killed before its claim takes effect, so its alert suppresses no other.
#[tokio::test]
async fn an_unclaimed_event_debounces_nothing() {
    let world = World::new().await;
    let mut function = world.debouncing().await;
    world.aws.next("claim", Fault::HeldBefore);
    function.begin(&on("evt_1", "lead_1", "OPPORTUNITY")).await;
    world.aws.held().await;
    function.kill().await;
    assert_eq!(world.debouncing().await.answer(&on("evt_2", "lead_1", "OPPORTUNITY")).await.1["outcome"], "alerted");
}

/// If the result of the debounce lock is unknown, the alert is not suppressed, and the answer is
/// 503.
#[tokio::test]
async fn alerts_later_if_the_lock_is_unknown() {
    for (call, fault) in [("quiet", Fault::Refused(400)), ("quiet", Fault::HeldAfter)] {
        let world = World::new().await;
        let mut function = world.debouncing().await;
        (0..9).for_each(|_| world.aws.next(call, fault));
        assert_eq!(function.answer(&on("evt_1", "lead_1", "OPPORTUNITY")).await.0, 503, "{fault:?}");
        world.aws.clear();
        assert_eq!(function.answer(&on("evt_1", "lead_1", "OPPORTUNITY")).await.0, 200, "{fault:?}");
        assert_eq!(world.aws.alerts(), ["evt_1"], "{fault:?}");
    }
}

#[tokio::test]
async fn the_conditional_write_agrees_with_the_rule() {
    let period = LockKey::debounce_status(Some("ws"), "lead_1", "OPPORTUNITY");
    let [mine, anothers] = ["evt", "another"].map(|event| DeliveryId::alert(Some("ws"), event));
    for holder in [None, Some(&mine), Some(&anothers)] {
        for until in [999, 1000, 1001] {
            let dynamodb = DynamoDb::start().await;
            let row = holder.map(|holder| HeldLock { holder: holder.clone(), until: Timestamp::from_millis(until) });
            if let Some(HeldLock { holder, until }) = &row {
                let item = [
                    ("deliveryId".to_owned(), S(period.as_str().into())),
                    ("holder".into(), S(holder.as_str().into())),
                    ("quietUntil".into(), N(until.as_millis().to_string())),
                ];
                dynamodb.put(Item::from(item)).await;
            }
            let now = Timestamp::from_millis(1000);
            let lock = Lock::debounce(period.clone(), now, MINUTE);
            let answer = dynamodb.ledger().lock(&mine, &lock).await.unwrap();
            assert_eq!(answer, may_publish(row.as_ref(), &mine, now), "{row:?}");
            let left = &dynamodb.rows().await[0];
            let expected =
                if answer == MayPublish::Yes { (mine.as_str(), "61000") } else { (anothers.as_str(), "1001") };
            assert_eq!(
                (left["holder"].as_s().unwrap().as_str(), left["quietUntil"].as_n().unwrap().as_str()),
                expected
            );
            assert!(answer != MayPublish::Yes || left["expiresAt"] == N("62".into()), "{left:?}");
        }
    }
}

/// The bodies of the published alerts, with the time of each publish.
#[derive(Default)]
struct Alerts(Mutex<Vec<(Timestamp, String)>>);

struct At<'a> {
    alerts: &'a Alerts,
    now: Timestamp,
    works: bool,
}

impl Topic for At<'_> {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let Message::Alert { body, .. } = message else { panic!("expected an alert") };
        if !self.works {
            return Err(TopicError::Failed("not now".into()));
        }
        self.alerts.0.lock().unwrap().push((self.now, body.clone()));
        Ok("message".into())
    }
}

/// Makes one attempt at the delivery of an event, as the webhook function or as the redrive.
async fn attempt(
    dynamodb: &DynamoDb,
    alerts: &Alerts,
    event: usize,
    now: Timestamp,
    works: bool,
    redrives: bool,
) -> Delivered {
    let relay = Relay {
        ledger: dynamodb.ledger(),
        topic: At { alerts, now, works },
        retention: MINUTE * 60,
        debounce: Some(MINUTE * 5),
        pacer: None,
        stream_wait: MINUTE,
    };
    let event_id = format!("evt_{event}");
    let mut delivery = delivery(&event_id, &event_id);
    delivery.locks.debounce = Some(LockKey::debounce_status(Some("ws"), "lead_1", "OPPORTUNITY"));
    let wanted = if redrives { ClaimRequest::Pending(delivery.id) } else { ClaimRequest::Delivery(delivery) };
    let random = now.as_millis().to_be_bytes();
    relay.deliver(wanted, &Invocation::new("request", now.after(MINUTE / 6), now, random)).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Attempts at three events on one lead come in any order, at any time, while the topic works
    /// or fails. Then the redrive runs until nothing is pending.
    #[test]
    fn any_fault_leaves_one_alert_per_period(
        attempts in proptest::collection::vec((0usize..3, 20u64..400, any::<bool>()), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (dynamodb, alerts) = (DynamoDb::start().await, Alerts::default());
            let mut now = START;
            let mut events = std::collections::BTreeSet::new();
            for (event, seconds, works) in attempts {
                now = now.after(Duration::from_secs(seconds));
                let relayed = attempt(&dynamodb, &alerts, event, now, works, false).await;
                if matches!(relayed.outcome, Outcome::Debounced { .. }) {
                    // The alert that suppressed this one must be published or pending.
                    let rows = dynamodb.rows().await;
                    let holder = rows.iter().find_map(|row| row.get("holder")).unwrap();
                    let holder = rows.iter().find(|row| &row["deliveryId"] == holder).unwrap();
                    assert_ne!(holder["state"], S("DEBOUNCED".into()));
                }
                events.insert(event);
            }
            for _ in 0..3 {
                for event in &events {
                    now = now.after(MINUTE);
                    match attempt(&dynamodb, &alerts, *event, now, true, true).await.outcome {
                        Outcome::Published { .. } | Outcome::Debounced { .. } | Outcome::Refused(Refusal::Done) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(dynamodb.pending().await.is_empty());
            let alerts = alerts.0.into_inner().unwrap();
            assert!(!alerts.is_empty());
            for pair in alerts.windows(2) {
                assert!(pair[1].0.since(pair[0].0) >= MINUTE * 5, "{alerts:?}");
            }
        });
    }
}

#[tokio::test]
async fn an_unreadable_row_debounces_nothing() {
    let dynamodb = DynamoDb::start().await;
    let period = LockKey::debounce_status(Some("ws"), "lead_1", "OPPORTUNITY");
    dynamodb.put(Item::from([("deliveryId".to_owned(), S(period.as_str().into()))])).await;
    let lock = Lock::debounce(period, START, MINUTE);
    let answer = dynamodb.ledger().lock(&delivery("evt", "x").id, &lock).await;
    assert!(matches!(answer, Err(LedgerError::BadRow("holder"))), "{answer:?}");
}
