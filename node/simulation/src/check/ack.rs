//! `INV-ACK`: an acknowledged write is never lost while fewer owners lost their disks than acknowledged it.
//!
//! A loss that was made good counts no more for what a write quorum had acknowledged: new owners have that from the others.
//! What fewer had acknowledged may have been on the lost disks alone.

use std::time::Duration;

use quorate_core::causality::VersionSet;

use crate::history::{History, KeyId, Verdict, Violation, When};

/// What owners of a key hold at the end. `lost`: how many of all its owners ever lost something, and of how many that is
/// not made good.
pub(crate) fn at_end(
    history: &mut History,
    key: KeyId,
    set: &VersionSet,
    ((ever, open), write_quorum): ((u8, u8), u8),
    now: Duration,
) -> Verdict {
    history.observe(Some(key), set)?;
    history.check_siblings(key, set, When::at(now))?;
    if let Some(refused) = history.refused_in(set) {
        let what = format!("#{refused} was told to be not written, and is there at the end");
        return Err(Violation::new("INV-ACK", what));
    }
    let lost = |owners: u8| if owners >= write_quorum { open } else { ever };
    let missing = history
        .acknowledged(key)
        .find(|(write, _, owners)| lost(*owners) < *owners && !history.reflects(set, *write, When::at(now)))
        .map(|(write, ..)| write);
    missing.map_or(Ok(()), |write| Err(history.lacks(set, write, "INV-ACK")))
}
