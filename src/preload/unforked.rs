//! Memory that the copy has not, or not as it was: what the program keeps from its forks, and could not be taken in, and what was kept out
//! of the copy ([`taken_in`]). It is read from the program itself, which stands still until that is done, or for a fifth of a second at most.
//!
//! Only that there is any is noted: a JavaScript engine marks each page of its heap so; or, where a program has asked the kernel by
//! itself, found by the copy being smaller. What is missing is what the program's mappings have and the copy's have not.
#![allow(unsafe_code)] // hands the buffer to the marker

use crate::child::{Step, Stopped};
use crate::emit::Unseen;
use crate::ledger::Ledger;
use crate::modules::MapsText;
use crate::snapshot::{self, Job};
use crate::taken_in;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::scan::blocks::SizeOf;
use leakscan_engine::scan::mark::{How, Marker};
use leakscan_engine::scan::{maps, roots};
use leakscan_engine::sys::{self, Errno};

const MEMORY: Stopped = Stopped(Step::Memory, Errno::ENOMEM);

/// Copies of that memory, taken while the program stood still for it.
pub struct Copied {
    copies: List<AddrRange>,
    refused: usize,
    late: bool,
    /// Ranges that the program kept from its forks before a scan, and now does not.
    stuck: usize,
}

impl Copied {
    /// To be called before anything else is mapped in the copy, whose mappings are compared with the program's.
    pub fn take(job: &Job, ledger: &Ledger) -> Result<Self, Stopped> {
        let mut copied = Self { copies: List::new(), refused: 0, late: false, stuck: job.stuck() };
        for range in job.kept_out() {
            copied.restore(job, range)?;
        }
        // Advice by a system call of the program's own is not known of.
        let is_short = job.is_whole && !snapshot::is_in_place() && taken_in::mapped_pages() < job.pages;
        if job.is_whole && !is_short {
            if job.keeps_out && !snapshot::is_in_place() {
                copied.late = ledger.released.load(Acquire) != 0;
                ledger.copied.store(1, Release);
            }
            return Ok(copied);
        }
        let Missing { ranges: missing, are_all } = missing(job.known_as)?;
        copied.refused += usize::from(!are_all);
        for range in missing.iter() {
            copied.copy(job, *range)?;
        }
        let is_unwaited = is_short && !missing.is_empty();
        ledger.keeps_from_forks.fetch_or(is_unwaited.into(), Relaxed);
        copied.late = is_unwaited || ledger.released.load(Acquire) != 0;
        ledger.copied.store(1, Release);
        Ok(copied)
    }

    /// Puts what the program has in a range of no memory here, by which it is as any other.
    fn restore(&mut self, job: &Job, range: AddrRange) -> Result<(), Stopped> {
        if sys::map_at(range.start, range.len()) != Ok(range.start) {
            return self.copy(job, range);
        }
        // SAFETY: new, this long, and known to nobody else.
        self.read(job, range, unsafe { core::slice::from_raw_parts_mut(range.start as *mut u8, range.len()) });
        Ok(())
    }

    fn copy(&mut self, job: &Job, range: AddrRange) -> Result<(), Stopped> {
        let buffer = arena::zeroed::<u8>(range.len()).ok_or(MEMORY)?;
        let start = buffer.as_ptr() as usize;
        let read = self.read(job, range, buffer);
        self.copies.push(AddrRange::new(start, start + read)).then_some(()).ok_or(MEMORY)
    }

