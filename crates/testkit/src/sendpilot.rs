//! Makes SendPilot's events, their signatures, and the payloads into which API Gateway converts the
//! requests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The published sample secret. All files in `events/` are signed with it.
pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Another secret.
pub const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The pauses between SendPilot's attempts to deliver one event. After the last attempt, SendPilot
/// gives up.
pub const RETRIES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(900),
    Duration::from_secs(3600),
];

/// Returns a change of the sample lead to this status.
pub fn change(event_id: &str, status: &str) -> Value {
    json!({
        "eventId": event_id, "eventType": "lead.status.changed", "timestamp": "2024-02-24T10:30:00.000Z",
        "workspaceId": "ws_abc123xyz",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousStatus": "REPLY_RECEIVED", "newStatus": status, "changedBy": "api",
        },
    })
}

/// Returns the headers of a signature by the scheme of Svix and Standard Webhooks. Their names
/// start with `family`: `svix` or `webhook`.
///
/// # Errors
/// If the secret is not `whsec_` with base64.
pub fn standard(family: &str, secret: &str, id: &str, seconds: u64, body: &[u8]) -> Result<Vec<(String, String)>> {
    let key = BASE64.decode(secret.strip_prefix("whsec_").context("no whsec_ secret")?.as_bytes())?;
    let mac = mac(&key, &[id.as_bytes(), b".", seconds.to_string().as_bytes(), b".", body]);
    Ok(vec![
        (format!("{family}-id"), id.into()),
        (format!("{family}-timestamp"), seconds.to_string()),
        (format!("{family}-signature"), format!("v1,{}", BASE64.encode(&mac))),
    ])
}

/// Returns the signature header that SendPilot's documentation describes.
pub fn documented(secret: &str, seconds: u64, body: &[u8]) -> Vec<(String, String)> {
    let mac = mac(secret.as_bytes(), &[seconds.to_string().as_bytes(), b".", body]);
    vec![("webhook-signature".into(), format!("v1,t={seconds},s={}", HEXLOWER.encode(&mac)))]
}

#[expect(clippy::expect_used, reason = "HMAC accepts a key of any length")]
fn mac(key: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    content.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes().to_vec()
}

/// Returns the payload of an HTTP API for a request with this body, the usual headers, and these
/// headers.
///
/// # Errors
/// If the sample payload in `events/` is not JSON.
pub fn payload(body: &str, headers: &[(String, String)]) -> Result<Value> {
    let mut payload: Value = serde_json::from_str(include_str!("../../../events/unsigned.json"))?;
    payload["body"] = body.into();
    payload["headers"]["content-length"] = body.len().to_string().into();
    for (name, value) in headers {
        payload["headers"][name] = value.as_str().into();
    }
    Ok(payload)
}

/// Returns the payload of a request that SendPilot signs now, with this secret and this message id.
///
/// # Errors
/// The errors of [`standard`] and [`payload`], and an error if the clock is before 1970.
pub fn signed_now(secret: &str, id: &str, body: &str) -> Result<Value> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    payload(body, &standard("svix", secret, id, seconds, body.as_bytes())?)
}
