//! The result of a run: its report, or its failure.

use serde::{Serialize, Serializer};

use crate::delivery::ledger::{FinishError, LedgerError};
use crate::error::chain;
use crate::sendpilot::api::ApiError;
use crate::telemetry::LogLine;
use crate::timestamp::Timestamp;

/// Maximum number of leads that a dry run lists. It bounds the size of the report.
const MAX_LISTED: usize = 100;

/// Whether a run alerts the leads that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The run alerts missed leads, and makes leads known.
    Alert,
    /// The run only lists what it would do.
    DryRun,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// The sweep has read every campaign.
    #[default]
    Complete,
    /// The time or the number of requests is used up. The next run continues.
    Continues,
    /// SendPilot's API asked to wait. The next run continues.
    Paused,
    /// Another run is in progress, so this one did nothing.
    InProgress,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Continues => "continues",
            Self::Paused => "paused",
            Self::InProgress => "in_progress",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How the run ended.
    pub outcome: Outcome,
    /// Whether the run only listed. Left out if it is false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Requests to SendPilot's API.
    pub requests: usize,
    /// Campaigns listed, without drafts.
    pub campaigns: usize,
    /// Leads in an alert status that were read.
    pub leads: usize,
    /// Leads that became known without an alert, because their status had no baseline.
    pub baseline: usize,
    /// Leads that are not known, and whose webhook may still be on its way.
    pub waiting: usize,
    /// Missed leads.
    pub missed: usize,
    /// Missed leads whose alert was published.
    pub alerted: usize,
    /// Missed leads whose alert is claimed. The redrive publishes it.
    pub pending: usize,
    /// Leads that seemed missed, but whose webhook arrived meanwhile.
    pub arrived: usize,
    /// The earliest last update of a missed lead, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_since: Option<String>,
    /// The time at which the next run can do something, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// The leads that a dry run would have alerted, at most the first hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_alert: Option<Vec<Missed>>,
}

/// A missed lead in the report of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missed {
    /// The lead's id.
    pub lead_id: String,
    /// The campaign's id.
    pub campaign_id: String,
    /// The lead's status.
    pub status: String,
    /// The lead's last update, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

impl Report {
    pub(super) fn new(mode: Mode) -> Self {
        let dry_run = mode == Mode::DryRun;
        Self { dry_run, would_alert: dry_run.then(Vec::new), ..Self::default() }
    }

    pub(super) fn stops(&mut self, outcome: Outcome, retry_at: Option<Timestamp>) {
        self.outcome = outcome;
        self.retry_at = retry_at.map(Timestamp::rfc3339);
    }

    /// Adds a lead to the list of a dry run.
    pub(super) fn would_alert(&mut self, missed: Missed) {
        if let Some(listed) = self.would_alert.as_mut().filter(|listed| listed.len() < MAX_LISTED) {
            listed.push(missed);
        }
    }

    /// Counts a missed lead that was last updated at this time.
    pub(super) fn found_missed(&mut self, updated_at: Option<Timestamp>) {
        self.missed += 1;
        // Texts of RFC 3339 in UTC sort by time, if they have the same number of digits.
        let at = updated_at.map(|at| Timestamp::from_millis(at.as_secs() * 1000).rfc3339());
        self.missed_since = self.missed_since.take().into_iter().chain(at).min();
    }

    /// Adds the run to its log line.
    pub(super) fn describe(&self, line: &mut LogLine, failure: Option<&Failure>) {
        line.field("outcome", if failure.is_some() { "failed" } else { self.outcome.name() });
        line.field("dryRun", Some(true).filter(|_| self.dry_run));
        for (name, count) in [
            ("requests", self.requests),
            ("campaigns", self.campaigns),
            ("leads", self.leads),
            ("baseline", self.baseline),
            ("waiting", self.waiting),
            ("missed", self.missed),
            ("alerted", self.alerted),
            ("pending", self.pending),
            ("arrived", self.arrived),
        ] {
            line.field(name, count);
        }
        line.field("missedSince", self.missed_since.clone());
        line.field("retryAt", self.retry_at.clone());
        line.field("failure", failure.map(|failure| chain(failure)));
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The list of campaigns could not be read.
    #[error("the list of campaigns could not be read")]
    Campaigns(#[source] ApiError),
    /// A campaign's list of leads could not be read. The next run begins with the following list.
    #[error("the leads of the campaign {campaign} could not be read")]
    Leads {
        /// The campaign's id.
        campaign: String,
        /// The reason.
        #[source]
        error: ApiError,
    },
    /// An earlier run of this sweep could not read a list, so the sweep will not be complete.
    #[error("not every list of leads was read, because in an earlier run {0}")]
    Incomplete(String),
    /// The run could read no list of leads, because the time or the number of requests was used up.
    #[error("no list of leads could be read in the run's time and number of requests")]
    OutOfTime,
    /// The API asked to wait, so the run could read nothing.
    #[error("SendPilot's API asked to wait until {}", .0.rfc3339())]
    Paused(Timestamp),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The progress could not be stored, so the next run reads the same lists again.
    #[error("the progress could not be stored")]
    Unstored(#[from] FinishError),
    /// The stored progress cannot be read.
    #[error("the row {0}#run has no readable progress; delete the row to begin with a new baseline")]
    Progress(String),
}

/// The error of a run.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}; before that, the run found {missed} missed leads and published {alerted} alerts",
    chain(.failure)
)]
pub struct Failed {
    /// Why the run ended.
    pub failure: Failure,
    /// The missed leads that the run found before.
    pub missed: usize,
    /// The alerts that the run published before.
    pub alerted: usize,
}
