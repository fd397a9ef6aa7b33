//! A certificate authority and what it issues.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use env::Env;
use env::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{read, write_private, write_replaceable};
use super::{PkiError, Profile, Purpose};

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of other machines may be behind ours.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate authority with its key.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
            certificates: self.certificates.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// A key and the request for its certificate.
pub struct SigningRequest {
    /// PKCS #10 in PEM.
    pub pem: String,
    /// PKCS #8 in PEM. Nobody but the holder sees it.
    pub key_pem: String,
}

impl SigningRequest {
    /// A request for a certificate that says what `profile` says.
    pub fn generate(profile: &Profile) -> Result<Self, PkiError> {
        Self::of(profile, &KeyPair::generate().map_err(PkiError::certificate("generating a key"))?)
    }

    /// As [`SigningRequest::generate`], for a key that is there already (PKCS #8 in PEM).
    pub fn with_key(profile: &Profile, key_pem: &str) -> Result<Self, PkiError> {
        Self::of(profile, &KeyPair::from_pem(key_pem).map_err(PkiError::certificate("reading a key"))?)
    }

    fn of(profile: &Profile, key: &KeyPair) -> Result<Self, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&profile.common_name, &profile.organizations);
        params.subject_alt_names = alternative_names(&profile.names)?;
        let request = params.serialize_request(key).and_then(|request| request.pem());
        let pem = request.map_err(PkiError::certificate("making a certificate request"))?;
        Ok(Self { pem, key_pem: key.serialize_pem() })
    }
}

/// What a signer grants to the sender of a certificate request.
#[derive(Clone, Debug)]
pub struct SigningPolicy {
    pub key_usages: Vec<KeyUsagePurpose>,
    pub extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    pub lifetime: Duration,
}

impl SigningPolicy {
    /// A client or server certificate.
    pub fn of(purpose: Purpose, lifetime: Duration) -> Self {
        let (key_usages, extended_key_usages) = usages(purpose);
        Self { key_usages, extended_key_usages, lifetime }
    }

    /// The usages by their names in the API (`certificates.k8s.io/v1` `KeyUsage`); only those of TLS are known.
    pub fn with_usages(names: &[String], lifetime: Duration) -> Self {
        let has = |name: &str| names.iter().any(|own| own == name);
        let key = [
            (KeyUsagePurpose::DigitalSignature, "digital signature"),
            (KeyUsagePurpose::KeyEncipherment, "key encipherment"),
        ];
        let extended = [
            (ExtendedKeyUsagePurpose::ClientAuth, "client auth"),
            (ExtendedKeyUsagePurpose::ServerAuth, "server auth"),
        ];
        Self {
            key_usages: key.into_iter().filter(|(_, name)| has(name)).map(|(usage, _)| usage).collect(),
            extended_key_usages: extended
                .into_iter()
                .filter(|(_, name)| has(name))
                .map(|(usage, _)| usage)
                .collect(),
            lifetime,
        }
    }
}

