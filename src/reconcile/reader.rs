//! Sends the requests of a run to SendPilot's API, within the run's time and number of requests.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::report::Failure;
use crate::delivery::ledger::LedgerError;
use crate::invocation::Invocation;
use crate::sendpilot::api::{Api, ApiError, MAX_PAUSE, PAUSE};
use crate::sendpilot::lists::{self, Campaign, ListedLead};
use crate::sendpilot::page::Page;
use crate::timestamp::Timestamp;

/// Maximum number of requests to SendPilot's API in a run.
pub const MAX_REQUESTS: usize = 500;

/// Maximum number of pages of one list. A list with more pages never ends, as if the API ignored
/// the number of the page.
pub const MAX_PAGES: usize = 1000;

/// The longest time of a request. The API may need seconds for a page of leads.
pub const REQUEST_TIME: Duration = Duration::from_secs(15);

/// The longest wait for `Retry-After` in a run. After a longer one, the next run continues.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Maximum number of such waits in a run.
pub const MAX_WAITS: usize = 3;

/// Why a run stops before the end of the sweep.
#[derive(Debug)]
pub(super) enum Stop {
    /// The time or the number of requests is used up.
    OutOfTime,
    /// The API asked to wait until this time.
    Paused(Timestamp),
    Failed(Failure),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Failed(error.into())
    }
}

/// A request that was not possible stops the run. Otherwise, the API's answer or error.
pub(super) type Answer<T> = Result<Result<T, ApiError>, Stop>;

/// The requests of one run.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    api: &'a Api,
    invocation: &'a Invocation,
    /// The end of the last request. Later, too little time is left for alerts.
    read_by: Instant,
    /// The time of a request. It is shorter if the invocation is short.
    request_time: Duration,
    requests: usize,
    waits: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(api: &'a Api, invocation: &'a Invocation) -> Self {
        let read_by = invocation.schedule().publish_by;
        let request_time = REQUEST_TIME.min(read_by.saturating_duration_since(Instant::now()) / 4);
        Self { api, invocation, read_by, request_time, requests: 0, waits: 0 }
    }

    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Returns a page of the list of campaigns.
    pub(super) async fn campaigns(&mut self, page: usize) -> Answer<Page<Campaign>> {
        let (api, invocation) = (self.api, self.invocation);
        self.ask(page, |by| lists::campaigns(api, page, invocation, by)).await
    }

    /// Returns a page of the list of a campaign's leads in this status, or in all statuses.
    pub(super) async fn leads(
        &mut self,
        campaign: &Campaign,
        status: Option<&str>,
        page: usize,
    ) -> Answer<Page<ListedLead>> {
        let (api, invocation) = (self.api, self.invocation);
        self.ask(page, |by| lists::leads(api, &campaign.id, status, page, invocation, by)).await
    }

    /// Returns the workspace's id, if the API names it.
    pub(super) async fn workspace_id(&mut self) -> Answer<Option<String>> {
        let (api, invocation) = (self.api, self.invocation);
        self.ask(1, |by| lists::workspace_id(api, invocation, by)).await
    }

    /// Sends a request. If the API asks to wait, waits and sends the request again.
    async fn ask<T, F>(&mut self, page: usize, request: impl Fn(Instant) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        if page > MAX_PAGES {
            return Ok(Err(ApiError::Unexpected));
        }
        loop {
            let by = Instant::now() + self.request_time;
            if self.requests == MAX_REQUESTS || by > self.read_by {
                return Err(Stop::OutOfTime);
            }
            self.requests += 1;
            let wait = match request(by).await {
                Err(ApiError::Status { status: 429, retry_after }) => retry_after.unwrap_or(PAUSE),
                Err(ApiError::Status { retry_after: Some(wait), .. }) => wait,
                answer => return Ok(answer),
            };
            // A huge number of seconds would overflow the time, and the run would crash.
            let wait = wait.min(MAX_PAUSE);
            let is_in_time = Instant::now() + wait + self.request_time <= self.read_by;
            if wait > MAX_WAIT || self.waits == MAX_WAITS || !is_in_time {
                return Err(Stop::Paused(self.invocation.now().after(wait)));
            }
            self.waits += 1;
            sleep(wait).await;
        }
    }
}
