//! Measures a start, and each kind of request once the function is warm.

use std::time::Duration;

use anyhow::Result;
use requests::Kind;

use crate::aws::Aws;
use crate::candidate::{Candidate, Taken, send};
use crate::lambda::{Lambda, Secret};
use crate::table::Table;

/// Adds one round of one candidate, with this number of requests of each kind.
pub(crate) async fn round(
    table: &mut Table,
    column: usize,
    candidate: &Candidate,
    aws: &Aws,
    secret: Secret,
    kinds: &[(Kind, usize)],
) -> Result<()> {
    let before = aws.counts();
    let mut lambda = candidate.start(secret, aws).await?;
    let first = table.attempt(column, send(&mut lambda, aws, Kind::Alert, 1, 0).await)?;
    let connections = aws.counts().connections - before.connections;
    let cpu = lambda.cpu_at_rest().await?;
    table.add(column, "start until ready, ms", millis(lambda.ready_in));
    table.add(
        column,
        "start until the first alert, ms",
        first.as_ref().map(|taken| millis(lambda.ready_in + taken.median())),
    );
    table.add(column, "CPU until ready, ms", millis(lambda.cpu_until_ready));
    table.add(column, "CPU until the first alert, ms", first.as_ref().map(|_| millis(cpu)));
    table.add(column, "connections to AWS by then", first.as_ref().map(|_| connections as f64));
    for &(kind, events) in kinds {
        let taken = table.attempt(column, warm(&mut lambda, aws, kind, events, 0).await)?;
        let each = |figure: fn(&Taken) -> f64| taken.as_ref().map(figure);
        table.add(column, &format!("{}: median, us", kind.name()), each(|taken| micros(taken.median())));
        table.add(
            column,
            &format!("{}: CPU, us", kind.name()),
            each(|taken| micros(taken.cpu) / taken.times.len() as f64),
        );
        table.add(
            column,
            &format!("{}: calls to AWS", kind.name()),
            each(|taken| taken.calls as f64 / taken.times.len() as f64),
        );
        if let Some(taken) = taken.filter(|taken| taken.api_calls > 0) {
            let calls = taken.api_calls as f64 / taken.times.len() as f64;
            table.add(column, &format!("{}: calls to SendPilot", kind.name()), calls);
        }
    }
    table.add(column, "peak memory, MiB", lambda.peak_memory()?);
    lambda.end().await
}

/// Warms the function up with requests of this kind, and then measures such requests.
pub(crate) async fn warm(lambda: &mut Lambda, aws: &Aws, kind: Kind, events: usize, length: usize) -> Result<Taken> {
    send(lambda, aws, kind, events.div_ceil(5), length).await?;
    send(lambda, aws, kind, events, length).await
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
