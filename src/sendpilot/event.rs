//! Verified bytes go in, an [`Event`] comes out; the one place that knows SendPilot's names.
//!
//! Only what an alert cannot do without is required. Whatever else is missing, null or of a type that SendPilot never
//! sent before must not cost an alert: it is left out.

use sendpilot_events::STATUSES;
use serde_json::value::RawValue;
use time::format_description::well_known::Iso8601;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::json::{LossyString, Members};
use crate::sendpilot::signature::Verified;
use crate::text::trim;

/// Event types of a change of status. The older and the newer documentation use one name each.
const STATUS_TYPES: [&str; 2] = ["lead.status.changed", "lead.updated"];

/// Event type of a change of tag.
const TAG_TYPE: &str = "lead.tag.updated";

/// Event types that SendPilot documents and this receiver does not use, under their older and newer
/// names. An event of such a type is ignored, whatever its `data` contains.
const OTHER_TYPES: [&str; 13] = [
    "message.sent",
    "reply.received",
    "message.received",
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

/// One webhook, as far as we use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `eventId`, the same on every retry; without one, the signed message id, which is too.
    pub id: Option<String>,
    /// `eventType` as received. Empty if the field is missing and the shape of `data` decided the
    /// kind.
    pub event_type: String,
    /// Whether the shape of `data` decided the kind, because the event type is unknown. SendPilot
    /// has renamed its events before.
    pub renamed: bool,
    /// The workspace it happened in.
    pub workspace_id: Option<String>,
    /// When the status changed, in UTC. `None` also where the text is not ISO 8601.
    pub occurred_at: Option<OffsetDateTime>,
    /// What happened.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A lead's status changed.
    StatusChanged(StatusChange),
    /// A lead's tag changed.
    TagChanged(TagChange),
    /// Something that we do not use, and whose `data` we did not read.
    Other,
}

/// A lead's change of status. Every field is text from outside. A status of [`STATUSES`] has
/// SendPilot's letter case, and any other status keeps its own. Statuses have no surrounding
/// blanks. All other fields are as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    /// The lead.
    pub lead_id: String,
    /// The campaign; absent for one-off invitations.
    pub campaign_id: Option<String>,
    /// The profile: canonical, with a country host, URL-encoded, or a bare `in/slug` with a query. Never a key.
    pub linkedin_url: Option<String>,
    /// The status before.
    pub previous_status: Option<String>,
    /// The status now.
    pub new_status: String,
    /// `api`, `automation` or `user`.
    pub changed_by: Option<String>,
}

/// A lead's change of tag. Nothing is required of it, because few ask for alerts on tags: who does not takes no such event for malformed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagChange {
    /// The lead.
    pub lead_id: Option<String>,
    /// The campaign.
    pub campaign_id: Option<String>,
    /// The profile, as in [`StatusChange`].
    pub linkedin_url: Option<String>,
    /// The tag before.
    pub previous_tag: Option<String>,
    /// The tag now.
    pub new_tag: Option<String>,
}

/// What is wrong with a genuine request that is no event. Names fields, never their content.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not a JSON object.
    #[error("the body must be a JSON object (line {}, column {})", .0.line(), .0.column())]
    NotAnObject(#[source] serde_json::Error),
    /// `data` of a change of status is absent or something else.
    #[error("data must be an object")]
    NoData,
    /// A required field is absent, empty, or no string.
    #[error("{0} must be a string that is not empty")]
    Required(&'static str),
    /// `eventId` is there, but is not what an id can be.
    #[error("eventId must be a string of at most {MAX_EVENT_ID} bytes")]
    BadEventId,
    /// Nothing tells this delivery from another.
    #[error("the event has no eventId, and its signature has no message id to stand in")]
    Unidentified,
}

/// Reads a verified body.
///
/// # Errors
/// Where a field is missing that an alert cannot do without.
pub fn parse(verified: &Verified<'_>) -> Result<Event, Malformed> {
    // The signature covers the byte order mark, so the mark is skipped only after verification.
    let json = verified.body();
    let body = Object::parse(json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json)).map_err(Malformed::NotAnObject)?;
    let event_type = body.text("eventType");
    let (kind, renamed) = match event_type.as_deref().and_then(Meaning::of) {
        Some(Meaning::StatusChanged) => {
            (Kind::StatusChanged(status_change(&body.object("data").ok_or(Malformed::NoData)?)?), false)
        }
        Some(Meaning::TagChanged) => (Kind::TagChanged(body.object("data").map(tag_change).unwrap_or_default()), false),
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
        kind,
    })
}

/// The meaning of a known event type.
#[derive(Clone, Copy)]
enum Meaning {
    StatusChanged,
    TagChanged,
    Other,
}

impl Meaning {
    /// Returns the meaning of an event type, without regard to letter case and surrounding blanks.
    /// Some senders use another letter case in test events than in production. The exact comparison
    /// comes first, because it is cheaper and matches nearly every event.
    fn of(event_type: &str) -> Option<Self> {
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
        } else {
            OTHER_TYPES.into_iter().any(is).then_some(Self::Other)
        }
    }
}

/// Recognizes an event of an unknown type by its `data`. If `data` names a lead and a new status,
/// the event is a change of status. If it names a lead and a new tag, the event is a change of tag.
fn by_shape(body: &Object<'_>) -> Option<Kind> {
    let data = body.object("data")?;
    if let Ok(change) = status_change(&data) {
        return Some(Kind::StatusChanged(change));
    }
    let change = tag_change(data);
    let has_tag = change.new_tag.as_deref().is_some_and(|tag| !trim(tag).is_empty());
    (has_tag && change.lead_id.is_some()).then_some(Kind::TagChanged(change))
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

fn tag_change(data: Object<'_>) -> TagChange {
    TagChange {
        lead_id: data.text("leadId"),
        campaign_id: data.text("campaignId"),
        linkedin_url: data.text("linkedinUrl"),
        previous_tag: data.text("previousTag"),
        new_tag: data.text("newTag"),
    }
}

/// A JSON object whose values are read when asked for. A derived struct would also be read from an array, would fail on
/// a repeated key, and would fail as a whole on one field of a new type.
struct Object<'a>(Members<LossyString, &'a RawValue>);

impl<'a> Object<'a> {
    fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).map(Self)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        // An event has about a dozen members, which are found sooner than they are hashed. Of a
        // repeated name, the last member counts.
        let Self(Members(members)) = self;
        members.iter().rev().find(|(LossyString(other), _)| other == name).map(|(_, member)| *member)
    }

    fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.get(name)?.get().as_bytes()).ok()
    }

    /// A string that is not empty.
    fn text(&self, name: &str) -> Option<String> {
        let LossyString(text) = serde_json::from_str(self.get(name)?.get()).ok()?;
        Some(text).filter(|text| !text.is_empty())
    }
}

/// ISO 8601 of any form; SendPilot's own has an offset, and UTC is meant where one has none.
fn moment(text: &str) -> Option<OffsetDateTime> {
    let with_offset = OffsetDateTime::parse(text, &Iso8601::DEFAULT);
    let moment =
        with_offset.or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc));
    moment.ok()?.checked_to_offset(UtcOffset::UTC)
}