impl Authority {
    /// The authority in `NAME.crt` and `NAME.key` under `dir`, which is created if neither file is there.
    pub fn load_or_create(dir: &Path, name: &str, common_name: &str, env: &Env) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        match (read(&certificate)?, read(&key)?) {
            (Some(pem), Some(key_pem)) => {
                let bad = |what| move || PkiError::Content { what, path: certificate };
                Self::from_pem(pem, &key_pem).ok_or_else(bad("certificate authority"))
            }
            // The certificate is written last, so a key without one is what a crash left.
            (None, _) => {
                let (pem, key_pem) = create(common_name, env)?;
                write_private(&key, key_pem.as_bytes())?;
                write_private(&certificate, pem.as_bytes())?;
                Self::from_pem(pem, &key_pem)
                    .ok_or(PkiError::Content { what: "certificate authority", path: key })
            }
            (Some(_), None) => Err(PkiError::Content { what: "key", path: key }),
        }
    }

    /// An authority that is kept nowhere.
    pub fn ephemeral(common_name: &str, env: &Env) -> Result<Self, PkiError> {
        let (pem, key) = create(common_name, env)?;
        let lost =
            PkiError::Certificate { what: "reading a new authority", cause: "it is malformed".to_owned() };
        Self::from_pem(pem, &key).ok_or(lost)
    }

    fn from_pem(pem: String, key_pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let issuer = Issuer::from_ca_cert_der(&der, KeyPair::from_pem(key_pem).ok()?).ok()?;
        Some(Self { pem, der, issuer })
    }

    /// The certificate for clients to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// `sha256:` and the hash of the public key (its SubjectPublicKeyInfo), by which a joining node knows us.
    pub fn public_key_hash(&self) -> String {
        public_key_hash(&self.der).unwrap_or_default()
    }

    /// A new key with a certificate.
    pub fn issue(&self, profile: &Profile, env: &Env) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::certificate("generating a key"))?;
        let mut params = parameters(env, profile.lifetime);
        params.distinguished_name = distinguished_name(&profile.common_name, &profile.organizations);
        (params.key_usages, params.extended_key_usages) = usages(profile.purpose);
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = alternative_names(&profile.names)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::certificate("signing"))?;
        let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
        identity.ok_or(PkiError::Certificate {
            what: "reading a new certificate",
            cause: "it is malformed".to_owned(),
        })
    }

    /// The identity in `NAME.crt` and `NAME.key` under `dir`; it is issued anew when it is missing, does not fit
    /// `profile`, was issued by another authority, or has less than a third of its life left.
    pub fn issue_file(
        &self,
        dir: &Path,
        name: &str,
        profile: &Profile,
        env: &Env,
    ) -> Result<Identity, PkiError> {
        if let Some(identity) = Identity::load(dir, name)?
            && self.fits(&identity, profile, env.now())
        {
            return Ok(identity);
        }
        let identity = self.issue(profile, env)?;
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        write_replaceable(&file("key"), identity.key_pem.as_bytes())?;
        write_replaceable(&file("crt"), identity.certificate_pem.as_bytes())?;
        Ok(identity)
    }

    fn fits(&self, identity: &Identity, profile: &Profile, now: Timestamp) -> bool {
        let Some((_, certificate)) =
            identity.certificates.first().and_then(|der| X509Certificate::from_der(der).ok())
        else {
            return false;
        };
        let Ok((_, authority)) = X509Certificate::from_der(&self.der) else { return false };
        certificate.verify_signature(Some(authority.public_key())).is_ok()
            && !is_due(&certificate, now)
            && has_profile(&certificate, profile)
            && key_matches(&certificate, &identity.key_pem)
    }

    /// Signs a certificate request in PEM under `policy`. The subject and names are the request's, so the caller
    /// has to have judged them.
    pub fn sign_request(&self, request: &str, policy: &SigningPolicy, env: &Env) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .map_err(PkiError::certificate("reading the certificate request"))?;
        let fresh = parameters(env, policy.lifetime);
        request.params.not_before = fresh.not_before;
        request.params.not_after = fresh.not_after;
        request.params.serial_number = fresh.serial_number;
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = policy.key_usages.clone();
        request.params.extended_key_usages = policy.extended_key_usages.clone();
        request.params.use_authority_key_identifier_extension = true;
        let certificate =
            request.signed_by(&self.issuer).map_err(PkiError::certificate("signing the request"))?;
        Ok(certificate.pem())
    }
}

impl Identity {
    /// Takes a chain (leaf first) and its key.
    pub fn from_pem(certificate_pem: String, key_pem: String) -> Option<Self> {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<_, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).ok()?;
        (!certificates.is_empty()).then_some(Self { certificate_pem, key_pem, certificates, key })
    }

    /// The identity in `NAME.crt` and `NAME.key` under `dir`; `None` when one is missing or cannot be read.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, PkiError> {
        let certificate = read(&dir.join(format!("{name}.crt")))?;
        let key = read(&dir.join(format!("{name}.key")))?;
        Ok(certificate.zip(key).and_then(|(certificate, key)| Self::from_pem(certificate, key)))
    }

    /// Writes `NAME.key` and then `NAME.crt` under `dir`.
    pub fn store(&self, dir: &Path, name: &str) -> Result<(), PkiError> {
        write_private(&dir.join(format!("{name}.key")), self.key_pem.as_bytes())?;
        write_private(&dir.join(format!("{name}.crt")), self.certificate_pem.as_bytes())
    }

    /// Whether the certificate says what `profile` says, has not expired, and is for this key.
    pub fn is_valid(&self, profile: &Profile, now: Timestamp) -> bool {
        let leaf = self.certificates.first().and_then(|der| X509Certificate::from_der(der).ok());
        let Some((_, certificate)) = leaf else { return false };
        let is_current = now.as_second() < certificate.validity().not_after.timestamp();
        is_current && has_profile(&certificate, profile) && key_matches(&certificate, &self.key_pem)
    }

    /// When the certificate should be replaced: two thirds into its life. `None`: it cannot be read.
    pub fn due(&self) -> Option<Timestamp> {
        let (_, certificate) = X509Certificate::from_der(self.certificates.first()?).ok()?;
        due(&certificate)
    }
}

