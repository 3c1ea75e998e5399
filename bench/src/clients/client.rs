//! One client of a contestant.

use anyhow::Result;

use super::contestant::{Contestant, Name};
use super::etcd::Etcd;
use super::resp::Resp;

pub(crate) enum Client {
    Resp(Resp),
    Etcd(Etcd),
}

impl Client {
    /// Client number so and so: they take the contestant's members in turns.
    pub(crate) async fn connect(contestant: &Contestant, number: usize) -> Result<Self> {
        let address = contestant.endpoints[number % contestant.endpoints.len()];
        Ok(match contestant.name {
            Name::Etcd => Self::Etcd(Etcd::connect(address).await?),
            Name::RedisReplicated => Self::Resp(Resp::connect(address, true).await?),
            Name::Quorate | Name::Redis => Self::Resp(Resp::connect(address, false).await?),
        })
    }

    /// Writes these; together, where the protocol has pipelines.
    pub(crate) async fn put(&mut self, pairs: &[(String, &[u8])]) -> Result<()> {
        match self {
            Self::Resp(resp) => resp.put(pairs).await,
            Self::Etcd(etcd) => {
                for (key, value) in pairs {
                    etcd.put(key.as_bytes(), value).await?;
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn get(&mut self, keys: &[String]) -> Result<()> {
        match self {
            Self::Resp(resp) => resp.get(keys).await,
            Self::Etcd(etcd) => {
                for key in keys {
                    etcd.get(key.as_bytes()).await?;
                }
                Ok(())
            }
        }
    }
}
