//! Which pages of a range exist: reading the others would only make them, at 1 to 3 microseconds each, and a JVM reserves
//! gigabytes.
#![allow(unsafe_code)] // mincore writes to a buffer

use super::roots::Resident;
use crate::AddrRange;
use crate::sys::{self, Fd};

const PAGE: usize = 4096;
/// Ranges up to this are read whole.
const SMALL: usize = 256 << 10;
/// Pages asked for at once.
const BATCH: usize = 4096;

/// Finds resident pages. Needs no memory but its buffers.
pub struct Pages {
    /// `/proc/self/pagemap`; refused to a process that is not dumpable.
    pagemap: Option<Fd>,
    entries: &'static mut [u64],
    residency: &'static mut [u8],
}

/// What is asked of pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    There(Resident),
    Own,
}

impl Pages {
    /// `None` without memory for the buffers.
    pub fn open() -> Option<Self> {
        let pagemap = sys::open(c"/proc/self/pagemap", sys::O_RDONLY, 0).ok();
        Some(Self { pagemap, entries: crate::arena::zeroed(BATCH)?, residency: crate::arena::zeroed(BATCH)? })
    }

    /// The parts of a range whose pages exist, in order.
    pub fn each(&mut self, range: AddrRange, resident: Resident, mut each: impl FnMut(AddrRange)) {
        if range.len() <= SMALL {
            return each(range);
        }
        self.walk(range, Asked::There(resident), each);
    }

    /// The same for private memory, whatever the range's size. Nothing where the kernel does not say.
    pub fn each_resident(&mut self, range: AddrRange, each: impl FnMut(AddrRange)) {
        if self.pagemap.is_some() {
            self.walk(range, Asked::There(Resident::Private), each);
        }
    }

    /// The parts of a range whose pages are this process's own: what is written there nobody else sees. Nothing where the kernel does
    /// not say.
    pub fn each_own(&mut self, range: AddrRange, each: impl FnMut(AddrRange)) {
        self.walk(range, Asked::Own, each);
    }

    /// Whether the page at `addr`, of private memory, exists. True where the kernel does not say.
    pub fn exists(&mut self, addr: usize) -> bool {
        self.ask(addr & !(PAGE - 1), 1, Asked::There(Resident::Private));
        self.residency[0] != 0
    }

    fn walk(&mut self, range: AddrRange, asked: Asked, mut each: impl FnMut(AddrRange)) {
        let mut run: Option<AddrRange> = None;
        let mut batch = range.start & !(PAGE - 1);
        while batch < range.end {
            let pages = (range.end - batch).div_ceil(PAGE).min(BATCH);
            self.ask(batch, pages, asked);
            for page in 0..pages {
                let start = batch + page * PAGE;
                run = match (run, self.residency[page] != 0) {
                    (Some(run), true) => Some(AddrRange::new(run.start, start + PAGE)),
                    (None, true) => Some(AddrRange::new(start, start + PAGE)),
                    (Some(run), false) => {
                        each(clip(run, range));
                        None
                    }
                    (None, false) => None,
                };
            }
            batch += pages * PAGE;
        }
        if let Some(run) = run {
            each(clip(run, range));
        }
    }

    /// Fills `residency` for a batch of pages. Where the kernel does not say, all are taken to be there, and none to be this process's own.
    fn ask(&mut self, start: usize, pages: usize, asked: Asked) {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const SHARED: u64 = 1 << 61;
        self.residency[..pages].fill(u8::from(asked != Asked::Own));
        if asked != Asked::There(Resident::Shared)
            && let Some(pagemap) = &self.pagemap
        {
            let bytes = pages * 8;
            // SAFETY: the buffer holds BATCH words of 8 bytes, and any bytes are a word.
            let buffer = unsafe { core::slice::from_raw_parts_mut(self.entries.as_mut_ptr().cast::<u8>(), bytes) };
            if pagemap.read_at(buffer, start / PAGE * 8) != Ok(bytes) {
                return;
            }
            for (entry, there) in self.entries.iter().zip(&mut self.residency[..pages]) {
                *there = u8::from(match asked {
                    Asked::Own => entry & (PRESENT | SHARED) == PRESENT,
                    Asked::There(_) => entry & (PRESENT | SWAPPED) != 0,
                });
            }
            return;
        }
        if asked == Asked::Own {
            return;
        }
        let buffer = self.residency.as_mut_ptr() as usize;
        // SAFETY: mincore writes one byte for each of the pages, of which the buffer holds BATCH.
        let asked = unsafe { sys::call(sys::nr::MINCORE, [start, pages * PAGE, buffer, 0, 0, 0]) };
        if asked.is_err() {
            self.residency[..pages].fill(1);
        }
        self.residency[..pages].iter_mut().for_each(|there| *there &= 1);
    }
}

fn clip(run: AddrRange, range: AddrRange) -> AddrRange {
    AddrRange::new(run.start.max(range.start), run.end.min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena;

    #[test]
    fn only_touched_pages_of_a_large_range_are_given() {
        let range = arena::map(64 << 20).unwrap();
        for page in [3, 4, 5, 9000, 16383] {
            // SAFETY: the page lies in the new mapping.
            unsafe { ((range.start + page * PAGE) as *mut u8).write(1) };
        }
        let mut pages = Pages::open().unwrap();
        let mut found = Vec::new();
        pages.each(range, Resident::Private, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
        assert_eq!(found, [(3, 3), (9000, 1), (16383, 1)]);
    }

    #[test]
    fn own_pages_are_those_that_no_other_process_writes_to() {
        let (own, shared) = (arena::map(1 << 20).unwrap(), arena::map_shared(1 << 20).unwrap());
        let mut pages = Pages::open().unwrap();
        let mut found = vec![];
        for range in [own, shared] {
            for page in [1, 2, 9] {
                // SAFETY: inside the new mapping.
                unsafe { *((range.start + page * PAGE) as *mut u8) = 1 };
            }
            let part = AddrRange::new(range.start + PAGE + 100, range.start + 9 * PAGE + 8);
            pages.each_own(part, |run| found.push((run.start - range.start, run.len())));
        }
        assert_eq!(found, [(PAGE + 100, 2 * PAGE - 100), (9 * PAGE, 8)]);
    }

    #[test]
    fn a_small_range_is_given_whole() {
        let range = arena::map(SMALL).unwrap();
        let mut found = Vec::new();
        Pages::open().unwrap().each(range, Resident::Shared, |run| found.push(run));
        assert_eq!(found, [range]);
    }

    #[test]
    fn shared_memory_is_asked_for_in_the_page_cache() {
        let range = arena::map_shared(8 << 20).unwrap();
        // SAFETY: the page lies in the new mapping.
        unsafe { ((range.start + 77 * PAGE) as *mut u8).write(1) };
        let mut found = Vec::new();
        Pages::open()
            .unwrap()
            .each(range, Resident::Shared, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
        assert_eq!(found, [(77, 1)]);
    }
}
