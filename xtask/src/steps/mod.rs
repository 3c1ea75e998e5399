//! The steps of `cargo xtask test`, in the order in which they run: the cheap ones first.

mod alerts;
mod api_server;
mod cargo;
mod chart;
mod clients;
mod e2e;
pub(crate) mod fuzz;
mod generated;
mod imports;
mod links;
mod manifests;
mod metrics;
mod simulation;
mod words;

use crate::shell::Shell;
use crate::step::{Needs, Outcome, Step};

/// Every step.
pub(crate) const ALL: &[Step] = &[
    on_machine("format", "the code is formatted", cargo::format),
    on_machine("imports", "crates import only what lies below them", imports::run),
    on_machine("links", "links of the book lead somewhere", links::run),
    on_machine("words", "the book explains what programs say", words::run),
    on_machine("clippy", "clippy has nothing to say", cargo::clippy),
    on_machine("docs", "the documentation of the code builds", cargo::docs),
    on_machine("tests", "unit, property and process tests", cargo::tests),
    on_machine("fuzz", "decoders stand whatever bytes come", fuzz::run),
    on_machine("simulation", "hundreds of simulated clusters keep what they promise", simulation::seeds),
    on_machine("bugs", "the simulator catches every planted bug", simulation::bugs),
    on_machine("generated", "generated files are up to date", generated::run),
    on_machine("chart", "the chart lints, renders and refuses typos", chart::run),
    on_machine("manifests", "manifests fit the schemas strictly", manifests::run),
    on_machine("alerts", "alerts fire when they should", alerts::run),
    on_machine("clients", "client libraries of others work with a ring", clients::run),
    on_machine("metrics", "promtool accepts a node's live metrics", metrics::run),
    on_kubernetes("api-server", "the operator against a real API server", api_server::run),
    on_kubernetes("e2e", "end to end on a real Kubernetes", e2e::run),
];

const fn on_machine(name: &'static str, about: &'static str, run: fn(&Shell<'_>) -> Outcome) -> Step {
    Step { name, about, needs: Needs::Machine, run }
}

const fn on_kubernetes(name: &'static str, about: &'static str, run: fn(&Shell<'_>) -> Outcome) -> Step {
    Step { name, about, needs: Needs::Kubernetes, run }
}
