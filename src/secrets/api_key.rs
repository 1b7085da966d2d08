//! The key of SendPilot's API. It comes from the environment or from Secrets Manager.

use std::error::Error;
use std::fmt;

use tokio::time::Instant;

use crate::aws::Aws;
use crate::json::Members;
use crate::secrets::secrets_manager::{CURRENT, ReadError, StoredSecret};
use crate::secrets::signing::Foreign;

/// The key of SendPilot's API: printable ASCII, so it fits into a header. `Debug` does not print
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// Why a value cannot be used as an API key. The message says what to do, and never quotes the
/// value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// The value is empty, only white space, or the template's placeholder.
    #[error("holds no API key; store one that you made in SendPilot under Integrations, API Keys")]
    Empty,
    /// The value has a character that no key contains.
    #[error("holds {0}; remove it, or copy the API key again from SendPilot")]
    Character(Foreign),
    /// The value has white space inside.
    #[error("holds more than one word; store the API key and nothing else")]
    Words,
    /// The webhook's signing secret, which nobody else may get.
    #[error("is the webhook's signing secret; store an API key of SendPilot (sp_live_...)")]
    SigningSecret,
    /// JSON, but not the JSON that is read.
    #[error(
        r#"is JSON, but not {{"apiKey":"sp_live_..."}} or one key/value pair; use one of these forms, or plain text"#
    )]
    Shape,
    /// A binary secret. Secrets Manager keeps binary secrets apart from text.
    #[error("is binary; store it as text")]
    Binary,
}

/// Why the key is not known. The sources are only logged.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no secret with this name, or the secret has no value.
    #[error("the secret of the API key does not exist in Secrets Manager, or has no value")]
    Absent,
    /// Secrets Manager refused, or could not be reached.
    #[error("Secrets Manager does not return the API key")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// There was no answer in time.
    #[error("Secrets Manager did not return the API key in time")]
    TimedOut,
    /// The value is not a key.
    #[error("the secret of the API key {0}")]
    Unusable(#[from] ApiKeyError),
}

impl From<ReadError> for KeyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Absent => Self::Absent,
            ReadError::Refused(source) => Self::Refused(source),
            ReadError::TimedOut => Self::TimedOut,
        }
    }
}

/// The source of the key.
#[derive(Debug)]
pub struct Source(Place);

#[derive(Debug)]
enum Place {
    Given(ApiKey),
    Stored(StoredSecret),
}

impl Source {
    /// Creates a source that always returns this key.
    pub fn given(key: ApiKey) -> Self {
        Self(Place::Given(key))
    }

    /// Creates a source that reads the secret with this name or ARN.
    pub fn stored(id: String, aws: &Aws) -> Self {
        Self(Place::Stored(StoredSecret { client: aws.secrets_manager(), id }))
    }

    /// Returns the key. Reads a stored key each time, so that a key that was replaced is found.
    pub(crate) async fn fetch(&self, by: Instant) -> Result<ApiKey, KeyError> {
        match &self.0 {
            Place::Given(key) => Ok(key.clone()),
            Place::Stored(secret) => {
                let value = secret.value(CURRENT, by).await?.ok_or(ApiKeyError::Binary)?;
                Ok(ApiKey::parse(&value)?)
            }
        }
    }
}

impl ApiKey {
    /// Parses a key: plain text, or JSON in one of the forms that the message of
    /// [`ApiKeyError::Shape`] shows. White space around the key is ignored.
    ///
    /// # Errors
    /// If the value cannot be an API key of SendPilot.
    pub fn parse(value: &str) -> Result<Self, ApiKeyError> {
        if !value.trim_ascii_start().starts_with(['{', '[']) {
            return Self::from_text(value);
        }
        // The parser's own error would quote the value.
        let Members(members): Members = serde_json::from_str(value).map_err(|_| ApiKeyError::Shape)?;
        let mut named = members.iter().filter(|(name, _)| name == "apiKey");
        let key = match (named.next(), named.next(), &members[..]) {
            (Some((_, key)), None, _) | (None, None, [(_, key)]) => key,
            _ => return Err(ApiKeyError::Shape),
        };
        Self::from_text(key.as_str().ok_or(ApiKeyError::Shape)?)
    }

    fn from_text(text: &str) -> Result<Self, ApiKeyError> {
        let key = text.trim_ascii();
        if key.is_empty() {
            return Err(ApiKeyError::Empty);
        }
        if key.contains(|character: char| character.is_ascii_whitespace()) {
            return Err(ApiKeyError::Words);
        }
        if let Some(foreign) = key.chars().find_map(Foreign::from_char) {
            return Err(ApiKeyError::Character(foreign));
        }
        if key.to_ascii_lowercase().contains("whsec_") {
            return Err(ApiKeyError::SigningSecret);
        }
        Ok(Self(key.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}
