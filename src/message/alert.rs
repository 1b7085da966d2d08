//! Writes the [`Delivery`] of an alert, with one body per kind of reader.
//!
//! SNS takes one JSON object with a body per protocol (`MessageStructure: json`), and sends the
//! `default` body to every other protocol. So there are four bodies: a CloudEvent for programs
//! (`default`: SQS, Lambda, Firehose, HTTP), plain text for `email`, one line for `sms`, and a card
//! for chat (`https`, the protocol of Amazon Q Developer in chat applications).
//!
//! All text of an alert comes from outside. It becomes a `Text` first, which has no control or
//! bidirectional characters. The bodies for people have no link except one to LinkedIn.

use std::iter;

use sendpilot_events::{CloudEvent, OPPORTUNITY, Type};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::message::cloud_event::{cloud_event, json, lead_status_changed, lead_tagged};
use crate::message::key::{DebounceKey, DeliveryId};
use crate::message::pipeline::Pipeline;
use crate::message::profile::Profile;
use crate::message::trigger::{Trigger, normal};
use crate::message::{Delivery, Message};
use crate::sendpilot::event::Event;
use crate::text::{Text, clip};

/// Longest Subject, in UTF-16 units, which is the strictest count. SNS requires under 100 characters.
const MAX_SUBJECT: usize = 99;

/// Longest SMS, in characters. SNS would split a longer text.
const MAX_SMS: usize = 140;

/// Longest status or tag in a headline, in UTF-16 units. It must leave room for the lead.
const MAX_NEWS: usize = 30;

/// Longest value in the chat card, in UTF-16 units. Slack rejects a text of more than 3,000
/// characters, and an escaped character may take five.
const MAX_CHAT_FACT: usize = 64;

/// The format of a time for people.
const WHEN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");

/// Returns the delivery of this event's alert.
pub(crate) fn delivery(
    event: &Event,
    event_id: &str,
    trigger: Trigger<'_>,
    pipeline: &Pipeline,
    debounce: bool,
) -> Delivery {
    let workspace_id = event.workspace_id.as_deref();
    let (alert, debounce_key) = match trigger {
        Trigger::Status(change) => {
            let kind = if change.new_status == OPPORTUNITY { Type::Opportunity } else { Type::StatusReached };
            let data = lead_status_changed(change, pipeline);
            let alert = Alert {
                campaign_id: text(&change.campaign_id),
                profile: change.linkedin_url.as_deref().map(Profile::new),
                previous: text(&change.previous_status),
                changed_by: text(&change.changed_by),
                ..Alert::new(
                    cloud_event(event, event_id, kind, &change.lead_id, data),
                    event,
                    event_id,
                    &change.new_status,
                )
            };
            // SendPilot may write an undocumented status in another letter case the next time, so
            // the key ignores letter case.
            (alert, DebounceKey::status(workspace_id, &change.lead_id, &change.new_status.to_ascii_uppercase()))
        }
        Trigger::Tag { lead_id, new_tag, change } => {
            let data = lead_tagged(lead_id, new_tag, change);
            let alert = Alert {
                campaign_id: text(&change.campaign_id),
                profile: change.linkedin_url.as_deref().map(Profile::new),
                previous: text(&change.previous_tag),
                ..Alert::new(cloud_event(event, event_id, Type::Tagged, lead_id, data), event, event_id, new_tag)
            };
            // People write a tag in any letter case.
            (alert, DebounceKey::tag(workspace_id, lead_id, &normal(new_tag)))
        }
    };
    Delivery {
        id: DeliveryId::alert(workspace_id, event_id),
        message: alert.message(),
        content_sha256: trigger.content_sha256(),
        debounce_key: debounce.then_some(debounce_key),
    }
}

fn text(raw: &Option<String>) -> Option<Text> {
    raw.as_deref().map(Text::new)
}

/// Formats a moment for people.
#[expect(clippy::expect_used, reason = "every moment has the day, the hour and the minute that the format asks for")]
fn when(at: OffsetDateTime) -> String {
    at.format(&WHEN).expect("a moment that can be written")
}

