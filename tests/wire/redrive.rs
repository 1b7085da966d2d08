//! The redrive on a real DynamoDB engine and a stub SNS: its publishes, the deliveries that it
//! leaves pending, and its report. The redrive runs as a process if a test kills it or runs two at
//! once. If hours must pass, it runs in the test's own process.

use std::time::{Duration, SystemTime};

use crate::support::aws::{Call, Fault};
use crate::support::doubles::{relay, telemetry};
use crate::support::dynamodb::{Item, TABLE};
use crate::support::lambda::{Lambda, Said, TOPIC, environment};
use crate::support::requests::{opportunity, signed_now};
use crate::support::world::World;
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use aws_sdk_dynamodb::types::{AttributeAction, AttributeValueUpdate};
use futures_util::future::join;
use futures_util::stream::{self, Stream};
use opportunity_alerts::delivery::ledger::dynamodb::{DynamoDbLedger, PENDING_SHARDS};
use opportunity_alerts::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, Lock, MayPublish, Pending, Receipt,
};
use opportunity_alerts::delivery::pace::Slot;
use opportunity_alerts::delivery::topic::sns::{Sns, Topics};
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::invocation::{Invocation, LEASE_MARGIN};
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, ReplyKey};
use opportunity_alerts::message::{Delivery, Locks, Message};
use opportunity_alerts::redrive::{ALERT_WORKERS, Incomplete, MAX_TIMEOUTS, Redrive, Report, STREAM_WORKERS, Urgency};
use opportunity_alerts::timestamp::Timestamp;
use serde_json::{Value, json};

/// The timeout in `template.yaml`.
const TIMEOUT: Duration = Duration::from_secs(72);
const MINUTE: Duration = Duration::from_secs(60);

impl World {
    /// Creates a delivery whose first attempt died. Its lease ended `ago`.
    async fn abandoned(&self, event: &str, ago: Duration) -> DeliveryId {
        self.abandoned_as(delivery(event), ago).await
    }

    async fn abandoned_as(&self, delivery: Delivery, ago: Duration) -> DeliveryId {
        let end = Timestamp::from_millis(now().as_millis() - u64::try_from(ago.as_millis()).unwrap());
        let began = Timestamp::from_millis(end.as_millis() - 12_000);
        let attempt = Attempt { owner: Owner::new("dead", [0; 8]), now: began, lease_until: end };
        let claimed = self.dynamodb.ledger().claim(ClaimRequest::Delivery(delivery), attempt).await.unwrap();
        let Ok(claim) = claimed.claim else { panic!() };
        claim.delivery_id().clone()
    }

    async fn process(&self) -> Lambda {
        Lambda::start_redrive(&self.aws, TIMEOUT).await
    }

    /// Starts the redrive with the lead status stream on.
    async fn with_stream(&self, timeout: Duration) -> Lambda {
        Lambda::start_redrive_with(&self.aws, vec![("STATUS_TOPIC_ARN", format!("{TOPIC}-status"))], timeout).await
    }

    /// Runs the redrive in this process, at any time.
    async fn run(&self, now: Timestamp) -> Result<Report, Incomplete> {
        self.run_at(Urgency::Patient, now).await
    }

    async fn run_at(&self, urgency: Urgency, now: Timestamp) -> Result<Report, Incomplete> {
        let redrive = Redrive { relay: relay(self.ledger(), self.topic()), telemetry: telemetry() };
        redrive.run(&Invocation::new("redrive", now.after(TIMEOUT), now, now.as_millis().to_be_bytes()), urgency).await
    }

    fn ledger(&self) -> DynamoDbLedger {
        self.dynamodb.ledger()
    }

