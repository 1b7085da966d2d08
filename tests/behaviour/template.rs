//! `template.yaml` against the code: variables, timeouts, the signing secret and the route.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::guide;
use crate::support::requests::SECRET;
use crate::support::template::{function, load, resolved, resource};
use opportunity_alerts::aws::Aws;
use opportunity_alerts::config::{self, Config};
use opportunity_alerts::delivery::ledger::dynamodb::PATIENCE;
use opportunity_alerts::delivery::relay::DELIVERY_TIME;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::secrets::api_key::{ApiKey, ApiKeyError};
use opportunity_alerts::secrets::signing::{SecretError, Secrets};
use opportunity_alerts::sendpilot::api::{ApiUrl, DEFAULT_URL};
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::{aws, webhook};
use yaml_serde::Value;

/// The time that SendPilot waits for an answer, in seconds.
const SENDPILOT: u64 = 30;

/// Returns the variables that `read` looks up.
fn looked_up(read: impl FnOnce(&dyn Fn(&str) -> Option<String>)) -> BTreeSet<String> {
    let names = RefCell::new(BTreeSet::new());
    read(&|name: &str| {
        names.borrow_mut().insert(name.to_owned());
        Some(match name {
            "ALERTS_TOPIC_ARN" | "STATUS_TOPIC_ARN" => crate::support::lambda::TOPIC.to_owned(),
            "STATUS_PIPELINE" => "DONE=won".to_owned(),
            "SENDPILOT_API_URL" => DEFAULT_URL.to_owned(),
            "REMEMBER_REPLIES" | "RECONCILE" => "yes".to_owned(),
            _ => "30".to_owned(),
        })
        .filter(|_| !["WEBHOOK_SECRET", "SENDPILOT_API_KEY"].contains(&name))
    });
    names.into_inner()
}

#[test]
fn sets_exactly_the_variables_that_the_code_reads() {
    let all = looked_up(|variable| drop(Config::read(variable).unwrap()));
    let webhook = looked_up(|variable| drop(Config::read(variable).unwrap().rules(variable).unwrap()));
    let mut secret = looked_up(|variable| drop(config::secret(variable).unwrap()));
    assert!(secret.remove("WEBHOOK_SECRET"), "a secret in a variable can be read in the console");
    let aws = Aws::read(|name: &str| (!name.contains("ENDPOINT")).then(|| "us-east-1".to_owned())).unwrap();
    let mut sources = looked_up(|variable| drop(config::sources(variable, &aws).unwrap()));
    assert!(sources.remove("SENDPILOT_API_KEY"), "a key in a variable can be read in the console");
    let metrics = looked_up(|variable| drop(config::detailed_metrics(variable)));
    let mut reconcile = looked_up(|variable| drop(Config::read(variable).unwrap().reconciled_rules(variable).unwrap()));
    // The reconciliation has one value for these, whatever the variables are.
    assert!(["ALERT_TAGS", "RECONCILE"].iter().all(|fixed| reconcile.remove(*fixed)));
    reconcile.extend(sources.clone());
    let webhook = [webhook, secret, sources, metrics].into_iter().flatten().collect();
    for (id, read) in [("WebhookFunction", webhook), ("ReconcileFunction", reconcile), ("RedriveFunction", all)] {
        let function = function(id);
        let variables = function["Environment"]["Variables"].as_mapping().unwrap();
        let set: BTreeSet<_> = variables.keys().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(set, read, "{id}");
        // Lambda sets AWS_LAMBDA_LOG_LEVEL from this, and only under this format.
        assert_eq!(function["LoggingConfig"]["LogFormat"].as_str(), Some("JSON"));
    }
}

