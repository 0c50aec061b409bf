//! Which pages of a range exist: reading the others would only make them, at 1 to 3 microseconds each, and a JVM reserves
//! gigabytes.
#![allow(unsafe_code)] // mincore writes to a buffer

use super::roots::Resident;
use crate::AddrRange;
use crate::sys::{self, Errno, Fd};
use core::ffi::CStr;

const PAGE: usize = 4096;
/// Ranges up to this are read whole.
const SMALL: usize = 256 << 10;
/// Pages asked for at once.
const BATCH: usize = 4096;

/// Finds resident pages. Needs no memory but its buffers.
pub struct Pages {
    /// `/proc/self/pagemap`; refused to a process that is not dumpable.
    pagemap: Option<PageMap>,
    /// The process that this one is a copy of, and its page map while it is needed.
    program: Option<u32>,
    programs: Option<PageMap>,
    entries: &'static mut [u64],
    residency: &'static mut [u8],
    /// What `residency` tells, and of which pages.
    told: (Asked, AddrRange),
}

/// `/proc/PID/pagemap`.
struct PageMap {
    file: Fd,
    /// It gives ranges of pages (Linux 6.7).
    gives_ranges: bool,
}

/// What is asked of pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Those of private memory that exist.
    Private,
    /// Those in the page cache.
    Shared,
    /// Those with what this process wrote to them, in memory or swapped out.
    Written,
    /// Those in memory that nobody else sees.
    Own,
}

/// Categories of a page, as PAGEMAP_SCAN has them.
const FILE: usize = 1 << 2;
const PRESENT: usize = 1 << 3;
const SWAPPED: usize = 1 << 4;
const ZERO: usize = 1 << 5;

/// The same of a word of the page map, which does not tell the page of zeroes from others.
fn categories(entry: u64) -> usize {
    let category = |bit: u32, category: usize| (entry >> bit & 1) as usize * category;
    category(63, PRESENT) | category(62, SWAPPED) | category(61, FILE)
}

/// Pages by their categories: when those of `not` are turned round, all of `all` and, unless there is none, one of `any`.
struct Meant {
    not: usize,
    all: usize,
    any: usize,
}

impl Meant {
    /// Also a page on its way to another place in memory counts as swapped out.
    const fn by(asked: Asked) -> Self {
        match asked {
            Asked::Private | Asked::Shared => Self { not: ZERO, all: ZERO, any: PRESENT | SWAPPED },
            Asked::Written => Self { not: FILE | ZERO, all: FILE | ZERO, any: PRESENT | SWAPPED },
            Asked::Own => Self { not: FILE | ZERO, all: FILE | ZERO | PRESENT, any: 0 },
        }
    }

    const fn are(&self, categories: usize) -> bool {
        let turned = categories ^ self.not;
        turned & self.all == self.all && (self.any == 0 || turned & self.any != 0)
    }
}

impl Pages {
    /// `None` without memory for the buffers.
    pub fn open() -> Option<Self> {
        Some(Self {
            pagemap: PageMap::open(c"/proc/self/pagemap"),
            program: None,
            programs: None,
            entries: crate::arena::zeroed(BATCH)?,
            residency: crate::arena::zeroed(BATCH)?,
            told: (Asked::Own, AddrRange::default()),
        })
    }

    /// The same for a copy of process `program`.
    pub fn open_in_copy_of(program: u32) -> Option<Self> {
        Some(Self { program: Some(program), ..Self::open()? })
    }

    /// Whether the kernel tells of each page who has written to it: not to a process that is not dumpable.
    pub fn are_told(&self) -> bool {
        self.pagemap.is_some()
    }

    /// The parts of a range whose pages exist, in order. A small range of private or shared memory is given as a whole.
    pub fn each(&mut self, range: AddrRange, resident: Resident, mut each: impl FnMut(AddrRange)) {
        match resident {
            Resident::Private | Resident::Shared { .. } if range.len() <= SMALL => each(range),
            _ => self.each_resident(range, resident, each),
        }
    }

