//! Creates the SDK's clients. They share one HTTPS connector, so a start reads the root
//! certificates only once.

use std::sync::{Arc, LazyLock};
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
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::SdkConfig;
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::environment::{Missing, required, set};

/// The longest wait for a connection, including TLS. Inside a region, a connection takes
/// milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// The longest wait for the answer to one try of a read. An answer takes milliseconds, so after
/// this wait the connection is assumed to be dead.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of tries of one operation.
pub const ATTEMPTS: u32 = 3;

/// The longest wait for one read, including all tries and pauses. The wait also ends with the
/// step's share of the invocation's time: see [`crate::invocation::Schedule`].
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);

/// The first pause between two tries. The SDK's default is up to a second, which is too long for
/// three calls in a few seconds.
const BACKOFF: Duration = Duration::from_millis(50);

/// The path of AWS's health checks. A request for it needs no signature and calls no API.
const HEALTH: &str = "/ping";

/// Returns the address that the SDK uses for a service. It is a macro because each service has its
/// own types.
macro_rules! url {
    ($sdk:ident, $aws:expr, $endpoint:ident) => {{
        use $sdk::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
        let params = Params::builder()
            .set_region($aws.config.region().map(ToString::to_string))
            .set_use_fips($aws.config.use_fips())
            .set_use_dual_stack($aws.config.use_dual_stack())
            .set_endpoint($aws.$endpoint.clone());
        // The rules depend only on these parameters, so the future is ready at once.
        let resolved =
            params.build().ok().and_then(|params| DefaultResolver::new().resolve_endpoint(&params).now_or_never());
        resolved.and_then(Result::ok).map(|endpoint| endpoint.url().to_owned())
    }};
}

/// The configuration of AWS's clients, from the function's environment.
#[derive(Debug)]
pub struct Aws {
    config: SdkConfig,
    https: Https,
    dynamodb: Endpoint,
    secrets_manager: Endpoint,
    sns: Endpoint,
}

/// The HTTPS connector. It is created at its first use, because reading the root certificates is
/// the longest part of a start.
type Https = Arc<LazyLock<SharedHttpConnector>>;

/// The connector for requests outside the SDK. Also creates the shared one only at its first use.
#[derive(Debug)]
struct AtFirstUse(Https);

impl HttpConnector for AtFirstUse {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.call(request)
    }
}

/// The address of a service, if it is not the region's public one: an emulator, or a VPC endpoint
/// without private DNS.
type Endpoint = Option<String>;

