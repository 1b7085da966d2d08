//! The rules that the variables set: the statuses and tags that alert, the CRM stage of a status,
//! and the messages to the lead status stream. An error names the variable and its entry.

use std::collections::BTreeMap;
use std::fs;

use crate::support::requests::{self, Deliveries, SECRET, change, file, files, headers, secrets, standard};
use opportunity_alerts::config::{Config, ConfigError};
use opportunity_alerts::message::details::{Details, LastReply};
use opportunity_alerts::message::key::LockKey;
use opportunity_alerts::message::pipeline::Pipeline;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::message::{Delivery, Known, Locks, Message};
use opportunity_alerts::sendpilot::api::Lead;
use opportunity_alerts::sendpilot::event::{Event, Malformed, Origin, parse};
use opportunity_alerts::sendpilot::signature::verify;
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use sendpilot_events::{STAGES, STATUSES, UNKNOWN_STAGE};
use serde_json::{Value, json};

fn configured(variables: &[(&str, &str)]) -> Result<Rules, ConfigError> {
    let variable = |name: &str| {
        let given = variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        given.or(match name {
            "ALERTS_TABLE_NAME" => Some("deliveries".into()),
            "ALERTS_TOPIC_ARN" => Some("arn:aws:sns:us-east-1:123456789012:alerts".into()),
            _ => None,
        })
    };
    Config::read(variable)?.rules(variable)
}

fn try_due(rules: &Rules, body: &Value) -> Result<Deliveries, Malformed> {
    let body = body.to_string();
    let headers = headers(&standard("svix", SECRET, "msg_1", 1, body.as_bytes()));
    let verified = verify(&headers, body.as_bytes(), &secrets(), Timestamp::from_millis(1000)).unwrap();
    requests::due(rules, &parse(&verified).unwrap())
}

fn due(rules: &Rules, body: &Value) -> Deliveries {
    try_due(rules, body).unwrap()
}

fn from_to(previous: &str, new: &str) -> Value {
    let mut body: Value = serde_json::from_str(&change("evt_1", new)).unwrap();
    body["data"]["previousStatus"] = previous.into();
    body
}

fn tagged(previous: Value, new: Value) -> Value {
    json!({
        "eventId": "evt_1", "eventType": "lead.tag.updated", "timestamp": "2024-02-24T10:30:00.000Z",
        "workspaceId": "ws_abc123xyz",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousTag": previous, "newTag": new,
        },
    })
}

/// Returns the subject and the bodies of an alert. JSON bodies are parsed.
fn read(delivery: Delivery) -> (String, BTreeMap<String, Value>) {
    let Message::Alert { subject, body } = delivery.message else { panic!("no alert") };
    let bodies: BTreeMap<String, String> = serde_json::from_str(&body).unwrap();
    let value = |body: String| serde_json::from_str(&body).unwrap_or(Value::String(body));
    (subject, bodies.into_iter().map(|(protocol, body)| (protocol, value(body))).collect())
}

#[test]
fn by_default_only_an_opportunity_alerts() {
    assert_eq!(configured(&[]).unwrap(), Rules::default());
    let empty = ["STATUS_TOPIC_ARN", "STATUS_PIPELINE", "ALERT_STATUSES", "ALERT_TAGS", "DEBOUNCE_MINUTES"];
    assert_eq!(configured(&empty.map(|name| (name, " "))).unwrap(), Rules::default());
    for status in STATUSES {
        let Deliveries { alert, status: stream } = due(&Rules::default(), &from_to("X", status));
        assert_eq!((alert.is_some(), stream), (status == "OPPORTUNITY", None), "{status}");
    }
    assert_eq!(due(&Rules::default(), &tagged(json!(null), json!("Hot"))), Deliveries::default());
}

#[test]
fn alert_statuses_are_a_list() {
    let rules = configured(&[("ALERT_STATUSES", "OPPORTUNITY, MEETING_BOOKED,")]).unwrap();
    for (previous, new, alerts) in [
        ("REPLY_RECEIVED", "OPPORTUNITY", true),
        ("OPPORTUNITY", "MEETING_BOOKED", true),
        ("MEETING_BOOKED", "OPPORTUNITY", true),
        ("MEETING_BOOKED", "MEETING_BOOKED", false),
        ("OPPORTUNITY", "DONE", false),
    ] {
        assert_eq!(due(&rules, &from_to(previous, new)).alert.is_some(), alerts, "{previous} -> {new}");
    }
    let rules = configured(&[("ALERT_STATUSES", "MEETING_BOOKED")]).unwrap();
    assert_eq!(due(&rules, &from_to("REPLY_RECEIVED", "OPPORTUNITY")).alert, None);
}

