//! Running a command to its end, with its output in the error when it fails.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Error};

/// How much of a failed command's output goes into the error.
const ERROR_OUTPUT_BYTES_MAX: usize = 4096;

/// How often a condition is looked at while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a command and returns what it printed to standard output, trimmed.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let output =
        command.stdin(Stdio::null()).output().doing(|| format!("starting `{}`", describe(command)))?;
    finish(command, &output)
}

/// Runs a command with `input` on its standard input.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String, Error> {
    let output = feed(command.stderr(Stdio::piped()), input)?;
    finish(command, &output)
}

/// The same for a command that takes long: what it says on standard error is for the person who waits. Whether it ended
/// well is returned.
///
/// # Errors
/// When it cannot be started.
pub fn show_with_input(command: &mut Command, input: &str) -> Result<bool, Error> {
    Ok(feed(command.stderr(Stdio::inherit()), input)?.status.success())
}

fn feed(command: &mut Command, input: &str) -> Result<Output, Error> {
    let doing = |command: &Command| format!("running `{}`", describe(command));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().doing(|| doing(command))?;
    // A thread writes, so that a command that prints before it has read everything cannot block both.
    let writer = child.stdin.take().map(|mut pipe| {
        let input = input.to_owned();
        thread::spawn(move || pipe.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output().doing(|| doing(command))?;
    // A command that ended early closes the pipe; its exit status says why, better than the write's error.
    drop(writer.map(thread::JoinHandle::join));
    Ok(output)
}

/// Runs `program` with `arguments`.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn call(program: &str, arguments: &[&str]) -> Result<String, Error> {
    run(Command::new(program).args(arguments))
}

/// Whether a command can be started and ends well; its output is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Polls until `ready` says yes.
///
/// # Errors
/// [`Error::Timeout`] at the deadline, and whatever `ready` fails with.
pub fn wait_until(
    awaited: &str,
    limit: Duration,
    hint: &str,
    mut ready: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    while !ready()? {
        if Instant::now() >= deadline {
            return Err(Error::Timeout {
                seconds: limit.as_secs(),
                awaited: awaited.to_owned(),
                hint: hint.to_owned(),
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn finish(command: &Command, output: &Output) -> Result<String, Error> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.trim_end().to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
    Err(Error::Command {
        command: describe(command),
        status: output.status.to_string(),
        output: tail(said, ERROR_OUTPUT_BYTES_MAX).to_owned(),
    })
}

/// The command line, as a person would type it.
fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The last `limit` bytes of a text, cut at a character.
fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_the_command_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"])).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("no such luck") && said.contains('3'), "{said}");
    }

    #[test]
    fn input_larger_than_a_pipe_arrives_whole() {
        let input = "x".repeat(300_000);
        let output = run_with_input(&mut Command::new("cat"), &input).unwrap();
        assert_eq!(output.len(), input.len());
    }

    #[test]
    fn a_tail_is_cut_at_a_character() {
        assert_eq!(tail("aäb", 2), "b");
        assert_eq!(tail("ab", 5), "ab");
    }

    #[test]
    fn waiting_ends_at_the_deadline_with_a_hint() {
        let error = wait_until("the moon", Duration::ZERO, "look up", || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for the moon; look up");
    }
}
