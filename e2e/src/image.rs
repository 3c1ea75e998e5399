//! Container images without a registry: one program in an archive of the OCI image layout.
//!
//! The same program gives the same bytes, so that an image is known by its content.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Doing, Error};
use crate::run::run;

/// The user that an image's program runs as where nothing else is said: nobody in particular, and not root.
const USER: &str = "65532:65532";

/// Every date in an image: the contents must not depend on when it was made.
const DATE: &str = "1970-01-01T00:00:00Z";

/// An image to be made.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its full name and tag.
    pub name: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Where the program is in the image.
    pub path: &'a str,
    /// What it is linked with, which is put where it is on this machine; nothing for a static program.
    pub libraries: &'a [PathBuf],
    /// Other names of the program in the image, as links.
    pub links: &'a [&'a str],
    /// What runs when a pod names no command.
    pub entrypoint: &'a [&'a str],
    /// Its arguments when a pod names none.
    pub arguments: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the image's archive to `archive`, using `folder` for the parts.
    ///
    /// # Errors
    /// When a file operation fails.
    pub fn write(&self, folder: &Path, archive: &Path) -> Result<(), Error> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).doing(|| format!("making {}", blobs.display()))?;
        let layer = store_file(&blobs, &self.layer(folder)?)?;
        let config = store(&blobs, &self.config(&layer))?;
        let manifest = store(&blobs, &manifest(&config, &layer))?;
        write(&folder.join("index.json"), &self.index(&manifest).to_string())?;
        write(&folder.join("oci-layout"), &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        tar(folder, archive, &["oci-layout", "index.json", "blobs"])
    }

    /// The one layer: the program, its links, and a folder for temporary files.
    fn layer(&self, folder: &Path) -> Result<PathBuf, Error> {
        let root = folder.join("root");
        let program = inside(&root, self.path);
        for made in [program.parent(), Some(&root.join("tmp"))].into_iter().flatten() {
            fs::create_dir_all(made).doing(|| format!("making {}", made.display()))?;
        }
        set_mode(&root.join("tmp"), 0o1777)?;
        fs::copy(self.program, &program).doing(|| format!("copying {}", self.program.display()))?;
        set_mode(&program, 0o755)?;
        for library in self.libraries {
            let place = inside(&root, &library.display().to_string());
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).doing(|| format!("making {}", parent.display()))?;
            }
            fs::copy(library, &place).doing(|| format!("copying {}", library.display()))?;
        }
        for link in self.links {
            let place = inside(&root, link);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).doing(|| format!("making {}", parent.display()))?;
            }
            std::os::unix::fs::symlink(self.path, &place).doing(|| format!("linking {link}"))?;
        }
        let layer = folder.join("layer.tar");
        tar(&root, &layer, &["."])?;
        fs::remove_dir_all(&root).doing(|| format!("removing {}", root.display()))?;
        Ok(layer)
    }

    fn config(&self, layer: &Blob) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": DATE,
            "config": {
                "User": USER,
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "Env": ["PATH=/bin:/usr/bin:/usr/local/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            "history": [{"created": DATE, "created_by": "quorate-e2e"}],
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut entry = manifest.describe("application/vnd.oci.image.manifest.v1+json");
        entry["annotations"] = json!({"io.containerd.image.name": full_name(self.name)});
        json!({"schemaVersion": 2, "manifests": [entry]})
    }
}

/// The name by which a kubelet asks for an image: a short one belongs to the default registry.
pub fn full_name(name: &str) -> String {
    let first = name.split('/').next().unwrap_or_default();
    let has_host = name.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    match (has_host, name.contains('/')) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    }
}

fn manifest(config: &Blob, layer: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.describe("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.describe("application/vnd.oci.image.layer.v1.tar")],
    })
}

/// A part of an image, named by its content.
struct Blob {
    digest: String,
    size: usize,
}

impl Blob {
    fn describe(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

fn store(blobs: &Path, document: &Value) -> Result<Blob, Error> {
    store_bytes(blobs, document.to_string().as_bytes())
}

fn store_file(blobs: &Path, file: &Path) -> Result<Blob, Error> {
    let bytes = fs::read(file).doing(|| format!("reading {}", file.display()))?;
    fs::remove_file(file).doing(|| format!("removing {}", file.display()))?;
    store_bytes(blobs, &bytes)
}

fn store_bytes(blobs: &Path, bytes: &[u8]) -> Result<Blob, Error> {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(blobs.join(&hash), bytes).doing(|| format!("writing blob {hash}"))?;
    Ok(Blob { digest: format!("sha256:{hash}"), size: bytes.len() })
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .doing(|| format!("opening up {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

fn tar(folder: &Path, archive: &Path, members: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    run(command.arg("-C").arg(folder).arg("-cf").arg(archive).args(members)).map(drop)
}

/// The machine's architecture as images spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(folder: &Path, number: u8) -> Vec<u8> {
        let program = folder.join("program");
        fs::write(&program, "#!").unwrap();
        let image = Image {
            name: "a/b:c",
            program: &program,
            path: "/bin/p",
            libraries: &[],
            links: &["/bin/q"],
            entrypoint: &["/bin/p"],
            arguments: &[],
        };
        let (parts, file) = (folder.join(format!("parts{number}")), folder.join(format!("{number}.tar")));
        image.write(&parts, &file).unwrap();
        fs::read(file).unwrap()
    }

    #[test]
    fn the_same_program_gives_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(archive(folder.path(), 1), archive(folder.path(), 2));
    }

    #[test]
    fn short_names_belong_to_the_default_registry() {
        assert_eq!(full_name("quorate/node:dev"), "docker.io/quorate/node:dev");
        assert_eq!(full_name("busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(full_name("localhost/a:b"), "localhost/a:b");
        assert_eq!(full_name("quorate.dev/pause:1"), "quorate.dev/pause:1");
    }
}
