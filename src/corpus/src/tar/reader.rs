//! Reading of a tar file's headers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::BLOCK;
use super::fault::TarFault;
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
    /// The name as written in the file, which may be anything.
    pub name: Vec<u8>,
    /// The type.
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
    /// The fault.
    pub problem: TarFault,
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

    /// The next member, `None` at the end.
    fn step(&mut self) -> Result<Option<Member>, TarFault> {
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

    /// The member whose own header this is; moves behind it.
    fn member(&mut self, header: Header, before: Before, content: u64) -> Result<Member, TarFault> {
        let extension = before.extension.unwrap_or_default();
        let name = extension.path.or(before.long_name).unwrap_or(header.name);
        let size = extension.size.unwrap_or(header.size);
        let kind = if extension.sparse { MemberKind::Other("a sparse file") } else { kind(header.flag, &name) };
        let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
        if size > 0 && matches!(header.flag, b'1'..=b'6') {
            // Some readers skip that many bytes, some none: whichever is right, the other reads other members.
            return Err(TarFault::ContentOfNoFile { name: shown(), size });
        }
        if content.checked_add(size).is_none_or(|end| end > self.length) {
            let there = self.length.saturating_sub(content);
            return Err(TarFault::CutMember { name: shown(), size, there });
        }
        self.at = content + padded(size);
        Ok(Member { name, kind, offset: content, size })
    }

    /// The block at hand; `None` at the end of the file.
    fn block(&self) -> Result<Option<Block>, TarFault> {
        let mut block = [0; BLOCK as usize];
        if self.at >= self.length {
            return Ok(None);
        }
        if self.length - self.at < BLOCK {
            return Err(TarFault::CutHeader { there: self.length - self.at });
        }
        self.file.read_exact_at(&mut block, self.at).map_err(unreadable)?;
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn content(&self, at: u64, size: u64) -> Result<Vec<u8>, TarFault> {
        if size > MAX_EXTENSION {
            return Err(TarFault::LongExtension { size, limit: MAX_EXTENSION });
        }
        if at + size > self.length {
            return Err(TarFault::CutExtension);
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(unreadable)?;
        Ok(bytes)
    }

    /// Accepts a block of zeros as the end if nothing follows that a more patient reader would find.
    fn end(&mut self, before: &Before) -> Result<Option<Member>, TarFault> {
        before.finished()?;
        self.ended = true;
        let mut tail = vec![0; (self.length - self.at).min(MAX_TAIL) as usize];
        self.file.read_exact_at(&mut tail, self.at).map_err(unreadable)?;
        match tail.iter().position(|byte| *byte != 0) {
            None => Ok(None),
            Some(behind) => Err(TarFault::BehindEnd { at: self.at + behind as u64 }),
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
    /// Refuses what no member followed.
    fn finished(&self) -> Result<(), TarFault> {
        match (&self.long_name, &self.extension) {
            (None, None) => Ok(()),
            _ => Err(TarFault::NoMember),
        }
    }

    /// A GNU long name.
    fn name(&mut self, mut bytes: Vec<u8>) -> Result<(), TarFault> {
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        if self.long_name.replace(bytes).is_some() {
            return Err(TarFault::TwoLongNames);
        }
        self.agree()
    }

    /// An extended header.
    fn extend(&mut self, extension: Extension) -> Result<(), TarFault> {
        if self.extension.replace(extension).is_some() {
            return Err(TarFault::TwoExtensions);
        }
        self.agree()
    }

    /// Refuses two names.
    fn agree(&self) -> Result<(), TarFault> {
        match (&self.long_name, self.extension.as_ref().and_then(|extension| extension.path.as_ref())) {
            (Some(long), Some(path)) if long != path => Err(TarFault::NamesDiffer),
            _ => Ok(()),
        }
    }
}

/// The fault of a file that the operating system does not read.
fn unreadable(error: io::Error) -> TarFault {
    TarFault::Unreadable(error.to_string())
}

/// Refuses a header for all members that would name or size them.
fn harmless(global: &Extension) -> Result<(), TarFault> {
    if global.path.is_some() || global.size.is_some() || global.sparse {
        return Err(TarFault::Global);
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
