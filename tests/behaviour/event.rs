//! Parsing of SendPilot's events: both event names, optional fields, unknown statuses and types,
//! and errors that name the missing field.

use crate::support::requests::{SECRET, documented, headers, secrets, standard};
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::sendpilot::event::{self, Event, Kind, Malformed, Reply, StatusChange};
use opportunity_alerts::sendpilot::signature::verify;
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use sendpilot_events::STATUSES;
use serde_json::{Value, json};

/// Verifies and parses a body, under a scheme with a message id and a scheme without.
fn read(body: &[u8]) -> [Result<Event, Malformed>; 2] {
    [standard("svix", SECRET, "msg_standin", 1, body), documented(SECRET, 1, body)].map(|pairs| {
        let headers = headers(&pairs);
        event::parse(&verify(&headers, body, &secrets(), Timestamp::from_millis(1000)).unwrap())
    })
}

fn parse(body: &Value) -> Result<Event, Malformed> {
    let [event, _] = read(body.to_string().as_bytes());
    event
}

fn full() -> Value {
    serde_json::from_str(&crate::support::requests::opportunity("evt_1")).unwrap()
}

fn change(event: Event) -> StatusChange {
    match event.kind {
        Kind::StatusChanged(change) => change,
        Kind::TagChanged(_) | Kind::Replied(_) | Kind::Other => panic!("expected a lead status change"),
    }
}

/// Returns whether an alert is due under the default rules.
fn alerts(event: &Event) -> bool {
    let event = Event { id: Some("evt_1".into()), ..event.clone() };
    Rules::default().due(&event).unwrap().alert.is_some()
}

#[test]
fn both_event_names_mean_the_same() {
    let mut newer = full();
    newer["eventType"] = "lead.updated".into();
    let newer = parse(&newer).unwrap();
    assert_eq!(newer.event_type, "lead.updated");
    assert_eq!(parse(&full()).unwrap(), Event { event_type: "lead.status.changed".into(), ..newer });
}

#[test]
fn reads_all_fields() {
    let event = parse(&full()).unwrap();
    assert_eq!(event.id.as_deref(), Some("evt_1"));
    assert_eq!(event.workspace_id.as_deref(), Some("ws_abc123xyz"));
    assert_eq!(event.occurred_at.unwrap().unix_timestamp(), 1_708_770_600);
    let expected = StatusChange {
        lead_id: "lead_abc123".into(),
        campaign_id: Some("camp_xyz789".into()),
        linkedin_url: Some("https://www.linkedin.com/in/john-doe".into()),
        previous_status: Some("REPLY_RECEIVED".into()),
        new_status: "OPPORTUNITY".into(),
        changed_by: Some("api".into()),
    };
    assert_eq!(change(event), expected);
}

#[test]
fn optional_fields_may_be_missing_null_empty_or_new() {
    let fields = [
        "/timestamp",
        "/workspaceId",
        "/data/campaignId",
        "/data/linkedinUrl",
        "/data/previousStatus",
        "/data/changedBy",
    ];
    for field in fields {
        for value in [json!(null), json!(""), json!([1]), json!({"a": "b"}), json!(true)] {
            let mut body = full();
            *body.pointer_mut(field).unwrap() = value;
            let event = parse(&body).unwrap_or_else(|error| panic!("{field}: {error}"));
            assert!(alerts(&event), "{field}");
        }
    }
    let minimal = json!({"eventType": "lead.updated", "data": {"leadId": "lead_1", "newStatus": "OPPORTUNITY"}});
    assert!(alerts(&parse(&minimal).unwrap()));
}

#[test]
fn falls_back_to_the_signed_message_id() {
    for id in [json!(null), json!("")] {
        let mut body = full();
        body["eventId"] = id;
        let [standard, documented] = read(body.to_string().as_bytes()).map(|event| event.unwrap().id);
        assert_eq!((standard.as_deref(), documented), (Some("msg_standin"), None));
    }
}

#[test]
fn keeps_unknown_statuses_and_ignores_unknown_types() {
    let mut body = full();
    body["data"]["newStatus"] = "NEGOTIATION_STARTED".into();
    assert_eq!(change(parse(&body).unwrap()).new_status, "NEGOTIATION_STARTED");
    for data in [json!(null), json!(7), json!({"leadId": 7})] {
        let event = parse(&json!({"eventId": "evt_1", "eventType": "campaign.started", "data": data})).unwrap();
        assert_eq!(event.kind, Kind::Other);
    }
}

