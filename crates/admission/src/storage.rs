//! Plugins about storage and classes that are defaults: DefaultStorageClass, StorageObjectInUseProtection,
//! PersistentVolumeClaimResize, DefaultIngressClass.

use async_trait::async_trait;
use machinery::Status;
use machinery::quantity::Quantity;
use resources::value::{Access, Fill};
use serde_json::Value;

use crate::lookup::{Lookup, marked_default};
use crate::{Attributes, Operation, Plugin};

const STORAGE_GROUP: &str = "storage.k8s.io";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// A claim that names no class gets the default one.
pub struct DefaultStorageClass {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "persistentvolumeclaims")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let claim = attributes.new_object();
        let annotated = claim.at("/metadata/annotations").get(CLASS_ANNOTATION).is_some();
        if annotated || claim.has("/spec/storageClassName") {
            return Ok(());
        }
        let classes = self.lookup.list(STORAGE_GROUP, "storageclasses", "").await?;
        let default = marked_default(&classes, "storageclass.kubernetes.io/is-default-class");
        if let (Some(class), Some(claim)) = (default, attributes.object.as_deref_mut()) {
            claim.child("spec").set("storageClassName", class.text("/metadata/name"));
        }
        Ok(())
    }
}

/// Volumes and claims are kept while they are used. Needs the controllers that take the finalizers away.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let storage = attributes.is("", "persistentvolumes") || attributes.is("", "persistentvolumeclaims");
        attributes.operation == Operation::Create && storage
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let is_volume = attributes.is("", "persistentvolumes");
        let finalizer =
            if is_volume { "kubernetes.io/pv-protection" } else { "kubernetes.io/pvc-protection" };
        let Some(object) = attributes.object.as_deref_mut() else { return Ok(()) };
        let metadata = object.child("metadata");
        let mut finalizers = metadata.items("/finalizers").to_vec();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push(finalizer.into());
            metadata.set("finalizers", finalizers);
        }
        Ok(())
    }
}

/// A claim grows only where its class can grow volumes.
pub struct PersistentVolumeClaimResize {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims")
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let size = |claim: &Value| Quantity::read(claim.at("/spec/resources/requests/storage"));
        let (new, old) = (attributes.new_object(), attributes.old_object());
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.text("/status/phase") != "Bound" {
            return Err(attributes.forbidden("only bound persistent volume claims can be expanded"));
        }
        let class = new.text("/spec/storageClassName");
        let class = self.lookup.find(STORAGE_GROUP, "storageclasses", "", class).await?;
        if class.is_some_and(|class| class.flag("/allowVolumeExpansion")) {
            return Ok(());
        }
        let detail = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(attributes.forbidden(detail))
    }
}

/// An ingress that names no class gets the default one.
pub struct DefaultIngressClass {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("networking.k8s.io", "ingresses")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let ingress = attributes.new_object();
        let annotated = ingress.at("/metadata/annotations").get("kubernetes.io/ingress.class").is_some();
        if annotated || ingress.has("/spec/ingressClassName") {
            return Ok(());
        }
        let classes = self.lookup.list("networking.k8s.io", "ingressclasses", "").await?;
        let default = marked_default(&classes, "ingressclass.kubernetes.io/is-default-class");
        if let (Some(class), Some(ingress)) = (default, attributes.object.as_deref_mut()) {
            ingress.child("spec").set("ingressClassName", class.text("/metadata/name"));
        }
        Ok(())
    }
}
