//! The alerts of the chart: promtool reads and tries them, and each has a test and a runbook.

use anyhow::{Context, Result, ensure};

use crate::shell::Shell;
use crate::step::Outcome;
use crate::tools::promtool;

const RULES: &str = "charts/quorate/files/alerts.yaml";
const TESTS: &str = "xtask/alerts/tests.yaml";
const RUNBOOKS: &str = "docs/operations/alerts.md";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let promtool = promtool::program(shell)?;
    shell.run(shell.workspace.command(&promtool).args(["check", "rules", RULES]))?;
    shell.run(shell.workspace.command(&promtool).args(["test", "rules", TESTS]))?;
    let read = |path| {
        std::fs::read_to_string(shell.workspace.path(path)).with_context(|| format!("cannot read {path}"))
    };
    let (rules, tests, runbooks) = (read(RULES)?, read(TESTS)?, read(RUNBOOKS)?);
    let alerts = names(&rules);
    ensure!(!alerts.is_empty(), "{RULES} has no alert");
    for alert in alerts {
        let runbook = format!("runbook: {RUNBOOKS}#{}", alert.to_lowercase());
        ensure!(rules.contains(&runbook), "{RULES}: {alert} does not say {runbook}");
        ensure!(runbooks.contains(&format!("\n## {alert}\n")), "{RUNBOOKS} has no section {alert}");
        ensure!(tests.contains(alert), "{TESTS} does not try {alert}");
    }
    Ok(())
}

/// The names of the alerts of a rule file.
fn names(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_found_by_name() {
        assert_eq!(names("rules:\n  - alert: One\n    expr: up\n  - alert: Two\n"), ["One", "Two"]);
    }
}
