//! The kinds of requests that are measured.

use anyhow::Result;
use serde_json::{Value, json};
use testkit::http::Bytes;
use testkit::sendpilot::{OTHER, SECRET, change, signed_now};

/// The prefix of the ids of events whose alert has been published, according to the stub of
/// DynamoDB.
pub const PUBLISHED: &str = "evt_published";

/// The text of a lead's reply.
pub const REPLY: &str = "Sounds interesting. Can we talk on Tuesday?";

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A lead has become an opportunity.
    Alert,
    /// A lead has got a status that needs no alert.
    Ignored,
    /// An opportunity whose alert has been published.
    Duplicate,
    /// An opportunity that is signed with another secret.
    Forged,
    /// A lead has replied. Without `REMEMBER_REPLIES`, the function ignores the reply.
    Reply,
}

impl Kind {
    /// All kinds that do not depend on the function's options.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Ignored, Self::Duplicate, Self::Forged];

    /// Returns the name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Ignored => "ignored event",
            Self::Duplicate => "duplicate",
            Self::Forged => "forged request",
            Self::Reply => "reply",
        }
    }

    /// Returns the status of the answer.
    pub fn status(self) -> u64 {
        if self == Self::Forged { 401 } else { 200 }
    }

    /// Returns the number of alerts that the request publishes.
    pub fn publishes(self) -> u64 {
        u64::from(self == Self::Alert)
    }

    /// Returns whether the request needs a call to AWS.
    pub fn calls_aws(self) -> bool {
        matches!(self, Self::Alert | Self::Duplicate)
    }

    /// Returns the `number`th payload of this kind. The body has its natural length, or nearly
    /// `length` bytes if that is more.
    ///
    /// # Errors
    /// If the clock is before 1970.
    pub fn request(self, number: usize, length: usize) -> Result<Bytes> {
        let prefix = if self == Self::Duplicate { PUBLISHED } else { "evt_fresh" };
        let status = if self == Self::Ignored { "MESSAGE_SENT" } else { "OPPORTUNITY" };
        let mut event = change(&format!("{prefix}_{number:09}"), status);
        if self == Self::Reply {
            event["eventType"] = "reply.received".into();
            event["data"] = json!({ "leadId": event["data"]["leadId"], "reply": REPLY });
        }
        let body = padded(event, length).to_string();
        let secret = if self == Self::Forged { OTHER } else { SECRET };
        Ok(signed_now(secret, &format!("msg_{number:09}"), &body)?.to_string().into())
    }
}

/// Returns the event with a conversation, so that it has nearly `length` bytes.
fn padded(mut event: Value, length: usize) -> Value {
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
