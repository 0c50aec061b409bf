//! Lines to records. Total: any input gives a value or an error that names the line and the cause.

use crate::{Check, FORMAT, Frame, Kind, Leak, Misuse, Module, Process, Stats, Status, Sum, Trigger, Wrong};

/// Why a file or a line could not be read. `line` counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    pub line: usize,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Empty, or not text that begins as a report does.
    NotAReport,
    /// The file's format version.
    TooNew(u32),
    /// The header ends before its fourth line.
    HeaderCut,
    /// A field is missing or is not what it should be.
    Field(&'static str),
    /// A line begins with a word that does not belong there.
    Unexpected,
    /// A block has no end line.
    BlockCut,
    /// The end line's length, number or sum does not match what stands before it.
    BlockDamaged,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Cause::NotAReport => write!(f, "this is not a leakscan report"),
            Cause::TooNew(version) => write!(
                f,
                "format version {version}, this leakscan reads up to {FORMAT}; use the leakscan that belongs to that libleakscan.so"
            ),
            Cause::HeaderCut => write!(f, "the header is cut short"),
            Cause::Field(name) => write!(f, "field `{name}` is missing or wrong"),
            Cause::Unexpected => write!(f, "unexpected line"),
            Cause::BlockCut => write!(f, "the scan block has no end line: it was cut short"),
            Cause::BlockDamaged => write!(f, "the scan block does not match its end line: it was damaged"),
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}", self.line, self.cause)
    }
}

impl core::error::Error for Error {}

/// A report file in memory: its header, and its blocks one by one.
///
/// Text fields of [`Process`] and [`Module`] are still escaped; [`unescape`] gives their bytes.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub format: u32,
    pub process: Process<'a>,
    body: Lines<'a>,
}

impl<'a> Report<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where the file is no report, is of a newer format, or ends inside the header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut lines = Lines { rest: bytes, line: 0 };
        let fail = |line, cause| Err(Error { line, cause });
        let Some(magic) = lines.next() else { return fail(1, Cause::NotAReport) };
        let Some(format) = magic.text.strip_prefix(b"leakscan report ").and_then(decimal) else {
            return fail(1, Cause::NotAReport);
        };
        let format = u32::try_from(format).unwrap_or(u32::MAX);
        if format > FORMAT {
            return fail(1, Cause::TooNew(format));
        }
        let mut header = |word: &str| match lines.next() {
            None => Err(Error { line: lines.line + 1, cause: Cause::HeaderCut }),
            Some(line) if line.word() == word.as_bytes() => Ok(line),
            Some(line) => Err(Error { line: line.number, cause: Cause::Unexpected }),
        };
        let (process, command, options) = (header("process")?, header("command")?, header("options")?);
        let process = Process {
            pid: process.number("pid")?,
            ppid: process.number("ppid")?,
            start: process.number("start")?,
            version: process.bytes("version")?,
            run: process.bytes("run")?,
            exe: command.bytes("exe")?,
            args: command.bytes("args")?,
            options: options.bytes("set")?,
        };
        Ok(Report { format, process, body: lines })
    }

    /// The blocks in the order of the file. A cut or damaged block comes as an error and ends the walk only if nothing
    /// whole stands behind it.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Block<'a>, Error>> + use<'a> {
        let mut lines = self.body;
        core::iter::from_fn(move || next_block(&mut lines))
    }
}

