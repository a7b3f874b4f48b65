//! Tags and blocks: a FIF file is a chain of tags, some of which open and close nested blocks.
//!
//! A tag is a 16-byte big-endian header (kind, data type, size, position of the next) and its data. The chain is
//! followed from the start, skipping the data. The optional directory at a file's end lists the same tags a second
//! time; it is not used, because a stale one would lead elsewhere than the chain that it was made from.

use super::constants::{NEXT_NONE, NEXT_SEQ, block, data_type, kind};
use super::source::Source;
use crate::error::{Error, Kind, Result};

/// Bytes of a tag's header.
pub(super) const HEADER: u64 = 16;

/// A tag, without its data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    /// What it holds.
    pub kind: i32,
    /// How its data are encoded.
    pub data_type: u32,
    /// Bytes of data; all of them inside the file.
    pub size: u32,
    /// Where its data begin.
    pub position: u64,
}

/// A block: the tags directly in it, and how far its descendants reach.
#[derive(Debug)]
pub(super) struct Block {
    /// `FIFFB_…`; 0 for the file itself.
    pub kind: i32,
    /// The tags of this block, not those of blocks inside it.
    pub tags: Vec<Tag>,
    /// One past the last descendant's index in the tree.
    end: usize,
}

/// All blocks of a file in the order in which they open, so that the descendants of one follow it directly.
#[derive(Debug)]
pub(super) struct Tree {
    blocks: Vec<Block>,
}

impl Tree {
    /// Follows the chain of tags from the start of the file.
    pub fn scan(source: &Source) -> Result<Self> {
        check_opening(source)?;
        let mut blocks = vec![Block { kind: 0, tags: Vec::new(), end: 0 }];
        let mut open = vec![0];
        let mut headers = Headers { source, start: 0, window: Vec::new() };
        let mut at = 0;
        while let Some((tag, next)) = headers.read(at)? {
            let innermost = open[open.len() - 1];
            match tag.kind {
                kind::BLOCK_START => {
                    let opened = Block { kind: tag.int(source)?, tags: Vec::new(), end: 0 };
                    open.push(blocks.len());
                    blocks.push(opened);
                }
                kind::BLOCK_END if open.len() > 1 => {
                    blocks[innermost].end = blocks.len();
                    open.pop();
                }
                kind::BLOCK_END | kind::NOP => {}
                _ => blocks[innermost].tags.push(tag),
            }
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        if let &[_, .., innermost] = open.as_slice() {
            let what = format!("the file ends inside block {}", blocks[innermost].kind);
            return Err(source.corrupt(what).hint("It seems to be cut short; copy it again from where it came from"));
        }
        blocks[0].end = blocks.len();
        Ok(Self { blocks })
    }

    /// The file itself.
    pub fn root(&self) -> &Block {
        &self.blocks[0]
    }

    /// All blocks of a kind anywhere in the file.
    pub fn find_all(&self, kind: i32) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |b| b.kind == kind)
    }

    /// All blocks of a kind inside another block.
    pub fn find_in<'a>(&'a self, outer: &Block, kind: i32) -> impl Iterator<Item = &'a Block> {
        let first = self.blocks.iter().position(|b| std::ptr::eq(b, outer)).map_or(0, |i| i + 1);
        self.blocks[first..outer.end].iter().filter(move |b| b.kind == kind)
    }

    /// The one block of a kind, or an error that says how many there are.
    pub fn only(&self, source: &Source, kind: i32, what: &str) -> Result<&Block> {
        let mut found = self.find_all(kind);
        match (found.next(), found.count()) {
            (Some(block), 0) => Ok(block),
            (None, _) => {
                let what = format!("a FIF file without {what}");
                Err(Error::new(Kind::UnknownFormat, what)
                    .at(source.path())
                    .hint("It may hold events, epochs or a model"))
            }
            (Some(_), more) => Err(source.corrupt(format!("{} blocks with {what}; one is expected", more + 1))),
        }
    }
}

impl Block {
    /// The first tag of a kind.
    pub fn tag(&self, kind: i32) -> Option<&Tag> {
        self.tags.iter().find(|t| t.kind == kind)
    }
}

