//! One event with two deliveries: the real binaries with the lead status stream on. A topic is
//! unreachable, another attempt has claimed a delivery, or the function is killed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use crate::support::aws::Fault;
use crate::support::lambda::{Lambda, Said, TOPIC, environment};
use crate::support::requests::{change, event, said, signed_now};
use crate::support::world::World;
use aws_sdk_dynamodb::types::AttributeValue::S;
use futures_util::future::join_all;
use opportunity_alerts::delivery::relay::STREAM_WAIT;
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::message::key::{DeliveryId, sha256_hex};
use opportunity_alerts::timestamp::Timestamp;
use sendpilot_events::STATUSES;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(3);

const STREAM: &str = "arn:aws:sns:us-east-1:123456789012:status";

impl World {
    async fn streaming(&self, stream: &str) -> Lambda {
        Lambda::start_with(&self.aws, vec![("STATUS_TOPIC_ARN", stream.into())], TIMEOUT).await
    }

    async fn redrive(&self, stream: &str) -> Lambda {
        Lambda::start_redrive_with(&self.aws, vec![("STATUS_TOPIC_ARN", stream.into())], TIMEOUT).await
    }

    async fn state_of(&self, id: DeliveryId) -> String {
        self.dynamodb.row(&id).await.map_or("none".into(), |row| row["state"].as_s().unwrap().clone())
    }

    /// Runs the redrive without backoff, and returns its report.
    async fn redriven(&self, stream: &str) -> Value {
        match self.redrive(stream).await.invoke(&json!({"now": true})).await {
            Said::Response(report) => report,
            said => panic!("no report, but {said:?}"),
        }
    }

    /// Returns the states of the alert and of the message to the stream.
    async fn states(&self) -> [String; 2] {
        let workspace = Some("ws_abc123xyz");
        [
            self.state_of(DeliveryId::alert(workspace, "evt_1")).await,
            self.state_of(DeliveryId::status(workspace, "evt_1")).await,
        ]
    }
}

#[tokio::test]
async fn one_opportunity_is_one_alert_and_one_message() {
    let world = World::new().await;
    let mut function = world.streaming(STREAM).await;
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(function.answer(&event()).await, (200, said("duplicate")));
    assert_eq!((world.aws.alerts(), world.aws.statuses()), (vec!["evt_1".into()], vec!["evt_1".into()]));
    assert_eq!(world.states().await, ["PUBLISHED", "PUBLISHED"]);
}

#[tokio::test]
async fn a_failing_stream_topic_stops_no_alert() {
    let world = World::new().await;
    let mut function = world.streaming(STREAM).await;
    world.aws.next("status publish", Fault::Refused(403));
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.states().await, ["PUBLISHED", "PENDING"]);
    world.aws.take_calls();
    assert_eq!(function.answer(&event()).await, (200, said("duplicate")));
    let mut calls = world.aws.take_calls();
    calls.sort();
    assert_eq!(calls, ["claim", "status claim", "status complete", "status publish"]);
    assert_eq!((world.aws.alerts(), world.aws.statuses()), (vec!["evt_1".into()], vec!["evt_1".into()]));
}

/// If the stream's topic fails in any way, SendPilot still gets 200 and never sends the event
/// again. The redrive publishes the message.
#[tokio::test]
async fn the_redrive_publishes_messages_that_the_stream_refused() {
    let case = async |fault: Fault, status: &str, outcome: &str, alert: &str| {
        let world = World::new().await;
        let mut function = world.streaming(STREAM).await;
        world.aws.next("status publish", fault);
        let answer = function.answer(&signed_now(&change("evt_1", status))).await;
        assert_eq!(answer, (200, said(outcome)), "{fault:?}");
        assert_eq!(world.states().await, [alert, "PENDING"], "{fault:?}");
        let log = function.log().await;
        let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((&line["level"], &line["outcome"]), (&json!("WARN"), &json!(outcome)), "{line}");
        let report = world.redriven(STREAM).await;
        assert_eq!((&report["published"], &report["stillPending"]), (&json!(1), &json!(0)), "{report}");
        assert_eq!(world.states().await, [alert, "PUBLISHED"], "{fault:?}");
        assert_eq!(world.aws.statuses(), ["evt_1"], "{fault:?}");
    };
    join_all([Fault::Refused(403), Fault::Refused(500), Fault::Lost, Fault::HeldBefore].map(async |fault| {
        case(fault, "OPPORTUNITY", "alerted", "PUBLISHED").await;
        case(fault, "NOT_INTERESTED", "pending", "none").await;
    }))
    .await;
}

