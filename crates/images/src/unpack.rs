//! Layers: a tar stream, perhaps compressed, written out as overlayfs wants it.
//!
//! Names come from strangers: everything goes through [`linux::tree`], which nothing leads out of.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use linux::tree::{Metadata, Special, Tree};
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::manifest::digest_text;

/// Names in a layer that hide something below.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
const ATTRIBUTE_PREFIX: &str = "SCHILY.xattr.";
/// More than any honest layer has.
const ENTRIES_MAX: u64 = 4_000_000;
const BYTES_MAX: u64 = 128 << 30;

/// A reader that undoes the compression which the first bytes show.
pub(crate) fn decompress<'a>(mut compressed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match compressed.read(&mut magic[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let whole = io::Cursor::new(magic[..filled].to_vec()).chain(compressed);
    Ok(match magic {
        [0x1f, 0x8b, ..] => {
            Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 16, whole)))
        }
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Unpacks a layer into an empty directory and returns the digest of its uncompressed bytes.
pub(crate) fn unpack(layer: impl Read, root: &Path) -> io::Result<String> {
    let mut hashing = Hashing { inner: decompress(layer)?, hash: Sha256::new(), bytes: 0 };
    let mut unpacker = Unpacker { tree: Tree::open(root)?, directories: Vec::new() };
    let mut archive = tar::Archive::new(&mut hashing);
    archive.set_ignore_zeros(false);
    for (count, entry) in archive.entries()?.enumerate() {
        if count as u64 >= ENTRIES_MAX {
            return Err(damaged("too many entries"));
        }
        unpacker.entry(entry?)?;
    }
    unpacker.finish()?;
    // What follows the archive's end is part of the digest.
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(digest_text(&hashing.hash.finalize()))
}

fn damaged(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        if self.bytes > BYTES_MAX { Err(damaged("layer is too large")) } else { Ok(count) }
    }
}

