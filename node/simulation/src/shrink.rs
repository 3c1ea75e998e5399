//! Makes a failing schedule small: what can be left out while the same promise breaks is left out.

use crate::scenario::Scenario;
use crate::world::run_guarded;

/// Runs that are spent on one failure.
const RUNS_MAX: usize = 80;

/// A smaller scenario that breaks the same promise, and how many runs it took to find.
pub fn shrink(scenario: &Scenario, invariant: &str) -> (Scenario, usize) {
    let mut shrinker = Shrinker { best: scenario.clone(), invariant, runs: 0 };
    shrinker.leave_out(|scenario| &mut scenario.faults);
    shrinker.leave_out(|scenario| &mut scenario.ring.changes);
    shrinker.leave_out(|scenario| &mut scenario.clients);
    shrinker.leave_out(|scenario| &mut scenario.faults);
    (shrinker.best, shrinker.runs)
}

struct Shrinker<'a> {
    best: Scenario,
    invariant: &'a str,
    runs: usize,
}

impl Shrinker<'_> {
    /// Leaves out halves, quarters, and so on, down to single ones.
    fn leave_out<T>(&mut self, part: impl Fn(&mut Scenario) -> &mut Vec<T>) {
        let mut width = part(&mut self.best).len().div_ceil(2);
        while width > 0 {
            let mut from = 0;
            while from < part(&mut self.best).len() && self.runs < RUNS_MAX {
                let mut smaller = self.best.clone();
                let items = part(&mut smaller);
                let to = (from + width).min(items.len());
                items.drain(from..to);
                if self.still_fails(&smaller) {
                    self.best = smaller;
                } else {
                    from += width;
                }
            }
            width = if width == 1 { 0 } else { width.div_ceil(2) };
        }
    }

    fn still_fails(&mut self, scenario: &Scenario) -> bool {
        self.runs += 1;
        run_guarded(scenario, false).violation.is_some_and(|violation| violation.invariant == self.invariant)
    }
}
