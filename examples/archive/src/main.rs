//! Keeps every change of the lead status stream in S3, one folder per day ([`object`]), for queries
//! by Athena. Only failed messages return to the queue.

mod object;

use std::env;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{Attribute, Attributes, ObjectStore, RetryConfig};
use tracing::{error, info, warn};

use crate::object::{Batch, Object};

/// The time for which a failed write is retried, well within the function's timeout.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // Lambda reads the level of a JSON line only if the line has a timestamp too.
    tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    let bucket = env::var("ARCHIVE_BUCKET").map_err(|_| "ARCHIVE_BUCKET is not set")?;
    // Lambda sets the variables for region and credentials. Only an emulator uses HTTP.
    let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true);
    let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let archive = &Archive { bucket: s3.with_retry(retry).build()? };
    let run =
        async |event: LambdaEvent<SqsEvent>| Ok::<_, Error>(archive.keep(Batch::read(event.payload.records)).await);
    lambda_runtime::run(service_fn(run)).await
}

struct Archive {
    bucket: AmazonS3,
}

impl Archive {
    /// Writes a batch, and returns the messages that must go back to the queue. After ten returns,
    /// a message that is not a lead status change ends in the dead-letter queue.
    async fn keep(&self, batch: Batch) -> SqsBatchResponse {
        let mut failed: Vec<String> = Vec::new();
        for (id, error) in batch.unreadable {
            error!(messageId = id, failure = %error, "unreadable");
            failed.push(id);
        }
        for Object { key, lines, messages } in batch.objects {
            let content_type = Attributes::from_iter([(Attribute::ContentType, "application/x-ndjson")]);
            match self.bucket.put_opts(&key.as_str().into(), lines.into(), content_type.into()).await {
                Ok(_) => info!(key, messages = messages.len(), "kept"),
                Err(error) => {
                    warn!(key, failure = %error, "not kept");
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
