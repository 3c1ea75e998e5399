//! placeholder
#![cfg(feature = "api-server-tests")]
