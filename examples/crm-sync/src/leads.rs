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
use opportunity_alerts::message::cloud_event::{CloudEvent, LeadStatusChanged};

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

/// What is known of a lead.
struct Row {
    version: Option<String>,
    owner: Option<String>,
}

impl Row {
    /// Whether this version has been applied, or a later one.
    fn has(&self, version: &str) -> bool {
        self.version.as_deref().is_some_and(|applied| applied >= version)
    }
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
            .expression_attribute_values(":until", number(lease_until));
        Ok(match sent("claim", update).await? {
            None => Claimed::Won,
            Some(row) if row.has(&version) => Claimed::Superseded,
            // It has claimed already; the answer was lost, and the SDK asked again.
            Some(row) if row.owner.as_deref() == Some(owner) => Claimed::Won,
            Some(_) => Claimed::InProgress,
        })
    }

    /// Records that the CRM has it. Whether this, or something later, is recorded: it is not where another has taken the claim over.
    ///
    /// # Errors
    /// If the table does not answer. The change comes again then, and is applied again, which changes nothing.
    pub(crate) async fn complete(
        &self,
        change: &CloudEvent<LeadStatusChanged>,
        owner: &str,
    ) -> Result<bool, LeadsError> {
        let version = change.sort_key();
        let update = self
            .update(change, owner)
            .update_expression(COMPLETE)
            .expression_attribute_values(":version", text(&version))
            .expression_attribute_values(":stage", text(&change.data.crm_stage))
            .expression_attribute_values(":status", text(&change.data.new_status));
        let refused = sent("complete", update.condition_expression(MINE)).await?;
        // What recorded it may have been the same request, whose answer was lost.
        Ok(refused.is_none_or(|row| row.has(&version)))
    }

    /// Lets the next attempt have it.
    ///
    /// # Errors
    /// If the table does not answer. The lease runs out then.
    pub(crate) async fn release(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> Result<(), LeadsError> {
        let update = self.update(change, owner).update_expression(RELEASE).condition_expression(MINE);
        // Where it is not ours any more, there is nothing to release.
        sent("release", update).await.map(|_| ())
    }

    fn update(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            // A source has no `#`.
            .key("lead", text(&format!("{}#{}", change.source, change.subject)))
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", text(owner))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}

/// The row that refused an update, if one did.
async fn sent(doing: &'static str, update: UpdateItemFluentBuilder) -> Result<Option<Row>, LeadsError> {
    let error = match update.send().await {
        Ok(_) => return Ok(None),
        Err(error) => error,
    };
    let Some(UpdateItemError::ConditionalCheckFailedException(refused)) = error.as_service_error() else {
        return Err(LeadsError(doing, error.into()));
    };
    let attribute = |name: &str| refused.item()?.get(name)?.as_s().ok().cloned();
    Ok(Some(Row { version: attribute("version"), owner: attribute("owner") }))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
