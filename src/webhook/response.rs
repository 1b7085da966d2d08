//! The table of answers: the status and the body of each.
//!
//! SendPilot takes any 2xx as final, and retries after any other status for 77 minutes. So the
//! answer is 2xx only if nothing can be lost any more. If a retry cannot help, the answer is 4xx.
//! If a retry can help, the answer is 409 or 503 with `Retry-After`.
//!
//! An alert must be published before the answer is 2xx. A message to the lead status stream only
//! has to be claimed. Its row is then pending, and the redrive publishes the message without
//! SendPilot's help, unless the stream is turned off first. If the answer were 503 until the stream
//! works again, alerts would stop too: Svix disables an endpoint that fails for five days
//! (<https://docs.svix.com/retries>).

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::delivery::ledger::Refusal;
use crate::delivery::relay::Outcome;
use crate::invocation::Invocation;

/// The largest accepted body, in bytes: as large as the largest message that SNS publishes.
pub const MAX_BODY: usize = 256 * 1024;

/// The `Retry-After` for a delivery that no attempt has claimed. SendPilot's first retry comes
/// after 5 s too.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The alert has been published.
    Alerted,
    /// No alert was due, and the message to the lead status stream has been published.
    Streamed,
    /// No alert was due. The message to the lead status stream has been claimed, and the redrive
    /// publishes it.
    Pending,
    /// Another alert for the same lead and status has been published or is durably claimed.
    Debounced,
    /// Earlier attempts have done everything that the event needs.
    Duplicate,
    /// The lead's reply has been stored, or a newer one is.
    Remembered,
    /// A genuine event that needs no message.
    Ignored,
    /// Another attempt has claimed the alert. That attempt may still crash, so this is not a
    /// success.
    InProgress {
        /// The time until the other attempt's lease ends.
        retry_after: Duration,
    },
    /// The alert is not known to be published, or the stream's message is not known to be claimed.
    /// Or the reply is not known to be stored.
    Unavailable {
        /// The time until another attempt can succeed.
        retry_after: Duration,
    },
    /// No signing secret is available, so the sender is unknown.
    NoSecret {
        /// The time until the secret is fetched again.
        retry_after: Duration,
        /// The text that says what to fix.
        detail: String,
    },
    /// The request is genuine, but its body is not a usable event. The text says what to fix.
    Malformed(String),
    /// The signature is missing, malformed, stale, or made with another secret.
    Unauthorized {
        /// `missing`, `malformed`, `mismatch` or `stale`.
        reason: &'static str,
        /// The text that says what to fix.
        detail: String,
    },
    /// The path is not [`PATH`](super::PATH).
    NotFound,
    /// The method is not POST.
    MethodNotAllowed,
    /// The body is larger than [`MAX_BODY`].
    TooLarge,
}