/// CloudFormation updates a resource after those that it refers to. It removes old resources after
/// all updates.
#[test]
fn permission_to_publish_outlives_the_topics_variable() {
    // A statement in a role would disappear with the role's update, before the functions are
    // updated.
    for role in ["WebhookRole", "RedriveRole"] {
        assert!(!yaml_serde::to_string(&resource(role)).unwrap().contains("Status"), "{role}");
        let reference = format!("!Ref {role}");
        assert!(
            yaml_serde::to_string(&resource("PublishToStream")["Properties"]["Roles"]).unwrap().contains(&reference)
        );
    }
    let variable = "!If [StreamsStatus, !Select [0, [!Ref StatusTopic, !Ref PublishToStream]], !Ref AWS::NoValue]";
    let variable: Value = yaml_serde::from_str(variable).unwrap();
    for id in ["WebhookFunction", "RedriveFunction"] {
        assert_eq!(function(id)["Environment"]["Variables"]["STATUS_TOPIC_ARN"], variable, "{id}");
    }
    // The redrive gets the topic before anything is claimed for the stream. Otherwise it would
    // discard it.
    assert_eq!(resource("WebhookFunction")["DependsOn"].as_str(), Some("RedriveFunction"));
    // If a condition leaves a resource out, CloudFormation does not create what depends on it.
    for (id, dependent) in load()["Resources"].as_mapping().unwrap() {
        if let Some(on) = dependent["DependsOn"].as_str() {
            assert!(resource(on)["Condition"].is_null(), "{id:?} depends on {on}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_and_deadlines_are_nested() {
    let function = function("WebhookFunction");
    let timeout = function["Timeout"].as_u64().unwrap();
    let gateway = function["Events"]["Webhook"]["Properties"]["TimeoutInMillis"].as_u64().unwrap() / 1000;
    let now = Timestamp::from_millis(1_708_770_600_000);
    let invocation = Invocation::new("request-1", now.after(Duration::from_secs(timeout)), now, [0; 8]);
    let schedule = invocation.schedule();
    assert!(schedule.claim_by - schedule.prepare_by > PATIENCE, "a claim would have no time left");
    let publish = schedule.publish_by - tokio::time::Instant::now();
    let settle = schedule.finish_by - tokio::time::Instant::now();
    assert!(aws::CONNECT_TIMEOUT < aws::ATTEMPT_TIMEOUT && aws::ATTEMPT_TIMEOUT < aws::OPERATION_TIMEOUT);
    assert!(aws::OPERATION_TIMEOUT < publish && publish < settle && settle < Duration::from_secs(timeout));
    assert!(settle - publish >= 2 * PATIENCE, "a completion that got no answer could not be repeated");
    assert!(timeout < gateway && gateway < SENDPILOT);
    let lease = invocation.attempt().lease_until.since(now);
    assert!(schedule.pace_by > schedule.claim_by && schedule.publish_by - schedule.pace_by > 2 * PATIENCE);
    assert!(DELIVERY_TIME >= Duration::from_secs(timeout + 2), "webhooks could take all slots in its reach");
    assert!(lease > Duration::from_secs(timeout), "the living would be overtaken");
    assert!(lease < Duration::from_secs(30), "SendPilot's second retry would find the lease of a dead attempt");
    // The function assumes this lease if the runtime names no deadline.
    let unstated = Invocation::new("request-1", Timestamp::from_millis(0), now, [0; 8]);
    assert_eq!(unstated.attempt().lease_until.since(now), lease);
}

/// Then a backlog drains without a gap between two runs.
#[test]
fn a_redrive_claims_until_the_next_one_begins() {
    let function = function("RedriveFunction");
    let schedule = &function["Events"]["EveryMinute"]["Properties"];
    assert_eq!(schedule["ScheduleExpression"].as_str(), Some("rate(1 minute)"));
    assert_eq!(schedule["OmitName"].as_bool(), Some(true), "two stacks would want one name");
    let timeout = Duration::from_secs(function["Timeout"].as_u64().unwrap());
    let minute = Duration::from_secs(60);
    assert!(timeout - DELIVERY_TIME >= minute, "nothing is taken up before the next run");
    assert!(timeout < minute * 2, "the next run would be given up, where one execution is reserved");
    assert!(DELIVERY_TIME * 4 <= timeout, "each delivery would get less than that");
    // The next run does the work of a run that failed or is older than a minute.
    for retries in [&function["EventInvokeConfig"], &schedule["RetryPolicy"]] {
        assert_eq!(retries["MaximumRetryAttempts"].as_u64(), Some(0));
        assert_eq!(retries["MaximumEventAgeInSeconds"].as_u64(), Some(60));
    }
}

#[test]
fn the_reconciliation_is_off_by_default_and_starts_after_the_webhook_function() {
    let template = load();
    assert_eq!(template["Parameters"]["ReconcileMinutes"]["Default"].as_str(), Some("0"));
    for (minutes, on) in [("'0'", "false"), ("'60'", "true")] {
        let holds = resolved(template, &template["Conditions"]["Reconciles"], &[("ReconcileMinutes", minutes)]);
        assert_eq!(holds, on, "{minutes}");
    }
    for id in ["ReconcileFunction", "ReconcileRole", "ReconcileLogs", "MissedWebhooksAlarm", "ReconcileAlarm"] {
        assert_eq!(resource(id)["Condition"].as_str(), Some("Reconciles"), "{id}");
    }
    assert_eq!(template["Outputs"]["ReconcileFunctionName"]["Condition"].as_str(), Some("Reconciles"));
    // A webhook that is alerted before RECONCILE=yes leaves its lead unknown. A run after the
    // baseline would alert the lead again.
    let switch: Value = yaml_serde::from_str(r#"!If [Reconciles, "yes", "no"]"#).unwrap();
    assert_eq!(function("WebhookFunction")["Environment"]["Variables"]["RECONCILE"], switch);
    let itself = resource("ReconcileFunction");
    assert_eq!(itself["DependsOn"].as_str(), Some("WebhookFunction"));
    // The state of the reconciliation is bound to the name, and a new function needs another state.
    assert!(itself["Properties"]["FunctionName"].is_null());

    let function = function("ReconcileFunction");
    let schedule = &function["Events"]["EveryInterval"]["Properties"];
    let every = yaml_serde::to_string(&schedule["ScheduleExpression"]).unwrap();
    assert_eq!(every.trim(), "!Sub rate(${ReconcileMinutes} minutes)");
    assert_eq!(schedule["OmitName"].as_bool(), Some(true), "two stacks would want one name");
    for retries in [&function["EventInvokeConfig"], &schedule["RetryPolicy"]] {
        assert_eq!(retries["MaximumRetryAttempts"].as_u64(), Some(0), "the next run is the retry");
        assert_eq!(retries["MaximumEventAgeInSeconds"].as_u64(), Some(300), "the shortest interval");
    }
}

#[test]
fn the_secret_starts_empty_or_is_an_existing_one() {
    let secret = resource("WebhookSecret");
    let first = secret["Properties"]["SecretString"].as_str().unwrap();
    assert_eq!(Secrets::parse(first).unwrap_err(), SecretError::Empty);
    // Both name the tab of the console that stores the secret unchanged.
    let guide = guide::text();
    assert!(secret["Properties"]["Description"].as_str().unwrap().contains("Plaintext"));
    assert!(guide.contains("*Plaintext* tab"));
    // Every value that the guide shows can be stored.
    let shown: Vec<_> = guide.split('`').filter(|code| code.contains("whsec_…")).collect();
    let forms = [r#"{"secrets":["whsec_…"]}"#, r#"{"secrets":"whsec_…"}"#, r#"{"WEBHOOK_SECRET":"whsec_…"}"#];
    assert!(forms.iter().all(|form| shown.contains(form)), "{shown:?}");
    for form in shown {
        assert!(Secrets::parse(&form.replace("whsec_…", SECRET)).is_ok(), "{form}");
    }
    let [made, there] = ["!GetAtt WebhookSecret.Id", "!Ref WebhookSecretArn"];
    let either: Value = yaml_serde::from_str(&format!("!If [MakesWebhookSecret, {made}, {there}]")).unwrap();
    let template = load();
    assert_eq!(function("WebhookFunction")["Environment"]["Variables"]["WEBHOOK_SECRET_ID"], either);
    assert_eq!(template["Outputs"]["WebhookSecretArn"]["Value"], either);
    assert_eq!(secret["Condition"].as_str(), Some("MakesWebhookSecret"));
    // No value of a secret comes in by a parameter, where CloudFormation would keep it.
    for (name, parameter) in template["Parameters"].as_mapping().unwrap() {
        assert!(parameter["NoEcho"].is_null(), "{name:?}");
    }
}

/// For the reason that `permission_to_publish_outlives_the_topics_variable` has.
#[test]
fn a_details_permission_exists_before_its_variable() {
    let variables = &function("WebhookFunction")["Environment"]["Variables"];
    let of_reconciliation = &function("ReconcileFunction")["Environment"]["Variables"];
    assert_eq!(of_reconciliation["REMEMBER_REPLIES"], variables["REMEMBER_REPLIES"]);
    // If there is this function, there is always a key.
    assert_eq!(of_reconciliation["SENDPILOT_API_KEY_ID"], variables["SENDPILOT_API_KEY_ID"][1]);
    let either = "!If [MakesApiKey, !GetAtt ApiKeySecret.Id, !Ref SendPilotApiKeyArn]";
    for (variable, set) in [
        ("REMEMBER_REPLIES", r#"!If [RemembersReplies, !Select [0, ["yes", !Ref ReadReplies]], "no"]"#.to_owned()),
        ("SENDPILOT_API_KEY_ID", format!("!If [AsksApi, !Select [0, [{either}, !Ref ReadApiKey]], !Ref AWS::NoValue]")),
    ] {
        let set: Value = yaml_serde::from_str(&set).unwrap();
        assert_eq!(variables[variable], set, "{variable}");
    }
    let either: Value = yaml_serde::from_str(either).unwrap();
    let output = &load()["Outputs"]["ApiKeySecretArn"];
    assert_eq!((output["Condition"].as_str(), &output["Value"]), (Some("AsksApi"), &either));
}

#[test]
fn a_key_is_made_only_if_details_are_on_and_none_is_given() {
    let template = load();
    let arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:key-AbCdEf";
    for (details, minutes, given, asks, makes) in [
        ("no", "'0'", "''", false, false),
        ("yes", "'0'", "''", true, true),
        ("no", "'0'", arn, true, false),
        ("yes", "'0'", arn, true, false),
        // The reconciliation needs the key too.
        ("no", "'60'", "''", true, true),
        ("no", "'60'", arn, true, false),
    ] {
        let parameters = [("LeadDetails", details), ("ReconcileMinutes", minutes), ("SendPilotApiKeyArn", given)];
        let holds = |condition: &str| resolved(template, &template["Conditions"][condition], &parameters);
        assert_eq!([holds("AsksApi"), holds("MakesApiKey")], [asks, makes].map(|holds| holds.to_string()), "{given}");
    }
    let secret = resource("ApiKeySecret");
    assert_eq!(secret["Condition"].as_str(), Some("MakesApiKey"));
    let first = secret["Properties"]["SecretString"].as_str().unwrap();
    assert_eq!(ApiKey::parse(first).unwrap_err(), ApiKeyError::Empty);
    // Every value that the guide shows can be stored.
    let guide = guide::text();
    let shown: BTreeSet<_> = guide.split('`').filter(|code| code.contains("sp_live_…")).collect();
    assert_eq!(shown, BTreeSet::from(["sp_live_…", r#"{"apiKey":"sp_live_…"}"#]));
    for form in shown {
        assert!(ApiKey::parse(&form.replace('…', "0123456789")).is_ok(), "{form}");
    }
    for retained in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(secret[retained].as_str(), Some("Delete"));
    }
    for parameter in ["RememberReplies", "LeadDetails", "ReconcileMinutes", "SendPilotApiKeyArn"] {
        assert!(
            ["no", "0", ""].contains(&template["Parameters"][parameter]["Default"].as_str().unwrap()),
            "{parameter}"
        );
    }
}

#[test]
fn the_key_goes_over_plain_http_to_this_machine_only() {
    let parameter = &load()["Parameters"]["SendPilotApiUrl"];
    let pattern = format!("^({})$", parameter["AllowedPattern"].as_str().unwrap());
    let validator = jsonschema::validator_for(&serde_json::json!({"pattern": pattern})).unwrap();
    let allowed = [
        parameter["Default"].as_str().unwrap(),
        "https://api.sendpilot.ai/api",
        "https://api.sendpilot.ai:8443/a/b/",
        "http://127.0.0.1:8080",
        "http://localhost/api",
        "http://[::1]:9000/api",
        "http://localhost:65535",
        "https://a-1.2b.c",
    ];
    let refused = [
        "",
        "api.sendpilot.ai",
        "http://api.sendpilot.ai",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "https://user@evil.example",
        "https://api.sendpilot.ai?key=1",
        "https://api.sendpilot.ai/#a",
        "https://",
        "https://api.sendpilot.ai:65536",
        "https://api.sendpilot.ai:99999",
        "https://1.2.3.4.5",
        "https://api..sendpilot.ai",
        "ftp://api.sendpilot.ai",
    ];
    for (urls, valid) in [(&allowed[..], true), (&refused, false)] {
        for url in urls {
            assert_eq!(validator.is_valid(&(*url).into()), valid, "{url}");
            assert!(!valid || ApiUrl::parse(url).is_ok(), "with {url}, the function would not start");
        }
    }
}

/// Email and chat are the only subscriptions that the template makes.
#[test]
fn an_output_says_that_nobody_is_subscribed() {
    let template = load();
    let [none, slack, teams] = [
        &[][..],
        &[("SlackWorkspaceId", "T1"), ("SlackChannelId", "C1")],
        &[("TeamsTeamId", "1"), ("TeamsTenantId", "2"), ("TeamsChannelId", "3")],
    ];
    for (output, email, topic) in
        [("NobodyGetsAlerts", "AlertEmail", "AlertsTopicArn"), ("NobodyGetsAlarms", "AlarmEmail", "AlarmsTopicArn")]
    {
        let output = &template["Outputs"][output];
        let condition = &template["Conditions"][output["Condition"].as_str().unwrap()];
        for (chat, address, nobody) in
            [(none, "", true), (none, "you@example.com", false), (slack, "", false), (teams, "", false)]
        {
            let unset = ["AlertEmail", "AlarmEmail", "SlackWorkspaceId", "SlackChannelId"].into_iter();
            let unset = unset.chain(["TeamsTeamId", "TeamsTenantId", "TeamsChannelId"]).map(|name| (name, "''"));
            let address = if address.is_empty() { "''" } else { address };
            let given: Vec<_> = [(email, address)].into_iter().chain(chat.iter().copied()).chain(unset).collect();
            assert_eq!(resolved(template, condition, &given), nobody.to_string(), "{email} {given:?}");
        }
        // The last output of `sam deploy` names the topic and the command to subscribe an address.
        assert!(output["Description"].as_str().unwrap().contains(topic));
        assert!(yaml_serde::to_string(&output["Value"]).unwrap().contains(&format!("{email}=")));
        assert!(template["Parameters"][email]["Description"].as_str().unwrap().contains("nobody gets"));
    }
}

#[test]
fn the_route_matches_the_code() {
    let function = function("WebhookFunction");
    let event = &function["Events"]["Webhook"];
    assert_eq!((event["Type"].as_str(), event["Properties"]["Method"].as_str()), (Some("HttpApi"), Some("POST")));
    assert_eq!(event["Properties"]["Path"].as_str(), Some(webhook::PATH));
    assert_eq!(event["Properties"]["PayloadFormatVersion"].as_str(), Some("2.0"));
}
