//! Records to lines. Works in a fixed buffer, allocates nothing, and can run in a forked child.

use crate::{FORMAT, Frame, Leak, Misuse, Module, Process, Sum, Trigger};

/// Where the bytes go. `false` means that they could not be written; the writer then stays failed.
pub trait Sink {
    fn write(&mut self, bytes: &[u8]) -> bool;
}

const BUFFER: usize = 4096;

/// Writes header and blocks. After a failed write nothing more is written and [`Writer::finish`] says `false`, so that a
/// block that lost a part never gets its `end` line.
pub struct Writer<S: Sink> {
    sink: S,
    buffer: [u8; BUFFER],
    filled: usize,
    ok: bool,
    /// Bytes that reached the sink.
    written: u64,
    /// Length and sum of the open block.
    block_bytes: u64,
    sum: Sum,
}

impl<S: Sink> Writer<S> {
    pub fn new(sink: S) -> Self {
        Self { sink, buffer: [0; BUFFER], filled: 0, ok: true, written: 0, block_bytes: 0, sum: Sum::new() }
    }

    /// The four header lines of a new file.
    pub fn header(&mut self, process: &Process<'_>) {
        self.text(b"leakscan report ");
        self.decimal(u64::from(FORMAT));
        self.text(b"\nprocess pid=");
        self.decimal(u64::from(process.pid));
        self.text(b" ppid=");
        self.decimal(u64::from(process.ppid));
        self.text(b" start=");
        self.decimal(process.start);
        self.text(b" version=");
        self.escaped(process.version);
        self.text(b" run=");
        self.escaped(process.run);
        self.text(b"\ncommand exe=");
        self.escaped(process.exe);
        self.text(b" args=");
        self.escaped(process.args);
        self.text(b"\noptions set=");
        self.escaped(process.options);
        self.text(b"\n");
    }

    /// Opens a block. `time` is in seconds since 1970.
    pub fn scan(&mut self, number: u32, trigger: Trigger, time: u64) {
        self.flush();
        self.block_bytes = 0;
        self.sum = Sum::new();
        self.text(b"scan ");
        self.decimal(u64::from(number));
        self.text(b" trigger=");
        self.text(trigger.word().as_bytes());
        self.text(b" time=");
        self.decimal(time);
        self.text(b"\n");
    }

    pub fn module(&mut self, module: &Module<'_>) {
        self.text(b"module ");
        self.decimal(u64::from(module.id));
        self.text(b" start=");
        self.hex(module.start);
        self.text(b" end=");
        self.hex(module.end);
        self.text(b" bias=");
        self.hex(module.bias);
        self.text(b" build_id=");
        if module.build_id.is_empty() {
            self.text(b"-");
        }
        for byte in module.build_id {
            self.text(&[digit(byte >> 4), digit(byte & 15)]);
        }
        self.text(b" path=");
        self.escaped(module.path);
        self.text(b"\n");
    }

    pub fn stack(&mut self, id: u32, frames: impl Iterator<Item = Frame>) {
        self.text(b"stack ");
        self.decimal(u64::from(id));
        for frame in frames {
            self.text(b" ");
            match frame.module {
                Some(module) => self.decimal(u64::from(module)),
                None => self.text(b"-"),
            }
            self.text(b"+");
            self.hex(frame.offset);
            if frame.exact {
                self.text(b"!");
            }
        }
        self.text(b"\n");
    }

    pub fn stats(&mut self, via: &str, stats: &crate::Stats) {
        self.text(b"stats via=");
        self.escaped(via.as_bytes());
        self.numbers(crate::Stats::NAMES, &stats.values());
        self.text(b"\n");
    }

    pub fn check(&mut self, check: &crate::Check) {
        self.text(b"check");
        self.numbers(crate::Check::NAMES, &check.values());
        self.text(b"\n");
    }

    pub fn leak(&mut self, leak: &Leak) {
        self.text(b"leak kind=");
        self.text(leak.kind.word().as_bytes());
        self.text(b" status=");
        self.text(leak.status.word().as_bytes());
        self.numbers(
            &["stack", "blocks", "bytes", "exact", "error_blocks", "error_bytes", "indirect_blocks", "indirect_bytes"],
            &[
                u64::from(leak.stack),
                leak.blocks,
                leak.bytes,
                u64::from(leak.exact),
                leak.error_blocks,
                leak.error_bytes,
                leak.indirect_blocks,
                leak.indirect_bytes,
            ],
        );
        self.text(b"\n");
    }

    pub fn misuse(&mut self, misuse: &Misuse<'_>) {
        self.text(b"misuse what=");
        self.text(misuse.what.word().as_bytes());
        self.text(b" made_by=");
        self.escaped(misuse.made_by);
        self.text(b" freed_by=");
        self.escaped(misuse.freed_by);
        self.numbers(&["made", "freed", "blocks"], &[misuse.made.into(), misuse.freed.into(), misuse.blocks]);
        self.text(b"\n");
    }

    /// `what` is a word of the vocabulary in the reader's documentation, `why` free text.
    pub fn unseen(&mut self, what: &str, count: u64, why: &[u8]) {
        self.text(b"unseen what=");
        self.escaped(what.as_bytes());
        self.text(b" count=");
        self.decimal(count);
        self.text(b" why=");
        self.escaped(why);
        self.text(b"\n");
    }

    /// Closes the block with the line that proves it whole.
    pub fn end(&mut self, number: u32) {
        let (bytes, sum) = (self.block_bytes, self.sum.value());
        self.text(b"end ");
        self.decimal(u64::from(number));
        self.text(b" bytes=");
        self.decimal(bytes);
        self.text(b" sum=");
        self.hex(sum);
        self.text(b"\n");
        self.flush();
    }

    /// Whether everything reached the sink.
    pub fn finish(&mut self) -> bool {
        self.flush();
        self.ok
    }

    /// Bytes that reached the sink, if all went well.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    fn numbers(&mut self, names: &[&str], values: &[u64]) {
        for (name, &value) in names.iter().zip(values) {
            self.text(b" ");
            self.text(name.as_bytes());
            self.text(b"=");
            self.decimal(value);
        }
    }

    fn escaped(&mut self, value: &[u8]) {
        let mut rest = value;
        while !rest.is_empty() {
            let (text, odd) = match core::str::from_utf8(rest) {
                Ok(_) => (rest, 0),
                Err(error) => {
                    (&rest[..error.valid_up_to()], error.error_len().unwrap_or(rest.len() - error.valid_up_to()))
                }
            };
            for &byte in text {
                if byte <= b' ' || byte == b'\\' || byte == 0x7f { self.escape(byte) } else { self.text(&[byte]) }
            }
            for &byte in &rest[text.len()..text.len() + odd] {
                self.escape(byte);
            }
            rest = &rest[text.len() + odd..];
        }
    }

    fn escape(&mut self, byte: u8) {
        self.text(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
    }

    fn decimal(&mut self, mut value: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.text(&digits[at..]);
    }

    fn hex(&mut self, value: u64) {
        let mut digits = [0u8; 16];
        let mut at = digits.len();
        let mut rest = value;
        loop {
            at -= 1;
            digits[at] = digit((rest & 15) as u8);
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..]);
    }

    fn text(&mut self, mut bytes: &[u8]) {
        self.sum.add(bytes);
        self.block_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let take = bytes.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == BUFFER {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.ok && self.filled > 0 {
            self.ok = self.sink.write(&self.buffer[..self.filled]);
            self.written += self.filled as u64;
        }
        self.filled = 0;
    }
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}
