//! What a seccomp filter says of a system call: the classic BPF that the kernel runs for each (linux/filter.h, linux/seccomp.h).

/// An instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions to leave out where a condition holds, and where not.
    pub then: u8,
    pub otherwise: u8,
    pub operand: u32,
}

/// What a filter is asked about (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    pub number: u32,
    pub args: [u64; 6],
}

/// As many instructions as the kernel takes.
pub const LONGEST: usize = 4096;

/// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_AARCH64`.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// Whether the filter ends who makes this call, or sends a signal that does: SECCOMP_RET_KILL_PROCESS, _KILL_THREAD, _TRAP.
pub fn ends(filter: &[Instruction], call: &Call) -> bool {
    matches!(action(filter, call), Some(0 | 0x8000_0000 | 0x3_0000))
}

/// Whether this call waits for what a supervisor says: SECCOMP_RET_USER_NOTIF.
pub fn asks(filter: &[Instruction], call: &Call) -> bool {
    action(filter, call) == Some(0x7fc0_0000)
}

/// Whether this call fails: SECCOMP_RET_ERRNO.
pub fn refuses(filter: &[Instruction], call: &Call) -> bool {
    action(filter, call) == Some(0x5_0000)
}

fn action(filter: &[Instruction], call: &Call) -> Option<u32> {
    verdict(filter, call).map(|verdict| verdict & 0xffff_0000)
}

/// What the filter gives; `None`: it is none that the kernel would take.
fn verdict(filter: &[Instruction], call: &Call) -> Option<u32> {
    let word = |offset: u32| {
        let arg = |at: usize| call.args.get(at / 8).map(|arg| (arg >> (at % 8 * 8)) as u32);
        match offset {
            0 => Some(call.number),
            4 => Some(ARCHITECTURE),
            // Where the call is made: anywhere.
            8 | 12 => Some(0),
            16.. if offset.is_multiple_of(4) => arg(offset as usize - 16),
            _ => None,
        }
    };
    /// The structure's size, which is what a length is.
    const LENGTH: u32 = 64;
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let mut at = 0;
    // Jumps lead onwards only.
    while let Some(Instruction { code, then, otherwise, operand: k }) = filter.get(at).copied() {
        at += 1;
        let source = if code & 8 != 0 { x } else { k };
        match code {
            0x20 => a = word(k)?,
            0x80 => a = LENGTH,
            0x81 => x = LENGTH,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = *memory.get(k as usize)?,
            0x61 => x = *memory.get(k as usize)?,
            0x02 => *memory.get_mut(k as usize)? = a,
            0x03 => *memory.get_mut(k as usize)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x04 | 0x0c => a = a.wrapping_add(source),
            0x14 | 0x1c => a = a.wrapping_sub(source),
            0x24 | 0x2c => a = a.wrapping_mul(source),
            // The kernel ends the filter with 0 there.
            0x34 | 0x3c if source == 0 => return Some(0),
            0x34 | 0x3c => a /= source,
            0x44 | 0x4c => a |= source,
            0x54 | 0x5c => a &= source,
            0x64 | 0x6c => a = a.wrapping_shl(source),
            0x74 | 0x7c => a = a.wrapping_shr(source),
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= source,
            0x05 => at = at.checked_add(k as usize)?,
            0x15 | 0x1d => at += skipped(a == source, then, otherwise),
            0x25 | 0x2d => at += skipped(a > source, then, otherwise),
            0x35 | 0x3d => at += skipped(a >= source, then, otherwise),
            0x45 | 0x4d => at += skipped(a & source != 0, then, otherwise),
            0x06 => return Some(k),
            0x16 => return Some(a),
            _ => return None,
        }
    }
    None
}

fn skipped(holds: bool, then: u8, otherwise: u8) -> usize {
    usize::from(if holds { then } else { otherwise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;

    fn instruction(code: u16, operand: u32, then: u8, otherwise: u8) -> Instruction {
        Instruction { code, then, otherwise, operand }
    }

    /// Lets so many calls pass, and ends who makes another.
    fn allowing(numbers: &[u32]) -> Vec<Instruction> {
        let mut filter = vec![instruction(0x20, 0, 0, 0)];
        for number in numbers {
            filter.extend([instruction(0x15, *number, 0, 1), instruction(0x06, ALLOW, 0, 0)]);
        }
        filter.push(instruction(0x06, KILL, 0, 0));
        filter
    }

    #[test]
    fn a_list_of_allowed_calls_ends_all_others() {
        let filter = allowing(&[0, 1, 60]);
        for number in 0..400 {
            assert_eq!(ends(&filter, &Call { number, ..Call::default() }), ![0, 1, 60].contains(&number), "{number}");
        }
    }

    /// As sandboxes forbid new name spaces: both halves of an argument are words of their own.
    #[test]
    fn arguments_and_arithmetic() {
        let filter = [
            instruction(0x20, 4, 0, 0),
            instruction(0x15, ARCHITECTURE, 1, 0),
            instruction(0x06, KILL, 0, 0),
            instruction(0x20, 16, 0, 0),
            instruction(0x54, 0x7e02_0000, 0, 0),
            instruction(0x15, 0, 0, 2),
            instruction(0x20, 20, 0, 0),
            instruction(0x15, 0, 1, 0),
            instruction(0x06, 0x3_0000, 0, 0),
            instruction(0x06, 0x5_0001, 0, 0),
        ];
        let flags = |flags: u64| Call { number: 56, args: [flags, 0, 0, 0, 0, 0] };
        assert!(!ends(&filter, &flags(0x11)) && refuses(&filter, &flags(0x11)), "refused is not ended");
        assert!(!asks(&filter, &flags(0x11)));
        let by_supervisor = [instruction(0x06, 0x7fc0_0000, 0, 0)];
        assert!(asks(&by_supervisor, &flags(0)) && !ends(&by_supervisor, &flags(0)));
        assert!(ends(&filter, &flags(0x1000_0000)));
        assert!(ends(&filter, &flags(1 << 33)));
        let sums = [
            instruction(0x00, 7, 0, 0),
            instruction(0x07, 0, 0, 0),
            instruction(0x02, 3, 0, 0),
            instruction(0x24, 6, 0, 0),
            instruction(0x1c, 0, 0, 0),
            instruction(0x61, 3, 0, 0),
            instruction(0x3c, 0, 0, 0),
            instruction(0x16, 0, 0, 0),
        ];
        assert_eq!(verdict(&sums, &Call::default()), Some(5), "(7 * 6 - 7) / 7");
    }

    #[test]
    fn what_is_no_filter_ends_nobody() {
        for filter in [&[][..], &[instruction(0xffff, 0, 0, 0)], &[instruction(0x05, u32::MAX, 0, 0)]] {
            assert!(!ends(filter, &Call::default()));
        }
        assert!(ends(&[instruction(0x00, 1, 0, 0), instruction(0x34, 0, 0, 0)], &Call::default()), "division by 0");
    }

    proptest! {
        #[test]
        fn any_instructions_come_to_an_end(
            words in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..200),
            number in any::<u32>(),
        ) {
            let filter: Vec<_> = words.iter().map(|(code, then, otherwise, operand)| {
                // Mostly codes that there are.
                instruction(if code & 1 == 0 { code & 0xbf } else { *code }, *operand, *then, *otherwise)
            }).collect();
            let _ = ends(&filter, &Call { number, args: [u64::from(number); 6] });
        }
    }
}
