//! At the end every node of the ring serves.

use crate::history::Violation;

pub(crate) fn not_serving(machine: usize) -> Violation {
    Violation::new("liveness", format!("faults are long over, and n{machine} does not serve"))
}
