//! The redrive function: wiring only.

use std::process::ExitCode;
use std::time::SystemTime;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use opportunity_alerts::ledger::dynamodb::DynamoDbLedger;
use opportunity_alerts::topic::sns::SnsTopic;
use opportunity_alerts::{aws, config, invocation::Invocation, redrive::Redrive, telemetry, timestamp::Timestamp};
use serde::de::IgnoredAny;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    telemetry::init(config::log_level(variable));
    telemetry::exit(serve(variable).await)
}

async fn serve(variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
    let config = config::Config::read(&variable)?;
    let sdk = aws::config().await;
    let redrive = &Redrive {
        ledger: DynamoDbLedger::new(aws::dynamodb(&sdk), config.table_name),
        topic: SnsTopic::new(aws::sns(&sdk), config.topic_arn),
        retention: config.retention,
    };
    let run = async |event: LambdaEvent<IgnoredAny>| {
        let context = event.context;
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let deadline = Timestamp::from_millis(context.deadline);
        let invocation = Invocation::new(&context.request_id, deadline, SystemTime::now().into(), random);
        Ok::<_, Error>(redrive.run(&invocation).await?)
    };
    lambda_runtime::run(service_fn(run)).await
}
