//! Reduces a batch of messages to the last change of each lead. A lead that moves five times within a
//! batch is one call to the CRM.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aws_lambda_events::sqs::SqsMessage;
use sendpilot_events::{CloudEvent, LeadStatusChanged};

/// The work of one batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// One for each lead.
    pub(crate) changes: Vec<Change>,
    /// Ids of messages that are not changes of status, with the reason. Reported as failed, they end in
    /// the dead-letter queue and delay nothing else.
    pub(crate) unreadable: Vec<(String, serde_json::Error)>,
}

/// The last change of a lead in a batch.
#[derive(Debug)]
pub(crate) struct Change {
    /// The change.
    pub(crate) event: CloudEvent<LeadStatusChanged>,
    /// Ids of all messages about the lead. The older ones succeed or fail with the last one, which
    /// supersedes them.
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
        /// Whatever the order, and whatever comes twice: the latest of each lead wins, and no message is without a fate.
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
            let mut fates: Vec<usize> = batch.changes.iter().flat_map(|change| &change.messages).map(|id| id.parse().unwrap()).collect();
            fates.sort_unstable();
            prop_assert_eq!(fates, (0..changes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_cannot_be_read_holds_up_nobody() {
        let mut poisoned = message(7, 0, 0);
        poisoned.body = Some("no event".into());
        let batch = Batch::read(vec![poisoned, message(8, 1, 1)]);
        assert_eq!((batch.changes.len(), batch.unreadable[0].0.as_str()), (1, "7"));
    }
}
