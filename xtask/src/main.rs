//! `cargo xtask …`: every chore of the workspace behind one front door.
//!
//! This file shows the doors. Behind each is one file: `test` is the list of steps that CI runs, a step is one
//! file of `steps/`, a tool that a step needs and the machine lacks is installed by one file of `tools/`.
#![forbid(unsafe_code)]

mod bench;
mod cluster;
mod generate;
mod http;
mod process;
mod shell;
mod sim;
mod step;
mod steps;
mod tally;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Every chore of the Quorate workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Do everything that CI does
    Test {
        /// Leave out the steps that need a Kubernetes
        #[arg(long)]
        fast: bool,
        /// Show what the steps print, not only their results
        #[arg(long, short)]
        verbose: bool,
    },
    /// Run single steps of `test` by name; without a name, list them
    Check {
        /// Names of steps
        steps: Vec<String>,
        /// Show what the steps print, not only their results
        #[arg(long, short)]
        verbose: bool,
    },
    /// Start Kubernetes on this machine, install Quorate and the quickstart cluster, and leave them running
    Up {
        /// Use the cluster of this kubeconfig context instead of the built-in one
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
        /// Start Kubernetes alone, without Quorate on it
        #[arg(long)]
        bare: bool,
    },
    /// Stop what `up` started and leave nothing behind
    Down,
    /// Run end-to-end tests by name (all without a name) on the cluster that is up, or on one brought up for them
    E2e {
        /// Names of end-to-end tests
        names: Vec<String>,
        /// Use the cluster of this kubeconfig context
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
    },
    /// Run the storage protocol in the simulator: `--seeds N [--first S]`, or `--seed S` to replay one
    Sim {
        /// For the simulator: `cargo xtask sim -- --help` says which there are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Let fuzz targets run by name (all without a name), each for a while
    Fuzz {
        /// Names of fuzz targets
        targets: Vec<String>,
        /// How long each runs
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        seconds: u64,
    },
    /// Measure what clients get, beside Redis and etcd, and write docs/benchmarks.md
    Bench {
        /// For the benchmark: `--seconds`, `--rounds`, `--keys`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the generated files: the CRD, its copy in the chart, the reference pages
    Generate,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one chore; `false` says that it ran and that what it looked at is not in order.
fn run(chore: Chore) -> anyhow::Result<bool> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Test { fast, verbose } => test::run(&workspace, &test::steps(fast), verbose),
        Chore::Check { steps, .. } if steps.is_empty() => {
            test::list();
            Ok(true)
        }
        Chore::Check { steps, verbose } => test::run(&workspace, &test::named(&steps)?, verbose),
        Chore::Up { context, bare } => cluster::up(&workspace, context.as_deref(), bare),
        Chore::Down => cluster::down(&workspace),
        Chore::E2e { names, context } => cluster::test(&workspace, &names, context.as_deref()),
        Chore::Sim { arguments } => sim::run(&workspace, &arguments),
        Chore::Fuzz { targets, seconds } => steps::fuzz::chore(&workspace, &targets, seconds),
        Chore::Bench { arguments } => bench::run(&workspace, &arguments),
        Chore::Generate => generate::write(&workspace).map(|()| true),
    }
}
