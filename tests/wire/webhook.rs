//! The webhook binary under a Lambda Runtime API, with a real DynamoDB engine and a stub SNS behind
//! a proxy that injects faults: its answers, its rows, and its publishes.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::aws::{Aws, Call, Fault};
use crate::support::dynamodb::Item;
use crate::support::lambda::{Lambda, Said, environment};
use crate::support::requests::{SECRET, change, event, opportunity, opportunity_of, payload, said, signed_now};
use crate::support::world::World;
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::message::key::DeliveryId;
use serde_json::{Value, json};

/// The function's time limit. It is short, because tests wait for the leases of killed functions.
const TIMEOUT: Duration = Duration::from_secs(3);

impl World {
    async fn function(&self) -> Lambda {
        Lambda::start(environment(&self.aws), TIMEOUT).await
    }

    async fn row(&self) -> Item {
        self.dynamodb.row(&DeliveryId::alert(Some("ws_abc123xyz"), "evt_1")).await.unwrap()
    }

    async fn state(&self) -> String {
        self.row().await["state"].as_s().unwrap().clone()
    }

    fn alerts(&self) -> Vec<String> {
        self.aws.alerts()
    }

    /// Sends the function an event, and kills the function while the call is held.
    async fn kill_at(&self, call: &str, fault: Fault) {
        let mut function = self.function().await;
        self.aws.next(call, fault);
        function.begin(&signed_now(&opportunity("evt_1"))).await;
        self.aws.held().await;
        function.kill().await;
    }

    async fn lease_over(&self) {
        tokio::time::sleep(TIMEOUT + LEASE_MARGIN).await;
    }
}

#[tokio::test]
async fn an_alert_costs_three_calls_and_a_duplicate_one() {
    let world = World::new().await;
    let mut function = world.function().await;
    assert_eq!(function.answer(&signed_now(&change("evt_1", "REPLY_RECEIVED"))).await, (200, said("ignored")));
    assert_eq!(world.aws.calls(), [""; 0]);
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.aws.calls(), ["claim", "publish", "complete"]);
    assert_eq!(function.answer(&event()).await, (200, said("duplicate")));
    assert_eq!(world.aws.calls(), ["claim", "publish", "complete", "claim"]);
    assert_eq!(world.alerts(), ["evt_1"]);
    assert_eq!(world.state().await, "PUBLISHED");
}

#[tokio::test]
async fn publishes_the_message_in_the_row() {
    let world = World::new().await;
    world.function().await.answer(&event()).await;
    let publish = &world.aws.published()[0];
    assert_eq!(publish["TopicArn"], crate::support::lambda::TOPIC);
    assert!(!publish.keys().any(|key| key.starts_with("MessageAttributes")), "SNS would drop message attributes");
    for (parameter, value) in world.row().await["message"].as_m().unwrap() {
        assert_eq!(&publish[parameter], value.as_s().unwrap(), "{parameter}");
    }
}

