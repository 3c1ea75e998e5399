//! `cargo xtask test` and `cargo xtask check`: runs a list of steps and says how each went.
//!
//! A failed step does not stop the others: one run shows all that is wrong.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::shell::Shell;
use crate::step::{Needs, Outcome, Step};
use crate::steps::ALL;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// The steps of a whole run, or of one that needs no Kubernetes.
pub(crate) fn steps(fast: bool) -> Vec<&'static Step> {
    ALL.iter().filter(|step| !(fast && step.needs == Needs::Kubernetes)).collect()
}

/// The steps with these names.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Step>> {
    let find = |name: &String| {
        ALL.iter().find(|step| step.name == name).with_context(|| {
            let known: Vec<&str> = ALL.iter().map(|step| step.name).collect();
            format!("no step is called {name}; there are: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Prints the steps.
pub(crate) fn list() {
    for step in ALL {
        let needs = if step.needs == Needs::Kubernetes { " (left out by --fast)" } else { "" };
        println!("{:<12} {}{needs}", step.name, step.about);
    }
}

/// Runs the steps in turn; `false` when any failed.
pub(crate) fn run(workspace: &Workspace, steps: &[&'static Step], verbose: bool) -> Result<bool> {
    let begun = Instant::now();
    let mut sum = Tally::default();
    for (index, step) in steps.iter().enumerate() {
        announce(index + 1, steps.len(), step, verbose);
        let start = Instant::now();
        let shell = Shell::open(workspace, step.name, verbose)?;
        let outcome = (step.run)(&shell);
        report(step, &shell, &outcome, start.elapsed());
        sum += outcome.tally;
    }
    let plural = if steps.len() == 1 { "" } else { "s" };
    println!("\n{} step{plural} in {}", steps.len(), seconds(begun.elapsed()));
    println!("{sum}");
    Ok(sum.failed == 0)
}

fn announce(number: usize, of: usize, step: &Step, verbose: bool) {
    print!("[{number:>2}/{of}] {:<12} {:<52}", step.name, step.about);
    if verbose {
        println!();
    }
    // The line is a comfort to whoever waits: where it cannot be shown, the step goes on.
    let _ = std::io::stdout().flush();
}

fn report(step: &Step, shell: &Shell<'_>, outcome: &Outcome, took: Duration) {
    let took = seconds(took);
    let Some(error) = &outcome.error else {
        let count = if outcome.tally.passed > 1 { format!("  {}", outcome.tally) } else { String::new() };
        println!(" ok     {took:>8}{count}");
        return;
    };
    println!(" FAILED {took:>8}  {}", outcome.tally);
    for line in format!("{error:#}").lines() {
        println!("        {line}");
    }
    println!("        log:       {}", shell.log().display());
    println!("        only this: cargo xtask check {}\n", step.name);
}

/// A time as a person reads it.
fn seconds(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_steps_are_unique_and_found() {
        let names: BTreeSet<&str> = ALL.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert_eq!(named(&[name.to_owned()]).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = named(&["clipy".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("clipy") && error.contains("clippy"), "{error}");
    }

    #[test]
    fn fast_leaves_out_kubernetes_and_nothing_else() {
        assert_eq!(steps(false).len(), ALL.len());
        assert!(steps(true).iter().all(|step| step.needs == Needs::Machine));
        assert!(steps(true).len() < ALL.len());
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(605)), "10m 05s");
    }
}
