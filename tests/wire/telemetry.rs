//! The log line of each invocation of the real binaries: its fields, the metrics that CloudWatch
//! reads from it, and the data that it must never contain.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, set_hook, take_hook};
use std::time::{Duration, Instant, SystemTime};

use crate::support::aws::Fault;
use crate::support::emf::{self, Metrics};
use crate::support::guide;
use crate::support::lambda::{Lambda, Said, TOPIC, deployed_environment, environment};
use crate::support::receiver::Receiver;
use crate::support::requests::{
    SECRET, around, change, claim_of, opportunity, opportunity_delivery, opportunity_of, payload, signed_now,
    signed_now_with,
};
use crate::support::template::{resource, saved_queries};
use crate::support::world::World;
use futures_util::FutureExt;
use futures_util::future::join_all;
use opportunity_alerts::aws::ATTEMPTS;
use opportunity_alerts::delivery::ledger::{ClaimRequest, Ledger};
use opportunity_alerts::delivery::pace::AlertRate;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::Delivery;
use opportunity_alerts::message::key::DeliveryId;
use opportunity_alerts::redrive::{ALERT_WORKERS, MAX_TIMEOUTS};
use opportunity_alerts::telemetry::{Metric, Telemetry};
use opportunity_alerts::timestamp::Timestamp;
use sendpilot_events::STATUSES;
use serde_json::{Value, json};
use testkit::lambda::SECRET_ARN;
use testkit::sendpilot::OTHER;

const TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    async fn webhook(&self) -> Lambda {
        Lambda::start(environment(&self.aws), TIMEOUT).await
    }

    /// A delivery that an attempt holds until then.
    async fn claimed(&self, id: DeliveryId, lease_until: Timestamp) {
        let attempt = Attempt { owner: Owner::new("other", [0; 8]), now: Timestamp::from_millis(0), lease_until };
        let wanted = ClaimRequest::Delivery(Delivery { id, ..opportunity_delivery("evt") });
        let claimed = self.dynamodb.ledger().claim(wanted, attempt).await.unwrap();
        assert!(claimed.claim.is_ok());
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn id(event: &str) -> DeliveryId {
    DeliveryId::alert(Some("ws_abc123xyz"), event)
}

/// An opportunity since that moment.
fn since(event: &str, moment: Timestamp) -> Value {
    let mut body: Value = serde_json::from_str(&opportunity(event)).unwrap();
    body["timestamp"] = moment.rfc3339().into();
    signed_now(&body.to_string())
}

/// The lines of that name, and their metrics.
fn lines(log: &str, name: &str) -> Vec<(Value, Metrics)> {
    let lines = log.lines().map(emf::read);
    lines.filter(|(line, _)| line["message"] == name).collect()
}

fn names(metrics: &Metrics) -> Vec<&str> {
    metrics.keys().map(String::as_str).collect()
}

/// Returns the names of metrics, without their units and the values of dimensions.
fn bare(metrics: &Metrics) -> impl Iterator<Item = String> {
    metrics.keys().map(|name| name.split(' ').next().unwrap().to_owned())
}

/// The log line that one request must leave.
struct Expected {
    level: &'static str,
    status: u16,
    outcome: &'static str,
    /// The metrics, without the detailed ones.
    metrics: &'static [&'static str],
    /// The detailed metrics.
    detailed: &'static [&'static str],
    /// The times of the steps that were begun, and the time to alert.
    times: &'static [&'static str],
}

const fn expected(level: &'static str, status: u16, outcome: &'static str) -> Expected {
    Expected { level, status, outcome, metrics: &[], detailed: &[], times: &[] }
}

