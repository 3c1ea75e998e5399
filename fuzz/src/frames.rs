//! Frames of peers: every message that nodes send each other.

use bytes::{Bytes, BytesMut};
use quorate_core::antientropy::{self, Entry, Item, Items, Parcel, Prefix};
use quorate_core::causality::{Context, Expiry, Policy, VersionSet};
use quorate_core::collection::{self, Mark, RoundId};
use quorate_core::quorum::{Consistency, QuorumKind};
use quorate_core::ring::Partition;
use quorate_core::transition::{Chain, Transition};
use quorate_wire::frame::{self, FRAME_BYTES_MAX, FrameError};
use quorate_wire::peer::{Cause, Claimed, ClientWrite, Frame, Receipt, Refusal, Request, Response, Written};

use crate::samples::{encoded, node, sets};

/// A message takes at most so many times its length in memory: a list costs whoever sends it, too.
const ROOM_PER_BYTE_MAX: usize = 64;
/// What any message may take: the cells of an exchange are large, and few.
const ROOM_BYTES_LEAST: usize = 168 * 1024;
/// The longest frame of the stream that is cut.
const SHORT_FRAME_BYTES_MAX: usize = 1024;

pub(crate) fn run(bytes: &[u8]) -> bool {
    cutting_makes_no_difference(bytes);
    let mut framed = BytesMut::from(&(bytes.len() as u32).to_le_bytes()[..]);
    framed.extend_from_slice(bytes);
    let Ok(Some(frame)) = frame::decode::<Frame>(&mut framed, FRAME_BYTES_MAX) else { return false };
    assert!(framed.is_empty());
    assert!(room_bytes(&frame) <= ROOM_BYTES_LEAST + ROOM_PER_BYTE_MAX * bytes.len(), "a bomb");
    content_can_be_stored(&frame);
    encodes_again(&frame);
    true
}

/// What a message takes in memory, by its own account; 0 where that is a constant, not an account.
fn room_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Request { request: Request::Collection { .. }, .. } => 0,
        Frame::Response { response: Response::Collection(_) | Response::Ring(_), .. } => 0,
        Frame::Request { request, .. } => request.bytes(),
        Frame::Response { response, .. } => response.bytes(),
        Frame::Gossip { .. } => 0,
    }
}

fn content_can_be_stored(frame: &Frame) {
    let set = match frame {
        Frame::Request { request: Request::Replicate { set, .. } | Request::Hint { set, .. }, .. } => set,
        Frame::Response { response: Response::Stored(set), .. } => set,
        _ => return,
    };
    assert_eq!(VersionSet::decode(&set.encode()).as_ref(), Ok(set));
}

fn encodes_again(frame: &Frame) {
    let mut first = BytesMut::new();
    frame::encode(frame, FRAME_BYTES_MAX, &mut first).expect("it came in a frame");
    let copy = first.clone();
    let back: Frame = frame::decode(&mut first, FRAME_BYTES_MAX).expect("ours").expect("whole");
    let mut second = BytesMut::from(&b"before"[..]);
    let bytes = copy.len() - 4;
    if let Some(max) = bytes.checked_sub(1) {
        assert_eq!(frame::encode(&back, max, &mut second), Err(FrameError::TooLong { bytes, max }));
        assert_eq!(second, b"before"[..]);
    }
    second.clear();
    frame::encode(&back, bytes, &mut second).expect("as long as before");
    assert_eq!(copy, second, "a message is another one after a journey");
}

/// The same frames, and the same error, however the stream arrives.
fn cutting_makes_no_difference(stream: &[u8]) {
    let whole = frames([stream]);
    assert_eq!(frames(stream.chunks(1)), whole);
    assert_eq!(frames(stream.chunks(7)), whole);
}

fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match frame::decode::<Frame>(&mut buffer, SHORT_FRAME_BYTES_MAX) {
                Ok(Some(frame)) => seen.push(encoded(&frame)),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let requests = requests().into_iter().map(|request| Frame::Request { id: 7, request });
    let responses = responses().into_iter().map(|response| Frame::Response { id: 7, response });
    let gossip = crate::membership::messages().into_iter();
    let gossip = gossip.map(|message| Frame::Gossip { epoch: 1, position: 4096, message });
    requests.chain(responses).chain(gossip).map(|frame| encoded(&frame)).collect()
}

/// A ring in a change.
fn state() -> Transition {
    let chain = Chain::try_from(crate::epochs::samples()).expect("samples follow each other");
    Transition::new(node(1), chain)
}