#[test]
fn alerts_on_becoming_an_opportunity_not_on_staying_one() {
    for (previous, new, due) in [
        (json!("REPLY_RECEIVED"), "OPPORTUNITY", true),
        (json!(null), "OPPORTUNITY", true),
        (json!(" "), "OPPORTUNITY", true),
        (json!("opportunity"), "OPPORTUNITY", false),
        (json!("OPPORTUNITY"), "OPPORTUNITY", false),
        (json!("OPPORTUNITY"), "opportunity\n", false),
        (json!("OPPORTUNITY"), "MEETING_BOOKED", false),
        (json!("REPLY_RECEIVED"), "opportunity", true),
        (json!("REPLY_RECEIVED"), "OPPORTUNITY_LOST", false),
    ] {
        let mut body = full();
        body["data"]["previousStatus"] = previous.clone();
        body["data"]["newStatus"] = new.into();
        assert_eq!(alerts(&parse(&body).unwrap()), due, "{previous} -> {new}");
    }
}

#[test]
fn normalizes_the_case_of_known_statuses_only() {
    for known in STATUSES {
        for text in [known.to_lowercase(), format!(" {known}"), format!("\t{}\r\n", known.to_lowercase())] {
            let mut body = full();
            body["data"]["newStatus"] = text.clone().into();
            body["data"]["previousStatus"] = text.clone().into();
            let change = change(parse(&body).unwrap());
            assert_eq!(
                (change.new_status.as_str(), change.previous_status.as_deref()),
                (known, Some(known)),
                "{text:?}"
            );
        }
    }
    for (text, status) in [(" Negotiation Started ", "Negotiation Started"), ("Opportunity!", "Opportunity!")] {
        let mut body = full();
        body["data"]["newStatus"] = text.into();
        assert_eq!(change(parse(&body).unwrap()).new_status, status);
    }
}

#[test]
fn event_types_ignore_case_and_surrounding_blanks() {
    for name in ["lead.status.changed", "lead.updated", "lead.tag.updated", "message.sent", "reply.received"] {
        let plain = parse(&with_type(name.into())).unwrap();
        assert!(!plain.renamed, "{name}");
        let upper = name.to_uppercase();
        for text in [upper.clone(), format!(" {name}\n"), format!("{}{}", &upper[..1], &name[1..])] {
            let event = parse(&with_type(text.as_str().into())).unwrap();
            assert_eq!(event, Event { event_type: text.clone(), ..plain.clone() }, "{text:?}");
        }
    }
}

/// Returns an event of this type, with the data of a change of status and of a change of tag.
fn with_type(event_type: Value) -> Value {
    let mut body = full();
    body["eventType"] = event_type;
    body["data"]["newTag"] = "hot".into();
    body
}

#[test]
fn recognizes_a_renamed_change_by_its_shape() {
    let change_of_status = parse(&with_type("lead.updated".into())).unwrap();
    let mut tagged = with_type("lead.tag.updated".into());
    for nothing in [json!(null), json!(7), json!(" "), json!("")] {
        tagged["data"]["newStatus"] = nothing;
        let change_of_tag = parse(&tagged).unwrap();
        for name in [json!("lead.status.updated"), json!("x"), json!(" "), json!(""), json!(null), json!(7), json!({})]
        {
            let text = name.as_str().unwrap_or_default().to_owned();
            let renamed = |event: &Event| Event { event_type: text.clone(), renamed: true, ..event.clone() };
            assert_eq!(parse(&with_type(name.clone())).unwrap(), renamed(&change_of_status), "{name}");
            let mut tagged = tagged.clone();
            tagged["eventType"] = name.clone();
            assert_eq!(parse(&tagged).unwrap(), renamed(&change_of_tag), "{name}");
        }
    }
    let mut nameless = with_type(json!(null));
    nameless.as_object_mut().unwrap().remove("eventType");
    assert!(parse(&nameless).unwrap().renamed);
}

