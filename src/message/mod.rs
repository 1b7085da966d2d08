//! What to publish: an event goes in, and the deliveries that it needs come out.

mod alert;
mod cloud_event;
pub mod key;
pub mod pipeline;
pub mod rules;
mod stream;
pub(crate) mod text;

use std::collections::BTreeMap;

use self::key::{DeliveryId, QuietId};

/// The exact publish request, but for the topic's ARN. Stored in the row, so that a redrive needs nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To the topic of alerts.
    Alert {
        /// `Subject`: legal for SNS as it is.
        subject: String,
        /// `Message` under `MessageStructure: json`: a JSON object with one string per protocol, at most 256 KiB.
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
    /// What to publish.
    pub message: Message,
    /// Hash of the event's content: the lead, the campaign, and the statuses or tags. Two events
    /// with one id and the same content are the same fact. Other content is another fact, which
    /// gets a delivery of its own.
    pub content_sha256: String,
    /// The quiet period that it has to respect, where alerts are debounced.
    pub quiet: Option<QuietId>,
}
