//! `.eh_frame` -> rule: what is usual by [`cfi`], all else by gimli's no-allocation mode. Runs once per return address, on the miss path
//! of a walk.
#![allow(unsafe_code)] // reads the unwind tables where the loader has mapped them

use super::arch::{self, Rule};
use super::{FindObject, Object, Unwinder, cfi};
use core::sync::atomic::Ordering::Relaxed;
use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, NativeEndian, Pointer, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow,
};

pub(super) type Bytes = EndianSlice<'static, NativeEndian>;

/// Sized for code of the supported CPUs, so that a compile uses about 3 KiB of the program's stack (gimli's own storage
/// takes more than twice that, which small coroutine stacks do not have). What does not fit is counted as unsupported.
pub(super) struct Storage;
impl<T: gimli::ReaderOffset> UnwindContextStorage<T> for Storage {
    type Rules = [(Register, RegisterRule<T>); 24];
    type Stack = [UnwindTableRow<T, Self>; 4];
}

impl Unwinder {
    /// Sets how loaded files are found. To be called once, before the first walk that is to use tables.
    pub fn set_find(&self, find: FindObject) {
        self.find.store(find as *const () as usize, Relaxed);
    }

    pub(super) fn object(&self, pc: usize) -> Option<Object> {
        let find = self.find.load(Relaxed);
        if find == 0 {
            return None;
        }
        // SAFETY: `find` is 0 or what `set_find` stored, a `FindObject`.
        let find = unsafe { core::mem::transmute::<usize, FindObject>(find) };
        find(pc)
    }

    /// The rule for code at `pc` (inside the call, or the exact address).
    #[cold]
    #[inline(never)]
    pub(super) fn compile(&self, pc: usize) -> Rule {
        let Some(object) = self.object(pc) else { return Rule::NO_OBJECT };
        if object.eh_frame_hdr == 0 {
            return arch::without_table(pc);
        }
        match compile(object, pc) {
            Ok(rule) => rule,
            Err(Failure::NoEntry) => arch::without_table(pc),
            Err(Failure::Unsupported) => {
                self.unsupported.fetch_add(1, Relaxed);
                Rule::END
            }
        }
    }
}

pub(super) enum Failure {
    /// The tables do not cover the address.
    NoEntry,
    /// They say something that a packed rule cannot hold.
    Unsupported,
}

fn compile(object: Object, pc: usize) -> Result<Rule, Failure> {
    match quickly(object, pc) {
        Some(rule) => Ok(rule),
        None => by_gimli(object, pc),
    }
}

/// The bytes of a file's tables, from an address to the end of its mapping.
fn section(object: Object, start: usize) -> Option<&'static [u8]> {
    let inside = (object.start..object.end).contains(&start);
    // SAFETY: the loader says that the object is mapped up to `end`, and `start` lies in it. The tables lie in the object's read-only
    // segment; the object stays loaded, since code of it is on the stack being walked. A gap between segments after the tables is never
    // reached: the parsers follow lengths inside the tables.
    inside.then(|| unsafe { core::slice::from_raw_parts(start as *const u8, object.end - start) })
}

/// Where the tables are as usual.
fn quickly(object: Object, pc: usize) -> Option<Rule> {
    let header = section(object, object.eh_frame_hdr)?;
    let frames = |start| section(object, start);
    match cfi::look_up(header, object.eh_frame_hdr, frames, pc, arch::NUMBERS)? {
        cfi::Answer::Signal => Some(Rule::SIGNAL),
        cfi::Answer::Row(row) => arch::pack_row(row),
    }
}