fn next_block<'a>(lines: &mut Lines<'a>) -> Option<Result<Block<'a>, Error>> {
    let start = lines.rest;
    let first = lines.next()?;
    if first.word() != b"scan" {
        // Skip to where the next block may begin, so that one stray line costs one error and not one for each line.
        while lines.peek().is_some_and(|line| line.word() != b"scan") {
            lines.next();
        }
        return Some(Err(Error { line: first.number, cause: Cause::Unexpected }));
    }
    let body = *lines;
    let mut sum = Sum::new();
    loop {
        let at = start.len() - lines.rest.len();
        match lines.peek() {
            None | Some(Line { whole: false, .. }) => {
                lines.rest = &[];
                return Some(Err(Error { line: first.number, cause: Cause::BlockCut }));
            }
            Some(line) if line.word() == b"scan" => {
                return Some(Err(Error { line: first.number, cause: Cause::BlockCut }));
            }
            Some(line) if line.word() == b"end" => {
                lines.next();
                sum.add(&start[..at]);
                let number = first.id();
                let good = line.number::<usize>("bytes") == Ok(at)
                    && line.field("sum").and_then(hex) == Some(sum.value())
                    && line.id() == number;
                if !good {
                    return Some(Err(Error { line: line.number, cause: Cause::BlockDamaged }));
                }
                let block =
                    Block::open(&first, Lines { rest: &body.rest[..at - (start.len() - body.rest.len())], ..body });
                return Some(block);
            }
            Some(_) => {
                lines.next();
            }
        }
    }
}

/// One scan, proven whole.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub number: u32,
    pub trigger: Trigger,
    /// Seconds since 1970.
    pub time: u64,
    lines: Lines<'a>,
}

impl<'a> Block<'a> {
    fn open(first: &Line<'a>, lines: Lines<'a>) -> Result<Self, Error> {
        let number = first.id().ok_or(Error { line: first.number, cause: Cause::Field("scan") })?;
        let trigger = first.word_field("trigger", Trigger::from_word)?;
        Ok(Block { number, trigger, time: first.number("time")?, lines })
    }

    /// The records between the `scan` and the `end` line. Lines of a kind that this reader does not know are left out.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'a>, Error>> + use<'a> {
        let mut lines = self.lines;
        core::iter::from_fn(move || {
            loop {
                if let Some(record) = Record::read(&lines.next()?).transpose() {
                    return Some(record);
                }
            }
        })
    }
}

/// A line inside a block.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Module(Module<'a>),
    Stack { id: u32, frames: Frames<'a> },
    Stats { via: &'a [u8], stats: Stats },
    Check(Check),
    Leak(Leak),
    Misuse(Misuse<'a>),
    Unseen { what: &'a [u8], count: u64, why: &'a [u8] },
}

impl<'a> Record<'a> {
    fn read(line: &Line<'a>) -> Result<Option<Self>, Error> {
        let id = || line.id().ok_or(Error { line: line.number, cause: Cause::Field("id") });
        Ok(Some(match line.word() {
            b"module" => Record::Module(Module {
                id: id()?,
                start: line.hex("start")?,
                end: line.hex("end")?,
                bias: line.hex("bias")?,
                build_id: line.bytes("build_id").map(|id| if id == b"-" { &[][..] } else { id })?,
                path: line.bytes("path")?,
            }),
            b"stack" => {
                let frames = Frames { rest: after_word(after_word(line.text)) };
                if frames.clone().any(|frame| frame.is_none()) {
                    return Err(Error { line: line.number, cause: Cause::Field("frame") });
                }
                Record::Stack { id: id()?, frames }
            }
            b"stats" => {
                let mut stats = Stats::default();
                line.numbers(|name, value| stats.set(name, value));
                Record::Stats { via: line.bytes("via")?, stats }
            }
            b"check" => {
                let mut check = Check::default();
                line.numbers(|name, value| check.set(name, value));
                Record::Check(check)
            }
            b"leak" => Record::Leak(Leak {
                kind: line.word_field("kind", Kind::from_word)?,
                status: line.word_field("status", Status::from_word)?,
                stack: line.number("stack")?,
                blocks: line.number("blocks")?,
                bytes: line.number("bytes")?,
                exact: line.number::<u64>("exact")? != 0,
                error_blocks: line.number("error_blocks")?,
                error_bytes: line.number("error_bytes")?,
                indirect_blocks: line.number("indirect_blocks")?,
                indirect_bytes: line.number("indirect_bytes")?,
            }),
            b"misuse" => Record::Misuse(Misuse {
                what: line.word_field("what", Wrong::from_word)?,
                made_by: line.bytes("made_by")?,
                freed_by: line.bytes("freed_by")?,
                made: line.number("made")?,
                freed: line.number("freed")?,
                blocks: line.number("blocks")?,
            }),
            b"unseen" => {
                Record::Unseen { what: line.bytes("what")?, count: line.number("count")?, why: line.bytes("why")? }
            }
            _ => return Ok(None),
        }))
    }
}

/// The frames of a stack line, caller of the allocation first. All are `Some` in a record that was read.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl Copy for Frames<'_> {}

impl Iterator for Frames<'_> {
    type Item = Option<Frame>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|&byte| byte == b' ').unwrap_or(self.rest.len());
        let field = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or(&[]);
        Some(frame(field))
    }
}

