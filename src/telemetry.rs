//! JSON log lines: what happened, under which ids, and why. Never a body, a LinkedIn URL or a secret.

use std::error::Error;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;
use tracing::{Level, error, info, warn};

use crate::invocation::Invocation;
use crate::webhook::Handled;

/// Sends every log line of the process, the SDK's and the runtime's too, to standard output as one JSON object with an
/// RFC 3339 `timestamp` and a `level`: without both, Lambda files a line as INFO whatever it was.
pub fn init(level: Level) {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(LevelFilter::from_level(level))
        .init();
}

/// The line of one request.
pub fn handled(handled: &Handled, invocation: &Invocation) {
    let Handled { outcome, event_id, other_body, failure } = handled;
    let failure = failure.as_ref().map(|failure| chain(failure));
    macro_rules! line {
        ($level:ident) => {
            $level!(
                requestId = invocation.request_id(),
                eventId = event_id.as_deref(),
                outcome = outcome.name(),
                status = outcome.status().as_u16(),
                detail = outcome.detail(),
                otherBody = other_body.then_some("the same event id came with another body"),
                failure,
                "webhook"
            )
        };
    }
    if outcome.status().is_server_error() {
        line!(error);
    } else if outcome.status().is_client_error() || *other_body || failure.is_some() {
        line!(warn);
    } else {
        line!(info);
    }
}

/// An error and all its sources, in one line: the SDK's errors say nothing without theirs.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        // Some errors repeat their source in their own text.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}

/// The last line of a function that cannot start, or cannot go on; and the exit status that makes Lambda start another.
pub fn exit(result: Result<(), Box<dyn Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = chain(&*error), "the function ends");
            ExitCode::FAILURE
        }
    }
}
