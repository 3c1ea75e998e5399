//! What strangers can say before they have proven anything.

use bytes::BytesMut;
use quorate_core::ClusterId;
use quorate_wire::frame;
use quorate_wire::handshake::{Acceptor, HANDSHAKE_BYTES_MAX, Hello, Proof, Secret, Side, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::samples::node;

pub(crate) fn run(bytes: &[u8]) -> bool {
    let hello = message::<Hello>(bytes);
    if let Some(hello) = &hello {
        a_proof_is_for_this_hello(hello);
    }
    let others = [message::<Welcome>(bytes).is_some(), message::<Proof>(bytes).is_some()];
    hello.is_some() || others.contains(&true)
}

/// The first frame of a stream; it is the same after another journey.
fn message<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let decode = |buffer: &mut BytesMut| frame::decode::<T>(buffer, HANDSHAKE_BYTES_MAX);
    let message = decode(&mut BytesMut::from(bytes)).ok()??;
    let mut out = BytesMut::new();
    frame::encode(&message, HANDSHAKE_BYTES_MAX, &mut out).expect("it came in a frame");
    assert_eq!(decode(&mut out).as_ref(), Ok(&Some(message)));
    decode(&mut BytesMut::from(bytes)).ok()?
}

fn a_proof_is_for_this_hello(hello: &Hello) {
    let secret = Secret::new(b"a secret of the cluster");
    let acceptor = Acceptor { node: node(2), start: 2, challenge: &[5; 32] };
    let proof = secret.proof(Side::Connector, hello, acceptor);
    assert!(secret.proves(&proof, Side::Connector, hello, acceptor));
    assert!(!secret.proves(&proof, Side::Acceptor, hello, acceptor));
    let other = Hello { start: hello.start ^ 1, ..hello.clone() };
    assert!(!secret.proves(&proof, Side::Connector, &other, acceptor));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let cluster = ClusterId::from_u128(9);
    let challenge = [7; 32];
    let accepted = Welcome::Accepted { node: node(2), start: 3, challenge, proof: [8; 32] };
    vec![
        framed(&Hello { cluster, node: node(1), start: 1, challenge }),
        framed(&accepted),
        framed(&Welcome::OtherCluster { cluster }),
        framed(&Proof([6; 32])),
    ]
}

fn framed(message: &impl Serialize) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(message, HANDSHAKE_BYTES_MAX, &mut out).expect("a handshake is short");
    out.to_vec()
}
