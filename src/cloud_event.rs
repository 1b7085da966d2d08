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
//! use opportunity_alerts::cloud_event::{CloudEvent, LeadStatusChanged, Type};
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

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::timestamp::Timestamp;

/// A CloudEvent about one lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<Data> {
    /// The version of CloudEvents.
    pub specversion: SpecVersion,
    /// SendPilot's id of the event, escaped where it is not plain text. With `source` and `type`, what a reader knows a repetition by.
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
    /// The status now: one of [`crate::event::STATUSES`], or one that nobody has listed yet.
    pub new_status: String,
    /// What the status means in a CRM, by [`crate::pipeline::Pipeline`].
    pub crm_stage: String,
    /// `api`, `automation` or `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
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