#[test]
fn an_alert_names_its_status() {
    let rules =
        configured(&[("ALERT_STATUSES", "MEETING_BOOKED"), ("STATUS_PIPELINE", "MEETING_BOOKED=demo")]).unwrap();
    let (subject, bodies) = read(due(&rules, &from_to("OPPORTUNITY", "MEETING_BOOKED")).alert.unwrap());
    assert_eq!(subject, "Meeting booked: John Doe");
    assert_eq!(bodies["sms"], "Meeting booked: John Doe https://www.linkedin.com/in/john-doe");
    let email = bodies["email"].as_str().unwrap();
    assert!(email.starts_with("John Doe now has the status \"Meeting booked\".\n"), "{email}");
    assert!(email.contains("\nOpportunity → Meeting booked\n"), "{email}");
    assert_eq!(bodies["https"]["content"]["title"], "Meeting booked: John Doe");
    assert_eq!(bodies["default"]["type"], "sendpilot.lead.status_reached");
    assert_eq!(bodies["https"]["metadata"]["eventType"], "sendpilot.lead.status_reached");
    assert_eq!(bodies["default"]["data"]["crmStage"], "demo");
}

#[test]
fn alert_tags_are_a_list_ignoring_case() {
    let rules = configured(&[("ALERT_TAGS", "Hot Lead, demo")]).unwrap();
    for (previous, new, alerts) in [
        (json!(null), json!("Hot Lead"), true),
        (json!("cold"), json!("hot lead "), true),
        (json!("demo"), json!("HOT LEAD"), true),
        (json!("demo"), json!("\u{feff}hot lead\u{200b}"), true),
        (json!("\u{2060}Hot Lead"), json!("Hot Lead"), false),
        (json!("Hot lead"), json!("Hot Lead"), false),
        (json!(null), json!("Hot Leads"), false),
        (json!("Hot Lead"), json!(null), false),
        (json!(null), json!(7), false),
    ] {
        assert_eq!(due(&rules, &tagged(previous.clone(), new.clone())).alert.is_some(), alerts, "{previous} -> {new}");
    }
    let (subject, bodies) = read(due(&rules, &tagged(json!("cold"), json!("Hot Lead"))).alert.unwrap());
    assert_eq!(subject, "Tagged Hot Lead: John Doe");
    let email = bodies["email"].as_str().unwrap();
    assert!(email.starts_with("John Doe now has the tag \"Hot Lead\".\n"), "{email}");
    assert!(email.contains("\nTag: cold → Hot Lead\n"), "{email}");
    let card = bodies["https"]["content"]["description"].as_str().unwrap();
    assert!(card.contains("\n*Tag:* cold → Hot Lead\n"), "{card}");
    let expected = json!({
        "specversion": "1.0", "id": "evt_1", "source": "urn:sendpilot:workspace:ws_abc123xyz",
        "type": "sendpilot.lead.tagged", "subject": "lead_abc123", "time": "2024-02-24T10:30:00Z",
        "datacontenttype": "application/json",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousTag": "cold", "newTag": "Hot Lead",
        },
    });
    assert_eq!(bodies["default"], expected);
}

#[test]
fn only_an_alerting_tag_needs_a_lead_id() {
    let rules = configured(&[("ALERT_TAGS", "hot")]).unwrap();
    let mut without_lead = tagged(json!(null), json!("hot"));
    without_lead["data"]["leadId"] = json!(null);
    assert!(matches!(try_due(&rules, &without_lead), Err(Malformed::Required("data.leadId"))));
    without_lead["data"]["newTag"] = json!("cold");
    assert_eq!(due(&rules, &without_lead), Deliveries::default());
    for data in [json!(null), json!(7), json!([])] {
        without_lead["data"] = data;
        assert_eq!(due(&rules, &without_lead), Deliveries::default());
    }
}

#[test]
fn debounces_per_lead_and_status_or_tag() {
    let rules = configured(&[("DEBOUNCE_MINUTES", "5"), ("ALERT_TAGS", "hot")]).unwrap();
    let key = |body: &Value| due(&rules, body).alert.unwrap().locks.debounce.unwrap().as_str().to_owned();
    assert_eq!(key(&from_to("X", "OPPORTUNITY")), "ws_abc123xyz#lead_abc123#OPPORTUNITY#quiet");
    assert_eq!(key(&tagged(json!(null), json!(" HOT"))), "ws_abc123xyz#lead_abc123#hot#quiet-tag");
    assert_eq!(due(&Rules::default(), &from_to("X", "OPPORTUNITY")).alert.unwrap().locks.debounce, None);
}