#[test]
fn ignores_other_known_types_and_other_shapes() {
    for name in [
        "message.sent",
        "connection.sent",
        "connection_request.sent",
        "connection.accepted",
        "connection_request.accepted",
        "campaign.started",
        "campaign.paused",
        "campaign.resumed",
        "campaign.finished",
        "lead_database.search.completed",
        "lead_extractor.job.completed",
    ] {
        let event = parse(&with_type(name.into())).unwrap();
        assert_eq!((event.kind, event.renamed), (Kind::Other, false), "{name}");
    }
    for data in [
        json!(null),
        json!([]),
        json!({"leadId": "lead_1"}),
        json!({"newStatus": "OPPORTUNITY"}),
        json!({"newTag": "hot"}),
        json!({"leadId": 7, "newStatus": "OPPORTUNITY"}),
        json!({"leadId": "", "newTag": "hot"}),
        json!({"leadId": "lead_1", "newStatus": ["OPPORTUNITY"]}),
        json!({"leadId": "lead_1", "newTag": " "}),
        json!({"leadId": "lead_1", "reply": " "}),
        json!({"leadId": "lead_1", "message": "Our own message may have this name."}),
        json!({"reply": "Yes!"}),
    ] {
        let event = parse(&json!({"eventId": "evt_1", "eventType": "lead.renamed", "data": data})).unwrap();
        assert_eq!((event.kind, event.renamed), (Kind::Other, false), "{data}");
    }
}

/// Returns the kind of an event of this type with this data, and whether its shape decided.
fn kind(event_type: &str, data: &Value) -> (Kind, bool) {
    let event = parse(&json!({"eventId": "evt_1", "eventType": event_type, "data": data})).unwrap();
    (event.kind, event.renamed)
}

#[test]
fn both_names_of_a_reply_mean_the_same() {
    let reply = |lead_id: Option<&str>, text: Option<&str>| {
        Kind::Replied(Reply { lead_id: lead_id.map(str::to_owned), text: text.map(str::to_owned) })
    };
    for (data, expected) in [
        (json!({"leadId": "lead_1", "reply": "Yes!"}), reply(Some("lead_1"), Some("Yes!"))),
        (json!({"leadId": "lead_1", "message": "Yes!"}), reply(Some("lead_1"), Some("Yes!"))),
        (json!({"leadId": "lead_1", "messagePreview": "Yes!"}), reply(Some("lead_1"), Some("Yes!"))),
        (json!({"leadId": "lead_1", "replyPreview": "Yes!"}), reply(Some("lead_1"), Some("Yes!"))),
        (
            json!({"leadId": "lead_1", "replyPreview": "Yes", "messagePreview": "Yes", "message": "Yes.", "reply": "Yes!"}),
            reply(Some("lead_1"), Some("Yes!")),
        ),
        (json!({"leadId": "lead_1", "reply": "\u{feff}\n", "message": "Yes!"}), reply(Some("lead_1"), Some("Yes!"))),
        (json!({"leadId": "lead_1", "reply": 7, "message": ["x"]}), reply(Some("lead_1"), None)),
        (json!({"leadId": null, "reply": "Yes!"}), reply(None, Some("Yes!"))),
        // A change beside a reply of a known type is not read.
        (json!({"leadId": "lead_1", "newStatus": "OPPORTUNITY", "newTag": "hot"}), reply(Some("lead_1"), None)),
        (json!(null), reply(None, None)),
        (json!([]), reply(None, None)),
        (json!("Yes!"), reply(None, None)),
    ] {
        for name in ["reply.received", "message.received", "Reply.Received "] {
            assert_eq!(kind(name, &data), (expected.clone(), false), "{name} {data}");
        }
    }
    let without_data = parse(&json!({"eventId": "evt_1", "eventType": "reply.received"})).unwrap();
    assert_eq!(without_data.kind, reply(None, None));
}

#[test]
fn recognizes_a_renamed_reply_by_its_shape() {
    let reply = || Kind::Replied(Reply { lead_id: Some("lead_1".into()), text: Some("Yes!".into()) });
    for data in [json!({"leadId": "lead_1", "reply": "Yes!"}), json!({"leadId": "lead_1", "replyPreview": "Yes!"})] {
        assert_eq!(kind("lead.replied", &data), (reply(), true), "{data}");
    }
    // An alert is worth more than a reply.
    let (status, _) = kind("x", &json!({"leadId": "lead_1", "reply": "Yes!", "newStatus": "OPPORTUNITY"}));
    assert!(matches!(status, Kind::StatusChanged(_)), "{status:?}");
    let (tag, _) = kind("x", &json!({"leadId": "lead_1", "reply": "Yes!", "newTag": "hot"}));
    assert!(matches!(tag, Kind::TagChanged(_)), "{tag:?}");
}

#[test]
fn skips_one_byte_order_mark() {
    let body = full().to_string();
    let marked = format!("\u{feff}{body}");
    assert_eq!(read(marked.as_bytes()).map(Result::unwrap), read(body.as_bytes()).map(Result::unwrap));
}

