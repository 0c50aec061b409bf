//! Pages that the program has given back by MADV_FREE: until it writes to one again, nothing is meant by what is there.
//!
//! Which of them are as they were the kernel does not say page by page, but for each mapping how much of it is clean (/proc/self/smaps):
//! of anonymous memory, what was given back and not written to since. If that is all that was given back and is there, none of it was
//! written to. (`LazyFree` would say the same, but late: the kernel counts there in batches.)
#![allow(unsafe_code)] // reads a line into a buffer on the stack

use crate::regions;
use leakscan_engine::AddrRange;
use leakscan_engine::scan::maps;
use leakscan_engine::scan::resident::Pages;
use leakscan_engine::sys;

/// A line of smaps is shorter than that, but for a path.
const BUFFER: usize = 8192;

/// Hands out what was given back and not written to since.
pub fn each(pages: &mut Pages, mut each: impl FnMut(AddrRange)) {
    if regions::GIVEN.iter().next().is_none() {
        return;
    }
    let Ok(file) = sys::open(c"/proc/self/smaps", sys::O_RDONLY, 0) else { return };
    let mut buffer = [0u8; BUFFER];
    let mut held = 0;
    let (mut mapping, mut clean) = (AddrRange::default(), 0);
    loop {
        let Ok(read @ 1..) = file.read(&mut buffer[held..]) else { return };
        held += read;
        let mut rest = &buffer[..held];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if let Some(kilobytes) = line.strip_prefix(b"Shared_Clean:") {
                clean = number(kilobytes) * 1024;
            } else if let Some(kilobytes) = line.strip_prefix(b"Private_Clean:") {
                of_mapping(mapping, clean + number(kilobytes) * 1024, pages, &mut each);
            } else if let Some(next) = maps::parse(line).next() {
                mapping = if next.is_anonymous() { next.range } else { AddrRange::default() };
            }
        }
        let left = rest.len();
        // A path longer than the buffer: its end is no line that is looked for.
        let left = if left == BUFFER { 0 } else { left };
        buffer.copy_within(held - left..held, 0);
        held = left;
    }
}

fn of_mapping(mapping: AddrRange, clean: usize, pages: &mut Pages, each: &mut impl FnMut(AddrRange)) {
    let given = || {
        let parts = regions::GIVEN.iter();
        parts.map(|range| AddrRange::new(range.start.max(mapping.start), range.end.min(mapping.end)))
    };
    let mut there = 0;
    for part in given().filter(|part| part.start < part.end) {
        pages.each_own(part, |page| there += page.len());
    }
    if there != 0 && there == clean {
        given().filter(|part| part.start < part.end).for_each(each);
    }
}

fn number(text: &[u8]) -> usize {
    text.iter().filter(|byte| byte.is_ascii_digit()).fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
