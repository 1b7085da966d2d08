//! What was applied last to each lead, in a DynamoDB table, and who is applying something now: claim, call, complete.
//!
//! Changes of a lead come in any order, more than once, and to several invocations at once. A conditional write lets a change
//! through if it is later than what was applied, and one at a time, so that the CRM's last call for a lead is that of its last
//! change. A lease that outlives its invocation frees what a dead one had.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use opportunity_alerts::cloud_event::{CloudEvent, LeadStatusChanged};

/// No change has been applied that is as late or later, and nobody is at it.
const MAY_CLAIM: &str = "(attribute_not_exists(version) OR version < :version) \
     AND (attribute_not_exists(leaseUntil) OR leaseUntil <= :now)";

const CLAIM: &str = "SET #owner = :me, leaseUntil = :until";

const MINE: &str = "#owner = :me";

const COMPLETE: &str = "SET version = :version, stage = :stage, newStatus = :status REMOVE #owner, leaseUntil";

const RELEASE: &str = "REMOVE #owner, leaseUntil";

/// The table of leads, by key `lead`.
#[derive(Debug, Clone)]
pub(crate) struct Leads {
    client: Client,
    table: String,
}

/// Whether a change may be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// By the claimant, until its lease ends.
    Won,
    /// Not any more: it has been, or a later one has.
    Superseded,
    /// Not yet: another invocation is applying a change of this lead.
    InProgress,
}

/// The table did not do its part.
#[derive(Debug, thiserror::Error)]
#[error("the table of leads could not {0}")]
pub(crate) struct LeadsError(&'static str, #[source] Box<SdkError<UpdateItemError>>);

impl Leads {
    /// In this table.
    pub(crate) fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Claims a lead for a change. `now` and `lease_until` are in milliseconds.
    ///
    /// # Errors
    /// If the table does not answer.
    pub(crate) async fn claim(
        &self,
        change: &CloudEvent<LeadStatusChanged>,
        owner: &str,
        now: u64,
        lease_until: u64,
    ) -> Result<Claimed, LeadsError> {
        let version = change.sort_key();
        let update = self
            .update(change, owner)
            .condition_expression(MAY_CLAIM)
            .update_expression(CLAIM)
            .expression_attribute_values(":version", text(&version))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":until", number(lease_until))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let refused = match update.send().await {
            Ok(_) => return Ok(Claimed::Won),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => refused.item.clone(),
                _ => return Err(LeadsError("claim", error.into())),
            },
        };
        let attribute = |name: &str| refused.as_ref()?.get(name)?.as_s().ok();
        match attribute("version") {
            Some(applied) if *applied >= version => Ok(Claimed::Superseded),
            // It has claimed already; the answer was lost, and the SDK asked again.
            _ if attribute("owner").is_some_and(|other| other == owner) => Ok(Claimed::Won),
            _ => Ok(Claimed::InProgress),
        }
    }

    /// Records that the CRM has it, if nobody has taken the claim over.
    ///
    /// # Errors
    /// If the table does not answer. The change comes again then, and is applied again, which changes nothing.
    pub(crate) async fn complete(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> Result<(), LeadsError> {
        let update = self
            .update(change, owner)
            .update_expression(COMPLETE)
            .expression_attribute_values(":version", text(&change.sort_key()))
            .expression_attribute_values(":stage", text(&change.data.crm_stage))
            .expression_attribute_values(":status", text(&change.data.new_status));
        settle("complete", update).await
    }

    /// Lets the next attempt have it.
    ///
    /// # Errors
    /// If the table does not answer. The lease runs out then.
    pub(crate) async fn release(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> Result<(), LeadsError> {
        settle("release", self.update(change, owner).update_expression(RELEASE)).await
    }

    fn update(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            // A source has no `#`.
            .key("lead", text(&format!("{}#{}", change.source, change.subject)))
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", text(owner))
    }
}

async fn settle(doing: &'static str, update: UpdateItemFluentBuilder) -> Result<(), LeadsError> {
    match update.condition_expression(MINE).send().await {
        Ok(_) => Ok(()),
        // Not ours any more, or settled by a request whose answer was lost. Either way there is nothing to record.
        Err(error) if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) => {
            Ok(())
        }
        Err(error) => Err(LeadsError(doing, error.into())),
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
