//! What is expensive to make and the same for every cluster, kept by name outside of the checkout.
//!
//! Invariant: an entry is there whole or not at all; it is made beside its place and moved there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Doing, Error};
use crate::layout::home_folder;

/// Bytes of a hash that go into a name: enough that two entries never meet.
const NAME_HASH_BYTES: usize = 6;

/// The folder of all entries.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// This user's cache.
    ///
    /// # Errors
    /// When neither `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn of_user() -> Result<Self, Error> {
        Ok(Self::new(home_folder("XDG_CACHE_HOME", ".cache")?.join("quorate")))
    }

    /// The folder called `name`, filled by `make` when it is not there yet. Who comes second waits for the first.
    ///
    /// # Errors
    /// When a file operation fails, or `make` does.
    pub fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let (folder, draft) = (self.root.join(name), self.root.join(format!("{name}.draft")));
        if folder.exists() {
            return Ok(folder);
        }
        let _lock = self.lock(name)?;
        if folder.exists() {
            return Ok(folder);
        }
        if draft.exists() {
            fs::remove_dir_all(&draft).doing(|| format!("clearing {}", draft.display()))?;
        }
        fs::create_dir(&draft).doing(|| format!("making {}", draft.display()))?;
        make(&draft)?;
        fs::rename(&draft, &folder).doing(|| format!("moving {} to its place", draft.display()))?;
        Ok(folder)
    }

    /// Waits for its turn to work on what is called `name`, until the file is dropped.
    ///
    /// The kernel lets go of the lock when the file is closed, however its holder ends.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn lock(&self, name: &str) -> Result<File, Error> {
        fs::create_dir_all(&self.root).doing(|| format!("making {}", self.root.display()))?;
        let path = self.root.join(format!("{name}.lock"));
        let doing = || format!("locking {}", path.display());
        let file = File::create(&path).doing(doing)?;
        file.lock().doing(doing)?;
        Ok(file)
    }
}

/// A short name for some content.
pub(crate) fn short_hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(NAME_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let made = cache.entry("a", |folder| fs::write(folder.join("x"), "1").doing(String::new)).unwrap();
        let again = cache.entry("a", |_| panic!("made twice")).unwrap();
        assert_eq!(made, again);
        assert_eq!(fs::read_to_string(again.join("x")).unwrap(), "1");
    }

    #[test]
    fn a_failure_leaves_no_entry() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let failure = || Error::Unsupported("no".to_owned());
        cache.entry("a", |_| Err(failure())).unwrap_err();
        cache.entry("a", |_| Ok(())).unwrap();
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(short_hash(&[b"ab", b"c"]), short_hash(&[b"a", b"bc"]));
    }
}
