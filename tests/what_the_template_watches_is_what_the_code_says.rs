//! Alarms, dashboard and saved queries of `template.yaml` against what the code sends and AWS knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opportunity_alerts::event::STATUSES;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::telemetry::{Metric as Sent, NAMESPACE};
use opportunity_alerts::timestamp::Timestamp;
use support::alarms::{Alarm, Minutes, State};
use support::template::{function, load, resource, resources_of};
use tokio::time::Instant;
use yaml_serde::{Mapping, Value};

/// What each function sends; the others are the webhook's.
const OF_BOTH: [Sent; 2] = [Sent::ColdStart, Sent::Crashed];
const OF_REDRIVE: [Sent; 7] = [
    Sent::Scanned,
    Sent::Published,
    Sent::Duplicates,
    Sent::StillPending,
    Sent::OldestPendingAge,
    Sent::OldestStreamPendingAge,
    Sent::Incomplete,
];

const REASONS: [&str; 7] = ["missing", "malformed", "mismatch", "stale", "body", "route", "too_large"];

/// In SendPilot's order, and then what it does not document.
fn statuses() -> [&'static str; 10] {
    std::array::from_fn(|index| STATUSES.get(index).copied().unwrap_or("OTHER"))
}

/// What log lines have beside metrics: those of the functions, Lambda's report of an invocation, and the gateway's.
const FIELDS: [&str; 34] = [
    "attempts",
    "debounced",
    "deliveryId",
    "detail",
    "discarded",
    "duplicates",
    "error",
    "eventId",
    "eventType",
    "failure",
    "level",
    "location",
    "newStatus",
    "oldestPendingAgeSeconds",
    "oldestStreamPendingAgeSeconds",
    "otherBody",
    "outcome",
    "previousStatus",
    "published",
    "reason",
    "renamed",
    "requestId",
    "scanned",
    "status",
    "stillPending",
    "stoppedEarly",
    "streamFailure",
    "record.status",
    "integrationError",
    "path",
    "sourceIp",
    "userAgent",
    "@message",
    "@timestamp",
];

/// The services' own metrics that are in use: the dimension, the attribute that is its value, and whose.
const OF_AWS: [(&str, &str, &[&str], &str); 4] = [
    ("AWS/Lambda", "FunctionName", &["Invocations", "Errors", "Throttles", "Duration"], "AWS::Serverless::Function"),
    ("AWS/SQS", "QueueName", &["ApproximateNumberOfMessagesVisible"], "AWS::SQS::Queue"),
    ("AWS/SNS", "TopicName", &OF_SNS, "AWS::SNS::Topic"),
    ("AWS/ApiGateway", "ApiId", &["4xx", "5xx", "Count"], "AWS::Serverless::HttpApi"),
];

/// <https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html>
const OF_SNS: [&str; 5] = [
    "NumberOfMessagesPublished",
    "NumberOfNotificationsDelivered",
    "NumberOfNotificationsFailed",
    "NumberOfNotificationsFilteredOut",
    "NumberOfNotificationsFilteredOut-MessageBody",
];

/// A metric as an alarm or a widget names it; a dimension's value is `Resource` or `Resource.Attribute`, or plain text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    namespace: String,
    name: String,
    dimensions: BTreeMap<String, String>,
}

impl Metric {
    /// Of an alarm on one metric, or of one that metric math reads.
    fn of_alarm(alarm: &Value) -> Self {
        let text = |value: &Value| {
            let text = yaml_serde::to_string(value).unwrap();
            text.trim().trim_start_matches("!Ref ").trim_start_matches("!GetAtt ").to_owned()
        };
        let dimensions = alarm["Dimensions"].as_sequence().unwrap();
        Self {
            namespace: text(&alarm["Namespace"]),
            name: text(&alarm["MetricName"]),
            dimensions: dimensions.iter().map(|one| (text(&one["Name"]), text(&one["Value"]))).collect(),
        }
    }

    fn all_of_alarm(alarm: &Value) -> Vec<Self> {
        Alarm::new(alarm, &[("SilenceHours", 1.0)]).metrics.values().map(Self::of_alarm).collect()
    }

