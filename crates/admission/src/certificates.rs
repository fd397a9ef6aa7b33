//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use std::sync::Arc;

use async_trait::async_trait;
use auth::Authorizer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::Status;
use resources::value::Access;
use x509_parser::prelude::FromDer;

use crate::{Attributes, Operation, Plugin};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

/// Whether a user may act for a signer: by its full name, or by all names of its domain.
fn may(authorizer: &Arc<dyn Authorizer>, attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let question = auth::Attributes {
            user: attributes.user.clone(),
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..auth::Attributes::default()
        };
        if authorizer.authorize(&question).is_allowed() {
            return true;
        }
    }
    false
}

/// Only who may approve for a signer approves or denies.
pub struct CertificateApproval {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.is_resource(GROUP, RESOURCE)
            && attributes.subresource == "approval"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let signer = attributes.old_object().text("/spec/signerName");
        if may(&self.authorizer, attributes, "approve", signer) {
            return Ok(());
        }
        Err(attributes
            .forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// Only who may sign for a signer issues certificates.
pub struct CertificateSigning {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.is_resource(GROUP, RESOURCE)
            && attributes.subresource == "status"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (new, old) = (attributes.new_object(), attributes.old_object());
        let unchanged = new.at("/status/certificate") == old.at("/status/certificate")
            && new.at("/status/conditions") == old.at("/status/conditions");
        let signer = old.text("/spec/signerName");
        if unchanged || may(&self.authorizer, attributes, "sign", signer) {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Nobody asks for a certificate of `system:masters`.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is(GROUP, RESOURCE)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let request = attributes.new_object();
        if request.text("/spec/signerName") != "kubernetes.io/kube-apiserver-client" {
            return Ok(());
        }
        let is_master =
            organizations(request.text("/spec/request")).iter().any(|group| group == "system:masters");
        if is_master {
            let detail =
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
            return Err(attributes.forbidden(detail));
        }
        Ok(())
    }
}

/// The organizations in the subject of a request (base64 of PEM); none when it cannot be read, which validation
/// refuses elsewhere.
fn organizations(request: &str) -> Vec<String> {
    let pem = STANDARD.decode(request).unwrap_or_default();
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return Vec::new() };
    let Ok((_, request)) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
    else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect()
}
