//! The AWS SDK as a function needs it: one HTTPS client for all services, and no call that outlives the invocation.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sns::config::interceptors::InterceptorContext;
use aws_sdk_sns::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_types::SdkConfig;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use crate::config::{ConfigError, required, set};

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

/// Region, credentials and endpoints from the variables in which Lambda gives them to a function, and what all services
/// have in common. Lambda replaces an environment before its credentials expire, so these never change.
///
/// # Errors
/// With the first variable that is missing.
pub fn config(variable: impl Fn(&str) -> Option<String>) -> Result<SdkConfig, ConfigError> {
    let credentials = Credentials::new(
        required(&variable, "AWS_ACCESS_KEY_ID")?,
        required(&variable, "AWS_SECRET_ACCESS_KEY")?,
        set(&variable, "AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let is_true = |name| set(&variable, name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(required(&variable, "AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .service_config(Endpoints::read(&variable))
        .use_fips(is_true("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_true("AWS_USE_DUALSTACK_ENDPOINT"))
        .http_client(https())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF))
        // Guards long transfers. Ours are short, and each call has a time limit.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    config.set_endpoint_url(set(&variable, "AWS_ENDPOINT_URL"));
    Ok(config.build())
}

/// One connector, and so one pool of connections and one TLS configuration. The SDK's own client would read and parse all root
/// certificates anew for each service, and once more at the first request.
fn https() -> SharedHttpClient {
    let connector = Connector::builder()
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}

/// Endpoints of single services, as all of AWS's SDKs take them from `AWS_ENDPOINT_URL_<SERVICE>`.
#[derive(Debug)]
struct Endpoints(HashMap<String, String>);

impl Endpoints {
    fn read(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let names = ["DYNAMODB", "SNS", "SECRETS_MANAGER"].map(|service| format!("AWS_ENDPOINT_URL_{service}"));
        Self(names.into_iter().filter_map(|name| Some((set(variable, &name)?, name))).map(|(url, name)| (name, url)).collect())
    }
}

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        self.0.get(&format!("{}_{}", key.env(), key.service_id().to_uppercase().replace(' ', "_"))).cloned()
    }
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
