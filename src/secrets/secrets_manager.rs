//! Reads secrets from Secrets Manager. Fetches both versions of the signing secret, and says why a
//! version is unreadable or refused.

use std::error::Error;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use tokio::time::Instant;

use crate::error::chain;
use crate::invocation::within;
use crate::secrets::signing::{SecretError, Secrets};

/// Secrets Manager's labels of the two versions that are valid.
pub(super) const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// A secret in Secrets Manager.
#[derive(Debug)]
pub(super) struct StoredSecret {
    pub(super) client: Client,
    pub(super) id: String,
}

/// Why Secrets Manager returned no value.
pub(super) enum ReadError {
    /// There is no such secret, or no such version.
    Absent,
    Refused(Box<dyn Error + Send + Sync>),
    TimedOut,
}

/// Why each version is refused. A missing or empty previous version is not refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) current: Option<SecretError>,
    pub(super) previous: Option<SecretError>,
}

impl Refused {
    pub(super) fn errors(self) -> impl Iterator<Item = FetchError> {
        let versions = [(CURRENT, self.current), (PREVIOUS, self.previous)];
        versions.into_iter().filter_map(|(version, error)| Some(FetchError::Unusable(version, error?)))
    }
}

/// The result of a fetch.
pub(super) struct Fetched {
    /// The secrets of the versions that can be used.
    pub(super) secrets: Option<Secrets>,
    pub(super) refused: Refused,
    /// Why a version could not be read, or why the current one is refused.
    pub(super) failure: Option<FetchError>,
}

/// Why a fetch failed, in whole or in part. Anyone can get this message in an answer. Its sources
/// are only logged.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("Secrets Manager does not return this endpoint's signing secret; the function's log says why")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    #[error("Secrets Manager did not answer in time, so this endpoint's signing secret is unknown")]
    TimedOut,
    #[error(
        "this endpoint's signing secret does not exist in Secrets Manager, or has no value; store SendPilot's secret there"
    )]
    Absent,
    #[error("this endpoint's signing secret in Secrets Manager, version {0}: {1}")]
    Unusable(&'static str, SecretError),
}

impl From<ReadError> for FetchError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Absent => Self::Absent,
            ReadError::Refused(source) => Self::Refused(source),
            ReadError::TimedOut => Self::TimedOut,
        }
    }
}

impl StoredSecret {
    /// Fetches both versions, the current one first. If a rotation between the two calls makes it
    /// the previous one, it is fetched twice, and not missed.
    ///
    /// `before` says why each version was refused so far. A version that cannot be read now keeps
    /// its entry.
    pub(super) async fn fetch(&self, before: Refused, by: Instant) -> Fetched {
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
            // A new secret has no previous version. Once the first value is stored, the previous
            // version is the template's empty placeholder.
            Err(FetchError::Absent) | Ok(Err(SecretError::Empty)) => fetched.refused.previous = None,
            Ok(Err(unusable)) => fetched.refused.previous = Some(unusable),
            Err(unreadable) => fetched.failure = fetched.failure.or(Some(unreadable)),
        }
        fetched
    }

    /// Returns the secrets in this version, or why the version is refused. Fails if the version
    /// cannot be read.
    async fn version(&self, stage: &str, by: Instant) -> Result<Result<Secrets, SecretError>, FetchError> {
        Ok(self.value(stage, by).await?.ok_or(SecretError::Binary).and_then(|value| Secrets::parse(&value)))
    }

    /// Returns the text in this version, or `None` if it is binary.
    pub(super) async fn value(&self, stage: &str, by: Instant) -> Result<Option<String>, ReadError> {
        let get = self.client.get_secret_value().secret_id(&self.id).version_stage(stage);
        let get = async {
            get.send().await.map_err(|error| match error.as_service_error() {
                Some(GetSecretValueError::ResourceNotFoundException(_)) => ReadError::Absent,
                // As text, because the error itself contains the whole answer, which may be a
                // secret that could not be parsed.
                _ => ReadError::Refused(chain(&error).into()),
            })
        };
        Ok(within(by, get, ReadError::TimedOut).await?.secret_string)
    }
}
