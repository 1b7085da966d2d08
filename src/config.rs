//! Reads the environment. Each error names the variable to fix.

use std::time::Duration;

use sendpilot_events::OPPORTUNITY;
use tracing::Level;

use crate::aws::Aws;
use crate::delivery::ledger::dynamodb::DynamoDbLedger;
use crate::delivery::pace::{AlertRate, Pacer};
use crate::delivery::relay::Relay;
use crate::delivery::topic::sns::{Sns, Topics};
use crate::environment::{Missing, required, set};
use crate::message::pipeline::{Pipeline, PipelineError, is_status, list};
use crate::message::rules::Rules;
use crate::secrets::api_key::{ApiKey, ApiKeyError, Source as ApiKeySource};
use crate::secrets::keyring::Source;
use crate::secrets::signing::{SecretError, Secrets};
use crate::sendpilot::api::{Api, ApiUrl, DEFAULT_URL, UnusableUrl};
use crate::webhook::details::Sources;

/// The configuration that all functions need to start.
#[derive(Debug)]
pub struct Config {
    /// `ALERTS_TABLE_NAME`: the ledger's table.
    pub table_name: String,
    /// `ALERTS_TOPIC_ARN`: the alerts topic. `STATUS_TOPIC_ARN`: the topic of the lead status
    /// stream. Without it the stream is off.
    pub topics: Topics,
    /// `RETENTION_DAYS`: how long a published row is kept, and so how long a repeated event is
    /// recognised as a duplicate. 30 days by default, and at least 2: Svix, which delivers for
    /// SendPilot, retries for up to 27.6 hours.
    /// <https://docs.svix.com/retries>
    pub retention: Duration,
    /// `DEBOUNCE_MINUTES`: the duration of a debounce lock. By default 0: alerts are not debounced.
    pub debounce: Option<Duration>,
    /// `ALERTS_PER_SECOND`: the number of alerts that all processes together publish per second. 5
    /// by default. `None` if it is 0: alerts are not paced.
    pub alert_rate: Option<AlertRate>,
}

