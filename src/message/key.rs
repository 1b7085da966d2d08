//! The keys of rows: one key per delivery, and one per debounced lead and status.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Last part of the key of a message to the lead status stream.
const STATUS: &str = "status";

/// The key of a row: `{workspaceId}#{eventId}#alert`, or `…#status`.
///
/// If SendPilot uses one event id for two different facts, the later fact has the event id
/// `{eventId}~{hash}`: see [`Delivery::content_sha256`](super::Delivery::content_sha256). A very
/// long key is hashed as a whole, except its last part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId(String);

impl DeliveryId {
    /// The alert of one event. The same event gives the same id on every retry, and two events
    /// never share an id.
    pub fn alert(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::new("alert", workspace_id, event_id)
    }

    /// The event's message to the lead status stream: another delivery, which succeeds or fails by
    /// itself.
    pub fn status(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::new(STATUS, workspace_id, event_id)
    }

    /// Whether this is a message to the lead status stream. The key's last part says so.
    pub fn is_for_stream(&self) -> bool {
        self.0.rsplit('#').next() == Some(STATUS)
    }

    fn new(topic: &str, workspace_id: Option<&str>, event_id: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), event_id], topic))
    }

    /// A key as it was stored.
    pub fn from_stored(key: String) -> Self {
        Self(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Longest key that is stored unhashed, in bytes: half of DynamoDB's limit of 2,048 for a partition
/// key.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_KEY: usize = 1024;

/// Returns a key that no other parts and no other kind produce. A key above [`MAX_KEY`] is hashed
/// as a whole: DynamoDB would refuse a key beyond its limit on every attempt.
fn row_key(parts: &[&str], kind: &str) -> String {
    let mut key = String::new();
    for part in parts {
        key.push_str(&key_part(part));
        key.push('#');
    }
    if key.len() > MAX_KEY {
        // This key has two parts and every other key at least three, so they never collide.
        key = format!("%sha256:{}#", sha256_hex(key.as_bytes()));
    }
    key + kind
}

/// Returns the part of a key, escaped so that no part looks like two. A long part is hashed,
/// because DynamoDB refuses a key of more than 2,048 bytes on every attempt. Two parts never give
/// the same text.
pub(crate) fn key_part(part: &str) -> Cow<'_, str> {
    const SEPARATORS: &AsciiSet = &CONTROLS.add(b'#').add(b'%');
    match part.len() {
        0..=256 => utf8_percent_encode(part, SEPARATORS).into(),
        // No escape begins like this.
        _ => format!("%sha256:{}", sha256_hex(part.as_bytes())).into(),
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The key of a debounce lock: `{workspaceId}#{leadId}#{newStatus}#quiet`, or
/// `{workspaceId}#{leadId}#{newTag}#quiet-tag`. The row is in the same table. A delivery's key has
/// three parts, so the two never collide.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DebounceKey(String);

impl DebounceKey {
    /// The lock of alerts for this lead in this status.
    pub fn status(workspace_id: Option<&str>, lead_id: &str, new_status: &str) -> Self {
        Self::new("quiet", workspace_id, lead_id, new_status)
    }

    /// The lock of alerts for this lead with this tag.
    pub fn tag(workspace_id: Option<&str>, lead_id: &str, new_tag: &str) -> Self {
        Self::new("quiet-tag", workspace_id, lead_id, new_tag)
    }

    fn new(kind: &str, workspace_id: Option<&str>, lead_id: &str, new: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), lead_id, new], kind))
    }

    /// A key as it was stored.
    pub fn from_stored(key: String) -> Self {
        Self(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
