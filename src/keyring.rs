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
use crate::secret::{SecretError, Secrets};
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
    /// When the bucket of fetches out of turn is full again.
    full_at: Timestamp,
}

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
    #[error("this endpoint's signing secret in Secrets Manager {0}")]
    Unusable(#[from] SecretError),
}

impl Keyring {
    /// Those of this source. What is stored is fetched now; if that fails, later.
    pub async fn open(source: Source, aws: &Aws, now: Timestamp) -> Self {
        let stored = match source {
            Source::Given(secrets) => return Self::given(secrets),
            Source::Stored(id) => Stored { client: aws.secrets_manager(), id },
        };
        let mut held = Held { secrets: None, fetched_at: now, failure: None, full_at: now };
        let begun = Instant::now();
        let fetched = stored.fetch(begun + START).await;
        held.learn(fetched, now.after(begun.elapsed()));
        Self { stored: Some(stored), held: Mutex::new(held) }
    }

    /// These, and no others.
    pub fn given(secrets: Secrets) -> Self {
        let start = Timestamp::from_millis(0);
        let held = Held { secrets: Some(Arc::new(secrets)), fetched_at: start, failure: None, full_at: start };
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
            let fetched = stored.fetch(invocation.schedule().secrets_by).await;
            held.learn(fetched, invocation.now());
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
        let fetched = stored.fetch(invocation.schedule().secrets_by).await;
        held.learn(fetched, invocation.now()).then(|| held.secrets.clone()).flatten()
    }
}

impl Held {
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
    fn learn(&mut self, (fetched, failure): (Option<Secrets>, Option<FetchError>), now: Timestamp) -> bool {
        let secrets = match (fetched, &self.secrets) {
            (Some(fetched), Some(before)) if failure.is_some() => Some(Arc::new(fetched.and(before))),
            (Some(fetched), _) => Some(Arc::new(fetched)),
            (None, before) => before.clone(),
        };
        let changed = secrets != self.secrets;
        let held = secrets.as_ref().map_or(0, |secrets| secrets.count());
        match &failure {
            Some(failure) => error!(held, failure = chain(failure), "signing secret"),
            None if changed => info!(held, "signing secret"),
            None => {}
        }
        (self.secrets, self.failure, self.fetched_at) = (secrets, failure, now);
        changed
    }
}

impl Stored {
    /// What both versions hold, and what went wrong with either. In this order: a rotation in between makes the current one
    /// the previous one, and it is found all the same.
    async fn fetch(&self, by: Instant) -> (Option<Secrets>, Option<FetchError>) {
        let current = match self.version("AWSCURRENT", by).await {
            Err(FetchError::Unusable(error)) => Err(error),
            Err(unreadable) => return (None, Some(unreadable)),
            Ok(current) => Ok(current),
        };
        let previous = self.version("AWSPREVIOUS", by).await;
        match (current, previous) {
            (Ok(current), Ok(previous)) => (Some(current.and(&previous)), None),
            // As before the first rotation, and after the placeholder.
            (Ok(current), Err(FetchError::Absent | FetchError::Unusable(_))) => (Some(current), None),
            (Ok(current), Err(unreadable)) => (Some(current), Some(unreadable)),
            (Err(unusable), previous) => (previous.ok(), Some(unusable.into())),
        }
    }

    async fn version(&self, stage: &str, by: Instant) -> Result<Secrets, FetchError> {
        let get = self.client.get_secret_value().secret_id(&self.id).version_stage(stage);
        let get = async {
            get.send().await.map_err(|error| match error.as_service_error() {
                Some(GetSecretValueError::ResourceNotFoundException(_)) => FetchError::Absent,
                // As text: the error itself carries the whole answer, which may be a secret that could not be read.
                _ => FetchError::Refused(chain(&error).into()),
            })
        };
        let value = within(by, get, FetchError::TimedOut).await?;
        Ok(Secrets::stored(value.secret_string().ok_or(SecretError::Binary)?)?)
    }
}
