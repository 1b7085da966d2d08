//! Which events call for what: an alert, a message to the lead status stream, both, or nothing.

use sendpilot_events::OPPORTUNITY;

use crate::message::Delivery;
use crate::message::alert;
use crate::message::key::content_sha256;
use crate::message::pipeline::Pipeline;
use crate::message::stream;
use crate::message::text::trim;
use crate::sendpilot::event::{Event, Kind, Malformed, StatusChange, TagChange};

/// What the owner of this deployment wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// An alert is due if a lead comes to one of these statuses from any other. Letter case does
    /// not matter.
    pub alert_statuses: Vec<String>,
    /// So does one that is given one of these tags and had another or none, without regard to case.
    pub alert_tags: Vec<String>,
    /// No second alert for the same lead and status, or tag, within some time.
    pub debounce: bool,
    /// Every change of status goes to the lead status stream.
    pub stream: bool,
    /// What a status means in a CRM.
    pub pipeline: Pipeline,
}

impl Default for Rules {
    /// Alerts on opportunities, and nothing else.
    fn default() -> Self {
        Self {
            alert_statuses: vec![OPPORTUNITY.into()],
            alert_tags: Vec::new(),
            debounce: false,
            stream: false,
            pipeline: Pipeline::default(),
        }
    }
}

/// What an event calls for. Each is delivered whatever becomes of the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// To the topic of alerts.
    pub alert: Option<Delivery>,
    /// To the lead status stream.
    pub status: Option<Delivery>,
}

/// The news that an alert tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News<'a> {
    Status(&'a StatusChange),
    Tag { lead_id: &'a str, new_tag: &'a str, change: &'a TagChange },
}

impl News<'_> {
    /// Hashes the content that makes two events with one id the same fact. The bytes and the time
    /// of a request do not count, because a retry may change them. Statuses and tags are hashed in
    /// the form in which the rules compare them.
    pub(crate) fn content_sha256(&self) -> String {
        let (kind, lead_id, campaign_id, previous, new) = match self {
            Self::Status(change) => {
                ("status", &*change.lead_id, &change.campaign_id, &change.previous_status, &*change.new_status)
            }
            Self::Tag { lead_id, new_tag, change } => {
                ("tag", *lead_id, &change.campaign_id, &change.previous_tag, *new_tag)
            }
        };
        let (previous, new) = (previous.as_deref().map(normal), normal(new));
        content_sha256(&[Some(kind), Some(lead_id), campaign_id.as_deref(), previous.as_deref(), Some(&new)])
    }
}

impl Rules {
    /// Returns the deliveries that are due for this event.
    ///
    /// # Errors
    /// If something is due, but the event does not say of which lead, or nothing identifies the event, so that a repetition could not be
    /// told from it.
    pub fn due(&self, event: &Event) -> Result<Due, Malformed> {
        let news = self.news(event)?;
        let change = match &event.kind {
            Kind::StatusChanged(change) if self.stream => Some(change),
            _ => None,
        };
        if news.is_none() && change.is_none() {
            return Ok(Due::default());
        }
        let event_id = event.id.as_deref().ok_or(Malformed::Unidentified)?;
        Ok(Due {
            alert: news.map(|news| alert::delivery(event, event_id, news, self)),
            status: change.map(|change| stream::delivery(event, event_id, change, &self.pipeline)),
        })
    }

    fn news<'a>(&self, event: &'a Event) -> Result<Option<News<'a>>, Malformed> {
        match &event.kind {
            Kind::StatusChanged(change) => {
                let new_status = change.new_status.as_str();
                let alerts = self.alert_statuses.iter().any(|status| status.eq_ignore_ascii_case(new_status));
                let stays = || change.previous_status.as_deref().is_some_and(|previous| alike(previous, new_status));
                Ok((alerts && !stays()).then_some(News::Status(change)))
            }
            Kind::TagChanged(change) => {
                let alerts = |tag: &str| self.alert_tags.iter().any(|other| alike(other, tag));
                let Some(new_tag) = change.new_tag.as_deref().filter(|tag| alerts(tag)) else { return Ok(None) };
                if change.previous_tag.as_deref().is_some_and(|previous| alike(previous, new_tag)) {
                    return Ok(None);
                }
                let lead_id = change.lead_id.as_deref().ok_or(Malformed::Required("data.leadId"))?;
                Ok(Some(News::Tag { lead_id, new_tag, change }))
            }
            Kind::Other => Ok(None),
        }
    }
}

/// Compares without regard to letter case and surrounding blanks. People type tags, and SendPilot
/// may write an undocumented status in another letter case.
fn alike(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}

/// Returns a status or a tag in small letters and without surrounding blanks.
pub(crate) fn normal(text: &str) -> String {
    trim(text).to_lowercase()
}
