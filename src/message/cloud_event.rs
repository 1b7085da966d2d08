//! Converts an event to a [`CloudEvent`]: escapes the ids, and cleans and shortens every text.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sendpilot_events::{
    CloudEvent, ContentType, LastReply, Lead, LeadStatusChanged, LeadTagged, RECONCILIATION, SpecVersion, Type,
};
use serde::Serialize;
use time::UtcOffset;

use crate::message::details::{self, Details};
use crate::message::key::{key_part, sha256_hex};
use crate::message::pipeline::Pipeline;
use crate::sendpilot::api;
use crate::sendpilot::event::{Event, Origin, StatusChange, TagChange};
use crate::text::Text;

/// Returns the event as a CloudEvent of this kind about this lead.
pub(crate) fn cloud_event<Data>(
    event: &Event,
    event_id: &str,
    kind: Type,
    lead_id: &str,
    data: Data,
) -> CloudEvent<Data> {
    // An id is escaped only if its text is not clean, or if it could be confused with an escaped
    // id.
    let plain = Text::new(event_id).as_str() == event_id && !event_id.contains('%');
    CloudEvent {
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

/// Serializes a CloudEvent, or another body that consists of strings.
#[expect(clippy::expect_used, reason = "strings, and a time that `cloud_event` has checked, always serialize to JSON")]
pub(crate) fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("a body is JSON")
}

/// Returns the `data` of a change of status, with the stage that `pipeline` gives the new status.
pub(crate) fn lead_status_changed(
    event: &Event,
    change: &StatusChange,
    pipeline: &Pipeline,
    details: &Details,
) -> LeadStatusChanged {
    LeadStatusChanged {
        lead_id: text(&change.lead_id),
        campaign_id: change.campaign_id.as_deref().map(text),
        linkedin_url: change.linkedin_url.as_deref().map(text),
        previous_status: change.previous_status.as_deref().map(text),
        new_status: text(&change.new_status),
        crm_stage: pipeline.stage(&change.new_status).to_owned(),
        changed_by: change.changed_by.as_deref().map(text),
        found_by: match event.origin {
            Origin::Webhook => None,
            Origin::Reconciliation { .. } => Some(RECONCILIATION.into()),
        },
        lead: details.lead.as_ref().and_then(lead),
        campaign_name: details.campaign_name().map(String::from),
        last_reply: details.last_reply.as_ref().and_then(last_reply),
    }
}

/// Returns the `data` of a change of tag.
pub(crate) fn lead_tagged(lead_id: &str, new_tag: &str, change: &TagChange, details: &Details) -> LeadTagged {
    LeadTagged {
        lead_id: text(lead_id),
        campaign_id: change.campaign_id.as_deref().map(text),
        linkedin_url: change.linkedin_url.as_deref().map(text),
        previous_tag: change.previous_tag.as_deref().map(text),
        new_tag: text(new_tag),
        lead: details.lead.as_ref().and_then(lead),
        campaign_name: details.campaign_name().map(String::from),
        last_reply: details.last_reply.as_ref().and_then(last_reply),
    }
}

/// Returns the parts of a lead that are not blank, or `None` if all are.
fn lead(lead: &api::Lead) -> Option<Lead> {
    let api::Lead { first_name, last_name, title, company, email } = lead;
    let [first_name, last_name, title, company, email] =
        [first_name, last_name, title, company, email].map(|part| details::text(part).map(String::from));
    let lead = Lead { first_name, last_name, title, company, email };
    (lead != Lead::default()).then_some(lead)
}

fn last_reply(reply: &details::LastReply) -> Option<LastReply> {
    // The table's owner can edit a row, so a stored text is cleaned again.
    let details::LastReply { text, at } = details::LastReply::new(&reply.text, reply.at)?;
    Some(LastReply { text, at: at.into() })
}

/// Returns the workspace as a URN, because CloudEvents requires a URI reference as `source`.
fn source(workspace_id: Option<&str>) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    match workspace_id {
        // A long id is hashed, as in the ledger's key. An escaped id has no colon, so the two forms
        // never collide.
        Some(id) if id.len() > 256 => format!("urn:sendpilot:workspace:sha256:{}", sha256_hex(id.as_bytes())),
        Some(id) => format!("urn:sendpilot:workspace:{}", utf8_percent_encode(id, ESCAPED)),
        None => "urn:sendpilot:workspace".into(),
    }
}

fn text(raw: &str) -> String {
    Text::new(raw).into()
}
