//! Writing a volume's files so that readers see all of the old or all of the new.
//!
//! The files live in a timestamped directory; `..data` points at it and is replaced by one rename; each top-level
//! name is a link through `..data`. Upstream's layout, on which file watchers rely.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `directory` hold exactly `payload`; returns whether anything changed. `tag` must be new with each call.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>, tag: &str) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !is_inside(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {bad}")));
    }
    let current = fs::read_link(directory.join(DATA)).ok().map(|name| directory.join(name));
    if let Some(current) = &current
        && same(current, payload, group)?
    {
        return Ok(false);
    }
    let fresh = format!("..{tag}");
    write_tree(&directory.join(&fresh), payload, group)?;
    let new_link = directory.join(DATA_NEW);
    match fs::remove_file(&new_link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&fresh, &new_link)?;
    fs::rename(&new_link, directory.join(DATA))?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn is_inside(path: &str) -> bool {
    let path = Path::new(path);
    let mut parts = path.components();
    parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.to_string_lossy().starts_with("..")
}

fn same(current: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let mut found = 0;
    let mut pending = vec![current.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
                continue;
            }
            let path = entry.path();
            let relative = path.strip_prefix(current).unwrap_or(&path).to_string_lossy().into_owned();
            let Some(file) = payload.get(&relative) else { return Ok(false) };
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            if mode != file_mode(file.mode, group) || fs::read(&path)? != file.bytes {
                return Ok(false);
            }
            found += 1;
        }
    }
    Ok(found == payload.len())
}

/// With a file-system group its members may read.
fn file_mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn write_tree(fresh: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    make_directory(fresh, group)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        let mut above = PathBuf::from(fresh);
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            above.push(part);
            if !above.exists() {
                make_directory(&above, group)?;
            }
        }
        fs::write(&target, &file.bytes)?;
        lchown(&target, None, group)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file_mode(file.mode, group)))?;
    }
    Ok(())
}

fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(path)?;
    lchown(path, None, group)?;
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A link for each top-level name, and none for names that are gone.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let top = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = payload.keys().map(top).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        match symlink(Path::new(DATA).join(&name), directory.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::payload::File;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn replaces_everything_at_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert!(write(dir, &payload(&[("a", "1"), ("d/b", "2")]), None, "t1").unwrap());
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert!(!write(dir, &payload(&[("a", "1"), ("d/b", "2")]), None, "t2").unwrap(), "nothing changed");
        assert!(write(dir, &payload(&[("a", "3")]), None, "t3").unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        let mut left: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["..data", "..t3", "a"]);
    }

    #[test]
    fn refuses_to_leave_the_directory() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "..x", ""] {
            assert!(write(root.path(), &payload(&[(bad, "1")]), None, "t").is_err(), "{bad:?}");
        }
    }
}
