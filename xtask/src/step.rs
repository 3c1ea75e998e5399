//! A step of `cargo xtask test`: a name, what it is for, and what it does.

use anyhow::Error;

use crate::shell::Shell;
use crate::tally::Tally;

/// One step.
pub(crate) struct Step {
    /// The name that `cargo xtask check NAME` takes.
    pub(crate) name: &'static str,
    /// What it proves, in a few words.
    pub(crate) about: &'static str,
    /// What it needs.
    pub(crate) needs: Needs,
    /// Does it.
    pub(crate) run: fn(&Shell<'_>) -> Outcome,
}

/// What a step needs to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// This machine.
    Machine,
    /// A Kubernetes API server, or a whole Kubernetes, which the step brings up: left out by `--fast`.
    Kubernetes,
}

/// What came of a step.
pub(crate) struct Outcome {
    /// What it counted.
    pub(crate) tally: Tally,
    /// Why it failed, if it did.
    pub(crate) error: Option<Error>,
}

/// A step that counts nothing of its own is one check.
impl From<anyhow::Result<()>> for Outcome {
    fn from(result: anyhow::Result<()>) -> Self {
        match result {
            Ok(()) => Self { tally: Tally::PASSED, error: None },
            Err(error) => Self { tally: Tally::FAILED, error: Some(error) },
        }
    }
}

impl Outcome {
    /// The outcome of a test runner, counted from what it printed.
    ///
    /// A runner that fails before it counts (what it tests does not compile) is one failure, and one that ends well
    /// without a test is one too: a run of nothing proves nothing.
    pub(crate) fn of_tests(result: anyhow::Result<()>, printed: &str) -> Self {
        let mut tally = Tally::of_log(printed);
        let error = match result {
            Ok(()) if tally.passed == 0 => Some(anyhow::anyhow!("no test ran")),
            Ok(()) if tally.failed > 0 => Some(anyhow::anyhow!("tests failed, though the runner ended well")),
            other => other.err(),
        };
        if error.is_some() && tally.failed == 0 {
            tally.failed = 1;
        }
        Self { tally, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_ran_nothing_has_failed() {
        assert_eq!(Outcome::of_tests(Ok(()), "").tally, Tally::FAILED);
        assert_eq!(Outcome::of_tests(Ok(()), "0 passed, 0 failed").tally, Tally::FAILED);
    }

    #[test]
    fn a_runner_that_could_not_start_has_failed() {
        let outcome = Outcome::of_tests(Err(anyhow::anyhow!("does not compile")), "");
        assert_eq!(outcome.tally, Tally::FAILED);
        assert!(outcome.error.is_some());
    }

    #[test]
    fn counted_failures_stay_as_counted() {
        let outcome = Outcome::of_tests(Err(anyhow::anyhow!("exit code 101")), "5 passed, 2 failed");
        assert_eq!(outcome.tally, Tally { passed: 5, failed: 2, skipped: 0 });
    }
}
