//! JSON log lines: what happened, under which ids, and why. Never a body, a LinkedIn URL or a secret.

use std::error::Error;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;
use tracing::{Level, error, info, warn};

use crate::error::chain;
use crate::response::Outcome;

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
#[derive(Debug)]
pub struct Line<'a> {
    /// Lambda's id of the invocation.
    pub request_id: &'a str,
    /// Once the event is known and genuine.
    pub event_id: Option<&'a str>,
    /// What is answered.
    pub outcome: &'a Outcome,
    /// The ledger knows the event's id with another body.
    pub other_body: bool,
    /// What went wrong on our side.
    pub failure: Option<&'a dyn Error>,
}

impl Line<'_> {
    /// Writes it: as an error where we failed, as a warning where the sender did or something is odd.
    pub fn write(self) {
        let Self { request_id, event_id, outcome, other_body, failure } = self;
        let failure = failure.map(chain);
        macro_rules! log {
            ($level:ident) => {
                $level!(
                    requestId = request_id,
                    eventId = event_id,
                    outcome = outcome.name(),
                    status = outcome.status().as_u16(),
                    reason = outcome.reason(),
                    detail = outcome.detail(),
                    otherBody = other_body.then_some("the same event id came with another body"),
                    failure,
                    "webhook"
                )
            };
        }
        if outcome.status().is_server_error() {
            log!(error);
        } else if outcome.status().is_client_error() || other_body || failure.is_some() {
            log!(warn);
        } else {
            log!(info);
        }
    }
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
