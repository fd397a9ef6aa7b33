//! `hostPath`: checking, and for two types creating, what is on the host.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Makes sure that `path` is what `kind` promises. `Err` is upstream's message.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let found = fs::metadata(path).ok();
    let found = found.as_ref().map(fs::Metadata::file_type);
    let shown = path.display();
    let wrong = |what: &str| Err(format!("hostPath type check failed: {shown} is not a {what}"));
    let failed = |error: std::io::Error| format!("hostPath type check failed: {shown}: {error}");
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => fs::create_dir_all(path).map_err(failed),
        "FileOrCreate" if found.is_none() => {
            fs::OpenOptions::new().create_new(true).write(true).open(path).map(|_| ()).map_err(failed)
        }
        "Directory" | "DirectoryOrCreate" => {
            if found.is_some_and(|t| t.is_dir()) {
                Ok(())
            } else {
                wrong("directory")
            }
        }
        "File" | "FileOrCreate" => {
            if found.is_some_and(|t| t.is_file()) {
                Ok(())
            } else {
                wrong("file")
            }
        }
        "Socket" => {
            if found.is_some_and(|t| t.is_socket()) {
                Ok(())
            } else {
                wrong("socket file")
            }
        }
        "CharDevice" => {
            if found.is_some_and(|t| t.is_char_device()) {
                Ok(())
            } else {
                wrong("character device")
            }
        }
        "BlockDevice" => {
            if found.is_some_and(|t| t.is_block_device()) {
                Ok(())
            } else {
                wrong("block device")
            }
        }
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        assert!(check(&at("d"), "Directory").unwrap_err().ends_with("is not a directory"));
        check(&at("d"), "DirectoryOrCreate").unwrap();
        check(&at("d"), "Directory").unwrap();
        assert!(check(&at("d"), "File").unwrap_err().ends_with("is not a file"));
        check(&at("f"), "FileOrCreate").unwrap();
        check(&at("f"), "File").unwrap();
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        assert!(check(&at("f"), "Socket").unwrap_err().ends_with("is not a socket file"));
        check(&at("missing"), "").unwrap();
    }
}
