//! Writes the [`Delivery`] of an alert, with one body per kind of reader.
//!
//! SNS takes one JSON object with a body per protocol (`MessageStructure: json`), and sends the
//! `default` body to every other protocol. There are four bodies:
//!
//! - `default`: a CloudEvent for programs (SQS, Lambda, Firehose, HTTP)
//! - `email`: plain text
//! - `sms`: one line
//! - `https`: a card for Amazon Q Developer in chat applications, with the facts of the email
//!
//! All text of an alert comes from outside. It becomes a `Text` first, which has no control or
//! bidirectional characters. The bodies for people have no link except one to LinkedIn.

use sendpilot_events::{CloudEvent, OPPORTUNITY, Type};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::message::cloud_event::{cloud_event, json, lead_status_changed, lead_tagged};
use crate::message::details::{Details, LastReply, MAX_REPLY};
use crate::message::key::DeliveryId;
use crate::message::layout::{Line, Piece, join, marked_up, plain};
use crate::message::pipeline::Pipeline;
use crate::message::profile::Profile;
use crate::message::trigger::Trigger;
use crate::message::{Delivery, Locks, Message};
use crate::sendpilot::event::{Event, Origin};
use crate::text::{Text, clip, clip_words, gsm};

/// Longest Subject, in UTF-16 units, which is the strictest count. SNS requires fewer than 100
/// characters.
const MAX_SUBJECT: usize = 99;

/// Longest SMS, in characters. SNS would split a longer text.
const MAX_SMS: usize = 140;

/// Longest status or tag in a headline, in UTF-16 units. It must leave room for the lead.
const MAX_NEWS: usize = 30;

/// Longest name from SendPilot's API, in UTF-16 units. The Subject has room for each such name.
const MAX_NAME: usize = 60;

/// Longest title, company and name of a campaign for people, in UTF-16 units.
const MAX_DETAIL: usize = 64;

/// Least room for a role in a Subject, in UTF-16 units. Less would show only its beginning.
const MIN_ROLE: usize = 10;

/// Least room for a reply in an SMS, in characters. Less would show only its beginning.
const MIN_SMS_REPLY: usize = 20;

/// The reason why an alert of the reconciliation is late, for salespeople.
const LATE: &str = "This alert is late: no webhook arrived, and a reconciliation with SendPilot found the lead.";

/// The same reason in an SMS, in GSM's alphabet.
const LATE_SMS: &str = " (late, no webhook)";

/// The format of a time for people. It is in UTC, because the reader's time zone is not known.
const WHEN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");

