//! Returns the signing secrets that are valid now. They come from the environment or from Secrets
//! Manager. Secrets from Secrets Manager are kept fresh.
//!
//! | when | action |
//! |---|---|
//! | the function starts | a fetch |
//! | the last fetch was [`MAX_AGE`] before a request | a fetch, which may withdraw a secret |
//! | the last fetch before a request failed | a fetch, if the bucket allows one |
//! | another secret may have signed a request | a fetch, if the bucket allows one; a new check |
//!
//! The bucket has room for [`MAX_FETCHES`] fetches and gets one back every [`REFILL_INTERVAL`]. A
//! bucket for one fetch would not be enough. After one forgery, a genuine event that a rotated
//! secret signed would be refused until the interval is over. In a flood of forgeries, a process
//! fetches six times a minute, at two calls each: nine cents for a whole day.
//!
//! Both versions are valid, `AWSCURRENT` and `AWSPREVIOUS`, so a rotation is one
//! `put-secret-value`. Until the first fetch succeeds, no request is accepted. If a later fetch
//! fails, in whole or in part, the secrets so far stay valid.
//!
//! Each version is checked separately. While one version is refused, the other one stays valid. If
//! a signature matches no usable secret meanwhile, the answer is 503 instead of 401, because
//! SendPilot may sign with the refused secret. A refused current version is a failure, and every
//! request counts it. A refused previous version causes no additional fetch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use crate::aws::Aws;
use crate::error::chain;
use crate::invocation::Invocation;
use crate::secrets::secrets_manager::{FetchError, Fetched, Refused, StoredSecret};
use crate::secrets::signing::Secrets;
use crate::timestamp::Timestamp;

/// The time for which fetched secrets are valid without another fetch.
pub const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The number of fetches in a full bucket.
pub const MAX_FETCHES: u32 = 5;

/// The time in which the bucket gets one fetch back.
pub const REFILL_INTERVAL: Duration = Duration::from_secs(10);

/// The longest wait for the fetch at the start. Lambda allows ten seconds for a start, and then
/// starts the function again.
pub const START_TIMEOUT: Duration = Duration::from_secs(3);

/// The source of the secrets.
#[derive(Debug)]
pub enum Source {
    /// These secrets, from the environment. For local runs and tests.
    Given(Secrets),
    /// The secret in Secrets Manager with this name or ARN.
    Stored(String),
}

/// The known secrets, and the place from which others are fetched.
#[derive(Debug)]
pub struct Keyring {
    /// `None` if the secrets come from the environment. They then never change.
    stored: Option<StoredSecret>,
    /// Locked during a fetch, so that a second request waits for it instead of fetching too.
    held: Mutex<Held>,
}

/// The result of the last fetches.
#[derive(Debug)]
struct Held {
    /// `None` until a fetch has succeeded.
    secrets: Option<Arc<Secrets>>,
    /// The time at which the last fetch ended.
    fetched_at: Timestamp,
    /// Why the last fetch failed, in whole or in part.
    failure: Option<FetchError>,
    /// Why each version is refused, according to the last fetch that could read it.
    refused: Refused,
    /// The time at which the bucket is full again.
    full_at: Timestamp,
}

/// The error if no secret is available that could verify a signature.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSecret {
    /// The time until another fetch is allowed.
    pub retry_after: Duration,
    /// The text that says what to fix.
    pub detail: String,
}

impl Keyring {
    /// Creates a keyring, and fetches a stored secret. If this fetch fails, the next request
    /// fetches again.
    pub async fn new(source: Source, aws: &Aws, now: Timestamp) -> Self {
        let stored = match source {
            Source::Given(secrets) => return Self::from_secrets(secrets),
            Source::Stored(id) => StoredSecret { client: aws.secrets_manager(), id },
        };
        let mut held = Held::new(None, now);
        let begun = Instant::now();
        let fetched = stored.fetch(held.refused, begun + START_TIMEOUT).await;
        held.apply(fetched, now.after(begun.elapsed()));
        Self { stored: Some(stored), held: Mutex::new(held) }
    }

    /// Creates a keyring of these secrets, which never changes.
    pub fn from_secrets(secrets: Secrets) -> Self {
        let held = Held::new(Some(Arc::new(secrets)), Timestamp::from_millis(0));
        Self { stored: None, held: Mutex::new(held) }
    }

