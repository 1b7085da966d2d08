//! Runs a function that is measured, and reads the CPU time and the memory of its process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_getcpuclockid};
use serde_json::Value;
use testkit::http::Bytes;
use testkit::lambda::{self, ALERTS_TOPIC, SECRET_ARN, Signal};
use testkit::sendpilot::SECRET;
use tokio::process::Command;
use tokio::time::timeout;

use crate::aws::Aws;

/// The longest wait for a function. No function needs as long, even under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

/// The function's time for each event, according to the Runtime API.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The number of output lines that are shown if the function fails.
const LAST_LINES: usize = 10;

/// The place of the function's signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Secret {
    /// In the function's environment.
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
    function: lambda::Lambda,
    clock: ClockId,
    /// The time from the start of the process to its first request for an event.
    pub(crate) ready_in: Duration,
    /// The CPU time until this request.
    pub(crate) cpu_until_ready: Duration,
}

impl Lambda {
    /// Starts a function with these options, and waits until it asks for an event.
    pub(crate) async fn start(
        command: &[String],
        options: &[(&str, String)],
        secret: Secret,
        aws: &Aws,
    ) -> Result<Self> {
        let (program, arguments) = command.split_first().context("a candidate's command is empty")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(environment(secret))
            .envs(lambda::environment("webhook"))
            .envs(aws.environment())
            .envs(options.iter().cloned())
            .stderr(Stdio::piped());
        let started_at = Instant::now();
        let function = lambda::Lambda::start(command, TIMEOUT).await?;
        let clock = clock_getcpuclockid(function.pid())?;
        let mut lambda = Self { function, clock, ready_in: Duration::ZERO, cpu_until_ready: Duration::ZERO };
        let asked_at = lambda.asked().await?;
        lambda.cpu_until_ready = lambda.cpu()?;
        lambda.ready_in = asked_at - started_at;
        Ok(lambda)
    }

    /// Sends the function an event, and returns the answer and the time until it arrived. Waits
    /// until the function asks for the next event.
    pub(crate) async fn invoke(&mut self, event: &Bytes) -> Result<(Duration, Value)> {
        let handed_over_at = Instant::now();
        self.function.hand_over(event.clone()).await?;
        let answer = match timeout(PATIENCE, self.function.answer()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => bail!("the function ended:\n{}", self.output()),
            Err(_) => bail!("the function does not answer:\n{}", self.output()),
        };
        let took = answer.at - handed_over_at;
        self.asked().await?;
        if !answer.succeeded {
            bail!("the function failed: {}", String::from_utf8_lossy(&answer.body));
        }
        Ok((took, serde_json::from_slice(&answer.body)?))
    }

    async fn asked(&mut self) -> Result<Instant> {
        match timeout(PATIENCE, self.function.asked()).await {
            Ok(Some(at)) => Ok(at),
            Ok(None) => bail!("the function ended:\n{}", self.output()),
            Err(_) => bail!("the function does not ask for an event:\n{}", self.output()),
        }
    }

    /// Returns the last lines of the output.
    fn output(&self) -> String {
        let output = self.function.output();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Returns the CPU time of all threads so far, including those that have ended.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.clock.now()?.into())
    }

    /// Waits until the function is idle, and returns its CPU time.
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

    /// Returns the peak memory, in MiB.
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        Ok(self.function.peak_memory().context("the process has no VmHWM")? as f64 / 1024.0)
    }

    /// Asks the function to end, and waits for its end.
    ///
    /// # Errors
    /// If an alert was published without a detail that the function should have found.
    pub(crate) async fn end(self) -> Result<()> {
        self.function.signal(Signal::SIGTERM)?;
        let (_, output) = self.function.end().await?;
        match output.lines().find(|line| line.contains("detailsFailure")) {
            Some(line) => bail!("an alert lacks details: {line}"),
            None => Ok(()),
        }
    }
}

/// Returns the variables that Lambda and the template set, except those that name the function.
fn environment(secret: Secret) -> Vec<(&'static str, String)> {
    let temporary = std::env::temp_dir().display().to_string();
    let (name, secret) = match secret {
        Secret::Given => ("WEBHOOK_SECRET", SECRET),
        Secret::Stored => ("WEBHOOK_SECRET_ID", SECRET_ARN),
    };
    vec![
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("HOME", temporary.clone()),
        ("LANG", "C.UTF-8".into()),
        ("_HANDLER", "bootstrap".into()),
        ("LAMBDA_TASK_ROOT", temporary),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/webhook".into()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "bench".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_DEFAULT_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE".into()),
        ("AWS_SECRET_ACCESS_KEY", "example".into()),
        ("AWS_SESSION_TOKEN", "example".into()),
        ("ALERTS_TABLE_NAME", "deliveries".into()),
        // Alerts are not paced, because other candidates do not pace theirs.
        ("ALERTS_PER_SECOND", "0".into()),
        ("ALERTS_TOPIC_ARN", ALERTS_TOPIC.into()),
        (name, secret.into()),
    ]
}
