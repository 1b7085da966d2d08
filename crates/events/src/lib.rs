//! The CloudEvents about SendPilot leads. The receiver publishes them, and consumers parse them
//! with the same types.
//!
//! | `type` | topic | `data` |
//! |---|---|---|
//! | `sendpilot.lead.opportunity` | alerts | [`LeadStatusChanged`] |
//! | `sendpilot.lead.status_reached` | alerts | [`LeadStatusChanged`] |
//! | `sendpilot.lead.tagged` | alerts | [`LeadTagged`] |
//! | `sendpilot.lead.status_changed` | lead status stream | [`LeadStatusChanged`] |
//!
//! If a message is published again, its `source` and `id` stay the same. One event can cause a
//! message on each topic, with different `type`s. New members may be added, so consumers must
//! ignore unknown members. No member is removed or changes its meaning. Such a change would get
//! another `type`.
//!
//! ```
//! use sendpilot_events::{CloudEvent, LeadStatusChanged, Type};
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
//!
//! If the receiver's reconciliation is on, it finds leads whose webhook never arrived. Their alerts
//! have [`LeadStatusChanged::found_by`]. The lead status stream has no message about them.
//!
//! SNS wraps a message in its own JSON, unless the subscription has `RawMessageDelivery`. In
//! Lambda's SNS event, the message is in `Records[].Sns.Message`.

mod status;

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use crate::status::{OPPORTUNITY, STAGES, STATUSES, UNKNOWN_STAGE};

/// A CloudEvent 1.0 about one lead, in the JSON format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<Data> {
    /// The version of CloudEvents.
    pub specversion: SpecVersion,
    /// SendPilot's id of the event, escaped if it is not plain text. If SendPilot uses one id for
    /// two events with different content, the later one has `~` and 16 hex digits after its id. The
    /// id in an alert of the reconciliation is `reconciliation_` and 32 hex digits, which depend on
    /// the lead and the status only. `source`, `id` and `type` together identify a duplicate.
    pub id: String,
    /// The workspace, as a URN: `urn:sendpilot:workspace:{workspaceId}`. Without a known workspace,
    /// it is `urn:sendpilot:workspace`.
    pub source: String,
    /// The kind of event.
    #[serde(rename = "type")]
    pub kind: Type,
    /// The lead's id.
    pub subject: String,
    /// The time of the change by SendPilot's clock, in UTC. In an alert of the reconciliation, the
    /// time at which the lead was last updated. `None` if SendPilot sent no ISO 8601 time.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    pub time: Option<OffsetDateTime>,
    /// The format of `data`.
    pub datacontenttype: ContentType,
    /// The change itself.
    pub data: Data,
}

impl<Data> CloudEvent<Data> {
    /// Returns a key that orders the changes of one lead: the later change has the greater key.
    ///
    /// SendPilot retries a change that was not accepted. So an old change can arrive after a newer
    /// one, even from a FIFO topic. Store the key of the last change that you applied, and drop
    /// every change whose key is not greater.
    ///
    /// The key is the time in milliseconds, then the id. So all consumers agree on the order even
    /// if two times are equal. A change without a time sorts before every change with one.
    ///
    /// ```
    /// # use sendpilot_events::{CloudEvent, LeadStatusChanged};
    /// # fn change(id: &str, time: &str) -> serde_json::Result<CloudEvent<LeadStatusChanged>> {
    /// #     serde_json::from_value(serde_json::json!({
    /// #         "specversion": "1.0", "id": id, "source": "urn:sendpilot:workspace:ws_1",
    /// #         "time": time, "type": "sendpilot.lead.status_changed", "subject": "lead_1",
    /// #         "datacontenttype": "application/json",
    /// #         "data": { "leadId": "lead_1", "newStatus": "DONE", "crmStage": "closed_won" },
    /// #     }))
    /// # }
    /// let applied = change("evt_2", "2024-02-24T10:30:00Z")?;
    /// let retried = change("evt_1", "2024-02-24T10:29:59.999Z")?;
    /// assert!(retried.sort_key() < applied.sort_key());
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    pub fn sort_key(&self) -> String {
        let millis = self.time.map_or(0, |time| time.unix_timestamp_nanos() / 1_000_000).max(0);
        format!("{millis:015}#{}", self.id)
    }
}

/// The version of CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpecVersion {
    /// 1.0, including its patch releases.
    #[serde(rename = "1.0")]
    V1,
}

/// The kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// An alert: a lead has become an opportunity.
    #[serde(rename = "sendpilot.lead.opportunity")]
    Opportunity,
    /// An alert: a lead has reached another status that alerts.
    #[serde(rename = "sendpilot.lead.status_reached")]
    StatusReached,
    /// An alert: a lead has got a tag that alerts.
    #[serde(rename = "sendpilot.lead.tagged")]
    Tagged,
    /// A message of the lead status stream: a lead's status has changed.
    #[serde(rename = "sendpilot.lead.status_changed")]
    StatusChanged,
}

