//! The signing secrets that count at this moment: those of the environment, or those that Secrets Manager holds, fetched and
//! kept fresh.
//!
//! | when | what is done |
//! |---|---|
//! | the function starts | a fetch |
//! | a request comes, and the last whole fetch was [`MAX_AGE`] ago | a fetch: a secret that was withdrawn must not count for long |
//! | a request comes, and the last fetch failed | a fetch, if the bucket allows one |
//! | a signature may be by a secret that we do not have | a fetch, if the bucket allows one; then it is verified anew |
//!
//! The bucket holds [`BURST`] fetches and gets one back every [`PAUSE`]: what a stray forgery takes, a rotation does not miss,
//! and in a flood of forgeries a process fetches six times a minute, at two calls each: nine cents for a whole day of it.
//!
//! Both versions count, `AWSCURRENT` and `AWSPREVIOUS`, so a rotation is one `put-secret-value`. Until a fetch has brought
//! something, nobody gets in. From then on, a fetch that failed, in whole or in part, takes nothing away.
//!
//! Each version is checked separately. While one version is refused, the other one still counts. If
//! no usable secret made a signature meanwhile, the answer is 503 instead of 401, because SendPilot
//! may sign with the refused secret. A refused current version is a failure, and every request
//! counts it. A refused previous version causes no additional fetch.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use crate::aws::Aws;
use crate::error::chain;
use crate::invocation::{Invocation, within};
use crate::secrets::signing::{SecretError, Secrets};
use crate::timestamp::Timestamp;

/// How long what was fetched counts without another look.
pub const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The most fetches out of turn, one after another.
pub const BURST: u32 = 5;

/// How long it takes until one more is allowed.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Longest wait for the fetch at the start. Lambda gives the start ten seconds, and then begins it anew.
pub const START: Duration = Duration::from_secs(3);

/// Where the secrets are.
#[derive(Debug)]
pub enum Source {
    /// Here. For local runs and tests.
    Given(Secrets),
    /// In the secret of Secrets Manager that has this name or ARN.
    Stored(String),
}

/// The secrets that are known, and where to look for others.
#[derive(Debug)]
pub struct Keyring {
    /// None where the environment holds the secrets themselves: they never change.
    stored: Option<Stored>,
    /// Locked while a fetch lasts: whoever comes meanwhile waits for it, instead of fetching too.
    held: Mutex<Held>,
}

/// A secret in Secrets Manager.
#[derive(Debug)]
struct Stored {
    client: Client,
    id: String,
}

/// What is known of it.
#[derive(Debug)]
struct Held {
    /// None until a fetch has brought some.
    secrets: Option<Arc<Secrets>>,
    /// When the last fetch ended.
    fetched_at: Timestamp,
    /// What that one could not get.
    failure: Option<FetchError>,
    /// Why a version is refused, as of the last fetch that could read that version.
    refused: Refused,
    /// When the bucket of fetches out of turn is full again.
    full_at: Timestamp,
}

/// Why each version is refused. A previous version that is absent or empty is not refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Refused {
    current: Option<SecretError>,
    previous: Option<SecretError>,
}

impl Refused {
    fn errors(self) -> impl Iterator<Item = FetchError> {
        let versions = [(CURRENT, self.current), (PREVIOUS, self.previous)];
        versions.into_iter().filter_map(|(version, error)| Some(FetchError::Unusable(version, error?)))
    }
}

/// The result of a fetch.
struct Fetched {
    /// The secrets of the versions that can be used.
    secrets: Option<Secrets>,
    refused: Refused,
    /// Why a version could not be read, or why the current one is refused.
    failure: Option<FetchError>,
}

/// Secrets Manager's labels of the two versions that count.
const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// There is nothing to verify a signature with.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSecret {
    /// Time until another fetch is allowed.
    pub retry_after: Duration,
    /// What to mend.
    pub detail: String,
}

/// Why a fetch brought nothing, or not all. The text is fit for a stranger's eyes; its sources are for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("Secrets Manager does not give out this endpoint's signing secret; the function's log says why")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    #[error("Secrets Manager did not answer in time when asked for this endpoint's signing secret")]
    TimedOut,
    #[error("this endpoint's signing secret does not exist in Secrets Manager, or has no value; put SendPilot's there")]
    Absent,
    #[error("this endpoint's signing secret in Secrets Manager, version {0}: {1}")]
    Unusable(&'static str, SecretError),
}

impl Keyring {
    /// Those of this source. What is stored is fetched now; if that fails, later.
    pub async fn open(source: Source, aws: &Aws, now: Timestamp) -> Self {
        let stored = match source {
            Source::Given(secrets) => return Self::given(secrets),
            Source::Stored(id) => Stored { client: aws.secrets_manager(), id },
        };
        let mut held = Held::new(None, now);
        let begun = Instant::now();
        let fetched = stored.fetch(held.refused, begun + START).await;
        held.learn(fetched, now.after(begun.elapsed()));
        Self { stored: Some(stored), held: Mutex::new(held) }
    }

    /// These, and no others.
    pub fn given(secrets: Secrets) -> Self {
        let held = Held::new(Some(Arc::new(secrets)), Timestamp::from_millis(0));
        Self { stored: None, held: Mutex::new(held) }
    }

    /// The secrets that count now, fetched anew where it is time to.
    ///
    /// # Errors
    /// If there never were any.
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

