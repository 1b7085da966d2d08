//! A real binary under a Lambda Runtime API. It gets one event at a time, and a test can kill it.

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
pub use testkit::lambda::ALERTS_TOPIC as TOPIC;
use testkit::lambda::{SECRET_ARN, Signal};
use testkit::sendpilot::SECRET;
use tokio::process::Command;

use super::aws::Aws;
use super::dynamodb::TABLE;

/// The function's response to an event.
#[derive(Debug, PartialEq)]
pub enum Said {
    Response(Value),
    Error(Value),
    /// The process died without a response.
    Nothing,
}

pub struct Lambda {
    function: testkit::lambda::Lambda,
    /// The request id of the last invocation.
    pub request_id: String,
}

/// Returns the environment of a local run, in which a variable holds the signing secret.
pub fn environment(aws: &Aws) -> Vec<(&'static str, String)> {
    let mut environment = deployed_environment(aws);
    environment.retain(|(name, _)| *name != "WEBHOOK_SECRET_ID");
    environment.push(("WEBHOOK_SECRET", SECRET.into()));
    environment
}

/// Returns the environment that `template.yaml` gives the function, except that alerts are not
/// paced. Each process gets its own path in the URL of AWS, which identifies the process.
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
    /// Starts the webhook function. Each invocation gets `timeout` as its time limit.
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

    /// Starts the reconcile function with these variables in its environment.
    pub async fn start_reconcile(environment: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        Self::run(env!("CARGO_BIN_EXE_reconcile"), environment, timeout).await
    }

    async fn run(binary: &str, environment: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let mut command = Command::new(binary);
        // The output of a function is all that it prints.
        command.stderr(Stdio::piped());
        command.env_clear().envs(testkit::lambda::environment("function")).envs(environment);
        let function = testkit::lambda::Lambda::start(command, timeout).await.unwrap();
        Self { function, request_id: String::new() }
    }

    /// Sends the function an event, and waits for the response.
    pub async fn invoke(&mut self, payload: &Value) -> Said {
        self.invoke_raw(&payload.to_string()).await
    }

    /// Sends the function a payload that no JSON library would write, and waits for the response.
    pub async fn invoke_raw(&mut self, payload: &str) -> Said {
        self.hand_over(payload).await;
        self.heard().await
    }

    /// Sends the function an event, and kills the function if it has not responded after this time.
    pub async fn invoke_for(&mut self, time: Duration, payload: &Value) -> Said {
        match tokio::time::timeout(time, self.invoke(payload)).await {
            Ok(said) => said,
            Err(_) => {
                self.function.kill().await.unwrap();
                Said::Nothing
            }
        }
    }

    /// Freezes the process, as Lambda does between two invocations.
    pub fn freeze(&self) {
        self.function.signal(Signal::SIGSTOP).unwrap();
    }

    pub fn thaw(&self) {
        self.function.signal(Signal::SIGCONT).unwrap();
    }

    /// Sends the function an event, and does not wait for the response.
    pub async fn begin(&mut self, payload: &Value) {
        self.hand_over(&payload.to_string()).await;
    }

    /// Waits for the response to the event that `begin` sent.
    pub async fn said(&mut self) -> Value {
        match self.heard().await {
            Said::Response(response) => response,
            said => panic!("expected an answer, got {said:?}"),
        }
    }

    async fn hand_over(&mut self, payload: &str) {
        self.function.hand_over(payload.to_owned()).await.unwrap();
        self.request_id = self.function.request_id().to_owned();
    }

    /// Waits for the response, or for the error, to the event that `begin` sent.
    pub async fn heard(&mut self) -> Said {
        let Some(answer) = self.function.answer().await else { return Said::Nothing };
        let body = serde_json::from_slice(&answer.body).unwrap();
        if answer.succeeded { Said::Response(body) } else { Said::Error(body) }
    }

    /// Sends the function an event, and returns the status and the body of the answer.
    pub async fn answer(&mut self, payload: &Value) -> (u64, Value) {
        match self.invoke(payload).await {
            Said::Response(response) => {
                let body = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
                (response["statusCode"].as_u64().unwrap(), body)
            }
            said => panic!("expected an answer, got {said:?}"),
        }
    }

    /// Returns the process's peak memory in KiB, on Linux.
    pub fn peak_memory(&self) -> Option<u64> {
        self.function.peak_memory()
    }

    /// Kills the process by SIGKILL, as Lambda does at a timeout.
    pub async fn kill(mut self) {
        self.function.kill().await.unwrap();
    }

    /// Waits until the process ends, and returns its exit status and its output.
    pub async fn ended(self) -> (Option<i32>, String) {
        let (status, output) = self.function.end().await.unwrap();
        (status.code(), output)
    }

    /// Kills the process, and returns its output.
    pub async fn log(mut self) -> String {
        self.function.kill().await.unwrap();
        self.ended().await.1
    }
}