/// From when until when a certificate is good. `None`: it cannot be read.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let at = |second| Timestamp::from_second(second).ok();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

/// `sha256:` and the hash of a certificate's SubjectPublicKeyInfo.
pub fn public_key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Some(digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

fn create(common_name: &str, env: &Env) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(PkiError::certificate("generating a key"))?;
    let mut params = parameters(env, AUTHORITY_LIFETIME);
    params.distinguished_name = distinguished_name(common_name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(PkiError::certificate("signing an authority"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn parameters(env: &Env, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = Duration::from_secs(u64::try_from(env.now().as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + (now + lifetime);
    let mut serial = [0; 16];
    env.fill_random(&mut serial);
    // A serial number is positive and its first byte is not zero.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn distinguished_name(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value per type; nobody here needs more than one organization.
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative_names(names: &[String]) -> Result<Vec<SanType>, PkiError> {
    let sort = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name.as_str().try_into().map(SanType::DnsName),
    };
    names.iter().map(sort).collect::<Result<_, _>>().map_err(PkiError::certificate("a name of a server"))
}

fn usages(purpose: Purpose) -> (Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>) {
    let extended = match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    };
    (vec![KeyUsagePurpose::DigitalSignature], vec![extended])
}

fn due(certificate: &X509Certificate<'_>) -> Option<Timestamp> {
    let (from, until) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    Timestamp::from_second(until - (until - from) / 3).ok()
}

fn is_due(certificate: &X509Certificate<'_>, now: Timestamp) -> bool {
    due(certificate).is_none_or(|due| due <= now)
}

fn has_profile(certificate: &X509Certificate<'_>, profile: &Profile) -> bool {
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let organizations: Vec<_> = subject.iter_organization().filter_map(|name| name.as_str().ok()).collect();
    let names = names_of(certificate);
    let wanted = profile.organizations.first().map(String::as_str);
    common_name == Some(&profile.common_name)
        && organizations.first().copied() == wanted
        && profile.names.iter().all(|name| names.contains(name))
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn key_matches(certificate: &X509Certificate<'_>, key_pem: &str) -> bool {
    let key = KeyPair::from_pem(key_pem);
    key.is_ok_and(|key| key.public_key_raw() == &certificate.public_key().subject_public_key.data[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(seconds: i64) -> Env {
        Env::seeded(1, Timestamp::from_second(seconds).unwrap())
    }

    #[tokio::test]
    async fn an_authority_is_loaded_again_and_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = Authority::load_or_create(dir.path(), "ca", "kubernetes", &env(1_700_000_000)).unwrap();
        let read = Authority::load_or_create(dir.path(), "ca", "kubernetes", &env(1_700_000_000)).unwrap();
        assert_eq!(made.pem(), read.pem());
        assert!(made.public_key_hash().starts_with("sha256:"));
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_identity_is_kept_until_it_is_due_or_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let start = 1_700_000_000;
        let authority = Authority::load_or_create(dir.path(), "ca", "kubernetes", &env(start)).unwrap();
        let profile = Profile::apiserver(vec!["localhost".into(), "127.0.0.1".into(), "::1".into()]);
        let get = |authority: &Authority, profile: &Profile, days: i64| {
            let env = env(start + days * 24 * 3600);
            authority.issue_file(dir.path(), "apiserver", profile, &env).unwrap().certificate_pem
        };
        let first = get(&authority, &profile, 0);
        assert_eq!(get(&authority, &profile, 240), first);
        let second = get(&authority, &profile, 250);
        assert_ne!(second, first);
        let more = Profile::apiserver(vec!["localhost".into(), "10.0.0.1".into()]);
        assert_ne!(get(&authority, &more, 250), second);
        let third = get(&authority, &profile, 250);
        let other = Authority::ephemeral("kubernetes", &env(start)).unwrap();
        assert_ne!(get(&other, &profile, 250), third);
    }

    #[tokio::test]
    async fn a_request_is_signed_with_the_signers_usages() {
        let env = env(1_700_000_000);
        let authority = Authority::ephemeral("kubernetes", &env).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name("system:node:a", &["system:nodes".to_owned()]);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let policy = SigningPolicy::of(Purpose::Client, Duration::from_secs(3600));
        let pem = authority.sign_request(&request, &policy, &env).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            certificate.subject().iter_common_name().next().unwrap().as_str().unwrap(),
            "system:node:a"
        );
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(certificate.validity().not_after.timestamp(), 1_700_003_600);
    }
}
