//! Finds the details of a lead for its alert, before the alert's claim. An alert never depends on
//! them: a part that is not found in time is left out.

use std::error::Error;
use std::time::Duration;

use futures_util::future::{OptionFuture, join};
use tokio::time::Instant;

use crate::delivery::ledger::{Ledger, LedgerError};
use crate::error::chain;
use crate::invocation::{Invocation, within};
use crate::message::details::Details;
use crate::message::key::ReplyKey;
use crate::message::rules::DueAlert;
use crate::sendpilot::api::{Answers, Api, ApiError, Lead};

/// The longest search for details. A search also ends at
/// [`prepare_by`](crate::invocation::Schedule::prepare_by).
pub const MAX_SEARCH: Duration = Duration::from_millis(1500);

/// The time for which a reply is kept.
pub const REPLY_RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The sources of a lead's details. By default, all are off.
#[derive(Debug, Default)]
pub struct Sources {
    /// SendPilot's API, if an API key is configured.
    pub api: Option<Api>,
    /// Whether replies are stored, and alerts show the last one.
    pub replies: bool,
}

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) details: Details,
    /// The duration of the search.
    pub(super) took: Duration,
    /// Why parts were not found.
    pub(super) failures: Vec<String>,
    /// Whether the API key is missing, unreadable or refused.
    pub(super) key_unusable: bool,
}

impl Sources {
    /// Asks all sources for details of the alert's lead, at once. Returns `None` if there is no
    /// source.
    pub(super) async fn search(
        &self,
        alert: &DueAlert<'_>,
        ledger: &impl Ledger,
        invocation: &Invocation,
    ) -> Option<Found> {
        if self.api.is_none() && !self.replies {
            return None;
        }
        let began = Instant::now();
        let by = invocation.schedule().prepare_by.min(began + MAX_SEARCH);
        let asking = self.api.as_ref().map(|api| api.ask(alert.lead_id(), alert.campaign_id(), invocation, by));
        let reading = self.replies.then_some(async {
            let key = ReplyKey::new(alert.workspace_id(), alert.lead_id());
            within(by, ledger.last_reply(&key, invocation.now()), LedgerError::TimedOut).await
        });
        let (answers, reply) = join(OptionFuture::from(asking), OptionFuture::from(reading)).await;
        let mut found = Found { took: began.elapsed(), ..Found::default() };
        if let Some(Answers { lead, campaign_name }) = answers {
            found.details.lead = found.answered(lead).filter(|lead| *lead != Lead::default());
            found.details.campaign_name = found.answered(campaign_name).flatten();
        }
        found.details.last_reply = reply.transpose().unwrap_or_else(|error| found.lacks(&error)).flatten();
        Some(found)
    }
}

impl Found {
    /// Returns what the API answered, if it did.
    fn answered<T>(&mut self, answer: Option<Result<T, ApiError>>) -> Option<T> {
        answer?
            .map_err(|error| {
                self.key_unusable |= error.is_about_key();
                self.lacks::<T>(&error)
            })
            .ok()
    }

    /// Records why a part was not found. Two parts often have the same reason.
    fn lacks<T>(&mut self, error: &dyn Error) -> Option<T> {
        let why = chain(error);
        if !self.failures.contains(&why) {
            self.failures.push(why);
        }
        None
    }

    /// Returns the names of the parts that were found.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static str> {
        let Details { lead, campaign_name, last_reply } = &self.details;
        let parts = [("lead", lead.is_some()), ("campaign", campaign_name.is_some()), ("reply", last_reply.is_some())];
        parts.into_iter().filter(|(_, is_found)| *is_found).map(|(name, _)| name)
    }
}