/// The second attempt comes while the first one holds the claim of the stream's message.
#[tokio::test]
async fn a_message_of_a_dying_attempt_is_published() {
    join_all([("OPPORTUNITY", "duplicate"), ("DONE", "pending")].map(async |(status, outcome)| {
        let world = World::new().await;
        let (mut first, mut second) = (world.streaming(STREAM).await, world.streaming(STREAM).await);
        let event = signed_now(&change("evt_1", status));
        world.aws.next("status publish", Fault::HeldBefore);
        first.begin(&event).await;
        world.aws.held().await;
        // The alert has time to be published and completed.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(second.answer(&event).await, (200, said(outcome)));
        first.kill().await;
        tokio::time::sleep(TIMEOUT + LEASE_MARGIN).await;
        assert_eq!(world.redriven(STREAM).await["published"], 1);
        assert_eq!(world.aws.statuses(), ["evt_1"]);
    }))
    .await;
}

/// Without a row, only SendPilot knows of the message.
#[tokio::test]
async fn answers_503_if_the_message_is_not_claimed() {
    let case = async |(fault, status, outcome): (Fault, &str, &str)| {
        let world = World::new().await;
        let mut function = world.streaming(STREAM).await;
        let event = signed_now(&change("evt_1", status));
        (0..9).for_each(|_| world.aws.next("status claim", fault));
        let (status, answer) = function.answer(&event).await;
        assert_eq!((status, &answer["outcome"]), (503, &json!("unavailable")), "{fault:?}");
        world.aws.clear();
        assert_eq!(function.answer(&event).await, (200, said(outcome)), "{fault:?}");
        assert_eq!(world.aws.statuses(), ["evt_1"], "{fault:?}");
    };
    join_all([
        case((Fault::Refused(400), "OPPORTUNITY", "duplicate")),
        case((Fault::Refused(400), "DONE", "streamed")),
        case((Fault::HeldBefore, "OPPORTUNITY", "duplicate")),
        case((Fault::HeldBefore, "DONE", "streamed")),
    ])
    .await;
}

#[tokio::test]
async fn a_failing_alerts_topic_stops_no_stream_message() {
    let world = World::new().await;
    let mut function = world.streaming(STREAM).await;
    world.aws.next("publish", Fault::Refused(403));
    assert_eq!(function.answer(&event()).await.0, 503);
    assert_eq!(world.states().await, ["PENDING", "PUBLISHED"]);
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!((world.aws.alerts(), world.aws.statuses()), (vec!["evt_1".into()], vec!["evt_1".into()]));
}

