//! Reads the lists of leads page by page, and handles each page before the next one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{Level, warn};

use super::missed::Found;
use super::progress::{Position, Progress, Unfinished};
use super::reader::{Reader, Stop};
use super::report::{Failure, Mode, Outcome, Report};
use crate::delivery::ledger::{ClaimRequest, KNOWN_RETENTION, LedgerError, Lock, Reconciled, Refusal};
use crate::delivery::log::log;
use crate::delivery::relay::{self, DELIVERY_TIME, Relay};
use crate::delivery::topic::Topic;
use crate::error::chain;
use crate::invocation::{Invocation, within};
use crate::message::details::LastReply;
use crate::message::key::{DeliveryId, ReplyKey};
use crate::message::rules::Rules;
use crate::sendpilot::api::ApiError;
use crate::sendpilot::lists::{Campaign, ListedLead};
use crate::telemetry::{Metric, Telemetry};
use crate::timestamp::Timestamp;

/// Alerts attempted at the same time.
const ALERT_WORKERS: usize = 4;

/// Leads that are made known at the same time.
const LOCK_WORKERS: usize = 10;

/// One run's part of a sweep.
pub(super) struct Sweep<'a, L, T> {
    pub(super) relay: &'a Relay<L, T>,
    pub(super) rules: &'a Rules,
    pub(super) replies: bool,
    pub(super) telemetry: &'a Telemetry,
    pub(super) reader: Reader<'a>,
    pub(super) invocation: &'a Invocation,
    pub(super) mode: Mode,
    pub(super) report: &'a mut Report,
    /// The number of pages of leads that were read.
    pub(super) pages: usize,
    /// The number of attempts so far. Each needs another number.
    pub(super) attempts: u64,
    /// The workspace's id, after the API was asked for it.
    pub(super) workspace: Option<Option<String>>,
}

/// A list of leads: those of a campaign in one status, or in all statuses.
struct List<'a> {
    campaign: &'a Campaign,
    status: Option<&'a str>,
}

impl List<'_> {
    fn page(&self, page: usize) -> Position {
        Position { campaign: self.campaign.id.clone(), status: self.status.map(str::to_owned), page }
    }
}

