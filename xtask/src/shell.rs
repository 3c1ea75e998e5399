//! Runs the commands of one step: what they print goes to the step's log, and on failure the end of it to the person.
//!
//! Output goes through a file, not a pipe: a daemon that a command leaves behind and that still holds its output
//! cannot keep the step from ending.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// How many lines of a failed command's output are shown; the log has all of them.
const SHOWN_LINES_MAX: usize = 60;
/// How many of them are of one failed test.
const SHOWN_LINES_OF_TEST: usize = 8;
/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The place where one step runs its commands.
pub(crate) struct Shell<'a> {
    pub(crate) workspace: &'a Workspace,
    log: PathBuf,
    shown: bool,
}

impl<'a> Shell<'a> {
    /// Opens an empty log for the step `name`; `shown` copies it to the terminal as it grows.
    pub(crate) fn open(workspace: &'a Workspace, name: &str, shown: bool) -> Result<Self> {
        let folder = workspace.target.join("xtask");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self { workspace, log, shown })
    }

    /// Runs a command to its end; an exit code other than 0 is an error that shows the command and its last lines.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let line = line(command);
        self.note(&format!("$ {line}"))?;
        let start = self.text()?.len();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(self.append()?)
            .stderr(self.append()?)
            .spawn()
            .with_context(|| format!("cannot start: {line}"))?;
        let mut tail = Tail { file: File::open(&self.log)?, shown: self.shown };
        tail.skip(start)?;
        let status = loop {
            tail.copy()?;
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(POLL);
        };
        tail.copy()?;
        if status.success() {
            return Ok(());
        }
        let shown = if self.shown { String::new() } else { telling_lines(&self.text()?[start..]) };
        bail!("{shown}command:   {line}\n           ended with {status}");
    }

    /// Runs a command that must fail, and gives back what it printed.
    pub(crate) fn refused(&self, command: &mut Command) -> Result<String> {
        let line = line(command);
        let output = command.output().with_context(|| format!("cannot start: {line}"))?;
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        self.note(&format!("$ {line}    # must be refused\n{printed}"))?;
        if output.status.success() {
            bail!("command:   {line}\n           was expected to be refused, and went through");
        }
        Ok(printed)
    }

    /// Runs a command and gives back what it printed to its standard output.
    pub(crate) fn capture(&self, command: &mut Command) -> Result<String> {
        let line = line(command);
        let output = command.output().with_context(|| format!("cannot start: {line}"))?;
        self.note(&format!("$ {line}\n{}", text(&output.stderr)))?;
        if !output.status.success() {
            bail!(
                "{}command:   {line}\n           ended with {}",
                telling_lines(&text(&output.stderr)),
                output.status
            );
        }
        Ok(text(&output.stdout))
    }

    /// Adds a line to the log.
    pub(crate) fn note(&self, line: &str) -> Result<()> {
        if self.shown {
            println!("{line}");
        }
        writeln!(self.append()?, "{line}").context("cannot write the log")
    }

    /// All that the step's commands printed so far.
    pub(crate) fn text(&self) -> Result<String> {
        let bytes =
            std::fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(text(&bytes))
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// The log, opened to add to it.
    pub(crate) fn append(&self) -> Result<File> {
        File::options()
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))
    }
}

/// Follows the log while a command writes to it.
struct Tail {
    file: File,
    shown: bool,
}

impl Tail {
    fn skip(&mut self, bytes: usize) -> Result<()> {
        std::io::copy(&mut (&mut self.file).take(bytes as u64), &mut std::io::sink())?;
        Ok(())
    }

    fn copy(&mut self) -> Result<()> {
        if self.shown {
            let mut out = std::io::stdout().lock();
            std::io::copy(&mut self.file, &mut out)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// A command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>();
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={} ", name.to_string_lossy(), quote(&value?.to_string_lossy())))
    });
    variables.chain(std::iter::once(quoted.join(" "))).collect()
}

fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What says most about a failure, indented: how each failed test began to fail, and the end of all that was printed.
fn telling_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES_MAX);
    // The test harness heads what a failed test printed so.
    let heads = lines[..from].iter().enumerate().filter(|(_, line)| line.starts_with("---- "));
    let failed = heads.flat_map(|(at, _)| lines[at..from].iter().take(SHOWN_LINES_OF_TEST));
    failed.take(SHOWN_LINES_MAX).chain(&lines[from..]).map(|line| format!("| {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_it_would_be_typed() {
        let mut command = Command::new("cargo");
        command.args(["clippy", "--", "-D", "two words", "it's"]).env("RUST_LOG", "a b");
        assert_eq!(line(&command), r"RUST_LOG='a b' cargo clippy -- -D 'two words' 'it'\''s'");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        let long: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let shown = telling_lines(&long);
        assert_eq!(shown.lines().count(), SHOWN_LINES_MAX);
        assert!(shown.ends_with("| line 999\n"));
    }

    #[test]
    fn a_test_that_failed_is_named_however_much_was_printed_after_it() {
        let after: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let shown =
            telling_lines(&format!("failures:\n\n---- a::test stdout ----\nassertion failed\n{after}"));
        assert!(shown.starts_with("| ---- a::test stdout ----\n| assertion failed\n"), "{shown}");
        assert!(shown.ends_with("| line 999\n"));
    }
}
