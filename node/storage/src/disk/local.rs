//! A directory of the operating system.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{DirectoryLock, Disk, File};

const LOCK_NAME: &str = "lock";
/// How much is written at once where space cannot be reserved otherwise.
const ZEROS_BYTES: usize = 256 * 1024;

/// A directory of the operating system, of which nobody else writes the files.
pub struct StdDisk {
    path: PathBuf,
    directory: fs::File,
    opened: Instant,
}

impl StdDisk {
    /// Opens a directory, or makes it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.to_owned(), directory: fs::File::open(path)?, opened: Instant::now() })
    }

    fn file(&self, name: &str, options: &fs::OpenOptions) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(StdFile(options.open(self.path.join(name))?)))
    }
}

impl Disk for StdDisk {
    fn lock(&self) -> io::Result<DirectoryLock> {
        let path = self.path.join(LOCK_NAME);
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, fs::OpenOptions::new().read(true).write(true).create(true).truncate(true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, fs::OpenOptions::new().read(true).write(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        // Each level, so that the name of each is durable.
        let mut path = self.path.clone();
        for part in Path::new(name) {
            path.push(part);
            Self::open(&path)?;
        }
        Ok(Arc::new(Self::open(&path)?))
    }

    fn link(&self, name: &str, folder: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(name), self.path.join(folder).join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }
}

struct StdFile(fs::File);

impl File for StdFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = buffer.len();
        match preadv2(&self.0, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == length => Ok(()),
            // A part is in memory: the rest is on the disk, or behind the end of the file, which a read will tell.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            // The file system cannot tell what is in memory.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.read_at(offset, buffer),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(bytes),
            result => Ok(result?),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl StdFile {
    /// For file systems that cannot reserve space otherwise.
    fn write_zeros(&self, bytes: u64) -> io::Result<()> {
        let mut at = self.length()?;
        while at < bytes {
            let part = (bytes - at).min(ZEROS_BYTES as u64);
            self.0.write_all_at(&vec![0; part as usize], at)?;
            at += part;
        }
        Ok(())
    }
}