    /// The secrets after a fetch out of turn. None if they are the same as before, or none is allowed now.
    pub async fn others(&self, invocation: &Invocation) -> Option<Arc<Secrets>> {
        let stored = self.stored.as_ref()?;
        let mut held = self.held.lock().await;
        if !held.take(invocation.now()) {
            return None;
        }
        held.refresh(stored, invocation).await.then(|| held.secrets.clone()).flatten()
    }

    /// Returns why a signature that no usable secret made may still be genuine: a version is
    /// refused, and SendPilot may sign with the secret in that version. Returns `None` if no
    /// version is refused.
    pub async fn refused(&self, invocation: &Invocation) -> Option<NoSecret> {
        let held = self.held.lock().await;
        let detail = held.refused.errors().next()?.to_string();
        Some(NoSecret { retry_after: held.wait(invocation.now()), detail })
    }

    /// Whether the current version is refused. Every request counts this fault while it lasts. The
    /// previous version still lets events in, so nothing else would show the fault.
    pub async fn refuses_current(&self) -> bool {
        self.held.lock().await.refused.current.is_some()
    }
}

impl Held {
    fn new(secrets: Option<Arc<Secrets>>, now: Timestamp) -> Self {
        Self { secrets, fetched_at: now, failure: None, refused: Refused::default(), full_at: now }
    }

    /// Fetches both versions. Returns whether anything has changed.
    async fn refresh(&mut self, stored: &Stored, invocation: &Invocation) -> bool {
        let fetched = stored.fetch(self.refused, invocation.schedule().secrets_by).await;
        self.learn(fetched, invocation.now())
    }

    /// Takes a fetch out of the bucket, if there is one in it.
    fn take(&mut self, now: Timestamp) -> bool {
        let longest = PAUSE * BURST;
        // Never later than that, or a clock that was set back would keep the bucket shut.
        self.full_at = self.full_at.clamp(now, now.after(longest));
        let without_one = self.full_at.after(PAUSE);
        let allowed = without_one.since(now) <= longest;
        if allowed {
            self.full_at = without_one;
        }
        allowed
    }

    /// The time until there is one in it.
    fn wait(&self, now: Timestamp) -> Duration {
        self.full_at.since(now.after(PAUSE * (BURST - 1)))
    }

    /// Takes over what a fetch brought, and tells whether that changes anything. What counted counts on until a fetch
    /// misses nothing: it may be what could not be fetched.
    fn learn(&mut self, Fetched { secrets: fetched, refused, failure }: Fetched, now: Timestamp) -> bool {
        let secrets = match (fetched, &self.secrets) {
            (Some(fetched), Some(before)) if failure.is_some() => Some(Arc::new(fetched.and(before))),
            (Some(fetched), _) => Some(Arc::new(fetched)),
            (None, before) => before.clone(),
        };
        let changed = secrets != self.secrets || refused != self.refused;
        let held = secrets.as_ref().map_or(0, |secrets| secrets.count());
        let version_refused = Refused { current: None, ..refused }.errors().next();
        for failure in failure.iter().chain(&version_refused) {
            error!(held, failure = chain(failure), "signing secret");
        }
        if failure.is_none() && version_refused.is_none() && changed {
            info!(held, "signing secret");
        }
        (self.secrets, self.refused, self.failure, self.fetched_at) = (secrets, refused, failure, now);
        changed
    }
}

impl Stored {
    /// What both versions hold, and what went wrong with either. In this order: a rotation in between makes the current one
    /// the previous one, and it is found all the same.
    ///
    /// `before` says why versions are refused so far. A version that cannot be read keeps its
    /// entry.
    async fn fetch(&self, before: Refused, by: Instant) -> Fetched {
        let mut fetched = Fetched { secrets: None, refused: before, failure: None };
        match self.version(CURRENT, by).await {
            Ok(current) => {
                fetched.refused.current = current.as_ref().err().copied();
                fetched.failure = fetched.refused.current.map(|error| FetchError::Unusable(CURRENT, error));
                fetched.secrets = current.ok();
            }
            Err(unreadable) => return Fetched { failure: Some(unreadable), ..fetched },
        }
        match self.version(PREVIOUS, by).await {
            Ok(Ok(previous)) => {
                fetched.refused.previous = None;
                fetched.secrets = Some(match fetched.secrets {
                    Some(current) => current.and(&previous),
                    None => previous,
                });
            }
            // As before the first rotation, and after the placeholder.
            Err(FetchError::Absent) | Ok(Err(SecretError::Empty)) => fetched.refused.previous = None,
            Ok(Err(unusable)) => fetched.refused.previous = Some(unusable),
            Err(unreadable) => fetched.failure = fetched.failure.or(Some(unreadable)),
        }
        fetched
    }

    /// Returns the secrets in this version, or why the version is refused. Fails if the version
    /// cannot be read.
    async fn version(&self, stage: &str, by: Instant) -> Result<Result<Secrets, SecretError>, FetchError> {
        let get = self.client.get_secret_value().secret_id(&self.id).version_stage(stage);
        let get = async {
            get.send().await.map_err(|error| match error.as_service_error() {
                Some(GetSecretValueError::ResourceNotFoundException(_)) => FetchError::Absent,
                // As text: the error itself carries the whole answer, which may be a secret that could not be read.
                _ => FetchError::Refused(chain(&error).into()),
            })
        };
        let value = within(by, get, FetchError::TimedOut).await?;
        Ok(value.secret_string().ok_or(SecretError::Binary).and_then(Secrets::stored))
    }
}
