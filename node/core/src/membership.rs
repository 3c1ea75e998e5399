//! Who is alive: failure detection and gossip.
