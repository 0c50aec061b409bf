//! What a heap gives out, against what it must never do: give a byte twice.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A heap for `bytes`, and as many caches as are asked for; for ever, as mapped memory is.
fn heap(bytes: usize, caches: usize) -> (Heap, &'static [Cache]) {
    let heap = Heap::new();
    assert!(heap.init(bytes));
    (heap, arena::zeroed::<Cache>(caches).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Take { thread: usize, size: usize },
    Give { thread: usize, which: usize },
    Drain { thread: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0usize..200, 0usize..=LARGEST, LARGEST + 1..LARGEST + 100, usize::MAX - 20..=usize::MAX];
    let step = prop_oneof![
        6 => (0usize..2, size).prop_map(|(thread, size)| Step::Take { thread, size }),
        5 => (0usize..2, any::<usize>()).prop_map(|(thread, which)| Step::Give { thread, which }),
        1 => (0usize..2).prop_map(|thread| Step::Drain { thread }),
    ];
    prop::collection::vec(step, 0..3000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two threads that free each other's blocks, in a heap that gets full now and then.
    #[test]
    fn no_byte_is_given_out_twice_and_all_comes_back(steps in steps()) {
        let (heap, caches) = heap(4 << 20, 2);
        let mut live: BTreeMap<usize, usize> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Take { thread, size } => {
                    let Some((addr, usable)) = heap.take(&caches[thread], size) else {
                        prop_assert!(size > LARGEST || heap.pool.lock().used == 64);
                        continue;
                    };
                    prop_assert!(usable >= size && usable >= 32 && addr.is_multiple_of(16));
                    prop_assert_eq!(heap.usable(addr), Some(usable));
                    if let Some((below, len)) = live.range(..=addr).next_back() {
                        prop_assert!(below + len <= addr);
                    }
                    if let Some((above, _)) = live.range(addr..).next() {
                        prop_assert!(addr + usable <= *above);
                    }
                    // SAFETY: all of it is the test's.
                    unsafe { (addr as *mut u8).write_bytes(0xa5, usable) };
                    live.insert(addr, usable);
                }
                Step::Give { thread, which } => {
                    if let Some(&addr) = live.keys().nth(which % live.len().max(1)) {
                        live.remove(&addr);
                        prop_assert!(heap.give(&caches[thread], addr));
                    }
                }
                Step::Drain { thread } => heap.drain(&caches[thread]),
            }
        }
        live.keys().for_each(|addr| assert!(heap.give_at_once(*addr)));
        caches.iter().for_each(|cache| heap.drain(cache));
        prop_assert_eq!(heap.pool.lock().in_use, 0);
        prop_assert!(heap.central[1..].iter().all(|central| central.lock().lowest().is_none()));
    }

    #[test]
    fn a_set_finds_its_lowest(changes in prop::collection::vec((any::<bool>(), 0usize..300_000), 0..300)) {
        let len = 300_000usize.div_ceil(64);
        let mut words = vec![0u64; Set::words_in_all(len)];
        let mut set = Set { words: words.as_mut_ptr() as usize, len };
        let mut model = BTreeSet::new();
        for (add, slab) in changes {
            if add {
                set.add(slab);
                model.insert(slab);
            } else {
                set.remove(slab);
                model.remove(&slab);
            }
            prop_assert_eq!(set.lowest(), model.first().copied());
        }
    }
}

#[test]
fn the_lowest_free_block_is_the_next() {
    let (heap, caches) = heap(4 << 20, 1);
    let cache = &caches[0];
    let take = |size| heap.take(cache, size).unwrap().0;
    let blocks: Vec<usize> = (0..5000).map(|_| take(100)).collect();
    // Side by side, over the edge of a slab, too.
    assert!(blocks.windows(2).all(|pair| pair[1] - pair[0] == 112 || pair[1] % SLAB == 0));
    // What was freed last is given out first, while it is in the cache.
    heap.give(cache, blocks[7]);
    heap.give(cache, blocks[3]);
    assert_eq!([take(112), take(97)], [blocks[3], blocks[7]]);
    // In any order: when the cache is empty, from the lowest on.
    for at in (0..5000).rev().step_by(2).chain((0..5000).step_by(2)) {
        heap.give(cache, blocks[at]);
    }
    heap.drain(cache);
    assert!((0..5000).map(|_| take(100)).eq(blocks));
}

#[test]
fn what_is_not_from_here_is_not_taken() {
    let (heap, caches) = heap(4 << 20, 1);
    let other = Box::new(0u64);
    let addr = &raw const *other as usize;
    assert!(!heap.contains(addr) && heap.usable(addr).is_none());
    assert!(!heap.give(&caches[0], addr) && !heap.give_at_once(addr));
    // A part of the range that has no slab yet.
    assert_eq!(heap.usable(heap.range().end - 16), Some(0));
    assert!(heap.give(&caches[0], heap.range().end - 16));
    assert!(heap.take(&caches[0], 0).is_some_and(|(addr, _)| addr == heap.range().start));
    // Without addresses nothing is given out.
    let none = Heap::new();
    assert!(!none.init(STEP * SLAB - 1));
    let empty = &arena::zeroed::<Cache>(1).unwrap()[0];
    assert!(none.take(empty, 32).is_none() && !none.give(empty, addr) && none.range().is_empty());
}

