//! Alarms, dashboard and parameters of `template.yaml`, compared with the metrics that the code and
//! AWS send.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::alarms::{Alarm, Minutes, State};
use crate::support::guide;
use crate::support::template::{load, resource, resources_of, saved_queries};
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::telemetry::{Metric as Sent, NAMESPACE};
use sendpilot_events::STATUSES;
use yaml_serde::{Mapping, Value};

/// The metrics that the redrive sends.
const OF_REDRIVE: [Sent; 2] = [Sent::OldestPendingAge, Sent::OldestStreamPendingAge];

/// The metrics that the reconciliation sends. The webhook function sends the others.
const OF_RECONCILIATION: [Sent; 1] = [Sent::MissedWebhooks];

const REASONS: [&str; 7] = ["missing", "malformed", "mismatch", "stale", "body", "route", "too_large"];

/// SendPilot's statuses in its order, then the value for a status that it does not document.
fn statuses() -> [&'static str; 10] {
    std::array::from_fn(|index| STATUSES.get(index).copied().unwrap_or("OTHER"))
}

/// AWS's own metrics that are in use: namespace, dimension, names, and the type of the resource.
const OF_AWS: [(&str, &str, &[&str], &str); 4] = [
    ("AWS/Lambda", "FunctionName", &["Invocations", "Errors"], "AWS::Serverless::Function"),
    ("AWS/SQS", "QueueName", &["ApproximateNumberOfMessagesVisible"], "AWS::SQS::Queue"),
    ("AWS/SNS", "TopicName", &OF_SNS, "AWS::SNS::Topic"),
    ("AWS/ApiGateway", "ApiId", &["5xx"], "AWS::Serverless::HttpApi"),
];

/// <https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html>
const OF_SNS: [&str; 5] = [
    "NumberOfMessagesPublished",
    "NumberOfNotificationsDelivered",
    "NumberOfNotificationsFailed",
    "NumberOfNotificationsFilteredOut",
    "NumberOfNotificationsFilteredOut-MessageBody",
];

/// A metric as an alarm or a widget names it. The value of a dimension is `Resource`,
/// `Resource.Attribute` or plain text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    namespace: String,
    name: String,
    dimensions: BTreeMap<String, String>,
}

impl Metric {
    /// Reads the metric of an alarm, or one that its metric math reads.
    fn of_alarm(alarm: &Value) -> Self {
        let text = |value: &Value| {
            let text = yaml_serde::to_string(value).unwrap();
            text.trim().trim_start_matches("!Ref ").trim_start_matches("!GetAtt ").to_owned()
        };
        let dimensions = alarm["Dimensions"].as_sequence().cloned().unwrap_or_default();
        Self {
            namespace: text(&alarm["Namespace"]),
            name: text(&alarm["MetricName"]),
            dimensions: dimensions.iter().map(|one| (text(&one["Name"]), text(&one["Value"]))).collect(),
        }
    }

    fn all_of_alarm(alarm: &Value) -> Vec<Self> {
        Alarm::new(alarm, &[("SilenceHours", 1.0), ("ReconcileMinutes", 60.0)])
            .metrics
            .values()
            .map(Self::of_alarm)
            .collect()
    }

    /// Reads the metric of a widget's row. Returns `None` for an expression.
    fn of_widget(row: &serde_json::Value) -> Option<Self> {
        let words: Vec<&str> = row.as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
        let [namespace, name, dimensions @ ..] = &words[..] else { return None };
        let value = |text: &str| text.trim_start_matches("${").trim_end_matches('}').to_owned();
        Some(Self {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            dimensions: dimensions.chunks(2).map(|pair| (pair[0].to_owned(), value(pair[1]))).collect(),
        })
    }

    fn exists(&self) -> bool {
        let mut dimensions = self.dimensions.clone();
        if self.namespace == NAMESPACE {
            let function = dimensions.remove("FunctionName").unwrap_or_default();
            let Some(sent) = Sent::ALL.iter().find(|sent| sent.name() == self.name) else { return false };
            let sends = match function.as_str() {
                "RedriveFunction" => OF_REDRIVE.contains(sent),
                "ReconcileFunction" => OF_RECONCILIATION.contains(sent),
                "WebhookFunction" => !OF_REDRIVE.contains(sent) && !OF_RECONCILIATION.contains(sent),
                _ => false,
            };
            let value = sent.dimension().and_then(|by| dimensions.remove(by));
            let has_value = match sent.dimension() {
                None => true,
                Some("Reason") => REASONS.map(Some).contains(&value.as_deref()),
                Some(_) => statuses().map(Some).contains(&value.as_deref()),
            };
            return sends && has_value && dimensions.is_empty();
        }
        if dimensions.is_empty() {
            return resources_of("AWS::Logs::MetricFilter").values().any(|filter| {
                let made = &filter["MetricTransformations"][0];
                let namespace = yaml_serde::to_string(&made["MetricNamespace"]).unwrap();
                namespace.trim() == self.namespace && made["MetricName"].as_str() == Some(&self.name)
            });
        }
        OF_AWS.iter().any(|(namespace, dimension, names, kind)| {
            let [(name, value)] = &dimensions.iter().collect::<Vec<_>>()[..] else { return false };
            let (of, attribute) = value.split_once('.').unwrap_or((value, ""));
            // A queue's Ref is its URL, a topic's its ARN.
            let named = if matches!(*dimension, "QueueName" | "TopicName") { *dimension } else { "" };
            (*namespace, *dimension, named) == (self.namespace.as_str(), name.as_str(), attribute)
                && names.contains(&self.name.as_str())
                && resource(of)["Type"].as_str() == Some(kind)
        })
    }
}

