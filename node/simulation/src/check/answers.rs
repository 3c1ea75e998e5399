//! Liveness: each request gets one answer, in time; and when faults are over, the answer that it asks for.

use std::time::Duration;

use quorate_replica::Answer;
use quorate_wire::peer::Refusal;

use crate::history::{OpId, Verdict, Violation};

/// How much later than its time-out a request may be answered by a node that works.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);

pub(crate) fn late(id: OpId, waited: Duration) -> Violation {
    Violation::new("liveness", format!("#{id} was not answered within {waited:?}, and its node works"))
}

pub(crate) fn twice(id: OpId) -> Violation {
    Violation::new("liveness", format!("#{id} was answered twice"))
}

/// Faults were over for long when a request was asked.
pub(crate) fn when_settled(id: OpId, answer: &Answer) -> Verdict {
    match answer {
        // What the key itself refuses, it refuses on a good day too.
        Answer::Written(_) | Answer::Found(_) | Answer::Refused(Refusal::Write(_)) => Ok(()),
        Answer::Refused(refusal) => {
            Err(Violation::new("liveness", format!("faults are over, and #{id} is told: {refusal}")))
        }
    }
}
