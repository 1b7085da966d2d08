//! Writes one JSON log line per invocation: the outcome, the ids, the reason, the durations and the
//! metrics. A log line never has a body, a LinkedIn URL, a lead's id, name or reply, or a secret.
//!
//! A log line with metrics is a document of CloudWatch's embedded metric format. Its member `_aws`
//! names the members that are metrics and the members that are their dimensions. So a metric needs
//! no call to AWS.
//!
//! CloudWatch bills each metric, and each value of a dimension, for every hour in which it comes.
//! So by default a log line carries only metrics that an alarm reads, and a healthy hour has none
//! of them. Logs Insights reads everything else from the log. With `DETAILED_METRICS=yes`, the log
//! lines also carry the metrics that the dashboard shows.
//!
//! The crate `metrique` does this as fast. For one kind of log line it would add 41 crates to the
//! lock file and triple the bytes.

use std::error::Error;
use std::io::{Write, stdout};
use std::panic::{PanicHookInfo, set_hook};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing::{Level, error};

use crate::error::chain;
use crate::timestamp::{Timestamp, millis};

/// The namespace of the metrics in CloudWatch.
pub const NAMESPACE: &str = "OpportunityAlerts";

/// The dimension of every metric: the function that sends it.
pub const FUNCTION_NAME: &str = "FunctionName";

/// A metric. Its name in CloudWatch is the variant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Age of the oldest alert that is pending after a run of the redrive, since its first claim. A
    /// run that listed no pending delivery does not send it.
    OldestPendingAge,
    /// Age of the oldest message to the lead status stream that is pending after a run of the
    /// redrive. A run that listed no such message does not send it.
    OldestStreamPendingAge,
    /// A request that no signing secret of ours has signed.
    SignatureMismatch,
    /// A request with a valid signature that was refused for good. An alert may be lost.
    GenuineRejected,
    /// A handled event that this version does not expect: of an unknown type, or with a body
    /// mismatch. The log line says which.
    UnexpectedEvent,
    /// A request answered 503 only because no slot was free for its alert. The redrive publishes
    /// the alert.
    NoSlot,
    /// A request that cannot be verified, because our own secret cannot be read or used. While the
    /// current version of the secret is refused, every request counts.
    SecretUnreadable,
    /// An alert whose lead was not looked up: the API key is missing, unreadable or refused.
    ApiKeyUnusable,
    /// A missed lead that a run of the reconciliation is about to claim: no webhook reported its
    /// change.
    MissedWebhooks,
    /// Detailed: the time from the moment that the event names to the publish of its alert.
    TimeToAlert,
    /// Detailed: a genuine change to a status of [`sendpilot_events::STATUSES`], or to `OTHER`.
    StatusChanges,
    /// Detailed: a request that was refused for good, by the answer's `reason`.
    Rejected,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 12] = [
        Self::OldestPendingAge,
        Self::OldestStreamPendingAge,
        Self::SignatureMismatch,
        Self::GenuineRejected,
        Self::UnexpectedEvent,
        Self::NoSlot,
        Self::SecretUnreadable,
        Self::ApiKeyUnusable,
        Self::MissedWebhooks,
        Self::TimeToAlert,
        Self::StatusChanges,
        Self::Rejected,
    ];

    /// Returns the name in CloudWatch.
    pub fn name(self) -> &'static str {
        match self {
            Self::OldestPendingAge => "OldestPendingAge",
            Self::OldestStreamPendingAge => "OldestStreamPendingAge",
            Self::SignatureMismatch => "SignatureMismatch",
            Self::GenuineRejected => "GenuineRejected",
            Self::UnexpectedEvent => "UnexpectedEvent",
            Self::NoSlot => "NoSlot",
            Self::SecretUnreadable => "SecretUnreadable",
            Self::ApiKeyUnusable => "ApiKeyUnusable",
            Self::MissedWebhooks => "MissedWebhooks",
            Self::TimeToAlert => "TimeToAlert",
            Self::StatusChanges => "StatusChanges",
            Self::Rejected => "Rejected",
        }
    }

    /// Returns the unit in CloudWatch.
    pub fn unit(self) -> &'static str {
        match self {
            Self::OldestPendingAge | Self::OldestStreamPendingAge => "Seconds",
            Self::TimeToAlert => "Milliseconds",
            _ => "Count",
        }
    }

    /// Returns the dimension that the metric has beside [`FUNCTION_NAME`].
    pub fn dimension(self) -> Option<&'static str> {
        match self {
            Self::StatusChanges => Some("NewStatus"),
            Self::Rejected => Some("Reason"),
            _ => None,
        }
    }

    /// Returns whether only the dashboard reads the metric. Such a metric is sent only with
    /// `DETAILED_METRICS=yes`.
    pub fn is_detailed(self) -> bool {
        matches!(self, Self::TimeToAlert | Self::StatusChanges | Self::Rejected)
    }
}