fn alarms() -> BTreeMap<String, Value> {
    resources_of("AWS::CloudWatch::Alarm")
}

/// Returns the dashboard's body with everything that parameters can add to it. `detailed` is
/// whether it reads the detailed metrics.
fn dashboard(detailed: bool) -> String {
    let body = &resource("Dashboard")["Properties"]["DashboardBody"];
    let mut whole = body[0].as_str().unwrap().to_owned();
    for (name, choice) in body[1].as_mapping().unwrap() {
        let place = format!("${{{}}}", name.as_str().unwrap());
        let [condition, yes, no] = [0, 1, 2].map(|index| choice[index].as_str().unwrap());
        let added = if condition == "HasDetailedMetrics" {
            if detailed { yes } else { no }
        } else {
            assert!(yes.starts_with(", ") && no.is_empty(), "{name:?}");
            yes
        };
        assert!(whole.contains(&place), "{name:?}");
        whole = whole.replace(&place, added);
    }
    whole
}

fn widgets(detailed: bool) -> Vec<serde_json::Value> {
    // The one value that is a number.
    let body = dashboard(detailed).replace("${PendingSeconds}", &default("PendingSeconds"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["widgets"].as_array().unwrap().clone()
}

/// Returns the metrics of all widgets.
fn shown(detailed: bool) -> Vec<Metric> {
    let rows = widgets(detailed).into_iter().filter_map(|widget| widget["properties"]["metrics"].as_array().cloned());
    rows.flatten().filter_map(|row| Metric::of_widget(&row)).collect()
}

fn default(parameter: &str) -> String {
    yaml_serde::to_string(&load()["Parameters"][parameter]["Default"]).unwrap().trim().to_owned()
}

#[test]
fn alarms_and_widgets_use_metrics_that_are_sent() {
    for (id, alarm) in alarms() {
        let metrics = Metric::all_of_alarm(&alarm);
        assert!((1..=10).contains(&metrics.len()), "{id}: CloudWatch takes ten");
        for metric in &metrics {
            assert!(metric.exists(), "{id}: {metric:?}");
        }
        // Math over two functions or topics would compare unrelated numbers.
        let of: BTreeSet<_> = metrics.iter().filter_map(|metric| metric.dimensions.values().next()).collect();
        // The webhook function answers behind the API.
        let one = of.len() <= 1 || of.iter().map(|name| name.as_str()).eq(["WebhookApi", "WebhookFunction"]);
        assert!(one, "{id}: {metrics:?}");
    }
    for detailed in [false, true] {
        for metric in shown(detailed) {
            assert!(metric.exists(), "{metric:?}");
        }
    }
}

#[test]
fn an_alarm_or_the_detailed_dashboard_reads_every_metric() {
    let own = |metrics: Vec<Metric>| -> BTreeSet<String> {
        metrics.into_iter().filter(|metric| metric.namespace == NAMESPACE).map(|metric| metric.name).collect()
    };
    let alarmed = own(alarms().values().flat_map(Metric::all_of_alarm).collect());
    let sent = |detailed: bool| -> BTreeSet<String> {
        Sent::ALL.iter().filter(|sent| sent.is_detailed() == detailed).map(|sent| sent.name().to_owned()).collect()
    };
    assert_eq!(alarmed, sent(false), "CloudWatch bills a metric whether it is read or not");
    assert!(own(shown(false)).is_subset(&alarmed), "{:?}", shown(false));
    assert_eq!(&own(shown(true)) - &alarmed, sent(true));
}

#[test]
fn the_pending_age_is_watched_per_topic() {
    for (id, metric, condition) in [
        ("PendingTooOldAlarm", Sent::OldestPendingAge, None),
        ("StreamPendingTooOldAlarm", Sent::OldestStreamPendingAge, Some("StreamsStatus")),
    ] {
        let alarm = resource(id);
        assert_eq!(alarm["Condition"].as_str(), condition, "{id}");
        let own = Metric::all_of_alarm(&alarm["Properties"]).into_iter().find(|metric| metric.namespace == NAMESPACE);
        assert_eq!(own.unwrap().name, metric.name(), "{id}");
        assert_eq!(yaml_serde::to_string(&alarm["Properties"]["Threshold"]).unwrap(), "!Ref PendingSeconds\n", "{id}");
    }
}

#[test]
fn every_queue_has_an_alarm() {
    for queue in resources_of("AWS::SQS::Queue").keys() {
        let watches = |(_, alarm): (String, Value)| {
            let metric = Metric::all_of_alarm(&alarm).remove(0);
            metric.name == "ApproximateNumberOfMessagesVisible"
                && metric.dimensions["QueueName"] == format!("{queue}.QueueName")
                && alarm["Threshold"].as_u64() == Some(0)
        };
        assert!(alarms().into_iter().any(watches), "{queue}");
    }
}

/// The alarm whose cause is seen and fixed in SendPilot.
const IN_SENDPILOT: [&str; 1] = ["SilenceAlarm"];

#[test]
fn every_alarm_says_what_to_do() {
    let guide = guide::text();
    let queries = saved_queries();
    for (id, alarm) in alarms() {
        let to_topic = |actions: &str| yaml_serde::to_string(&alarm[actions]).unwrap() == "- !Ref AlarmsTopic\n";
        assert!(to_topic("AlarmActions"), "{id}");
        assert!(alarm["OKActions"].is_null() || to_topic("OKActions"), "{id}");
        assert!(alarm["TreatMissingData"].is_string(), "{id}: CloudWatch's own choice is to stay as it was");
        let says = mail(&id);
        // CloudWatch takes 1024 characters, and names of resources are longer than their ids.
        assert!((100..700).contains(&says.len()), "{id}: {says}");
        let mut places = 0;
        for command in quoted(&says, '`') {
            let (tool, rest) = command.split_once(' ').unwrap();
            let ops = rest.strip_prefix("ops.pyz ").and_then(|rest| rest.split(' ').next());
            let exists = |name: &str| std::fs::exists(format!("tools/ops/{name}.py")).unwrap();
            assert!(tool == "aws" || (tool == "python3" && ops.is_some_and(exists)), "{id}: {command}");
            places += 1;
        }
        for name in named_queries(&says) {
            assert!(queries.contains_key(name), "{id}: {name}");
            places += 1;
        }
        if let Some((_, section)) = says.split_once(".md, \"") {
            let section = section.split('"').next().unwrap();
            let heading =
                |line: &str| line.starts_with(&format!("**{section}")) || line.ends_with(&format!("# {section}"));
            assert!(guide.lines().any(heading), "{id}: {section}");
            places += 1;
        }
        assert_eq!(
            places == 0,
            IN_SENDPILOT.contains(&id.as_str()),
            "{id} names neither a command nor a place: {says}"
        );
        assert!(guide.contains(&format!("`{id}`")), "{id} is not in the guide");
    }
}

/// Returns the text that an alarm's mail has, in one line.
fn mail(id: &str) -> String {
    yaml_serde::to_string(&alarms()[id]["AlarmDescription"]).unwrap().replace("\n  ", " ")
}

/// Returns the saved queries that a mail names.
fn named_queries(mail: &str) -> Vec<&str> {
    quoted(mail, '"').iter().filter_map(|text| text.strip_prefix("${AWS::StackName}/")).collect()
}

/// Returns the texts between two marks.
fn quoted(text: &str, mark: char) -> Vec<&str> {
    text.split(mark).skip(1).step_by(2).collect()
}

#[test]
fn one_event_alarms_and_the_mail_knows_each_kind() {
    for (id, metric, query, kinds) in [
        ("GenuineRejectedAlarm", Sent::GenuineRejected, "rejected and why", ["body", "stale"]),
        ("UnexpectedEventAlarm", Sent::UnexpectedEvent, "unexpected events", ["renamed", "bodyMismatch"]),
    ] {
        let alarm = &alarms()[id];
        assert_eq!(Metric::of_alarm(alarm).name, metric.name());
        assert_eq!((alarm["Statistic"].as_str(), alarm["Threshold"].as_u64()), (Some("Sum"), Some(0)));
        assert_eq!(alarm["ComparisonOperator"].as_str(), Some("GreaterThanThreshold"));
        let mail = mail(id);
        assert_eq!(named_queries(&mail), [query]);
        assert!(kinds.iter().all(|kind| mail.contains(&format!("\"{kind}\""))), "{mail}");
    }
    let query = saved_queries()["unexpected events"]["QueryString"].as_str().unwrap().to_owned();
    assert!(query.contains("ispresent(renamed) or ispresent(bodyMismatch)"), "{query}");
}

// A wrong payload is not the fault of the deployed version. So the mail advises another version
// only after the condition for it.
#[test]
fn the_errors_mail_advises_another_version_last() {
    let errors = mail("ErrorsAlarm");
    assert_eq!(named_queries(&errors), ["failures"]);
    let (first, last) = errors.split_once("Only if").unwrap();
    assert!(first.contains("/failures") && !first.contains("deploy") && last.contains("deploy"), "{errors}");
}

#[test]
fn the_unavailable_mail_covers_throttles() {
    let mail = mail("UnavailableAlarm");
    assert!(mail.contains("throttled") && mail.contains("Concurrent executions"), "{mail}");
}

#[test]
fn parameters_take_a_status_in_any_case() {
    for (parameter, values) in [
        ("AlertStatuses", ["Opportunity, meeting_booked", "OPPORTUNITY,x_1"]),
        ("StatusPipeline", ["Opportunity=sql, done = customer", "OPPORTUNITY=Sales qualified"]),
    ] {
        let pattern = load()["Parameters"][parameter]["AllowedPattern"].as_str().unwrap().to_owned();
        // CloudFormation matches the pattern with the whole value.
        let schema = serde_json::json!({"pattern": format!("^({pattern})$")});
        let validator = jsonschema::validator_for(&schema).unwrap();
        for value in values {
            assert!(validator.is_valid(&value.into()), "{parameter}: {value}");
        }
        assert!(!validator.is_valid(&"Meeting booked".into()), "{parameter}");
    }
}

#[test]
fn no_alarm_looks_back_longer_than_cloudwatch_can() {
    for (id, alarm) in alarms() {
        let math = alarm["Metrics"].as_sequence().into_iter().flatten();
        let stat = math.map(|query| &query["MetricStat"]).find(|stat| !stat.is_null()).unwrap_or(&alarm);
        let period = stat["Period"].as_u64().unwrap();
        let periods = match alarm["EvaluationPeriods"].as_u64() {
            Some(periods) => periods,
            None => {
                let reference = yaml_serde::to_string(&alarm["EvaluationPeriods"]).unwrap();
                highest(reference.trim().strip_prefix("!Ref ").unwrap())
            }
        };
        let longest = if period < 3600 { 86_400 } else { 604_800 };
        assert!(period % 60 == 0 && period * periods <= longest, "{id}");
    }
}

/// Returns the highest number that a parameter takes, by its limit or its pattern.
fn highest(parameter: &str) -> u64 {
    let numbers = taken(parameter);
    load()["Parameters"][parameter]["MaxValue"].as_u64().unwrap_or_else(|| numbers.last().copied().unwrap())
}

/// Returns the whole numbers that a parameter's pattern takes.
fn taken(parameter: &str) -> Vec<u64> {
    let pattern = load()["Parameters"][parameter]["AllowedPattern"].as_str().unwrap_or_default().to_owned();
    let schema = serde_json::json!({"pattern": format!("^({pattern})$")});
    let validator = jsonschema::validator_for(&schema).unwrap();
    (0..10_000).filter(|number: &u64| validator.is_valid(&number.to_string().into())).collect()
}

#[test]
fn the_reconciliations_interval_fits_a_run_and_the_alarm() {
    let numbers = taken("ReconcileMinutes");
    assert_eq!(numbers, [0].into_iter().chain(5..=480).collect::<Vec<_>>());
    let alarm = &alarms()["ReconcileAlarm"];
    let period = alarm["Metrics"][1]["MetricStat"]["Period"].as_u64().unwrap();
    assert_eq!((period, highest("ReconcileMinutes") * period), (3 * 60, 86_400), "three intervals, at most a day");
    let timeout = resource("ReconcileFunction")["Properties"]["Timeout"].as_u64().unwrap();
    // A schedule has a precision of a minute.
    let margin = LEASE_MARGIN.as_secs() + 60;
    assert!(timeout + margin <= numbers[1] * 60, "the run after a killed one would do nothing, and not fail");
}

#[test]
fn mails_ok_only_if_data_ends_the_alarm() {
    for (id, alarm) in alarms() {
        let ends_by_data = match alarm["TreatMissingData"].as_str() {
            Some("ignore") => true,
            Some("notBreaching") => false,
            other => panic!("{id}: {other:?}"),
        };
        assert_eq!(alarm["OKActions"].is_null(), !ends_by_data, "{id}");
        // SQS reports nothing on a queue that was idle for six hours.
        let on_queue = Metric::all_of_alarm(&alarm).iter().any(|metric| metric.namespace == "AWS/SQS");
        assert!(ends_by_data || !on_queue, "{id}");
    }
    let guide = guide::text();
    for (id, alarm) in alarms() {
        let row = guide.lines().find(|line| line.starts_with(&format!("| `{id}`"))).unwrap();
        assert_eq!(row.ends_with("| ✓ |"), !alarm["OKActions"].is_null(), "{row}");
    }
}

#[test]
fn the_guide_counts_the_billed_alarm_metrics() {
    let template = load();
    let billed = |condition: Option<&str>| -> usize {
        let of = |id: &String| template["Resources"][id.as_str()]["Condition"].as_str() == condition;
        alarms().iter().filter(|(id, _)| of(id)).map(|(_, alarm)| Metric::all_of_alarm(alarm).len()).sum()
    };
    let (always, stream) = (billed(None), billed(Some("StreamsStatus")));
    let guide = guide::text();
    let counted = guide.lines().find_map(|line| line.strip_prefix("| Alarms | ")?.split(' ').next());
    assert_eq!(counted, Some(always.to_string().as_str()));
    let prices = std::fs::read_to_string("tools/docs/price.py").unwrap();
    let counted = prices.lines().find_map(|line| line.strip_prefix("ALARM_METRICS, STREAM_ALARM_METRICS = "));
    assert_eq!(counted, Some(format!("{always}, {stream}").as_str()));
    assert_eq!(billed(Some("HasSilenceAlarm")), 1);
    assert_eq!(billed(Some("AsksApi")), 1);
    let counted = prices.lines().find_map(|line| line.strip_prefix("RECONCILE_ALARM_METRICS = "));
    assert_eq!(counted, Some(billed(Some("Reconciles")).to_string().as_str()));
    assert!(always <= 14, "an idle stack may cost 2 dollars a month");
}

fn alarm(id: &str, given: &[(&str, f64)]) -> Alarm {
    Alarm::new(&alarms()[id], given)
}

const PUBLISHED: &str = "NumberOfMessagesPublished";
const DELIVERED: &str = "NumberOfNotificationsDelivered";

#[test]
fn a_publish_that_reaches_nobody_alarms_in_ten_minutes() {
    for id in ["NobodyHearsAlarm", "NobodyHearsStreamAlarm"] {
        let alarm = alarm(id, &[]);
        let published = Minutes::default().with(PUBLISHED, [30], 1.0);
        assert_eq!(alarm.minutes_in_alarm(&published, 0, 90, 0), [35, 36, 37, 38, 39], "{id}");
        // Data that comes late delays the alarm, and does not prevent it.
        assert!(alarm.minutes_in_alarm(&published, 0, 90, 3).contains(&35), "{id}");
        assert_eq!(alarm.minutes_in_alarm(&Minutes::default(), 0, 90, 0), [0; 0], "{id}: nothing was published");
        // Those who subscribed were gone after the first alert.
        let gone = Minutes::default().with(PUBLISHED, [30, 50], 1.0).with(DELIVERED, [30], 3.0);
        assert_eq!(alarm.minutes_in_alarm(&gone, 0, 90, 0), [55, 56, 57, 58, 59], "{id}");
        let always = Minutes::default().with(PUBLISHED, 0..90, 2.0);
        assert_eq!(alarm.minutes_in_alarm(&always, 5, 90, 0), (5..=90).collect::<Vec<_>>(), "{id}");
        // If CloudWatch retrieves no period before the last one, the alarm compares the last five
        // minutes.
        assert_eq!(alarm.state(&published, 32, 0, 0, State::Ok), State::Alarm, "{id}");
    }
}

#[test]
fn a_delivery_reported_within_five_minutes_raises_no_alarm() {
    for id in ["NobodyHearsAlarm", "NobodyHearsStreamAlarm"] {
        let alarm = alarm(id, &[]);
        for delay in 0..=5 {
            for late in 0..=5 - delay {
                let heard = Minutes::default().with(PUBLISHED, [30], 1.0).with(DELIVERED, [30 + delay], 1.0);
                assert_eq!(alarm.minutes_in_alarm(&heard, 0, 90, late), [0; 0], "{id}: {delay}, {late}");
            }
        }
    }
}

#[test]
fn filtered_messages_alarm_for_alerts_only() {
    for filtered in ["NumberOfNotificationsFilteredOut", "NumberOfNotificationsFilteredOut-MessageBody"] {
        let data = Minutes::default().with(PUBLISHED, [30], 1.0).with(filtered, [30], 2.0);
        assert_eq!(alarm("NobodyHearsStreamAlarm", &[]).minutes_in_alarm(&data, 0, 90, 0), [0; 0], "{filtered}");
        assert_ne!(alarm("NobodyHearsAlarm", &[]).minutes_in_alarm(&data, 0, 90, 0), [0; 0], "{filtered}");
    }
}

#[test]
fn a_burst_waiting_for_slots_is_not_an_outage() {
    let alarm = alarm("UnavailableAlarm", &[]);
    let answers = |number| Minutes::default().with("5xx", [30], number);
    assert_eq!(alarm.minutes_in_alarm(&answers(3.0), 0, 90, 0), [0; 0]);
    assert_eq!(alarm.minutes_in_alarm(&answers(4.0), 0, 90, 0), (30..45).collect::<Vec<_>>());
    let waiting = |number| answers(40.0).with("NoSlot", [30], number);
    assert_eq!(alarm.minutes_in_alarm(&waiting(40.0), 0, 90, 0), [0; 0]);
    assert_ne!(alarm.minutes_in_alarm(&waiting(36.0), 0, 90, 0), [0; 0], "four have another reason");
}

#[test]
fn a_redrive_without_a_successful_run_alarms_after_ten_minutes() {
    let alarm = alarm("PendingTooOldAlarm", &[]);
    let minutes = |data: &Minutes, late| alarm.minutes_in_alarm(data, 10, 119, late);
    let runs = Minutes::default().with("Invocations", 0..60, 1.0).with("Invocations", 90..120, 1.0);
    assert_eq!(minutes(&runs, 0), (69..90).collect::<Vec<_>>(), "the redrive stops");
    let failing = Minutes::default().with("Invocations", 0..120, 1.0).with("Errors", 60..90, 1.0);
    assert_eq!(minutes(&failing, 0), (69..90).collect::<Vec<_>>(), "each run fails");
    let scarce = Minutes::default().with("Invocations", (0..120).step_by(9), 1.0);
    assert_eq!(minutes(&scarce, 0), [0; 0]);
    let flaky = Minutes::default().with("Invocations", 0..120, 1.0).with("Errors", (0..120).step_by(2), 1.0);
    assert_eq!(minutes(&flaky, 0), [0; 0], "every other run succeeds");
    let steady = Minutes::default().with("Invocations", 0..120, 1.0);
    assert_eq!(alarm.minutes_in_alarm(&steady, 10, 119, 8), [0; 0], "data that comes late");
    assert_eq!(alarm.state(&Minutes::default(), 30, 0, 2, State::Ok), State::Alarm, "no data at all");
}

#[test]
fn silence_alarms_until_an_event_arrives() {
    let hours = |hours: usize| hours * 60;
    let alarm = alarm("SilenceAlarm", &[("SilenceHours", 3.0)]);
    let data = Minutes::default().with("Accepted", [hours(5), hours(12)], 1.0);
    let alarmed = alarm.minutes_in_alarm(&data, hours(5), hours(14), 0);
    assert_eq!(alarmed, (hours(8)..hours(12)).collect::<Vec<_>>());
    // Hours before the first event count as silent. The template and the guide say so.
    assert_eq!(alarm.state(&Minutes::default(), hours(6), 0, 2, State::InsufficientData), State::Alarm);
}

#[test]
fn an_old_alert_alarms_until_a_run_finds_it_published() {
    let alarm = alarm("PendingTooOldAlarm", &[("PendingSeconds", 600.0)]);
    let pending = Minutes::default().with("OldestPendingAge", 30..40, 700.0);
    let until = |data: &Minutes| alarm.minutes_in_alarm(data, 10, 90, 0);
    let runs = pending.clone().with("Invocations", 0..90, 1.0).with("Errors", 0..90, 0.0);
    assert_eq!(until(&runs), (30..49).collect::<Vec<_>>(), "nothing is pending any more");
    let stopped = pending.clone().with("Invocations", 0..40, 1.0);
    assert_eq!(until(&stopped), (30..=90).collect::<Vec<_>>(), "the redrive does not run");
    let failing = pending.with("Invocations", 0..90, 1.0).with("Errors", 40..90, 1.0);
    assert_eq!(until(&failing), (30..=90).collect::<Vec<_>>(), "each run fails");
    let young = Minutes::default().with("Invocations", 0..90, 1.0).with("OldestPendingAge", 30..40, 600.0);
    assert_eq!(until(&young), [0; 0]);
}

#[test]
fn only_a_successful_redrive_ends_the_streams_pending_alarm() {
    let alarm = alarm("StreamPendingTooOldAlarm", &[("PendingSeconds", 600.0)]);
    let age = "OldestStreamPendingAge";
    let pending = Minutes::default().with(age, 30..40, 700.0);
    let until = |data: &Minutes| alarm.minutes_in_alarm(data, 0, 90, 0);
    let runs = pending.clone().with("Invocations", 0..90, 1.0).with("Errors", 0..90, 0.0);
    assert_eq!(until(&runs), (30..44).collect::<Vec<_>>(), "nothing is pending any more");
    let stopped = pending.clone().with("Invocations", 0..40, 1.0);
    assert_eq!(until(&stopped), (30..=90).collect::<Vec<_>>(), "the redrive does not run");
    let failing = pending.with("Invocations", 0..90, 1.0).with("Errors", 40..90, 1.0);
    assert_eq!(until(&failing), (30..=90).collect::<Vec<_>>(), "each run fails");
    let listed = Minutes::default().with("Invocations", 0..90, 1.0).with("Errors", 0..90, 1.0).with(age, 30..40, 700.0);
    assert_eq!(until(&listed).first(), Some(&30), "each run fails, but knows of an old delivery");
    let young = Minutes::default().with("Invocations", 0..90, 1.0).with(age, 30..40, 600.0);
    assert_eq!(until(&young), [0; 0]);
}

#[test]
fn one_alert_without_a_usable_api_key_alarms() {
    let alarm = alarm("ApiKeyAlarm", &[]);
    let unusable = Minutes::default().with("ApiKeyUnusable", [30], 1.0);
    assert_eq!(alarm.minutes_in_alarm(&unusable, 0, 90, 0).first(), Some(&30));
    assert_eq!(alarm.minutes_in_alarm(&Minutes::default(), 0, 90, 0), [0; 0]);
    let mail = mail("ApiKeyAlarm");
    let steps = ["neither lost nor late", "leads:read", "workspace:read", "put-secret-value", "doctor"];
    assert!(steps.iter().all(|step| mail.contains(step)), "{mail}");
}

#[test]
fn one_missed_webhook_alarms_and_the_mail_leads_to_sendpilot() {
    let alarm = alarm("MissedWebhooksAlarm", &[]);
    let missed = Minutes::default().with("MissedWebhooks", [30], 1.0);
    assert_eq!(alarm.minutes_in_alarm(&missed, 0, 90, 0).first(), Some(&30));
    assert_eq!(alarm.minutes_in_alarm(&Minutes::default(), 0, 90, 0), [0; 0]);
    let mail = mail("MissedWebhooksAlarm");
    assert_eq!(named_queries(&mail), ["reconciliation runs"]);
    let facts = ["MissedWebhooks", "missedSince", "Integrations, Webhooks", "still enabled", "delivery log", "doctor"];
    assert!(facts.iter().all(|fact| mail.contains(fact)), "{mail}");
}

#[test]
fn a_reconciliation_without_a_successful_run_alarms_after_three_intervals() {
    for minutes in [5, 60] {
        let alarm = alarm("ReconcileAlarm", &[("ReconcileMinutes", minutes as f64)]);
        let day = 10 * minutes;
        let alarmed = |data: &Minutes, late| alarm.minutes_in_alarm(data, 3 * minutes, day, late);
        let every = |range: std::ops::Range<usize>| range.step_by(minutes);
        let steady = Minutes::default().with("Invocations", every(0..day), 1.0);
        assert_eq!(alarmed(&steady, 0), [0; 0], "{minutes}");
        assert_eq!(alarmed(&steady, 8.min(minutes)), [0; 0], "{minutes}: data that comes late");
        let stopped = Minutes::default().with("Invocations", every(0..4 * minutes), 1.0);
        assert_eq!(alarmed(&stopped, 0).first(), Some(&(6 * minutes)), "{minutes}: three after the last run");
        let failing = steady.clone().with("Errors", every(4 * minutes..day), 1.0);
        assert_eq!(alarmed(&failing, 0).first(), Some(&(6 * minutes)), "{minutes}: each run fails");
        let flaky = steady.clone().with("Errors", every(4 * minutes..6 * minutes), 1.0);
        assert_eq!(alarmed(&flaky, 0), [0; 0], "{minutes}: two runs fail");
        let recovered = steady.with("Errors", every(4 * minutes..8 * minutes), 1.0);
        assert_eq!(alarmed(&recovered, 0), (6 * minutes..8 * minutes).collect::<Vec<_>>(), "{minutes}: a run ends it");
        // The template and the guide say so.
        assert_eq!(alarm.state(&Minutes::default(), day, 0, 2, State::InsufficientData), State::Alarm, "{minutes}");
    }
    let mail = mail("ReconcileAlarm");
    assert_eq!(named_queries(&mail), ["reconciliation runs"]);
    assert!(["first run that succeeds", "schedule", "API key", "doctor"].iter().all(|it| mail.contains(it)), "{mail}");
}

#[test]
fn an_idle_queue_keeps_its_alarm_until_empty() {
    let alarm = alarm("DeadLettersAlarm", &[]);
    let depth = "ApproximateNumberOfMessagesVisible";
    let idle = Minutes::default().with(depth, 10..370, 1.0).with(depth, 900..910, 0.0);
    assert_eq!(alarm.minutes_in_alarm(&idle, 0, 910, 0), (10..900).collect::<Vec<_>>());
}

#[test]
fn the_dashboards_line_is_at_the_alarms_threshold() {
    let line = |widget: &serde_json::Value| widget["properties"]["annotations"]["horizontal"][0]["value"].as_u64();
    let drawn: Vec<_> = widgets(false).iter().filter_map(line).collect();
    assert_eq!(drawn, [default("PendingSeconds").parse::<u64>().unwrap()]);
}

/// Returns a widget's title.
fn title(widget: &serde_json::Value) -> &str {
    widget["properties"]["title"].as_str().unwrap()
}

#[test]
fn the_dashboard_answers_four_questions_in_order() {
    let questions =
        ["Is anything wrong?", "Are alerts getting through?", "How fast?", "How do leads move", "What was rejected"];
    for detailed in [false, true] {
        let widgets = widgets(detailed);
        assert!(widgets.len() <= 9);
        let mut places: Vec<(u64, u64, &str)> = widgets
            .iter()
            .map(|widget| (widget["y"].as_u64().unwrap(), widget["x"].as_u64().unwrap(), title(widget)))
            .collect();
        places.sort_unstable();
        let asked: Vec<_> =
            places.iter().filter_map(|(.., title)| questions.iter().find(|one| title.starts_with(**one))).collect();
        assert_eq!(asked, questions.iter().collect::<Vec<_>>());
    }
    let titles = |detailed| widgets(detailed).iter().map(|widget| title(widget).to_owned()).collect::<Vec<_>>();
    assert_eq!(titles(false), titles(true));
}

#[test]
fn the_dashboard_shows_every_alarm_reason_and_status() {
    for id in alarms().keys() {
        assert!(dashboard(false).contains(&format!("\"${{{id}.Arn}}\"")), "{id}");
    }
    let values = |name: &str, by: &str| -> Vec<String> {
        shown(true).iter().filter(|metric| metric.name == name).map(|metric| metric.dimensions[by].clone()).collect()
    };
    let bars = widgets(true).into_iter().find(|widget| title(widget).ends_with("Events by new status")).unwrap();
    let bars = bars["properties"]["metrics"].as_array().unwrap().iter().filter_map(Metric::of_widget);
    let bars: Vec<String> = bars.map(|metric| metric.dimensions["NewStatus"].clone()).collect();
    assert_eq!(bars, statuses());
    assert_eq!(values("Rejected", "Reason").into_iter().collect::<BTreeSet<_>>(), REASONS.map(str::to_owned).into());
}

#[test]
fn expressions_use_rows_of_their_own_widget() {
    for widget in [widgets(false), widgets(true)].concat() {
        let rows = widget["properties"]["metrics"].as_array().cloned().unwrap_or_default();
        let options: Vec<_> = rows.iter().filter_map(|row| row.as_array().unwrap().last().cloned()).collect();
        let ids: BTreeSet<_> = options.iter().filter_map(|options| options["id"].as_str()).collect();
        for expression in options.iter().filter_map(|options| options["expression"].as_str()) {
            let words = expression.split(|c: char| !c.is_alphanumeric());
            let named: Vec<_> = words.filter(|word| word.starts_with(char::is_lowercase)).collect();
            assert!(!named.is_empty() && named.iter().all(|name| ids.contains(name)), "{expression}");
        }
    }
}

#[test]
fn the_dashboard_is_free_and_no_widgets_overlap() {
    for detailed in [false, true] {
        // A metric is its namespace, name and dimensions: one that two widgets show is one.
        assert!(shown(detailed).into_iter().collect::<BTreeSet<_>>().len() <= 50, "more than a free dashboard has");
        let mut taken = BTreeSet::new();
        for widget in widgets(detailed) {
            let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| widget[name].as_u64().unwrap());
            assert!(x + width <= 24, "{widget}");
            for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{cell:?} is under two widgets");
            }
        }
    }
}

#[test]
fn every_parameter_is_used_explained_and_grouped() {
    let template = load();
    let parts = ["Conditions", "Globals", "Resources"].map(|part| yaml_serde::to_string(&template[part]).unwrap());
    let words: BTreeSet<&str> = parts.iter().flat_map(|part| part.split(|c: char| !c.is_alphanumeric())).collect();
    let parameters: Vec<&str> = keys(template["Parameters"].as_mapping().unwrap());
    let interface = &template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"];
    let mut grouped: Vec<&str> = interface.as_sequence().unwrap().iter().flat_map(group).collect();
    grouped.sort_unstable();
    let mut sorted = parameters.clone();
    sorted.sort_unstable();
    assert_eq!(grouped, sorted);
    for name in parameters {
        assert!(words.contains(name), "{name} is used nowhere");
        let parameter = &template["Parameters"][name];
        assert!(parameter["Description"].is_string() && parameter["ConstraintDescription"].is_string(), "{name}");
    }
}

fn group(group: &Value) -> Vec<&str> {
    group["Parameters"].as_sequence().unwrap().iter().filter_map(Value::as_str).collect()
}

fn keys(mapping: &Mapping) -> Vec<&str> {
    mapping.keys().filter_map(Value::as_str).collect()
}