/// (Out of line: its frame takes 4 KiB, and a program may call malloc on a stack for signals, of 8.)
#[cold]
#[inline(never)]
fn by_gimli(object: Object, pc: usize) -> Result<Rule, Failure> {
    let missing = |_: gimli::Error| Failure::NoEntry;
    let section = |start: usize| section(object, start).ok_or(Failure::NoEntry);
    let header = EhFrameHdr::new(section(object.eh_frame_hdr)?, NativeEndian);
    let bases = BaseAddresses::default().set_eh_frame_hdr(object.eh_frame_hdr as u64);
    let header = header.parse(&bases, 8).map_err(missing)?;
    let Pointer::Direct(start) = header.eh_frame_ptr() else { return Err(Failure::Unsupported) };
    let frames: EhFrame<Bytes> = EhFrame::new(section(start as usize)?, NativeEndian);
    let bases = bases.set_eh_frame(start);
    let table = header.table().ok_or(Failure::NoEntry)?;
    let entry = table
        .fde_for_address(&frames, &bases, pc as u64, |section, bases, offset| section.cie_from_offset(bases, offset))
        .map_err(missing)?;
    if entry.is_signal_trampoline() {
        return Ok(Rule::SIGNAL);
    }
    let mut context: UnwindContext<usize, Storage> = UnwindContext::new_in();
    let row =
        entry.unwind_info_for_address(&frames, &bases, &mut context, pc as u64).map_err(|_| Failure::Unsupported)?;
    arch::pack(row, &frames, entry.cie().encoding()).ok_or(Failure::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::walk::tests::find;
    use crate::{AddrRange, arena, sys};
    use proptest::prelude::*;
    use std::sync::OnceLock;

    /// The test program's own tables, and addresses of its functions as they say.
    struct Tables {
        /// From `.eh_frame_hdr` to the end of `.eh_frame`.
        bytes: Vec<u8>,
        /// Where `.eh_frame`, the functions and their entries lie, from the first byte.
        frames: usize,
        functions: Vec<isize>,
        entries: Vec<usize>,
    }

    fn tables() -> &'static Tables {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(|| {
            let object = find(tables as *const () as usize).expect("the test program is a loaded file");
            // SAFETY: the tables lie in the mapped file, headers first; both are a few hundred KiB.
            let header = unsafe { core::slice::from_raw_parts(object.eh_frame_hdr as *const u8, 4 << 20) };
            let word = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as isize;
            let (frames, count) = (word(4) + 4, word(8) as usize);
            let functions: Vec<isize> = (0..count).map(|i| word(12 + i * 8)).collect();
            let entries: Vec<usize> = (0..count).map(|i| word(16 + i * 8) as usize).collect();
            assert!(frames > 0 && count > 1000, "the tables are as linkers write them: header, then frames");
            let len = (entries.iter().max().unwrap() + 4096).next_multiple_of(4096);
            Tables { bytes: header[..len].to_vec(), frames: frames as usize, functions, entries }
        })
    }

    /// The tables at the end of a mapping, with nothing readable behind them, or before.
    fn placed(len: usize) -> (&'static mut [u8], AddrRange) {
        let pages = len.next_multiple_of(4096);
        let range = arena::map(pages + 8192).unwrap();
        for guard in [range.start, range.start + 4096 + pages] {
            // SAFETY: pages of the new mapping.
            unsafe { sys::call(sys::nr::MPROTECT, [guard, 4096, sys::PROT_NONE, 0, 0, 0]) }.unwrap();
        }
        let start = range.start + 4096 + pages - len;
        // SAFETY: the pages between the guards, which are this test's alone.
        (unsafe { core::slice::from_raw_parts_mut(start as *mut u8, len) }, range)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever stands in the tables: a rule or a refusal, no read outside of the file, and an end.
        #[test]
        fn damaged_tables_are_read_in_bounds(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
            heads in prop::collection::vec((0usize..12, any::<u8>()), 0..2),
            shared in prop::collection::vec((0usize..48, any::<u8>()), 0..3),
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0usize..48, any::<u8>()), 30),
            cut in 0usize..64,
        ) {
            let tables = tables();
            let len = tables.bytes.len() - cut;
            let (copy, range) = placed(len);
            copy.copy_from_slice(&tables.bytes[..len]);
            for (at, byte) in damage {
                copy[at.index(len)] = byte;
            }
            // The header, the first common entry, and each function's own.
            for (at, byte) in heads.into_iter().chain(shared.into_iter().map(|(at, byte)| (tables.frames + at, byte))) {
                copy[at] = byte;
            }
            for (pick, at, byte) in &picks {
                copy[pick.get(&tables.entries) + at] = *byte;
            }
            let start = copy.as_ptr() as usize;
            let object = Object { eh_frame_hdr: start, start, end: start + len };
            for (pick, ..) in picks {
                let function = *pick.get(&tables.functions);
                for inside in [0, 1, 9] {
                    let _ = compile(object, start.wrapping_add_signed(function + inside));
                }
            }
            // SAFETY: nobody else knows it.
            unsafe { arena::unmap(range) };
        }
    }

    /// On every file of this process: nearly all is usual, and then says what gimli says.
    #[test]
    fn the_quick_way_says_what_gimli_says() {
        let (mut asked, mut quick) = (0, 0);
        for function in [tables as *const () as usize, sys::getpid as *const () as usize, libc_function()] {
            let object = find(function).expect("a loaded file");
            // SAFETY: the header of a loaded file, as in `tables`.
            let header = unsafe { core::slice::from_raw_parts(object.eh_frame_hdr as *const u8, 1 << 20) };
            let word = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as isize;
            for entry in 0..(word(8) as usize).min(100_000) {
                let start = object.eh_frame_hdr.wrapping_add_signed(word(12 + entry * 8));
                for inside in (0..64).chain((64..2048).step_by(29)) {
                    let quickly = quickly(object, start + inside);
                    match by_gimli(object, start + inside) {
                        Ok(rule) => {
                            assert!(
                                quickly.is_none_or(|quickly| quickly == rule),
                                "{start:x}+{inside}: {quickly:?} {rule:?}"
                            );
                            asked += 1;
                            quick += usize::from(quickly.is_some());
                        }
                        Err(Failure::NoEntry) => assert_eq!(quickly, None, "{start:x}+{inside}"),
                        Err(Failure::Unsupported) => {}
                    }
                }
            }
        }
        assert!(asked > 100_000 && quick * 100 > asked * 97, "{quick} of {asked}");
    }

    fn libc_function() -> usize {
        unsafe extern "C" {
            fn qsort();
        }
        qsort as *const () as usize
    }

    #[test]
    fn undamaged_tables_are_understood_wherever_they_lie() {
        let tables = tables();
        let (copy, range) = placed(tables.bytes.len());
        copy.copy_from_slice(&tables.bytes);
        let start = copy.as_ptr() as usize;
        let object = Object { eh_frame_hdr: start, start, end: start + copy.len() };
        let understood = tables
            .functions
            .iter()
            .filter(|function| compile(object, start.wrapping_add_signed(**function)).is_ok())
            .count();
        assert!(understood * 100 > tables.functions.len() * 99, "{understood} of {}", tables.functions.len());
        // SAFETY: nobody else knows it.
        unsafe { arena::unmap(range) };
    }
}
