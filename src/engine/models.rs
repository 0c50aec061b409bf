//! The structures that threads share without locks, and the lock, under a scheduler that tries interleavings (`scripts/test` runs them
//! with the feature `model`): each atomic step is a place where another thread may go on. Memory is taken for sequentially
//! consistent; what weaker orders allow, threads on real processors show in the other tests.
#![allow(unsafe_code)] // gives memory back between executions

use crate::StackId;
use crate::arena::{self, List};
use crate::lock::Lock;
use crate::record::depot::Depot;
use crate::record::index::Index;
use crate::record::live_map::{Cell, Family, LEAF_SPAN, LiveMap};
use crate::record::table::{Record, Table};
use shuttle::thread;
use std::sync::{Arc, Mutex, PoisonError};

/// Executions per model; all are different in their first choices.
const EXECUTIONS: usize = 1_000;

/// One model at a time: what it has mapped is told by the arena's list, which is for all.
static ONE: Mutex<()> = Mutex::new(());

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let model = move || {
        // There is a sheet of small memory, so that what a model takes of it is released, too.
        assert!(arena::map_for_good(1).is_some());
        let mark = arena::mark();
        model();
        // SAFETY: all threads have ended, and what they shared is not used again.
        unsafe { arena::release_since(mark) };
    };
    shuttle::check_random(model, EXECUTIONS);
}

/// Runs the bodies as threads, and gives what they return.
fn threads<T: Send + 'static>(bodies: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<T> {
    let running: Vec<_> = bodies.into_iter().map(|body| thread::spawn(body)).collect();
    running.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn threads_of<T: Send + 'static>(count: usize, body: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let body = Arc::new(body);
    threads(
        (0..count)
            .map(|number| {
                let body = body.clone();
                Box::new(move || body(number)) as Box<dyn FnOnce() -> T + Send>
            })
            .collect(),
    )
}

/// Two threads enter six keys each, two of them the same, over the growth of the first level (four of eight slots).
#[test]
fn index_no_key_is_lost_in_growth() {
    explore(|| {
        let index = Arc::new(Index::new());
        // All of them begin to look at the same slot.
        let hash = |key: u32| u64::from(key);
        // The id tells the key and who entered it.
        let is = |key: u32| move |id: u32| id >> 4 == key;
        let keys = |number: usize| if number == 0 { [1, 2, 3, 4, 9, 10] } else { [5, 6, 7, 8, 10, 9] };
        let shared = index.clone();
        let ids = threads_of(2, move |number| {
            keys(number).map(|key: u32| {
                let found = shared.find(hash(key), is(key));
                found.or_else(|| shared.insert(hash(key), key << 4 | number as u32, is(key))).unwrap()
            })
        });
        for (number, ids) in ids.iter().enumerate() {
            assert!(ids.iter().zip(keys(number)).all(|(id, key)| id >> 4 == key), "{ids:x?}");
        }
        for key in 1..=10u32 {
            let found = index.find(hash(key), is(key)).expect("a key that was entered is found");
            assert!(ids.as_flattened().contains(&found), "{key}: {found:#x}, {ids:x?}");
        }
    });
}

/// Three threads intern stacks, two of them the same ones, into chunks of 64 bytes: what an id stands for is whole at once.
#[test]
fn depot_frames_are_whole_when_their_id_is_known() {
    explore(|| {
        let depot = Arc::new(Depot::new());
        let shared = depot.clone();
        let stack = |number: usize, i: u32| [number as u32 / 2, i, i + 1, i + 2, i + 3];
        let ids = threads_of(3, move |number| {
            (1..=3u32)
                .map(|i| {
                    let frames = stack(number, i);
                    let hash = u64::from(i) << 33 | (number / 2) as u64;
                    let id = shared.intern(hash, &frames).unwrap();
                    assert_eq!(shared.frames(id), frames[..]);
                    (id, frames)
                })
                .collect::<Vec<(StackId, [u32; 5])>>()
        });
        for (id, frames) in ids.iter().flatten() {
            assert_eq!(depot.frames(*id), frames[..]);
        }
        assert_eq!(depot.lost(), 0);
    });
}

