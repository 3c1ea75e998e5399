//! `INV-AMNESIA`: no dot is ever made twice (see [`History::observe`]), and a disk that went back in time, which a
//! majority of the ring can know, never serves.

use quorate_core::antientropy::Items;
use quorate_core::antientropy::Reply::Fetched;
use quorate_core::antientropy::Request::Push;
use quorate_core::ring::Epoch;
use quorate_wire::peer::{Frame, Request, Response};

use crate::history::{History, Verdict, Violation, key_of};
use crate::machine::Restored;

/// A node serves from a disk that went back in time. It could ask those that do not know better, but a majority of the
/// members, itself among them, must have been such.
pub(crate) fn served(epoch: &Epoch, restored: &Restored) -> Verdict {
    let Restored { node, ended, known } = restored;
    let ended = ended.unwrap_or(u64::MAX);
    let members: Vec<_> = epoch.members().iter().filter(|member| member.state.takes_part()).collect();
    let knows = |id| id != *node && known.get(&id).is_some_and(|position| *position > ended);
    let knowing = members.iter().filter(|member| knows(member.id)).count();
    if members.len() - knowing > members.len() / 2 {
        return Ok(());
    }
    let what =
        format!("{node} serves from an old disk, and {knowing} of {} members knew that it is", members.len());
    Err(Violation::new("INV-AMNESIA", what))
}

/// Every set in a message.
pub(crate) fn message(history: &mut History, frame: &Frame) -> Verdict {
    match frame {
        Frame::Request { request: Request::Replicate { key, set, .. }, .. } => {
            history.observe(key_of(key), set)
        }
        Frame::Request { request: Request::Hint { key, set, .. }, .. } => history.observe(key_of(key), set),
        Frame::Response { response: Response::Stored(set), .. } => history.observe(None, set),
        Frame::Request { request: Request::Exchange { request: Push { items, .. }, .. }, .. } => {
            parcel(history, items)
        }
        Frame::Response { response: Response::Exchanged(Fetched(fetched)), .. } => {
            parcel(history, &fetched.items)
        }
        _ => Ok(()),
    }
}

fn parcel(history: &mut History, items: &Items) -> Verdict {
    items.items.iter().try_for_each(|item| history.observe(key_of(&item.key), &item.set))
}