/// Returns the delivery of this event's alert.
pub(crate) fn delivery(
    event: &Event,
    event_id: &str,
    trigger: Trigger<'_>,
    details: &Details,
    pipeline: &Pipeline,
    locks: Locks,
) -> Delivery {
    let alert = match trigger {
        Trigger::Status(change) => {
            let kind = if change.new_status == OPPORTUNITY { Type::Opportunity } else { Type::StatusReached };
            let data = lead_status_changed(event, change, pipeline, details);
            Alert {
                campaign_id: text(&change.campaign_id),
                profile: change.linkedin_url.as_deref().map(Profile::new),
                previous: text(&change.previous_status),
                changed_by: text(&change.changed_by),
                ..Alert::new(
                    cloud_event(event, event_id, kind, &change.lead_id, data),
                    event,
                    event_id,
                    &change.new_status,
                    details,
                )
            }
        }
        Trigger::Tag { lead_id, new_tag, change } => {
            let data = lead_tagged(lead_id, new_tag, change, details);
            Alert {
                campaign_id: text(&change.campaign_id),
                profile: change.linkedin_url.as_deref().map(Profile::new),
                previous: text(&change.previous_tag),
                ..Alert::new(
                    cloud_event(event, event_id, Type::Tagged, lead_id, data),
                    event,
                    event_id,
                    new_tag,
                    details,
                )
            }
        }
    };
    Delivery {
        id: DeliveryId::alert(event.workspace_id.as_deref(), event_id),
        message: alert.message(),
        content_sha256: trigger.content_sha256(),
        locks,
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

/// Returns the time from a reply to a later event in words, rounded down.
fn age(reply: OffsetDateTime, event: OffsetDateTime) -> Option<String> {
    let age = event - reply;
    let (number, unit) = match age.whole_minutes() {
        _ if age.is_negative() => return None,
        0 => return Some("less than a minute".into()),
        minutes @ 1..60 => (minutes, "minute"),
        minutes @ 60..1440 => (minutes / 60, "hour"),
        minutes => (minutes / 1440, "day"),
    };
    Some(format!("{number} {unit}{}", if number == 1 { "" } else { "s" }))
}

/// The last reply in an alert.
struct Reply {
    /// The words after "Last reply": the age of the reply if it came before the event, or its time
    /// in an alert of the reconciliation.
    when: Option<String>,
    text: Text,
}

impl Reply {
    /// Creates the reply of an alert on an event of this origin and time. Without a webhook, the
    /// time of the change is not known, so an age such as "2 hours earlier" could mislead.
    fn new(LastReply { text, at }: &LastReply, origin: Origin, event: Option<OffsetDateTime>) -> Option<Self> {
        let at = OffsetDateTime::from(*at);
        let when = match origin {
            Origin::Webhook => event.and_then(|event| Some(format!(", {} earlier", age(at, event)?))),
            Origin::Reconciliation { .. } => Some(format!(" on {}", when(at))),
        };
        Some(Self { when, text: Text::one_line(text, MAX_REPLY)? })
    }
}

/// The content of an alert.
struct Alert {
    kind: Type,
    /// The id for programs. Two events never share it.
    id: String,
    cloud_event: String,
    /// The id for people.
    event_id: Text,
    origin: Origin,
    /// The time of the change, or of the lead's last update in an alert of the reconciliation.
    when: Option<String>,
    workspace_id: Option<Text>,
    lead_id: Text,
    campaign_id: Option<Text>,
    profile: Option<Profile>,
    /// The status or the tag before.
    previous: Option<Text>,
    /// The new status or tag.
    new: Text,
    changed_by: Option<Text>,
    /// The lead's name by SendPilot's API.
    name: Option<Text>,
    title: Option<Text>,
    company: Option<Text>,
    campaign_name: Option<Text>,
    reply: Option<Reply>,
}

impl Alert {
    /// Creates an alert with the facts that every alert has.
    fn new<Data: Serialize>(
        cloud_event: CloudEvent<Data>,
        event: &Event,
        event_id: &str,
        new: &str,
        details: &Details,
    ) -> Self {
        let reply = details.last_reply.as_ref().and_then(|reply| Reply::new(reply, event.origin, cloud_event.time));
        Self {
            name: details.name(),
            title: details.title(),
            company: details.company(),
            campaign_name: details.campaign_name(),
            reply,
            kind: cloud_event.kind,
            cloud_event: json(&cloud_event),
            origin: event.origin,
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

    /// Returns the name from SendPilot's API, or else the name from the profile's address.
    fn name(&self) -> Option<Piece> {
        let name = self.name.as_ref().map(|name| Piece::Prose(clip_words(&name.unlinked(), MAX_NAME)));
        name.or_else(|| self.profile_name().map(|name| Piece::Outside(name.to_owned())))
    }

    fn profile_name(&self) -> Option<&str> {
        self.profile.as_ref().and_then(Profile::name)
    }

    /// Returns the lead's name or id. An id that does not begin with "lead" gets `lead` before it,
    /// which is "lead " or "Lead ".
    fn who(&self, name: Option<Piece>, lead: &'static str) -> Line {
        if let Some(name) = name {
            return vec![name];
        }
        let id = Piece::Id(self.lead_id.unlinked());
        let says_lead = self.lead_id.as_str().get(..4).is_some_and(|start| start.eq_ignore_ascii_case("lead"));
        if says_lead { vec![id] } else { vec![Piece::ours(lead), id] }
    }

    fn role(&self) -> Option<Role> {
        Role::new(self.title.as_ref().map(Text::unlinked), self.company.as_ref().map(Text::unlinked))
    }

    fn link(&self) -> Option<&str> {
        self.profile.as_ref().and_then(Profile::link)
    }

    /// Returns the lead's role, and the link to the profile or the reason why there is no link.
    fn profile(&self) -> Vec<Line> {
        let role = self.role().map(|role| vec![Piece::Prose(role.line())]);
        role.into_iter().chain([self.link_or_reason()]).collect()
    }

    fn link_or_reason(&self) -> Line {
        let reason = match &self.profile {
            Some(_) => "The profile's address is not shown, because it is not a usable address on LinkedIn.",
            None => "SendPilot sent no LinkedIn profile.",
        };
        vec![Piece::ours(self.link().unwrap_or(reason))]
    }

    /// Returns a status in words, or a tag as people wrote it, without links.
    fn value(&self, raw: &Text) -> String {
        if self.kind == Type::Tagged { raw.unlinked() } else { raw.words().unlinked() }
    }

    /// Returns the sentence that says why the alert is late, if it is.
    fn late(&self) -> Vec<Line> {
        match self.origin {
            Origin::Webhook => Vec::new(),
            Origin::Reconciliation { .. } => vec![vec![Piece::ours(LATE)]],
        }
    }

    /// Returns the last reply in quotation marks, under a line with its age or time.
    fn last_reply(&self) -> Vec<Line> {
        let Some(Reply { when, text }) = &self.reply else { return Vec::new() };
        let when = when.as_deref().unwrap_or_default();
        vec![vec![Piece::Label("Last reply"), Piece::ours(format!("{when}:"))], vec![Piece::Reply(text.unlinked())]]
    }

    /// Returns the facts beside the lead and the link, most important first.
    fn facts(&self) -> Vec<Line> {
        let change = self.previous.as_ref().map(|previous| {
            let mut line = match self.kind {
                Type::Tagged => vec![Piece::Label("Tag:"), Piece::ours(" ")],
                _ => Line::new(),
            };
            let [previous, new] = [previous, &self.new].map(|value| Piece::Outside(self.value(value)));
            line.extend([previous, Piece::ours(" → "), new]);
            line
        });
        let when = self.when.clone().map(|when| match self.origin {
            Origin::Webhook => vec![Piece::Ours(when)],
            Origin::Reconciliation { .. } => vec![Piece::Label("Last updated"), Piece::ours(" "), Piece::Ours(when)],
        });
        let campaign = match (&self.campaign_name, &self.campaign_id) {
            (Some(name), _) => {
                let name = Piece::Prose(clip_words(&name.unlinked(), MAX_DETAIL));
                Some(vec![Piece::Label("Campaign"), Piece::ours(" "), name])
            }
            (None, id) => id.as_ref().map(|id| id_line("Campaign", id)),
        };
        let changed_by = self.changed_by.as_ref().map(changed_by);
        [change, when, campaign, changed_by].into_iter().flatten().collect()
    }

    /// Returns the ids that identify the event in SendPilot, in the logs and in the table.
    fn ids(&self) -> Line {
        let mut line = id_line("Lead", &self.lead_id);
        // Without its name, the campaign's id is among the facts.
        let campaign_id = self.campaign_id.as_ref().filter(|_| self.campaign_name.is_some());
        let others =
            [("Campaign", campaign_id), ("Workspace", self.workspace_id.as_ref()), ("Event", Some(&self.event_id))];
        for (label, id) in others {
            if let Some(id) = id {
                line.push(Piece::ours(" · "));
                line.extend(id_line(label, id));
            }
        }
        line
    }

    /// Returns the change and the lead, such as "Meeting booked: John Doe".
    fn headline(&self, name: Option<Piece>) -> Line {
        let news = Piece::Outside(clip(&self.value(&self.new), MAX_NEWS));
        let mut line = match self.kind {
            Type::Opportunity => vec![Piece::ours("New opportunity")],
            Type::Tagged => vec![Piece::ours("Tagged "), news],
            Type::StatusReached | Type::StatusChanged => vec![news],
        };
        line.push(Piece::ours(": "));
        line.extend(self.who(name, "lead "));
        line
    }

    /// Returns the headline with the lead's role, cut to the Subject's room for the role.
    fn headline_with_role(&self) -> Line {
        let mut line = self.headline(self.name());
        let room = MAX_SUBJECT.saturating_sub(plain(&line).encode_utf16().count());
        if let Some(Role { lead_in, text }) = self.role().filter(|_| room >= MIN_ROLE) {
            line.extend([Piece::ours(lead_in), Piece::Prose(clip_role(&text, room - lead_in.len()))]);
        }
        line
    }

    /// Returns the change and the lead in a sentence.
    fn sentence(&self) -> Line {
        let has_new = |dimension| {
            vec![
                Piece::ours(format!(" now has the {dimension} \"")),
                Piece::Outside(self.value(&self.new)),
                Piece::ours("\"."),
            ]
        };
        let news = match self.kind {
            Type::Opportunity => vec![Piece::ours(" is now an opportunity.")],
            Type::Tagged => has_new("tag"),
            Type::StatusReached | Type::StatusChanged => has_new("status"),
        };
        self.who(self.name(), "Lead ").into_iter().chain(news).collect()
    }

    fn message(&self) -> Message {
        let headline = self.headline_with_role();
        let body = json(&Bodies {
            default: &self.cloud_event,
            email: &self.email(),
            https: &self.chat_card(&headline),
            sms: &self.sms(),
        });
        Message::Alert { subject: clip(&plain(&headline), MAX_SUBJECT), body }
    }

    fn email(&self) -> String {
        let duplicates = "You receive one alert per event. A duplicate has the same event id.";
        let paragraphs = [
            vec![self.sentence()],
            self.late(),
            self.profile(),
            self.last_reply(),
            self.facts(),
            vec![self.ids()],
            vec![vec![Piece::ours(duplicates)]],
        ];
        join(&paragraphs, plain) + "\n"
    }

    /// Writes the SMS, with the whole link or none: a cut link leads nowhere. If GSM's alphabet has
    /// no letter of the lead's name, the SMS has the lead's id.
    fn sms(&self) -> String {
        let sms = |text: &Option<Text>| text.as_ref().and_then(Text::sms);
        let name = sms(&self.name).map(|name| Piece::Prose(clip_words(&name, MAX_NAME))).or_else(|| {
            let name = self.profile_name().filter(|name| gsm(name).contains(char::is_alphabetic));
            name.map(|name| Piece::Outside(name.to_owned()))
        });
        let link =
            self.link().map(|link| format!(" {link}")).filter(|link| link.len() <= MAX_SMS - 40).unwrap_or_default();
        let room = MAX_SMS - link.len();
        let headline = gsm(&plain(&self.headline(name)));
        let text = match Role::new(sms(&self.title), sms(&self.company)) {
            Some(Role { lead_in, text }) => clip_role(&(headline + lead_in + &text), room),
            None => clip(&headline, room),
        };
        let left = room.saturating_sub(text.chars().count());
        let late = match self.origin {
            Origin::Reconciliation { .. } if LATE_SMS.len() <= left => LATE_SMS,
            _ => "",
        };
        let left = left - late.len();
        let reply = self.reply.as_ref().filter(|_| left >= MIN_SMS_REPLY).and_then(|reply| reply.text.sms());
        let quotation = reply.map(|reply| format!(" \"{}\"", clip_words(&reply, left - 3))).unwrap_or_default();
        text + late + &quotation + &link
    }

    /// Writes the card: a custom notification of Amazon Q Developer. The title and the description
    /// are in the markdown of the chat app, where text can mention people.
    ///
    /// <https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html>
    fn chat_card(&self, headline: &Line) -> String {
        let title = &marked_up(headline);
        let paragraphs = [self.late(), self.profile(), self.last_reply(), self.facts(), vec![self.ids()]];
        let description = join(&paragraphs, marked_up);
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

/// The lead's title and company, for people.
struct Role {
    /// The text between the lead and the role.
    lead_in: &'static str,
    text: String,
}

impl Role {
    fn new(title: Option<String>, company: Option<String>) -> Option<Self> {
        let [title, company] = [title, company].map(|part| part.map(|part| clip_words(&part, MAX_DETAIL)));
        match (title, company) {
            (Some(title), Some(company)) => {
                // On LinkedIn, people write the company into their title.
                let at_company = format!(" at {company}");
                let says_company = title.to_lowercase().ends_with(&at_company.to_lowercase());
                Some(Self { lead_in: ", ", text: if says_company { title } else { title + &at_company } })
            }
            (Some(text), None) => Some(Self { lead_in: ", ", text }),
            (None, Some(text)) => Some(Self { lead_in: " at ", text }),
            (None, None) => None,
        }
    }

    /// Returns the role as a line of its own.
    fn line(self) -> String {
        if self.lead_in == " at " { format!("At {}", self.text) } else { self.text }
    }
}

/// Returns a text that ends with a role, as [`clip_words`] cuts it, but without an "at" at the cut.
fn clip_role(text: &str, max: usize) -> String {
    let clipped = clip_words(text, max);
    match clipped.strip_suffix(" at...").filter(|_| clipped != text) {
        Some(title) => format!("{title}..."),
        None => clipped,
    }
}

fn id_line(label: &'static str, id: &Text) -> Line {
    vec![Piece::Label(label), Piece::ours(" "), Piece::Id(id.unlinked())]
}

/// Returns the cause of the change: in words if SendPilot documents the value, otherwise as sent.
fn changed_by(by: &Text) -> Line {
    match by.as_str() {
        "api" => vec![Piece::ours("Changed through the API")],
        "automation" => vec![Piece::ours("Changed by an automation")],
        "user" => vec![Piece::ours("Changed by a user")],
        _ => vec![Piece::ours("Changed by "), Piece::Outside(by.unlinked())],
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