#[test]
fn the_pipeline_is_sendpilots_unless_configured() {
    let sendpilots = configured(&[]).unwrap().pipeline;
    for (status, stage) in STAGES.into_iter().chain([("MEETING_BOOKED", UNKNOWN_STAGE), ("", UNKNOWN_STAGE)]) {
        assert_eq!(sendpilots.stage(status), stage);
    }
    let own = |text| configured(&[("STATUS_PIPELINE", text)]).unwrap().pipeline;
    let list = own("OPPORTUNITY=Sales qualified, MEETING_BOOKED = demo,");
    assert_eq!(list, own(r#" {"OPPORTUNITY": "Sales qualified", "MEETING_BOOKED": "demo"}"#));
    assert_eq!(
        ["OPPORTUNITY", "MEETING_BOOKED", "DONE"].map(|status| list.stage(status)),
        ["Sales qualified", "demo", "unknown"]
    );
    assert_eq!(Pipeline::default(), sendpilots);
}

#[test]
fn errors_name_the_variable_and_the_entry() {
    for (variable, value, complaint) in [
        ("STATUS_TOPIC_ARN", "status", "STATUS_TOPIC_ARN must be the ARN of an SNS topic"),
        ("DEBOUNCE_MINUTES", "soon", "DEBOUNCE_MINUTES must be a whole number from 0 to 1440"),
        ("DEBOUNCE_MINUTES", "1441", "DEBOUNCE_MINUTES must be a whole number from 0 to 1440"),
        ("ALERT_STATUSES", "OPPORTUNITY,Meeting booked", r#"ALERT_STATUSES has the entry "Meeting booked"; "#),
        (
            "STATUS_PIPELINE",
            "OPPORTUNITY",
            r#"STATUS_PIPELINE has the entry "OPPORTUNITY", which must be STATUS=stage"#,
        ),
        ("STATUS_PIPELINE", "to do=won", r#"STATUS_PIPELINE has the status "to do", which must be letters"#),
        ("STATUS_PIPELINE", "DONE=won,done=won", "STATUS_PIPELINE has the status done twice"),
        ("STATUS_PIPELINE", r#"{"Done": "a", "DONE": "b"}"#, "STATUS_PIPELINE has the status DONE twice"),
        ("STATUS_PIPELINE", "DONE=", "STATUS_PIPELINE has an unusable stage for DONE: "),
        ("STATUS_PIPELINE", "DONE=a,DONE=b", "STATUS_PIPELINE has the status DONE twice"),
        ("STATUS_PIPELINE", r#"{"DONE": "a", "DONE": "b"}"#, "STATUS_PIPELINE has the status DONE twice"),
        ("STATUS_PIPELINE", r#"{"DONE": 7}"#, "STATUS_PIPELINE has an unusable stage for DONE: a stage must be text"),
        (
            "STATUS_PIPELINE",
            r#"{"DONE": "a""#,
            "STATUS_PIPELINE must be STATUS=stage,... or a JSON object of stages by status (line 1,",
        ),
    ] {
        let error = configured(&[(variable, value)]).unwrap_err().to_string();
        assert!(error.starts_with(complaint), "{value}: {error}");
    }
}

#[test]
fn variables_take_a_status_in_any_case() {
    let stream = ("STATUS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:status");
    let rules = |statuses, pipeline| {
        configured(&[stream, ("ALERT_STATUSES", statuses), ("STATUS_PIPELINE", pipeline), ("DEBOUNCE_MINUTES", "5")])
    };
    let canonical = rules("OPPORTUNITY,NEGOTIATION_2", "OPPORTUNITY=sql,NEGOTIATION_2=deal").unwrap();
    for (statuses, pipeline) in [
        ("opportunity,negotiation_2", "opportunity=sql,negotiation_2=deal"),
        ("Opportunity, Negotiation_2", r#"{"Opportunity": "sql", "Negotiation_2": "deal"}"#),
    ] {
        assert_eq!(rules(statuses, pipeline).unwrap(), canonical);
    }
    // An undocumented status keeps its letter case, and the rules ignore letter case.
    for (previous, new, alerts) in [
        ("OPPORTUNITY", "negotiation_2", true),
        ("Opportunity", " Negotiation_2 ", true),
        ("NEGOTIATION_2", "negotiation_2", false),
        (" negotiation_2", "Negotiation_2", false),
    ] {
        let Deliveries { alert, status } = due(&canonical, &from_to(previous, new));
        assert_eq!(alert.is_some(), alerts, "{previous} -> {new}");
        let Message::Status { attributes, .. } = status.unwrap().message else {
            panic!("expected a message to the stream")
        };
        assert_eq!((attributes["newStatus"].as_str(), attributes["crmStage"].as_str()), (new.trim(), "deal"));
    }
    let key = |status| due(&canonical, &from_to("X", status)).alert.unwrap().locks.debounce;
    assert_eq!(key("negotiation_2"), key("NEGOTIATION_2"));
}

/// Generates the text in random letter case, between blanks and invisible characters.
fn variants(text: &'static str) -> impl Strategy<Value = String> {
    let blanks = || "[ \\t\\n\u{a0}\u{2003}\u{200b}\u{feff}]{0,3}";
    (blanks(), proptest::collection::vec(any::<bool>(), text.len()), blanks()).prop_map(
        move |(before, upper, after)| {
            let cased = text.chars().zip(upper).map(|(letter, upper)| match upper {
                true => letter.to_ascii_uppercase(),
                false => letter.to_ascii_lowercase(),
            });
            format!("{before}{}{after}", cased.collect::<String>())
        },
    )
}

fn name_and_variant(names: &'static [&'static str]) -> impl Strategy<Value = (&'static str, String)> {
    select(names).prop_flat_map(|name| variants(name).prop_map(move |text| (name, text)))
}

proptest! {
    #[test]
    fn case_and_blanks_do_not_change_messages(
        (name, name_variant) in name_and_variant(&["lead.status.changed", "lead.updated", "lead.renamed", "message.sent"]),
        (previous, previous_variant) in name_and_variant(&STATUSES),
        (new, new_variant) in name_and_variant(&STATUSES),
    ) {
        let rules = configured(&[
            ("STATUS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:status"),
            ("ALERT_STATUSES", "Opportunity,meeting_booked"),
            ("DEBOUNCE_MINUTES", "5"),
        ]).unwrap();
        let published = |name: &str, previous: &str, new: &str| {
            let mut body = from_to(previous, new);
            body["eventType"] = name.into();
            let Deliveries { alert, status } = due(&rules, &body);
            [alert, status].map(|delivery| delivery.map(|Delivery { id, message, locks, .. }| (id, message, locks)))
        };
        let canonical = published(name, previous, new);
        prop_assert_eq!(canonical[0].is_some(), name != "message.sent" && new != previous && ["OPPORTUNITY", "MEETING_BOOKED"].contains(&new));
        prop_assert_eq!(canonical[1].is_some(), name != "message.sent");
        prop_assert_eq!(published(&name_variant, &previous_variant, &new_variant), canonical);
    }
}

/// The golden files are in `events/statuses/` and, for attributes and group, in
/// `events/attributes/`. To update them, run `UPDATE_GOLDEN=1 cargo test --test behaviour rules::`.
#[test]
fn every_stream_message_matches_its_golden_file() {
    let rules = configured(&[("STATUS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:status")]).unwrap();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut messages = 0;
    for name in files() {
        let (request, now) = file(&name);
        let Ok(verified) = verify(request.headers(), request.body(), &secrets(), now) else { continue };
        let Ok(event) = parse(&verified) else { continue };
        let Some(delivery) = requests::due(&rules, &event).unwrap().status else { continue };
        let Message::Status { body, attributes, group, .. } = delivery.message else {
            panic!("expected a message to the stream")
        };
        let filtered_by = json!({"MessageAttributes": attributes, "MessageGroupId": group});
        for (folder, value) in [("statuses", serde_json::from_str(&body).unwrap()), ("attributes", filtered_by)] {
            let path = format!("events/{folder}/{name}.json");
            let text = serde_json::to_string_pretty::<Value>(&value).unwrap() + "\n";
            if update {
                fs::create_dir_all(format!("events/{folder}")).unwrap();
                fs::write(&path, &text).unwrap();
            }
            assert_eq!(text, fs::read_to_string(&path).unwrap(), "{path}");
        }
        assert!(attributes.len() <= 7 && attributes.values().all(|value| !value.is_empty()), "{attributes:?}");
        messages += 1;
    }
    assert!(messages >= 10, "{messages}");
}

#[test]
fn a_reply_needs_no_delivery() {
    let rules = configured(&[
        ("ALERT_STATUSES", "OPPORTUNITY,REPLY_RECEIVED"),
        ("ALERT_TAGS", "hot"),
        ("STATUS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:status"),
    ]);
    let rules = rules.unwrap();
    for body in [requests::reply("evt_1", "lead_1", "Yes!"), json!({"eventType": "reply.received"})] {
        assert_eq!(due(&rules, &body), Deliveries::default(), "{body}");
    }
}

/// A retry may find other details. The retry must still be the same delivery.
#[test]
fn only_the_message_of_an_alert_depends_on_the_details() {
    let rules = configured(&[("ALERT_TAGS", "hot"), ("DEBOUNCE_MINUTES", "5")]).unwrap();
    let lead = Lead { company: Some("Acme".into()), ..Lead::default() };
    let last_reply = LastReply::new("Yes!", Timestamp::from_millis(0));
    let details = Details { lead: Some(lead), campaign_name: Some("Spring".into()), last_reply };
    for body in [from_to("REPLY_RECEIVED", "OPPORTUNITY"), tagged(json!(null), json!("hot"))] {
        let body = body.to_string();
        let headers = headers(&standard("svix", SECRET, "msg_1", 1, body.as_bytes()));
        let verified = verify(&headers, body.as_bytes(), &secrets(), Timestamp::from_millis(1000)).unwrap();
        let event = parse(&verified).unwrap();
        let alert = rules.due(&event).unwrap().alert.unwrap();
        let asked_for = (alert.workspace_id(), alert.lead_id(), alert.campaign_id());
        assert_eq!(asked_for, (Some("ws_abc123xyz"), "lead_abc123", Some("camp_xyz789")));
        let [without, with] = [&Details::default(), &details].map(|details| alert.delivery(details));
        assert_ne!(without.message, with.message);
        assert_eq!(Delivery { message: with.message.clone(), ..without }, with);
    }
}

/// Returns an event with this content, whose origin is the webhook or the reconciliation.
fn event(body: &Value, origin: Origin) -> Event {
    let body = body.to_string();
    let headers = headers(&standard("svix", SECRET, "msg_1", 1, body.as_bytes()));
    let verified = verify(&headers, body.as_bytes(), &secrets(), Timestamp::from_millis(1000)).unwrap();
    Event { origin, ..parse(&verified).unwrap() }
}

#[test]
fn an_alert_has_the_locks_of_its_origin() {
    let at = Timestamp::from_millis;
    let rules = |reconcile, minutes| {
        let tags = ("ALERT_TAGS", "hot");
        configured(&[("RECONCILE", reconcile), ("DEBOUNCE_MINUTES", minutes), tags]).unwrap()
    };
    let status = from_to("REPLY_RECEIVED", "OPPORTUNITY");
    let debounce = || Some(LockKey::debounce_status(Some("ws_abc123xyz"), "lead_abc123", "OPPORTUNITY"));
    let known = |at, until| {
        let key = LockKey::known("lead_abc123", "OPPORTUNITY");
        Some(Known { key, at: Timestamp::from_millis(at), until: Timestamp::from_millis(until) })
    };
    let occurred_at = 1_708_770_600_000;
    let found = Origin::Reconciliation { until: at(5000) };
    for (reconcile, minutes, origin, locks) in [
        ("no", "0", Origin::Webhook, Locks { debounce: None, known: None }),
        ("no", "5", Origin::Webhook, Locks { debounce: debounce(), known: None }),
        ("yes", "0", Origin::Webhook, Locks { debounce: None, known: known(occurred_at, 1) }),
        ("yes", "5", Origin::Webhook, Locks { debounce: debounce(), known: known(occurred_at, 1) }),
        // An alert of the reconciliation takes no debounce lock, and always makes its lead known.
        ("no", "5", found, Locks { debounce: None, known: known(0, 5000) }),
        ("yes", "5", found, Locks { debounce: None, known: known(0, 5000) }),
    ] {
        let delivery = requests::due(&rules(reconcile, minutes), &event(&status, origin)).unwrap().alert.unwrap();
        assert_eq!(delivery.locks, locks, "{reconcile}, {minutes}, {origin:?}");
    }
    // The reconciliation does not read tags.
    for origin in [Origin::Webhook, found] {
        let tag = event(&tagged(json!(null), json!("Hot ")), origin);
        let locks = requests::due(&rules("yes", "0"), &tag).unwrap().alert.unwrap().locks;
        assert_eq!(locks, Locks::default(), "{origin:?}");
    }
}

/// An event whose time is missing or before 1970 is never suppressed by the baseline or by another
/// webhook.
#[test]
fn a_known_lead_needs_no_time() {
    let rules = configured(&[("RECONCILE", "yes")]).unwrap();
    for (time, at) in [
        (json!(null), u64::MAX),
        (json!("yesterday"), u64::MAX),
        (json!("1900-01-01T00:00:00Z"), 1),
        (json!("1970-01-01T00:00:00Z"), 1),
        (json!("1970-01-01T00:00:00.002Z"), 2),
        (json!("2024-02-24T12:30:00+02:00"), 1_708_770_600_000),
    ] {
        let mut body = from_to("REPLY_RECEIVED", "OPPORTUNITY");
        body["timestamp"] = time.clone();
        let locks = due(&rules, &body).alert.unwrap().locks;
        assert_eq!(locks.known.unwrap().at, Timestamp::from_millis(at), "{time}");
    }
}

#[test]
fn the_key_of_a_known_lead_names_only_lead_and_status() {
    let rules = configured(&[("RECONCILE", "yes"), ("ALERT_STATUSES", "OPPORTUNITY,negotiation")]).unwrap();
    let key = |change: &dyn Fn(&mut Value)| {
        let mut body = from_to("REPLY_RECEIVED", "OPPORTUNITY");
        change(&mut body);
        due(&rules, &body).alert.unwrap().locks.known.unwrap().key
    };
    let usual = key(&|_| ());
    assert!(!usual.as_str().contains("lead_abc123") && usual.as_str().ends_with("#OPPORTUNITY#known"), "{usual:?}");
    for same in [
        key(&|body| body["workspaceId"] = "ws_2".into()),
        key(&|body| drop(body.as_object_mut().unwrap().remove("workspaceId"))),
        key(&|body| body["data"]["campaignId"] = "camp_2".into()),
        key(&|body| body["data"]["newStatus"] = " opportunity".into()),
        key(&|body| body["eventId"] = "evt_2".into()),
    ] {
        assert_eq!(same, usual);
    }
    assert_ne!(key(&|body| body["data"]["leadId"] = "lead_2".into()), usual);
    let other = [" Negotiation", "NEGOTIATION"].map(|status| key(&|body| body["data"]["newStatus"] = status.into()));
    assert!(other[0] == other[1] && other[0] != usual, "{other:?}");
}

#[test]
fn the_reconciliation_reads_the_same_statuses() {
    let all = [
        ("ALERT_STATUSES", "opportunity, MEETING_BOOKED"),
        ("ALERT_TAGS", "hot"),
        ("STATUS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:status"),
        ("STATUS_PIPELINE", "OPPORTUNITY=sql"),
    ];
    let variable = |name: &str| {
        let given = all.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        given
            .or((name == "ALERTS_TABLE_NAME").then(|| "deliveries".into()))
            .or((name == "ALERTS_TOPIC_ARN").then(|| "arn:aws:sns:us-east-1:123456789012:alerts".into()))
    };
    let config = Config::read(variable).unwrap();
    let (rules, reconciled) = (config.rules(variable).unwrap(), config.reconciled_rules(variable).unwrap());
    assert_eq!(reconciled.alert_statuses, ["OPPORTUNITY", "MEETING_BOOKED"]);
    assert_eq!((&reconciled.alert_statuses, &reconciled.pipeline), (&rules.alert_statuses, &rules.pipeline));
    let body = from_to("REPLY_RECEIVED", "OPPORTUNITY");
    let found = Origin::Reconciliation { until: Timestamp::from_millis(5000) };
    let Deliveries { alert, status } = requests::due(&reconciled, &event(&body, found)).unwrap();
    assert!(alert.is_some() && status.is_none(), "a missed lead should cause no message to the stream");
}

#[test]
fn reconcile_is_yes_or_no() {
    for (text, expected) in [("yes", true), ("no", false), ("", false), (" yes ", true)] {
        assert_eq!(configured(&[("RECONCILE", text)]).unwrap().reconcile, expected, "{text:?}");
    }
    assert!(!configured(&[]).unwrap().reconcile);
    for text in ["true", "1", "Yes", "on"] {
        let error = configured(&[("RECONCILE", text)]).unwrap_err();
        assert_eq!(
            (error.to_string(), error),
            ("RECONCILE must be yes or no".into(), ConfigError::YesOrNo("RECONCILE"))
        );
    }
}
