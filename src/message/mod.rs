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

use self::key::{DebounceKey, DeliveryId};

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
    /// The key of the debounce lock that the alert needs, if alerts are debounced.
    pub debounce_key: Option<DebounceKey>,
}