    /// The same, whatever the range's size.
    pub fn each_resident(&mut self, range: AddrRange, resident: Resident, each: impl FnMut(AddrRange)) {
        let (asked, until) = match resident {
            Resident::Own { until } => (Asked::Written, until),
            Resident::Private => (Asked::Private, range.end),
            Resident::Shared { .. } => (Asked::Shared, range.end),
        };
        self.walk(range, until, asked, each);
        // (There may be room for few descriptors.)
        self.programs = None;
    }

    /// The parts of a range whose pages are this process's own: what is written there nobody else sees. Nothing where the kernel does
    /// not say.
    pub fn each_own(&mut self, range: AddrRange, each: impl FnMut(AddrRange)) {
        self.walk(range, range.end, Asked::Own, each);
    }

    /// Whether the page at `addr`, of private memory, exists. True where the kernel does not say.
    pub fn exists(&mut self, addr: usize) -> bool {
        self.ask(addr & !(PAGE - 1), 1, Asked::Private);
        self.residency[0] != 0
    }

    fn walk(&mut self, range: AddrRange, until: usize, asked: Asked, mut each: impl FnMut(AddrRange)) {
        let mut run: Option<AddrRange> = None;
        let mut batch = range.start & !(PAGE - 1);
        while batch < range.end {
            // (Only files' pages are as they were told before: nobody writes to them meanwhile.)
            if asked != Asked::Written || self.told.0 != asked || !self.told.1.contains(batch) {
                let next = self.next_there(batch, range.end.next_multiple_of(PAGE), asked);
                if next != batch {
                    if let Some(run) = run.take() {
                        each(clip(run, range));
                    }
                    batch = next;
                    continue;
                }
                self.ask(batch, (until.max(range.end) - batch).div_ceil(PAGE).min(BATCH), asked);
            }
            let told = self.told.1;
            let end = told.end.min(range.end.next_multiple_of(PAGE));
            let batch_told = &self.residency[(batch - told.start) / PAGE..(end - told.start) / PAGE];
            if run.is_none() && batch_told.iter().all(|there| *there == 0) {
                batch = end;
                continue;
            }
            for start in (batch..end).step_by(PAGE) {
                run = match (run, self.residency[(start - told.start) / PAGE] != 0) {
                    (Some(run), true) => Some(AddrRange::new(run.start, start + PAGE)),
                    (None, true) => Some(AddrRange::new(start, start + PAGE)),
                    (Some(run), false) => {
                        each(clip(run, range));
                        None
                    }
                    (None, false) => None,
                };
            }
            batch = end;
        }
        if let Some(run) = run {
            each(clip(run, range));
        }
    }

    /// The first page of a long range that is there, or its end; its first page where nobody tells. Programs reserve terabytes (a MariaDB
    /// eight, Haskell's one), which to ask for batch by batch took half a second each.
    fn next_there(&mut self, start: usize, end: usize, asked: Asked) -> usize {
        let is_long = (end - start) / PAGE > BATCH;
        let pagemap = self.pagemap.as_mut().filter(|pagemap| is_long && asked != Asked::Shared && pagemap.gives_ranges);
        let Some(pagemap) = pagemap else { return start };
        let mut first = [[0usize; 3]];
        match pagemap.ranges(AddrRange::new(start, end), asked, 1, &mut first) {
            Ok((0, _)) => end,
            Ok(_) => first[0][0].clamp(start, end),
            Err(_) => start,
        }
    }

