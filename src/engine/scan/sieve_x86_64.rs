//! The filter with SSE2, which every x86-64 has.
#![allow(unsafe_code)] // vector loads

use core::arch::x86_64::*;

/// Of the bytes 3, 4 and 5 of an address the least and greatest value, in each lane.
#[derive(Clone, Copy)]
pub struct Filter {
    bounds: [(__m128i, __m128i); 3],
    /// The first of two that tell most: 1 where the third byte says nothing.
    telling: usize,
}

impl Filter {
    pub fn new(first: usize, last: usize) -> Self {
        let bounds = bounds(first, last);
        // SAFETY: SSE2 is part of x86-64.
        let lanes = |byte: u8| unsafe { _mm_set1_epi8(byte.cast_signed()) };
        let telling = usize::from(bounds[3] == (0, 255));
        Self { bounds: [3, 4, 5].map(|byte| (lanes(bounds[byte].0), lanes(bounds[byte].1))), telling }
    }

    /// # Safety
    /// As for [`super::Sieve::near`].
    #[inline(always)]
    pub unsafe fn near(&self, at: *const u8) -> bool {
        // SAFETY: SSE2 is part of x86-64; the loads are of bytes 3 to 20, unaligned ones.
        unsafe {
            let byte = |index: usize| _mm_loadu_si128(at.add(index).cast());
            let (lower, upper) = (self.bounds[self.telling], self.bounds[self.telling + 1]);
            let near = _mm_and_si128(within(byte(3 + self.telling), lower), within(byte(4 + self.telling), upper));
            _mm_movemask_epi8(near) != 0
        }
    }

    /// # Safety
    /// As for [`super::Sieve::positions`].
    #[inline(always)]
    pub unsafe fn positions(&self, at: *const u8) -> u32 {
        // SAFETY: SSE2 is part of x86-64; the loads are of bytes 0 to 22, unaligned ones.
        unsafe {
            let byte = |index: usize| _mm_loadu_si128(at.add(index).cast());
            let zero = _mm_setzero_si128();
            let [third, fourth, fifth] = self.bounds;
            let (b2, b3, b4, b5) = (byte(2), byte(3), byte(4), byte(5));
            // User space ends at 2^47, and begins at 2^16: the bytes above are zero, and not all of those below are.
            let user = _mm_cmpeq_epi8(_mm_or_si128(byte(6), byte(7)), zero);
            let nothing = _mm_cmpeq_epi8(_mm_or_si128(_mm_or_si128(b2, b3), _mm_or_si128(b4, b5)), zero);
            let aligned = _mm_cmpeq_epi8(_mm_and_si128(byte(0), _mm_set1_epi8(15)), zero);
            let near = _mm_and_si128(_mm_and_si128(within(b3, third), within(b4, fourth)), within(b5, fifth));
            _mm_movemask_epi8(_mm_andnot_si128(nothing, _mm_and_si128(_mm_and_si128(user, aligned), near)))
                .cast_unsigned()
        }
    }
}

/// Addresses from a first to a last one, with all others of their 64 KiB: bits 16 to 47 say it, in four lanes.
#[derive(Clone, Copy)]
pub struct Band {
    before: __m128i,
    last: __m128i,
}

impl Band {
    pub fn new(first: usize, last: usize) -> Self {
        // Of 31 bits: user space ends at 2^47.
        let lanes = |value: i32| {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { _mm_set1_epi32(value) }
        };
        Self { before: lanes((first >> 16) as i32 - 1), last: lanes((last >> 16) as i32) }
    }

    /// A bit for each of eight words that is one of them.
    #[inline(always)]
    pub fn words(&self, words: &[usize; 8]) -> u32 {
        // SAFETY: SSE2 is part of x86-64; the loads are of two words each.
        unsafe {
            let above_16 =
                |at: usize| _mm_castsi128_ps(_mm_srli_epi64::<16>(_mm_loadu_si128(words.as_ptr().add(at).cast())));
            let four = |at: usize| {
                let (two, more) = (above_16(at), above_16(at + 2));
                let middle = _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(two, more));
                let upper = _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(two, more));
                let user = _mm_cmpeq_epi32(upper, _mm_setzero_si128());
                let near = _mm_andnot_si128(_mm_cmpgt_epi32(middle, self.last), _mm_cmpgt_epi32(middle, self.before));
                _mm_movemask_ps(_mm_castsi128_ps(_mm_and_si128(user, near))).cast_unsigned()
            };
            four(0) | four(4) << 4
        }
    }
}

#[inline(always)]
unsafe fn within(value: __m128i, (least, greatest): (__m128i, __m128i)) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_cmpeq_epi8(_mm_max_epu8(_mm_min_epu8(value, greatest), least), value) }
}

/// What of each byte of a word is the same in all addresses from `first` to `last`: its least and its greatest value.
fn bounds(first: usize, last: usize) -> [(u8, u8); 8] {
    let mut bounds = [(0, 255); 8];
    for byte in (0..8).rev() {
        bounds[byte] = (first.to_le_bytes()[byte], last.to_le_bytes()[byte]);
        if bounds[byte].0 != bounds[byte].1 {
            break;
        }
    }
    bounds
}
