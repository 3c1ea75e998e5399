//! The protocol in the simulator: many seeds without a violation, and every planted bug caught.

use anyhow::Result;

use crate::shell::Shell;
use crate::sim;
use crate::step::Outcome;

/// How many seeds a run of CI tries.
const SEEDS: &str = "300";

/// How many of these are tried in which nothing goes wrong, and no request may fail.
const CALM_SEEDS: &str = "60";

pub(super) fn seeds(shell: &Shell<'_>) -> Outcome {
    run(shell, &["--seeds", SEEDS]).and_then(|()| run(shell, &["--calm", "--seeds", CALM_SEEDS])).into()
}

/// Those that some seed catches, and those that have a test of their own.
pub(super) fn bugs(shell: &Shell<'_>) -> Outcome {
    let tested = shell.run(&mut sim::tests(shell.workspace));
    tested.and_then(|()| run(shell, &["--bug", "all"])).into()
}

fn run(shell: &Shell<'_>, arguments: &[&str]) -> Result<()> {
    shell.run(&mut sim::build(shell.workspace))?;
    shell.run(sim::program(shell.workspace).args(arguments))
}
