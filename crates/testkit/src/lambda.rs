//! Runs a function as Lambda does: starts its process, serves the Runtime API on loopback, and
//! sends it one event at a time.

use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hyper::header::HeaderValue;
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::JoinSet;

use crate::http::{self, Bytes, Parts, Server};

/// The ARN of the function's signing secret.
pub const SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook-AbCdEf";

/// The ARN of the alerts topic.
pub const ALERTS_TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:alerts";

/// A running function, with the Runtime API from which it gets its events.
#[derive(Debug)]
pub struct Lambda {
    child: Child,
    pid: Pid,
    request_id: String,
    asked: UnboundedReceiver<Instant>,
    events: Sender<Event>,
    answers: Receiver<Answer>,
    output: Arc<Mutex<Vec<u8>>>,
    reading: JoinSet<()>,
    _api: Server,
}

/// A function's answer to an event.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The time of its arrival.
    pub at: Instant,
    /// Whether the function succeeded. If not, the body describes the error.
    pub succeeded: bool,
    /// The JSON that the function returned.
    pub body: Bytes,
}

#[derive(Debug)]
struct Event {
    request_id: String,
    payload: Bytes,
}

impl Lambda {
    /// Starts a function. `timeout` is its time for each event, according to the Runtime API.
    ///
    /// The command needs all environment variables, except the one for the Runtime API.
    /// [`environment`] returns those that Lambda sets. The function's standard output is kept. Its
    /// standard error is kept too if the command pipes it.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub async fn start(mut command: Command, timeout: Duration) -> Result<Self> {
        let (asks, asked) = unbounded_channel();
        let (events, next) = channel(1);
        let (answered, answers) = channel(1);
        let api = Arc::new(Api { asks, next: next.into(), answered, timeout });
        let server = Server::start(None, move |parts, body| api.clone().answer(parts, body)).await?;
        let mut child = command
            .env("AWS_LAMBDA_RUNTIME_API", server.address().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {:?}", command.as_std().get_program()))?;
        let pid = Pid::from_raw(child.id().context("the function has ended already")?.try_into()?);
        // The output is read at once, because a full pipe would block the function.
        let (output, mut reading) = (Arc::default(), JoinSet::new());
        if let Some(stdout) = child.stdout.take() {
            reading.spawn(keep(stdout, Arc::clone(&output)));
        }
        if let Some(stderr) = child.stderr.take() {
            reading.spawn(keep(stderr, Arc::clone(&output)));
        }
        Ok(Self { child, pid, request_id: String::new(), asked, events, answers, output, reading, _api: server })
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the request id of the last event.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Waits until the function asks for an event, and returns the time of the request. Returns
    /// `None` if the function ends instead.
    pub async fn asked(&mut self) -> Option<Instant> {
        tokio::select! {
            biased;
            at = self.asked.recv() => at,
            _ = self.child.wait() => None,
        }
    }

    /// Sends the function an event as soon as the function asks for one.
    ///
    /// # Errors
    /// Never while the Runtime API runs.
    pub async fn hand_over(&mut self, payload: impl Into<Bytes>) -> Result<()> {
        static EVENTS: AtomicU32 = AtomicU32::new(0);
        let number = EVENTS.fetch_add(1, Ordering::Relaxed);
        self.request_id = format!("{number:08x}-e9f4-11e8-9739-2dfe598c3fcd");
        let event = Event { request_id: self.request_id.clone(), payload: payload.into() };
        Ok(self.events.send(event).await?)
    }

    /// Waits for the answer to the event. Returns `None` if the function ends instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        tokio::select! {
            biased;
            answer = self.answers.recv() => answer,
            _ = self.child.wait() => None,
        }
    }

    /// Sends the function a signal.
    ///
    /// # Errors
    /// If the function has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// Kills the function, as Lambda does at a timeout.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until the function ends, and returns its exit status and its whole output.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn end(mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait().await?;
        while self.reading.join_next().await.is_some() {}
        Ok((status, self.output()))
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Returns the function's peak memory, in KiB. Returns `None` if the system is not Linux or the
    /// function has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
    }
}

/// Returns the variables that Lambda sets for a function of this name, except those for the Runtime
/// API and the account.
pub fn environment(function: &str) -> [(&'static str, String); 4] {
    [
        ("AWS_LAMBDA_FUNCTION_NAME", function.into()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512".into()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
    ]
}

async fn keep(mut stream: impl AsyncRead + Unpin, output: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
    }
}

/// The Runtime API: gives the function its events, and takes its answers.
struct Api {
    asks: UnboundedSender<Instant>,
    next: tokio::sync::Mutex<Receiver<Event>>,
    answered: Sender<Answer>,
    timeout: Duration,
}

impl Api {
    async fn answer(self: Arc<Self>, parts: Parts, body: Bytes) -> http::Answer {
        let path = parts.uri.path();
        if !path.ends_with("/invocation/next") {
            let answer = Answer { at: Instant::now(), succeeded: path.ends_with("/response"), body };
            // If no test waits for the answer any more, it is dropped.
            self.answered.send(answer).await.ok();
            return http::answer(202, "application/json", r#"{"status":"OK"}"#);
        }
        self.asks.send(Instant::now()).ok();
        match self.next.lock().await.recv().await {
            Some(event) => self.invocation(event),
            None => std::future::pending().await,
        }
    }

    fn invocation(&self, Event { request_id, payload }: Event) -> http::Answer {
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.timeout;
        let mut answer = http::answer(200, "application/json", payload);
        let headers = answer.headers_mut();
        headers.insert("lambda-runtime-deadline-ms", HeaderValue::from(deadline.as_millis() as u64));
        if let Ok(request_id) = request_id.try_into() {
            headers.insert("lambda-runtime-aws-request-id", request_id);
        }
        for (name, value) in [
            ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:function"),
            ("lambda-runtime-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}
