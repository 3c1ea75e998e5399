//! Liveness of a change of the ring: when faults are over, it ends. Every member holds the newest epoch, nothing older is
//! live, and nobody holds what he does not own.

use quorate_replica::RingStatus;

use crate::history::{Verdict, Violation};

/// A member at the end, and the epoch that was committed last.
pub(crate) fn settled(machine: usize, status: &RingStatus, committed: u64) -> Verdict {
    let RingStatus { oldest, newest, leaving, settled, .. } = *status;
    if (oldest, newest, leaving, settled) == (committed, committed, 0, true) {
        return Ok(());
    }
    let what =
        format!("faults are long over, and n{machine} is not through with epoch {committed}: {status:?}");
    Err(Violation::new("liveness", what))
}
