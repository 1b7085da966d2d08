//! The security of `template.yaml`: permissions, access to topics and queues, encryption and
//! retention.

use std::collections::BTreeSet;

use crate::support::guide;
use crate::support::template::{
    conditional_policies, load, load_from, resolved, resource, resources_of, separate_policies, statements,
    unconditional_statements,
};
use yaml_serde::Value;

/// All actions that a topic's policy can name. It takes no wildcard.
const TOPIC_ACTIONS: [&str; 8] = [
    "sns:Publish",
    "sns:Subscribe",
    "sns:ListSubscriptionsByTopic",
    "sns:GetTopicAttributes",
    "sns:SetTopicAttributes",
    "sns:AddPermission",
    "sns:RemovePermission",
    "sns:DeleteTopic",
];

fn parsed(yaml: &str) -> Value {
    yaml_serde::from_str(yaml).unwrap()
}

fn texts(one_or_more: &Value) -> BTreeSet<&str> {
    match one_or_more {
        Value::Sequence(texts) => texts.iter().map(|text| text.as_str().unwrap()).collect(),
        text => BTreeSet::from([text.as_str().unwrap()]),
    }
}

#[test]
fn nothing_is_allowed_by_wildcard_or_to_other_accounts() {
    let template = load();
    let statements = statements(&template["Resources"]);
    let allowed: Vec<_> = statements.iter().filter(|statement| statement["Effect"].as_str() == Some("Allow")).collect();
    assert!(allowed.len() > 10, "these are not all");
    for statement in allowed {
        let text = yaml_serde::to_string(statement).unwrap();
        assert!(!text.contains('*'), "{text}");
        assert!(
            ["NotAction", "NotResource", "NotPrincipal"].iter().all(|inverse| statement[*inverse].is_null()),
            "{text}"
        );
        let principal = &statement["Principal"];
        assert!(principal.is_null() || principal.as_mapping().unwrap().keys().eq([&Value::from("Service")]), "{text}");
    }
    let roles: BTreeSet<_> = resources_of("AWS::IAM::Role").into_keys().collect();
    assert_eq!(roles, BTreeSet::from(["ChatRole", "ReconcileRole", "RedriveRole", "WebhookRole"].map(str::to_owned)));
    let policies: BTreeSet<_> = resources_of("AWS::IAM::Policy").into_keys().collect();
    let both = "[!Ref WebhookRole, !Ref RedriveRole]";
    let reconciling = "[!Ref WebhookRole, !If [Reconciles, !Ref ReconcileRole, !Ref AWS::NoValue]]";
    let attached = [("PublishToStream", both), ("ReadApiKey", reconciling), ("ReadReplies", reconciling)];
    assert_eq!(policies, attached.iter().map(|(id, _)| (*id).to_owned()).collect());
    for (id, roles) in attached {
        let properties = &resource(id)["Properties"];
        assert_eq!(properties["Roles"], parsed(roles), "{id}");
        assert!(properties["Users"].is_null() && properties["Groups"].is_null(), "{id}");
    }
}

/// A webhook needs no other row, and the redrive no API key. Only the reconciliation reads several
/// rows at once.
#[test]
fn the_reconciliation_may_only_read_and_write_rows_publish_alerts_and_read_its_key() {
    let role = resource("ReconcileRole");
    let separate = separate_policies("ReconcileRole");
    assert!(separate.keys().eq(["ReadApiKey", "ReadReplies"]), "{separate:?}");
    let granted = unconditional_statements(&role);
    let granted: BTreeSet<_> = granted
        .iter()
        .flat_map(|statement| texts(&statement["Action"]).into_iter().map(|action| (action, &statement["Resource"])))
        .map(|(action, on)| (action, yaml_serde::to_string(on).unwrap().trim().to_owned()))
        .collect();
    let [table, topic, logs] = ["!GetAtt DeliveriesTable.Arn", "!Ref AlertsTopic", "!GetAtt ReconcileLogs.Arn"];
    let needed = [
        ("dynamodb:BatchGetItem", table),
        ("dynamodb:UpdateItem", table),
        ("sns:Publish", topic),
        ("logs:CreateLogStream", logs),
        ("logs:PutLogEvents", logs),
    ];
    assert_eq!(granted, needed.map(|(action, on)| (action, on.to_owned())).into());
}

