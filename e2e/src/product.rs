//! Quorate on a cluster: its images out of this checkout, the chart, and the quickstart's KVCluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cache::short_hash;
use crate::error::{Doing, Error};
use crate::helm::{Helm, Release};
use crate::image::Image;
use crate::kubectl::Kubectl;
use crate::progress::Progress;
use crate::run::{call, run, wait_until};
use crate::target::Target;

/// The release and the namespace of the operator.
pub const RELEASE: &str = "quorate";

/// The namespace of the operator.
pub const NAMESPACE: &str = "quorate-system";

/// How long a KVCluster may take from its creation until it is ready.
pub const READY_SECONDS_MAX: Duration = Duration::from_secs(300);

/// The programs that get an image: the crate, and the chart's values that name the image.
const PROGRAMS: &[(&str, &str)] = &[("quorate-node", "nodeImage"), ("quorate-operator", "image")];

/// The checkout that this program was built from.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// An image that is made, as an archive.
#[derive(Debug)]
pub struct Built {
    /// Its name and tag.
    pub name: String,
    /// The key of the chart's values that takes the tag.
    values_key: &'static str,
    /// The tag: changed code gets another one, so that Kubernetes rolls it out.
    tag: String,
    /// The archive.
    pub archive: PathBuf,
}

/// Makes images of the programs that were built with this one, and stand beside it.
///
/// # Errors
/// When one is not there, or no image can be made of it.
pub fn images() -> Result<Vec<Built>, Error> {
    let us = std::env::current_exe().doing(|| "looking where this program is".to_owned())?;
    let folder = us.parent().unwrap_or(Path::new("."));
    PROGRAMS.iter().map(|(program, values_key)| image(folder, program, values_key)).collect()
}

fn image(folder: &Path, program: &str, values_key: &'static str) -> Result<Built, Error> {
    let path = folder.join(program);
    if !path.exists() {
        let path = path.display();
        return Err(Error::Unsupported(format!(
            "{path} is not built: use `cargo xtask`, which builds it first"
        )));
    }
    let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
    let tag = format!("dev-{}", short_hash(&[&bytes]));
    let name = format!("{}:{tag}", program.replacen('-', "/", 1));
    let images = folder.join("images").join(program);
    let archive = images.join(format!("{tag}.tar"));
    if !archive.exists() {
        // Older ones are of no use any more.
        if images.exists() {
            fs::remove_dir_all(&images).doing(|| format!("clearing {}", images.display()))?;
        }
        let (draft, small) = (images.join("draft.tar"), images.join(program));
        fs::create_dir_all(&images).doing(|| format!("making {}", images.display()))?;
        // What is for debuggers is most of it.
        run(Command::new("strip").arg("-o").args([&small, &path]))?;
        let in_image = format!("/{program}");
        let image = Image {
            name: &name,
            program: &small,
            path: &in_image,
            libraries: &libraries(&small)?,
            links: &[],
            entrypoint: &[&in_image],
            arguments: &["run"],
        };
        image.write(&images.join("parts"), &draft)?;
        fs::remove_file(&small).doing(|| format!("removing {}", small.display()))?;
        fs::remove_dir_all(images.join("parts")).doing(|| "clearing the parts of an image".to_owned())?;
        fs::rename(&draft, &archive).doing(|| format!("moving {} to its place", archive.display()))?;
    }
    Ok(Built { name, values_key, tag, archive })
}

/// The libraries that a program is linked with, the loader among them, and those by which the C library finds the addresses of
/// names, which an old one only loads when it is asked.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let linked = call("ldd", &[&program.display().to_string()])?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    let mut libraries: Vec<PathBuf> = linked.lines().filter_map(path).collect();
    let folder = libraries.iter().find(|path| path.ends_with("libc.so.6")).and_then(|path| path.parent());
    let more = folder.into_iter().flat_map(|folder| {
        ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"].map(|name| folder.join(name))
    });
    let more: Vec<PathBuf> = more.filter(|path| path.exists() && !libraries.contains(path)).collect();
    libraries.extend(more);
    Ok(libraries)
}

/// Installs the chart, or upgrades it when chart or images changed.
///
/// # Errors
/// When it does not become ready.
pub fn install(target: &Target, progress: &Progress) -> Result<(), Error> {
    install_with(&target.helm(progress)?, target, &[], progress)
}

