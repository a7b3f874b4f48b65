//! An access of a warp, split into the words that its lanes touch.

/// Lanes of one instruction that touch the same word.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The word, by its number.
    pub word: u64,
    /// Which of its bytes.
    pub bytes: u8,
    /// The first lane.
    pub lane: u32,
    /// Whether there are more lanes.
    pub several: bool,
    /// Whether they touch different bytes.
    pub mixed: bool,
}

/// Splits the accesses of a warp into words. Neighbouring lanes that touch the same word come as one group, except
/// lanes that write the same bytes: these are kept apart, for they race. The first result that is not `None` ends it.
#[inline(always)]
pub fn groups<T>(
    mask: u32,
    addresses: &[u64; 32],
    bytes: u32,
    write: bool,
    mut visit: impl FnMut(Group) -> Option<T>,
) -> Option<T> {
    if bytes >= 4 {
        let words = u64::from(bytes / 4);
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros();
            rest &= rest - 1;
            let address = addresses[lane as usize];
            let mut next = lane + 1;
            while !write && next < 32 && rest >> next & 1 != 0 && addresses[next as usize] == address {
                rest &= rest - 1;
                next += 1;
            }
            let several = next > lane + 1;
            for i in 0..words {
                let found = visit(Group { word: address / 4 + i, bytes: 0xf, lane, several, mixed: false });
                if found.is_some() {
                    return found;
                }
            }
        }
        return None;
    }
    let mut current: Option<Group> = None;
    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
        let address = addresses[lane as usize];
        let (word, part) = (address / 4, (((1u32 << bytes) - 1) << (address & 3)) as u8 & 0xf);
        match &mut current {
            Some(group) if group.word == word && !(write && group.bytes & part != 0) => {
                group.several = true;
                group.mixed |= group.bytes != part;
                group.bytes |= part;
            }
            _ => {
                if let Some(found) = current.take().and_then(&mut visit) {
                    return Some(found);
                }
                current = Some(Group { word, bytes: part, lane, several: false, mixed: false });
            }
        }
    }
    current.and_then(visit)
}

/// The first word, if all 32 lanes access neighbouring places, in order, that are whole words together.
#[inline(always)]
pub fn neighbours(mask: u32, addresses: &[u64; 32], bytes: u32) -> Option<u64> {
    if mask != u32::MAX || !addresses[0].is_multiple_of(4) || !bytes.is_power_of_two() {
        return None;
    }
    let mut differs = 0;
    for (lane, address) in (0..).zip(addresses) {
        differs |= address ^ addresses[0].wrapping_add(lane * u64::from(bytes));
    }
    (differs == 0).then_some(addresses[0] / 4)
}

/// Words that are looked at together where not all lanes of an access are neighbours: one lane's, or those of a few.
pub const FOUR: usize = 4;

/// The first word, if the lanes from `first` on that access [`FOUR`] words together, `bytes` bytes each, are neighbours.
#[inline(always)]
pub fn four(addresses: &[u64; 32], first: usize, bytes: u64) -> Option<u64> {
    let lanes = &addresses[first..first + 4 * FOUR / bytes as usize];
    let differs =
        (0..).zip(lanes).fold(0, |differs, (lane, address)| differs | address ^ lanes[0].wrapping_add(bytes * lane));
    (differs == 0).then_some(lanes[0] / 4)
}

/// Where the neighbours of a lane of the mask end that it begins.
#[inline(always)]
pub fn run(mask: u32, addresses: &[u64; 32], bytes: u64, first: usize) -> usize {
    let goes_on = |lane: &usize| mask >> lane & 1 != 0 && addresses[*lane] == addresses[lane - 1].wrapping_add(bytes);
    (first + 1..32).find(|lane| !goes_on(lane)).unwrap_or(32)
}