/// Sends every log line of the process to standard output, also the SDK's, the runtime's and a
/// panic's. Each is one JSON object with an RFC 3339 `timestamp` and a `level`, because Lambda
/// files a line without them as INFO. `level` does not drop the log line of an invocation, because
/// it may carry metrics.
pub fn init(function_name: String, level: Level) -> Telemetry {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(LevelFilter::from_level(level))
        .init();
    // A failure to write cannot be reported anywhere.
    let telemetry = Telemetry::new(function_name, |line| drop(writeln!(stdout().lock(), "{line}")));
    telemetry.on_panic();
    telemetry
}

/// Writes the log lines of one process.
#[derive(Debug)]
pub struct Telemetry {
    function_name: Arc<str>,
    write: fn(&str),
    /// Whether to send the detailed metrics too.
    detailed: bool,
    /// Whether the process has had no invocation.
    cold: AtomicBool,
    /// The running invocation's id, for the log line of a panic.
    request_id: Arc<Mutex<Option<String>>>,
}

impl Telemetry {
    /// Creates the telemetry of the function with this name. `write` writes a log line.
    pub fn new(function_name: String, write: fn(&str)) -> Self {
        Self {
            function_name: function_name.into(),
            write,
            detailed: false,
            cold: AtomicBool::new(true),
            request_id: Arc::default(),
        }
    }

    /// Sets whether the log lines carry the detailed metrics too. By default they do not.
    #[must_use]
    pub fn detailed(self, detailed: bool) -> Self {
        Self { detailed, ..self }
    }

    /// Installs a panic hook that writes one log line. It has only the place of the panic, because
    /// the panic's text may contain personal data. A release build aborts after it.
    pub fn on_panic(&self) {
        let (function_name, write, current) = (self.function_name.clone(), self.write, self.request_id.clone());
        set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let request_id = current.try_lock().ok().and_then(|id| id.clone());
            let mut line = LogLine::new("crash", request_id, function_name.clone());
            line.field("location", panic.location().map(ToString::to_string));
            write(&line.text(Level::ERROR, SystemTime::now().into()));
        }));
    }

    /// Begins the log line of an invocation. `name` is its kind, `request_id` Lambda's id.
    pub fn begin(&self, name: &'static str, request_id: &str) -> LogLine {
        self.now_in(Some(request_id.to_owned()));
        let mut line = LogLine::new(name, Some(request_id.to_owned()), self.function_name.clone());
        line.cold = self.cold.swap(false, Ordering::Relaxed);
        line.detailed = self.detailed;
        line
    }

    /// Writes the log line of an invocation, which ends with it.
    pub fn end(&self, line: LogLine, level: Level, now: Timestamp) {
        self.write(line, level, now);
        self.now_in(None);
    }

    /// Begins another log line of the running invocation.
    pub fn note(&self, name: &'static str, request_id: &str) -> LogLine {
        LogLine::new(name, Some(request_id.to_owned()), self.function_name.clone())
    }

    /// Writes a log line of the running invocation.
    pub fn write(&self, line: LogLine, level: Level, now: Timestamp) {
        (self.write)(&line.text(level, now));
    }

    fn now_in(&self, invocation: Option<String>) {
        if let Ok(mut current) = self.request_id.lock() {
            *current = invocation;
        }
    }
}