    /// Fills `residency` for a batch of pages. Where the kernel does not say, all are taken to be there, and none to be this process's own.
    fn ask(&mut self, start: usize, pages: usize, asked: Asked) {
        self.told = (asked, AddrRange::new(start, start + pages * PAGE));
        let (entries, residency) = (&mut *self.entries, &mut self.residency[..pages]);
        residency.fill(u8::from(asked != Asked::Own));
        if asked != Asked::Shared
            && let Some(pagemap) = &mut self.pagemap
        {
            return pagemap.tell(start, asked, entries, residency);
        }
        if asked == Asked::Own {
            return;
        }
        let buffer = self.residency.as_mut_ptr() as usize;
        // SAFETY: mincore writes one byte for each of the pages, of which the buffer holds BATCH.
        let told = unsafe { sys::call(sys::nr::MINCORE, [start, pages * PAGE, buffer, 0, 0, 0]) };
        if told.is_err() {
            self.residency[..pages].fill(1);
        }
        self.residency[..pages].iter_mut().for_each(|there| *there &= 1);
        // Of large pages (hugetlbfs) mincore tells by the page tables, and of shared ones a copy has none: the program has.
        if asked == Asked::Shared
            && let Some(program) = self.program
            && self.residency[..pages].iter().all(|there| *there == 0)
        {
            let mut path = [0; 40];
            let open = || PageMap::open(sys::proc_path(&mut path, program, b"pagemap"));
            self.programs = self.programs.take().or_else(open);
            if let Some(pagemap) = &mut self.programs {
                pagemap.tell(start, Asked::Private, self.entries, &mut self.residency[..pages]);
            }
        }
    }
}

impl PageMap {
    fn open(path: &CStr) -> Option<Self> {
        Some(Self { file: sys::open(path, sys::O_RDONLY, 0).ok()?, gives_ranges: true })
    }

    /// Fills `residency` for pages from `start` on; leaves it as it is where the kernel does not say.
    fn tell(&mut self, start: usize, asked: Asked, entries: &mut [u64], residency: &mut [u8]) {
        if self.tell_ranges(start, asked, residency) {
            return;
        }
        let bytes = residency.len() * 8;
        // SAFETY: there are as many entries, of 8 bytes each, and any bytes are one.
        let buffer =
            unsafe { core::slice::from_raw_parts_mut(entries[..residency.len()].as_mut_ptr().cast::<u8>(), bytes) };
        if self.file.read_at(buffer, start / PAGE * 8) == Ok(bytes) {
            let meant = Meant::by(asked);
            for (entry, there) in entries.iter().zip(residency) {
                *there = u8::from(meant.are(categories(*entry)));
            }
        }
    }

    /// The same by PAGEMAP_SCAN, which says nothing of what is not there, where reading the page map gives a word for each page. `false` if the
    /// kernel has it not. Of pages that nobody has written, which are one in truth, it says that they are not there.
    fn tell_ranges(&mut self, start: usize, asked: Asked, residency: &mut [u8]) -> bool {
        const AT_A_TIME: usize = 64;
        if !self.gives_ranges {
            return false;
        }
        let (mut from, end) = (start, start + residency.len() * PAGE);
        let mut ranges = [[0usize; 3]; AT_A_TIME];
        while from < end {
            let Ok((found, came_to)) = self.ranges(AddrRange::new(from, end), asked, 0, &mut ranges) else {
                self.gives_ranges = false;
                return false;
            };
            if from == start {
                residency.fill(0);
            }
            for [low, high, _] in &ranges[..found] {
                let pages = (low.max(&start) - start) / PAGE..(high.min(&end).max(&start) - start) / PAGE;
                residency.get_mut(pages).into_iter().for_each(|there| there.fill(1));
            }
            // Where it does not come on, the rest is not there.
            from = if came_to > from { came_to } else { end };
        }
        true
    }

