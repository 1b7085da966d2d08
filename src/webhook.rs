//! One request: size, signature, event, rules, relay, answer. In this order, and nothing earlier than it may be.

mod line;

use futures_util::future::{OptionFuture, join};
use http::{HeaderMap, Method, Request, Response};
use lambda_http::Body;

use crate::event::{self, Event, Malformed};
use crate::invocation::Invocation;
use crate::keyring::{Keyring, NoSecret};
use crate::ledger::{Delivery, Ledger, Wanted};
use crate::relay::{Relay, Relayed};
use crate::response::{MAX_BODY, Outcome, answer};
use crate::rules::{Due, Rules};
use crate::signature::{self, Rejection, Verified, verify};
use crate::telemetry::Telemetry;
use crate::topic::Topic;

/// Where SendPilot's webhooks arrive.
pub const PATH: &str = "/webhooks/sendpilot";

/// The receiver.
#[derive(Debug)]
pub struct Webhook<L, T> {
    /// Who may send.
    pub keyring: Keyring,
    /// What calls for what.
    pub rules: Rules,
    /// The way to the topics.
    pub relay: Relay<L, T>,
    /// Where lines go.
    pub telemetry: Telemetry,
}

/// What became of a request.
struct Handled {
    outcome: Outcome,
    /// Once it is known and genuine.
    event: Option<Event>,
    /// Where one was due.
    alert: Option<Relayed>,
    /// The message to the lead status stream, where one was due.
    status: Option<Relayed>,
}

impl From<Outcome> for Handled {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, event: None, alert: None, status: None }
    }
}

impl<L: Ledger, T: Topic> Webhook<L, T> {
    /// Handles one request, writes its line, and answers it.
    pub async fn respond(&self, request: &Request<Body>, invocation: &Invocation) -> Response<String> {
        let mut line = self.telemetry.begin("webhook", invocation.request_id());
        let handled = self.handle(request, invocation).await;
        handled.describe(&mut line, invocation.elapsed());
        self.telemetry.end(line, handled.level(), invocation.now());
        let event_id = handled.event.as_ref().and_then(|event| event.id.as_deref());
        answer(&handled.outcome, event_id)
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
        let verified = match self.verify(request.headers(), body, invocation).await {
            Ok(verified) => verified,
            Err(outcome) => return outcome.into(),
        };
        let event = match event::parse(&verified) {
            Ok(event) => event,
            Err(malformed) => return Outcome::from(malformed).into(),
        };
        let due = match self.rules.due(&event, body) {
            Ok(due) => due,
            Err(malformed) => return Handled { event: Some(event), ..Outcome::from(malformed).into() },
        };
        Handled { event: Some(event), ..self.deliver(due, invocation).await }
    }

    /// Both at once, and whatever becomes of the other.
    async fn deliver(&self, Due { alert, status }: Due, invocation: &Invocation) -> Handled {
        // On the heap, since most events call for nothing: what is in place is moved with every request.
        let deliver = |delivery: Delivery| Box::pin(self.relay.deliver(Wanted::Delivery(delivery), invocation));
        let [alert, status] = [alert, status].map(|delivery| OptionFuture::from(delivery.map(deliver)));
        let (alert, mut status) = join(alert, status).await;
        // Of the stream, a claim is enough: see `response`.
        if let Some(status) = status.as_mut().filter(|status| status.is_claimed()) {
            status.outcome = status.outcome.clone().once_claimed();
        }
        let outcome_of = |relayed: &Option<Relayed>| relayed.as_ref().map(|relayed| relayed.outcome.clone());
        let outcome = match (outcome_of(&alert), outcome_of(&status)) {
            (Some(alert), Some(status)) => alert.and(status),
            // The rules let nothing be due to a stream that is off.
            (None, None | Some(Outcome::Discarded)) => Outcome::Ignored,
            (Some(only), None) | (None, Some(only)) => only,
        };
        Handled { outcome, event: None, alert, status }
    }

    /// A signature that none of our secrets made may be the first by a new one.
    async fn verify<'a>(
        &self,
        headers: &'a HeaderMap,
        body: &'a [u8],
        invocation: &Invocation,
    ) -> Result<Verified<'a>, Outcome> {
        let secrets = self.keyring.secrets(invocation).await?;
        let rejection = match verify(headers, body, &secrets, invocation.now()) {
            Ok(verified) => return Ok(verified),
            Err(rejection) => rejection,
        };
        if signature::may_hold_under_another_secret(headers, invocation.now())
            && let Some(secrets) = self.keyring.others(invocation).await
        {
            return Ok(verify(headers, body, &secrets, invocation.now())?);
        }
        Err(rejection.into())
    }
}

impl From<NoSecret> for Outcome {
    fn from(NoSecret { retry_after, detail }: NoSecret) -> Self {
        Self::NoSecret { retry_after, detail }
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self::Unauthorized { reason: rejection.reason(), detail: rejection.to_string() }
    }
}

impl From<Malformed> for Outcome {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}
