//! The handler, from API Gateway's payload to the answer: every file in `events/`, and hostile
//! requests.

use std::cell::RefCell;
use std::time::Duration;

use crate::support::doubles::{Claiming, Publishing, Script, Settling, relay};
use crate::support::requests::{
    SECRET, around, documented, file, files, http, opportunity, payload, secrets, standard,
};
use lambda_http::Request;
use lambda_http::http::{Method, Response};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::secrets::keyring::Keyring;
use opportunity_alerts::telemetry::Telemetry;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::webhook::details::Sources;
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::sendpilot::OTHER;

const NOW: u64 = 1_708_770_605;

thread_local!(static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

async fn respond(request: &Request, now: Timestamp) -> (Response<String>, Vec<&'static str>) {
    respond_with(Sources::default(), request, now).await
}

async fn respond_with(sources: Sources, request: &Request, now: Timestamp) -> (Response<String>, Vec<&'static str>) {
    let script = Script::new(Claiming::Wins, Publishing::Succeeds, Settling::IsRecorded);
    let webhook = Webhook {
        sources,
        keyring: Keyring::from_secrets(secrets()),
        rules: Rules::default(),
        relay: relay(&script, &script),
        telemetry: Telemetry::new("function".into(), |line| LINES.with_borrow_mut(|lines| lines.push(line.into()))),
    };
    let invocation = Invocation::new("request-1", now.after(Duration::from_secs(10)), now, [0; 8]);
    (webhook.respond(request, &invocation).await, script.calls())
}

async fn outcome(payload: Value) -> (u16, String) {
    let (response, _) = respond(&http(payload), Timestamp::from_millis(NOW * 1000)).await;
    let body: Value = serde_json::from_str(response.body()).unwrap();
    (response.status().as_u16(), body["outcome"].as_str().unwrap().to_owned())
}

fn signed(body: &str) -> Value {
    around(body, &standard("svix", SECRET, "msg_1", NOW, body.as_bytes()))
}

#[tokio::test]
async fn answers_every_sample_and_calls_aws_only_for_alerts() {
    let mut answered = Vec::new();
    for name in files() {
        let (request, now) = file(&name);
        let (response, calls) = respond(&request, now).await;
        let body: Value = serde_json::from_str(response.body()).unwrap();
        let outcome = body["outcome"].as_str().unwrap();
        let expected: &[&str] = if outcome == "alerted" { &["claim", "publish", "complete"] } else { &[] };
        assert_eq!(calls, expected, "{name}");
        answered.push(format!("{name} {} {outcome}", response.status().as_u16()));
    }
    let expected = [
        "forged 401 unauthorized",
        "lead-without-id 400 malformed",
        "malformed 400 malformed",
        "message-sent 200 ignored",
        "opportunity 200 alerted",
        "opportunity-again 200 ignored",
        "opportunity-base64 200 alerted",
        "opportunity-documented-signature 200 alerted",
        "opportunity-hostile 200 alerted",
        "opportunity-lead-updated 200 alerted",
        "opportunity-minimal 200 alerted",
        "reply 200 ignored",
        "reply-received 200 ignored",
        "test-event 200 alerted",
        "unlisted-status 200 ignored",
        "unsigned 401 unauthorized",
    ];
    assert_eq!(answered, expected);
}

#[tokio::test]
async fn remembers_replies_and_changes_no_other_answer() {
    for name in files() {
        let (request, now) = file(&name);
        let (before, _) = respond(&request, now).await;
        let (after, _) = respond_with(Sources { api: None, replies: true }, &request, now).await;
        let mut expected: Value = serde_json::from_str(before.body()).unwrap();
        if name == "reply" {
            expected["outcome"] = "remembered".into();
        }
        let said: Value = serde_json::from_str(after.body()).unwrap();
        assert_eq!((before.status(), expected), (after.status(), said), "{name}");
    }
}

#[tokio::test]
async fn returns_the_event_id_of_genuine_events_only() {
    for (name, id) in [
        ("opportunity", json!("evt_1708456789123_abc123def")),
        ("reply-received", json!("evt_1708456789129_reply0001")),
        ("opportunity-minimal", json!("msg_2cmZ8Uk7MinimalStandIn0001")),
        ("forged", json!(null)),
    ] {
        let (request, now) = file(name);
        let body: Value = serde_json::from_str(respond(&request, now).await.0.body()).unwrap();
        assert_eq!(body["eventId"], id, "{name}");
    }
}

#[tokio::test]
async fn refuses_other_paths_and_methods() {
    let mut elsewhere = payload("opportunity");
    elsewhere["rawPath"] = "/webhooks/other".into();
    assert_eq!(outcome(elsewhere).await, (404, "not_found".into()));
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS] {
        let mut other = payload("opportunity");
        other["requestContext"]["http"]["method"] = method.as_str().into();
        assert_eq!(outcome(other).await, (405, "method_not_allowed".into()));
    }
}

