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
/// `{eventId}~{hash}`: see [`Delivery::content_sha256`]. A very long key is hashed as a whole,
/// except its last part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId(String);

impl DeliveryId {
    /// The alert of one event. The same event gives the same id on every retry, and two events never share one.
    pub fn alert(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::to("alert", workspace_id, event_id)
    }

    /// The same event's message to the lead status stream: another delivery, which succeeds or fails by itself.
    pub fn status(workspace_id: Option<&str>, event_id: &str) -> Self {
        Self::to(STATUS, workspace_id, event_id)
    }

    /// Whether this is a message to the lead status stream. The key's last part says so.
    pub fn is_for_stream(&self) -> bool {
        self.0.rsplit('#').next() == Some(STATUS)
    }

    fn to(topic: &str, workspace_id: Option<&str>, event_id: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), event_id], topic))
    }

    /// A key as it was stored.
    pub fn stored(key: String) -> Self {
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

/// Escaped so that no part can pretend to be two, and hashed where it is so long that the key might pass DynamoDB's
/// limit of 2,048 bytes, which would refuse the delivery for ever. Two parts never give the same.
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

/// Hashes the parts of a fact, in lower-case hex. The length of each part is hashed too, so that
/// two different lists of parts never give the same input.
pub(crate) fn content_sha256(parts: &[Option<&str>]) -> String {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| match part {
        None => hash.chain_update(u64::MAX.to_be_bytes()),
        Some(part) => hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part),
    });
    HEXLOWER.encode(&hash.finalize())
}

/// The key of a quiet period: `{workspaceId}#{leadId}#{newStatus}#quiet`, or `{workspaceId}#{leadId}#{newTag}#quiet-tag`. In the
/// same table, and never that of a delivery, which has three parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuietId(String);

impl QuietId {
    /// Of alerts on this lead in this status.
    pub fn status(workspace_id: Option<&str>, lead_id: &str, new_status: &str) -> Self {
        Self::of("quiet", workspace_id, lead_id, new_status)
    }

    /// Of alerts on this lead with this tag.
    pub fn tag(workspace_id: Option<&str>, lead_id: &str, new_tag: &str) -> Self {
        Self::of("quiet-tag", workspace_id, lead_id, new_tag)
    }

    fn of(kind: &str, workspace_id: Option<&str>, lead_id: &str, news: &str) -> Self {
        Self(row_key(&[workspace_id.unwrap_or_default(), lead_id, news], kind))
    }

    /// A key as it was stored.
    pub fn stored(key: String) -> Self {
        Self(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
