//! Certificates through the API: a CertificateSigningRequest is sent and its certificate awaited (KEP-1513).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use auth::pki::{Identity, Profile, SigningRequest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, typed};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use machinery::Status;
use serde_json::json;

use super::follow;

/// How long a certificate is waited for. Whoever approves by hand can start the node again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for.
pub struct Wanted {
    pub profile: Profile,
    signer: &'static str,
    usages: [&'static str; 2],
}

/// The certificate by which a node speaks to the API server.
pub fn client(node: &str) -> Wanted {
    Wanted {
        profile: Profile::node(node),
        signer: "kubernetes.io/kube-apiserver-client-kubelet",
        usages: ["digital signature", "client auth"],
    }
}

/// The certificate with which a kubelet serves.
pub fn serving(node: &str, addresses: &[IpAddr]) -> Wanted {
    Wanted {
        profile: Profile::kubelet_serving(node, addresses),
        signer: "kubernetes.io/kubelet-serving",
        usages: ["digital signature", "server auth"],
    }
}

/// Sends the request and waits for the certificate.
pub async fn request(client: &Client, wanted: &Wanted) -> Result<Identity, Status> {
    let request = SigningRequest::generate(&wanted.profile).map_err(Status::internal)?;
    send(client, wanted, request).await
}

/// As [`request`], with the key that an earlier try left in `file`, or a new one that is written there before anybody
/// is asked: by its key the cluster knows a machine that asks again from another one that wants its name.
pub async fn request_again(client: &Client, wanted: &Wanted, file: &Path) -> Result<Identity, Status> {
    let known = auth::pki::read(file).map_err(Status::internal)?;
    let again = known.and_then(|key| SigningRequest::with_key(&wanted.profile, &key).ok());
    let request = match again {
        Some(request) => request,
        None => SigningRequest::generate(&wanted.profile).map_err(Status::internal)?,
    };
    auth::pki::write_private(file, request.key_pem.as_bytes()).map_err(Status::internal)?;
    send(client, wanted, request).await
}

async fn send(client: &Client, wanted: &Wanted, request: SigningRequest) -> Result<Identity, Status> {
    let body = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(&request.pem),
            "signerName": wanted.signer,
            "usages": wanted.usages,
        },
    });
    let name = client.cluster::<Request>().create(&body).await?.meta().name.to_string();
    let decided = follow::until(client.cluster::<Request>(), &name, outcome);
    let certificate = tokio::time::timeout(PATIENCE, decided).await.map_err(|_| {
        Status::internal(format!("certificatesigningrequest {name} was not signed within {PATIENCE:?}"))
    })???;
    Identity::from_pem(certificate, request.key_pem)
        .ok_or_else(|| Status::internal(format!("certificatesigningrequest {name}: not a certificate")))
}

fn outcome(object: &machinery::Object) -> Option<Result<String, Status>> {
    let request = typed::<Request>(object).ok()?;
    let status = request.status.as_ref()?;
    if let Some(certificate) = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty()) {
        return Some(Ok(String::from_utf8_lossy(&certificate.0).into_owned()));
    }
    let refused = status.conditions.iter().flatten().find(|c| c.type_ == "Denied" || c.type_ == "Failed")?;
    let message = refused.message.clone().unwrap_or_default();
    let name = &object.meta().name;
    Some(Err(Status::internal(format!("certificatesigningrequest {name}: {} {message}", refused.type_))))
}
