//! Counts the instructions of the release build, to find regressions. A busy machine changes times,
//! but not these counts.
//!
//! callgrind counts whole runs. A row is the difference between two runs that differ only in their
//! requests. Instructions of the kernel are not counted.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use requests::Kind;
use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::candidate::{Candidate, send};
use crate::lambda::{Lambda, Secret};
use crate::table::Table;

/// The tolerated change of a row. If a row is worse by more, the check fails. If a row is better by
/// more, the check asks for a new baseline.
const TOLERANCE: f64 = 0.05;

/// The number of requests from which the instructions of one request are averaged.
const EACH: usize = 100;

/// The number of runs of each kind. The result is the run with the fewest instructions.
const REPETITIONS: usize = 3;

/// The instructions by row.
type Counts = BTreeMap<String, u64>;

/// The baselines by target triple.
type Baselines = BTreeMap<String, Baseline>;

/// The accepted counts, and the versions of the tools that counted them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    rustc: String,
    valgrind: String,
    instructions: Counts,
}

/// Why this machine cannot run the check at all. With `--optional`, the check is then skipped.
///
/// A compiler other than the baseline's is not such a reason, because `rust-toolchain.toml` names
/// the compiler.
#[derive(Debug)]
pub(crate) enum Unable {
    NoValgrind,
    NoBaseline { host: String },
}

impl std::error::Error for Unable {}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValgrind => write!(f, "valgrind is missing; install it with your package manager"),
            Self::NoBaseline { host } => write!(f, "there is no baseline for {host}; {RENEW}"),
        }
    }
}

/// The command that writes a baseline.
const RENEW: &str = "to write a baseline, run `make instructions BASELINE=write` on a commit that is fast enough";

/// The versions of the tools that influence the counts.
pub(crate) struct Tools {
    host: String,
    rustc: String,
    valgrind: String,
}

impl Tools {
    /// # Errors
    /// [`Unable`] if valgrind is missing. Another error if rustc is missing.
    pub(crate) fn find() -> Result<Self> {
        let valgrind = output_of("valgrind", "--version").map_err(|_| Unable::NoValgrind)?;
        let rustc = output_of("rustc", "-vV")?;
        let line = |name: &str| rustc.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Ok(Self {
            host: line("host: ").context("rustc names no host")?,
            rustc: line("release: ").context("rustc names no release")?,
            valgrind: valgrind.trim().trim_start_matches("valgrind-").into(),
        })
    }
}

fn output_of(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the baseline of these tools.
///
/// # Errors
/// [`Unable`] if this kind of machine has no baseline. Another error if the baseline was counted
/// with another compiler.
pub(crate) fn baseline(file: &Path, tools: &Tools) -> Result<Baseline> {
    let Tools { host, rustc, .. } = tools;
    let baseline = read(file)?.remove(host).ok_or_else(|| Unable::NoBaseline { host: host.clone() })?;
    if baseline.rustc != *rustc {
        bail!("the baseline was counted with rustc {}, and this is rustc {rustc}; {RENEW}", baseline.rustc);
    }
    Ok(baseline)
}

fn read(file: &Path) -> Result<Baselines> {
    if !file.exists() {
        return Ok(Baselines::new());
    }
    serde_json::from_slice(&std::fs::read(file)?).with_context(|| format!("{} is not a baseline", file.display()))
}

/// Writes these counts as the baseline of these tools.
pub(crate) fn write(file: &Path, tools: Tools, counts: Counts) -> Result<()> {
    let mut baselines = read(file)?;
    baselines.insert(tools.host, Baseline { rustc: tools.rustc, valgrind: tools.valgrind, instructions: counts });
    Ok(std::fs::write(file, serde_json::to_string_pretty(&baselines)? + "\n")?)
}

/// Counts all rows.
pub(crate) async fn count(program: &Path) -> Result<Counts> {
    let aws = Aws::start(Duration::ZERO).await?;
    let (name, command) = ("webhook".into(), vec![program.display().to_string()]);
    let webhook = &Candidate { name, command, options: Vec::new() };
    let ready = least(webhook, Secret::Given, &aws, &[]).await?;
    let first = least(webhook, Secret::Given, &aws, &[(Kind::Alert, 1)]).await?;
    let mut counts =
        Counts::from([("start until ready".into(), ready), ("first alert".into(), first.saturating_sub(ready))]);
    for kind in Kind::ALL {
        let more = least(webhook, Secret::Given, &aws, &[(Kind::Alert, 1), (kind, EACH)]).await?;
        counts.insert(format!("each {}", kind.name()), more.saturating_sub(first) / EACH as u64);
    }
    Ok(counts)
}

/// Adds a candidate's instructions for a start, and for each of these kinds of requests that it
/// handles correctly.
pub(crate) async fn add(
    table: &mut Table,
    column: usize,
    candidate: &Candidate,
    aws: &Aws,
    secret: Secret,
    kinds: &[Kind],
) -> Result<()> {
    let ready = table.attempt(column, least(candidate, secret, aws, &[]).await)?;
    table.add(column, "start until ready: instructions", ready.map(|count| count as f64));
    for &kind in kinds {
        let Some(first) = table.attempt(column, least(candidate, secret, aws, &[(kind, 1)]).await)? else { continue };
        let more = table.attempt(column, least(candidate, secret, aws, &[(kind, 1), (kind, EACH)]).await)?;
        let each = more.map(|more| more.saturating_sub(first) as f64 / EACH as f64);
        table.add(column, &format!("each {}: instructions", kind.name()), each.map(f64::round));
    }
    Ok(())
}

/// Returns the fewest instructions of several runs, because a busy machine can add instructions,
/// but never removes any.
async fn least(candidate: &Candidate, secret: Secret, aws: &Aws, requests: &[(Kind, usize)]) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..REPETITIONS {
        least = least.min(run(candidate, secret, aws, requests).await?);
    }
    Ok(least)
}

