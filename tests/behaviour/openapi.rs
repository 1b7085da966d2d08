//! `docs/contracts/openapi.yaml` against every answer of the code, and against the events that the
//! code accepts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::contracts::{CONTRACTS, flaws, part, schema, today, validator};
use crate::support::requests::{SECRET, file, files, headers, payload, secrets, standard};
use opportunity_alerts::sendpilot::event::{self, Event, Malformed};
use opportunity_alerts::sendpilot::signature::{Rejection, verify};
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::PATH;
use opportunity_alerts::webhook::response::{Answer, MAX_BODY};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sendpilot_events::STATUSES;
use serde_json::{Value, json};

const EVENT: &str = "openapi.yaml#/components/schemas/Event";

/// Returns every kind of answer. The match makes the compiler report a new kind that is missing
/// here.
fn answers() -> Vec<Answer> {
    let retry_after = Duration::from_millis(11_001);
    let detail = "how to fix it".to_owned();
    let refused = rejections()
        .into_iter()
        .map(|reason| Answer::Unauthorized { reason: reason.reason(), detail: reason.to_string() });
    let others = [
        Answer::Alerted,
        Answer::Streamed,
        Answer::Pending,
        Answer::Debounced,
        Answer::Duplicate,
        Answer::Remembered,
        Answer::Ignored,
        Answer::InProgress { retry_after },
        Answer::Unavailable { retry_after },
        Answer::NoSecret { retry_after, detail: detail.clone() },
        Answer::Malformed(detail),
        Answer::NotFound,
        Answer::MethodNotAllowed,
        Answer::TooLarge,
    ];
    let all: Vec<_> = others.into_iter().chain(refused).collect();
    let kinds: BTreeSet<_> = all
        .iter()
        .map(|outcome| match outcome {
            Answer::Alerted => 0,
            Answer::Streamed => 1,
            Answer::Debounced => 2,
            Answer::Duplicate => 3,
            Answer::Ignored => 4,
            Answer::InProgress { .. } => 5,
            Answer::Unavailable { .. } => 6,
            Answer::NoSecret { .. } => 7,
            Answer::Malformed(_) => 8,
            Answer::NotFound => 9,
            Answer::MethodNotAllowed => 10,
            Answer::TooLarge => 11,
            Answer::Unauthorized { .. } => 12,
            Answer::Pending => 13,
            Answer::Remembered => 14,
        })
        .collect();
    assert_eq!(kinds.len(), 15);
    all
}

fn rejections() -> [Rejection; 9] {
    [
        Rejection::Unsigned,
        Rejection::Incomplete("svix-id"),
        Rejection::BadId("svix-id"),
        Rejection::BadTimestamp,
        Rejection::BadSignature,
        Rejection::Mismatch,
        Rejection::Stale,
        Rejection::Early,
        Rejection::NotSeconds("milliseconds"),
    ]
}

/// Returns the pointer to an answer's schema.
fn pointer(status: &str, media_type: &str) -> String {
    let [path, media_type] = [PATH, media_type].map(|text| text.replace('/', "~1"));
    format!("/paths/{path}/post/responses/{status}/content/{media_type}/schema")
}

/// Returns the values that the schema at a pointer allows for a member, directly or by a reference.
fn allowed<'a>(openapi: &'a Value, pointer: &str, member: &str) -> Vec<&'a str> {
    let schema = openapi.pointer(pointer).unwrap();
    let own = &schema["properties"][member];
    let values = own["enum"].as_array().into_iter().flatten().chain([&own["const"]]).filter_map(Value::as_str);
    match schema["$ref"].as_str() {
        Some(reference) if own.is_null() => allowed(openapi, &reference[1..], member),
        _ => values.collect(),
    }
}

#[test]
fn documents_exactly_the_answers_of_the_code() {
    let openapi = today("openapi.yaml");
    let responses = &openapi["paths"][PATH]["post"]["responses"];
    let [mut said, mut documented] = [BTreeSet::new(), BTreeSet::new()];
    for outcome in answers() {
        let answer = outcome.response(Some("evt_1"));
        let status = answer.status().as_str().to_owned();
        let header = |name: &str| answer.headers()[name].to_str().unwrap();
        let pointer = pointer(&status, header("content-type"));
        assert!(openapi.pointer(&pointer).is_some(), "the document lacks {outcome:?}: {pointer}");
        let closed = json!({ "$ref": format!("openapi.yaml#{pointer}"), "unevaluatedProperties": false });
        let body: Value = serde_json::from_str(answer.body()).unwrap();
        assert_eq!(flaws(&validator(CONTRACTS, closed), &body), "", "{outcome:?}");

        let declared = responses[&status]["headers"].as_object().into_iter().flatten();
        for (name, declared) in declared.clone() {
            let declared = declared["$ref"].as_str().map_or(declared, |reference| part(&openapi, &reference[1..]));
            let value = header(name).parse::<u64>().map_or_else(|_| json!(header(name)), |number| json!(number));
            assert_eq!(flaws(&validator(CONTRACTS, declared["schema"].clone()), &value), "", "{outcome:?}: {name}");
        }
        let sent = answer.headers().keys().filter(|name| *name != "content-type");
        let sent: BTreeSet<_> = sent.map(|name| name.as_str().to_owned()).collect();
        assert_eq!(sent, declared.map(|(name, _)| name.to_lowercase()).collect(), "{outcome:?}");
        let row = outcome.row();
        said.insert((status, row.outcome, row.reason));
    }
    // `default` is for the gateway's own answers.
    for (status, response) in responses.as_object().unwrap().iter().filter(|(status, _)| *status != "default") {
        for (media_type, media) in response["content"].as_object().unwrap() {
            let pointer = pointer(status, media_type);
            let reasons = allowed(&openapi, &pointer, "reason");
            let reasons = if reasons.is_empty() { vec![None] } else { reasons.into_iter().map(Some).collect() };
            for outcome in allowed(&openapi, &pointer, "outcome") {
                documented.extend(reasons.iter().map(|reason| (status.clone(), outcome, *reason)));
            }
            for (name, example) in media["examples"].as_object().into_iter().flatten() {
                let schema = schema(CONTRACTS, &format!("openapi.yaml#{pointer}"));
                assert_eq!(flaws(&schema, &example["value"]), "", "{status}: {name}");
            }
        }
    }
    assert_eq!(said, documented);
}

