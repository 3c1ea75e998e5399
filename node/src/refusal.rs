//! Why something was not done, as every protocol tells it: one code, one sentence.

use quorate_core::causality::WriteRefused;
use quorate_wire::peer::Refusal;

/// Stable, for programs and metrics.
pub(crate) fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoEpoch
        | Refusal::NotMember { .. }
        | Refusal::EpochRetired { .. }
        | Refusal::ReadsMoved { .. }
        | Refusal::EpochUnknown { .. }
        | Refusal::NotOwner { .. }
        | Refusal::Stale => "not_ready",
        Refusal::Starting => "starting",
        Refusal::ClockAhead { .. } => "clock_ahead",
        Refusal::Consistency(_) => "bad_parameter",
        Refusal::HintsFull { .. } => "hints_full",
        Refusal::Stopping => "stopping",
        Refusal::Busy => "busy",
        Refusal::StorageFull { .. } => "storage_full",
        Refusal::StorageFailed { .. } => "storage_failed",
        Refusal::Write(WriteRefused::TooManySiblings) => "too_many_siblings",
        Refusal::Write(WriteRefused::TooLarge) => "too_large",
        Refusal::Write(WriteRefused::FutureContext) => "bad_context",
        Refusal::Unavailable { .. } => "unavailable",
        Refusal::Indeterminate { .. } => "timeout",
    }
}

/// A refusal as a sentence about the client's request: first of all, whether anything was written.
pub(crate) fn sentence(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Indeterminate { .. } => format!("it is not known whether the write was done: {refusal}"),
        refusal => format!("not done: {refusal}"),
    }
}
