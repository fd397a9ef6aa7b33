//! Importing: archives of `docker save` and OCI layouts.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::images::check_digests;
use crate::manifest::{
    Descriptor, ImageManifest, Manifest, architecture, digest_of, hex_of, parse_config, select,
};
use crate::pull::unpack_layer;
use crate::reference::Reference;
use crate::store::{Record, Store, io_error, remove_tree};
use crate::unpack::decompress;
use crate::{Image, ImageError};

const METADATA_BYTES_MAX: u64 = 8 << 20;
const FILES_MAX: usize = 10_000;
const REFERENCE_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Takes all images of an archive that fit this machine.
pub(crate) fn import(
    store: &Store,
    archive: &Path,
    name: Option<&Reference>,
) -> Result<Vec<Image>, ImageError> {
    let _active = store.activity().map_err(io_error("cannot lock the image store"))?;
    let work = store.work_directory().map_err(io_error("cannot make a work directory"))?;
    let importer = Importer { store, archive, directory: work.clone() };
    let outcome = importer.run(name);
    remove_tree(&work).map_err(io_error(format!("cannot remove {}", work.display())))?;
    outcome
}

struct Importer<'a> {
    store: &'a Store,
    archive: &'a Path,
    /// Where the archive's files are.
    directory: PathBuf,
}

/// An image of the archive before it is stored.
struct Found {
    config: PathBuf,
    layers: Vec<PathBuf>,
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Vec<Descriptor>,
}

