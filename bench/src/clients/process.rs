//! Processes of a contestant, and what they cost.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// Ended when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{:?} does not start", command.get_program()))?;
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        ended.map_or_else(|error| eprintln!("a process cannot be ended: {error}"), drop);
    }
}

/// The processor time that a process has taken so far, user and system.
pub(crate) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field, a name in parentheses, may hold anything.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let mut next = || ticks.next().context("/proc has another shape")?.context("/proc has another shape");
    let ticks = next()? + next()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// The memory that a process has at the moment.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages = statm.split_whitespace().nth(1).context("/proc has another shape")?.parse::<u64>()?;
    Ok(pages * rustix::param::page_size() as u64)
}
