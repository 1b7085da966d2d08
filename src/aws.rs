//! The AWS SDK as a function needs it: one HTTPS client for all services, and no call that outlives the invocation.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// Longest wait for a connection. Inside a region it takes milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for the answer to one try; then the connection is taken for dead, as it is when the other side closed it
/// while the function was frozen. Long enough that a slow answer of SNS is not given up for a second publish.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for an operation, tries and pauses together. Each step of a delivery ends earlier if its share of the
/// invocation's time does (see [`crate::invocation::Schedule`]).
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Tries of one operation. A repetition does no harm: the ledger's requests recognise their own effect, and a second
/// publish under the same alert id is what the promise allows where the proof of the first was lost.
pub const ATTEMPTS: u32 = 3;

/// The SDK's own first pause is up to a second, which is long for one call out of three in a few seconds.
const BACKOFF: Duration = Duration::from_millis(50);

/// Region, endpoint and credentials from where Lambda puts them; timeouts and retries from here.
pub async fn config() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(retries)
        .load()
        .await
}
