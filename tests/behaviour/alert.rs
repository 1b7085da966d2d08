//! Compares each body of an alert with its golden file in `events/alerts/`. Every alert must keep
//! the limits of SNS, Slack and SMS.
//!
//! To update the golden files, run `UPDATE_GOLDEN=1 cargo test --test behaviour alert::`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::requests::{self, file, secrets};
use opportunity_alerts::message::details::{Details, LastReply};
use opportunity_alerts::message::key::sha256_hex;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::message::{Delivery, Message};
use opportunity_alerts::sendpilot::api::Lead;
use opportunity_alerts::sendpilot::event::{self, Event, Kind, Origin, StatusChange, TagChange};
use opportunity_alerts::sendpilot::signature::verify;
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn alert(event: &Event) -> Option<Delivery> {
    requests::due(&Rules::default(), event).unwrap().alert
}

fn alert_with(event: &Event, details: &Details) -> Message {
    Rules::default().due(event).unwrap().alert.unwrap().delivery(details).message
}

fn sample(name: &str) -> Event {
    let (request, now) = file(name);
    event::parse(&verify(request.headers(), request.body(), &secrets(), now).unwrap()).unwrap()
}

fn due(name: &str) -> Option<Delivery> {
    alert(&sample(name))
}

/// Returns the details in JSON as SendPilot's API and the table would give them.
fn details(json: &Value) -> Details {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lead = json["lead"].is_object().then(|| Lead {
        first_name: text(&json["lead"]["firstName"]),
        last_name: text(&json["lead"]["lastName"]),
        title: text(&json["lead"]["title"]),
        company: text(&json["lead"]["company"]),
        email: text(&json["lead"]["email"]),
    });
    let last_reply = json["lastReply"]["text"].as_str().and_then(|text| {
        let at = OffsetDateTime::parse(json["lastReply"]["at"].as_str().unwrap(), &Rfc3339).unwrap();
        LastReply::new(text, at.into())
    });
    Details { lead, campaign_name: text(&json["campaignName"]), last_reply }
}

/// Returns the names of the files in `events/details/`, each with the alert of its event and its
/// details.
fn with_details() -> Vec<(String, Message)> {
    let alerts = files_in("events/details").into_iter().map(|(name, file)| {
        let message = alert_with(&sample(file["event"].as_str().unwrap()), &details(&file));
        assert_legal(&message);
        (name, message)
    });
    alerts.collect()
}

/// Returns the JSON files in a folder, each with its name.
fn files_in(folder: &str) -> Vec<(String, Value)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let file = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), file)
    });
    files.collect()
}

/// Returns the event of a missed lead, as the reconciliation makes it from the API's answers in
/// JSON.
fn missed_lead(json: &Value) -> Event {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lead = &json["lead"];
    let [lead_id, status] = ["id", "status"].map(|name| text(&lead[name]).unwrap());
    let updated_at = lead["updatedAt"].as_str().map(|at| OffsetDateTime::parse(at, &Rfc3339).unwrap());
    let until = updated_at.map_or(Timestamp::from_millis(0), Timestamp::from).after(Duration::from_secs(600));
    Event {
        id: Some(format!("reconciliation_{:.32}", sha256_hex(format!("{lead_id}#{status}").as_bytes()))),
        event_type: String::new(),
        workspace_id: text(&json["workspaceId"]),
        occurred_at: updated_at,
        origin: Origin::Reconciliation { until },
        kind: Kind::StatusChanged(StatusChange {
            lead_id,
            campaign_id: text(&lead["campaignId"]),
            linkedin_url: text(&lead["linkedinUrl"]),
            previous_status: None,
            new_status: status,
            changed_by: None,
        }),
        renamed: false,
    }
}

/// Returns the names of the files in `events/reconciliation/`, each with the alert of its lead.
fn missed_leads() -> Vec<(String, Message)> {
    let alerts = files_in("events/reconciliation").into_iter().map(|(name, file)| {
        let message = alert_with(&missed_lead(&file), &details(&file));
        assert_legal(&message);
        (name, message)
    });
    alerts.collect()
}

fn parts(message: &Message) -> (&str, &str, BTreeMap<String, String>) {
    let Message::Alert { subject, body } = message else { panic!("no alert: {message:?}") };
    (subject, body, serde_json::from_str(body).unwrap())
}

fn bodies(message: &Message) -> BTreeMap<String, String> {
    parts(message).2
}

/// Returns JSON with line breaks, and any other text as it is.
fn readable(body: &str) -> String {
    serde_json::from_str::<Value>(body)
        .map_or(body.to_owned(), |value| serde_json::to_string_pretty(&value).unwrap() + "\n")
}

#[test]
fn every_body_matches_its_golden_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let without_details =
        ["opportunity", "opportunity-lead-updated", "opportunity-minimal", "opportunity-base64", "opportunity-hostile"]
            .map(|name| (name.to_owned(), due(name).unwrap().message));
    let golden: Vec<_> = without_details.into_iter().chain(with_details()).chain(missed_leads()).collect();
    let count = golden.len();
    for (name, message) in golden {
        let (subject, _, mut parts) = parts(&message);
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["default", "email", "https", "sms"]);
        parts.insert("subject".into(), subject.to_owned());
        for (part, text) in parts {
            let kind = if matches!(part.as_str(), "default" | "https") { "json" } else { "txt" };
            let path = format!("events/alerts/{name}/{part}.{kind}");
            if update {
                fs::create_dir_all(format!("events/alerts/{name}")).unwrap();
                fs::write(&path, readable(&text)).unwrap();
            }
            assert_eq!(readable(&text), fs::read_to_string(&path).unwrap(), "{path}");
        }
    }
    assert_eq!(fs::read_dir("events/alerts").unwrap().count(), count);
}

#[test]
fn the_machine_body_is_the_documented_cloud_event() {
    let bodies = bodies(&due("opportunity").unwrap().message);
    let expected = json!({
        "specversion": "1.0", "id": "evt_1708456789123_abc123def", "source": "urn:sendpilot:workspace:ws_abc123xyz",
        "type": "sendpilot.lead.opportunity", "subject": "lead_abc123", "time": "2024-02-24T10:30:00Z",
        "datacontenttype": "application/json",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousStatus": "REPLY_RECEIVED", "newStatus": "OPPORTUNITY", "crmStage": "qualified", "changedBy": "api",
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&bodies["default"]).unwrap(), expected);
}