/// The log line of one invocation, before it is written.
#[derive(Debug)]
#[must_use = "the log line is not written yet"]
pub struct LogLine {
    name: &'static str,
    request_id: Option<String>,
    function_name: Arc<str>,
    cold: bool,
    detailed: bool,
    fields: Vec<(&'static str, Value)>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    metric: Metric,
    value: u64,
    /// The value of the metric's own dimension.
    by: Option<&'static str>,
}

impl LogLine {
    fn new(name: &'static str, request_id: Option<String>, function_name: Arc<str>) -> Self {
        Self { name, request_id, function_name, cold: false, detailed: false, fields: Vec::new(), samples: Vec::new() }
    }

    /// Adds a field. Null is left out.
    pub fn field(&mut self, name: &'static str, value: impl Into<Value>) {
        self.fields.push((name, value.into()));
    }

    /// Adds a duration in milliseconds as a field, if there is one.
    pub fn time(&mut self, name: &'static str, span: Option<Duration>) {
        self.field(name, span.map(millis));
    }

    /// Adds 1 to a metric.
    pub fn count(&mut self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Adds 1 to a metric with a dimension of its own. Does nothing without the detailed metrics,
    /// because another field has the same fact.
    pub(crate) fn count_by(&mut self, metric: Metric, value: &'static str) {
        if self.detailed {
            self.samples.push(Sample { metric, value: 1, by: Some(value) });
        }
    }

    /// Adds a value to a metric. Without the detailed metrics, the value of a detailed one is only
    /// a field.
    pub fn add(&mut self, metric: Metric, value: u64) {
        if metric.is_detailed() && !self.detailed {
            self.field(metric.name(), value);
        } else {
            self.samples.push(Sample { metric, value, by: None });
        }
    }

    #[expect(clippy::expect_used, reason = "strings, numbers and booleans under text names always serialize to JSON")]
    fn text(self, level: Level, now: Timestamp) -> String {
        serde_json::to_string(&Written { line: &self, level, now }).expect("a line is JSON")
    }
}

/// A log line with the moment in which it is written.
struct Written<'a> {
    line: &'a LogLine,
    level: Level,
    now: Timestamp,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { line, level, now } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &now.rfc3339())?;
        map.serialize_entry("level", level.as_str())?;
        map.serialize_entry("message", line.name)?;
        if let Some(request_id) = &line.request_id {
            map.serialize_entry("requestId", request_id)?;
        }
        for (name, value) in line.fields.iter().filter(|(_, value)| !value.is_null()) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("coldStart", &line.cold)?;
        if line.samples.is_empty() {
            return map.end();
        }
        map.serialize_entry(FUNCTION_NAME, &*line.function_name)?;
        for sample in &line.samples {
            if let Some((dimension, value)) = sample.dimension() {
                map.serialize_entry(dimension, value)?;
            }
            map.serialize_entry(sample.metric.name(), &sample.value)?;
        }
        map.serialize_entry("_aws", &Metadata::new(&line.samples, *now))?;
        map.end()
    }
}

impl Sample {
    fn dimension(&self) -> Option<(&'static str, &'static str)> {
        self.metric.dimension().zip(self.by)
    }
}

/// The member `_aws`, by which CloudWatch finds the metrics in a log line.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    timestamp: u64,
    cloud_watch_metrics: Vec<Directive>,
}

/// Metrics with the same dimensions.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: [Vec<&'static str>; 1],
    metrics: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: &'static str,
    unit: &'static str,
}

impl Metadata {
    fn new(samples: &[Sample], now: Timestamp) -> Self {
        let mut directives: Vec<Directive> = Vec::new();
        for sample in samples {
            let own = sample.dimension().map(|(name, _)| name);
            let dimensions = [[FUNCTION_NAME].into_iter().chain(own).collect()];
            let definition = Definition { name: sample.metric.name(), unit: sample.metric.unit() };
            match directives.iter_mut().find(|directive| directive.dimensions == dimensions) {
                Some(directive) => directive.metrics.push(definition),
                None => directives.push(Directive { namespace: NAMESPACE, dimensions, metrics: vec![definition] }),
            }
        }
        Self { timestamp: now.as_millis(), cloud_watch_metrics: directives }
    }
}

/// Writes the last log line of a function that cannot start or continue. Returns the exit status
/// that makes Lambda start another process.
pub fn exit(result: Result<(), Box<dyn Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = chain(&*error), "the function ends");
            ExitCode::FAILURE
        }
    }
}
