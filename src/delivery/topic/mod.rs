//! Publishes one message. [`sns`] is the implementation.

pub mod sns;

use std::error::Error;

use crate::message::Message;

/// Why a message is not known to be published. It may be published all the same.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The topic rejected the message, or could not be reached.
    #[error("the topic did not take the message")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The message is for the lead status stream, which was turned off after the claim.
    #[error("the lead status stream is off (STATUS_TOPIC_ARN is not set), so this message is not published")]
    NoStream,
    /// No answer in the time that the attempt has.
    #[error("the topic did not answer in time")]
    TimedOut,
}

/// Takes messages to the subscribers.
pub trait Topic {
    /// Publishes a message, and returns the topic's id of it. The caller sets the deadline.
    fn publish(&self, message: &Message) -> impl Future<Output = Result<String, TopicError>> + Send;
}