#[tokio::test]
async fn accepts_one_slash_after_the_path_and_no_other_path() {
    for (path, expected) in [
        ("/webhooks/sendpilot/", (200, "alerted".into())),
        ("/prod/webhooks/sendpilot/", (200, "alerted".into())),
        ("/webhooks/sendpilot//", (404, "not_found".into())),
        ("/webhooks/sendpilot/x", (404, "not_found".into())),
        ("//webhooks/sendpilot", (404, "not_found".into())),
        ("/webhooks/sendpilot%2F", (404, "not_found".into())),
        ("/Webhooks/sendpilot", (404, "not_found".into())),
        ("/webhooks/", (404, "not_found".into())),
        ("/", (404, "not_found".into())),
    ] {
        let mut request = payload("opportunity");
        request["requestContext"]["stage"] = "prod".into();
        request["rawPath"] = path.into();
        assert_eq!(outcome(request).await, expected, "{path}");
    }
}

#[tokio::test]
async fn skips_a_byte_order_mark_after_verification() {
    let marked = format!("\u{feff}{}", opportunity("evt_1"));
    assert_eq!(outcome(signed(&marked)).await, (200, "alerted".into()));
    let mut base64 = signed(&marked);
    base64["body"] = data_encoding::BASE64.encode(marked.as_bytes()).into();
    base64["isBase64Encoded"] = true.into();
    assert_eq!(outcome(base64).await, (200, "alerted".into()));
    // The signature covers the byte order mark, so adding or removing it invalidates the signature.
    let mut removed = signed(&marked);
    removed["body"] = opportunity("evt_1").into();
    let mut added = signed(&opportunity("evt_1"));
    added["body"] = marked.into();
    for changed in [removed, added] {
        assert_eq!(outcome(changed).await, (401, "unauthorized".into()));
    }
}

#[tokio::test]
async fn the_answer_says_that_a_timestamp_must_be_in_seconds() {
    let body = opportunity("evt_1");
    for headers in [
        standard("svix", SECRET, "msg_1", NOW * 1000, body.as_bytes()),
        documented(SECRET, NOW * 1000, body.as_bytes()),
    ] {
        let request = http(around(&body, &headers));
        let (response, calls) = respond(&request, Timestamp::from_millis(NOW * 1000)).await;
        let answer: Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!((response.status().as_u16(), &answer["reason"], calls), (401, &json!("stale"), vec![]));
        let detail =
            "the signature is genuine, but its timestamp must be in Unix seconds and seems to be in milliseconds";
        assert_eq!(answer["detail"], detail);
    }
}

/// Returns whether the last request was counted as genuine and rejected.
fn counted() -> bool {
    let line: Value = serde_json::from_str(&LINES.take().pop().unwrap()).unwrap();
    !line["GenuineRejected"].is_null()
}

