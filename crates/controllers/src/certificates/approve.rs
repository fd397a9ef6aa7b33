//! Which requests need no person: those of nodes for themselves, and of bootstrap tokens for a node.

use std::sync::Arc;

use auth::pki::CertificateRequest;
use auth::{Attributes, Authorizer, User};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Request, CertificateSigningRequestSpec as Spec,
};
use k8s_openapi::api::core::v1::Node;

pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With the message of the condition.
    Approve(&'static str),
    /// With the message of the condition.
    Deny(String),
    /// Somebody else decides.
    Leave,
}

/// Judges a request that is neither approved nor denied. `node` finds a node by its name; `claim` gives the name of a
/// node to come to a public key, unless another one has it.
pub fn judge(
    request: &Request,
    authorizer: &dyn Authorizer,
    node: impl Fn(&str) -> Option<Arc<Node>>,
    claim: impl Fn(&str, &[u8]) -> bool,
) -> Verdict {
    let spec = &request.spec;
    let Some(asked) = CertificateRequest::from_pem(&spec.request.0) else { return Verdict::Leave };
    let Some(name) = node_name(&asked) else { return Verdict::Leave };
    let is_own = spec.username.as_deref() == Some(asked.common_name.as_str());
    match spec.signer_name.as_str() {
        CLIENT_SIGNER if is_client(spec, &asked) => {
            let (subresource, message) = if is_own {
                (
                    "selfnodeclient",
                    "Auto approving self kubelet client certificate after SubjectAccessReview.",
                )
            } else {
                ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
            };
            match authorizer.authorize(&attributes(spec, subresource)).is_allowed() {
                true if !is_own && node(name).is_some_and(|node| is_ready(&node)) => taken(name),
                true if !is_own && !claim(name, &asked.public_key) => contested(name),
                true => Verdict::Approve(message),
                false => Verdict::Leave,
            }
        }
        SERVING_SIGNER if is_own && is_serving(spec, &asked) => match node(name) {
            Some(node) if names_are_of(&asked, name, &node) => {
                Verdict::Approve("Auto approving kubelet serving certificate for the node's own addresses.")
            }
            _ => Verdict::Leave,
        },
        _ => Verdict::Leave,
    }
}

/// A token may not take the place of a node that is at work: two machines under one name would undo each other.
fn taken(name: &str) -> Verdict {
    Verdict::Deny(format!(
        "a node {name} is there already and ready; give this machine another name with --node-name, or take that one \
         out first: kubectl delete node {name}"
    ))
}

/// Of two machines that come under one name at the same time the first becomes the node.
fn contested(name: &str) -> Verdict {
    Verdict::Deny(format!(
        "another machine is just joining as {name}; give this machine another name with --node-name, or try again in a \
         minute if that one is gone"
    ))
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The node that the subject names, if it has the form of a node's.
fn node_name(asked: &CertificateRequest) -> Option<&str> {
    let name = asked.common_name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())?;
    (asked.organizations == [NODES_GROUP]).then_some(name)
}

fn is_client(spec: &Spec, asked: &CertificateRequest) -> bool {
    !asked.has_names() && usages_are(spec, "client auth")
}

fn is_serving(spec: &Spec, asked: &CertificateRequest) -> bool {
    asked.has_names() && asked.other_names == 0 && usages_are(spec, "server auth")
}

/// Exactly the usages of a TLS certificate for `purpose`; key encipherment is for RSA keys and may be missing.
fn usages_are(spec: &Spec, purpose: &str) -> bool {
    let usages = spec.usages.as_deref().unwrap_or_default();
    let known = |usage: &String| ["digital signature", "key encipherment", purpose].contains(&usage.as_str());
    let has = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    usages.iter().all(known) && has("digital signature") && has(purpose)
}

/// A node may speak for its name and for the addresses that it reports.
fn names_are_of(asked: &CertificateRequest, name: &str, node: &Node) -> bool {
    let reported = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let has = |text: &str| reported.iter().any(|address| address.address == text);
    asked.dns_names.iter().all(|dns| dns == name || has(dns))
        && asked.addresses.iter().all(|address| has(&address.to_string()))
}

