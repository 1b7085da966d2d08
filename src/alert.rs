//! An event goes in; where an alert is due, the [`Delivery`] that carries it comes out, written once per kind of reader.
//!
//! SNS takes one JSON object with a body per protocol (`MessageStructure: json`) and gives every protocol that is not
//! named the `default` one. So there are four bodies: CloudEvents for programs (`default`: SQS, Lambda, Firehose, HTTP),
//! plain text for `email`, one line for `sms`, and a card for chat (`https`, the protocol of Amazon Q Developer in chat
//! applications).
//!
//! All words of an alert come from outside. They are a `Text` before anything is done with them, which has no control or
//! bidi characters, and what a person reads holds no link but one to LinkedIn.

mod text;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use self::text::{Profile, Text, clip};
use crate::event::{Event, Kind, Malformed, StatusChange};
use crate::ledger::{Delivery, DeliveryId, Message, key_part, sha256_hex};

/// SNS wants a Subject of under 100 characters. Counted in UTF-16 units, as whoever counts most strictly does.
const MAX_SUBJECT: usize = 99;

/// One SMS; SNS would split a longer text.
const MAX_SMS: usize = 140;

/// Slack refuses a text of more than 3,000 characters, and a character may take five once it is escaped.
const MAX_CHAT_FACT: usize = 64;

/// As a salesperson reads it.
const WHEN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");

/// The delivery of this event's alert; `None` where none is due. `body` is the webhook's, for the ledger to tell two
/// events under one id apart.
///
/// # Errors
/// If an alert is due, but nothing identifies the event, so that a repetition could not be told from it.
pub fn due(event: &Event, body: &[u8]) -> Result<Option<Delivery>, Malformed> {
    let change = match &event.kind {
        Kind::StatusChanged(change) if change.is_new_opportunity() => change,
        _ => return Ok(None),
    };
    let event_id = event.id.as_deref().ok_or(Malformed::Unidentified)?;
    let alert = Alert::new(event, event_id, change);
    Ok(Some(Delivery {
        id: DeliveryId::alert(event.workspace_id.as_deref(), event_id),
        message: Message { subject: alert.subject(), body: alert.bodies() },
        body_sha256: sha256_hex(body),
    }))
}

/// What an alert says.
struct Alert {
    /// For programs: never the same for two events.
    id: String,
    /// For people.
    event_id: Text,
    source: String,
    time: Option<String>,
    when: Option<String>,
    workspace_id: Option<Text>,
    lead_id: Text,
    campaign_id: Option<Text>,
    profile: Option<Profile>,
    linkedin_url: Option<Text>,
    previous_status: Option<Text>,
    new_status: Text,
    changed_by: Option<Text>,
}

impl Alert {
    fn new(event: &Event, event_id: &str, change: &StatusChange) -> Self {
        let text = |raw: &Option<String>| raw.as_deref().map(Text::new);
        let shown = Text::new(event_id);
        // As it is, where that is legal and no other id, once escaped, could look like it.
        let plain = shown.as_str() == event_id && !event_id.contains('%');
        // Years that RFC 3339 cannot say are none that a person needs to read.
        let time = event.occurred_at.and_then(|at| Some((at.format(&Rfc3339).ok()?, at.format(&WHEN).ok()?)));
        let (time, when) = time.unzip();
        Self {
            id: if plain { event_id.to_owned() } else { key_part(event_id).into_owned() },
            event_id: shown,
            source: source(event.workspace_id.as_deref()),
            time,
            when,
            workspace_id: text(&event.workspace_id),
            lead_id: Text::new(&change.lead_id),
            campaign_id: text(&change.campaign_id),
            profile: change.linkedin_url.as_deref().map(Profile::new),
            linkedin_url: text(&change.linkedin_url),
            previous_status: text(&change.previous_status),
            new_status: Text::new(&change.new_status),
            changed_by: text(&change.changed_by),
        }
    }

    /// The name in the profile's address says most to a person; the lead's id is always there.
    fn who(&self) -> String {
        let name = self.profile.as_ref().and_then(Profile::name);
        name.unwrap_or_else(|| format!("lead {}", self.lead_id.unlinked()))
    }

    fn link(&self) -> Option<&str> {
        self.profile.as_ref().and_then(Profile::link)
    }

    fn change(&self) -> String {
        match &self.previous_status {
            Some(previous) => format!("{} -> {}", previous.unlinked(), self.new_status.unlinked()),
            None => self.new_status.unlinked(),
        }
    }

