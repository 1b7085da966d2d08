//! The topic as an SNS topic: one `Publish` with one body per protocol.

use aws_sdk_sns::Client;

use super::{Topic, TopicError};
use crate::ledger::Message;

/// One standard SNS topic.
#[derive(Debug, Clone)]
pub struct SnsTopic {
    client: Client,
    arn: String,
}

impl SnsTopic {
    /// The topic with this ARN.
    pub fn new(client: Client, arn: String) -> Self {
        Self { client, arn }
    }
}

impl Topic for SnsTopic {
    /// Without message attributes: SNS drops them under `MessageStructure: json`.
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let publish = self
            .client
            .publish()
            .topic_arn(&self.arn)
            .subject(&message.subject)
            .message(&message.body)
            .message_structure("json");
        let published = publish.send().await.map_err(|error| TopicError::Failed(error.into()))?;
        // The id is for people who look a message up; an answer without one is a success no less.
        Ok(published.message_id.unwrap_or_default())
    }
}
