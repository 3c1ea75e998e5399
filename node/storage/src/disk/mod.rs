//! The disk, as the log sees it: a flat directory of files.
//!
//! Contract: what [`File::sync`] returned `Ok` for survives a crash, and so does the name of a file after
//! [`Disk::sync_directory`]; nothing else is promised. The log never relies on more.

mod local;
pub mod simulated;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use local::StdDisk;

/// Holds a directory against a second opener until it is dropped.
pub type DirectoryLock = Box<dyn Any + Send>;

/// One directory.
pub trait Disk: Send + Sync + 'static {
    /// Takes the directory. An error of kind [`io::ErrorKind::WouldBlock`] means that somebody has it.
    fn lock(&self) -> io::Result<DirectoryLock>;

    /// The names of the files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a new, empty file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Renames a file, atomically, over one that is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name; who has the file open can go on reading.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// A folder within, as a disk of its own; it is made if it is not there.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>>;

    /// Gives a file a second name: the same, in a folder within.
    fn link(&self, name: &str, folder: &str) -> io::Result<()>;

    /// Makes the creations, renames and removals until now durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// How many more bytes this process could write.
    fn free_bytes(&self) -> io::Result<u64>;

    /// A number that nobody can guess.
    fn random(&self) -> u64;

    /// The time since some moment; it never runs backwards.
    fn now(&self) -> Duration;
}

/// One open file. Reads and writes may run side by side.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// How many names it has; more than one when a folder within has it too, by [`Disk::link`].
    fn links(&self) -> io::Result<u64>;

    /// Fills the buffer from an offset; a file that ends before is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// As [`File::read_at`], or an error of kind [`io::ErrorKind::WouldBlock`] when that would wait for the disk.
    fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buffer)
    }

    /// Writes it all.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file this long; what is new reads as zero and has its space reserved.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file this short, and gives the space back.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Makes every write until now durable, and the length. After an error nothing is known of what was written
    /// since the last success, and a second call proves nothing: operating systems forget.
    fn sync(&self) -> io::Result<()>;
}
