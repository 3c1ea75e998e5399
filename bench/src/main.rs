//! Measurements of what clients get and of the storage engine, side by side with peers, and of a ring that changes. Each prints what
//! it did and what came out; nothing is judged here, because a figure is worth nothing without the machine beside it.
//!
//! ```text
//! cargo xtask bench                                          # clients: builds and installs what it needs
//! cargo run --release -p quorate-bench -- storage            # quick; --keys 5000000 --seconds 20 --rounds 3 in full
//! cargo run --release -p quorate-bench -- reopen             # quick; --keys 10000000 in full
//! cargo build --release -p quorate-node && cargo run --release -p quorate-bench -- ring-change
//! ```
#![forbid(unsafe_code)]

mod clients;
mod contest;
mod disk_engine;
mod fjall_engine;
mod log_engine;
mod measure;
mod reopen;
mod ring;
mod ring_change;
mod work;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measurements of Quorate beside peers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What clients get, beside Redis and etcd.
    Clients {
        #[command(flatten)]
        place: Place,
        /// The node's program; the one beside this one without it.
        #[arg(long)]
        node: Option<PathBuf>,
        /// The program of Redis.
        #[arg(long, default_value = "redis-server")]
        redis: PathBuf,
        /// A program that is etcd when its first argument is `etcd`; without it etcd does not take part.
        #[arg(long)]
        etcd: Option<PathBuf>,
        /// How long each figure is measured.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// How often, in turns: medians are printed.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Keys of each size.
        #[arg(long, default_value_t = 100_000)]
        keys: u64,
        /// Write the report here as well.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Durable read-merge-writes in groups: the log, fjall, and as many bytes written and synced without any engine.
    Storage {
        #[command(flatten)]
        place: Place,
        /// Keys in the store before anything is measured.
        #[arg(long, default_value_t = 500_000)]
        keys: u64,
        /// How long each engine is measured.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// How many writes wait together.
        #[arg(long, default_value_t = 64)]
        group: usize,
        /// How many such groups wait side by side, each of a thread of its own.
        #[arg(long, default_value_t = 1)]
        writers: u64,
        /// How often each engine is measured, in turns: medians are printed.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Only this engine: log, fjall, or disk.
        #[arg(long)]
        only: Option<String>,
    },
    /// How long it takes to open a log of many keys.
    Reopen {
        #[command(flatten)]
        place: Place,
        /// Keys in the log.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
    },
    /// What clients notice while a ring of three nodes grows to five and shrinks again.
    RingChange {
        #[command(flatten)]
        place: Place,
        /// The node's program; the one beside this one without it.
        #[arg(long)]
        node: Option<PathBuf>,
        /// Keys in the ring.
        #[arg(long, default_value_t = 100_000)]
        keys: u64,
        /// Of each value.
        #[arg(long, default_value_t = 1024)]
        value_bytes: usize,
        /// How many requests come a second, half of them reads.
        #[arg(long, default_value_t = 500)]
        requests_per_second: u64,
        /// How long is measured while nothing else happens.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
}

#[derive(Args)]
struct Place {
    /// Where the files go. They are removed afterwards.
    #[arg(long, default_value_os_t = std::env::temp_dir().join("quorate-bench"))]
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Clients { place, node, redis, etcd, seconds, rounds, keys, report } => {
            let node = program(node)?;
            let directory = place.directory.join("clients");
            clients::run(&clients::Task { directory, node, redis, etcd, seconds, rounds, keys, report })
        }
        Command::Storage { place, keys, seconds, group, writers, rounds, only } => {
            let task = measure::Task { keys, seconds, group, writers };
            contest::run(&place.directory, &contest::Contest { task, rounds, only })
        }
        Command::Reopen { place, keys } => reopen::run(&place.directory, keys),
        Command::RingChange { place, node, keys, value_bytes, requests_per_second, seconds } => {
            let program = program(node)?;
            let task = ring_change::RingChange { keys, value_bytes, requests_per_second, seconds };
            ring_change::run(&program, &place.directory.join("ring"), task)
        }
    }
}

/// The node's program: the one that was named, else the one that was built beside this one.
fn program(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    named.map_or_else(|| Ok(std::env::current_exe()?.with_file_name("quorate-node")), Ok)
}
