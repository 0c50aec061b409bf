//! Unwind tables as compilers write them, read in place: the search table of `.eh_frame_hdr`, one entry of `.eh_frame`, and of what it
//! says the CFA, the return address and the frame pointer (DWARF 5, section 6.4; the Linux Standard Base on `.eh_frame`).
//!
//! Whatever is out of the ordinary (expressions, other encodings, anything that does not fit) gives `None`, and gimli, which knows all of
//! it, is asked instead. It takes 13,400 instructions for an address of cc1plus, this 2,200, and a process asks for each return address.

/// Where the registers that unwinding follows are, at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Register number and offset.
    pub cfa: (u64, i64),
    pub return_address: Place,
    pub frame_pointer: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is said of it.
    Unsaid,
    Undefined,
    /// It is the caller's.
    Same,
    /// So far from the CFA.
    AtCfa(i64),
}

/// Numbers of the two registers, by the CPU's ABI.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub return_address: u64,
    pub frame_pointer: u64,
}

/// Bytes yet to be read. All numbers are little-endian, as on both CPUs.
#[derive(Clone, Copy)]
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - 7 - shift;
                return Some(value << unused >> unused);
            }
        }
        None
    }
}

/// What an entry shares with others (the CIE).
struct Common<'b> {
    code: u64,
    data: i64,
    signal: bool,
    instructions: Bytes<'b>,
}

/// An answer of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Row(Row),
    /// The kernel's signal trampoline.
    Signal,
}

/// What the tables say of the code at `pc`. `header` begins with `.eh_frame_hdr`, at the address `start`, and reaches to the end of the
/// file's mapping; `.eh_frame` lies within it or before: `frames` gives the bytes from an address on.
pub(super) fn look_up<'b>(
    header: &'b [u8],
    start: usize,
    frames: impl Fn(usize) -> Option<&'b [u8]>,
    pc: usize,
    numbers: Numbers,
) -> Option<Answer> {
    // Version 1; pc-relative start of .eh_frame, a 4-byte count, pairs of 4-byte distances from the header: as all linkers write it.
    const USUAL: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
    let mut bytes = Bytes(header);
    if bytes.array()? != USUAL {
        return None;
    }
    bytes.word()?;
    let count = bytes.word()? as usize;
    let (table, _) = bytes.take(count.checked_mul(8)?)?.as_chunks::<8>();
    let distance = |pair: &[u8; 8], at: usize| i32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
    let wanted = i32::try_from(pc.wrapping_sub(start).cast_signed()).ok()?;
    let behind = table.partition_point(|pair| distance(pair, 0) <= wanted);
    let entry = start.wrapping_add_signed(distance(table.get(behind.checked_sub(1)?)?, 4) as isize);

    let (mut bytes, at) = entry_at(&frames, entry)?;
    let back = bytes.word()? as usize;
    let common = common_at(&frames, at.checked_sub(back).filter(|_| back != 0)?, numbers)?;
    // The function's start, from here, and its length.
    let first = (at + 4).wrapping_add_signed(bytes.word()?.cast_signed() as isize);
    let len = bytes.word()? as usize;
    let inside = pc.checked_sub(first).filter(|inside| *inside < len)?;
    let own = bytes.uleb()?;
    bytes.take(usize::try_from(own).ok()?)?;
    if common.signal {
        return Some(Answer::Signal);
    }
    let none = Row { cfa: (u64::MAX, 0), return_address: Place::Unsaid, frame_pointer: Place::Unsaid };
    let mut machine = Machine { common: &common, numbers, row: none, first: none, kept: [none; 4], depth: 0 };
    machine.run(common.instructions, u64::MAX)?;
    machine.first = machine.row;
    machine.run(bytes, inside as u64)?;
    Some(Answer::Row(machine.row))
}

/// The bytes of the entry at an address, behind its length, and where they lie.
fn entry_at<'b>(frames: &impl Fn(usize) -> Option<&'b [u8]>, entry: usize) -> Option<(Bytes<'b>, usize)> {
    let mut bytes = Bytes(frames(entry)?);
    let len = bytes.word().filter(|len| *len < 0xffff_fff0)?;
    Some((Bytes(bytes.take(len as usize)?), entry + 4))
}

fn common_at<'b>(frames: &impl Fn(usize) -> Option<&'b [u8]>, entry: usize, numbers: Numbers) -> Option<Common<'b>> {
    let (mut bytes, _) = entry_at(frames, entry)?;
    let (id, version) = (bytes.word()?, bytes.byte()?);
    if id != 0 || version != 1 || bytes.byte()? != b'z' {
        return None;
    }
    let mut letters = Bytes(bytes.0);
    while bytes.byte()? != 0 {}
    let (code, data) = (bytes.uleb()?, bytes.sleb()?);
    if u64::from(bytes.byte()?) != numbers.return_address {
        return None;
    }
    let len = bytes.uleb()?;
    let mut augmentation = Bytes(bytes.take(usize::try_from(len).ok()?)?);
    let (mut signal, mut encoding) = (false, 0);
    loop {
        match letters.byte()? {
            0 => break,
            b'R' => encoding = augmentation.byte()?,
            b'L' => drop(augmentation.byte()?),
            b'P' => {
                // The personality's address, of 4 or 8 bytes.
                let len = match augmentation.byte()? {
                    // Aligned.
                    0x50..0x60 => return None,
                    encoding => encoding & 0x0f,
                };
                let len = match len {
                    0x03 | 0x0b => 4,
                    0x00 | 0x04 | 0x0c => 8,
                    _ => return None,
                };
                augmentation.take(len)?;
            }
            b'S' => signal = true,
            _ => return None,
        }
    }
    const RELATIVE_OF_4: u8 = 0x1b;
    (encoding == RELATIVE_OF_4).then_some(Common { code, data, signal, instructions: bytes })
}