#[tokio::test]
async fn killed_before_publish_alerts_exactly_once() {
    let world = World::new().await;
    world.kill_at("publish", Fault::HeldBefore).await;
    let mut function = world.function().await;
    let (status, problem) = function.answer(&event()).await;
    assert_eq!((status, &problem["outcome"], world.state().await.as_str()), (409, &json!("in_progress"), "PENDING"));
    world.lease_over().await;
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn killed_after_publish_alerts_again_under_the_same_id() {
    let world = World::new().await;
    world.kill_at("complete", Fault::HeldBefore).await;
    assert_eq!(world.state().await, "PENDING");
    world.lease_over().await;
    assert_eq!(world.function().await.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1", "evt_1"]);
    assert_eq!(world.aws.published()[0]["Message"], world.aws.published()[1]["Message"]);
}

#[tokio::test]
async fn killed_after_completion_does_not_alert_again() {
    let world = World::new().await;
    world.kill_at("complete", Fault::HeldAfter).await;
    assert_eq!(world.function().await.answer(&event()).await, (200, said("duplicate")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn without_the_topic_answers_503_and_the_retry_alerts() {
    let world = World::new().await;
    // Nothing listens on this port.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut function =
        Lambda::start_with(&world.aws, vec![("AWS_ENDPOINT_URL_SNS", format!("http://{unused}"))], TIMEOUT).await;
    let Said::Response(response) = function.invoke(&event()).await else { panic!("expected an answer") };
    assert_eq!((&response["statusCode"], &response["headers"]["retry-after"]), (&json!(503), &json!("5")));
    let row = world.row().await;
    assert_eq!(world.state().await, "PENDING");
    assert!(row["lastError"].as_s().unwrap().contains("the topic did not accept the message"), "{row:?}");
    let (lease, seen): (u64, u64) =
        (row["leaseUntil"].as_n().unwrap().parse().unwrap(), row["firstSeenAt"].as_n().unwrap().parse().unwrap());
    assert!(lease < seen + 3000, "the claim should be released");
    assert_eq!(world.function().await.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
    assert_eq!(world.row().await["attempts"].as_n().unwrap(), "2");
}

#[tokio::test]
async fn without_the_table_answers_503_and_the_retry_alerts() {
    let world = World::new().await;
    let mut function = world.function().await;
    for _ in 0..opportunity_alerts::aws::ATTEMPTS {
        world.aws.next("claim", Fault::Refused(500));
    }
    assert_eq!(function.answer(&event()).await.0, 503);
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn retries_a_table_that_does_not_answer() {
    for call in ["claim", "complete"] {
        let world = World::new().await;
        let mut function = Lambda::start(environment(&world.aws), Duration::from_secs(10)).await;
        world.aws.next(call, Fault::HeldAfter);
        assert_eq!(function.answer(&event()).await, (200, said("alerted")), "{call}");
        assert_eq!((world.alerts().len(), world.state().await.as_str()), (1, "PUBLISHED"), "{call}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_claim_or_a_completion_costs_nothing() {
    for call in ["claim", "complete"] {
        let world = World::new().await;
        let mut function = world.function().await;
        world.aws.next(call, Fault::AnswerLost);
        assert_eq!(function.answer(&event()).await, (200, said("alerted")), "{call}");
        assert_eq!((world.alerts().len(), world.state().await.as_str()), (1, "PUBLISHED"), "{call}");
    }
}

/// The throttling outlasts the SDK's own tries, which end within 0.2 seconds.
#[tokio::test]
async fn retries_a_throttled_completion_without_a_second_alert() {
    for throttled in [Duration::from_millis(150), Duration::from_millis(600), Duration::from_secs(2)] {
        let since = OnceLock::new();
        let world = World::with_fate(move |call, _| {
            let completes = matches!(call.operation.as_str(), "complete" | "debounce" | "release");
            let throttles = completes && since.get_or_init(Instant::now).elapsed() < throttled;
            throttles.then_some(Fault::Throttled)
        })
        .await;
        let mut function = Lambda::start(environment(&world.aws), Duration::from_secs(10)).await;
        assert_eq!(function.answer(&event()).await, (200, said("alerted")), "{throttled:?}");
        assert_eq!((world.alerts().len(), world.state().await.as_str()), (1, "PUBLISHED"), "{throttled:?}");
    }
}

/// Each answer takes longer than the time after which the function sends a request again.
#[tokio::test]
async fn a_slow_table_stops_no_alert() {
    let slow = |call: &Call, _| (call.operation != "publish").then_some(Fault::Delayed(Duration::from_millis(1300)));
    for environment_of in [environment, |aws: &Aws| [environment(aws), vec![("DEBOUNCE_MINUTES", "5".into())]].concat()]
    {
        let world = World::with_fate(slow).await;
        let mut function = Lambda::start(environment_of(&world.aws), Duration::from_secs(10)).await;
        assert_eq!(function.answer(&event()).await, (200, said("alerted")));
        assert_eq!((world.alerts().len(), world.state().await.as_str()), (1, "PUBLISHED"));
    }
}

/// SendPilot's retries have a new time. They may also have a counter, another order of fields, or
/// other spacing.
#[tokio::test]
async fn a_retry_with_other_bytes_and_time_is_a_duplicate() {
    let world = World::new().await;
    let mut function = world.function().await;
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    let mut again: Value = serde_json::from_str(&opportunity("evt_1")).unwrap();
    again["timestamp"] = "2024-02-24T10:31:00.000Z".into();
    again["retry"] = 1.into();
    again["data"]["linkedinUrl"] = "in/john-doe".into();
    again["data"]["newStatus"] = "opportunity ".into();
    for body in [format!("{again:#}"), again.to_string()] {
        assert_eq!(function.answer(&signed_now(&body)).await, (200, said("duplicate")));
    }
    assert_eq!(world.alerts(), ["evt_1"]);
    assert!(!function.log().await.contains("bodyMismatch"));
}

/// Some senders use the same id, such as "undefined", for every event.
#[tokio::test]
async fn two_leads_under_one_event_id_are_both_alerted_once() {
    let world = World::new().await;
    let mut function = world.function().await;
    let [one, two] = ["lead_1", "lead_2"].map(|lead| signed_now(&opportunity_of("evt_1", lead)));
    // The first fact is claimed, and SNS refuses its message. The row must keep the message.
    world.aws.next("publish", Fault::Refused(403));
    assert_eq!(function.answer(&one).await.0, 503);
    assert_eq!(function.answer(&two).await, (200, said("alerted")));
    assert_eq!(function.answer(&one).await, (200, said("alerted")));
    for again in [&one, &two] {
        assert_eq!(function.answer(again).await, (200, said("duplicate")));
    }
    let published: Vec<_> = world.aws.published().iter().map(|publish| read(&publish["Message"])).collect();
    let [(first, first_lead), (second, second_lead)] = &published[..] else { panic!("{published:?}") };
    assert_eq!((first_lead.as_str(), second_lead.as_str()), ("lead_2", "lead_1"));
    assert!(first.starts_with("evt_1~") && first.len() == "evt_1~".len() + 16, "{first}");
    assert_eq!(second, "evt_1");
    let row = world.dynamodb.row(&DeliveryId::alert(Some("ws_abc123xyz"), first)).await.unwrap();
    assert_eq!(row["state"].as_s().unwrap(), "PUBLISHED");
}

/// A sender can use an id that looks like our own ids.
#[tokio::test]
async fn a_colliding_event_id_loses_no_lead() {
    let world = World::new().await;
    let mut function = world.function().await;
    let mut alerted = async |event_id: &str, lead: &str| {
        let answer = function.answer(&signed_now(&opportunity_of(event_id, lead))).await;
        assert_eq!((answer.0, &answer.1["outcome"]), (200, &json!("alerted")), "{event_id} {lead}");
        read(&world.aws.published().last().unwrap()["Message"])
    };
    alerted("evt_1", "lead_1").await;
    let own = alerted("evt_1", "lead_2").await.0;
    // Now the id that we would make for another event is already in use.
    let taken = own.replace("evt_1", "evt_2");
    for (event_id, lead) in [(&*taken, "lead_3"), ("evt_2", "lead_1"), ("evt_2", "lead_2")] {
        assert_eq!(alerted(event_id, lead).await.1, lead, "{event_id}");
    }
    assert_eq!(world.alerts().len(), 5);
    let again = function.answer(&signed_now(&opportunity_of("evt_2", "lead_2"))).await;
    assert_eq!((again.0, &again.1["outcome"]), (200, &json!("duplicate")));
}

/// Returns the event id and the lead in an alert's message for programs.
fn read(message: &str) -> (String, String) {
    let bodies: Value = serde_json::from_str(message).unwrap();
    let event: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&event["id"]), text(&event["data"]["leadId"]))
}

#[tokio::test]
async fn concurrent_events_under_one_id_lose_no_lead() {
    let world = World::new().await;
    let mut functions = Vec::new();
    for _ in 0..6 {
        functions.push(world.function().await);
    }
    for _ in 0..3 {
        let together = functions.iter_mut().zip(0..).map(|(function, number)| async move {
            let event = signed_now(&opportunity_of("undefined", &format!("lead_{}", number % 3)));
            function.answer(&event).await.0
        });
        let answers = futures_util::future::join_all(together).await;
        assert!(answers.iter().all(|status| matches!(status, 200 | 409)), "{answers:?}");
    }
    let mut published: Vec<_> = world.aws.published().iter().map(|publish| read(&publish["Message"]).1).collect();
    published.sort();
    assert_eq!(published, ["lead_0", "lead_1", "lead_2"]);
}

/// Between two attempts, the pipeline changes, and SendPilot uses another letter case.
#[tokio::test]
async fn every_publish_of_a_delivery_is_identical() {
    let world = World::new().await;
    world.aws.next("publish", Fault::Denied(500));
    assert_eq!(world.function().await.answer(&event()).await.0, 503);
    let mut environment = environment(&world.aws);
    environment.push(("STATUS_PIPELINE", "OPPORTUNITY=sql".into()));
    let mut changed: Value = serde_json::from_str(&opportunity("evt_1")).unwrap();
    changed["timestamp"] = "2025-01-01T00:00:00.000Z".into();
    let answer = Lambda::start(environment, TIMEOUT).await.answer(&signed_now(&changed.to_string())).await;
    assert_eq!(answer, (200, said("alerted")));
    let published = world.aws.published();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0], published[1]);
}

/// This is the only case in which an alert may be published twice.
#[tokio::test]
async fn a_lost_publish_answer_alerts_again_under_the_same_id() {
    let world = World::new().await;
    let mut function = world.function().await;
    world.aws.next("publish", Fault::AnswerLost);
    assert_eq!(function.answer(&event()).await.0, 503);
    assert_eq!(
        (world.alerts().len(), world.state().await.as_str()),
        (1, "PENDING"),
        "a publish with an unknown result should not be retried"
    );
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!((world.alerts(), world.state().await.as_str()), (vec!["evt_1".into(), "evt_1".into()], "PUBLISHED"));
}

#[tokio::test]
async fn does_not_retry_a_publish_with_an_unknown_result() {
    let world = World::new().await;
    world.aws.next("publish", Fault::Refused(500));
    assert_eq!(world.function().await.answer(&event()).await.0, 503);
    assert_eq!(world.aws.calls(), ["claim", "publish", "release"]);
}

#[tokio::test]
async fn retries_a_publish_that_sns_rejected() {
    let world = World::new().await;
    world.aws.next("publish", Fault::Refused(503));
    assert_eq!(world.function().await.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn waits_for_a_slow_topic_and_publishes_once() {
    let world = World::new().await;
    let mut function = Lambda::start(environment(&world.aws), Duration::from_secs(10)).await;
    world.aws.next("publish", Fault::Delayed(Duration::from_secs(5)));
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.aws.calls(), ["claim", "publish", "complete"]);
}

#[tokio::test]
async fn gives_up_a_hanging_topic_in_time() {
    let world = World::new().await;
    let mut function = world.function().await;
    world.aws.next("publish", Fault::HeldBefore);
    let begun = std::time::Instant::now();
    assert_eq!(function.answer(&event()).await.0, 503);
    assert!(begun.elapsed() < TIMEOUT, "it should end before Lambda kills the process");
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn killed_at_release_alerts_once_after_the_lease() {
    let world = World::new().await;
    world.aws.next("publish", Fault::Refused(403));
    world.kill_at("release", Fault::HeldBefore).await;
    let mut function = world.function().await;
    assert_eq!(function.answer(&event()).await.0, 409);
    world.lease_over().await;
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.alerts(), ["evt_1"]);
}

#[tokio::test]
async fn fifty_duplicates_over_eight_processes_alert_once() {
    let world = World::new().await;
    let mut answers = Vec::new();
    let mut functions = Vec::new();
    for _ in 0..8 {
        functions.push(world.function().await);
    }
    for _ in 0..7 {
        let together = functions.iter_mut().map(|function| async { function.answer(&event()).await.0 });
        answers.extend(futures_util::future::join_all(together).await);
    }
    assert_eq!(world.alerts(), ["evt_1"]);
    assert!(answers.iter().all(|status| matches!(status, 200 | 409)), "{answers:?}");
}

#[tokio::test]
async fn a_foreign_payload_does_not_end_the_process() {
    let world = World::new().await;
    let mut function = world.function().await;
    for garbage in
        [json!(null), json!([]), json!({}), json!("x"), json!({"requestContext": 7}), json!({"headers": "x"})]
    {
        assert!(matches!(function.invoke(&garbage).await, Said::Error(_)), "{garbage}");
    }
    let mut broken = payload("unsigned");
    broken["isBase64Encoded"] = true.into();
    assert_eq!(function.answer(&broken).await.0, 401);
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
}

#[tokio::test]
async fn logs_what_an_operator_needs_and_nothing_personal() {
    let world = World::new().await;
    // At this level, the SDK and the runtime would log whole bodies.
    let mut function = Lambda::start_with(&world.aws, vec![("AWS_LAMBDA_LOG_LEVEL", "TRACE".into())], TIMEOUT).await;
    let lone = r#"{"headers":{"x":"\ud83d linkedin"},"rawPath":7}"#;
    let other = opportunity_of("evt_1", "lead_2");
    let mut request_ids = Vec::new();
    for (sent, fault) in [
        (event(), None),
        (payload("forged"), None),
        (signed_now(&other), None),
        (signed_now(&opportunity("evt_2")), Some(Fault::Refused(403))),
    ] {
        fault.into_iter().for_each(|fault| world.aws.next("publish", fault));
        function.answer(&sent).await;
        request_ids.push(json!(function.request_id));
    }
    function.invoke_raw(lone).await;
    let log = function.log().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [alerted, forged, other, failed, ..] = &lines[..] else { panic!("{log}") };
    let timestamp = alerted["timestamp"].as_str().unwrap();
    time::OffsetDateTime::parse(timestamp, &time::format_description::well_known::Rfc3339).unwrap();
    for ((line, level, event_id, outcome, status), request_id) in [
        (alerted, "INFO", json!("evt_1"), "alerted", 200),
        (forged, "WARN", json!(null), "unauthorized", 401),
        (other, "WARN", json!("evt_1"), "alerted", 200),
        (failed, "ERROR", json!("evt_2"), "unavailable", 503),
    ]
    .into_iter()
    .zip(request_ids)
    {
        assert_eq!(
            (&line["requestId"], &line["eventId"], &line["level"]),
            (&request_id, &event_id, &json!(level)),
            "{line}"
        );
        assert_eq!((&line["outcome"], &line["status"]), (&json!(outcome), &json!(status)), "{line}");
    }
    assert_eq!(forged["reason"], "mismatch");
    assert_eq!(other["bodyMismatch"], "the same event id came with other content");
    assert!(
        failed["failure"].as_str().unwrap().starts_with("publish failed: the topic did not accept the message"),
        "{failed}"
    );
    for hidden in ["linkedin", "john-doe", "lead_abc123", "lead_2", SECRET, &SECRET[6..]] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

#[tokio::test]
async fn without_a_variable_does_not_start_and_names_it() {
    let world = World::new().await;
    for (variable, value, complaint) in [
        ("WEBHOOK_SECRET", "", "neither WEBHOOK_SECRET_ID nor WEBHOOK_SECRET is set"),
        ("WEBHOOK_SECRET_ID", "webhook", "both WEBHOOK_SECRET_ID and WEBHOOK_SECRET are set"),
        ("WEBHOOK_SECRET", "whsec_", "WEBHOOK_SECRET secret number 1 starts with whsec_"),
        ("WEBHOOK_SECRET", "changeme", "WEBHOOK_SECRET secret number 1 is too short"),
        ("WEBHOOK_SECRET", "\u{feff}changeme", "WEBHOOK_SECRET secret number 1 holds a byte order mark"),
        (
            "WEBHOOK_SECRET",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD # old",
            "WEBHOOK_SECRET secret number 2 does not start with whsec_",
        ),
        ("ALERTS_TABLE_NAME", "", "ALERTS_TABLE_NAME is not set"),
        ("AWS_REGION", "", "AWS_REGION is not set"),
        ("AWS_ACCESS_KEY_ID", "", "AWS_ACCESS_KEY_ID is not set"),
        ("AWS_SECRET_ACCESS_KEY", "", "AWS_SECRET_ACCESS_KEY is not set"),
        ("ALERTS_TOPIC_ARN", "alerts", "ALERTS_TOPIC_ARN must be"),
        ("ALERTS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:alerts.fifo", "ALERTS_TOPIC_ARN must be"),
        ("RETENTION_DAYS", "1", "RETENTION_DAYS must be a whole number from 2 to 3650"),
        ("DETAILED_METRICS", "true", "DETAILED_METRICS must be yes or no"),
        ("REMEMBER_REPLIES", "maybe", "REMEMBER_REPLIES must be yes or no"),
        ("SENDPILOT_API_URL", "http://api.sendpilot.example", "SENDPILOT_API_URL must be an https address"),
        ("SENDPILOT_API_KEY", "sp live", "SENDPILOT_API_KEY holds more than one word"),
    ] {
        let (status, log) = Lambda::start_with(&world.aws, vec![(variable, value.into())], TIMEOUT).await.ended().await;
        assert_eq!(status, Some(1), "{variable}={value}");
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert!(line["error"].as_str().unwrap().contains(complaint), "{log}");
    }
}
