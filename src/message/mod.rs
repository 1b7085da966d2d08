//! Decides which deliveries an event needs, and writes their messages.

mod alert;
mod cloud_event;
pub mod details;
pub mod key;
mod layout;
pub mod pipeline;
mod profile;
pub mod rules;
mod stream;
mod trigger;

use std::collections::BTreeMap;
use std::fmt;

use self::key::{DeliveryId, LockKey};
use crate::timestamp::Timestamp;

/// The exact publish request, except the topic's ARN. The row stores the message, so the redrive
/// can publish it without the event. `Debug` does not print it, because it may have personal data.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// A message to the alerts topic.
    Alert {
        /// `Subject`, in a form that SNS accepts.
        subject: String,
        /// `Message` under `MessageStructure: json`: a JSON object with one string per protocol, at
        /// most 256 KiB.
        body: String,
    },
    /// A message to the lead status stream.
    Status {
        /// `Message`: a CloudEvent.
        body: String,
        /// `MessageAttributes`, by name. All are strings, and none is empty. There are at most ten.
        attributes: BTreeMap<String, String>,
        /// `MessageGroupId`.
        group: String,
        /// `MessageDeduplicationId`, which only a FIFO topic accepts.
        deduplication: String,
    },
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert { .. } => "Alert",
            Self::Status { .. } => "Status",
        })
    }
}

/// One event on its way to one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The key of the delivery's row.
    pub id: DeliveryId,
    /// The message to publish.
    pub message: Message,
    /// The hash of the event's content: the lead, the campaign, and the statuses or tags. If two
    /// events have the same id and the same content, the second is a duplicate. If the content
    /// differs, it is a body mismatch, and each event gets its own delivery.
    pub content_sha256: String,
    /// The locks that the alert needs before it may be published.
    pub locks: Locks,
}

/// The locks that a claimed alert needs. The first claim stores them in the row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locks {
    /// The key of the debounce lock, if alerts are debounced.
    pub debounce: Option<LockKey>,
    /// The lock that makes the lead known, if the reconciliation is on.
    pub known: Option<Known>,
}

/// The lock that makes a lead known in a status. The reconciliation alerts a lead only if it is not
/// known. So of a webhook and the reconciliation, the one that has the lock alerts.
///
/// A webhook's alert is suppressed only if a reconciliation has reported the same change: if its
/// event occurred before [`Known::until`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The key of the lock.
    pub key: LockKey,
    /// When the change occurred, by SendPilot's clock. An alert of the reconciliation has the
    /// epoch, so every lock suppresses it.
    pub at: Timestamp,
    /// The time before which the lock suppresses other alerts. The first alert that takes the lock
    /// sets it.
    pub until: Timestamp,
}

impl Known {
    /// An end that suppresses only alerts of the reconciliation, because every event is later.
    const FOR_RECONCILIATION: Timestamp = Timestamp::from_millis(1);

    /// Creates the lock of a webhook's alert. An event without a time is never suppressed.
    pub fn by_webhook(lead_id: &str, status: &str, occurred_at: Option<Timestamp>) -> Self {
        let at = occurred_at.unwrap_or(Timestamp::from_millis(u64::MAX)).max(Self::FOR_RECONCILIATION);
        Self { at, ..Self::baseline(lead_id, status) }
    }

    /// Creates the lock of an alert of the reconciliation, which reports the changes until `until`.
    pub fn by_reconciliation(lead_id: &str, status: &str, until: Timestamp) -> Self {
        Self { until: until.max(Self::FOR_RECONCILIATION), ..Self::baseline(lead_id, status) }
    }

    /// Creates the lock that makes a lead known without an alert. It suppresses no webhook's alert.
    pub fn baseline(lead_id: &str, status: &str) -> Self {
        let (at, until) = (Timestamp::from_millis(0), Self::FOR_RECONCILIATION);
        Self { key: LockKey::known(lead_id, status), at, until }
    }
}
