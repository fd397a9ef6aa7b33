//! Images of containers and of volumes: found on this machine or pulled with the pod's credentials.

use images::{Image, ImageError};
use k8s_openapi::api::core::v1::{ImageVolumeSource, Secret};

use super::executor::{Executor, chain};
use crate::machine::spec::Member;
use crate::machine::{Event, ImageFailure, ImageRef, Pulled, StartFailure};
use crate::make::environment::{Lookup, registry_credentials};

impl Executor {
    pub async fn find_image(self, container: String, image: String) {
        let found = self.shared.images.find(&image).await;
        let found = found.map(|found| found.as_ref().map(image_ref)).map_err(image_failure);
        self.answer(Event::ImageFound { container, image, found }).await;
    }

    pub async fn pull_image(self, container: String, image: String) {
        let begun = tokio::time::Instant::now();
        let credentials = self.credentials(&image).await;
        let pulled = self.shared.images.pull(&image, &credentials).await;
        self.shared.pulled.notify_one();
        let took = begun.elapsed();
        let pulled = pulled
            .map(|image| Pulled {
                image: image_ref(&image),
                took,
                took_with_waiting: took,
                size_bytes: image.size_bytes,
            })
            .map_err(image_failure);
        self.answer(Event::ImagePulled { container, image, pulled }).await;
    }

    /// The pull secrets' credentials for the image's registry.
    async fn credentials(&self, image: &str) -> Vec<images::Credentials> {
        let secrets = self.pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let names: Vec<_> = secrets.map(|secret| secret.name.clone()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let snapshot = self.references.snapshot().await;
        let mut found = Vec::new();
        for name in names {
            let Ok(Some(object)) = snapshot.secret(&name) else { continue };
            let Ok(secret) = client::typed::<Secret>(&object) else { continue };
            found.extend(registry_credentials(&secret));
        }
        let matching = found.into_iter().filter(|(host, _)| registry_matches(host, image));
        matching.map(|(_, credentials)| credentials).collect()
    }

    /// Makes sure that the image volumes which the container mounts are there.
    pub(super) async fn volume_images(&self, member: &Member) -> Result<(), StartFailure> {
        let mounts = member.container.volume_mounts.as_deref().unwrap_or_default();
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes.filter(|volume| mounts.iter().any(|mount| mount.name == volume.name)) {
            let Some(source) = &volume.image else { continue };
            let name = source.reference.clone().unwrap_or_default();
            let failed = |failure| StartFailure::VolumeImage { image: name.clone(), failure };
            let image = self.volume_image(source, &name).await.map_err(failed)?;
            let mounted = self.shared.volumes.mount_image(&self.identity.uid, &volume.name, &image.layers);
            mounted.map_err(|error| failed(ImageFailure::Failed(chain(&error))))?;
        }
        Ok(())
    }

    async fn volume_image(&self, source: &ImageVolumeSource, name: &str) -> Result<Image, ImageFailure> {
        let images = &self.shared.images;
        let policy = source.pull_policy.as_deref().unwrap_or(if is_latest(name) { "Always" } else { "" });
        if policy != "Always"
            && let Some(found) = images.find(name).await.map_err(image_failure)?
        {
            return Ok(found);
        }
        if policy == "Never" {
            let cause = format!("Container image {name:?} is not present with pull policy of Never");
            return Err(ImageFailure::Failed(cause));
        }
        let credentials = self.credentials(name).await;
        let pulled = images.pull(name, &credentials).await.map_err(image_failure);
        self.shared.pulled.notify_one();
        pulled
    }
}

/// Whether a reference means what is newest: no tag and no digest, or `latest`.
fn is_latest(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    !name.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// The reference that statuses show.
pub fn image_ref(image: &Image) -> ImageRef {
    let reference = image.digests.first().unwrap_or(&image.id).clone();
    ImageRef { id: image.id.clone(), reference }
}

fn image_failure(error: ImageError) -> ImageFailure {
    match error {
        ImageError::InvalidName { cause, .. } => ImageFailure::InvalidName(cause),
        error => ImageFailure::Failed(chain(&error)),
    }
}

/// Whether credentials filed under `host` (`https://index.docker.io/v1/`, `registry.example/team`, `*.example`) are
/// for the registry of `image`.
fn registry_matches(host: &str, image: &str) -> bool {
    let host = host.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let host = host.trim_end_matches("/v1").trim_end_matches("/v2");
    let first = image.split('/').next().unwrap_or_default();
    let explicit = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = if explicit { image.to_owned() } else { format!("docker.io/{image}") };
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    if let Some(domain) = host.strip_prefix("*.") {
        let registry = full.split('/').next().unwrap_or_default();
        return registry.split_once('.').is_some_and(|(_, rest)| rest == domain);
    }
    full == host || full.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        let cases = [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "library/nginx", true),
            ("registry.example", "registry.example/a/b:1", true),
            ("registry.example/a", "registry.example/a/b:1", true),
            ("registry.example/a", "registry.example/b:1", false),
            ("*.example", "r.example/b", true),
            ("*.example", "r.s.example/b", false),
            ("localhost:5000", "localhost:5000/x", true),
            ("other", "nginx", false),
        ];
        for (host, image, want) in cases {
            assert_eq!(registry_matches(host, image), want, "{host} {image}");
        }
    }

    #[test]
    fn the_newest() {
        for (name, want) in [
            ("nginx", true),
            ("localhost:5000/nginx", true),
            ("localhost:5000/nginx:latest", true),
            ("nginx:1", false),
            ("nginx@sha256:00", false),
        ] {
            assert_eq!(is_latest(name), want, "{name}");
        }
    }
}
