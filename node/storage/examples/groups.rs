//! How many durable writes a second: `cargo run --release -p quorate-storage --example groups [DIRECTORY]`.
//!
//! Each write reads, merges and stores a set of about 200 bytes; 64 wait at a time, so a sync serves about as many.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Event, Policy, Stamp};
use quorate_core::ring::PartitionCount;
use quorate_storage::{Change, Options, StdDisk, Store, Write};

const WAITING: usize = 64;
const KEYS: u64 = 200_000;
const RUN: Duration = Duration::from_secs(8);

fn main() {
    let directory =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("quorate-groups"), PathBuf::from);
    let disk = Arc::new(StdDisk::open(&directory).expect("a directory that can be written"));
    // The directory may hold the log of an earlier run, and an actor must be new.
    let start = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_nanos() as u64;
    let actor = Actor { node: NodeId::from_u128(1), start };
    let (store, recovery) = Store::open(disk, actor, Options::default()).expect("a log that can be opened");
    println!("{} keys in {}", recovery.keys, directory.display());

    let partitions = PartitionCount::try_from(256).expect("a power of two");
    let (sender, receiver) = mpsc::channel();
    let begin = Instant::now();
    let (mut submitted, mut answered, mut slowest, mut dice) = (0u64, 0u64, Duration::ZERO, 1u64);
    while begin.elapsed() < RUN {
        while submitted - answered < WAITING as u64 {
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = Bytes::from(format!("key-{}", (dice >> 33) % KEYS));
            let (sender, at) = (sender.clone(), Instant::now());
            let event = Event {
                context: Context::default(),
                stamp: Stamp::at_ms(submitted),
                value: Some(Bytes::from_static(&[7; 128])),
                policy: Policy::LastWriteWins,
                expires: None,
            };
            store.submit(Write {
                partition: partitions.of_key(&key),
                key,
                change: Change::Event(event),
                prepared: None,
                done: Box::new(move |result| sender.send((result, at.elapsed())).unwrap_or_default()),
            });
            submitted += 1;
        }
        let (result, took) = receiver.recv().expect("every write is answered");
        result.expect("the disk takes writes");
        slowest = slowest.max(took);
        answered += 1;
    }
    let usage = store.usage();
    println!(
        "{:.0} durable writes/s, the slowest took {slowest:?}; log {} MiB, {} MiB of it dead, {} keys",
        answered as f64 / begin.elapsed().as_secs_f64(),
        usage.log_bytes >> 20,
        usage.dead_bytes >> 20,
        usage.keys,
    );

    let begin = Instant::now();
    let reads = 200_000u64;
    for number in 0..reads {
        let key = format!("key-{}", number.wrapping_mul(7919) % KEYS);
        store.get(partitions.of_key(key.as_bytes()), key.as_bytes()).expect("a sound disk");
    }
    println!("{:.2} us a read", begin.elapsed().as_secs_f64() * 1e6 / reads as f64);
    store.close();
}
