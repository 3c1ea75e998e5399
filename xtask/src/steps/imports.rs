//! Who may import whom: the arrows of the design, downwards only.
//!
//! Invariant: every crate of the workspace has its row in [`ROOMS`]; a new crate is refused until someone has
//! thought about where it stands.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::Shell;
use crate::step::Outcome;

/// A crate and what it may import.
struct Room {
    name: &'static str,
    /// Crates of the workspace that it may name.
    below: &'static [&'static str],
    /// Whether it is pure: no runtime, no sockets, no files, no clock, no dice.
    pure: bool,
}

const ROOMS: &[Room] = &[
    Room { name: "quorate-core", below: &[], pure: true },
    Room { name: "quorate-wire", below: &["quorate-core"], pure: true },
    Room { name: "quorate-storage", below: &["quorate-core"], pure: false },
    Room { name: "quorate-admin", below: &["quorate-core"], pure: false },
    Room { name: "quorate-replica", below: &["quorate-core", "quorate-wire", "quorate-storage"], pure: true },
    Room {
        name: "quorate-simulation",
        below: &["quorate-core", "quorate-wire", "quorate-storage", "quorate-replica"],
        pure: true,
    },
    Room {
        name: "quorate-node",
        below: &["quorate-core", "quorate-wire", "quorate-storage", "quorate-replica", "quorate-admin"],
        pure: false,
    },
    Room { name: "quorate-operator", below: &["quorate-core", "quorate-admin"], pure: false },
    Room { name: "quorate-e2e", below: &["quorate-core", "quorate-admin"], pure: false },
    Room { name: "quorate-bench", below: &["quorate-core", "quorate-storage", "quorate-admin"], pure: false },
    Room { name: "xtask", below: &[], pure: false },
];

/// What a pure crate may not name, not even for its tests.
const IMPURE: &[&str] = &[
    "axum",
    "futures",
    "getrandom",
    "hyper",
    "k8s-openapi",
    "kube",
    "mio",
    "rand",
    "reqwest",
    "rustix",
    "socket2",
    "tempfile",
    "tokio",
];

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(&shell.workspace.metadata).into()
}

fn check(metadata: &Value) -> Result<()> {
    let wrong = violations(metadata)?;
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Every import that goes against the arrows, as a sentence.
fn violations(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            wrong.push(format!(
                "{name} has no place in the design: give it a row in xtask/src/steps/imports.rs"
            ));
            continue;
        };
        for import in package["dependencies"].as_array().into_iter().flatten() {
            let import = import["name"].as_str().unwrap_or_default();
            if names.contains(&import) && !room.below.contains(&import) {
                wrong.push(format!("{name} imports {import}, which does not lie below it"));
            }
            if room.pure && IMPURE.contains(&import) {
                wrong.push(format!(
                    "{name} imports {import}, but it is pure: hand in time, dice and bytes instead"
                ));
            }
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(crates: &[(&str, &[&str])]) -> Value {
        let package = |(name, imports): &(&str, &[&str])| {
            let imports: Vec<Value> = imports.iter().map(|import| json!({ "name": import })).collect();
            json!({ "name": name, "dependencies": imports })
        };
        json!({ "packages": crates.iter().map(package).collect::<Vec<_>>() })
    }

    #[test]
    fn downwards_is_allowed() {
        let good = workspace(&[("quorate-core", &["serde"]), ("quorate-wire", &["quorate-core", "bytes"])]);
        assert_eq!(violations(&good).unwrap(), [""; 0]);
    }

    #[test]
    fn upwards_is_found() {
        let planted =
            workspace(&[("quorate-core", &["quorate-storage"]), ("quorate-storage", &["quorate-core"])]);
        assert_eq!(
            violations(&planted).unwrap(),
            ["quorate-core imports quorate-storage, which does not lie below it"]
        );
    }

    #[test]
    fn sideways_is_found() {
        let planted =
            workspace(&[("quorate-operator", &["quorate-node"]), ("quorate-node", &["quorate-core"])]);
        let found = violations(&planted).unwrap();
        assert_eq!(found, ["quorate-operator imports quorate-node, which does not lie below it"]);
    }

    #[test]
    fn a_runtime_in_a_pure_crate_is_found() {
        let planted = workspace(&[("quorate-core", &["tokio"]), ("quorate-storage", &["tokio"])]);
        assert_eq!(violations(&planted).unwrap().len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert!(violations(&workspace(&[("quorate-new", &[])])).unwrap()[0].contains("no place"));
    }

    #[test]
    fn this_workspace_follows_the_arrows() {
        check(&crate::workspace::Workspace::find().unwrap().metadata).unwrap();
    }
}
