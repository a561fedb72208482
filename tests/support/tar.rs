//! Tar files made in memory, good and hostile; also used by the tests of `flowmill-corpus`.
#![allow(dead_code, reason = "each test target uses its own part")]

use std::fs;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// A tar file being made.
pub struct Tar(pub Builder<Vec<u8>>);

impl Tar {
    /// A tar file without members.
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds a file; names that do not fit make the `tar` crate write GNU long names.
    pub fn file(&mut self, name: &str, content: impl AsRef<[u8]>) -> &mut Self {
        let content = content.as_ref();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    /// Adds a member of any kind, whatever its name.
    pub fn member(&mut self, name: impl AsRef<[u8]>, kind: EntryType, content: &[u8]) -> &mut Self {
        self.raw(name.as_ref(), kind.as_byte(), content.len() as u64, content)
    }

    /// Adds a member as it is, whatever its name, type and size.
    pub fn raw(&mut self, name: &[u8], kind: u8, size: u64, content: &[u8]) -> &mut Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    /// Ends the archive and returns its bytes.
    pub fn done(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.0, Builder::new(Vec::new())).into_inner().unwrap()
    }

    /// Returns the bytes of an archive that just stops.
    pub fn cut(&mut self) -> Vec<u8> {
        let bytes = self.done();
        bytes[..bytes.len() - 1024].to_vec()
    }

    /// Ends the archive and writes it, with the folders above it.
    pub fn save(&mut self, path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.done()).unwrap();
    }
}
