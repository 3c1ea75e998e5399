//! Generated files are what the programs print today.

use anyhow::{Result, bail};

use crate::generate;
use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::build_programs;

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    build_programs(shell)?;
    let mut old = Vec::new();
    for file in generate::all(shell.workspace)? {
        let found = std::fs::read_to_string(shell.workspace.path(&file.path)).unwrap_or_default();
        if found != file.content {
            old.push(format!("{} is not what the programs print today", file.path.display()));
        }
    }
    if old.is_empty() {
        Ok(())
    } else {
        bail!("{}\nto write them anew: cargo xtask generate", old.join("\n"))
    }
}
