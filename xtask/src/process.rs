//! A program that runs beside a step (a node, an API server) and ends with it, however the step ends.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell::{Shell, line};

/// How long a program may take to end once its input is closed, before it is killed.
const END_SECONDS_MAX: u64 = 30;
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A running program. Dropping it closes its input, asks it to end, and kills it when it does not.
pub(crate) struct Beside {
    pub(crate) child: Child,
    name: String,
}

impl Beside {
    /// Starts a program; all that it prints goes to the step's log.
    pub(crate) fn start(shell: &Shell<'_>, command: &mut Command) -> Result<Self> {
        let log = shell.append()?;
        Self::start_with(shell, command, log.into())
    }

    /// Starts a program whose output the caller reads; its errors go to the step's log.
    pub(crate) fn start_piped(shell: &Shell<'_>, command: &mut Command) -> Result<Self> {
        Self::start_with(shell, command, Stdio::piped())
    }

    fn start_with(shell: &Shell<'_>, command: &mut Command, output: Stdio) -> Result<Self> {
        let name = line(command);
        shell.note(&format!("$ {name} &"))?;
        // Its output is read in a log.
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(shell.append()?)
            .spawn()
            .with_context(|| format!("cannot start: {name}"))?;
        Ok(Self { child, name })
    }

    /// Waits until `ready` gives an answer; an error when the program ends first or the deadline passes.
    pub(crate) fn wait_until<T>(
        &mut self,
        deadline: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("command:   {}\n           ended with {status} before it was ready", self.name);
            }
            if begun.elapsed() > deadline {
                bail!("command:   {}\n           was not ready within {} s", self.name, deadline.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // By its number, for a program that does not watch its input; one that has ended already is not asked.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(END_SECONDS_MAX) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}
