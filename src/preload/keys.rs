//! Values under keys of pthread_key_create that were deleted since: glibc leaves them in the threads' tables, and changes the number of
//! the key alone, by which pthread_getspecific knows that they are nobody's.
//!
//! Where the tables lie is what libc says to debuggers (`nptl_db`); where it says nothing, such values keep their blocks.
#![allow(unsafe_code)] // reads libc's tables

use crate::shims::pthread_of;
use crate::symbols::Search;
use crate::threads;
use leakscan_engine::sys;

/// Keys of a table of the second level, and tables.
const LEVEL: usize = 32;

/// Where libc keeps its keys, and each thread its tables of values.
pub struct Keys {
    keys: usize,
    /// Of the list of tables in `struct pthread`.
    tables: usize,
    /// Of `struct pthread` in all.
    size: usize,
}

impl Keys {
    /// `None` where libc does not say, or says something else than it has for long.
    pub fn find() -> Option<Self> {
        let search = Search::new();
        let keys = search.address(c"__pthread_keys")?;
        // Bits of an element, how many there are, and the offset (`DESC` of libthread_db).
        let said = |name| {
            let place = search.address(name)? as *const u32;
            // SAFETY: three words of libc's, as each of these names stands for.
            Some(unsafe { (*place, *place.add(1), *place.add(2) as usize) })
        };
        let (bits, 1, tables) = said(c"_thread_db_pthread_specific")? else { return None };
        // SAFETY: a word of libc's.
        let size = unsafe { *(search.address(c"_thread_db_sizeof_pthread")? as *const u32) } as usize;
        let as_ever = bits as usize == LEVEL * 64
            && said(c"_thread_db___pthread_keys")? == (128, (LEVEL * LEVEL) as u32, 0)
            && said(c"_thread_db_pthread_key_data_seq")? == (64, 1, 0)
            && said(c"_thread_db_pthread_key_data_data")? == (64, 1, 8)
            && said(c"_thread_db_pthread_key_struct_seq")? == (64, 1, 0);
        as_ever.then_some(Self { keys, tables, size })
    }

    /// A key's number: odd while it is in use.
    fn number(&self, key: usize) -> usize {
        // SAFETY: of libc's table of LEVEL * LEVEL keys, each of its number and its destructor.
        unsafe { ((self.keys + key * 16) as *const usize).read_volatile() }
    }

    /// Whether a key was ever deleted.
    pub fn were_deleted(&self) -> bool {
        (0..LEVEL * LEVEL).any(|key| self.number(key) > 1)
    }

    /// The places of the values that a thread has under keys that are others by now, or none.
    pub fn stale(&self, tls: usize) -> impl Iterator<Item = usize> {
        let tables: Option<[usize; LEVEL]> = match threads::is_control_block(tls) {
            true => sys::peek(pthread_of(tls, self.size) + self.tables),
            // Not known, or a program's that uses the register for something else.
            false => None,
        };
        let tables = tables.unwrap_or([0; LEVEL]);
        tables.into_iter().enumerate().filter(|(_, table)| *table != 0).flat_map(move |(level, table)| {
            let pairs: [usize; LEVEL * 2] = sys::peek(table).unwrap_or([0; LEVEL * 2]);
            (0..LEVEL).filter_map(move |at| {
                let stale = pairs[at * 2 + 1] != 0 && pairs[at * 2] != self.number(level * LEVEL + at);
                stale.then_some(table + at * 16 + 8)
            })
        })
    }
}