#[test]
fn a_signal_handler_that_finds_the_locks_held_gets_nothing() {
    let (heap, caches) = heap(4 << 20, 1);
    let block = heap.take(&caches[0], 32).unwrap().0;
    heap.drain(&caches[0]);
    caches[0].busy.set(true);
    assert!(heap.take(&caches[0], 32).is_none());
    assert!(heap.give(&caches[0], block));
    assert_eq!(heap.take(&caches[0], 32), Some((block, 32)));
}

#[test]
fn empty_slabs_beyond_those_that_are_kept_give_their_memory_back() {
    let (heap, caches) = heap(64 << 20, 1);
    let blocks: Vec<usize> = (0..(40 << 20) / 4096).map(|_| heap.take(&caches[0], 4096).unwrap().0).collect();
    // SAFETY: the test's blocks.
    blocks.iter().for_each(|block| unsafe { (*block as *mut u8).write_bytes(1, 4096) });
    blocks.iter().for_each(|block| assert!(heap.give(&caches[0], *block)));
    heap.drain(&caches[0]);
    let resident = blocks.iter().filter(|block| {
        let mut byte = [0u8];
        // SAFETY: one page of the heap's.
        unsafe { sys::call(sys::nr::MINCORE, [**block, 4096, byte.as_mut_ptr() as usize, 0, 0, 0]) }.unwrap();
        byte[0] & 1 != 0
    });
    assert_eq!(resident.count() / 16, KEPT);
    assert_eq!(heap.pool.lock().kept_count, KEPT);
    // Those that have kept theirs are the next ones.
    let again: Vec<usize> = (0..KEPT * 16).map(|_| heap.take(&caches[0], 4096).unwrap().0).collect();
    let mut byte = [0u8];
    for block in again {
        // SAFETY: as above.
        unsafe { sys::call(sys::nr::MINCORE, [block, 4096, byte.as_mut_ptr() as usize, 0, 0, 0]) }.unwrap();
        assert_eq!(byte[0] & 1, 1);
    }
}

/// Whoever held a lock when the process was forked is not in the child: its heap goes on, and gives nothing to two.
#[test]
fn the_child_of_a_fork_needs_no_lock_that_another_thread_held() {
    let (heap, caches) = heap(4 << 20, 1);
    let first: BTreeSet<usize> = (0..100).map(|_| heap.take(&caches[0], 100).unwrap().0).collect();
    let class = usize::from(CLASS_OF[7]);
    core::mem::forget(heap.central[class].lock());
    // SAFETY: no other thread uses this heap.
    unsafe { heap.forked() };
    heap.drain(&caches[0]);
    let second: BTreeSet<usize> = (0..100).map(|_| heap.take(&caches[0], 100).unwrap().0).collect();
    assert!(first.is_disjoint(&second) && second.len() == 100);
    first.iter().chain(&second).for_each(|block| assert!(heap.give(&caches[0], *block)));
    core::mem::forget(heap.pool.lock());
    // SAFETY: as above.
    unsafe { heap.forked() };
    // No more slabs: what there is, and then nothing.
    assert!(std::iter::from_fn(|| heap.take(&caches[0], 100)).count() > 100);
    assert!(heap.take(&caches[0], 4000).is_none());
    heap.drain(&caches[0]);
}

#[test]
fn four_threads_pass_blocks_to_each_other() {
    let (heap, caches) = heap(64 << 20, 4);
    struct Mine(&'static Cache);
    // SAFETY: each cache is used by one thread only.
    unsafe impl Send for Mine {}
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| std::sync::mpsc::channel::<(usize, usize)>()).unzip();
    let heap = &heap;
    std::thread::scope(|scope| {
        for (thread, receiver) in receivers.into_iter().enumerate() {
            let (next, cache) = (senders[(thread + 1) % 4].clone(), Mine(&caches[thread]));
            scope.spawn(move || {
                let cache = { cache }.0;
                let back = |(addr, usable): (usize, usize)| {
                    // SAFETY: a block that another thread has made and has no part in any more.
                    let (first, last) =
                        unsafe { ((addr as *const usize).read(), ((addr + usable - 8) as *const usize).read()) };
                    assert_eq!((first, last), (addr, usable));
                    assert!(heap.give(cache, addr));
                };
                let mut random = thread;
                for _ in 0..50_000usize {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let (addr, usable) = heap.take(cache, (random >> 33) % 600).unwrap();
                    // SAFETY: the block is this thread's.
                    unsafe {
                        (addr as *mut usize).write(addr);
                        ((addr + usable - 8) as *mut usize).write(usable);
                    }
                    next.send((addr, usable)).unwrap();
                    receiver.try_iter().for_each(back);
                }
                drop(next);
                receiver.iter().for_each(back);
                heap.drain(cache);
            });
        }
        drop(senders);
    });
}
