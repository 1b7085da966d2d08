//! Publishes one message; what stands behind it is [`sns`].

pub mod sns;

use std::error::Error;

use crate::message::Message;

/// Why a message is not known to be out. It may be out all the same.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The topic refused it, or could not be reached.
    #[error("the topic did not take the message")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// It is for the lead status stream, which has been turned off since it was claimed.
    #[error("the lead status stream is off (STATUS_TOPIC_ARN is not set), so this message is not published")]
    NoStream,
    /// No answer in the time that the attempt has.
    #[error("the topic did not answer in time")]
    TimedOut,
}

/// Takes messages to whoever subscribed.
pub trait Topic {
    /// Publishes, and returns the topic's id of the message. The caller sets the deadline.
    fn publish(&self, message: &Message) -> impl Future<Output = Result<String, TopicError>> + Send;
}
