//! Compares the schemas and the AsyncAPI document in `docs/contracts/` with everything that the
//! code publishes, with its types, and with the promises of every release.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::contracts::{CONTRACTS, document, flaws, schema, today, validator};
use opportunity_alerts::message::Message;
use opportunity_alerts::message::details::{Details, LastReply};
use opportunity_alerts::message::pipeline::Pipeline;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::sendpilot::api::Lead;
use opportunity_alerts::sendpilot::event::{Event, Kind, Origin, StatusChange, TagChange};
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use sendpilot_events::{
    CloudEvent, LeadStatusChanged, LeadTagged, RECONCILIATION, STAGES, STATUSES, Type, UNKNOWN_STAGE,
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

const ALERT: &str = "alert.schema.json";
const STATUS: &str = "lead-status-changed.schema.json";
const ATTRIBUTES: &str = "lead-status-changed.attributes.schema.json";
const SCHEMAS: [&str; 3] = [ALERT, STATUS, ATTRIBUTES];

/// The name of a schema, and a value that must match the schema.
type Published = (&'static str, Value);

/// Returns everything that is published for an event if every option is on.
fn published(event: &Event) -> Vec<Published> {
    published_with(event, &Details::default())
}

/// Returns everything that is published for an event if these details of its lead are known. The
/// reconciliation publishes only alerts.
fn published_with(event: &Event, details: &Details) -> Vec<Published> {
    let rules = Rules {
        alert_statuses: vec!["OPPORTUNITY".into(), "MEETING_BOOKED".into()],
        alert_tags: vec!["hot".into()],
        debounce: true,
        reconcile: true,
        stream: event.origin == Origin::Webhook,
        pipeline: Pipeline::default(),
    };
    let due = rules.due(event).unwrap();
    let alert = due.alert.map(|alert| alert.delivery(details));
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let messages = [alert, due.status].into_iter().flatten().map(|delivery| delivery.message);
    messages
        .flat_map(|message| match message {
            Message::Alert { body, .. } => vec![(ALERT, json(json(&body)["default"].as_str().unwrap()))],
            Message::Status { body, attributes, .. } => vec![(STATUS, json(&body)), (ATTRIBUTES, json!(attributes))],
        })
        .collect()
}

/// Returns each golden file with its content.
fn golden() -> Vec<(PathBuf, Published)> {
    let files = |folder: &str| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let read = |name, path: PathBuf| (path.clone(), (name, document(path)));
    let alerts = files("events/alerts").into_iter().map(|folder| read(ALERT, folder.join("default.json")));
    let statuses = files("events/statuses").into_iter().map(|file| read(STATUS, file));
    let attributes = files("events/attributes").into_iter().map(|file| {
        let (path, (name, request)) = read(ATTRIBUTES, file);
        (path, (name, request["MessageAttributes"].clone()))
    });
    let golden: Vec<_> = alerts.chain(statuses).chain(attributes).collect();
    for name in SCHEMAS {
        assert!(golden.iter().any(|(_, published)| published.0 == name), "no golden file for {name}");
    }
    golden
}

/// Returns the examples of a schema.
fn examples(folder: impl AsRef<Path>, name: &'static str) -> Vec<Published> {
    let schema = document(folder.as_ref().join(name));
    schema["examples"].as_array().unwrap().iter().map(|example| (name, example.clone())).collect()
}

/// Returns the differences from the schema in this folder, one a line.
fn wrong((name, value): &Published, folder: impl AsRef<Path>) -> String {
    flaws(&schema(folder, name), value)
}

/// Returns the members, of the event, its data or its details, that today's schema does not name.
fn unnamed((name, value): &Published) -> String {
    let mut closed = json!({ "$ref": name });
    if *name == ATTRIBUTES {
        let named: Vec<_> = today(name)["properties"].as_object().unwrap().keys().cloned().collect();
        closed["propertyNames"] = json!({ "enum": named });
    } else {
        let data = match serde_json::from_value(value["type"].clone()).unwrap() {
            Type::Opportunity | Type::StatusReached => "alert.schema.json#/$defs/LeadStatusChanged",
            Type::StatusChanged => "lead-status-changed.schema.json#/$defs/LeadStatusChanged",
            Type::Tagged => "alert.schema.json#/$defs/LeadTagged",
        };
        let closed_details = ["lead", "lastReply"].map(|name| {
            let detail = format!("alert.schema.json#/$defs/Details/properties/{name}");
            (name.to_owned(), json!({ "$ref": detail, "unevaluatedProperties": false }))
        });
        let details: serde_json::Map<_, _> = closed_details.into_iter().collect();
        closed["allOf"] = json!([{ "properties": { "data": { "properties": details } } }]);
        closed["properties"] = json!({ "data": { "$ref": data, "unevaluatedProperties": false } });
        closed["unevaluatedProperties"] = false.into();
    }
    flaws(&validator(CONTRACTS, closed), value)
}

/// Returns the values of `type` that a schema allows.
fn types(schema: &Value) -> BTreeSet<&str> {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten().chain([schema]);
    alternatives.filter_map(|schema| schema["properties"]["type"]["const"].as_str()).collect()
}

/// Parses a value as a consumer does, and serializes the result.
fn read_and_written((name, value): &Published) -> serde_json::Result<Value> {
    if *name == ATTRIBUTES {
        return serde_json::to_value(BTreeMap::<String, String>::deserialize(value)?);
    }
    if value["type"] == Type::Tagged.as_str() {
        return serde_json::to_value(CloudEvent::<LeadTagged>::deserialize(value)?);
    }
    serde_json::to_value(CloudEvent::<LeadStatusChanged>::deserialize(value)?)
}

/// Returns the folders of all releases.
fn releases() -> Vec<PathBuf> {
    let folders = fs::read_dir(Path::new(CONTRACTS).join("released")).into_iter().flatten();
    folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// Returns the differences from the schema of a release, on which consumers rely. A type that the
/// release did not know has none.
fn broken_promise(published: &Published, release: &Path) -> String {
    let (name, value) = published;
    if !release.join(name).is_file() {
        return String::new();
    }
    let is_known = value["type"].as_str().is_none_or(|kind| types(&document(release.join(name))).contains(kind));
    if is_known { wrong(published, release) } else { String::new() }
}

/// Returns the differences of a release's examples from today's schemas. The examples have every
/// member that the release promised.
fn withdrawn(release: &Path) -> String {
    let names = SCHEMAS.into_iter().filter(|name| release.join(name).is_file());
    let examples = names.flat_map(|name| examples(release, name));
    examples.map(|example| wrong(&example, CONTRACTS) + &unnamed(&example)).collect()
}

#[test]
fn golden_files_match_their_schemas_and_add_nothing() {
    for (path, published) in golden() {
        assert_eq!(wrong(&published, CONTRACTS) + &unnamed(&published), "", "{}", path.display());
    }
}

#[test]
fn schema_examples_match_and_show_every_member() {
    /// Collects the names of all members.
    fn members(value: &Value, found: &mut BTreeSet<String>) {
        for (name, member) in value.as_object().into_iter().flatten() {
            found.insert(name.clone());
            members(member, found);
        }
    }
    /// Collects the names in all `properties`.
    fn named(schema: &Value, found: &mut BTreeSet<String>) {
        for (keyword, part) in schema.as_object().into_iter().flatten().filter(|(keyword, _)| *keyword != "examples") {
            if keyword == "properties" {
                found.extend(part.as_object().unwrap().keys().cloned());
            }
            named(part, found);
            part.as_array().into_iter().flatten().for_each(|part| named(part, found));
        }
    }
    for name in SCHEMAS {
        let [mut shown, mut declared] = [BTreeSet::new(), BTreeSet::new()];
        named(&today(name), &mut declared);
        for example in examples(CONTRACTS, name) {
            assert_eq!(wrong(&example, CONTRACTS) + &unnamed(&example), "", "{name}");
            assert_eq!(read_and_written(&example).unwrap(), example.1);
            members(&example.1, &mut shown);
        }
        assert_eq!(declared.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
}

#[test]
fn schemas_require_what_our_types_need() {
    let mut tried = 0;
    for (name, example) in SCHEMAS.into_iter().flat_map(|name| examples(CONTRACTS, name)) {
        let members = ["", "/data", "/data/lead", "/data/lastReply"].into_iter().flat_map(|parent| {
            let members = example.pointer(parent).and_then(Value::as_object).into_iter().flatten();
            members.map(move |(member, _)| (parent, member))
        });
        for (parent, member) in members {
            let mut lacking = example.clone();
            lacking.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member);
            let lacking = (name, lacking);
            if name != ATTRIBUTES {
                let is_read = read_and_written(&lacking).is_ok();
                assert_eq!(wrong(&lacking, CONTRACTS).is_empty(), is_read, "{name} without {parent}/{member}");
            }
            for other in [json!(null), json!(1), json!(true), json!([]), json!({}), json!("")] {
                let mut changed = example.clone();
                changed.pointer_mut(parent).unwrap()[member] = other.clone();
                assert_ne!(wrong(&(name, changed), CONTRACTS), "", "{name} with {parent}/{member} {other}");
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn schemas_know_every_type_status_and_stage() {
    let [alert, status, attributes] = SCHEMAS.map(today);
    let of = |kinds: &[Type]| kinds.iter().map(|kind| kind.as_str()).collect::<BTreeSet<_>>();
    assert_eq!(types(&alert), of(&[Type::Opportunity, Type::StatusReached, Type::Tagged]));
    assert_eq!(types(&status), of(&[Type::StatusChanged]));
    assert_eq!(attributes["properties"]["eventType"]["const"], Type::StatusChanged.as_str());
    let data = &status["$defs"]["LeadStatusChanged"]["properties"];
    assert_eq!(data["newStatus"]["examples"], json!(STATUSES));
    let stages: Vec<_> = STAGES.iter().map(|(_, stage)| *stage).chain([UNKNOWN_STAGE]).collect();
    assert_eq!(data["crmStage"]["examples"], json!(stages));
    let data = &alert["$defs"]["LeadStatusChanged"]["properties"];
    assert_eq!(data["foundBy"]["examples"], json!([RECONCILIATION]));
}

#[test]
fn asyncapi_shows_what_its_schemas_say() {
    let asyncapi = today("asyncapi.yaml");
    assert_eq!(asyncapi["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut shown = 0;
    for message in asyncapi["components"]["messages"].as_object().unwrap().values() {
        for example in message["examples"].as_array().unwrap() {
            for part in ["payload", "headers"].into_iter().filter(|part| !message[part].is_null()) {
                let reference = message[part]["schema"]["$ref"].as_str().unwrap();
                assert_eq!(flaws(&schema(CONTRACTS, reference), &example[part]), "", "{example:#}");
                shown += 1;
            }
        }
    }
    assert_eq!(shown, 5);
    for example in asyncapi["components"]["messages"]["alert"]["examples"].as_array().unwrap() {
        let name = example["name"].as_str().unwrap();
        assert_eq!(example["payload"], document(format!("events/alerts/{name}/default.json")));
    }
}

#[test]
fn the_promises_of_every_release_hold() {
    let changelog = fs::read_to_string("CHANGELOG.md").unwrap();
    let versions = changelog.lines().filter_map(|line| line.strip_prefix("## [")?.split_once(']'));
    let released: BTreeSet<_> =
        versions.map(|(version, _)| Path::new(CONTRACTS).join("released").join(version)).collect();
    let unreleased = Path::new(CONTRACTS).join("released/Unreleased");
    let expected = released.into_iter().filter(|folder| *folder != unreleased).collect::<Vec<_>>();
    let mut found = releases();
    found.sort();
    assert_eq!(found, expected, "docs/contracts/README.md says what a release leaves");
    for release in found {
        assert_eq!(withdrawn(&release), "", "{}", release.display());
        for (path, published) in golden() {
            assert_eq!(broken_promise(&published, &release), "", "{}, {}", release.display(), path.display());
        }
    }
}

#[test]
fn detects_a_broken_promise() {
    let published = || examples(CONTRACTS, ALERT).into_iter().chain(examples(CONTRACTS, STATUS));
    // A release whose schemas differ from today's in one place.
    let seen = |name: &str, change: &dyn Fn(&mut Value)| {
        let folder = tempfile::tempdir().unwrap();
        for file in SCHEMAS {
            let mut schema = today(file);
            if file == name {
                change(&mut schema);
            }
            fs::write(folder.path().join(file), schema.to_string()).unwrap();
        }
        let broken: String = published().map(|published| broken_promise(&published, folder.path())).collect();
        (!broken.is_empty(), !withdrawn(folder.path()).is_empty())
    };
    assert_eq!(seen(ALERT, &|_| {}), (false, false));
    // The release promised a member that is gone.
    let data = "/$defs/LeadStatusChanged";
    assert!(seen(STATUS, &|schema| schema.pointer_mut(data).unwrap()["required"] = json!(["score"])).0);
    assert!(seen(STATUS, &|schema| schema["examples"][0]["data"]["score"] = 7.into()).1);
    assert!(seen(STATUS, &|schema| schema["examples"][0]["score"] = 7.into()).1);
    // The release promised another type.
    assert!(
        seen(STATUS, &|schema| schema.pointer_mut(data).unwrap()["properties"]["newStatus"] =
            json!({"type": "integer"}))
        .0
    );
    assert!(seen(STATUS, &|schema| schema["examples"][0]["data"]["newStatus"] = 7.into()).1);
    // The release did not know a type or a member, so it promised nothing about them.
    assert_eq!(seen(ALERT, &|schema| drop(schema["oneOf"].as_array_mut().unwrap().pop())), (false, false));
    let known = |schema: &mut Value| {
        drop(schema["$defs"]["LeadTagged"]["properties"].as_object_mut().unwrap().remove("previousTag"))
    };
    assert_eq!(seen(ALERT, &known), (false, false));
}

/// Generates text from outside. The parser never returns an empty text.
fn text() -> impl Strategy<Value = String> {
    let any = prop_oneof![
        any::<String>(),
        "[ -~]{1,40}",
        "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{202e}%# ]{1,9}",
        (1usize..2000).prop_map(|length| "\u{1F600}".repeat(length)),
        (1usize..5000).prop_map(|length| "w".repeat(length)),
    ];
    any.prop_map(|text| if text.is_empty() { "?".into() } else { text })
}

fn event() -> impl Strategy<Value = Event> {
    let maybe = || proptest::option::of(text());
    let when = proptest::option::of((-100_000_000_000i64..400_000_000_000, 0u32..1_000_000_000));
    let status = || prop_oneof![Just("OPPORTUNITY".to_owned()), Just("MEETING_BOOKED".to_owned()), text()];
    let by = prop_oneof![Just(Some("api".to_owned())), maybe()];
    let change = (text(), maybe(), maybe(), proptest::option::of(status()), status(), by).prop_map(
        |(lead_id, campaign_id, linkedin_url, previous_status, new_status, changed_by)| {
            Kind::StatusChanged(StatusChange {
                lead_id,
                campaign_id,
                linkedin_url,
                previous_status,
                new_status,
                changed_by,
            })
        },
    );
    let tag = prop_oneof![Just("hot".to_owned()), Just(" HOT\u{200b}".to_owned()), text()];
    let tagged = (text(), maybe(), maybe(), maybe(), tag).prop_map(
        |(lead_id, campaign_id, linkedin_url, previous_tag, new_tag)| {
            let (lead_id, new_tag) = (Some(lead_id), Some(new_tag));
            Kind::TagChanged(TagChange { lead_id, campaign_id, linkedin_url, previous_tag, new_tag })
        },
    );
    // The reconciliation reads only statuses.
    let origin = prop_oneof![Just(Origin::Webhook), any::<u64>().prop_map(reconciliation)];
    let event = prop_oneof![(change, origin), tagged.prop_map(|tagged| (tagged, Origin::Webhook))];
    (text(), maybe(), when, event).prop_map(|(id, workspace_id, when, (kind, origin))| Event {
        id: Some(id),
        event_type: "lead.updated".into(),
        renamed: false,
        workspace_id,
        occurred_at: when.and_then(|(seconds, nanos)| {
            OffsetDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanos).ok()
        }),
        origin,
        kind,
    })
}

fn reconciliation(until: u64) -> Origin {
    Origin::Reconciliation { until: Timestamp::from_millis(until) }
}

fn details() -> impl Strategy<Value = Details> {
    let part = || proptest::option::of(prop_oneof![text(), Just(String::new()), Just(" \u{200d}\n".to_owned())]);
    let parts = [part(), part(), part(), part(), part()];
    let lead = parts.prop_map(|[first_name, last_name, title, company, email]| Lead {
        first_name,
        last_name,
        title,
        company,
        email,
    });
    let reply = (text(), any::<u64>()).prop_map(|(text, at)| LastReply { text, at: Timestamp::from_millis(at) });
    let details = (proptest::option::of(lead), part(), proptest::option::of(reply));
    details.prop_map(|(lead, campaign_name, last_reply)| Details { lead, campaign_name, last_reply })
}

proptest! {
    #[test]
    fn everything_published_matches_its_schema_and_our_types(event in event(), details in details()) {
        for published in published_with(&event, &details) {
            prop_assert_eq!(wrong(&published, CONTRACTS) + &unnamed(&published), "", "{:#}", published.1);
            prop_assert_eq!(&read_and_written(&published).unwrap(), &published.1);
            let found_by = (event.origin != Origin::Webhook).then_some(RECONCILIATION);
            prop_assert_eq!(published.1["data"]["foundBy"].as_str(), found_by);
            for release in releases() {
                prop_assert_eq!(broken_promise(&published, &release), "", "{}: {:#}", release.display(), published.1);
            }
        }
    }
}

/// Returns the expression at the start of a text: up to a semicolon or the bracket that closes it.
fn expression(text: &str) -> &str {
    let mut depth = 0;
    let ends = |character| {
        depth += match character {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        depth < 0 || depth == 0 && character == ';'
    };
    text.split(ends).next().unwrap()
}

/// If a text cannot be serialized, the function must stop. Otherwise it would publish an empty text
/// and count that as a success.
#[test]
fn no_failed_serialization_becomes_an_empty_text() {
    let mut files = vec![PathBuf::from("src")];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        read += 1;
        let source: String = std::fs::read_to_string(&path).unwrap().split_whitespace().collect();
        for way in ["serde_json::to_", ".format(", "write!(", "writeln!("] {
            for (at, _) in source.match_indices(way) {
                let expression = expression(&source[at..]);
                let hides = ["unwrap_or", ".ok()"].iter().any(|hiding| expression.contains(hiding));
                assert!(!hides, "{}: {expression}", path.display());
            }
        }
    }
    assert!(read > 20);
}

#[test]
fn a_time_beyond_rfc_3339_never_empties_a_text() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (u64::MAX, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(Timestamp::from_millis(millis).rfc3339(), text);
    }
    let minute = time::UtcOffset::from_hms(0, 0, 30).unwrap();
    for (moment, time) in [
        (OffsetDateTime::UNIX_EPOCH.to_offset(minute), json!("1970-01-01T00:00:00Z")),
        (time::Date::MAX.midnight().assume_utc(), json!("9999-12-31T00:00:00Z")),
        (time::Date::MIN.midnight().assume_utc(), json!(null)),
    ] {
        let change = StatusChange {
            lead_id: "lead_1".into(),
            campaign_id: None,
            linkedin_url: None,
            previous_status: None,
            new_status: "OPPORTUNITY".into(),
            changed_by: None,
        };
        let event = Event {
            id: Some("evt_1".into()),
            event_type: "lead.updated".into(),
            renamed: false,
            workspace_id: None,
            occurred_at: Some(moment),
            origin: Origin::Webhook,
            kind: Kind::StatusChanged(change),
        };
        let published = published(&event);
        assert!(!published.is_empty());
        for (name, value) in published.iter().filter(|(_, value)| value["specversion"] == "1.0") {
            assert_eq!(value["time"], time, "{name}");
        }
    }
}
