//! One line of JSON per invocation: what happened, under which ids, why and how fast, and the metrics that CloudWatch takes
//! out of it. Never a body, a LinkedIn URL, a lead's id or a secret.
//!
//! A line with metrics is a document of CloudWatch's embedded metric format: `_aws` names members of the line that are
//! metrics, and members that are their dimensions. Nothing is called and nobody waited for; the log is read anyway.
//! Dimensions take few values, because each combination of them is a metric of its own, and paid for.
//!
//! Written here and not by a crate: `metrique` does it as fast, but for one kind of line it is 41 more crates to lock and to
//! build, and three times the bytes.

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

/// Where CloudWatch files the metrics.
pub const NAMESPACE: &str = "OpportunityAlerts";

/// The dimension of every metric: the function that sends it.
pub const FUNCTION_NAME: &str = "FunctionName";

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident $unit:ident $(by $dimension:ident)?,)*) => {
        /// What CloudWatch counts and measures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[$doc])* $name,)*
        }

        impl Metric {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As CloudWatch knows it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// CloudWatch's word for what it is counted in.
            pub fn unit(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($unit),)*
                }
            }

            /// The dimension that it has beside [`FUNCTION_NAME`].
            pub fn dimension(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => None$(.or(Some(stringify!($dimension))))?,)*
                }
            }
        }
    };
}

metrics! {
    /// A request with this outcome, as with the next eleven.
    Alerted Count,
    /// A message to the lead status stream that got out, beside an alert too.
    Streamed Count,
    /// A message to the lead status stream that is claimed and left to the redrive, whether or not
    /// an alert was due too.
    StreamPending Count,
    /// An alert that was not sent, because another has told the same of the same lead. By a run of the redrive, too.
    Debounced Count,
    /// What is due was done already.
    Duplicate Count,
    /// Nothing was due.
    Ignored Count,
    /// Another attempt has the delivery in hand.
    InProgress Count,
    /// The ledger, the topic or the secret did not do its part.
    Unavailable Count,
    /// A request answered 503 only because no slot was free for its alert. The redrive publishes
    /// the alert.
    NoSlot Count,
    /// No event.
    Malformed Count,
    /// Not signed by a secret of ours, or not now.
    Unauthorized Count,
    /// Another path.
    NotFound Count,
    /// Another method.
    MethodNotAllowed Count,
    /// A body that is too long.
    TooLarge Count,
    /// A request with a valid signature, whose event could be read and was not refused.
    Genuine Count,
    /// A request with a valid signature that was refused for good, because of its event or its
    /// timestamp.
    GenuineRejected Count,
    /// A genuine event of an unknown type, whose kind the shape of its `data` decided.
    RenamedEvents Count,
    /// An event for which an alert is due, whatever becomes of it.
    Opportunities Count,
    /// A request that no repetition can mend.
    Rejected Count by Reason,
    /// A genuine change to a status of [`sendpilot_events::STATUSES`], or to `OTHER`.
    StatusChanges Count by NewStatus,
    /// How long the claim took.
    ClaimTime Milliseconds,
    /// How long the publish took.
    PublishTime Milliseconds,
    /// How long the completion took.
    CompleteTime Milliseconds,
    /// From the moment that the event names to the publish.
    TimeToAlert Milliseconds,
    /// The first invocation of a process.
    ColdStart Count,
    /// An event whose id already belongs to another fact. It gets a delivery of its own.
    OtherBody Count,
    /// A request that cannot be verified, because our own secret cannot be read or used. While the
    /// current version of the secret is refused, every request.
    SecretUnreadable Count,
    /// A panic.
    Crashed Count,
    /// Pending deliveries that a run of the redrive found.
    Scanned Count,
    /// Those of them that it published.
    Published Count,
    /// Those of them that somebody else had published meanwhile.
    Duplicates Count,
    /// Those of them that are pending after it.
    StillPending Count,
    /// Age of the oldest alert that is pending after the run, since its first claim.
    OldestPendingAge Seconds,
    /// The same for messages to the lead status stream, from a run that found one.
    OldestStreamPendingAge Seconds,
    /// A run of the redrive that does not know all that is pending.
    Incomplete Count,
}

