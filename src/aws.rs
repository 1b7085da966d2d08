//! The AWS SDK as a function needs it: one HTTPS client for all services, and no call that outlives the invocation.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sns::config::interceptors::InterceptorContext;
use aws_sdk_sns::config::retry::{ClassifyRetry, RetryAction};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// Longest wait for a connection, TLS included. Inside a region it takes milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// Longest wait for the answer to one try of what may be repeated, which takes milliseconds too; then the connection is
/// taken for dead.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Tries of one operation.
pub const ATTEMPTS: u32 = 3;

/// Longest wait for the same in all, tries and pauses together. Each step of a request ends earlier if its share of the
/// invocation's time does (see [`crate::invocation::Schedule`]).
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);

/// The SDK's own first pause is up to a second, which is long for one call out of three in a few seconds.
const BACKOFF: Duration = Duration::from_millis(50);

/// Region, endpoint and credentials from where Lambda puts them, and what all services have in common.
pub async fn config() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .retry_config(retries)
        .load()
        .await
}

/// The client of the ledger, whose requests recognise their own effect, and so may be repeated: it soon asks again.
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(impatient()).build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// The client of the signing secrets, which are only read: it soon asks again too.
pub fn secrets_manager(config: &SdkConfig) -> aws_sdk_secretsmanager::Client {
    let config = aws_sdk_secretsmanager::config::Builder::from(config).timeout_config(impatient()).build();
    aws_sdk_secretsmanager::Client::from_conf(config)
}

fn impatient() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build()
}

/// The client of the topic. A publish has no condition that would make a second one harmless. So it is waited for as long
/// as its share of the invocation's time lasts, and repeated only where SNS has answered that it did not take it.
pub fn sns(config: &SdkConfig) -> aws_sdk_sns::Client {
    let config = aws_sdk_sns::config::Builder::from(config).retry_classifier(OnlyWhatWasRefused).build();
    aws_sdk_sns::Client::from_conf(config)
}

/// Forbids to repeat what may have been taken: a request that was sent and got no answer, or half of one, or one that says
/// no more than that something went wrong. What is left are throttling and 503.
#[derive(Debug)]
struct OnlyWhatWasRefused;

impl ClassifyRetry for OnlyWhatWasRefused {
    fn name(&self) -> &'static str {
        "only what was refused"
    }

    /// Runs after the SDK's own classifiers, as custom ones do, and overrules them.
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let answered = matches!(context.output_or_error(), Some(Err(error)) if error.is_operation_error());
        let status = context.response().map(|response| response.status().as_u16());
        match status {
            Some(status) if answered && !matches!(status, 500 | 502 | 504) => RetryAction::NoActionIndicated,
            _ => RetryAction::RetryForbidden,
        }
    }
}
