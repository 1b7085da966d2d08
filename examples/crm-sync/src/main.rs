//! Keeps a CRM in step with the lead status stream. A batch of messages: the last change of each lead ([`batch`]), each claimed in a
//! table ([`leads`]), told to the CRM ([`crm`]), and recorded. What fails comes again, and nothing else does.

mod batch;
mod crm;
mod leads;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use futures_util::{StreamExt, stream};
use lambda_runtime::{LambdaEvent, service_fn};
use opportunity_alerts::aws::{Aws, OPERATION_TIMEOUT};
use opportunity_alerts::config::{ConfigError, function_name, log_level};
use opportunity_alerts::error::chain;
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::telemetry;
use opportunity_alerts::timestamp::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::batch::{Batch, Change};
use crate::crm::{Crm, HttpCrm, TIMEOUT};
use crate::leads::{Claimed, Leads};

/// How long a change waits for an earlier one of its lead, which another invocation is telling.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it asks meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest that a change takes: claim, call, and completion or release. None is taken up where less than that is left of the
/// invocation, which would take the whole batch with it if it ran out of time.
const CHANGE_TIME: Duration = Duration::from_secs(2 * OPERATION_TIMEOUT.as_secs() + TIMEOUT.as_secs());

/// Leads told to the CRM at once.
const CONCURRENCY: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let _telemetry = telemetry::init(function_name(variable), log_level(variable));
    telemetry::exit(serve(variable).await)
}

async fn serve(variable: impl Fn(&str) -> Option<String>) -> Result<(), lambda_runtime::Error> {
    let required =
        |name: &'static str| variable(name).filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name));
    let sync = &Sync {
        leads: Leads::new(Aws::read(&variable)?.dynamodb(), required("LEADS_TABLE_NAME")?),
        crm: HttpCrm::at(&required("CRM_URL")?)?,
    };
    let run = async |LambdaEvent { payload, context }: LambdaEvent<SqsEvent>| {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let owner = format!("{}/{:016x}", context.request_id, u64::from_be_bytes(random));
        let deadline = Timestamp::from_millis(context.deadline);
        Ok::<_, lambda_runtime::Error>(sync.apply(Batch::read(payload.records), &owner, deadline).await)
    };
    lambda_runtime::run(service_fn(run)).await
}

struct Sync<C> {
    leads: Leads,
    crm: C,
}

impl<C: Crm> Sync<C> {
    /// Which messages are to come again.
    async fn apply(&self, batch: Batch, owner: &str, deadline: Timestamp) -> SqsBatchResponse {
        let Batch { changes, unreadable } = batch;
        let mut failed: Vec<String> = Vec::new();
        for (id, error) in unreadable {
            error!(messageId = id, failure = chain(&error), "unreadable");
            failed.push(id);
        }
        let mut applied = stream::iter(changes)
            .map(|change| async move { (self.apply_one(&change, owner, deadline).await, change) })
            .buffer_unordered(CONCURRENCY);
        while let Some((result, Change { event, messages })) = applied.next().await {
            match result {
                Ok(Claimed::InProgress) => {
                    info!(eventId = event.id, "in progress");
                    failed.extend(messages);
                }
                Ok(claimed) => info!(eventId = event.id, messages = messages.len(), outcome = ?claimed, "applied"),
                Err(error) => {
                    warn!(eventId = event.id, failure = chain(&*error), "not applied");
                    failed.extend(messages);
                }
            }
        }
        let mut response = SqsBatchResponse::default();
        response.batch_item_failures = failed.into_iter().map(failure).collect();
        response
    }

    async fn apply_one(
        &self,
        Change { event, .. }: &Change,
        owner: &str,
        deadline: Timestamp,
    ) -> Result<Claimed, Box<dyn Error>> {
        let began = Instant::now();
        let lease_until = deadline.after(LEASE_MARGIN);
        let claimed = loop {
            let now = Timestamp::from(SystemTime::now());
            if now.after(CHANGE_TIME) > deadline {
                return Err("too little time is left".into());
            }
            match self.leads.claim(event, owner, now.as_millis(), lease_until.as_millis()).await? {
                // A call to the CRM takes less than a second, and the queue hands out again after minutes.
                Claimed::InProgress if began.elapsed() < PATIENCE => sleep(PAUSE).await,
                claimed => break claimed,
            }
        };
        if claimed == Claimed::Won {
            if let Err(error) = self.crm.put(event).await {
                // Otherwise the lead is left alone until the lease ends: what the CRM does late must not undo what is newer.
                if error.is_over() {
                    self.leads.release(event, owner).await?;
                }
                return Err(error.into());
            }
            if !self.leads.complete(event, owner).await? {
                return Ok(Claimed::InProgress);
            }
        }
        Ok(claimed)
    }
}

fn failure(message_id: String) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = message_id;
    failure
}
