//! Parts of a volume (`subPath`), resolved so that links inside the volume cannot lead out of it.
//!
//! The part is found and made by descriptor, then bound to a place of ours; the container is given that place.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use linux::mount::{Attributes, bind};
use linux::path::{Confine, create_directories_inside, descriptor_path, open_inside, open_root};

/// Binds `sub_path` of the volume at `volume` to `place` (made as a directory or a file, as the part is) and
/// returns the place. A part that does not exist becomes a directory.
pub fn prepare(volume: &Path, sub_path: &str, place: &Path, group: Option<u32>) -> Result<PathBuf, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("failed to prepare subPath for volumeMount {sub_path:?}: {error}")
    };
    let inner = Path::new(sub_path);
    let root = open_root(volume).map_err(|error| failed(&error))?;
    let part = match open_inside(root.as_fd(), inner, Confine::Beneath) {
        Ok(part) => part,
        Err(_) => {
            let mode = if group.is_some() { 0o2770 } else { 0o750 };
            create_directories_inside(root.as_fd(), inner, Confine::Beneath, mode)
                .map_err(|error| failed(&error))?
        }
    };
    let source = descriptor_path(part.as_fd());
    let is_directory = fs::metadata(&source).map_err(|error| failed(&error))?.is_dir();
    linux::mount::unmount(place).map_err(|error| failed(&error))?;
    make_place(place, is_directory).map_err(|error| failed(&error))?;
    bind(&source, place, true, Attributes::default()).map_err(|error| failed(&error))?;
    Ok(place.to_owned())
}

fn make_place(place: &Path, is_directory: bool) -> std::io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::symlink_metadata(place).is_ok_and(|meta| meta.is_dir() != is_directory) {
        if is_directory { fs::remove_file(place)? } else { fs::remove_dir(place)? }
    }
    if is_directory {
        fs::create_dir_all(place)
    } else {
        fs::OpenOptions::new().create(true).append(true).open(place).map(|_| ())
    }
}

/// `Err` with upstream's message if a sub-path is absolute or has `..` in it.
pub fn validate(sub_path: &str) -> Result<(), String> {
    if Path::new(sub_path).is_absolute() {
        return Err(format!("error SubPath {sub_path:?} must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath {sub_path:?}: must not contain '..'"));
    }
    Ok(())
}
