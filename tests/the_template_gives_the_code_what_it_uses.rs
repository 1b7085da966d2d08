//! `template.yaml` against the code: variables, permissions, timeouts, and the attributes that the table is told of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use opportunity_alerts::config::{self, Config};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::ledger::DeliveryId;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::{aws, webhook};
use support::aws::{Aws, Fault};
use support::dynamodb::DynamoDb;
use support::lambda::{Lambda, environment};
use support::requests::{SECRET, change, opportunity, signed_now};
use support::template::resource;

/// SendPilot waits this long for an answer.
const SENDPILOT: u64 = 30;

#[test]
fn every_variable_that_the_code_reads_is_set_and_no_other() {
    let read = RefCell::new(BTreeSet::new());
    let variable = |name: &str| {
        read.borrow_mut().insert(name.to_owned());
        Some(match name {
            "ALERTS_TOPIC_ARN" => support::lambda::TOPIC.to_owned(),
            "WEBHOOK_SECRET" => SECRET.to_owned(),
            _ => "30".to_owned(),
        })
    };
    Config::read(variable).unwrap();
    config::secrets(variable).unwrap();
    let function = resource("AWS::Serverless::Function");
    let variables = function["Properties"]["Environment"]["Variables"].as_mapping().unwrap();
    let set: BTreeSet<_> = variables.keys().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(set, read.into_inner());
    // Lambda sets AWS_LAMBDA_LOG_LEVEL from this, and only under this format.
    assert_eq!(function["Properties"]["LoggingConfig"]["LogFormat"].as_str(), Some("JSON"));
}

/// Every path of the code, as AWS sees it.
async fn actions_used() -> BTreeSet<&'static str> {
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    let mut function = Lambda::start(environment(&aws), Duration::from_secs(10)).await;
    aws.next("publish", Fault::Refused(403));
    for status in [503, 200, 200] {
        assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, status);
    }
    function.answer(&signed_now(&change("evt_2", "DONE"))).await;
    let action = |call: String| match call.as_str() {
        "claim" | "complete" | "release" => "dynamodb:UpdateItem",
        "publish" => "sns:Publish",
        other => panic!("an action that nobody granted: {other}"),
    };
    let calls = aws.calls();
    assert!(["claim", "complete", "release", "publish"].iter().all(|call| calls.contains(&(*call).to_owned())));
    calls.into_iter().map(action).collect()
}

#[tokio::test]
async fn every_action_that_is_granted_is_one_that_the_code_calls_and_on_one_resource() {
    let role = resource("AWS::IAM::Role");
    let mut granted = BTreeSet::new();
    for statement in role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"].as_sequence().unwrap() {
        assert_eq!(statement["Effect"].as_str(), Some("Allow"));
        assert!(!yaml_serde::to_string(statement).unwrap().contains('*'), "{statement:?}");
        match &statement["Action"] {
            action if action.is_string() => granted.extend(action.as_str().map(str::to_owned)),
            actions => {
                granted.extend(actions.as_sequence().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()))
            }
        }
    }
    // Lambda writes the logs, not the code.
    let logs = ["logs:CreateLogStream", "logs:PutLogEvents"];
    let used = actions_used().await.into_iter().chain(logs);
    assert_eq!(granted, used.map(str::to_owned).collect());
    assert!(role["Properties"]["ManagedPolicyArns"].is_null());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longer_than_another_outlives_it() {
    let function = resource("AWS::Serverless::Function");
    let timeout = function["Properties"]["Timeout"].as_u64().unwrap();
    let gateway = function["Properties"]["Events"]["Webhook"]["Properties"]["TimeoutInMillis"].as_u64().unwrap() / 1000;
    let now = Timestamp::from_millis(1_708_770_600_000);
    let invocation = Invocation::new("request-1", now.after(Duration::from_secs(timeout)), now, [0; 8]);
    let schedule = invocation.schedule();
    let publish = schedule.publish_by - tokio::time::Instant::now();
    let settle = schedule.settle_by - tokio::time::Instant::now();
    assert!(aws::CONNECT_TIMEOUT < aws::ATTEMPT_TIMEOUT && aws::ATTEMPT_TIMEOUT < aws::OPERATION_TIMEOUT);
    assert!(aws::OPERATION_TIMEOUT < publish && publish < settle && settle < Duration::from_secs(timeout));
    assert!(settle - publish >= 2 * aws::ATTEMPT_TIMEOUT, "a completion that got no answer could not be repeated");
    assert!(timeout < gateway && gateway < SENDPILOT);
    let lease = invocation.attempt().lease_until.since(now);
    assert!(lease > Duration::from_secs(timeout), "the living would be overtaken");
    assert!(lease < Duration::from_secs(30), "SendPilot's second retry would find the lease of a dead attempt");
    // What is assumed where the runtime names no deadline.
    let unstated = Invocation::new("request-1", Timestamp::from_millis(0), now, [0; 8]);
    assert_eq!(unstated.attempt().lease_until.since(now), lease);
}

#[test]
fn the_route_is_the_one_that_the_code_answers() {
    let function = resource("AWS::Serverless::Function");
    let event = &function["Properties"]["Events"]["Webhook"];
    assert_eq!((event["Type"].as_str(), event["Properties"]["Method"].as_str()), (Some("HttpApi"), Some("POST")));
    assert_eq!(event["Properties"]["Path"].as_str(), Some(webhook::PATH));
    assert_eq!(event["Properties"]["PayloadFormatVersion"].as_str(), Some("2.0"));
}

#[tokio::test]
async fn the_attribute_that_expires_a_row_is_the_one_that_only_a_completed_row_has() {
    let table = resource("AWS::DynamoDB::Table");
    let ttl = table["Properties"]["TimeToLiveSpecification"]["AttributeName"].as_str().unwrap();
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    let mut function = Lambda::start(environment(&aws), Duration::from_secs(10)).await;
    let id = DeliveryId::alert(Some("ws_abc123xyz"), "evt_1");
    aws.next("publish", Fault::Refused(403));
    function.answer(&signed_now(&opportunity("evt_1"))).await;
    assert!(!dynamodb.row(&id).await.unwrap().contains_key(ttl));
    function.answer(&signed_now(&opportunity("evt_1"))).await;
    let row = dynamodb.row(&id).await.unwrap();
    let [expires, published] = [ttl, "publishedAt"].map(|name| row[name].as_n().unwrap().parse::<u64>().unwrap());
    assert_eq!(expires, (published + 30 * 86_400_000) / 1000, "in seconds, as DynamoDB wants it");
    for retained in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(table[retained].as_str(), Some("Retain"));
    }
}
