//! Parses a verified body into an [`Event`]. Only this module knows SendPilot's field names.
//!
//! Only the fields that every alert needs are required. Any other field that is missing, null or of
//! an unexpected type is left out, because it must not cost an alert.

use std::fmt;

use sendpilot_events::STATUSES;
use time::format_description::well_known::Iso8601;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::json::{LossyString, Object};
use crate::sendpilot::signature::Verified;
use crate::text::trim;
use crate::timestamp::Timestamp;

/// Event types of a change of status. The older and the newer documentation use one name each.
const STATUS_TYPES: [&str; 2] = ["lead.status.changed", "lead.updated"];

/// Event type of a change of tag.
const TAG_TYPE: &str = "lead.tag.updated";

/// Event types of a lead's reply. The newer and the older documentation use one name each.
const REPLY_TYPES: [&str; 2] = ["reply.received", "message.received"];

/// Event types that SendPilot documents and this receiver does not use, under their older and newer
/// names. An event of such a type is ignored, whatever its `data` contains.
const OTHER_TYPES: [&str; 11] = [
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
];

/// A byte order mark in UTF-8. JSON does not allow one, but some senders write one.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Longest `eventId` that is accepted, in bytes.
pub const MAX_EVENT_ID: usize = 256;

/// The parts of one webhook event that this receiver uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `eventId`, or the signed message id if `eventId` is missing. Both are the same on every
    /// retry.
    pub id: Option<String>,
    /// `eventType` as received. Empty if the field is missing and the shape of `data` decided the
    /// kind.
    pub event_type: String,
    /// Whether the shape of `data` decided the kind, because the event type is unknown. SendPilot
    /// has renamed its events before.
    pub renamed: bool,
    /// The workspace's id.
    pub workspace_id: Option<String>,
    /// The time of the change, in UTC. `None` if the field is missing or is not ISO 8601.
    pub occurred_at: Option<OffsetDateTime>,
    /// The way by which the change became known.
    pub origin: Origin,
    /// The kind of event, with its data.
    pub kind: Kind,
}

/// The way by which a change became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A webhook reported the change.
    Webhook,
    /// No webhook arrived, and the reconciliation found the lead through SendPilot's API.
    Reconciliation {
        /// The alert also reports every change that a webhook reports later with a time before
        /// this one.
        until: Timestamp,
    },
}

/// The kind of an event, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A lead's status has changed.
    StatusChanged(StatusChange),
    /// A lead's tag has changed.
    TagChanged(TagChange),
    /// A lead has replied.
    Replied(Reply),
    /// An event that this receiver does not use. Its `data` is not read.
    Other,
}

/// A lead's change of status. Every field is untrusted text. A status of [`STATUSES`] has
/// SendPilot's letter case, and any other status keeps its own. Statuses have no surrounding
/// blanks. All other fields are as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    /// The lead's id.
    pub lead_id: String,
    /// The campaign's id. `None` for one-off invitations.
    pub campaign_id: Option<String>,
    /// The lead's profile: a canonical address, an address with a country host, a URL-encoded
    /// address, or a bare `in/slug` with a query. So it identifies no lead.
    pub linkedin_url: Option<String>,
    /// The status before.
    pub previous_status: Option<String>,
    /// The status now.
    pub new_status: String,
    /// `api`, `automation` or `user`.
    pub changed_by: Option<String>,
}

/// A lead's change of tag. No field is required, because few deployments alert on tags. In all
/// other deployments, an incomplete event of this kind must not be malformed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagChange {
    /// The lead's id.
    pub lead_id: Option<String>,
    /// The campaign's id.
    pub campaign_id: Option<String>,
    /// The lead's profile, in the forms of [`StatusChange::linkedin_url`].
    pub linkedin_url: Option<String>,
    /// The tag before.
    pub previous_tag: Option<String>,
    /// The tag now.
    pub new_tag: Option<String>,
}

/// A lead's reply. No field is required. No alert depends on a reply, so an incomplete one must not
/// be malformed. `Debug` does not print the text, because it is personal data.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The lead's id.
    pub lead_id: Option<String>,
    /// The text of the reply, as received.
    pub text: Option<String>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("lead_id", &self.lead_id).finish_non_exhaustive()
    }
}

/// Why the body of a genuine request is not a usable event. The message names fields and never
/// quotes their content.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The body is not a JSON object.
    #[error("the body must be a JSON object (line {}, column {})", .0.line(), .0.column())]
    NotAnObject(#[source] serde_json::Error),
    /// `data` of a change of status is missing or is not an object.
    #[error("data must be an object")]
    NoData,
    /// A required field is missing, empty, or not a string.
    #[error("{0} must be a string that is not empty")]
    Required(&'static str),
    /// `eventId` is too long or not a string.
    #[error("eventId must be a string of at most {MAX_EVENT_ID} bytes")]
    BadEventId,
    /// Neither `eventId` nor a signed message id identifies the event.
    #[error("the event has no eventId, and its signature has no message id either")]
    Unidentified,
}

/// Parses a verified body.
///
/// # Errors
/// If a field is missing that every alert needs.
pub fn parse(verified: &Verified<'_>) -> Result<Event, Malformed> {
    // The signature covers the byte order mark, so the mark is skipped only after verification.
    let json = verified.body();
    let body = Object::parse(json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json)).map_err(Malformed::NotAnObject)?;
    let event_type = body.text("eventType");
    let (kind, renamed) = match event_type.as_deref().and_then(Meaning::from_event_type) {
        Some(Meaning::StatusChanged) => {
            (Kind::StatusChanged(status_change(&body.object("data").ok_or(Malformed::NoData)?)?), false)
        }
        Some(Meaning::TagChanged) => {
            (Kind::TagChanged(body.object("data").map(|data| tag_change(&data)).unwrap_or_default()), false)
        }
        Some(Meaning::Replied) => {
            (Kind::Replied(body.object("data").map(|data| reply(&data)).unwrap_or_default()), false)
        }
        Some(Meaning::Other) => (Kind::Other, false),
        None => match by_shape(&body) {
            Some(kind) => (kind, true),
            None if event_type.is_some() => (Kind::Other, false),
            None => return Err(Malformed::Required("eventType")),
        },
    };
    Ok(Event {
        id: event_id(&body)?.or_else(|| verified.message_id().map(str::to_owned)),
        event_type: event_type.unwrap_or_default(),
        renamed,
        workspace_id: body.text("workspaceId"),
        occurred_at: body.text("timestamp").as_deref().and_then(moment),
        origin: Origin::Webhook,
        kind,
    })
}

