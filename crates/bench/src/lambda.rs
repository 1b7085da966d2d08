//! Lambda around one function: its environment, the Runtime API on loopback, one event at a time; and what the process has used.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use crate::aws::Aws;
use crate::http::{Answer, answer, serve};
use bench::sendpilot::SECRET;

/// Far more than any function needs, even under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a function's output that are kept, to say why it ended.
const LAST_LINES: usize = 10;

/// Where the function has its signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Secret {
    /// In its environment.
    Given,
    /// In Secrets Manager, as the template deploys it.
    Stored,
}

impl Secret {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Stored => "stored",
        }
    }
}

pub(crate) struct Lambda {
    child: Child,
    pid: Pid,
    clock: ClockId,
    asks: Receiver<Instant>,
    events: Sender<Bytes>,
    said: Receiver<Said>,
    output: Arc<StdMutex<VecDeque<String>>>,
    /// From the start of the process until it first asked for an event.
    pub(crate) ready_in: Duration,
    /// CPU that it had used by then.
    pub(crate) cpu_until_ready: Duration,
    /// Whose end is that of the Runtime API.
    _tasks: JoinSet<()>,
}

/// What the function says of an event: on which path, and what.
struct Said {
    at: Instant,
    path: String,
    body: Bytes,
}

/// The Runtime API's side of it.
struct Api {
    asks: Sender<Instant>,
    events: Mutex<Receiver<Bytes>>,
    said: Sender<Said>,
}

impl Lambda {
    /// Starts a function, and waits until it asks for an event.
    pub(crate) async fn start(command: &[String], secret: Secret, aws: &Aws) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = listener.local_addr()?.to_string();
        let ((asks, asked), (events, event), (said, heard)) = (channel(1), channel(1), channel(1));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(Api { asks, events: Mutex::new(event), said })));

        let (program, arguments) = command.split_first().context("a candidate's command is empty")?;
        let started_at = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment(&endpoint, secret))
            .envs(aws.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let pid = Pid::from_raw(child.id().context("it has ended already")?.try_into()?);
        let output = Arc::default();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            tasks.spawn(keep_last_lines(stdout, Arc::clone(&output)));
            tasks.spawn(keep_last_lines(stderr, Arc::clone(&output)));
        }
        let mut lambda = Self {
            child,
            pid,
            clock: clock_getcpuclockid(pid)?,
            asks: asked,
            events,
            said: heard,
            output,
            ready_in: Duration::ZERO,
            cpu_until_ready: Duration::ZERO,
            _tasks: tasks,
        };
        let asked_at = lambda.asked().await?;
        lambda.cpu_until_ready = lambda.cpu()?;
        lambda.ready_in = asked_at - started_at;
        Ok(lambda)
    }

    /// Hands the function an event, and returns how long it took to answer, and the answer. Then the function waits for the next.
    pub(crate) async fn invoke(&mut self, event: &Bytes) -> Result<(Duration, Value)> {
        let handed_over_at = Instant::now();
        self.events.send(event.clone()).await?;
        let said = tokio::select! {
            Some(said) = self.said.recv() => said,
            _ = self.child.wait() => bail!("the function ended:\n{}", self.output()),
            () = tokio::time::sleep(PATIENCE) => bail!("the function does not answer:\n{}", self.output()),
        };
        let took = said.at - handed_over_at;
        self.asked().await?;
        if !said.path.ends_with("/response") {
            bail!("the function failed: {}", String::from_utf8_lossy(&said.body));
        }
        Ok((took, serde_json::from_slice(&said.body)?))
    }

    async fn asked(&mut self) -> Result<Instant> {
        tokio::select! {
            Some(at) = self.asks.recv() => Ok(at),
            _ = self.child.wait() => bail!("the function ended:\n{}", self.output()),
            () = tokio::time::sleep(PATIENCE) => bail!("the function does not ask for an event:\n{}", self.output()),
        }
    }

    fn output(&self) -> String {
        Vec::from(self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()).join("\n")
    }

    /// CPU that all its threads have used so far, those that have ended too.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.clock.now()?.into())
    }

    /// The same, once it has nothing left to do.
    pub(crate) async fn cpu_at_rest(&self) -> Result<Duration> {
        let mut before = self.cpu()?;
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.cpu()?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.context("the process has no VmHWM")?.parse::<f64>()? / 1024.0)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(mut self) -> Result<()> {
        kill(self.pid, Signal::SIGTERM)?;
        self.child.wait().await?;
        Ok(())
    }
}

/// What Lambda and the template set.
fn environment(runtime_api: &str, secret: Secret) -> Vec<(String, String)> {
    let temporary = std::env::temp_dir().display().to_string();
    let secret = match secret {
        Secret::Given => ("WEBHOOK_SECRET", SECRET),
        Secret::Stored => ("WEBHOOK_SECRET_ID", "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook-AbCdEf"),
    };
    let path = std::env::var("PATH").unwrap_or_default();
    [
        ("PATH", path.as_str()),
        ("HOME", &temporary),
        ("LANG", "C.UTF-8"),
        ("_HANDLER", "bootstrap"),
        ("LAMBDA_TASK_ROOT", &temporary),
        ("AWS_LAMBDA_RUNTIME_API", runtime_api),
        ("AWS_LAMBDA_FUNCTION_NAME", "webhook"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/webhook"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "example"),
        ("AWS_SESSION_TOKEN", "example"),
        ("ALERTS_TABLE_NAME", "deliveries"),
        // Paced alerts would wait for each other, and other programs do not pace theirs.
        ("ALERTS_PER_SECOND", "0"),
        ("ALERTS_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:alerts"),
        secret,
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

async fn keep_last_lines(stream: impl AsyncRead + Unpin, into: Arc<StdMutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut last = into.lock().unwrap_or_else(PoisonError::into_inner);
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
}

async fn accept(listener: TcpListener, api: Arc<Api>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, api.clone()));
    }
}

async fn converse(stream: TcpStream, api: Arc<Api>) {
    stream.set_nodelay(true).ok();
    serve(stream, async |parts, body| hear(&api, parts, body).await).await;
}

async fn hear(api: &Api, parts: Parts, body: Bytes) -> Answer {
    let path = parts.uri.path();
    if !path.ends_with("/invocation/next") {
        // Whoever does not listen any more has no use for it.
        api.said.send(Said { at: Instant::now(), path: path.into(), body }).await.ok();
        return answer(202, "application/json", r#"{"status":"OK"}"#);
    }
    api.asks.send(Instant::now()).await.ok();
    match api.events.lock().await.recv().await {
        Some(event) => invocation(event),
        None => std::future::pending().await,
    }
}

fn invocation(event: Bytes) -> Answer {
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_secs(10);
    let mut answer = answer(200, "application/json", event);
    let headers = answer.headers_mut();
    headers.insert("lambda-runtime-deadline-ms", HeaderValue::from(deadline.as_millis() as u64));
    for (name, value) in [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:webhook"),
        ("lambda-runtime-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