impl Type {
    /// Returns the text that the event contains.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opportunity => "sendpilot.lead.opportunity",
            Self::StatusReached => "sendpilot.lead.status_reached",
            Self::Tagged => "sendpilot.lead.tagged",
            Self::StatusChanged => "sendpilot.lead.status_changed",
        }
    }
}

/// The format of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    /// JSON.
    #[serde(rename = "application/json")]
    Json,
}

/// The value of [`LeadStatusChanged::found_by`] in an alert of the reconciliation.
pub const RECONCILIATION: &str = "reconciliation";

/// A lead's change of status. Every text comes from SendPilot or its users. No text has control
/// characters. Except [`LastReply::text`], no text has more than 1,024 UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeadStatusChanged {
    /// The lead's id.
    pub lead_id: String,
    /// The campaign's id. `None` for one-off invitations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The lead's profile, as SendPilot wrote it. It is untrusted: check it before you open it or
    /// show it as a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linkedin_url: Option<String>,
    /// The status before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<String>,
    /// The new status: one of [`STATUSES`], or one that SendPilot does not document.
    pub new_status: String,
    /// The stage that this status has in a CRM: by default the one in [`STAGES`].
    pub crm_stage: String,
    /// `api`, `automation` or `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// [`RECONCILIATION`] if no webhook reported the change, and the receiver found the lead
    /// through SendPilot's API. Then the time of the change, `previous_status` and `changed_by` are
    /// not known: [`CloudEvent::time`] is the time at which the lead was last updated. `None` if a
    /// webhook reported the change. Other values may be added. A message of the lead status stream
    /// never has it.
    ///
    /// ```
    /// use sendpilot_events::{CloudEvent, LeadStatusChanged, RECONCILIATION};
    ///
    /// let received = r#"{"specversion":"1.0","id":"reconciliation_cad01e0c0a5ccbf741c63bcf50d3387a",
    ///     "source":"urn:sendpilot:workspace","type":"sendpilot.lead.opportunity",
    ///     "subject":"lead_1","datacontenttype":"application/json",
    ///     "data":{"leadId":"lead_1","newStatus":"OPPORTUNITY","crmStage":"qualified",
    ///         "foundBy":"reconciliation"}}"#;
    /// let event: CloudEvent<LeadStatusChanged> = serde_json::from_str(received)?;
    /// assert_eq!(event.data.found_by.as_deref(), Some(RECONCILIATION));
    /// assert_eq!((event.time, event.data.previous_status), (None, None));
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// The lead, as SendPilot's API describes it. `None` if the receiver does not ask the API, or
    /// got no answer. A message of the lead status stream never has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
    /// The campaign's name, under the conditions of `lead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_name: Option<String>,
    /// The lead's last reply before the alert was written. `None` if the receiver does not remember
    /// replies, or has none. A message of the lead status stream never has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<LastReply>,
}

/// A lead's change of tag. Its texts have the limits of [`LeadStatusChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeadTagged {
    /// The lead's id.
    pub lead_id: String,
    /// The campaign's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The lead's profile, untrusted as in [`LeadStatusChanged`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linkedin_url: Option<String>,
    /// The tag before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_tag: Option<String>,
    /// The new tag.
    pub new_tag: String,
    /// The lead, as in [`LeadStatusChanged`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
    /// The campaign's name, as in [`LeadStatusChanged`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_name: Option<String>,
    /// The lead's last reply, as in [`LeadStatusChanged`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<LastReply>,
}

/// A lead, as SendPilot's API describes it. At least one part is there. `Debug` prints no part,
/// because they are personal data.
///
/// ```
/// use sendpilot_events::{CloudEvent, LeadStatusChanged};
///
/// let received = r#"{"specversion":"1.0","id":"evt_1","source":"urn:sendpilot:workspace:ws_1",
///     "type":"sendpilot.lead.opportunity","subject":"lead_1","time":"2024-02-24T10:30:00Z",
///     "datacontenttype":"application/json",
///     "data":{"leadId":"lead_1","newStatus":"OPPORTUNITY","crmStage":"qualified",
///         "lead":{"firstName":"John","company":"TechCorp"},
///         "lastReply":{"text":"Yes, call me.","at":"2024-02-24T08:30:00Z"}}}"#;
/// let event: CloudEvent<LeadStatusChanged> = serde_json::from_str(received)?;
/// let lead = event.data.lead.unwrap_or_default();
/// assert_eq!((lead.first_name.as_deref(), lead.title), (Some("John"), None));
/// assert!(event.data.last_reply.is_some_and(|reply| Some(reply.at) < event.time));
/// assert_eq!(event.data.campaign_name, None);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lead {
    /// The first name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// The last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// The position, such as "VP of Engineering".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The email address, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").finish_non_exhaustive()
    }
}

/// The newest reply of a lead that the receiver has stored. `Debug` does not print the text,
/// because it is personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastReply {
    /// The text in one line, at most 2,000 UTF-16 units.
    pub text: String,
    /// The time of the reply by SendPilot's clock, in UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl fmt::Debug for LastReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastReply").field("at", &self.at).finish_non_exhaustive()
    }
}
