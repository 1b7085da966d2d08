//! Turns a batch of messages into the objects to write: one for each day, with a line for each
//! change.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::SqsMessage;
use data_encoding::HEXLOWER;
use sendpilot_events::{CloudEvent, LeadStatusChanged};
use sha2::{Digest, Sha256};

/// The day under which a change without a time is stored.
const UNDATED: &str = "1970-01-01";

/// The objects that one batch is written to.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) objects: Vec<Object>,
    /// The ids of messages that are not lead status changes, with the reason.
    pub(crate) unreadable: Vec<(String, serde_json::Error)>,
}

/// The changes of one day in a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// A path that ends in a hash of the content: a repeated batch overwrites its own object.
    pub(crate) key: String,
    /// One CloudEvent per line, sorted by time.
    pub(crate) lines: String,
    /// The ids of the messages in the object.
    pub(crate) messages: Vec<String>,
}

#[derive(Default)]
struct Day {
    /// The lines by sort key and workspace, because two workspaces can use the same id.
    lines: BTreeMap<(String, String), String>,
    messages: Vec<String>,
}

impl Batch {
    /// Reads messages in any order. A duplicate in the batch is written once.
    pub(crate) fn read(messages: Vec<SqsMessage>) -> Self {
        let mut days: BTreeMap<String, Day> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for message in messages {
            let (id, body) = (message.message_id.unwrap_or_default(), message.body.unwrap_or_default());
            let line = serde_json::from_str(&body)
                .and_then(|event: CloudEvent<LeadStatusChanged>| Ok((serde_json::to_string(&event)?, event)));
            match line {
                Ok((line, event)) => {
                    let day = event.time.map_or(UNDATED.to_owned(), |time| time.date().to_string());
                    let day = days.entry(day).or_default();
                    day.lines.insert((event.sort_key(), event.source), line);
                    day.messages.push(id);
                }
                Err(error) => unreadable.push((id, error)),
            }
        }
        let objects = days.into_iter().map(|(day, Day { lines, messages })| {
            let lines: String = lines.into_values().map(|line| line + "\n").collect();
            Object {
                key: format!("changes/dt={day}/{}.jsonl", HEXLOWER.encode(&Sha256::digest(&lines))),
                lines,
                messages,
            }
        });
        Self { objects: objects.collect(), unreadable }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(id: &str, time: Option<&str>) -> SqsMessage {
        let mut message = SqsMessage::default();
        message.message_id = Some(format!("message of {id}"));
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": "urn:sendpilot:workspace:ws",
            "type": "sendpilot.lead.status_changed", "subject": "lead_1", "datacontenttype": "application/json",
            "data": {"leadId": "lead_1", "newStatus": "DONE", "crmStage": "closed_won"},
        });
        if let Some(time) = time {
            event["time"] = time.into();
        }
        message.body = Some(event.to_string());
        message
    }

    #[test]
    fn order_and_duplicates_do_not_change_the_object() {
        let [one, two] = ["2024-02-24T10:30:00Z", "2024-02-24T10:30:00.5Z"].map(Some);
        let batch = Batch::read(vec![message("evt_2", two), message("evt_1", one)]).objects;
        let again = Batch::read(vec![message("evt_1", one), message("evt_2", two), message("evt_1", one)]).objects;
        assert_eq!((batch.len(), &batch[0].key, &batch[0].lines), (1, &again[0].key, &again[0].lines));
        assert_eq!((batch[0].lines.lines().count(), again[0].messages.len()), (2, 3));
        assert!(batch[0].key.starts_with("changes/dt=2024-02-24/"), "{}", batch[0].key);
    }

    #[test]
    fn each_day_has_its_own_object_without_unreadable_messages() {
        let mut poisoned = message("evt_0", None);
        poisoned.body = Some("no event".into());
        let days = [Some("2024-02-24T23:59:59Z"), Some("2024-02-25T00:00:00Z"), None];
        let messages = days.into_iter().enumerate().map(|(number, time)| message(&format!("evt_{number}"), time));
        let batch = Batch::read(messages.chain([poisoned]).collect());
        let days: Vec<_> = batch.objects.iter().map(|object| &object.key[8..21]).collect();
        assert_eq!(days, ["dt=1970-01-01", "dt=2024-02-24", "dt=2024-02-25"]);
        assert_eq!(batch.unreadable.len(), 1);
    }
}
