//! Handles one request: size, signature, event, rules, details, deliveries, answer. Every check
//! comes before the work that an attacker could cause without it.

use std::borrow::Cow;

use futures_util::future::{OptionFuture, join};
use http::{HeaderMap, Method};
use lambda_http::{Request, Response};
use tracing::Level;

use crate::delivery::ledger::{ClaimRequest, Ledger, LedgerError, Refusal};
use crate::delivery::relay::{Delivered, Outcome, Relay};
use crate::delivery::topic::Topic;
use crate::invocation::{Invocation, within};
use crate::message::Delivery;
use crate::message::details::{Details, LastReply};
use crate::message::key::ReplyKey;
use crate::message::rules::{Due, Rules};
use crate::secrets::keyring::{Keyring, NoSecret};
use crate::sendpilot::event::{self, Event, Kind, Malformed, Reply};
use crate::sendpilot::signature::{self, Rejection, Verified, verify};
use crate::telemetry::{Metric, Telemetry};
use crate::timestamp::Timestamp;
use crate::webhook::details::{Found, REPLY_RETENTION, Sources};
use crate::webhook::gateway::NotARequest;
use crate::webhook::response::{Answer, MAX_BODY, RETRY};

/// The path of SendPilot's webhooks.
pub const PATH: &str = "/webhooks/sendpilot";

/// Maximum number of derived ids that an event tries if its id belongs to another fact.
const MAX_OWN_IDS: usize = 4;

/// The receiver.
#[derive(Debug)]
pub struct Webhook<L, T> {
    /// The signing secrets.
    pub keyring: Keyring,
    /// The rules that decide which deliveries an event needs.
    pub rules: Rules,
    /// The sources of a lead's details.
    pub sources: Sources,
    /// The relay that claims and publishes deliveries.
    pub relay: Relay<L, T>,
    /// The telemetry, which writes one log line per invocation.
    pub telemetry: Telemetry,
}

/// A handled request: its answer, and the other facts of its log line.
pub(super) struct Handled {
    pub(super) answer: Answer,
    /// The event, after it was verified and read.
    pub(super) event: Option<Event>,
    /// The details of the lead, if an alert was due and a source is configured.
    pub(super) found: Option<Found>,
    /// The result for a reply, if replies are stored.
    pub(super) reply: Option<Result<(), Unstored>>,
    /// The alert, if one was due.
    pub(super) alert: Option<Part>,
    /// The message to the lead status stream, if one was due.
    pub(super) status: Option<Part>,
}

