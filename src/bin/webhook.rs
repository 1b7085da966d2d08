//! The webhook function: wiring only.

use std::time::SystemTime;

use lambda_http::{Adapter, Request, RequestExt};
use lambda_runtime::{Error, LambdaEvent, Service, service_fn};
use opportunity_alerts::config::{Config, log_level};
use opportunity_alerts::gateway::Payload;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::ledger::dynamodb::DynamoDbLedger;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::topic::sns::SnsTopic;
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::{aws, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let variable = |name: &str| std::env::var(name).ok();
    telemetry::init(log_level(variable));
    let config = Config::read(variable).inspect_err(|error| telemetry::not_started(error))?;
    let sdk = aws::config().await;
    let webhook = &Webhook {
        secrets: config.secrets,
        ledger: DynamoDbLedger::new(aws_sdk_dynamodb::Client::new(&sdk), config.table_name),
        topic: SnsTopic::new(aws_sdk_sns::Client::new(&sdk), config.topic_arn),
        retention: config.retention,
    };
    let mut http = Adapter::from(service_fn(async move |request: Request| {
        let context = request.lambda_context();
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let deadline = Timestamp::from_millis(context.deadline);
        let invocation = Invocation::new(&context.request_id, deadline, SystemTime::now().into(), random);
        Ok::<_, Error>(webhook.respond(&request, &invocation).await)
    }));
    lambda_runtime::run(service_fn(|event: LambdaEvent<Payload>| {
        http.call(LambdaEvent::new(event.payload.into(), event.context))
    }))
    .await
}
