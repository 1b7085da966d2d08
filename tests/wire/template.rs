//! `template.yaml` against the calls of the real binaries: the permissions of each role, and the
//! attribute that expires a row.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::aws::{Aws, Fault};
use crate::support::dynamodb::DynamoDb;
use crate::support::lambda::{Lambda, Said, deployed_environment, environment};
use crate::support::receiver::Receiver;
use crate::support::requests::{SECRET, change, opportunity, signed_now};
use crate::support::template::{function, resource, resources_of, statements, unconditional_statements};
use opportunity_alerts::message::key::DeliveryId;
use serde_json::json;
use yaml_serde::Value;

/// Returns the IAM actions of a function's calls, each with its resource in the template.
fn used(calls: &[String]) -> BTreeSet<(String, String)> {
    let grant = |call: &String| match call.as_str() {
        "claim" | "takeover" | "lock" | "complete" | "release" | "begin" | "end" => {
            ("dynamodb:UpdateItem", "!GetAtt DeliveriesTable.Arn")
        }
        "known" => ("dynamodb:BatchGetItem", "!GetAtt DeliveriesTable.Arn"),
        "list" => ("dynamodb:Query", "!Sub ${DeliveriesTable.Arn}/index/pending"),
        "publish" => ("sns:Publish", "!Ref AlertsTopic"),
        "current" | "previous" => ("secretsmanager:GetSecretValue", "the secret in WEBHOOK_SECRET_ID"),
        other => panic!("unknown call: {other}"),
    };
    calls.iter().map(grant).map(|(action, on)| (action.to_owned(), on.to_owned())).collect()
}

/// Returns the actions that statements allow, each with its resource.
fn allowed(statements: &[&Value]) -> BTreeSet<(String, String)> {
    let variables = &function("WebhookFunction")["Environment"]["Variables"];
    let webhook_secret = &variables["WEBHOOK_SECRET_ID"];
    let api_key = &variables["SENDPILOT_API_KEY_ID"][1][1][0];
    let mut allowed = BTreeSet::new();
    for statement in statements {
        assert_eq!(statement["Effect"].as_str(), Some("Allow"));
        assert!(!yaml_serde::to_string(statement).unwrap().contains('*'), "{statement:?}");
        let on = match &statement["Resource"] {
            on if on == webhook_secret => "the secret in WEBHOOK_SECRET_ID".to_owned(),
            on if on == api_key => "the secret in SENDPILOT_API_KEY_ID".to_owned(),
            on => yaml_serde::to_string(on).unwrap().trim().to_owned(),
        };
        let actions = match &statement["Action"] {
            Value::Sequence(actions) => actions.clone(),
            action => vec![action.clone()],
        };
        allowed.extend(actions.iter().map(|action| (action.as_str().unwrap().to_owned(), on.clone())));
    }
    allowed
}

/// The options that need further permissions.
const STREAM: &str = "StreamsStatus";
const REPLIES: &str = "RemembersReplies";
const DETAILS: &str = "AsksApi";

/// Returns the actions that a role allows. They include those of the separate policies whose
/// condition is in `options`.
fn granted(role: &str, options: &[&str]) -> BTreeSet<(String, String)> {
    let itself = resource(role);
    assert!(itself["Properties"]["ManagedPolicyArns"].is_null());
    let mut granted = allowed(&unconditional_statements(&itself));
    let reference: Value = yaml_serde::from_str(&format!("!Ref {role}")).unwrap();
    for (id, policy) in resources_of("AWS::IAM::Policy") {
        let condition = resource(&id)["Condition"].as_str().unwrap().to_owned();
        assert!([STREAM, REPLIES, DETAILS].contains(&condition.as_str()), "{id}");
        if options.contains(&condition.as_str()) && policy["Roles"].as_sequence().unwrap().contains(&reference) {
            granted.extend(allowed(&statements(&policy["PolicyDocument"])));
        }
    }
    granted
}

/// Returns the grants that Lambda itself needs to run the function.
fn by_lambda(grants: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    grants.iter().map(|(action, on)| ((*action).to_owned(), format!("!GetAtt {on}.Arn"))).collect()
}

