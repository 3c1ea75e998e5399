//! What was made outside of the cluster's folder.
//!
//! Invariant: an entry is on the disk before the thing exists, so that whatever a broken start left
//! behind can be undone from the journal alone. Undoing something that is not there is no error.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error};
use crate::run::{call, succeeds, wait_until};

/// Where the named network namespaces are.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// How long the kernel may take to let go of a control group.
const CGROUP_SECONDS_MAX: Duration = Duration::from_secs(10);

/// One thing outside of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// The folder of named network namespaces, which the first one makes and mounts.
    Namespaces,
    /// A network namespace.
    Namespace(String),
    /// A network link of the machine.
    Link(String),
    /// A tree of control groups.
    Cgroup(PathBuf),
    /// A folder that was not there before.
    Folder(PathBuf),
}

/// The list of what was made, one entry a line.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal in this file, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// When the journal cannot be written: then the thing must not be made.
    pub fn intend(&self, made: &Made) -> Result<(), Error> {
        let line = serde_json::to_string(made).doing(|| "writing the journal".to_owned())?;
        let doing = || format!("writing {}", self.path.display());
        let mut file = File::options().create(true).append(true).open(&self.path).doing(doing)?;
        writeln!(file, "{line}").doing(doing)?;
        file.sync_data().doing(doing)
    }

    /// Makes a folder and its parents, each written down first when it is new.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        let mut missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
        missing.reverse();
        for path in missing {
            self.intend(&Made::Folder(path.to_owned()))?;
            fs::create_dir(path).doing(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    /// Undoes everything, newest first.
    ///
    /// # Errors
    /// The first thing that could not be undone, after all others were tried.
    pub fn undo(&self) -> Result<(), Error> {
        let results: Vec<_> = self.entries()?.iter().rev().map(undo_one).collect();
        results.into_iter().collect()
    }

    fn entries(&self) -> Result<Vec<Made>, Error> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("reading {}", self.path.display()))?,
        };
        // A last line that was cut short names a thing that was not made yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line| serde_json::from_str(line).doing(|| format!("reading {}", self.path.display()));
        whole.lines().map(parse).collect()
    }
}

fn undo_one(made: &Made) -> Result<(), Error> {
    match made {
        Made::Namespaces => undo_namespaces(),
        Made::Namespace(name) => undo_namespace(name),
        Made::Link(name) => undo_link(name),
        Made::Cgroup(path) => undo_cgroup(path),
        Made::Folder(path) => undo_folder(path),
    }
}

/// Others may have made theirs in the meantime: then the folder stays.
fn undo_namespaces() -> Result<(), Error> {
    let empty = fs::read_dir(NAMESPACES).is_ok_and(|mut entries| entries.next().is_none());
    if empty && succeeds(Command::new("mountpoint").args(["-q", NAMESPACES])) {
        call("umount", &[NAMESPACES])?;
    }
    undo_folder(Path::new(NAMESPACES))
}

fn undo_namespace(name: &str) -> Result<(), Error> {
    if Path::new(NAMESPACES).join(name).exists() {
        call("ip", &["netns", "delete", name])?;
    }
    Ok(())
}

fn undo_link(name: &str) -> Result<(), Error> {
    let there = || succeeds(Command::new("ip").args(["link", "show", name]));
    // Deleting a namespace deletes its end of the link, and with it this one, a moment later.
    if !there() || call("ip", &["link", "delete", name]).is_ok() || !there() {
        return Ok(());
    }
    call("ip", &["link", "delete", name]).map(drop)
}

/// Removes a control group and those below it. The kernel refuses while processes in it are ending.
fn undo_cgroup(path: &Path) -> Result<(), Error> {
    let hint = format!("see {}/cgroup.procs", path.display());
    wait_until(&format!("{} to empty", path.display()), CGROUP_SECONDS_MAX, &hint, || {
        remove_groups(path);
        Ok(!path.exists())
    })
}

/// Removes what can be removed yet, the innermost first: a group is a folder whose files cannot be removed.
fn remove_groups(path: &Path) {
    let groups = fs::read_dir(path).into_iter().flatten().flatten();
    groups.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_groups(&entry.path()));
    let _not_yet = fs::remove_dir(path);
}

/// Removes a folder that is empty; what somebody else put into it since stays.
fn undo_folder(path: &Path) -> Result<(), Error> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty) => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_were_new_go_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("journal"));
        fs::create_dir(root.path().join("old")).unwrap();
        journal.make_folder(&root.path().join("old/new/newer")).unwrap();
        assert!(root.path().join("old/new/newer").is_dir());
        journal.undo().unwrap();
        assert!(root.path().join("old").is_dir());
        assert!(!root.path().join("old/new").exists());
        journal.undo().unwrap();
    }

    #[test]
    fn a_folder_that_somebody_filled_stays() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("journal"));
        journal.make_folder(&root.path().join("new")).unwrap();
        fs::write(root.path().join("new/theirs"), "").unwrap();
        journal.undo().unwrap();
        assert!(root.path().join("new/theirs").exists());
    }

    #[test]
    fn a_line_that_was_cut_short_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("journal"));
        journal.intend(&Made::Link("a".to_owned())).unwrap();
        let whole = journal.entries().unwrap();
        let mut text = fs::read_to_string(&journal.path).unwrap();
        text.push_str("{\"lin");
        fs::write(&journal.path, text).unwrap();
        assert_eq!(journal.entries().unwrap(), whole);
    }

    #[test]
    fn no_journal_is_nothing_to_undo() {
        let root = tempfile::tempdir().unwrap();
        Journal::new(root.path().join("journal")).undo().unwrap();
    }
}
