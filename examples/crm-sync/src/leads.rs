//! The DynamoDB table with each lead's last applied change, and with the claim on the lead.
//!
//! Changes of a lead arrive in any order, more than once, and in several invocations at once. A
//! conditional write grants a claim to one change at a time, and only if the change is later than
//! the last applied change. Therefore the CRM's last call for a lead carries the lead's last
//! change. A claim's lease ends shortly after the invocation, so a crashed invocation blocks the
//! lead only until then.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use sendpilot_events::{CloudEvent, LeadStatusChanged};

/// Neither this change nor a later one has been applied, and no claim is unexpired.
const MAY_CLAIM: &str = "(attribute_not_exists(version) OR version < :version) \
     AND (attribute_not_exists(leaseUntil) OR leaseUntil <= :now)";

const CLAIM: &str = "SET #owner = :me, leaseUntil = :until";

const MINE: &str = "#owner = :me";

const COMPLETE: &str = "SET version = :version, stage = :stage, newStatus = :status REMOVE #owner, leaseUntil";

const RELEASE: &str = "REMOVE #owner, leaseUntil";

/// The table of leads. Its key is `lead`.
#[derive(Debug, Clone)]
pub(crate) struct Leads {
    client: Client,
    table: String,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimResult {
    /// The claimant may apply its change until the lease ends.
    Won,
    /// The change, or a later one, has been applied.
    Superseded,
    /// Another invocation is applying a change of this lead.
    InProgress,
}

/// A lead's row.
struct Row {
    version: Option<String>,
    owner: Option<String>,
}

impl Row {
    /// Returns whether this version, or a later one, has been applied.
    fn has(&self, version: &str) -> bool {
        self.version.as_deref().is_some_and(|applied| applied >= version)
    }
}

/// A failed write to the table.
#[derive(Debug, thiserror::Error)]
#[error("the table of leads could not {0}")]
pub(crate) struct LeadsError(&'static str, #[source] Box<SdkError<UpdateItemError>>);

impl Leads {
    pub(crate) fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Claims a lead for a change. `now` and `lease_until` are times since the Unix epoch.
    ///
    /// # Errors
    /// If the table does not answer.
    pub(crate) async fn claim(
        &self,
        change: &CloudEvent<LeadStatusChanged>,
        owner: &str,
        now: Duration,
        lease_until: Duration,
    ) -> Result<ClaimResult, LeadsError> {
        let version = change.sort_key();
        let update = self
            .update(change, owner)
            .condition_expression(MAY_CLAIM)
            .update_expression(CLAIM)
            .expression_attribute_values(":version", text(&version))
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":until", millis(lease_until));
        Ok(match sent("claim", update).await? {
            None => ClaimResult::Won,
            Some(row) if row.has(&version) => ClaimResult::Superseded,
            // The first answer was lost, and the SDK sent this owner's granted request again.
            Some(row) if row.owner.as_deref() == Some(owner) => ClaimResult::Won,
            Some(_) => ClaimResult::InProgress,
        })
    }

    /// Records that the CRM has the change. Returns whether this change or a later one is recorded.
    /// If another invocation has taken over the claim, neither may be.
    ///
    /// # Errors
    /// If the table does not answer. The queue then delivers the message again, and the repeated
    /// call to the CRM changes nothing.
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
        // An earlier try of this request may have recorded the change although its answer was lost.
        Ok(refused.is_none_or(|row| row.has(&version)))
    }

    /// Releases the claim.
    ///
    /// # Errors
    /// If the table does not answer. The claim then ends with its lease.
    pub(crate) async fn release(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> Result<(), LeadsError> {
        let update = self.update(change, owner).update_expression(RELEASE).condition_expression(MINE);
        // If another invocation has taken over the claim, there is nothing to release.
        sent("release", update).await.map(|_| ())
    }

    fn update(&self, change: &CloudEvent<LeadStatusChanged>, owner: &str) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            // A source contains no `#`, so two leads never share a key.
            .key("lead", text(&format!("{}#{}", change.source, change.subject)))
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", text(owner))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}

/// Sends an update, and returns the old row if the condition refused the update.
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

fn millis(time: Duration) -> AttributeValue {
    AttributeValue::N(time.as_millis().to_string())
}
