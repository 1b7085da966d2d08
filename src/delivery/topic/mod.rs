//! Publishes one message. [`sns`] implements this for SNS.

pub mod sns;

use std::error::Error;

use crate::message::Message;

/// Why a message is not known to be published. The message may have been published nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The topic rejected the message, or could not be reached.
    #[error("the topic did not accept the message")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The message is for the lead status stream, which was turned off after the claim.
    #[error("the lead status stream is off (STATUS_TOPIC_ARN is not set), so this message is not published")]
    NoStream,
    /// There was no answer in the attempt's time.
    #[error("the topic did not answer in time")]
    TimedOut,
}

/// The topics to which messages are published.
pub trait Topic {
    /// Publishes a message, and returns the id that the topic gives it. The caller sets the
    /// deadline.
    fn publish(&self, message: &Message) -> impl Future<Output = Result<String, TopicError>> + Send;
}