/// Handles every outcome of the webhook function once or more. Returns the log lines.
async fn every_outcome(detailed: bool) -> Vec<(Expected, Value, Metrics)> {
    const CHANGE: &[&str] = &["StatusChanges Count NewStatus=OPPORTUNITY"];
    const UNEXPECTED: &[&str] = &["UnexpectedEvent Count"];
    const REJECTED: &[&str] = &["GenuineRejected Count"];
    const CLAIM: &[&str] = &["ClaimTime"];
    const ALL_STEPS: &[&str] = &["ClaimTime", "CompleteTime", "PublishTime"];
    let world = World::new().await;
    let choice = if detailed { "yes" } else { "no" };
    let mut function = Lambda::start_with(&world.aws, vec![("DETAILED_METRICS", choice.into())], TIMEOUT).await;
    let mut all = Vec::new();

    let mut elsewhere = payload("unsigned");
    elsewhere["rawPath"] = "/".into();
    let mut get = payload("unsigned");
    get["requestContext"]["http"]["method"] = "GET".into();
    let mut garbled = signed_now(&opportunity("evt_1"));
    garbled["headers"]["svix-signature"] = "v2".into();
    let message_sent = json!({"eventId": "evt_5", "eventType": "message.sent"}).to_string();
    let mut renamed: Value = serde_json::from_str(&change("evt_6", "done")).unwrap();
    renamed["eventType"] = "lead.status.renamed".into();
    world.claimed(id("evt_held"), now().after(TIMEOUT * 6)).await;

    for (payload, expected) in [
        (
            signed_now(&change("evt_0", "DONE")),
            Expected { detailed: &["StatusChanges Count NewStatus=DONE"], ..expected("INFO", 200, "ignored") },
        ),
        (
            since("evt_1", now()),
            Expected {
                detailed: &["StatusChanges Count NewStatus=OPPORTUNITY", "TimeToAlert Milliseconds"],
                times: &["ClaimTime", "CompleteTime", "PublishTime", "TimeToAlert"],
                ..expected("INFO", 200, "alerted")
            },
        ),
        (
            signed_now(&opportunity_of("evt_1", "lead_2")),
            Expected { metrics: UNEXPECTED, detailed: CHANGE, times: ALL_STEPS, ..expected("WARN", 200, "alerted") },
        ),
        (
            signed_now(&opportunity("evt_held")),
            Expected { detailed: CHANGE, times: CLAIM, ..expected("WARN", 409, "in_progress") },
        ),
        (
            signed_now(&opportunity("evt_refused")),
            Expected {
                detailed: CHANGE,
                times: &["ClaimTime", "PublishTime"],
                ..expected("ERROR", 503, "unavailable")
            },
        ),
        // Its `timestamp` is of 2024, so it is a sample without a time to alert.
        (
            signed_now(&opportunity("evt_refused")),
            Expected { detailed: CHANGE, times: ALL_STEPS, ..expected("INFO", 200, "alerted") },
        ),
        (signed_now(&message_sent), expected("INFO", 200, "ignored")),
        (
            signed_now("[]"),
            Expected {
                metrics: REJECTED,
                detailed: &["Rejected Count Reason=body"],
                ..expected("WARN", 400, "malformed")
            },
        ),
        (
            payload("unsigned"),
            Expected { detailed: &["Rejected Count Reason=missing"], ..expected("WARN", 401, "unauthorized") },
        ),
        (garbled, Expected { detailed: &["Rejected Count Reason=malformed"], ..expected("WARN", 401, "unauthorized") }),
        (
            payload("forged"),
            Expected {
                metrics: &["SignatureMismatch Count"],
                detailed: &["Rejected Count Reason=mismatch"],
                ..expected("WARN", 401, "unauthorized")
            },
        ),
        (
            payload("opportunity"),
            Expected {
                metrics: REJECTED,
                detailed: &["Rejected Count Reason=stale"],
                ..expected("WARN", 401, "unauthorized")
            },
        ),
        (elsewhere, Expected { detailed: &["Rejected Count Reason=route"], ..expected("WARN", 404, "not_found") }),
        (get, Expected { detailed: &["Rejected Count Reason=route"], ..expected("WARN", 405, "method_not_allowed") }),
        (
            around(&"x".repeat(256 * 1024 + 1), &[]),
            Expected { detailed: &["Rejected Count Reason=too_large"], ..expected("WARN", 413, "too_large") },
        ),
        (
            signed_now(&opportunity("evt_refused")),
            Expected { detailed: CHANGE, times: CLAIM, ..expected("INFO", 200, "duplicate") },
        ),
        (
            signed_now(&renamed.to_string()),
            Expected {
                metrics: UNEXPECTED,
                detailed: &["StatusChanges Count NewStatus=DONE"],
                ..expected("WARN", 200, "ignored")
            },
        ),
    ] {
        if expected.outcome == "unavailable" {
            world.aws.next("publish", Fault::Refused(403));
        }
        let (status, answer) = function.answer(&payload).await;
        assert_eq!((status, &answer["outcome"]), (expected.status.into(), &json!(expected.outcome)));
        all.push((expected, function.request_id.clone()));
    }
    let log = function.log().await;
    let lines = lines(&log, "webhook");
    assert_eq!(lines.len(), all.len(), "{log}");
    let whose = |((expected, request_id), (line, metrics)): ((_, String), (Value, _))| {
        assert_eq!(line["requestId"], json!(request_id), "{line}");
        (expected, line, metrics)
    };
    all.into_iter().zip(lines).map(whose).collect()
}

#[tokio::test]
async fn logs_every_outcome_with_its_metrics() {
    for (number, (expected, line, metrics)) in every_outcome(false).await.into_iter().enumerate() {
        assert_eq!(line["coldStart"], json!(number == 0), "{line}");
        assert_eq!(names(&metrics), expected.metrics, "{line}");
        assert!(metrics.values().all(|value| (1.0..1.5).contains(value)), "{line}");
        // A line without metrics has no member that only metrics need.
        for member in ["_aws", "FunctionName"] {
            assert_eq!(line[member].is_null(), metrics.is_empty(), "{line}");
        }
        let times: Vec<_> = line.as_object().unwrap().iter().filter(|(name, _)| name.contains("Time")).collect();
        let mut timed: Vec<_> =
            times.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "PaceTime").collect();
        timed.sort_unstable();
        assert_eq!(timed, expected.times, "{line}");
        assert!(times.iter().all(|(_, time)| time.as_u64().is_some_and(|time| time < 10_000)), "{line}");
        let timestamp = line["timestamp"].as_str().unwrap();
        time::OffsetDateTime::parse(timestamp, &time::format_description::well_known::Rfc3339).unwrap();
        for (field, value) in
            [("level", json!(expected.level)), ("outcome", json!(expected.outcome)), ("status", json!(expected.status))]
        {
            assert_eq!(line[field], value, "{line}");
        }
        assert!(line["durationMs"].as_u64().unwrap() < 10_000, "{line}");
        let reason = expected.detailed.iter().find_map(|name| name.split_once("Reason="));
        assert_eq!(line["reason"].as_str(), reason.map(|(_, reason)| reason), "{line}");
        // A line has no data of an event before its signature is verified.
        let of_the_event = ["eventId", "eventType", "previousStatus", "newStatus", "attempts"];
        if expected.outcome == "unauthorized" {
            assert!(of_the_event.iter().all(|field| line[field].is_null()), "{line}");
        }
    }
}

/// The detailed metrics add members to a line, and remove none.
#[tokio::test]
async fn detailed_metrics_are_sent_only_on_request() {
    let plain = every_outcome(false).await;
    for ((expected, line, metrics), (_, without, _)) in every_outcome(true).await.into_iter().zip(plain) {
        let mut all = [expected.metrics, expected.detailed].concat();
        all.sort_unstable();
        assert_eq!(names(&metrics), all, "{line}");
        let members = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert!(members(&without).is_subset(&members(&line)), "{without}: {line}");
    }
}

