//! Measures requests with bodies of different lengths, up to the longest that the function accepts.

use anyhow::Result;
use requests::Kind;

use crate::aws::Aws;
use crate::candidate::Candidate;
use crate::compare::{micros, warm};
use crate::lambda::Secret;
use crate::table::Table;

/// The lengths in KiB, up to the longest that the function accepts.
const LENGTHS: [usize; 4] = [1, 16, 64, 256];

/// Adds one round of one candidate.
pub(crate) async fn round(
    table: &mut Table,
    column: usize,
    candidate: &Candidate,
    aws: &Aws,
    events: usize,
) -> Result<()> {
    for kind in [Kind::Alert, Kind::Ignored, Kind::Forged] {
        for length in LENGTHS {
            let mut lambda = candidate.start(Secret::Given, aws).await?;
            let taken = table.attempt(column, warm(&mut lambda, aws, kind, events, length * 1024).await)?;
            let row = |what| format!("{}, {length} KiB: {what}, us", kind.name());
            table.add(column, &row("median"), taken.as_ref().map(|taken| micros(taken.median())));
            table.add(column, &row("CPU"), taken.map(|taken| micros(taken.cpu) / taken.times.len() as f64));
            lambda.end().await?;
        }
    }
    Ok(())
}