    fn topic(&self) -> Sns {
        let config = aws_sdk_sns::Config::builder()
            .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_sdk_sns::config::Region::new("us-east-1"))
            .credentials_provider(aws_sdk_dynamodb::config::Credentials::for_tests())
            .endpoint_url(&self.aws.url)
            .build();
        Sns::new(aws_sdk_sns::Client::from_conf(config), Topics { alerts: TOPIC.into(), status: None })
    }

    async fn row_of(&self, id: &DeliveryId) -> Item {
        self.dynamodb.row(id).await.unwrap()
    }

    async fn set(&self, id: &DeliveryId, attribute: &str, value: Option<aws_sdk_dynamodb::types::AttributeValue>) {
        let action = if value.is_some() { AttributeAction::Put } else { AttributeAction::Delete };
        let update = AttributeValueUpdate::builder().action(action).set_value(value).build();
        let request = self.dynamodb.client.update_item().table_name(TABLE).key("deliveryId", S(id.as_str().into()));
        request.attribute_updates(attribute, update).send().await.unwrap();
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn delivery(event: &str) -> Delivery {
    let body = json!({"default": json!({"id": event}).to_string()}).to_string();
    let message = Message::Alert { subject: "New opportunity: x".into(), body };
    Delivery {
        id: DeliveryId::alert(Some("ws"), event),
        message,
        content_sha256: "sha".into(),
        locks: Locks::default(),
    }
}

/// Returns the delivery of a change of status to the stream.
fn change(event: &str) -> Delivery {
    let message = Message::Status {
        body: json!({"id": event}).to_string(),
        attributes: [("newStatus".to_owned(), "DONE".to_owned())].into(),
        group: "lead".into(),
        deduplication: "x".into(),
    };
    Delivery {
        id: DeliveryId::status(Some("ws"), event),
        message,
        content_sha256: "sha".into(),
        locks: Locks::default(),
    }
}

/// Returns the log line of the last run.
async fn log_line(redrive: Lambda) -> Value {
    let log = redrive.log().await;
    let mut lines = log.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["message"] == "redrive").unwrap()
}

fn report(said: Said) -> Value {
    match said {
        Said::Response(report) => report,
        said => panic!("expected a report, got {said:?}"),
    }
}

fn all_published(count: u64) -> Value {
    json!({"scanned": count, "published": count, "duplicates": 0, "stillPending": 0, "oldestPendingAgeSeconds": 0})
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test]
async fn publishes_the_delivery_of_a_killed_webhook() {
    let world = World::new().await;
    let timeout = Duration::from_secs(1);
    let mut webhook = Lambda::start(environment(&world.aws), timeout).await;
    world.aws.next("publish", Fault::HeldBefore);
    webhook.begin(&signed_now(&opportunity("evt_1"))).await;
    world.aws.held().await;
    webhook.kill().await;

    let mut redrive = world.process().await;
    let too_early = report(redrive.invoke(&json!({})).await);
    assert_eq!((&too_early["stillPending"], &too_early["published"]), (&json!(1), &json!(0)));
    tokio::time::sleep(timeout + LEASE_MARGIN).await;
    assert_eq!(redrive.invoke(&json!({"from": "a schedule"})).await, Said::Response(all_published(1)));
    assert_eq!(world.aws.alerts(), ["evt_1"]);
    let publish = &world.aws.published()[0];
    let row = world.row_of(&DeliveryId::alert(Some("ws_abc123xyz"), "evt_1")).await;
    assert_eq!((&row["state"], &row["attempts"]), (&S("PUBLISHED".into()), &N("2".into())));
    for (parameter, value) in row["message"].as_m().unwrap() {
        assert_eq!(&publish[parameter], value.as_s().unwrap(), "{parameter}");
    }
}