/// Returns the line of a request to a function whose secret is the template's placeholder.
async fn without_a_secret() -> (Value, Metrics) {
    let world = World::new().await;
    world.aws.put_secret(r#"{"secrets":[]}"#);
    let mut function = Lambda::start(deployed_environment(&world.aws), TIMEOUT).await;
    assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, 503);
    let log = function.log().await;
    let [line] = &lines(&log, "webhook")[..] else { panic!("{log}") };
    line.clone()
}

/// Returns the line of an alert whose lead cannot be asked for, because no API key is stored.
async fn without_an_api_key() -> (Value, Metrics) {
    let world = World::new().await;
    world.aws.put_secret(r#"{"apiKey":""}"#);
    let given = vec![("SENDPILOT_API_KEY_ID", SECRET_ARN.into()), ("REMEMBER_REPLIES", "yes".into())];
    let mut function = Lambda::start_with(&world.aws, given, TIMEOUT).await;
    assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, 200);
    let [line] = &lines(&function.log().await, "webhook")[..] else { panic!() };
    line.clone()
}

/// The line says why, and the alert is published nevertheless.
#[tokio::test]
async fn logs_why_an_alert_lacks_details() {
    let (line, metrics) = without_an_api_key().await;
    assert_eq!((&line["outcome"], &line["details"]), (&json!("alerted"), &json!("")));
    assert!(line["DetailsTime"].is_u64(), "{line}");
    let why = line["detailsFailure"].as_str().unwrap();
    assert!(why.contains("the API key is not usable") && why.contains("holds no API key"), "{why}");
    assert_eq!(metrics["ApiKeyUnusable Count"], 1.0);
}

/// Returns the line of an alert that finds no free slot.
async fn without_a_slot() -> (Value, Metrics) {
    let world = World::new().await;
    let rate = AlertRate::new(1).unwrap();
    let mut slot = rate.slot_at(now());
    for _ in 0..10 {
        let claim = claim_of("evt_other", Owner::new("other", [1; 8]));
        assert!(world.dynamodb.ledger().take_slot(&claim, slot).await.unwrap());
        slot = rate.next(slot);
    }
    let mut function = Lambda::start_with(&world.aws, vec![("ALERTS_PER_SECOND", "1".into())], TIMEOUT).await;
    assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, 503);
    let [line] = &lines(&function.log().await, "webhook")[..] else { panic!() };
    line.clone()
}

/// The line is not an error, and says how long the attempt looked for a slot.
#[tokio::test]
async fn logs_a_missing_slot() {
    let (line, metrics) = without_a_slot().await;
    assert_eq!(
        (&line["level"], &line["outcome"], &line["attempts"]),
        (&json!("WARN"), &json!("unavailable"), &json!(1))
    );
    assert!(line["failure"].as_str().unwrap().contains("ALERTS_PER_SECOND"), "{line}");
    assert!(line["PaceTime"].as_u64().unwrap() < 1000, "{line}");
    assert_eq!(names(&metrics), ["NoSlot Count"]);
}

/// Returns the lines of five events. A change goes to the stream alone. An opportunity goes to both
/// topics. A second opportunity of the same lead is debounced. The stream refuses the message of
/// another opportunity, and that of another change.
async fn with_a_stream_and_debounce() -> Vec<(Value, Metrics)> {
    let world = World::new().await;
    let mut function = Lambda::start_with(
        &world.aws,
        vec![("STATUS_TOPIC_ARN", format!("{TOPIC}-status")), ("DEBOUNCE_MINUTES", "5".into())],
        TIMEOUT,
    )
    .await;
    function.answer(&signed_now(&change("evt_1", "DONE"))).await;
    function.answer(&signed_now(&opportunity("evt_2"))).await;
    function.answer(&signed_now(&opportunity("evt_3"))).await;
    let mut of_another: Value = serde_json::from_str(&opportunity("evt_4")).unwrap();
    of_another["data"]["leadId"] = "lead_2".into();
    world.aws.next("status publish", Fault::Refused(403));
    function.answer(&signed_now(&of_another.to_string())).await;
    world.aws.next("status publish", Fault::Refused(403));
    function.answer(&signed_now(&change("evt_5", "DONE"))).await;
    lines(&function.log().await, "webhook")
}

#[tokio::test]
async fn logs_what_became_of_alert_and_message() {
    let lines = with_a_stream_and_debounce().await;
    let told = lines.iter().map(|(line, _)| json!([line["outcome"], line["alert"], line["stream"]]));
    let expected = [
        json!(["streamed", null, null]),
        json!(["alerted", "alerted", "streamed"]),
        json!(["debounced", "debounced", "streamed"]),
        json!(["alerted", "alerted", "pending"]),
        json!(["pending", null, null]),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|(_, metrics)| metrics.is_empty()), "{lines:?}");
    for (line, failure) in [(3, "streamFailure"), (4, "failure")] {
        let line = &lines[line].0;
        assert!(line[failure].as_str().unwrap().starts_with("publish failed: the topic did not accept"), "{line}");
        assert_eq!((&line["level"], &line["status"]), (&json!("WARN"), &json!(200)), "{line}");
    }
}

#[tokio::test]
async fn logs_a_missing_secret() {
    let (line, metrics) = without_a_secret().await;
    assert_eq!(names(&metrics), ["SecretUnreadable Count"]);
    assert_eq!((&line["level"], &line["outcome"]), (&json!("ERROR"), &json!("unavailable")));
    assert!(line["detail"].is_string() && line["eventId"].is_null(), "{line}");
}

