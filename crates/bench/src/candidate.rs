//! Sends requests to a function that is measured, and checks that it handles them correctly.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use requests::Kind;

use crate::aws::Aws;
use crate::lambda::{Lambda, Secret};

/// A function, given as `NAME=COMMAND`.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    /// The variables of its options.
    pub(crate) options: Vec<(&'static str, String)>,
}

impl FromStr for Candidate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, command) = text.split_once('=').context("a candidate is NAME=COMMAND")?;
        let command = shlex::split(command).context("the quotes in the command are not closed")?;
        Ok(Self { name: name.into(), command, options: Vec::new() })
    }
}

impl Candidate {
    pub(crate) async fn start(&self, secret: Secret, aws: &Aws) -> Result<Lambda> {
        Lambda::start(&self.command, &self.options, secret, aws).await.with_context(|| self.name.clone())
    }

    /// Returns the sizes of the program's file and of the zipped file, in bytes. Returns `None` if
    /// the command has arguments, because then the program consists of several files.
    pub(crate) fn sizes(&self) -> Result<Option<(u64, u64)>> {
        let [program] = self.command.as_slice() else { return Ok(None) };
        let content = std::fs::read(program)?;
        let mut zipped = DeflateEncoder::new(Counter(0), Compression::best());
        zipped.write_all(&content)?;
        Ok(Some((content.len() as u64, zipped.finish()?.0)))
    }
}

struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The cost of several requests of one kind.
pub(crate) struct Taken {
    /// The time of each request, in order.
    pub(crate) times: Vec<Duration>,
    /// The CPU time of all requests together.
    pub(crate) cpu: Duration,
    /// The calls to AWS of all requests together.
    pub(crate) calls: u64,
    /// The calls of SendPilot's API of all requests together.
    pub(crate) api_calls: u64,
}

impl Taken {
    pub(crate) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Sends requests of one kind, one after the other, with bodies of nearly this length, and waits
/// until the function is idle.
///
/// # Errors
/// If an answer has another status than the kind requires, or another number of alerts is
/// published.
pub(crate) async fn send(lambda: &mut Lambda, aws: &Aws, kind: Kind, count: usize, length: usize) -> Result<Taken> {
    let requests = (0..count).map(|number| kind.request(number, length)).collect::<Result<Vec<_>>>()?;
    let (cpu, before) = (lambda.cpu()?, aws.counts());
    let mut times = Vec::with_capacity(count);
    for request in &requests {
        let (took, answer) = lambda.invoke(request).await?;
        if answer["statusCode"] != kind.status() {
            bail!("a request ({}) is answered {answer}", kind.name());
        }
        times.push(took);
    }
    let (cpu, after) = (lambda.cpu_at_rest().await? - cpu, aws.counts());
    let published = after.publishes() - before.publishes();
    if published != kind.publishes() * count as u64 {
        bail!("{count} requests ({}) published {published} alerts", kind.name());
    }
    let calls = after.aws_calls() - before.aws_calls();
    if kind.calls_aws() && calls < count as u64 {
        bail!("{count} requests ({}) called AWS {calls} times", kind.name());
    }
    Ok(Taken { times, cpu, calls, api_calls: after.api_calls() - before.api_calls() })
}
