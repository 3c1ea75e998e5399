//! `INV-CONVERGE`: when faults are over, the owners of a key hold the same set, to the byte. While a deleted or expired key
//! is collected, some have forgotten it and others are about to.

use quorate_core::causality::VersionSet;

use crate::history::{KeyId, Verdict, Violation};

/// What the owners hold, by their machines.
pub(crate) fn equal(key: KeyId, held: &[(usize, VersionSet)], now_unix_ms: u64) -> Verdict {
    let Some(((first, set), rest)) = held.split_first() else { return Ok(()) };
    let equal = |one: &VersionSet, other: &VersionSet| {
        let collected = one.context().is_empty() && other.is_dead_at(now_unix_ms);
        collected || (other.context().is_empty() && one.is_dead_at(now_unix_ms)) || one == other
    };
    let Some((other, theirs)) = rest.iter().find(|(_, theirs)| !equal(set, theirs)) else {
        return Ok(());
    };
    let what = format!(
        "key-{key} is not the same on n{first} and n{other}: {} and {} versions, {:016x} and {:016x}",
        set.versions().len(),
        theirs.versions().len(),
        set.digest(),
        theirs.digest()
    );
    Err(Violation::new("INV-CONVERGE", what))
}
