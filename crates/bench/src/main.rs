//! Measures functions the way Lambda runs them, with a Runtime API on loopback and a stub of AWS
//! behind TLS. `make bench` and `make instructions` run it.
//!
//! Candidates take turns in every round. So a disturbance affects all of them, and hardly changes
//! their ratios.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod aws;
mod bodies;
mod candidate;
mod compare;
mod details;
mod instructions;
mod lambda;
mod limits;
mod network;
mod round_trips;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use requests::Kind;

use crate::aws::Aws;
use crate::candidate::Candidate;
use crate::lambda::Secret;
use crate::table::Table;

/// Measures functions the way Lambda runs them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures a start, and each kind of request once the function is warm.
    Compare {
        #[command(flatten)]
        of: Of,
        /// Requests of each kind in a round.
        #[arg(long, default_value_t = 500)]
        events: usize,
        /// Round trip of the network to AWS, in milliseconds.
        #[arg(long, default_value_t = 0)]
        round_trip: u64,
        /// Source of the signing secret.
        #[arg(long, value_enum, default_value_t = Secret::Given)]
        secret: Secret,
    },
    /// Measures the first request after a start, with increasing round trips to AWS.
    RoundTrips {
        #[command(flatten)]
        of: Of,
    },
    /// Measures requests with bodies of increasing length.
    Bodies {
        #[command(flatten)]
        of: Of,
        /// Requests of each kind and length in a round.
        #[arg(long, default_value_t = 100)]
        events: usize,
    },
    /// Measures what the details of a lead cost, by the time that SendPilot's API takes.
    Details {
        /// Release build of the webhook function.
        function: String,
        /// Alerts in a round.
        #[arg(long, default_value_t = 30)]
        alerts: usize,
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
    /// Counts the instructions of a start and of each kind of request.
    Count {
        /// Functions, each as NAME=COMMAND. Figures are compared with those of the first.
        #[arg(required = true)]
        candidates: Vec<Candidate>,
    },
    /// Counts the instructions of the webhook function, and fails if they exceed the baseline.
    Instructions {
        /// Release build of the function. Without it, the function is built.
        function: Option<PathBuf>,
        /// Writes the counts as the new baseline.
        #[arg(long)]
        write: bool,
        /// Skips the check if valgrind, or a baseline for this kind of machine, is missing.
        #[arg(long)]
        optional: bool,
        /// File of the baseline.
        #[arg(long, default_value = "crates/bench/instructions.json")]
        baseline: PathBuf,
    },
}

#[derive(clap::Args)]
struct Of {
    /// Functions, each as NAME=COMMAND. Figures are compared with those of the first.
    #[arg(required = true)]
    candidates: Vec<Candidate>,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    tokio::select! {
        outcome = run(arguments.what) => outcome,
        // When the run is dropped, its processes end and its temporary files are deleted.
        _ = tokio::signal::ctrl_c() => bail!("stopped"),
    }
}

async fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Compare { of: Of { candidates, rounds }, events, round_trip, secret } => {
            stay_on_one_cpu()?;
            let aws = Aws::start(Duration::from_millis(round_trip)).await?;
            let mut table = Table::new(&candidates);
            let kinds = Kind::ALL.map(|kind| (kind, events));
            for _ in 0..rounds {
                for (column, candidate) in candidates.iter().enumerate() {
                    compare::round(&mut table, column, candidate, &aws, secret, &kinds).await?;
                }
            }
            for (column, candidate) in candidates.iter().enumerate() {
                let (size, zipped) = candidate.sizes()?.unzip();
                let megabytes = |bytes: u64| bytes as f64 / 1e6;
                table.add(column, "file, MB", size.map(megabytes));
                table.add(column, "file zipped, MB", zipped.map(megabytes));
            }
            let shown = show(&table, "compare")?;
            println!("{}", limits::text(&table));
            Ok(shown)
        }
        What::RoundTrips { of: Of { candidates, rounds } } => {
            stay_on_one_cpu()?;
            let mut table = Table::new(&candidates);
            for _ in 0..rounds {
                round_trips::round(&mut table, &candidates).await?;
            }
            show(&table, "round-trips")
        }
        What::Bodies { of: Of { candidates, rounds }, events } => {
            stay_on_one_cpu()?;
            let aws = Aws::start(Duration::ZERO).await?;
            let mut table = Table::new(&candidates);
            for _ in 0..rounds {
                for (column, candidate) in candidates.iter().enumerate() {
                    bodies::round(&mut table, column, candidate, &aws, events).await?;
                }
            }
            show(&table, "bodies")
        }
        What::Details { function, alerts, rounds } => {
            stay_on_one_cpu()?;
            show(&details::measure(&function, alerts, rounds).await?, "details")
        }
        What::Count { candidates } => {
            if let Err(error) = instructions::Tools::find() {
                println!("Instructions: not counted, because {error:#}.");
                return Ok(ExitCode::SUCCESS);
            }
            stay_on_one_cpu()?;
            let aws = Aws::start(Duration::ZERO).await?;
            let mut table = Table::new(&candidates);
            for (column, candidate) in candidates.iter().enumerate() {
                instructions::add(&mut table, column, candidate, &aws, Secret::Given, &Kind::ALL).await?;
            }
            let shown = show(&table, "count")?;
            println!("{}", limits::text(&table));
            Ok(shown)
        }
        What::Instructions { function, write, optional, baseline } => {
            instructions(function, write, optional, &baseline).await
        }
    }
}

/// Binds this process and its children to one CPU. With two CPUs, waking the other one can cost as
/// much as an event, depending on the scheduler. At Lambda, a function with little memory has at
/// most one CPU.
fn stay_on_one_cpu() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut one = CpuSet::new();
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or_default());
    one.set(last.unwrap_or_default())?;
    Ok(sched_setaffinity(this, &one)?)
}

fn show(table: &Table, name: &str) -> Result<ExitCode> {
    let file = target().join("bench").join(name).with_extension("json");
    table.keep(&file)?;
    println!("{}\n\nMedians. All rounds: {}", table.text(), file.display());
    for reason in table.reasons() {
        println!("An empty cell of {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn instructions(function: Option<PathBuf>, write: bool, optional: bool, file: &Path) -> Result<ExitCode> {
    let possible = instructions::Tools::find().and_then(|tools| {
        let baseline = if write { None } else { Some(instructions::baseline(file, &tools)?) };
        Ok((tools, baseline))
    });
    let (tools, baseline) = match possible {
        Ok(possible) => possible,
        Err(error) if optional && error.is::<instructions::Unable>() => {
            println!("Instructions: skipped, because {error:#}.");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            println!("Instructions: NOT checked, because {error:#}.");
            return Ok(ExitCode::FAILURE);
        }
    };
    let function = function.map_or_else(|| instructions::build(&target()), Ok)?;
    stay_on_one_cpu()?;
    let counts = instructions::count(&function).await?;
    let Some(baseline) = baseline else {
        instructions::write(file, tools, counts)?;
        println!("These counts are the new baseline: {}", file.display());
        return Ok(ExitCode::SUCCESS);
    };
    let (as_good, text) = instructions::compare(&counts, &baseline, &tools);
    println!("{text}");
    Ok(if as_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the directory of build products.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}
