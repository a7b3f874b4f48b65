//! Parts of words.

use super::super::clock::Lanes;
use super::super::race::Kind;
use super::ALL;
use super::block::Stage;

#[test]
fn halves_of_a_word_belong_to_different_lanes() {
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Write, ALL, 2, |i| 2 * i), None);
    assert_eq!(s.access(0, Kind::Read, ALL, 2, |i| 2 * i), None);
    assert!(s.access(1, Kind::Read, 1, 2, |_| 6).is_some(), "another warp reads them unordered");
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Write, 1, 2, |_| 0), None);
    assert_eq!(s.access(1, Kind::Write, 1, 2, |_| 2), None, "different bytes of a word");
    assert!(s.access(0, Kind::Write, 2, 2, |_| 2).is_none(), "of a mixed record the block itself is not accused");
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Read, ALL, 1, |i| i), None);
    assert_eq!(s.access(1, Kind::Read, ALL, 1, |i| i), None);
    assert!(s.access(1, Kind::Write, 1, 1, |_| 5).is_some());
}

#[test]
fn parts_of_a_word_that_one_lane_had_whole() {
    // Lane 0 has the word, its warp meets, and then its lanes have halves; or they do not meet.
    for (first, then) in [(Kind::Write, Kind::Write), (Kind::Write, Kind::Read), (Kind::Read, Kind::Write)] {
        for meets in [Some(ALL), Some(3), None] {
            let mut s = Stage::new();
            s.access(0, first, 1, 4, |_| 0);
            if let Some(mask) = meets {
                s.clock.meet(0, mask, ALL);
            }
            assert_eq!(s.access(0, first, 1, 2, |_| 0), None);
            assert_eq!(s.access(0, then, 2, 2, |_| 2).is_some(), meets.is_none(), "{first:?} {then:?} {meets:?}");
            // The other warp has met nobody: of either half, and of the whole.
            assert!(s.access(1, then, 1, 2, |_| 2).is_some() && s.access(1, then, 1, 2, |_| 0).is_some());
            // Whoever has the whole word has the half that the first lane had just now, too.
            assert!(s.access(0, then, 4, 4, |_| 0).is_some());
            s.clock.meet(0, ALL, ALL);
            assert_eq!(s.access(0, Kind::Write, 4, 4, |_| 0), None);
        }
    }
}

#[test]
fn who_keeps_to_its_own_part_of_a_word() {
    // Each lane has a part of its own; some write theirs again at a later tick, and read it. What others do meets nobody.
    for bytes in [1, 2] {
        for some in [ALL, 0xaaaa_aaaa, 1 << 5] {
            let mut s = Stage::new();
            let mut touch = |kind, mask| {
                s.clock.arrive(1, Lanes::ALL, 1, false);
                s.access(0, kind, mask, bytes, |i| u64::from(bytes) * i)
            };
            let found = [(Kind::Write, ALL), (Kind::Write, some), (Kind::Read, some), (Kind::Write, some)];
            assert_eq!(found.map(|(kind, mask)| touch(kind, mask)), [None; 4], "{bytes} bytes, {some:#x}");
        }
    }
}

#[test]
fn parts_of_a_word_that_were_touched_since() {
    // Lane 0 has the word, its warp meets, lane 0 has a half again: of that half, nobody was told.
    for (half, found) in [(0, true), (2, false)] {
        let mut s = Stage::new();
        s.access(0, Kind::Write, 1, 4, |_| 0);
        s.clock.meet(0, ALL, ALL);
        assert_eq!(s.access(0, Kind::Write, 1, 2, |_| 0), None);
        assert_eq!(s.access(0, Kind::Write, 2, 2, |_| half).is_some(), found);
    }
    // Of three bytes that follow each other, the last is kept apart from the two before it.
    let mut s = Stage::new();
    for byte in 0..3 {
        assert_eq!(s.access(0, Kind::Write, 1, 1, |_| byte), None);
        s.clock.arrive(0, Lanes::ALL, 1, false);
        if byte == 0 {
            s.clock.arrive(1, Lanes::ALL, 1, true);
            s.clock.complete(1, true);
            s.clock.leave(1, 1);
        }
    }
    assert_eq!(s.access(1, Kind::Read, 1, 1, |_| 0), None);
    assert!(s.access(1, Kind::Write, 1, 1, |_| 2).is_some());
}
