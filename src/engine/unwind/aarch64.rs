//! Unwind rules of aarch64: what one says, how it is packed, and one step by it.
//!
//! Run under emulation only (qemu-user): of 16,000 stacks of recursion, alloca, longjmp and coroutines none differs from
//! libgcc's; frames of signals could not be tried, since the emulator makes them its own way.
//!
//! ```text
//!  63            32 31 30   24 23            8 7  6 5    4 3    0
//! +----------------+--+-------+---------------+----+------+------+
//! | CFA offset     |1 | ra/8  | x29 offset/8  | ra | saved| kind |
//! +----------------+--+-------+---------------+----+------+------+
//! ```
//!
//! The return address lies at CFA + ra, or is in x30 still, which is so only in a leaf function that a signal has
//! interrupted. Of the other registers x29 is followed. Addresses are freed of what pointer authentication puts above them.
#![allow(unsafe_code)] // reads the stack, and code bytes at a return address

use super::OwnStack;
use super::cfi::{Numbers, Row};
use super::compile::Bytes;
use crate::record::frames::EXACT;
use crate::sys::USER_BITS;
use gimli::{AArch64, CfaRule, EhFrame, Encoding, RegisterRule, UnwindTableRow};

/// A packed rule; the zero word means "not compiled yet" in the frame dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(pub u64);

const FILLED: u64 = 1 << 31;

#[derive(Clone, Copy)]
#[repr(u64)]
enum Kind {
    /// The outermost frame, or one that cannot be stepped over.
    End = 0,
    /// CFA = sp + offset.
    Sp = 1,
    /// CFA = x29 + offset.
    Fp = 2,
    /// The kernel's signal trampoline: the interrupted registers lie behind the siginfo at sp.
    Signal = 5,
    /// Code in a loaded file, without a table: x29 may be a frame pointer.
    NoTable = 6,
    /// Code in no loaded file (JIT): as `NoTable`, but a file may be loaded there later.
    NoObject = 7,
}

const SP: u64 = Kind::Sp as u64;
const FP: u64 = Kind::Fp as u64;
const SIGNAL: u64 = Kind::Signal as u64;
const NO_TABLE: u64 = Kind::NoTable as u64;
const NO_OBJECT: u64 = Kind::NoObject as u64;

/// Stacks cannot be kept: the memo wants return addresses to lie below the CFA, and here they lie anywhere in the frame.
pub const RETURN_BELOW_CFA: bool = false;

/// The caller's x29 lies at CFA + offset; otherwise it is still in the register.
const SAVED: u64 = 1 << 4;
/// The return address is still in x30.
const IN_REGISTER: u64 = 1 << 6;

impl Rule {
    pub const END: Self = Self::plain(Kind::End);
    pub const SIGNAL: Self = Self::plain(Kind::Signal);
    pub const NO_TABLE: Self = Self::plain(Kind::NoTable);
    pub const NO_OBJECT: Self = Self::plain(Kind::NoObject);

    const fn plain(kind: Kind) -> Self {
        Self(kind as u64 | FILLED)
    }

    /// Offsets in bytes, multiples of 8; `None` where they do not fit.
    fn new(kind: Kind, saved: Option<i64>, ra: Option<i64>, cfa: i64) -> Option<Self> {
        let words = |bytes: i64| (bytes % 8 == 0).then_some(bytes / 8);
        let saved = match saved {
            None => 0,
            Some(offset) => SAVED | u64::from(i16::try_from(words(offset)?).ok()? as u16) << 8,
        };
        let ra = match ra {
            None => IN_REGISTER,
            Some(offset) => {
                let words = words(offset).filter(|words| (-64..64).contains(words))?;
                ((words as u64) & 127) << 24
            }
        };
        let cfa = u64::from(i32::try_from(cfa).ok()? as u32) << 32;
        Some(Self(kind as u64 | saved | ra | FILLED | cfa))
    }
    const fn kind(self) -> u64 {
        self.0 & 15
    }
    /// The tables say that this is the outermost frame.
    pub(super) const fn is_end(self) -> bool {
        self.kind() == Kind::End as u64
    }
    /// The return address has no place that the stack pointer tells.
    pub(super) const fn plain_caller(self, _: usize, _: usize) -> Option<(usize, usize)> {
        None
    }
    /// Where the caller's frame is depends on the stack pointer alone.
    pub(super) const fn is_plain(self) -> bool {
        !self.uses_fp()
    }
    /// Where the caller's frame is depends on the frame pointer.
    pub(super) const fn uses_fp(self) -> bool {
        matches!(self.kind(), FP | NO_TABLE)
    }
    /// No rule reads the CFA from memory.
    pub(super) const fn cfa_slot(self, _: &Registers) -> Option<usize> {
        None
    }
    const fn saved_offset(self) -> Option<isize> {
        if self.0 & SAVED == 0 { None } else { Some((self.0 >> 8) as i16 as isize * 8) }
    }
    const fn ra_offset(self) -> Option<isize> {
        // Seven bits with a sign.
        if self.0 & IN_REGISTER != 0 { None } else { Some(((self.0 >> 24) as i8 as isize) << 57 >> 57 << 3) }
    }
    const fn cfa_offset(self) -> isize {
        (self.0 >> 32) as i32 as isize
    }
}

