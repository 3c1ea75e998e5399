//! A disk in memory that loses power, fills up, fails and rots on command, the same way for the same seed.
//!
//! It keeps the contract of [`Disk`] and not a bit more. When the power goes, of what was not synced each sector is
//! either new or old, by the dice; names change in order, but how far is up to the dice too; and what a failed sync
//! should have written is forgotten as real operating systems forget it: readable until the power goes, and not
//! written by a later sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{DirectoryLock, Disk, File};
use crate::sync::lock;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk in memory, and the levers that make it fail. A clone is another handle of the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Whether syncs wait.
    syncs_held: Mutex<bool>,
    released: Condvar,
}

struct State {
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Changes of names since the directory was synced.
    unsynced_names: Vec<NameChange>,
    capacity_bytes: u64,
    /// Counts the processes that had the disk; what an earlier one opened is dead.
    process: u64,
    /// The folders that somebody has; the empty name is the disk itself.
    locked: BTreeSet<String>,
    powered: bool,
    /// The power goes at the operation that finds this at zero.
    operations_left: Option<u64>,
    failing_syncs: u32,
    failing_writes: u32,
    failing_reads: u32,
    /// Everything that would change something fails.
    read_only: bool,
    now: Duration,
    dice: u64,
}

/// What is durable on a disk at one moment: what a backup of it would hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Backup(BTreeMap<String, Vec<u8>>);

/// One change of the directory, done or not.
#[derive(Clone, Default)]
struct NameChange {
    remove: Option<String>,
    put: Option<(String, Arc<Mutex<Content>>)>,
}

/// A file.
#[derive(Default)]
struct Content {
    /// As the operating system shows it.
    bytes: Vec<u8>,
    /// As it is on the platters.
    durable: Vec<u8>,
    /// Sectors that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Sectors that a failed sync should have written.
    forgotten: BTreeSet<usize>,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64, capacity_bytes: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            capacity_bytes,
            process: 0,
            locked: BTreeSet::new(),
            powered: true,
            operations_left: None,
            failing_syncs: 0,
            failing_writes: 0,
            failing_reads: 0,
            read_only: false,
            now: Duration::ZERO,
            dice: seed,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            syncs_held: Mutex::new(false),
            released: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// The disk as the process that runs now sees it, until that dies.
    pub fn attach(&self) -> Arc<dyn Disk> {
        Arc::new(self.attached(String::new()))
    }

    /// A folder of it, as a disk of its own.
    pub fn attach_folder(&self, name: &str) -> Arc<dyn Disk> {
        Arc::new(self.attached(format!("{name}/")))
    }

    fn attached(&self, folder: String) -> Attached {
        Attached { disk: self.clone(), process: self.state().process, folder }
    }

    /// The power goes at the operation after so many; [`SimulatedDisk::restart`] brings it back.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// The machine starts again after a power cut: what was not synced is lost, by the dice. Whoever was attached
    /// before gets nothing but errors.
    pub fn restart(&self) {
        let state = &mut *self.state();
        state.end_process();
        (state.powered, state.operations_left) = (true, None);
        let kept = state.roll() as usize % (state.unsynced_names.len() + 1);
        for change in state.unsynced_names.drain(..).take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let files: Vec<_> = state.names.values().cloned().collect();
        for file in files {
            lock(&file).lose(|| state.roll());
        }
    }

    /// The power goes now and comes back; what is lost is up to these dice.
    pub fn crash(&self, dice: u64) {
        self.state().dice = dice;
        self.restart();
    }

    /// A copy of what is durable.
    pub fn backup(&self) -> Backup {
        let state = self.state();
        let durable = |file: &Arc<Mutex<Content>>| lock(file).durable.clone();
        Backup(state.durable_names.iter().map(|(name, file)| (name.clone(), durable(file))).collect())
    }