/// Three threads have their first blocks in two leaves, of which each is made by all at once and listed by one.
#[test]
fn live_map_leaves_are_made_once_and_listed_once() {
    explore(|| {
        let map = Arc::new(LiveMap::new());
        assert!(map.init());
        let shared = map.clone();
        const LOW: usize = 0x5555_0000_0000;
        let block = |number: usize, leaf: usize| LOW + leaf * LEAF_SPAN + number * 32;
        threads_of(3, move |number| {
            for leaf in [number % 2, 1 - number % 2] {
                let cell = Cell::new(Family::New, 1, number as u32, None);
                assert!(shared.set(block(number, leaf), cell));
                assert_eq!(shared.get(block(number, leaf)), Some(cell));
            }
            // The others' are as they were.
            assert!(shared.take(block(number, 0)).is_some());
        });
        let mut leaves: Vec<usize> = map.leaves().collect();
        leaves.sort_unstable();
        assert_eq!(leaves, [LOW & !(LEAF_SPAN - 1), (LOW & !(LEAF_SPAN - 1)) + LEAF_SPAN]);
        for number in 0..3 {
            assert_eq!(map.get(block(number, 0)), None);
            assert_eq!(map.get(block(number, 1)).map(Cell::slack), Some(number as u32));
        }
        assert!(map.span().contains(LOW) && map.span().contains(LOW + LEAF_SPAN));
    });
}

/// Two threads note blocks of the same few shards, which grow and sweep meanwhile, and take some out again.
#[test]
fn table_records_of_live_blocks_outlast_growth() {
    explore(|| {
        let (table, live) = (Arc::new(Table::new()), Arc::new(LiveMap::new()));
        assert!(live.init());
        let cell = Cell::new(Family::Malloc, 1, 31, None);
        let addr = |number: usize, i: usize| 0x7000_0000_0000 + (i * 2 + number) * 64;
        let record = move |at: usize| Record { addr: at, size: at / 3, cell: cell.0, sampled: 1 };
        let shared = (table.clone(), live.clone());
        threads_of(2, move |number| {
            let (table, live) = &shared;
            for at in (0..6).map(|i| addr(number, i)) {
                assert!(live.set(at, cell));
                table.note(record(at), live);
            }
            assert!(live.take(addr(number, 0)).is_some());
        });
        for number in 0..2 {
            for at in (1..6).map(|i| addr(number, i)) {
                assert_eq!(table.lookup_unlocked(at, cell.0), Some(record(at)));
            }
        }
        assert_eq!(table.dropped(), 0);
    });
}

/// Three threads take the lock twice each: one at a time, and nobody sleeps for ever.
#[test]
fn lock_lets_one_in_and_wakes_the_next() {
    explore(|| {
        let lock = Arc::new(Lock::new((0u32, false)));
        let shared = lock.clone();
        threads_of(3, move |_| {
            for _ in 0..2 {
                let mut inside = shared.lock();
                assert!(!core::mem::replace(&mut inside.1, true), "two are in");
                thread::yield_now();
                inside.0 += 1;
                inside.1 = false;
            }
        });
        assert_eq!(lock.lock().0, 6);
    });
}

/// Three threads fill lists and drop them: no piece of memory is two lists' at a time.
#[test]
fn arena_pieces_belong_to_one_list() {
    explore(|| {
        let shared = Arc::new(());
        threads_of(3, move |number| {
            let _alive = &shared;
            for round in 0..2 {
                let mut lists: [List<usize>; 2] = [List::new(), List::new()];
                for (at, list) in lists.iter_mut().enumerate() {
                    assert!(list.push(number * 100 + round * 10 + at));
                    thread::yield_now();
                }
                for (at, list) in lists.iter().enumerate() {
                    assert_eq!(list[..], [number * 100 + round * 10 + at]);
                }
            }
        });
    });
}

/// Three threads take small memory until a sheet is full: nobody's is another's, and all is zero, also where it was used before a
/// release (the last model's).
#[test]
fn arena_small_memory_belongs_to_one() {
    const WORDS: usize = 40_000;
    explore(|| {
        threads_of(3, |number| {
            let taken: Vec<_> = (0..2).map(|_| arena::zeroed::<usize>(WORDS).unwrap()).collect();
            for (at, words) in taken.into_iter().enumerate() {
                for end in [0, WORDS - 1] {
                    assert_eq!(core::mem::replace(&mut words[end], number * 10 + at + 1), 0);
                    thread::yield_now();
                    assert_eq!(words[end], number * 10 + at + 1);
                }
            }
        });
    });
}
