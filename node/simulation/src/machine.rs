//! One machine: a disk, a clock, and while it runs a process on them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::transition;
use quorate_replica::{Completion, KnownStart, Replica, SlowRead, Storage};
use quorate_storage::disk::simulated::{Backup, SimulatedDisk};
use quorate_storage::{Access, Engine};

use crate::check::outdated::Held;
use crate::clock::Clock;
use crate::watch::{Lost, Seen};
use crate::world::Input;

/// The small documents of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) node: NodeId,
    /// The last start.
    pub(crate) start: u64,
    pub(crate) ring: Option<transition::Remembered>,
    pub(crate) starts: BTreeMap<NodeId, KnownStart>,
}

impl Documents {
    pub(crate) fn empty(node: NodeId) -> Self {
        Self { node, start: 0, ring: None, starts: BTreeMap::new() }
    }
}

/// A copy of a disk.
#[derive(Clone)]
pub(crate) struct Copied {
    pub(crate) disk: Backup,
    pub(crate) documents: Documents,
}

pub(crate) struct Machine {
    pub(crate) disk: SimulatedDisk,
    pub(crate) documents: Documents,
    pub(crate) clock: Clock,
    pub(crate) process: Option<Process>,
    /// How many processes there were.
    pub(crate) runs: u64,
    /// Nothing is done before.
    pub(crate) busy_until: Duration,
    pub(crate) paused_until: Duration,
    /// Until when it was last kept from working for longer than usual.
    pub(crate) stalled_until: Duration,
    pub(crate) slow: u32,
    pub(crate) disk_slow: u32,
    /// What waits for the process while it is busy.
    pub(crate) backlog: VecDeque<(u64, Input)>,
    /// Whether it will be told to go on.
    pub(crate) waking: bool,
    /// Copies of the disk that will be restored, by the fault that does it.
    pub(crate) copies: BTreeMap<usize, Copied>,
    /// Whether its disk went back in time, and nobody has noticed yet.
    pub(crate) restored: Option<Restored>,
    /// What it held when its disk lost something.
    pub(crate) held_before: Held,
}

/// What is known of a disk that went back in time.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) node: NodeId,
    /// Where the log ended when it began to serve from the old copy.
    pub(crate) ended: Option<u64>,
    /// How far the log was synced, as others had it on their disks at that time.
    pub(crate) known: BTreeMap<NodeId, u64>,
}

/// A running node.
pub(crate) struct Process {
    pub(crate) run: u64,
    pub(crate) replica: Replica<Handle>,
    pub(crate) engine: Engine,
    pub(crate) inbox: Mailbox,
    pub(crate) slow_reads: Rc<RefCell<VecDeque<SlowRead>>>,
    /// A group is prepared and waits for the disk.
    pub(crate) committing: bool,
    pub(crate) inbox_due: bool,
    pub(crate) tick_at: Option<Duration>,
    /// When the log was last written.
    pub(crate) written_at: Duration,
    pub(crate) seen: Seen,
    pub(crate) lost: Lost,
}

/// What the storage and the disk have said.
#[derive(Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<VecDeque<Completion>>>);

impl Mailbox {
    pub(crate) fn put(&self, completion: Completion) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(completion);
    }

    pub(crate) fn take(&self) -> VecDeque<Completion> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The store as the replica has it.
pub(crate) struct Handle {
    pub(crate) access: Access,
    pub(crate) slow_reads: Rc<RefCell<VecDeque<SlowRead>>>,
}

impl Storage for Handle {
    fn access(&self) -> &Access {
        &self.access
    }

    fn read_later(&self, read: SlowRead) {
        self.slow_reads.borrow_mut().push_back(read);
    }
}
