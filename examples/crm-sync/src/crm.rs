//! The CRM: the one place to change for yours.

use std::time::Duration;

use opportunity_alerts::cloud_event::{CloudEvent, LeadStatusChanged};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response};
use serde_json::json;

/// Longest wait for an answer. With it, a call is over before the invocation is, and so before its lease.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a lead's stage. To tell it twice must be the same as to tell it once.
pub(crate) trait Crm {
    /// Sets the stage of the lead.
    fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> impl Future<Output = Result<(), reqwest::Error>> + Send;
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
        Ok(Self { http: Client::builder().timeout(TIMEOUT).build()?, url: url.trim_end_matches('/').to_owned() })
    }
}

impl Crm for HttpCrm {
    async fn put(&self, change: &CloudEvent<LeadStatusChanged>) -> Result<(), reqwest::Error> {
        let lead = utf8_percent_encode(&change.subject, NON_ALPHANUMERIC);
        let body = json!({
            "stage": change.data.crm_stage,
            "status": change.data.new_status,
            "campaignId": change.data.campaign_id,
            "version": change.sort_key(),
        });
        let put = self.http.put(format!("{}/leads/{lead}", self.url)).header("idempotency-key", &change.id).json(&body);
        // Without the address, in which the lead's id is: errors are logged.
        put.send().await.and_then(Response::error_for_status).map_err(reqwest::Error::without_url)?;
        Ok(())
    }
}