/// The previous version lets events in, so nothing else would show that the current one is refused.
#[tokio::test]
async fn logs_an_unusable_secret() {
    let world = World::new().await;
    world.aws.put_secret(SECRET);
    world.aws.put_secret(&format!("v1,{OTHER}"));
    let mut function = Lambda::start(deployed_environment(&world.aws), TIMEOUT).await;
    let mut answers = Vec::new();
    for request in [signed_now(&change("evt_1", "DONE")), signed_now_with(OTHER, &opportunity("evt_2"))] {
        answers.push(function.answer(&request).await.0);
    }
    // The good value is stored twice. The usable secrets stay the same, but a line says that no
    // version is refused any more.
    world.aws.put_secret(SECRET);
    world.aws.put_secret(SECRET);
    answers.push(function.answer(&signed_now_with(OTHER, &opportunity("evt_2"))).await.0);
    let log = function.log().await;
    let lines_of_requests = lines(&log, "webhook");
    let [(ignored, of_ignored), (unavailable, of_unavailable), (_, after)] = &lines_of_requests[..] else {
        panic!("{log}")
    };
    assert_eq!(answers, [200, 503, 401]);
    assert!(!after.contains_key("SecretUnreadable Count"), "{log}");
    assert_eq!(lines(&log, "signing secret fetched").last().unwrap().0["level"], "INFO");
    assert_eq!((&ignored["level"], &unavailable["level"]), (&json!("INFO"), &json!("ERROR")));
    for metrics in [of_ignored, of_unavailable] {
        assert_eq!(metrics["SecretUnreadable Count"], 1.0, "{log}");
    }
    let (fetch, _) = &lines(&log, "signing secret not usable")[0];
    assert_eq!((&fetch["level"], &fetch["held"]), (&json!("ERROR"), &json!(1)));
    let refused = "version AWSCURRENT: secret number 1 holds whsec_ behind other characters";
    for told in [&fetch["failure"], &unavailable["detail"]] {
        assert!(told.as_str().unwrap().contains(refused), "{log}");
    }
}

#[tokio::test]
async fn logs_the_event_and_its_attempts() {
    let lines: Vec<_> = every_outcome(false).await.into_iter().map(|(_, line, _)| line).collect();
    let told = |line: &Value| {
        let fields = ["eventId", "eventType", "previousStatus", "newStatus", "attempts"];
        json!(fields.map(|field| line[field].clone()))
    };
    let changed = |event: &str, status: &str, attempts: Value| {
        json!([event, "lead.status.changed", "REPLY_RECEIVED", status, attempts])
    };
    assert_eq!(told(&lines[0]), changed("evt_0", "DONE", json!(null)));
    assert_eq!(told(&lines[1]), changed("evt_1", "OPPORTUNITY", json!(1)));
    assert_eq!(told(&lines[2]), changed("evt_1", "OPPORTUNITY", json!(1)));
    assert_eq!(told(&lines[3]), changed("evt_held", "OPPORTUNITY", json!(1)));
    assert_eq!(told(&lines[4]), changed("evt_refused", "OPPORTUNITY", json!(1)));
    assert_eq!(told(&lines[5]), changed("evt_refused", "OPPORTUNITY", json!(2)));
    assert_eq!(told(&lines[6]), json!(["evt_5", "message.sent", null, null, null]));
    assert!(
        lines[4]["failure"].as_str().unwrap().starts_with("publish failed: the topic did not accept"),
        "{}",
        lines[4]
    );
    assert!(lines[7]["detail"].as_str().unwrap().starts_with("the body must be a JSON object"), "{}", lines[7]);
}

