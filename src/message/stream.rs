//! A change of status goes in, the [`Delivery`] comes out that carries it to the lead status stream.
//!
//! One message for all subscribers, with the attributes that they filter by: SNS delivers attributes only where the message
//! is no `MessageStructure: json`. They hold no personal data, because they show up where bodies do not, as in metrics of
//! filters and in consoles.

use std::collections::BTreeMap;

use sendpilot_events::{LeadStatusChanged, Type};

use crate::message::cloud_event::{cloud_event, json, lead_status_changed};
use crate::message::key::{DeliveryId, sha256_hex};
use crate::message::pipeline::Pipeline;
use crate::message::trigger::Trigger;
use crate::message::{Delivery, Message};
use crate::sendpilot::event::{Event, StatusChange};
use crate::text::Text;

/// Who may have changed a status, by SendPilot's documentation.
const CHANGED_BY: [&str; 3] = ["api", "automation", "user"];

/// Longest group id that SNS takes, in characters.
const MAX_GROUP: usize = 128;

/// The delivery of this change to the stream.
pub(crate) fn delivery(event: &Event, event_id: &str, change: &StatusChange, pipeline: &Pipeline) -> Delivery {
    let id = DeliveryId::status(event.workspace_id.as_deref(), event_id);
    let data = lead_status_changed(change, pipeline);
    let attributes = attributes(event, &data);
    let message = Message::Status {
        body: json(&cloud_event(event, event_id, Type::StatusChanged, &change.lead_id, data)),
        attributes,
        group: group(&change.lead_id),
        deduplication: sha256_hex(id.as_str().as_bytes()),
    };
    Delivery { id, message, content_sha256: Trigger::Status(change).content_sha256(), debounce_key: None }
}

/// Seven, and SNS hands on ten at most to a queue that takes raw messages. None is empty, which SNS would refuse.
fn attributes(event: &Event, data: &LeadStatusChanged) -> BTreeMap<String, String> {
    let workspace_id = event.workspace_id.as_deref().map(|id| Text::new(id).into());
    let changed_by = data.changed_by.as_deref().map(|by| if CHANGED_BY.contains(&by) { by } else { "other" });
    let attributes = [
        ("eventType", Some(Type::StatusChanged.as_str().to_owned())),
        ("newStatus", Some(data.new_status.clone())),
        ("previousStatus", data.previous_status.clone()),
        ("crmStage", Some(data.crm_stage.clone())),
        ("workspaceId", workspace_id),
        ("campaignId", data.campaign_id.clone()),
        ("changedBy", changed_by.map(str::to_owned)),
    ];
    attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The lead's id, where it is one that SNS takes for a group's: letters, digits and ASCII punctuation.
fn group(lead_id: &str) -> String {
    let legal = lead_id.len() <= MAX_GROUP && lead_id.bytes().all(|byte| byte.is_ascii_graphic());
    if legal { lead_id.to_owned() } else { format!("sha256:{}", sha256_hex(lead_id.as_bytes())) }
}
