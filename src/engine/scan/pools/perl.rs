//! Perl's values: their heads, 24 bytes each (`any`, `refcnt` and `flags`, `u` of `struct sv`, sv.h), come from blocks of 4,080 bytes
//! (sv.c, sv_inline.h: `new_SV`, `del_SV`). A free one has the type `SVTYPEMASK`, and the next free one in `any`; what the value held
//! stays in `u`.

use crate::AddrRange;

const HEAD: usize = 24;
/// `PERL_ARENA_SIZE`.
pub const ARENA: usize = 4080;
const TYPE_MASK: usize = 0xff;

/// Gives the places in an arena of perl's where free heads keep what they held. `word` reads one of those of a block of [`ARENA`] bytes,
/// and is `None` elsewhere.
pub fn stale_words(arena: AddrRange, word: impl Fn(usize) -> Option<usize>, mut each: impl FnMut(usize)) {
    let is_free = |head: usize| word(head + 8).is_some_and(|counted| counted >> 32 == TYPE_MASK);
    // The first head is the arena's own.
    for head in (arena.start + HEAD..=arena.end.saturating_sub(HEAD)).step_by(HEAD) {
        if is_free(head) && word(head).is_some_and(|next| next == 0 || is_free(next)) {
            each(head + 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_on_the_list_of_free_heads_is_stale() {
        let start = 0x5000;
        let mut words = vec![7usize; ARENA / 8];
        let mut head = |number: usize, words_of: [usize; 3]| words[number * 3..][..3].copy_from_slice(&words_of);
        let address = |number: usize| start + number * HEAD;
        let free = TYPE_MASK << 32;
        head(0, [0, free, 1]); // the arena's own
        head(1, [address(3), free, 2]);
        head(2, [address(3), 5 << 32 | 1, 3]); // a value
        head(3, [0, free | 9, 4]); // the last one, that was never used
        head(4, [address(2), free, 5]); // leads to a value
        head(5, [0x9000, free, 6]); // leads out of perl's memory
        head(169, [address(1), free, 8]);
        let arena = AddrRange::new(start, start + ARENA);
        let word = |at: usize| arena.contains(at).then(|| words[(at - start) / 8]);
        let mut stale = vec![];
        stale_words(arena, word, |at| stale.push(words[(at - start) / 8]));
        assert_eq!(stale, [2, 4, 8]);
    }
}
