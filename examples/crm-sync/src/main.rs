//! Keeps a CRM in step with the lead status stream.
//!
//! The function keeps the last change of each lead in a batch ([`batch`]). For each change, it
//! claims the lead in a table ([`leads`]), calls the CRM ([`crm`]) with its API token ([`token`]),
//! and records the change. Only failed messages return to the queue.

mod batch;
mod crm;
mod leads;
mod token;

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use futures_util::{StreamExt, stream};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::batch::{Batch, Change};
use crate::crm::{Crm, HttpCrm};
use crate::leads::{ClaimResult, Leads};
use crate::token::Token;

/// The longest time that a change waits while another invocation applies a change of the same lead.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two attempts to claim a lead.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest time of one call to AWS, including retries.
const AWS_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest time of a change: claim, call, and completion or release. A change starts only if
/// the invocation has this much time left, because a timeout would fail the whole batch.
const CHANGE_TIME: Duration = Duration::from_secs(2 * AWS_TIMEOUT.as_secs() + crm::TIMEOUT.as_secs());

/// The time between the end of an invocation and the end of its claims. It is longer than the
/// difference between two hosts' clocks.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// The number of leads that are sent to the CRM at the same time.
const CONCURRENCY: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // Lambda reads the level of a JSON line only if the line has a timestamp too.
    tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    let https = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeout = TimeoutConfig::builder().operation_timeout(AWS_TIMEOUT).build();
    let aws = aws_config::defaults(BehaviorVersion::latest()).http_client(https).timeout_config(timeout).load().await;
    let secret_arn = variable("CRM_TOKEN_SECRET_ARN")?;
    let token = if secret_arn.is_empty() {
        None
    } else {
        let secrets = aws_sdk_secretsmanager::Client::new(&aws);
        Some(Token::new(secrets, secret_arn, &variable("CRM_TOKEN_HEADER")?).context("CRM_TOKEN_HEADER")?)
    };
    let sync = &Sync {
        leads: Leads::new(aws_sdk_dynamodb::Client::new(&aws), variable("LEADS_TABLE_NAME")?),
        crm: HttpCrm::new(variable("CRM_METHOD")?.parse().context("CRM_METHOD")?, variable("CRM_URL")?, token)?,
    };
    let run = async |LambdaEvent { payload, context }: LambdaEvent<SqsEvent>| {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let owner = format!("{}/{:016x}", context.request_id, u64::from_be_bytes(random));
        let deadline = Duration::from_millis(context.deadline);
        Ok::<_, Error>(sync.apply(Batch::read(payload.records), &owner, deadline).await)
    };
    lambda_runtime::run(service_fn(run)).await
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| name.to_owned())
}

struct Sync<C> {
    leads: Leads,
    crm: C,
}

impl<C: Crm> Sync<C> {
    /// Applies a batch, and returns the messages that must go back to the queue. `deadline` is the
    /// end of the invocation, as the time since the Unix epoch.
    async fn apply(&self, batch: Batch, owner: &str, deadline: Duration) -> SqsBatchResponse {
        let Batch { changes, unreadable } = batch;
        let mut failed: Vec<String> = Vec::new();
        for (id, error) in unreadable {
            error!(messageId = id, failure = %error, "unreadable");
            failed.push(id);
        }
        if !changes.is_empty()
            && let Err(error) = self.crm.prepare().await
        {
            error!(failure = format!("{:#}", anyhow::Error::from(error)), "nothing applied");
            failed.extend(changes.into_iter().flat_map(|change| change.messages));
            return response(failed);
        }
        let mut applied = stream::iter(changes)
            .map(|change| async move { (self.apply_one(&change, owner, deadline).await, change) })
            .buffer_unordered(CONCURRENCY);
        while let Some((result, Change { event, messages })) = applied.next().await {
            match result {
                Ok(ClaimResult::InProgress) => {
                    info!(eventId = event.id, "in progress");
                    failed.extend(messages);
                }
                Ok(claim) => info!(eventId = event.id, messages = messages.len(), outcome = ?claim, "applied"),
                Err(error) => {
                    warn!(eventId = event.id, failure = format!("{error:#}"), "not applied");
                    failed.extend(messages);
                }
            }
        }
        response(failed)
    }

    async fn apply_one(
        &self,
        Change { event, .. }: &Change,
        owner: &str,
        deadline: Duration,
    ) -> anyhow::Result<ClaimResult> {
        let began = Instant::now();
        let claim = loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            if now + CHANGE_TIME > deadline {
                bail!("the invocation has too little time left");
            }
            match self.leads.claim(event, owner, now, deadline + LEASE_MARGIN).await? {
                // Waiting is worthwhile: a call to the CRM takes less than a second, but the queue
                // delivers a failed message again only after minutes.
                ClaimResult::InProgress if began.elapsed() < PATIENCE => sleep(PAUSE).await,
                claim => break claim,
            }
        };
        if claim == ClaimResult::Won {
            if let Err(error) = self.crm.put(event).await {
                // If the CRM may still apply the change, the claim stays until its lease ends.
                // Otherwise the CRM could overwrite a newer change.
                if error.is_final() {
                    self.leads.release(event, owner).await?;
                }
                return Err(error.into());
            }
            if !self.leads.complete(event, owner).await? {
                return Ok(ClaimResult::InProgress);
            }
        }
        Ok(claim)
    }
}

/// Returns the response that sends these messages back to the queue.
fn response(failed: Vec<String>) -> SqsBatchResponse {
    let failure = |message_id| {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = message_id;
        failure
    };
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failed.into_iter().map(failure).collect();
    response
}
