//! The files that programs write: nobody edits them by hand, and the step `generated` refuses a checkout in which they
//! differ from what the programs print.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// The CRD, as the operator's types say it.
pub(crate) const CRD: &str = "crds/kvclusters.yaml";
/// Its copy in the chart: Helm reads no file outside of a chart.
const CRD_IN_CHART: &str = "charts/quorate/files/kvclusters.yaml";
/// What each program says of its own options.
const HELP_PAGES: &[HelpPage] = &[
    HelpPage { path: "docs/reference/quorate-node.md", program: "quorate-node", commands: &["run", "dev"] },
    HelpPage {
        path: "docs/reference/quorate-operator.md",
        program: "quorate-operator",
        commands: &["run", "crd"],
    },
];

struct HelpPage {
    path: &'static str,
    program: &'static str,
    commands: &'static [&'static str],
}

/// A generated file: where it is, relative to the checkout, and what it must hold.
pub(crate) struct Generated {
    pub(crate) path: PathBuf,
    pub(crate) content: String,
}

/// Makes every generated file, in memory. The programs of the workspace must have been built.
pub(crate) fn all(workspace: &Workspace) -> Result<Vec<Generated>> {
    let crd = print(workspace, "quorate-operator", &["crd"])?;
    let mut files = vec![
        Generated { path: CRD.into(), content: crd.clone() },
        Generated { path: CRD_IN_CHART.into(), content: crd },
    ];
    for page in HELP_PAGES {
        files.push(Generated { path: page.path.into(), content: help_page(workspace, page)? });
    }
    Ok(files)
}

/// Writes them.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let status = workspace.build_programs().status().context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "the programs that print the files do not build");
    for file in all(workspace)? {
        let path = workspace.path(&file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&path, file.content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", file.path.display());
    }
    Ok(())
}

fn help_page(workspace: &Workspace, page: &HelpPage) -> Result<String> {
    let mut text = format!("<!-- Written by `cargo xtask generate`. -->\n# {}\n", page.program);
    for command in page.commands {
        let help = print(workspace, page.program, &[command, "--help"])?;
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        text += &format!("\n## {} {command}\n\n```text\n{}```\n", page.program, help);
    }
    Ok(text)
}

/// What a program prints, in an empty environment: help shows the value of each variable that is set.
fn print(workspace: &Workspace, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = workspace.command(workspace.binary(program));
    command.env_clear();
    let output = command.args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    let words = arguments.join(" ");
    anyhow::ensure!(output.status.success(), "{program} {words} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{program} {words} printed no text"))
}