#[tokio::test]
async fn counts_rejected_genuine_events_but_no_forgeries() {
    let whole = opportunity("evt_1");
    let unidentified = json!({"eventType": "lead.updated", "data": {"leadId": "l", "newStatus": "OPPORTUNITY"}});
    let unidentified = unidentified.to_string();
    for (body, seconds) in [
        (whole.as_str(), NOW - 10_000),
        (&whole, NOW + 10_000),
        (&whole, NOW * 1000),
        ("", NOW),
        ("[]", NOW),
        ("{}", NOW),
        (r#"{"eventType": "lead.updated"}"#, NOW),
        (&unidentified, NOW),
    ] {
        for by_a_stranger in [false, true] {
            let secret = if by_a_stranger { OTHER } else { SECRET };
            let id =
                if body == unidentified { vec![] } else { standard("svix", secret, "msg_1", seconds, body.as_bytes()) };
            for headers in [id, documented(secret, seconds, body.as_bytes())] {
                let unsigned = headers.is_empty();
                let (status, _) = outcome(around(body, &headers)).await;
                assert!(status == 400 || status == 401, "{status}: {body} at {seconds}");
                assert_eq!(counted(), !by_a_stranger && !unsigned, "{body} at {seconds}");
            }
        }
    }
    for request in [
        signed(&whole),
        signed(r#"{"eventType": "message.sent"}"#),
        payload("unsigned"),
        payload("forged"),
        around(&"x".repeat(262_145), &[]),
    ] {
        outcome(request).await;
        assert!(!counted());
    }
}

#[tokio::test]
async fn finds_the_route_behind_a_named_stage() {
    let mut staged = payload("opportunity");
    staged["requestContext"]["stage"] = "prod".into();
    staged["rawPath"] = "/prod/webhooks/sendpilot".into();
    assert_eq!(outcome(staged).await, (200, "alerted".into()));
}

#[tokio::test]
async fn accepts_256_kib_and_refuses_more() {
    let padded = |length: usize| {
        let body = opportunity("evt_1");
        let padding = length - body.len();
        signed(&(body + &" ".repeat(padding)))
    };
    assert_eq!(outcome(padded(262_144)).await, (200, "alerted".into()));
    assert_eq!(outcome(padded(262_145)).await, (413, "too_large".into()));
    assert_eq!(outcome(around(&"x".repeat(262_145), &[])).await, (413, "too_large".into()));
}

#[tokio::test]
async fn refuses_an_alert_without_any_id() {
    let body =
        json!({"eventType": "lead.updated", "data": {"leadId": "lead_1", "newStatus": "OPPORTUNITY"}}).to_string();
    let documented = around(&body, &crate::support::requests::documented(SECRET, NOW, body.as_bytes()));
    assert_eq!(outcome(documented).await, (400, "malformed".into()));
    assert_eq!(outcome(signed(&body)).await, (200, "alerted".into()));
    let body = json!({"eventType": "campaign.started"}).to_string();
    let documented = around(&body, &crate::support::requests::documented(SECRET, NOW, body.as_bytes()));
    assert_eq!(outcome(documented).await, (200, "ignored".into()));
}

#[tokio::test]
async fn answers_payloads_on_which_lambda_http_panics() {
    let with = |pointer: &str, value: Value| {
        let mut payload = payload("unsigned");
        *payload.pointer_mut(pointer).unwrap() = value;
        payload
    };
    let unauthorized = (401, "unauthorized".to_owned());
    for value in ["a=\"<>\"", "\u{e4}=\u{1F600}", "%", "\\", "#", "a b"] {
        assert_eq!(outcome(with("/rawQueryString", value.into())).await, unauthorized, "query {value}");
    }
    for value in ["", "evil host", "[", "a:b:c", "\u{e4}"] {
        assert_eq!(outcome(with("/headers/host", value.into())).await, unauthorized, "host {value}");
        assert_eq!(outcome(with("/requestContext/domainName", value.into())).await, unauthorized, "domain {value}");
    }
    for value in ["", "x", "a b", "\u{e4}://"] {
        assert_eq!(outcome(with("/headers/x-forwarded-proto", value.into())).await, unauthorized, "scheme {value}");
    }
    for value in ["caf\u{e9}", "a\nb", "\u{0}"] {
        assert_eq!(outcome(with("/headers/user-agent", value.into())).await, unauthorized, "header {value:?}");
    }
    for value in ["/\u{e4}", "//", "http://x", "", "/a b"] {
        assert_eq!(outcome(with("/rawPath", value.into())).await, (404, "not_found".into()), "path {value}");
    }
    let mut broken = with("/isBase64Encoded", true.into());
    broken["body"] = "not base64!".into();
    assert_eq!(outcome(broken).await, unauthorized);
    let mut bodiless = payload("unsigned");
    bodiless.as_object_mut().unwrap().remove("body");
    assert_eq!(outcome(bodiless).await, unauthorized);
    let mut cookies = payload("unsigned");
    cookies["cookies"] = json!(["a=b", "\u{e4}"]);
    assert_eq!(outcome(cookies).await, unauthorized);
}

#[test]
fn accepts_lone_surrogates_anywhere_in_the_payload() {
    let whole = payload("unsigned").to_string();
    for (from, to) in [
        (
            "\"rawQueryString\":\"\"",
            "\"rawQueryString\":\"\\ud83d\",\"queryStringParameters\":{\"\\ud83d\":\"\\ud83d\"}",
        ),
        ("\"accept\":", "\"a\\ud83d\":\"x\",\"b\":\"\\ud83d\",\"accept\":"),
        ("\"body\":\"", "\"cookies\":[\"\\ud83d\"],\"body\":\"\\ud83d"),
    ] {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole);
        let payload: opportunity_alerts::webhook::gateway::Payload = serde_json::from_str(&changed).unwrap();
        let request: Request = payload.try_into().unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/webhooks/sendpilot"));
    }
}

proptest! {
    #[test]
    fn never_panics_on_any_request(path in any::<String>(), query in any::<String>(), host in any::<String>(), name in any::<String>(), value in any::<String>(), body in any::<String>(), base64 in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for path in [path.as_str(), "/webhooks/sendpilot", &format!("/{path}")] {
            let mut payload = payload("unsigned");
            payload["rawPath"] = path.into();
            payload["rawQueryString"] = query.as_str().into();
            payload["headers"]["host"] = host.as_str().into();
            payload["headers"][&name] = value.as_str().into();
            payload["body"] = body.as_str().into();
            payload["isBase64Encoded"] = base64.into();
            let (status, _) = runtime.block_on(outcome(payload));
            prop_assert!(status == 401 || status == 404);
        }
    }
}