struct Unpacker {
    tree: Tree,
    /// Their times are set last, as writing into them changes it.
    directories: Vec<(PathBuf, Metadata)>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = entry.path()?.into_owned();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some(hidden) = name.strip_prefix(WHITEOUT)
        {
            return self.whiteout(&path, name, hidden).map_err(named);
        }
        let attributes = attributes(&mut entry)?;
        let metadata = metadata(&entry)?;
        self.write(&mut entry, kind, &path, &metadata).map_err(named)?;
        if kind != EntryType::Link {
            self.set_attributes(&path, &attributes).map_err(named)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, name: &str, hidden: &str) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            // Looking for the marker makes the directory, whose own entry may come later or not at all.
            self.tree.remove(path)?;
            return self.tree.set_attribute(directory, OPAQUE_ATTRIBUTE, b"y");
        }
        if hidden.is_empty() || hidden.starts_with(WHITEOUT) {
            // Bookkeeping of a file system that is no longer used.
            return Ok(());
        }
        self.tree.special(&directory.join(hidden), Special::Character { major: 0, minor: 0 })
    }

    fn write<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        kind: EntryType,
        path: &Path,
        metadata: &Metadata,
    ) -> io::Result<()> {
        match kind {
            EntryType::Directory => {
                self.directories.push((path.to_owned(), *metadata));
                return self.tree.directory(path, metadata);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = self.tree.file(path)?;
                io::copy(entry, &mut file)?;
            }
            EntryType::Symlink => self.tree.symlink(path, &link_target(entry)?)?,
            EntryType::Link => return self.tree.hard_link(path, &link_target(entry)?),
            EntryType::Fifo => self.tree.special(path, Special::Fifo)?,
            EntryType::Char | EntryType::Block => self.tree.special(path, device(entry, kind)?)?,
            other => return Err(damaged(&format!("entry of unknown type {:?}", other.as_byte()))),
        }
        self.tree.set_metadata(path, metadata)
    }

    fn set_attributes(&mut self, path: &Path, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
        for (name, value) in attributes {
            match self.tree.set_attribute(path, name, value) {
                // Attributes that this file system does not keep are not worth failing for.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            // It may have been replaced by something else since.
            match self.tree.set_metadata(&path, &metadata) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn metadata<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Metadata> {
    let (header, raw) = (entry.header(), entry.header().as_old());
    let id = |value: u64| u32::try_from(value).map_err(|_| damaged("owner out of range"));
    Ok(Metadata {
        uid: id(number(&raw.uid, || header.uid())?)?,
        gid: id(number(&raw.gid, || header.gid())?)?,
        mode: number(&raw.mode, || header.mode())? & 0o7777,
        modified: header.mtime().unwrap_or(0),
    })
}

/// Some archivers leave a field empty and mean zero.
fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if empty { Ok(T::default()) } else { read() }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name()?.ok_or_else(|| damaged("link without a target"))?;
    Ok(target.into_owned())
}

fn device<R: Read>(entry: &tar::Entry<'_, R>, kind: EntryType) -> io::Result<Special> {
    let major = entry.header().device_major()?.unwrap_or(0);
    let minor = entry.header().device_minor()?.unwrap_or(0);
    Ok(if kind == EntryType::Char {
        Special::Character { major, minor }
    } else {
        Special::Block { major, minor }
    })
}

/// Extended attributes; those of overlayfs itself could turn the layer inside out and are left away.
fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut attributes = Vec::new();
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE_PREFIX)) else {
            continue;
        };
        if !name.starts_with("trusted.overlay.") && !name.starts_with("user.overlay.") {
            attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    fn is_root() -> bool {
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        if !root {
            eprintln!("skipped: owners and devices need root");
        }
        root
    }

    fn header(kind: EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        header
    }

    /// Writes names that the builder itself would refuse.
    fn append(
        archive: &mut tar::Builder<Vec<u8>>,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        data: &[u8],
    ) {
        let mut header = header(kind, data.len() as u64, mode);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, data).unwrap();
    }

    fn unpack_new(bytes: &[u8]) -> (tempfile::TempDir, io::Result<String>) {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("root")).unwrap();
        std::fs::write(outer.path().join("victim"), "untouched").unwrap();
        let result = unpack(bytes, &outer.path().join("root"));
        assert_eq!(std::fs::read_to_string(outer.path().join("victim")).unwrap(), "untouched");
        (outer, result)
    }

    #[test]
    fn files_owners_links_and_whiteouts() {
        if !is_root() {
            return;
        }
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, EntryType::Directory, "./", "", 0o755, b"");
        append(&mut archive, EntryType::Directory, "usr/bin/", "", 0o755, b"");
        append(&mut archive, EntryType::Regular, "usr/bin/su", "", 0o4755, b"elf");
        append(&mut archive, EntryType::Symlink, "bin", "usr/bin", 0o777, b"");
        append(&mut archive, EntryType::Regular, "bin/through", "", 0o644, b"x");
        append(&mut archive, EntryType::Link, "usr/bin/su2", "usr/bin/su", 0o4755, b"");
        append(&mut archive, EntryType::Regular, "etc/.wh.gone", "", 0o644, b"");
        append(&mut archive, EntryType::Regular, "var/.wh..wh..opq", "", 0o644, b"");
        append(&mut archive, EntryType::Fifo, "pipe", "", 0o600, b"");
        append(&mut archive, EntryType::Directory, "usr/bin/su/", "", 0o700, b"");
        let bytes = archive.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let expected = crate::manifest::digest_of(&bytes);
        for packed in [bytes.clone(), gzip.finish().unwrap(), zstd::encode_all(&bytes[..], 1).unwrap()] {
            let (outer, digest) = unpack_new(&packed);
            assert_eq!(digest.unwrap(), expected, "the digest is of the uncompressed bytes");
            let root = outer.path().join("root");
            let link = std::fs::metadata(root.join("usr/bin/su2")).unwrap();
            assert_eq!(
                (link.permissions().mode() & 0o7777, link.uid(), link.gid(), link.mtime()),
                (0o4755, 7, 8, 1000)
            );
            assert!(root.join("usr/bin/through").is_file(), "links within the layer are followed within it");
            assert!(root.join("usr/bin/su").is_dir(), "a later entry replaces an earlier one");
            let gone = std::fs::symlink_metadata(root.join("etc/gone")).unwrap();
            assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
            assert!(!root.join("var/.wh..wh..opq").exists() && root.join("var").is_dir());
            assert!(std::fs::symlink_metadata(root.join("pipe")).unwrap().file_type().is_fifo());
        }
    }

    #[test]
    fn nothing_leads_out() {
        if !is_root() {
            return;
        }
        type Entry<'a> = (EntryType, &'a str, &'a str);
        let attacks: &[&[Entry<'_>]] = &[
            &[(EntryType::Regular, "../victim", "")],
            &[(EntryType::Symlink, "out", ".."), (EntryType::Regular, "out/victim", "")],
            &[(EntryType::Symlink, "out", "../../../.."), (EntryType::Regular, "out/victim", "")],
            &[(EntryType::Symlink, "victim", "../victim"), (EntryType::Regular, "victim", "")],
            &[(EntryType::Link, "victim", "../victim"), (EntryType::Regular, "victim", "")],
            &[(EntryType::Symlink, "x", "/proc/self/cwd"), (EntryType::Regular, "x/victim", "")],
        ];
        for attack in attacks {
            let mut archive = tar::Builder::new(Vec::new());
            for (kind, name, link) in *attack {
                let data: &[u8] = if *kind == EntryType::Regular { b"owned" } else { b"" };
                append(&mut archive, *kind, name, link, 0o644, data);
            }
            // Whether it is refused or lands inside does not matter: `unpack_new` looks at the victim.
            let (_outer, _result) = unpack_new(&archive.into_inner().unwrap());
        }
    }

    #[test]
    fn a_truncated_layer_is_an_error() {
        if !is_root() {
            return;
        }
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, EntryType::Regular, "a", "", 0o644, &[7; 5000]);
        let bytes = archive.into_inner().unwrap();
        assert!(unpack_new(&bytes[..3000]).1.is_err());
        let packed = zstd::encode_all(&bytes[..], 1).unwrap();
        assert!(unpack_new(&packed[..packed.len() - 3]).1.is_err());
    }
}