#[test]
fn names_the_version_limits_and_statuses_of_the_code() {
    let openapi = today("openapi.yaml");
    assert_eq!(openapi["info"]["version"], env!("CARGO_PKG_VERSION"));
    let body = openapi["paths"][PATH]["post"]["requestBody"]["description"].as_str().unwrap().replace(',', "");
    assert!(body.contains(&MAX_BODY.to_string()), "{body}");
    let change = &openapi["components"]["schemas"]["LeadStatusChanged"]["properties"];
    assert_eq!(change["data"]["properties"]["newStatus"]["examples"], json!(STATUSES));
    assert_eq!(openapi["components"]["schemas"]["Event"]["properties"]["eventId"]["maxLength"], event::MAX_EVENT_ID);
}

#[test]
fn genuine_requests_match_the_document() {
    let openapi = today("openapi.yaml");
    let schemes = &openapi["components"]["securitySchemes"];
    let sets = openapi["paths"][PATH]["post"]["security"].as_array().unwrap();
    let has = |payload: &Value, set: &Value| {
        let mut schemes = set.as_object().unwrap().keys().map(|scheme| &schemes[scheme]["name"]);
        schemes.all(|name| !payload["headers"][name.as_str().unwrap()].is_null())
    };
    let mut used = BTreeSet::new();
    for name in files() {
        let (request, now) = file(&name);
        let fitting = sets.iter().position(|set| has(&payload(&name), set));
        match verify(request.headers(), request.body(), &secrets(), now) {
            Ok(verified) => {
                used.insert(fitting.unwrap_or_else(|| panic!("the document does not name the headers of {name}")));
                let body = serde_json::from_slice(request.body());
                let valid = body.is_ok_and(|body| schema(CONTRACTS, EVENT).is_valid(&body));
                assert_eq!(valid, event::parse(&verified).is_ok(), "{name}");
            }
            Err(rejection) => assert_eq!(fitting.is_none(), rejection == Rejection::Unsigned, "{name}"),
        }
    }
    assert_eq!(used.len(), sets.len(), "events/ should have a request for every set of headers");
}

/// Returns the example bodies of the document.
fn examples() -> Vec<Value> {
    let openapi = today("openapi.yaml");
    let examples = &openapi["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["examples"];
    examples.as_object().unwrap().values().map(|example| example["value"].clone()).collect()
}

fn parsed(body: &Value) -> Result<Event, Malformed> {
    let body = body.to_string();
    let now = Timestamp::from_millis(1_708_770_605_000);
    let headers = headers(&standard("svix", SECRET, "msg_1", now.as_secs(), body.as_bytes()));
    event::parse(&verify(&headers, body.as_bytes(), &secrets(), now).unwrap())
}

#[test]
fn example_bodies_are_events() {
    let examples = examples();
    assert_eq!(examples.len(), 5);
    for body in examples {
        assert_eq!(flaws(&schema(CONTRACTS, EVENT), &body), "");
        assert_eq!(json!(parsed(&body).unwrap().event_type), body["eventType"]);
    }
}

proptest! {
    #[test]
    fn accepts_every_event_of_the_document(
        mut body in select(examples()),
        changes in proptest::collection::vec((any::<Index>(), any::<Option<Index>>()), 0..4),
    ) {
        let others = [
            json!(null), json!(0), json!([]), json!({}), json!(""), json!("x"), json!("x".repeat(256)), json!("x".repeat(257)),
            json!("lead.updated"), json!("lead.tag.updated"), json!("OPPORTUNITY"), json!(" Lead.Updated"), json!("LEAD.TAG.UPDATED "), json!(" \u{a0}"), json!({ "leadId": "l", "newStatus": "DONE" }),
        ];
        for (place, other) in changes {
            let inner = body["data"].as_object().into_iter().flatten().map(|(name, _)| ("/data", name.clone()));
            let places: Vec<_> = body.as_object().unwrap().keys().map(|name| ("", name.clone())).chain(inner).collect();
            if places.is_empty() {
                break;
            }
            let (parent, name) = place.get(&places);
            let object = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            match other {
                Some(other) => drop(object.insert(name.clone(), other.get(&others).clone())),
                None => drop(object.remove(name)),
            }
        }
        let flaws = flaws(&schema(CONTRACTS, EVENT), &body);
        match parsed(&body) {
            Ok(_) => {}
            Err(malformed) => prop_assert!(!flaws.is_empty(), "{} is {}", body, malformed),
        }
    }
}
