//! A real binary under a Lambda Runtime API: one event at a time, killed when a test says so.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use super::aws::Aws;
use super::dynamodb::TABLE;
use super::requests::SECRET;

pub const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:alerts";

/// What the function said of an event.
#[derive(Debug, PartialEq)]
pub enum Said {
    Response(Value),
    Error(Value),
    /// Nothing: it is dead.
    Nothing,
}

pub struct Lambda {
    child: Child,
    /// Of the last invocation.
    pub request_id: String,
    events: Sender<(String, String)>,
    said: Receiver<Said>,
    output: JoinHandle<String>,
}

struct Shared {
    /// Each with its request id.
    events: Mutex<Receiver<(String, String)>>,
    said: Sender<Said>,
    timeout: Duration,
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
        ("WEBHOOK_SECRET_ID", "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook-AbCdEf".into()),
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

    /// Starts the redrive function.
    pub async fn start_redrive(aws: &Aws, timeout: Duration) -> Self {
        Self::start_redrive_with(aws, Vec::new(), timeout).await
    }

    /// The same, with more in its environment.
    pub async fn start_redrive_with(aws: &Aws, more: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let environment = environment(aws).into_iter().chain(more).collect();
        Self::run(env!("CARGO_BIN_EXE_redrive"), environment, timeout).await
    }

    async fn run(binary: &str, environment: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap().to_string();
        let (events, receive_events) = mpsc::channel(1);
        let (say, said) = mpsc::channel(1);
        let shared = Arc::new(Shared { events: Mutex::new(receive_events), said: say, timeout });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(say_it))
            .with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut child = Command::new(binary)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "function")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Read as it comes: a pipe that is full would stop the function.
        let mut stdout = child.stdout.take().unwrap();
        let output = tokio::spawn(async move {
            let mut output = String::new();
            stdout.read_to_string(&mut output).await.unwrap();
            output
        });
        Self { child, request_id: String::new(), events, said, output }
    }

    /// Hands the function an event, and waits for what it says.
    pub async fn invoke(&mut self, payload: &Value) -> Said {
        self.invoke_raw(&payload.to_string()).await
    }

    /// The same, for a payload that no JSON library would write.
    pub async fn invoke_raw(&mut self, payload: &str) -> Said {
        self.hand_over(payload).await;
        tokio::select! {
            said = self.said.recv() => said.unwrap(),
            _ = self.child.wait() => Said::Nothing,
        }
    }

    /// The same, but the function is killed if it has said nothing when this time is over.
    pub async fn invoke_for(&mut self, time: Duration, payload: &Value) -> Said {
        match tokio::time::timeout(time, self.invoke(payload)).await {
            Ok(said) => said,
            Err(_) => {
                self.child.kill().await.unwrap();
                Said::Nothing
            }
        }
    }

    /// Stops it as Lambda does between two invocations: it does not notice.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Hands the function an event.
    pub async fn begin(&mut self, payload: &Value) {
        self.hand_over(&payload.to_string()).await;
    }

    /// What it answers to the event that it was handed.
    pub async fn said(&mut self) -> Value {
        match self.said.recv().await.unwrap() {
            Said::Response(response) => response,
            said => panic!("no answer, but {said:?}"),
        }
    }

    async fn hand_over(&mut self, payload: &str) {
        static INVOCATIONS: AtomicU32 = AtomicU32::new(0);
        let number = INVOCATIONS.fetch_add(1, Ordering::Relaxed);
        self.request_id = format!("{number:08x}-e9f4-11e8-9739-2dfe598c3fcd");
        self.events.send((self.request_id.clone(), payload.into())).await.unwrap();
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

    /// The most memory that it has had at once, in kB, where Linux says so.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
    }

    /// SIGKILL, as at a timeout.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end, and returns its exit status and what it wrote.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().await.unwrap();
        (status.code(), self.output.await.unwrap())
    }

    /// Ends it, and returns what it wrote.
    pub async fn log(mut self) -> String {
        self.child.kill().await.unwrap();
        self.output.await.unwrap()
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    let Some((request_id, event)) = shared.events.lock().await.recv().await else {
        return std::future::pending().await;
    };
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + shared.timeout;
    Response::builder()
        .header("lambda-runtime-aws-request-id", request_id)
        .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:function")
        .header("lambda-runtime-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793")
        .header("content-type", "application/json")
        .body(Body::from(event))
        .unwrap()
}

async fn say_it(State(shared): State<Arc<Shared>>, Path((_, kind)): Path<(String, String)>, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    let said = if kind == "response" { Said::Response(body) } else { Said::Error(body) };
    shared.said.send(said).await.unwrap();
    StatusCode::ACCEPTED.into_response()
}
