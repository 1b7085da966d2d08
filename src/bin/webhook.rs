//! The webhook function: wiring only.

use std::process::ExitCode;
use std::time::SystemTime;

use futures_util::future::{Either, ready};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Request, RequestExt};
use lambda_runtime::{Error, LambdaEvent, Service, service_fn};
use mimalloc::MiMalloc;
use opportunity_alerts::aws::Aws;
use opportunity_alerts::delivery::ledger::dynamodb::DynamoDbLedger;
use opportunity_alerts::delivery::pace::Pacer;
use opportunity_alerts::delivery::relay::{Relay, STREAM_WAIT};
use opportunity_alerts::delivery::topic::sns::Sns;
use opportunity_alerts::secrets::keyring::{Keyring, Source};
use opportunity_alerts::webhook::gateway::Payload;
use opportunity_alerts::{config, invocation::Invocation, telemetry, timestamp::Timestamp, webhook::Webhook};

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
    let aws = Aws::read(&variable)?;
    if let Source::Stored(_) = secret {
        // While the start waits for the secret.
        aws.connect();
    }
    let webhook = &Webhook {
        keyring: Keyring::open(secret, &aws, SystemTime::now().into()).await,
        rules,
        relay: Relay {
            ledger: DynamoDbLedger::new(aws.dynamodb(), config.table_name),
            topic: Sns::new(aws.sns(), config.topics),
            retention: config.retention,
            debounce: config.debounce,
            pacer: config.alert_rate.map(Pacer::new),
            stream_wait: STREAM_WAIT,
        },
        telemetry,
    };
    let mut http = Adapter::from(service_fn(async move |request: Request| {
        let context = request.lambda_context();
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let deadline = Timestamp::from_millis(context.deadline);
        let invocation = Invocation::new(&context.request_id, deadline, SystemTime::now().into(), random);
        Ok::<_, Error>(webhook.respond(&request, &invocation).await)
    }));
    let call = |LambdaEvent { payload, context }: LambdaEvent<Payload>| match LambdaRequest::try_from(payload) {
        Ok(request) => Either::Left(http.call(LambdaEvent::new(request, context))),
        Err(payload) => {
            webhook.refuse(&payload, &context.request_id, SystemTime::now().into());
            Either::Right(ready(Err(payload.into())))
        }
    };
    lambda_runtime::run(service_fn(call)).await
}
