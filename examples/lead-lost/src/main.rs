//! Starts an automation for each lead that is lost.
//!
//! The subscription's filter delivers only the status `NOT_INTERESTED`. The function posts each
//! change to one URL, as in SendPilot's example. After a failure, Lambda invokes the function twice
//! more, and then sends the event to the queue of failures.

use std::env;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lambda_events::sns::SnsEvent;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use reqwest::Client;
use reqwest::redirect::Policy;
use sendpilot_events::{CloudEvent, LeadStatusChanged};
use serde_json::{Value, json};
use tracing::info;

/// The longest wait for an answer, well within the function's timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // Lambda reads the level of a JSON line only if the line has a timestamp too.
    tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    let url = &env::var("AUTOMATION_URL").context("AUTOMATION_URL")?;
    // reqwest follows the redirect of a POST with a GET. The GET would start nothing, but often
    // gets 200.
    let http = &Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SnsEvent>| {
        // SNS invokes the function with one record.
        for record in event.payload.records {
            start(http, url, &record.sns.message).await.map_err(diagnostic)?;
        }
        Ok::<_, Diagnostic>(())
    }))
    .await
}

/// Starts the automation for the change in this message.
async fn start(http: &Client, url: &str, message: &str) -> anyhow::Result<()> {
    let event: CloudEvent<LeadStatusChanged> =
        serde_json::from_str(message).context("the message is not a lead status change")?;
    // SNS and Lambda can deliver an event twice. The key lets the automation recognise a duplicate.
    let post = http.post(url).header("idempotency-key", &event.id).json(&action(&event));
    // The error is logged and stored, so it must not show the URL, which may contain a password.
    let answer = post.send().await.map_err(reqwest::Error::without_url).context("the automation did not answer")?;
    ensure!(answer.status().is_success(), "the automation answered {}", answer.status());
    info!(eventId = event.id, "started");
    Ok(())
}

/// Returns the error in the form that Lambda stores with the failed event.
fn diagnostic(error: anyhow::Error) -> Diagnostic {
    Diagnostic { error_type: "LeadLost".into(), error_message: format!("{error:#}") }
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
