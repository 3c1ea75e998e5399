//! End to end: the tests of the crate `quorate-e2e` on a real Kubernetes, taken down afterwards when this step
//! brought it up.

use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::program;

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    let result = program(shell, "quorate-e2e").and_then(|mut program| shell.run(program.arg("test")));
    Outcome::of_tests(result, &shell.text().unwrap_or_default())
}
