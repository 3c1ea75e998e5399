//! `INV-CONVERGE`: when faults are over, the owners of a key hold the same set, to the byte.

use quorate_core::causality::VersionSet;

use crate::history::{KeyId, Verdict, Violation};

/// What the owners hold, by their machines.
pub(crate) fn equal(key: KeyId, held: &[(usize, VersionSet)]) -> Verdict {
    let Some(((first, set), rest)) = held.split_first() else { return Ok(()) };
    let Some((other, theirs)) = rest.iter().find(|(_, theirs)| theirs.encode() != set.encode()) else {
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
