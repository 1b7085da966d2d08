//! The CRM's HTTP endpoint. If your CRM needs another body, change [`body`].

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use sendpilot_events::{CloudEvent, LeadStatusChanged};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::token::{Token, TokenError};

/// The longest time of a call, including the second try with a new token.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The placeholder for the lead's id in the configured URL.
const LEAD_ID: &str = "{leadId}";

/// A CRM that stores a lead's stage. A repeated call must not change anything.
pub(crate) trait Crm {
    /// Gets the token that all calls need. If this fails, no change can be applied.
    fn prepare(&self) -> impl Future<Output = Result<(), CrmError>> + Send;

    /// Sets the stage of the lead.
    fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> impl Future<Output = Result<(), CrmError>> + Send;
}

/// The reason why a change may not have been applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrmError {
    /// There is no usable token, so the CRM was not called.
    #[error("the CRM was not called")]
    NoToken(#[source] TokenError),
    /// The change was never sent.
    #[error("the CRM could not be reached")]
    Unreached(#[source] reqwest::Error),
    /// The change was sent, but it is not known whether the CRM applied it.
    #[error("the CRM did not answer")]
    Unanswered(#[source] reqwest::Error),
    /// The answer was not 2xx.
    #[error("the CRM answered {0}")]
    Refused(StatusCode),
    /// The answer was 401 or 403, and there is no other token to try.
    #[error("the CRM answered {0}")]
    Unauthorized(StatusCode, #[source] TokenError),
}

impl CrmError {
    /// Returns whether the CRM can no longer apply the change. If not, it may still do so later.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NoToken(_) | Self::Unreached(_) | Self::Unauthorized(..) => true,
            Self::Unanswered(_) => false,
            // A gateway answers 502 or 504 while the CRM behind it may still apply the change.
            Self::Refused(status) => !matches!(*status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// An HTTP endpoint that accepts each change as JSON.
#[derive(Debug)]
pub(crate) struct HttpCrm {
    http: Client,
    method: Method,
    url: String,
    token: Option<Token>,
}

impl HttpCrm {
    /// Returns the endpoint at this URL, in which `{leadId}` is the placeholder for the lead's id.
    ///
    /// # Errors
    /// If the HTTPS client cannot be built.
    pub(crate) fn new(method: Method, url: String, token: Option<Token>) -> Result<Self, reqwest::Error> {
        // reqwest follows some redirects of a PUT with a GET. The GET would change nothing, but
        // often gets 200.
        let http = Client::builder().redirect(Policy::none()).build()?;
        Ok(Self { http, method, url, token })
    }

    async fn header_value(&self) -> Result<Option<HeaderValue>, CrmError> {
        match &self.token {
            Some(token) => token.header_value().await.map(Some).map_err(CrmError::NoToken),
            None => Ok(None),
        }
    }

    async fn send(
        &self,
        change: &CloudEvent<LeadStatusChanged>,
        token: Option<&HeaderValue>,
        by: Instant,
    ) -> Result<(), CrmError> {
        let lead = utf8_percent_encode(&change.subject, NON_ALPHANUMERIC).to_string();
        let mut request = self
            .http
            .request(self.method.clone(), self.url.replace(LEAD_ID, &lead))
            .timeout(by.saturating_duration_since(Instant::now()))
            .header("idempotency-key", &change.id)
            .json(&body(change));
        if let (Some(header), Some(value)) = (&self.token, token) {
            request = request.header(header.header_name(), value);
        }
        // Errors are logged, so they must not show the URL, which contains the lead's id.
        match request.send().await.map_err(reqwest::Error::without_url) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(CrmError::Refused(answer.status())),
            Err(error) if error.is_connect() || error.is_builder() => Err(CrmError::Unreached(error)),
            Err(error) => Err(CrmError::Unanswered(error)),
        }
    }
}

/// Returns the body of a call. It includes the LinkedIn URL, by which people find a lead: only
/// SendPilot knows its lead ids.
fn body(change: &CloudEvent<LeadStatusChanged>) -> Value {
    json!({
        "eventId": change.id,
        "leadId": change.subject,
        "linkedinUrl": change.data.linkedin_url,
        "campaignId": change.data.campaign_id,
        "stage": change.data.crm_stage,
        "status": change.data.new_status,
        "version": change.sort_key(),
    })
}

impl Crm for HttpCrm {
    async fn prepare(&self) -> Result<(), CrmError> {
        self.header_value().await.map(drop)
    }

    async fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> Result<(), CrmError> {
        let by = Instant::now() + TIMEOUT;
        let used = self.header_value().await?;
        let sent = self.send(change, used.as_ref(), by).await;
        let Err(CrmError::Refused(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))) = sent else {
            return sent;
        };
        let (Some(token), Some(used)) = (&self.token, used) else {
            return Err(CrmError::Unauthorized(status, TokenError::Unconfigured));
        };
        match timeout_at(by, token.other_than(&used)).await {
            Ok(Ok(other)) => self.send(change, Some(&other), by).await,
            Ok(Err(error)) => Err(CrmError::Unauthorized(status, error)),
            Err(_) => sent,
        }
    }
}
