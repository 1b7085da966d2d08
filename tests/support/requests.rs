//! SendPilot's side of the wire: the files in `events/`, and requests signed on the spot.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use lambda_http::Request;
use lambda_http::http::HeaderMap;
use opportunity_alerts::delivery::ledger::Claim;
use opportunity_alerts::invocation::Owner;
use opportunity_alerts::message::key::{DeliveryId, sha256_hex};
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::message::{Delivery, Message};
use opportunity_alerts::secrets::signing::Secrets;
use opportunity_alerts::sendpilot::event;
use opportunity_alerts::sendpilot::signature::verify;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::gateway::Payload;
use serde_json::{Value, json};
use sha2::Sha256;

/// The published sample secret; all files in `events/` are signed with it.
pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Another one.
pub const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What SendPilot waits after an attempt that was not answered 2xx, before the next. After the last it gives up.
pub const RETRIES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(900),
    Duration::from_secs(3600),
];

pub fn secrets() -> Secrets {
    Secrets::parse(SECRET).unwrap()
}

/// The names of all request files, sorted.
pub fn files() -> Vec<String> {
    let entries = std::fs::read_dir("events").unwrap().map(|entry| entry.unwrap().path());
    let requests = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut names: Vec<_> = requests.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A request file as Lambda gets it.
pub fn payload(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("events/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A request file as the handler gets it, and the time at which it arrived.
pub fn file(name: &str) -> (Request, Timestamp) {
    let payload = payload(name);
    let now = Timestamp::from_millis(payload["requestContext"]["timeEpoch"].as_u64().unwrap());
    (http(payload), now)
}

/// The way of a payload through the gateway.
pub fn http(payload: Value) -> Request {
    let payload: Payload = serde_json::from_value(payload).unwrap();
    payload.try_into().unwrap()
}

/// An API Gateway payload around a body and its signature headers.
pub fn around(body: &str, headers: &[(String, String)]) -> Value {
    let mut payload = payload("unsigned");
    payload["body"] = body.into();
    for (name, value) in headers {
        payload["headers"][name] = value.as_str().into();
    }
    payload
}

/// An opportunity with this event id.
pub fn opportunity(event_id: &str) -> String {
    change(event_id, "OPPORTUNITY")
}

/// Returns the delivery of the alert of the sample opportunity, under this event id.
pub fn opportunity_delivery(event_id: &str) -> Delivery {
    let body = opportunity(event_id).into_bytes();
    let headers = headers(&documented(SECRET, 1_708_770_605, &body));
    let verified = verify(&headers, &body, &secrets(), Timestamp::from_millis(1_708_770_605_000)).unwrap();
    Rules::default().due(&event::parse(&verified).unwrap()).unwrap().alert.unwrap()
}

/// Returns an opportunity with this event id, about this lead.
pub fn opportunity_of(event_id: &str, lead_id: &str) -> String {
    opportunity(event_id).replace("lead_abc123", lead_id)
}

/// A change to this status.
pub fn change(event_id: &str, status: &str) -> String {
    json!({
        "eventId": event_id, "eventType": "lead.status.changed", "timestamp": "2024-02-24T10:30:00.000Z",
        "workspaceId": "ws_abc123xyz",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousStatus": "REPLY_RECEIVED", "newStatus": status, "changedBy": "api",
        },
    })
    .to_string()
}

fn mac(key: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    content.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes().to_vec()
}

/// Signature headers of the Svix / Standard Webhooks scheme, under either family of names.
pub fn standard(family: &str, secret: &str, id: &str, seconds: u64, body: &[u8]) -> Vec<(String, String)> {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mac = mac(&key, &[id.as_bytes(), b".", seconds.to_string().as_bytes(), b".", body]);
    vec![
        (format!("{family}-id"), id.into()),
        (format!("{family}-timestamp"), seconds.to_string()),
        (format!("{family}-signature"), format!("v1,{}", BASE64.encode(&mac))),
    ]
}

/// The signature header of SendPilot's own documentation.
pub fn documented(secret: &str, seconds: u64, body: &[u8]) -> Vec<(String, String)> {
    let mac = mac(secret.as_bytes(), &[seconds.to_string().as_bytes(), b".", body]);
    vec![("webhook-signature".into(), format!("v1,t={seconds},s={}", HEXLOWER.encode(&mac)))]
}

/// A payload signed now, with the sample secret.
pub fn signed_now(body: &str) -> Value {
    signed_now_with(SECRET, body)
}

/// A payload signed now, with this secret.
pub fn signed_now_with(secret: &str, body: &str) -> Value {
    let now = Timestamp::from(std::time::SystemTime::now()).as_secs();
    around(body, &standard("svix", secret, "msg_1", now, body.as_bytes()))
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
        debounce_key: None,
    }
}

/// A claim on it, as a ledger would hand it out.
pub fn claim_of(event_id: &str, owner: Owner) -> Claim {
    let Delivery { id, message, debounce_key, .. } = delivery(event_id, event_id);
    Claim::new(id, message, debounce_key, owner)
}