    /// A row of a widget, unless it is an expression.
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
                "RedriveFunction" => OF_REDRIVE.contains(sent) || OF_BOTH.contains(sent),
                "WebhookFunction" => !OF_REDRIVE.contains(sent),
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

/// The dashboard's body with all that parameters add to it.
fn dashboard() -> String {
    let body = &resource("Dashboard")["Properties"]["DashboardBody"];
    let mut whole = body[0].as_str().unwrap().to_owned();
    for (name, choice) in body[1].as_mapping().unwrap() {
        let (place, added) = (format!("${{{}}}", name.as_str().unwrap()), choice[1].as_str().unwrap());
        assert!(whole.contains(&place) && added.starts_with(", ") && choice[2].as_str() == Some(""), "{name:?}");
        whole = whole.replace(&place, added);
    }
    whole
}

fn widgets() -> Vec<serde_json::Value> {
    // The one value that is a number.
    let body = dashboard().replace("${PendingSeconds}", &default("PendingSeconds"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["widgets"].as_array().unwrap().clone()
}

/// All rows of all widgets that are metrics.
fn shown() -> Vec<Metric> {
    let rows = widgets().into_iter().filter_map(|widget| widget["properties"]["metrics"].as_array().cloned()).flatten();
    rows.filter_map(|row| Metric::of_widget(&row)).collect()
}

fn default(parameter: &str) -> String {
    yaml_serde::to_string(&load()["Parameters"][parameter]["Default"]).unwrap().trim().to_owned()
}

#[test]
fn every_alarm_and_every_widget_is_on_a_metric_that_is_sent() {
    for (id, alarm) in alarms() {
        let metrics = Metric::all_of_alarm(&alarm);
        assert!((1..=10).contains(&metrics.len()), "{id}: CloudWatch takes ten");
        for metric in &metrics {
            assert!(metric.exists(), "{id}: {metric:?}");
        }
        // Math over two functions or topics would compare what has nothing to do with each other.
        let of: BTreeSet<_> = metrics.iter().filter_map(|metric| metric.dimensions.values().next()).collect();
        // The webhook function is what answers behind the API.
        let one = of.len() == 1 || of.iter().map(|name| name.as_str()).eq(["WebhookApi", "WebhookFunction"]);
        assert!(one, "{id}: {metrics:?}");
    }
    let shown = shown();
    assert!(shown.len() > 40);
    for metric in shown {
        assert!(metric.exists(), "{metric:?}");
    }
}

#[test]
fn the_age_of_what_is_pending_is_watched_by_topic() {
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
fn every_queue_has_an_alarm_for_what_lies_in_it() {
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

#[test]
fn every_alarm_reaches_the_alarms_topic_and_says_what_to_do_by_what_there_is() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let queries: BTreeSet<String> = saved_queries().into_keys().collect();
    for (id, alarm) in alarms() {
        let to_topic = |actions: &str| yaml_serde::to_string(&alarm[actions]).unwrap() == "- !Ref AlarmsTopic\n";
        assert!(to_topic("AlarmActions"), "{id}");
        assert!(alarm["OKActions"].is_null() || to_topic("OKActions"), "{id}");
        assert!(alarm["TreatMissingData"].is_string(), "{id}: CloudWatch's own choice is to stay as it was");
        let says = yaml_serde::to_string(&alarm["AlarmDescription"]).unwrap().replace("\n  ", " ");
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
        for name in quoted(&says, '"').iter().filter_map(|text| text.strip_prefix("${AWS::StackName}/")) {
            assert!(queries.contains(name), "{id}: {name}");
            places += 1;
        }
        if let Some((_, section)) = says.split_once("README.md, \"") {
            let section = section.split('"').next().unwrap();
            assert!(readme.contains(section), "{id}: {section}");
            places += 1;
        }
        places += ["SendPilot, under", "Service Quotas"].iter().filter(|console| says.contains(**console)).count();
        assert_ne!(places, 0, "{id} names neither a command nor a place: {says}");
        assert!(readme.contains(&format!("`{id}`")), "{id} is not in README.md");
    }
}

/// What stands between two marks.
fn quoted(text: &str, mark: char) -> Vec<&str> {
    text.split(mark).skip(1).step_by(2).collect()
}

#[test]
fn a_genuine_event_that_is_refused_or_renamed_raises_an_alarm_at_the_first_one() {
    for (id, metric, query) in [
        ("GenuineRejectedAlarm", Sent::GenuineRejected, "rejected and why"),
        ("RenamedEventAlarm", Sent::RenamedEvents, "renamed events"),
    ] {
        let alarm = &alarms()[id];
        assert_eq!(Metric::of_alarm(alarm).name, metric.name());
        assert_eq!((alarm["Statistic"].as_str(), alarm["Threshold"].as_u64()), (Some("Sum"), Some(0)), "{id}");
        assert_eq!(alarm["ComparisonOperator"].as_str(), Some("GreaterThanThreshold"), "{id}");
        let says = yaml_serde::to_string(&alarm["AlarmDescription"]).unwrap();
        assert!(says.contains(query) && saved_queries().contains_key(query), "{id}: {says}");
    }
    // A wrong payload is not the fault of the deployed version. So only after a crash or a failed
    // start does the mail advise to deploy the version before.
    let errors = yaml_serde::to_string(&alarms()["ErrorsAlarm"]["AlarmDescription"]).unwrap().replace("\n  ", " ");
    let (first, last) = errors.split_once("Only if").unwrap();
    assert!(first.contains("/failures") && first.contains("first") && !first.contains("deploy"), "{errors}");
    assert!(last.contains("crash") && last.contains("deploy the version before"), "{errors}");
}

#[test]
fn the_parameters_take_a_status_in_any_letter_case() {
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
                let parameter = reference.trim().strip_prefix("!Ref ").unwrap();
                load()["Parameters"][parameter]["MaxValue"].as_u64().unwrap()
            }
        };
        let longest = if period < 3600 { 86_400 } else { 604_800 };
        assert!(period % 60 == 0 && period * periods <= longest, "{id}");
    }
}

#[test]
fn an_alarm_mails_its_end_only_if_missing_data_does_not_end_it() {
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
    let readme = std::fs::read_to_string("README.md").unwrap();
    for (id, alarm) in alarms() {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{id}`"))).unwrap();
        assert_eq!(row.ends_with("| ✓ |"), !alarm["OKActions"].is_null(), "{row}");
    }
}

#[test]
fn readme_counts_what_cloudwatch_bills_of_the_alarms() {
    let template = load();
    let billed = |condition: Option<&str>| -> usize {
        let of = |id: &String| template["Resources"][id.as_str()]["Condition"].as_str() == condition;
        alarms().iter().filter(|(id, _)| of(id)).map(|(_, alarm)| Metric::all_of_alarm(alarm).len()).sum()
    };
    let readme = std::fs::read_to_string("README.md").unwrap();
    let (always, stream) = (billed(None), billed(Some("StreamsStatus")));
    assert!(readme.contains(&format!("| Alarms | {always} metrics × 0.10;")), "{always}");
    assert!(readme.contains(&format!("the {stream} metrics that its alarms read")), "{stream}");
    assert_eq!(billed(Some("MindsSilence")), 1);
}

fn alarm(id: &str, given: &[(&str, f64)]) -> Alarm {
    Alarm::new(&alarms()[id], given)
}

const PUBLISHED: &str = "NumberOfMessagesPublished";
const DELIVERED: &str = "NumberOfNotificationsDelivered";

#[test]
fn a_publish_that_reaches_nobody_raises_an_alarm_within_ten_minutes() {
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
fn a_delivery_that_cloudwatch_knows_five_minutes_after_the_publish_raises_no_alarm() {
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
fn a_filtered_out_message_is_one_that_nobody_wanted_from_the_stream_and_a_lost_alert() {
    for filtered in ["NumberOfNotificationsFilteredOut", "NumberOfNotificationsFilteredOut-MessageBody"] {
        let data = Minutes::default().with(PUBLISHED, [30], 1.0).with(filtered, [30], 2.0);
        assert_eq!(alarm("NobodyHearsStreamAlarm", &[]).minutes_in_alarm(&data, 0, 90, 0), [0; 0], "{filtered}");
        assert_ne!(alarm("NobodyHearsAlarm", &[]).minutes_in_alarm(&data, 0, 90, 0), [0; 0], "{filtered}");
    }
}

#[test]
fn a_burst_that_waits_for_slots_is_no_outage() {
    let alarm = alarm("UnavailableAlarm", &[]);
    let answers = |number| Minutes::default().with("5xx", [30], number);
    assert_eq!(alarm.minutes_in_alarm(&answers(3.0), 0, 90, 0), [0; 0]);
    assert_eq!(alarm.minutes_in_alarm(&answers(4.0), 0, 90, 0), (30..45).collect::<Vec<_>>());
    let waiting = |number| answers(40.0).with("NoSlot", [30], number);
    assert_eq!(alarm.minutes_in_alarm(&waiting(40.0), 0, 90, 0), [0; 0]);
    assert_ne!(alarm.minutes_in_alarm(&waiting(36.0), 0, 90, 0), [0; 0], "four have another reason");
}

#[test]
fn a_redrive_that_stops_raises_an_alarm_after_ten_minutes_until_it_runs() {
    let alarm = alarm("RedriveNotRunningAlarm", &[]);
    let runs = Minutes::default().with("Invocations", 0..60, 1.0).with("Invocations", 90..120, 1.0);
    assert_eq!(alarm.minutes_in_alarm(&runs, 10, 119, 0), (69..90).collect::<Vec<_>>());
    assert_eq!(alarm.minutes_in_alarm(&runs, 10, 60, 8), [0; 0], "data that comes late");
    let scarce = Minutes::default().with("Invocations", (0..120).step_by(9), 1.0);
    assert_eq!(alarm.minutes_in_alarm(&scarce, 10, 119, 0), [0; 0]);
}

#[test]
fn silence_raises_an_alarm_after_its_hours_until_an_event_arrives() {
    let hours = |hours: usize| hours * 60;
    let alarm = alarm("SilenceAlarm", &[("SilenceHours", 3.0)]);
    let data = Minutes::default().with("Genuine", [hours(5), hours(12)], 1.0);
    let alarmed = alarm.minutes_in_alarm(&data, hours(5), hours(14), 0);
    assert_eq!(alarmed, (hours(8)..hours(12)).collect::<Vec<_>>());
    // Hours before the first event count as silent. The template and README.md say so.
    assert_eq!(alarm.state(&Minutes::default(), hours(6), 0, 2, State::InsufficientData), State::Alarm);
}

#[test]
fn only_a_successful_run_of_the_redrive_ends_the_alarm_on_what_is_pending() {
    for (id, age) in
        [("PendingTooOldAlarm", "OldestPendingAge"), ("StreamPendingTooOldAlarm", "OldestStreamPendingAge")]
    {
        let alarm = alarm(id, &[("PendingSeconds", 600.0)]);
        let pending = Minutes::default().with(age, 30..40, 700.0);
        let until = |data: &Minutes| alarm.minutes_in_alarm(data, 0, 90, 0);
        let runs = pending.clone().with("Invocations", 0..90, 1.0).with("Errors", 0..90, 0.0);
        assert_eq!(until(&runs), (30..44).collect::<Vec<_>>(), "{id}: nothing is pending any more");
        let stopped = pending.clone().with("Invocations", 0..40, 1.0);
        assert_eq!(until(&stopped), (30..=90).collect::<Vec<_>>(), "{id}: the redrive does not run");
        let failing = pending.with("Invocations", 0..90, 1.0).with("Errors", 40..90, 1.0);
        assert_eq!(until(&failing), (30..=90).collect::<Vec<_>>(), "{id}: each run fails");
        let listed =
            Minutes::default().with("Invocations", 0..90, 1.0).with("Errors", 0..90, 1.0).with(age, 30..40, 700.0);
        assert_eq!(until(&listed).first(), Some(&30), "{id}: each run fails, but knows of an old delivery");
        let young = Minutes::default().with("Invocations", 0..90, 1.0).with(age, 30..40, 600.0);
        assert_eq!(until(&young), [0; 0], "{id}");
    }
}

#[test]
fn an_idle_queue_keeps_its_alarm_until_sqs_reports_that_it_is_empty() {
    for id in ["RedriveFailedAlarm", "DeadLettersAlarm"] {
        let alarm = alarm(id, &[]);
        let depth = "ApproximateNumberOfMessagesVisible";
        let idle = Minutes::default().with(depth, 10..370, 1.0).with(depth, 900..910, 0.0);
        assert_eq!(alarm.minutes_in_alarm(&idle, 0, 910, 0), (10..900).collect::<Vec<_>>(), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_on_duration_leaves_out_a_publish_that_the_function_gives_up_in_time() {
    let timeout = Duration::from_secs(function("WebhookFunction")["Timeout"].as_u64().unwrap());
    let threshold = Duration::from_millis(resource("DurationAlarm")["Properties"]["Threshold"].as_u64().unwrap());
    let now = Timestamp::from_millis(1_708_770_600_000);
    let schedule = Invocation::new("request-1", now.after(timeout), now, [0; 8]).schedule();
    assert!(schedule.publish_by - Instant::now() < threshold && threshold < timeout);
}

#[test]
fn the_dashboard_draws_its_lines_where_the_alarms_are() {
    let line = |widget: &serde_json::Value| widget["properties"]["annotations"]["horizontal"][0]["value"].as_u64();
    let drawn: Vec<_> = widgets().iter().filter_map(line).collect();
    let duration = resource("DurationAlarm")["Properties"]["Threshold"].as_u64().unwrap();
    assert_eq!(drawn, [default("PendingSeconds").parse().unwrap(), duration]);
}

#[test]
fn the_dashboard_shows_every_alarm_every_reason_and_every_status_in_the_order_of_the_pipeline() {
    for id in alarms().keys() {
        assert!(dashboard().contains(&format!("\"${{{id}.Arn}}\"")), "{id}");
    }
    let values = |name: &str, by: &str| -> Vec<String> {
        shown().iter().filter(|metric| metric.name == name).map(|metric| metric.dimensions[by].clone()).collect()
    };
    let going = |status: &&str| !matches!(*status, "NOT_INTERESTED" | "OTHER");
    let funnel = widgets().into_iter().find(|widget| widget["properties"]["view"] == "bar").unwrap();
    let bars = funnel["properties"]["metrics"].as_array().unwrap().iter().filter_map(Metric::of_widget);
    let bars: Vec<String> = bars.map(|metric| metric.dimensions["NewStatus"].clone()).collect();
    assert_eq!(bars, statuses().into_iter().filter(going).collect::<Vec<_>>());
    let shown: BTreeSet<_> = values("StatusChanges", "NewStatus").into_iter().collect();
    assert_eq!(shown, statuses().map(str::to_owned).into());
    assert_eq!(values("Rejected", "Reason").into_iter().collect::<BTreeSet<_>>(), REASONS.map(str::to_owned).into());
}

#[test]
fn an_expression_is_of_rows_of_its_own_widget() {
    for widget in widgets() {
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
fn the_dashboard_is_free_and_its_widgets_lie_side_by_side() {
    // A metric is its namespace, name and dimensions: one that two widgets show is one.
    assert!(shown().into_iter().collect::<BTreeSet<_>>().len() <= 50, "more than a dashboard has without charge");
    let mut taken = BTreeSet::new();
    for widget in widgets() {
        let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| widget[name].as_u64().unwrap());
        assert!(x + width <= 24, "{widget}");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{cell:?} is under two widgets");
        }
    }
    let height = taken.iter().map(|(_, y)| y + 1).max().unwrap();
    assert_eq!(taken.len() as u64, 24 * height, "there is a hole");
}

/// By their names, without the folder.
fn saved_queries() -> BTreeMap<String, String> {
    let queries = resources_of("AWS::Logs::QueryDefinition").into_values();
    let name = |query: &Value| {
        let name = yaml_serde::to_string(&query["Name"]).unwrap();
        name.trim().strip_prefix("!Sub ${AWS::StackName}/").expect("in a folder of the stack's").to_owned()
    };
    queries.map(|query| (name(&query), query["QueryString"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn every_saved_query_asks_for_what_log_lines_have() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let language = "and as asc by count desc fields filter in ispresent like limit max or sort stats";
    let mut known: BTreeSet<&str> = language.split(' ').chain(FIELDS).collect();
    known.extend(Sent::ALL.iter().map(|sent| sent.name()));
    for (name, query) in saved_queries() {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in README.md");
        let lines = query.lines().filter(|line| !line.starts_with('#'));
        let text: String = lines.map(|line| line.split('"').step_by(2).collect::<String>() + "\n").collect();
        let mut words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && !"@.".contains(c)).collect();
        words.retain(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '@'));
        let made: BTreeSet<&str> = words.windows(2).filter(|pair| pair[0] == "as").map(|pair| pair[1]).collect();
        for word in words {
            assert!(known.contains(word) || made.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn every_parameter_is_used_explained_and_asked_for_in_its_group() {
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