fn attributes(spec: &Spec, subresource: &str) -> Attributes {
    let user = User {
        name: spec.username.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        ..User::default()
    };
    Attributes {
        user,
        verb: "create".to_owned(),
        group: "certificates.k8s.io".to_owned(),
        version: "*".to_owned(),
        resource: "certificatesigningrequests".to_owned(),
        subresource: subresource.to_owned(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth::Decision;
    use auth::pki::{Profile, SigningRequest};
    use k8s_openapi::ByteString;
    use serde_json::json;

    /// Allows what the table of default bindings allows bootstrap tokens and nodes.
    struct Bindings;

    impl Authorizer for Bindings {
        fn authorize(&self, attributes: &Attributes) -> Decision {
            let allowed = match attributes.subresource.as_str() {
                "nodeclient" => attributes.user.groups.iter().any(|group| group == "system:bootstrappers"),
                _ => attributes.user.groups.iter().any(|group| group == NODES_GROUP),
            };
            if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
        }
    }

    fn request(signer: &str, profile: &Profile, user: (&str, &str), usages: &[&str]) -> Request {
        let pem = SigningRequest::generate(profile).unwrap().pem;
        let spec = Spec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(usages.iter().map(|&usage| usage.to_owned()).collect()),
            username: Some(user.0.to_owned()),
            groups: Some(vec![user.1.to_owned()]),
            ..Spec::default()
        };
        Request { spec, ..Request::default() }
    }

    fn verdict(request: &Request) -> bool {
        verdict_beside(request, "False") != Verdict::Leave
    }

    /// With a node of that name which is ready or not.
    fn verdict_beside(request: &Request, ready: &str) -> Verdict {
        let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.1.1.2"}],
            "conditions": [{"type": "Ready", "status": ready}]}});
        let node: Arc<Node> = Arc::new(serde_json::from_value(node).unwrap());
        judge(request, &Bindings, |name| (name == "n2").then(|| node.clone()), |name, _| name != "contested")
    }

    #[test]
    fn a_ready_node_s_name_is_taken() {
        let client = ["digital signature", "client auth"];
        let (token, own) =
            (("system:bootstrap:abcdef", "system:bootstrappers"), ("system:node:n2", NODES_GROUP));
        for (name, user, ready, wanted) in [
            ("n2", token, "True", "deny"),
            ("n2", token, "Unknown", "approve"),
            ("n2", token, "False", "approve"),
            ("n2", own, "True", "approve"),
            ("n4", token, "True", "approve"),
            ("contested", token, "False", "deny"),
            ("contested", ("system:node:contested", NODES_GROUP), "False", "approve"),
        ] {
            let request = request(CLIENT_SIGNER, &Profile::node(name), user, &client);
            let got = match verdict_beside(&request, ready) {
                Verdict::Approve(_) => "approve",
                Verdict::Deny(_) => "deny",
                Verdict::Leave => "leave",
            };
            assert_eq!(got, wanted, "{name} {user:?} {ready}");
        }
    }

    #[test]
    fn nodes_get_what_is_theirs() {
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth"];
        let (token, own, other) = (
            ("system:bootstrap:abcdef", "system:bootstrappers"),
            ("system:node:n2", NODES_GROUP),
            ("system:node:n3", NODES_GROUP),
        );
        let (node, masters) = (Profile::node("n2"), Profile::admin());
        let serving = |address: &str| Profile::kubelet_serving("n2", &[address.parse().unwrap()]);
        let cases = [
            ("a token for a node", CLIENT_SIGNER, &node, token, &client[..], true),
            ("a node for itself", CLIENT_SIGNER, &node, own, &client[..], true),
            ("a node for another", CLIENT_SIGNER, &node, other, &client[..], false),
            ("an administrator's certificate", CLIENT_SIGNER, &masters, token, &client[..], false),
            ("a server's usage", CLIENT_SIGNER, &node, token, &server[..], false),
            ("another signer", "kubernetes.io/kube-apiserver-client", &node, token, &client[..], false),
            ("names in a client's", CLIENT_SIGNER, &serving("10.1.1.2"), token, &client[..], false),
            ("serving on its own address", SERVING_SIGNER, &serving("10.1.1.2"), own, &server[..], true),
            ("serving on a strange address", SERVING_SIGNER, &serving("10.1.1.3"), own, &server[..], false),
            ("serving for another node", SERVING_SIGNER, &serving("10.1.1.2"), other, &server[..], false),
            ("serving for a token", SERVING_SIGNER, &serving("10.1.1.2"), token, &server[..], false),
        ];
        for (what, signer, profile, user, usages, want) in cases {
            assert_eq!(verdict(&request(signer, profile, user, usages)), want, "{what}");
        }
    }
}
