//! A disk of which some reads have to wait: what is in no cache.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_storage::disk::{DirectoryLock, Disk, File};

use crate::dice::Dice;

/// Says of each read whether it has to wait.
#[derive(Clone)]
struct Coldness {
    dice: Arc<Mutex<Dice>>,
    per_mille: u64,
}

impl Coldness {
    fn waits(&self) -> bool {
        self.per_mille > 0 && self.dice.lock().unwrap_or_else(PoisonError::into_inner).chance(self.per_mille)
    }
}

struct ColdDisk {
    disk: Arc<dyn Disk>,
    coldness: Coldness,
}

struct ColdFile {
    file: Arc<dyn File>,
    coldness: Coldness,
}

/// The disk, with so many of a thousand reads that cannot be had without waiting.
pub(crate) fn cold(disk: Arc<dyn Disk>, dice: Dice, per_mille: u64) -> Arc<dyn Disk> {
    let coldness = Coldness { dice: Arc::new(Mutex::new(dice)), per_mille };
    Arc::new(ColdDisk { disk, coldness })
}

impl ColdDisk {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(ColdFile { file, coldness: self.coldness.clone() })
    }
}

impl Disk for ColdDisk {
    fn lock(&self) -> io::Result<DirectoryLock> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let disk = self.disk.folder(name)?;
        Ok(Arc::new(ColdDisk { disk, coldness: self.coldness.clone() }))
    }

    fn link(&self, name: &str, folder: &str) -> io::Result<()> {
        self.disk.link(name, folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }

    fn now(&self) -> Duration {
        self.disk.now()
    }
}

impl File for ColdFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.coldness.waits() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
