//! Keeps every change of the lead status stream in S3, a day a folder ([`object`]), for Athena to query. What fails comes again, and
//! nothing else does.

mod object;

use std::process::ExitCode;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use aws_sdk_s3::Client;
use lambda_runtime::{LambdaEvent, service_fn};
use opportunity_alerts::aws::Aws;
use opportunity_alerts::config::{ConfigError, function_name, log_level};
use opportunity_alerts::error::chain;
use opportunity_alerts::telemetry;
use tracing::{error, info, warn};

use crate::object::{Batch, Object};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let _telemetry = telemetry::init(function_name(variable), log_level(variable));
    telemetry::exit(serve(variable).await)
}

async fn serve(variable: impl Fn(&str) -> Option<String>) -> Result<(), lambda_runtime::Error> {
    let bucket = variable("ARCHIVE_BUCKET").ok_or(ConfigError::Missing("ARCHIVE_BUCKET"))?;
    let endpoint = variable("AWS_ENDPOINT_URL").filter(|url| !url.is_empty());
    let mut config = aws_sdk_s3::config::Builder::from(Aws::read(&variable)?.config());
    // A bucket's own host name is one that no emulator has.
    config.set_force_path_style(Some(endpoint.is_some()));
    config.set_endpoint_url(endpoint);
    let archive = &Archive { client: Client::from_conf(config.build()), bucket };
    let run = async |event: LambdaEvent<SqsEvent>| {
        Ok::<_, lambda_runtime::Error>(archive.keep(Batch::read(event.payload.records)).await)
    };
    lambda_runtime::run(service_fn(run)).await
}

struct Archive {
    client: Client,
    bucket: String,
}

impl Archive {
    /// Which messages are to come again. Those that are none of the stream's end in the dead-letter queue so.
    async fn keep(&self, batch: Batch) -> SqsBatchResponse {
        let mut failed: Vec<String> = Vec::new();
        for (id, error) in batch.unreadable {
            error!(messageId = id, failure = chain(&error), "unreadable");
            failed.push(id);
        }
        for Object { key, lines, messages } in batch.objects {
            let put = self.client.put_object().bucket(&self.bucket).key(&key).content_type("application/x-ndjson");
            match put.body(lines.into_bytes().into()).send().await {
                Ok(_) => info!(key, messages = messages.len(), "kept"),
                Err(error) => {
                    warn!(key, failure = chain(&error), "not kept");
                    failed.extend(messages);
                }
            }
        }
        let mut response = SqsBatchResponse::default();
        response.batch_item_failures = failed.into_iter().map(failure).collect();
        response
    }
}

fn failure(message_id: String) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = message_id;
    failure
}
