//! The control group below which one node's pods live, in every hierarchy of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error};
use crate::journal::{Journal, Made};

/// Where Linux shows its control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that the kubelet works with, where the machine has one unified hierarchy.
const CONTROLLERS: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// Settings that a new group of the `cpuset` hierarchy has empty, and without which no process may enter it.
const CPUSET_INHERITED: &[&str] = &["cpuset.cpus", "cpuset.mems"];

/// The group of a node as the kubelet names it, from the root of a hierarchy.
pub fn of_node(node: &str) -> String {
    format!("/quorate-{node}")
}

/// Makes a node's group.
///
/// # Errors
/// When the kernel refuses.
pub fn make(journal: &Journal, node: &str) -> Result<(), Error> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return make_unified(journal, root, node);
    }
    let doing = || format!("reading {ROOT}");
    for hierarchy in fs::read_dir(root).doing(doing)? {
        make_in(journal, &hierarchy.doing(doing)?.path(), node)?;
    }
    Ok(())
}

/// Version 2: one tree; a controller must be handed down level by level.
fn make_unified(journal: &Journal, root: &Path, node: &str) -> Result<(), Error> {
    let group = make_group(journal, root, node)?;
    for level in [root, &group] {
        for controller in CONTROLLERS {
            // A machine need not have every controller; the kubelet says which one it misses.
            let _absent = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Version 1: a tree for each controller. Links to a tree are the tree under another name.
fn make_in(journal: &Journal, hierarchy: &Path, node: &str) -> Result<(), Error> {
    if hierarchy.is_symlink() || !hierarchy.join("cgroup.procs").exists() {
        return Ok(());
    }
    let group = make_group(journal, hierarchy, node)?;
    for setting in CPUSET_INHERITED.iter().filter(|setting| hierarchy.join(setting).exists()) {
        let path = hierarchy.join(setting);
        let value = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        fs::write(group.join(setting), value)
            .doing(|| format!("writing {setting} of {}", group.display()))?;
    }
    Ok(())
}

fn make_group(journal: &Journal, hierarchy: &Path, node: &str) -> Result<PathBuf, Error> {
    let group = hierarchy.join(of_node(node).trim_start_matches('/'));
    journal.intend(&Made::Cgroup(group.clone()))?;
    fs::create_dir_all(&group).doing(|| format!("making {}", group.display()))?;
    Ok(group)
}