/// Why a reply is not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unstored {
    /// The event has no lead or no text, so there is nothing to store.
    #[error("the reply has no {0}")]
    Lacks(&'static str),
    /// The reply may be stored nevertheless.
    #[error("storing the reply failed")]
    Failed(#[source] LedgerError),
}

/// The result of one of an event's deliveries.
pub(super) struct Part {
    /// The answer if this were the only delivery.
    pub(super) answer: Answer,
    pub(super) delivered: Delivered,
    /// Whether the event's id belongs to another fact.
    pub(super) body_mismatch: bool,
}

impl From<Answer> for Handled {
    fn from(answer: Answer) -> Self {
        Self { answer, event: None, found: None, reply: None, alert: None, status: None }
    }
}

impl<L: Ledger, T: Topic> Webhook<L, T> {
    /// Handles one request, writes its log line, and returns its answer.
    pub async fn respond(&self, request: &Request, invocation: &Invocation) -> Response<String> {
        let mut line = self.telemetry.begin("webhook", invocation.request_id());
        let handled = self.handle(request, invocation).await;
        handled.describe(&mut line, invocation.elapsed());
        if matches!(handled.answer, Answer::NoSecret { .. }) || self.keyring.refuses_current().await {
            line.count(Metric::SecretUnreadable);
        }
        self.telemetry.end(line, handled.level(), invocation.now());
        handled.answer.response(handled.event.as_ref().and_then(|event| event.id.as_deref()))
    }

    /// Logs an invocation whose payload is not a request. `request_id` is Lambda's id of the
    /// invocation.
    pub fn refuse(&self, payload: &NotARequest, request_id: &str, now: Timestamp) {
        let mut line = self.telemetry.begin("payload", request_id);
        line.field("failure", payload.to_string());
        self.telemetry.end(line, Level::ERROR, now);
    }

    async fn handle(&self, request: &Request, invocation: &Invocation) -> Handled {
        let verified = match self.admit(request, invocation).await {
            Ok(verified) => verified,
            Err(answer) => return answer.into(),
        };
        let event = match event::parse(&verified) {
            Ok(event) => event,
            Err(malformed) => return Answer::from(malformed).into(),
        };
        if let Kind::Replied(reply) = &event.kind
            && self.sources.replies
        {
            let stored = self.remember(&event, reply, invocation).await;
            let answer = match stored {
                Ok(()) => Answer::Remembered,
                Err(Unstored::Lacks(_)) => Answer::Ignored,
                Err(Unstored::Failed(_)) => Answer::Unavailable { retry_after: RETRY },
            };
            return Handled { event: Some(event), reply: Some(stored), ..answer.into() };
        }
        match self.rules.due(&event) {
            Ok(Due { alert: None, status: None }) => Handled { event: Some(event), ..Answer::Ignored.into() },
            Ok(due) => {
                let (found, alert, status) = self.deliver(&event, due, invocation).await;
                let answer = match (&alert, &status) {
                    (Some(alert), Some(status)) => alert.answer.clone().and(status.answer.clone()),
                    (Some(only), None) | (None, Some(only)) => only.answer.clone(),
                    (None, None) => Answer::Ignored,
                };
                Handled { answer, event: Some(event), found, reply: None, alert, status }
            }
            Err(malformed) => Handled { event: Some(event), ..Answer::from(malformed).into() },
        }
    }

    /// Returns the body of a request that has the right path, method, size and signature.
    async fn admit<'a>(&self, request: &'a Request, invocation: &Invocation) -> Result<Verified<'a>, Answer> {
        let body: &[u8] = request.body();
        if !is_path(request.uri().path()) {
            return Err(Answer::NotFound);
        }
        if request.method() != Method::POST {
            return Err(Answer::MethodNotAllowed);
        }
        if body.len() > MAX_BODY {
            return Err(Answer::TooLarge);
        }
        self.verify(request.headers(), body, invocation).await
    }

    /// Attempts the deliveries at the same time. Neither depends on the other's result, and only
    /// the alert waits for the lead's details.
    async fn deliver(
        &self,
        event: &Event,
        due: Due<'_>,
        invocation: &Invocation,
    ) -> (Option<Found>, Option<Part>, Option<Part>) {
        // On the heap, because most events need no delivery, and a future in place is moved with
        // every request.
        let alert = due.alert.map(|alert| {
            Box::pin(async move {
                let found = self.sources.search(&alert, &self.relay.ledger, invocation).await;
                let none = Details::default();
                let details = found.as_ref().map_or(&none, |found| &found.details);
                let under = |event: &Event| Some(self.rules.due(event).ok()?.alert?.delivery(details));
                let part = self.attempt(event, alert.delivery(details), under, invocation).await;
                (found, part)
            })
        });
        let status = due.status.map(|status| {
            let under = |event: &Event| self.rules.due(event).ok()?.status;
            Box::pin(self.attempt(event, status, under, invocation))
        });
        let (alert, status) = join(OptionFuture::from(alert), OptionFuture::from(status)).await;
        let (found, alert) = alert.unzip();
        (found.flatten(), alert, status)
    }

    /// Stores a reply, so that the lead's next alert can show it.
    async fn remember(&self, event: &Event, reply: &Reply, invocation: &Invocation) -> Result<(), Unstored> {
        let lead_id = reply.lead_id.as_deref().ok_or(Unstored::Lacks("data.leadId"))?;
        let now = invocation.now();
        // A time in the future would keep every later reply out.
        let at = event.occurred_at.map_or(now, |at| now.min(at.into()));
        let text = reply.text.as_deref().unwrap_or_default();
        let reply = LastReply::new(text, at).ok_or(Unstored::Lacks("text"))?;
        let key = ReplyKey::new(event.workspace_id.as_deref(), lead_id);
        let storing = self.relay.ledger.remember(&key, &reply, now.after(REPLY_RETENTION));
        within(invocation.schedule().claim_by, storing, LedgerError::TimedOut).await.map_err(Unstored::Failed)
    }

    /// Attempts one delivery. If the event's id already belongs to another fact, attempts the
    /// delivery under a derived id, which is the same on every retry. So no lead is lost if
    /// SendPilot uses an id twice. `under` returns the delivery of the same event under another id.
    ///
    /// If the derived id belongs to another fact too, the hash is appended again.
    async fn attempt(
        &self,
        event: &Event,
        delivery: Delivery,
        under: impl Fn(&Event) -> Option<Delivery>,
        invocation: &Invocation,
    ) -> Part {
        let is_stream = delivery.id.is_for_stream();
        let hash = format!("~{:.16}", delivery.content_sha256);
        let mut delivered = self.relay.deliver(ClaimRequest::Delivery(delivery), invocation).await;
        let mut body_mismatch = false;
        let mut event = Cow::Borrowed(event);
        for _ in 0..MAX_OWN_IDS {
            if !matches!(delivered.outcome, Outcome::Refused(Refusal::BodyMismatch)) {
                break;
            }
            body_mismatch = true;
            event.to_mut().id.get_or_insert_default().push_str(&hash);
            // The rules give the same deliveries for the same event, so the loop never ends here.
            let Some(delivery) = under(&event) else { break };
            delivered = self.relay.deliver(ClaimRequest::Delivery(delivery), invocation).await;
        }
        Part { answer: Answer::from_delivery(&delivered.outcome, is_stream, invocation), delivered, body_mismatch }
    }

    /// Verifies the signature. If none of our secrets made it, SendPilot may already use a new
    /// secret, so the secrets are fetched again. If a stored version is refused, the answer is 503
    /// instead of 401, so that SendPilot tries again.
    async fn verify<'a>(
        &self,
        headers: &'a HeaderMap,
        body: &'a [u8],
        invocation: &Invocation,
    ) -> Result<Verified<'a>, Answer> {
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
        Err(self.keyring.refused(invocation).await.map_or_else(|| rejection.into(), Answer::from))
    }
}

/// Returns whether a path is [`PATH`], with or without one slash after it. API Gateway sends both
/// to the same route, as its users report (aws-powertools/powertools-lambda-python, issue 1552 and
/// pull request 1577).
fn is_path(path: &str) -> bool {
    path.strip_suffix('/').unwrap_or(path) == PATH
}

impl From<NoSecret> for Answer {
    fn from(NoSecret { retry_after, detail }: NoSecret) -> Self {
        Self::NoSecret { retry_after, detail }
    }
}

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Self {
        Self::Unauthorized { reason: rejection.reason(), detail: rejection.to_string() }
    }
}

impl From<Malformed> for Answer {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}
