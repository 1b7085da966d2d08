//! The redrive function. It only wires the library to Lambda's runtime.

use std::process::ExitCode;
use std::time::SystemTime;

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use mimalloc::MiMalloc;
use opportunity_alerts::aws::Aws;
use opportunity_alerts::delivery::relay::DELIVERY_TIME;
use opportunity_alerts::redrive::{Redrive, Urgency};
use opportunity_alerts::{config, error::chain, invocation::Invocation, telemetry, timestamp::Timestamp};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let telemetry = telemetry::init(config::function_name(variable), config::log_level(variable));
    telemetry::exit(serve(variable, telemetry).await)
}

async fn serve(variable: impl Fn(&str) -> Option<String>, telemetry: telemetry::Telemetry) -> Result<(), Error> {
    let config = config::Config::read(&variable)?;
    let aws = Aws::read(&variable)?;
    let redrive = &Redrive {
        // A slow topic must get its messages too, so the wait is as long as the delivery's time.
        relay: config.relay(&aws, DELIVERY_TIME),
        telemetry,
    };
    // As text, because the error itself would put the SDK's whole answer into the log.
    let diagnostic =
        |error: &dyn std::error::Error| Diagnostic { error_type: "Redrive".into(), error_message: chain(error) };
    let run = async |LambdaEvent { payload, context }: LambdaEvent<Value>| {
        let urgency = if payload["now"] == true { Urgency::AtOnce } else { Urgency::Patient };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| diagnostic(&error))?;
        let deadline = Timestamp::from_millis(context.deadline);
        let invocation = Invocation::new(&context.request_id, deadline, SystemTime::now().into(), random);
        redrive.run(&invocation, urgency).await.map_err(|error| diagnostic(&error))
    };
    lambda_runtime::run(service_fn(run)).await
}