#[test]
fn topics_and_queues_require_tls() {
    for (kind, attached, to, on, actions) in [
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics", "!Ref ID", BTreeSet::from(TOPIC_ACTIONS)),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues", "!GetAtt ID.Arn", BTreeSet::from(["sqs:*"])),
    ] {
        for id in resources_of(kind).keys() {
            let itself = parsed(&format!("[!Ref {id}]"));
            let policies: Vec<_> = resources_of(attached).into_values().filter(|policy| policy[to] == itself).collect();
            let [policy] = &policies[..] else { panic!("of two policies of {id}, one would undo the other") };
            let denied = statements(policy).into_iter().find(|statement| statement["Effect"].as_str() == Some("Deny"));
            let denied = denied.unwrap();
            assert_eq!(denied["Principal"].as_str(), Some("*"));
            assert_eq!(texts(&denied["Action"]), actions, "{id}");
            assert_eq!(denied["Resource"], parsed(&on.replace("ID", id)));
            assert_eq!(denied["Condition"], parsed(r#"{ Bool: { aws:SecureTransport: "false" } }"#));
        }
    }
}

#[test]
fn everything_stored_is_encrypted() {
    let own = |otherwise: &str| parsed(&format!("!If [HasOwnKey, !Ref EncryptionKeyArn, {otherwise}]"));
    let aws = own("!Ref AWS::NoValue");
    for (id, table) in resources_of("AWS::DynamoDB::Table") {
        assert_eq!(table["SSESpecification"]["KMSMasterKeyId"], aws, "{id}");
        assert_eq!(table["SSESpecification"]["SSEType"].as_str(), Some("KMS"), "{id}");
        assert_eq!(table["SSESpecification"]["SSEEnabled"].as_bool(), Some(true), "{id}");
    }
    for (id, queue) in resources_of("AWS::SQS::Queue") {
        assert_eq!(queue["KmsMasterKeyId"], aws, "{id}");
        assert_eq!(queue["SqsManagedSseEnabled"], parsed("!If [HasOwnKey, false, true]"), "{id}");
    }
    // Without EncryptionKeyArn, these are under a key of the service.
    for kind in ["AWS::Logs::LogGroup", "AWS::SecretsManager::Secret"] {
        for (id, kept) in resources_of(kind) {
            assert_eq!(kept["KmsKeyId"], aws, "{id}");
        }
    }
    for topic in ["AlertsTopic", "StatusTopic"] {
        assert_eq!(resource(topic)["Properties"]["KmsMasterKeyId"], own("alias/aws/sns"));
    }
    // CloudWatch cannot use alias/aws/sns, and alarms contain no secret.
    assert_eq!(resource("AlarmsTopic")["Properties"]["KmsMasterKeyId"], aws);
    assert_eq!(resources_of("AWS::SNS::Topic").len(), 3, "another one?");
}

#[test]
fn functions_use_the_key_only_through_services() {
    for id in ["WebhookRole", "RedriveRole", "ReconcileRole"] {
        let role = resource(id);
        let [own] = conditional_policies(&role)[..] else { panic!("another condition than a key of your own") };
        assert_eq!(own.tag, "If");
        assert_eq!((own.value[0].as_str(), &own.value[2]), (Some("HasOwnKey"), &parsed("!Ref AWS::NoValue")));
        let [statement] = statements(&own.value)[..] else { panic!("one statement") };
        assert_eq!(texts(&statement["Action"]), BTreeSet::from(["kms:Decrypt", "kms:GenerateDataKey"]));
        assert_eq!(statement["Resource"], parsed("!Ref EncryptionKeyArn"));

        let separate = separate_policies(id);
        let granted = unconditional_statements(&role).into_iter().chain(separate.values().flat_map(statements));
        let actions = granted.flat_map(|granted| texts(&granted["Action"]));
        let mut used: BTreeSet<_> = actions.map(|action| action.split_once(':').unwrap().0).collect();
        // CloudWatch uses the key on its own account, by the key's policy.
        assert!(used.remove("logs"));
        let via = used.iter().map(|service| parsed(&format!("!Sub {service}.${{AWS::Region}}.amazonaws.com")));
        let Value::Sequence(through) = &statement["Condition"]["StringEquals"]["kms:ViaService"] else {
            panic!("a list of services");
        };
        assert_eq!(through.len(), used.len());
        assert!(via.clone().all(|service| through.contains(&service)), "{through:?}");
    }
}

#[test]
fn logs_and_failures_expire_and_the_table_is_protected() {
    let logs = resources_of("AWS::Logs::LogGroup");
    assert!(logs.values().all(|group| group["RetentionInDays"].as_u64() == Some(30)), "{logs:?}");
    // And no function logs to one that Lambda makes, which would keep them forever.
    for (id, function) in resources_of("AWS::Serverless::Function") {
        let to = &function["LoggingConfig"]["LogGroup"];
        assert!(logs.keys().any(|group| *to == parsed(&format!("!Ref {group}"))), "{id}");
    }
    let queues = resources_of("AWS::SQS::Queue");
    assert!(queues.values().all(|queue| queue["MessageRetentionPeriod"].as_u64() == Some(14 * 86_400)), "{queues:?}");
    let table = resource("DeliveriesTable");
    assert_eq!(table["Properties"]["DeletionProtectionEnabled"].as_bool(), Some(true));
    assert_eq!(
        table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"].as_bool(),
        Some(true)
    );
}

#[test]
fn only_undeliverable_messages_become_dead_letters() {
    let subscriptions = resources_of("AWS::SNS::Subscription");
    assert_eq!(subscriptions.len(), 2, "of the alerts and of the alarms");
    for (id, subscription) in subscriptions {
        assert_eq!(subscription["RedrivePolicy"], parsed("deadLetterTargetArn: !GetAtt DeadLetters.Arn"), "{id}");
    }
    let policy = resource("DeadLettersPolicy");
    let allowed: Vec<_> =
        statements(&policy["Properties"]).into_iter().filter(|by| by["Effect"].as_str() == Some("Allow")).collect();
    let [allowed] = allowed[..] else { panic!("one statement") };
    assert_eq!(allowed["Principal"], parsed("Service: sns.amazonaws.com"));
    assert_eq!(allowed["Action"].as_str(), Some("sqs:SendMessage"));
    let topics = "[!Ref AlertsTopic, !Ref AlarmsTopic, !If [StreamsStatus, !Ref StatusTopic, !Ref AWS::NoValue]]";
    assert_eq!(allowed["Condition"], parsed(&format!("ArnEquals: {{ aws:SourceArn: {topics} }}")));
}

#[test]
fn chat_gets_alerts_and_alarms_and_no_permissions() {
    for kind in ["AWS::Chatbot::SlackChannelConfiguration", "AWS::Chatbot::MicrosoftTeamsChannelConfiguration"] {
        for (id, channel) in resources_of(kind) {
            assert_eq!(channel["SnsTopicArns"], parsed("[!Ref AlertsTopic, !Ref AlarmsTopic]"), "{id}");
            assert_eq!(channel["IamRoleArn"], parsed("!GetAtt ChatRole.Arn"), "{id}");
            let nothing = r#"[!Sub "arn:${AWS::Partition}:iam::aws:policy/AWSDenyAll"]"#;
            assert_eq!(channel["GuardrailPolicies"], parsed(nothing), "without one, it is AdministratorAccess");
        }
    }
    let role = resource("ChatRole");
    let properties = role["Properties"].as_mapping().unwrap();
    assert!(properties.keys().eq([&Value::from("AssumeRolePolicyDocument")]), "a permission");
}

#[test]
fn the_guides_subscriptions_lose_no_alert() {
    let subscribing = guide::commands("aws sns subscribe ");
    assert!(subscribing.len() >= 7, "{subscribing:?}");
    for command in subscribing {
        assert!(command.contains("$REDRIVE}\""), "no dead-letter queue: {command}");
    }
    let confirming = guide::commands("aws sns confirm-subscription ");
    for topic in ["AlertsTopicArn", "AlarmsTopicArn"] {
        let of_topic: Vec<_> = confirming.iter().filter(|command| command.contains(topic)).collect();
        assert!(!of_topic.is_empty(), "{topic}");
        assert!(of_topic.iter().all(|command| command.contains("--authenticate-on-unsubscribe true")), "{of_topic:?}");
    }
    let outputs = load()["Outputs"].as_mapping().unwrap().clone();
    for command in guide::commands("$(output ") {
        let name = command.trim_start_matches("$(output ").split(')').next().unwrap().to_owned();
        assert!(outputs.contains_key(name.as_str()), "no output {name}");
    }
}

/// Returns the templates in `examples/`, with their paths.
fn examples() -> Vec<(String, Value)> {
    let folders = std::fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().path().join("template.yaml"));
    let paths = folders.filter(|path| path.exists()).map(|path| path.to_str().unwrap().to_owned());
    let examples: Vec<_> = paths.map(|path| (path.clone(), load_from(&path))).collect();
    assert_eq!(examples.len(), 3);
    examples
}