    /// Returns the secrets that are valid now. Fetches them before if a fetch is due.
    ///
    /// # Errors
    /// If no fetch has succeeded yet.
    pub async fn secrets(&self, invocation: &Invocation) -> Result<Arc<Secrets>, NoSecret> {
        let mut held = self.held.lock().await;
        let now = invocation.now();
        let due = if held.failure.is_some() { held.take(now) } else { now.since(held.fetched_at) >= MAX_AGE };
        if let Some(stored) = &self.stored
            && due
        {
            held.refresh(stored, invocation).await;
        }
        held.secrets.clone().ok_or_else(|| NoSecret {
            retry_after: held.wait(invocation.now()),
            detail: held.failure.as_ref().map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// Fetches at once, and returns the secrets. Returns `None` if nothing has changed, or if the
    /// bucket is empty.
    pub async fn others(&self, invocation: &Invocation) -> Option<Arc<Secrets>> {
        let stored = self.stored.as_ref()?;
        let mut held = self.held.lock().await;
        if !held.take(invocation.now()) {
            return None;
        }
        held.refresh(stored, invocation).await.then(|| held.secrets.clone()).flatten()
    }

    /// Returns why a signature that matches no usable secret may still be genuine: a version is
    /// refused, and SendPilot may sign with the secret in it. Returns `None` if no version is
    /// refused.
    pub async fn refused(&self, invocation: &Invocation) -> Option<NoSecret> {
        let held = self.held.lock().await;
        let detail = held.refused.errors().next()?.to_string();
        Some(NoSecret { retry_after: held.wait(invocation.now()), detail })
    }

    /// Returns whether the current version is refused. Every request counts this fault, because
    /// nothing else would show it: events are still accepted with the previous version.
    pub async fn refuses_current(&self) -> bool {
        self.held.lock().await.refused.current.is_some()
    }
}

impl Held {
    fn new(secrets: Option<Arc<Secrets>>, now: Timestamp) -> Self {
        Self { secrets, fetched_at: now, failure: None, refused: Refused::default(), full_at: now }
    }

    /// Fetches both versions. Returns whether anything has changed.
    async fn refresh(&mut self, stored: &StoredSecret, invocation: &Invocation) -> bool {
        let fetched = stored.fetch(self.refused, invocation.schedule().prepare_by).await;
        self.apply(fetched, invocation.now())
    }

    /// Takes a fetch out of the bucket. Returns `false` if the bucket is empty.
    fn take(&mut self, now: Timestamp) -> bool {
        let longest = REFILL_INTERVAL * MAX_FETCHES;
        // Without this limit, a clock that was set back would keep the bucket empty.
        self.full_at = self.full_at.clamp(now, now.after(longest));
        let without_one = self.full_at.after(REFILL_INTERVAL);
        let allowed = without_one.since(now) <= longest;
        if allowed {
            self.full_at = without_one;
        }
        allowed
    }

    /// Returns the time until a fetch is in the bucket.
    fn wait(&self, now: Timestamp) -> Duration {
        self.full_at.since(now.after(REFILL_INTERVAL * (MAX_FETCHES - 1)))
    }

    /// Applies the result of a fetch. Returns whether anything has changed. If the fetch failed in
    /// part, the earlier secrets stay valid, because the missing one may be among them.
    fn apply(&mut self, Fetched { secrets: fetched, refused, failure }: Fetched, now: Timestamp) -> bool {
        let secrets = match (fetched, &self.secrets) {
            (Some(fetched), Some(before)) if failure.is_some() => Some(Arc::new(fetched.and(before))),
            (Some(fetched), _) => Some(Arc::new(fetched)),
            (None, before) => before.clone(),
        };
        let changed = secrets != self.secrets || refused != self.refused;
        let held = secrets.as_ref().map_or(0, |secrets| secrets.count());
        let version_refused = Refused { current: None, ..refused }.errors().next();
        for failure in failure.iter().chain(&version_refused) {
            error!(held, failure = chain(failure), "signing secret not usable");
        }
        if failure.is_none() && version_refused.is_none() && changed {
            info!(held, "signing secret fetched");
        }
        (self.secrets, self.refused, self.failure, self.fetched_at) = (secrets, refused, failure, now);
        changed
    }
}
