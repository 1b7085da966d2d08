//! CloudWatch's reading of a log line: extracts the metrics by the specification of the embedded
//! metric format, and rejects what CloudWatch would reject.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use opportunity_alerts::telemetry::NAMESPACE;
use opportunity_alerts::timestamp::Timestamp;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

/// CloudWatch's units that a metric here could have.
const UNITS: [&str; 7] = ["Count", "Milliseconds", "Seconds", "Microseconds", "Bytes", "Percent", "None"];

/// The largest size of a log event, in bytes.
const MAX_LINE: usize = 256 * 1024;

/// The metrics that CloudWatch gets, with their values. The key is `Name Unit`, or
/// `Name Unit Dimension=Value` if the metric has a dimension beside the function's name.
pub type Metrics = BTreeMap<String, f64>;

/// Returns the parsed line and its metrics.
pub fn read(line: &str) -> (Value, Metrics) {
    assert!(line.len() <= MAX_LINE);
    assert_no_member_comes_twice(line);
    let line: Value = serde_json::from_str(line).unwrap();
    let metrics = if line["_aws"].is_null() { Metrics::new() } else { metrics(&line) };
    (line, metrics)
}

fn metrics(line: &Value) -> Metrics {
    assert_members(&line["_aws"], &["Timestamp", "CloudWatchMetrics"]);
    let at = Timestamp::from_millis(line["_aws"]["Timestamp"].as_u64().unwrap());
    let now = Timestamp::from(SystemTime::now());
    assert!(now.since(at) < Duration::from_secs(14 * 86_400) && at.since(now) < Duration::from_secs(7200), "{line}");
    let mut metrics = Metrics::new();
    for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
        assert_members(directive, &["Namespace", "Dimensions", "Metrics"]);
        assert_eq!(directive["Namespace"], NAMESPACE);
        assert!((1..=255).contains(&NAMESPACE.len()) && !NAMESPACE.starts_with("AWS/"));
        let definitions = directive["Metrics"].as_array().unwrap();
        assert!((1..=100).contains(&definitions.len()), "{line}");
        let sets = directive["Dimensions"].as_array().unwrap();
        assert!(!sets.is_empty(), "{line}");
        for set in sets {
            let dimensions = dimensions(line, set);
            for definition in definitions {
                let (name, value) = metric(line, definition);
                let name = format!("{name} {dimensions}").trim_end().to_owned();
                assert_eq!(metrics.insert(name, value), None, "twice in {line}");
            }
        }
    }
    metrics
}

/// Returns the values of a set's dimensions, without the function's name, which is the first of
/// every set.
fn dimensions(line: &Value, set: &Value) -> String {
    let names: Vec<_> = set.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.len() <= 30 && names.iter().collect::<BTreeSet<_>>().len() == names.len(), "{line}");
    let dimension = |name: &&str| {
        let value = line[name].as_str().unwrap_or_else(|| panic!("dimension {name} of {line}"));
        assert!((1..=255).contains(&name.len()) && (1..=1024).contains(&value.len()) && value.is_ascii(), "{line}");
        format!("{name}={value}")
    };
    let values: Vec<_> = names.iter().map(dimension).collect();
    assert_eq!(values[0], "FunctionName=function", "{line}");
    values[1..].join(" ")
}

fn metric(line: &Value, definition: &Value) -> (String, f64) {
    assert_members(definition, &["Name", "Unit"]);
    let [name, unit] = ["Name", "Unit"].map(|member| definition[member].as_str().unwrap());
    assert!((1..=255).contains(&name.len()) && UNITS.contains(&unit), "{definition}");
    let value = line[name].as_f64().unwrap_or_else(|| panic!("metric {name} of {line}"));
    (format!("{name} {unit}"), value)
}

fn assert_members(object: &Value, names: &[&str]) {
    let members: BTreeSet<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, names.iter().copied().collect(), "{object}");
}

/// JSON allows a repeated member, but readers disagree on which of the two counts.
fn assert_no_member_comes_twice(line: &str) {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            let mut seen = BTreeSet::new();
            while let Some((name, _)) = map.next_entry::<String, Value>()? {
                assert!(seen.insert(name.clone()), "{name} comes twice");
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(line).deserialize_map(Members).unwrap();
}