    /// Reads what it can, and gives how far it has come.
    fn read(&mut self, job: &Job, range: AddrRange, buffer: &mut [u8]) -> usize {
        /// Of memory that the program itself may not read so much is read at most: a reservation is larger.
        const CLOSED: usize = 64 << 20;
        let mut path = [0; 40];
        let mut memory = None;
        let mut at = 0;
        while at < buffer.len() {
            match sys::read_memory(job.pid, range.start + at, &mut buffer[at..]) {
                Ok(read) if read > 0 => at += read,
                Ok(_) | Err(Errno::EFAULT | Errno::ESRCH) => {
                    let open = || sys::open(sys::proc_path(&mut path, job.known_as, b"mem"), sys::O_RDONLY, 0).ok();
                    let file = memory.get_or_insert_with(open).as_ref().filter(|_| range.len() <= CLOSED);
                    let read = file.and_then(|file| file.read_at(&mut buffer[at..], range.start + at).ok());
                    self.refused += usize::from(range.len() > CLOSED);
                    at = (at + read.unwrap_or(0).max(4096)).min(buffer.len());
                }
                Err(_) => {
                    self.refused += (buffer.len() - at) / 4096;
                    break;
                }
            }
        }
        at
    }

    /// Reads the copies as roots. Gives whether they are all that there is, of one moment: what is missing may hold the pointers
    /// to blocks that look lost.
    pub fn mark<S: SizeOf>(&self, marker: &mut Marker<'_, '_, S>, unseen: &mut Unseen) -> bool {
        for copy in self.copies.iter() {
            // SAFETY: the buffers are ours.
            unsafe { marker.root_range(*copy, How::default()) };
        }
        let why = b"pages that a fork leaves out could not be read: nothing is confirmed without them";
        unseen.add_count("not-forked", self.refused, why);
        let why = b"memory that a fork leaves out was read while the program ran: nothing is confirmed by it";
        unseen.add_count("not-forked", self.late.into(), why);
        let why =
            b"ranges were to be left out of forks and are not any more: to note it again after a scan was refused";
        unseen.add_count("not-forked", self.stuck, why);
        self.refused == 0 && !self.late
    }
}

struct Missing {
    ranges: List<AddrRange>,
    /// If not, the kernel does not say what the program has (it is not dumpable).
    are_all: bool,
}

/// What the program has and the copy has not, and what was wiped.
fn missing(pid: u32) -> Result<Missing, Stopped> {
    let (mut ours, mut theirs) = (MapsText::new(), MapsText::new());
    let text = ours.read().map_err(|error| Stopped(Step::Maps, error))?;
    // The buffer itself may lie where the program has something else: most likely in the very hole that is looked for.
    let holds_text = |range: &AddrRange| range.contains(text.as_ptr() as usize);
    let own = [arena::own_ranges().find(holds_text).unwrap_or_default()];
    let (mut inherited, mut missing): (List<AddrRange>, List<AddrRange>) = (List::new(), List::new());
    let mut full = false;
    for mapping in maps::parse(text) {
        roots::subtract(mapping.range, &own, |range| full |= !inherited.push(range));
    }
    let piece = arena::zeroed(64 << 10).ok_or(MEMORY)?;
    let read = taken_in::each_mapping(taken_in::OWN, piece, |mapping, flags| {
        full |= flags.wiped && !missing.push(mapping.range);
    });
    read.map_err(|error| Stopped(Step::Maps, error))?;
    // By the program's own flags: what it has mapped since is no matter.
    let mut path = [0; 40];
    let smaps = sys::proc_path(&mut path, pid, b"smaps");
    let mut left_out: List<AddrRange> = List::new();
    let read = taken_in::each_mapping(smaps, piece, |mapping, flags| {
        let is_data = !flags.is_special && !mapping.is_devices(Some(flags));
        full |= flags.left_out && is_data && !left_out.push(mapping.range);
    });
    let mut are_all = true;
    if read.is_err() {
        let data = |mapping: &maps::Mapping<'_>| !mapping.is_kernels() && !mapping.is_devices(None);
        match theirs.read_of(pid) {
            Ok(text) => maps::parse(text).filter(data).for_each(|mapping| full |= !left_out.push(mapping.range)),
            Err(Errno::EACCES | Errno::EPERM) => are_all = false,
            Err(error) => return Err(Stopped(Step::Maps, error)),
        }
    }
    for range in left_out.iter() {
        roots::subtract(*range, &inherited, |range| full |= !missing.push(range));
    }
    if full { Err(MEMORY) } else { Ok(Missing { ranges: missing, are_all }) }
}
