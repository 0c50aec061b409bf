//! `.eh_frame` -> rule, by gimli's no-allocation mode. Runs once per return address, on the miss path of a walk.
#![allow(unsafe_code)] // reads the unwind tables where the loader has mapped them

use super::arch::{self, Rule};
use super::{FindObject, Object, Unwinder};
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
    let missing = |_: gimli::Error| Failure::NoEntry;
    let section = |start: usize| {
        let len = object.end.checked_sub(start).filter(|len| *len > 0).ok_or(Failure::NoEntry)?;
        // SAFETY: the loader says that the object is mapped up to `end`, and `start` lies before it. The tables lie in the
        // object's read-only segment; the object stays loaded, since code of it is on the stack being walked. A gap between
        // segments after the tables is never reached: the parser follows lengths inside the tables.
        Ok(unsafe { core::slice::from_raw_parts(start as *const u8, len) })
    };
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
