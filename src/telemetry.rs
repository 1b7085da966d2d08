//! Writes one line of JSON per invocation: what happened, under which ids, why, how fast, and the
//! metrics. A line never has a body, a LinkedIn URL, a lead's id or a secret.
//!
//! A line with metrics is a document of CloudWatch's embedded metric format: `_aws` names the
//! members of the line that are metrics, and those that are their dimensions. So metrics need no
//! call. Dimensions take few values, because each combination of values is a metric that costs
//! money.
//!
//! The crate `metrique` does this as fast. For one kind of line it would add 41 crates to the lock
//! file and triple the bytes.

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

// A macro, because constants would need a second list of themselves for `ALL`.
macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident $unit:ident $(by $dimension:ident)?,)*) => {
        /// A metric. Its name is that of the answer that it counts, or of the step that it times,
        /// unless its doc comment says more.
        #[allow(missing_docs, reason = "the names of answers and steps say what they count")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[$doc])* $name,)*
        }

        impl Metric {
            /// All metrics.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in CloudWatch.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The unit in CloudWatch.
            pub fn unit(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($unit),)*
                }
            }

            /// The dimension that the metric has beside [`FUNCTION_NAME`].
            pub fn dimension(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => None$(.or(Some(stringify!($dimension))))?,)*
                }
            }
        }
    };
}

metrics! {
    Alerted Count,
    /// A published message to the lead status stream, also if an alert was due too.
    Streamed Count,
    /// A message to the lead status stream that is claimed and left to the redrive, also if an
    /// alert was due too.
    StreamPending Count,
    /// A suppressed alert, also in a run of the redrive.
    Debounced Count,
    Duplicate Count,
    Ignored Count,
    InProgress Count,
    /// A request answered 503, for whatever reason.
    Unavailable Count,
    /// A request answered 503 only because no slot was free for its alert. The redrive publishes
    /// the alert.
    NoSlot Count,
    Malformed Count,
    Unauthorized Count,
    NotFound Count,
    MethodNotAllowed Count,
    TooLarge Count,
    /// A request with a valid signature, whose event could be read and was not refused.
    Genuine Count,
    /// A request with a valid signature that was refused for good, because of its event or its
    /// timestamp.
    GenuineRejected Count,
    /// A genuine event of an unknown type, whose kind the shape of its `data` decided.
    RenamedEvents Count,
    /// An event for which an alert is due, whatever becomes of the alert.
    Opportunities Count,
    /// A request that was refused for good, by the answer's `reason`.
    Rejected Count by Reason,
    /// A genuine change to a status of [`sendpilot_events::STATUSES`], or to `OTHER`.
    StatusChanges Count by NewStatus,
    ClaimTime Milliseconds,
    PublishTime Milliseconds,
    CompleteTime Milliseconds,
    /// From the moment that the event names to the publish.
    TimeToAlert Milliseconds,
    /// The first invocation of a process.
    ColdStart Count,
    /// A body mismatch: an event whose id already belongs to another fact. It gets a delivery of
    /// its own.
    OtherBody Count,
    /// A request that cannot be verified, because our own secret cannot be read or used. While the
    /// current version of the secret is refused, every request.
    SecretUnreadable Count,
    /// A panic.
    Crashed Count,
    /// Pending deliveries that a run of the redrive listed.
    Scanned Count,
    /// Those that the run published.
    Published Count,
    /// Those that another attempt had published since they were listed.
    Duplicates Count,
    /// Those that are pending after the run.
    StillPending Count,
    /// Age of the oldest alert that is pending after the run, since its first claim.
    OldestPendingAge Seconds,
    /// The same for messages to the lead status stream, from a run that listed one.
    OldestStreamPendingAge Seconds,
    /// A run of the redrive that does not know all pending deliveries.
    Incomplete Count,
}

/// Sends every line of the process to standard output, also the SDK's, the runtime's and a panic's.
/// Each is one JSON object with an RFC 3339 `timestamp` and a `level`, because Lambda files a line
/// without them as INFO. `level` does not drop the line of an invocation, because it has metrics.
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

/// Writes the lines of one process.
#[derive(Debug)]
pub struct Telemetry {
    function_name: Arc<str>,
    write: fn(&str),
    /// Whether the process has had no invocation.
    cold: AtomicBool,
    /// The running invocation. The line of a panic names it.
    request_id: Arc<Mutex<Option<String>>>,
}

