//! How many checks passed and failed: the closing line of a run is the sum of its steps' tallies.
//!
//! Invariant: a step counts at least one, so that a run that did nothing never reads as a run that passed.

use std::fmt;
use std::ops::AddAssign;

/// Counts of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check that passed.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One check that failed.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Sums the closing lines of test runners in a log: `test result: ok. 3 passed; 0 failed; 1 ignored; …` of cargo
    /// and `3 passed, 0 failed` of our own.
    pub(crate) fn of_log(log: &str) -> Self {
        let mut sum = Self::default();
        log.lines().filter_map(of_line).for_each(|tally| sum += tally);
        sum
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The counts of a closing line; `None` for any other line.
fn of_line(line: &str) -> Option<Tally> {
    let line = line.trim();
    let counts = match line.strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ")?.1,
        None if line.starts_with(|first: char| first.is_ascii_digit()) => line,
        None => return None,
    };
    let mut words = counts.split([' ', ',', ';']).filter(|word| !word.is_empty());
    let mut tally = Tally::default();
    let mut seen = 0;
    while let (Some(number), Some(word)) = (words.next(), words.next()) {
        let Ok(number) = number.parse::<u64>() else { break };
        match word {
            "passed" => tally.passed = number,
            "failed" => tally.failed = number,
            "ignored" | "skipped" => tally.skipped = number,
            _ => continue,
        }
        seen += 1;
    }
    (seen >= 2).then_some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_cargo_are_summed() {
        let log = "running 3 tests\ntest a ... ok\n\
                   test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
                   test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.20s\n";
        assert_eq!(Tally::of_log(log), Tally { passed: 3, failed: 2, skipped: 1 });
    }

    #[test]
    fn our_own_closing_line_is_read() {
        assert_eq!(Tally::of_log("4 passed, 1 failed\n"), Tally { passed: 4, failed: 1, skipped: 0 });
        assert_eq!(
            Tally::of_log("4 passed, 1 failed, 2 skipped"),
            Tally { passed: 4, failed: 1, skipped: 2 }
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["12 pods are ready", "3 failed", "test result: unknown", "passed, failed", "", "test a ... ok"]
        {
            assert_eq!(Tally::of_log(line), Tally::default(), "{line}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let tally = Tally { passed: 7, failed: 2, skipped: 1 };
        assert_eq!(Tally::of_log(&tally.to_string()), tally);
    }
}
