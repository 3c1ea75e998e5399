//! The end-to-end tests, by name, and what runs them.
//!
//! A test is a function of a [`World`]. It makes namespaces of its own, which are removed when it has passed; when
//! it fails, what a person needs to find out why is written to a folder first.

mod bad_objects;
mod disruptions;
mod dump;
mod helm_3;
mod kubernetes;
mod namespace;
mod node_lost;
mod operator_killed;
mod quickstart;
mod ring_changes;
mod rolling_change;
mod subject;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::error::Error;
use crate::kubectl::Kubectl;
use crate::progress::Progress;
use crate::target::Target;

/// A test and how it is called.
#[derive(Debug)]
struct Test {
    name: &'static str,
    run: fn(&World) -> Result<(), Error>,
}

/// Those that run when none is asked for by name, in their order.
const TESTS: &[Test] = &[
    Test { name: "kubernetes", run: kubernetes::run },
    Test { name: "quickstart", run: quickstart::run },
    Test { name: "ring-changes", run: ring_changes::run },
    Test { name: "disruptions", run: disruptions::run },
    Test { name: "rolling-change", run: rolling_change::run },
    Test { name: "operator-killed", run: operator_killed::run },
    Test { name: "bad-objects", run: bad_objects::run },
    // Last, because it takes the operator away from everybody for a while.
    Test { name: "helm-3", run: helm_3::run },
];

/// Tests that take whole machines away: they run when they are asked for by name.
const ON_DEMAND: &[Test] = &[Test { name: "node-lost", run: node_lost::run }];

fn all() -> impl Iterator<Item = &'static Test> {
    TESTS.iter().chain(ON_DEMAND)
}

/// What a test works with.
#[derive(Debug)]
pub struct World {
    /// The cluster, with Quorate's chart on it.
    pub target: Target,
    /// For what waits on many things at once.
    pub runtime: Runtime,
    /// For telling how it goes.
    pub progress: Progress,
}

impl World {
    fn kubectl(&self) -> Kubectl {
        self.target.kubectl()
    }
}

/// How many passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
}

/// The names that are no test's.
///
/// # Errors
/// When there is one, with the names that there are.
pub fn check_names(names: &[String]) -> Result<(), Error> {
    let unknown = names.iter().find(|name| all().all(|test| test.name != name.as_str()));
    let known = || all().map(|test| test.name).collect::<Vec<_>>().join(", ");
    unknown.map_or(Ok(()), |name| {
        Err(Error::Unsupported(format!("no end-to-end test is called {name}: there are {}", known())))
    })
}

/// Runs the tests of these names, or all that need not be asked for, printing a line for each and the score at the end.
pub fn run(world: &World, names: &[String]) -> Score {
    let mut score = Score::default();
    let named = |test: &&Test| names.iter().any(|name| name == test.name);
    let chosen: Vec<&Test> =
        if names.is_empty() { TESTS.iter().collect() } else { all().filter(named).collect() };
    for test in chosen {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (test.run)(world)));
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(Ok(())) => {
                score.passed += 1;
                println!("test {} ... ok ({seconds} s)", test.name);
            }
            failure => {
                score.failed += 1;
                println!("test {} ... FAILED ({seconds} s)", test.name);
                report(world, test, failure.map_or_else(|_| "it panicked: see above".to_owned(), sentence));
            }
        }
    }
    println!("{} passed, {} failed", score.passed, score.failed);
    score
}

fn sentence(result: Result<(), Error>) -> String {
    result.map_or_else(|error| error.to_string(), |()| String::new())
}

fn report(world: &World, test: &Test, why: String) {
    println!("  {why}");
    match dump::write(&world.kubectl(), test.name) {
        Ok(folder) => println!("  pods, events and logs: {}", folder.display()),
        Err(error) => println!("  pods, events and logs could not be read: {error}"),
    }
    namespace::remove_all(&world.kubectl());
}

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        check_names(&["quickstart".to_owned()]).unwrap();
        let error = check_names(&["quickstrat".to_owned()]).unwrap_err().to_string();
        let known = "kubernetes, quickstart, ring-changes, disruptions, rolling-change, operator-killed, bad-objects, \
                     helm-3, node-lost";
        assert!(error.contains("quickstrat") && error.contains(known), "{error}");
    }
}
