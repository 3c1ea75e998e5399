//! A client of Quorate over HTTP, as small as a person's curl.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::error::{Error, ensure};

/// How long one request may take: longer than the store itself waits for a quorum.
const REQUEST_SECONDS_MAX: Duration = Duration::from_secs(15);

/// How long a connection may take to open: a node that was killed does not even refuse.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(2);

/// One way into a cluster: its Service, or one of its nodes.
#[derive(Debug, Clone)]
pub struct Store {
    client: reqwest::Client,
    url: String,
    login: Option<(&'static str, &'static str)>,
}

impl Store {
    /// A client for `http://address:port`.
    ///
    /// # Errors
    /// When the machine gives no client.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self { client: builder().build()?, url: format!("{url}/v1/kv"), login: None })
    }

    /// The same way in, for a user with a password.
    pub fn as_user(&self, name: &'static str, password: &'static str) -> Self {
        Self { login: Some((name, password)), ..self.clone() }
    }

    /// The same way in, over a new connection for each request: whoever keeps connections stays with the nodes that it met
    /// first.
    ///
    /// # Errors
    /// As [`Store::new`].
    pub fn connecting_anew(&self) -> Result<Self, Error> {
        Ok(Self { client: builder().pool_max_idle_per_host(0).build()?, ..self.clone() })
    }

    /// Writes; returns when the write is acknowledged.
    ///
    /// # Errors
    /// When it is refused, or nobody knows.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), Error> {
        let request = self.client.put(format!("{}/{key}", self.url)).body(value.to_owned());
        let answer = self.signed(request).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure(status.is_success(), || format!("PUT {key}: {status}: {body}"))
    }

    /// Reads all values of a key; none when there is none.
    ///
    /// # Errors
    /// When the read is refused or cannot be understood.
    pub async fn get(&self, key: &str) -> Result<Vec<String>, Error> {
        self.read(key, "").await
    }

    /// The same, where one reply is enough: a node that owns the key asks itself.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_from_one(&self, key: &str) -> Result<Vec<String>, Error> {
        self.read(key, "?r=one").await
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.login {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }

    async fn read(&self, key: &str, query: &str) -> Result<Vec<String>, Error> {
        let request =
            self.client.get(format!("{}/{key}{query}", self.url)).header("accept", "application/json");
        let answer = self.signed(request).send().await?;
        let status = answer.status().as_u16();
        let body = answer.text().await?;
        let code = serde_json::from_str::<Value>(&body).unwrap_or_default()["error"]["code"].clone();
        if status == 404 && code == "not_found" {
            return Ok(Vec::new());
        }
        ensure(matches!(status, 200 | 300), || format!("GET {key}: {status}: {body}"))?;
        values(&body).ok_or_else(|| Error::Unexpected(format!("GET {key}: cannot understand {body}")))
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(REQUEST_SECONDS_MAX).connect_timeout(CONNECT_SECONDS_MAX)
}

/// The values of a JSON answer.
fn values(body: &str) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(body).ok()?;
    let decode = |value: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value["value"].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    document["values"].as_array()?.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sibling_is_read() {
        let body = r#"{"context": "x", "values": [{"value": "b25l"}, {"value": "dHdv"}]}"#;
        assert_eq!(values(body), Some(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(values(r#"{"values": [{"value": 7}]}"#), None);
    }
}
