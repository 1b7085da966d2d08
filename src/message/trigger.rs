//! The change of a lead that triggers a delivery, and the hash of its content.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::sendpilot::event::{StatusChange, TagChange};
use crate::text::trim;

/// The change of a lead that triggers a delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trigger<'a> {
    Status(&'a StatusChange),
    Tag { lead_id: &'a str, new_tag: &'a str, change: &'a TagChange },
}

impl Trigger<'_> {
    pub(crate) fn lead_id(&self) -> &str {
        match self {
            Self::Status(change) => &change.lead_id,
            Self::Tag { lead_id, .. } => lead_id,
        }
    }

    pub(crate) fn campaign_id(&self) -> Option<&str> {
        match self {
            Self::Status(change) => change.campaign_id.as_deref(),
            Self::Tag { change, .. } => change.campaign_id.as_deref(),
        }
    }

    /// Hashes the content by which a duplicate differs from a body mismatch. The bytes and the time
    /// of a request are not hashed, because a retry may change them. Statuses and tags are hashed
    /// in the form in which the rules compare them.
    pub(crate) fn content_sha256(&self) -> String {
        let (kind, lead_id, campaign_id, previous, new) = match self {
            Self::Status(change) => {
                ("status", &*change.lead_id, &change.campaign_id, &change.previous_status, &*change.new_status)
            }
            Self::Tag { lead_id, new_tag, change } => {
                ("tag", *lead_id, &change.campaign_id, &change.previous_tag, *new_tag)
            }
        };
        let (previous, new) = (previous.as_deref().map(normal), normal(new));
        hash(&[Some(kind), Some(lead_id), campaign_id.as_deref(), previous.as_deref(), Some(&new)])
    }
}

/// Returns a status or a tag in lower case and without surrounding blanks.
pub(crate) fn normal(text: &str) -> String {
    trim(text).to_lowercase()
}

/// Returns the hash of the parts in lower-case hex. The length of each part is hashed too, so that
/// two different lists of parts never give the same input.
fn hash(parts: &[Option<&str>]) -> String {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| match part {
        None => hash.chain_update(u64::MAX.to_be_bytes()),
        Some(part) => hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part),
    });
    HEXLOWER.encode(&hash.finalize())
}