/// Returns a value and all values below it, each with its key.
fn everything<'a>(key: &'a str, value: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let below = match value {
        Value::Mapping(mapping) => {
            mapping.iter().flat_map(|(key, value)| everything(key.as_str().unwrap_or_default(), value)).collect()
        }
        Value::Sequence(values) => values.iter().flat_map(|value| everything("", value)).collect(),
        _ => Vec::new(),
    };
    [(key, value)].into_iter().chain(below).collect()
}

#[test]
fn crm_sync_reads_only_the_secret_with_the_token() {
    let template = load_from("examples/crm-sync/template.yaml");
    let role = &template["Resources"]["Role"];
    let [token] = conditional_policies(role)[..] else { panic!("more than one condition") };
    assert_eq!(token.value[0].as_str(), Some("HasCrmToken"));
    let [read] = statements(&token.value)[..] else { panic!("more than one statement") };
    assert_eq!(texts(&read["Action"]), BTreeSet::from(["secretsmanager:GetSecretValue"]));
    assert_eq!(read["Resource"], parsed("!Ref CrmTokenSecretArn"));
    for statement in unconditional_statements(role) {
        assert!(!yaml_serde::to_string(statement).unwrap().contains("secretsmanager"), "{statement:?}");
    }
}

#[test]
fn dead_letters_are_fifo_only_for_a_fifo_topic() {
    let (standard, fifo) =
        ("arn:aws:sns:us-east-1:000000000000:status", "arn:aws:sns:us-east-1:000000000000:s-status.fifo");
    for (path, template) in examples() {
        let pattern = template["Parameters"]["StatusTopicArn"]["AllowedPattern"].as_str().unwrap();
        let validator = jsonschema::validator_for(&serde_json::json!({"pattern": format!("^({pattern})$")})).unwrap();
        let mut found = 0;
        for topic in [standard, fifo].into_iter().filter(|topic| validator.is_valid(&(*topic).into())) {
            let resources = &template["Resources"];
            let kind = if topic == fifo { "fifo" } else { "standard" };
            let given = [("StatusTopicArn", topic), ("StatusStream", kind)];
            for (_, redrive) in everything("", resources).into_iter().filter(|(key, _)| *key == "RedrivePolicy") {
                // A queue's own dead letters are of the queue's kind, whatever the topic.
                if !redrive["maxReceiveCount"].is_null() {
                    continue;
                }
                let target = resolved(&template, &redrive["deadLetterTargetArn"], &given);
                let id = target.strip_suffix(".Arn").unwrap();
                let queue = &resources[id];
                assert_eq!(queue["Properties"]["FifoQueue"].as_bool() == Some(true), topic == fifo, "{path}: {id}");
                if let Some(condition) = queue["Condition"].as_str() {
                    let made = resolved(&template, &template["Conditions"][condition], &given);
                    assert_eq!(made, "true", "{path}: {id} is not made for {topic}");
                }
                let admits = |policy: &&Value| policy["Properties"]["Queues"] == parsed(&format!("[!Ref {id}]"));
                let policy = resources.as_mapping().unwrap().values().find(admits).unwrap();
                assert_eq!(policy["Condition"], queue["Condition"], "{path}: {id}");
                found += 1;
            }
        }
        assert_ne!(found, 0, "{path}");
    }
}

