//! Measures the first request after a start, by round trip to AWS and by place of the secret.

use std::time::Duration;

use anyhow::Result;
use requests::Kind;

use crate::aws::Aws;
use crate::candidate::{Candidate, send};
use crate::compare::millis;
use crate::lambda::Secret;
use crate::table::Table;

const ROUND_TRIPS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(10)];

/// Adds one round of all candidates.
pub(crate) async fn round(table: &mut Table, candidates: &[Candidate]) -> Result<()> {
    for secret in [Secret::Given, Secret::Stored] {
        for round_trip in ROUND_TRIPS {
            let aws = Aws::start(round_trip).await?;
            for kind in [Kind::Alert, Kind::Ignored] {
                for (column, candidate) in candidates.iter().enumerate() {
                    let mut lambda = candidate.start(secret, &aws).await?;
                    let first = table.attempt(column, send(&mut lambda, &aws, kind, 1, 0).await)?;
                    let row =
                        format!("first {}, {} ms, secret {}, ms", kind.name(), round_trip.as_millis(), secret.name());
                    table.add(column, &row, first.map(|taken| millis(lambda.ready_in + taken.median())));
                    lambda.end().await?;
                }
            }
        }
    }
    Ok(())
}