#[tokio::test]
async fn warns_of_an_unknown_event_type_and_handles_it() {
    let world = World::new().await;
    let mut function = Lambda::start_with(&world.aws, vec![("ALERT_TAGS", "hot".into())], TIMEOUT).await;
    let mut tagged: Value = serde_json::from_str(&opportunity("evt_2")).unwrap();
    tagged["eventType"] = "lead.tagged".into();
    tagged["data"] = json!({"leadId": "lead_2", "newTag": "Hot"});
    let mut nameless: Value = serde_json::from_str(&opportunity("evt_3")).unwrap();
    nameless["eventType"] = json!(null);
    let mut renamed: Value = serde_json::from_str(&opportunity("evt_1")).unwrap();
    renamed["eventType"] = "lead.status.renamed".into();
    for event in [renamed, tagged, nameless] {
        assert_eq!(function.answer(&signed_now(&event.to_string())).await.1["outcome"], "alerted", "{event}");
    }
    assert_eq!(world.aws.alerts(), ["evt_1", "evt_2", "evt_3"]);
    let lines = lines(&function.log().await, "webhook");
    let told = lines.iter().map(|(line, metrics)| {
        let counted = metrics.contains_key("UnexpectedEvent Count");
        json!([line["level"], line["eventType"], line["renamed"], counted])
    });
    let shape = |of: &str| format!("the event type is unknown; its data has the shape of a {of} change");
    let expected = [
        json!(["WARN", "lead.status.renamed", shape("status"), true]),
        json!(["WARN", "lead.tagged", shape("tag"), true]),
        json!(["WARN", null, shape("status"), true]),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn names_what_arrived_if_it_is_not_a_request() {
    let world = World::new().await;
    let mut function = world.webhook().await;
    let records = |name: &str, source: &str| json!({"Records": [{name: source, "body": "secret"}]});
    let mut format_1 = json!({
        "version": "1.0", "resource": "/secret", "path": "/secret", "httpMethod": "POST", "headers": {"secret": "secret"},
        "requestContext": {"stage": "secret", "identity": {"sourceIp": "secret"}}, "body": "secret", "isBase64Encoded": false,
    });
    let mut expected = Vec::new();
    for (foreign, arrived) in [
        (format_1.clone(), "an event of a REST API, or of an HTTP API in payload format 1.0, arrived"),
        (
            {
                format_1["headers"] = json!(null);
                format_1["body"] = json!(null);
                format_1.as_object_mut().unwrap().remove("version");
                format_1
            },
            "an event of a REST API, or of an HTTP API in payload format 1.0, arrived",
        ),
        (
            json!({"requestContext": {"elb": {"targetGroupArn": "secret"}}, "httpMethod": "POST", "path": "/", "body": "secret"}),
            "an event of an Application Load Balancer arrived",
        ),
        (
            json!({"requestContext": {"connectionId": "secret", "routeKey": "secret"}}),
            "an event of a WebSocket API arrived",
        ),
        (records("eventSource", "aws:sqs"), "an event of Amazon SQS arrived"),
        (records("EventSource", "aws:sns"), "an event of Amazon SNS arrived"),
        (records("eventSource", "secret"), "an event with records of another AWS service arrived"),
        (json!({"Records": []}), "an event with records of another AWS service arrived"),
        (
            json!({"version": "0", "detail-type": "secret", "source": "secret", "detail": {}}),
            "an event of Amazon EventBridge arrived",
        ),
        (
            serde_json::from_str(&opportunity("secret")).unwrap(),
            "an event of SendPilot, without the HTTP request around it, arrived",
        ),
        (json!({}), "a JSON object of another form arrived"),
        (json!({"rawPath": "/secret", "requestContext": {"http": {}}}), "a JSON object of another form arrived"),
        (json!({"requestContext": {"http": {"method": "secret"}}}), "a JSON object of another form arrived"),
        (json!(null), "JSON's null arrived"),
        (json!(["secret", {"secret": 7}]), "a JSON array arrived"),
        (json!("secret"), "a JSON string arrived"),
        (json!(-7), "a JSON number arrived"),
        (json!(7), "a JSON number arrived"),
        (json!(0.7), "a JSON number arrived"),
        (json!(true), "a JSON boolean arrived"),
        (json!({"rawPath": ["secret"], "headers": {}}), "another type than in that format, arrived"),
        (json!({"headers": {"secret": ["secret"]}}), "another type than in that format, arrived"),
        (json!({"requestContext": "secret"}), "another type than in that format, arrived"),
        (json!({"isBase64Encoded": "secret"}), "another type than in that format, arrived"),
        (json!({"Records": "secret"}), "another type than in that format, arrived"),
    ] {
        let Said::Error(error) = function.invoke(&foreign).await else { panic!("{foreign} is taken for a request") };
        assert!(error["errorMessage"].as_str().unwrap().ends_with(arrived), "{error}");
        expected.push((json!(function.request_id), arrived));
    }
    // The process still handles requests.
    assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, 200);
    let log = function.log().await;
    let lines = lines(&log, "payload");
    assert_eq!(lines.len(), expected.len(), "{log}");
    for ((line, metrics), (request_id, arrived)) in lines.iter().zip(expected) {
        assert_eq!((&line["level"], &line["requestId"]), (&json!("ERROR"), &request_id), "{line}");
        let failure = line["failure"].as_str().unwrap();
        let format = "the function expects an event of API Gateway's HTTP API, in payload format 2.0; ";
        assert!(failure.starts_with(format) && failure.ends_with(arrived), "{line}");
        assert!(metrics.is_empty(), "{line}");
    }
    assert!(!log.contains("secret") && !log.contains("missing field"), "{log}");
}

#[tokio::test]
async fn measures_the_time_to_alert_from_the_events_timestamp() {
    let world = World::new().await;
    let mut function = world.webhook().await;
    let ago = |span: Duration| Timestamp::from_millis(now().as_millis() - u64::try_from(span.as_millis()).unwrap());
    // The second clock is ahead of ours. The third event names no time.
    let moments = [ago(Duration::from_secs(90)), now().after(Duration::from_secs(90))];
    for (number, moment) in moments.into_iter().enumerate() {
        assert_eq!(function.answer(&since(&format!("evt_{number}"), moment)).await.0, 200);
    }
    let mut timeless: Value = serde_json::from_str(&opportunity("evt_2")).unwrap();
    timeless["timestamp"] = "yesterday".into();
    assert_eq!(function.answer(&signed_now(&timeless.to_string())).await.0, 200);
    let lines = lines(&function.log().await, "webhook");
    let times: Vec<_> = lines.iter().map(|(line, _)| line["TimeToAlert"].as_u64()).collect();
    assert!(times[0].is_some_and(|time| (90_000..100_000).contains(&time)), "{times:?}");
    assert_eq!(times[1..], [Some(0), None]);
}

#[tokio::test]
async fn logs_a_line_near_the_deadline() {
    let timeout = Duration::from_secs(5);
    let cases = [
        (vec!["claim"; 9], "claim failed: the ledger did not answer in time", 1),
        (
            [vec!["publish"], vec!["release"; 9]].concat(),
            "publish failed: the topic did not answer in time; the release of the claim failed too: the ledger did not answer",
            2,
        ),
        (vec!["complete"; 9], "done, but completion failed", 3),
    ];
    let case = async |(held, failure, steps): (Vec<&str>, &str, usize)| {
        let world = World::new().await;
        let mut function = Lambda::start(environment(&world.aws), timeout).await;
        function.answer(&payload("forged")).await;
        held.iter().for_each(|call| world.aws.next(call, Fault::HeldBefore));
        let begun = Instant::now();
        function.answer(&signed_now(&opportunity("evt_1"))).await;
        assert!(begun.elapsed() < timeout, "Lambda would have killed it");
        let log = function.log().await;
        let [_, (line, _)] = &lines(&log, "webhook")[..] else { panic!("{log}") };
        assert!(line["failure"].as_str().unwrap().starts_with(failure), "{line}");
        let times = ["ClaimTime", "PublishTime", "CompleteTime"].map(|name| line[name].as_u64());
        let times: Vec<_> = times.into_iter().flatten().collect();
        assert_eq!(times.len(), steps, "{line}");
        assert!(times[steps - 1] > 1000, "the time of a step that was given up counts too: {line}");
    };
    join_all(cases.map(case)).await;
}

/// No event makes the function panic. A runtime other than Lambda's does.
#[tokio::test]
async fn a_panic_logs_its_place_and_not_its_text() {
    let world = World::new().await;
    let (status, log) =
        Lambda::start_with(&world.aws, vec![("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "linkedin".into())], TIMEOUT)
            .await
            .ended()
            .await;
    assert!(status != Some(0), "{log}");
    let [(line, metrics)] = &lines(&log, "crash")[..] else { panic!("{log}") };
    assert_eq!((names(metrics), &line["level"], &line["requestId"]), (vec![], &json!("ERROR"), &json!(null)));
    assert!(line["location"].as_str().unwrap().contains("lambda_runtime"), "{line}");
    assert!(!log.contains("linkedin") && !log.contains("ParseInt"), "{log}");
}

#[tokio::test]
async fn a_panic_names_its_request() {
    thread_local!(static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });
    let telemetry = Telemetry::new("function".into(), |line| LINES.with_borrow_mut(|lines| lines.push(line.into())));
    let tests_own = take_hook();
    telemetry.on_panic();
    let line = telemetry.begin("webhook", "request-1");
    let crashed = AssertUnwindSafe(async { panic!("john-doe") }).catch_unwind().await;
    telemetry.end(line, tracing::Level::INFO, now());
    AssertUnwindSafe(async { panic!("john-doe") }).catch_unwind().await.unwrap_err();
    set_hook(tests_own);
    assert!(crashed.is_err());
    let lines: Vec<_> = LINES.with_borrow(|lines| lines.iter().map(|line| emf::read(line).0).collect());
    let told: Vec<_> = lines.iter().map(|line| json!([line["message"], line["requestId"]])).collect();
    assert_eq!(told, [json!(["crash", "request-1"]), json!(["webhook", "request-1"]), json!(["crash", null])]);
    let here = lines[0]["location"].as_str().unwrap();
    assert!(here.starts_with(file!()), "{here}");
    assert!(!lines[0].to_string().contains("john-doe"));
}

#[tokio::test]
async fn cuts_and_escapes_text_from_outside() {
    let world = World::new().await;
    // The log level does not apply to this line, because it carries metrics.
    let settings = vec![("AWS_LAMBDA_LOG_LEVEL", "ERROR".into()), ("DETAILED_METRICS", "yes".into())];
    let mut function = Lambda::start_with(&world.aws, settings, TIMEOUT).await;
    let hostile = "\",\"Rejected\":1}\n\r\u{0}\u{1b}[31m\u{2028}\u{1F600}{\"_aws\":";
    let mut body: Value = serde_json::from_str(&change(hostile, &hostile.repeat(500))).unwrap();
    body["data"]["previousStatus"] = hostile.repeat(500).into();
    assert_eq!(function.answer(&signed_now(&body.to_string())).await.0, 200);
    body["eventType"] = hostile.repeat(500).into();
    assert_eq!(function.answer(&signed_now(&body.to_string())).await.0, 200);
    let log = function.log().await;
    let [(changed, metrics), (other, others)] = &lines(&log, "webhook")[..] else { panic!("{log}") };
    let expected = ["StatusChanges Count NewStatus=OTHER"];
    // The event type is hostile text, but the data still has the shape of a change of status.
    let renamed = ["StatusChanges Count NewStatus=OTHER", "UnexpectedEvent Count"];
    assert_eq!((names(metrics), names(others)), (expected.to_vec(), renamed.to_vec()));
    assert_eq!(changed["eventId"], hostile);
    for text in [&changed["newStatus"], &changed["previousStatus"], &other["eventType"]] {
        let text = text.as_str().unwrap();
        assert!(hostile.repeat(2).starts_with(text) && text.chars().count() == 64, "{text}");
    }
    assert!(log.lines().all(|line| line.len() < 2000), "{log}");
}

/// Sends every sample event, as it is and with a new signature.
#[tokio::test]
async fn logs_no_body_lead_address_or_secret() {
    let world = World::new().await;
    let mut function = world.webhook().await;
    for name in crate::support::requests::files() {
        let payload = payload(&name);
        let body = payload["body"].as_str().unwrap();
        function.answer(&payload).await;
        function.answer(&signed_now(body)).await;
    }
    let log = function.log().await;
    assert_eq!(lines(&log, "webhook").len(), 2 * crate::support::requests::files().len());
    for hidden in ["linkedin", "john", "lead_", "camp_", "ws_", SECRET, &SECRET[6..], "v1,"] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

#[tokio::test]
async fn a_redrive_sends_metrics_only_if_deliveries_are_pending() {
    let world = World::new().await;
    let mut redrive = Lambda::start_redrive(&world.aws, TIMEOUT).await;
    // Two runs without a delivery, one with two deliveries of which one fails, one with the failed
    // delivery, and one that cannot list.
    for _ in 0..2 {
        redrive.invoke(&json!({})).await;
    }
    for event in ["evt_1", "evt_2"] {
        world.claimed(id(event), Timestamp::from_millis(1)).await;
    }
    world.aws.next("publish", Fault::Refused(403));
    redrive.invoke(&json!({})).await;
    redrive.invoke(&json!({})).await;
    for _ in 0..ATTEMPTS {
        world.aws.next("list", Fault::Refused(400));
    }
    assert!(matches!(redrive.invoke(&json!({})).await, Said::Error(_)));
    let log = redrive.log().await;
    let runs = lines(&log, "redrive");
    let [cold, warm, first, second, failed] = &runs[..] else { panic!("{log}") };
    for (line, metrics) in [cold, warm] {
        assert!(metrics.is_empty() && line.get("_aws").is_none() && line["scanned"] == 0, "{line}");
    }
    assert_eq!((&cold.0["coldStart"], &warm.0["coldStart"]), (&json!(true), &json!(false)));
    let counts = |(line, _): &(Value, Metrics)| {
        ["duplicates", "published", "scanned", "stillPending"].map(|name| line[name].as_u64().unwrap())
    };
    assert_eq!((counts(first), counts(second)), ([0, 1, 2, 1], [0, 1, 1, 0]));
    assert_eq!(
        (names(&first.1), names(&second.1)),
        (vec!["OldestPendingAge Seconds"], vec!["OldestPendingAge Seconds"])
    );
    assert!(first.1["OldestPendingAge Seconds"] > 1e9, "since its first claim, at the epoch");
    assert_eq!(second.1["OldestPendingAge Seconds"], 0.0);
    assert_eq!((names(&failed.1), &failed.0["level"]), (vec![], &json!("ERROR")));
    assert!(failed.0["failure"].as_str().unwrap().starts_with("the list of pending deliveries is incomplete"));

    let deliveries = lines(&log, "delivery");
    let told = |(line, _): &(Value, Metrics)| json!([line["outcome"], line["attempts"], line["level"]]);
    let mut told: Vec<_> = deliveries.iter().map(told).collect();
    told[..2].sort_by_key(ToString::to_string);
    assert_eq!(told, [json!(["alerted", 2, "INFO"]), json!(["unavailable", 2, "WARN"]), json!(["alerted", 3, "INFO"])]);
    for ((line, metrics), (run, _)) in deliveries.iter().zip([first, first, second]) {
        assert!(metrics.is_empty() && line["requestId"] == run["requestId"], "{line}");
        assert!(line["ClaimTime"].is_u64() && line["PublishTime"].is_u64(), "{line}");
    }
}

#[tokio::test]
async fn logs_the_streams_pending_age() {
    let world = World::new().await;
    world.claimed(DeliveryId::status(None, "evt_1"), now().after(TIMEOUT * 6)).await;
    let mut redrive = Lambda::start_redrive(&world.aws, TIMEOUT).await;
    redrive.invoke(&json!({})).await;
    let log = redrive.log().await;
    let [(line, metrics)] = &lines(&log, "redrive")[..] else { panic!("{log}") };
    assert!(line["oldestStreamPendingAgeSeconds"].as_u64().unwrap() > 1_000_000_000, "{line}");
    assert!(metrics["OldestStreamPendingAge Seconds"] > 1e9, "{line}");
    assert_eq!((&line["oldestPendingAgeSeconds"], metrics["OldestPendingAge Seconds"]), (&json!(0), 0.0));
}

/// Returns the log of redrives that publish, debounce, discard and leave deliveries, that cannot
/// list them, and that stop early.
async fn redrives_of_every_kind() -> String {
    let world = World::new().await;
    let debounce = vec![("DEBOUNCE_MINUTES", "5".into())];
    let stream = vec![("STATUS_TOPIC_ARN", format!("{TOPIC}-status"))];
    let mut function = Lambda::start([environment(&world.aws), debounce.clone(), stream].concat(), TIMEOUT).await;
    // The first alert is debounced by the second one, and the stream is off when its message is
    // due.
    world.aws.next("quiet", Fault::Refused(400));
    world.aws.next("status publish", Fault::Refused(403));
    for (event, status) in [("evt_1", 503), ("evt_2", 200)] {
        assert_eq!(function.answer(&signed_now(&opportunity(event))).await.0, status);
    }
    world.claimed(id("evt_3"), Timestamp::from_millis(1)).await;
    world.claimed(DeliveryId::status(None, "evt_4"), now().after(TIMEOUT * 6)).await;
    let mut redrive = Lambda::start_redrive_with(&world.aws, debounce, TIMEOUT).await;
    for _ in 0..ATTEMPTS {
        world.aws.next("list", Fault::Refused(400));
    }
    assert!(matches!(redrive.invoke(&json!({})).await, Said::Error(_)));
    assert!(matches!(redrive.invoke(&json!({})).await, Said::Response(_)));

    let world = World::new().await;
    for number in 0..ALERT_WORKERS + MAX_TIMEOUTS as usize {
        world.claimed(id(&format!("evt_{number}")), Timestamp::from_millis(1)).await;
        world.aws.next("publish", Fault::HeldBefore);
    }
    // With two seconds in all, a run waits half a second for each publish.
    let mut stopped = Lambda::start_redrive(&world.aws, Duration::from_secs(2)).await;
    stopped.invoke(&json!({})).await;
    redrive.log().await + &stopped.log().await
}

/// Returns lines of every kind that the functions write. Together they have every field that a line
/// can have.
async fn lines_of_every_kind(detailed: bool) -> Vec<(Value, Metrics)> {
    let mut lines: Vec<_> =
        every_outcome(detailed).await.into_iter().map(|(_, line, metrics)| (line, metrics)).collect();
    lines.extend(with_a_stream_and_debounce().await);
    lines.extend([without_a_secret().await, without_an_api_key().await, without_a_slot().await]);
    let world = World::new().await;
    let (_, crash) = Lambda::start_with(&world.aws, vec![("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "?".into())], TIMEOUT)
        .await
        .ended()
        .await;
    let (_, no_start) = Lambda::start(Vec::new(), TIMEOUT).await.ended().await;
    for log in [crash, no_start, redrives_of_every_kind().await] {
        lines.extend(log.lines().map(emf::read));
    }
    lines.extend(runs_of_every_kind().await);
    lines
}

/// Returns the log lines of the reconciliation: of a dry run, of a run that finds a missed lead and
/// must then wait for SendPilot's API, and of a run that fails.
async fn runs_of_every_kind() -> Vec<(Value, Metrics)> {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    reconcile.dry_run().await;
    receiver.api.put_campaign("camp_2", "x").await.unwrap();
    let busy = json!({ "status": 503, "headers": { "Retry-After": "3600" } });
    receiver.answers("/v1/leads?campaignId=camp_2", busy).await;
    assert_eq!(reconcile.run().await["outcome"], "paused");
    reconcile.fails().await;
    reconcile.lines().await
}

/// An alarm on a metric that is never sent would never fire. A metric that is not listed would be
/// billed and read by nobody.
#[tokio::test]
async fn sends_exactly_the_listed_metrics() {
    for detailed in [false, true] {
        let lines = lines_of_every_kind(detailed).await;
        let sent: BTreeSet<_> = lines.iter().flat_map(|(_, metrics)| bare(metrics)).collect();
        let listed = Metric::ALL.iter().filter(|metric| detailed || !metric.is_detailed());
        assert_eq!(sent, listed.map(|metric| metric.name().to_owned()).collect());
    }
}

/// Words of CloudWatch's query language that the queries use.
const QUERY_LANGUAGE: &str = "and as asc bin by count countdistinct desc fields filter in ispresent like limit max or \
    pct sort stats strcontains sum";

/// Fields that CloudWatch adds to every line, and one of Lambda's own report of an invocation.
const ADDED_BY_AWS: [&str; 3] = ["@message", "@timestamp", "record.status"];

/// Returns the names of the fields that a query reads, without those that it defines itself.
fn asked_for(query: &str) -> BTreeSet<String> {
    let code = query.lines().filter(|line| !line.starts_with('#'));
    let unquoted = code.flat_map(|line| line.split('"').step_by(2));
    let unquoted = unquoted.map(|text| text.replace("count_distinct", "countdistinct")).collect::<Vec<_>>();
    let words = unquoted.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && !"@.".contains(c)));
    let words: Vec<&str> = words.filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '@')).collect();
    let made: Vec<&str> = words.windows(2).filter(|pair| pair[0] == "as").map(|pair| pair[1]).collect();
    let language: Vec<&str> = QUERY_LANGUAGE.split_whitespace().collect();
    let asked = words.into_iter().filter(|word| !made.contains(word) && !language.contains(word));
    asked.map(str::to_owned).collect()
}

/// Returns the queries of the dashboard without the source, by their titles. All read the log of
/// the webhook function.
fn dashboard_queries() -> Vec<(String, String)> {
    let body = &resource("Dashboard")["Properties"]["DashboardBody"];
    let widgets = format!("[{}]", body[1]["Details"][2].as_str().unwrap());
    let widgets: Value = serde_json::from_str(&widgets).unwrap();
    let query = |widget: &Value| {
        let text = |name: &str| widget["properties"][name].as_str().unwrap().to_owned();
        let query = text("query").strip_prefix("SOURCE '${WebhookLogs}' | ").unwrap().to_owned();
        // CloudWatch wants a bar before every command.
        assert!(query.lines().skip(1).all(|line| line.starts_with("| ")), "{query}");
        (text("title"), query)
    };
    widgets.as_array().unwrap().iter().map(query).collect()
}

#[tokio::test]
async fn queries_ask_only_for_fields_that_are_logged() {
    let lines = lines_of_every_kind(false).await;
    let of_functions = lines.iter().flat_map(|(line, _)| line.as_object().unwrap().keys().map(String::as_str));
    let of_functions: BTreeSet<_> = of_functions.chain(ADDED_BY_AWS).collect();
    let format = resource("WebhookApi")["Properties"]["AccessLogSettings"]["Format"].as_str().unwrap().to_owned();
    let format: Value = serde_json::from_str(&format).unwrap();
    let of_gateway = format.as_object().unwrap().keys().map(String::as_str);
    let of_gateway: BTreeSet<_> = of_gateway.chain(ADDED_BY_AWS).collect();
    let guide = guide::text();
    for (name, query) in saved_queries() {
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in the guide");
        let groups = yaml_serde::to_string(&query["LogGroupNames"]).unwrap();
        let logged = if groups == "- !Ref AccessLogs\n" { &of_gateway } else { &of_functions };
        let asked_for = asked_for(query["QueryString"].as_str().unwrap());
        let unknown: Vec<_> = asked_for.iter().filter(|name| !logged.contains(name.as_str())).collect();
        assert!(!asked_for.is_empty() && unknown.is_empty(), "{name}: {unknown:?}");
    }
    let of_webhook = lines.iter().filter(|(line, _)| line["message"] == "webhook");
    let of_webhook: BTreeSet<_> = of_webhook.flat_map(|(line, _)| line.as_object().unwrap().keys().cloned()).collect();
    let queries = dashboard_queries();
    assert_eq!(queries.len(), 4);
    for (title, query) in queries {
        let asked_for = asked_for(&query);
        let unknown: Vec<_> = asked_for.difference(&of_webhook).collect();
        assert!(!asked_for.is_empty() && unknown.is_empty(), "{title}: {unknown:?}");
        let quoted: Vec<_> = query.split('"').skip(1).step_by(2).collect();
        assert!(quoted.iter().all(|status| STATUSES.contains(status)), "{title}: {quoted:?}");
    }
}

#[tokio::test]
async fn the_metric_filter_counts_the_accepted_events() {
    let filter = &resource("AcceptedEvents")["Properties"];
    assert_eq!(yaml_serde::to_string(&filter["LogGroupName"]).unwrap(), "!Ref WebhookLogs\n");
    assert_eq!(filter["FilterPattern"].as_str(), Some("{ $.status = 200 }"));
    let lines = lines_of_every_kind(false).await;
    let accepted: BTreeSet<_> = lines.iter().filter(|(line, _)| line["status"] == 200).map(outcome_of).collect();
    let of_webhook = lines.iter().filter(|(line, _)| line["message"] == "webhook").map(outcome_of);
    let refused =
        ["in_progress", "malformed", "method_not_allowed", "not_found", "too_large", "unauthorized", "unavailable"];
    assert_eq!(
        of_webhook.collect::<BTreeSet<_>>(),
        accepted.iter().cloned().chain(refused.map(str::to_owned)).collect()
    );
}

fn outcome_of((line, _): &(Value, Metrics)) -> String {
    line["outcome"].as_str().unwrap_or_default().to_owned()
}
