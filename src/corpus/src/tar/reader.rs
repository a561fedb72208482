//! Reading of a tar file's headers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::BLOCK;
use super::header::{Block, Header};
use super::pax::Extension;

/// The longest extended header or long name that is read.
const MAX_EXTENSION: u64 = 1 << 20;
/// The number of bytes after the end marker that are searched for more members.
const MAX_TAIL: u64 = 1 << 20;

/// The type of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A file, its bytes as they are.
    File,
    /// A directory.
    Directory,
    /// Something else, described in words: "a symbolic link".
    Other(&'static str),
}

/// One member of a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as written in the file, which may be anything.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: MemberKind,
    /// The position of its first byte in the tar file.
    pub offset: u64,
    /// The number of its bytes, all of which are in the file.
    pub size: u64,
}

/// The position and reason at which the reading of a tar file ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The position of the unreadable header.
    pub at: u64,
    /// The problem.
    pub problem: String,
}

/// The members of a tar file in order. Their content is not read. There are no more members after a [`Damage`].
pub struct Members<'f> {
    file: &'f File,
    length: u64,
    at: u64,
    done: bool,
    /// True once the marker of the archive's end was read.
    pub ended: bool,
}

/// The content of the blocks before a member's own header.
#[derive(Default)]
struct Before {
    long_name: Option<Vec<u8>>,
    extension: Option<Extension>,
}

impl<'f> Members<'f> {
    /// Returns the members of an open file.
    ///
    /// # Errors
    /// Returns an error if the file's length cannot be determined.
    pub fn of(file: &'f File) -> io::Result<Self> {
        Ok(Self { file, length: file.metadata()?.len(), at: 0, done: false, ended: false })
    }

    /// Returns the next member, or `None` at the end.
    fn step(&mut self) -> Result<Option<Member>, String> {
        let mut before = Before::default();
        loop {
            let Some(block) = self.block()? else {
                return before.finished().map(|()| None);
            };
            if is_zero(&block) {
                return self.end(&before);
            }
            let header = Header::parse(&block)?;
            let content = self.at + BLOCK;
            match header.flag {
                b'L' => before.name(self.content(content, header.size)?)?,
                b'K' => drop(self.content(content, header.size)?),
                b'x' => before.extend(Extension::parse(&self.content(content, header.size)?)?)?,
                b'g' => harmless(&Extension::parse(&self.content(content, header.size)?)?)?,
                _ => return self.member(header, before, content).map(Some),
            }
            self.at = content + padded(header.size);
        }
    }

    /// Returns the member with this header, and moves to the end of its content.
    fn member(&mut self, header: Header, before: Before, content: u64) -> Result<Member, String> {
        let extension = before.extension.unwrap_or_default();
        let name = extension.path.or(before.long_name).unwrap_or(header.name);
        let size = extension.size.unwrap_or(header.size);
        let kind = if extension.sparse { MemberKind::Other("a sparse file") } else { kind(header.flag, &name) };
        let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
        if size > 0 && matches!(header.flag, b'1'..=b'6') {
            // Some readers skip that many bytes, some none: whichever is right, the others would read different
            // members.
            return Err(format!("`{}` has no content by its type, but {size} bytes by its size", shown()));
        }
        if content.checked_add(size).is_none_or(|end| end > self.length) {
            let there = self.length.saturating_sub(content);
            return Err(format!(
                "the file is cut short: `{}` has {size} bytes, but only {there} of them exist",
                shown()
            ));
        }
        self.at = content + padded(size);
        Ok(Member { name, kind, offset: content, size })
    }

    /// Returns the present block; `None` at the end of the file.
    fn block(&self) -> Result<Option<Block>, String> {
        let mut block = [0; BLOCK as usize];
        if self.at >= self.length {
            return Ok(None);
        }
        if self.length - self.at < BLOCK {
            return Err(format!("the file is cut short: only {} bytes of a header exist", self.length - self.at));
        }
        self.file.read_exact_at(&mut block, self.at).map_err(|e| format!("it cannot be read: {e}"))?;
        Ok(Some(block))
    }

    /// Returns the content of an extended header.
    fn content(&self, at: u64, size: u64) -> Result<Vec<u8>, String> {
        if size > MAX_EXTENSION {
            return Err(format!("an extended header of {size} bytes, more than {MAX_EXTENSION}"));
        }
        if at + size > self.length {
            return Err("the file is cut short in an extended header".into());
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| format!("it cannot be read: {e}"))?;
        Ok(bytes)
    }

    /// Accepts a block of zeros as the end if nothing follows that a more tolerant reader would find.
    fn end(&mut self, before: &Before) -> Result<Option<Member>, String> {
        before.finished()?;
        self.ended = true;
        let mut tail = vec![0; (self.length - self.at).min(MAX_TAIL) as usize];
        self.file.read_exact_at(&mut tail, self.at).map_err(|e| format!("it cannot be read: {e}"))?;
        match tail.iter().position(|byte| *byte != 0) {
            None => Ok(None),
            Some(behind) => Err(format!(
                "the archive ends here, but from byte {} on there is more (tar files set end to end? split them)",
                self.at + behind as u64
            )),
        }
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let member = self.step().transpose();
        self.done = !matches!(member, Some(Ok(_)));
        member.map(|member| member.map_err(|problem| Damage { at: self.at, problem }))
    }
}

impl Before {
    /// Returns an error if an extended header or a long name has no member.
    fn finished(&self) -> Result<(), String> {
        match (&self.long_name, &self.extension) {
            (None, None) => Ok(()),
            _ => Err("an extended header without a member after it".into()),
        }
    }

    /// Reads a GNU long name.
    fn name(&mut self, mut bytes: Vec<u8>) -> Result<(), String> {
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        if self.long_name.replace(bytes).is_some() {
            return Err("two long names for one member".into());
        }
        self.agree()
    }

    /// Reads an extended header.
    fn extend(&mut self, extension: Extension) -> Result<(), String> {
        if self.extension.replace(extension).is_some() {
            return Err("two extended headers for one member".into());
        }
        self.agree()
    }

    /// Returns an error for two different names.
    fn agree(&self) -> Result<(), String> {
        match (&self.long_name, self.extension.as_ref().and_then(|extension| extension.path.as_ref())) {
            (Some(long), Some(path)) if long != path => Err("two different long names for one member".into()),
            _ => Ok(()),
        }
    }
}

/// Returns an error for a global header that would name or size all members.
fn harmless(global: &Extension) -> Result<(), String> {
    if global.path.is_some() || global.size.is_some() || global.sparse {
        return Err("a global header that names or sizes members".into());
    }
    Ok(())
}

fn kind(flag: u8, name: &[u8]) -> MemberKind {
    match flag {
        b'0' | 0 | b'7' if name.ends_with(b"/") => MemberKind::Directory,
        b'0' | 0 | b'7' => MemberKind::File,
        b'1' => MemberKind::Other("a hard link"),
        b'2' => MemberKind::Other("a symbolic link"),
        b'3' | b'4' => MemberKind::Other("a device"),
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Other("a named pipe"),
        b'S' => MemberKind::Other("a sparse file"),
        _ => MemberKind::Other("a member of an unknown type"),
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Rounds a size up to whole blocks. Only called with sizes that fit in the file, and with extended headers within
/// their limit.
fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}
