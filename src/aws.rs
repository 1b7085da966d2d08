//! Creates the SDK's clients: one HTTPS connector for all services, and no call that outlives the
//! invocation.

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
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::SdkConfig;
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::environment::{Missing, required, set};

/// Longest wait for a connection, TLS included. Inside a region it takes milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// Longest wait for the answer to one try of a read. An answer takes milliseconds, so after this
/// wait the connection is assumed to be dead.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of tries of one operation.
pub const ATTEMPTS: u32 = 3;

/// Longest wait for one operation, with all tries and pauses. A step of a request ends earlier if
/// its share of the invocation's time does (see [`crate::invocation::Schedule`]).
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);

/// The first pause between two tries. The SDK's default is up to a second, which is too long for
/// one of three calls in a few seconds.
const BACKOFF: Duration = Duration::from_millis(50);

/// The path of AWS's health checks. A request for it needs no signature and calls no API.
const HEALTH: &str = "/ping";

/// Returns the address at which the SDK would look for a service. The code is the same for each
/// service, with other types.
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

/// AWS as the function's environment describes it.
#[derive(Debug)]
pub struct Aws {
    config: SdkConfig,
    https: Https,
    dynamodb: Endpoint,
    secrets_manager: Endpoint,
    sns: Endpoint,
}

/// The connector. It is created at its first use, because reading the root certificates is the
/// longest part of a start.
type Https = Arc<LazyLock<SharedHttpConnector>>;

/// The address of a service, if it is not the region's own: an emulator, or a VPC endpoint without
/// private DNS.
type Endpoint = Option<String>;

impl Aws {
    /// Reads the region, the credentials and the endpoints from the variables in which Lambda gives
    /// them to a function. The variables do not change while a process lives. AWS does not document
    /// when Lambda replaces a process whose credentials are about to expire.
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
            // Guards long transfers. Ours are short, and each call has a time limit.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Ok(Self {
            config: config.build(),
            https,
            dynamodb: endpoint("DYNAMODB"),
            secrets_manager: endpoint("SECRETS_MANAGER"),
            sns: endpoint("SNS"),
        })
    }

    /// The client of the ledger. Its requests may be repeated, because each recognises its own
    /// effect. The ledger itself repeats a request that gets no answer. It never cancels one that
    /// may have taken effect, so this client has no timeout of its own.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.config);
        config.set_endpoint_url(self.dynamodb.clone());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// The client of the signing secrets. It only reads, so each try ends after [`ATTEMPT_TIMEOUT`]
    /// and the next one starts.
    pub(crate) fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let mut config = aws_sdk_secretsmanager::config::Builder::from(&self.config).timeout_config(impatient());
        config.set_endpoint_url(self.secrets_manager.clone());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// The client of the topic. A publish has no condition that would make a second one harmless.
    /// So the client waits as long as the publish's share of the invocation's time lasts, and
    /// retries only if SNS explicitly rejected the publish.
    pub fn sns(&self) -> aws_sdk_sns::Client {
        let mut config = aws_sdk_sns::config::Builder::from(&self.config).retry_classifier(RetryOnlyRejected);
        config.set_endpoint_url(self.sns.clone());
        aws_sdk_sns::Client::from_conf(config.build())
    }

    /// Starts to open connections to DynamoDB and SNS, because TCP and TLS would cost the first
    /// alert two round trips each. A failure is ignored here; the first call meets it again. Must
    /// be called within tokio's runtime.
    pub fn connect(&self) {
        let urls = [url!(aws_sdk_dynamodb, self, dynamodb), url!(aws_sdk_sns, self, sns)];
        // Without TLS there is little to save, and only emulators have no TLS.
        for url in urls.into_iter().flatten().filter(|url| url.starts_with("https:")) {
            tokio::spawn(timeout(ATTEMPT_TIMEOUT, open(self.https.clone(), url)));
        }
    }
}

/// Opens a connection. The SDK's HTTP client has no connect-only call, so this sends an unsigned
/// GET for [`HEALTH`] and reads the whole response; otherwise the connection could not be reused.
async fn open(https: Https, url: String) {
    let mut request = HttpRequest::new(SdkBody::empty());
    if request.set_uri(url + HEALTH).is_ok()
        && let Ok(answer) = https.call(request).await
    {
        ByteStream::new(answer.into_body()).collect().await.ok();
    }
}

fn impatient() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build()
}

/// Returns the one connector, with one pool of connections and one TLS configuration. The SDK's own
/// client would read and parse all root certificates again for each service, and once more at the
/// first request.
fn https() -> Https {
    Arc::new(LazyLock::new(|| {
        let connector = Connector::builder()
            .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build();
        SharedHttpConnector::new(connector)
    }))
}

/// Forbids a retry if SNS may have accepted the publish: it gave no answer, half an answer, or an
/// answer that only says that something went wrong. Throttling and 503 may be retried.
#[derive(Debug)]
struct RetryOnlyRejected;

impl ClassifyRetry for RetryOnlyRejected {
    fn name(&self) -> &'static str {
        "retry only what SNS rejected"
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