    /// Ranges of pages that are there, each with its first and its last address, and a word more: of so many pages at most (0: of any number).
    /// Gives how many ranges, and how far it has come.
    fn ranges(
        &self,
        among: AddrRange,
        asked: Asked,
        most: usize,
        into: &mut [[usize; 3]],
    ) -> Result<(usize, usize), Errno> {
        const PAGEMAP_SCAN: usize = 0xc060_6610;
        let Meant { not, all, any } = Meant::by(asked);
        // `struct pm_scan_arg`: its size, flags, from where to where, where it has ended, the ranges and their number, at most so many
        // pages, categories that are to be off, all, any, and those that are told apart.
        let buffer = into.as_mut_ptr() as usize;
        let mut asking = [96, 0, among.start, among.end, 0, buffer, into.len(), most, not, all, any, 0];
        let request = [self.file.0, PAGEMAP_SCAN, asking.as_mut_ptr() as usize, 0, 0, 0];
        // SAFETY: the kernel writes as many ranges of three words as there is room for at most, and where it has ended.
        let found = unsafe { sys::call(sys::nr::IOCTL, request) }?;
        Ok((found.min(into.len()), asking[4]))
    }
}

fn clip(run: AddrRange, range: AddrRange) -> AddrRange {
    AddrRange::new(run.start.max(range.start), run.end.min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena;

    /// As the kernel of today says it, where it is not older than 6.7.
    fn by_ranges() -> Pages {
        Pages::open().unwrap()
    }
    fn by_words() -> Pages {
        let mut pages = Pages::open().unwrap();
        pages.pagemap.as_mut().unwrap().gives_ranges = false;
        pages
    }

    #[test]
    fn more_ranges_than_come_at_a_time() {
        let range = arena::map(4 << 20).unwrap();
        for page in (0..1024).filter(|page| page % 3 != 2) {
            // SAFETY: the page lies in the new mapping.
            unsafe { ((range.start + page * PAGE) as *mut u8).write(1) };
        }
        for mut pages in [by_ranges(), by_words()] {
            let mut found = Vec::new();
            pages
                .each(range, Resident::Private, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
            let expected: Vec<_> = (0..1024).step_by(3).map(|page| (page, 2.min(1024 - page))).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn only_touched_pages_of_a_large_range_are_given() {
        let range = arena::map(64 << 20).unwrap();
        for page in [3, 4, 5, 9000, 16383] {
            // SAFETY: the page lies in the new mapping.
            unsafe { ((range.start + page * PAGE) as *mut u8).write(1) };
        }
        // SAFETY: as above. Read, but never written.
        unsafe { ((range.start + 77 * PAGE) as *const u8).read_volatile() };
        for mut pages in [by_ranges(), by_words()] {
            let mut found = Vec::new();
            pages
                .each(range, Resident::Private, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
            let never_written = (!pages.pagemap.as_ref().unwrap().gives_ranges).then_some((77, 1));
            let expected: Vec<_> =
                [Some((3, 3)), never_written, Some((9000, 1)), Some((16383, 1))].into_iter().flatten().collect();
            assert_eq!(found, expected);
        }
    }

    /// As programs reserve it. (To ask for all of it batch by batch takes minutes.)
    #[test]
    fn what_is_there_of_many_terabytes() {
        let range = arena::map(16 << 40).unwrap();
        let pages = [0, 4095, 4096, 1 << 20, (1 << 20) + 5000, 1 << 31, (1 << 32) - 1];
        for page in pages {
            // SAFETY: the page lies in the new mapping.
            unsafe { ((range.start + page * PAGE) as *mut u8).write(1) };
        }
        if sys::kernel_release().is_some_and(|release| release < (6, 7)) {
            return eprintln!("not tested: PAGEMAP_SCAN, which this kernel has not");
        }
        let mut found = Vec::new();
        by_ranges()
            .each(range, Resident::Private, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
        assert_eq!(found, [(0, 1), (4095, 2), (1 << 20, 1), ((1 << 20) + 5000, 1), (1 << 31, 1), ((1 << 32) - 1, 1)]);
    }

    #[test]
    fn own_pages_are_those_that_no_other_process_writes_to() {
        let (own, shared) = (arena::map(1 << 20).unwrap(), arena::map_shared(1 << 20).unwrap());
        for mut pages in [by_ranges(), by_words()] {
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
    }

    #[test]
    fn what_was_swapped_out_was_written_all_the_same() {
        // (The bits of /proc/PID/pagemap.)
        let [present, swapped, file] = [1 << 63, 1 << 62, 1 << 61];
        let meant = |asked| {
            let words = [0, present, swapped, present | file, swapped | file];
            words.map(|word| Meant::by(asked).are(categories(word)))
        };
        assert_eq!(meant(Asked::Private), [false, true, true, true, true]);
        assert_eq!(meant(Asked::Written), [false, true, true, false, false]);
        // Nothing is written to what is not in memory: whose it is may be told only then.
        assert_eq!(meant(Asked::Own), [false, true, false, false, false]);
    }

    /// Ranges of a file that follow each other, some of whose pages this process has written, and others only read.
    #[test]
    fn written_pages_of_files_are_told_for_many_ranges_at_once() {
        const PAGES: usize = 5000;
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(file.metadata().unwrap().len() > 8 * PAGE as u64);
        let range = arena::map(PAGES * PAGE).unwrap();
        let arguments = [range.start, 8 * PAGE, 3, 0x12, std::os::fd::AsRawFd::as_raw_fd(&file) as usize, 0];
        // SAFETY: a private mapping of a file, in place of the beginning of a mapping that nobody else has.
        unsafe { sys::call(sys::nr::MMAP, arguments) }.unwrap();
        for page in 0..8 {
            let at = (range.start + page * PAGE) as *mut u8;
            // SAFETY: inside the new mapping, and the file has so many pages.
            let byte = unsafe { at.read_volatile() };
            if [2, 3, 6].contains(&page) {
                // SAFETY: as above.
                unsafe { at.write_volatile(byte) };
            }
        }
        // SAFETY: inside the new mapping; behind what is told at a time.
        unsafe { ((range.start + (PAGES - 1) * PAGE) as *mut u8).write(1) };
        for mut pages in [by_ranges(), by_words()] {
            let mut found = vec![];
            let resident = Resident::Own { until: range.end };
            for (from, to) in [(0, 3), (3, 5), (5, 8), (8, PAGES)] {
                let part = AddrRange::new(range.start + from * PAGE, range.start + to * PAGE);
                pages.each(part, resident, |run| found.push(((run.start - range.start) / PAGE, run.len() / PAGE)));
                // (Another question in between.)
                let _ = from == 5 && pages.exists(range.start);
            }
            assert_eq!(found, [(2, 1), (3, 1), (6, 1), (PAGES - 1, 1)]);
        }
        let mut unknown = Pages { pagemap: None, ..by_words() };
        let (mut found, whole) = (vec![], AddrRange::new(range.start, range.start + 8 * PAGE));
        unknown.each(whole, Resident::Own { until: range.end }, |run| found.push(run));
        assert_eq!(found, [whole], "where nobody tells, all may be written");
    }

    #[test]
    fn a_small_range_is_given_whole() {
        let range = arena::map(SMALL).unwrap();
        let mut found = Vec::new();
        Pages::open().unwrap().each(range, Resident::Shared { is_file: false }, |run| found.push(run));
        assert_eq!(found, [range]);
    }

    #[test]
    fn shared_memory_is_asked_for_in_the_page_cache() {
        let range = arena::map_shared(8 << 20).unwrap();
        // SAFETY: the page lies in the new mapping.
        unsafe { ((range.start + 77 * PAGE) as *mut u8).write(1) };
        let mut found = Vec::new();
        Pages::open().unwrap().each(range, Resident::Shared { is_file: false }, |run| {
            found.push(((run.start - range.start) / PAGE, run.len() / PAGE))
        });
        assert_eq!(found, [(77, 1)]);
    }
}