    /// What there is to know beside who and the link, in the order in which a person asks.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let unlinked = |text: &Option<Text>| text.as_ref().map(Text::unlinked);
        let facts = [
            ("Status", Some(self.change())),
            ("Changed by", unlinked(&self.changed_by)),
            ("When", self.when.clone()),
            ("Campaign", unlinked(&self.campaign_id)),
            ("Lead", Some(self.lead_id.unlinked())),
            ("Workspace", unlinked(&self.workspace_id)),
            ("Event", Some(self.event_id.unlinked())),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect()
    }

    fn subject(&self) -> String {
        clip(&format!("New opportunity: {}", self.who()), MAX_SUBJECT)
    }

    fn bodies(&self) -> String {
        json!({
            "default": self.cloud_event(),
            "email": self.email(),
            "sms": self.sms(),
            "https": self.chat_card(),
        })
        .to_string()
    }

    /// CloudEvents 1.0, JSON format. Consumers dedupe on `source` and `id`.
    fn cloud_event(&self) -> String {
        let event = CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: &self.source,
            kind: "sendpilot.lead.opportunity",
            subject: self.lead_id.as_str(),
            time: self.time.as_deref(),
            datacontenttype: "application/json",
            data: Lead {
                lead_id: self.lead_id.as_str(),
                campaign_id: self.campaign_id.as_ref().map(Text::as_str),
                linkedin_url: self.linkedin_url.as_ref().map(Text::as_str),
                previous_status: self.previous_status.as_ref().map(Text::as_str),
                new_status: self.new_status.as_str(),
                // SendPilot's example maps OPPORTUNITY, the one status that alerts, to this stage.
                crm_stage: "qualified",
                changed_by: self.changed_by.as_ref().map(Text::as_str),
            },
        };
        // Strings only: there is nothing in it that JSON could not hold.
        serde_json::to_string(&event).unwrap_or_default()
    }

    fn email(&self) -> String {
        let mut email = format!("{} is now an opportunity.\n\n", self.who());
        let link = match &self.profile {
            Some(profile) => profile.link().unwrap_or("(not shown: not an https address on linkedin.com)"),
            None => "(none)",
        };
        let profile = ("LinkedIn", link.to_owned());
        for (name, fact) in std::iter::once(profile).chain(self.facts()) {
            email.push_str(&format!("{:12}{fact}\n", format!("{name}:")));
        }
        email.push_str("\nYou get this once per event. Should it ever come twice, the event is the same.\n");
        email
    }

    /// Whole link or none: a cut one leads nowhere.
    fn sms(&self) -> String {
        let link =
            self.link().map(|link| format!(" {link}")).filter(|link| link.len() <= MAX_SMS - 40).unwrap_or_default();
        let text: String = format!("New opportunity: {}", self.who()).chars().map(in_sms).collect();
        clip(&text, MAX_SMS - link.len()) + &link
    }

    /// Amazon Q Developer's custom notification. Values stand in code spans, where Slack and Teams show them as they are.
    fn chat_card(&self) -> String {
        let fact = |(name, fact): &(&str, String)| format!("*{name}:* `{}`", code(&clip(fact, MAX_CHAT_FACT)));
        let facts: Vec<_> = self.facts().iter().map(fact).collect();
        let link = self.link().map(|link| format!("{link}\n\n")).unwrap_or_default();
        json!({
            "version": "1.0",
            "source": "custom",
            "content": {
                "textType": "client-markdown",
                "title": code(&self.subject()),
                "description": format!("{link}{}", facts.join("\n")),
            },
            "metadata": {
                "summary": code(&self.subject()),
                "eventType": "sendpilot.lead.opportunity",
                "additionalContext": {
                    "eventId": self.id,
                    "leadId": self.lead_id.as_str(),
                },
            },
        })
        .to_string()
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    datacontenttype: &'a str,
    data: Lead<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lead<'a> {
    lead_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linkedin_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_status: Option<&'a str>,
    new_status: &'a str,
    crm_stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<&'a str>,
}

/// CloudEvents wants a URI reference here.
fn source(workspace_id: Option<&str>) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    match workspace_id {
        // Bounded, as in the ledger's key. Escaped, no id has a colon.
        Some(id) if id.len() > 256 => format!("urn:sendpilot:workspace:sha256:{}", sha256_hex(id.as_bytes())),
        Some(id) => format!("urn:sendpilot:workspace:{}", utf8_percent_encode(id, ESCAPED)),
        None => "urn:sendpilot:workspace".into(),
    }
}

/// One character that GSM's alphabet has not would make the whole SMS UCS-2, at 70 characters; the brackets count twice.
fn in_sms(character: char) -> char {
    match character {
        '`' => '\'',
        '[' | '{' => '(',
        ']' | '}' => ')',
        '\\' | '|' => '/',
        '^' | '~' => '-',
        ' '..='~' => character,
        _ => '?',
    }
}

/// Slack's three special characters, escaped; and no backtick, which would end a code span.
fn code(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'")
}
