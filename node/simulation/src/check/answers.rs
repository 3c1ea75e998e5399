//! Liveness: each request gets one answer, in time; and when faults are over, or there never were any, the answer that it
//! asks for, whatever becomes of the ring meanwhile.

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

/// In a calm run a node that clients are led to is there.
pub(crate) fn cut(id: OpId) -> Violation {
    Violation::new("liveness", format!("nothing is wrong, and the connection of #{id} did not hold"))
}

/// Nothing was wrong any more, or ever, when a request was asked.
pub(crate) fn when_nothing_is_wrong(id: OpId, answer: &Answer) -> Verdict {
    match answer {
        // What the key itself refuses, it refuses on a good day too.
        Answer::Written(_) | Answer::Found(_) | Answer::Refused(Refusal::Write(_)) => Ok(()),
        Answer::Refused(refusal) => {
            Err(Violation::new("liveness", format!("nothing is wrong, and #{id} is told: {refusal}")))
        }
    }
}