impl<L: Reconciled, T: Topic> Sweep<'_, L, T> {
    /// Continues the sweep until its end, or until the time or the number of requests is used up.
    pub(super) async fn run(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        if let Some(until) = progress.pause(self.invocation.now()) {
            return Err(Failure::Paused(until));
        }
        progress.pause_until(None);
        let (outcome, retry_at) = match self.read(progress).await {
            Ok(()) => return Ok(()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::OutOfTime) => (Outcome::Continues, None),
            Err(Stop::Paused(until)) => (Outcome::Paused, Some(until)),
        };
        progress.pause_until(retry_at);
        // If no run can read anything, or a list fails in every sweep, an alarm must say so.
        if self.pages == 0 {
            return Err(retry_at.map_or(Failure::OutOfTime, Failure::Paused));
        }
        if let Some(failure) = progress.sweep.as_ref().and_then(|sweep| sweep.failure.clone()) {
            return Err(Failure::Incomplete(failure));
        }
        self.report.stops(outcome, retry_at);
        Ok(())
    }

    async fn read(&mut self, progress: &mut Progress) -> Result<(), Stop> {
        let campaigns = self.campaigns().await?;
        self.report.campaigns = campaigns.len();
        let statuses = &self.rules.alert_statuses;
        progress.baselined.retain(|status| statuses.contains(status));
        let mut sweep = match progress.sweep.take() {
            Some(sweep) if sweep.statuses == *statuses => sweep,
            _ => Unfinished { statuses: statuses.clone(), ..Unfinished::default() },
        };
        let read = self.read_lists(&campaigns, &mut sweep, &progress.baselined).await;
        if read.is_err() {
            progress.sweep = Some(sweep);
            return read;
        }
        if let Some(failure) = sweep.failure {
            // If a list fails in every sweep, no run must look like a success.
            return Err(Stop::Failed(Failure::Incomplete(failure)));
        }
        progress.baselined.extend(sweep.statuses);
        Ok(())
    }

    /// Returns all campaigns except drafts, sorted by id, so that another run can continue.
    async fn campaigns(&mut self) -> Result<Vec<Campaign>, Stop> {
        let mut campaigns = BTreeMap::new();
        for number in 1.. {
            let page = self.reader.campaigns(number).await?;
            let page = page.map_err(|error| Stop::Failed(Failure::Campaigns(error)))?;
            let entries = page.entries.into_iter().filter(|campaign| !campaign.is_draft);
            campaigns.extend(entries.map(|campaign| (campaign.id.clone(), campaign)));
            if page.is_last {
                break;
            }
        }
        Ok(campaigns.into_values().collect())
    }

    /// Reads the lists from the sweep's position on. Keeps in `sweep` the position where the next
    /// run begins.
    async fn read_lists(
        &mut self,
        campaigns: &[Campaign],
        sweep: &mut Unfinished,
        baselined: &BTreeSet<String>,
    ) -> Result<(), Stop> {
        let statuses = sweep.statuses.clone();
        // The list of all leads comes last, because it is needed only if the API refuses a status.
        let filters: Vec<_> = statuses.iter().map(|status| Some(status.as_str())).chain([None]).collect();
        let lists = campaigns.iter().flat_map(|campaign| filters.iter().map(move |&status| List { campaign, status }));
        let lists: Vec<_> = lists.collect();
        let rank = |campaign: &str, status: Option<&str>| {
            (campaign.to_owned(), filters.iter().position(|filter| *filter == status))
        };
        let (first, first_page) = match &sweep.next {
            None => (0, 1),
            Some(Position { campaign, status, page }) => {
                let next = rank(campaign, status.as_deref());
                let first = lists.partition_point(|list| rank(&list.campaign.id, list.status) < next);
                // The campaign may be gone.
                let is_same = lists.get(first).is_some_and(|list| rank(&list.campaign.id, list.status) == next);
                (first, if is_same { *page } else { 1 })
            }
        };
        for (number, list) in lists.iter().enumerate().skip(first) {
            let is_needed = match list.status {
                Some(status) => !sweep.refused.contains(status),
                None => !sweep.refused.is_empty(),
            };
            if !is_needed {
                continue;
            }
            let mut page = if number == first { first_page } else { 1 };
            loop {
                sweep.next = Some(list.page(page));
                match (self.reader.leads(list.campaign, list.status, page).await?, list.status) {
                    (Ok(leads), _) => {
                        let is_last = leads.is_last;
                        self.pages += 1;
                        self.handle(leads.entries, list, &statuses, baselined).await?;
                        if is_last {
                            break;
                        }
                    }
                    (Err(ApiError::Status { status: 400, .. }), Some(filter)) => {
                        sweep.refused.insert(filter.to_owned());
                        break;
                    }
                    (Err(error), _) => {
                        let failure = Failure::Leads { campaign: list.campaign.id.clone(), error };
                        if sweep.failed == sweep.next {
                            // A list that always fails must not hide the lists after it.
                            sweep.next = lists.get(number + 1).map(|next| next.page(1));
                            sweep.failure = sweep.next.as_ref().map(|_| chain(&failure));
                        } else {
                            sweep.failed = sweep.next.clone();
                        }
                        return Err(Stop::Failed(failure));
                    }
                }
                page += 1;
            }
        }
        Ok(())
    }

    /// Makes the leads of a page known, or alerts them.
    async fn handle(
        &mut self,
        leads: Vec<ListedLead>,
        list: &List<'_>,
        statuses: &[String],
        baselined: &BTreeSet<String>,
    ) -> Result<(), Stop> {
        let now = self.invocation.now();
        let mut found: Vec<_> =
            leads.into_iter().filter_map(|lead| Found::new(lead, list.campaign, list.status, statuses, now)).collect();
        self.report.leads += found.len();
        // If the list changes while its pages are read, a lead can appear twice.
        let mut keys = HashSet::new();
        found.retain(|found| keys.insert(found.key.clone()));
        let keys: Vec<_> = keys.into_iter().collect();
        let known = within(self.invocation.schedule().finish_by, self.relay.ledger.known(&keys), LedgerError::TimedOut);
        let known = known.await?;
        let (mut locks, mut missed) = (Vec::new(), Vec::new());
        for lead in found {
            match known.get(&lead.key) {
                // A lead that keeps its status for a long time must stay known.
                Some(known) if known.expires_at < now.after(KNOWN_RETENTION / 2) => {
                    locks.push((known.holder.clone(), lead.lock(now)));
                }
                Some(_) => {}
                None if !baselined.contains(lead.status) => {
                    self.report.baseline += 1;
                    locks.push((baseline(), lead.lock(now)));
                }
                None if lead.is_recent(now) => self.report.waiting += 1,
                None => missed.push(lead),
            }
        }
        if self.mode == Mode::DryRun {
            for lead in &missed {
                self.report.found_missed(lead.updated_at());
                self.report.would_alert(lead.listed());
            }
            return Ok(());
        }
        self.make_known(locks).await?;
        self.alert(missed).await
    }

    /// Makes leads known without an alert, or keeps them known.
    async fn make_known(&self, locks: Vec<(DeliveryId, Lock)>) -> Result<(), LedgerError> {
        let finish_by = self.invocation.schedule().finish_by;
        let locking = stream::iter(locks.iter().map(|(holder, lock)| {
            // If a webhook has made the lead known meanwhile, nothing is left to do.
            within(finish_by, self.relay.ledger.lock(holder, lock), LedgerError::TimedOut)
        }));
        locking.buffer_unordered(LOCK_WORKERS).try_for_each(async |_| Ok(())).await
    }

    /// Attempts the alerts of missed leads.
    async fn alert(&mut self, missed: Vec<Found<'_>>) -> Result<(), Stop> {
        if missed.is_empty() {
            return Ok(());
        }
        let workspace_id = self.workspace_id().await;
        let (sweep, workspace_id) = (&*self, workspace_id.as_deref());
        // The run itself has the number 0.
        let numbered = missed.iter().zip(self.attempts + 1..);
        let attempts = numbered.map(|(lead, number)| sweep.attempt(lead, workspace_id, number));
        let outcomes: Vec<_> = stream::iter(attempts).buffered(ALERT_WORKERS).collect().await;
        self.attempts += missed.len() as u64;
        let (mut result, mut done) = (Ok(()), Vec::new());
        for (outcome, lead) in outcomes.into_iter().zip(&missed) {
            match outcome {
                Some(relay::Outcome::Debounced { .. }) => {
                    self.report.arrived += 1;
                    continue;
                }
                Some(relay::Outcome::Refused(Refusal::Done)) => {
                    self.report.arrived += 1;
                    done.push((baseline(), lead.lock(self.invocation.now())));
                    continue;
                }
                Some(relay::Outcome::Published { .. }) => self.report.alerted += 1,
                Some(
                    relay::Outcome::Unpublished { .. }
                    | relay::Outcome::Discarded { .. }
                    | relay::Outcome::Refused(Refusal::InProgress { .. } | Refusal::BodyMismatch),
                ) => self.report.pending += 1,
                Some(relay::Outcome::Unclaimed(error)) => result = Err(error.into()),
                None => result = result.and(Err(Stop::OutOfTime)),
            }
            self.report.found_missed(lead.updated_at());
        }
        // An earlier run has alerted these leads, but someone deleted their rows.
        self.make_known(done).await?;
        result
    }

    /// Attempts one alert. Returns `None` if no time is left.
    async fn attempt(&self, lead: &Found<'_>, workspace_id: Option<&str>, number: u64) -> Option<relay::Outcome> {
        let part = self.invocation.part(number, DELIVERY_TIME)?;
        let last_reply = self.last_reply(lead, workspace_id, &part).await;
        let delivery = lead.delivery(self.rules, workspace_id, last_reply, part.now())?;
        let id = delivery.id.clone();
        self.log_missed(lead, &id);
        // On the heap, because the futures of several attempts would be one large future.
        let delivered = Box::pin(self.relay.deliver(ClaimRequest::Delivery(delivery), &part)).await;
        log(&id, &delivered, part.request_id());
        Some(delivered.outcome)
    }

    /// Returns the lead's last reply, if replies are remembered. Without it, the alert has one
    /// detail less.
    async fn last_reply(&self, lead: &Found<'_>, workspace_id: Option<&str>, part: &Invocation) -> Option<LastReply> {
        if !self.replies {
            return None;
        }
        let key = ReplyKey::new(workspace_id, &lead.lead.id);
        let reading = self.relay.ledger.last_reply(&key, part.now());
        match within(part.schedule().prepare_by, reading, LedgerError::TimedOut).await {
            Ok(reply) => reply,
            Err(error) => {
                warn!(requestId = part.request_id(), failure = chain(&error), "details");
                None
            }
        }
    }

    /// Counts a missed lead before its claim. So the operator hears of the lead even if the run is
    /// killed after the claim, and the redrive publishes the alert.
    fn log_missed(&self, lead: &Found<'_>, id: &DeliveryId) {
        let mut line = self.telemetry.note("missed", self.invocation.request_id());
        line.field("deliveryId", id.as_str());
        line.field("newStatus", lead.status);
        line.field("updatedAt", lead.updated_at().map(Timestamp::rfc3339));
        line.count(Metric::MissedWebhooks);
        self.telemetry.write(line, Level::WARN, self.invocation.now());
    }

    /// Returns the workspace's id, if the API names it. A lead's last reply is stored under it.
    async fn workspace_id(&mut self) -> Option<String> {
        if self.workspace.is_none() {
            let asked = self.reader.workspace_id().await;
            if let Ok(Err(error)) = &asked {
                warn!(requestId = self.invocation.request_id(), failure = chain(error), "workspace");
            }
            self.workspace = Some(asked.ok().and_then(Result::ok).flatten());
        }
        self.workspace.clone().flatten()
    }
}

/// Returns the holder of the lock of a lead that became known without an alert.
fn baseline() -> DeliveryId {
    DeliveryId::from_stored("reconciliation#baseline".into())
}
