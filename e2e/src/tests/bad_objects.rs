//! Wrong KVClusters: each file of the operator's collections is refused by the API server with the sentence that
//! its first line expects. A wrong object never reaches the operator.

use std::fs;
use std::path::{Path, PathBuf};

use super::{World, namespace};
use crate::error::{Doing, Error, ensure};
use crate::kubectl::Kubectl;
use crate::product::checkout;

const NAMESPACE: &str = "e2e-bad-objects";

/// How many wrong objects there must be: a collection that got lost must not pass.
const OBJECTS_MIN: usize = 25;

/// How many wrong changes there must be.
const UPDATES_MIN: usize = 5;

/// The object that every file of wrong changes is a change of.
const BASE: &str = "base.yaml";

pub(super) fn run(world: &World) -> Result<(), Error> {
    let kubectl = world.kubectl();
    namespace::make(&kubectl, NAMESPACE)?;
    let objects = collection("bad-objects", OBJECTS_MIN)?;
    let failures = objects.iter().map(|path| refused(&kubectl, path, &["create", "--dry-run=server"]));
    report(failures)?;
    let updates = collection("bad-updates", UPDATES_MIN)?;
    let base = checkout().join("operator/tests/bad-updates").join(BASE);
    kubectl.run(&[
        "--namespace",
        NAMESPACE,
        "apply",
        "--server-side",
        "--filename",
        &base.display().to_string(),
    ])?;
    let apply = ["apply", "--server-side", "--force-conflicts"];
    report(updates.iter().map(|path| refused(&kubectl, path, &apply)))?;
    world.progress.step(&format!(
        "{} wrong objects and {} wrong changes refused",
        objects.len(),
        updates.len()
    ));
    namespace::remove(&kubectl, NAMESPACE)
}

/// The files of a collection, without the one that is right.
fn collection(name: &str, at_least: usize) -> Result<Vec<PathBuf>, Error> {
    let folder = checkout().join("operator/tests").join(name);
    let doing = || format!("reading {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).doing(doing)? {
        files.push(entry.doing(doing)?.path());
    }
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml") && !path.ends_with(BASE));
    files.sort();
    ensure(files.len() >= at_least, || format!("{} holds {} files only", folder.display(), files.len()))?;
    Ok(files)
}

/// The API server refuses the file's object, and says what the file expects.
fn refused(kubectl: &Kubectl, path: &Path, how: &[&str]) -> Result<(), Error> {
    let text = fs::read_to_string(path).doing(|| format!("reading {}", path.display()))?;
    let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
    let expected =
        expected.ok_or_else(|| Error::Unexpected(format!("{} expects nothing", path.display())))?;
    let file = path.display().to_string();
    let arguments: Vec<&str> =
        how.iter().copied().chain(["--namespace", NAMESPACE, "--filename", &file]).collect();
    match kubectl.run(&arguments) {
        Ok(_) => {
            Err(Error::Unexpected(format!("{file} was accepted, and should have been refused: {expected}")))
        }
        Err(Error::Command { output, .. }) => ensure(plain(&output).contains(&plain(expected)), || {
            format!("{file} should have been refused with {expected:?}, and was refused with: {output}")
        }),
        Err(other) => Err(other),
    }
}

/// kubectl breaks long messages, and indents what follows.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All failures at once: they are usually of one kind.
fn report(results: impl Iterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let failures: Vec<String> = results.filter_map(Result::err).map(|error| error.to_string()).collect();
    ensure(failures.is_empty(), || failures.join("\n  "))
}
