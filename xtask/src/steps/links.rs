//! Links between the pages of the book, the READMEs and the examples lead to files and headings that exist.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::Shell;
use crate::step::Outcome;

/// Where pages are.
const BOOK: &str = "docs";
const PAGES: &[&str] = &["README.md", "charts/quorate/README.md", "e2e/README.md"];

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(&shell.workspace.root).into()
}

fn check(root: &Path) -> Result<()> {
    let mut pages: Vec<PathBuf> = PAGES.iter().map(|page| root.join(page)).collect();
    find_pages(&root.join(BOOK), &mut pages)?;
    let mut dead = Vec::new();
    let mut seen = 0;
    for page in pages {
        let text = read(&page)?;
        for link in links(&text) {
            seen += 1;
            if let Err(why) = follow(&page, link) {
                dead.push(format!("{}: {link}: {why:#}", page.strip_prefix(root).unwrap_or(&page).display()));
            }
        }
    }
    ensure!(seen > 0, "no page has a link: this step would prove nothing");
    if dead.is_empty() { Ok(()) } else { bail!("{}", dead.join("\n")) }
}

fn find_pages(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

fn read(page: &Path) -> Result<String> {
    std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))
}

/// An error when a link of a page leads nowhere. Links out of the checkout are not followed.
fn follow(page: &Path, link: &str) -> Result<()> {
    if link.contains("://") {
        return Ok(());
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap_or(page).join(file) };
    ensure!(target.exists(), "there is no such file");
    if heading.is_empty() {
        return Ok(());
    }
    let text = read(&target)?;
    ensure!(headings(&text).any(|known| known == heading), "there is no such heading");
    Ok(())
}

/// The targets of `[text](target)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let parts = |line| str::split(line, "](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    prose(text).flat_map(parts).collect()
}

/// The anchors of headings, as code hosts make them: lower case, hyphens for spaces, no punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let anchor = |heading: &str| {
        let kept = heading
            .trim()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect::<String>().to_lowercase()
    };
    prose(text).filter(|line| line.starts_with('#')).map(move |line| anchor(line.trim_start_matches('#')))
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_prose_are_found_and_those_of_code_are_not() {
        let text = "see [a](a.md) and [b](b.md#x), [c](https://c)\n```\n[d](d.md)\n```\n[e](#e)\n";
        assert_eq!(links(text), ["a.md", "b.md#x", "https://c", "#e"]);
    }

    #[test]
    fn headings_become_anchors() {
        let anchors: Vec<_> = headings("# The node: `quorate-node run`\n## Who may do what\n").collect();
        assert_eq!(anchors, ["the-node-quorate-node-run", "who-may-do-what"]);
    }

    #[test]
    fn a_dead_link_is_found() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(follow(&page, "src/main.rs").is_ok());
        assert!(follow(&page, "src/missing.rs").is_err());
        assert!(follow(&page, "../README.md#no-such-heading").is_err());
    }
}