/// A FIF file starts with an id and a pointer to a directory; this is all the magic number it has.
fn check_opening(source: &Source) -> Result<()> {
    let unknown = || Error::new(Kind::UnknownFormat, "not a FIF file").at(source.path());
    if source.len() < HEADER {
        return Err(unknown());
    }
    let mut headers = Headers { source, start: 0, window: Vec::new() };
    let starts_with_id = matches!(headers.word(0)?, kind::FILE_ID)
        && headers.word(4)? as u32 == data_type::ID_STRUCT
        && headers.word(8)? == 20;
    if !starts_with_id {
        return Err(unknown());
    }
    let (_, next) = headers.read(0)?.ok_or_else(unknown)?;
    match next.map(|at| headers.read(at)).transpose()?.flatten() {
        Some((pointer, _)) if pointer.kind == kind::DIR_POINTER => Ok(()),
        _ => Err(source.corrupt("no directory pointer follows the file's id")),
    }
}

/// Reads headers through a small window, because most tags are small neighbours.
struct Headers<'a> {
    source: &'a Source,
    start: u64,
    window: Vec<u8>,
}

impl Headers<'_> {
    const WINDOW: u64 = 4096;

    /// The tag at a position and where the next one is; nothing at the end of the file.
    fn read(&mut self, at: u64) -> Result<Option<(Tag, Option<u64>)>> {
        if at.checked_add(HEADER).is_none_or(|end| end > self.source.len()) {
            // Some writers leave the last tag's `next` open; the file then simply ends.
            return Ok(None);
        }
        let [kind, data_type, size, next] =
            [self.word(at)?, self.word(at + 4)?, self.word(at + 8)?, self.word(at + 12)?];
        let Ok(size) = u32::try_from(size) else {
            return Err(self.source.corrupt(format!("the tag at {at} has a size of {size} bytes")));
        };
        let position = at + HEADER;
        self.source.check_inside(position, size)?;
        let next = match next {
            NEXT_SEQ => Some(position + u64::from(size)),
            NEXT_NONE => None,
            // Only forward, so that a damaged pointer cannot make the chain a ring.
            next if next > 0 && next as u64 > at => Some(next as u64),
            next => return Err(self.source.corrupt(format!("the tag at {at} points back to {next}"))),
        };
        Ok(Some((Tag { kind, data_type: data_type as u32, size, position }, next)))
    }

    /// The 32-bit word at a position; the caller knows that it is inside the file.
    fn word(&mut self, at: u64) -> Result<i32> {
        let inside = at >= self.start && at + 4 <= self.start + self.window.len() as u64;
        if !inside {
            self.start = at;
            self.window.resize(Self::WINDOW.min(self.source.len() - at) as usize, 0);
            self.source.read_exact_at(&mut self.window, at)?;
        }
        let offset = (at - self.start) as usize;
        Ok(be_i32(&self.window[offset..]))
    }
}

/// The first four bytes as a big-endian integer.
pub(super) fn be_i32(bytes: &[u8]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The first four bytes as a big-endian float.
pub(super) fn be_f32(bytes: &[u8]) -> f32 {
    f32::from_bits(be_i32(bytes) as u32)
}

/// Numbers of a tag's type, as float64 (which holds every 32-bit integer).
fn decode(bytes: &[u8], data_type: u32) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        let (numbers, rest) = bytes.as_chunks::<N>();
        rest.is_empty().then(|| numbers.iter().map(|b| number(*b)).collect())
    }
    match data_type {
        data_type::SHORT | data_type::DAU_PACK16 => each(bytes, |b| f64::from(i16::from_be_bytes(b))),
        data_type::USHORT => each(bytes, |b| f64::from(u16::from_be_bytes(b))),
        data_type::INT => each(bytes, |b| f64::from(i32::from_be_bytes(b))),
        data_type::UINT => each(bytes, |b| f64::from(u32::from_be_bytes(b))),
        data_type::FLOAT => each(bytes, |b| f64::from(f32::from_be_bytes(b))),
        data_type::DOUBLE => each(bytes, f64::from_be_bytes),
        _ => None,
    }
}

