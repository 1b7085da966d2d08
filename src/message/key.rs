//! The keys of rows: one key per delivery, one per lock, and one per stored reply.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The last part of the key of a message to the lead status stream.
const STATUS: &str = "status";

/// The key of a row: `{workspaceId}#{eventId}#alert`, or `…#status`.
///
/// In a body mismatch, the key of the later event contains `{eventId}~{hash}` instead of
/// `{eventId}`: see [`Delivery::content_sha256`](super::Delivery::content_sha256). A key above
/// 1,024 bytes is hashed, except its last part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId(String);

impl DeliveryId {
    /// Creates the key of an event's alert. The key is the same on every retry, and two events
    /// never have the same key.
    pub fn alert(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::new("alert", workspace_id, event_id)
    }

    /// Creates the key of an event's message to the lead status stream. This is another delivery,
    /// which succeeds or fails independently.
    pub fn status(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::new(STATUS, workspace_id, event_id)
    }

    /// Returns whether this is the key of a message to the lead status stream. The last part says
    /// so.
    pub fn is_for_stream(&self) -> bool {
        self.0.rsplit('#').next() == Some(STATUS)
    }

    fn new(topic: &str, workspace_id: Option<&str>, event_id: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), event_id], topic))
    }

    /// Creates a key from its stored text.
    pub fn from_stored(key: String) -> Self {
        Self(key)
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest key that is stored unhashed, in bytes. It is half of DynamoDB's limit of 2,048 bytes
/// for a partition key:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_KEY: usize = 1024;

/// Returns a key that is unique to these parts and this kind. A key above [`MAX_KEY`] is hashed,
/// because DynamoDB would refuse a key beyond its limit on every attempt.
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

/// Escapes a part of a key, so that it contains no separator. A part above 256 bytes is hashed. Two
/// different parts never give the same text.
pub(crate) fn key_part(part: &str) -> Cow<'_, str> {
    const SEPARATORS: &AsciiSet = &CONTROLS.add(b'#').add(b'%');
    match part.len() {
        0..=256 => utf8_percent_encode(part, SEPARATORS).into(),
        // No escaped part starts with these characters.
        _ => format!("%sha256:{}", sha256_hex(part.as_bytes())).into(),
    }
}

/// Returns the SHA-256 hash in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The key of a lock on the alerts about one lead: `{workspaceId}#{leadId}#{newStatus}#quiet`,
/// `{workspaceId}#{leadId}#{newTag}#quiet-tag`, or `{hash of leadId}#{status}#known`. The row is in
/// the same table as deliveries, whose keys have another last part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockKey(String);

impl LockKey {
    /// Creates the key of the debounce lock for alerts on this lead in this status.
    pub fn debounce_status(workspace_id: Option<&str>, lead_id: &str, new_status: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), lead_id, new_status], "quiet"))
    }

    /// Creates the key of the debounce lock for alerts on this lead with this tag.
    pub fn debounce_tag(workspace_id: Option<&str>, lead_id: &str, new_tag: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), lead_id, new_tag], "quiet-tag"))
    }

    /// Creates the key of the lock that makes this lead known in this status, in any letter case.
    /// It has no workspace, because SendPilot's API does not say to which workspace a lead belongs.
    /// The lead's id is hashed, so the row can stay after the lead's data are deleted.
    pub fn known(lead_id: &str, status: &str) -> Self {
        Self(row_key(&[&sha256_hex(lead_id.as_bytes()), &status.to_ascii_uppercase()], "known"))
    }

    /// Creates a key from its stored text.
    pub fn from_stored(key: String) -> Self {
        Self(key)
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of a lead's last reply: `{workspaceId}#{leadId}#reply`. The row is in the same table as
/// deliveries, whose keys have another last part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplyKey(String);

impl ReplyKey {
    /// Creates the key of this lead's last reply.
    pub fn new(workspace_id: Option<&str>, lead_id: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), lead_id], "reply"))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
