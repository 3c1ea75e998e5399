//! Who asks: `Authorization: Basic` with a name and a password, or `Bearer` with a password that only one user has.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, header};

use super::Api;
use super::error::HttpError;
use crate::users::{Denied, Fingerprint, Login, Need};

impl Api {
    /// Whoever sent these headers; none for somebody who says no name, and where there are no users.
    pub(super) fn login(&self, headers: &HeaderMap) -> Result<Option<Login>, HttpError> {
        let (Some(users), Some(said)) = (self.node.access.users(), headers.get(header::AUTHORIZATION)) else {
            return Ok(None);
        };
        let login =
            said.to_str().ok().and_then(|said| said.split_once(' ')).and_then(|(scheme, said)| match scheme
                .to_ascii_lowercase()
                .as_str()
            {
                "basic" => basic(said.trim()),
                "bearer" => users.by_password(Fingerprint::of(said.trim().as_bytes())),
                _ => None,
            });
        login.map(Some).ok_or(Denied::WrongPassword.into())
    }

    /// Whether whoever sent these headers may do something to a key.
    pub(super) fn allow(&self, headers: &HeaderMap, need: Need, key: &[u8]) -> Result<(), HttpError> {
        Ok(self.node.access.check(self.login(headers)?.as_ref(), need, key)?)
    }
}

fn basic(said: &str) -> Option<Login> {
    let said = BASE64_STANDARD.decode(said).ok()?;
    let colon = said.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(said[..colon].to_vec()).ok()?;
    Some(Login { name, password: Fingerprint::of(&said[colon + 1..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_colons() {
        let login = basic(&BASE64_STANDARD.encode("app:a:b")).unwrap();
        assert_eq!((login.name.as_str(), login.password), ("app", Fingerprint::of(b"a:b")));
        assert_eq!(basic(&BASE64_STANDARD.encode("app")), None);
        assert_eq!(basic("%"), None);
    }
}