#[test]
fn a_batch_of_more_than_ten_has_a_window() {
    let mut found = BTreeSet::new();
    for (path, template) in examples() {
        let mappings = everything("", &template["Resources"]);
        for (_, mapping) in mappings.into_iter().filter(|(_, value)| !value["BatchSize"].is_null()) {
            for window in ["0", "1", "30"] {
                for size in ["1", "9", "10", "11", "1000"] {
                    let given = [("BatchWindowSeconds", window), ("BatchSize", size)];
                    let seconds = resolved(&template, &mapping["MaximumBatchingWindowInSeconds"], &given);
                    let taken = resolved(&template, &mapping["BatchSize"], &given);
                    assert_eq!(seconds, window, "{path}");
                    let expected = if window == "0" && size.parse::<u32>().unwrap() > 10 { "10" } else { size };
                    assert_eq!(taken, expected, "{path}: window {window}");
                }
            }
            found.insert(path.clone());
        }
    }
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_first_deployment_reserves_nothing_and_keeps_the_table() {
    let template = load();
    for (parameter, default) in [("ReserveConcurrency", "no"), ("WebhookConcurrency", "0")] {
        let given = yaml_serde::to_string(&template["Parameters"][parameter]["Default"]).unwrap();
        assert_eq!(given.trim().trim_matches(['\'', '"']), default, "a new account has nothing to reserve");
    }
    // DynamoDB refuses to delete a protected table, so a rollback that tried would fail.
    let table = resource("DeliveriesTable");
    assert_eq!(table["Properties"]["DeletionProtectionEnabled"].as_bool(), Some(true));
    assert_eq!(table["DeletionPolicy"].as_str(), Some("Retain"));
}

#[test]
fn chat_parameters_tell_how_to_use_a_configured_channel() {
    let template = load();
    for (parameter, command, channel) in [
        ("SlackChannelId", "aws chatbot update-slack-channel-configuration", "--slack-channel-id"),
        ("TeamsChannelId", "aws chatbot update-microsoft-teams-channel-configuration", "--channel-id"),
    ] {
        let says = template["Parameters"][parameter]["Description"].as_str().unwrap();
        let command = says.split('`').find(|part| part.starts_with(command)).unwrap();
        assert!(command.contains("EXISTING_TOPIC_ARN"), "{command}");
        let options: Vec<_> = command.split(' ').filter(|word| word.starts_with("--")).collect();
        let list = ["--sns-topic-arns", "--guardrail-policy-arns"];
        assert_eq!(options, ["--region", "--chat-configuration-arn", channel, list[0], list[1]]);
    }
}
