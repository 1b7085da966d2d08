//! Reads the lists of SendPilot's API: its campaigns, and the leads of a campaign.
//!
//! Unlike a search for a lead's details, a failure starts no pause, because the caller decides what
//! follows.

use std::fmt;

use percent_encoding::utf8_percent_encode;
use tokio::time::Instant;

use crate::invocation::Invocation;
use crate::json::Object;
use crate::sendpilot::api::{self, Api, ApiError, ESCAPED, Lead};
use crate::sendpilot::event::moment;
use crate::sendpilot::page::{PAGE, Page};
use crate::text::trim;
use crate::timestamp::Timestamp;

/// The longest page that is read, in bytes: 40 KiB for each entry.
pub const MAX_LIST: usize = 4 * 1024 * 1024;

/// A campaign in the list of campaigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// The campaign's id.
    pub id: String,
    /// The campaign's name, untrusted.
    pub name: Option<String>,
    /// Whether the campaign is a draft, so it has no opportunity yet.
    pub is_draft: bool,
}

/// A lead in the list of a campaign's leads. `Debug` does not print the lead's personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedLead {
    /// The lead's id.
    pub id: String,
    /// The lead's status, in any letter case.
    pub status: Option<String>,
    /// The lead's profile, in the forms of
    /// [`StatusChange::linkedin_url`](crate::sendpilot::event::StatusChange::linkedin_url).
    pub linkedin_url: Option<String>,
    /// The last time at which anything about the lead changed, by SendPilot's clock.
    pub updated_at: Option<Timestamp>,
    /// The lead's details.
    pub lead: Lead,
}

impl fmt::Debug for ListedLead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedLead").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Returns one page of the list of campaigns.
///
/// # Errors
/// If the API does not answer at `by` with a list.
pub async fn campaigns(
    api: &Api,
    page: usize,
    invocation: &Invocation,
    by: Instant,
) -> Result<Page<Campaign>, ApiError> {
    let path = format!("/v1/campaigns?page={page}&limit={PAGE}");
    let answer = api.read(&path, MAX_LIST, invocation, by).await?;
    let campaign = |entry: &Object<'_>| {
        let is_draft = entry.text("status").is_some_and(|status| trim(&status).eq_ignore_ascii_case("draft"));
        let (id, name) = api::campaign(entry)?;
        Some(Campaign { id, name, is_draft })
    };
    Page::parse(&answer, page, "campaigns", campaign).ok_or(ApiError::Unexpected)
}

/// Returns one page of the list of a campaign's leads in this status, or in all statuses. The API
/// does not document the order of the leads.
///
/// # Errors
/// If the API does not answer at `by` with a list. It may refuse the status with 400.
pub async fn leads(
    api: &Api,
    campaign_id: &str,
    status: Option<&str>,
    page: usize,
    invocation: &Invocation,
    by: Instant,
) -> Result<Page<ListedLead>, ApiError> {
    let escaped = |text| utf8_percent_encode(text, ESCAPED);
    let status = status.map(|status| format!("&status={}", escaped(status))).unwrap_or_default();
    let path = format!("/v1/leads?campaignId={}{status}&page={page}&limit={PAGE}", escaped(campaign_id));
    let answer = api.read(&path, MAX_LIST, invocation, by).await?;
    let lead = |entry: &Object<'_>| {
        Some(ListedLead {
            id: entry.text("id")?,
            status: entry.text("status"),
            linkedin_url: entry.text("linkedinUrl"),
            updated_at: entry.text("updatedAt").as_deref().and_then(moment).map(Timestamp::from),
            lead: Lead::read(entry),
        })
    };
    Page::parse(&answer, page, "leads", lead).ok_or(ApiError::Unexpected)
}

/// Returns the id of the key's workspace, if `GET /v1/me` names it. SendPilot's documentation does
/// not say whether it does.
///
/// # Errors
/// If the API does not answer at `by` with an object.
pub async fn workspace_id(api: &Api, invocation: &Invocation, by: Instant) -> Result<Option<String>, ApiError> {
    let answer = api.read("/v1/me", MAX_LIST, invocation, by).await?;
    Ok(Object::parse(&answer).map_err(|_| ApiError::Unexpected)?.text("workspaceId"))
}
