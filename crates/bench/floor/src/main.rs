//! A function that makes the three AWS calls of an alert for every event, with constant input, and
//! does nothing else. It shows the least possible cost of an alert with Lambda's runtime for Rust
//! and the AWS SDK.
//!
//! The SDK has the functions' configuration, and the input has the size of a real alert. The
//! function verifies no signature, applies no rule, reads no row, and writes no log line.

use std::collections::HashMap;
use std::env;
use std::sync::LazyLock;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use aws_sdk_sns::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use aws_types::SdkConfig;
use lambda_http::{Error, Request, Response, run, service_fn};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ID: &str = "ws_abc123xyz#evt_fresh_000000001#alert";

const OWNER: &str = "00000001-e9f4-11e8-9739-2dfe598c3fcd/0123456789abcdef";

const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const SUBJECT: &str = "New opportunity: John Doe";

/// The message of the sample alert, with a body for each protocol.
const MESSAGE: &str = include_str!("message.json");

const MAY_CLAIM: &str = "attribute_not_exists(deliveryId) OR (#state = :pending AND leaseUntil <= :now \
     AND (attribute_not_exists(contentSha256) OR contentSha256 = :sha))";

const CLAIM: &str = "ADD attempts :one SET #state = :pending, #owner = :me, leaseUntil = :until, pending = :shard, \
     message = if_not_exists(message, :message), contentSha256 = if_not_exists(contentSha256, :sha), \
     firstSeenAt = if_not_exists(firstSeenAt, :now)";

const MAY_COMPLETE: &str = "#owner = :me AND #state = :pending";

const COMPLETE: &str =
    "SET #state = :published, publishedAt = :at, messageId = :id, expiresAt = :expires REMOVE pending";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let floor = &Floor::new()?;
    run(service_fn(async |_: Request| {
        floor.alert().await?;
        let answer = Response::builder().header("content-type", "application/json");
        Ok::<_, Error>(answer.body(r#"{"outcome":"alerted"}"#.to_owned())?)
    }))
    .await
}

struct Floor {
    dynamodb: aws_sdk_dynamodb::Client,
    sns: aws_sdk_sns::Client,
    table: String,
    topic: String,
}

impl Floor {
    fn new() -> Result<Self, Error> {
        let connector = LazyLock::new(|| {
            let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
            SharedHttpConnector::new(connector)
        });
        let credentials = Credentials::new(
            env::var("AWS_ACCESS_KEY_ID")?,
            env::var("AWS_SECRET_ACCESS_KEY")?,
            env::var("AWS_SESSION_TOKEN").ok(),
            None,
            "environment",
        );
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(env::var("AWS_REGION")?))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::clone(&connector)))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&config);
        dynamodb.set_endpoint_url(env::var("AWS_ENDPOINT_URL_DYNAMODB").ok());
        let mut sns = aws_sdk_sns::config::Builder::from(&config);
        sns.set_endpoint_url(env::var("AWS_ENDPOINT_URL_SNS").ok());
        Ok(Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            sns: aws_sdk_sns::Client::from_conf(sns.build()),
            table: env::var("ALERTS_TABLE_NAME")?,
            topic: env::var("ALERTS_TOPIC_ARN")?,
        })
    }

    /// Claims, publishes and completes.
    async fn alert(&self) -> Result<(), Error> {
        let parameters = [("Subject", SUBJECT), ("Message", MESSAGE), ("MessageStructure", "json")];
        let parameters: HashMap<_, _> = parameters.map(|(name, value)| (name.to_owned(), text(value))).into();
        let claim = self
            .update()
            .condition_expression(MAY_CLAIM)
            .update_expression(CLAIM)
            .expression_attribute_values(":until", number("1708770617500"))
            .expression_attribute_values(":now", number("1708770605500"))
            .expression_attribute_values(":one", number("1"))
            .expression_attribute_values(":message", AttributeValue::M(parameters))
            .expression_attribute_values(":sha", text(SHA))
            .expression_attribute_values(":shard", text("3"));
        claim.return_values(ReturnValue::AllOld).send().await?;

        let publish = self.sns.publish().topic_arn(&self.topic).subject(SUBJECT).message(MESSAGE);
        let published = publish.message_structure("json").send().await?;

        let complete = self
            .update()
            .condition_expression(MAY_COMPLETE)
            .update_expression(COMPLETE)
            .expression_attribute_values(":published", text("PUBLISHED"))
            .expression_attribute_values(":at", number("1708770605600"))
            .expression_attribute_values(":id", text(published.message_id().unwrap_or_default()))
            .expression_attribute_values(":expires", number("1711362605"));
        complete.send().await?;
        Ok(())
    }

    fn update(&self) -> UpdateItemFluentBuilder {
        self.dynamodb
            .update_item()
            .table_name(&self.table)
            .key("deliveryId", text(ID))
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":pending", text("PENDING"))
            .expression_attribute_values(":me", text(OWNER))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: &str) -> AttributeValue {
    AttributeValue::N(number.to_owned())
}