/// Why the function cannot start. It names the variable, and never contains a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not set, or empty.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Not a topic, or one that cannot take alerts.
    #[error(
        "ALERTS_TOPIC_ARN must be the ARN of a standard SNS topic (arn:aws:sns:region:account:name, not ending in .fifo)"
    )]
    TopicArn,
    /// Not a topic.
    #[error("STATUS_TOPIC_ARN must be the ARN of an SNS topic (arn:aws:sns:region:account:name), or not be set")]
    StatusTopicArn,
    /// Not a number of minutes.
    #[error("DEBOUNCE_MINUTES must be a whole number from 0 to 1440")]
    DebounceMinutes,
    /// An entry that is never equal to a status of SendPilot's.
    #[error(
        "ALERT_STATUSES has the entry {0:?}; statuses are letters, digits and underscores, with commas between them"
    )]
    AlertStatuses(String),
    /// Not a mapping of statuses to stages.
    #[error("STATUS_PIPELINE {0}")]
    StatusPipeline(#[from] PipelineError),
    /// Not a number of alerts per second.
    #[error("ALERTS_PER_SECOND must be a whole number from 0 to {}", AlertRate::MAX)]
    AlertsPerSecond,
    /// Not a number of days.
    #[error("RETENTION_DAYS must be a whole number from 2 to 3650")]
    RetentionDays,
    /// Neither yes nor no.
    #[error("{0} must be yes or no")]
    YesOrNo(&'static str),
    /// No secret. Without one the function could not verify a request.
    #[error("neither WEBHOOK_SECRET_ID nor WEBHOOK_SECRET is set; one of them must be")]
    NoSecret,
    /// Two sources. An operator would believe that both count.
    #[error("both WEBHOOK_SECRET_ID and WEBHOOK_SECRET are set; only one of them may be")]
    TwoSecrets,
    /// No usable secret.
    #[error("WEBHOOK_SECRET {0}")]
    Secret(#[from] SecretError),
    /// Two API keys.
    #[error("both SENDPILOT_API_KEY_ID and SENDPILOT_API_KEY are set; only one of them may be")]
    TwoApiKeys,
    /// No API key. The reconciliation cannot work without one.
    #[error("neither SENDPILOT_API_KEY_ID nor SENDPILOT_API_KEY is set; one of them must be")]
    NoApiKey,
    /// No usable API key.
    #[error("SENDPILOT_API_KEY {0}")]
    ApiKey(#[from] ApiKeyError),
    /// No usable address.
    #[error("SENDPILOT_API_URL {0}")]
    ApiUrl(#[from] UnusableUrl),
}

impl Config {
    /// Reads the variables that `variable` looks up.
    ///
    /// # Errors
    /// With the first variable that is missing or unusable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let alerts = required(&variable, "ALERTS_TOPIC_ARN")?;
        if !is_topic(&alerts) || alerts.ends_with(".fifo") {
            return Err(ConfigError::TopicArn);
        }
        let status = set(&variable, "STATUS_TOPIC_ARN");
        if status.as_ref().is_some_and(|status| !is_topic(status)) {
            return Err(ConfigError::StatusTopicArn);
        }
        Ok(Self {
            table_name: required(&variable, "ALERTS_TABLE_NAME")?,
            topics: Topics { alerts, status },
            retention: retention(set(&variable, "RETENTION_DAYS").as_deref().unwrap_or("30"))?,
            debounce: debounce(set(&variable, "DEBOUNCE_MINUTES").as_deref().unwrap_or("0"))?,
            alert_rate: alert_rate(set(&variable, "ALERTS_PER_SECOND").as_deref().unwrap_or("5"))?,
        })
    }

    /// Creates the relay over AWS. `stream_wait` is [`Relay::stream_wait`].
    pub fn relay(self, aws: &Aws, stream_wait: Duration) -> Relay<DynamoDbLedger, Sns> {
        Relay {
            ledger: DynamoDbLedger::new(aws.dynamodb(), self.table_name),
            topic: Sns::new(aws.sns(), self.topics),
            retention: self.retention,
            debounce: self.debounce,
            pacer: self.alert_rate.map(Pacer::new),
            stream_wait,
        }
    }

    /// Reads the rules, which the redrive does not need.
    ///
    /// - `ALERT_STATUSES`: a list with commas, by default `OPPORTUNITY`
    /// - `ALERT_TAGS`: another list, by default empty
    /// - `STATUS_PIPELINE`, as [`Pipeline::parse`] reads it: by default SendPilot's example
    /// - `RECONCILE`: whether alerts make leads known to the reconciliation, by default `no`
    ///
    /// # Errors
    /// With the first unusable variable, and its unusable entry.
    pub fn rules(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Rules, ConfigError> {
        let statuses = set(&variable, "ALERT_STATUSES").unwrap_or_else(|| OPPORTUNITY.into());
        let tags = set(&variable, "ALERT_TAGS").unwrap_or_default();
        Ok(Rules {
            alert_statuses: list(&statuses).map(status).collect::<Result<_, _>>()?,
            alert_tags: list(&tags).map(str::to_owned).collect(),
            debounce: self.debounce.is_some(),
            reconcile: is_yes(&variable, "RECONCILE")?,
            stream: self.topics.status.is_some(),
            pipeline: match set(&variable, "STATUS_PIPELINE") {
                Some(text) => Pipeline::parse(&text)?,
                None => Pipeline::default(),
            },
        })
    }

    /// Reads the rules of the reconciliation, as [`Self::rules`] does. It publishes only alerts on
    /// statuses.
    ///
    /// # Errors
    /// With the first unusable variable, and its unusable entry.
    pub fn reconciled_rules(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Rules, ConfigError> {
        Ok(Rules { alert_tags: Vec::new(), stream: false, ..self.rules(variable)? })
    }
}

/// Reads where the signing secrets come from. `WEBHOOK_SECRET_ID` is a name or an ARN in Secrets
/// Manager. `WEBHOOK_SECRET` holds one or more secrets in any form that [`Secrets::parse`] reads.
/// The webhook function needs exactly one of the two.
///
/// # Errors
/// If none is set, or both are, or the secret is unusable.
pub fn secret(variable: impl Fn(&str) -> Option<String>) -> Result<Source, ConfigError> {
    // White space outside ASCII counts as content here. `Secrets::parse` then refuses it, as in a
    // value from Secrets Manager.
    let secrets = variable("WEBHOOK_SECRET").filter(|secrets| !secrets.trim_ascii().is_empty());
    match (set(&variable, "WEBHOOK_SECRET_ID"), secrets) {
        (Some(id), None) => Ok(Source::Stored(id)),
        (None, Some(secrets)) => Ok(Source::Given(Secrets::parse(&secrets)?)),
        (None, None) => Err(ConfigError::NoSecret),
        (Some(_), Some(_)) => Err(ConfigError::TwoSecrets),
    }
}

/// Reads `DETAILED_METRICS`, which only the webhook function needs: whether to send the metrics
/// that only the dashboard reads. By default `no`.
///
/// # Errors
/// If it is neither `yes` nor `no`.
pub fn detailed_metrics(variable: impl Fn(&str) -> Option<String>) -> Result<bool, ConfigError> {
    is_yes(&variable, "DETAILED_METRICS")
}

/// Reads the sources of a lead's details, which the redrive does not need. By default, all are off.
///
/// `REMEMBER_REPLIES` is `yes` or `no`. An API key turns SendPilot's API on: `SENDPILOT_API_KEY_ID`
/// is the name or the ARN of a secret in Secrets Manager, `SENDPILOT_API_KEY` is the key itself.
/// `SENDPILOT_API_URL` is the API's address, by default [`DEFAULT_URL`].
///
/// # Errors
/// With the first unusable variable.
pub fn sources(variable: impl Fn(&str) -> Option<String>, aws: &Aws) -> Result<Sources, ConfigError> {
    let key = match (set(&variable, "SENDPILOT_API_KEY_ID"), set(&variable, "SENDPILOT_API_KEY")) {
        (Some(_), Some(_)) => return Err(ConfigError::TwoApiKeys),
        (Some(id), None) => Some(ApiKeySource::stored(id, aws)),
        (None, Some(key)) => Some(ApiKeySource::given(ApiKey::parse(&key)?)),
        (None, None) => None,
    };
    let url = set(&variable, "SENDPILOT_API_URL");
    let url = ApiUrl::parse(url.as_deref().unwrap_or(DEFAULT_URL))?;
    Ok(Sources { api: key.map(|key| Api::new(url, key, aws)), replies: is_yes(&variable, "REMEMBER_REPLIES")? })
}

fn is_yes(variable: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<bool, ConfigError> {
    match set(variable, name).as_deref() {
        Some("yes") => Ok(true),
        Some("no") | None => Ok(false),
        Some(_) => Err(ConfigError::YesOrNo(name)),
    }
}

/// Returns the level below which log lines are dropped. Lambda sets `AWS_LAMBDA_LOG_LEVEL` from the
/// function's logging configuration. The level is never below INFO, where the SDK and the runtime
/// would write bodies.
pub fn log_level(variable: impl Fn(&str) -> Option<String>) -> Level {
    let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok());
    level.unwrap_or(Level::INFO).min(Level::INFO)
}

/// Returns the function's name, which Lambda sets. It is the dimension of the function's metrics.
pub fn function_name(variable: impl Fn(&str) -> Option<String>) -> String {
    set(&variable, "AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "unnamed".into())
}

fn is_topic(arn: &str) -> bool {
    let parts: Vec<_> = arn.split(':').collect();
    matches!(parts[..], ["arn", _, "sns", region, account, name]
        if !region.is_empty() && !account.is_empty() && !name.is_empty())
}

fn status(entry: &str) -> Result<String, ConfigError> {
    if is_status(entry) { Ok(entry.to_ascii_uppercase()) } else { Err(ConfigError::AlertStatuses(entry.to_owned())) }
}

fn debounce(minutes: &str) -> Result<Option<Duration>, ConfigError> {
    let minutes: u64 = minutes.parse().ok().filter(|minutes| *minutes <= 1440).ok_or(ConfigError::DebounceMinutes)?;
    Ok(Some(Duration::from_secs(minutes * 60)).filter(|debounce| !debounce.is_zero()))
}

fn alert_rate(per_second: &str) -> Result<Option<AlertRate>, ConfigError> {
    match per_second.parse() {
        Ok(0) => Ok(None),
        Ok(rate) => AlertRate::new(rate).map(Some).ok_or(ConfigError::AlertsPerSecond),
        Err(_) => Err(ConfigError::AlertsPerSecond),
    }
}

fn retention(days: &str) -> Result<Duration, ConfigError> {
    let days: u64 = days.parse().ok().filter(|days| (2..=3650).contains(days)).ok_or(ConfigError::RetentionDays)?;
    Ok(Duration::from_secs(days * 24 * 60 * 60))
}
