//! Who may read and write which keys: users with passwords, from a file that may change while the node runs.
//!
//! Without a file everybody may do everything, and the network decides who reaches the node. With one, whoever says no name
//! is the user `default`, who has the rights that the file gives it: none, if it gives none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quorate_core::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::Metrics;

/// Whoever says no name.
pub(crate) const DEFAULT: &str = "default";
/// As large as a Secret of Kubernetes may be.
const FILE_BYTES_MAX: usize = 1 << 20;
const USERS_MAX: usize = 1000;
/// Prefixes of one user, for reading and for writing each.
const PREFIXES_MAX: usize = 64;
/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(2);

/// What is kept of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

/// What somebody says of himself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: Fingerprint,
}

/// What a request needs of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    Read,
    Write,
    ReadAndWrite,
}

/// What somebody may do. Keys are named by how they begin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    read: Vec<String>,
    write: Vec<String>,
}

impl Rights {
    pub(crate) fn allow(&self, need: Need, key: &[u8]) -> bool {
        let any = |prefixes: &[String]| prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        match need {
            Need::Read => any(&self.read),
            Need::Write => any(&self.write),
            Need::ReadAndWrite => any(&self.read) && any(&self.write),
        }
    }

    fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
    }
}

/// A request by somebody who may not do that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("this cluster has users: say who asks")]
    NoName,
    #[error("there is no such user, or the password is another")]
    WrongPassword,
    #[error("this user has no right to do that to this key")]
    NoRight,
}

impl Denied {
    /// Stable, for programs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NoName | Self::WrongPassword => "unauthorized",
            Self::NoRight => "forbidden",
        }
    }
}

#[derive(Clone, Debug)]
struct User {
    password: Option<Fingerprint>,
    rights: Rights,
}

/// All users of a moment.
#[derive(Clone, Debug)]
pub(crate) struct Users(BTreeMap<String, User>);

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    users: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    password: Option<String>,
    password_sha256: Option<String>,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
}

impl Users {
    /// The users of a file's text, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_yaml::from_str(text).map_err(|error| {
            let error = without_values(&error.to_string());
            format!("write users: {{NAME: {{password: …, read: [PREFIX, …], write: [PREFIX, …]}}}}: {error}")
        })?;
        if file.users.len() > USERS_MAX {
            return Err(format!("{} users are too many, at most {USERS_MAX}", file.users.len()));
        }
        let users = file.users.into_iter().map(|(name, entry)| {
            let user = entry.user(&name).map_err(|error| format!("user {name:?}: {error}"))?;
            Ok((name, user))
        });
        users.collect::<Result<_, String>>().map(Self)
    }

    /// What somebody may do.
    pub(crate) fn rights(&self, login: Option<&Login>) -> Result<&Rights, Denied> {
        match login {
            None => {
                let user = self.0.get(DEFAULT).filter(|user| user.password.is_none());
                user.map(|user| &user.rights).filter(|rights| !rights.is_empty()).ok_or(Denied::NoName)
            }
            Some(login) => {
                let user = self.0.get(&login.name).filter(|user| user.password == Some(login.password));
                user.map(|user| &user.rights).ok_or(Denied::WrongPassword)
            }
        }
    }

    /// The one user with this password. Of several nobody can tell who asks, so none of them is taken.
    pub(crate) fn by_password(&self, password: Fingerprint) -> Option<Login> {
        let mut names =
            self.0.iter().filter(|(_, user)| user.password == Some(password)).map(|(name, _)| name);
        match (names.next(), names.next()) {
            (Some(name), None) => Some(Login { name: name.clone(), password }),
            _ => None,
        }
    }
}

impl Entry {
    fn user(self, name: &str) -> Result<User, String> {
        // A colon ends a name in the header of HTTP.
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !is_name {
            return Err(format!(
                "a name has 1 to {NAME_BYTES_MAX} printable ASCII characters without space and colon"
            ));
        }
        let password = match (self.password, self.password_sha256) {
            (Some(_), Some(_)) => return Err("write password or passwordSha256, not both".to_owned()),
            (Some(password), None) if password.is_empty() => return Err("the password is empty".to_owned()),
            (Some(password), None) => Some(Fingerprint::of(password.as_bytes())),
            (None, Some(hex)) => Some(fingerprint(&hex)?),
            (None, None) if name == DEFAULT => None,
            (None, None) => return Err(format!("it has no password: only {DEFAULT:?} may have none")),
        };
        for prefixes in [&self.read, &self.write] {
            if prefixes.len() > PREFIXES_MAX || prefixes.iter().any(|prefix| prefix.len() > KEY_BYTES_MAX) {
                return Err(format!("at most {PREFIXES_MAX} prefixes, each as long as a key at most"));
            }
        }
        Ok(User { password, rights: Rights { read: self.read, write: self.write } })
    }
}

/// What was found instead of what was expected may be a password, and must not be told.
fn without_values(error: &str) -> String {
    let Some(start) = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|words| error.find(words).map(|at| at + words.len()))
    else {
        return error.to_owned();
    };
    let kind = error[start..].split([' ', ',']).next().unwrap_or_default();
    let expected = error.rfind(", expected ").map_or("", |at| &error[at..]);
    format!("{}{kind} …{expected}", &error[..start])
}

fn fingerprint(hex: &str) -> Result<Fingerprint, String> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    let bytes = bytes.filter(|_| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(Fingerprint)
        .ok_or_else(|| "passwordSha256 has 64 hexadecimal digits, as sha256sum prints".to_owned())
}

/// Who may do what at this node.
pub(crate) enum Access {
    /// Everybody everything.
    Open,
    /// Whom the file names.
    Users(RwLock<Arc<Users>>),
}

