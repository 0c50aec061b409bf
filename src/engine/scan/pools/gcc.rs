//! The garbage collector of GCC's compilers (gcc/ggc-page.cc, unchanged since GCC 4): objects of one size lie in pages, and each page has
//! an entry from malloc that says by a bit which of its objects are in use. A list from malloc names all entries.
//!
//! What is known by it: objects that the last collection found dead, or that were given back since; and the list's own end, behind the
//! entries in use, which still names those of pages that are gone. During a collection the bits are its marks, and say nothing.

use crate::AddrRange;

/// `struct page_entry`: `next` and `prev`, the page's bytes and address, the entry's place in the list, a word of small fields, the bits.
const BYTES: usize = 2 * 8;
const PAGE: usize = 3 * 8;
const PLACE: usize = 4 * 8;
const FIELDS: usize = 5 * 8;
const BITS: usize = 6 * 8;
/// Of another list nobody knows that so many of its entries name their places in it.
const FEWEST: usize = 16;
/// Of so many pages one may have no object in use. During a collection most have none.
const EMPTY: usize = 8;

/// A page by its entry.
struct Page {
    range: AddrRange,
    /// How many objects it has room for, and how many of these are free.
    objects: usize,
    free: usize,
    /// The logarithm of the objects' size; from 64 on, the number of another size.
    order: u32,
}

impl Page {
    /// The page whose entry, a block of `size` bytes, is the `place`th of the list.
    fn of(entry: usize, size: usize, place: usize, word: &impl Fn(usize) -> usize) -> Option<Self> {
        if size <= BITS || !size.is_multiple_of(8) || word(entry + PLACE) != place {
            return None;
        }
        let (start, bytes) = (word(entry + PAGE), word(entry + BYTES));
        // One bit behind those of the objects is set.
        let last = word(entry + size - 8).checked_ilog2()? as usize;
        let objects = (size - 8 - BITS) * 8 + last;
        let is_page = bytes != 0 && (start | bytes).is_multiple_of(4096) && start.checked_add(bytes).is_some();
        let fields = word(entry + FIELDS);
        (is_page && objects != 0).then(|| Page {
            range: AddrRange::new(start, start + bytes),
            objects,
            free: fields >> 16 & 0xffff,
            order: (fields >> 48 & 0xff) as u32,
        })
    }

    /// What the size of an object may be: a power of two by its order, else a multiple of 8 of which so many fit in.
    fn object_sizes(&self) -> (usize, usize) {
        let of_order = 1usize.checked_shl(self.order).unwrap_or(0);
        if of_order.checked_mul(self.objects) == Some(self.range.len()) {
            return (of_order, of_order);
        }
        let least = (self.range.len() / (self.objects + 1) + 1).next_multiple_of(8);
        (least, (self.range.len() / self.objects) & !7)
    }

    /// Gives the runs of free objects, where the bits say how many there are.
    fn free_objects(&self, entry: usize, word: &impl Fn(usize) -> usize, mut each: impl FnMut(AddrRange)) {
        let is_free = |object: usize| word(entry + BITS + object / 64 * 8) >> (object % 64) & 1 == 0;
        if self.free == 0 || (0..self.objects).filter(|object| is_free(*object)).count() != self.free {
            return;
        }
        let (least, largest) = self.object_sizes();
        // (Of a precompiled header's all bits are set, also those behind the mark.)
        if largest == 0 || least > largest {
            return;
        }
        let mut object = 0;
        while object < self.objects {
            let first = object;
            while object < self.objects && is_free(object) {
                object += 1;
            }
            // (Behind the last one is nothing.)
            let end = if object == self.objects { self.range.len() } else { object * least };
            let run = AddrRange::new(self.range.start + first * largest, self.range.start + end);
            if run.start < run.end {
                each(run);
            }
            object += 1;
        }
    }
}

