//! What the disk itself can do: for each group one write of as many bytes and one sync, over a file that was written over
//! before, and nothing else: no key is read, found or kept. No engine that syncs every group can be faster.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::measure::Engine;
use crate::work::{RECORD_BYTES, event};

const FILE_BYTES: usize = 32 << 20;

pub(crate) struct DiskEngine {
    file: File,
    /// Where the next group goes.
    at: Mutex<usize>,
}

impl DiskEngine {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let file = File::create_new(directory.join("groups"))?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: Mutex::default() })
    }
}

impl Engine for DiskEngine {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn fill(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn write(&self, numbers: &[u64]) -> Result<()> {
        let mut group = Vec::with_capacity(numbers.len() * RECORD_BYTES);
        for &number in numbers {
            group.extend(event(number).value.into_iter().flatten());
        }
        group.resize(numbers.len() * RECORD_BYTES, 1);
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if *at + group.len() > FILE_BYTES {
            *at = 0;
        }
        self.file.write_all_at(&group, *at as u64)?;
        *at += group.len();
        Ok(self.file.sync_data()?)
    }

    fn read(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn notes(&self) -> String {
        "one write and one sync a group, and nothing else".into()
    }
}
