//! The root policy: which memory may hold the program's pointers, and how each piece is to be read.
//!
//! Pure decisions on the text of `/proc/PID/maps` and on ranges that the door has found out (its own memory, the
//! allocator's, thread stacks), so that tests can feed it numbers. It gave no false leak in 40 scans of 12 real programs.

use super::maps::Mapping;
use super::mark::How;
use crate::AddrRange;
use crate::arena::{List, Zeroed};

/// A root class, each with its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Data of the program and its libraries.
    Globals,
    /// A stack that no running thread stands on (main's, while main runs on another one).
    Stack,
    /// Anonymous, shared and file mappings.
    Mappings,
}

/// How to find out which pages of a range exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// By the page tables: private memory.
    Private,
    /// By the page cache: shared memory, whose pages a forked child has not in its own tables. What is not there of a file that is no
    /// memory itself was put back into it, or was never looked at.
    Shared { is_file: bool },
    /// By the page tables, and only those that were written: the rest is a file's. Up to `until` there are more such ranges.
    Own { until: usize },
}

/// A range to be read as roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    pub range: AddrRange,
    pub class: Class,
    pub how: How,
    pub resident: Resident,
}

/// What the door knows about the address space.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Ranges that are no roots, or are read elsewhere: our own memory, the allocator's, thread stacks, devices'. Sorted, disjoint.
    pub excluded: &'a [AddrRange],
    /// The allocator owns `[heap]` (glibc); otherwise it is memory like any other.
    pub heap_is_allocators: bool,
    /// Parts of `[heap]` that the program got by sbrk itself.
    pub sbrk: &'a [AddrRange],
    /// The states of glibc's main arenas, in its data (see [`arena_in`]). None is known: all of that may be one.
    pub arenas: &'a [AddrRange],
    /// Where each loaded file's memory ends, by its own headers, on a page border; sorted. The kernel joins a .bss with an
    /// anonymous mapping that happens to come after it.
    pub ends: &'a [usize],
}

#[allow(unsafe_code)]
// SAFETY: a pair of integers is valid when zero.
unsafe impl Zeroed for FileId {}

/// A file, by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

fn file(mapping: &Mapping<'_>) -> FileId {
    FileId(u64::from(mapping.dev.0) << 32 | u64::from(mapping.dev.1), mapping.inode)
}

/// Of a file's private mapping that may not be written so much is looked through.
const READ_ONLY: usize = 256 << 20;

