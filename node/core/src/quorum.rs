//! When an operation is decided: the read and write quorums.