/// The same with a certain Helm and values of one's own, as `key=value`.
///
/// # Errors
/// When it does not become ready.
pub fn install_with(helm: &Helm, target: &Target, values: &[&str], progress: &Progress) -> Result<(), Error> {
    let built = if target.takes_images() { images()? } else { Vec::new() };
    let tags = built.iter().map(|image| format!("{}.tag={}", image.values_key, image.tag));
    let values: Vec<String> = tags.chain(values.iter().map(|&value| value.to_owned())).collect();
    let chart = checkout().join("charts/quorate");
    let fingerprint = fingerprint(&chart, &values)?;
    let release = Release {
        name: RELEASE,
        namespace: NAMESPACE,
        chart: &chart,
        values: &values,
        fingerprint: &fingerprint,
    };
    if helm.has(&release) {
        return Ok(());
    }
    if built.is_empty() {
        progress.step("this cluster takes images from a registry: what is installed stays, or the chart's own images are used");
        if helm.has_any(&release) {
            return Ok(());
        }
    }
    install_release(target, &built, helm, &release, progress)
}

fn install_release(
    target: &Target,
    built: &[Built],
    helm: &Helm,
    release: &Release<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    for image in built {
        progress.step(&format!("giving {} to every node", image.name));
        target.import(&image.archive)?;
    }
    make_namespace(&target.kubectl(), NAMESPACE)?;
    progress.step("installing the chart with helm");
    helm.install(release)
}

/// A namespace in which Kubernetes refuses every pod that is not as restricted as can be.
///
/// # Errors
/// When the API server refuses it.
pub fn make_namespace(kubectl: &Kubectl, name: &str) -> Result<(), Error> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    kubectl.apply(&namespace.to_string()).map(drop)
}

/// The same for the same chart and values.
fn fingerprint(chart: &Path, values: &[String]) -> Result<String, Error> {
    let listing = run(Command::new("find").arg(chart).args(["-type", "f"]))?;
    let mut files: Vec<&str> = listing.lines().collect();
    files.sort_unstable();
    let mut parts: Vec<Vec<u8>> = values.iter().map(|value| value.clone().into_bytes()).collect();
    for file in files {
        parts.push(file.as_bytes().to_vec());
        parts.push(fs::read(file).doing(|| format!("reading {file}"))?);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(format!("content {}", short_hash(&parts)))
}

/// Waits until a KVCluster is ready, saying each change of what it reports.
///
/// # Errors
/// When it is not ready in time.
pub fn wait_ready(kubectl: &Kubectl, namespace: &str, name: &str, progress: &Progress) -> Result<(), Error> {
    let mut last = String::new();
    let object = format!("kvcluster/{name}");
    let hint = format!("see kubectl --namespace {namespace} describe {object}");
    wait_until(&format!("{object} to be ready"), READY_SECONDS_MAX, &hint, || {
        let cluster = kubectl.get(&["--namespace", namespace, &object])?;
        let now = describe(&cluster);
        if now != last {
            progress.step(&format!("{object}: {now}"));
            last = now;
        }
        Ok(is_ready(&cluster))
    })
}

/// Whether a KVCluster says that it is ready, and says so about its present spec.
pub fn is_ready(cluster: &Value) -> bool {
    let current = cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"];
    current && condition(cluster, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What a KVCluster reports, in a line.
fn describe(cluster: &Value) -> String {
    let status = &cluster["status"];
    let phase = status["phase"].as_str().unwrap_or("seen by nobody yet");
    let nodes =
        format!("{} of {} nodes ready", status["readyNodes"].as_u64().unwrap_or(0), cluster["spec"]["nodes"]);
    let message = condition(cluster, "Ready").and_then(|ready| ready["message"].as_str()).unwrap_or("");
    [phase, &nodes, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_about_the_present_spec() {
        let cluster = |generation: u64| {
            json!({
                "metadata": {"generation": generation},
                "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
            })
        };
        assert!(is_ready(&cluster(1)));
        assert!(!is_ready(&cluster(2)));
    }

    #[test]
    fn a_fingerprint_knows_values_and_files() {
        let chart = tempfile::tempdir().unwrap();
        fs::write(chart.path().join("a"), "1").unwrap();
        let before = fingerprint(chart.path(), &[]).unwrap();
        assert_eq!(before, fingerprint(chart.path(), &[]).unwrap());
        assert_ne!(before, fingerprint(chart.path(), &["a=b".to_owned()]).unwrap());
        fs::write(chart.path().join("a"), "2").unwrap();
        assert_ne!(before, fingerprint(chart.path(), &[]).unwrap());
    }
}
