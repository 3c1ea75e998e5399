//! Who is who in the cluster: one authority, and certificates whose common name is the user and whose
//! organisation is the group.
//!
//! Every private key stays in the cluster's folder, readable by its owner alone.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::error::{Doing, Error};

/// The group whose members may do everything.
pub const ADMIN_GROUP: &str = "system:masters";

/// The authority of one cluster and the folder that it writes to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    folder: PathBuf,
}

/// What a certificate says.
#[derive(Debug, Default)]
pub struct Subject<'a> {
    /// The name of the two files, without their endings.
    pub file: &'a str,
    /// The user.
    pub user: &'a str,
    /// The group, if any.
    pub group: Option<&'a str>,
    /// Names that it may serve as.
    pub dns: &'a [&'a str],
    /// Addresses that it may serve as.
    pub addresses: &'a [IpAddr],
}

impl Authority {
    /// Makes a new authority and writes `ca.crt` and `ca.key` into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .doing(|| format!("closing {} to others", folder.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("quorate-e2e", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        write_private(&folder.join("ca.key"), &key.serialize_pem())?;
        write_private(&folder.join("ca.crt"), &certificate_pem)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, folder: folder.to_owned() })
    }

    /// Makes one certificate and its key as `<file>.crt` and `<file>.key`.
    ///
    /// # Errors
    /// When a name is no valid one or a file cannot be written.
    pub fn issue(&self, subject: &Subject<'_>) -> Result<(), Error> {
        let mut params =
            CertificateParams::new(subject.dns.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = name(subject.user, subject.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_private(&self.folder.join(format!("{}.crt", subject.file)), &certificate.pem())?;
        write_private(&self.folder.join(format!("{}.key", subject.file)), &key.serialize_pem())
    }

    /// Makes the pair of keys that signs and checks service account tokens, `service-account.key` and `.pub`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn service_account_key(&self) -> Result<(), Error> {
        let pair = KeyPair::generate()?;
        write_private(&self.folder.join("service-account.key"), &pair.serialize_pem())?;
        write_private(&self.folder.join("service-account.pub"), &pair.public_key_pem())
    }

    /// Makes a certificate for a user and writes a kubeconfig with it inside.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn kubeconfig(&self, path: &Path, server: &str, subject: &Subject<'_>) -> Result<(), Error> {
        self.issue(subject)?;
        let read = |ending: &str| {
            let file = self.folder.join(format!("{}.{ending}", subject.file));
            fs::read_to_string(&file).doing(|| format!("reading {}", file.display()))
        };
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "quorate",
            "contexts": [{"name": "quorate", "context": {"cluster": "quorate", "user": subject.user}}],
            "clusters": [{"name": "quorate", "cluster": {
                "server": server,
                "certificate-authority-data": base64(self.certificate_pem.as_bytes()),
            }}],
            "users": [{"name": subject.user, "user": {
                "client-certificate-data": base64(read("crt")?.as_bytes()),
                "client-key-data": base64(read("key")?.as_bytes()),
            }}],
        });
        write_private(path, &format!("{document:#}\n"))
    }
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Writes a file that only its owner may read, also in the moment in which it is made.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let doing = || format!("writing {}", path.display());
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path).doing(doing)?;
    file.write_all(text.as_bytes()).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_carries_its_user_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("pki")).unwrap();
        let path = folder.path().join("admin.kubeconfig");
        let subject =
            Subject { file: "admin", user: "admin", group: Some(ADMIN_GROUP), ..Subject::default() };
        authority.kubeconfig(&path, "https://10.0.0.1:6443", &subject).unwrap();
        let document: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(document["users"][0]["name"], "admin");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
