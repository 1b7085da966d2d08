//! The place where a sweep stands between two runs. The ledger stores it as JSON.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The progress of all sweeps. By default, there has been none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Progress {
    /// The statuses with a complete baseline. A status that alerts only since later gets a baseline
    /// of its own, even if it has alerted before.
    pub(super) baselined: BTreeSet<String>,
    /// The sweep that the next run continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sweep: Option<Unfinished>,
    /// The time before which SendPilot's API asked not to be asked again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<u64>,
}

/// An unfinished sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Unfinished {
    /// The statuses of the sweep. If the configuration has others meanwhile, a new sweep begins.
    pub(super) statuses: Vec<String>,
    /// The statuses that the API refused as a filter.
    pub(super) refused: BTreeSet<String>,
    /// The page that could not be read. The next run tries it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Position>,
    /// Why a list could not be read in two runs. Then the sweep will not be complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    /// The list and the page with which the next run begins.
    pub(super) next: Option<Position>,
}

/// A page of a list of leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) campaign: String,
    /// The status of the list, or none for the list of all leads.
    pub(super) status: Option<String>,
    pub(super) page: usize,
}

impl Progress {
    /// Reads the stored progress. Nothing stored means that there was no sweep.
    pub(super) fn parse(stored: Option<&str>) -> Result<Self, serde_json::Error> {
        stored.map_or_else(|| Ok(Self::default()), serde_json::from_str)
    }

    /// Returns the text to store.
    #[expect(clippy::expect_used, reason = "strings, numbers and booleans under fixed names always serialize to JSON")]
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("the progress is JSON")
    }

    /// Returns the end of the API's pause, if it is not over.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.map(Timestamp::from_millis).filter(|until| *until > now)
    }

    /// Sets the end of the API's pause, or ends the pause.
    pub(super) fn pause_until(&mut self, until: Option<Timestamp>) {
        self.paused_until = until.map(Timestamp::as_millis);
    }
}
