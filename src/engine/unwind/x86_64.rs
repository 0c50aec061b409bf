//! Unwind rules of x86-64: what one says, how it is packed, and one step by it.
//!
//! ```text
//!  63            32 31 30   24 23            8 7  6 5    4 3    0
//! +----------------+--+-------+---------------+----+------+------+
//! | CFA offset     |1 |       | rbp offset/8  |    | saved| kind |
//! +----------------+--+-------+---------------+----+------+------+
//! ```
//!
//! Return addresses always lie at CFA - 8. Of the registers only rbp is followed, since no compiler bases a CFA at a call on
//! another one but rsp (0 unsupported of 12.5 million stacks of Debian's programs).
#![allow(unsafe_code)] // reads the stack, and code bytes at a return address

use super::OwnStack;
use super::cfi::{Numbers, Place, Row};
use super::compile::Bytes;
use crate::record::frames::EXACT;
use gimli::{CfaRule, EhFrame, Encoding, Operation, Register, RegisterRule, UnwindExpression, UnwindTableRow, X86_64};

/// A packed rule; the zero word means "not compiled yet" in the frame dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(pub u64);

const FILLED: u64 = 1 << 31;

#[derive(Clone, Copy)]
#[repr(u64)]
enum Kind {
    /// The outermost frame, or one that cannot be stepped over.
    End = 0,
    /// CFA = rsp + offset.
    Sp = 1,
    /// CFA = rbp + offset.
    Fp = 2,
    /// CFA = [rbp + offset] (a realigned frame: DRAP).
    FpDeref = 3,
    /// CFA = [rsp + offset].
    SpDeref = 4,
    /// The kernel's signal trampoline: the interrupted registers lie in the ucontext at rsp.
    Signal = 5,
    /// Code in a loaded file, without a table: rbp may be a frame pointer.
    NoTable = 6,
    /// Code in no loaded file (JIT): as `NoTable`, but a file may be loaded there later.
    NoObject = 7,
}

/// What the memo builds on.
pub const RETURN_BELOW_CFA: bool = true;

const SP: u64 = Kind::Sp as u64;
const FP: u64 = Kind::Fp as u64;
const FP_DEREF: u64 = Kind::FpDeref as u64;
const SP_DEREF: u64 = Kind::SpDeref as u64;
const SIGNAL: u64 = Kind::Signal as u64;
const NO_TABLE: u64 = Kind::NoTable as u64;
const NO_OBJECT: u64 = Kind::NoObject as u64;

#[derive(Clone, Copy)]
#[repr(u64)]
enum Saved {
    /// rbp is the caller's.
    Same = 0,
    /// The caller's rbp lies at CFA + offset.
    AtCfa = 1,
    /// The caller's rbp lies at rbp + offset.
    AtFp = 2,
}

impl Rule {
    pub const END: Self = Self::new(Kind::End, Saved::Same, 0, 0);
    pub const SIGNAL: Self = Self::new(Kind::Signal, Saved::Same, 0, 0);
    pub const NO_TABLE: Self = Self::new(Kind::NoTable, Saved::Same, 0, 0);
    pub const NO_OBJECT: Self = Self::new(Kind::NoObject, Saved::Same, 0, 0);

    const fn new(kind: Kind, saved: Saved, saved_offset: i16, cfa_offset: i32) -> Self {
        Self(
            kind as u64
                | (saved as u64) << 4
                | (saved_offset as u16 as u64) << 8
                | FILLED
                | (cfa_offset as u32 as u64) << 32,
        )
    }
    const fn kind(self) -> u64 {
        self.0 & 15
    }
    /// The tables say that this is the outermost frame.
    pub(super) const fn is_end(self) -> bool {
        self.kind() == Kind::End as u64
    }
    /// Where the caller's return address and frame pointer lie, if that depends on the stack pointer alone. `fp_from`: where the frame
    /// pointer lies that the frame itself has.
    #[inline(always)]
    pub(super) const fn plain_caller(self, sp: usize, fp_from: usize) -> Option<(usize, usize)> {
        let cfa = sp.wrapping_add_signed(self.cfa_offset());
        let (fp_from, inside) = match self.saved() {
            0 => (fp_from, true),
            1 => {
                let slot = cfa.wrapping_add_signed(self.saved_offset());
                (slot, slot >= sp && slot < cfa.wrapping_sub(8))
            }
            _ => return None,
        };
        if self.kind() == SP && inside { Some((cfa.wrapping_sub(8), fp_from)) } else { None }
    }
    /// Where the caller's frame is, and where its frame pointer lies, depends on the stack pointer alone.
    #[inline(always)]
    pub(super) const fn is_plain(self) -> bool {
        const BY_FP: u64 = (Saved::AtFp as u64) << 4;
        self.0 & (15 | BY_FP) == SP
    }
    /// Where the caller's frame is depends on the frame pointer.
    pub(super) const fn uses_fp(self) -> bool {
        matches!(self.kind(), FP | FP_DEREF | NO_TABLE) || self.saved() == Saved::AtFp as u64
    }
    /// Where the CFA itself is kept, if the rule reads it from memory.
    pub(super) const fn cfa_slot(self, registers: &Registers) -> Option<usize> {
        match self.kind() {
            FP_DEREF => Some(registers.fp.wrapping_add_signed(self.cfa_offset())),
            SP_DEREF => Some(registers.sp.wrapping_add_signed(self.cfa_offset())),
            _ => None,
        }
    }
    const fn saved(self) -> u64 {
        self.0 >> 4 & 3
    }
    const fn saved_offset(self) -> isize {
        (self.0 >> 8) as i16 as isize * 8
    }
    const fn cfa_offset(self) -> isize {
        (self.0 >> 32) as i32 as isize
    }
}

