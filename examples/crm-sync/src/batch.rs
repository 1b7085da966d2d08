//! Reduces a batch of messages to the last change of each lead. If a lead changes five times within
//! a batch, the CRM gets one call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aws_lambda_events::sqs::SqsMessage;
use sendpilot_events::{CloudEvent, LeadStatusChanged};

/// The changes that one batch is reduced to.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The last change of each lead.
    pub(crate) changes: Vec<Change>,
    /// The ids of messages that are not lead status changes, with the reason. They are reported as
    /// failed, so they end in the dead-letter queue and delay no other message.
    pub(crate) unreadable: Vec<(String, serde_json::Error)>,
}

/// The last change of a lead in a batch.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) event: CloudEvent<LeadStatusChanged>,
    /// The ids of all messages about the lead. The older messages succeed or fail with the last
    /// one.
    pub(crate) messages: Vec<String>,
}

impl Batch {
    /// Reads messages in any order; duplicates are allowed.
    pub(crate) fn read(messages: Vec<SqsMessage>) -> Self {
        let mut leads: HashMap<(String, String), Change> = HashMap::new();
        let mut unreadable = Vec::new();
        for message in messages {
            let (id, body) = (message.message_id.unwrap_or_default(), message.body.unwrap_or_default());
            let event: CloudEvent<LeadStatusChanged> = match serde_json::from_str(&body) {
                Ok(event) => event,
                Err(error) => {
                    unreadable.push((id, error));
                    continue;
                }
            };
            match leads.entry((event.source.clone(), event.subject.clone())) {
                Entry::Vacant(lead) => drop(lead.insert(Change { event, messages: vec![id] })),
                Entry::Occupied(mut lead) => {
                    let change = lead.get_mut();
                    change.messages.push(id);
                    if event.sort_key() > change.event.sort_key() {
                        change.event = event;
                    }
                }
            }
        }
        Self { changes: leads.into_values().collect(), unreadable }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(number: usize, lead: u8, second: u8) -> SqsMessage {
        let mut message = SqsMessage::default();
        message.message_id = Some(number.to_string());
        message.body = Some(
            json!({
                "specversion": "1.0", "id": format!("evt_{lead}_{second}"), "source": "urn:sendpilot:workspace:ws",
                "type": "sendpilot.lead.status_changed", "subject": format!("lead_{lead}"),
                "time": format!("2024-02-24T10:30:{second:02}Z"), "datacontenttype": "application/json",
                "data": {"leadId": format!("lead_{lead}"), "newStatus": "DONE", "crmStage": "closed_won"},
            })
            .to_string(),
        );
        message
    }

    proptest! {
        /// Messages arrive in any order, and some arrive twice. Each message belongs to one change.
        #[test]
        fn the_last_change_of_a_lead_wins(changes in proptest::collection::vec((0u8..4, 0u8..60), 0..40)) {
            let messages = changes.iter().enumerate().map(|(number, (lead, second))| message(number, *lead, *second));
            let batch = Batch::read(messages.collect());
            let mut latest = HashMap::new();
            for (lead, second) in &changes {
                let latest = latest.entry(format!("lead_{lead}")).or_insert(*second);
                *latest = (*latest).max(*second);
            }
            prop_assert_eq!(batch.changes.len(), latest.len());
            for change in &batch.changes {
                prop_assert_eq!(change.event.time.unwrap().second(), latest[&change.event.subject]);
            }
            let ids = batch.changes.iter().flat_map(|change| &change.messages);
            let mut ids: Vec<usize> = ids.map(|id| id.parse().unwrap()).collect();
            ids.sort_unstable();
            prop_assert_eq!(ids, (0..changes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unreadable_message_delays_no_other() {
        let mut poisoned = message(7, 0, 0);
        poisoned.body = Some("no event".into());
        let batch = Batch::read(vec![poisoned, message(8, 1, 1)]);
        assert_eq!((batch.changes.len(), batch.unreadable[0].0.as_str()), (1, "7"));
    }
}
