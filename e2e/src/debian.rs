//! Packages of the Debian that this machine runs.
//!
//! Programs whose package would start a service are unpacked into the cache; only the others are installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error};
use crate::progress::Progress;
use crate::run::{run, succeeds};

/// Programs that must be on the machine, and the packages that bring them. None starts a service.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("tar", "tar"),
    ("modprobe", "kmod"),
    ("update-ca-certificates", "ca-certificates"),
    // Static programs: without the second, the first links nothing.
    ("cc", "gcc"),
    ("cc", "libc6-dev"),
    // Not the cluster's: `up` ends by telling a person to use it.
    ("curl", "curl"),
];

/// Packages that are unpacked only.
const UNPACKED: &[&str] = &["containerd", "runc", "containernetworking-plugins", "busybox-static"];

/// Whether this machine runs Debian or something made from it.
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && succeeds(Command::new("apt-get").arg("--version"))
}

/// Installs what a cluster needs and the machine has not.
///
/// # Errors
/// When a package cannot be installed.
pub fn install_programs(progress: &Progress) -> Result<(), Error> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing, progress) }
}

/// Installs packages, without what they only recommend.
///
/// # Errors
/// When a package cannot be installed.
pub fn install(packages: &[&str], progress: &Progress) -> Result<(), Error> {
    progress.step(&format!("installing Debian packages: {}", packages.join(" ")));
    with_fresh_lists(|| {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
        run(command.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
    })
}

/// Fetches the packages that are not installed and unpacks them into `folder`.
///
/// # Errors
/// When a package cannot be fetched or unpacked.
pub fn unpack(folder: &Path, progress: &Progress) -> Result<(), Error> {
    progress.step(&format!("fetching Debian packages, not installed: {}", UNPACKED.join(" ")));
    let packages = folder.join("packages");
    fs::create_dir(&packages).doing(|| format!("making {}", packages.display()))?;
    with_fresh_lists(|| {
        let mut command = Command::new("apt-get");
        // The user that apt would fetch as cannot write to a folder of root.
        command.args(["download", "--quiet", "-o", "APT::Sandbox::User=root"]).args(UNPACKED);
        run(command.current_dir(&packages)).map(drop)
    })?;
    let doing = || format!("reading {}", packages.display());
    for package in fs::read_dir(&packages).doing(doing)? {
        run(Command::new("dpkg").arg("-x").arg(package.doing(doing)?.path()).arg(folder))?;
    }
    fs::remove_dir_all(&packages).doing(|| format!("removing {}", packages.display()))
}

/// A fresh machine has no list of packages, and an old list names files that are gone: try, refresh, try again.
fn with_fresh_lists(fetch: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
    fetch().or_else(|_| {
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        fetch()
    })
}

/// Whether a program of this name would be found. Not every shell of root has the sbin folders in its path.
pub(crate) fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}
