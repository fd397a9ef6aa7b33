//! Image names: parsed as Docker does, always completed.

use crate::ImageError;

const DOCKER_HUB: &str = "docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A complete image name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `registry.k8s.io`, `localhost:5000`, …
    pub registry: String,
    /// `library/nginx`
    pub repository: String,
    /// `latest` when the name has neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…`; wins over the tag.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name as people write it and completes it.
    pub fn parse(name: &str) -> Result<Self, ImageError> {
        parse(name)
            .map_err(|cause| ImageError::InvalidName { name: name.to_owned(), cause: cause.to_owned() })
    }

    /// What a registry's API calls the manifest: the digest or the tag.
    pub fn manifest(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The full name with its tag, if it has no digest.
    pub fn tagged(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (None, Some(tag)) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// The full name with that digest.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(name: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (name, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(check_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(path);
    check_repository(&repository)?;
    check_registry(&registry)?;
    if registry.len() + repository.len() > NAME_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = match (&tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        _ => tag,
    };
    Ok(Reference { registry, repository, tag, digest })
}

fn split_registry(path: &str) -> (String, String) {
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        _ => (DOCKER_HUB, path.to_owned()),
    };
    match registry {
        DOCKER_HUB | "index.docker.io" | "registry-1.docker.io" => {
            let repository =
                if repository.contains('/') { repository } else { format!("library/{repository}") };
            (DOCKER_HUB.to_owned(), repository)
        }
        other => (other.to_owned(), repository),
    }
}

fn check_digest(digest: &str) -> Result<String, &'static str> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            Ok(digest.to_owned())
        }
        Some(_) => Err("invalid digest"),
        None => Err("unsupported digest algorithm: only sha256 is known"),
    }
}

fn check_tag(tag: &str) -> Result<String, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if valid { Ok(tag.to_owned()) } else { Err("invalid reference format: bad tag") }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let component = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|byte| plain(*byte) || matches!(byte, b'.' | b'_' | b'-'))
            && !part.contains("..")
            && !part.contains("___")
    };
    if repository.split('/').all(component) { Ok(()) } else { Err("invalid reference format") }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    if !registry.is_empty() && registry.bytes().all(host) { Ok(()) } else { Err("invalid registry host") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let hex = "a".repeat(64);
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("kobune.local/web", "kobune.local/web:latest"),
            ("nginx@sha256:HEX", "docker.io/library/nginx@sha256:HEX"),
            ("nginx:1@sha256:HEX", "docker.io/library/nginx:1@sha256:HEX"),
        ];
        for (name, full) in cases {
            let parsed = Reference::parse(&name.replace("HEX", &hex)).unwrap().to_string();
            assert_eq!(parsed, full.replace("HEX", &hex), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [
            "",
            "Nginx",
            "a/B",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@md5:00",
            "a//b",
            "-a",
            "a..b",
            "a b",
            "/a",
            "a/../b",
        ] {
            assert!(Reference::parse(name).is_err(), "{name:?}");
        }
    }
}