pub(super) const NUMBERS: Numbers =
    Numbers { return_address: X86_64::RA.0 as u64, frame_pointer: X86_64::RBP.0 as u64 };

/// Packs a usual row; `None` if it says something else.
pub(super) fn pack_row(row: Row) -> Option<Rule> {
    const RSP: u64 = X86_64::RSP.0 as u64;
    const RBP: u64 = X86_64::RBP.0 as u64;
    match row.return_address {
        Place::AtCfa(-8) => {}
        Place::Unsaid | Place::Undefined => return Some(Rule::END),
        _ => return None,
    }
    let kind = match row.cfa.0 {
        RSP => Kind::Sp,
        RBP => Kind::Fp,
        _ => return None,
    };
    let (saved, saved_offset) = match row.frame_pointer {
        Place::AtCfa(offset) if offset % 8 == 0 => (Saved::AtCfa, offset / 8),
        Place::AtCfa(_) => return None,
        _ => (Saved::Same, 0),
    };
    Some(Rule::new(kind, saved, i16::try_from(saved_offset).ok()?, i32::try_from(row.cfa.1).ok()?))
}

/// Packs a row of the unwind table; `None` if it says something that a rule cannot hold.
pub(super) fn pack(
    row: &UnwindTableRow<usize, super::compile::Storage>,
    frames: &EhFrame<Bytes>,
    encoding: Encoding,
) -> Option<Rule> {
    match row.register(X86_64::RA) {
        None | Some(RegisterRule::Undefined) => return Some(Rule::END),
        Some(RegisterRule::Offset(-8)) => {}
        _ => return None,
    }
    let (kind, cfa_offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (Kind::Sp, *offset),
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (Kind::Fp, *offset),
        CfaRule::RegisterAndOffset { .. } => return None,
        CfaRule::Expression(expression) => match register_offset(expression, frames, encoding)? {
            (X86_64::RBP, offset, true) => (Kind::FpDeref, offset),
            (X86_64::RSP, offset, true) => (Kind::SpDeref, offset),
            _ => return None,
        },
    };
    let (saved, saved_offset) = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => (Saved::Same, 0),
        Some(RegisterRule::Offset(offset)) => (Saved::AtCfa, offset),
        Some(RegisterRule::Expression(expression)) => match register_offset(&expression, frames, encoding)? {
            (X86_64::RBP, offset, false) => (Saved::AtFp, offset),
            _ => return None,
        },
        _ => return None,
    };
    if saved_offset % 8 != 0 {
        return None;
    }
    Some(Rule::new(kind, saved, i16::try_from(saved_offset / 8).ok()?, i32::try_from(cfa_offset).ok()?))
}

/// Reads an expression of the form `register + offset`, or the word at that address (true).
fn register_offset(
    expression: &UnwindExpression<usize>,
    frames: &EhFrame<Bytes>,
    encoding: Encoding,
) -> Option<(Register, i64, bool)> {
    let mut operations = expression.get(frames).ok()?.operations(encoding);
    let Ok(Some(Operation::RegisterOffset { register, offset, .. })) = operations.next() else { return None };
    match (operations.next(), operations.next()) {
        (Ok(None), _) => Some((register, offset, false)),
        (Ok(Some(Operation::Deref { .. })), Ok(None)) => Some((register, offset, true)),
        _ => None,
    }
}

/// The rule for code of a loaded file that no table covers: hand-written code, or a signal trampoline without one.
pub(super) fn without_table(pc: usize) -> Rule {
    // `mov $15, %rax; syscall`, as the C libraries write it.
    const TRAMPOLINE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let start = pc + 1;
    if start % 4096 > 4096 - TRAMPOLINE.len() {
        return Rule::NO_TABLE;
    }
    // SAFETY: `start` is a return address inside a loaded file's code, and the bytes read lie in the same page.
    let code = unsafe { core::slice::from_raw_parts(start as *const u8, TRAMPOLINE.len()) };
    if code == TRAMPOLINE { Rule::SIGNAL } else { Rule::NO_TABLE }
}

/// Registers of a frame: those that unwinding follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub sp: usize,
    pub fp: usize,
    /// Where `fp` was read; 0: it is the register's at the start.
    pub fp_from: usize,
}

