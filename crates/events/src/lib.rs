//! What programs read: a CloudEvent 1.0 in its JSON format, in the same types for us who write it and for whoever takes it in.
//!
//! | `type` | topic | `data` |
//! |---|---|---|
//! | `sendpilot.lead.opportunity` | alerts | [`LeadStatusChanged`] |
//! | `sendpilot.lead.status_reached` | alerts | [`LeadStatusChanged`] |
//! | `sendpilot.lead.tagged` | alerts | [`LeadTagged`] |
//! | `sendpilot.lead.status_changed` | lead status stream | [`LeadStatusChanged`] |
//!
//! One message has one `source` and `id` however often it is published; whoever takes both topics into one place tells their
//! messages apart by `type`. A member may be added to what stands here, and readers have to ignore what they do not know. None is
//! ever removed or given another meaning: that would be another `type`.
//!
//! ```
//! use opportunity_alerts::message::cloud_event::{CloudEvent, LeadStatusChanged, Type};
//!
//! let received = r#"{"specversion":"1.0","id":"evt_1","source":"urn:sendpilot:workspace:ws_1",
//!     "type":"sendpilot.lead.status_changed","subject":"lead_1","time":"2024-02-24T10:30:00Z",
//!     "datacontenttype":"application/json",
//!     "data":{"leadId":"lead_1","newStatus":"NOT_INTERESTED","crmStage":"closed_lost"}}"#;
//! let event: CloudEvent<LeadStatusChanged> = serde_json::from_str(received)?;
//! assert_eq!(event.kind, Type::StatusChanged);
//! assert_eq!(event.data.crm_stage, "closed_lost");
//! # Ok::<_, serde_json::Error>(())
//! ```

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset};

use crate::message::key::{key_part, sha256_hex};
use crate::message::pipeline::Pipeline;
use crate::message::text::Text;
use crate::sendpilot::event::{Event, StatusChange, TagChange};
use crate::timestamp::Timestamp;

/// A CloudEvent about one lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<Data> {
    /// The version of CloudEvents.
    pub specversion: SpecVersion,
    /// SendPilot's id of the event, escaped where it is not plain text. The later of two different
    /// facts under one id has `~` and 16 hex digits after it. With `source` and `type`, this id
    /// identifies a repetition.
    pub id: String,
    /// The workspace, as a URN: `urn:sendpilot:workspace:{workspaceId}`.
    pub source: String,
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: Type,
    /// The lead's id.
    pub subject: String,
    /// When it happened, by SendPilot's clock, in UTC; absent where SendPilot did not say so in ISO 8601.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    pub time: Option<OffsetDateTime>,
    /// What `data` is written in.
    pub datacontenttype: ContentType,
    /// What happened.
    pub data: Data,
}

impl<Data> CloudEvent<Data> {
    /// Where this stands among the changes of its lead: of two, the one whose key sorts later, as text, is the later change.
    ///
    /// SendPilot sends a change again when it was not taken, so an old one can come after a newer one, from a topic of any kind.
    /// Keep the key of what was applied last, and drop what does not sort after it. It is the time in milliseconds, and the id, so that any
    /// two readers decide alike where the times are the same. What has no time sorts before all that has.
    pub fn sort_key(&self) -> String {
        let millis = self.time.map_or(0, |time| Timestamp::from(time).as_millis());
        format!("{millis:015}#{}", self.id)
    }
}

impl<Data: Serialize> CloudEvent<Data> {
    /// Tells this of an event.
    pub(crate) fn of(event: &Event, event_id: &str, kind: Type, lead_id: &str, data: Data) -> Self {
        // As it is, where that is legal and no other id, once escaped, could look like it.
        let plain = Text::new(event_id).as_str() == event_id && !event_id.contains('%');
        Self {
            specversion: SpecVersion::V1,
            id: if plain { event_id.to_owned() } else { key_part(event_id).into_owned() },
            source: source(event.workspace_id.as_deref()),
            kind,
            subject: text(lead_id),
            // RFC 3339 cannot write a year beyond 9999 or an offset with seconds. So the time is in
            // UTC, and left out if its year does not fit.
            time: event
                .occurred_at
                .and_then(|at| at.checked_to_offset(UtcOffset::UTC))
                .filter(|at| (0..=9999).contains(&at.year())),
            datacontenttype: ContentType::Json,
            data,
        }
    }