#[tokio::test]
async fn a_killed_redrive_leaves_its_deliveries_to_the_next() {
    let world = World::new().await;
    for event in ["evt_1", "evt_2"] {
        world.abandoned(event, MINUTE).await;
    }
    for (call, fault) in [("publish", Fault::HeldBefore), ("takeover", Fault::HeldAfter)] {
        world.aws.next(call, fault);
    }
    let mut redrive = world.process().await;
    redrive.begin(&json!({})).await;
    for _ in 0..2 {
        world.aws.held().await;
    }
    redrive.kill().await;
    assert_eq!(world.aws.alerts(), [""; 0]);
    let later = now().after(MINUTE);
    assert_eq!(world.run(later).await.unwrap().counts.published, 2);
    assert_eq!(sorted(world.aws.alerts()), ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn one_poisoned_delivery_stops_no_other() {
    let world = World::new().await;
    for number in 0..100 {
        world.abandoned(&format!("evt_{number}"), MINUTE).await;
    }
    let poisoned = world.abandoned("poisoned", 2 * MINUTE).await;
    world.aws.refuse(Some("poisoned"));
    let mut redrive = world.process().await;
    let first = report(redrive.invoke(&json!({})).await);
    assert_eq!((&first["scanned"], &first["published"], &first["stillPending"]), (&json!(101), &json!(100), &json!(1)));
    let age = first["oldestPendingAgeSeconds"].as_u64().unwrap();
    assert!((132..150).contains(&age), "the age should count from the first claim: {age}");
    assert_eq!(world.aws.alerts().len(), 100);
    let row = world.row_of(&poisoned).await;
    assert_eq!((&row["state"], &row["attempts"]), (&S("PENDING".into()), &N("2".into())));
    assert!(row["lastError"].as_s().unwrap().contains("the topic did not accept the message"), "{row:?}");
    assert!(!row.contains_key("expiresAt"));

    world.aws.refuse(None);
    assert_eq!(report(redrive.invoke(&json!({})).await)["published"], json!(1));
    assert_eq!(world.aws.alerts()[100], "poisoned");
}

#[tokio::test]
async fn backs_off_but_never_gives_up() {
    let world = World::new().await;
    let id = world.abandoned("evt_1", Duration::ZERO).await;
    world.aws.refuse(Some("evt_1"));
    let (begun, mut tried_at, mut attempts) = (now(), Vec::new(), 1);
    for minute in 0..120 {
        let report = world.run(begun.after(MINUTE * minute)).await.unwrap();
        assert_eq!((report.counts.scanned, report.counts.still_pending), (1, 1));
        let now: u32 = world.row_of(&id).await["attempts"].as_n().unwrap().parse().unwrap();
        tried_at.extend((now > attempts).then_some(minute));
        attempts = now;
    }
    let gaps: Vec<_> = tried_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A release comes some milliseconds after the start of a run, so a wait of one minute skips one
    // run.
    assert_eq!(gaps[..8], [1, 1, 1, 1, 2, 3, 5, 9]);
    assert!(gaps[8..].len() >= 5 && gaps[8..].iter().all(|gap| *gap == 15), "{gaps:?}");
    // An operator who has fixed the topic need not wait. A retry by SendPilot does not wait either.
    world.run_at(Urgency::AtOnce, begun.after(MINUTE * 119)).await.unwrap();
    assert_eq!(world.row_of(&id).await["attempts"], N((attempts + 1).to_string()));
    let attempt = Attempt {
        owner: Owner::new("w", [1; 8]),
        now: begun.after(MINUTE * 120),
        lease_until: begun.after(MINUTE * 121),
    };
    let claimed = world.ledger().claim(ClaimRequest::Delivery(delivery("evt_1")), attempt).await.unwrap();
    assert!(claimed.claim.is_ok());
}

#[tokio::test]
async fn two_redrives_publish_each_delivery_once() {
    let world = World::new().await;
    for number in 0..1000 {
        world.abandoned(&format!("evt_{number}"), MINUTE).await;
    }
    let (mut one, mut other) = (world.process().await, world.process().await);
    let event = json!({});
    let (one, other) = join(one.invoke(&event), other.invoke(&event)).await;
    let [one, other] = [report(one), report(other)];
    let published = [&one, &other].map(|report| report["published"].as_u64().unwrap());
    assert_eq!(published[0] + published[1], 1000, "{one} {other}");
    assert!(published.iter().all(|published| *published > 0), "both should publish: {one} {other}");
    let alerts = sorted(world.aws.alerts());
    assert_eq!(alerts.len(), 1000);
    assert!(alerts.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(world.dynamodb.pending().await, []);
}

#[tokio::test]
async fn publishes_the_longest_overdue_first() {
    let world = World::new().await;
    let count = u32::try_from(6 * ALERT_WORKERS).unwrap();
    for number in 0..count {
        world.abandoned(&format!("evt_{number}"), MINUTE * (number + 1)).await;
    }
    world.run(now()).await.unwrap();
    let place = |event: &str| world.aws.alerts().iter().position(|id| id == event).unwrap();
    let few = ALERT_WORKERS * 2;
    for number in 0..count {
        let expected = usize::try_from(count - 1 - number).unwrap();
        assert!(place(&format!("evt_{number}")).abs_diff(expected) < few, "{:?}", world.aws.alerts());
    }
}

#[tokio::test]
async fn claims_only_what_it_has_time_for() {
    let world = World::new().await;
    let count = ALERT_WORKERS * 10;
    for number in 0..count {
        world.abandoned(&format!("evt_{number}"), MINUTE).await;
    }
    // The publishes are slow, because each delivery has only 500 ms.
    for _ in 0..count {
        world.aws.next("publish", Fault::Delayed(Duration::from_millis(250)));
    }
    let timeout = Duration::from_secs(2);
    let mut redrive = Lambda::start_redrive(&world.aws, timeout).await;
    let begun = std::time::Instant::now();
    let first = report(redrive.invoke(&json!({})).await);
    assert!(begun.elapsed() < timeout, "it should end before Lambda kills the process");
    assert_eq!(first["published"].as_u64().unwrap() + first["stillPending"].as_u64().unwrap(), count as u64, "{first}");
    assert!(first["stillPending"].as_u64().unwrap() >= ALERT_WORKERS as u64, "{first}");
    world.aws.clear();
    let second = report(world.process().await.invoke(&json!({})).await);
    assert_eq!((&second["scanned"], &second["published"]), (&first["stillPending"], &first["stillPending"]));
    assert_eq!(world.aws.alerts().len(), count);
}

/// With the template's timeout of 72 seconds, each hanging publish takes 9 seconds.
#[tokio::test]
async fn a_hanging_stream_delays_no_alert() {
    let world = World::new().await;
    for number in 0..80 {
        world.abandoned_as(change(&format!("evt_{number}")), 2 * MINUTE).await;
        world.aws.next("status publish", Fault::HeldBefore);
    }
    world.abandoned("evt_alert", MINUTE).await;
    let mut redrive = world.with_stream(Duration::from_secs(4)).await;
    let begun = std::time::Instant::now();
    redrive.begin(&json!({})).await;
    while world.aws.alerts().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(3), "the alert should not wait for the stream");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let report = redrive.said().await;
    let counts = ["scanned", "published", "stillPending"].map(|count| report[count].as_u64().unwrap());
    assert_eq!(counts, [81, 1, 80], "{report}");
    let mut calls = world.aws.calls();
    calls.retain(|call| call.ends_with("publish"));
    let before = calls.iter().position(|call| call == "publish").unwrap();
    assert!(before <= STREAM_WORKERS, "the alert should not wait for {before} publishes");
    let tried = calls.len() - 1;
    assert!(tried < STREAM_WORKERS + MAX_TIMEOUTS as usize, "the run should not wait for {tried} publishes");
    let line = log_line(redrive).await;
    assert_eq!((&line["stoppedEarly"], &line["level"]), (&json!("stream"), &json!("WARN")), "{line}");

    world.aws.clear();
    let mut next = world.with_stream(TIMEOUT).await;
    let report = self::report(next.invoke(&json!({})).await);
    assert_eq!((&report["published"], &report["stillPending"]), (&json!(80), &json!(0)), "{report}");
    let line = log_line(next).await;
    assert_eq!((&line["stoppedEarly"], &line["level"]), (&json!(null), &json!("INFO")), "{line}");
}

/// The run also stops early if the claims cannot be released.
#[tokio::test]
async fn hanging_alerts_delay_no_stream_message() {
    let world = World::new().await;
    for number in 0..20 {
        world.abandoned(&format!("evt_{number}"), 2 * MINUTE).await;
        world.abandoned_as(change(&format!("evt_{number}")), MINUTE).await;
        world.aws.next("publish", Fault::HeldBefore);
        world.aws.next("release", Fault::Refused(400));
    }
    let mut redrive = world.with_stream(Duration::from_secs(4)).await;
    let report = report(redrive.invoke(&json!({})).await);
    assert_eq!((&report["published"], &report["stillPending"]), (&json!(20), &json!(20)), "{report}");
    let tried = world.aws.calls().iter().filter(|call| *call == "publish").count();
    assert!(tried < ALERT_WORKERS + MAX_TIMEOUTS as usize, "the run should not wait for {tried} publishes");
    assert_eq!(log_line(redrive).await["stoppedEarly"], json!("alerts"));
    let untouched = world.dynamodb.pending().await.iter().filter(|row| row["attempts"] == N("1".into())).count();
    assert_eq!(untouched, 20 - tried, "deliveries left to the next run should not be claimed");
}

/// A topic that refuses immediately costs the run no time.
#[tokio::test]
async fn tries_every_delivery_on_a_refusing_topic() {
    let world = World::new().await;
    for number in 0..20 {
        world.abandoned_as(change(&format!("evt_{number}")), MINUTE).await;
        world.aws.next("status publish", Fault::Refused(403));
    }
    let mut redrive = world.with_stream(TIMEOUT).await;
    assert_eq!(report(redrive.invoke(&json!({})).await)["stillPending"], json!(20));
    assert_eq!(world.aws.calls().iter().filter(|call| *call == "status publish").count(), 20);
    assert_eq!(log_line(redrive).await["stoppedEarly"], json!(null));
}

#[tokio::test]
async fn reports_the_pending_age_per_topic() {
    let world = World::new().await;
    let now = now();
    let ages = |report: &Report| (report.oldest_pending_age_seconds, report.oldest_stream_pending_age_seconds);
    assert_eq!(ages(&world.run(now).await.unwrap()), (0, None));
    // Unexpired claims keep the run from publishing.
    let held = async |delivery: Delivery, since: Duration| {
        let id = world.abandoned_as(delivery, since - Duration::from_secs(12)).await;
        world.set(&id, "leaseUntil", Some(N(now.after(MINUTE).as_millis().to_string()))).await;
    };
    held(delivery("evt_1"), 2 * MINUTE).await;
    let (alerts, stream) = ages(&world.run(now).await.unwrap());
    assert!((110..=120).contains(&alerts) && stream.is_none(), "{alerts} {stream:?}");
    held(change("evt_2"), 60 * MINUTE).await;
    held(change("evt_3"), 5 * MINUTE).await;
    let (alerts, stream) = ages(&world.run(now).await.unwrap());
    assert!((110..=120).contains(&alerts), "a delivery to the stream should not affect the age of alerts: {alerts}");
    assert!((3590..=3600).contains(&stream.unwrap()), "{stream:?}");
}

#[test]
fn the_last_part_of_a_key_marks_a_stream_delivery() {
    for (key, is_for_stream) in [
        ("ws#evt#status", true),
        ("ws#evt#more#status", true),
        ("ws#evt#alert", false),
        ("ws#status#alert", false),
        ("ws#evt#alert#more", false),
        ("ws#evt#alert-status", false),
        ("", false),
    ] {
        assert_eq!(DeliveryId::from_stored(key.into()).is_for_stream(), is_for_stream, "{key}");
    }
    for part in ["status", "#status", "alert", "x#status", ""] {
        assert!(DeliveryId::status(Some(part), part).is_for_stream(), "{part}");
        assert!(!DeliveryId::alert(Some(part), part).is_for_stream(), "{part}");
    }
}

/// A ledger that lists deliveries to the stream and then one alert, with a topic that accepts only
/// alerts.
struct Backlog {
    stream: usize,
}

impl Ledger for &Backlog {
    async fn claim(&self, wanted: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        let id = wanted.id().clone();
        let Delivery { message, .. } = if id.is_for_stream() { change("evt") } else { delivery("evt") };
        let claim = Ok(Claim::new(id, message, Locks::default(), attempt.owner));
        Ok(ClaimResult { claim, attempts: None })
    }

    async fn lock(&self, _: &DeliveryId, _: &Lock) -> Result<MayPublish, LedgerError> {
        Ok(MayPublish::Yes)
    }

    async fn take_slot(&self, _: &Claim, _: Slot) -> Result<bool, LedgerError> {
        Ok(true)
    }

    async fn complete(&self, _: &Claim, _: &Receipt) -> Result<(), FinishError> {
        Ok(())
    }

    async fn debounce(&self, _: &Claim, _: &DeliveryId, _: Timestamp) -> Result<(), FinishError> {
        Ok(())
    }

    async fn discard(&self, _: &Claim, _: &str, _: Timestamp) -> Result<(), FinishError> {
        Ok(())
    }

    async fn release(&self, _: &Claim, _: Timestamp, _: &str) -> Result<(), FinishError> {
        Ok(())
    }

    async fn remember(&self, _: &ReplyKey, _: &LastReply, _: Timestamp) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn last_reply(&self, _: &ReplyKey, _: Timestamp) -> Result<Option<LastReply>, LedgerError> {
        Ok(None)
    }

    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        let ids = (0..self.stream).map(|number| DeliveryId::status(None, &number.to_string()));
        let at = Timestamp::from_millis(0);
        let row = move |id| Ok(Pending { id, lease_until: at, first_seen_at: at, attempts: 1 });
        stream::iter(ids.chain([DeliveryId::alert(None, "evt")]).map(row))
    }
}

impl Topic for &Backlog {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        match message {
            Message::Alert { .. } => Ok("message-1".into()),
            Message::Status { .. } => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_stream_messages_delay_no_alert() {
    let backlog = Backlog { stream: 50_001 };
    let redrive = Redrive { relay: relay(&backlog, &backlog), telemetry: telemetry() };
    let now = now();
    let report =
        redrive.run(&Invocation::new("redrive", now.after(TIMEOUT), now, [0; 8]), Urgency::Patient).await.unwrap();
    assert_eq!((report.counts.scanned, report.counts.published, report.counts.still_pending), (50_002, 1, 50_001));
    assert_eq!(report.oldest_pending_age_seconds, 0);
}

#[tokio::test]
async fn a_row_without_a_message_stops_no_other() {
    let world = World::new().await;
    let bad = world.abandoned("evt_1", 2 * MINUTE).await;
    world.abandoned("evt_2", MINUTE).await;
    world.set(&bad, "message", Some(S("lost".into()))).await;
    world.set(&bad, "firstSeenAt", None).await;
    let report = world.run(now()).await.unwrap();
    assert_eq!((report.counts.scanned, report.counts.published, report.counts.still_pending), (2, 1, 1));
    assert_eq!(world.aws.alerts(), ["evt_2"]);
    let row = world.row_of(&bad).await;
    assert_eq!(row["lastError"], S("the row's attribute message is missing or of a wrong type".into()));
    assert_eq!((&row["state"], &row["attempts"]), (&S("PENDING".into()), &N("2".into())));
}

#[tokio::test]
async fn publishes_listed_deliveries_and_reports_an_incomplete_listing() {
    let world = World::new().await;
    for number in 0..40 {
        world.abandoned(&format!("evt_{number}"), MINUTE).await;
    }
    let mut redrive = world.process().await;
    for _ in 0..opportunity_alerts::aws::ATTEMPTS {
        world.aws.next("list", Fault::Refused(400));
    }
    let Said::Error(error) = redrive.invoke(&json!({})).await else { panic!("expected an error") };
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.starts_with("the list of pending deliveries is incomplete: the ledger could not list"), "{error}");
    let published = world.aws.alerts().len();
    assert!((1..40).contains(&published), "{published}");
    let rest = report(redrive.invoke(&json!({})).await);
    assert_eq!(rest["published"].as_u64().unwrap() as usize, 40 - published);
    assert_eq!(world.aws.alerts().len(), 40);
    let log = redrive.log().await;
    assert!(log.contains("the ledger could not list") && !log.contains("SdkBody"), "{log}");
}

#[tokio::test]
async fn reports_published_but_unrecorded_as_both() {
    let world = World::new().await;
    world.abandoned("evt_1", MINUTE).await;
    // The completion fails until its deadline.
    (0..99).for_each(|_| world.aws.next("complete", Fault::Refused(500)));
    let mut redrive = Lambda::start_redrive(&world.aws, Duration::from_secs(4)).await;
    let report = report(redrive.invoke(&json!({})).await);
    assert_eq!((&report["scanned"], &report["published"], &report["stillPending"]), (&json!(1), &json!(1), &json!(1)));
    assert!(report["oldestPendingAgeSeconds"].as_u64().unwrap() >= 60);
}

#[tokio::test]
async fn a_slow_table_leaves_nothing_pending() {
    let slow = |call: &Call, _| {
        let writes = !matches!(call.operation.as_str(), "publish" | "list");
        writes.then_some(Fault::Delayed(Duration::from_millis(1300)))
    };
    let world = World::with_fate(slow).await;
    world.abandoned("evt_1", MINUTE).await;
    let mut redrive = world.process().await;
    assert_eq!(redrive.invoke(&json!({})).await, Said::Response(all_published(1)));
    assert_eq!(world.aws.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn a_lost_answer_to_a_takeover_costs_nothing() {
    let world = World::new().await;
    world.abandoned("evt_1", MINUTE).await;
    let mut redrive = world.process().await;
    world.aws.next("takeover", Fault::AnswerLost);
    assert_eq!(redrive.invoke(&json!({})).await, Said::Response(all_published(1)));
    assert_eq!(world.aws.calls().iter().filter(|call| *call == "takeover").count(), 2);
    assert_eq!(world.aws.alerts(), ["evt_1"]);
}

/// DynamoDB ends a page after 1 MB, even if it has only a few rows.
#[tokio::test]
async fn reads_every_page_of_the_listing() {
    let world = World::new().await;
    for number in 0..10 {
        let id = world.abandoned(&format!("evt_{number}"), MINUTE).await;
        world.set(&id, "pending", Some(S("3".into()))).await;
        world.set(&id, "lastError", Some(S("x".repeat(300_000)))).await;
    }
    assert_eq!(world.process().await.invoke(&json!({})).await, Said::Response(all_published(10)));
    let lists = world.aws.calls().iter().filter(|call| *call == "list").count();
    assert!(lists > usize::from(PENDING_SHARDS) + 1, "{lists}");
}
