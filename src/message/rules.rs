//! Decides which deliveries an event needs: an alert, a message to the lead status stream, both, or
//! none.

use sendpilot_events::OPPORTUNITY;

use crate::message::Delivery;
use crate::message::alert;
use crate::message::pipeline::Pipeline;
use crate::message::stream;
use crate::message::trigger::{Trigger, normal};
use crate::sendpilot::event::{Event, Kind, Malformed};

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

/// The deliveries that an event needs. Neither depends on the result of the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deliveries {
    /// To the alerts topic.
    pub alert: Option<Delivery>,
    /// To the lead status stream.
    pub status: Option<Delivery>,
}

impl Rules {
    /// Returns the deliveries that are due for this event.
    ///
    /// # Errors
    /// If a delivery is due, but the event does not name the lead, or has no id that would identify
    /// a repetition.
    pub fn due(&self, event: &Event) -> Result<Deliveries, Malformed> {
        let trigger = self.trigger(event)?;
        let change = match &event.kind {
            Kind::StatusChanged(change) if self.stream => Some(change),
            _ => None,
        };
        if trigger.is_none() && change.is_none() {
            return Ok(Deliveries::default());
        }
        let event_id = event.id.as_deref().ok_or(Malformed::Unidentified)?;
        Ok(Deliveries {
            alert: trigger.map(|trigger| alert::delivery(event, event_id, trigger, &self.pipeline, self.debounce)),
            status: change.map(|change| stream::delivery(event, event_id, change, &self.pipeline)),
        })
    }

    /// Returns what triggers an alert, if anything does.
    fn trigger<'a>(&self, event: &'a Event) -> Result<Option<Trigger<'a>>, Malformed> {
        match &event.kind {
            Kind::StatusChanged(change) => {
                let new_status = change.new_status.as_str();
                let alerts = self.alert_statuses.iter().any(|status| status.eq_ignore_ascii_case(new_status));
                let stays = || change.previous_status.as_deref().is_some_and(|previous| alike(previous, new_status));
                Ok((alerts && !stays()).then_some(Trigger::Status(change)))
            }
            Kind::TagChanged(change) => {
                let alerts = |tag: &str| self.alert_tags.iter().any(|other| alike(other, tag));
                let Some(new_tag) = change.new_tag.as_deref().filter(|tag| alerts(tag)) else { return Ok(None) };
                if change.previous_tag.as_deref().is_some_and(|previous| alike(previous, new_tag)) {
                    return Ok(None);
                }
                let lead_id = change.lead_id.as_deref().ok_or(Malformed::Required("data.leadId"))?;
                Ok(Some(Trigger::Tag { lead_id, new_tag, change }))
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
