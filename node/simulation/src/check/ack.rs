//! `INV-ACK`: an acknowledged write is never lost while fewer owners lost their disks than acknowledged it.

use std::time::Duration;

use quorate_core::causality::VersionSet;

use crate::history::{History, KeyId, Verdict, Violation, When};

/// What owners of a key hold at the end, of whom so many lost something.
pub(crate) fn at_end(
    history: &mut History,
    key: KeyId,
    set: &VersionSet,
    lost: u8,
    now: Duration,
) -> Verdict {
    history.observe(Some(key), set)?;
    history.check_siblings(key, set, When::at(now))?;
    if let Some(refused) = history.refused_in(set) {
        let what = format!("#{refused} was told to be not written, and is there at the end");
        return Err(Violation::new("INV-ACK", what));
    }
    let missing = history
        .acknowledged(key)
        .find(|(write, _, owners)| lost < *owners && !history.reflects(set, *write, When::at(now)))
        .map(|(write, ..)| write);
    missing.map_or(Ok(()), |write| Err(history.lacks(set, write, "INV-ACK")))
}
