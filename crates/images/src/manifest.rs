//! Manifests, indexes and configurations: OCI image-spec 1.1 and Docker's schema 2, as far as they are read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::ImageConfig;

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// The value of `Accept` when asking for a manifest.
pub(crate) fn accepted_types() -> String {
    [INDEX_TYPES, MANIFEST_TYPES].concat().join(", ")
}

/// A pointer to content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub platform: Option<Platform>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
    pub variant: String,
}

/// What stands behind a name: one image or several for different machines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Manifest {
    Image(ImageManifest),
    Index(Vec<Descriptor>),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ImageManifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    schema_version: u32,
    media_type: String,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads a manifest or index; tells them apart by content, as media types are often missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| format!("manifest: {error}"))?;
        match raw {
            Raw { schema_version: 1, .. } => {
                Err("manifest has Docker's schema 1, which is no longer supported".into())
            }
            Raw { manifests: Some(manifests), .. } => Ok(Self::Index(manifests)),
            Raw { config: Some(config), layers, .. } => Ok(Self::Image(ImageManifest { config, layers })),
            Raw { media_type, .. } => Err(format!("manifest of an unknown kind {media_type:?}")),
        }
    }
}

/// The image for this machine.
pub(crate) fn select<'a>(index: &'a [Descriptor], architecture: &str) -> Option<&'a Descriptor> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => false,
    };
    let variant = |descriptor: &&Descriptor| match descriptor.platform.as_ref().map(|p| p.variant.as_str()) {
        Some("" | "v8") | None => 0,
        Some(_) => 1,
    };
    let best = index.iter().filter(fits).min_by_key(variant);
    // An index of a single image without a platform is an image in a wrapper.
    best.or_else(|| index.iter().find(|_| index.len() == 1 && index[0].platform.is_none()))
}

/// The name of this machine's architecture in image indexes.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawConfig {
    config: Option<RawProcess>,
    rootfs: RawRoot,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRoot {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<PathBuf, serde_json::Value>>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// Reads an image's configuration: what to run, and the digests of the unpacked layers.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<(ImageConfig, Vec<String>), String> {
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|error| format!("configuration: {error}"))?;
    let process = raw.config.unwrap_or_default();
    let config = ImageConfig {
        entrypoint: process.entrypoint.unwrap_or_default(),
        command: process.cmd.unwrap_or_default(),
        environment: process.env.unwrap_or_default(),
        working_directory: process.working_dir.unwrap_or_default(),
        user: process.user.unwrap_or_default(),
        exposed_ports: process.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: process.volumes.unwrap_or_default().into_keys().collect(),
        stop_signal: process.stop_signal.unwrap_or_default(),
        labels: process.labels.unwrap_or_default(),
    };
    Ok((config, raw.rootfs.diff_ids))
}

/// `sha256:` and the digest in hexadecimal digits.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

pub(crate) fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in hash {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// The hexadecimal part of a digest, if it is one that can be used as a file name.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_content() {
        let image = br#"{"schemaVersion":2,"config":{"digest":"sha256:c","size":1},"layers":[{"digest":"sha256:l","size":2}]}"#;
        assert!(matches!(Manifest::parse(image), Ok(Manifest::Image(m)) if m.layers.len() == 1));
        assert!(matches!(Manifest::parse(br#"{"schemaVersion":2,"manifests":[]}"#), Ok(Manifest::Index(_))));
        for bad in [&b"{}"[..], b"[]", br#"{"schemaVersion":1}"#] {
            assert!(Manifest::parse(bad).is_err());
        }
    }

    #[test]
    fn the_platform_decides() {
        let index = |platforms: &[(&str, &str, &str)]| -> Vec<Descriptor> {
            let descriptor = |(os, architecture, variant): &(&str, &str, &str)| Descriptor {
                digest: format!("{os}/{architecture}/{variant}"),
                platform: Some(Platform {
                    os: (*os).into(),
                    architecture: (*architecture).into(),
                    variant: (*variant).into(),
                }),
                ..Descriptor::default()
            };
            platforms.iter().map(descriptor).collect()
        };
        let many = index(&[
            ("windows", "amd64", ""),
            ("linux", "arm64", "v9"),
            ("linux", "arm64", "v8"),
            ("linux", "amd64", ""),
        ]);
        let chosen = |architecture| select(&many, architecture).map(|found| found.digest.as_str());
        assert_eq!(chosen("amd64"), Some("linux/amd64/"));
        assert_eq!(chosen("arm64"), Some("linux/arm64/v8"));
        assert_eq!(chosen("riscv64"), None);
        let single = [Descriptor { digest: "only".into(), ..Descriptor::default() }];
        assert_eq!(select(&single, "amd64"), Some(&single[0]));
    }

    #[test]
    fn configurations_with_nulls_are_read() {
        let (config, layers) = parse_config(
            br#"{"config":{"Entrypoint":null,"Cmd":["a"],"ExposedPorts":{"80/tcp":{}},"Labels":null},"rootfs":{"diff_ids":["sha256:x"]}}"#,
        )
        .unwrap();
        assert_eq!(
            (config.command, config.exposed_ports, layers),
            (vec!["a".into()], vec!["80/tcp".into()], vec!["sha256:x".into()])
        );
    }
}
