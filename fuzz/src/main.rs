//! libFuzzer's side: runs the target that `QUORATE_FUZZ_TARGET` names on whatever libFuzzer thinks of.
//!
//! Without it, prints the names of all targets and ends. With `QUORATE_FUZZ_SEEDS`, writes the target's seeds into that
//! folder and ends.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use quorate_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let target = chosen();
        if let Some(folder) = std::env::var_os("QUORATE_FUZZ_SEEDS") {
            write_seeds(target, Path::new(&folder));
            std::process::exit(0);
        }
        let _ = TARGET.set(target);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);

/// The target that is asked for; without one, the names of all, and the end.
fn chosen() -> &'static Target {
    let Ok(name) = std::env::var("QUORATE_FUZZ_TARGET") else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    };
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        eprintln!("there is no fuzz target {name}; without QUORATE_FUZZ_TARGET all are listed");
        std::process::exit(2);
    })
}

/// A seed that its target does not understand leads nowhere: it is refused.
fn write_seeds(target: &Target, folder: &Path) {
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        assert!((target.run)(&seed), "seed {number} of {} is not understood", target.name);
        std::fs::write(folder.join(format!("seed-{number}")), seed).expect("the folder can be written to");
    }
}
