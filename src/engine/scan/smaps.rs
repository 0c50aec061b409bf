//! `/proc/PID/smaps`, line by line, for what the kernel may take from a program without asking (MADV_FREE).

use super::maps;
use crate::AddrRange;

/// A mapping with pages that were given back, and not written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenBack {
    pub range: AddrRange,
    /// These are all pages that it has, in memory or swapped out.
    pub all: bool,
}

/// Takes the text in parts of any length.
#[derive(Default)]
pub struct Parser {
    range: Option<AddrRange>,
    /// KiB.
    resident: u64,
    given_back: u64,
    /// The line that is not whole yet; longer ones are paths, whose ends do not matter.
    line: Line,
}

#[derive(Clone, Copy)]
struct Line {
    bytes: [u8; 160],
    used: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], used: 0 }
    }
}

impl Parser {
    /// Gives each such mapping whose entry ends in this part.
    pub fn take(&mut self, part: &[u8], mut each: impl FnMut(GivenBack)) {
        for &byte in part {
            if byte != b'\n' {
                if let Some(place) = self.line.bytes.get_mut(self.line.used) {
                    *place = byte;
                    self.line.used += 1;
                }
                continue;
            }
            let line = self.line;
            self.line.used = 0;
            if let Some(found) = self.line(&line.bytes[..line.used]) {
                each(found);
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Option<GivenBack> {
        if let Some(kib) = line.strip_prefix(b"Rss:").and_then(number) {
            self.resident = kib;
        } else if let Some(kib) = line.strip_prefix(b"LazyFree:").and_then(number) {
            self.given_back = kib;
        } else if let Some(swapped) = line.strip_prefix(b"Swap:").and_then(number) {
            let all = self.given_back >= self.resident && swapped == 0;
            return (self.given_back != 0).then_some(GivenBack { range: self.range?, all });
        } else if let Some(mapping) = maps::parse(line).next() {
            self.range = Some(mapping.range).filter(|_| !mapping.shared);
            (self.resident, self.given_back) = (u64::MAX, 0);
        }
        None
    }
}

/// Of `        12 kB`.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b" kB")?.trim_ascii();
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(start: usize, rss: u32, lazy: u32, swap: u32) -> String {
        format!(
            "{start:012x}-{:012x} rw-p 00000000 00:00 0 {}\nSize:                256 kB\nRss: {rss:>19} kB\nPss:                   3 kB\n\
             LazyFree: {lazy:>14} kB\nAnonHugePages:         0 kB\nSwap: {swap:>18} kB\nVmFlags: rd wr mr mw me ac \n",
            start + 0x40000,
            "x".repeat(start % 0x1000)
        )
    }

    fn all(parts: &[&str]) -> Vec<(usize, usize, bool)> {
        let (mut parser, mut found) = (Parser::default(), vec![]);
        for part in parts {
            parser.take(part.as_bytes(), |one| found.push((one.range.start, one.range.len(), one.all)));
        }
        found
    }

    proptest! {
        #[test]
        fn what_was_given_back_is_found_however_the_text_is_cut(cut in 0usize..1600) {
            let text = [mapping(0x5000, 256, 0, 0), mapping(0x60_01ff, 256, 4, 0), mapping(0x70_0000, 12, 12, 0)].concat();
            let others = [mapping(0x80_0000, 8, 8, 0).replace("rw-p", "rw-s"), mapping(0x90_0000, 8, 8, 4)].concat();
            let (start, end) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(
                all(&[start, end, &others]),
                [(0x60_01ff, 0x40000, false), (0x70_0000, 0x40000, true), (0x90_0000, 0x40000, false)]
            );
        }

        #[test]
        fn any_bytes_are_taken(text: Vec<u8>) {
            Parser::default().take(&text, |_| {});
        }
    }
}