fn frame(field: &[u8]) -> Option<Frame> {
    let plus = field.iter().position(|&byte| byte == b'+')?;
    let module = match &field[..plus] {
        b"-" => None,
        number => Some(u32::try_from(decimal(number)?).ok()?),
    };
    let (offset, exact) = match field[plus + 1..].strip_suffix(b"!") {
        Some(offset) => (offset, true),
        None => (&field[plus + 1..], false),
    };
    Some(Frame { module, offset: hex(offset)?, exact })
}

/// The bytes that an escaped field stands for. A backslash that begins no escape stands for itself.
pub fn unescape(field: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = field;
    core::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if let [b'\\', b'x', high, low, tail @ ..] = rest
            && let (Some(high), Some(low)) = (nibble(*high), nibble(*low))
        {
            rest = tail;
            return Some(high << 4 | low);
        }
        rest = after;
        Some(first)
    })
}

#[derive(Clone, Copy, Debug)]
struct Lines<'a> {
    rest: &'a [u8],
    /// Number of the last line given out.
    line: usize,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        Some(Line { number: self.line + 1, text: &self.rest[..end.unwrap_or(self.rest.len())], whole: end.is_some() })
    }

    fn next(&mut self) -> Option<Line<'a>> {
        let line = self.peek()?;
        self.rest = self.rest.get(line.text.len() + 1..).unwrap_or(&[]);
        self.line += 1;
        Some(line)
    }
}

#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    number: usize,
    text: &'a [u8],
    /// Ended by a newline, not by the end of the file.
    whole: bool,
}

impl<'a> Line<'a> {
    fn word(&self) -> &'a [u8] {
        self.text.split(|&byte| byte == b' ').next().unwrap_or(&[])
    }

    fn id(&self) -> Option<u32> {
        let field = self.text.split(|&byte| byte == b' ').nth(1)?;
        u32::try_from(decimal(field)?).ok()
    }

    fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.text
            .split(|&byte| byte == b' ')
            .find_map(|field| field.strip_prefix(name.as_bytes()).and_then(|field| field.strip_prefix(b"=")))
    }

    fn bytes(&self, name: &'static str) -> Result<&'a [u8], Error> {
        self.field(name).ok_or(Error { line: self.number, cause: Cause::Field(name) })
    }

    fn number<T: TryFrom<u64>>(&self, name: &'static str) -> Result<T, Error> {
        let value = self.field(name).and_then(decimal).and_then(|value| T::try_from(value).ok());
        value.ok_or(Error { line: self.number, cause: Cause::Field(name) })
    }

    fn hex(&self, name: &'static str) -> Result<u64, Error> {
        self.field(name).and_then(hex).ok_or(Error { line: self.number, cause: Cause::Field(name) })
    }

    fn word_field<T>(&self, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let word = self.field(name).and_then(|word| core::str::from_utf8(word).ok());
        word.and_then(parse).ok_or(Error { line: self.number, cause: Cause::Field(name) })
    }

    fn numbers(&self, mut each: impl FnMut(&str, u64)) {
        for field in self.text.split(|&byte| byte == b' ') {
            if let Some(equals) = field.iter().position(|&byte| byte == b'=')
                && let (Ok(name), Some(value)) = (core::str::from_utf8(&field[..equals]), decimal(&field[equals + 1..]))
            {
                each(name, value);
            }
        }
    }
}

fn after_word(text: &[u8]) -> &[u8] {
    match text.iter().position(|&byte| byte == b' ') {
        Some(at) => &text[at + 1..],
        None => &[],
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| Some(value << 4 | u64::from(nibble(byte)?)))
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
