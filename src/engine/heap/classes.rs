//! The sizes of the heap's blocks.

/// The largest blocks that come from here, in bytes.
pub const LARGEST: usize = 4096;
/// The smallest: 16 bytes are too few, as a block owns two cells of the live map.
pub const SMALLEST: usize = 32;
/// Bytes of the classes' blocks, whose 0 is of none: every 16 bytes from [`SMALLEST`] up to 256, from there eight to a
/// doubling.
pub const SIZES: [usize; CLASSES] = {
    let mut table = [0; CLASSES];
    let (mut class, mut size) = (1, SMALLEST);
    while size <= LARGEST {
        table[class] = size;
        class += 1;
        size += if size < 256 { 16 } else { 1 << (size.ilog2() - 3) };
    }
    table
};
/// More than there are, so that any number of six bits is one.
pub const CLASSES: usize = 64;
/// The class of a block that has room for so many times 16 bytes.
pub const CLASS_OF: [u8; LARGEST / 16 + 1] = {
    let mut table = [0; LARGEST / 16 + 1];
    let (mut units, mut class) = (0, 1);
    while units < table.len() {
        if units * 16 > SIZES[class as usize] {
            class += 1;
        }
        table[units] = class;
        units += 1;
    }
    table
};
/// Blocks of a class that a thread keeps at most.
pub const MOST: [u16; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut class = 1;
    while class < CLASSES && SIZES[class] != 0 {
        let blocks = (16 << 10) / SIZES[class];
        table[class] = if blocks < ROOM { blocks } else { ROOM } as u16;
        class += 1;
    }
    table
};
pub const ROOM: usize = 64;
