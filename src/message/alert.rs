//! Writes the [`Delivery`] of an alert, with one body per kind of reader.
//!
//! SNS takes one JSON object with a body per protocol (`MessageStructure: json`), and sends the
//! `default` body to every other protocol. So there are four bodies: a CloudEvent for programs
//! (`default`: SQS, Lambda, Firehose, HTTP), plain text for `email`, one line for `sms`, and a card
//! for chat (`https`, the protocol of Amazon Q Developer in chat applications).
//!
//! All text of an alert comes from outside. It becomes a `Text` first, which has no control or
//! bidirectional characters. The bodies for people have no link except one to LinkedIn.

use sendpilot_events::{CloudEvent, OPPORTUNITY, Type};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::message::cloud_event::{self, cloud_event, lead_status_changed, lead_tagged};
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
        message: Message::Alert { subject: alert.subject(), body: alert.bodies() },
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
            cloud_event: cloud_event::json(&cloud_event),
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
    fn facts(&self) -> Vec<(&'static str, String)> {
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

    fn subject(&self) -> String {
        clip(&self.headline(), MAX_SUBJECT)
    }

    fn bodies(&self) -> String {
        json!({
            "default": self.cloud_event,
            "email": self.email(),
            "sms": self.sms(),
            "https": self.chat_card(),
        })
        .to_string()
    }

    fn email(&self) -> String {
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
        let text: String = self.headline().chars().map(in_sms).collect();
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
                "eventType": self.kind.as_str(),
                "additionalContext": {
                    "eventId": self.id,
                    "leadId": self.lead_id.as_str(),
                },
            },
        })
        .to_string()
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
