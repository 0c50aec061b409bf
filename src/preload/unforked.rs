//! Memory that the copy has not, or not as it was: what the program keeps from its forks (MADV_DONTFORK, MADV_WIPEONFORK). It is
//! read from the program itself, which runs on meanwhile.
//!
//! Of MADV_DONTFORK only that it is used is noted: a JavaScript engine marks each page of its heap so. What is missing is what the
//! program's mappings have and the copy's have not.
#![allow(unsafe_code)] // hands the buffer to the marker

use crate::child::{Step, Stopped};
use crate::emit::Unseen;
use crate::modules::MapsText;
use crate::regions;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::SizeOf;
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::{maps, roots};
use leakscan_engine::sys::{self, Errno};

const MEMORY: Stopped = Stopped(Step::Memory, Errno::ENOMEM);

/// The ranges that the copy was made with.
pub struct Inherited(List<AddrRange>);

impl Inherited {
    /// To be made before anything else is mapped in the copy. Empty where the program leaves nothing out.
    pub fn list() -> Result<Self, Stopped> {
        let mut ranges: List<AddrRange> = List::new();
        if !regions::DONTFORK.load(Relaxed) {
            return Ok(Self(ranges));
        }
        let mut buffer = MapsText::new();
        let text = buffer.read().ok_or(Stopped(Step::Maps, Errno::ENOENT))?;
        // The buffer itself may lie where the program has something else.
        let start = text.as_ptr() as usize;
        let own = [AddrRange::new(start, (start + text.len()).next_multiple_of(256 << 10))];
        let mut full = false;
        for mapping in maps::parse(text) {
            roots::subtract(mapping.range, &own, |range| full |= !ranges.push(range));
        }
        if full { Err(MEMORY) } else { Ok(Self(ranges)) }
    }

    /// What the program has beside that, outside `excluded` (sorted, disjoint): memory that holds its data.
    pub fn missing(&self, pid: u32, excluded: &[AddrRange]) -> Result<List<AddrRange>, Stopped> {
        let mut missing: List<AddrRange> = List::new();
        let mut full = false;
        for range in regions::WIPED.iter() {
            roots::subtract(range, excluded, |range| full |= !missing.push(range));
        }
        if !self.0.is_empty() {
            let mut buffer = MapsText::new();
            let text = buffer.read_of(pid).ok_or(Stopped(Step::Maps, Errno::ENOENT))?;
            let data = |mapping: &maps::Mapping<'_>| {
                mapping.is_anonymous() && mapping.read && mapping.write && !mapping.shared && !mapping.is_kernels()
            };
            for mapping in maps::parse(text).filter(data) {
                roots::subtract(mapping.range, &self.0, |part| {
                    roots::subtract(part, excluded, |range| full |= !missing.push(range));
                });
            }
        }
        if full { Err(MEMORY) } else { Ok(missing) }
    }
}

/// Reads these ranges of the program's as roots. Gives whether all could be read that is still there; what could not may hold
/// the pointers to blocks that will look lost.
pub fn read<S: SizeOf>(
    pid: u32,
    ranges: &[AddrRange],
    marker: &mut Marker<'_, '_, S>,
    unseen: &mut Unseen,
) -> Result<bool, Stopped> {
    const CHUNK: usize = 1 << 20;
    let mut buffer = None;
    let mut refused = 0;
    for part in ranges {
        let buffer = match &mut buffer {
            Some(buffer) => buffer,
            none => none.insert(arena::zeroed::<u8>(CHUNK).ok_or(MEMORY)?),
        };
        let mut at = part.start;
        while at < part.end {
            let len = CHUNK.min(part.end - at);
            match sys::read_memory(pid, at, &mut buffer[..len]) {
                Ok(read) => {
                    let start = buffer.as_ptr() as usize;
                    // SAFETY: the buffer is ours.
                    unsafe { marker.root_range(AddrRange::new(start, start + read), How::default()) };
                }
                // It has been unmapped.
                Err(Errno::EFAULT | Errno::ESRCH) => {}
                Err(_) => refused += len / 4096,
            }
            at += len;
        }
    }
    let lost = regions::WIPED.lost();
    let why = b"pages that a fork leaves out could not be read: nothing is confirmed without them";
    unseen.add_count("not-forked", refused, why);
    unseen.add_count(
        "not-forked",
        lost,
        b"ranges that a fork wipes found no room in our list: nothing is confirmed without them",
    );
    Ok(refused + lost == 0)
}
