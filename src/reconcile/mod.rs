//! Finds the opportunities whose webhook never came, and alerts each once.
//!
//! A run lists the campaigns through SendPilot's API, and for each campaign the leads in each alert
//! status. A lead that is not known is missed: no alert has made it known
//! ([`Known`](crate::message::Known)), although its last update is older than [`GRACE`]. Its alert
//! goes the usual way through the [`relay`](crate::delivery::relay), so the redrive publishes it if
//! the run cannot.
//!
//! ```text
//! lead in an alert status ──┬─ known ────────────────────────────────────▶ nothing
//!                           ├─ no baseline for the status ── make known ─▶ no alert
//!                           ├─ updated in the last 20 minutes ───────────▶ waits for its webhook
//!                           └─ missed ── claim, lock, publish, complete ─▶ alert
//! ```
//!
//! A pass over all campaigns is a sweep. It can take several runs: a run stops if its time or its
//! number of requests is used up, and the next run continues there. The first complete sweep is
//! the baseline: all leads that were opportunities before become known, and nobody is alerted. A
//! campaign that appears later is not part of it.
//!
//! A webhook that arrives at the same time, or later, meets the same lock. So only one of the two
//! alerts is published.

mod missed;
mod progress;
pub mod reader;
pub mod report;
mod sweep;

use tracing::Level;

pub use self::missed::GRACE;
use self::progress::Progress;
use self::reader::Reader;
use self::report::{Failed, Failure, Mode, Outcome, Report};
use self::sweep::Sweep;
use crate::delivery::ledger::{LedgerError, Reconciled, Run};
use crate::delivery::relay::Relay;
use crate::delivery::topic::Topic;
use crate::invocation::{Invocation, within};
use crate::message::rules::Rules;
use crate::sendpilot::api::Api;
use crate::telemetry::Telemetry;
use crate::timestamp::millis;

/// The reconciliation.
#[derive(Debug)]
pub struct Reconcile<L, T> {
    /// The name under which the progress is stored. A new name begins with a new baseline.
    pub name: String,
    /// The relay that claims and publishes the alerts.
    pub relay: Relay<L, T>,
    /// SendPilot's API.
    pub api: Api,
    /// The rules that say which statuses alert.
    pub rules: Rules,
    /// Whether the alerts show the leads' last replies.
    pub replies: bool,
    /// The telemetry, which writes the log lines of a run.
    pub telemetry: Telemetry,
}

impl<L: Reconciled, T: Topic> Reconcile<L, T> {
    /// Makes one run in the time of one invocation. A second run at the same time does nothing.
    ///
    /// # Errors
    /// If SendPilot's API or the ledger fails. Everything that the run found before is handled.
    pub async fn run(&self, invocation: &Invocation, mode: Mode) -> Result<Report, Failed> {
        let mut line = self.telemetry.begin("reconcile", invocation.request_id());
        let mut report = Report::new(mode);
        // On the heap, because rustc limits the depth of nested futures.
        let failure = Box::pin(self.sweep(&mut report, invocation, mode)).await.err();
        report.describe(&mut line, failure.as_ref());
        line.field("durationMs", millis(invocation.elapsed()));
        let level = match &failure {
            Some(_) => Level::ERROR,
            None if report.missed > 0 => Level::WARN,
            None => Level::INFO,
        };
        self.telemetry.end(line, level, invocation.now());
        match failure {
            None => Ok(report),
            Some(failure) => Err(Failed { failure, missed: report.missed, alerted: report.alerted }),
        }
    }

    /// Claims the run, continues the sweep, and stores where it stopped.
    async fn sweep(&self, report: &mut Report, invocation: &Invocation, mode: Mode) -> Result<(), Failure> {
        let (attempt, schedule) = (invocation.attempt(), invocation.schedule());
        let beginning = self.relay.ledger.begin_run(&self.name, &attempt);
        let stored = match within(schedule.prepare_by, beginning, LedgerError::TimedOut).await? {
            Run::Claimed(stored) => stored,
            Run::InProgress { until } => {
                report.stops(Outcome::InProgress, Some(until));
                return Ok(());
            }
        };
        let mut progress = Progress::parse(stored.as_deref());
        let swept = match &mut progress {
            Ok(progress) => self.continue_sweep(progress, report, invocation, mode).await,
            Err(_) => Err(Failure::Progress(self.name.clone())),
        };
        let left = match (progress, mode) {
            (Ok(progress), Mode::Alert) => progress.text(),
            // A dry run changes nothing. Unreadable progress stays for a person to look at.
            (Ok(_), Mode::DryRun) | (Err(_), _) => stored.unwrap_or_else(|| Progress::default().text()),
        };
        let ending = self.relay.ledger.end_run(&self.name, &attempt, invocation.now(), &left);
        let ended = within(schedule.finish_by, ending, LedgerError::TimedOut.into()).await;
        // The failure of the sweep is the more useful one.
        swept.and(ended.map_err(Failure::from))
    }

    async fn continue_sweep(
        &self,
        progress: &mut Progress,
        report: &mut Report,
        invocation: &Invocation,
        mode: Mode,
    ) -> Result<(), Failure> {
        let mut sweep = Sweep {
            relay: &self.relay,
            rules: &self.rules,
            replies: self.replies,
            telemetry: &self.telemetry,
            reader: Reader::new(&self.api, invocation),
            invocation,
            mode,
            report,
            pages: 0,
            attempts: 0,
            workspace: None,
        };
        let swept = sweep.run(progress).await;
        sweep.report.requests = sweep.reader.requests();
        swept
    }
}
