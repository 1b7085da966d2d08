//! Decides which deliveries an event needs: an alert, a message to the lead status stream, both, or
//! none.

use sendpilot_events::OPPORTUNITY;

use crate::message::alert;
use crate::message::details::Details;
use crate::message::key::LockKey;
use crate::message::pipeline::Pipeline;
use crate::message::stream;
use crate::message::trigger::{Trigger, normal};
use crate::message::{Delivery, Known, Locks};
use crate::sendpilot::event::{Event, Kind, Malformed, Origin, StatusChange};
use crate::timestamp::Timestamp;

/// The configuration of a deployment: which events need an alert, a message to the stream, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The statuses that cause an alert when a lead did not have them before. Letter case does not
    /// matter.
    pub alert_statuses: Vec<String>,
    /// The tags that cause an alert when a lead did not have them before. Letter case does not
    /// matter.
    pub alert_tags: Vec<String>,
    /// Whether alerts are debounced: for some time, a second alert for the same lead and status, or
    /// tag, is suppressed.
    pub debounce: bool,
    /// Whether a webhook's alert on a status makes the lead known to the reconciliation.
    pub reconcile: bool,
    /// Whether every change of status causes a message to the lead status stream.
    pub stream: bool,
    /// The mapping from statuses to the stages of a CRM.
    pub pipeline: Pipeline,
}

impl Default for Rules {
    /// Returns rules that need an alert for each opportunity, and nothing else.
    fn default() -> Self {
        Self {
            alert_statuses: vec![OPPORTUNITY.into()],
            alert_tags: Vec::new(),
            debounce: false,
            reconcile: false,
            stream: false,
            pipeline: Pipeline::default(),
        }
    }
}

/// The deliveries that an event needs. They are independent of each other.
#[derive(Debug, Default)]
pub struct Due<'a> {
    /// The delivery to the alerts topic. Its message can have details of the lead.
    pub alert: Option<DueAlert<'a>>,
    /// The delivery to the lead status stream.
    pub status: Option<Delivery>,
}

/// An alert that an event needs, before its message is written.
#[derive(Debug)]
pub struct DueAlert<'a> {
    rules: &'a Rules,
    event: &'a Event,
    event_id: &'a str,
    trigger: Trigger<'a>,
}

impl DueAlert<'_> {
    /// Returns the workspace's id, if the event has one.
    pub fn workspace_id(&self) -> Option<&str> {
        self.event.workspace_id.as_deref()
    }

    /// Returns the lead's id.
    pub fn lead_id(&self) -> &str {
        self.trigger.lead_id()
    }

    /// Returns the campaign's id, if the event has one.
    pub fn campaign_id(&self) -> Option<&str> {
        self.trigger.campaign_id()
    }

    /// Writes the message with these details, and returns the delivery. Only the message depends on
    /// the details.
    pub fn delivery(&self, details: &Details) -> Delivery {
        let Self { rules, event, event_id, trigger } = *self;
        alert::delivery(event, event_id, trigger, details, &rules.pipeline, rules.locks(event, trigger))
    }
}

impl Rules {
    /// Returns the deliveries that are due for this event.
    ///
    /// # Errors
    /// If a delivery is due, but the event does not name the lead, or has no id by which a
    /// duplicate could be recognised.
    pub fn due<'a>(&'a self, event: &'a Event) -> Result<Due<'a>, Malformed> {
        let trigger = self.trigger(event)?;
        let change = match &event.kind {
            Kind::StatusChanged(change) if self.stream => Some(change),
            _ => None,
        };
        if trigger.is_none() && change.is_none() {
            return Ok(Due::default());
        }
        let event_id = event.id.as_deref().ok_or(Malformed::Unidentified)?;
        Ok(Due {
            alert: trigger.map(|trigger| DueAlert { rules: self, event, event_id, trigger }),
            status: change.map(|change| stream::delivery(event, event_id, change, &self.pipeline)),
        })
    }

    /// Returns the locks that an alert needs. A tag needs no known lead, because the reconciliation
    /// reads only statuses.
    ///
    /// An alert of the reconciliation is not debounced. Otherwise, it and a later webhook's alert
    /// could each be suppressed in favour of the other.
    fn locks(&self, event: &Event, trigger: Trigger<'_>) -> Locks {
        let workspace_id = event.workspace_id.as_deref();
        match (trigger, event.origin) {
            (Trigger::Status(StatusChange { lead_id, new_status, .. }), Origin::Webhook) => Locks {
                // SendPilot may write an undocumented status in another letter case the next time,
                // so the keys ignore letter case.
                debounce: self
                    .debounce
                    .then(|| LockKey::debounce_status(workspace_id, lead_id, &new_status.to_ascii_uppercase())),
                known: self
                    .reconcile
                    .then(|| Known::by_webhook(lead_id, new_status, event.occurred_at.map(Timestamp::from))),
            },
            (Trigger::Status(StatusChange { lead_id, new_status, .. }), Origin::Reconciliation { until }) => {
                Locks { debounce: None, known: Some(Known::by_reconciliation(lead_id, new_status, until)) }
            }
            // People write a tag in any letter case.
            (Trigger::Tag { lead_id, new_tag, .. }, _) => Locks {
                debounce: self.debounce.then(|| LockKey::debounce_tag(workspace_id, lead_id, &normal(new_tag))),
                known: None,
            },
        }
    }

    /// Returns the change that triggers an alert, if the event has one.
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
            Kind::Replied(_) | Kind::Other => Ok(None),
        }
    }
}

/// Compares without regard to letter case and surrounding blanks. People type tags, and SendPilot
/// may write an undocumented status in another letter case.
fn alike(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}