/// Gives every root range that follows from the mappings, in the order of addresses; and to `unreadable`, ranges that nobody may read (no
/// permission at all, or to run it only), which may hold pointers all the same, with how to find out which of their pages exist.
///
/// `false` without memory for the list of loaded files.
pub fn plan(
    mappings: &[Mapping<'_>],
    facts: &Facts<'_>,
    mut each: impl FnMut(Root),
    mut unreadable: impl FnMut(AddrRange, Resident),
) -> bool {
    let mut loaded: List<FileId> = List::new();
    for mapping in mappings.iter().filter(|mapping| mapping.exec && mapping.inode != 0) {
        if loaded.last() != Some(&file(mapping)) && !loaded.push(file(mapping)) {
            return false;
        }
    }
    let is_loaded = |mapping: &Mapping<'_>| mapping.inode != 0 && loaded.contains(&file(mapping));
    let mut before: Option<Before> = None;
    // Where the mappings end that follow each other without a gap.
    let mut until = 0;
    for (at, mapping) in mappings.iter().enumerate() {
        if until <= mapping.range.start {
            let borders = mappings[at..].windows(2).take_while(|two| two[0].range.end == two[1].range.start);
            until = borders.last().map_or(mapping.range.end, |two| two[1].range.end);
        }
        let is_code = mapping.exec && !mapping.write;
        // What may be written can be read, whatever is said of it.
        let is_open = mapping.read || mapping.write;
        let data = is_loaded(mapping) && !mapping.shared && is_open && !is_code;
        let ended = |end: usize| facts.ends.binary_search(&end).is_ok();
        let follows = before.filter(|before| before.end == mapping.range.start);
        let bss = mapping.is_anonymous()
            && !is_code
            && !mapping.path.starts_with(b"[")
            && follows.is_some_and(|before| !ended(before.end));
        let libc = if data { is_libc(mapping.path) } else { bss && follows.is_some_and(|before| before.libc) };
        let border = facts.ends[facts.ends.partition_point(|end| *end <= mapping.range.start)..].first().copied();
        // Where the file's memory ends, what follows is a mapping of its own.
        let stranger = border.filter(|border| bss && *border < mapping.range.end);
        before = ((data || bss) && stranger.is_none()).then_some(Before { end: mapping.range.end, libc });
        if mapping.is_kernels() {
            continue;
        }
        let how = |exact_only| How { exact_only, unaligned: false };
        let root = |class, how, resident| Some(Root { range: mapping.range, class, how, resident });
        let is_file = !is_memory(mapping);
        // Of a file whose pages are told by the page cache, or, where that is the file's matter, by who has written to them.
        let (cached, own) = (Resident::Shared { is_file }, Resident::Own { until });
        let root = if !is_open {
            let resident = match (mapping.inode != 0 && is_file, mapping.shared) {
                (true, true) => None,
                (true, false) => Some(own),
                (false, _) if mapping.shared || mapping.inode != 0 => Some(cached),
                (false, _) => Some(Resident::Private),
            };
            if let Some(resident) = resident {
                subtract(mapping.range, facts.excluded, |range| unreadable(range, resident));
            }
            None
        } else if data || bss {
            // What is read-only was not always: relocations are written there, and a library may close all of its data.
            let resident = if mapping.write || bss { Resident::Private } else { own };
            root(Class::Globals, how(libc), resident)
        } else if mapping.shared {
            let may_be_written = mapping.write || !is_file || mapping.is_ring();
            if may_be_written { root(Class::Mappings, how(false), cached) } else { None }
        } else if mapping.inode != 0 {
            // Also code: a program may patch its own, or write some to memory that is a file, and addresses lie anywhere in it.
            let how = How { exact_only: false, unaligned: is_code };
            match mapping.write {
                _ if !is_file => root(Class::Mappings, how, cached),
                true => root(Class::Mappings, how, Resident::Private),
                // What was written before it was made read-only is there. (A large one is a file that is read.)
                false if mapping.range.len() > READ_ONLY => None,
                false => root(Class::Mappings, how, own),
            }
        } else if mapping.path == b"[stack]" {
            root(Class::Stack, how(false), Resident::Private)
        } else if mapping.path == b"[heap]" && facts.heap_is_allocators {
            for part in facts.sbrk.iter().filter(|part| part.overlaps(mapping.range)) {
                let range = AddrRange::new(part.start.max(mapping.range.start), part.end.min(mapping.range.end));
                each(Root { range, class: Class::Mappings, how: how(false), resident: Resident::Private });
            }
            None
        } else if mapping.is_anonymous() {
            root(Class::Mappings, How { exact_only: false, unaligned: mapping.exec }, Resident::Private)
        } else {
            None
        };
        let Some(mut root) = root else { continue };
        let mut each = |root: Root| subtract(root.range, facts.excluded, |range| each(Root { range, ..root }));
        // Of glibc's data the arena's lists lead to the ends of live blocks; all else is as anybody's.
        let mut give = |root: Root| {
            if !root.how.exact_only || facts.arenas.is_empty() {
                return each(root);
            }
            subtract(root.range, facts.arenas, |range| each(Root { range, how: How::default(), ..root }));
            for arena in facts.arenas.iter().filter(|arena| arena.overlaps(root.range)) {
                let range = AddrRange::new(arena.start.max(root.range.start), arena.end.min(root.range.end));
                each(Root { range, ..root });
            }
        };
        if let Some(border) = stranger {
            let range = AddrRange::new(border, root.range.end);
            root.range.end = border;
            give(Root { range, class: Class::Mappings, how: how(false), resident: Resident::Private });
        }
        give(root);
    }
    true
}

/// A data mapping that an anonymous one may continue (.bss).
#[derive(Clone, Copy)]
struct Before {
    end: usize,
    libc: bool,
}

/// Where in the data of a library, of which these are the words from `start` on, an arena's state lies: its lists, of which some are empty (see
/// [`is_arena`]), and what stands before them. The last of the lists is hardly ever used.
pub fn arena_in(start: usize, words: &[usize]) -> Option<AddrRange> {
    const LINKS: usize = 2 * 127;
    const BEFORE: usize = 14;
    let is_empty = |(index, links): &(usize, &[usize])| links.iter().all(|link| *link == start + index * 8 - 16);
    let mut empty = words.windows(2).enumerate().filter(is_empty).map(|(index, _)| index);
    let first = empty.next()?;
    let end = empty.next_back()? + 2;
    let begin = end.saturating_sub(LINKS).min(first).saturating_sub(BEFORE);
    Some(AddrRange::new(start + begin * 8, start + end * 8))
}

/// glibc's own data: its bins point to the ends of live blocks.
pub fn is_libc(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    name.starts_with(b"libc.so.") || name.starts_with(b"libc-2.")
}

/// Whether a shared mapping is one of memory, to which somebody may have written pointers who may not write to it now. Of a file's one that
/// is not to be written is only read.
fn is_memory(mapping: &Mapping<'_>) -> bool {
    let memory = [&b"/dev/shm/"[..], b"/dev/zero", b"/memfd:", b"/SYSV", b"["];
    mapping.path.is_empty() || memory.iter().any(|name| mapping.path.starts_with(name))
}

/// The parts of `range` outside `excluded` (sorted, disjoint).
pub fn subtract(range: AddrRange, excluded: &[AddrRange], mut each: impl FnMut(AddrRange)) {
    let mut at = range.start;
    let first = excluded.partition_point(|hole| hole.end <= range.start);
    for hole in excluded[first..].iter().take_while(|hole| hole.start < range.end) {
        if hole.start > at {
            each(AddrRange::new(at, hole.start));
        }
        at = at.max(hole.end);
    }
    if at < range.end {
        each(AddrRange::new(at, range.end));
    }
}

/// Sorts ranges and joins those that touch, in place; gives the number that is left.
pub fn normalize(ranges: &mut [AddrRange]) -> usize {
    ranges.sort_unstable();
    let mut used = 0;
    for i in 0..ranges.len() {
        let range = ranges[i];
        if range.is_empty() {
            continue;
        }
        match used {
            0 => {}
            _ if ranges[used - 1].end >= range.start => {
                ranges[used - 1].end = ranges[used - 1].end.max(range.end);
                continue;
            }
            _ => {}
        }
        ranges[used] = range;
        used += 1;
    }
    used
}

/// Alignment and most size of the heaps of glibc's arenas, unless glibc.malloc.hugetlb says otherwise.
pub const HEAP: usize = 64 << 20;
/// The same where it does, and large pages are of 2 MiB.
pub const HEAP_OF_LARGE_PAGES: usize = 8 << 20;
/// Words of an arena's state, the lists of its free chunks among them.
pub const ARENA_WORDS: usize = 272;

/// Whether these four words may be the `heap_info` that begins a heap of an arena's at `at`: its arena, the heap before it, its size, the
/// size that was ever writable.
pub fn looks_like_heap(at: usize, words: [usize; 4]) -> bool {
    const LEAST: usize = 256 << 10;
    const MOST: usize = 4 << 30;
    let [arena, previous, size, writable] = words;
    let sizes = (4096..=MOST).contains(&size) && size.is_multiple_of(4096) && (size..=MOST).contains(&writable);
    let own = (at..at + 256).contains(&arena);
    let linked = previous != 0 && previous.is_multiple_of(LEAST) && arena % LEAST < 256;
    sizes && arena.is_multiple_of(8) && (own || linked)
}

/// Whether these words, found at `at`, are an arena's: of its 127 lists some that follow each other are empty, and an empty one's two links
/// lead to where its chunk would begin, 16 bytes before them. (Of other lists' heads hardly any lie so close.)
pub fn is_arena(at: usize, words: &[usize]) -> bool {
    let is_empty_list = |index: usize, links: &[usize]| links.iter().all(|link| *link == at + index * 8 - 16);
    let are_empty =
        |(index, links): (usize, &[usize])| is_empty_list(index, &links[..2]) && is_empty_list(index + 2, &links[2..]);
    words.windows(4).enumerate().skip(2).any(are_empty)
}

#[cfg(test)]
mod tests {
    use super::super::maps;
    use super::*;

    const MAPS: &[u8] = b"\
10000-11000 r--p 0 fe:01 5 /bin/app
11000-12000 r-xp 1000 fe:01 5 /bin/app
12000-13000 r--p 2000 fe:01 5 /bin/app
13000-14000 r--p 3000 fe:01 5 /bin/app
14000-15000 rw-p 4000 fe:01 5 /bin/app
15000-17000 rw-p 0 00:00 0 
20000-40000 rw-p 0 00:00 0 [heap]
50000-51000 r-xp 0 fe:01 6 /lib/libc.so.6
51000-52000 rw-p 1000 fe:01 6 /lib/libc.so.6
52000-53000 rw-p 0 00:00 0 
60000-61000 rw-p 0 00:00 0 
61000-62000 ---p 0 00:00 0 
70000-71000 rwxp 0 00:00 0 
80000-81000 rw-s 0 00:01 9 /memfd:x (deleted)
81000-82000 rw-s 0 00:05 9 /dev/plain
82000-83000 rw-p 0 fe:01 77 /home/data
83000-84000 r--p 0 fe:01 78 /usr/lib/locale/locale-archive
90000-91000 rw-p 0 00:00 0 [stack]
91000-92000 r--p 0 00:00 0 [vvar]
92000-93000 r--p 0 00:00 0 
";

    fn roots(excluded: &[AddrRange], heap_is_allocators: bool, sbrk: &[AddrRange]) -> Vec<(usize, usize, Class, How)> {
        let mut roots = Vec::new();
        let facts = Facts { excluded, heap_is_allocators, sbrk, arenas: &[], ends: &[0x17000, 0x53000] };
        assert!(plan(
            &maps::list(MAPS).unwrap(),
            &facts,
            |root| roots.push((root.range.start, root.range.end, root.class, root.how)),
            |_, _| {}
        ));
        roots
    }

    #[test]
    fn each_mapping_is_taken_by_its_class_or_left_out() {
        let (plain, exact) = (How::default(), How { exact_only: true, unaligned: false });
        let code = How { exact_only: false, unaligned: true };
        assert_eq!(
            roots(&[], true, &[AddrRange::new(0x30000, 0x31000)]),
            [
                (0x10000, 0x11000, Class::Globals, plain),
                (0x11000, 0x12000, Class::Mappings, code),
                (0x12000, 0x13000, Class::Globals, plain),
                (0x13000, 0x14000, Class::Globals, plain),
                (0x14000, 0x15000, Class::Globals, plain),
                (0x15000, 0x17000, Class::Globals, plain),
                (0x30000, 0x31000, Class::Mappings, plain),
                (0x50000, 0x51000, Class::Mappings, code),
                (0x51000, 0x52000, Class::Globals, exact),
                (0x52000, 0x53000, Class::Globals, exact),
                (0x60000, 0x61000, Class::Mappings, plain),
                (0x70000, 0x71000, Class::Mappings, code),
                (0x80000, 0x81000, Class::Mappings, plain),
                (0x81000, 0x82000, Class::Mappings, plain),
                (0x82000, 0x83000, Class::Mappings, plain),
                (0x83000, 0x84000, Class::Mappings, plain),
                (0x90000, 0x91000, Class::Stack, plain),
                (0x92000, 0x93000, Class::Mappings, plain),
            ]
        );
        assert!(
            roots(&[], false, &[]).contains(&(0x20000, 0x40000, Class::Mappings, plain)),
            "a foreign allocator's heap"
        );
    }

    /// A program may part its heap by mlock or madvise into tens of thousands.
    #[test]
    fn what_the_program_has_of_a_heap_in_several_mappings_is_read_once() {
        let maps = b"20000-24000 rw-p 0 00:00 0 [heap]\n24000-28000 rw-p 0 00:00 0 [heap]\n28000-30000 rw-p 0 00:00 0 [heap]\n";
        let sbrk = [AddrRange::new(0x22000, 0x29000)];
        let facts = Facts { excluded: &[], heap_is_allocators: true, sbrk: &sbrk, arenas: &[], ends: &[] };
        let mut roots = Vec::new();
        assert!(plan(
            &maps::list(maps).unwrap(),
            &facts,
            |root| roots.push((root.range.start, root.range.end)),
            |_, _| {}
        ));
        assert_eq!(roots, [(0x22000, 0x24000), (0x24000, 0x28000), (0x28000, 0x29000)]);
    }

    #[test]
    fn excluded_ranges_are_cut_out_of_every_mapping() {
        let cut = [AddrRange::new(0x14800, 0x16000), AddrRange::new(0x60000, 0x61000)];
        let roots = roots(&cut, true, &[]);
        assert!(roots.iter().any(|root| (root.0, root.1) == (0x14000, 0x14800)));
        assert!(roots.iter().any(|root| (root.0, root.1) == (0x16000, 0x17000)));
        assert!(roots.iter().all(|root| root.0 != 0x60000));
    }

    #[test]
    fn unreadable_private_memory_is_named() {
        let mut unreadable = Vec::new();
        let facts = Facts { excluded: &[], heap_is_allocators: true, sbrk: &[], arenas: &[], ends: &[] };
        assert!(plan(&maps::list(MAPS).unwrap(), &facts, |_| {}, |range, _| unreadable.push(range)));
        assert_eq!(unreadable, [AddrRange::new(0x61000, 0x62000)]);
    }

    #[test]
    fn a_mapping_that_the_kernel_has_joined_to_a_bss_is_none() {
        let of = |ends: &[usize]| {
            let mut roots = Vec::new();
            let facts = Facts { excluded: &[], heap_is_allocators: true, sbrk: &[], arenas: &[], ends };
            assert!(plan(
                &maps::list(MAPS).unwrap(),
                &facts,
                |root| roots.push((root.range.start, root.class, root.how.exact_only)),
                |_, _| {}
            ));
            roots.retain(|root| (0x15000..0x17000).contains(&root.0) || (0x52000..0x53000).contains(&root.0));
            roots
        };
        let (globals, mappings) = (Class::Globals, Class::Mappings);
        assert_eq!(
            of(&[0x16000, 0x52000]),
            [(0x16000, mappings, false), (0x15000, globals, false), (0x52000, mappings, false)]
        );
        assert_eq!(
            of(&[0x15000, 0x52800]),
            [(0x15000, mappings, false), (0x52800, mappings, false), (0x52000, globals, true)]
        );
        assert_eq!(of(&[]), [(0x15000, globals, false), (0x52000, globals, true)]);
    }

    #[test]
    fn ranges_are_sorted_and_joined() {
        let range = AddrRange::new;
        let mut ranges = [range(5, 7), range(1, 3), range(3, 4), range(6, 9), range(2, 2)];
        let used = normalize(&mut ranges);
        assert_eq!(ranges[..used], [range(1, 4), range(5, 9)]);
    }

    #[test]
    fn arenas_are_recognised_by_their_first_words() {
        let at = 0x7f00_0000_0000;
        assert!(looks_like_heap(at, [at + 0x30, 0, 0x21000, 0x21000]));
        assert!(looks_like_heap(at, [at - 5 * HEAP + 0x30, at - HEAP, 0x21000, 0x42000]));
        assert!(!looks_like_heap(at, [0, 0, 0, 0]));
        assert!(!looks_like_heap(at, [at + 0x30, 0, 0x21001, 0x21000]));
        assert!(!looks_like_heap(at, [at + 0x30, 0, 0x21000, 0x20000]));
    }

    #[test]
    fn of_glibcs_data_the_arenas_lists_alone_are_read_exactly() {
        let (plain, exact) = (How::default(), How { exact_only: true, unaligned: false });
        let arenas = [AddrRange::new(0x51400, 0x51c00)];
        let facts = Facts { excluded: &[], heap_is_allocators: true, sbrk: &[], arenas: &arenas, ends: &[] };
        let mut roots = Vec::new();
        let mut each = |root: Root| roots.push((root.range.start, root.range.end, root.how));
        assert!(plan(&maps::list(MAPS).unwrap(), &facts, &mut each, |_, _| {}));
        roots.retain(|root| (0x51000..0x53000).contains(&root.0));
        let expected = [
            (0x51000, 0x51400, plain),
            (0x51c00, 0x52000, plain),
            (0x51400, 0x51c00, exact),
            (0x52000, 0x53000, plain),
        ];
        assert_eq!(roots, expected);
    }

    #[test]
    fn an_arena_is_found_in_the_data_around_it() {
        let start = 0x7f00_0000_1000;
        let mut words = [7usize; 3000];
        for index in (1014..1014 + 254).step_by(2) {
            words[index..index + 2].fill(start + index * 8 - 16);
        }
        let arena = Some(AddrRange::new(start + 1000 * 8, start + 1268 * 8));
        assert_eq!(arena_in(start, &words), arena);
        words[1014..1200].fill(0x5500_0000_0000);
        assert_eq!(arena_in(start, &words), arena, "its first lists have chunks");
        assert_eq!(arena_in(start, &[7; 3000]), None);
    }

    #[test]
    fn an_arena_is_known_by_its_empty_lists() {
        let at = 0x7f00_0000_0030;
        // A lock, lists of small chunks, two chunks; then 127 lists of two links each.
        let mut words = [0usize; ARENA_WORDS];
        for list in 0..127 {
            let index = 14 + 2 * list;
            (words[index], words[index + 1]) = (at + index * 8 - 16, at + index * 8 - 16);
        }
        assert!(is_arena(at, &words));
        assert!(!is_arena(at + 16, &words), "it is elsewhere");
        // In one where all sizes have been freed, the last lists are empty: of the largest chunks, and of none at all.
        words[14..14 + 2 * 125].fill(0x7f00_0001_0000);
        assert!(is_arena(at, &words));
        words[14 + 2 * 125..14 + 2 * 126].fill(0x7f00_0001_0000);
        assert!(!is_arena(at, &words), "one may be anything");
    }
}
