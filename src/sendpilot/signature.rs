//! Verifies a request: turns headers and raw bytes into a [`Verified`] body, or says why it is
//! rejected.
//!
//! Two schemes are in use, and both have a header `webhook-signature`. So the content of the header
//! decides which scheme applies, not its name:
//!
//! | | Svix / Standard Webhooks | SendPilot's own documentation |
//! |---|---|---|
//! | header | `v1,<base64>` | `v1,t=<seconds>,s=<hex>`; the `v1,` may be missing |
//! | letter case of hex | | either |
//! | several signatures | separated by spaces | not documented: spaces, or an `s=` for each |
//! | signed content | `{id}.{timestamp}.{body}` | `{t}.{body}` |
//! | key | the bytes that `whsec_<base64>` decodes to | the secret as text |
//! | greatest age | [`MAX_SKEW`] | [`MAX_AGE_DOCUMENTED`] |
//!
//! No crate supports a clock that the caller passes in, several secrets, and both schemes. The
//! crate `standardwebhooks` 1.0.1 also computes with the timestamp before it has checked the
//! signature, and panics on `i64::MIN` if overflow checks are on. This module computes with no
//! number, and trusts no byte, before the signature has been checked.

use std::time::Duration;

use data_encoding::{BASE64, Encoding, HEXLOWER_PERMISSIVE};
use hmac::Mac;
use http::{HeaderMap, HeaderValue};

use crate::secrets::signing::{Keyed, Secrets};
use crate::timestamp::Timestamp;

/// The largest difference between a timestamp and our clock, in either direction, if every attempt
/// has a new signature. Standard Webhooks recommends this value.
pub const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// The largest age of a signature of the documented scheme. SendPilot does not document whether a
/// retry has a new `t`, and the last retry comes after 77 minutes. A replay in this time publishes
/// nothing, because the ledger has the delivery already.
pub const MAX_AGE_DOCUMENTED: Duration = Duration::from_secs(2 * 60 * 60);

/// Two families of names for the same three headers.
const FAMILIES: [Family; 2] = [
    Family { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" },
    Family { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" },
];

struct Family {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

/// A body that was signed with one of our secrets. Only [`verify`] creates one, and
/// [`event::parse`](super::event::parse) accepts nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a> {
    body: &'a [u8],
    message_id: Option<&'a str>,
}

impl<'a> Verified<'a> {
    /// Returns the bytes that were signed.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the signed message id, which is the same on every attempt. The documented scheme has
    /// none.
    pub fn message_id(&self) -> Option<&'a str> {
        self.message_id
    }
}

/// Why a request is rejected. The message says what to fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No signature header of either family.
    #[error("the request has no svix-signature or webhook-signature header")]
    Unsigned,
    /// A signature header without another header that the signature needs.
    #[error("the request has a signature header, but no {0} header")]
    Incomplete(&'static str),
    /// The message id is empty, or contains a `.`, which would make the signed content ambiguous.
    #[error("the {0} header must not be empty and must not contain a dot")]
    BadId(&'static str),
    /// The timestamp is not plain decimal digits.
    #[error("the signature's timestamp must be Unix seconds in plain decimal digits")]
    BadTimestamp,
    /// The signature header follows neither scheme.
    #[error(
        "the signature header must be `v1,<base64>` (one or more, separated by spaces) or `v1,t=<Unix seconds>,s=<hex>`"
    )]
    BadSignature,
    /// The signature over these bytes was made with none of our secrets.
    #[error(
        "the signature matches no signing secret of this endpoint; compare the secret with the one SendPilot shows"
    )]
    Mismatch,
    /// Signed with one of our secrets, but too long ago.
    #[error("the signature is genuine but too old; sign the request again and send it")]
    Stale,
    /// Signed with one of our secrets, but the timestamp is ahead of our clock.
    #[error("the signature is genuine but dated in the future; correct the sender's clock")]
    Early,
    /// Signed with one of our secrets, but the timestamp is in this unit instead of seconds.
    #[error("the signature is genuine, but its timestamp must be in Unix seconds and seems to be in {0}")]
    NotSeconds(&'static str),
}

impl Rejection {
    /// Returns whether the signature was made with one of our secrets, and only its time is wrong.
    fn is_genuine(self) -> bool {
        matches!(self, Self::Stale | Self::Early | Self::NotSeconds(_))
    }

