//! The webhook function. It only wires the library to Lambda's runtime.

use std::process::ExitCode;
use std::time::SystemTime;

use lambda_http::{Error, LambdaEvent, Request, lambda_runtime, service_fn};
use mimalloc::MiMalloc;
use opportunity_alerts::aws::Aws;
use opportunity_alerts::delivery::relay::STREAM_WAIT;
use opportunity_alerts::secrets::keyring::{Keyring, Source};
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::webhook::gateway::{self, Payload};
use opportunity_alerts::{config, invocation::Invocation, telemetry, timestamp::Timestamp};

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
    let rules = config.rules(&variable)?;
    let secret = config::secret(&variable)?;
    let telemetry = telemetry.detailed(config::detailed_metrics(&variable)?);
    let aws = Aws::read(&variable)?;
    let sources = config::sources(&variable, &aws)?;
    if let Source::Stored(_) = secret {
        // The connections are opened while the start waits for the secret.
        aws.connect();
    }
    let webhook = &Webhook {
        keyring: Keyring::new(secret, &aws, SystemTime::now().into()).await,
        rules,
        sources,
        relay: config.relay(&aws, STREAM_WAIT),
        telemetry,
    };
    let call = async |LambdaEvent { payload, context }: LambdaEvent<Payload>| {
        let now = SystemTime::now().into();
        let request = Request::try_from(payload).inspect_err(|payload| {
            webhook.refuse(payload, &context.request_id, now);
        })?;
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let deadline = Timestamp::from_millis(context.deadline);
        let invocation = Invocation::new(&context.request_id, deadline, now, random);
        Ok::<_, Error>(gateway::result(webhook.respond(&request, &invocation).await))
    };
    lambda_runtime::run(service_fn(call)).await
}