impl Aws {
    /// Reads the region, the credentials and the endpoints from the variables that Lambda sets.
    /// They do not change while a process runs. AWS does not document when Lambda replaces a
    /// process whose credentials are about to expire.
    ///
    /// # Errors
    /// If a variable is missing. The error names the first one.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Missing> {
        let credentials = Credentials::new(
            required(&variable, "AWS_ACCESS_KEY_ID")?,
            required(&variable, "AWS_SECRET_ACCESS_KEY")?,
            set(&variable, "AWS_SESSION_TOKEN"),
            None,
            "environment",
        );
        let is_true = |name| set(&variable, name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = |service| {
            let own = set(&variable, &format!("AWS_ENDPOINT_URL_{service}"));
            own.or_else(|| set(&variable, "AWS_ENDPOINT_URL"))
        };
        // Lambda sets both; an emulator may set only one.
        let region =
            required(&variable, "AWS_REGION").or_else(|missing| set(&variable, "AWS_DEFAULT_REGION").ok_or(missing))?;
        let https = https();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .use_fips(is_true("AWS_USE_FIPS_ENDPOINT"))
            .use_dual_stack(is_true("AWS_USE_DUALSTACK_ENDPOINT"))
            .http_client(http_client_fn({
                let https = https.clone();
                move |_, _| SharedHttpConnector::clone(&https)
            }))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF))
            // This protects long transfers. Ours are short, and each call has a time limit.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Ok(Self {
            config: config.build(),
            https,
            dynamodb: endpoint("DYNAMODB"),
            secrets_manager: endpoint("SECRETS_MANAGER"),
            sns: endpoint("SNS"),
        })
    }

    /// Returns the client of the ledger. Its requests may be repeated, because each recognises its
    /// own effect. If a request gets no answer, the ledger repeats it, and never cancels a request
    /// that may have taken effect. So this client has no timeout.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.config);
        config.set_endpoint_url(self.dynamodb.clone());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Returns the client of the signing secrets. It only reads, so each try can end after
    /// [`ATTEMPT_TIMEOUT`] and be repeated.
    pub(crate) fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let mut config = aws_sdk_secretsmanager::config::Builder::from(&self.config).timeout_config(read_timeouts());
        config.set_endpoint_url(self.secrets_manager.clone());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// Returns the client of the topics. A publish has no condition that would make a second
    /// publish harmless. So the client retries only if SNS explicitly rejected the publish, and has
    /// no timeout. The caller sets the deadline.
    pub fn sns(&self) -> aws_sdk_sns::Client {
        let mut config = aws_sdk_sns::config::Builder::from(&self.config).retry_classifier(RetryOnlyRejected);
        config.set_endpoint_url(self.sns.clone());
        aws_sdk_sns::Client::from_conf(config.build())
    }

    /// Returns the connector for requests outside the SDK. It shares the SDK's pool of connections.
    pub(crate) fn connector(&self) -> SharedHttpConnector {
        SharedHttpConnector::new(AtFirstUse(self.https.clone()))
    }

    /// Starts to open connections to DynamoDB and SNS, because TCP and TLS would cost the first
    /// alert two round trips each. A failure is ignored here, because the first call reports it.
    /// Must be called within tokio's runtime.
    pub fn connect(&self) {
        let urls = [url!(aws_sdk_dynamodb, self, dynamodb), url!(aws_sdk_sns, self, sns)];
        // Only emulators have no TLS. Without TLS, an early connection saves little.
        for url in urls.into_iter().flatten().filter(|url| url.starts_with("https:")) {
            tokio::spawn(timeout(ATTEMPT_TIMEOUT, open(self.https.clone(), url)));
        }
    }
}

/// Opens a connection. The SDK's HTTP client has no connect-only call, so this sends an unsigned
/// GET for [`HEALTH`]. It reads the whole response, because otherwise the connection could not be
/// reused.
async fn open(https: Https, url: String) {
    let mut request = HttpRequest::new(SdkBody::empty());
    if request.set_uri(url + HEALTH).is_ok()
        && let Ok(answer) = https.call(request).await
    {
        ByteStream::new(answer.into_body()).collect().await.ok();
    }
}

fn read_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build()
}

/// Returns a connector with one pool of connections and one TLS configuration for all services. The
/// SDK's default client would read and parse all root certificates again for each service, and once
/// more at the first request.
fn https() -> Https {
    Arc::new(LazyLock::new(|| {
        let connector = Connector::builder()
            .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build();
        SharedHttpConnector::new(connector)
    }))
}

/// Forbids a retry if SNS may have accepted the publish: there was no answer, an incomplete answer,
/// or an answer that does not say whether the publish took effect. Throttling and 503 may be
/// retried.
#[derive(Debug)]
struct RetryOnlyRejected;

impl ClassifyRetry for RetryOnlyRejected {
    fn name(&self) -> &'static str {
        "retry only what SNS rejected"
    }

    /// The SDK runs custom classifiers after its own, so this one overrules them.
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let answered = matches!(context.output_or_error(), Some(Err(error)) if error.is_operation_error());
        let status = context.response().map(|response| response.status().as_u16());
        match status {
            Some(status) if answered && !matches!(status, 500 | 502 | 504) => RetryAction::NoActionIndicated,
            _ => RetryAction::RetryForbidden,
        }
    }
}