pub(super) const NUMBERS: Numbers =
    Numbers { return_address: AArch64::X30.0 as u64, frame_pointer: AArch64::X29.0 as u64 };

/// All rows are gimli's here.
pub(super) const fn pack_row(_: Row) -> Option<Rule> {
    None
}

/// Packs a row of the unwind table; `None` if it says something that a rule cannot hold.
pub(super) fn pack(
    row: &UnwindTableRow<usize, super::compile::Storage>,
    _: &EhFrame<Bytes>,
    _: Encoding,
) -> Option<Rule> {
    let ra = match row.register(AArch64::X30) {
        Some(RegisterRule::Undefined) => return Some(Rule::END),
        None | Some(RegisterRule::SameValue) => None,
        Some(RegisterRule::Offset(offset)) => Some(offset),
        _ => return None,
    };
    let (kind, cfa) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: AArch64::SP, offset } => (Kind::Sp, *offset),
        CfaRule::RegisterAndOffset { register: AArch64::X29, offset } => (Kind::Fp, *offset),
        _ => return None,
    };
    let saved = match row.register(AArch64::X29) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => None,
        Some(RegisterRule::Offset(offset)) => Some(offset),
        _ => return None,
    };
    Rule::new(kind, saved, ra, cfa)
}

/// The rule for code of a loaded file that no table covers: hand-written code, or a signal trampoline without one.
pub(super) fn without_table(pc: usize) -> Rule {
    // `mov x8, #139; svc #0`.
    const TRAMPOLINE: [u32; 2] = [0xd280_1168, 0xd400_0001];
    let start = pc + 1;
    if start % 4096 > 4096 - size_of_val(&TRAMPOLINE) || !start.is_multiple_of(4) {
        return Rule::NO_TABLE;
    }
    // SAFETY: `start` is a return address inside a loaded file's code, aligned, and the bytes read lie in the same page.
    let code = unsafe { *(start as *const [u32; 2]) };
    if code == TRAMPOLINE { Rule::SIGNAL } else { Rule::NO_TABLE }
}

/// Registers of a frame: those that unwinding follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub sp: usize,
    pub fp: usize,
    /// Where `fp` was read; 0: it is the register's at the start.
    pub fp_from: usize,
    /// x30, where it is known: in a frame that a signal has interrupted.
    link: usize,
}

impl Registers {
    pub(super) const fn new(sp: usize, fp: usize) -> Self {
        Self { sp, fp, fp_from: 0, link: 0 }
    }
}

/// What a step found.
pub(super) enum Step {
    /// The key of the caller's frame.
    To(u64),
    /// The key of the interrupted frame, whose stack may be another one.
    Signal(u64),
    /// No file held this address when the rule was made; ask again.
    AskObject,
    End,
}

/// Steps from the frame with `rule` to its caller. `limit` is where reading must stop, `stack` the
/// thread's own stack.
///
/// # Safety
/// `registers.sp` is the stack pointer of a live frame of this thread whose code `rule` describes, so the words between it
/// and its CFA are mapped.
#[inline(always)]
pub(super) unsafe fn step(rule: Rule, registers: &mut Registers, limit: usize, stack: OwnStack) -> Step {
    let cfa = match rule.kind() {
        SP => registers.sp.wrapping_add_signed(rule.cfa_offset()),
        FP => registers.fp.wrapping_add_signed(rule.cfa_offset()),
        // SAFETY: by this function's own contract.
        _ => return unsafe { unusual(rule, registers, stack) },
    };
    // A leaf function that a signal has interrupted may have no frame at all.
    let interrupted = registers.link != 0;
    if cfa < registers.sp || cfa == registers.sp && !interrupted || cfa > limit || cfa % 8 != 0 {
        return Step::End;
    }
    let inside = |slot: usize| {
        slot >= registers.sp && slot.is_multiple_of(8) && slot.checked_add(8).is_some_and(|end| end <= cfa)
    };
    let pc = match rule.ra_offset() {
        None => registers.link,
        Some(offset) => {
            let slot = cfa.wrapping_add_signed(offset);
            if !inside(slot) {
                return Step::End;
            }
            // SAFETY: `slot` lies between the frame's stack pointer and its CFA.
            unsafe { read(slot) }
        }
    };
    if let Some(offset) = rule.saved_offset() {
        let slot = cfa.wrapping_add_signed(offset);
        if !inside(slot) {
            return Step::End;
        }
        // SAFETY: as above.
        registers.fp = unsafe { read(slot) };
    }
    (registers.sp, registers.link) = (cfa, 0);
    to(pc)
}

