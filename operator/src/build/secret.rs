//! The cluster's secret. Created once and never written again: the operator does not even have the right to.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{names, owned};
use crate::validate::ValidatedCluster;

/// Bytes of randomness in a secret; it is stored as hexadecimal digits.
pub const SECRET_BYTES: usize = 32;

/// The Secret that holds `random`.
pub fn secret(cluster: &ValidatedCluster, random: [u8; SECRET_BYTES]) -> Secret {
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret {
        metadata: owned(cluster, names::secret(&cluster.name)),
        type_: Some("Opaque".to_owned()),
        data: Some([(names::SECRET_KEY.to_owned(), ByteString(text.into_bytes()))].into()),
        ..Secret::default()
    }
}