/// The meaning of a known event type.
#[derive(Clone, Copy)]
enum Meaning {
    StatusChanged,
    TagChanged,
    Replied,
    Other,
}

impl Meaning {
    /// Returns the meaning of an event type, without regard to letter case and surrounding blanks.
    /// Some senders use another letter case in test events than in production. The exact comparison
    /// comes first, because it is cheaper and matches nearly every event.
    fn from_event_type(event_type: &str) -> Option<Self> {
        Self::find(|name| name == event_type).or_else(|| {
            let event_type = trim(event_type);
            Self::find(|name| name.eq_ignore_ascii_case(event_type))
        })
    }

    fn find(is: impl Fn(&str) -> bool) -> Option<Self> {
        if STATUS_TYPES.into_iter().any(&is) {
            Some(Self::StatusChanged)
        } else if is(TAG_TYPE) {
            Some(Self::TagChanged)
        } else if REPLY_TYPES.into_iter().any(&is) {
            Some(Self::Replied)
        } else {
            OTHER_TYPES.into_iter().any(is).then_some(Self::Other)
        }
    }
}

/// Recognizes an event of an unknown type by its `data`. If `data` names a lead and a new status,
/// the event is a change of status. If it names a lead and a new tag, the event is a change of tag.
/// If it names a lead and has a `reply`, the event is a reply. A `message` alone may be ours.
fn by_shape(body: &Object<'_>) -> Option<Kind> {
    let data = body.object("data")?;
    if let Ok(change) = status_change(&data) {
        return Some(Kind::StatusChanged(change));
    }
    data.text("leadId")?;
    let has = |name| data.text(name).is_some_and(|text| !trim(&text).is_empty());
    if has("newTag") {
        Some(Kind::TagChanged(tag_change(&data)))
    } else if has("reply") || has("replyPreview") {
        Some(Kind::Replied(reply(&data)))
    } else {
        None
    }
}

fn event_id(body: &Object<'_>) -> Result<Option<String>, Malformed> {
    let Some(raw) = body.get("eventId") else { return Ok(None) };
    match serde_json::from_str::<Option<LossyString>>(raw.get()) {
        Ok(Some(LossyString(id))) if id.len() > MAX_EVENT_ID => Err(Malformed::BadEventId),
        Ok(id) => Ok(id.map(|LossyString(id)| id).filter(|id| !id.is_empty())),
        Err(_) => Err(Malformed::BadEventId),
    }
}

fn status_change(data: &Object<'_>) -> Result<StatusChange, Malformed> {
    Ok(StatusChange {
        lead_id: data.text("leadId").ok_or(Malformed::Required("data.leadId"))?,
        campaign_id: data.text("campaignId"),
        linkedin_url: data.text("linkedinUrl"),
        previous_status: data.text("previousStatus").and_then(canonical),
        new_status: data.text("newStatus").and_then(canonical).ok_or(Malformed::Required("data.newStatus"))?,
        changed_by: data.text("changedBy"),
    })
}

/// Returns a status without surrounding blanks: one of [`STATUSES`] in SendPilot's letter case, any
/// other in its own. Returns `None` if nothing is left. Other modules can then compare documented
/// statuses directly.
fn canonical(text: String) -> Option<String> {
    if STATUSES.contains(&text.as_str()) {
        return Some(text);
    }
    let status = trim(&text);
    let status = STATUSES.into_iter().find(|known| known.eq_ignore_ascii_case(status)).unwrap_or(status);
    if status == text { Some(text) } else { Some(status.to_owned()).filter(|status| !status.is_empty()) }
}

/// Reads a reply. `reply` and the older `message` have the whole text, the previews only its start.
fn reply(data: &Object<'_>) -> Reply {
    let texts = ["reply", "message", "messagePreview", "replyPreview"].into_iter().filter_map(|name| data.text(name));
    Reply { lead_id: data.text("leadId"), text: texts.into_iter().find(|text| !trim(text).is_empty()) }
}

fn tag_change(data: &Object<'_>) -> TagChange {
    TagChange {
        lead_id: data.text("leadId"),
        campaign_id: data.text("campaignId"),
        linkedin_url: data.text("linkedinUrl"),
        previous_tag: data.text("previousTag"),
        new_tag: data.text("newTag"),
    }
}

/// Parses ISO 8601 of any form. SendPilot's times have an offset. A time without one is taken as
/// UTC.
pub(crate) fn moment(text: &str) -> Option<OffsetDateTime> {
    let with_offset = OffsetDateTime::parse(text, &Iso8601::DEFAULT);
    let moment =
        with_offset.or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc));
    moment.ok()?.checked_to_offset(UtcOffset::UTC)
}
