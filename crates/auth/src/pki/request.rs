//! What a certificate request asks for (PKCS #10, RFC 2986).

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

/// The subject and the names of a request. The signature was checked: the sender holds the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Alternative names of other sorts (mail addresses, URIs, …).
    pub other_names: usize,
    /// The public key: SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl CertificateRequest {
    /// Reads a request in PEM; `None` when it is malformed or not signed with its own key.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem).ok()?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        request.verify_signature().ok()?;
        let subject = &request.certification_request_info.subject;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).unwrap_or_default()
        };
        let mut read = Self {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            public_key: request.certification_request_info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| read.add(name));
            }
        }
        Some(read)
    }

    /// Whether the request asks for any alternative name.
    pub fn has_names(&self) -> bool {
        !self.dns_names.is_empty() || !self.addresses.is_empty() || self.other_names > 0
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        let address = |bytes: &[u8]| -> Option<IpAddr> {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
        };
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.addresses.push(address),
                None => self.other_names += 1,
            },
            _ => self.other_names += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Profile, SigningRequest};

    #[test]
    fn requests_are_read_back() {
        let addresses = ["10.1.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let request = SigningRequest::generate(&Profile::kubelet_serving("node-2", &addresses)).unwrap();
        let read = CertificateRequest::from_pem(request.pem.as_bytes()).unwrap();
        let want = CertificateRequest {
            common_name: "system:node:node-2".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec!["node-2".to_owned()],
            addresses: addresses.to_vec(),
            other_names: 0,
            public_key: read.public_key.clone(),
        };
        assert_eq!(read, want);
        assert_eq!(CertificateRequest::from_pem(b"nothing"), None);
    }

    #[test]
    fn the_same_key_can_ask_again() {
        let profile = Profile::node("node-2");
        let key = |request: &SigningRequest| {
            CertificateRequest::from_pem(request.pem.as_bytes()).unwrap().public_key
        };
        let first = SigningRequest::generate(&profile).unwrap();
        let again = SigningRequest::with_key(&profile, &first.key_pem).unwrap();
        assert_eq!(key(&first), key(&again));
        assert_ne!(key(&first), key(&SigningRequest::generate(&profile).unwrap()));
        assert!(SigningRequest::with_key(&profile, "nothing").is_err());
    }
}