    /// The disk becomes the copy; what was on it is gone, and whoever was attached gets nothing but errors.
    pub fn restore(&self, backup: &Backup) {
        let file = |bytes: &Vec<u8>| {
            let content = Content { bytes: bytes.clone(), durable: bytes.clone(), ..Content::default() };
            Arc::new(Mutex::new(content))
        };
        let state = &mut *self.state();
        state.end_process();
        (state.powered, state.operations_left) = (true, None);
        state.unsynced_names.clear();
        state.names = backup.0.iter().map(|(name, bytes)| (name.clone(), file(bytes))).collect();
        state.durable_names = state.names.clone();
    }

    /// Says what time it is, from now on. Never an earlier one.
    pub fn set_now(&self, now: Duration) {
        let mut state = self.state();
        state.now = state.now.max(now);
    }

    /// The process dies and another takes the disk: nothing is lost, not even what was not synced.
    pub fn kill_process(&self) {
        self.state().end_process();
    }

    /// Changes how much the disk holds.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// What the files take.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// The next syncs of files fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// The next writes of files fail, halfway.
    pub fn fail_writes(&self, count: u32) {
        self.state().failing_writes = count;
    }

    /// The next reads of files fail.
    pub fn fail_reads(&self, count: u32) {
        self.state().failing_reads = count;
    }

    /// From now on, or no longer, every change fails.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// Changes a bit of a file. Says whether the file reaches that far.
    pub fn rot(&self, name: &str, offset: usize, bit: u8) -> bool {
        let Some(file) = self.state().names.get(name).cloned() else { return false };
        let content = &mut *lock(&file);
        let mask = 1 << (bit % 8);
        for bytes in [&mut content.bytes, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
        offset < content.bytes.len()
    }

    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.state().names.get(name).cloned()?;
        let bytes = lock(&file).bytes.clone();
        Some(bytes)
    }

    /// Lets every sync of a file wait until the guard is dropped.
    pub fn hold_syncs(&self) -> HeldSyncs {
        *lock(&self.0.syncs_held) = true;
        HeldSyncs(self.clone())
    }

    fn wait_while_held(&self) {
        let held = lock(&self.0.syncs_held);
        drop(self.0.released.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner));
    }
}

/// While it lives, syncs wait.
pub struct HeldSyncs(SimulatedDisk);

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        *lock(&self.0.0.syncs_held) = false;
        self.0.0.released.notify_all();
    }
}

impl State {
    /// The next number of the sequence (splitmix64, Steele et al. 2014).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn end_process(&mut self) {
        self.process += 1;
        self.locked.clear();
    }

    fn alive(&self, process: u64) -> io::Result<()> {
        let alive = self.powered && self.process == process;
        if alive { Ok(()) } else { Err(io::Error::other("the power is off")) }
    }

    /// Counts an operation that changes something.
    fn operate(&mut self, process: u64) -> io::Result<()> {
        self.alive(process)?;
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match &mut self.operations_left {
            Some(0) => self.powered = false,
            Some(left) => *left -= 1,
            None => {}
        }
        self.alive(process)
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| lock(file).bytes.len() as u64).sum()
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, Arc<Mutex<Content>>>) {
        if let Some(name) = self.remove {
            names.remove(&name);
        }
        names.extend(self.put);
    }
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.forgotten.remove(&sector);
            self.dirty.insert(sector);
        }
    }

    /// Puts one sector on the platters.
    fn persist(&mut self, sector: usize) {
        let begin = sector * SECTOR_BYTES;
        let end = (begin + SECTOR_BYTES).min(self.bytes.len());
        if begin < end {
            self.durable.resize(self.durable.len().max(end), 0);
            self.durable[begin..end].copy_from_slice(&self.bytes[begin..end]);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        while let Some(sector) = self.dirty.pop_first() {
            self.persist(sector);
        }
    }

    fn fail_to_sync(&mut self) {
        self.forgotten.append(&mut self.dirty);
    }

    /// The power went.
    fn lose(&mut self, mut roll: impl FnMut() -> u64) {
        if self.bytes.len() < self.durable.len() && roll().is_multiple_of(2) {
            self.durable.truncate(self.bytes.len());
        }
        let mut doubtful = std::mem::take(&mut self.dirty);
        doubtful.append(&mut self.forgotten);
        for sector in doubtful {
            if roll().is_multiple_of(2) {
                self.persist(sector);
            }
        }
        self.bytes.clone_from(&self.durable);
    }
}