    /// Returns the kind of rejection, for metrics and programs: `missing`, `malformed`, `mismatch`
    /// or `stale`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unsigned | Self::Incomplete(_) => "missing",
            Self::BadId(_) | Self::BadTimestamp | Self::BadSignature => "malformed",
            Self::Mismatch => "mismatch",
            Self::Stale | Self::Early | Self::NotSeconds(_) => "stale",
        }
    }
}

/// Returns the body if any signature of the request was made with one of the secrets, and has an
/// age that its scheme allows. Of the documented scheme, the first four signatures in a header are
/// tried.
///
/// # Errors
/// If no signature passes. If the request has two signature headers, the reason is that of the
/// genuine one, or else of the first one.
pub fn verify<'a>(
    headers: &'a HeaderMap,
    body: &'a [u8],
    secrets: &Secrets,
    now: Timestamp,
) -> Result<Verified<'a>, Rejection> {
    let mut rejection = None;
    for family in &FAMILIES {
        if let Some(signature) = headers.get(family.signature) {
            match Signed::read(family, signature, headers).and_then(|signed| signed.check(body, secrets, now)) {
                Ok(verified) => return Ok(verified),
                Err(reason) if reason.is_genuine() => rejection = Some(reason),
                Err(reason) => rejection = rejection.or(Some(reason)),
            }
        }
    }
    Err(rejection.unwrap_or(Rejection::Unsigned))
}

/// Returns whether a request that [`verify`] has rejected may be genuine under a secret that we do
/// not have: at least one of its signatures is well formed and has the right age.
pub(crate) fn may_hold_under_another_secret(headers: &HeaderMap, now: Timestamp) -> bool {
    FAMILIES.iter().any(|family| {
        let signed = headers.get(family.signature).map(|signature| Signed::read(family, signature, headers));
        matches!(signed, Some(Ok(signed)) if signed.is_timely(now))
    })
}

/// The maximum number of signatures of the documented scheme that are tried on one header. Each can
/// have its own time, and then costs another hash of the whole body.
const MAX_DOCUMENTED: usize = 4;

/// A decoded HMAC-SHA-256 that has not been compared yet.
type Candidate = [u8; 32];

/// The content of one signature header, before any of it is trusted.
enum Signed<'a> {
    Standard { id: &'a str, timestamp: Seconds<'a>, candidates: Vec<Candidate> },
    Documented(Vec<(Seconds<'a>, Candidate)>),
}

/// Unix seconds, and the digits as they were signed.
#[derive(Clone, Copy)]
struct Seconds<'a> {
    digits: &'a str,
    value: u64,
}

impl<'a> Seconds<'a> {
    fn read(digits: &'a str) -> Result<Self, Rejection> {
        // `u64::from_str` alone would also take a leading `+`.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.parse().ok().filter(|_| plain).ok_or(Rejection::BadTimestamp)?;
        Ok(Self { digits, value })
    }

    fn check(self, now: Timestamp, oldest: Duration) -> Result<(), Rejection> {
        let now = now.as_secs();
        if now.saturating_sub(self.value) > oldest.as_secs() {
            Err(Rejection::Stale)
        } else if self.value.saturating_sub(now) > MAX_SKEW.as_secs() {
            Err(self.finer_unit(now).map_or(Rejection::Early, Rejection::NotSeconds))
        } else {
            Ok(())
        }
    }

    /// Returns the unit finer than seconds in which this timestamp is between half and double of
    /// `now`. No clock is that far off. The timestamp is only divided, so nothing overflows.
    fn finer_unit(self, now: u64) -> Option<&'static str> {
        let units = [("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)];
        let fits = |per_second: u64| (now / 2..=now.saturating_mul(2)).contains(&(self.value / per_second));
        units.into_iter().find(|(_, per_second)| fits(*per_second)).map(|(unit, _)| unit)
    }
}

impl<'a> Signed<'a> {
    fn read(family: &Family, signature: &'a HeaderValue, headers: &'a HeaderMap) -> Result<Self, Rejection> {
        let text = signature.to_str().map_err(|_| Rejection::BadSignature)?;
        // Several signatures are separated by spaces. API Gateway joins a repeated header with
        // commas.
        let tokens: Vec<_> = text.split([' ', ',']).filter(|token| !token.is_empty()).collect();
        let has = |field| tokens.iter().any(|token| token.starts_with(field));
        if has("t=") && has("s=") { Self::documented(&tokens) } else { Self::standard(family, &tokens, headers) }
    }

