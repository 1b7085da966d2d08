//! One request: size, signature, event, rules, relay, answer. In this order, and nothing earlier than it may be.

use std::borrow::Cow;

use futures_util::future::{OptionFuture, join};
use http::{HeaderMap, Method, Request, Response};
use lambda_http::Body;
use tracing::Level;

use crate::delivery::ledger::{Ledger, Wanted};
use crate::delivery::relay::{Failure, Relay, Relayed};
use crate::delivery::topic::Topic;
use crate::invocation::Invocation;
use crate::message::Delivery;
use crate::message::rules::{Due, Rules};
use crate::secrets::keyring::{Keyring, NoSecret};
use crate::sendpilot::event::{self, Event, Malformed};
use crate::sendpilot::signature::{self, Rejection, Verified, verify};
use crate::telemetry::{Metric, Telemetry};
use crate::timestamp::Timestamp;
use crate::webhook::gateway::NotARequest;
use crate::webhook::response::{MAX_BODY, Outcome, answer};

/// Where SendPilot's webhooks arrive.
pub const PATH: &str = "/webhooks/sendpilot";

/// The most ids of its own that are tried for an event whose id belongs to another fact.
const MAX_OWN_IDS: usize = 4;

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
pub(super) struct Handled {
    pub(super) outcome: Outcome,
    /// Once it is known and genuine.
    pub(super) event: Option<Event>,
    /// Where one was due.
    pub(super) alert: Option<Relayed>,
    /// The message to the lead status stream, where one was due.
    pub(super) status: Option<Relayed>,
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
        if matches!(handled.outcome, Outcome::NoSecret { .. }) || self.keyring.refuses_current().await {
            line.count(Metric::SecretUnreadable);
        }
        self.telemetry.end(line, handled.level(), invocation.now());
        let event_id = handled.event.as_ref().and_then(|event| event.id.as_deref());
        answer(&handled.outcome, event_id)
    }

    /// Logs an invocation whose payload is not a request. `request_id` is Lambda's id of the
    /// invocation.
    pub fn refuse(&self, payload: &NotARequest, request_id: &str, now: Timestamp) {
        let mut line = self.telemetry.begin("payload", request_id);
        line.field("failure", payload.to_string());
        self.telemetry.end(line, Level::ERROR, now);
    }

    async fn handle(&self, request: &Request<Body>, invocation: &Invocation) -> Handled {
        let body: &[u8] = request.body();
        if !is_path(request.uri().path()) {
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
        let due = match self.rules.due(&event) {
            Ok(due) => due,
            Err(malformed) => return Handled { event: Some(event), ..Outcome::from(malformed).into() },
        };
        let handled = self.deliver(&event, due, invocation).await;
        Handled { event: Some(event), ..handled }
    }

    /// Both at once, and whatever becomes of the other.
    async fn deliver(&self, event: &Event, Due { alert, status }: Due, invocation: &Invocation) -> Handled {
        // On the heap, since most events call for nothing: what is in place is moved with every request.
        let deliver = |delivery: Delivery, of: fn(Due) -> Option<Delivery>| {
            Box::pin(self.deliver_one(event, delivery, of, invocation))
        };
        let alert = OptionFuture::from(alert.map(|delivery| deliver(delivery, |due| due.alert)));
        let status = OptionFuture::from(status.map(|delivery| deliver(delivery, |due| due.status)));
        let (alert, mut status) = join(alert, status).await;
        // For a message to the stream, a claim is enough: see `response`.
        if let Some(status) = status.as_mut().filter(|status| status.is_claimed()) {
            status.outcome = status.outcome.clone().once_claimed();
        }
        let outcome_of = |relayed: &Option<Relayed>| relayed.as_ref().map(|relayed| relayed.outcome.clone());
        let outcome = match (outcome_of(&alert), outcome_of(&status)) {
            (Some(alert), Some(status)) => alert.and(status),
            // The rules make no message for a stream that is off, so `Discarded` cannot occur here.
            (None, None | Some(Outcome::Discarded)) => Outcome::Ignored,
            (Some(only), None) | (None, Some(only)) => only,
        };
        Handled { outcome, event: None, alert, status }
    }

    /// Relays one delivery. If the event's id already belongs to another fact, relays this fact
    /// under an id of its own, which is the same on every retry. So no lead is lost if SendPilot
    /// uses an id twice. `of` picks the delivery to the same topic.
    ///
    /// An event may have come with that very id. Then the hash is appended once more.
    async fn deliver_one(
        &self,
        event: &Event,
        delivery: Delivery,
        of: fn(Due) -> Option<Delivery>,
        invocation: &Invocation,
    ) -> Relayed {
        let hash = format!("~{:.16}", delivery.content_sha256);
        let mut relayed = self.relay.deliver(Wanted::Delivery(delivery), invocation).await;
        let mut event = Cow::Borrowed(event);
        for _ in 0..MAX_OWN_IDS {
            if !matches!(relayed.failure, Some(Failure::OtherContent)) {
                break;
            }
            event.to_mut().id.get_or_insert_default().push_str(&hash);
            // The rules decide alike for the same event, so this never breaks.
            let Ok(Some(delivery)) = self.rules.due(&event).map(of) else { break };
            let again = self.relay.deliver(Wanted::Delivery(delivery), invocation).await;
            relayed = Relayed { other_content: true, ..again };
        }
        relayed
    }

    /// Verifies the signature. If none of our secrets made it, SendPilot may already use a new
    /// secret, so the secrets are fetched again. If a stored version is refused, the answer is 503
    /// instead of 401, so that SendPilot tries again.
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
        if !signature::may_hold_under_another_secret(headers, invocation.now()) {
            return Err(rejection.into());
        }
        let rejection = match self.keyring.others(invocation).await {
            Some(secrets) => match verify(headers, body, &secrets, invocation.now()) {
                Ok(verified) => return Ok(verified),
                Err(rejection) => rejection,
            },
            None => rejection,
        };
        Err(self.keyring.refused(invocation).await.map_or_else(|| rejection.into(), Outcome::from))
    }
}

/// Whether a path is [`PATH`], with or without one slash after it. API Gateway sends both to the
/// same route, as its users report (aws-powertools/powertools-lambda-python, issue 1552 and pull
/// request 1577).
fn is_path(path: &str) -> bool {
    path.strip_suffix('/').unwrap_or(path) == PATH
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
