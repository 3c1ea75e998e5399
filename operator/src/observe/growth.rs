//! Whether volumes can grow.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;

use super::{ClaimState, ObserveError, Reader};
use crate::plan::quantity;

/// Whether a volume can grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// Its StorageClass was not asked, is not there, or may not be read.
    #[default]
    Unknown,
    /// Its StorageClass allows it.
    Allowed,
    /// It does not; or it has none.
    Refused,
}

impl Reader<'_> {
    /// Asks the StorageClasses of the claims that are too small.
    pub(super) async fn with_growth(
        &self,
        mut claims: Vec<ClaimState>,
        wanted_size: &str,
    ) -> Result<Vec<ClaimState>, ObserveError> {
        let mut asked: BTreeMap<String, Growth> = BTreeMap::new();
        for claim in claims.iter_mut().filter(|claim| quantity::is_less(&claim.requested, wanted_size)) {
            claim.growth = match &claim.class {
                None => Growth::Refused,
                Some(class) => match asked.get(class) {
                    Some(growth) => *growth,
                    None => *asked.entry(class.clone()).or_insert(self.growth(class).await?),
                },
            };
        }
        Ok(claims)
    }

    async fn growth(&self, class: &str) -> Result<Growth, ObserveError> {
        let api: Api<StorageClass> = Api::all(self.client.clone());
        match api.get_opt(class).await {
            Ok(Some(class)) if class.allow_volume_expansion == Some(true) => Ok(Growth::Allowed),
            Ok(Some(_)) => Ok(Growth::Refused),
            Ok(None) => Ok(Growth::Unknown),
            // Whoever grants the operator a namespace alone gets everything but this.
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Growth::Unknown),
            Err(source) => Err(ObserveError::Read { what: "a StorageClass", source }),
        }
    }
}