#[test]
fn errors_name_what_is_wrong() {
    let wrong = |pointer: &str, value: Value| {
        let mut body = full();
        *body.pointer_mut(pointer).unwrap() = value;
        parse(&body).unwrap_err().to_string()
    };
    for value in [json!(null), json!(""), json!(7), json!(["OPPORTUNITY"])] {
        let nameless = parse(&json!({"eventType": value, "data": {"leadId": "lead_1"}})).unwrap_err().to_string();
        assert_eq!(nameless, "eventType must be a string that is not empty");
        assert_eq!(wrong("/data/leadId", value.clone()), "data.leadId must be a string that is not empty");
        assert_eq!(wrong("/data/newStatus", value), "data.newStatus must be a string that is not empty");
    }
    for blank in [" ", "\t\n", "\u{a0}"] {
        assert_eq!(wrong("/data/newStatus", blank.into()), "data.newStatus must be a string that is not empty");
    }
    for value in [json!(null), json!([]), json!("x"), json!(["lead_1", "OPPORTUNITY"])] {
        assert_eq!(wrong("/data", value), "data must be an object");
    }
    for value in [json!(7), json!({}), json!("x".repeat(257)), json!("\u{fc}".repeat(129))] {
        assert_eq!(wrong("/eventId", value), "eventId must be a string of at most 256 bytes");
    }
    assert!(
        parse(&{
            let mut body = full();
            body["eventId"] = "x".repeat(256).into();
            body
        })
        .is_ok()
    );
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"\"lead.updated\"",
        b"[\"lead.updated\"]",
        b"{\"eventType\":",
        b"{}{}",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{\xef\xbb\xbf}",
        b"\xef\xbb{}",
    ] {
        let [error, _] = read(body).map(|event| event.unwrap_err().to_string());
        assert!(error.starts_with("the body must be a JSON object (line"), "{error}");
    }
}

#[test]
fn an_error_never_repeats_what_was_sent() {
    for body in [
        r#"{"eventType":"lead.updated","eventId":{"secret":1}}"#,
        r#"secret"#,
        r#"{"eventType":["secret"]}"#,
        "{\"secret\":\"\u{1}\"}",
    ] {
        let [error, _] = read(body.as_bytes()).map(|event| event.unwrap_err());
        let text = opportunity_alerts::error::chain(&error);
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn accepts_lone_surrogates() {
    let [event, _] = read(
        br#"{"k\ud83d":1,"eventId":"evt_1","eventType":"lead.updated","data":{"leadId":"l\ude00","newStatus":"OPPORTUNITY","x":"\ud83d"}}"#,
    );
    let event = event.unwrap();
    assert!(alerts(&event));
    assert_eq!(change(event).lead_id.chars().next(), Some('l'));
}

#[test]
fn the_last_of_repeated_keys_counts() {
    let [event, _] = read(br#"{"eventType":"x","eventType":"lead.updated","data":{"leadId":"l","newStatus":"DONE","newStatus":"OPPORTUNITY"}}"#);
    assert!(alerts(&event.unwrap()));
}

#[test]
fn reads_time_in_any_form_of_iso_8601() {
    for text in [
        "2024-02-24T10:30:00.000Z",
        "2024-02-24T10:30:00Z",
        "2024-02-24T11:30:00+01:00",
        "2024-02-24T10:30:00",
        "20240224T103000Z",
    ] {
        let mut body = full();
        body["timestamp"] = text.into();
        assert_eq!(parse(&body).unwrap().occurred_at.map(|at| at.unix_timestamp()), Some(1_708_770_600), "{text}");
    }
    for text in ["yesterday", "2024-02-30T10:30:00Z", "+999999-01-01T00:00:00Z", "-999999-01-01T00:00:00+23:59"] {
        let mut body = full();
        body["timestamp"] = text.into();
        assert!(parse(&body).is_ok(), "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&body);
    }

    #[test]
    fn never_panics_on_any_json(kind in "lead.updated|lead.status.changed|[a-z.]{0,9}", values in proptest::collection::vec(json_value(), 9)) {
        let [id, timestamp, workspace, lead, campaign, url, previous, new, by] = <[Value; 9]>::try_from(values).unwrap();
        let _ = parse(&json!({
            "eventId": id, "eventType": kind, "timestamp": timestamp, "workspaceId": workspace,
            "data": {"leadId": lead, "campaignId": campaign, "linkedinUrl": url, "previousStatus": previous, "newStatus": new, "changedBy": by},
        }));
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([[]])),
        Just(json!({"a": {}})),
    ]
}
