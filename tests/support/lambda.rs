//! A real binary under a Lambda Runtime API: one event at a time, killed when a test says so.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
pub use testkit::lambda::ALERTS_TOPIC as TOPIC;
use testkit::lambda::{SECRET_ARN, Signal};
use testkit::sendpilot::SECRET;
use tokio::process::Command;

use super::aws::Aws;
use super::dynamodb::TABLE;

/// What the function said of an event.
#[derive(Debug, PartialEq)]
pub enum Said {
    Response(Value),
    Error(Value),
    /// Nothing: it is dead.
    Nothing,
}

pub struct Lambda {
    function: testkit::lambda::Lambda,
    /// Of the last invocation.
    pub request_id: String,
}

/// The environment of a local run, in which the secret stands itself.
pub fn environment(aws: &Aws) -> Vec<(&'static str, String)> {
    let mut environment = deployed_environment(aws);
    environment.retain(|(name, _)| *name != "WEBHOOK_SECRET_ID");
    environment.push(("WEBHOOK_SECRET", SECRET.into()));
    environment
}

/// The environment that `template.yaml` gives the function, except that alerts are not paced. Each
/// process knows AWS under a path of its own.
pub fn deployed_environment(aws: &Aws) -> Vec<(&'static str, String)> {
    static PROCESSES: AtomicU32 = AtomicU32::new(0);
    let process = PROCESSES.fetch_add(1, Ordering::Relaxed);
    vec![
        ("ALERTS_TABLE_NAME", TABLE.into()),
        ("ALERTS_TOPIC_ARN", TOPIC.into()),
        ("ALERTS_PER_SECOND", "0".into()),
        ("WEBHOOK_SECRET_ID", SECRET_ARN.into()),
        ("AWS_ENDPOINT_URL", format!("{}/{process}", aws.url)),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "test".into()),
        ("AWS_SECRET_ACCESS_KEY", "test".into()),
    ]
}

impl Lambda {
    /// Starts the webhook function; `timeout` is what each invocation is told it has.
    pub async fn start(environment: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        Self::run(env!("CARGO_BIN_EXE_webhook"), environment, timeout).await
    }

    /// Starts the webhook function with further variables in its environment.
    pub async fn start_with(aws: &Aws, more: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        Self::start([environment(aws), more].concat(), timeout).await
    }

    /// Starts the redrive function.
    pub async fn start_redrive(aws: &Aws, timeout: Duration) -> Self {
        Self::start_redrive_with(aws, Vec::new(), timeout).await
    }

    /// Starts the redrive function with further variables in its environment.
    pub async fn start_redrive_with(aws: &Aws, more: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let environment = environment(aws).into_iter().chain(more).collect();
        Self::run(env!("CARGO_BIN_EXE_redrive"), environment, timeout).await
    }

    async fn run(binary: &str, environment: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let mut command = Command::new(binary);
        command.env_clear().envs(testkit::lambda::environment("function")).envs(environment);
        let function = testkit::lambda::Lambda::start(command, timeout).await.unwrap();
        Self { function, request_id: String::new() }
    }

    /// Hands the function an event, and waits for what it says.
    pub async fn invoke(&mut self, payload: &Value) -> Said {
        self.invoke_raw(&payload.to_string()).await
    }

    /// The same, for a payload that no JSON library would write.
    pub async fn invoke_raw(&mut self, payload: &str) -> Said {
        self.hand_over(payload).await;
        self.heard().await
    }

    /// The same, but the function is killed if it has said nothing when this time is over.
    pub async fn invoke_for(&mut self, time: Duration, payload: &Value) -> Said {
        match tokio::time::timeout(time, self.invoke(payload)).await {
            Ok(said) => said,
            Err(_) => {
                self.function.kill().await.unwrap();
                Said::Nothing
            }
        }
    }

    /// Stops it as Lambda does between two invocations: it does not notice.
    pub fn freeze(&self) {
        self.function.signal(Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.function.signal(Signal::SIGCONT).unwrap();
    }

    /// Hands the function an event.
    pub async fn begin(&mut self, payload: &Value) {
        self.hand_over(&payload.to_string()).await;
    }

    /// What it answers to the event that it was handed.
    pub async fn said(&mut self) -> Value {
        match self.heard().await {
            Said::Response(response) => response,
            said => panic!("no answer, but {said:?}"),
        }
    }

    async fn hand_over(&mut self, payload: &str) {
        self.function.hand_over(payload.to_owned()).await.unwrap();
        self.request_id = self.function.request_id().to_owned();
    }

    async fn heard(&mut self) -> Said {
        let Some(answer) = self.function.answer().await else { return Said::Nothing };
        let body = serde_json::from_slice(&answer.body).unwrap();
        if answer.succeeded { Said::Response(body) } else { Said::Error(body) }
    }

    /// The status and the body of its answer to an event.
    pub async fn answer(&mut self, payload: &Value) -> (u64, Value) {
        match self.invoke(payload).await {
            Said::Response(response) => {
                let body = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
                (response["statusCode"].as_u64().unwrap(), body)
            }
            said => panic!("no answer, but {said:?}"),
        }
    }

    /// The most memory that it has had at once, in KiB, where Linux says so.
    pub fn peak_memory(&self) -> Option<u64> {
        self.function.peak_memory()
    }

    /// SIGKILL, as at a timeout.
    pub async fn kill(mut self) {
        self.function.kill().await.unwrap();
    }

    /// Waits for its end, and returns its exit status and what it wrote.
    pub async fn ended(self) -> (Option<i32>, String) {
        let (status, output) = self.function.end().await.unwrap();
        (status.code(), output)
    }

    /// Ends it, and returns what it wrote.
    pub async fn log(mut self) -> String {
        self.function.kill().await.unwrap();
        self.ended().await.1
    }
}