fn requests() -> Vec<Request> {
    let state = state();
    let key = || Bytes::from_static(b"key");
    let [_, value, siblings] = sets();
    let write = ClientWrite {
        context: siblings.context().clone(),
        value: Some(Bytes::from_static(b"value")),
        expires: Some(Expiry::at_ms(9)),
        policy: Policy::LastWriteWins,
        consistency: Consistency::Configured,
    };
    let exchanges = exchange_requests().into_iter().map(|request| Request::Exchange { epoch: 1, request });
    let collections = collection_requests().into_iter();
    let collections = collections.map(|request| Request::Collection { epoch: 1, request });
    let others = [
        Request::Replicate { epoch: 1, sent: 2, cause: Cause::Write, key: key(), set: siblings },
        Request::Hint { epoch: 1, sent: 3, target: node(3), key: key(), set: value },
        Request::Read { epoch: 1, key: key(), whole: true },
        Request::Repair { epoch: 1, key: key(), sources: vec![node(1), node(2)] },
        Request::Write { epoch: 1, key: key(), write, timeout_ms: 500 },
        Request::Mark,
        Request::FetchRing,
        Request::Progress { known: state.known() },
        Request::Claim { epoch: 2, start: 4, nonce: 5, position: 6 },
    ];
    others.into_iter().chain(exchanges).chain(collections).collect()
}

fn responses() -> Vec<Response> {
    let receipt = Receipt { epoch: 1, replicas: 2, hints: 1, needed: 2, kind: QuorumKind::Sloppy };
    let written = Written { context: Context::default(), siblings: 1, receipt };
    let state = state();
    let exchanged = exchange_replies().into_iter().map(Response::Exchanged);
    let collected = collection_replies().into_iter().map(Response::Collection);
    let refused = [
        Refusal::Busy,
        Refusal::StorageFailed { reason: "gone".into() },
        Refusal::Unavailable { needed: 2, reachable: 1 },
        Refusal::ClockAhead { node: node(1), ahead_ms: 9 },
    ];
    let others = [
        Response::Applied,
        Response::Digest(1),
        Response::Written(written),
        Response::Mark(Mark { start: 1, sent: 2 }),
        Response::Ring(Some(state.told())),
        Response::Progress { oldest: 1, newest: 2, marks: state.news_for(&[]) },
        Response::Claimed(Claimed::Known { start: 3 }),
    ];
    let stored = sets().into_iter().map(Response::Stored);
    let refused = refused.into_iter().map(Response::Refused);
    others.into_iter().chain(stored).chain(refused).chain(exchanged).chain(collected).collect()
}

fn items() -> Items {
    let item = |set| Item { key: Bytes::from_static(b"key"), set };
    Items { sent: 3, items: sets().into_iter().map(item).collect() }
}

/// One of each kind.
pub(crate) fn exchange_requests() -> Vec<antientropy::Request> {
    use antientropy::Request::{Children, Entries, Fetch, Push, Roots};
    let partition = Partition(0);
    let prefixes = || vec![Prefix::ROOT, Prefix::ROOT.child(3)];
    vec![
        Roots { partitions: vec![partition, Partition(1)] },
        Children { partition, prefixes: prefixes() },
        Entries { partition, prefixes: prefixes(), from: 0 },
        Fetch { partition, hashes: vec![1, 1 << 40], after: Some(Bytes::from_static(b"k")) },
        Push { partition, items: items() },
    ]
}

/// One of each kind.
pub(crate) fn exchange_replies() -> Vec<antientropy::Reply> {
    use antientropy::Reply::{Children, Entries, Fetched, Pushed, Roots};
    vec![
        Roots { roots: vec![antientropy::Shown::All(1), antientropy::Shown::Part] },
        Children { cells: vec![None, Some([9; 16])] },
        Entries { entries: vec![Entry { key_hash: 1, digest: 2 }], through: u64::MAX },
        Fetched(Parcel { items: items(), next: None, missing: true }),
        Pushed { stored: true },
    ]
}

/// One of each kind, of the round that [`round`] says.
pub(crate) fn collection_requests() -> Vec<collection::Request> {
    let candidates = || vec![collection::Candidate { key: Bytes::from_static(b"key"), digest: 5 }];
    let floors = || vec![(node(1), Mark { start: 1, sent: 4 }), (node(2), Mark { start: 2, sent: 0 })];
    let (round, partition) = (round(), Partition(0));
    vec![
        collection::Request::Confirm { round, partition, candidates: candidates() },
        collection::Request::Fence {
            round,
            partition,
            floors: floors(),
            keys: vec![Bytes::from_static(b"key")],
        },
        collection::Request::Collect { round, partition, floors: floors(), candidates: candidates() },
    ]
}

/// One of each kind but [`collection::Reply::Cleared`], which only a participant makes.
pub(crate) fn collection_replies() -> Vec<collection::Reply> {
    let round = round();
    vec![collection::Reply::Collected { round, forgotten: 1 }, collection::Reply::Declined { round }]
}

/// The round of the seeds.
pub(crate) fn round() -> RoundId {
    RoundId { start: 1, number: 1 }
}
