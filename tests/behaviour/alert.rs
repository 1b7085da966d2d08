//! Each body of an alert against its golden file in `events/alerts/`, and SNS's limits for every
//! event.
//!
//! To update the golden files, run `UPDATE_GOLDEN=1 cargo test --test behaviour alert::`.

use std::collections::BTreeMap;
use std::fs;

use crate::support::requests::{file, secrets};
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::message::{Delivery, Message};
use opportunity_alerts::sendpilot::event::{self, Event, Kind, StatusChange};
use opportunity_alerts::sendpilot::signature::verify;
use proptest::prelude::*;
use serde_json::{Value, json};

fn alert(event: &Event) -> Option<Delivery> {
    Rules::default().due(event).unwrap().alert
}

fn due(name: &str) -> Option<Delivery> {
    let (request, now) = file(name);
    let event = event::parse(&verify(request.headers(), request.body(), &secrets(), now).unwrap()).unwrap();
    alert(&event)
}

fn parts(message: &Message) -> (&str, &str, BTreeMap<String, String>) {
    let Message::Alert { subject, body } = message else { panic!("no alert: {message:?}") };
    (subject, body, serde_json::from_str(body).unwrap())
}

fn bodies(message: &Message) -> BTreeMap<String, String> {
    parts(message).2
}

/// JSON as a person reads it; other text as it is.
fn readable(body: &str) -> String {
    serde_json::from_str::<Value>(body)
        .map_or(body.to_owned(), |value| serde_json::to_string_pretty(&value).unwrap() + "\n")
}

#[test]
fn every_body_matches_its_golden_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for name in
        ["opportunity", "opportunity-lead-updated", "opportunity-minimal", "opportunity-base64", "opportunity-hostile"]
    {
        let message = due(name).unwrap().message;
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
    for name in ["reply-received", "unlisted-status", "message-sent", "opportunity-again"] {
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
        ("https://www.linkedin.com/in/john-doe", Some("https://www.linkedin.com/in/john-doe"), "john-doe"),
        ("https://linkedin.com/in/john-doe/", Some("https://linkedin.com/in/john-doe/"), "john-doe"),
        ("HTTPS://De.LinkedIn.com/in/j%C3%BCrgen?trk=x", Some("https://de.linkedin.com/in/j%C3%BCrgen"), "j\u{fc}rgen"),
        ("https://www.linkedin.com/in/m\u{fc}ller", Some("https://www.linkedin.com/in/m%C3%BCller"), "m\u{fc}ller"),
        ("https%3A%2F%2Fwww.linkedin.com%2Fin%2Fjohn-doe", Some("https://www.linkedin.com/in/john-doe"), "john-doe"),
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
            "lead lead_1",
        ),
        ("in/john-doe?trk=people", None, "john-doe"),
        ("/in/john-doe", None, "john-doe"),
        ("http://www.linkedin.com/in/john-doe", None, "lead lead_1"),
        ("https://linkedin.com.evil.example/in/john-doe", None, "lead lead_1"),
        ("https://evillinkedin.com/in/john-doe", None, "lead lead_1"),
        ("https://linkedin.com@evil.example/in/john-doe", None, "lead lead_1"),
        ("https://evil@www.linkedin.com/in/john-doe", None, "lead lead_1"),
        ("https://www.linkedin.com:8443/in/john-doe", None, "lead lead_1"),
        ("https://l\u{131}nkedin.com/in/john-doe", None, "lead lead_1"),
        ("javascript:alert(1)//linkedin.com/in/x", None, "lead lead_1"),
        ("", None, "lead lead_1"),
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

/// Where text for a person holds a link, it is one to LinkedIn, and of characters that no markup knows.
fn assert_links(text: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/%-._~".contains(c);
    for word in text.split_whitespace() {
        match word.strip_prefix("https://www.linkedin.com/") {
            Some(path) => assert!(path.chars().all(plain), "{text:?}"),
            None => {
                let host = word.split("www.").skip(1).any(|rest| rest.starts_with(char::is_alphabetic));
                assert!(!host && !word.contains("://") && !word.contains("@c"), "{text:?}");
            }
        }
    }
}

/// What the contract says of any alert.
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
    assert!(
        sms.len() <= 140 && sms.chars().all(|c| matches!(c, ' '..='~') && !"[]{}\\|^~`".contains(c) || c == '~'),
        "{sms:?}"
    );
    let event: Value = serde_json::from_str(&bodies["default"]).unwrap();
    assert!(url::Url::parse(event["source"].as_str().unwrap()).is_ok());
    assert!(["id", "subject"].iter().all(|name| !event[name].as_str().unwrap().is_empty()));
    let chat: Value = serde_json::from_str(&bodies["https"]).unwrap();
    let [title, description] = ["title", "description"].map(|name| chat["content"][name].as_str().unwrap());
    for words in [title, description] {
        assert!(!words.contains(['<', '>']), "{words:?}");
        assert_eq!(words.matches('`').count() % 2, 0, "{words:?}");
    }
    assert!(description.len() <= 3000, "{} bytes", description.len());
    for text in [subject, &bodies["email"], sms, title, description] {
        assert_links(text);
    }
}

/// Text as an attacker would choose it: everything that escapes badly, grows, hides or deceives.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        proptest::string::string_regex("[\"\\\\<>&`*_~|\\n\\r\\t\\x00-\\x1f\\x7f-\\x9f]{0,40}").unwrap(),
        "[\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}]{0,9}",
        "[\u{1F600}-\u{1F64F}\u{10FFFE}\u{FFFF}]{0,60}",
        Just("https://www.linkedin.com/in/".to_owned()),
        // A body that replaces characters must not make a link of others.
        proptest::string::string_regex("(https)?[:\u{FF1A}|\\\\/\u{2215}^~`]{2,6}evil[.\u{3002}|`]example").unwrap(),
        proptest::string::string_regex(
            "[)(|'`\\[\\]*_~]{1,4}(https://evil\\.example|www\\.evil\\.example|\u{FF0E}evil)?"
        )
        .unwrap(),
        Just("https://evil.example/ www.evil.example @channel a@evil.example".to_owned()),
        (0usize..80_000).prop_map(|length| "\"".repeat(length)),
        (0usize..60_000).prop_map(|length| "\u{FFFD}<".repeat(length / 4)),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_alert_keeps_snss_limits(texts in proptest::collection::vec(hostile(), 7), present in any::<[bool; 5]>(), when in any::<Option<i64>>()) {
        let [id, lead, workspace, campaign, url, previous, by] = <[String; 7]>::try_from(texts).unwrap();
        let event = Event {
            // The parser takes an empty one for none.
            id: Some(if id.is_empty() { "e".into() } else { id }),
            event_type: "lead.updated".into(),
            renamed: false,
            workspace_id: present[0].then_some(workspace),
            occurred_at: when.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds % 400_000_000_000).ok()),
            kind: Kind::StatusChanged(StatusChange {
                lead_id: lead,
                campaign_id: present[1].then_some(campaign),
                linkedin_url: present[2].then_some(url),
                previous_status: present[3].then_some(previous),
                new_status: "OPPORTUNITY".into(),
                changed_by: present[4].then_some(by),
            }),
        };
        if let Some(delivery) = alert(&event) {
            assert_legal(&delivery.message);
        }
    }
}

#[test]
fn no_body_makes_a_link_of_characters_that_it_replaces() {
    for lead in [":|\\", "https:||evil.example", "https:\\\\evil.example", "www`evil`example", "a^evil.example"] {
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
        assert_legal(&alert(&event).unwrap().message);
    }
}