    /// Reads `[v1,]t=<seconds>,s=<hex>[,s=<hex>]`, any number of times. An `s` belongs to the `t`
    /// before it.
    fn documented(tokens: &[&'a str]) -> Result<Self, Rejection> {
        let (mut timestamp, mut candidates) = (None, Vec::new());
        for token in tokens {
            match token.split_once('=') {
                Some(("t", digits)) => timestamp = Some(Seconds::read(digits)?),
                Some(("s", hex)) => {
                    let timestamp = timestamp.ok_or(Rejection::BadSignature)?;
                    candidates.extend(decode(&HEXLOWER_PERMISSIVE, hex).map(|candidate| (timestamp, candidate)));
                }
                None if *token != "v1" => return Err(Rejection::BadSignature),
                // The version, or a field that SendPilot may add later.
                _ => {}
            }
        }
        candidates.truncate(MAX_DOCUMENTED);
        if candidates.is_empty() { Err(Rejection::BadSignature) } else { Ok(Self::Documented(candidates)) }
    }

    /// Reads `v1,<base64>`, any number of times. Signatures of other versions are ignored.
    fn standard(family: &Family, tokens: &[&'a str], headers: &'a HeaderMap) -> Result<Self, Rejection> {
        let header = |name| headers.get(name).ok_or(Rejection::Incomplete(name));
        let id = header(family.id)?.to_str().map_err(|_| Rejection::BadId(family.id))?;
        if id.is_empty() || id.contains('.') {
            return Err(Rejection::BadId(family.id));
        }
        let timestamp = header(family.timestamp)?.to_str().map_err(|_| Rejection::BadTimestamp)?;
        let timestamp = Seconds::read(timestamp)?;
        let versioned = tokens.windows(2).filter(|pair| pair[0] == "v1");
        let candidates: Vec<_> = versioned.filter_map(|pair| decode(&BASE64, pair[1])).collect();
        if candidates.is_empty() {
            return Err(Rejection::BadSignature);
        }
        Ok(Self::Standard { id, timestamp, candidates })
    }

    fn is_timely(&self, now: Timestamp) -> bool {
        match self {
            Self::Standard { timestamp, .. } => timestamp.check(now, MAX_SKEW).is_ok(),
            Self::Documented(candidates) => {
                candidates.iter().any(|(time, _)| time.check(now, MAX_AGE_DOCUMENTED).is_ok())
            }
        }
    }

    /// Checks the signature first and its age last, so that only a genuine signature is called
    /// stale.
    fn check(self, body: &'a [u8], secrets: &Secrets, now: Timestamp) -> Result<Verified<'a>, Rejection> {
        match self {
            Self::Standard { id, timestamp, candidates } => {
                let content = [id.as_bytes(), b".", timestamp.digits.as_bytes(), b".", body];
                check_signature(secrets.iter().flat_map(|secret| &secret.standard), &content, &candidates)?;
                timestamp.check(now, MAX_SKEW)?;
                Ok(Verified { body, message_id: Some(id) })
            }
            Self::Documented(candidates) => {
                let mut rejection = Rejection::Mismatch;
                for (timestamp, candidate) in candidates {
                    let content = [timestamp.digits.as_bytes(), b".", body];
                    let keys = secrets.iter().flat_map(|secret| &secret.documented);
                    if check_signature(keys, &content, &[candidate]).is_ok() {
                        match timestamp.check(now, MAX_AGE_DOCUMENTED) {
                            Ok(()) => return Ok(Verified { body, message_id: None }),
                            Err(reason) => rejection = reason,
                        }
                    }
                }
                Err(rejection)
            }
        }
    }
}

fn decode(encoding: &Encoding, text: &str) -> Option<Candidate> {
    encoding.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Hashes the content once per key, and compares the hash with each signature in constant time.
fn check_signature<'a>(
    keys: impl Iterator<Item = &'a Keyed>,
    content: &[&[u8]],
    candidates: &[Candidate],
) -> Result<(), Rejection> {
    for key in keys {
        let mac = content.iter().fold(key.clone(), |mac, part| mac.chain_update(part));
        if candidates.iter().any(|candidate| mac.clone().verify_slice(candidate).is_ok()) {
            return Ok(());
        }
    }
    Err(Rejection::Mismatch)
}
