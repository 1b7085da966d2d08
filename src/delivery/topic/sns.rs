//! The topics in SNS. Each message is one call of `Publish`.

use aws_sdk_sns::Client;
use aws_sdk_sns::types::MessageAttributeValue;

use super::{Topic, TopicError};
use crate::message::Message;

/// The topics' ARNs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// The alerts topic: a standard topic.
    pub alerts: String,
    /// The topic of the lead status stream, if the stream is on. It is a FIFO topic if the ARN ends
    /// in `.fifo`.
    pub status: Option<String>,
}

/// The two topics, with the client that publishes to them.
#[derive(Debug, Clone)]
pub struct Sns {
    client: Client,
    topics: Topics,
}

impl Sns {
    /// Creates a publisher for these topics.
    pub fn new(client: Client, topics: Topics) -> Self {
        Self { client, topics }
    }
}

impl Topic for Sns {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let publish = self.client.publish();
        let publish = match message {
            // An alert has no message attributes: with `MessageStructure: json`, SNS drops them.
            Message::Alert { subject, body } => {
                publish.topic_arn(&self.topics.alerts).subject(subject).message(body).message_structure("json")
            }
            Message::Status { body, attributes, group, deduplication } => {
                let topic = self.topics.status.as_ref().ok_or(TopicError::NoStream)?;
                let attributes = attributes.iter().map(|(name, value)| Ok((name.clone(), attribute(value)?)));
                let attributes = attributes.collect::<Result<_, _>>().map_err(TopicError::Failed)?;
                publish
                    .topic_arn(topic)
                    .message(body)
                    .set_message_attributes(Some(attributes))
                    .message_group_id(group)
                    // A standard topic accepts a group, for fair queues, and rejects this id.
                    .set_message_deduplication_id(topic.ends_with(".fifo").then(|| deduplication.clone()))
            }
        };
        let published = publish.send().await.map_err(|error| TopicError::Failed(error.into()))?;
        // The id only helps people to find a message, so an answer without an id is a success too.
        Ok(published.message_id.unwrap_or_default())
    }
}

fn attribute(value: &str) -> Result<MessageAttributeValue, Box<dyn std::error::Error + Send + Sync>> {
    Ok(MessageAttributeValue::builder().data_type("String").string_value(value).build()?)
}