/// The step to a return address, without its authentication.
fn to(pc: usize) -> Step {
    match pc & ((1 << USER_BITS) - 1) {
        0..4096 => Step::End,
        pc => Step::To(pc as u64),
    }
}

#[cold]
#[inline(never)]
unsafe fn unusual(rule: Rule, registers: &mut Registers, stack: OwnStack) -> Step {
    match rule.kind() {
        SIGNAL => {
            // siginfo (128 bytes), then `ucontext`, whose registers x0 to x30, sp and pc come after 184 bytes.
            let general = registers.sp + 128 + 184;
            // SAFETY: the kernel wrote the frame at the trampoline's stack pointer.
            let (fp, link, sp, pc) = unsafe {
                (read(general + 29 * 8), read(general + 30 * 8), read(general + 31 * 8), read(general + 32 * 8))
            };
            if sp % 8 != 0 || pc < 4096 {
                return Step::End;
            }
            *registers = Registers { sp, fp, fp_from: 0, link };
            Step::Signal((pc as u64 + 1) | EXACT)
        }
        NO_OBJECT => Step::AskObject,
        NO_TABLE => {
            // By where the frame is, not by where the walk began: a part of a stack is the same in all of them.
            let (limit, own) = stack.limit(registers.sp);
            if !own {
                return Step::End;
            }
            // Without tables only a frame pointer chain inside the thread's own stack can be trusted to be readable.
            let fp = registers.fp;
            if fp < registers.sp || fp > limit - 16 || !fp.is_multiple_of(8) {
                return Step::End;
            }
            // SAFETY: the 16 bytes lie between the frame's stack pointer and the end of the thread's stack.
            let (caller_fp, pc) = unsafe { (read(fp), read(fp + 8)) };
            *registers = Registers::new(fp + 16, caller_fp);
            to(pc)
        }
        _ => Step::End,
    }
}

#[inline(always)]
unsafe fn read(addr: usize) -> usize {
    // SAFETY: the caller names a mapped, aligned word of the stack.
    unsafe { (addr as *const usize).read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_its_parts() {
        let rule = Rule::new(Kind::Fp, Some(-96), Some(-88), 96).unwrap();
        assert_eq!(
            (rule.kind(), rule.saved_offset(), rule.ra_offset(), rule.cfa_offset()),
            (2, Some(-96), Some(-88), 96)
        );
        let leaf = Rule::new(Kind::Sp, None, None, 0).unwrap();
        assert_eq!((leaf.saved_offset(), leaf.ra_offset()), (None, None));
        assert!(Rule::new(Kind::Sp, None, Some(-1024), 2048).is_none(), "too far for seven bits");
    }

    #[test]
    fn steps_that_leave_the_frame_end_the_stack() {
        let words = [7usize, 0x5000, 0, 0xdead_beef];
        let base = words.as_ptr() as usize;
        let step_at = |rule: Option<Rule>, sp, fp| {
            let mut registers = Registers::new(sp, fp);
            // SAFETY: all words that these rules read lie in `words`.
            match unsafe { step(rule.unwrap(), &mut registers, base + 32, OwnStack { low: base, high: base + 32 }) } {
                Step::To(pc) => Some((pc, registers.sp, registers.fp)),
                _ => None,
            }
        };
        assert_eq!(step_at(Rule::new(Kind::Sp, Some(-16), Some(-8), 16), base, 1), Some((0x5000, base + 16, 7)));
        assert_eq!(step_at(Rule::new(Kind::Fp, Some(-16), Some(-8), 16), base, base), Some((0x5000, base + 16, 7)));
        assert_eq!(step_at(Rule::new(Kind::Sp, None, Some(-8), 40), base, 1), None, "beyond the limit");
        assert_eq!(step_at(Rule::new(Kind::Sp, None, Some(8), 16), base, 1), None, "outside the frame");
        assert_eq!(step_at(Rule::new(Kind::Sp, None, None, 16), base, 1), None, "x30 is not known");
    }
}