#[test]
fn other_events_give_no_alert() {
    for name in ["reply", "reply-received", "unlisted-status", "message-sent", "opportunity-again"] {
        assert_eq!(due(name), None, "{name}");
    }
}

#[test]
fn each_event_has_its_own_delivery() {
    assert_eq!(due("opportunity"), due("opportunity"));
    assert_eq!(due("opportunity").unwrap().id.as_str(), "ws_abc123xyz#evt_1708456789123_abc123def#alert");
    assert_eq!(due("opportunity-minimal").unwrap().id.as_str(), "#msg_2cmZ8Uk7MinimalStandIn0001#alert");
    let cloud_event_id = |event: &str| {
        let delivery = alert(&opportunity(event, "lead_1", None)).unwrap();
        let event: Value = serde_json::from_str(&bodies(&delivery.message)["default"]).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    let ids = ["a", " a", "a\u{1}", "a%01", "\u{1}", "\u{2}", &"m".repeat(5000), &("m".repeat(4999) + "n")]
        .map(cloud_event_id);
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert_eq!(ids[0], "a");
    let id = |workspace: &str, event: &str| {
        let event = Event { workspace_id: Some(workspace.into()), ..opportunity(event, "lead_1", None) };
        alert(&event).unwrap().id
    };
    assert_ne!(id("a#b", "c"), id("a", "b#c"));
    assert_ne!(id("a%23b", "c"), id("a#b", "c"));
    let long = "w".repeat(5000);
    assert_ne!(id(&long, "c"), id(&(long.clone() + "w"), "c"));
    // DynamoDB's limit for a partition key.
    assert!(id(&long, &"\u{1F600}".repeat(64)).as_str().len() <= 2048);
}

fn opportunity(id: &str, lead: &str, url: Option<&str>) -> Event {
    Event {
        id: Some(id.into()),
        event_type: "lead.updated".into(),
        renamed: false,
        workspace_id: None,
        occurred_at: None,
        origin: Origin::Webhook,
        kind: Kind::StatusChanged(StatusChange {
            lead_id: lead.into(),
            campaign_id: None,
            linkedin_url: url.map(str::to_owned),
            previous_status: None,
            new_status: "OPPORTUNITY".into(),
            changed_by: None,
        }),
    }
}

#[test]
fn links_only_to_linkedin() {
    for (url, link, name) in [
        ("https://www.linkedin.com/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("https://linkedin.com/in/john-doe/", Some("https://linkedin.com/in/john-doe/"), "John Doe"),
        ("HTTPS://De.LinkedIn.com/in/j%C3%BCrgen?trk=x", Some("https://de.linkedin.com/in/j%C3%BCrgen"), "Jürgen"),
        ("https://www.linkedin.com/in/m\u{fc}ller", Some("https://www.linkedin.com/in/m%C3%BCller"), "Müller"),
        ("https%3A%2F%2Fwww.linkedin.com%2Fin%2Fjohn-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        (
            "https://www.linkedin.com/in/[click](https://evil.example/)",
            Some("https://www.linkedin.com/in/%5Bclick%5D%28https%3A//evil.example/%29"),
            "[click](https:",
        ),
        (
            "https://www.linkedin.com/in/john-doe)|'*_~`,;",
            Some("https://www.linkedin.com/in/john-doe%29%7C%27%2A_~%60%2C%3B"),
            "john-doe)|'*_~`,;",
        ),
        (
            "https://www.linkedin.com/redir/redirect?url=https%3A%2F%2Fevil.example",
            Some("https://www.linkedin.com/redir/redirect"),
            "lead_1",
        ),
        ("http://www.linkedin.com/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("HTTP%3A%2F%2Fwww.linkedin.com%2Fin%2Fjohn-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("www.linkedin.com/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        (" LinkedIn.com/in/john-doe?trk=x", Some("https://linkedin.com/in/john-doe"), "John Doe"),
        ("//www.linkedin.com/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("in/john-doe?trk=people", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("\u{feff}/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "John Doe"),
        ("in/../redir/redirect?url=https://evil.example", Some("https://www.linkedin.com/redir/redirect"), "lead_1"),
        ("in/@evil.example/x", Some("https://www.linkedin.com/in/%40evil.example/x"), "[at]evil[.]example"),
        (
            "//in/john-doe@evil.example",
            Some("https://www.linkedin.com/in/john-doe%40evil.example"),
            "john-doe[at]evil[.]example",
        ),
        ("ftp://www.linkedin.com/in/john-doe", None, "lead_1"),
        ("http://www.linkedin.com:443/in/john-doe", None, "lead_1"),
        ("http://evil@www.linkedin.com/in/john-doe", None, "lead_1"),
        ("http://linkedin.com.evil.example/in/john-doe", None, "lead_1"),
        ("linkedin.com.evil.example/in/john-doe", None, "lead_1"),
        ("linkedin.com@evil.example/in/john-doe", None, "lead_1"),
        ("linkedin.com:8443/in/john-doe", None, "lead_1"),
        ("evil.example/in/john-doe", None, "lead_1"),
        ("//evil.example/in/john-doe", None, "lead_1"),
        ("\\\\evil.example\\in\\john-doe", None, "lead_1"),
        ("mailto:john@linkedin.com", None, "lead_1"),
        ("john-doe", None, "lead_1"),
        ("https://linkedin.com.evil.example/in/john-doe", None, "lead_1"),
        ("https://evillinkedin.com/in/john-doe", None, "lead_1"),
        ("https://linkedin.com@evil.example/in/john-doe", None, "lead_1"),
        ("https://evil@www.linkedin.com/in/john-doe", None, "lead_1"),
        ("https://www.linkedin.com:8443/in/john-doe", None, "lead_1"),
        ("https://l\u{131}nkedin.com/in/john-doe", None, "lead_1"),
        ("javascript:alert(1)//linkedin.com/in/x", None, "lead_1"),
        ("", None, "lead_1"),
    ] {
        let message = alert(&opportunity("evt_1", "lead_1", Some(url))).unwrap().message;
        let (subject, _, bodies) = parts(&message);
        assert_eq!(subject, format!("New opportunity: {name}"), "{url}");
        let chat: Value = serde_json::from_str(&bodies["https"]).unwrap();
        for body in [&bodies["email"], &bodies["sms"], chat["content"]["description"].as_str().unwrap()] {
            match link {
                Some(link) => assert!(body.split_whitespace().any(|word| word == link), "{url}: {body}"),
                None => assert!(!body.contains("://"), "{url}: {body}"),
            }
        }
    }
}

/// Whether a program can turn a word into a link to an IPv4 address.
fn has_ipv4_address(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_digit() && c != '.').any(|part| part.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Whether a word has a scheme and an address, such as `tel:+1`.
fn has_scheme(word: &str) -> bool {
    let in_address = |c: char| c.is_alphanumeric() || "+/\\".contains(c);
    let starts_address = |(at, _)| word[at + 1..].starts_with(in_address);
    word.match_indices(':').any(|colon| word[..colon.0].ends_with(char::is_alphabetic) && starts_address(colon))
}

/// Asserts that each link in a text leads to LinkedIn and has no character that is markup.
fn assert_links(text: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/%-._~".contains(c);
    for word in text.split_whitespace().filter(|word| *word != "*Tag:*") {
        match word.strip_prefix("https://www.linkedin.com/") {
            Some(path) => assert!(path.chars().all(plain), "{text:?}"),
            None => {
                let host = word.split("www.").skip(1).any(|rest| rest.starts_with(char::is_alphabetic));
                assert!(!host && !word.contains("://") && !word.contains("@c"), "{text:?}");
                assert!(!word.contains("\\\\") && !has_scheme(word) && !has_ipv4_address(word), "{text:?}");
            }
        }
    }
}

/// Asserts that a text has no markup except code spans, labels and links.
fn assert_markup(text: &str) {
    assert!(!text.contains(['<', '>', '&']), "{text:?}");
    for line in text.lines() {
        let line = ["*Last reply*", "*Last updated*"].iter().find_map(|label| line.strip_prefix(label)).unwrap_or(line);
        let parts: Vec<_> = line.split('`').collect();
        assert_eq!(parts.len() % 2, 1, "{text:?}");
        let words = parts.iter().step_by(2).flat_map(|part| part.split(' '));
        for word in words.filter(|word| !word.starts_with("https://")) {
            let word = ["*Tag:*", "*Campaign*", "*Lead*", "*Workspace*", "*Event*"]
                .iter()
                .find(|label| **label == word)
                .map_or(word, |_| "");
            assert!(!word.contains(['*', '_', '~', '#', '[', ']', '|', '@', '\\', '{', '$']), "{text:?}");
            let emoji = word.split(':').skip(1).filter(|name| !name.is_empty());
            assert!(emoji.count() < 2, "{text:?}");
        }
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_date = number.len() < line.len() && number.starts_with(' ');
        assert!(is_date || !number.starts_with(['-', '+', '=', '.', ')']), "{text:?}");
        // Slack reads a backtick in a word as a backtick.
        let before = parts.iter().take(parts.len() - 1).step_by(2);
        assert!(before.clone().all(|text| text.is_empty() || text.ends_with(' ')), "{text:?}");
        assert!(parts.iter().skip(1).step_by(2).all(|code| !code.is_empty()), "{text:?}");
    }
}

/// Asserts that a message keeps every limit, and shows a person nothing that could deceive.
fn assert_legal(message: &Message) {
    let hidden = |text: &str| {
        text.chars().find(|&c| {
            c.is_control() && c != '\n'
                || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}')
        })
    };
    let (subject, whole, bodies) = parts(message);
    assert!(
        subject.encode_utf16().count() < 100 && !subject.contains('\n') && hidden(subject).is_none(),
        "{subject:?}"
    );
    assert!(whole.len() < 256 * 1024, "{} bytes", whole.len());
    for body in bodies.values() {
        assert_eq!(hidden(body), None, "{body:?}");
    }
    let sms = &bodies["sms"];
    let in_gsm = |c: char| {
        let is_ascii = matches!(c, ' '..='~') && !"[]{}\\|^~`".contains(c);
        is_ascii || "àäåæèéìñòöøùüßÄÅÆÇÉÑÖØÜ".contains(c) || c == '~'
    };
    assert!(sms.chars().count() <= 140 && sms.chars().all(in_gsm), "{sms:?}");
    let event: Value = serde_json::from_str(&bodies["default"]).unwrap();
    assert!(url::Url::parse(event["source"].as_str().unwrap()).is_ok());
    assert!(["id", "subject"].iter().all(|name| !event[name].as_str().unwrap().is_empty()));
    let chat: Value = serde_json::from_str(&bodies["https"]).unwrap();
    let [title, description] = ["title", "description"].map(|name| chat["content"][name].as_str().unwrap());
    assert_markup(title);
    assert_markup(description);
    assert!(title.encode_utf16().count() <= 120 && !title.contains('\n'), "{title:?}");
    let units = description.encode_utf16().count();
    assert!(units <= 3000, "{units} UTF-16 units");
    for text in [subject, &bodies["email"], sms, title, description] {
        assert_links(text);
    }
    assert!(!bodies["email"].contains("\n\n\n") && bodies["email"].ends_with(".\n"), "{:?}", bodies["email"]);
}

/// Generates text that an attacker would choose: it escapes badly, grows, hides or deceives.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        proptest::string::string_regex("[\"\\\\<>&`*_~|\\n\\r\\t\\x00-\\x1f\\x7f-\\x9f]{0,40}").unwrap(),
        "[\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}]{0,9}",
        "[\u{1F600}-\u{1F64F}\u{10FFFE}\u{FFFF}]{0,60}",
        Just("https://www.linkedin.com/in/".to_owned()),
        // Replacing characters must not create a link.
        proptest::string::string_regex("(https)?[:\u{FF1A}|\\\\/\u{2215}^~`]{2,6}evil[.\u{3002}|`]example").unwrap(),
        proptest::string::string_regex(
            "[)(|'`\\[\\]*_~]{1,4}(https://evil\\.example|www\\.evil\\.example|\u{FF0E}evil)?"
        )
        .unwrap(),
        Just("https://evil.example/ www.evil.example @channel a@evil.example".to_owned()),
        // Removing accents must not create a link either.
        proptest::string::string_regex(
            "(tel|file|\u{142}|1\\.2\\.3){1,2}[\u{301}\u{338}]?[:.\\\\]{1,2}[\u{301}\u{338}]?(4|\\\\|//|\\+1|evil)"
        )
        .unwrap(),
        (0usize..80_000).prop_map(|length| "\"".repeat(length)),
        (0usize..60_000).prop_map(|length| "\u{FFFD}<".repeat(length / 4)),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Generates details in which every text is hostile, and any can be missing.
fn hostile_details() -> impl Strategy<Value = Details> {
    let short = || hostile().prop_map(|text| text.chars().take(3000).collect::<String>());
    let part = || proptest::option::of(short());
    let lead = [part(), part(), part(), part(), part()].prop_map(|[first_name, last_name, title, company, email]| {
        Lead { first_name, last_name, title, company, email }
    });
    let reply = (short(), 0u64..400_000_000_000_000, any::<bool>()).prop_map(|(raw, at, is_cleaned)| {
        let at = Timestamp::from_millis(at);
        if is_cleaned { LastReply::new(&raw, at) } else { Some(LastReply { text: raw, at }) }
    });
    (proptest::option::of(lead), part(), proptest::option::of(reply))
        .prop_map(|(lead, campaign_name, last_reply)| Details { lead, campaign_name, last_reply: last_reply.flatten() })
}

/// Generates an event in which every text is hostile, and rules that alert on it.
fn hostile_alert() -> impl Strategy<Value = (Event, Rules)> {
    let maybe = || proptest::option::of(hostile());
    let url = prop_oneof![hostile(), hostile().prop_map(|slug| format!("https://www.linkedin.com/in/{slug}"))];
    let when = any::<Option<i64>>().prop_map(|seconds| {
        seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds % 400_000_000_000).ok())
    });
    let origin = prop_oneof![
        Just(Origin::Webhook),
        any::<u64>().prop_map(|until| Origin::Reconciliation { until: Timestamp::from_millis(until) }),
    ];
    let texts = (hostile(), maybe(), maybe(), proptest::option::of(url), maybe(), maybe(), hostile());
    // The parser never returns an empty id.
    let id = hostile().prop_map(|id| if id.is_empty() { "e".into() } else { id });
    (id, texts, when, origin, 0..3).prop_map(
        |(
            id,
            (lead, workspace_id, campaign_id, linkedin_url, previous, changed_by, new),
            occurred_at,
            origin,
            kind,
        )| {
            let new = if kind == 0 { "OPPORTUNITY".into() } else { new };
            let rules = Rules { alert_statuses: vec![new.clone()], alert_tags: vec![new.clone()], ..Rules::default() };
            let kind = if kind == 2 {
                let (lead_id, new_tag) = (Some(lead), Some(new));
                Kind::TagChanged(TagChange { lead_id, campaign_id, linkedin_url, previous_tag: previous, new_tag })
            } else {
                Kind::StatusChanged(StatusChange {
                    lead_id: lead,
                    campaign_id,
                    linkedin_url,
                    previous_status: previous,
                    new_status: new,
                    changed_by,
                })
            };
            let event_type = "lead.updated".into();
            (Event { id: Some(id), event_type, renamed: false, workspace_id, occurred_at, origin, kind }, rules)
        },
    )
}

/// The sentence that an alert of the reconciliation has in its email and its card.
const LATE: &str = "This alert is late: no webhook arrived, and a reconciliation with SendPilot found the lead.";

proptest! {
    #[test]
    fn every_alert_is_legal((event, rules) in hostile_alert(), details in hostile_details()) {
        if let Some(alert) = rules.due(&event).unwrap().alert {
            let [without, with] = [Details::default(), details].map(|details| alert.delivery(&details));
            for delivery in [&without, &with] {
                assert_legal(&delivery.message);
                let bodies = bodies(&delivery.message);
                let is_late = event.origin != Origin::Webhook;
                prop_assert_eq!(bodies["email"].contains(LATE), is_late);
                prop_assert_eq!(bodies["https"].contains(LATE), is_late);
            }
            // Only the message depends on the details.
            prop_assert_eq!(&without, &Delivery { message: without.message.clone(), ..with });
        }
    }

    #[test]
    fn a_stored_reply_is_short_and_clean(raw in hostile()) {
        let at = Timestamp::from_millis(1);
        if let Some(reply) = LastReply::new(&raw, at) {
            prop_assert!((1..=2000).contains(&reply.text.encode_utf16().count()));
            prop_assert!(!reply.text.contains(char::is_control) && reply.text.trim() == reply.text);
            prop_assert_eq!(LastReply::new(&reply.text, at), Some(reply));
        }
    }

    #[test]
    fn every_name_is_short_and_no_link(slug in hostile()) {
        let slug: String = percent_encoding::utf8_percent_encode(&slug, percent_encoding::NON_ALPHANUMERIC).collect();
        let message = alert(&opportunity("evt_1", "lead_1", Some(&format!("in/{slug}")))).unwrap().message;
        assert_legal(&message);
        let name = parts(&message).0.strip_prefix("New opportunity: ").unwrap();
        prop_assert!((1..=60).contains(&name.encode_utf16().count()), "{name:?}");
        prop_assert!(!name.contains("www.e") && !name.contains("@c"), "{name:?}");
    }
}

#[test]
fn a_name_comes_from_the_profiles_address() {
    for (slug, name) in [
        ("john-doe", "John Doe"),
        ("john-doe-4b7a912", "John Doe"),
        ("john-doe-2a1ba6258", "John Doe"),
        ("john-doe-12345", "John Doe"),
        ("john-doe-7", "John Doe"),
        ("john-doe-2024", "John Doe"),
        ("John-DOE", "John DOE"),
        ("-john--doe-", "John Doe"),
        ("dr-jane-roe-phd", "Dr Jane Roe Phd"),
        ("ludwig-van-beethoven", "Ludwig Van Beethoven"),
        ("conan-o'brien", "Conan O'brien"),
        ("john", "John"),
        ("johndoe", "Johndoe"),
        ("mcdonald", "Mcdonald"),
        ("McDonald", "McDonald"),
        ("john-4b7a912", "John"),
        // Letters outside ASCII, URL-encoded or not.
        ("m%C3%BCller", "Müller"),
        ("%C3%A9lodie-n%C3%A9e", "Élodie Née"),
        ("mu\u{308}ller", "Mu\u{308}ller"),
        ("\u{df}-\u{1c6}", "Ss \u{1c5}"),
        ("анна-петрова-4b7a912", "Анна Петрова"),
        ("გიორგი", "გიორგი"),
        ("王-小明", "王 小明"),
        ("कृष्ण-कुमार", "कृष्ण कुमार"),
        ("محمد-علي", "محمد علي"),
        // Not names.
        ("john-doe123", "john-doe123"),
        ("john-abc4567", "john-abc4567"),
        ("🚀-sales-guru-🚀", "🚀-sales-guru-🚀"),
        ("mary-jane-o'neil-&-co", "mary-jane-o'neil-&-co"),
        ("x9-7", "x9-7"),
        ("john-doe-4b7a", "john-doe-4b7a"),
        ("john-doe-4b7a912c4d", "john-doe-4b7a912c4d"),
        ("henry-the-8th", "henry-the-8th"),
        ("studio-54", "studio-54"),
        ("john1984", "john1984"),
        ("4b7a912", "4b7a912"),
        ("john_doe", "john_doe"),
        ("john%20doe", "john doe"),
        ("john.doe", "john[.]doe"),
        ("ACoAAB1x-YZ", "ACoAAB1x-YZ"),
        ("johnsmithsales9", "johnsmithsales9"),
        // Neither names nor readable.
        ("ACwAABx9fQkBm3Zt0Qv7hYp4Lk2NdEwXyZ1aBcD", "lead_1"),
        ("ACoAAB1x9fQkBm3Zt-Qv7hYp4Lk2NdEwXyZ_aBcD", "lead_1"),
        ("johnsmithsales10", "lead_1"),
        ("12345678", "lead_1"),
        ("2024", "lead_1"),
        ("'", "lead_1"),
        ("-", "lead_1"),
        ("🚀", "lead_1"),
        ("", "lead_1"),
    ] {
        let message = alert(&opportunity("evt_1", "lead_1", Some(&format!("in/{slug}")))).unwrap().message;
        assert_eq!(parts(&message).0, format!("New opportunity: {name}"), "{slug}");
    }
}

/// Returns the email and the text of the card of an alert on this change of status.
fn email_and_card(previous: Option<&str>, new: &str, changed_by: Option<&str>) -> [String; 2] {
    let mut event = opportunity("evt_1", "lead_1", None);
    if let Kind::StatusChanged(change) = &mut event.kind {
        change.new_status = new.into();
        change.previous_status = previous.map(str::to_owned);
        change.changed_by = changed_by.map(str::to_owned);
    }
    let rules = Rules { alert_statuses: vec![new.into()], ..Rules::default() };
    let bodies = bodies(&requests::due(&rules, &event).unwrap().alert.unwrap().message);
    let card: Value = serde_json::from_str(&bodies["https"]).unwrap();
    [bodies["email"].clone(), card["content"]["description"].as_str().unwrap().to_owned()]
}

#[test]
fn statuses_are_shown_in_words() {
    for (previous, new, shown) in [
        ("REPLY_RECEIVED", "OPPORTUNITY", "Reply received → Opportunity"),
        ("CONNECTION_ACCEPTED", "MEETING_BOOKED", "Connection accepted → Meeting booked"),
        ("reply__Received_", "On hold", "Reply received → On hold"),
        ("___", "ÉTAT_ß", "`___` → État ß"),
        ("A&B", "<b>", "`A＆b` → `‹b›`"),
    ] {
        let [email, card] = email_and_card(Some(previous), new, None);
        assert!(card.contains(&format!("\n\n{shown}\n\n")), "{card}");
        assert!(
            email.contains(&format!(
                "\n\n{}\n\n",
                shown.replace('`', "").replace('＆', "&").replace('‹', "<").replace('›', ">")
            )),
            "{email}"
        );
    }
    let [email, card] = email_and_card(None, "MEETING_BOOKED", None);
    assert!(email.starts_with("lead_1 now has the status \"Meeting booked\".\n\n"), "{email}");
    assert!(!email.contains('→') && !card.contains('→'), "{email}{card}");
}

#[test]
fn documented_causes_of_a_change_are_shown_in_words() {
    for (changed_by, shown) in [
        ("api", "Changed through the API"),
        ("automation", "Changed by an automation"),
        ("user", "Changed by a user"),
        ("Jane Roe", "Changed by Jane Roe"),
        ("*jane*", "Changed by `*jane*`"),
    ] {
        let [email, card] = email_and_card(None, "OPPORTUNITY", Some(changed_by));
        assert!(card.contains(&format!("\n\n{shown}\n\n")), "{card}");
        assert!(email.contains(&format!("\n\n{}\n\n", shown.replace('`', ""))), "{email}");
    }
}

#[test]
fn an_email_has_the_facts_of_the_card() {
    let without_details = ["opportunity", "opportunity-lead-updated", "opportunity-minimal", "opportunity-base64"]
        .map(|name| (name.to_owned(), due(name).unwrap().message));
    // A card has look-alikes for some characters, and less of a long reply.
    let is_plain = |name: &str| !["hostile", "long", "minimal", "languages"].iter().any(|other| name.contains(other));
    let others = with_details().into_iter().chain(missed_leads()).filter(|(name, _)| is_plain(name));
    for (name, message) in without_details.into_iter().chain(others) {
        let bodies = bodies(&message);
        let card: Value = serde_json::from_str(&bodies["https"]).unwrap();
        let facts = card["content"]["description"].as_str().unwrap().replace(['*', '`'], "");
        assert!(bodies["email"].contains(&format!("\n\n{facts}\n\nYou receive")), "{name}");
    }
}

#[test]
fn a_missing_or_foreign_link_is_explained() {
    for (url, reason) in [
        (None, "SendPilot sent no LinkedIn profile."),
        (Some("https://evil.example/in/john-doe"), "The profile's address is not shown"),
    ] {
        let bodies = bodies(&alert(&opportunity("evt_1", "lead_1", url)).unwrap().message);
        assert!(bodies["email"].contains(reason) && bodies["https"].contains(reason), "{bodies:?}");
    }
}

#[test]
fn an_sms_keeps_the_letters_of_its_alphabet() {
    let sms = |url| bodies(&alert(&opportunity("evt_1", "lead_1", Some(url))).unwrap().message)["sms"].clone();
    assert_eq!(
        sms("in/j%C3%BCrgen-%C3%B1"),
        "New opportunity: Jürgen Ñ https://www.linkedin.com/in/j%C3%BCrgen-%C3%B1"
    );
    for (slug, name) in [
        ("in/jos\u{e9}-garc\u{ed}a-mu\u{f1}oz", "José Garcia Muñoz"),
        ("in/\u{142}ukasz-\u{10d}apek", "Lukasz Capek"),
        ("in/fran\u{e7}ois-s\u{f8}ren", "Francois Søren"),
        ("in/\u{15e}\u{131}mar\u{131}k-o\u{2019}neil", "Simarik O'neil"),
        ("in/nguy\u{1ec5}n-v\u{103}n", "Nguyen Van"),
        ("in/\u{153}dipus-\u{fe}or", "Oedipus Thor"),
        ("in/mu\u{308}ller-e\u{323}\u{300}-x\u{308}", "Muller E X"),
        // A name without a letter of the alphabet gives way to the lead's id.
        ("in/anna-\u{43f}\u{435}\u{442}\u{440}", "Anna ????"),
        ("in/\u{430}\u{43d}\u{43d}\u{430}", "lead_1"),
        ("in/\u{738b}-\u{5c0f}\u{660e}", "lead_1"),
        ("in/\u{645}\u{62d}\u{645}\u{62f}", "lead_1"),
    ] {
        let sms = sms(slug);
        let shown = sms.strip_prefix("New opportunity: ").unwrap();
        assert_eq!(shown.split_once(" https://www.linkedin.com/in/").unwrap().0, name, "{slug}");
    }
}

#[test]
fn the_leads_id_is_called_a_lead_once() {
    for (lead, subject, sentence) in [
        ("lead_42", "New opportunity: lead_42", "lead_42 is now an opportunity."),
        ("Lead 42", "New opportunity: Lead 42", "Lead 42 is now an opportunity."),
        ("42", "New opportunity: lead 42", "Lead 42 is now an opportunity."),
        ("\u{fffd}\u{fffd}", "New opportunity: lead \u{fffd}\u{fffd}", "Lead \u{fffd}\u{fffd} is now an opportunity."),
    ] {
        let message = alert(&opportunity("evt_1", lead, None)).unwrap().message;
        let (shown, _, bodies) = parts(&message);
        assert_eq!(shown, subject);
        assert_eq!(bodies["email"].lines().next(), Some(sentence));
    }
}

#[test]
fn a_long_text_is_cut_for_people_only() {
    let long = "x".repeat(300);
    let mut event = opportunity("evt_1", &long, None);
    event.workspace_id = Some(long.clone());
    if let Kind::StatusChanged(change) = &mut event.kind {
        change.previous_status = Some(long.clone());
        change.campaign_id = Some(long.clone());
        change.changed_by = Some(long.clone());
    }
    let bodies = bodies(&alert(&event).unwrap().message);
    for body in [&bodies["email"], &bodies["https"]] {
        assert!(body.contains(&("x".repeat(61) + "...")), "{body}");
    }
    assert!(!bodies["email"].contains(&"x".repeat(62)), "{}", bodies["email"]);
    let event: Value = serde_json::from_str(&bodies["default"]).unwrap();
    for text in [&event["subject"], &event["data"]["previousStatus"], &event["data"]["campaignId"]] {
        assert_eq!(*text, json!(long));
    }
}

#[test]
fn only_texts_that_could_become_links_are_changed() {
    for (text, shown) in [
        (r"\\1.2.3.4\pay", r"[\]\1.2.3[.]4\pay"),
        (r"\\\\evil\x", r"[\][\][\]\evil\x"),
        (r"file:\\evil\x", r"file[:][\]\evil\x"),
        (r"http:\\x", r"http[:][\]\x"),
        ("1.2.3.4/x", "1.2.3[.]4/x"),
        ("1\u{3002}2\u{3002}3\u{3002}4", "1\u{3002}2\u{3002}3[.]4"),
        ("192.168.0.1:8080", "192.168.0[.]1:8080"),
        ("tel:+19005550100", "tel: +19005550100"),
        ("MailTo:a@evil.example", "MailTo: a[at]evil[.]example"),
        ("javascript:alert(1)", "javascript: alert(1)"),
        ("Sales::EMEA", "Sales: : EMEA"),
        ("source:linkedin", "source: linkedin"),
        ("\u{2169}:x", "\u{2169}: x"),
        // As they are.
        ("Deal 2.5 M", "Deal 2.5 M"),
        ("10:30 UTC", "10:30 UTC"),
        ("Re: hello", "Re: hello"),
        ("24.02.2024, 25.02.2024", "24.02.2024, 25.02.2024"),
        ("v1.2.3 No.5 wait...5", "v1.2.3 No.5 wait...5"),
        ("16:9 :rocket: :-) \\o/", "16:9 :rocket: :-) \\o/"),
        ("+1 900 555 0100", "+1 900 555 0100"),
    ] {
        let [email, _] = email_and_card(None, "OPPORTUNITY", Some(text));
        assert!(email.contains(&format!("\nChanged by {shown}\n")), "{text}: {email}");
    }
}

#[test]
fn replacing_characters_creates_no_link() {
    for lead in [
        ":|\\",
        "tel\u{323}:+1",
        ".\u{338}evil",
        "1.2.3.\u{301}4",
        "https:||evil.example",
        "https:\\\\evil.example",
        "www`evil`example",
        "a^evil.example",
    ] {
        assert_legal(&alert(&opportunity("evt_1", lead, None)).unwrap().message);
    }
}

#[test]
fn the_largest_event_fits_an_sns_message() {
    for worst in ["\"", "\\", "<", "&", "\u{FFFD}", "\u{1F600}", ".a"] {
        let text = worst.repeat(30_000);
        let mut event = opportunity(&text, &text, Some(&text));
        event.workspace_id = Some(text.clone());
        if let Kind::StatusChanged(change) = &mut event.kind {
            change.campaign_id = Some(text.clone());
            change.previous_status = Some(text.clone());
            change.changed_by = Some(text.clone());
        }
        let part = || Some(text.clone());
        let lead = Lead { first_name: part(), last_name: part(), title: part(), company: part(), email: part() };
        let last_reply = LastReply::new(&text, Timestamp::from_millis(0));
        let details = Details { lead: Some(lead), campaign_name: part(), last_reply };
        for origin in [Origin::Webhook, Origin::Reconciliation { until: Timestamp::from_millis(u64::MAX) }] {
            event.origin = origin;
            assert_legal(&alert(&event).unwrap().message);
            let message = alert_with(&event, &details);
            assert_legal(&message);
            assert!(parts(&message).1.len() < 128 * 1024, "{} bytes", parts(&message).1.len());
        }
    }
}

/// Returns the Subject, the email and the SMS of the sample opportunity with these details.
fn shown(json: Value) -> [String; 3] {
    let message = alert_with(&sample("opportunity"), &details(&json));
    assert_legal(&message);
    let (subject, _, bodies) = parts(&message);
    [subject.to_owned(), bodies["email"].clone(), bodies["sms"].clone()]
}

#[test]
fn details_without_visible_text_leave_an_alert_unchanged() {
    for blank in ["", " ", "\n\t", "\u{200b}", "\u{200d}\u{fe0f}", "\u{202e}\u{0}", "\u{a0}\u{3000}", "\u{2800}"] {
        let lead = json!({"firstName": blank, "lastName": blank, "title": blank, "company": blank, "email": blank});
        let at = "2024-02-24T08:30:00Z";
        let blanks = json!({"lead": lead, "campaignName": blank, "lastReply": {"text": blank, "at": at}});
        let mut details = details(&blanks);
        assert_eq!(details.last_reply, None, "{blank:?}");
        // A row that someone has edited.
        details.last_reply = Some(LastReply { text: blank.into(), at: Timestamp::from_millis(1) });
        assert!(alert_with(&sample("opportunity"), &details) == due("opportunity").unwrap().message, "{blank:?}");
    }
}

#[test]
fn a_name_and_a_role_follow_the_news() {
    for (lead, expected) in [
        (json!({"firstName": "Jane", "lastName": "Roe"}), "Jane Roe"),
        (json!({"firstName": " Jane\n", "lastName": "\u{200b}"}), "Jane"),
        (json!({"lastName": "Roe", "title": "CTO"}), "Roe, CTO"),
        (json!({"company": "TechCorp"}), "John Doe at TechCorp"),
        (json!({"title": "CTO at TechCorp", "company": "techcorp"}), "John Doe, CTO at TechCorp"),
        (json!({"title": "VP, Sales", "company": "Acme, Inc."}), "John Doe, VP, Sales at Acme, Inc."),
        (json!({"firstName": "J", "title": "\u{202e}CTO", "company": " "}), "J, CTO"),
    ] {
        let [subject, email, sms] = shown(json!({"lead": lead}));
        assert_eq!(subject, format!("New opportunity: {expected}"));
        assert_eq!(sms, format!("{subject} https://www.linkedin.com/in/john-doe"));
        let name = expected.split([',', ' ']).next().unwrap();
        assert!(email.starts_with(name), "{email}");
    }
    let lead = Lead { title: Some("CTO".into()), company: Some("TechCorp".into()), ..Lead::default() };
    let details = Details { lead: Some(lead), ..Details::default() };
    let message = alert_with(&opportunity("evt_1", "42", None), &details);
    assert_eq!(parts(&message).0, "New opportunity: lead 42, CTO at TechCorp");
    let rules = Rules { alert_statuses: vec!["MEETING_BOOKED".into()], ..Rules::default() };
    let mut event = opportunity("evt_1", "lead_1", Some("in/jane-roe"));
    if let Kind::StatusChanged(change) = &mut event.kind {
        change.new_status = "MEETING_BOOKED".into();
    }
    let message = rules.due(&event).unwrap().alert.unwrap().delivery(&details).message;
    assert_eq!(parts(&message).0, "Meeting booked: Jane Roe, CTO at TechCorp");
}

#[test]
fn a_subject_is_cut_at_a_word() {
    let title = "Vice President of Engineering and Operations for Europe";
    let [subject, _, _] = shown(json!({"lead": {"title": title, "company": "TechCorporationInternational"}}));
    assert_eq!(subject, format!("New opportunity: John Doe, {title}..."));
    let [subject, email, _] = shown(json!({"lead": {"title": title, "company": "TechCorp International"}}));
    assert_eq!(subject, format!("New opportunity: John Doe, {title} at TechCorp..."));
    assert!(email.contains(&format!("\n\n{title} at TechCorp International\nhttps://")), "{email}");
}

#[test]
fn the_age_of_a_reply_is_relative_to_the_event() {
    for (at, age) in [
        ("2024-02-24T10:30:00Z", ", less than a minute earlier"),
        ("2024-02-24T10:29:00.001Z", ", less than a minute earlier"),
        ("2024-02-24T10:29:00Z", ", 1 minute earlier"),
        ("2024-02-24T10:24:01Z", ", 5 minutes earlier"),
        ("2024-02-24T09:30:00.001Z", ", 59 minutes earlier"),
        ("2024-02-24T09:30:00Z", ", 1 hour earlier"),
        ("2024-02-23T10:30:00.001Z", ", 23 hours earlier"),
        ("2024-02-23T10:30:00Z", ", 1 day earlier"),
        ("2024-02-21T10:29:00Z", ", 3 days earlier"),
        ("2024-02-24T10:30:00.001Z", ""),
        ("9999-12-31T23:59:59Z", ""),
    ] {
        let [_, email, _] = shown(json!({"lastReply": {"text": "a\r\n\r\nb", "at": at}}));
        assert!(email.contains(&format!("\n\nLast reply{age}:\n“a b”\n\n")), "{at}: {email}");
    }
}

/// Returns the Subject, the email, the description of the card, and the SMS of a missed lead.
fn shown_late(json: Value) -> [String; 4] {
    let message = alert_with(&missed_lead(&json), &details(&json));
    assert_legal(&message);
    let (subject, _, bodies) = parts(&message);
    let card: Value = serde_json::from_str(&bodies["https"]).unwrap();
    let description = card["content"]["description"].as_str().unwrap().to_owned();
    [subject.to_owned(), bodies["email"].clone(), description, bodies["sms"].clone()]
}

#[test]
fn an_alert_of_the_reconciliation_says_that_it_is_late() {
    let lead = json!({
        "id": "lead_1", "status": "OPPORTUNITY", "linkedinUrl": "in/john-doe", "updatedAt": "2026-11-26T10:42:59.9Z",
        "firstName": "John", "lastName": "Doe", "company": "TechCorp",
    });
    let [subject, email, card, sms] = shown_late(json!({"lead": lead, "campaignName": "Q1 Outreach"}));
    assert_eq!(subject, "New opportunity: John Doe at TechCorp");
    let profile = "At TechCorp\nhttps://www.linkedin.com/in/john-doe";
    let updated = "Last updated 26 November 2026, 10:42 UTC\nCampaign Q1 Outreach\n\n";
    let start = format!("John Doe is now an opportunity.\n\n{LATE}\n\n{profile}\n\n{updated}Lead lead_1");
    assert!(email.starts_with(&start), "{email}");
    let updated = updated.replace("Last updated", "*Last updated*").replace("Campaign", "*Campaign*");
    assert!(card.starts_with(&format!("{LATE}\n\n{profile}\n\n{updated}*Lead* `lead_1`")), "{card}");
    assert_eq!(sms, format!("{subject} (late, no webhook) https://www.linkedin.com/in/john-doe"));
}

#[test]
fn a_missed_lead_without_a_time_has_no_line_about_it() {
    let [_, email, card, _] = shown_late(json!({"lead": {"id": "lead_1", "status": "OPPORTUNITY"}}));
    let expected = format!("{LATE}\n\nSendPilot sent no LinkedIn profile.\n\nLead lead_1 ·");
    for text in [email, card.replace(['*', '`'], "")] {
        assert!(text.contains(&expected), "{text}");
    }
}

/// Neither the time of the change nor the age of the reply is known, so the alert has the reply's
/// time.
#[test]
fn a_late_alert_has_the_time_of_the_reply() {
    for (updated_at, at, shown) in [
        (Some("2024-02-24T10:30:00Z"), "2024-02-24T08:30:00Z", "24 February 2024, 08:30 UTC"),
        (Some("2024-02-24T10:30:00Z"), "2024-02-25T00:00:00+01:00", "24 February 2024, 23:00 UTC"),
        (None, "9999-12-31T23:59:59Z", "31 December 9999, 23:59 UTC"),
    ] {
        let lead = json!({"id": "lead_1", "status": "OPPORTUNITY", "updatedAt": updated_at});
        let [_, email, card, _] = shown_late(json!({"lead": lead, "lastReply": {"text": "Yes.", "at": at}}));
        assert!(email.contains(&format!("\n\nLast reply on {shown}:\n“Yes.”\n\n")), "{email}");
        assert!(card.contains(&format!("\n\n*Last reply* on {shown}:\n“Yes.”\n\n")), "{card}");
        assert!(!email.contains("earlier") && !card.contains("earlier"), "{email}{card}");
    }
}

#[test]
fn a_late_sms_says_so_before_the_reply_if_there_is_room() {
    let sms = |title: &str| {
        let lead = json!({"id": "lead_1", "status": "OPPORTUNITY", "linkedinUrl": "in/john-doe", "title": title});
        let reply = json!({"text": "I would love to talk to you", "at": "2024-02-24T08:30:00Z"});
        let [_, _, _, sms] = shown_late(json!({"lead": lead, "lastReply": reply}));
        let sms = sms.strip_prefix("New opportunity: John Doe, ").unwrap().to_owned();
        sms.strip_suffix(" https://www.linkedin.com/in/john-doe").unwrap().to_owned()
    };
    assert_eq!(sms("CTO"), "CTO (late, no webhook) \"I would love to talk to you\"");
    // Exactly 39 characters are left, of which the note takes 19 and the reply needs 20.
    let title = "A ".repeat(18) + "A";
    assert_eq!(sms(&title), format!("{title} (late, no webhook) \"I would love...\""));
    assert_eq!(sms(&(title.clone() + "B")), format!("{title}B (late, no webhook)"));
    // Exactly 19 characters are left.
    let title = "A ".repeat(28) + "A";
    assert_eq!(sms(&title), format!("{title} (late, no webhook)"));
    assert_eq!(sms(&(title.clone() + "B")), format!("{title}B"));
}

#[test]
fn a_reply_is_whole_in_the_email_and_cut_elsewhere() {
    let reply = "word ".repeat(399) + "end";
    let message = alert_with(
        &sample("opportunity"),
        &details(&json!({"lastReply": {"text": reply, "at": "2024-02-24T08:30:00Z"}})),
    );
    let bodies = bodies(&message);
    assert!(bodies["email"].contains(&format!("“{reply}”")), "{}", bodies["email"]);
    let card: Value = serde_json::from_str(&bodies["https"]).unwrap();
    let description = card["content"]["description"].as_str().unwrap();
    let quotation = description.lines().find_map(|line| line.strip_prefix('“')?.strip_suffix("word...”")).unwrap();
    assert!((480..500).contains(&quotation.len()), "{quotation}");
    assert!(bodies["sms"].contains(" \"word word"), "{}", bodies["sms"]);
    let stored = LastReply::new(&"w".repeat(3000), Timestamp::from_millis(1)).unwrap();
    assert_eq!(stored.text.len(), 2000);
}

#[test]
fn an_sms_has_a_reply_only_if_there_is_room() {
    let sms = |title: &str, reply: &str| {
        let [_, _, sms] =
            shown(json!({"lead": {"title": title}, "lastReply": {"text": reply, "at": "2024-02-24T08:30:00Z"}}));
        sms.strip_prefix("New opportunity: John Doe, ")
            .unwrap()
            .strip_suffix(" https://www.linkedin.com/in/john-doe")
            .unwrap()
            .to_owned()
    };
    assert_eq!(sms("CTO", "“Sure… 👍”"), "CTO \"'Sure... '\"");
    let cut = sms("CTO", "Yes, I would like to talk about this with you tomorrow.");
    assert_eq!(cut, "CTO \"Yes, I would like to talk about this with you tomorrow.\"");
    // Exactly 20 characters are left.
    let title = "A ".repeat(27) + "AB";
    assert_eq!(sms(&title, "I would love to talk to you").split_once(" \"").unwrap().1, "I would love...\"");
    assert!(!sms(&(title + "C"), "Yes, call me.").contains('"'));
    // GSM's alphabet has no letter of it.
    assert_eq!(sms("CTO", "Да, позвоните"), "CTO");
    assert_eq!(sms("CTO", "👍👍"), "CTO");
}

#[test]
fn a_card_shows_prose_without_code_spans() {
    for (text, marked_up) in [
        ("Founder & CEO", "Founder ＆ CEO"),
        ("Sr. Engineer (Platform), 10:30!", "Sr. Engineer (Platform), 10:30!"),
        ("1. Sales", "`1. Sales`"),
        ("- Sales", "`- Sales`"),
        ("+1 555", "`+1 555`"),
        ("*CEO*", "`*CEO*`"),
        ("CEO :fire:", "`CEO :fire:`"),
        ("Node.js", "`Node[.]js`"),
    ] {
        let message = alert_with(&sample("opportunity"), &details(&json!({"lead": {"title": text}})));
        let card: Value = serde_json::from_str(&bodies(&message)["https"]).unwrap();
        assert_eq!(card["content"]["description"].as_str().unwrap().lines().next(), Some(marked_up));
    }
}