#[tokio::test]
async fn each_role_grants_exactly_what_its_function_calls() {
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    aws.put_secret(SECRET);
    let mut function = Lambda::start(deployed_environment(&aws), Duration::from_secs(10)).await;
    aws.next("publish", Fault::Refused(403));
    for status in [503, 200, 200] {
        assert_eq!(function.answer(&signed_now(&opportunity("evt_1"))).await.0, status);
    }
    function.answer(&signed_now(&change("evt_2", "DONE"))).await;
    let webhook = aws.calls();
    assert!(
        ["current", "claim", "complete", "release", "publish"].iter().all(|call| webhook.contains(&(*call).to_owned()))
    );
    let logs = [("logs:CreateLogStream", "WebhookLogs"), ("logs:PutLogEvents", "WebhookLogs")];
    assert_eq!(granted("WebhookRole", &[]), &used(&webhook) | &by_lambda(&logs));

    aws.next("publish", Fault::Refused(403));
    function.answer(&signed_now(&opportunity("evt_3"))).await;
    let before = aws.calls().len();
    let mut redrive = Lambda::start_redrive(&aws, Duration::from_secs(10)).await;
    aws.next("publish", Fault::Refused(403));
    for _ in 0..2 {
        assert!(matches!(redrive.invoke(&json!({})).await, Said::Response(_)));
    }
    let redrive = &aws.calls()[before..];
    assert!(["list", "takeover", "complete", "release"].iter().all(|call| redrive.contains(&(*call).to_owned())));
    let by_lambda = by_lambda(&[("logs:CreateLogStream", "RedriveLogs"), ("logs:PutLogEvents", "RedriveLogs")]);
    assert_eq!(granted("RedriveRole", &[]), &used(redrive) | &by_lambda);
}

#[tokio::test]
async fn the_reconciliations_role_grants_exactly_what_it_calls() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    receiver.world.aws.next("publish", Fault::Refused(403));
    reconcile.run().await;
    receiver.opportunity("lead_2", 30).await;
    reconcile.run().await;
    let calls = receiver.world.aws.calls();
    let expected = ["begin", "known", "claim", "lock", "release", "publish", "complete", "end"];
    assert!(expected.iter().all(|call| calls.contains(&(*call).to_owned())), "{calls:?}");
    let by_lambda = by_lambda(&[("logs:CreateLogStream", "ReconcileLogs"), ("logs:PutLogEvents", "ReconcileLogs")]);
    assert_eq!(granted("ReconcileRole", &[]), &used(&calls) | &by_lambda);
}

#[test]
fn the_stream_adds_only_permission_to_publish_to_it() {
    for role in ["WebhookRole", "RedriveRole"] {
        let besides = &granted(role, &[STREAM]) - &granted(role, &[]);
        assert_eq!(besides, [("sns:Publish".to_owned(), "!Ref StatusTopic".to_owned())].into(), "{role}");
    }
}

#[test]
fn details_add_only_permission_to_read_rows_and_the_key() {
    let adds = |role, option| &granted(role, &[option]) - &granted(role, &[]);
    let one = |action: &str, on: &str| BTreeSet::from([(action.to_owned(), on.to_owned())]);
    assert_eq!(adds("WebhookRole", REPLIES), one("dynamodb:GetItem", "!GetAtt DeliveriesTable.Arn"));
    assert_eq!(
        adds("WebhookRole", DETAILS),
        one("secretsmanager:GetSecretValue", "the secret in SENDPILOT_API_KEY_ID")
    );
    for option in [REPLIES, DETAILS] {
        assert_eq!(adds("RedriveRole", option), BTreeSet::new(), "{option}");
    }
}

#[tokio::test]
async fn only_a_completed_row_expires() {
    let table = resource("DeliveriesTable");
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
    assert_eq!(expires, (published + 30 * 86_400_000) / 1000, "DynamoDB expects seconds");
    for retained in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(table[retained].as_str(), Some("Retain"));
    }
}