/// A process that uses the disk.
struct Attached {
    disk: SimulatedDisk,
    process: u64,
    /// What the names of its files begin with.
    folder: String,
}

impl Attached {
    fn path(&self, name: &str) -> String {
        self.folder.clone() + name
    }

    fn file(&self, content: Arc<Mutex<Content>>) -> Arc<dyn File> {
        Arc::new(SimulatedFile { disk: self.disk.clone(), process: self.process, content })
    }

    /// The state, for an operation that changes something.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        state.operate(self.process)?;
        Ok(state)
    }

    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.alive(self.process)?;
        Ok(state)
    }
}

impl Disk for Attached {
    fn lock(&self) -> io::Result<DirectoryLock> {
        let mut state = self.look()?;
        if !state.locked.insert(self.folder.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let folder = self.folder.clone();
        Ok(Box::new(Locked { disk: self.disk.clone(), process: self.process, folder }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.look()?;
        let here = state.names.keys().filter_map(|name| name.strip_prefix(&self.folder));
        Ok(here.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let content = Arc::default();
        let put = Some((self.path(name), Arc::clone(&content)));
        self.operate()?.change_names(NameChange { remove: None, put });
        Ok(self.file(content))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let content = self.look()?.names.get(&self.path(name)).cloned();
        Ok(self.file(content.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let (from, to) = (self.path(from), self.path(to));
        let content = state.names.get(&from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.change_names(NameChange { remove: Some(from), put: Some((to, content)) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let name = self.path(name);
        if !state.names.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange { remove: Some(name), put: None });
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.operate().map(drop)?;
        let folder = self.path(name) + "/";
        Ok(Arc::new(Self { disk: self.disk.clone(), process: self.process, folder }))
    }

    fn link(&self, name: &str, folder: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let content = state.names.get(&self.path(name)).cloned().ok_or(io::ErrorKind::NotFound)?;
        let second = self.path(&format!("{folder}/{name}"));
        if state.names.contains_key(&second) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(NameChange { remove: None, put: Some((second, content)) });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.look()?.free_bytes())
    }

    fn random(&self) -> u64 {
        self.disk.state().roll()
    }

    fn now(&self) -> Duration {
        self.disk.state().now
    }
}

struct Locked {
    disk: SimulatedDisk,
    process: u64,
    folder: String,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.process == self.process {
            state.locked.remove(&self.folder);
        }
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    /// Who opened it.
    process: u64,
    content: Arc<Mutex<Content>>,
}

impl File for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        self.disk.state().alive(self.process)?;
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive(self.process)?;
        Ok(state.names.values().filter(|content| Arc::ptr_eq(content, &self.content)).count() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive(self.process)?;
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(io::Error::other("the disk does not read"));
        }
        let content = lock(&self.content);
        let bytes = content.bytes.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive(self.process)?;
        let operated = state.operate(self.process);
        if state.read_only {
            return operated;
        }
        let free_bytes = state.free_bytes();
        let mut content = lock(&self.content);
        let grows = (offset + bytes.len() as u64).saturating_sub(content.bytes.len() as u64);
        if grows > free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.failing_writes > 0 {
            state.failing_writes -= 1;
            content.write(offset as usize, &bytes[..bytes.len() / 2]);
            return Err(io::Error::other("the disk does not write"));
        }
        // When the power goes during this very write, any of its sectors may make it.
        content.write(offset as usize, bytes);
        operated
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.process)?;
        let free_bytes = state.free_bytes();
        let mut content = lock(&self.content);
        if bytes.saturating_sub(content.bytes.len() as u64) > free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = content.bytes.len().max(bytes as usize);
        content.bytes.resize(length, 0);
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().operate(self.process)?;
        lock(&self.content).bytes.truncate(bytes as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.wait_while_held();
        let mut state = self.disk.state();
        state.operate(self.process)?;
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            lock(&self.content).fail_to_sync();
            return Err(io::Error::other("the disk does not sync"));
        }
        lock(&self.content).sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_file() -> (SimulatedDisk, Arc<dyn File>) {
        let disk = SimulatedDisk::new(1, 1 << 20);
        let file = disk.attach().create("a").unwrap();
        disk.attach().sync_directory().unwrap();
        (disk, file)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_is_up_to_the_dice() {
        let (disk, file) = disk_with_file();
        file.write_at(0, &[1; 4096]).unwrap();
        file.sync().unwrap();
        file.write_at(0, &[2; 4096]).unwrap();
        disk.attach().create("b").unwrap();
        disk.restart();
        let bytes = disk.bytes("a").unwrap();
        let sectors: Vec<_> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(sectors.contains(&1) && sectors.contains(&2), "{sectors:?}");
        assert!(bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|&byte| byte == sector[0])));
    }

    #[test]
    fn a_failed_sync_forgets_and_a_later_one_proves_nothing() {
        let lost = |seed| {
            let disk = SimulatedDisk::new(seed, 1 << 20);
            let file = disk.attach().create("a").unwrap();
            disk.attach().sync_directory().unwrap();
            file.write_at(0, &[1; 8]).unwrap();
            disk.fail_syncs(1);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            assert_eq!(disk.bytes("a").unwrap(), [1; 8]);
            disk.restart();
            disk.bytes("a").unwrap() != [1; 8]
        };
        assert!((0..10).any(lost));
    }

    #[test]
    fn a_dead_process_can_do_nothing() {
        let (disk, file) = disk_with_file();
        disk.kill_process();
        assert!(file.write_at(0, &[1]).is_err() && file.sync().is_err() && file.length().is_err());
        assert_eq!(disk.bytes("a").unwrap(), []);
    }

    #[test]
    fn the_power_goes_at_the_chosen_operation() {
        let (disk, file) = disk_with_file();
        disk.cut_power_after(1);
        file.write_at(0, &[1]).unwrap();
        assert!(disk.is_powered());
        assert!(file.sync().is_err());
        assert!(!disk.is_powered());
    }

    #[test]
    fn a_backup_is_what_is_durable_and_comes_back_whole() {
        let (disk, file) = disk_with_file();
        file.write_at(0, b"old").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"new").unwrap();
        disk.attach().create("b").unwrap();
        let backup = disk.backup();
        file.sync().unwrap();
        disk.restore(&backup);
        assert_eq!((disk.bytes("a").unwrap(), disk.bytes("b")), (b"old".to_vec(), None));
        assert_eq!(disk.backup(), backup);
        assert!(file.write_at(0, &[1]).is_err(), "opened before");
    }

    #[test]
    fn a_disk_that_cannot_be_written_can_be_read() {
        let (disk, file) = disk_with_file();
        file.write_at(0, b"old").unwrap();
        disk.set_read_only(true);
        assert!(
            file.write_at(0, b"new").is_err() && file.sync().is_err() && disk.attach().create("b").is_err()
        );
        let mut bytes = [0; 3];
        disk.fail_reads(1);
        assert!(file.read_at(0, &mut bytes).is_err());
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"old");
    }

    #[test]
    fn the_same_dice_lose_the_same() {
        let left = |dice| {
            let (disk, file) = disk_with_file();
            file.write_at(0, &[1; 4096]).unwrap();
            file.sync().unwrap();
            file.write_at(0, &[2; 4096]).unwrap();
            disk.crash(dice);
            disk.bytes("a").unwrap()
        };
        assert_eq!(left(7), left(7));
        assert!((0..10).any(|dice| left(dice) != left(7)));
    }

    #[test]
    fn it_fills_up() {
        let (disk, file) = disk_with_file();
        disk.set_capacity_bytes(100);
        assert_eq!(file.write_at(0, &[1; 101]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.allocate(100).unwrap();
        assert_eq!(disk.attach().free_bytes().unwrap(), 0);
        file.write_at(0, &[1; 100]).unwrap();
    }
}
