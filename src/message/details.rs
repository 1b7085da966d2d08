//! The details of a lead that an alert has beside its event. Each detail may be missing.

use std::fmt;

use crate::sendpilot::api::Lead;
use crate::text::{MAX_TEXT, Text};
use crate::timestamp::Timestamp;

/// The details of a lead when its alert is written. All are untrusted texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The lead, from SendPilot's API.
    pub lead: Option<Lead>,
    /// The campaign's name, from SendPilot's API.
    pub campaign_name: Option<String>,
    /// The lead's last reply, from the ledger's table.
    pub last_reply: Option<LastReply>,
}

impl Details {
    /// Returns the lead's first and last name.
    pub(crate) fn name(&self) -> Option<Text> {
        let Lead { first_name, last_name, .. } = self.lead.as_ref()?;
        let names: Vec<_> = [first_name, last_name].into_iter().filter_map(text).collect();
        text(&Some(names.iter().map(Text::as_str).collect::<Vec<_>>().join(" ")))
    }

    /// Returns the lead's position.
    pub(crate) fn title(&self) -> Option<Text> {
        text(&self.lead.as_ref()?.title)
    }

    /// Returns the lead's company.
    pub(crate) fn company(&self) -> Option<Text> {
        text(&self.lead.as_ref()?.company)
    }

    /// Returns the campaign's name.
    pub(crate) fn campaign_name(&self) -> Option<Text> {
        text(&self.campaign_name)
    }
}

/// Returns a detail in one line, or `None` if a reader would see nothing.
pub(crate) fn text(raw: &Option<String>) -> Option<Text> {
    Text::one_line(raw.as_deref()?, MAX_TEXT)
}

/// The newest reply of a lead. `Debug` does not print the text, because it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct LastReply {
    /// The text of the reply, in one line without control characters, at most [`MAX_REPLY`] long.
    pub text: String,
    /// When the lead replied, by SendPilot's clock.
    pub at: Timestamp,
}

/// Longest reply that is stored, in UTF-16 units.
pub const MAX_REPLY: usize = 2000;

impl LastReply {
    /// Cleans a reply and cuts it to [`MAX_REPLY`], so that it can be stored. Returns `None` if a
    /// reader would see nothing.
    pub fn new(raw: &str, at: Timestamp) -> Option<Self> {
        let text = Text::one_line(raw, MAX_REPLY)?.into();
        Some(Self { text, at })
    }
}

impl fmt::Debug for LastReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastReply").field("at", &self.at).finish_non_exhaustive()
    }
}