impl Registers {
    pub(super) const fn new(sp: usize, fp: usize) -> Self {
        Self { sp, fp, fp_from: 0 }
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
        _ => match unsafe { unusual_cfa(rule, registers, limit, stack) } {
            Ok(cfa) => cfa,
            Err(step) => return step,
        },
    };
    // A CFA that does not lie above the frame, or is not aligned, is not one: the tables do not fit the code.
    if cfa <= registers.sp || cfa > limit || cfa % 8 != 0 {
        return Step::End;
    }
    let slot = match rule.saved() {
        0 => 0,
        1 => cfa.wrapping_add_signed(rule.saved_offset()),
        _ => registers.fp.wrapping_add_signed(rule.saved_offset()),
    };
    if slot != 0 {
        if slot < registers.sp || slot > cfa - 8 || slot % 8 != 0 {
            return Step::End;
        }
        // SAFETY: `slot` lies between the frame's stack pointer and its CFA.
        registers.fp = unsafe { read(slot) };
        registers.fp_from = slot;
    }
    registers.sp = cfa;
    // SAFETY: the word below the CFA lies in the frame.
    match unsafe { read(cfa - 8) } {
        0..4096 => Step::End,
        pc => Step::To(pc as u64),
    }
}

#[cold]
#[inline(never)]
unsafe fn unusual_cfa(rule: Rule, registers: &mut Registers, limit: usize, stack: OwnStack) -> Result<usize, Step> {
    let base = match rule.kind() {
        FP_DEREF => registers.fp,
        SP_DEREF => registers.sp,
        SIGNAL => {
            // `ucontext` at sp: general registers after 40 bytes, in the kernel's order r8.. (rbp 10, rsp 15, rip 16).
            let general = registers.sp + 40;
            // SAFETY: the kernel wrote the frame at the trampoline's stack pointer.
            let (fp, sp, pc) = unsafe { (read(general + 80), read(general + 120), read(general + 128)) };
            if sp % 8 != 0 || pc < 4096 {
                return Err(Step::End);
            }
            *registers = Registers::new(sp, fp);
            return Err(Step::Signal((pc as u64 + 1) | EXACT));
        }
        NO_OBJECT => return Err(Step::AskObject),
        NO_TABLE => {
            // By where the frame is, not by where the walk began: a part of a stack is the same in all of them.
            let (limit, own) = stack.limit(registers.sp);
            if !own {
                return Err(Step::End);
            }
            // Without tables only a frame pointer chain inside the thread's own stack can be trusted to be readable.
            let fp = registers.fp;
            if fp < registers.sp || fp > limit - 16 || !fp.is_multiple_of(8) {
                return Err(Step::End);
            }
            // SAFETY: the 16 bytes lie between the frame's stack pointer and the end of the thread's stack.
            let (caller_fp, pc) = unsafe { (read(fp), read(fp + 8)) };
            if !(4096..1 << 47).contains(&pc) {
                return Err(Step::End);
            }
            *registers = Registers { sp: fp + 16, fp: caller_fp, fp_from: fp };
            return Err(Step::To(pc as u64));
        }
        _ => return Err(Step::End),
    };
    let slot = base.wrapping_add_signed(rule.cfa_offset());
    if slot < registers.sp || slot.checked_add(8).is_none_or(|end| end > limit) || slot % 8 != 0 {
        return Err(Step::End);
    }
    // SAFETY: `slot` lies in the frame: above its stack pointer, and the tables say that the CFA is kept there.
    Ok(unsafe { read(slot) })
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
        let rule = Rule::new(Kind::FpDeref, Saved::AtCfa, -2, -123_456);
        assert_eq!((rule.kind(), rule.saved(), rule.saved_offset(), rule.cfa_offset()), (3, 1, -16, -123_456));
        assert_ne!(Rule::END.0, 0);
    }

    #[test]
    fn steps_that_leave_the_frame_end_the_stack() {
        let words = [7usize, 0, 0x5000, 0xdead_beef];
        let base = words.as_ptr() as usize;
        let limit = base + 32;
        let step_at = |rule, sp, fp| {
            let mut registers = Registers::new(sp, fp);
            // SAFETY: all words that these rules read lie in `words`.
            match unsafe { step(rule, &mut registers, limit, OwnStack { low: base, high: limit }) } {
                Step::To(pc) => Some((pc, registers.sp, registers.fp)),
                _ => None,
            }
        };
        let sp = |cfa| Rule::new(Kind::Sp, Saved::Same, 0, cfa);
        assert_eq!(step_at(sp(24), base, 1), Some((0x5000, base + 24, 1)));
        assert_eq!(step_at(Rule::new(Kind::Sp, Saved::AtCfa, -3, 24), base, 1), Some((0x5000, base + 24, 7)));
        assert_eq!(step_at(sp(0), base, 1), None, "the CFA must lie above sp");
        assert_eq!(step_at(sp(40), base, 1), None, "beyond the limit");
        assert_eq!(step_at(sp(20), base, 1), None, "unaligned");
        assert_eq!(step_at(sp(16), base, 1), None, "a return address of 0 is the end");
        assert_eq!(
            step_at(Rule::new(Kind::Fp, Saved::Same, 0, 16), base, base + 8),
            Some((0x5000, base + 24, base + 8))
        );
        assert_eq!(step_at(Rule::new(Kind::Fp, Saved::Same, 0, 16), base, usize::MAX), None);
    }
}