impl Access {
    /// Open to all without a file.
    pub(crate) fn new(users: Option<Users>) -> Self {
        users.map_or(Self::Open, |users| Self::Users(RwLock::new(Arc::new(users))))
    }

    /// The users at this moment; none where there are none.
    pub(crate) fn users(&self) -> Option<Arc<Users>> {
        match self {
            Self::Open => None,
            Self::Users(users) => Some(users.read().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Whether somebody may do something to a key.
    pub(crate) fn check(&self, login: Option<&Login>, need: Need, key: &[u8]) -> Result<(), Denied> {
        let Some(users) = self.users() else { return Ok(()) };
        if users.rights(login)?.allow(need, key) { Ok(()) } else { Err(Denied::NoRight) }
    }

    fn replace(&self, users: Users) {
        if let Self::Users(current) = self {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        }
    }
}

/// Reads a file of users.
pub(crate) fn read(path: &Path) -> Result<(String, Users), String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("{} is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let users = Users::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((text, users))
}

/// Takes over what becomes of the file, for ever. One that is wrong changes nothing, and is told once.
pub(crate) async fn follow(path: PathBuf, access: Arc<Access>, metrics: Arc<Metrics>) {
    let mut last = String::new();
    let mut complaint = String::new();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match read(&path) {
            // If it was wrong in between, the same mistake is told again.
            Ok((text, _)) if text == last => complaint.clear(),
            Ok((text, users)) => {
                let (count, is_first) = (users.0.len(), last.is_empty());
                access.replace(users);
                (last, complaint) = (text, String::new());
                metrics.users_reloads.with_label_values(&["ok"]).inc();
                if !is_first {
                    tracing::info!(users = count, "took over changed users");
                }
            }
            Err(error) if error == complaint => {}
            Err(error) => {
                metrics.users_reloads.with_label_values(&["error"]).inc();
                tracing::error!(%error, "the users stay as they were: the file cannot be used");
                complaint = error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "users:
  app: {password: s3cret, read: [app/, shared/], write: [app/]}
  admin:
    passwordSha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    read: ['']
    write: ['']
  default: {read: [public/]}
";

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.to_owned(), password: Fingerprint::of(password.as_bytes()) }
    }

    #[test]
    fn rights_go_by_how_keys_begin() {
        let access = Access::new(Some(Users::parse(FILE).unwrap()));
        let app = login("app", "s3cret");
        for (login, need, key, expected) in [
            (Some(&app), Need::Read, "shared/x", Ok(())),
            (Some(&app), Need::Write, "shared/x", Err(Denied::NoRight)),
            (Some(&app), Need::ReadAndWrite, "app/x", Ok(())),
            (Some(&app), Need::ReadAndWrite, "shared/x", Err(Denied::NoRight)),
            (Some(&app), Need::Read, "ap", Err(Denied::NoRight)),
            (None, Need::Read, "public/x", Ok(())),
            (None, Need::Write, "public/x", Err(Denied::NoRight)),
            (Some(&login("app", "other")), Need::Read, "app/x", Err(Denied::WrongPassword)),
            (Some(&login("nobody", "s3cret")), Need::Read, "public/x", Err(Denied::WrongPassword)),
            (Some(&login("default", "")), Need::Read, "public/x", Err(Denied::WrongPassword)),
        ] {
            assert_eq!(access.check(login, need, key.as_bytes()), expected, "{login:?} {need:?} {key}");
        }
    }

    #[test]
    fn a_mistake_is_told_without_passwords() {
        for (text, words) in [
            (
                "users: {app: 'hunter2, expected to be secret'}",
                "users.app: invalid type: string …, expected struct Entry",
            ),
            ("users: {app: {password: [hunter2]}}", "invalid type: sequence …, expected a string"),
            ("users: {app: {pasword: hunter2}}", "unknown field `pasword`"),
            ("hunter2", "invalid type: string …, expected struct File"),
        ] {
            let error = Users::parse(text).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn who_says_nothing_has_no_rights_unless_the_file_gives_some() {
        for text in ["users: {}", "users: {default: {password: x, read: ['']}}", "users: {default: {}}"] {
            let access = Access::new(Some(Users::parse(text).unwrap()));
            assert_eq!(access.check(None, Need::Read, b"k"), Err(Denied::NoName), "{text}");
        }
        assert_eq!(Access::new(None).check(None, Need::Write, b"k"), Ok(()), "no file, no users");
    }

    #[test]
    fn a_password_alone_names_a_user_only_if_nobody_else_has_it() {
        let users = "users: {a: {password: x}, b: {password: y}, c: {password: y}}";
        let users = Users::parse(users).unwrap();
        let by = |password: &str| users.by_password(Fingerprint::of(password.as_bytes()));
        assert_eq!([by("x"), by("y"), by("z")], [Some(login("a", "x")), None, None]);
    }

    #[test]
    fn a_fingerprint_is_what_sha256sum_prints() {
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(fingerprint(hex), Ok(Fingerprint::of(b"secret")));
        for wrong in ["", &hex[1..], "é".repeat(32).as_str(), &hex.replace('2', "+")] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_file_says_what_to_write() {
        for (text, says) in [
            ("", "write users:"),
            ("users: {a: {pasword: x}}", "unknown field `pasword`"),
            ("users: {a: {}}", "only \"default\" may have none"),
            ("users: {a: {password: ''}}", "the password is empty"),
            ("users: {a: {password: x, passwordSha256: y}}", "not both"),
            ("users: {a: {passwordSha256: y}}", "64 hexadecimal digits"),
            ("users: {'a:b': {password: x}}", "without space and colon"),
        ] {
            let error = Users::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
