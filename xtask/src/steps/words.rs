//! Words that programs say to people and to other programs (error codes, reasons of conditions, variables) are explained
//! in the book. They are read from the sources, where each kind stands in one place.

use anyhow::{Context, Result, bail, ensure};

use crate::shell::Shell;
use crate::step::Outcome;

/// A kind of word: where it stands, behind which text, and which page explains it.
struct Words {
    source: &'static str,
    behind: &'static str,
    page: &'static str,
}

const WORDS: &[Words] = &[
    Words { source: "node/src/http/error.rs", behind: "=> \"", page: "docs/http-api.md" },
    Words { source: "node/src/refusal.rs", behind: "=> \"", page: "docs/http-api.md" },
    Words { source: "node/src/resp/failure.rs", behind: "=> \"", page: "docs/redis.md" },
    Words { source: "node/wire/src/resp/error.rs", behind: "=> \"", page: "docs/redis.md" },
    Words { source: "node/src/config.rs", behind: "env = \"", page: "docs/configuration.md" },
    Words { source: "operator/src/main.rs", behind: "env = \"", page: "docs/configuration.md" },
    Words { source: "operator/src/plan/mod.rs", behind: "Self::", page: "docs/operations/conditions.md" },
];

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let read = |path| {
        std::fs::read_to_string(shell.workspace.path(path)).with_context(|| format!("cannot read {path}"))
    };
    let mut missing = Vec::new();
    for Words { source, behind, page } in WORDS {
        let (text, explained) = (read(source)?, read(page)?);
        let found = words(&text, behind);
        ensure!(!found.is_empty(), "{source} has nothing behind {behind:?}: this step would prove nothing");
        let unexplained = found.into_iter().filter(|word| !explained.contains(&format!("`{word}`")));
        missing.extend(unexplained.map(|word| format!("{page} does not explain `{word}` of {source}")));
    }
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("\n")) }
}

/// The words that stand right behind a text.
fn words<'a>(source: &'a str, behind: &str) -> Vec<&'a str> {
    let word = |rest: &'a str| {
        let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        &rest[..end.unwrap_or(rest.len())]
    };
    source.split(behind).skip(1).map(word).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_they_end() {
        let source = "Self::Busy => \"busy\",\n Self::Full(_) | Self::Failed => \"storage_full\",";
        assert_eq!(words(source, "=> \""), ["busy", "storage_full"]);
        assert_eq!(words(source, "Self::"), ["Busy", "Full", "Failed"]);
    }
}
