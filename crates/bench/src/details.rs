//! Measures what the details of a lead cost, by the time that SendPilot's API takes to answer.

use std::time::Duration;

use anyhow::Result;
use requests::Kind;

use crate::aws::{API_KEY, Aws};
use crate::candidate::Candidate;
use crate::lambda::Secret;
use crate::table::Table;
use crate::{compare, instructions};

/// The times that SendPilot's API takes, in milliseconds.
const DELAYS: [u64; 3] = [0, 50, 300];

/// The requests that do not wait for SendPilot's API, as a multiple of the alerts. One such request
/// takes too little CPU to measure a few.
const MORE: usize = 20;

/// Compares the function without details, with replies only, and with all details.
pub(crate) async fn measure(function: &str, alerts: usize, rounds: usize) -> Result<Table> {
    let mut aws = Aws::start(Duration::ZERO).await?;
    let candidate = |name: &str, options| Candidate { name: name.into(), command: vec![function.into()], options };
    let replies = ("REMEMBER_REPLIES", "yes".to_owned());
    let mut candidates = vec![candidate("off", vec![]), candidate("replies", vec![replies.clone()])];
    for delay in DELAYS {
        let url = aws.start_api(Duration::from_millis(delay)).await?;
        let api = [("SENDPILOT_API_KEY_ID", API_KEY.to_owned()), ("SENDPILOT_API_URL", url)];
        candidates.push(candidate(&format!("{delay} ms"), [vec![replies.clone()], api.into()].concat()));
    }

    let mut table = Table::new(&candidates);
    let kinds = [(Kind::Alert, alerts), (Kind::Reply, alerts * MORE), (Kind::Ignored, alerts * MORE)];
    for _ in 0..rounds {
        for (column, candidate) in candidates.iter().enumerate() {
            compare::round(&mut table, column, candidate, &aws, Secret::Stored, &kinds).await?;
        }
    }
    if instructions::Tools::find().is_ok() {
        let kinds = kinds.map(|(kind, _)| kind);
        // The instructions do not depend on the delay.
        for (column, candidate) in candidates.iter().enumerate().take(3) {
            instructions::add(&mut table, column, candidate, &aws, Secret::Stored, &kinds).await?;
        }
    }
    Ok(table)
}