/// Counts the instructions of one process, from its start to its end.
async fn run(candidate: &Candidate, secret: Secret, aws: &Aws, requests: &[(Kind, usize)]) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("callgrind.out");
    let out = format!("--callgrind-out-file={}", profile.display());
    let valgrind = ["valgrind".into(), "--tool=callgrind".into(), out];
    let mut lambda =
        Lambda::start(&[&valgrind, candidate.command.as_slice()].concat(), &candidate.options, secret, aws).await?;
    lambda.cpu_at_rest().await?;
    for (kind, number) in requests {
        send(&mut lambda, aws, *kind, *number, 0).await?;
    }
    lambda.end().await?;
    let profile = std::fs::read_to_string(profile).context("callgrind has written no profile")?;
    let total = profile.lines().find_map(|line| line.strip_prefix("summary: "));
    Ok(total.context("the profile has no summary")?.trim().parse()?)
}

/// Returns whether the counts pass the check against the baseline, and the comparison as text.
pub(crate) fn compare(counts: &Counts, baseline: &Baseline, tools: &Tools) -> (bool, String) {
    let mut text = format!("{:24} {:>14} {:>14} {:>8}", "instructions", "baseline", "now", "change");
    let (mut worse, mut better) = (Vec::new(), false);
    for (row, now) in counts {
        let Some(before) = baseline.instructions.get(row) else {
            worse.push(format!("{row} is not in the baseline"));
            continue;
        };
        let change = *now as f64 / *before as f64 - 1.0;
        write!(text, "\n{row:24} {before:>14} {now:>14} {:>+7.1} %", change * 100.0).ok();
        if change > TOLERANCE {
            worse.push(format!("{row} takes {:.1} % more", change * 100.0));
        }
        better |= change < -TOLERANCE;
    }
    if better {
        text += "\nTo keep this improvement, run `make instructions BASELINE=write` and commit the file.";
    }
    if !worse.is_empty() {
        write!(text, "\nFAILED: {}; at most {:.0} % is tolerated.", worse.join("; "), TOLERANCE * 100.0).ok();
        text += "\nTo accept an intended increase, run `make instructions BASELINE=write`, and give the reason in the commit.";
        if tools.valgrind != baseline.valgrind {
            write!(
                text,
                "\nThe baseline was counted with valgrind {}, and these counts with valgrind {}.",
                baseline.valgrind, tools.valgrind
            )
            .ok();
        }
    }
    (worse.is_empty(), text)
}

/// Builds the webhook function for release, and returns its path.
pub(crate) fn build(target: &Path) -> Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--locked", "--release", "--bin", "webhook"]).status()?;
    if !status.success() {
        bail!("the function does not build");
    }
    Ok(target.join("release").join("webhook"))
}
