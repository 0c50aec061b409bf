use super::*;
use crate::record::live_map::Family;

pub(crate) struct Fixed(pub usize);
impl SizeOf for Fixed {
    fn usable(&self, _: usize, _: Cell) -> usize {
        self.0
    }
}

fn live(addrs: &[usize]) -> LiveMap {
    let map = LiveMap::new();
    assert!(map.init());
    for addr in addrs {
        assert!(map.set(*addr, Cell::new(Family::Malloc, 0, 0, None)));
    }
    map
}

#[test]
fn pointers_find_their_block_over_gaps_and_leaf_borders() {
    const GIB: usize = 1 << 30;
    let addrs = [0x10_0000_0000, 0x10_0000_0040, 0x10_0000_0000 + GIB, 0x10_0000_0000 + 5 * GIB + 0x3ff_ff00];
    let map = live(&addrs);
    let blocks = Blocks::build(&map, &Fixed(0x30), &mut Pages::open().unwrap()).unwrap();
    assert_eq!(blocks.count, 4);
    assert!(blocks.iter().eq(addrs));
    for addr in addrs {
        assert_eq!(blocks.find(addr), Some((addr, Place::Start)));
        assert_eq!(blocks.find(addr + 1), Some((addr, Place::Interior)));
        assert_eq!(blocks.find(addr + 0x30), Some((addr, Place::Interior)), "one past the end");
        assert_eq!(blocks.find(addr + 0x31), None);
    }
    assert_eq!(blocks.find(addrs[0] - 1), None);
    assert_eq!(blocks.find(usize::MAX), None);
    assert_eq!(blocks.find(addrs[3] + 0x2f), Some((addrs[3], Place::Interior)));
}

#[test]
fn a_large_block_is_found_from_anywhere_inside() {
    let addrs = [0x20_0000_0000, 0x20_8000_0000];
    let map = live(&addrs);
    let blocks = Blocks::build(&map, &Fixed(1 << 30), &mut Pages::open().unwrap()).unwrap();
    for offset in [1, 4096, 65 << 20, (1 << 30) - 1, 1 << 30] {
        assert_eq!(blocks.find(addrs[0] + offset), Some((addrs[0], Place::Interior)), "{offset:#x}");
        assert_eq!(blocks.find(addrs[1] + offset), Some((addrs[1], Place::Interior)), "{offset:#x}");
    }
    assert_eq!(blocks.find(addrs[0] + (1 << 30) + 1), None);
}

#[test]
fn starts_in_a_range_are_found() {
    let base = 0x50_0000_0000;
    let addrs = [base + 0x1_0010, base + LEAF_SPAN + 0x20];
    let map = live(&addrs);
    let blocks = Blocks::build(&map, &Fixed(0x100), &mut Pages::open().unwrap()).unwrap();
    for addr in addrs {
        for (start, end, expected) in [(0, 1, true), (1, 0x2000, false), (-0x2000, 0, false), (-0x2000, 1, true)] {
            let range = AddrRange::new(addr.wrapping_add_signed(start), addr.wrapping_add_signed(end));
            assert_eq!(blocks.start_in(range), expected, "{start:#x} to {end:#x}");
        }
    }
    assert!(blocks.start_in(AddrRange::new(base, base + 2 * LEAF_SPAN)));
    assert!(!blocks.start_in(AddrRange::new(base - LEAF_SPAN, base)));
}

#[test]
fn only_what_may_point_to_a_block_is_near() {
    const SIZE: usize = 3 * GRANULE;
    let base = 0x40_0000_0000;
    // In the midst of a granule; over a leaf's border, with nothing else in the next leaf, and with a block there.
    for (addrs, inside) in [
        (vec![base + 5 * GRANULE + 0x8010], 0x100),
        (vec![base + LEAF_SPAN - GRANULE], GRANULE + 0x100),
        (vec![base + LEAF_SPAN - GRANULE, base + LEAF_SPAN + 9 * GRANULE], GRANULE + 0x100),
    ] {
        let map = live(&addrs);
        let blocks = Blocks::build(&map, &Fixed(SIZE), &mut Pages::open().unwrap()).unwrap();
        for addr in &addrs {
            for offset in [0, inside, SIZE] {
                assert!(blocks.near(addr + offset), "{addr:#x} + {offset:#x}");
                assert!(blocks.find(addr + offset).is_some());
            }
            // (Of a leaf without a block nothing more is known.)
            let beyond = addr + SIZE + 2 * GRANULE;
            assert!(!blocks.near(beyond) || addrs.iter().all(|addr| addr / LEAF_SPAN != beyond / LEAF_SPAN));
            assert!(!blocks.near(addr - GRANULE));
        }
    }
}

#[test]
fn a_gap_of_terabytes_costs_nothing() {
    // A break at 16 MiB, mappings below 2^47: a search leaf by leaf would take 2 million steps for each word.
    let addrs = [0x100_0000, 0x7fff_0000_8000];
    let map = live(&addrs);
    let blocks = Blocks::build(&map, &Fixed(0x30), &mut Pages::open().unwrap()).unwrap();
    let misses = (0..1_000_000usize).filter(|i| blocks.find(0x7f00_0000_0000 + i * 4096).is_none()).count();
    assert_eq!(misses, 1_000_000);
    assert_eq!(blocks.find(addrs[1] - 1), None, "in the leaf, below its first block");
    assert_eq!(blocks.find(addrs[1] + 1), Some((addrs[1], Place::Interior)));
}

#[test]
fn marks_are_kept_apart_from_distances() {
    let addrs = [0x30_0000_0000, 0x30_0000_0000 + 0x8000, 0x30_0000_0000 + 0x2_0000];
    let map = live(&addrs);
    let mut blocks = Blocks::build(&map, &Fixed(16), &mut Pages::open().unwrap()).unwrap();
    assert!(blocks.mark(addrs[1]) && !blocks.mark(addrs[1]));
    assert!(blocks.unmarked().eq([addrs[0], addrs[2]]));
    assert!(blocks.mark_extra(addrs[0]) && blocks.is_extra(addrs[0]) && !blocks.is_marked(addrs[0]));
    assert_eq!(blocks.find(addrs[1] + 9), Some((addrs[1], Place::Interior)));
}

#[test]
fn an_empty_map_has_no_blocks() {
    let map = live(&[]);
    let blocks = Blocks::build(&map, &Fixed(16), &mut Pages::open().unwrap()).unwrap();
    assert_eq!((blocks.iter().count(), blocks.find(0x1000)), (0, None));
}
