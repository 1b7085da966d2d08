//! SendPilot's requests: the files in `events/`, and requests that a test signs itself.

use std::time::SystemTime;

use lambda_http::Request;
use lambda_http::http::HeaderMap;
use opportunity_alerts::delivery::ledger::Claim;
use opportunity_alerts::invocation::Owner;
use opportunity_alerts::message::details::Details;
use opportunity_alerts::message::key::{DeliveryId, sha256_hex};
use opportunity_alerts::message::rules::{Due, Rules};
use opportunity_alerts::message::{Delivery, Locks, Message};
use opportunity_alerts::secrets::signing::Secrets;
use opportunity_alerts::sendpilot::event::{self, Event, Malformed};
use opportunity_alerts::sendpilot::signature::verify;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::gateway::Payload;
use serde_json::{Value, json};
use testkit::sendpilot;

pub use testkit::sendpilot::{SECRET, documented};

pub fn secrets() -> Secrets {
    Secrets::parse(SECRET).unwrap()
}

/// Returns the names of all request files, sorted.
pub fn files() -> Vec<String> {
    let entries = std::fs::read_dir("events").unwrap().map(|entry| entry.unwrap().path());
    let requests = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut names: Vec<_> = requests.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Returns a request file as Lambda gets it.
pub fn payload(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("events/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns a request file as the handler gets it, and the time at which it arrived.
pub fn file(name: &str) -> (Request, Timestamp) {
    let payload = payload(name);
    let now = Timestamp::from_millis(payload["requestContext"]["timeEpoch"].as_u64().unwrap());
    (http(payload), now)
}

/// Converts a payload of API Gateway into the handler's request.
pub fn http(payload: Value) -> Request {
    let payload: Payload = serde_json::from_value(payload).unwrap();
    payload.try_into().unwrap()
}

/// Returns an API Gateway payload with this body and these signature headers.
pub fn around(body: &str, headers: &[(String, String)]) -> Value {
    sendpilot::payload(body, headers).unwrap()
}

/// Returns an opportunity with this event id.
pub fn opportunity(event_id: &str) -> String {
    change(event_id, "OPPORTUNITY")
}

/// Returns the delivery of the sample opportunity's alert, under this event id.
pub fn opportunity_delivery(event_id: &str) -> Delivery {
    let body = opportunity(event_id).into_bytes();
    let headers = headers(&documented(SECRET, 1_708_770_605, &body));
    let verified = verify(&headers, &body, &secrets(), Timestamp::from_millis(1_708_770_605_000)).unwrap();
    due(&Rules::default(), &event::parse(&verified).unwrap()).unwrap().alert.unwrap()
}

/// The deliveries that an event needs, without details of the lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deliveries {
    pub alert: Option<Delivery>,
    pub status: Option<Delivery>,
}

/// Returns the deliveries that an event needs, without details of the lead.
pub fn due(rules: &Rules, event: &Event) -> Result<Deliveries, Malformed> {
    let Due { alert, status } = rules.due(event)?;
    Ok(Deliveries { alert: alert.map(|alert| alert.delivery(&Details::default())), status })
}

/// Returns an opportunity with this event id, about this lead.
pub fn opportunity_of(event_id: &str, lead_id: &str) -> String {
    opportunity(event_id).replace("lead_abc123", lead_id)
}

/// Returns a reply with this event id, as SendPilot reports it now.
pub fn reply(event_id: &str, lead_id: &str, text: &str) -> Value {
    json!({
        "eventId": event_id, "eventType": "reply.received", "timestamp": Timestamp::from(SystemTime::now()).rfc3339(),
        "workspaceId": "ws_abc123xyz",
        "data": { "leadId": lead_id, "campaignId": "camp_xyz789", "senderId": "sender_def456", "reply": text },
    })
}

/// Returns a change to this status.
pub fn change(event_id: &str, status: &str) -> String {
    sendpilot::change(event_id, status).to_string()
}

/// Returns signature headers of the Svix / Standard Webhooks scheme, under either family of names.
pub fn standard(family: &str, secret: &str, id: &str, seconds: u64, body: &[u8]) -> Vec<(String, String)> {
    sendpilot::standard(family, secret, id, seconds, body).unwrap()
}

/// Returns the sample opportunity as event `evt_1`, signed now.
pub fn event() -> Value {
    signed_now(&opportunity("evt_1"))
}

/// Returns the body of the answer to [`event`].
pub fn said(outcome: &str) -> Value {
    json!({"outcome": outcome, "eventId": "evt_1"})
}

/// Returns a payload signed now with the sample secret.
pub fn signed_now(body: &str) -> Value {
    signed_now_with(SECRET, body)
}

/// Returns a payload signed now with this secret.
pub fn signed_now_with(secret: &str, body: &str) -> Value {
    sendpilot::signed_now(secret, "msg_1", body).unwrap()
}

pub fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    pairs.collect::<HeaderMap>()
}

/// Returns a delivery with this event id and this content.
pub fn delivery(event_id: &str, content: &str) -> Delivery {
    Delivery {
        id: DeliveryId::alert(Some("ws"), event_id),
        message: Message::Alert {
            subject: "New opportunity: x".into(),
            body: json!({ "default": event_id }).to_string(),
        },
        content_sha256: sha256_hex(content.as_bytes()),
        locks: Locks::default(),
    }
}

/// Returns a claim on this event's delivery, as a ledger would grant it.
pub fn claim_of(event_id: &str, owner: Owner) -> Claim {
    let Delivery { id, message, locks, .. } = delivery(event_id, event_id);
    Claim::new(id, message, locks, owner)
}