    /// As it is published.
    #[expect(clippy::expect_used, reason = "strings, and a time that `of` has checked, always serialize to JSON")]
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("a CloudEvent is JSON")
    }
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

/// The version of CloudEvents that all of this is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpecVersion {
    /// 1.0 with all its patches.
    #[serde(rename = "1.0")]
    V1,
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// An alert: a lead has become an opportunity.
    #[serde(rename = "sendpilot.lead.opportunity")]
    Opportunity,
    /// An alert: a lead has reached another status of those that alert.
    #[serde(rename = "sendpilot.lead.status_reached")]
    StatusReached,
    /// An alert: a lead has been given a tag of those that alert.
    #[serde(rename = "sendpilot.lead.tagged")]
    Tagged,
    /// A message of the lead status stream: a lead's status has changed.
    #[serde(rename = "sendpilot.lead.status_changed")]
    StatusChanged,
}

impl Type {
    /// As it stands in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opportunity => "sendpilot.lead.opportunity",
            Self::StatusReached => "sendpilot.lead.status_reached",
            Self::Tagged => "sendpilot.lead.tagged",
            Self::StatusChanged => "sendpilot.lead.status_changed",
        }
    }
}

/// What `data` is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    /// JSON.
    #[serde(rename = "application/json")]
    Json,
}

/// A lead's change of status. Every text comes from outside, without control characters, and at most 1,024 UTF-16 units of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeadStatusChanged {
    /// The lead.
    pub lead_id: String,
    /// The campaign; absent for one-off invitations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The lead's profile, as SendPilot wrote it: never to be opened or shown as a link unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linkedin_url: Option<String>,
    /// The status before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<String>,
    /// The status now: one of [`crate::sendpilot::event::STATUSES`], or one that nobody has listed yet.
    pub new_status: String,
    /// What the status means in a CRM, by [`crate::message::pipeline::Pipeline`].
    pub crm_stage: String,
    /// `api`, `automation` or `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
}

impl LeadStatusChanged {
    pub(crate) fn of(change: &StatusChange, pipeline: &Pipeline) -> Self {
        Self {
            lead_id: text(&change.lead_id),
            campaign_id: change.campaign_id.as_deref().map(text),
            linkedin_url: change.linkedin_url.as_deref().map(text),
            previous_status: change.previous_status.as_deref().map(text),
            new_status: text(&change.new_status),
            crm_stage: pipeline.stage(&change.new_status).to_owned(),
            changed_by: change.changed_by.as_deref().map(text),
        }
    }
}

/// A tag that a lead was given. Texts are as in [`LeadStatusChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeadTagged {
    /// The lead.
    pub lead_id: String,
    /// The campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The lead's profile, as SendPilot wrote it: never to be opened or shown as a link unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linkedin_url: Option<String>,
    /// The tag before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_tag: Option<String>,
    /// The tag now.
    pub new_tag: String,
}

impl LeadTagged {
    pub(crate) fn of(lead_id: &str, new_tag: &str, change: &TagChange) -> Self {
        Self {
            lead_id: text(lead_id),
            campaign_id: change.campaign_id.as_deref().map(text),
            linkedin_url: change.linkedin_url.as_deref().map(text),
            previous_tag: change.previous_tag.as_deref().map(text),
            new_tag: text(new_tag),
        }
    }
}

fn text(raw: &str) -> String {
    Text::new(raw).into()
}