impl Telemetry {
    /// Creates the telemetry of the function with this name. `write` writes a line.
    pub fn new(function_name: String, write: fn(&str)) -> Self {
        Self { function_name: function_name.into(), write, cold: AtomicBool::new(true), request_id: Arc::default() }
    }

    /// Installs a panic hook that writes one line. The line has only the place of the panic, because
    /// its text may contain personal data. A release build aborts after it.
    pub fn on_panic(&self) {
        let (function_name, write, current) = (self.function_name.clone(), self.write, self.request_id.clone());
        set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let request_id = current.try_lock().ok().and_then(|id| id.clone());
            let mut line = LogLine::new("crash", request_id, function_name.clone());
            line.field("location", panic.location().map(ToString::to_string));
            line.count(Metric::Crashed);
            write(&line.text(Level::ERROR, SystemTime::now().into()));
        }));
    }

    /// Begins the line of an invocation. `name` is its kind, `request_id` Lambda's id.
    pub fn begin(&self, name: &'static str, request_id: &str) -> LogLine {
        self.now_in(Some(request_id.to_owned()));
        let mut line = LogLine::new(name, Some(request_id.to_owned()), self.function_name.clone());
        line.cold = self.cold.swap(false, Ordering::Relaxed);
        line
    }

    /// Writes the line.
    pub fn end(&self, line: LogLine, level: Level, now: Timestamp) {
        (self.write)(&line.text(level, now));
        self.now_in(None);
    }

    fn now_in(&self, invocation: Option<String>) {
        if let Ok(mut current) = self.request_id.lock() {
            *current = invocation;
        }
    }
}

/// The line of one invocation, before it is written.
#[derive(Debug)]
#[must_use = "the line is not written yet"]
pub struct LogLine {
    name: &'static str,
    request_id: Option<String>,
    function_name: Arc<str>,
    cold: bool,
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
        Self { name, request_id, function_name, cold: false, fields: Vec::new(), samples: Vec::new() }
    }

    /// Adds a field. Null is left out.
    pub fn field(&mut self, name: &'static str, value: impl Into<Value>) {
        self.fields.push((name, value.into()));
    }

    /// Adds 1 to a metric.
    pub fn count(&mut self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Adds 1 to a metric, with this value of its own dimension.
    pub(crate) fn count_by(&mut self, metric: Metric, value: &'static str) {
        self.samples.push(Sample { metric, value: 1, by: Some(value) });
    }

    /// Adds a value to a metric.
    pub fn add(&mut self, metric: Metric, value: u64) {
        self.samples.push(Sample { metric, value, by: None });
    }

    /// Adds a duration to a metric, if there is one.
    pub fn time(&mut self, metric: Metric, span: Option<Duration>) {
        if let Some(span) = span {
            self.add(metric, millis(span));
        }
    }

    #[expect(clippy::expect_used, reason = "strings, numbers and booleans under text names always serialize to JSON")]
    fn text(mut self, level: Level, now: Timestamp) -> String {
        // CloudWatch bills a metric for every hour in which it has a value. So a cold start alone
        // adds no metric to a line.
        if self.cold && !self.samples.is_empty() {
            self.count(Metric::ColdStart);
        }
        serde_json::to_string(&Written { line: &self, level, now }).expect("a line is JSON")
    }
}

/// A line with the moment in which it is written.
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
        map.serialize_entry(FUNCTION_NAME, &*line.function_name)?;
        for sample in &line.samples {
            if let Some((dimension, value)) = sample.dimension() {
                map.serialize_entry(dimension, value)?;
            }
            map.serialize_entry(sample.metric.name(), &sample.value)?;
        }
        if !line.samples.is_empty() {
            map.serialize_entry("_aws", &Metadata::of(&line.samples, *now))?;
        }
        map.end()
    }
}

impl Sample {
    fn dimension(&self) -> Option<(&'static str, &'static str)> {
        self.metric.dimension().zip(self.by)
    }
}

/// Tells CloudWatch which members of a line are metrics.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    timestamp: u64,
    cloud_watch_metrics: Vec<Directive>,
}

/// Metrics of the same dimensions.
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
    fn of(samples: &[Sample], now: Timestamp) -> Self {
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

/// Writes the last line of a function that cannot start or continue. Returns the exit status that
/// makes Lambda start another process.
pub fn exit(result: Result<(), Box<dyn Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = chain(&*error), "the function ends");
            ExitCode::FAILURE
        }
    }
}
