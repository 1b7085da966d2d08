//! What to publish: an event goes in, and the deliveries that it needs come out.

mod alert;
mod cloud_event;
pub mod key;
pub mod pipeline;
mod profile;
pub mod rules;
mod stream;
mod trigger;

use std::collections::BTreeMap;

use self::key::{DebounceKey, DeliveryId};

/// The exact publish request, except the topic's ARN. The row stores it, so that the redrive can
/// publish without the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To the alerts topic.
    Alert {
        /// `Subject`: legal for SNS as it is.
        subject: String,
        /// `Message` under `MessageStructure: json`: a JSON object with one string per protocol, at
        /// most 256 KiB.
        body: String,
    },
    /// To the lead status stream.
    Status {
        /// `Message`: a CloudEvent.
        body: String,
        /// `MessageAttributes`, all strings, by name: at most ten, none of them empty.
        attributes: BTreeMap<String, String>,
        /// `MessageGroupId`.
        group: String,
        /// `MessageDeduplicationId`, which only a FIFO topic takes.
        deduplication: String,
    },
}

/// One event on its way to one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The key of its row.
    pub id: DeliveryId,
    /// The message to publish.
    pub message: Message,
    /// Hash of the event's content: the lead, the campaign, and the statuses or tags. Two events
    /// with one id and the same content are the same fact. Other content is another fact, which
    /// gets a delivery of its own.
    pub content_sha256: String,
    /// The lock that the alert needs, if alerts are debounced.
    pub debounce_key: Option<DebounceKey>,
}