impl Importer<'_> {
    fn run(&self, name: Option<&Reference>) -> Result<Vec<Image>, ImageError> {
        self.extract().map_err(io_error(format!("cannot read {}", self.archive.display())))?;
        let found = if self.directory.join("manifest.json").is_file() {
            self.saved_images()?
        } else if self.directory.join("index.json").is_file() {
            self.layout_images()?
        } else {
            return Err(self.damaged("neither an archive of docker save nor an OCI layout"));
        };
        if found.is_empty() {
            return Err(self.damaged(format!("no image for linux/{}", architecture())));
        }
        let single = found.len() == 1;
        found.into_iter().map(|image| self.store_image(image, name.filter(|_| single))).collect()
    }

    fn damaged(&self, cause: impl Into<String>) -> ImageError {
        ImageError::Damaged { name: self.archive.display().to_string(), cause: cause.into() }
    }

    /// Writes the archive's regular files out; nothing else belongs in it but links between layers.
    fn extract(&self) -> io::Result<()> {
        let mut archive = tar::Archive::new(decompress(File::open(self.archive)?)?);
        for (count, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            let path = self.inside(&entry.path()?)?;
            if count >= FILES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many files"));
            }
            let kind = entry.header().entry_type();
            let target = entry.link_name()?.map(|target| target.into_owned());
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            match (kind, target) {
                (tar::EntryType::Regular, _) => {
                    io::copy(&mut entry, &mut File::create(&path)?)?;
                }
                // Old versions of docker link equal layers: `../<id>/layer.tar`.
                (tar::EntryType::Symlink, Some(target)) => {
                    let base = path.parent().unwrap_or(&self.directory);
                    let relative = base.strip_prefix(&self.directory).unwrap_or(Path::new("")).join(target);
                    std::fs::hard_link(self.inside(&resolve_dots(&relative))?, &path)?;
                }
                (tar::EntryType::Link, Some(target)) => std::fs::hard_link(self.inside(&target)?, &path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The place of an archive's file; refuses names that lead out.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let clean = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if clean {
            return Ok(self.directory.join(path));
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("name {:?} leads out of the archive", path.display()),
        ))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(self.inside(path)?)?.take(METADATA_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error: io::Error| self.damaged(format!("{}: {error}", path.display())))
    }

    fn saved_images(&self) -> Result<Vec<Found>, ImageError> {
        let bytes = self.read(Path::new("manifest.json"))?;
        let saved: Vec<SavedImage> = serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(format!("manifest.json: {error}")))?;
        let found = saved.into_iter().map(|image| {
            let names = image.repo_tags.unwrap_or_default();
            let tags = names.iter().map(|tag| Ok(Reference::parse(tag)?.tagged()));
            let tags: Vec<Option<String>> = tags.collect::<Result<_, ImageError>>()?;
            let tags = tags.into_iter().flatten().collect();
            Ok(Found { config: image.config, layers: image.layers, tags, digests: BTreeSet::new() })
        });
        found.collect()
    }

    fn layout_images(&self) -> Result<Vec<Found>, ImageError> {
        let bytes = self.read(Path::new("index.json"))?;
        let index: LayoutIndex =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(format!("index.json: {error}")))?;
        let mut found = Vec::new();
        for descriptor in &index.manifests {
            let Some(manifest) = self.layout_manifest(descriptor)? else { continue };
            let names = REFERENCE_ANNOTATIONS.iter().find_map(|key| descriptor.annotations.get(*key));
            // A bare tag, which OCI allows here, names nothing by itself.
            let reference =
                names.filter(|name| name.contains(['/', ':'])).and_then(|name| Reference::parse(name).ok());
            let digest = reference.as_ref().map(|reference| reference.with_digest(&descriptor.digest));
            let layers = manifest.layers.iter().map(|layer| self.blob_path(&layer.digest));
            found.push(Found {
                config: self.blob_path(&manifest.config.digest)?,
                layers: layers.collect::<Result<_, _>>()?,
                tags: reference.and_then(|reference| reference.tagged()).into_iter().collect(),
                digests: digest.into_iter().collect(),
            });
        }
        Ok(found)
    }

    fn layout_manifest(&self, descriptor: &Descriptor) -> Result<Option<ImageManifest>, ImageError> {
        let bytes = self.read(&self.blob_path(&descriptor.digest)?)?;
        if digest_of(&bytes) != descriptor.digest {
            return Err(self.damaged(format!("blob {} is something else", descriptor.digest)));
        }
        match Manifest::parse(&bytes).map_err(|cause| self.damaged(cause))? {
            Manifest::Image(manifest) => Ok(Some(manifest)),
            Manifest::Index(nested) => match select(&nested, architecture()) {
                Some(chosen) if nested.len() > 1 || chosen != descriptor => self.layout_manifest(chosen),
                _ => Ok(None),
            },
        }
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        let hex = hex_of(digest).ok_or_else(|| self.damaged(format!("unsupported digest {digest:?}")))?;
        Ok(Path::new("blobs/sha256").join(hex))
    }

    fn store_image(&self, found: Found, name: Option<&Reference>) -> Result<Image, ImageError> {
        let bytes = self.read(&found.config)?;
        let (config, layers) = parse_config(&bytes).map_err(|cause| self.damaged(cause))?;
        check_digests(&self.archive.display().to_string(), &layers)?;
        if layers.len() != found.layers.len() {
            return Err(self.damaged(format!("{} layers for {} entries", found.layers.len(), layers.len())));
        }
        let mut size_bytes = bytes.len() as u64;
        for (path, layer) in found.layers.iter().zip(&layers) {
            size_bytes += self.import_layer(path, layer)?;
        }
        let mut tags = found.tags;
        tags.extend(name.and_then(Reference::tagged));
        let id = digest_of(&bytes);
        self.store.commit(Record { id, tags, digests: found.digests, size_bytes, config, layers })
    }

    fn import_layer(&self, path: &Path, layer: &str) -> Result<u64, ImageError> {
        let open = || {
            let file = File::open(self.inside(path)?)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) =
            open().map_err(|error: io::Error| self.damaged(format!("{}: {error}", path.display())))?;
        if !self.store.has_layer(layer) {
            unpack_layer(self.store, file, layer, &self.archive.display().to_string())?;
        }
        Ok(size)
    }
}

/// Takes `..` out of a relative path; more of them than there are directories are kept, to be refused.
fn resolve_dots(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if resolved.pop() => {}
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}