/// One row of the table of answers.
#[derive(Debug)]
pub struct Row<'a> {
    /// The HTTP status.
    pub status: StatusCode,
    /// The answer's `outcome`, in its body and in the log.
    pub outcome: &'static str,
    /// Why a retry cannot help, in one word.
    pub reason: Option<&'static str>,
    /// The text that says how to fix the request, or when to retry.
    pub detail: Option<&'a str>,
    /// The time until a retry can succeed.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Returns the answer to an event with one delivery. `is_stream` says whether its message is
    /// for the lead status stream. For such a message, a claim is enough.
    pub fn from_delivery(outcome: &Outcome, is_stream: bool, invocation: &Invocation) -> Self {
        let now = invocation.now();
        match outcome {
            Outcome::Published { .. } if is_stream => Self::Streamed,
            Outcome::Published { .. } => Self::Alerted,
            Outcome::Debounced { .. } => Self::Debounced,
            // The rules create no message for a stream that is off, so this cannot occur.
            Outcome::Discarded { .. } => Self::Ignored,
            Outcome::Refused(Refusal::Done) => Self::Duplicate,
            claimed if is_stream && claimed.is_claimed() => Self::Pending,
            Outcome::Refused(Refusal::InProgress { until }) => Self::InProgress { retry_after: until.since(now) },
            Outcome::Refused(Refusal::BodyMismatch) | Outcome::Unpublished { released: Ok(()), .. } => {
                Self::Unavailable { retry_after: RETRY }
            }
            // This attempt has the claim, or may have it. So the next attempt must wait until the
            // lease ends.
            Outcome::Unclaimed(_) | Outcome::Unpublished { released: Err(_), .. } => {
                Self::Unavailable { retry_after: invocation.lease_until().since(now) }
            }
        }
    }

    /// Returns the answer to an event with two deliveries. `self` is the answer for the alert, and
    /// `stream` is the answer for the message to the lead status stream. The alert decides, unless
    /// the message could not be claimed. Then only SendPilot's next retry can save the message.
    #[must_use]
    pub fn and(self, stream: Self) -> Self {
        match (self, stream) {
            (
                Self::Unavailable { retry_after: one } | Self::InProgress { retry_after: one },
                Self::Unavailable { retry_after: other },
            ) => Self::Unavailable { retry_after: one.max(other) },
            (_, unclaimed @ Self::Unavailable { .. }) => unclaimed,
            (alert, _) => alert,
        }
    }

    /// Returns the answer's row in the table.
    pub fn row(&self) -> Row<'_> {
        let done = |outcome| Row { status: StatusCode::OK, outcome, reason: None, detail: None, retry_after: None };
        let retry = |status, outcome, detail, after: &Duration| Row {
            status,
            detail: Some(detail),
            retry_after: Some(*after),
            ..done(outcome)
        };
        let refused = |status, outcome, reason, detail| Row {
            status,
            reason: Some(reason),
            detail: Some(detail),
            ..done(outcome)
        };
        match self {
            Self::Alerted => done("alerted"),
            Self::Streamed => done("streamed"),
            Self::Pending => done("pending"),
            Self::Debounced => done("debounced"),
            Self::Duplicate => done("duplicate"),
            Self::Remembered => done("remembered"),
            Self::Ignored => done("ignored"),
            Self::InProgress { retry_after } => retry(
                StatusCode::CONFLICT,
                "in_progress",
                "another attempt at this event is in progress; send the event again after Retry-After",
                retry_after,
            ),
            Self::Unavailable { retry_after } => retry(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "not every message for this event could be published or stored; send the event again after Retry-After",
                retry_after,
            ),
            Self::NoSecret { retry_after, detail } => {
                retry(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, retry_after)
            }
            Self::Malformed(detail) => refused(StatusCode::BAD_REQUEST, "malformed", "body", detail),
            Self::Unauthorized { reason, detail } => refused(StatusCode::UNAUTHORIZED, "unauthorized", reason, detail),
            Self::NotFound => {
                refused(StatusCode::NOT_FOUND, "not_found", "route", "send webhooks to POST /webhooks/sendpilot")
            }
            Self::MethodNotAllowed => {
                refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "route", "webhooks must be sent by POST")
            }
            Self::TooLarge => refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "too_large",
                "the body must be at most 256 KiB (262144 bytes)",
            ),
        }
    }

    /// Returns the HTTP response. `event_id` is the event's id, if a genuine event has one.
    #[expect(clippy::expect_used, reason = "strings and a number under fixed names always serialize to JSON")]
    pub fn response(&self, event_id: Option<&str>) -> Response<String> {
        let Row { status, outcome, reason, detail, retry_after, .. } = self.row();
        let is_problem = detail.is_some();
        let body = Body {
            title: status.canonical_reason().filter(|_| is_problem),
            status: is_problem.then_some(status.as_u16()),
            detail,
            outcome,
            reason,
            event_id,
        };
        let mut response = Response::new(serde_json::to_string(&body).expect("an answer is JSON"));
        *response.status_mut() = status;
        let content_type = if is_problem { "application/problem+json" } else { "application/json" };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(span) = retry_after {
            let seconds = span.as_millis().div_ceil(1000).max(1) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// The body of an answer: plain JSON for 2xx, and a problem by RFC 9457 for every other status. The
/// problem has no `type`, which means `about:blank`.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "eventId", skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
}
