//! Where among bytes a pointer into a given span may start: a filter over sixteen positions at a time, that lets a few too many
//! through and never one too few. Of memory that holds no such pointer hardly any position passes.

#[cfg(target_arch = "aarch64")]
#[path = "sieve_aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "sieve_x86_64.rs"]
mod arch;

pub use arch::Band;

/// Addresses from `low` on, `span` of them, that are multiples of 16.
#[derive(Clone, Copy)]
pub struct Sieve {
    low: usize,
    span: usize,
    filter: arch::Filter,
}

/// Bytes read per call of [`Sieve::positions`]: sixteen words, each one byte after the other.
pub const WINDOW: usize = 16 + 7;

impl Sieve {
    /// From the first to the last address, both of user space.
    pub fn new(first: usize, last: usize) -> Self {
        Self { low: first, span: last - first + 1, filter: arch::Filter::new(first, last) }
    }

    /// Whether an address is one of them.
    #[inline(always)]
    pub const fn holds(&self, word: usize) -> bool {
        self.spans(word) && word.is_multiple_of(16)
    }

    /// Whether an address lies between the first and the last.
    #[inline(always)]
    pub const fn spans(&self, word: usize) -> bool {
        word.wrapping_sub(self.low) < self.span
    }

    /// Whether an address may be what the word is in units of a half, a quarter or an eighth: virtual machines keep integers in the upper
    /// bits of a word, and addresses as such.
    #[inline(always)]
    pub const fn may_span_shifted(&self, word: usize) -> bool {
        word.wrapping_sub(self.low << 1) <= ((self.low + self.span) << 3) - (self.low << 1)
    }

    /// Whether a word of the span may start at one of the sixteen positions from `at` on, whatever its upper 16 bits are. In fewer steps
    /// than [`Sieve::positions`], and of more words.
    ///
    /// # Safety
    /// [`WINDOW`] bytes from `at` on can be read.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub unsafe fn near(&self, at: *const u8) -> bool {
        // SAFETY: by this function's own contract.
        unsafe { self.filter.near(at) }
    }

    /// A bit for each of the sixteen positions from `at` on at which a word of the span may start.
    ///
    /// # Safety
    /// [`WINDOW`] bytes from `at` on can be read.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub unsafe fn positions(&self, at: *const u8) -> u32 {
        // SAFETY: by this function's own contract.
        unsafe { self.filter.positions(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passes(sieve: &Sieve, window: &[u8; WINDOW]) -> u32 {
        #[allow(unsafe_code)]
        // SAFETY: the window is WINDOW bytes long.
        unsafe {
            sieve.positions(window.as_ptr())
        }
    }

    fn is_near(sieve: &Sieve, window: &[u8; WINDOW]) -> bool {
        #[allow(unsafe_code)]
        // SAFETY: the window is WINDOW bytes long.
        unsafe {
            sieve.near(window.as_ptr())
        }
    }

    fn word(window: &[u8; WINDOW], at: usize) -> usize {
        usize::from_le_bytes(window[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn memory_without_pointers_does_not_pass() {
        let heap = Sieve::new(0x5555_5575_9000, 0x5555_557a_f000);
        for window in [[0; WINDOW], [0xff; WINDOW], [b'x'; WINDOW], [0x55; WINDOW]] {
            assert_eq!(passes(&heap, &window), 0, "{window:x?}");
            assert_eq!(is_near(&heap, &window), window[0] == 0x55, "{window:x?}");
        }
        // Break below, mappings above: the zeros do not pass even so.
        assert_eq!(passes(&Sieve::new(0x40_0000, 0x7fff_f000_0000), &[0; WINDOW]), 0);
    }

    proptest! {
        #[test]
        fn a_band_has_its_words_and_few_others(
            low in 0x1_0000usize..1 << 47,
            up in (0u32..47).prop_flat_map(|bits| 0usize..1 << bits),
            picks in prop::collection::vec((prop_oneof![any::<usize>(), 0usize..1 << 47], any::<prop::sample::Index>(), any::<bool>()), 8),
        ) {
            let last = (low + up).min((1 << 47) - 1);
            let mut words = [0; 8];
            for (word, (any, index, inside)) in words.iter_mut().zip(&picks) {
                *word = if *inside { low + index.index(last - low + 1) } else { *any };
            }
            let found = Band::new(low, last).words(&words);
            for (at, word) in words.iter().enumerate() {
                prop_assert_eq!(found >> at & 1 == 1, (low >> 16..=last >> 16).contains(&(word >> 16)), "{:x}", word);
            }
        }

        #[test]
        fn no_pointer_is_left_out(
            low in 0x1_0000usize..1 << 47,
            up in (0u32..47).prop_flat_map(|bits| 0usize..1 << bits),
            pick: prop::sample::Index,
            at in 0usize..16,
            tag: u16,
            mut window: [u8; WINDOW],
        ) {
            let last = (low + up).min((1 << 47) - 1);
            let sieve = Sieve::new(low, last);
            let address = (low + pick.index(last - low + 1)) / 16 * 16;
            window[at..at + 8].copy_from_slice(&address.to_le_bytes());
            let found = passes(&sieve, &window);
            prop_assert!(is_near(&sieve, &window));
            for position in 0..16 {
                if sieve.holds(word(&window, position)) {
                    prop_assert!(found >> position & 1 == 1, "{address:#x} at {position} in {window:x?}");
                }
            }
            prop_assert!(found < 1 << 16);
            window[at + 6..at + 8].copy_from_slice(&tag.to_le_bytes());
            prop_assert!(is_near(&sieve, &window), "tagged");
        }
    }
}
