//! The CRM's API token, in Secrets Manager, and the header in which the CRM expects it.

use std::time::Duration;

use anyhow::Context;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use reqwest::header::{HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The placeholder for the token in the configured header.
const PLACEHOLDER: &str = "{token}";

/// The shortest time between two fetches. Without a limit, each message would fetch the secret
/// while the CRM refuses the token.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// The secret with the token, and the header that carries the token.
#[derive(Debug)]
pub(crate) struct Token {
    client: Client,
    secret_arn: String,
    header: Header,
    fetched: Mutex<Option<Fetched>>,
}

#[derive(Debug)]
struct Fetched {
    value: HeaderValue,
    at: Instant,
}

/// A header with [`PLACEHOLDER`] in its value.
#[derive(Debug)]
struct Header {
    name: HeaderName,
    format: String,
}

/// The reason why there is no token that the CRM accepts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("no token is configured; set CrmTokenSecretArn to the ARN of its secret")]
    Unconfigured,
    #[error("the secret {0} could not be read; check CrmTokenSecretArn and the policy of your KMS key")]
    Unreadable(String, #[source] Box<SdkError<GetSecretValueError>>),
    #[error("the secret {0} {1}; store only the token in it, as plain text")]
    Unusable(String, &'static str),
    #[error(
        "the secret {0} held the token that the CRM refused when it was last read; store a token that may make this call"
    )]
    Refused(String),
}

impl Token {
    /// Returns the token in this secret. `header` is the header to send, such as `Authorization:
    /// Bearer {token}`.
    ///
    /// # Errors
    /// If `header` is not a header, or has no placeholder in its value.
    pub(crate) fn new(client: Client, secret_arn: String, header: &str) -> anyhow::Result<Self> {
        Ok(Self { client, secret_arn, header: Header::parse(header)?, fetched: Mutex::new(None) })
    }

    pub(crate) fn header_name(&self) -> &HeaderName {
        &self.header.name
    }

    /// Returns the header's value. The first call fetches the token.
    pub(crate) async fn header_value(&self) -> Result<HeaderValue, TokenError> {
        let mut fetched = self.fetched.lock().await;
        if let Some(fetched) = &*fetched {
            return Ok(fetched.value.clone());
        }
        let value = self.fetch().await?;
        *fetched = Some(Fetched { value: value.clone(), at: Instant::now() });
        Ok(value)
    }

    /// Returns the header's value with another token than the refused one. Fetches the token if the
    /// last fetch was at least [`FETCH_INTERVAL`] ago.
    pub(crate) async fn other_than(&self, refused: &HeaderValue) -> Result<HeaderValue, TokenError> {
        let mut fetched = self.fetched.lock().await;
        if let Some(Fetched { value, at }) = &mut *fetched {
            // Leads that are refused at the same time wait for the lock, and then find the new
            // token.
            if value == refused && at.elapsed() >= FETCH_INTERVAL {
                *at = Instant::now();
                *value = self.fetch().await?;
            }
            if value != refused {
                return Ok(value.clone());
            }
        }
        Err(TokenError::Refused(self.secret_arn.clone()))
    }

    async fn fetch(&self) -> Result<HeaderValue, TokenError> {
        let get = self.client.get_secret_value().secret_id(&self.secret_arn).send();
        let secret = get.await.map_err(|error| TokenError::Unreadable(self.secret_arn.clone(), error.into()))?;
        self.header
            .value(secret.secret_string().unwrap_or_default())
            .map_err(|fault| TokenError::Unusable(self.secret_arn.clone(), fault))
    }
}

impl Header {
    fn parse(header: &str) -> anyhow::Result<Self> {
        let parsed = header.split_once(':').and_then(|(name, format)| {
            let header = Self { name: name.trim().parse().ok()?, format: format.trim().to_owned() };
            (header.format.contains(PLACEHOLDER) && header.value("token").is_ok()).then_some(header)
        });
        parsed.with_context(|| format!("must be like `Authorization: Bearer {PLACEHOLDER}`, not `{header}`"))
    }

    /// Returns the header's value with this token, or the fault of the token.
    fn value(&self, secret: &str) -> Result<HeaderValue, &'static str> {
        // An editor or `echo` adds a line break at the end.
        let token = secret.trim();
        if token.is_empty() {
            return Err("is empty or binary");
        }
        if token.starts_with(['{', '"']) {
            return Err("holds JSON");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds blanks, control characters or characters outside ASCII");
        }
        let mut value = HeaderValue::from_str(&self.format.replace(PLACEHOLDER, token))
            .map_err(|_| "does not fit into a header")?;
        // `Debug` hides a sensitive value.
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn header_carries_the_token_and_debug_hides_it() {
        for (header, name, value) in [
            ("Authorization: Bearer {token}", "authorization", "Bearer pat-1"),
            ("x-api-token:{token}", "x-api-token", "pat-1"),
            ("Authorization: Token token={token}, v=2", "authorization", "Token token=pat-1, v=2"),
        ] {
            let header = Header::parse(header).unwrap();
            let sent = header.value("pat-1\n").unwrap();
            assert_eq!((header.name.as_str(), sent.to_str().unwrap()), (name, value));
            assert!(!format!("{sent:?}").contains("pat-1"));
        }
    }

    #[test]
    fn rejects_a_header_that_cannot_carry_a_token() {
        for header in ["", "Authorization", "Authorization: Bearer", ": {token}", "A B: {token}", "A: {token}\n."] {
            assert!(Header::parse(header).is_err(), "{header:?}");
        }
    }

    #[test]
    fn rejects_a_secret_that_is_not_a_token() {
        let header = Header::parse("x-api-token: {token}").unwrap();
        for secret in
            ["", " \n", "{\"token\":\"pat-1\"}", "\"pat-1\"", "pat 1", "pat\r\n1", "pat\u{7f}", "pät", "\u{feff}pat"]
        {
            assert!(header.value(secret).is_err(), "{secret:?}");
        }
    }
}