/// A name and a value.
type Fact = (&'static str, String);

/// What an alert says.
struct Alert {
    kind: Type,
    /// The id for programs. Two events never share it.
    id: String,
    cloud_event: String,
    /// The id for people.
    event_id: Text,
    when: Option<String>,
    workspace_id: Option<Text>,
    lead_id: Text,
    campaign_id: Option<Text>,
    profile: Option<Profile>,
    /// The status or the tag before.
    previous: Option<Text>,
    /// The status or the tag now.
    new: Text,
    changed_by: Option<Text>,
}

impl Alert {
    /// Creates an alert with the facts that every alert has.
    fn new<Data: Serialize>(cloud_event: CloudEvent<Data>, event: &Event, event_id: &str, new: &str) -> Self {
        Self {
            kind: cloud_event.kind,
            cloud_event: json(&cloud_event),
            when: cloud_event.time.map(when),
            id: cloud_event.id,
            event_id: Text::new(event_id),
            workspace_id: text(&event.workspace_id),
            lead_id: Text::new(&cloud_event.subject),
            campaign_id: None,
            profile: None,
            previous: None,
            new: Text::new(new),
            changed_by: None,
        }
    }

    /// Returns the name in the profile's address, which says most to a person, or the lead's id.
    fn who(&self) -> String {
        let name = self.profile.as_ref().and_then(Profile::name);
        name.unwrap_or_else(|| format!("lead {}", self.lead_id.unlinked()))
    }

    fn link(&self) -> Option<&str> {
        self.profile.as_ref().and_then(Profile::link)
    }

    fn change(&self) -> String {
        match &self.previous {
            Some(previous) => format!("{} -> {}", previous.unlinked(), self.new.unlinked()),
            None => self.new.unlinked(),
        }
    }

    /// What there is to know beside who and the link, in the order in which a person asks.
    fn facts(&self) -> Vec<Fact> {
        let unlinked = |text: &Option<Text>| text.as_ref().map(Text::unlinked);
        let facts = [
            (if self.kind == Type::Tagged { "Tag" } else { "Status" }, Some(self.change())),
            ("Changed by", unlinked(&self.changed_by)),
            ("When", self.when.clone()),
            ("Campaign", unlinked(&self.campaign_id)),
            ("Lead", Some(self.lead_id.unlinked())),
            ("Workspace", unlinked(&self.workspace_id)),
            ("Event", Some(self.event_id.unlinked())),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect()
    }

    /// In one line: what, and who. `MEETING_BOOKED` is "Meeting booked".
    fn headline(&self) -> String {
        let news = match self.kind {
            Type::Opportunity => "New opportunity".into(),
            Type::Tagged => format!("Tagged {}", clip(&self.new.unlinked(), MAX_NEWS)),
            Type::StatusReached | Type::StatusChanged => {
                let words = clip(&self.new.unlinked(), MAX_NEWS).replace('_', " ").to_lowercase();
                let mut letters = words.chars();
                letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
            }
        };
        format!("{news}: {}", self.who())
    }

    fn message(&self) -> Message {
        let (headline, facts) = (self.headline(), self.facts());
        let subject = clip(&headline, MAX_SUBJECT);
        let body = json(&Bodies {
            default: &self.cloud_event,
            email: &self.email(&facts),
            https: &self.chat_card(&subject, &facts),
            sms: &self.sms(&headline),
        });
        Message::Alert { subject, body }
    }

    fn email(&self, facts: &[Fact]) -> String {
        let who = self.who();
        let mut email = match self.kind {
            Type::Opportunity => format!("{who} is now an opportunity.\n\n"),
            Type::Tagged => format!("{who} is now tagged {}.\n\n", self.new.unlinked()),
            Type::StatusReached | Type::StatusChanged => format!("{who} is now {}.\n\n", self.new.unlinked()),
        };
        let link = match &self.profile {
            Some(profile) => profile.link().unwrap_or("(not shown: not an https address on linkedin.com)"),
            None => "(none)",
        };
        let profile = ("LinkedIn", link);
        for (name, fact) in iter::once(profile).chain(facts.iter().map(|(name, fact)| (*name, fact.as_str()))) {
            let padding = " ".repeat(11_usize.saturating_sub(name.len()));
            email.extend([name, ":", &padding, fact, "\n"]);
        }
        email.push_str("\nYou get this once per event. Should it ever come twice, the event is the same.\n");
        email
    }

    /// Whole link or none: a cut one leads nowhere.
    fn sms(&self, headline: &str) -> String {
        let link =
            self.link().map(|link| format!(" {link}")).filter(|link| link.len() <= MAX_SMS - 40).unwrap_or_default();
        let text: String = headline.chars().map(in_sms).collect();
        clip(&text, MAX_SMS - link.len()) + &link
    }

    /// Amazon Q Developer's custom notification. Values stand in code spans, where Slack and Teams show them as they are.
    fn chat_card(&self, subject: &str, facts: &[Fact]) -> String {
        let mut description = self.link().map(|link| format!("{link}\n\n")).unwrap_or_default();
        for (index, (name, fact)) in facts.iter().enumerate() {
            let line_break = if index > 0 { "\n" } else { "" };
            description.extend([line_break, "*", name, ":* `", &code(&clip(fact, MAX_CHAT_FACT)), "`"]);
        }
        let title = &code(subject);
        json(&ChatCard {
            content: ChatContent { description: &description, text_type: "client-markdown", title },
            metadata: ChatMetadata {
                additional_context: ChatContext { event_id: &self.id, lead_id: self.lead_id.as_str() },
                event_type: self.kind,
                summary: title,
            },
            source: "custom",
            version: "1.0",
        })
    }
}

/// A body for each protocol, for `MessageStructure: json`.
#[derive(Serialize)]
struct Bodies<'a> {
    default: &'a str,
    email: &'a str,
    https: &'a str,
    sms: &'a str,
}

/// A custom notification of Amazon Q Developer in chat applications.
#[derive(Serialize)]
struct ChatCard<'a> {
    content: ChatContent<'a>,
    metadata: ChatMetadata<'a>,
    source: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatContent<'a> {
    description: &'a str,
    text_type: &'static str,
    title: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatMetadata<'a> {
    additional_context: ChatContext<'a>,
    event_type: Type,
    summary: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatContext<'a> {
    event_id: &'a str,
    lead_id: &'a str,
}

/// One character that GSM's alphabet does not have would make the whole SMS UCS-2, at 70
/// characters.
/// The brackets count twice.
/// No character becomes one of a link (`/`, `.`, `:`, `@`): the text was unlinked before.
fn in_sms(character: char) -> char {
    match character {
        '`' => '\'',
        '[' | '{' => '(',
        ']' | '}' => ')',
        '\\' | '|' | '^' | '~' => '-',
        ' '..='~' => character,
        _ => '?',
    }
}

/// Slack's three special characters, escaped; and no backtick, which would end a code span.
fn code(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '`' => escaped.push('\''),
            _ => escaped.push(character),
        }
    }
    escaped
}
