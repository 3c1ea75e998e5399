//! Long-running processes that outlive the command that started them.
//!
//! Invariant: a process is stopped only when its recorded id *and* start time still match, so that a
//! number that the kernel gave to somebody else is never signalled. The process writes that record
//! itself before it becomes the program, so that none can run unrecorded.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Error};
use crate::run::wait_until;

/// How long a process may take to end by itself.
const STOP_SECONDS_MAX: Duration = Duration::from_secs(10);

/// How long a killed process may take to be gone.
const KILL_SECONDS_MAX: Duration = Duration::from_secs(20);

/// The shell's part of a start: record who I am, then become the program.
const RECORD_AND_BECOME: &str = r#"echo "$$ $(cut -d' ' -f22 /proc/$$/stat)" > "$0" && exec "$@""#;

/// What becomes of a process when the thread that started it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It runs on.
    Detached,
    /// The kernel kills it. Only for starters whose main thread starts it and lives on.
    WithParent,
}

/// Where a process is recorded and where its output goes.
#[derive(Debug)]
pub struct Place<'a> {
    /// The file that will name the process.
    pub pid_file: &'a Path,
    /// The file that its output is added to.
    pub log: &'a Path,
}

/// Starts `program` in a session of its own and waits until it is recorded.
///
/// # Errors
/// When the process cannot be started or does not record itself.
pub fn start(
    place: &Place<'_>,
    lifetime: Lifetime,
    program: &Path,
    arguments: &[String],
) -> Result<Process, Error> {
    for file in [place.pid_file, place.log] {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))?;
        }
    }
    remove_file(place.pid_file)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(place.log)
        .doing(|| format!("opening {}", place.log.display()))?;
    let errors = log.try_clone().doing(|| format!("opening {}", place.log.display()))?;
    let mut command = match lifetime {
        Lifetime::Detached => Command::new("setsid"),
        Lifetime::WithParent => {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "setsid"]);
            command
        }
    };
    let child = command
        .args(["sh", "-c", RECORD_AND_BECOME])
        .arg(place.pid_file)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .doing(|| format!("starting {}", program.display()))?;
    let mut recorded = None;
    let awaited = format!("process {} to start", child.id());
    wait_until(&awaited, STOP_SECONDS_MAX, &format!("see {}", place.log.display()), || {
        recorded = Process::recorded(place.pid_file)?;
        Ok(recorded.is_some())
    })?;
    recorded.ok_or_else(|| Error::Ended { name: program.display().to_string(), log: place.log.to_owned() })
}

/// A process that was recorded: its id and when it started, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    id: i32,
    started_ticks: u64,
}

impl Process {
    /// Reads a record; `None` when there is none, or none yet.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn recorded(pid_file: &Path) -> Result<Option<Self>, Error> {
        match fs::read_to_string(pid_file) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", pid_file.display())),
        }
    }

    /// A record is complete only with its line's end: half a number is another number.
    fn parse(text: &str) -> Option<Self> {
        let (id, started) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { id: id.parse().ok()?, started_ticks: started.parse().ok()? })
    }

    /// The process id.
    pub fn id(self) -> i32 {
        self.id
    }

    /// Whether it runs: a process that ended but was not waited for does not.
    pub fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.id)) else { return false };
        state_and_start(&stat)
            .is_some_and(|(state, started)| !matches!(state, 'Z' | 'X') && started == self.started_ticks)
    }

    /// The processes that it started itself and that still run.
    pub fn children(self) -> Vec<Self> {
        if !self.is_alive() {
            return Vec::new();
        }
        let path = format!("/proc/{0}/task/{0}/children", self.id);
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().filter_map(|id| Self::running(id.parse().ok()?)).collect()
    }

    fn running(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        state_and_start(&stat).map(|(_, started_ticks)| Self { id, started_ticks })
    }

    /// Asks it to end, and kills it when it does not.
    ///
    /// # Errors
    /// When it outlives even the kill.
    pub fn stop(self) -> Result<(), Error> {
        self.signal(Signal::TERM);
        if self.wait_gone(STOP_SECONDS_MAX).is_ok() { Ok(()) } else { self.kill() }
    }

    /// Kills it and waits until it is gone, with its own children that the kernel kills along.
    ///
    /// # Errors
    /// When it outlives the kill.
    pub fn kill(self) -> Result<(), Error> {
        let children = self.children();
        self.signal(Signal::KILL);
        self.wait_gone(KILL_SECONDS_MAX)?;
        children.into_iter().try_for_each(|child| {
            child.signal(Signal::KILL);
            child.wait_gone(KILL_SECONDS_MAX)
        })
    }

    fn signal(self, signal: Signal) {
        // It may end between the look and the signal: then there is nothing left to do, so the result is not asked for.
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.id)) {
            let _gone_already = kill_process(pid, signal);
        }
    }

    fn wait_gone(self, limit: Duration) -> Result<(), Error> {
        wait_until(&format!("process {} to end", self.id), limit, "look at it with ps", || {
            Ok(!self.is_alive())
        })
    }
}

/// The state letter and the start time of a /proc/PID/stat line. The name in it may hold anything, so
/// the fields are counted from its closing parenthesis.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

/// Removes a file, and is content when there is none.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path, lifetime: Lifetime) -> Process {
        let place = Place { pid_file: &folder.join("pids/sleeper"), log: &folder.join("log") };
        start(&place, lifetime, Path::new("sleep"), &["1000".to_owned()]).unwrap()
    }

    #[test]
    fn a_started_process_is_recorded_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        for lifetime in [Lifetime::Detached, Lifetime::WithParent] {
            let process = sleeper(folder.path(), lifetime);
            assert!(process.is_alive());
            assert_eq!(Process::recorded(&folder.path().join("pids/sleeper")).unwrap(), Some(process));
            process.stop().unwrap();
            assert!(!process.is_alive());
        }
    }

    #[test]
    fn a_reused_id_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path(), Lifetime::Detached);
        let other = Process { started_ticks: process.started_ticks + 1, ..process };
        assert!(!other.is_alive());
        other.kill().unwrap();
        assert!(process.is_alive());
        process.kill().unwrap();
    }

    #[test]
    fn half_a_record_is_none() {
        assert_eq!(Process::parse("12 34"), None);
        assert_eq!(Process::parse("12 34\n"), Some(Process { id: 12, started_ticks: 34 }));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) R b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(state_and_start(stat), Some(('S', 4242)));
    }
}
