//! The environment goes in, a [`Config`] comes out, or an error that names the variable to mend.

use std::time::Duration;

use tracing::Level;

use crate::keyring::Source;
use crate::secret::{SecretError, Secrets};

/// What both functions need to know before they can start.
#[derive(Debug)]
pub struct Config {
    /// `ALERTS_TABLE_NAME`: the ledger's table.
    pub table_name: String,
    /// `ALERTS_TOPIC_ARN`: the topic of the alerts.
    pub topic_arn: String,
    /// `RETENTION_DAYS`: how long a published row is kept, and so how long a repetition is known for one. 30 days by default.
    pub retention: Duration,
}

/// Which variable keeps the function from starting, and why. Never carries a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not set, or empty.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// The topic is none, or one that takes no alerts.
    #[error(
        "ALERTS_TOPIC_ARN must be the ARN of a standard SNS topic (arn:aws:sns:region:account:name, not ending in .fifo)"
    )]
    TopicArn,
    /// No number of days.
    #[error("RETENTION_DAYS must be a whole number from 1 to 3650")]
    RetentionDays,
    /// No secret at all. Without one the function does not serve: it would let anybody in, or nobody.
    #[error("neither WEBHOOK_SECRET_ID nor WEBHOOK_SECRET is set; one of them must be")]
    NoSecret,
    /// Two sources, of which one would be believed to count and does not.
    #[error("both WEBHOOK_SECRET_ID and WEBHOOK_SECRET are set; only one of them may be")]
    TwoSecrets,
    /// No usable secret.
    #[error("WEBHOOK_SECRET {0}")]
    Secret(#[from] SecretError),
}

impl Config {
    /// Reads the variables that `variable` looks up.
    ///
    /// # Errors
    /// With the first variable that is missing or unusable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let topic_arn = required(&variable, "ALERTS_TOPIC_ARN")?;
        Ok(Self {
            table_name: required(&variable, "ALERTS_TABLE_NAME")?,
            topic_arn: Some(topic_arn).filter(|arn| is_standard_topic(arn)).ok_or(ConfigError::TopicArn)?,
            retention: retention(set(&variable, "RETENTION_DAYS").as_deref().unwrap_or("30"))?,
        })
    }
}

/// `WEBHOOK_SECRET_ID`, a name or an ARN in Secrets Manager, or `WEBHOOK_SECRET`, one or more signing secrets separated by
/// white space. The webhook function needs exactly one of the two.
///
/// # Errors
/// If none is set, or both are, or the secret is unusable.
pub fn secret(variable: impl Fn(&str) -> Option<String>) -> Result<Source, ConfigError> {
    match (set(&variable, "WEBHOOK_SECRET_ID"), set(&variable, "WEBHOOK_SECRET")) {
        (Some(id), None) => Ok(Source::Stored(id)),
        (None, Some(secrets)) => Ok(Source::Given(Secrets::parse(&secrets)?)),
        (None, None) => Err(ConfigError::NoSecret),
        (Some(_), Some(_)) => Err(ConfigError::TwoSecrets),
    }
}

/// The variable, unless it is empty.
pub(crate) fn set(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

pub(crate) fn required(variable: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<String, ConfigError> {
    set(variable, name).ok_or(ConfigError::Missing(name))
}

/// The level below which log lines are dropped: Lambda sets `AWS_LAMBDA_LOG_LEVEL` from the function's logging
/// configuration. Never below INFO, where the SDK and the runtime would write bodies.
pub fn log_level(variable: impl Fn(&str) -> Option<String>) -> Level {
    let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok());
    level.unwrap_or(Level::INFO).min(Level::INFO)
}

/// The function's name, by which its metrics are told from those of others. Lambda sets it.
pub fn function_name(variable: impl Fn(&str) -> Option<String>) -> String {
    set(&variable, "AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "unnamed".into())
}

fn is_standard_topic(arn: &str) -> bool {
    let parts: Vec<_> = arn.split(':').collect();
    matches!(parts[..], ["arn", _, "sns", region, account, name]
        if !region.is_empty() && !account.is_empty() && !name.is_empty() && !name.ends_with(".fifo"))
}

fn retention(days: &str) -> Result<Duration, ConfigError> {
    let days: u64 = days.parse().ok().filter(|days| (1..=3650).contains(days)).ok_or(ConfigError::RetentionDays)?;
    Ok(Duration::from_secs(days * 24 * 60 * 60))
}
