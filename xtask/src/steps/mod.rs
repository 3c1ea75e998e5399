//! The steps of `cargo xtask test`, in the order in which they run: the cheap ones first.

mod alerts;
mod api_server;
mod cargo;
mod chart;
mod e2e;
mod generated;
mod imports;
mod manifests;
mod metrics;

use crate::step::{Needs, Step};

/// Every step.
pub(crate) const ALL: &[Step] = &[
    Step { name: "format", about: "the code is formatted", needs: Needs::Machine, run: cargo::format },
    Step {
        name: "imports",
        about: "crates import only what lies below them",
        needs: Needs::Machine,
        run: imports::run,
    },
    Step { name: "clippy", about: "clippy has nothing to say", needs: Needs::Machine, run: cargo::clippy },
    Step {
        name: "docs",
        about: "the documentation of the code builds",
        needs: Needs::Machine,
        run: cargo::docs,
    },
    Step {
        name: "tests",
        about: "unit, property and process tests",
        needs: Needs::Machine,
        run: cargo::tests,
    },
    Step {
        name: "generated",
        about: "generated files are up to date",
        needs: Needs::Machine,
        run: generated::run,
    },
    Step {
        name: "chart",
        about: "the chart lints, renders and refuses typos",
        needs: Needs::Machine,
        run: chart::run,
    },
    Step {
        name: "manifests",
        about: "manifests fit the schemas strictly",
        needs: Needs::Machine,
        run: manifests::run,
    },
    Step { name: "alerts", about: "alerts fire when they should", needs: Needs::Machine, run: alerts::run },
    Step {
        name: "metrics",
        about: "promtool accepts a node's live metrics",
        needs: Needs::Machine,
        run: metrics::run,
    },
    Step {
        name: "api-server",
        about: "the operator against a real API server",
        needs: Needs::Kubernetes,
        run: api_server::run,
    },
    Step { name: "e2e", about: "end to end on a real Kubernetes", needs: Needs::Kubernetes, run: e2e::run },
];
