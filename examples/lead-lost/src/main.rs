//! Starts an automation for each lead that is lost. SNS lets nothing through but `NOT_INTERESTED`; each such change is posted to one
//! address, as in SendPilot's example. What fails, Lambda invokes again, and keeps in the end.

use std::process::ExitCode;
use std::time::Duration;

use aws_lambda_events::sns::SnsEvent;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use opportunity_alerts::config::{ConfigError, function_name, log_level};
use opportunity_alerts::error::chain;
use opportunity_alerts::message::cloud_event::{CloudEvent, LeadStatusChanged};
use opportunity_alerts::telemetry;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tracing::info;

/// Longest wait for an answer, well within the function's timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a lead's loss is not known to have been told.
#[derive(Debug, thiserror::Error)]
enum LeadLostError {
    #[error("the message is none of the lead status stream")]
    Unreadable(#[from] serde_json::Error),
    #[error("the automation gave no answer")]
    Unanswered(#[from] reqwest::Error),
    #[error("the automation answered {0}")]
    Refused(StatusCode),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let _telemetry = telemetry::init(function_name(variable), log_level(variable));
    telemetry::exit(serve(variable).await)
}

async fn serve(variable: impl Fn(&str) -> Option<String>) -> Result<(), lambda_runtime::Error> {
    let url = variable("AUTOMATION_URL").filter(|url| !url.is_empty()).ok_or(ConfigError::Missing("AUTOMATION_URL"))?;
    // Followed, a redirect of a POST ends as a GET, which starts nothing and may well be answered with 200.
    let (url, http) = (&url, &Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?);
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SnsEvent>| {
        // SNS puts one into an invocation.
        for record in event.payload.records {
            tell(http, url, &record.sns.message).await.map_err(|error| diagnostic(&error))?;
        }
        Ok::<_, Diagnostic>(())
    }))
    .await
}

async fn tell(http: &Client, url: &str, message: &str) -> Result<(), LeadLostError> {
    let event: CloudEvent<LeadStatusChanged> = serde_json::from_str(message)?;
    // The same on every repetition, which SNS and Lambda both make, so that the automation can tell it for one.
    let post = http.post(url).header("idempotency-key", &event.id).json(&action(&event));
    // Without the address, which may have a key in it: errors are logged and kept.
    let answer = post.send().await.map_err(reqwest::Error::without_url)?.status();
    if !answer.is_success() {
        return Err(LeadLostError::Refused(answer));
    }
    info!(eventId = event.id, "told");
    Ok(())
}

/// The error as Lambda hands it on, to where what failed is kept.
fn diagnostic(error: &LeadLostError) -> Diagnostic {
    Diagnostic { error_type: "LeadLost".into(), error_message: chain(error) }
}

fn action(event: &CloudEvent<LeadStatusChanged>) -> Value {
    json!({
        "action": "lead_lost",
        "leadId": event.data.lead_id,
        "campaignId": event.data.campaign_id,
        "linkedinUrl": event.data.linkedin_url,
        "previousStatus": event.data.previous_status,
        "newStatus": event.data.new_status,
        "eventId": event.id,
    })
}