/// Carries out call frame instructions.
struct Machine<'c, 'b> {
    common: &'c Common<'b>,
    numbers: Numbers,
    row: Row,
    /// As the shared instructions leave it.
    first: Row,
    kept: [Row; 4],
    depth: usize,
}

impl Machine<'_, '_> {
    /// Until a row begins behind `inside`, counted from the function's start.
    fn run(&mut self, mut bytes: Bytes<'_>, inside: u64) -> Option<()> {
        let code = self.common.code;
        let mut at = 0u64;
        loop {
            // Pushes and pops, nearly all of a table: a short way forward, and then the CFA is so far away.
            while let [forward @ 0x40..0x80, 0x0e, offset @ 0..0x80, rest @ ..] = bytes.0 {
                at = at.checked_add(u64::from(forward & 0x3f).checked_mul(code)?)?;
                if at > inside {
                    return Some(());
                }
                self.row.cfa.1 = i64::from(*offset);
                bytes.0 = rest;
            }
            let Some(instruction) = bytes.byte() else { return Some(()) };
            let low = u64::from(instruction & 0x3f);
            let forward = match instruction {
                0x40..0x80 => low,
                0x02 => u64::from(bytes.byte()?),
                0x03 => u64::from(u16::from_le_bytes(bytes.array()?)),
                0x04 => u64::from(bytes.word()?),
                _ => {
                    self.carry_out(instruction, low, &mut bytes)?;
                    continue;
                }
            };
            at = at.checked_add(forward.checked_mul(code)?)?;
            if at > inside {
                return Some(());
            }
        }
    }

    fn carry_out(&mut self, instruction: u8, low: u64, bytes: &mut Bytes<'_>) -> Option<()> {
        let data = self.common.data;
        let scaled = |offset: u64| i64::try_from(offset).ok()?.checked_mul(data);
        match instruction {
            // nop
            0x00 => {}
            // offset
            0x80..0xc0 => self.set(low, Place::AtCfa(scaled(bytes.uleb()?)?)),
            // restore, restore_extended
            0xc0.. => self.restore(low),
            0x06 => self.restore(bytes.uleb()?),
            // offset_extended, undefined, same_value, offset_extended_sf
            0x05 => {
                let register = bytes.uleb()?;
                self.set(register, Place::AtCfa(scaled(bytes.uleb()?)?));
            }
            0x07 => self.set(bytes.uleb()?, Place::Undefined),
            0x08 => self.set(bytes.uleb()?, Place::Same),
            0x11 => {
                let register = bytes.uleb()?;
                self.set(register, Place::AtCfa(bytes.sleb()?.checked_mul(data)?));
            }
            // expression, val_expression: of other registers
            0x10 | 0x16 => {
                let register = bytes.uleb()?;
                if self.place(register).is_some() {
                    return None;
                }
                let len = bytes.uleb()?;
                bytes.take(usize::try_from(len).ok()?)?;
            }
            // remember_state, restore_state
            0x0a => {
                *self.kept.get_mut(self.depth)? = self.row;
                self.depth += 1;
            }
            0x0b => {
                self.depth = self.depth.checked_sub(1)?;
                self.row = self.kept[self.depth];
            }
            // def_cfa, def_cfa_register, def_cfa_offset, def_cfa_sf, def_cfa_offset_sf
            0x0c => self.row.cfa = (bytes.uleb()?, i64::try_from(bytes.uleb()?).ok()?),
            0x0d => self.row.cfa.0 = bytes.uleb()?,
            0x0e => self.row.cfa.1 = i64::try_from(bytes.uleb()?).ok()?,
            0x12 => self.row.cfa = (bytes.uleb()?, bytes.sleb()?.checked_mul(data)?),
            0x13 => self.row.cfa.1 = bytes.sleb()?.checked_mul(data)?,
            // GNU_args_size
            0x2e => drop(bytes.uleb()?),
            _ => return None,
        }
        Some(())
    }

    fn place(&mut self, register: u64) -> Option<&mut Place> {
        if register == self.numbers.return_address {
            Some(&mut self.row.return_address)
        } else if register == self.numbers.frame_pointer {
            Some(&mut self.row.frame_pointer)
        } else {
            None
        }
    }

    fn set(&mut self, register: u64, to: Place) {
        if let Some(place) = self.place(register) {
            *place = to;
        }
    }

    fn restore(&mut self, register: u64) {
        let first = self.first;
        if register == self.numbers.return_address {
            self.row.return_address = first.return_address;
        } else if register == self.numbers.frame_pointer {
            self.row.frame_pointer = first.frame_pointer;
        }
    }
}
