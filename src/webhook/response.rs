//! The one table: what became of a request, and what its sender is told.
//!
//! SendPilot takes any 2xx as final and retries everything else until 77 minutes have passed. So
//! the answer is 2xx only if nothing can be lost any more. It is 4xx if a retry cannot help, and
//! 409 or 503 with `Retry-After` if a retry can.
//!
//! An alert has to be published for a 2xx. A message to the lead status stream only has to be
//! claimed. Its row is then pending, and the redrive publishes it without SendPilot's help; only
//! turning the stream off ends the wait otherwise. If the answer were 503 until the stream works
//! again, alerts would stop too: Svix disables an endpoint that fails for five days
//! (<https://docs.svix.com/retries>).

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Largest body that is read, in bytes: the most that SNS would publish.
pub const MAX_BODY: usize = 256 * 1024;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The alert is out.
    Alerted,
    /// No alert was due, and the message to the lead status stream is out.
    Streamed,
    /// No alert was due. The message to the lead status stream is claimed, and the redrive
    /// publishes it.
    Pending,
    /// The message to the lead status stream is never published, because the stream is off.
    /// SendPilot never gets this as an answer.
    Discarded,
    /// Another alert has told the same of the same lead, or is claimed and will.
    Debounced,
    /// What it calls for was done already.
    Duplicate,
    /// A genuine event that calls for nothing.
    Ignored,
    /// Another attempt has the delivery in hand. It may still die, so this is no success.
    InProgress {
        /// Time until its lease ends.
        retry_after: Duration,
    },
    /// The ledger or the topic did not do its part.
    Unavailable {
        /// Time until another attempt can be of use.
        retry_after: Duration,
    },
    /// No signing secret of our own is at hand, so there is no telling who sent this.
    NoSecret {
        /// Time until it is worth while to look for one again.
        retry_after: Duration,
        /// What to mend.
        detail: String,
    },
    /// Genuine, but no event; the text says what to mend.
    Malformed(String),
    /// Not signed by a secret of ours, or not now.
    Unauthorized {
        /// `missing`, `malformed`, `mismatch` or `stale`.
        reason: &'static str,
        /// What to mend.
        detail: String,
    },
    /// Another path.
    NotFound,
    /// Another method.
    MethodNotAllowed,
    /// Over [`MAX_BODY`].
    TooLarge,
}

impl Outcome {
    /// Returns the outcome of an event with two deliveries. `self` is the outcome of the alert,
    /// `stream` that of the message to the lead status stream. The alert decides, unless the
    /// message could not be claimed: then only SendPilot's next attempt can save the message.
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

    /// Returns the outcome of a message to the lead status stream whose row certainly exists.
    #[must_use]
    pub fn once_claimed(self) -> Self {
        match self {
            Self::InProgress { .. } | Self::Unavailable { .. } => Self::Pending,
            outcome => outcome,
        }
    }

    /// As it stands in answers and logs.
    pub fn name(&self) -> &'static str {
        self.entry().1
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.entry().0
    }

    fn entry(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Alerted => (StatusCode::OK, "alerted"),
            Self::Streamed => (StatusCode::OK, "streamed"),
            Self::Pending => (StatusCode::OK, "pending"),
            Self::Discarded => (StatusCode::OK, "discarded"),
            Self::Debounced => (StatusCode::OK, "debounced"),
            Self::Duplicate => (StatusCode::OK, "duplicate"),
            Self::Ignored => (StatusCode::OK, "ignored"),
            Self::InProgress { .. } => (StatusCode::CONFLICT, "in_progress"),
            Self::Unavailable { .. } | Self::NoSecret { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        }
    }

    fn header(&self) -> Option<(header::HeaderName, HeaderValue)> {
        let seconds = |span: Duration| HeaderValue::from(span.as_millis().div_ceil(1000).max(1) as u64);
        match self {
            Self::InProgress { retry_after }
            | Self::Unavailable { retry_after }
            | Self::NoSecret { retry_after, .. } => Some((header::RETRY_AFTER, seconds(*retry_after))),
            Self::MethodNotAllowed => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            _ => None,
        }
    }

    /// Why a signature was refused, in a word.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorized { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Why a request was refused for good, in a word, whatever was wrong with it.
    pub fn rejection(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorized { reason, .. } => Some(reason),
            Self::Malformed(_) => Some("body"),
            Self::NotFound | Self::MethodNotAllowed => Some("route"),
            Self::TooLarge => Some("too_large"),
            Self::Alerted | Self::Streamed | Self::Debounced | Self::Duplicate | Self::Ignored => None,
            Self::Pending | Self::Discarded => None,
            Self::InProgress { .. } | Self::Unavailable { .. } | Self::NoSecret { .. } => None,
        }
    }

    /// What to mend, where there is something to mend.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Alerted | Self::Streamed | Self::Debounced | Self::Duplicate | Self::Ignored => None,
            Self::Pending | Self::Discarded => None,
            Self::InProgress { .. } => {
                Some("another delivery of this event is being worked on; send it again after Retry-After")
            }
            Self::Unavailable { .. } => {
                Some("not every message for this event is published or safely stored; send it again after Retry-After")
            }
            Self::Malformed(detail) | Self::Unauthorized { detail, .. } | Self::NoSecret { detail, .. } => Some(detail),
            Self::NotFound => Some("webhooks are received at POST /webhooks/sendpilot"),
            Self::MethodNotAllowed => Some("webhooks are sent by POST"),
            Self::TooLarge => Some("the body must be at most 256 KiB (262144 bytes)"),
        }
    }
}

/// An answer's body: plain for 2xx, a problem of RFC 9457 (whose `type` is `about:blank` where it is left out) for all else.
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

/// Answers a request. `event_id` is that of the event, once it is known and genuine.
#[expect(clippy::expect_used, reason = "strings and a number under fixed names always serialize to JSON")]
pub fn answer(outcome: &Outcome, event_id: Option<&str>) -> Response<String> {
    let status = outcome.status();
    let problem = outcome.detail().map(|detail| (status, detail));
    let body = Body {
        title: problem.and_then(|(status, _)| status.canonical_reason()),
        status: problem.map(|(status, _)| status.as_u16()),
        detail: problem.map(|(_, detail)| detail),
        outcome: outcome.name(),
        reason: outcome.reason(),
        event_id,
    };
    let mut response = Response::new(serde_json::to_string(&body).expect("an answer is JSON"));
    *response.status_mut() = status;
    let content_type = if problem.is_some() { "application/problem+json" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().extend(outcome.header());
    response
}
