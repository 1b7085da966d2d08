//! SendPilot's side of the wire: signed events as API Gateway hands them to a function.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use hyper::body::Bytes;
use serde_json::{Value, json};
use sha2::Sha256;

/// The published sample secret, in the form in which SendPilot shows one.
pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Somebody else's.
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Begins the id of an event whose alert is out: so the table says.
pub const PUBLISHED: &str = "evt_published";

/// What a request asks of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A lead has become an opportunity.
    Alert,
    /// It has become something else.
    Ignored,
    /// The opportunity has been told of.
    Duplicate,
    /// An opportunity that another secret signed.
    Forged,
}

impl Kind {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Ignored, Self::Duplicate, Self::Forged];

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Ignored => "ignored event",
            Self::Duplicate => "duplicate",
            Self::Forged => "forged request",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> u64 {
        if self == Self::Forged { 401 } else { 200 }
    }

    /// How many alerts are published.
    pub fn publishes(self) -> u64 {
        u64::from(self == Self::Alert)
    }

    /// Whether AWS has to be asked.
    pub fn asks_aws(self) -> bool {
        matches!(self, Self::Alert | Self::Duplicate)
    }

    /// The `number`th request of this kind, with a body of its own length, or of nearly `length` bytes if that is more.
    ///
    /// # Errors
    /// If the clock is before 1970.
    pub fn request(self, number: usize, length: usize) -> Result<Bytes> {
        let prefix = if self == Self::Duplicate { PUBLISHED } else { "evt_fresh" };
        let status = if self == Self::Ignored { "MESSAGE_SENT" } else { "OPPORTUNITY" };
        let body = event(&format!("{prefix}_{number:09}"), status, length).to_string();
        let secret = if self == Self::Forged { OTHER } else { SECRET };
        Ok(delivered(&body, secret, &format!("msg_{number:09}"))?.to_string().into())
    }
}

fn event(id: &str, status: &str, length: usize) -> Value {
    let mut event = json!({
        "eventId": id, "eventType": "lead.status.changed", "timestamp": "2024-02-24T10:30:00.000Z",
        "workspaceId": "ws_abc123xyz",
        "data": {
            "leadId": "lead_abc123", "campaignId": "camp_xyz789", "linkedinUrl": "https://www.linkedin.com/in/john-doe",
            "previousStatus": "REPLY_RECEIVED", "newStatus": status, "changedBy": "api",
        },
    });
    let message = json!({
        "messageId": "msg_0123456789", "sender": "lead", "sentAt": "2024-02-24T10:29:00.000Z", "read": true,
        "text": "Hi \"Jane\",\nthanks for reaching out \u{2013} we look for something like this. Could we talk on Tuesday at 10:30?",
    });
    let room = length.saturating_sub(event.to_string().len() + r#","conversation":[]"#.len());
    let messages = room / (message.to_string().len() + 1);
    if messages > 0 {
        event["data"]["conversation"] = vec![message; messages].into();
    }
    event
}

/// The payload of an HTTP API around a body that is signed now.
fn delivered(body: &str, secret: &str, id: &str) -> Result<Value> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let host = "abc123.execute-api.us-east-1.amazonaws.com";
    let agent = "Svix-Webhooks/1.24.0 (sender-9YMgn; +https://www.svix.com/http-sender/)";
    let (path, route) = ("/webhooks/sendpilot", "POST /webhooks/sendpilot");
    Ok(json!({
        "version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": "",
        "headers": {
            "accept": "*/*", "content-length": body.len().to_string(), "content-type": "application/json", "host": host,
            "svix-id": id, "svix-signature": signature(secret, &format!("{id}.{seconds}.{body}"))?,
            "svix-timestamp": seconds.to_string(), "user-agent": agent,
            "x-amzn-trace-id": "Root=1-65d9c7ed-4a1b2c3d5e6f708192a3b4c5", "x-forwarded-for": "54.164.207.221",
            "x-forwarded-port": "443", "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "123456789012", "apiId": "abc123", "domainName": host, "domainPrefix": "abc123",
            "http": { "method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "54.164.207.221", "userAgent": agent },
            "requestId": "ToCsfhm4liAEPZQ=", "routeKey": route, "stage": "$default",
            "time": "24/Feb/2024:10:30:05 +0000", "timeEpoch": seconds * 1000,
        },
        "body": body, "isBase64Encoded": false,
    }))
}

/// By the scheme of Svix and Standard Webhooks.
fn signature(secret: &str, signed: &str) -> Result<String> {
    let key = BASE64.decode(secret.strip_prefix("whsec_").context("no whsec_ secret")?.as_bytes())?;
    let mac = Hmac::<Sha256>::new_from_slice(&key)?.chain_update(signed).finalize().into_bytes();
    Ok(format!("v1,{}", BASE64.encode(&mac)))
}