impl Tag {
    /// The tag's data as they are.
    pub fn bytes(&self, source: &Source) -> Result<Vec<u8>> {
        source.bytes(self.position, self.size)
    }

    /// Data of a structure, whose size is known.
    pub fn structure<const N: usize>(&self, source: &Source) -> Result<[u8; N]> {
        if self.size as usize != N {
            return Err(self.unfit(source, &format!("{N} bytes")));
        }
        let mut bytes = [0; N];
        source.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes)
    }

    /// One or more numbers of any type.
    pub fn numbers(&self, source: &Source) -> Result<Vec<f64>> {
        decode(&self.bytes(source)?, self.data_type).ok_or_else(|| self.unfit(source, "numbers"))
    }

    /// One number of any type.
    pub fn number(&self, source: &Source) -> Result<f64> {
        if self.size > 8 {
            return Err(self.unfit(source, "one number"));
        }
        match self.numbers(source)?.as_slice() {
            [one] => Ok(*one),
            _ => Err(self.unfit(source, "one number")),
        }
    }

    /// One 32-bit integer.
    pub fn int(&self, source: &Source) -> Result<i32> {
        let number = self.number(source)?;
        let int = number as i32;
        if f64::from(int) == number { Ok(int) } else { Err(self.unfit(source, "a 32-bit integer")) }
    }

    /// Text: Latin-1, with numeric character references for everything beyond it, as MNE writes them.
    pub fn text(&self, source: &Source) -> Result<String> {
        if self.data_type != data_type::STRING {
            return Err(self.unfit(source, "text"));
        }
        Ok(unescape(self.bytes(source)?.iter().map(|&b| char::from(b)).collect()))
    }

    fn unfit(&self, source: &Source, expected: &str) -> Error {
        let Self { kind, data_type, size, position } = self;
        let what = format!("tag {kind} at {position} has type {data_type} and {size} bytes where {expected} should be");
        source.corrupt(what)
    }
}

/// Replaces `&#NUMBER;` by the character it stands for.
fn unescape(text: String) -> String {
    if !text.contains("&#") {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split("&#");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let reference = piece.split_once(';').and_then(|(number, rest)| {
            // Latin-1 itself is never escaped, so smaller numbers are somebody's own text.
            let code = number.parse::<u32>().ok().filter(|&code| code > 255)?;
            Some((char::from_u32(code)?, rest))
        });
        match reference {
            Some((character, rest)) => {
                out.push(character);
                out.push_str(rest);
            }
            None => {
                out.push_str("&#");
                out.push_str(piece);
            }
        }
    }
    out
}

/// Text as bytes: Latin-1 where it fits, numeric character references elsewhere. The inverse of [`Tag::text`].
pub(super) fn escape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => out.push(byte),
            Err(_) => out.extend_from_slice(format!("&#{};", u32::from(character)).as_bytes()),
        }
    }
    out
}

/// The names of a list joined by colons; a colon inside a name is written `{COLON}`.
pub(super) fn split_names(list: &str) -> impl Iterator<Item = String> {
    let names = if list.is_empty() { None } else { Some(list.split(':')) };
    names.into_iter().flatten().map(|name| name.replace("{COLON}", ":"))
}

/// The inverse of [`split_names`].
pub(super) fn join_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| name.replace(':', "{COLON}")).collect::<Vec<_>>().join(":")
}

/// The block that holds raw data, in the order of preference that MNE has too.
pub(super) const RAW_BLOCKS: [i32; 3] = [block::RAW_DATA, block::CONTINUOUS_DATA, block::IAS_RAW_DATA];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_escaping() {
        for text in ["", "plain", "Überraschung", "Ω/α", "a&#12;b", "&#", "🧠:1"] {
            let latin: String = escape(text).iter().map(|&b| char::from(b)).collect();
            assert_eq!(unescape(latin), text);
        }
    }

    #[test]
    fn names_survive_joining() {
        let names = ["auditory/left", "a:b", "", "Ω"];
        let joined = join_names(names.iter().copied());
        assert_eq!(split_names(&joined).collect::<Vec<_>>(), names);
        assert_eq!(split_names("").count(), 0);
    }
}