/// Sends every line of the process of the function with this name, the SDK's and the runtime's and that of a panic too, to
/// standard output as one JSON object with an RFC 3339 `timestamp` and a `level`: without both, Lambda files a line as INFO
/// whatever it was. `level` does not keep an invocation's own line back, because there are metrics in it.
pub fn init(function_name: String, level: Level) -> Telemetry {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(LevelFilter::from_level(level))
        .init();
    // Whoever cannot write has nobody to tell.
    let telemetry = Telemetry::new(function_name, |line| drop(writeln!(stdout().lock(), "{line}")));
    telemetry.on_panic();
    telemetry
}

/// What the lines of one process have in common.
#[derive(Debug)]
pub struct Telemetry {
    function_name: Arc<str>,
    write: fn(&str),
    /// No invocation has begun yet.
    cold: AtomicBool,
    /// The invocation that is going on, for a panic in it to name.
    request_id: Arc<Mutex<Option<String>>>,
}

impl Telemetry {
    /// For the process of the function with this name, whose lines are written by `write`.
    pub fn new(function_name: String, write: fn(&str)) -> Self {
        Self { function_name: function_name.into(), write, cold: AtomicBool::new(true), request_id: Arc::default() }
    }

    /// From now on, a panic leaves a line, and nothing else: its text may hold what must not be seen, so only the place
    /// is told. In a release build the process ends after it.
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

    /// Begins the line of an invocation: `name` says of what kind it is, `request_id` is Lambda's id of it.
    pub fn begin(&self, name: &'static str, request_id: &str) -> LogLine {
        self.now_in(Some(request_id.to_owned()));
        let mut line = LogLine::new(name, Some(request_id.to_owned()), self.function_name.clone());
        line.cold = self.cold.swap(false, Ordering::Relaxed);
        line
    }

    /// Writes it.
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

/// The line of one invocation, as it grows.
#[derive(Debug)]
#[must_use = "it is not written yet"]
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
    /// The second dimension's value.
    by: Option<&'static str>,
}

impl LogLine {
    fn new(name: &'static str, request_id: Option<String>, function_name: Arc<str>) -> Self {
        Self { name, request_id, function_name, cold: false, fields: Vec::new(), samples: Vec::new() }
    }

    /// Adds a field. What is null is left out.
    pub fn field(&mut self, name: &'static str, value: impl Into<Value>) {
        self.fields.push((name, value.into()));
    }

    /// Counts one.
    pub fn count(&mut self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Counts one with this value of the metric's own dimension.
    pub fn count_by(&mut self, metric: Metric, value: &'static str) {
        self.samples.push(Sample { metric, value: 1, by: Some(value) });
    }

    /// Measures.
    pub fn add(&mut self, metric: Metric, value: u64) {
        self.samples.push(Sample { metric, value, by: None });
    }

    /// Measures a time, where there is one.
    pub fn time(&mut self, metric: Metric, span: Option<Duration>) {
        if let Some(span) = span {
            self.add(metric, millis(span));
        }
    }

    #[expect(clippy::expect_used, reason = "strings, numbers and booleans under text names always serialize to JSON")]
    fn text(mut self, level: Level, now: Timestamp) -> String {
        // CloudWatch bills a metric for every hour in which it comes: a line that has none gets none for this alone.
        if self.cold && !self.samples.is_empty() {
            self.count(Metric::ColdStart);
        }
        serde_json::to_string(&Written { line: &self, level, now }).expect("a line is JSON")
    }
}

/// A line at the moment in which it is written.
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

/// The last line of a function that cannot start, or cannot go on; and the exit status that makes Lambda start another.
pub fn exit(result: Result<(), Box<dyn Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = chain(&*error), "the function ends");
            ExitCode::FAILURE
        }
    }
}
