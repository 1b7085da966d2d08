//! The CRM: the only module to change for yours.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use sendpilot_events::{CloudEvent, LeadStatusChanged};
use serde_json::json;

/// Longest wait for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// A CRM that stores a lead's stage. A repeated call must have no further effect.
pub(crate) trait Crm {
    /// Sets the stage of the lead.
    fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> impl Future<Output = Result<(), CrmError>> + Send;
}

/// The reason why a change may not have been applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrmError {
    /// The change was never sent.
    #[error("the CRM was not reached")]
    Unreached(#[source] reqwest::Error),
    /// The change was sent.
    #[error("the CRM gave no answer")]
    Unanswered(#[source] reqwest::Error),
    /// The answer was not 2xx.
    #[error("the CRM answered {0}")]
    Refused(StatusCode),
}

impl CrmError {
    /// Returns whether the CRM can no longer apply the change. If not, it may still do so later.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Unreached(_) => true,
            Self::Unanswered(_) => false,
            // A gateway answers so while the CRM behind it may still be working.
            Self::Refused(status) => !matches!(*status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// A CRM that takes `PUT {url}/leads/{leadId}`.
#[derive(Debug, Clone)]
pub(crate) struct HttpCrm {
    http: Client,
    url: String,
}

impl HttpCrm {
    /// Returns the CRM at this address.
    ///
    /// # Errors
    /// If the HTTPS client cannot be built.
    pub(crate) fn new(url: &str) -> Result<Self, reqwest::Error> {
        // reqwest follows some redirects of a PUT with a GET. A GET changes nothing, and often gets a 200.
        let http = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }
}

impl Crm for HttpCrm {
    async fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> Result<(), CrmError> {
        let lead = utf8_percent_encode(&change.subject, NON_ALPHANUMERIC);
        let body = json!({
            "stage": change.data.crm_stage,
            "status": change.data.new_status,
            "campaignId": change.data.campaign_id,
            "version": change.sort_key(),
        });
        let put = self.http.put(format!("{}/leads/{lead}", self.url)).header("idempotency-key", &change.id).json(&body);
        // Errors are logged, so they must not show the address, which contains the lead's id.
        match put.send().await.map_err(reqwest::Error::without_url) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(CrmError::Refused(answer.status())),
            Err(error) if error.is_connect() || error.is_builder() => Err(CrmError::Unreached(error)),
            Err(error) => Err(CrmError::Unanswered(error)),
        }
    }
}
