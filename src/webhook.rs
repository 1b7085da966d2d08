//! One request: size, signature, event, alert, relay, answer. In this order, and nothing earlier than it may be.

use std::time::Duration;

use http::{Method, Request, Response};
use lambda_http::Body;

use crate::alert;
use crate::event;
use crate::invocation::Invocation;
use crate::ledger::Ledger;
use crate::relay::{Failure, relay};
use crate::response::{MAX_BODY, Outcome, answer};
use crate::secret::Secrets;
use crate::signature::verify;
use crate::telemetry;
use crate::topic::Topic;

/// Where SendPilot's webhooks arrive.
pub const PATH: &str = "/webhooks/sendpilot";

/// The receiver.
#[derive(Debug)]
pub struct Webhook<L, T> {
    /// Who may send.
    pub secrets: Secrets,
    /// Who has claimed what.
    pub ledger: L,
    /// Where alerts go.
    pub topic: T,
    /// How long a published row is kept.
    pub retention: Duration,
}

/// What became of a request, and what is worth knowing about it. Holds no body, no URL and no secret, so it can be logged whole.
#[derive(Debug)]
pub struct Handled {
    /// What is answered.
    pub outcome: Outcome,
    /// Once the event is known and genuine.
    pub event_id: Option<String>,
    /// The ledger knows this event id with another body.
    pub other_body: bool,
    /// What went wrong on our side.
    pub failure: Option<Failure>,
}

impl From<Outcome> for Handled {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, event_id: None, other_body: false, failure: None }
    }
}

impl<L: Ledger, T: Topic> Webhook<L, T> {
    /// Handles one request, writes its log line, and answers it.
    pub async fn respond(&self, request: &Request<Body>, invocation: &Invocation) -> Response<String> {
        let handled = self.handle(request, invocation).await;
        telemetry::handled(&handled, invocation);
        answer(&handled.outcome, handled.event_id.as_deref())
    }

    async fn handle(&self, request: &Request<Body>, invocation: &Invocation) -> Handled {
        let body: &[u8] = request.body();
        if request.uri().path() != PATH {
            return Outcome::NotFound.into();
        }
        if request.method() != Method::POST {
            return Outcome::MethodNotAllowed.into();
        }
        if body.len() > MAX_BODY {
            return Outcome::TooLarge.into();
        }
        let verified = match verify(request.headers(), body, &self.secrets, invocation.now()) {
            Ok(verified) => verified,
            Err(rejection) => {
                return Outcome::Unauthorized { reason: rejection.reason(), detail: rejection.to_string() }.into();
            }
        };
        let event = match event::parse(&verified) {
            Ok(event) => event,
            Err(malformed) => return Outcome::Malformed(malformed.to_string()).into(),
        };
        let handled = match alert::due(&event, body) {
            Ok(None) => Outcome::Ignored.into(),
            Err(malformed) => Outcome::Malformed(malformed.to_string()).into(),
            Ok(Some(delivery)) => {
                let relayed = relay(&self.ledger, &self.topic, delivery, invocation, self.retention).await;
                Handled {
                    event_id: None,
                    outcome: relayed.outcome,
                    other_body: relayed.other_body,
                    failure: relayed.failure,
                }
            }
        };
        Handled { event_id: event.id, ..handled }
    }
}
