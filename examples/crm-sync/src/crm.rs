//! The CRM: the one place to change for yours.

use std::time::Duration;

use opportunity_alerts::message::cloud_event::{CloudEvent, LeadStatusChanged};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde_json::json;

/// Longest wait for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a lead's stage. To tell it twice must be the same as to tell it once.
pub(crate) trait Crm {
    /// Sets the stage of the lead.
    fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> impl Future<Output = Result<(), CrmError>> + Send;
}

/// Why a change is not known to have been applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrmError {
    /// It was never sent.
    #[error("the CRM was not reached")]
    Unreached(#[source] reqwest::Error),
    /// It was sent.
    #[error("the CRM gave no answer")]
    Unanswered(#[source] reqwest::Error),
    /// There was an answer, and it was not yes.
    #[error("the CRM answered {0}")]
    Refused(StatusCode),
}

impl CrmError {
    /// Whether the CRM is done with it for certain. If not, it may still apply the change, at any time.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Unreached(_) => true,
            Self::Unanswered(_) => false,
            // A gateway says so of what those behind it are perhaps at work on.
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
    /// At this address.
    ///
    /// # Errors
    /// If there can be no HTTPS client.
    pub(crate) fn at(url: &str) -> Result<Self, reqwest::Error> {
        // Followed, a redirect of a PUT can end as a GET, which changes nothing and may well be answered with 200.
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
        // Without the address, in which the lead's id is: errors are logged.
        match put.send().await.map_err(reqwest::Error::without_url) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(CrmError::Refused(answer.status())),
            Err(error) if error.is_connect() || error.is_builder() => Err(CrmError::Unreached(error)),
            Err(error) => Err(CrmError::Unanswered(error)),
        }
    }
}
