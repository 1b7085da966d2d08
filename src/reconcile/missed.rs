//! A lead in an alert status, and the alert about it if no webhook has reported the status.

use std::time::Duration;

use super::report::Missed;
use crate::delivery::ledger::Lock;
use crate::message::details::{Details, LastReply};
use crate::message::key::{DeliveryId, LockKey, sha256_hex};
use crate::message::rules::Rules;
use crate::message::{Delivery, Known};
use crate::sendpilot::api;
use crate::sendpilot::event::{Event, Kind, Origin, StatusChange};
use crate::sendpilot::lists::{Campaign, ListedLead};
use crate::text::trim;
use crate::timestamp::Timestamp;

/// The age of a lead's last update from which its webhook counts as missed. SendPilot delivers a
/// webhook within seconds, and retries for the fourth time after 17.6 minutes.
pub const GRACE: Duration = Duration::from_secs(20 * 60);

/// The time after a lead's last update in which its webhook's event can have occurred. SendPilot
/// may write the event some time after the update. A later change is at least [`GRACE`] later,
/// because a missed lead was not updated meanwhile.
const SAME_CHANGE: Duration = Duration::from_secs(10 * 60);
const _: () = assert!(SAME_CHANGE.as_secs() < GRACE.as_secs());

/// A lead in a status that alerts.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) lead: ListedLead,
    pub(super) campaign: &'a Campaign,
    /// The status as the configuration writes it.
    pub(super) status: &'a str,
    /// The key of the lock that makes the lead known.
    pub(super) key: LockKey,
}

impl<'a> Found<'a> {
    /// Returns the lead with its alert status, if it has one. A lead without a status has the
    /// status by which the list was filtered.
    pub(super) fn new(
        mut lead: ListedLead,
        campaign: &'a Campaign,
        filter: Option<&'a str>,
        statuses: &'a [String],
        now: Timestamp,
    ) -> Option<Self> {
        let status = match lead.status.as_deref().map(trim) {
            Some(status) => statuses.iter().map(String::as_str).find(|other| other.eq_ignore_ascii_case(status))?,
            None => filter?,
        };
        // Later times are errors, and such a lead must not wait for them.
        lead.updated_at = lead.updated_at.filter(|at| *at <= now.after(GRACE));
        let key = LockKey::known(&lead.id, status);
        Some(Self { lead, campaign, status, key })
    }

    /// Returns the lead's last update, if the API named a possible time.
    pub(super) fn updated_at(&self) -> Option<Timestamp> {
        self.lead.updated_at
    }

    /// Returns whether the lead's webhook may still be on its way.
    pub(super) fn is_recent(&self, now: Timestamp) -> bool {
        self.lead.updated_at.is_some_and(|at| at.after(GRACE) > now)
    }

    /// Returns the lock that makes the lead known without an alert, or keeps it known.
    pub(super) fn lock(&self, now: Timestamp) -> Lock {
        Lock::known(Known::baseline(&self.lead.id, self.status), now)
    }

    /// Returns the lead for the report of a dry run.
    pub(super) fn listed(&self) -> Missed {
        Missed {
            lead_id: self.lead.id.clone(),
            campaign_id: self.campaign.id.clone(),
            status: self.status.to_owned(),
            updated_at: self.lead.updated_at.map(Timestamp::rfc3339),
        }
    }

    /// Returns the delivery of the alert. Its id is the same in every run, and names no lead.
    pub(super) fn delivery(
        &self,
        rules: &Rules,
        workspace_id: Option<&str>,
        last_reply: Option<LastReply>,
        now: Timestamp,
    ) -> Option<Delivery> {
        let id = format!("reconciliation_{:.32}", sha256_hex(format!("{}#{}", self.lead.id, self.status).as_bytes()));
        let updated_at = self.lead.updated_at;
        let event = Event {
            id: Some(id.clone()),
            event_type: String::new(),
            renamed: false,
            workspace_id: workspace_id.map(str::to_owned),
            occurred_at: updated_at.map(Into::into),
            origin: Origin::Reconciliation { until: updated_at.map_or(now, |at| at.after(SAME_CHANGE)) },
            kind: Kind::StatusChanged(StatusChange {
                lead_id: self.lead.id.clone(),
                campaign_id: Some(self.campaign.id.clone()),
                linkedin_url: self.lead.linkedin_url.clone(),
                previous_status: None,
                new_status: self.status.to_owned(),
                changed_by: None,
            }),
        };
        let details = Details {
            lead: Some(self.lead.lead.clone()).filter(|lead| *lead != api::Lead::default()),
            campaign_name: self.campaign.name.clone(),
            last_reply,
        };
        // The rules find an alert for each status by which they were asked.
        let delivery = rules.due(&event).ok()?.alert?.delivery(&details);
        // The workspace is not part of the key, because `/v1/me` may fail in one of two runs. The
        // campaign is not part of the hash, because the lead may move to another one.
        let content_sha256 = sha256_hex(id.as_bytes());
        Some(Delivery { id: DeliveryId::alert(None, &id), content_sha256, ..delivery })
    }
}
