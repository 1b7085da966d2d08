//! Writes the [`Delivery`] of a change of status to the lead status stream.
//!
//! All subscribers get the same body, with attributes to filter by. SNS delivers attributes only
//! without `MessageStructure: json`, so there is no separate body per protocol. Attributes contain
//! no personal data, because consoles and metrics of filters show attributes but no bodies.

use std::collections::BTreeMap;

use sendpilot_events::{LeadStatusChanged, Type};

use crate::message::cloud_event::{cloud_event, json, lead_status_changed};
use crate::message::details::Details;
use crate::message::key::{DeliveryId, sha256_hex};
use crate::message::pipeline::Pipeline;
use crate::message::trigger::Trigger;
use crate::message::{Delivery, Locks, Message};
use crate::sendpilot::event::{Event, StatusChange};
use crate::text::Text;

/// The values of `changedBy` that SendPilot documents.
const CHANGED_BY: [&str; 3] = ["api", "automation", "user"];

/// The longest group id that SNS accepts, in characters.
const MAX_GROUP: usize = 128;

/// Returns the delivery of this change. Its message has no details of the lead, because every
/// change of status causes one.
pub(crate) fn delivery(event: &Event, event_id: &str, change: &StatusChange, pipeline: &Pipeline) -> Delivery {
    let id = DeliveryId::status(event.workspace_id.as_deref(), event_id);
    let data = lead_status_changed(event, change, pipeline, &Details::default());
    let attributes = attributes(event, &data);
    let message = Message::Status {
        body: json(&cloud_event(event, event_id, Type::StatusChanged, &change.lead_id, data)),
        attributes,
        group: group(&change.lead_id),
        deduplication: sha256_hex(id.as_str().as_bytes()),
    };
    Delivery { id, message, content_sha256: Trigger::Status(change).content_sha256(), locks: Locks::default() }
}

/// Returns at most seven attributes. With raw delivery, SNS passes at most ten to a queue. No
/// attribute is empty, because SNS rejects empty ones.
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

/// Returns the lead's id if SNS accepts it as a group id: letters, digits and ASCII punctuation.
/// Otherwise returns its hash.
fn group(lead_id: &str) -> String {
    let legal = lead_id.len() <= MAX_GROUP && lead_id.bytes().all(|byte| byte.is_ascii_graphic());
    if legal { lead_id.to_owned() } else { format!("sha256:{}", sha256_hex(lead_id.as_bytes())) }
}