#[tokio::test]
async fn alert_and_message_do_not_wait_for_each_other() {
    let world = World::new().await;
    let mut function = world.streaming(STREAM).await;
    let slow = Duration::from_millis(700);
    for call in ["claim", "status claim", "publish", "status publish"] {
        world.aws.next(call, Fault::Delayed(slow));
    }
    let begun = std::time::Instant::now();
    assert_eq!(function.answer(&event()).await.0, 200);
    // In sequence, they would take four times as long.
    assert!(begun.elapsed() < slow * 3, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_hanging_stream_call_delays_no_alert() {
    for (call, status) in [("status claim", 503), ("status publish", 200)] {
        let world = World::new().await;
        let mut function = world.streaming(STREAM).await;
        (0..9).for_each(|_| world.aws.next(call, Fault::HeldBefore));
        let Said::Response(answer) = function.invoke(&event()).await else { panic!("no answer") };
        assert_eq!(answer["statusCode"], status, "{call}");
        assert_eq!(world.aws.alerts(), ["evt_1"], "{call}");
        assert_eq!(world.states().await[0], "PUBLISHED", "{call}");
    }
}

/// A waiting function occupies one of the account's concurrent executions, which alerts need.
#[tokio::test]
async fn gives_up_a_hanging_stream_topic_early() {
    let world = World::new().await;
    let mut environment = environment(&world.aws);
    environment.push(("STATUS_TOPIC_ARN", STREAM.into()));
    let mut function = Lambda::start(environment, Duration::from_secs(10)).await;
    world.aws.next("status publish", Fault::HeldBefore);
    let begun = std::time::Instant::now();
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert!(begun.elapsed() < STREAM_WAIT * 2, "{:?}", begun.elapsed());
    let report = world.redriven(STREAM).await;
    assert_eq!((&report["published"], &report["stillPending"]), (&json!(1), &json!(0)), "{report}");
}

#[tokio::test]
async fn the_redrive_finishes_the_deliveries_of_a_killed_webhook() {
    for (call, left) in [("status publish", "status"), ("publish", "alert")] {
        let world = World::new().await;
        let mut function = world.streaming(STREAM).await;
        world.aws.next(call, Fault::HeldBefore);
        function.begin(&event()).await;
        world.aws.held().await;
        // The other delivery has time to end.
        tokio::time::sleep(Duration::from_millis(500)).await;
        function.kill().await;
        tokio::time::sleep(TIMEOUT + LEASE_MARGIN).await;
        let Said::Response(report) = world.redrive(STREAM).await.invoke(&json!({})).await else {
            panic!("expected a report")
        };
        assert_eq!((&report["published"], &report["stillPending"]), (&json!(1), &json!(0)), "{left}: {report}");
        assert_eq!((world.aws.alerts(), world.aws.statuses()), (vec!["evt_1".into()], vec!["evt_1".into()]), "{left}");
        assert_eq!(world.states().await, ["PUBLISHED", "PUBLISHED"], "{left}");
    }
}

/// The message has no subscriber any more. If its row stayed pending, it would hide rows that
/// matter.
#[tokio::test]
async fn discards_pending_messages_to_a_stream_turned_off() {
    let world = World::new().await;
    let id = DeliveryId::status(Some("ws_abc123xyz"), "evt_1");
    let days_30 = Duration::from_secs(30 * 86_400);
    world.aws.next("status publish", Fault::Refused(403));
    world.aws.next("publish", Fault::Refused(403));
    assert_eq!(world.streaming(STREAM).await.answer(&event()).await.0, 503);
    let message = world.dynamodb.row(&id).await.unwrap()["message"].clone();

    // If the discard fails until its deadline, the row is left to the next run.
    (0..99).for_each(|_| world.aws.next("status discard", Fault::Refused(400)));
    let report = world.redriven("").await;
    assert_eq!((&report["published"], &report["stillPending"]), (&json!(1), &json!(1)), "{report}");
    world.aws.clear();
    tokio::time::sleep(TIMEOUT / 4 + LEASE_MARGIN).await;

    let begun = SystemTime::now();
    let mut redrive = world.redrive("").await;
    let Said::Response(report) = redrive.invoke(&json!({"now": true})).await else { panic!("expected a report") };
    let expected = json!({
        "scanned": 1, "published": 0, "discarded": 1, "duplicates": 0, "stillPending": 0,
        "oldestPendingAgeSeconds": 0, "oldestStreamPendingAgeSeconds": 0,
    });
    assert_eq!(report, expected);
    let row = world.dynamodb.row(&id).await.unwrap();
    assert_eq!((&row["state"], &row["message"]), (&S("DISCARDED".into()), &message));
    assert!(row["lastError"].as_s().unwrap().contains("the lead status stream is off"), "{row:?}");
    let expires: u64 = row["expiresAt"].as_n().unwrap().parse().unwrap();
    let expected = Timestamp::from(begun).after(days_30).as_secs();
    assert!((expected..expected + 60).contains(&expires), "it should expire like a published row: {expires}");
    assert_eq!(world.dynamodb.pending().await, []);

    // No later run finds the row. A retry by SendPilot is a duplicate, even if the stream is on
    // again.
    let Said::Response(report) = redrive.invoke(&json!({"now": true})).await else { panic!("expected a report") };
    assert_eq!(report["scanned"], 0, "{report}");
    let log = redrive.log().await;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let [delivery, ..] = &lines.filter(|line| line["message"] == "delivery").collect::<Vec<_>>()[..] else {
        panic!("{log}")
    };
    assert_eq!((&delivery["level"], &delivery["outcome"]), (&json!("WARN"), &json!("discarded")), "{delivery}");
    assert_eq!(world.streaming(STREAM).await.answer(&event()).await, (200, said("duplicate")));
    assert_eq!((world.aws.alerts(), world.aws.statuses()), (vec!["evt_1".into()], vec![]));
}

#[tokio::test]
async fn without_the_stream_an_ignored_change_costs_no_call() {
    let world = World::new().await;
    let mut function = Lambda::start(environment(&world.aws), TIMEOUT).await;
    for status in STATUSES.into_iter().filter(|status| *status != "OPPORTUNITY") {
        assert_eq!(function.answer(&signed_now(&change("evt_1", status))).await, (200, said("ignored")), "{status}");
    }
    assert_eq!(world.aws.calls(), [""; 0]);
}

/// Returns the message attributes of a publish, by name.
fn attributes(publish: &HashMap<String, String>) -> BTreeMap<String, String> {
    let part = |number: usize, part: &str| publish.get(&format!("MessageAttributes.entry.{number}.{part}"));
    (1..)
        .map_while(|number| {
            assert!(part(number, "Value.DataType").is_none_or(|kind| kind == "String"));
            Some((part(number, "Name")?.clone(), part(number, "Value.StringValue")?.clone()))
        })
        .collect()
}

#[tokio::test]
async fn every_status_is_streamed_with_attributes() {
    let world = World::new().await;
    let mut function = world.streaming(STREAM).await;
    for (number, status) in STATUSES.into_iter().chain(["NEGOTIATION_STARTED"]).enumerate() {
        let outcome = if status == "OPPORTUNITY" { "alerted" } else { "streamed" };
        let event_id = format!("evt_{number}");
        let answer = function.answer(&signed_now(&change(&event_id, status))).await;
        assert_eq!(answer, (200, json!({"outcome": outcome, "eventId": event_id})), "{status}");
    }
    let published = world.aws.published();
    let stages: Vec<_> = published
        .iter()
        .filter(|publish| publish["TopicArn"] == STREAM)
        .map(|publish| {
            let attributes = attributes(publish);
            let message: Value = serde_json::from_str(&publish["Message"]).unwrap();
            assert_eq!(message["type"], "sendpilot.lead.status_changed");
            assert_eq!(publish["MessageGroupId"], "lead_abc123");
            // A standard topic refuses this parameter.
            assert!(!publish.contains_key("MessageDeduplicationId"));
            assert!(!publish.contains_key("MessageStructure") && !publish.contains_key("Subject"));
            let expected = [
                ("eventType", "sendpilot.lead.status_changed"),
                ("newStatus", message["data"]["newStatus"].as_str().unwrap()),
                ("previousStatus", "REPLY_RECEIVED"),
                ("crmStage", message["data"]["crmStage"].as_str().unwrap()),
                ("workspaceId", "ws_abc123xyz"),
                ("campaignId", "camp_xyz789"),
                ("changedBy", "api"),
            ];
            assert_eq!(attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
            [attributes["newStatus"].clone(), attributes["crmStage"].clone()].join(" ")
        })
        .collect();
    assert_eq!(
        stages,
        [
            "PENDING new",
            "CONNECTION_SENT contacted",
            "CONNECTION_ACCEPTED connected",
            "MESSAGE_SENT in_conversation",
            "REPLY_RECEIVED engaged",
            "OPPORTUNITY qualified",
            "MEETING_BOOKED unknown",
            "NOT_INTERESTED closed_lost",
            "DONE closed_won",
            "NEGOTIATION_STARTED unknown",
        ]
    );
    assert_eq!(published.iter().filter(|publish| publish["TopicArn"] == TOPIC).count(), 1);
}

#[tokio::test]
async fn a_fifo_stream_gets_a_deduplication_id() {
    let world = World::new().await;
    let fifo = format!("{STREAM}.fifo");
    assert_eq!(world.streaming(&fifo).await.answer(&event()).await.0, 200);
    let published = world.aws.published();
    let publish = published.iter().find(|publish| publish["TopicArn"] == fifo).unwrap();
    assert_eq!(publish["MessageGroupId"], "lead_abc123");
    assert_eq!(publish["MessageDeduplicationId"], sha256_hex(b"ws_abc123xyz#evt_1#status"));
}

/// The redrive knows only the row, but publishes the same message as the webhook function.
#[tokio::test]
async fn a_redriven_message_is_the_same() {
    let world = World::new().await;
    let fifo = format!("{STREAM}.fifo");
    let mut function = world.streaming(&fifo).await;
    world.aws.next("status publish", Fault::Denied(500));
    (0..8).for_each(|_| world.aws.next("status publish", Fault::Refused(403)));
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    world.aws.clear();
    world.redrive(&fifo).await.invoke(&json!({"now": true})).await;
    let published = world.aws.published();
    let [first, again] = &published.iter().filter(|publish| publish["TopicArn"] == fifo).collect::<Vec<_>>()[..] else {
        panic!("{published:?}")
    };
    let rest = |publish: &HashMap<String, String>| {
        let mut rest = publish.clone();
        rest.retain(|name, _| !name.starts_with("MessageAttributes"));
        (rest, attributes(publish))
    };
    assert_eq!(rest(first), rest(again));
}