/// How many bytes of `list`, a block, are in use, if it is the collector's and no collection is under way; and, to `each`, the parts of
/// pages that are free. `size_of` gives the size of the live block that starts at an address, `word` a word of a live block.
pub fn garbage(
    list: AddrRange,
    size_of: impl Fn(usize) -> Option<usize>,
    word: impl Fn(usize) -> usize,
    mut each: impl FnMut(AddrRange),
) -> Option<usize> {
    let (mut used, mut empty) = (0, 0);
    for at in (list.start..list.end.saturating_sub(7)).step_by(8) {
        let entry = word(at);
        let Some(page) = size_of(entry).and_then(|size| Page::of(entry, size, used, &word)) else { break };
        page.free_objects(entry, &word, &mut each);
        empty += usize::from(page.free == page.objects);
        used += 1;
    }
    (used >= FEWEST && empty <= used / EMPTY).then_some(used * 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const LIST: usize = 0x10_0000;

    /// The list and the entries of pages, by what each has: objects, and which of them are in use.
    struct Heap {
        words: HashMap<usize, usize>,
        sizes: HashMap<usize, usize>,
        len: usize,
    }

    impl Heap {
        fn new() -> Self {
            Heap { words: HashMap::new(), sizes: HashMap::new(), len: 0 }
        }

        /// Of objects of a size that is no power of two.
        fn page(&mut self, objects: usize, in_use: &[usize]) -> usize {
            self.page_of(70, objects, in_use)
        }

        fn page_of(&mut self, order: usize, objects: usize, in_use: &[usize]) -> usize {
            let (place, entry) = (self.len, 0x20_0000 + self.len * 0x100);
            self.len += 1;
            self.words.insert(LIST + place * 8, entry);
            let size = BITS + (objects / 64 + 1) * 8;
            self.sizes.insert(entry, size);
            for (at, value) in [(BYTES, 4096), (PAGE, 0x4000_0000 + place * 4096), (PLACE, place)] {
                self.words.insert(entry + at, value);
            }
            self.words.insert(entry + FIELDS, 7 | (objects - in_use.len()) << 16 | 3 << 32 | order << 48);
            for &object in in_use.iter().chain([&objects]) {
                *self.words.entry(entry + BITS + object / 64 * 8).or_default() |= 1 << (object % 64);
            }
            entry
        }

        fn garbage(&self, len: usize) -> (Option<usize>, Vec<(usize, usize)>) {
            let mut free = vec![];
            let word = |at: usize| self.words.get(&at).copied().unwrap_or_default();
            let size_of = |at: usize| self.sizes.get(&at).copied();
            let used = garbage(AddrRange::new(LIST, LIST + len), size_of, word, |run| {
                free.push((run.start - 0x4000_0000, run.len()));
            });
            (used, free)
        }

        fn full(&mut self, pages: usize) {
            for _ in 0..pages {
                self.page(4, &[0, 1, 2, 3]);
            }
        }
    }

    #[test]
    fn free_objects_by_their_bits() {
        let mut heap = Heap::new();
        heap.full(16);
        heap.page_of(10, 4, &[0, 3]); // of 1,024 bytes
        heap.page(170, &(1..169).collect::<Vec<_>>()); // of 24
        heap.page(64, &(0..63).collect::<Vec<_>>()); // of 64: the mark behind the last stands in a word of its own
        heap.page(1, &[]);
        let free = [(16 * 4096 + 1024, 2048), (17 * 4096, 24), (17 * 4096 + 169 * 24, 40), (18 * 4096 + 63 * 64, 64)];
        assert_eq!(heap.garbage(1000), (Some(20 * 8), [&free[..], &[(19 * 4096, 4096)]].concat()));
    }

    #[test]
    fn objects_whose_size_is_not_sure() {
        let mut heap = Heap::new();
        heap.full(16);
        heap.page(9, &[0, 1, 2, 7, 8]); // of 416 to 448 bytes
        heap.page(9, &[0, 2, 3, 4, 5, 6, 7, 8]); // between 448 and 832 at least
        heap.page(9, &[0, 1, 2, 3, 4, 5, 6, 7]);
        let free =
            [(16 * 4096 + 3 * 448, 7 * 416 - 3 * 448), (17 * 4096 + 448, 2 * 416 - 448), (18 * 4096 + 8 * 448, 512)];
        assert_eq!(heap.garbage(1000).1, free);
    }

    #[test]
    fn the_list_ends_where_entries_do_not_know_their_place() {
        let mut heap = Heap::new();
        heap.full(20);
        let last = heap.page(4, &[0]);
        heap.words.insert(last + PLACE, 7);
        assert_eq!(heap.garbage(1000), (Some(20 * 8), vec![]));
        assert_eq!(heap.garbage(17 * 8).0, Some(17 * 8), "or where the block does");
        heap.sizes.remove(&0x20_0000);
        assert_eq!(heap.garbage(1000).0, None, "no block any more");
    }

    #[test]
    fn what_is_no_such_list() {
        let mut heap = Heap::new();
        heap.full(15);
        assert_eq!(heap.garbage(1000).0, None, "few entries");
        heap.full(1);
        assert_eq!(heap.garbage(1000).0, Some(128));
        for place in 0..3 {
            heap.words.insert(0x20_0000 + place * 0x100 + FIELDS, 4 << 16);
        }
        assert_eq!(heap.garbage(1000).0, None, "a collection is under way: nothing is marked yet");
    }

    #[test]
    fn an_entry_without_the_mark_behind_its_bits_ends_the_list() {
        let mut heap = Heap::new();
        heap.full(20);
        let entry = heap.page(4, &[0]);
        heap.words.insert(entry + BITS, 0);
        assert_eq!(heap.garbage(1000), (Some(20 * 8), vec![]));
    }

    #[test]
    fn bits_that_do_not_say_what_the_entry_counts() {
        let mut heap = Heap::new();
        heap.full(16);
        let entry = heap.page(4, &[0]);
        heap.words.insert(entry + FIELDS, 2 << 16);
        assert_eq!(heap.garbage(1000), (Some(17 * 8), vec![]));
    }
}
