//! A Rust program: boxes, strings, threads with thread-local values that drop, a leak by `forget`, one by a cycle of `Rc`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread;

thread_local! {
    static LOCAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Node {
    other: RefCell<Option<Rc<Node>>>,
    _bytes: [u8; 1000],
}

#[inline(never)]
fn forget_a_vector() {
    std::mem::forget(std::hint::black_box(vec![1u8; 1337]));
}

#[inline(never)]
fn tie_a_cycle() {
    let node = || Rc::new(Node { other: RefCell::new(None), _bytes: [1; 1000] });
    let (one, two) = (node(), node());
    *one.other.borrow_mut() = Some(two.clone());
    *two.other.borrow_mut() = Some(one);
}

#[inline(never)]
fn work(number: usize) -> usize {
    let mut map = HashMap::new();
    for i in 0..1000 {
        map.insert(format!("key {}", i * number), vec![i; i % 50]);
        LOCAL.with(|local| local.borrow_mut().push(format!("local {i}")));
    }
    map.values().map(Vec::len).sum()
}

#[inline(never)]
fn scrub(depth: usize) -> usize {
    let room = std::hint::black_box([0usize; 512]);
    if depth == 0 { room[1] } else { scrub(depth - 1) + room[depth % 512] }
}

fn main() {
    let threads: Vec<_> = (1..5).map(|number| thread::spawn(move || work(number))).collect();
    let sum: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    std::panic::set_hook(Box::new(|_| ()));
    let caught = std::panic::catch_unwind(|| panic!("caught")).is_err();
    forget_a_vector();
    tie_a_cycle();
    println!("{sum} {caught} {}", scrub(20));
}
